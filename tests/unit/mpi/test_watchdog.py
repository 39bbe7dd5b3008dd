"""Jobs that hang are ended, and say why; jobs that are slow, or were suspended, are not."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from mpi import LIMIT, mpirun, rounds_kept, start

from pbeauty.files import LIVE_FILE
from pbeauty.job.live_status import read_status
from pbeauty.mpi import watchdog
from pbeauty.mpi.watchdog import WakingClock

WATCHED = """
import ctypes, sys, time
from pbeauty.game.records import Progress
from pbeauty.mpi.watchdog import Watchdog

progress = Progress(total=20, done=5)
def end():
    print("ended", flush=True)
with Watchdog({patience}, 3, end).watching(progress, lambda: 7):
    print("begun", flush=True)
    {work}
print("through", flush=True)
"""
TALKERS = """
name: talkers
patience: 1
game: {rounds: 3}
population: [{name: talkers, count: 6, kind: llm}]
"""
THINKERS = """
name: thinkers
patience: 0.3
game: {rounds: 2}
population: [{name: crowd, count: 50, kind: uniform, think_time: 1.5}]
"""
FAKES = """
import sys, time
from types import SimpleNamespace
from mpi4py import MPI
from pbeauty.llm import answering, conversations
from pbeauty.job import runner

ENGINE = SimpleNamespace(gpus=[], arguments={{}}, resolved={{}}, in_flight=7)

def play(llm, announcement, rows, replies, loop):
    rank = MPI.COMM_WORLD.rank
    if rank == {rank} and announcement.round_index == 1:
        while True:
            {hang}
    rows["guess"][:], rows["status"][:] = 10, 0

answering.play = play
runner.EngineCache.get = lambda cache, job, *rest: ENGINE if job.block else None
conversations.LLMParticipants = lambda experiment, segment, engine, personas: SimpleNamespace(
    engine=engine, notes=lambda: [], ids=segment.ids()
)
from pbeauty.cli.main import main
sys.exit(main())
"""


def watched(work, patience):
    return subprocess.Popen(
        [sys.executable, "-c", WATCHED.format(work=work, patience=patience)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def write(folder, text):
    (folder / "experiment.yaml").write_text(text)
    return folder / "experiment.yaml"


def fakes(folder, rank, hang):
    (folder / "altered.py").write_text(FAKES.format(rank=rank, hang=hang))
    return [sys.executable, folder / "altered.py"]


# --- one engine ------------------------------------------------------------------------------------------------


def test_an_engine_that_hangs_ends_its_process_and_tells_where_it_was():
    out, err = (process := watched("time.sleep(3600)", 1)).communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert out.splitlines() == ["begun", "ended"]
    assert re.search(r"^pbeauty: rank 3 on \S+: no reply has come from the engine for 1 s \(patience\), ", err)
    assert "with 7 request(s) in flight and 5 of 20 participants done" in err
    assert re.search(r'File "<string>", line \d+ in <module>', err), "where the main thread was is not told"


def test_an_engine_that_never_lets_python_run_ends_its_process_too():
    """`PyDLL` keeps the interpreter's lock for as long as the call takes."""
    out, err = (process := watched("ctypes.PyDLL(None).sleep(3600)", 0.5)).communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert out.splitlines() == ["begun"]
    assert "Timeout" in err
    assert re.search(r'File "<string>", line \d+ in <module>', err)


def test_an_engine_that_goes_on_is_left_alone():
    """For several times its patience; a reply that settles nobody's guess counts, too."""
    work = "for i in range(60): time.sleep(0.1); progress.done += i < 20; progress.output_tokens += 1"
    out, err = (process := watched(work, 2)).communicate(timeout=LIMIT)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines() == ["begun", "through"]


def test_nothing_happens_after_the_round():
    process = watched("pass\ntime.sleep(2)", 0.3)
    out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines() == ["begun", "through"]


def test_a_job_that_the_scheduler_suspended_does_not_count_as_hanging():
    """Longer than its patience; and it goes on afterwards."""
    work = "for i in range(15): time.sleep(0.1); progress.done += 1"
    process = watched(work, 2)
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.3)
    process.send_signal(signal.SIGSTOP)
    time.sleep(2.7)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out, err) == (0, "through\n", "")


def test_a_waking_clock_advances_a_nap_at_most(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now[0])
    clock = WakingClock(longest_nap=1.0)
    read = []
    for step in (0.25, 0.5, 3600, 0.25):
        now[0] += step
        read.append(clock())
    assert np.allclose(read, [0.25, 0.75, 1.75, 2.0])


# --- whole jobs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranks", "rank", "hang"),
    [(1, 0, "time.sleep(3600)"), (3, 2, "time.sleep(3600)"), (3, 1, "loop.go_on(); time.sleep(0.01)")],
    ids=["one-rank", "a-step", "all-steps"],
)
def test_an_engine_that_hangs_ends_the_job_and_keeps_the_rounds_before(hang, ranks, rank, tmp_path):
    """Whether one step never returns, or all return and no reply is ever finished."""
    config, run = write(tmp_path, TALKERS), tmp_path / "run"
    done = mpirun(ranks, "run", config, "--out", run, program=fakes(tmp_path, rank, hang))
    assert done.code not in (0, 2, 75)
    assert done.left == []
    assert len(re.findall(rf"^pbeauty: rank {rank} on \S+: no reply has come", done.err, re.MULTILINE)) == 1, done.err
    assert "for 1 s (patience), with 7 request(s) in flight" in done.err
    assert "altered.py" in done.err, "where it hangs is not told"
    assert rounds_kept(run) == 1


def test_participants_may_think_longer_than_patience(tmp_path):
    done = mpirun(3, "run", write(tmp_path, THINKERS), "--set", "game.rounds=1", "--out", tmp_path / "run")
    assert done.code == 0, done
    assert rounds_kept(tmp_path / "run") == 1


def test_a_rank_that_falls_silent_ends_the_job(tmp_path):
    """As if its host had died, which no launcher may notice."""
    config, run = write(tmp_path, THINKERS), tmp_path / "run"
    with start(3, "run", config, "--set", "population.0.think_time=3600", "--out", run) as job:
        job.wait_for(lambda: (run / LIVE_FILE).exists() and read_status((run / LIVE_FILE).read_bytes()).round == 1)
        os.kill(job.ranks()[2], signal.SIGSTOP)
        done = job.end()
    assert done.code not in (0, 2, 75)
    assert done.left == []
    silent = "no sign of life for 5.3 s, longer than the patience of 0.3 s, from 1 of 3 ranks: 2; "
    assert f"pbeauty: rank 0 of 3: {silent}" in done.err
    assert "Traceback" not in done.err
