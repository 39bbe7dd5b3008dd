"""The live state that a run leaves while it is played, and what `pbeauty watch` makes of it."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import parrot
import pytest
from mpi import LIMIT, PBEAUTY, alone, altered, kill, mpirun, rounds_kept, start, thinking_from

from pbeauty.cli import watch as cli_watch
from pbeauty.cli.watch import observe, watch
from pbeauty.config.loader import loads
from pbeauty.errors import ConfigError
from pbeauty.files import LOCK_FILE
from pbeauty.game.experiment import Game
from pbeauty.game.records import Progress
from pbeauty.game.scoring import score
from pbeauty.job import live_status
from pbeauty.job.display import Display
from pbeauty.job.live_status import LIVE_FILE, LiveStatus, RankStatus, RunStatus, read_status, seconds_left
from pbeauty.storage.lock import read_lock, this_process
from pbeauty.storage.run_reader import Run

THINKERS = """
name: thinkers
game: {rounds: 3}
population: [{name: crowd, count: 100, kind: uniform, think_time: 0.8}]
"""
WATCHED = """
import os, time
from pbeauty.game import theory
played = theory.guess
def guess(experiment, group, announcement, ids):
    while not os.path.exists({folder!r} + f"/seen-{{announcement.round_index + 1}}"):
        time.sleep(0.01)
    return played(experiment, group, announcement, ids)
theory.guess = guess
"""
"""Nobody guesses before somebody has seen the round, and left a file that says so."""
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def write(folder, text=THINKERS):
    (folder / "experiment.yaml").write_text(text)
    return folder / "experiment.yaml"


def read(folder):
    return read_status((folder / LIVE_FILE).read_bytes())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run on three ranks: its folder, and every state that was seen on the way."""
    folder = tmp_path_factory.mktemp("finished")
    states, inodes = [], set()
    began = time.monotonic()
    program = altered(folder, WATCHED.format(folder=str(folder)))
    with start(3, "run", write(folder), "--out", folder / "run", program=program) as job:
        while not states or states[-1].state in ("starting", "playing"):
            assert time.monotonic() - began < LIMIT
            ended = job.ended
            if (folder / "run" / LIVE_FILE).exists():
                inodes.add((folder / "run" / LIVE_FILE).stat().st_mtime_ns)
                states.append(read(folder / "run"))
                (folder / f"seen-{states[-1].round}").touch()
            assert not ended or (states and states[-1].state == "finished"), job.end()
            time.sleep(0.005)
        seconds = time.monotonic() - began
        assert job.end().code == 0
    return folder / "run", states, len(inodes), seconds


# --- the file --------------------------------------------------------------------------------------------------


def test_whoever_reads_finds_a_whole_state_and_few_are_written(finished):
    """Read again and again while it is replaced; one a second, and one each for the start and the end."""
    _, states, written, seconds = finished
    assert len(states) > 20
    assert {state.state for state in states} == {"starting", "playing", "finished"}
    assert 3 <= written <= seconds + 3


def test_states_tell_round_and_ranks(finished):
    _, states, *_ = finished
    playing = [state for state in states if state.round == 2]
    assert playing
    for state in playing:
        assert (state.rounds, state.rounds_finished, state.participants) == (3, 1, 100)
        assert [(rank.rank, rank.total) for rank in state.ranks] == [(1, 50), (2, 50)]
        assert state.seconds_left > 0.8
        assert [result.round for result in state.results] == [1]


def test_the_last_state_is_the_result(finished):
    folder, states, *_ = finished
    last = states[-1]
    assert (last.state, last.round, last.rounds_finished, last.message) == ("finished", None, 3, None)
    with Run(folder) as run:
        for index, result in enumerate(last.results):
            outcome = run.outcome(index)
            assert (result.round, result.mean, result.median, result.target, result.n_valid) == (
                index + 1,
                outcome.mean,
                outcome.median,
                outcome.target,
                outcome.n_valid,
            )
            assert result.seconds == run.read("seconds")[index]


