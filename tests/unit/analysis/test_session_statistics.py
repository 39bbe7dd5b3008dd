"""Several sessions in one run: a session is one observation in every figure."""

import json
import math
from unittest.mock import patch

import numpy as np
import pytest
import scipy
from made import experiment, make
from matplotlib.text import Text

from pbeauty.analysis import levels
from pbeauty.analysis.comparison import compare, contrasts
from pbeauty.analysis.hierarchy import predicted_mean
from pbeauty.analysis.intervals import FEWEST_SESSIONS_FOR_SHARES
from pbeauty.analysis.run_analysis import analyse
from pbeauty.analysis.variation import vary
from pbeauty.cli.main import main
from pbeauty.game.records import ReadingRule
from pbeauty.plots.figures import round_histogram
from pbeauty.storage.run_reader import Run

TWO = [{"name": "a", "count": 7, "kind": "uniform"}, {"name": "b", "count": 5, "kind": "uniform"}]
SESSIONS, SIZE, ROUNDS = 6, 12, 3
SHAPE = (ROUNDS, SESSIONS, SIZE)


@pytest.fixture(scope="module")
def guesses():
    """float64[round, session, participant]: sessions that differ, some unusable replies, one that ends in round 2."""
    generator = np.random.default_rng(3)
    found = (
        np.array([40.0, 30, 22])[:, None, None] + generator.normal(0, 5, (SESSIONS, 1)) + generator.normal(0, 9, SHAPE)
    )
    found = np.rint(np.clip(found, 0, 100))
    found[0, 0, :2] = found[2, 3, 8:10] = np.nan
    found[1:, 5] = np.nan
    return found


def run_of(folder, guesses, **game):
    described = experiment(SIZE, sessions=guesses.shape[1], rounds=len(guesses), population=TWO, **game)
    return make(folder, guesses.reshape(len(guesses), -1), described)


@pytest.fixture(scope="module")
def found(guesses, tmp_path_factory):
    with Run(run_of(tmp_path_factory.mktemp("run"), guesses)) as run:
        return analyse(run)


def t_interval(values):
    return scipy.stats.t.interval(0.95, len(values) - 1, np.mean(values), scipy.stats.sem(values))


def test_figures_of_a_round_are_over_sessions(found, guesses):
    for cell, played in zip(found.of(), guesses, strict=True):
        heard = [one[~np.isnan(one)] for one in played if not np.isnan(one).all()]
        means = [one.mean() for one in heard]
        assert cell.sessions == len(heard)
        assert cell.mean.value == pytest.approx(np.mean(means))
        assert (cell.mean.low, cell.mean.high) == pytest.approx(t_interval(means))
        assert cell.sd_of_means == pytest.approx(np.std(means, ddof=1))
        squares = sum(((one - one.mean()) ** 2).sum() for one in heard)
        assert cell.sd.value == pytest.approx(math.sqrt(squares / (sum(map(len, heard)) - len(heard))))
        assert cell.median == pytest.approx(np.mean([np.median(one) for one in heard]))
        assert (cell.min, cell.max) == (min(map(min, heard)), max(map(max, heard)))
        targets = 2 / 3 * np.array(means)
        assert (cell.target, cell.targets.low, cell.targets.high) == pytest.approx(
            (targets.mean(), targets.min(), targets.max())
        )
        nearest = [np.abs(one - target) for one, target in zip(heard, targets, strict=True)]
        assert cell.n_winners == sum(np.isclose(one, one.min()).sum() for one in nearest)


def test_a_session_that_has_ended_is_left_out_and_named(found):
    """In round 2 its participants were asked in vain; in round 3 nobody asked them."""
    assert [cell.n for cell in found.of()] == [72, 72, 60]
    assert [cell.unusable.value for cell in found.of()] == pytest.approx([2 / 72, 12 / 72, 2 / 60])
    assert [cell.sessions for cell in found.of()] == [6, 5, 5]
    assert "1 of 6 sessions ended with a round without a valid guess" in found.notes
    second = found.of()[1]
    means = second.by_session.heard.mean
    assert (second.bounds.low, second.bounds.high) == pytest.approx((means.sum() / 6, (means.sum() + 100) / 6))


def test_groups_are_over_sessions_too(found, guesses):
    cell = found.of("group", "b")[2]
    means = np.nanmean(guesses[2, :5, 7:], axis=1)
    assert (cell.mean.low, cell.mean.high) == pytest.approx(t_interval(means))
    assert cell.unusable.value == pytest.approx(2 / 25)
    assert sum(one.n_winners for one in found.of("group") if one.round == 1) == found.of()[0].n_winners


