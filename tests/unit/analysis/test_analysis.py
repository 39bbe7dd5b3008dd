"""Statistics of runs, from `run.h5` to cells, comparisons and what `pbeauty analyze` prints."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
import scipy
from made import altered, experiment, make

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
    first = analysed(tmp_path, guesses).of()[0]
    valid = guesses[0, 6:]
    assert (first.n, first.n_valid) == (60, 54)
    assert first.mean.value == pytest.approx(valid.mean())
    assert first.sd.value == pytest.approx(valid.std())
    assert (first.min, first.max) == (valid.min(), valid.max())
    quartiles = (first.lower_quartile, first.median, first.upper_quartile)
    assert quartiles == pytest.approx(tuple(np.quantile(valid, [0.25, 0.5, 0.75])))
    assert first.target == pytest.approx(2 / 3 * valid.mean())
    assert first.statuses["unparsable"].value == first.unusable.value == pytest.approx(0.1)
    assert (first.bounds.low, first.bounds.high) == pytest.approx((0.9 * valid.mean(), 0.9 * valid.mean() + 10))
    assert first.n_winners == 1
    assert sum(share.value for share in first.levels.values()) == pytest.approx(1)


GAMES = [
    {},
    {"aggregate": "median"},
    {"tolerance": 5.0},
    {"players": "groups"},
    {"players": "groups", "tolerance": 3.0, "offset": 5},
]


@pytest.mark.parametrize("game", GAMES)
def test_figures_of_a_round_are_those_of_the_run(tmp_path, game):
    """Whoever plays and however many win: what is said of a round is what run.h5 has, to the bit."""
    population = [{"name": name, "count": 20, "kind": "uniform"} for name in ("a", "b", "c")]
    guesses = HUMANLIKE.copy()
    guesses[1, 3:9] = NOBODY
    folder = make(tmp_path, guesses, experiment(60, population=population, rounds=3, **game))
    with Run(folder) as run:
        found = analyse(run)
        for index, cell in enumerate(found.of()):
            stored = run.outcome(index)
            assert (cell.mean.value, cell.sd.value, cell.median) == (stored.mean, stored.std, stored.median)
            assert (cell.min, cell.max, cell.target) == (stored.min, stored.max, stored.target)
            assert (cell.n_valid, cell.n_winners) == (stored.n_valid, stored.n_winners)
            groups = [one for one in found.of("group") if one.round == index + 1]
            assert [one.mean.value for one in groups] == pytest.approx(run.read("group_number", index)[0].tolist())
            assert sum(one.n_winners for one in groups) == stored.n_winners
    if game.get("players") == "groups":
        assert all(np.isnan(cell.mean.low) and cell.bounds is None for cell in found.of())


def test_convergence_is_the_ratio_of_distances(tmp_path):
    first, second, third = analysed(tmp_path, HUMANLIKE).of()
    assert np.isnan(first.convergence)
    assert second.convergence == pytest.approx(HUMANLIKE[1].mean() / HUMANLIKE[0].mean())
    assert third.convergence == pytest.approx(HUMANLIKE[2].mean() / HUMANLIKE[1].mean())


def test_inference_over_rounds_is_clustered_by_participant(tmp_path):
    """With complete data, the error is that of participants' own averages."""
    own = np.random.default_rng(2).normal(0, 8, 60)
    guesses = np.clip(np.array([[50.0], [40], [30]]) + own, 0, 100)
    (found,) = analysed(tmp_path, guesses).over_rounds
    assert found.average.value == pytest.approx(guesses.mean())
    assert found.error == pytest.approx(scipy.stats.sem(guesses.mean(axis=0)))
    assert found.trend.value == pytest.approx(-10)
    assert found.trend.high - found.trend.low == pytest.approx(0, abs=1e-6)
    assert found.n == 60


