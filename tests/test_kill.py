"""Jobs that are killed at any instant: nothing that was finished is lost, doubled, or different afterwards."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

import mpi

PARROT = Path(__file__).with_name("parrot.py")
ROUNDS = 12
GAME = f"""
name: killed
seed: 5
game: {{rounds: {ROUNDS}, multiplier: 1/2}}
population:
  - {{name: birds, count: 173, kind: llm, extraction: pattern-then-model, retries: 2}}
  - {{name: crowd, count: 50, kind: cognitive_hierarchy, tau: 1.5}}
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
    assert all({row[0] for row in round_} == set(range(173)) for round_ in found["replies"])
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
                if victim == "launcher":
                    job.send(signal.SIGKILL)
                pids = list(job.ranks().values())
                for pid in pids if victim == "ranks" else draw.sample(pids, k=min(1, len(pids))):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                job.end()
            now = assert_prefix(folder, whole)
            assert now >= finished, "a sealed round was lost"
            finished = now
        assert assert_prefix(folder, whole) == ROUNDS
        assert not list((folder / "journal").glob("*/*"))
    assert kills == KILLS
