"""The bench of whole jobs, small but real: launched, measured, fitted, drawn, and used by a forecast."""

from __future__ import annotations

import json

import mpi
import pytest

from pbeauty import cost_file
from pbeauty.bench_scaling import LLM, SCRIPTED, Job, plan, table
from pbeauty.cli.main import main
from pbeauty.cost import PARTS
from pbeauty.errors import ConfigError
from pbeauty.pace import pace
from pbeauty.plots.scaling import curves

SMALL = ("--most", "1000", "--llm-most", "0", "--ranks", "1,3", "--rounds", "1,3", "--repeats", "1")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """What a small bench printed, and the folder with what it saved."""
    folder = tmp_path_factory.mktemp("scaling")
    done = mpi.alone("bench", "--scaling", *SMALL, "--json", "--out", folder, timeout=400)
    assert done.code == 0, done.err
    assert "collectives of 3 rank(s)" in done.err and "scripted 1,000 x 3 rounds on 1 rank(s)" in done.err
    return done.out, folder


@pytest.fixture(scope="module")
def scaling(bench):
    return cost_file.parse(bench[0])


def test_every_job_is_measured_in_parts_that_add_up(scaling):
    assert {(m.work.participants, m.work.ranks) for m in scaling.measurements} >= {(100, 3), (1000, 3), (1000, 1)}
    assert {m.work.rounds for m in scaling.measurements if "rounds" in m.series} == {1, 3}
    for m in scaling.measurements:
        assert set(m.seconds) == set(PARTS)
        assert sum(m.seconds.values()) == pytest.approx(m.wall_seconds)
        assert 0 < m.cpu_seconds < m.work.cores * m.wall_seconds
        assert m.moderator_memory + m.host_memory <= m.memory < 10e9
        assert m.host_memory if m.work.ranks > 1 else not m.host_memory
        assert m.held_out != bool(m.series)
    assert any(m.held_out for m in scaling.measurements)
    assert scaling.machine["cores"] > 0 and "MPI" in scaling.machine["mpi"].upper()


def test_collectives_are_timed_and_counted(scaling):
    assert {e.operation for e in scaling.exchanges} == {"barrier", "meeting", "bcast", "allreduce", "gather"}
    assert all(e.seconds > 0 and e.ranks == 3 for e in scaling.exchanges)
    traffic = scaling.model.traffic
    assert traffic.meetings >= 1 and traffic.collectives >= 1, "somebody announces, somebody gathers"
    assert traffic.bytes + 3 * traffic.bytes_per_rank > 0
    assert traffic.bytes_per_participant == pytest.approx(9, rel=0.01), "a guess and its status are gathered"


def test_the_model_says_what_it_does_not_know(scaling):
    known = {name for name, value in scaling.model.coefficients.items() if value is not None}
    assert {"start_per_job", "guess", "round", "meeting", "latency", "figures_per_round", "rank_memory"} <= known
    assert not known & {"engine_own", "load_engine", "engine_memory"}, "no language model has played"
    shown = table(scaling)
    assert "not determined by these runs" in shown
    held_out = [m for m in scaling.measurements if m.held_out]
    rows = shown.split("held out of the fit")[1].split("\n\n")[0].splitlines()[1:]
    for m, row in zip(held_out, rows, strict=True):
        predicted = scaling.model.predict(m.work).wall_seconds
        assert f"{predicted / m.wall_seconds - 1:+.1%}" in row


def test_the_figure_and_what_is_behind_it_are_saved(bench, scaling):
    out, folder = bench
    assert sorted(path.name for path in folder.iterdir()) == ["scaling.json", "scaling.pdf", "scaling.png"]
    assert json.loads((folder / "scaling.json").read_text()) == json.loads(out)
    figure = curves(scaling)
    drawn = {line.get_gid(): line for panel in figure.axes for line in panel.lines if line.get_gid()}
    job = next(m for m in scaling.measurements if (m.work.participants, m.work.ranks) == (1000, 3) and m.series)
    assert drawn["guessing"].get_xdata()[-1] == 1000
    assert drawn["guessing"].get_ydata()[-1] == pytest.approx(job.seconds["playing"] / 3)
    assert len(drawn["held out of the fit"].get_xdata()) == sum(m.held_out for m in scaling.measurements)


