"""What a run used of its machine: measured on every rank, and stored."""

from __future__ import annotations

import time

import mpi
import numpy as np

from pbeauty.job.provenance import PhaseTimer, process_usage
from pbeauty.storage.run_reader import Run

CONFIG = "name: crowd\ngame: {rounds: 2}\npopulation: [{name: crowd, count: 1000, kind: uniform}]\n"
MIB = 1 << 20


def test_work_and_memory_are_seen():
    before = process_usage()
    held = np.ones(200 * MIB // 8)
    while (after := process_usage()).cpu_seconds < before.cpu_seconds + 0.1:
        held += 1
    assert after.peak_memory_bytes >= before.peak_memory_bytes
    assert after.peak_memory_bytes > held.nbytes


def test_a_run_that_is_not_the_first_does_not_pay_for_what_went_before():
    while process_usage().cpu_seconds < 0.2:
        pass
    now = time.monotonic()
    first, later = PhaseTimer(now), PhaseTimer()
    assert first.run_usage().cpu_seconds > later.run_usage().cpu_seconds + 0.15
    assert first.run_usage().peak_memory_bytes == later.run_usage().peak_memory_bytes


def test_every_rank_notes_down_what_it_used(tmp_path):
    (tmp_path / "crowd.yaml").write_text(CONFIG)
    done = mpi.mpirun(3, "run", tmp_path / "crowd.yaml", "--out", tmp_path / "run", "--set", "plots=true")
    assert done.code == 0, done.err
    with Run(tmp_path / "run") as run:
        took = run.provenance["actual"]
        rounds = run.read("seconds").sum()
    assert len(took["cpu_seconds"]) == len(took["peak_memory_bytes"]) == 3
    assert all(0 < seconds < 60 for seconds in took["cpu_seconds"])
    moderator, *hosts = took["peak_memory_bytes"]
    assert min(hosts) > 20 * MIB, "an interpreter with numpy"
    assert moderator > 1.1 * max(hosts), "the figures have been drawn already, which takes matplotlib"
    parts = [took[f"{part}_seconds"] for part in ("starting", "engines", "game")]
    assert rounds < took["game_seconds"]
    assert sum(parts) < took["wall_seconds"], "the figures come last"