def test_an_interrupted_run_says_why_and_its_resumption_knows_the_rounds_before(tmp_path):
    config, run = write(tmp_path, THINKERS.replace("0.8", "0.1")), tmp_path / "run"
    with start(2, "run", config, "--out", run, **thinking_from(2)) as job:
        job.wait_for(lambda: (run / "run.h5").exists() and rounds_kept(run) == 1)
        job.send(signal.SIGTERM)
        job.end()
    state = read(run)
    assert (state.state, state.message, state.rounds_finished) == ("interrupted", "stopped by SIGTERM", 1)
    assert mpirun(1, "run", config, "--out", run, "--resume").code == 0
    state = read(run)
    assert (state.state, state.message) == ("finished", None)
    assert [result.round for result in state.results] == [1, 2, 3]
    with Run(run) as stored:
        assert [result.seconds for result in state.results] == stored.read("seconds").tolist()


def test_a_failed_run_says_why(tmp_path):
    fault = "def guess(*a, **k): raise ZeroDivisionError('out of luck')"
    program = altered(tmp_path, f"from pbeauty.game import theory\n{fault}\ntheory.guess = guess")
    assert mpirun(1, "run", write(tmp_path), "--out", tmp_path / "run", program=program).code != 0
    state = read(tmp_path / "run")
    assert (state.state, state.message) == ("failed", "out of luck")
    assert not (tmp_path / "run" / LOCK_FILE).exists()


def test_a_live_state_that_cannot_be_written_is_told_once_and_does_not_end_the_run(tmp_path):
    (tmp_path / "run" / LIVE_FILE).mkdir(parents=True)
    config = write(tmp_path, THINKERS.replace("0.8", "0.1"))
    done = mpirun(2, "run", config, "--set", "game.rounds=1", "--out", tmp_path / "run")
    assert done.code == 0
    message = f"pbeauty: cannot write {tmp_path / 'run' / LIVE_FILE}: Is a directory; the run goes on without it"
    assert done.err.count(message) == 1
    assert done.err.count("pbeauty: ") == 1
    assert rounds_kept(tmp_path / "run") == 1


def follow(folder):
    experiment = loads(THINKERS)
    return LiveStatus(folder, experiment, this_process(), Display(experiment))


