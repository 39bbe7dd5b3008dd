"""Whole runs of scripted participants under the real launcher: what comes out, where, and the same on any ranks."""

import json
import os
import pty
import re
import select
import subprocess
import time
from functools import cache

import h5py
import numpy as np
import pytest
import yaml
from made import texts
from mpi import (
    BIN,
    IN_TURN,
    LIMIT,
    MPICH,
    PBEAUTY,
    alone,
    altered,
    assert_same,
    mpirun,
    results,
    rounds_kept,
    start,
    thinking_from,
)

from pbeauty.game.records import Status
from pbeauty.game.scoring import score
from pbeauty.storage.run_reader import Run

MIXED = """
name: mixed
seed: 41
game: {multiplier: 0.7, offset: 3, low: 5, high: 105, aggregate: median, rounds: 3, announce: [target, winning_guess]}
population:
  - {name: drawn, count: 7, kind: uniform}
  - {name: whole, count: 6, kind: uniform, integers: true}
  - {name: stubborn, count: 1, kind: fixed, value: 12.5}
  - {name: naive, count: 5, kind: level_k, level: 0}
  - {name: second, count: 3, kind: level_k, level: 2}
  - {name: hierarchy, count: 11, kind: cognitive_hierarchy, tau: 1.5}
"""
LONELY = """
name: lonely
seed: 2
game: {rounds: 2}
population: [{name: one, count: 1, kind: uniform}]
"""
ROUNDS_WITH_TIME = """
name: thinkers
game: {rounds: 2}
population: [{name: crowd, count: 1000, kind: uniform, think_time: 1}]
"""
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def experiment(folder, text, name="experiment.yaml"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """The mixed game on one rank: the job and its folder."""
    folder = tmp_path_factory.mktemp("mixed")
    config = experiment(folder, MIXED)
    done = mpirun(1, "run", config, "--set", "plots=true", "--out", folder / "run")
    assert done.code == 0, done
    return done, config, folder / "run"


# --- results -------------------------------------------------------------------------------------------------

TOLD = "target, mean, median, winning_guess, group_numbers, own_rank"
GROUPS = re.sub(
    "game: .*",
    f"game: {{rounds: 3, players: groups, tolerance: 4, offset: 5, multiplier: 1/2, announce: [{TOLD}]}}",
    MIXED,
)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Plays three games on a number of ranks, in one job: the job, and the folder of the runs."""
    texts = {"mixed": MIXED, "lonely": LONELY, "groups": GROUPS}
    configs = tmp_path_factory.mktemp("played")
    program = altered(configs, IN_TURN)

    @cache
    def play(ranks):
        words = []
        for name, text in texts.items():
            config = experiment(configs, text, f"{name}.yaml")
            words += ["run", config, "--out", configs / f"{ranks}/{name}", "then"]
        done = mpirun(ranks, *words[:-1], program=program)
        assert (done.code, done.left) == (0, []), done
        return done, configs / str(ranks)

    return play


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_results_are_the_same_to_the_bit_on_any_number_of_ranks(ranks, played, mixed):
    done, folder = played(ranks)
    assert f"33 participants on {ranks} rank(s)" in done.err
    assert_same(results(folder / "mixed"), results(mixed[2]))


def test_a_single_participant_plays_on_five_ranks(played):
    _, five = played(5)
    _, one = played(1)
    assert_same(results(five / "lonely"), results(one / "lonely"))
    assert results(five / "lonely")["rounds/guess"].shape == (2, 1)


def test_groups_play_as_one_on_any_number_of_ranks(played):
    _, three = played(3)
    _, one = played(1)
    assert_same(results(three / "groups"), results(one / "groups"))
    with Run(three / "groups") as run:
        groups = run.file["participants/group"][:]
        for index in range(3):
            numbers = [run.guesses[index][groups == group].mean() for group in range(6)]
            np.testing.assert_allclose(run.read("group_number", index)[0], numbers)
            outcome = run.outcome(index)
            assert outcome.mean == pytest.approx(np.mean(numbers))
            assert outcome.target == pytest.approx(5 + outcome.mean / 2)
            assert outcome.n_winners == sum(abs(number - outcome.target) <= 4 for number in numbers)


def test_rounds_follow_the_rules(mixed):
    """The stored figures are those of the stored guesses, and every group plays its part."""
    *_, folder = mixed
    with Run(folder) as run:
        game = run.experiment.game
        groups = run.file["participants/group"][:]
        for index in range(run.round_count):
            guesses = run.guesses[index]
            assert run.outcome(index) == score(game, guesses, run.status[index]).outcome
            assert np.all((guesses >= game.low) & (guesses <= game.high))
            assert np.all(guesses[groups == 2] == 12.5)
            assert np.all(guesses[groups == 1] == np.round(guesses[groups == 1]))
            assert len(set(guesses[groups == 4])) == 1
        # Level 2 answers to the announced target: twice the rule, from the aggregate that the target tells.
        rule = lambda value: game.offset + game.p * value  # noqa: E731
        assert np.allclose(run.guesses[1][groups == 4], rule(run.outcome(0).target), rtol=1e-12)
        assert np.bincount(groups).tolist() == [7, 6, 1, 5, 3, 11]
        assert run.finished


def test_another_seed_gives_other_draws(mixed, tmp_path):
    _, config, folder = mixed
    assert mpirun(1, "run", config, "--set", "seed=42", "--set", "game.rounds=1", "--out", tmp_path / "run").code == 0
    other, first = results(tmp_path / "run")["rounds/guess"][0], results(folder)["rounds/guess"][0]
    assert np.all(other[:7] != first[:7])
    assert np.array_equal(other[13:14], first[13:14])


# --- the folder and the file -----------------------------------------------------------------------------------


def test_h5py_alone_reads_a_run(mixed):
    *_, folder = mixed
    with h5py.File(folder / "run.h5") as file:
        assert file.attrs["schema_version"] == 2
        assert file.attrs["seed"] == 41
        assert bool(file.attrs["finished"])
        assert yaml.safe_load(file.attrs["experiment"])["game"]["multiplier"] == "0.7"
        provenance = json.loads(file.attrs["provenance"])
        assert provenance["size"] == 1
        assert "MPICH" in provenance["mpi"]
        assert provenance["ended"] >= provenance["started"]
        assert file["rounds/guess"].shape == (3, 33)
        assert texts(file["rounds/status"].attrs, "labels") == [status.name.lower() for status in Status]
        names = texts(file["participants/group"].attrs, "labels")
        assert names == ["drawn", "whole", "stubborn", "naive", "second", "hierarchy"]
        assert file["groups/stubborn"].attrs["value"] == 12.5
        datasets = []
        file.visititems(lambda name, item: datasets.append((name, item)) if isinstance(item, h5py.Dataset) else None)
        assert len(datasets) > 12
        for name, dataset in datasets:
            assert dataset.attrs["units"], name
            assert dataset.attrs["description"], name
            assert dataset.dtype.kind in "fiu", f"{name} is not plain numbers"


def test_a_run_leaves_its_file_and_its_plots(mixed):
    *_, folder = mixed
    names = [f"round-{number:04d}-histogram" for number in (1, 2, 3)] + ["trajectory"]
    drawn = {f"{name}.{kind}" for name in names for kind in ("pdf", "png")}
    assert {path.name for path in (folder / "plots").iterdir()} == drawn
    assert all((folder / "plots" / name).stat().st_size > 1000 for name in drawn)
    assert {path.name for path in folder.iterdir()} - {"live.json"} == {"run.h5", "plots"}


def test_plot_draws_a_run_again(mixed, tmp_path):
    *_, folder = mixed
    before = {path.name: path.read_bytes() for path in (folder / "plots").iterdir()}
    for path in (folder / "plots").iterdir():
        path.unlink()
    done = alone("plot", folder)
    assert (done.code, done.err) == (0, "")
    after = {path.name: path.read_bytes() for path in (folder / "plots").iterdir()}
    assert {line.rpartition("/")[2] for line in done.out.splitlines()} == after.keys()
    assert {name: after[name] for name in before} == before
    assert "ridgelines.pdf" in after


def test_runs_find_their_own_folders(tmp_path):
    """<results>/<name>/<population>/<settings>/<timestamp>/, and another one for a run in the same second."""
    config = experiment(tmp_path, MIXED)
    clock = "type('Clock', (), {'now': lambda: datetime.datetime(2026, 3, 4, 5, 6, 7)})"
    stopped = f"import datetime, pbeauty.storage.run_folder as folder\nfolder.datetime = {clock}"
    play = ("run", config, "--set", f"results={tmp_path / 'results'}", "--set", "game.rounds=1")
    done = mpirun(2, *play, "then", *play, "then", *play, program=altered(tmp_path, stopped + IN_TURN))
    assert done.code == 0, done
    folders = re.findall("^results: (/.*)$", done.out, re.MULTILINE)
    group = "drawn-7+whole-6+stubborn-1+naive-5+second-3+hierarchy-11"
    parent = tmp_path / "results/mixed" / group / "p0.7_c3_median_seed41"
    stamp = "2026-03-04T05-06-07"
    assert folders == [str(parent / name) for name in (stamp, f"{stamp}-2", f"{stamp}-3")]
    assert all((parent / name / "run.h5").exists() for name in (stamp, f"{stamp}-2", f"{stamp}-3"))


def test_out_and_set_are_obeyed(tmp_path):
    config = experiment(tmp_path / "here", LONELY)
    overrides = ("--set", "game.rounds=1", "--set", "population.0.count=9", "--set", "game.multiplier=1/2")
    done = mpirun(2, "run", config.name, *overrides, "--out", "new/place", folder=tmp_path / "here")
    assert done.code == 0, done
    assert done.out.splitlines()[-1] == f"results: {tmp_path / 'here/new/place'}"
    with Run(tmp_path / "here/new/place") as run:
        assert (run.round_count, run.experiment.count, run.experiment.game.p) == (1, 9, 0.5)
    assert not (tmp_path / "here/results").exists()


# --- what a person sees ----------------------------------------------------------------------------------------


def test_standard_output_is_the_table_and_the_folder(mixed):
    done, _, folder = mixed
    heading, *rows, last = done.out.splitlines()
    assert heading.split() == ["round", "mean", "median", "target", "winners", "valid", "seconds", "unusable"]
    assert last == f"results: {folder}"
    with Run(folder) as run:
        assert len(rows) == run.round_count
        for index, row in enumerate(rows):
            outcome = run.outcome(index)
            figures = (outcome.mean, outcome.median, outcome.target)
            expected = [*(f"{figure.item():.2f}" for figure in figures), str(outcome.n_winners.item())]
            assert row.split()[:6] == [str(index + 1), *expected, "33"]
    header, following = done.err.splitlines()
    assert re.fullmatch(r"mixed: 33 participants on 1 rank\(s\), started in \d+\.\d s", header)
    assert following == f"next: pbeauty report {folder}"
    assert not CONTROL.search(done.out + done.err)


def test_everybody_thinks_at_the_same_time_and_a_file_gets_plain_lines(tmp_path):
    """100,000 participants who each think for a second take about that, and are reported without control characters."""
    config = experiment(tmp_path, ROUNDS_WITH_TIME)
    talkative = altered(tmp_path, "import pbeauty.job.display as progress\nprogress._SECONDS_BETWEEN_LINES = 0.2")
    done = mpirun(3, "run", config, "--set", "population.0.count=100000", "--out", tmp_path / "run", program=talkative)
    assert done.code == 0, done
    with Run(tmp_path / "run") as run:
        assert np.all((run.read("seconds") >= 1) & (run.read("seconds") < 1000))
    assert re.search(r"^round 1/2: [\d,]+ of 100,000 \(\d+%\), [\d,]+/s, \d+ s$", done.err, re.MULTILINE)
    assert re.search(r"^round 2/2: ", done.err, re.MULTILINE)
    assert not CONTROL.search(done.out + done.err)
    assert "round" not in done.out.removeprefix("round"), "progress belongs on standard error"


def test_a_terminal_shows_a_live_bar(tmp_path):
    config = experiment(tmp_path, ROUNDS_WITH_TIME)
    code, shown = in_terminal([*PBEAUTY, "run", str(config), "--out", str(tmp_path / "run")])
    assert code == 0, shown
    assert shown.count("\x1b[2K") > 5, "the bar is not redrawn"
    assert "━" in shown
    assert re.search(r"round 2/2 ━+ +\d+/1000 ", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown))
    screen = rendered(shown)
    rows = [line for line in screen if re.match(r" +[12] +\d", line)]
    assert len(rows) == 2, screen
    assert not any("━" in line for line in screen), "the bar stays behind"


def test_plain_lines_under_a_launcher_on_a_terminal(tmp_path):
    config = experiment(tmp_path, ROUNDS_WITH_TIME)
    command = [*MPICH, "-n", "2", *PBEAUTY, "run", str(config), "--out", str(tmp_path / "run")]
    code, shown = in_terminal(command)
    assert code == 0, shown
    assert "1,000 participants on 2 rank(s)" in shown
    assert not CONTROL.search(shown.replace("\r\n", "\n"))


def in_terminal(command, timeout=LIMIT):
    """Runs a command with a terminal of its own; its exit code and all that the terminal was sent."""
    ours, theirs = pty.openpty()
    environ = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True)
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + timeout
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    shown += os.read(ours, 1 << 16)
                except OSError:  # nobody holds the other end any more
                    break
            elif process.poll() is not None:
                break
        return process.wait(timeout=max(1, deadline - time.monotonic())), shown.decode()
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def rendered(shown):
    """The lines that are left on a terminal, as far as a bar's erasing and going up matter."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]|\r|\n|[^\x1b\r\n]+", shown):
        if part == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif part == "\x1b[2K":
            lines[row] = ""
        elif re.fullmatch(r"\x1b\[\d*A", part):
            row -= int(part[2:-1] or 1)
        elif part[0] not in "\x1b\r":
            lines[row] += part
    return lines


# --- other commands, other ways to start -----------------------------------------------------------------------


def test_check_says_what_would_be_played_without_mpi(tmp_path):
    config = experiment(tmp_path, MIXED)
    done = alone("check", config, environ={"MPI4PY_LIBMPI": "/nonexistent"})
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{config}: good\n  3 rounds, guesses from 5 to 105\n  target 3 + 0.7 x median\n")
    assert "33 participants, seed 41" in done.out
    assert "hierarchy: 11 cognitive_hierarchy (tau 1.5)" in done.out
    assert not (tmp_path / "results").exists()


def test_check_gives_scripts_one_json_document(tmp_path):
    config = experiment(tmp_path, MIXED)
    done = alone("check", config, "--json", "--set", "game.rounds=12")
    assert (done.code, done.err) == (0, "")
    resolved = json.loads(done.out)
    assert resolved["game"]["rounds"] == 12
    assert [group["count"] for group in resolved["population"]] == [7, 6, 1, 5, 3, 11]


def test_check_refuses_what_run_would_refuse(tmp_path):
    config = experiment(tmp_path, MIXED)
    done = alone("check", config, "--json", "--set", "game.ronds=12")
    assert (done.code, done.out) == (2, "")
    assert "game.ronds: unknown key; did you mean 'rounds'?" in done.err


def test_it_runs_as_a_module_under_mpi4py(mixed, tmp_path):
    _, config, folder = mixed
    done = mpirun(
        3, "run", config, "--out", tmp_path / "run", program=(BIN / "python", "-m", "mpi4py", "-m", "pbeauty")
    )
    assert (done.code, done.left) == (0, [])
    assert_same(results(tmp_path / "run"), results(folder))


def test_finished_rounds_can_be_read_while_the_run_goes_on(tmp_path):
    config = experiment(tmp_path, ROUNDS_WITH_TIME)
    with start(3, "run", config, "--out", tmp_path / "run", **thinking_from(2)) as job:
        job.wait_for(lambda: (tmp_path / "run/run.h5").exists() and rounds_kept(tmp_path / "run") == 1)
        with Run(tmp_path / "run") as run:
            assert not run.finished
            assert np.all(run.status[0] == Status.OK)


def test_a_rank_imports_only_what_it_needs(tmp_path):
    """Of scripted participants: the moderator alone reads YAML and writes HDF5, and nobody loads figures unasked."""
    setup = (
        "import atexit, os\n"
        "named = {'yaml', 'h5py', 'rich', 'scipy', 'matplotlib', 'jinja2', 'torch', 'vllm'}\n"
        "rank = os.environ['PMI_RANK']\n"
        f"path = {str(tmp_path)!r} + '/loaded-' + rank\n"
        "atexit.register(lambda: open(path, 'w').write(' '.join(sorted(named & sys.modules.keys()))))"
    )
    config = experiment(tmp_path, MIXED)
    arguments = ("run", config, "--set", "plots=false", "--out", tmp_path / "run")
    assert mpirun(3, *arguments, program=altered(tmp_path, setup)).code == 0
    assert [(tmp_path / f"loaded-{rank}").read_text() for rank in range(3)] == ["h5py yaml", "", ""]
