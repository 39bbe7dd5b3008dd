"""One job at a time in a run's folder: refused while the owner lives, taken over once it is gone, whoever races."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mpi import LIMIT, alone, kill, rounds_kept, start, thinking_from

from pbeauty.errors import ConfigError, LockedError
from pbeauty.files import LOCK_FILE
from pbeauty.storage import lock
from pbeauty.storage.lock import locked, this_process

ENDLESS = """
name: endless
game: {rounds: 100000}
population: [{name: crowd, count: 50, kind: uniform, think_time: 0.2}]
"""
SHORT = ("--set", "game.rounds=1")


def write(folder):
    (folder / "experiment.yaml").write_text(ENDLESS)
    return folder / "experiment.yaml"


def leave(folder, age=0.0, **changes):
    """A lock that another process left, with its last sign of life `age` seconds ago."""
    folder.mkdir(exist_ok=True)
    owner = this_process().model_copy(update={"token": "0123456789abcdef"} | changes)
    (folder / LOCK_FILE).write_text(owner.model_dump_json())
    os.utime(folder / LOCK_FILE, (time.time() - age, time.time() - age))
    return owner


def look(folder):
    return lock.read_lock(folder / LOCK_FILE)


def refused(folder, kind=LockedError):
    """What a newcomer is told."""
    with pytest.raises(kind) as error, locked(folder):
        pass
    return str(error.value)


def a_dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


ELSEWHERE = {"host": "elsewhere", "scope": "another host"}


# --- whole jobs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resume", [(), ("--resume",)], ids=["anew", "resumed"])
def test_a_second_job_on_the_same_folder_is_refused_and_the_first_goes_on(resume, tmp_path):
    config, run = write(tmp_path), tmp_path / "run"
    with start(2, "run", config, "--out", run) as job:
        job.wait_for((run / LOCK_FILE).exists)
        owner = look(run).owner
        second = alone("run", config, "--out", run, *resume)
        assert (second.code, second.out) == (2, "")
        assert owner.pid == job.ranks()[0]
        assert second.err.startswith(
            f"pbeauty: {run} is being played by {owner.user} on {owner.host} (pid {owner.pid}, since {owner.since})"
        )
        job.wait_for(lambda: (run / "run.h5").exists() and rounds_kept(run) >= 1)
        assert look(run).owner == owner, "the refused job touched the lock"
        job.send(signal.SIGTERM)
        assert job.end().left == []
    assert not (run / LOCK_FILE).exists()
    assert not [path.name for path in run.iterdir() if path.name.startswith(".")]


def test_the_lock_of_a_killed_job_is_taken_over(tmp_path):
    config, run = write(tmp_path), tmp_path / "run"
    with start(2, "run", config, *SHORT, "--out", run, **thinking_from(1)) as job:
        job.wait_for((run / "run.h5").exists)
        pid = job.ranks()[0]
        kill(job.ranks().values())
        job.end()
    assert (run / LOCK_FILE).exists()
    resumed = alone("run", config, *SHORT, "--out", run, "--resume")
    assert resumed.code == 0, resumed
    assert "pbeauty: removed the lock of a job that is gone: " in resumed.err
    assert f"(pid {pid}, " in resumed.err
    assert rounds_kept(run) == 1
    assert not (run / LOCK_FILE).exists()


def test_a_job_that_is_refused_or_fails_gives_the_folder_free(tmp_path):
    config, run = write(tmp_path), tmp_path / "run"
    assert alone("run", config, *SHORT, "--out", run).code == 0
    assert alone("run", config, *SHORT, "--out", run).code == 2
    assert alone("run", config, "--out", run, "--resume").code == 2
    assert {path.name for path in run.iterdir()} == {"run.h5", "live.json"}


def test_of_newcomers_at_once_exactly_one_takes_a_stale_lock_over(tmp_path):
    """Real processes, again and again: each round they find the lock of a dead process and all try at once."""
    (tmp_path / "race.py").write_text(RACE)
    done = subprocess.run(
        [sys.executable, tmp_path / "race.py", tmp_path, str(a_dead_pid())],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    winners = json.loads(done.stdout)
    assert winners == [1] * 100
    assert {path.name for path in tmp_path.iterdir()} == {"race.py"}


RACE = """
import json, multiprocessing, os, sys
from contextlib import ExitStack
from pathlib import Path

from pbeauty.errors import LockedError
from pbeauty.storage.lock import locked, this_process

RACERS, ROUNDS = 6, 100
folder, dead = Path(sys.argv[1]), int(sys.argv[2])

def race(number, barrier, won):
    for index in range(ROUNDS):
        if number == 0:
            owner = this_process().model_copy(update={"pid": dead})
            (folder / "lock").write_text(owner.model_dump_json())
        barrier.wait()
        with ExitStack() as held:
            try:
                held.enter_context(locked(folder))
                with won.get_lock():
                    won[index] += 1
            except LockedError:
                pass
            barrier.wait()
        barrier.wait()

