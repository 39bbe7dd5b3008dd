"""Where results of several runs vary from."""

import json

import numpy as np
import pytest
from made import experiment, make

from pbeauty.analysis.run_analysis import analyse
from pbeauty.analysis.variation import between_games, settings, vary
from pbeauty.cli.main import main
from pbeauty.storage.run_reader import Run


def games(folder, means, *, n=200, sd=5.0, generator=None, **fields):
    """Runs whose first-round guesses are normal around the given means; their settings and analyses."""
    generator = generator or np.random.default_rng(5)
    found = []
    for seed, mean in enumerate(means):
        guesses = np.clip(generator.normal(mean, sd, (1, n)), 0, 100)
        with Run(make(folder / str(seed), guesses, experiment(n, seed=seed, **fields))) as run:
            found.append((settings(run.experiment), analyse(run)))
    return found


def test_runs_that_differ_by_seed_are_replicates(tmp_path):
    found = games(tmp_path / "a", [40, 41, 39]) + games(tmp_path / "b", [30, 31], multiplier="1/2")
    variation = vary(found)
    assert variation.varied == ["game.multiplier"]
    assert [(case.label, len(case.analyses)) for case in variation.cases] == [
        ("game.multiplier=2/3", 3), ("game.multiplier=1/2", 2)
    ]  # fmt: skip
    assert [r.runs for r in variation.replicated if r.by == "all"] == [3, 2]


def test_the_interval_of_replicates_is_over_games(tmp_path):
    replicated = vary(games(tmp_path, [30, 40, 50])).replicated[0]
    assert replicated.mean.value == pytest.approx(40, abs=1)
    assert replicated.mean.high - replicated.mean.low > 30  # t with two degrees of freedom, SD 10
    assert replicated.sampling == pytest.approx(5 / np.sqrt(200), rel=0.15)
    assert replicated.between.value == pytest.approx(10, abs=1)
    assert replicated.between.low < 10 < replicated.between.high


def test_no_variation_between_games_where_there_is_none(tmp_path):
    replicated = vary(games(tmp_path, [40] * 8, n=50)).replicated[0]
    assert replicated.between.low == 0
    assert replicated.between.value < 0.6
    assert replicated.observed.low < replicated.sampling < replicated.observed.high


def test_coverage_of_the_deviation_between_games():
    generator = np.random.default_rng(3)
    within = generator.uniform(0.5, 2, 10)
    hits = []
    for _ in range(200):
        means = 40 + generator.normal(0, 2, 10) + generator.normal(0, np.sqrt(within))
        found = between_games(means, within)
        hits.append(found.low <= 2 <= found.high)
    assert np.mean(hits) > 0.88


def test_shares_of_the_variance_add_up_and_find_what_matters(tmp_path):
    found = []
    for p, centre in (("2/3", 40), ("1/2", 25)):
        for low in (0, -10):
            means = centre + np.random.default_rng(2).normal(0, 1, 4)
            found += games(tmp_path / f"{p[0]}{low}", means, multiplier=p, low=low)
    variation = vary(found)
    shares = {s.source: s for s in variation.sources if s.by == "all"}
    assert set(shares) == {"game.multiplier", "game.low", "interactions", "between games", "sampling within a game"}
    assert sum(s.share.value for s in shares.values()) == pytest.approx(1)
    assert shares["game.multiplier"].share.value > 0.9
    assert shares["game.multiplier"].p_holm < 0.001
    assert shares["game.multiplier"].share.low > 0.8
    assert shares["game.low"].share.value < 0.05
    assert all(s.p_holm >= s.p_value for s in shares.values() if not np.isnan(s.p_value))


def test_what_weakens_the_findings_is_said(tmp_path):
    same = games(tmp_path / "a", [40]) + games(tmp_path / "b", [40])
    assert any("no independent replicates" in note for note in vary(same).notes)
    single = games(tmp_path / "c", [40]) + games(tmp_path / "d", [30], multiplier="1/2")
    assert any("no case has replicates" in note for note in vary(single).notes)
    unfinished = games(tmp_path / "e", [40, 41], rounds=3)
    assert any("UNFINISHED: 2 of 2 runs" in note for note in vary(unfinished).notes)


def test_identical_means_have_no_sources(tmp_path):
    found = games(tmp_path, [50] * 3, sd=0.0)
    variation = vary(found)
    assert variation.sources == []
    assert variation.replicated[0].between.value == 0


def test_a_sweep_on_the_command_line(tmp_path, capsys):
    games(tmp_path / "a", [40, 41, 39])
    games(tmp_path / "b", [30, 31, 29], multiplier="1/2")
    assert main(["analyze", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "6 runs, 2 case(s); what varies: game.multiplier" in out
    assert "Where the variance of means comes from" in out
    assert main(["analyze", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["variation"]["varied"] == ["game.multiplier"]
    assert [len(case["runs"]) for case in document["variation"]["cases"]] == [3, 3]
    assert len(document["between_runs"]) == 5