def test_transitions_are_between_rounds_of_the_same_classes(tmp_path):
    guesses = [[50.0] * 20 + [33.0] * 20] * 4
    moved = analysed(tmp_path, guesses).transitions
    assert sum(sum(row.values()) for row in moved.values()) == 80  # of rounds 2 to 3 and 3 to 4


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
    assert (
        ["all", *found.ways] == list(dict.fromkeys(c.by for c in found.cells)) == ["all", "education", "group", "model"]
    )
    assert [cell.label for cell in found.of("model") if cell.round == 1] == ["(uniform)", "demo"]
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
    assert cell.median == value
    assert cell.mode == pytest.approx(round(value))
    assert cell.n_winners == 10


def test_p_of_one_has_no_equilibrium(tmp_path, capsys):
    found = analysed(tmp_path, HUMANLIKE, multiplier="1")
    assert np.isnan(found.equilibrium)
    assert all(not cell.levels and np.isnan(cell.tau.value) for cell in found.cells)
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
    assert cell.target == pytest.approx(found.game.offset + found.game.p * aggregate)
    assert np.isnan(cell.tau.value) == ("aggregate" in game)


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
    with altered(tmp_path / "newer" / "run.h5") as file:
        file.attrs["schema_version"] = 99
    (tmp_path / "empty").mkdir()
    for path, message in (
        ("text.h5", "pbeauty did not write it"),
        ("other.h5", "pbeauty did not write it"),
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
    low, high = scipy.stats.t.interval(0.9, 59, HUMANLIKE[0].mean(), scipy.stats.sem(HUMANLIKE[0]))
    assert cell["mean"] == pytest.approx({"value": HUMANLIKE[0].mean(), "low": low, "high": high})
    assert cell["sd"]["low"] is None
    assert len(cell["levels"]) == 8
    assert any("Holm" in caution for caution in document["cautions"])
    assert document["power"] == document["probes"] == []
    assert document["variation"] is None


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
        "from pbeauty.cli import main, report\nfrom pbeauty import plots\n"
        f"main.main(['analyze', '--json', {str(tmp_path)!r}])\n"
        "assert not {'mpi4py.MPI', 'vllm', 'torch'} & set(sys.modules), 'the reading side loads the runtime'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=120)


def test_guesses_near_the_target_are_counted_where_that_is_asked_for(tmp_path, capsys):
    crowd = [{"name": "a", "count": 2, "kind": "uniform"}, {"name": "b", "count": 1, "kind": "uniform"}]
    guesses = [[30.0, 60.0, 90.0], [10.0, 10.4, NOBODY]]
    described = experiment(3, population=crowd, rounds=2, multiplier="1/1")
    make(tmp_path, guesses, described)
    found = json.loads(printed(capsys, "analyze", "--json", "--within", "0.5", tmp_path).out)["runs"][0]
    assert found["within"] == {"distance": 0.5, "counts": [{"all": 1, "a": 1, "b": 0}, {"all": 2, "a": 2, "b": 0}]}
    assert [cell["n_winners"] for cell in found["cells"] if cell["by"] == "all"] == [1, 1]
    assert "Guesses within 0.5 of the target" in printed(capsys, "analyze", "--within", "0.5", tmp_path).out
    assert "Guesses within 0.5 of the target" not in printed(capsys, "analyze", tmp_path).out


# --- which runs ----------------------------------------------------------------------------------------------


def test_a_folder_stands_for_the_runs_below_it(tmp_path):
    for name in ("b", "a/deep", "c"):
        make(tmp_path / name, [[1.0]])
    found = find_runs([tmp_path, tmp_path / "b", tmp_path / "b" / "run.h5"])
    assert [path.parent.relative_to(tmp_path).as_posix() for path in found] == ["a/deep", "b", "c"]
    with pytest.raises(ConfigError):
        find_runs([tmp_path / "nothing"])


def test_cases_of_a_sweep_come_in_the_order_of_its_file(tmp_path):
    for name in ("b-case", "a-case", "c-case", "left-over"):
        make(tmp_path / "sweep" / name, [[1.0]])
    make(tmp_path / "a-run", [[1.0]])
    (tmp_path / "sweep" / "cases.csv").write_text('case,state\nc-case,finished\n"b-case",finished\na-case,failed\n')
    names = [path.parent.name for path in find_runs([tmp_path])]
    assert names == ["a-run", "c-case", "b-case", "a-case", "left-over"]
