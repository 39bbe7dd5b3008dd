"""What ranks say to each other, under the real launcher."""

from __future__ import annotations

import os

import mpi

WAIT = """
import sys, time
from pathlib import Path
from mpi4py import MPI
from pbeauty.mpi.watchdog import SilentRankError
from pbeauty.mpi.collectives import idle_barrier, node_rank

comm = MPI.COMM_WORLD
idle_barrier(comm, patience=30)
Path(sys.argv[1], str(comm.rank)).write_text(str(node_rank(comm, engine=comm.rank > 0)))
if comm.rank == 0:
    try:
        idle_barrier(comm, patience=0.5)
    except SilentRankError as error:
        # Not printed: what a launcher has not passed on when a job is aborted may be lost.
        Path(sys.argv[1], "silent").write_text(str(error))
        comm.Abort(3)
time.sleep(100)
"""


def test_ranks_that_never_come_are_not_waited_for_for_good(tmp_path):
    script = tmp_path / "wait.py"
    script.write_text(WAIT)
    done = mpi.mpirun(3, script, tmp_path, program=mpi.PYTHON)
    assert done.code == 3
    assert "rank 0 has waited 5.5 s (patience) for the other ranks" in (tmp_path / "silent").read_text()
    assert not done.left
    share = len(os.sched_getaffinity(0)) / 2
    for rank, index in ((0, 0), (1, 0), (2, 1)):
        assert (tmp_path / str(rank)).read_text() == f"NodeRank(index={index}, count=2, cores={share})"