def test_levels_start_from_the_announcement_of_each_session(found, guesses):
    counts = np.zeros(len(levels.LABELS))
    for before, one in zip(guesses[1], guesses[2], strict=True):
        codes = levels.assign(one, found.game, np.nanmean(before) if not np.isnan(before).all() else np.nan, 2)
        counts += np.bincount(codes[codes != levels.UNDEFINED], minlength=len(levels.LABELS))
    shares = [share.value for share in found.of()[2].levels.values()]
    assert shares == pytest.approx(counts / counts.sum())


def test_tau_is_the_one_that_predicts_the_sessions_means_on_average(found):
    first, second, _ = found.of()
    ends = [predicted_mean(found.game, tau, 50) for tau in (first.tau.value, first.tau.low, first.tau.high)]
    assert ends == pytest.approx([first.mean.value, first.mean.high, first.mean.low], abs=1e-4)
    heard = second.by_session.heard
    for tau, expected in ((second.tau.value, 0), (second.tau.low, -1), (second.tau.high, 1)):
        gaps = heard.mean - predicted_mean(found.game, tau, heard.reference)
        reach = scipy.stats.t.ppf(0.975, gaps.size - 1) * scipy.stats.sem(gaps)
        assert gaps.mean() == pytest.approx(expected * reach, abs=1e-4)


def test_trends_are_over_sessions_slopes(tmp_path, guesses):
    with Run(run_of(tmp_path, guesses[:, :5])) as run:
        (trend, *_) = analyse(run).over_rounds
    slopes = np.polyfit(range(ROUNDS), np.nanmean(guesses[:, :5], axis=2), 1)[0]
    assert trend.trend.value == pytest.approx(slopes.mean())
    assert (trend.trend.low, trend.trend.high) == pytest.approx(t_interval(slopes))
    assert trend.n == 5


def test_groups_are_compared_within_sessions(tmp_path, guesses):
    with Run(run_of(tmp_path, guesses[:, :5])) as run:
        first, last, overall = contrasts(analyse(run))
    a, b = (np.nanmean(guesses[:, :5, where], axis=2) for where in (slice(7), slice(7, None)))
    assert first.difference.p_value == pytest.approx(scipy.stats.ttest_rel(a[0], b[0]).pvalue)
    assert last.difference.p_value == pytest.approx(scipy.stats.ttest_rel(a[2], b[2]).pvalue)
    assert [c.rounds for c in (first, last, overall)] == ["1", "3", "1-3"]
    assert overall.difference.p_value == pytest.approx(scipy.stats.ttest_rel(a.mean(axis=0), b.mean(axis=0)).pvalue)
    interval = scipy.stats.ttest_rel(a[0], b[0]).confidence_interval()
    assert (first.difference.estimate.low, first.difference.estimate.high) == pytest.approx(interval)
    assert first.difference.bounds is not None


def test_people_are_compared_by_session(found, guesses):
    made = compare(found)
    (board,) = [one for one in made if one.reference == "Caltech board"]
    means = np.nanmean(guesses[0], axis=1)
    expected = scipy.stats.ttest_ind_from_stats(
        means.mean(), means.std(ddof=1), 6, 42.6, 23.4, 73, equal_var=False
    )  # fmt: skip
    assert board.difference.p_value == pytest.approx(expected.pvalue)
    by_round = [one for one in made if one.what == "people by round"]
    ours, theirs = np.nanmean(guesses[1, :5], axis=1), [28.6, 20.2, 20.3, 26.5]
    assert by_round[0].difference.p_value == pytest.approx(scipy.stats.ttest_ind(ours, theirs, equal_var=False).pvalue)


@pytest.mark.parametrize("game", [{}, {"aggregate": "median"}, {"tolerance": 4.0}, {"players": "groups"}])
def test_sessions_of_a_run_are_as_good_as_runs(tmp_path, guesses, game):
    """Six sessions of one run, or six runs of one session: the same case."""
    with Run(run_of(tmp_path / "one", guesses[:, :5], **game)) as run:
        together = vary([analyse(run)])
    apart = []
    for seed in range(5):
        described = experiment(SIZE, seed=seed, rounds=ROUNDS, population=TWO, **game)
        with Run(make(tmp_path / str(seed), guesses[:, seed], described)) as run:
            apart.append(analyse(run))
    apart = vary(apart)
    assert [one.sessions for one in together.stats] == [5, 5, 5]
    assert repr(together.stats) == repr(apart.stats)
    assert repr(together.components) == repr(apart.components)
    assert len(apart.cases) == 1