def test_check_forecasts_whole_jobs_from_it(bench, tmp_path, capsys, scaling):
    path = bench[1] / "scaling.json"
    config = tmp_path / "crowd.yaml"
    config.write_text("name: crowd\ngame: {rounds: 2}\npopulation: [{name: crowd, count: 500, kind: uniform}]")
    assert main(["check", str(config), "--ranks", "3", "--bench", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["forecast"]
    assert found["wall_seconds"] == pytest.approx(sum(found["seconds_by_part"].values()))
    assert found["seconds"] < found["wall_seconds"]
    assert found["peak_memory_bytes"] == pytest.approx(
        found["memory_bytes"]["moderator"] + 2 * found["memory_bytes"]["host"]
    )
    assert found["undetermined"] == []
    assert main(["check", str(config), "--ranks", "3", "--bench", str(path), "--time-limit", "0:0"]) == 0
    shown = capsys.readouterr().out
    assert "of memory on the moderator" in shown and "WARNING: longer than the time limit" in shown


def test_check_forecasts_nodes_with_gpus(bench, capsys):
    path = bench[1] / "scaling.json"
    site = ["--nodes", "4", "--gpus-per-node", "8", "--rate", "20", "--bench", str(path)]
    assert main(["check", "configs/bench.yaml", "--set", "population.0.count=64000", *site, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["forecast"]
    assert (found["ranks"], found["engines"], found["nodes"]) == (33, 32, 4)
    cores = cost_file.load(path).model.cores
    assert found["seconds_by_part"]["playing"] >= 3 * 2000 / 20 * max(1, 8 / cores), "engines share the cores"
    assert main(["check", "configs/bench.yaml", "--set", "population.0.count=64000", *site, "--cores-per-node", "64",
                 "--json"]) == 0  # fmt: skip
    roomy = json.loads(capsys.readouterr().out)["forecast"]
    assert 300 <= roomy["seconds_by_part"]["playing"] < 310 and roomy["cores_per_node"] == 64
    assert "load_engine" in found["undetermined"]
    assert main(["check", "configs/bench.yaml", *site]) == 0
    assert "WARNING: counted as nothing, since the bench did not determine it: leave_engines" in capsys.readouterr().out
    wide = ["--set", "models.demo.path=demo", "--set", "models.demo.tensor_parallel_size=16"]
    assert main(["check", "configs/bench.yaml", *wide, *site]) == 2
    assert "an engine takes 16 GPUs (tensor_parallel_size), but a node has 8" in capsys.readouterr().err


def test_a_plan_varies_one_thing_at_a_time_and_holds_others_out():
    jobs, predicted = plan(10**6, 1000, (1, 2, 3), (1, 10))
    assert jobs[Job(SCRIPTED, 10**6, 3, 3)] == ("participants", "ranks")
    for series, fixed in {"participants": ("ranks", "rounds"), "ranks": ("participants", "rounds"),
                          "share": ("rounds",), "rounds": ("participants", "ranks")}.items():  # fmt: skip
        for kind in (SCRIPTED, LLM):
            members = [job for job, names in jobs.items() if series in names and job.kind == kind]
            for name in fixed:
                assert len({getattr(job, name) for job in members}) <= 1, (series, name)
    assert not set(predicted) & set(jobs)
    assert {job.kind for job in predicted} == {SCRIPTED, LLM}
    assert not any(job.kind == LLM for job in (*plan(1000, 0, (3,), (1,))[0],))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["bench"], "expected an experiment"),
        (["bench", "--scaling", "configs/bench.yaml"], "leave out the experiment"),
        (["bench", "--scaling", "--most", "10"], "expected at least 100"),
        (["bench", "--scaling", "--repeats", "0"], "--repeats"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, told, capsys):
    assert main(arguments) == 2
    assert told in capsys.readouterr().err


def test_a_bench_of_another_kind_or_version_is_told_apart(tmp_path):
    path = tmp_path / "b.json"
    for text in ('{"format": "pbeauty-scaling-9"}', '{"format": "pbeauty-scaling-1"}', "pbeauty-scaling"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"reads 'pbeauty-scaling-1'|is not the result of"):
            pace(path, None)
