"""Jobs that are killed at any instant, or run out of disk: what was finished is not lost, doubled, or different."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import journals
import mpi
import numpy as np
import pytest
from hosts import virtual

PARROT = Path(__file__).parents[1] / "support/parrot.py"
ROUNDS = 12
GAME = f"""
name: killed
seed: 5
sessions: 4
game: {{rounds: {ROUNDS}, multiplier: 1/2}}
population:
  - {{name: birds, count: 43, kind: llm, extraction: pattern-then-model, retries: 2}}
  - {{name: crowd, count: 12, kind: cognitive_hierarchy, tau: 1.5}}
"""
KILLS = int(os.environ.get("PBEAUTY_KILLS", "20"))
"""How often jobs are killed; `make test-slow` asks for 200."""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("killed") / "game.yaml"
    path.write_text(GAME)
    return path


def start(config, folder, ranks):
    program = (sys.executable, str(PARROT))
    return mpi.start(ranks, "run", config, "--out", folder, "--resume", program=program)


def kill(job, victim, draw):
    """Kills a rank, all ranks, or the launcher and a rank."""
    if victim == "launcher":
        job.send(signal.SIGKILL)
    pids = list(job.ranks().values())
    mpi.kill(pids if victim == "ranks" else draw.sample(pids, k=min(1, len(pids))))


def results(folder):
    """Everything that must be the same: guesses, statuses, outcomes, every reply of every participant."""
    found = {}
    with h5py.File(folder / "run.h5") as run:
        for name, data in run["rounds"].items():
            if not name.startswith("seconds"):
                found[name] = data[:]
        found["replies"] = [replies(run["replies"][name]) for name in sorted(run["replies"])]
    return found


def replies(blocks):
    """(participant, purpose, text) of every reply of a round, in participant order, whatever blocks hold them."""
    rows = []
    for block in blocks.values():
        text, offsets = bytes(block["text"][:]), block["text_offsets"][:].tolist()
        texts = [text[a:b] for a, b in itertools.pairwise(offsets)]
        rows += zip(block["participant"][:].tolist(), block["purpose"][:].tolist(), texts, strict=True)
    return sorted(rows, key=lambda row: row[0])


def assert_prefix(folder, whole):
    """The rounds that a killed job has left are those of the uninterrupted one; returns how many there are."""
    if not (folder / "run.h5").exists():
        return 0
    part = results(folder)
    rounds = len(part["target"])
    for name, values in part.items():
        np.testing.assert_equal(values, whole[name][:rounds], err_msg=name)
    return rounds


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    with start(config, folder, 2) as job:
        done = job.end()
    assert done.code == 0, done.err
    found = results(folder)
    assert len(found["target"]) == ROUNDS
    assert (found["status"] > 2).any() and (found["status"] == 2).any()  # the parrot is unreadable now and then
    birds = {who for who in range(220) if who % 55 < 43}
    assert all({row[0] for row in round_} == birds for round_ in found["replies"])
    return found


def test_a_job_killed_over_and_over_ends_as_if_it_had_never_been(config, whole, tmp_path):
    draw = random.Random(KILLS)
    kills = begun = 0
    while kills < KILLS:
        begun += 1
        folder = tmp_path / f"run-{begun}"
        finished = 0
        while True:
            ranks = draw.choice([1, 2, 3, 4])
            victim = draw.choice(["rank", "ranks", "launcher"])
            with start(config, folder, ranks) as job:
                if kills < KILLS:
                    time.sleep(draw.uniform(0.5, 4.0))
                if kills == KILLS or job.ended:
                    done = job.end()
                    assert done.code == 0, done.err
                    break
                kills += 1
                kill(job, victim, draw)
                job.end()
            now = assert_prefix(folder, whole)
            assert now >= finished, "a stored round was lost"
            finished = now
        assert assert_prefix(folder, whole) == ROUNDS
        assert not list((folder / "journal").glob("*/*"))
    assert kills == KILLS


# --- a full disk -------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 KB, and how to make it larger."""
    virtual.require("the test on a small file system", {"mount": "mount"})
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o"]
    subprocess.run([*mount, "size=300k", "tmpfs", folder], check=True)
    yield folder, lambda size: subprocess.run([*mount, f"remount,size={size}", folder], check=True)
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_told_and_the_run_goes_on_once_there_is_room(config, whole, small_disk):
    disk, enlarge = small_disk
    with start(config, disk / "run", 3) as job:
        done = job.end()
    assert done.code not in (0, 2, 75), done
    assert f"cannot write {disk / 'run'}" in done.err and "No space left on device" in done.err
    assert "rounds finished before are intact" in done.err
    assert "Traceback" not in done.err and done.err.count("cannot write") == 1, done.err
    assert 0 < assert_prefix(disk / "run", whole) < ROUNDS
    enlarge("20m")
    with start(config, disk / "run", 2) as job:
        assert job.end().code == 0
    assert assert_prefix(disk / "run", whole) == ROUNDS


# --- the real engine ---------------------------------------------------------------------------------------------

MODELS = """
name: models
seed: 3
game: {rounds: 2}
population:
  - {name: players, count: 200, kind: llm, model: demo, user_prompt: step-by-step, extraction: pattern-then-model}
  - {name: crowd, count: 30, kind: cognitive_hierarchy, tau: 1.5}
"""
SILENT = """
import time
import pbeauty.job.runner
class Engine(pbeauty.job.runner.Engine):
    left = {replies}
    def step(self):
        if self.left <= 0:
            time.sleep(0.05)
            return {{}}
        finished = super().step()
        self.left -= len(finished)
        return finished
pbeauty.job.runner.Engine = Engine
"""
"""An engine that finishes the first round, and not the second."""


@pytest.mark.parametrize(("victim", "ranks", "ranks_after"), [("launcher", 3, 1), ("rank", 2, 3)])
def test_no_reply_of_a_real_model_is_asked_for_twice(victim, ranks, ranks_after, tmp_path):
    config, folder = tmp_path / "models.yaml", tmp_path / "run"
    config.write_text(MODELS)
    second = folder / "journal" / "0002"
    silent = mpi.altered(tmp_path, SILENT.format(replies=300 // (ranks - 1)))
    with mpi.start(ranks, "run", config, "--out", folder, "--resume", program=silent) as job:
        job.wait_for(lambda: sum(path.stat().st_size for path in second.glob("*")) > 10_000)
        kill(job, victim, random.Random(1))
        job.end()
    before = results(folder)
    assert len(before["target"]) == 1
    recorded = {r[:2]: r[2].tokens for path in second.glob("*") for r in journals.read(path) if r}
    assert 20 < len(recorded) < 230
    with mpi.start(ranks_after, "run", config, "--out", folder, "--resume") as job:
        done = job.end()
    assert done.code == 0, done.err
    after = results(folder)
    assert after["guess"].shape == (2, 230)
    for name, values in before.items():
        np.testing.assert_equal(after[name][:1], values, err_msg=name)
    found = {}
    with h5py.File(folder / "run.h5") as run:
        for block in run["replies/0002"].values():
            tokens, offsets = block["tokens"][:].tolist(), block["token_offsets"][:].tolist()
            calls = itertools.groupby(
                zip(block["participant"][:].tolist(), itertools.pairwise(offsets), strict=True), key=lambda row: row[0]
            )
            for participant, rows in calls:
                found |= {(participant, call): tokens[a:b] for call, (_, (a, b)) in enumerate(rows)}
    assert {participant for participant, _ in found} == set(range(200))
    assert all(found[call] == tokens for call, tokens in recorded.items())
