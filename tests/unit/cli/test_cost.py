"""The cost model: whether a fit finds what made the figures, and how its predictions grow."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbeauty import cost_file
from pbeauty.cli.forecast import forecast
from pbeauty.config.loader import loads
from pbeauty.cost import PARTS, CostModel, Exchange, Measurement, Traffic, Work, work_of
from pbeauty.cost_file import Scaling
from pbeauty.cost_fit import fit
from pbeauty.errors import ConfigError
from pbeauty.pace import pace

TRAFFIC = Traffic(meetings=3, collectives=4, bytes=200, bytes_per_rank=30, bytes_per_participant=23)
TYPICAL = {
    "start_per_job": 0.5, "start_per_rank": 0.8, "leave_engines": 2.0, "load_job": 0.02, "load_engine": 9.0,
    "guess": 5e-8, "engine_own": 8e-4, "engine_shared": 6e-4, "engine_history": 1e-4, "engine_round": 0.1,
    "report": 0.01, "round": 0.02, "meeting": 0.015, "latency": 2e-5, "byte_sent": 1e-9, "score": 1e-7,
    "moderate": 3e-8, "byte_stored": 1e-9, "byte_by_block": 2e-9, "reply_stored": 5e-6, "figures_per_job": 0.4,
    "figures_per_round": 0.25, "figures_per_guess": 1e-7, "rank_memory": 6e7, "drawing_memory": 9e7,
    "engine_memory": 2e9, "guess_memory": 60.0, "participant_memory": 4e3, "moderated_memory": 80.0,
    "stored_memory": 2.0,
}  # fmt: skip


def job(participants, ranks, rounds, *, llm=False, nodes=1, cores=2):
    group = {"name": "g", "count": participants, "kind": "uniform"}
    if llm:
        group |= {"kind": "llm", "model": "demo"}
    experiment = loads(json.dumps({"name": "x", "game": {"rounds": rounds}, "population": [group]}))
    return work_of(experiment, ranks, nodes, cores)


JOBS = [job(*of) for of in product((10**3, 10**5, 10**7), (1, 2, 3, 5, 9), (1, 3, 10))]
JOBS += [job(*of, llm=True) for of in product((10**2, 10**4), (1, 2, 3, 5), (1, 3, 6))]


def model(**coefficients):
    return CostModel(TYPICAL | coefficients, TRAFFIC, 2)


def taken(truth, works, noise=0.0, seed=0):
    """Measured runs of a world where the model is true, but for noise."""
    rng = np.random.default_rng(seed)
    found = []
    for work in works:
        p = truth.predict(work)
        blur = np.exp(noise * rng.standard_normal(8))
        seconds = {part: p.seconds[part] * b for part, b in zip(PARTS, blur, strict=False)}
        memory = p.moderator_memory * blur[5], p.host_memory * blur[6]
        found.append(Measurement(work, seconds, sum(seconds.values()), 1.0, *memory, p.memory * blur[7]))
    return found


def exchanged(truth, ranks=(2, 3, 5)):
    c = truth.coefficients
    return [
        Exchange("allreduce", size, 8, count, c["latency"] * (size - 1).bit_length() + c["byte_sent"] * count)
        for size in ranks
        for count in (8, 10**3, 10**6)
    ]


@settings(max_examples=20)
@given(st.fixed_dictionaries({name: st.floats(0.5, 2.0) for name in TYPICAL}))
def test_a_fit_finds_the_coefficients_that_made_the_figures(factors):
    truth = CostModel({name: value * factors[name] for name, value in TYPICAL.items()}, TRAFFIC, 2)
    found = fit(taken(truth, JOBS), exchanged(truth), TRAFFIC)
    for name, value in truth.coefficients.items():
        assert found.coefficients[name] == pytest.approx(value, rel=1e-3), name


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.fixed_dictionaries({name: st.floats(0.5, 2.0) for name in TYPICAL}))
def test_from_noisy_figures_it_still_predicts_jobs_that_it_has_not_seen(seed, factors):
    truth = CostModel({name: value * factors[name] for name, value in TYPICAL.items()}, TRAFFIC, 2)
    found = fit(taken(truth, JOBS, noise=0.05, seed=seed), exchanged(truth), TRAFFIC)
    for unseen in (job(3 * 10**6, 4, 5), job(3 * 10**4, 3, 2, llm=True)):
        assert found.predict(unseen).wall_seconds == pytest.approx(truth.predict(unseen).wall_seconds, rel=0.15)
        assert found.predict(unseen).memory == pytest.approx(truth.predict(unseen).memory, rel=0.15)


def test_what_the_runs_say_nothing_about_stays_undetermined():
    one_rank = [job(count, 1, rounds) for count in (10**3, 10**5, 10**6) for rounds in (1, 3, 10)]
    found = fit(taken(model(), one_rank), [], TRAFFIC)
    missing = {name for name, value in found.coefficients.items() if value is None}
    assert {"meeting", "latency", "byte_sent", "report", "load_engine", "engine_own", "engine_memory"} <= missing
    assert not missing & {"guess", "round", "figures_per_round", "start_per_job"}
    assert found.engine_rate is None
    unknown = found.predict(job(1000, 3, 2, llm=True)).unknown
    assert {"meeting", "load_engine", "engine_own"} <= set(unknown)
    assert "guess" not in unknown, "nobody plays without a model there"
    with pytest.raises(ConfigError, match="not held out"):
        fit([dataclasses.replace(m, held_out=True) for m in taken(model(), one_rank)], [], TRAFFIC)


def test_held_out_runs_do_not_touch_the_fit():
    runs = taken(model(), JOBS)
    absurd = [dataclasses.replace(m, seconds=dict.fromkeys(PARTS, 1e6), held_out=True) for m in runs[:5]]
    assert fit(runs + absurd, [], TRAFFIC) == fit(runs, [], TRAFFIC)


def test_rounds_grow_linearly_with_participants_per_rank():
    def rounds(participants):
        return model().predict(job(participants, 9, 3)).round_seconds

    assert rounds(3 * 10**6) - rounds(2 * 10**6) == pytest.approx(rounds(2 * 10**6) - rounds(10**6))


def test_rounds_grow_logarithmically_with_ranks():
    crowded = model(moderate=0.0, byte_stored=0.0)  # what is of the whole population, and not of ranks
    traffic = dataclasses.replace(TRAFFIC, bytes_per_rank=0, bytes_per_participant=0)
    crowded = dataclasses.replace(crowded, traffic=traffic)

    def rounds(ranks):
        return crowded.predict(job(1000 * (ranks - 1), ranks, 3, nodes=ranks)).round_seconds

    steps = [rounds(2**k) for k in range(1, 11)]
    assert np.diff(steps) == pytest.approx(np.full(9, 3 * (3 * 0.015 + 4 * 2e-5)))


def test_ranks_of_a_node_share_its_cores():
    alone, crowded = (job(10**6, 9, 3, nodes=nodes, cores=2) for nodes in (9, 1))
    assert crowded.crowding(8) == 4.0 and alone.crowding(1) == 1.0
    assert model().predict(crowded).seconds["start"] > model().predict(alone).seconds["start"]
    assert model().predict(crowded).memory == model().predict(alone).memory


def test_thinking_takes_as_long_as_it_takes():
    work = dataclasses.replace(job(100, 2, 4), think_seconds=5.0)
    assert model().predict(work).seconds["playing"] == 20.0


def test_the_rate_of_an_engine_can_come_from_elsewhere():
    assert model().engine_rate == pytest.approx(1 / (8e-4 + 6e-4 / 2))
    work = job(10**5, 2, 3, llm=True)
    faster = model(engine_round=0.0, report=0.0).with_engine_rate(50.0)
    assert faster.engine_rate == 50.0
    assert faster.predict(work).seconds["playing"] == pytest.approx(3 * 10**5 / 50)


def test_what_one_model_took_is_not_said_of_another(tmp_path):
    (tmp_path / "s.json").write_text(dataclasses.replace(SCALING, model=model()).dump())
    described = "name: x\nmodels: {m: {path: %s}}\npopulation: [{name: a, count: 1000, kind: llm, model: m}]"
    shipped, other = (loads(described % path) for path in ("demo", "/somewhere/else"))
    assert forecast(shipped, 2, pace(tmp_path / "s.json", None))["undetermined"] == []
    found = forecast(other, 2, pace(tmp_path / "s.json", None))
    assert {"load_engine", "engine_own", "engine_memory"} <= set(found["undetermined"])
    found = forecast(other, 2, pace(tmp_path / "s.json", 20.0))
    assert {"load_engine", "engine_memory"} <= set(found["undetermined"])
    assert "engine_own" not in found["undetermined"]
    assert found["seconds_by_part"]["playing"] == pytest.approx(
        other.game.rounds * (1000 / 20 + TYPICAL["report"]), rel=1e-6
    )


def test_the_work_of_a_mixed_experiment_is_that_of_its_largest_blocks():
    experiment = loads(
        "name: x\ngame: {rounds: 3}\npopulation: [{name: a, count: 101, kind: llm},"
        " {name: b, count: 10, kind: uniform, think_time: 2}]"
    )
    assert work_of(experiment, 3, 2, 4) == Work(111, 3, 3, 2, 4, 2, 5, 51, 2, 2.0)
    with pytest.raises(ConfigError, match="need"):
        work_of(loads("name: x\nmodels: {m: {path: demo}, n: {path: demo}}\npopulation: [{name: a, count: 1, kind: llm,"
                      " model: m}, {name: b, count: 1, kind: llm, model: n}]"), 2, 2, 2)  # fmt: skip


SCALING = Scaling(
    {"cpu": "some", "cores": 2}, tuple(taken(model(), JOBS[:4])), tuple(exchanged(model())), model(guess=None)
)


def test_the_result_of_a_bench_comes_back_as_it_was(tmp_path):
    assert cost_file.parse(SCALING.dump()) == SCALING
    (tmp_path / "s.json").write_text(SCALING.dump())
    assert cost_file.load(tmp_path / "s.json") == SCALING


@settings(max_examples=60)
@given(
    st.recursive(st.none() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)), st.data()
)
def test_other_files_are_refused_with_a_sentence(value, data):
    document = json.loads(SCALING.dump())
    keys = [("format",), ("machine",), ("measurements",), ("exchanges",), ("model",), ("model", "coefficients"),
            ("model", "coefficients", "guess"), ("model", "traffic"), ("model", "cores"), ("measurements", 0),
            ("measurements", 0, "work"), ("measurements", 0, "seconds")]  # fmt: skip
    *where, last = data.draw(st.sampled_from(keys))
    at = document
    for key in where:
        at = at[key]
    at[last] = value
    try:
        found = cost_file.parse(json.dumps(document))
    except ConfigError as error:
        assert "the document is" in str(error)
    else:  # an empty list of runs, or a coefficient that could be one
        assert found.model.coefficients["guess"] is None or found.model.coefficients["guess"] < math.inf


def test_no_json_at_all_is_refused():
    for text in ("", "[]", "{}", "[" * 100_000, '{"format": "pbeauty-scaling-0"}'):
        with pytest.raises(ConfigError, match="the document is"):
            cost_file.parse(text)
