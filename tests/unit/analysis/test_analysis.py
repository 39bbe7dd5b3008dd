"""Statistics of runs, from `run.h5` to cells, comparisons and what `pbeauty analyze` prints."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from made import experiment, make
from scipy import stats

from pbeauty.analysis import comparison
from pbeauty.analysis.group_stats import binned
from pbeauty.analysis.run_analysis import analyse
from pbeauty.cli.main import main
from pbeauty.errors import ConfigError
from pbeauty.game.experiment import Game
from pbeauty.storage.run_folder import find_runs
from pbeauty.storage.run_reader import Run

NOBODY = float("nan")
GENERATOR = np.random.default_rng(11)
HUMANLIKE = np.clip(GENERATOR.normal(37, 20, (3, 60)), 0, 100) * np.array([[1.0], [0.6], [0.35]])


def analysed(folder, guesses, described=None, **fields):
    with Run(make(folder, guesses, described, **fields)) as run:
        return analyse(run)


def printed(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr()


# --- cells ---------------------------------------------------------------------------------------------------


def test_figures_of_a_round(tmp_path):
    guesses = HUMANLIKE.copy()
    guesses[0, :6] = NOBODY
    found = analysed(tmp_path, guesses)
    first, second, _ = found.of()
    valid = guesses[0, 6:]
    assert (first.n, first.n_valid) == (60, 54)
    assert first.mean.value == pytest.approx(valid.mean())
    assert first.sd.value == pytest.approx(valid.std())
    assert (first.min, first.max) == (valid.min(), valid.max())
    assert {q: e.value for q, e in first.quantiles.items()} == pytest.approx(
        {q: np.quantile(valid, q) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}
    )
    assert first.target.value == pytest.approx(2 / 3 * valid.mean())
    assert first.target.high - first.target.low == pytest.approx(2 / 3 * (first.mean.high - first.mean.low))
    assert first.statuses["unparsable"].value == pytest.approx(0.1)
    assert first.unusable.value == pytest.approx(0.1)
    assert first.mean_bounds.low == pytest.approx(0.9 * valid.mean())
    assert first.mean_bounds.high == pytest.approx(0.9 * valid.mean() + 10)
    assert first.n_winners == 1
    assert sum(share.value for share in first.levels.values()) == pytest.approx(1)
    assert first.distance.value == first.mean.value
    assert np.isnan(first.below_target.value)
    assert second.below_target.value == pytest.approx(np.mean(guesses[1] < first.target.value))


def test_convergence_is_the_ratio_of_distances(tmp_path):
    first, second, third = analysed(tmp_path, HUMANLIKE).of()
    assert np.isnan(first.convergence.value)
    assert second.convergence.value == pytest.approx(HUMANLIKE[1].mean() / HUMANLIKE[0].mean())
    assert third.convergence.value == pytest.approx(HUMANLIKE[2].mean() / HUMANLIKE[1].mean())
    assert third.rate.value == pytest.approx(np.sqrt(HUMANLIKE[2].mean() / HUMANLIKE[0].mean()))
    assert second.convergence.low < second.convergence.value < second.convergence.high
    # Guesses that all shrink by the same factor leave nothing uncertain about it.
    exact = analysed(tmp_path / "exact", [HUMANLIKE[0], HUMANLIKE[0] / 2]).of()[1].convergence
    assert (exact.low, exact.high) == pytest.approx((0.5, 0.5), abs=1e-6)


def test_groups_models_and_attributes_of_personas(tmp_path):
    population = [
        {"name": "noise", "count": 20, "kind": "uniform"},
        {"name": "one", "count": 20, "kind": "llm", "user_prompt": "direct"},
        {"name": "two", "count": 20, "kind": "llm", "user_prompt": "step-by-step"},
    ]
    education = np.arange(60) % 3
    columns = {
        "education": (["school", "college", "doctorate"], education),
        "id": ([str(i) for i in range(60)], range(60)),
    }
    described = experiment(60, population=population, rounds=3)
    found = analysed(tmp_path, HUMANLIKE, described, columns=columns)
    assert list(dict.fromkeys(cell.by for cell in found.cells)) == ["all", "education", "group", "model"]
    assert [cell.label for cell in found.of("model") if cell.round == 1] == ["demo", "no model (uniform)"]
    (college,) = [cell for cell in found.of("education", "college") if cell.round == 2]
    assert college.mean.value == pytest.approx(HUMANLIKE[1, education == 1].mean())
    assert [cell.n for cell in found.of("group", "two")] == [20, 20, 20]
    assert any("id has 60 labels" in note for note in found.notes)
    assert sum(cell.n_winners for cell in found.of("education") if cell.round == 1) == 1


def test_an_analysis_repeats(tmp_path):
    with Run(make(tmp_path, HUMANLIKE)) as run:
        assert str(analyse(run).of()) == str(analyse(run).of()), "another analysis has other figures"


def test_bins_hold_every_guess():
    for guesses in ([0.0, 0.0, 100.0], np.linspace(0, 100, 999), [50.0]):
        counted = binned(np.sort(np.asarray(guesses)), Game())
        assert counted.counts.sum() == len(guesses)
        assert (counted.edges[0], counted.edges[-1]) == (0, 100)


# --- awkward games -------------------------------------------------------------------------------------------


def test_one_valid_guess_and_a_group_with_none(tmp_path):
    population = [{"name": name, "count": 3, "kind": "uniform"} for name in ("silent", "heard")]
    guesses = [[NOBODY] * 3 + [42.0, NOBODY, NOBODY]]
    found = analysed(tmp_path, guesses, experiment(6, population=population))
    everybody, silent, heard = found.cells
    assert (everybody.n_valid, silent.n_valid, heard.n_valid) == (1, 0, 1)
    assert everybody.mean.value == 42
    assert np.isnan(everybody.mean.low)
    assert np.isnan(silent.mean.value)
    assert silent.unusable.value == 1
    assert silent.levels == {}


@pytest.mark.parametrize("value", [0.0, 50.0, 100.0, 33.3])
def test_all_guess_the_same(tmp_path, value):
    cell = analysed(tmp_path, [[value] * 10] * 2).of()[1]
    assert (cell.mean.value, cell.mean.low, cell.mean.high, cell.sd.value) == (value, value, value, 0)
    assert (cell.median.low, cell.median.high) == (value, value)
    assert cell.mode.value == pytest.approx(round(value))
    assert cell.n_winners == 10


def test_p_of_one_has_no_equilibrium(tmp_path, capsys):
    found = analysed(tmp_path, HUMANLIKE, multiplier="1")
    assert np.isnan(found.equilibrium)
    assert all(
        np.isnan(cell.distance.value) and not cell.levels and np.isnan(cell.tau_mean.value) for cell in found.cells
    )
    assert any("p = 1" in note for note in found.notes)
    assert "every number is an equilibrium" in printed(capsys, "analyze", tmp_path).out


@pytest.mark.parametrize(
    ("game", "resting"),
    [({"multiplier": "4/3"}, 100), ({"multiplier": "1/2", "offset": 5}, 10), ({"aggregate": "median"}, 0)],
)
def test_other_games(tmp_path, game, resting):
    found = analysed(tmp_path, HUMANLIKE, **game)
    cell = found.of()[0]
    aggregate = np.median(HUMANLIKE[0]) if "aggregate" in game else HUMANLIKE[0].mean()
    assert found.equilibrium == pytest.approx(resting)
    assert cell.distance.value == pytest.approx(HUMANLIKE[0].mean() - resting)
    assert cell.target.value == pytest.approx(found.game.offset + found.game.p * aggregate)
    assert not np.isnan(cell.tau_mean.value)


# --- bad input -----------------------------------------------------------------------------------------------


def test_an_unfinished_run_is_marked_everywhere(tmp_path, capsys):
    make(tmp_path, HUMANLIKE[:2], experiment(60, rounds=5))
    done = printed(capsys, "analyze", tmp_path)
    assert "UNFINISHED RUN: 2 of 5 rounds" in done.out
    assert "UNFINISHED RUN: 2 of 5 rounds" in done.err
    document = json.loads(printed(capsys, "analyze", tmp_path, "--json").out)
    assert document["runs"][0]["unfinished"] == "UNFINISHED RUN: 2 of 5 rounds"


def test_a_run_without_a_finished_round(tmp_path, capsys):
    make(tmp_path, np.empty((0, 4)), experiment(4, rounds=2))
    assert "UNFINISHED RUN: 0 of 2 rounds" in printed(capsys, "analyze", tmp_path).out
    assert json.loads(printed(capsys, "analyze", tmp_path, "--json").out)["runs"][0]["cells"] == []


def test_what_is_no_run(tmp_path, capsys):
    (tmp_path / "text.h5").write_text("no run")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = [1]
    make(tmp_path / "newer", [[1.0]])
    with h5py.File(tmp_path / "newer" / "run.h5", "r+") as file:
        file.attrs["schema_version"] = 99
    (tmp_path / "empty").mkdir()
    for path, message in (
        ("text.h5", "it is not an HDF5 file"),
        ("other.h5", "not a run of pbeauty"),
        ("newer", "schema version 99"),
        ("empty", "there is no run.h5"),
        ("missing", "no such file or folder"),
    ):
        for command in ("analyze", "report", "plot"):
            assert main([command, str(tmp_path / path)]) == 2
            done = capsys.readouterr()
            assert message in done.err
            assert "Traceback" not in done.err
            assert not done.out


@pytest.mark.parametrize("confidence", ["0", "1", "95", "nan", "high"])
def test_no_confidence(tmp_path, capsys, confidence):
    with pytest.raises(SystemExit) as ended:
        main(["analyze", str(tmp_path), "--confidence", confidence])
    assert ended.value.code == 2
    assert "between 0 and 1" in capsys.readouterr().err


# --- what is printed -----------------------------------------------------------------------------------------


def test_json_holds_every_figure_and_no_nan(tmp_path, capsys):
    make(tmp_path, HUMANLIKE)
    text = printed(capsys, "analyze", tmp_path, "--json", "--confidence", "0.9").out
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert document["confidence"] == 0.9
    cell = document["runs"][0]["cells"][0]
    low, high = stats.t.interval(0.9, 59, HUMANLIKE[0].mean(), stats.sem(HUMANLIKE[0]))
    assert cell["mean"] == pytest.approx({"value": HUMANLIKE[0].mean(), "low": low, "high": high})
    assert cell["below_target"] == {"value": None, "low": None, "high": None}
    assert set(cell["levels"]) == {
        *(f"level {k}" for k in range(4)),
        "between levels",
        "deeper",
        "equilibrium",
        "outside",
    }
    assert any("Holm" in caution for caution in document["cautions"])
    assert document["variation"] is None


def test_text_tells_figures_with_intervals(tmp_path, capsys):
    make(tmp_path, HUMANLIKE)
    out = printed(capsys, "analyze", tmp_path).out
    assert f"{HUMANLIKE[0].mean():.2f} [" in out
    assert "three newspaper contests" in out
    assert "Holm" in out


def test_control_characters_of_labels_do_not_reach_the_terminal(tmp_path, capsys):
    make(tmp_path, HUMANLIKE, columns={"mood": (["\x1b[31mred", "calm"], np.arange(60) % 2)})
    out = printed(capsys, "analyze", tmp_path).out
    assert "\x1b" not in out
    assert "[31mred" in out


def test_reading_loads_neither_mpi_nor_vllm_nor_what_it_does_not_need(tmp_path):
    make(tmp_path, HUMANLIKE)
    code = (
        "import sys, pbeauty; assert not {'numpy', 'h5py', 'scipy', 'pandas'} & set(sys.modules)\n"
        "import pbeauty.job.runner; assert not {'scipy', 'pandas', 'matplotlib', 'jinja2'} & set(sys.modules)\n"
        "from pbeauty.cli import analyze, report\nfrom pbeauty import plots\n"
        f"analyze.analyze([__import__('pathlib').Path({str(tmp_path)!r})], confidence=.95, as_json=True)\n"
        "assert not {'mpi4py.MPI', 'vllm', 'torch'} & set(sys.modules), 'the reading side loads the runtime'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)


# --- which runs ----------------------------------------------------------------------------------------------


def test_a_folder_stands_for_the_runs_below_it(tmp_path):
    for name in ("b", "a/deep", "c"):
        make(tmp_path / name, [[1.0]])
    found = find_runs([tmp_path, tmp_path / "b", tmp_path / "b" / "run.h5"])
    assert [path.parent.relative_to(tmp_path).as_posix() for path in found] == ["a/deep", "b", "c"]
    with pytest.raises(ConfigError):
        find_runs([tmp_path / "nothing"])


# --- comparison ----------------------------------------------------------------------------------------------


def test_people_are_found_where_the_game_is_theirs():
    labels = [pool.label for pool in comparison.pools(Game(multiplier="2/3"))]
    assert "three newspaper contests" in labels
    assert "readers of Politiken" in labels  # from its target, 21.6 / p
    assert {pool.n for pool in comparison.pools(Game(multiplier="1/2"))} == {48}
    assert len(comparison.pools(Game(multiplier="4/3"))) == 1
    for other in (Game(offset=5), Game(aggregate="median"), Game(high=10), Game(multiplier="0.9")):
        assert comparison.pools(other) == []


def test_difference_to_a_pool_is_welchs(tmp_path):
    found = comparison.compare(analysed(tmp_path, HUMANLIKE))
    (board,) = [c for c in found if c.reference == "Caltech board"]
    expected = stats.ttest_ind_from_stats(
        HUMANLIKE[0].mean(), HUMANLIKE[0].std(ddof=1), 60, 42.6, 23.4, 73, equal_var=False
    )
    assert board.difference.estimate.value == pytest.approx(HUMANLIKE[0].mean() - 42.6)
    assert board.difference.p_value == pytest.approx(expected.pvalue)
    assert board.p_holm >= board.difference.p_value
    assert {c.round for c in found if c.what == "people by round"} == {1, 2, 3}
    assert any(c.reference == "GPT-4o, round 3" and c.mean == 13.1 for c in found)


def test_contrasts_with_the_rest(tmp_path):
    population = [{"name": name, "count": 20, "kind": "uniform"} for name in ("a", "b", "c")]
    found = comparison.contrasts(analysed(tmp_path, HUMANLIKE, experiment(60, population=population, rounds=3)))
    assert len(found) == 9
    (one,) = [c for c in found if (c.label, c.round) == ("b", 2)]
    mine, rest = HUMANLIKE[1, 20:40], np.delete(HUMANLIKE[1], slice(20, 40))
    expected = stats.ttest_ind(mine, rest, equal_var=False)
    assert one.difference.estimate.value == pytest.approx(mine.mean() - rest.mean())
    assert one.difference.p_value == pytest.approx(expected.pvalue)
    assert all(c.p_holm >= c.difference.p_value for c in found)