@pytest.fixture
def clock(monkeypatch):
    """The live status's clock, in the hands of the test."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(live_status.time, "monotonic", lambda: clock.now)
    return clock


def test_a_straggler_is_seen(clock, tmp_path):
    """Rank 1 needs 2 s for its 60; rank 2 does 10 a second, with 40 of 80 left after 4 s."""
    experiment = loads(THINKERS.replace("count: 100", "count: 140"))
    live = LiveStatus(tmp_path, experiment, this_process(), Display(experiment))
    live.begin_playing(["here", "here", "there"], [0, 60, 80])
    clock.now += 10
    live.begin_round(0)
    clock.now += 2
    live.show({1: Progress(60, 60, 3, 600, 120), 2: Progress(80, 20, 0, 200, 40)})
    clock.now += 2
    live.show({1: Progress(60, 60, 3, 600, 120), 2: Progress(80, 40, 1, 400, 80)})
    live._write()
    state = read(tmp_path)
    assert [(r.rank, r.host, r.done, r.unusable, r.participants_per_second) for r in state.ranks] == [
        (1, "here", 60, 3, 30),
        (2, "there", 40, 1, 10),
    ]
    assert (state.round, state.round_seconds) == (1, 4)
    assert state.seconds_left == 4 + 2 * (4 + 4)
    shown = cli_watch.show(state)
    assert "round 1: 100 of 140 (71%), 25 participants/s, 50 tokens/s, 4 unusable" in shown


def test_progress_is_of_those_who_are_asked(clock, tmp_path):
    """Of the 60 and 80 of two ranks most have ended in one round, and others in the next."""
    experiment = loads(THINKERS.replace("count: 100", "count: 140").replace("rounds: 3", "rounds: 1"))
    live = LiveStatus(tmp_path, experiment, this_process(), Display(experiment))
    live.begin_playing(["here", "here", "there"], [0, 60, 80])
    for heard, total, left in (
        ({}, 140, None),
        ({1: Progress(20, 10), 2: Progress(0, 0)}, 20, 2),
        ({1: Progress(20, 20), 2: Progress(0, 0)}, 20, 0),
        ({1: Progress(0, 0), 2: Progress(80, 40)}, 80, 2),
    ):
        live.begin_round(0)
        clock.now += 2
        live.show(heard)
        live._write()
        state = read(tmp_path)
        done = sum(progress.done for progress in heard.values())
        assert f"round 1: {done} of {total} ({100 * done // total}%)" in cli_watch.show(state)
        assert state.seconds_left == left


def test_a_file_system_that_takes_its_time_does_not_hold_up_the_round(tmp_path, monkeypatch):
    """The status is written by a thread of its own; whoever plays never waits for it."""
    replaced, slow = live_status.replace_text, threading.Event()

    def slowly(path, text, **options):
        slow.wait(LIMIT)
        replaced(path, text, **options)

    with follow(tmp_path) as live:
        monkeypatch.setattr(live_status, "SECONDS_BETWEEN_WRITES", 0.01)
        monkeypatch.setattr(live_status, "replace_text", slowly)
        live.begin_playing(["here"], [100])
        for index in range(3):
            live.begin_round(index)
            live.show({0: Progress(100, 50)})
            live.result(index, SCORED, 0.5)
        assert read(tmp_path).state == "starting", "nothing has been written meanwhile"
        threading.Timer(0.5, slow.set).start()
        live.end("finished")
    assert (read(tmp_path).state, read(tmp_path).rounds_finished) == ("finished", 3)


def test_nobody_can_tell_how_long_a_rank_without_a_reply_takes():
    def left(**changes):
        rank = RankStatus(1, "here", 10, **changes)
        return seconds_left(RunStatus("playing", rounds=1, round=1, ranks=[rank]))

    assert left() is None
    assert left(done=5, participants_per_second=2.5) == 2
    assert left(done=10) == 0


SCORED = score(Game(), np.ones(1), np.zeros(1, np.uint8))


def test_a_run_of_many_rounds_keeps_the_latest(tmp_path):
    live = follow(tmp_path)
    for index in range(700):
        live.result(index, SCORED, 0.5)
    live.end("finished")
    state = read(tmp_path)
    assert state.rounds_finished == 700
    assert [state.results[0].round, state.results[-1].round, len(state.results)] == [201, 700, 500]


def test_the_status_tells_how_many_engines_have_been_loaded(clock, tmp_path):
    live = follow(tmp_path)
    live.loading(0, 2)
    clock.now += 12
    live.loading(1, 2)
    live._write()
    state = read(tmp_path)
    assert (state.state, state.engines_ready, state.engines, state.loading_seconds) == ("starting", 1, 2, 12)
    assert "loading engines: 1 of 2, 12 s" in cli_watch.show(state)
    live.begin_playing(["here"], [100])
    live._write()
    assert read(tmp_path).loading_seconds is None


# --- watch -----------------------------------------------------------------------------------------------------


def test_watch_tells_a_finished_run_with_and_without_its_live_state(finished, tmp_path):
    folder, *_ = finished
    for run in (folder, folder / "run.h5"):
        done = alone("watch", run)
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith("thinkers: finished, 3 of 3 rounds, 100 participants, by ")
        assert "mean  median  target  winners  valid  seconds" in done.out, "in the order of a run's own lines"
        assert not CONTROL.search(done.out)
    with_state = json.loads(alone("watch", folder, "--json").out)
    (tmp_path / "run.h5").write_bytes((folder / "run.h5").read_bytes())
    without = json.loads(alone("watch", tmp_path / "run.h5", "--json").out)
    assert with_state.keys() == without.keys()
    for key in ("state", "name", "rounds", "rounds_finished", "participants", "results"):
        assert without[key] == with_state[key]
    assert "finished, 3 of 3 rounds" in alone("watch", tmp_path).out
    assert {path.name for path in tmp_path.iterdir()} == {"run.h5"}


def test_watch_tells_a_playing_run_from_a_dead_one(tmp_path):
    config, run = write(tmp_path), tmp_path / "run"
    with start(3, "run", config, "--set", "population.0.think_time=3600", "--out", run) as job:
        job.wait_for(lambda: (run / LIVE_FILE).exists() and read(run).round == 1)
        shown = alone("watch", run, "--once")
        assert "thinkers: playing, 0 of 3 rounds" in shown.out
        assert "round 1: 0 of 100 (0%)" in shown.out
        assert re.search(r"^ +2 +0 +50 ", shown.out, re.MULTILINE)
        assert observe(run).state == "playing"
        kill(job.ranks().values())
        job.end()
    shown = alone("watch", run)
    assert shown.code == 0
    assert "thinkers: dead: its job is gone without having ended it; --resume goes on with it" in shown.out
    assert json.loads(alone("watch", run, "--json").out)["state"] == "dead"
    (run / LOCK_FILE).unlink()
    assert observe(run).state == "dead"


def test_watch_sees_a_new_job_before_its_first_state(finished, tmp_path):
    folder, *_ = finished
    state = replace(read(folder), state="interrupted", pid=1, message="stopped by SIGTERM")
    (tmp_path / LIVE_FILE).write_text(json.dumps(asdict(state)))
    assert observe(tmp_path).state == "interrupted"
    (tmp_path / LOCK_FILE).write_text(this_process().model_dump_json())
    assert (observe(tmp_path).state, observe(tmp_path).pid) == ("starting", os.getpid())
    (tmp_path / LIVE_FILE).unlink()
    assert observe(tmp_path).state == "starting"


def test_a_run_that_ends_between_two_looks_is_not_dead(finished, tmp_path, monkeypatch):
    _, states, *_ = finished
    (tmp_path / LIVE_FILE).write_text(json.dumps(asdict(next(s for s in states if s.state == "playing"))))

    def end(path):
        (tmp_path / LIVE_FILE).write_text(json.dumps(asdict(states[-1])))
        return read_lock(path)

    monkeypatch.setattr("pbeauty.cli.watch.read_lock", end)
    assert observe(tmp_path).state == "finished"


def test_watch_needs_neither_mpi_nor_vllm(finished, tmp_path):
    folder, *_ = finished
    script = tmp_path / "watch.py"
    script.write_text(
        "import sys\nfrom pbeauty.cli.main import main\nassert main(sys.argv[1:]) == 0\n"
        "loaded = {'mpi4py', 'vllm', 'torch', 'matplotlib'} & sys.modules.keys()\nassert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, script, "watch", folder], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("what", ["nothing", "a-folder", "a-file", "another-hdf5"])
def test_watch_refuses_what_is_no_run(what, tmp_path):
    path = tmp_path / "thing"
    if what == "a-folder":
        path.mkdir()
    elif what == "a-file":
        path.touch()
    elif what == "another-hdf5":
        path.mkdir()
        (path / "run.h5").write_text("something else")
    done = alone("watch", path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("pbeauty: ")
    assert ("there is no such file or folder" in done.err) is (what == "nothing")
    assert "Traceback" not in done.err


@pytest.mark.parametrize("content", ["", "[1]", '{"state": "playing"}', "\\x80", "[" * 100_000])
def test_what_is_no_live_status_is_refused(content, tmp_path):
    (tmp_path / LIVE_FILE).write_text(content)
    with pytest.raises(ConfigError, match="is not the live status of a run"):
        observe(tmp_path)


def test_text_in_a_status_is_shown_as_it_is(finished, tmp_path, capsys):
    _, states, *_ = finished
    state = replace(next(s for s in states if s.round == 2), name="[bold red]x[/red]")
    (tmp_path / LIVE_FILE).write_text(json.dumps(asdict(state)))
    watch(tmp_path, as_json=False, once=True)
    assert "[bold red]x[/red]: " in capsys.readouterr().out


def test_a_folder_of_runs_is_a_line_for_each(finished, tmp_path, capsys):
    """As `analyze` takes it; and a copy of a run.h5 under another name."""
    folder, *_ = finished
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.h5").write_bytes((folder / "run.h5").read_bytes())
    (tmp_path / "best.h5").write_bytes((folder / "run.h5").read_bytes())
    watch(tmp_path, as_json=False, once=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [str(tmp_path / name) for name in ("one", "two")]
    assert all("thinkers: finished, 3 of 3 rounds, 100 participants" in line for line in lines)
    watch(tmp_path / "best.h5", as_json=True, once=True)
    assert json.loads(capsys.readouterr().out)["state"] == "finished"


def test_among_many_runs_are_those_that_have_only_begun_and_those_that_cannot_be_read(finished, tmp_path, capsys):
    folder, *_ = finished
    for name in ("a-done", "b-damaged", "c-locked", "d-loading", "e-sweep/case"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("a-done", "e-sweep/case"):
        (tmp_path / name / "run.h5").write_bytes((folder / "run.h5").read_bytes())
    (tmp_path / "b-damaged/run.h5").write_text("no run")
    (tmp_path / "c-locked" / LOCK_FILE).write_text(this_process().model_dump_json())
    loading = RunStatus(state="starting", name="new", rounds=3, participants=2)
    (tmp_path / "d-loading" / LIVE_FILE).write_text(json.dumps(asdict(loading)))
    (tmp_path / "e-sweep" / LIVE_FILE).write_text(json.dumps({"state": "finished", "sweep": "s", "case": ""}))
    watch(tmp_path, as_json=False, once=True)
    told = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert told.keys() == {
        str(tmp_path / name) for name in ("a-done", "b-damaged", "c-locked", "d-loading", "e-sweep/case")
    }
    states = {Path(name).name: text for name, text in told.items()}
    assert states["a-done"] == states["case"]
    assert "b-damaged/run.h5 is damaged" in states["b-damaged"]
    assert states["c-locked"].startswith("a run: starting, by ")
    assert states["d-loading"].startswith("new: dead: its job is gone"), "nobody holds its lock"
    watch(tmp_path, as_json=True, once=True)
    assert [one["state"] for one in json.loads(capsys.readouterr().out)] == [
        "finished", "unreadable", "starting", "dead", "finished",
    ]  # fmt: skip


def test_a_small_screen_has_the_latest_rounds_and_the_slowest_ranks(finished, monkeypatch):
    _, states, *_ = finished
    state = next(s for s in states if s.round == 2 and s.ranks)
    results = [replace(state.results[0], round=number) for number in range(1, 51)]
    ranks = [replace(state.ranks[0], rank=number, done=100 - number, total=100) for number in range(1, 51)]
    whole = replace(state, state="playing", message="\n".join("abcdefgh"), results=results, ranks=ranks)
    for rows in (1, 6, 20):
        lines = cli_watch.show(replace(whole, message=None), rows).splitlines()
        assert len(lines) <= 2 * rows + 9
        numbers = [int(line.split()[0]) for line in lines if line[:5].strip().isdigit()]
        assert numbers == [*range(51 - rows, 51)] * 2
        assert f"the {rows} ranks that are furthest behind, of 50" in lines
    assert "\nf\ng\nh\n" in cli_watch.show(whole, 3)
    assert "\ne\n" not in cli_watch.show(whole, 3)


def test_a_terminal_that_cannot_be_drawn_on_gets_the_status_once(tmp_path):
    """A run that plays on: nothing would be shown before its end otherwise."""
    config, run = write(tmp_path), tmp_path / "run"
    with start(2, "run", config, "--set", "population.0.think_time=3600", "--out", run) as job:
        job.wait_for(lambda: (run / LIVE_FILE).exists() and read(run).round == 1)
        code, shown = in_terminal([*PBEAUTY, "watch", str(run)], "", None, TERM="dumb")
        kill(job.ranks().values())
        job.end()
    assert code == 0
    assert "thinkers: playing, 0 of 3 rounds" in shown
    assert "\x1b" not in shown


# --- on a terminal ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", [False, True], ids=["to-the-end", "control-c"])
def test_watch_follows_a_run_on_a_terminal(leave, tmp_path):
    config, run = write(tmp_path), tmp_path / "run"
    program = altered(tmp_path, WATCHED.format(folder=str(tmp_path)))

    def on_seen(keyboard):
        if leave:
            os.write(keyboard, b"\x03")
        for number in () if leave else (1, 2, 3):
            (tmp_path / f"seen-{number}").touch()

    with start(2, "run", config, "--out", run, program=program) as job:
        job.wait_for((run / LIVE_FILE).exists)
        code, shown = in_terminal([*PBEAUTY, "watch", str(run)], "round 1: ", on_seen)
        if not leave:
            assert job.end().code == 0
    assert code == 0, shown
    assert ("thinkers: finished" in shown) is not leave
    assert "Traceback" not in shown
    if not leave:
        assert shown.count("\x1b[2K") > 2, "the view is not redrawn"


def in_terminal(command, words, on_seen, timeout=LIMIT, **variables):
    """Runs a command with a terminal of its own, calls `on_seen` with its other end once `words` have been shown there;
    the command's code and all it showed."""
    ours, theirs = pty.openpty()
    environ = os.environ | {"TERM": "xterm-256color", "COLUMNS": "160", "LINES": "40"} | variables
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environ,
        # Whoever runs the tests in the background lets them ignore Ctrl-C; a terminal's programs do not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(theirs)
    shown, deadline = "", time.monotonic() + timeout
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    shown += os.read(ours, 1 << 16).decode(errors="replace")
                except OSError:  # nobody holds the other end any more
                    break
                if on_seen and words in shown:
                    on_seen(ours)
                    on_seen = None
        return process.wait(timeout=max(1, deadline - time.monotonic())), shown
    finally:
        process.kill()
        process.wait()
        os.close(ours)