def test_more_sessions_of_an_experiment_are_one_case(tmp_path, guesses):
    runs = []
    for seed, sessions in ((1, 2), (2, 6), (1, 4)):
        described = experiment(SIZE, seed=seed, sessions=sessions, population=TWO)
        with Run(make(tmp_path / f"{seed}-{sessions}", guesses[:1, :sessions].reshape(1, -1), described)) as run:
            runs.append(analyse(run))
    found = vary(runs)
    assert len(found.cases) == 1
    assert found.stats[0].sessions == 10  # of seed 1 those of the longer run
    assert any("have the seed of another run" in note for note in found.notes)


def test_shares_have_intervals_where_enough_sessions_have_such_guesses_and_others(tmp_path):
    count = FEWEST_SESSIONS_FOR_SHARES
    played = np.full((count + 1, SIZE), 50.0)
    played[:count, 0], played[: count - 1, 1] = 33, 22
    with Run(make(tmp_path, played.reshape(1, -1), experiment(SIZE, sessions=count + 1, population=TWO))) as run:
        shares = analyse(run).of()[0].levels
    assert shares["level 1"].value == pytest.approx(count / played.size)
    assert 0 < shares["level 1"].low < shares["level 1"].value < shares["level 1"].high < 0.5
    assert shares["level 0"].low > 0.5
    assert all(np.isnan(shares[label].low) for label in ("level 2", "level 3"))


def test_sessions_on_the_command_line(tmp_path, guesses, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    run_of(tmp_path, guesses)
    assert main(["analyze", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "6 sessions of 12" in out
    assert "Sessions, mean guess" not in out
    assert "1 of 6 sessions ended" in out
    assert "Intervals of one session" not in out
    table = out.partition("Guesses by round")[2].partition("Levels of reasoning")[0].splitlines()
    assert all(len(line) <= 80 for line in table[1:])
    assert table[1].split() == ["round", "valid", "mean", "SD", "across", "targets", "tau"]
    assert main(["analyze", "--full", str(tmp_path)]) == 0
    rows = capsys.readouterr().out.partition("Sessions, mean guess")[2].splitlines()[2:8]
    assert rows[5].split() == ["6", "12", f"{np.nanmean(guesses[0, 5]):.1f}", "-", "-"]
    assert main(["analyze", "--json", str(tmp_path)]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert run["by_session"][2]["n"] == [12, 12, 12, 12, 12, 0]
    assert run["by_session"][2]["mean"][5] is None
    assert run["cells"][0]["targets"]["low"] < run["cells"][0]["target"]


def test_groups_are_told_different_things(tmp_path):
    """Who hears the last mean starts from it, and who hears nothing from the middle of the range."""
    crowd = [TWO[0], TWO[1] | {"announce": []}]
    guesses = np.concatenate([np.full((1, 24), 30.0), np.tile([20.0] * 7 + [33.0] * 5, 2)[None]])
    described = experiment(SIZE, sessions=2, rounds=2, population=crowd, announce=["mean"])
    with Run(make(tmp_path, guesses, described)) as run:
        found = analyse(run)
        with patch.object(run, "outcome", wraps=run.outcome) as read:
            codes, _, _ = levels.codes_of(run, 1, run.guesses[1])
        read.assert_called_once_with(0)
        drawn = {text.get_text() for text in round_histogram(run, 1).findobj(Text)}
    assert set(codes) == {levels.LABELS.index("level 1")}
    assert "L1" not in drawn  # it is not the same guess for all
    for label, reference in (("a", 30), ("b", 50)):
        second = found.of("group", label)[1]
        assert second.levels["level 1"].value == 1
        assert predicted_mean(found.game, second.tau.value, reference) == pytest.approx(second.mean.value, abs=1e-4)
    assert found.of()[1].by_session.reference == pytest.approx([(7 * 30 + 5 * 50) / 12] * 2)


def test_strict_readings_are_over_sessions(tmp_path, guesses):
    played = guesses[:, :5]
    rules = np.where(np.isnan(played), ReadingRule.NONE, ReadingRule.NUMBER_ALONE)
    rules[:, :, 3] = np.where(rules[:, :, 3], ReadingRule.OWN_WORDS, ReadingRule.NONE)
    described = experiment(SIZE, sessions=5, rounds=ROUNDS, population=[group | {"kind": "llm"} for group in TWO])
    flat = [table.reshape(ROUNDS, -1) for table in (played, rules)]
    with Run(make(tmp_path, flat[0], described, readings=flat[1])) as run:
        (first, *_) = analyse(run).readings
    strict = np.nanmean(np.delete(played[0], 3, axis=1), axis=1)
    assert (first.strict.low, first.strict.high) == pytest.approx(t_interval(strict))
    assert first.mean == pytest.approx(np.nanmean(played[0], axis=1).mean())
    assert first.shares["own words"] == pytest.approx(5 / 58)