if __name__ == "__main__":
    sys.stderr = open(os.devnull, "w")
    context = multiprocessing.get_context("fork")
    barrier, won = context.Barrier(RACERS), context.Array("i", ROUNDS)
    racers = [context.Process(target=race, args=(n, barrier, won)) for n in range(RACERS)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    print(json.dumps(list(won)))
"""


# --- who is gone -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stale", "age", "changes"),
    [
        (False, 0, {}),
        (False, 1000, {}),  # a process that lives but stands still has not ended
        (True, 0, {"pid": "dead"}),
        (True, 0, {"started": "1"}),  # another process has its pid by now
        (False, 0, ELSEWHERE),
        (False, 80, ELSEWHERE),
        (True, 100, ELSEWHERE),
        (False, 0, ELSEWHERE | {"pid": "dead"}),  # a pid means nothing on another host
        (True, 0, {"pid": -1}),
        (False, 1000, {"pid": 1, "started": lock.process_start(1)}),
    ],
)
def test_a_lock_is_stale_only_where_its_owner_is_gone(stale, age, changes, tmp_path):
    if changes.get("pid") == "dead":
        changes = changes | {"pid": a_dead_pid()}
    owner = leave(tmp_path, age, **changes)
    assert look(tmp_path).stale is stale
    if stale:
        with locked(tmp_path) as mine:
            assert look(tmp_path).owner == mine
        assert list(tmp_path.iterdir()) == []
    else:
        told = refused(tmp_path)
        assert f"being played by {owner.user} on {owner.host} " in told
        assert ("last sign of life" in told) is (age > 20)
        assert look(tmp_path).owner == owner


def test_the_age_of_a_lock_is_told_by_the_clock_of_its_file_system(tmp_path, monkeypatch):
    """However wrong this host's own clock is."""
    leave(tmp_path, 30, **ELSEWHERE)
    now = time.time()
    for shift in (-5000, 5000):
        monkeypatch.setattr(lock.time, "time", lambda shift=shift: now + shift)
        with pytest.raises(LockedError, match=r"last sign of life 3\d s ago"), lock.locked(tmp_path):
            pass
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]


def test_a_zombie_is_dead(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    leave(tmp_path, pid=process.pid, started=lock.process_start(process.pid))
    assert not look(tmp_path).stale
    process.stdin.close()
    deadline = time.monotonic() + LIMIT
    while not look(tmp_path).stale and time.monotonic() < deadline:
        time.sleep(0.02)
    assert look(tmp_path).stale
    process.wait()


# --- taking over -----------------------------------------------------------------------------------------------


def test_a_newcomer_who_looked_before_another_took_over_leaves_the_new_lock_alone(tmp_path, monkeypatch):
    leave(tmp_path, pid=a_dead_pid())
    outdated = look(tmp_path)
    with locked(tmp_path) as first:
        looks = iter([outdated])
        real = lock.read_lock
        monkeypatch.setattr(lock, "read_lock", lambda path, *now: next(looks, None) or real(path, *now))
        assert "is being played by" in refused(tmp_path)
        assert next(looks, None) is None, "the outdated look was not used"
        assert real(tmp_path / LOCK_FILE).owner == first
        assert [path.name for path in tmp_path.iterdir()] == [LOCK_FILE]


@pytest.mark.parametrize("gone", [True, False])
def test_a_job_that_died_while_it_took_over_does_not_block_the_next(gone, tmp_path):
    stale = leave(tmp_path, pid=a_dead_pid())
    claimer = this_process().model_copy(update={"pid": a_dead_pid()} if gone else {})
    (tmp_path / f".lock.{stale.token}").write_text(claimer.model_dump_json())
    if gone:
        with locked(tmp_path) as mine:
            assert look(tmp_path).owner == mine
        assert list(tmp_path.iterdir()) == []
    else:
        assert f"pid {os.getpid()}" in refused(tmp_path)


def test_the_lock_is_renewed_and_notices_its_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "SECONDS_BETWEEN_RENEWALS", 0.02)
    reasons = []
    with locked(tmp_path, lost=reasons.append):
        os.utime(tmp_path / LOCK_FILE, (0, 0))
        assert eventually(lambda: (tmp_path / LOCK_FILE).stat().st_mtime > 1e9), "not renewed"
        (tmp_path / LOCK_FILE).unlink()
        other = leave(tmp_path, **ELSEWHERE)
        assert eventually(lambda: reasons)
    assert reasons == [f"the loss of its lock to {other}"]
    assert look(tmp_path).owner == other, "another job's lock was removed"


def eventually(condition, timeout=LIMIT):
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


# --- what others may have put there ----------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": -1}', "9" * (1 << 20), None], ids=range(6))
def test_a_lock_that_cannot_be_read_counts_until_it_is_old(content, tmp_path):
    path = tmp_path / LOCK_FILE
    if content is None:
        os.mkfifo(path)  # which must not be waited for
    else:
        path.write_text(content)
    assert "is being played by another job" in refused(tmp_path)
    os.utime(path, (time.time() - 100, time.time() - 100))
    with locked(tmp_path) as mine:
        assert look(tmp_path).owner == mine
    assert list(tmp_path.iterdir()) == []


def test_a_hostile_lock_does_not_reach_the_terminal(tmp_path):
    leave(tmp_path, user="\x1b]0;title\x07", host="\x9b31m\n\u202e")
    assert refused(tmp_path).isprintable()


def test_a_folder_that_takes_no_files_is_refused():
    assert "cannot write to the result folder /proc/self" in refused(Path("/proc/self"), ConfigError)