# --- engines ---------------------------------------------------------------------------------------------------

SLOW = """
import os, time
sys.path.insert(0, {support!r})
import parrot, pbeauty.job.runner
from mpi4py import MPI
from pbeauty.job import display
display._SECONDS_BETWEEN_LINES = 0.1

class Engine(parrot.Engine):
    def __init__(self, *arguments, **options):
        while not os.path.exists({folder!r} + f"/load-{{MPI.COMM_WORLD.rank}}"):
            time.sleep(0.01)
        super().__init__(*arguments, **options)

pbeauty.job.runner.Engine = Engine
"""
"""An engine is loaded once there is a file that says so."""
BIRDS = """
name: birds
game: {rounds: 2}
plots: false
population: [{name: birds, count: 300, kind: llm, retries: 2}]
"""


def test_engines_are_seen_loading_and_replies_that_were_kept_are_counted(tmp_path):
    """The header comes before engines load; and whoever goes on reads how much of the round is there already."""
    config, run = write(tmp_path, BIRDS), tmp_path / "run"
    program = altered(tmp_path, SLOW.format(support=str(Path(parrot.__file__).parent), folder=str(tmp_path)))
    with start(3, "run", config, "--out", run, program=program, environ={"PARROT_REPLIES": "60"}) as job:
        job.wait_for(lambda: (run / LIVE_FILE).exists() and (read(run).loading_seconds or 0) > 0.5)
        (tmp_path / "load-1").touch()
        job.wait_for(lambda: read(run).engines_ready == 1)
        state = read(run)
        assert (state.state, state.engines) == ("starting", 2)
        assert "loading engines: 1 of 2, " in alone("watch", run).out
        job.wait_for(lambda: read(run).loading_seconds > state.loading_seconds + 0.5)
        (tmp_path / "load-2").touch()
        job.wait_for(lambda: any(rank.done > 10 for rank in read(run).ranks))
        job.send(signal.SIGTERM)
        done = job.end()
    header, first, *others = done.err.splitlines()
    assert header.startswith("birds: 300 participants on 3 rank(s)")
    assert re.fullmatch(r"loading engines: 0 of 2 \(0%\), \d+ s", first)
    assert any(re.fullmatch(r"loading engines: 1 of 2 \(50%\), \d+ s", line) for line in others)
    assert any(re.fullmatch(r"engines ready in \d+\.\d s", line) for line in others)
    done = mpirun(2, "run", config, "--out", run, "--resume", program=program)
    assert done.code == 0, done
    (kept,) = re.findall(
        r"^([\d,]+) replies of round 1 were kept, and are not asked for again$", done.err, re.MULTILINE
    )
    assert 10 < int(kept) <= 120
