"""How long ranks take to exchange a few bytes or many, and how many collectives a round has: one job's part of it.

`pbeauty bench --scaling` runs it under a launcher as `python -m pbeauty.bench_collectives CORES`; one line of JSON.
Collectives are counted by playing real games over a communicator that takes note of what is called.
"""

from __future__ import annotations

import functools
import json
import pickle
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from pbeauty.cli.bench import play_whole
from pbeauty.config.loader import loads
from pbeauty.job.participants import Participants
from pbeauty.job.stop_requests import Interrupt
from pbeauty.mpi.collectives import idle_barrier
from pbeauty.mpi.partition import partition_population

_SIZES = (8, 1 << 10, 1 << 16, 1 << 20)
_TURNS, _IN_A_ROW, _MEETINGS = 5, 20, 10
_COLLECTED = ("gather", "allgather", "scatter", "Gather", "Gatherv", "Allgather", "Allgatherv", "Scatter", "Scatterv")
"""What brings as many bytes to the busiest rank as all ranks give together."""
_SHARED = (
    "bcast",
    "reduce",
    "allreduce",
    "scan",
    "exscan",
    "Bcast",
    "Reduce",
    "Allreduce",
    "Scan",
    "Exscan",
    "Barrier",
)


class Counted(MPI.Intracomm):
    """A communicator that counts collectives and the bytes that this rank gives to each."""

    def start(self) -> None:
        """Counts from nought."""
        self.meetings = self.collectives = 0
        self.given: dict[str, int] = defaultdict(int)

    def Ibarrier(self) -> MPI.Request:  # noqa: N802 - MPI's name
        self.meetings += 1
        return super().Ibarrier()


def _counting(name: str) -> Callable[..., Any]:
    plain = getattr(MPI.Intracomm, name)

    @functools.wraps(plain)
    def method(self: Counted, *arguments: Any, **named: Any) -> Any:
        self.collectives += 1
        self.given[name] += _bytes(arguments)
        return plain(self, *arguments, **named)

    return method


for _name in (*_COLLECTED, *_SHARED):
    setattr(Counted, _name, _counting(_name))


def _bytes(arguments: tuple[Any, ...]) -> int:
    """Of what is given to a collective: of a buffer, or of a pickled object."""
    for argument in arguments:
        buffer = argument[0] if isinstance(argument, (list, tuple)) and argument else argument
        if isinstance(buffer, np.ndarray):
            return buffer.nbytes
    return len(pickle.dumps(arguments[0])) if arguments else 0


def timed(comm: MPI.Intracomm, cores: int) -> list[dict[str, Any]]:
    """Seconds of each collective by size, medians over turns of several in a row; collective."""
    found = []

    def take(operation: str, size: int, call: Callable[[], Any], in_a_row: int = _IN_A_ROW) -> None:
        turns = []
        for turn in range(1 + _TURNS):
            comm.Barrier()
            began = time.perf_counter()
            for _ in range(in_a_row):
                call()
            if turn:
                turns.append((time.perf_counter() - began) / in_a_row)
        seconds = comm.allreduce(statistics.median(turns), MPI.MAX)
        found.append({"operation": operation, "ranks": comm.size, "cores": cores, "bytes": size, "seconds": seconds})

    take("barrier", 0, comm.Barrier)
    take("meeting", 0, lambda: idle_barrier(comm), _MEETINGS)
    for size in _SIZES:
        given = np.zeros(size // 8)
        got = np.empty_like(given)
        everything = np.empty((comm.size, size // 8)) if comm.rank == 0 else None
        take("bcast", size, lambda given=given: comm.Bcast(given))  # type: ignore[misc]
        take("allreduce", size, lambda given=given, got=got: comm.Allreduce(given, got))  # type: ignore[misc]
        take("gather", size, lambda given=given, everything=everything: comm.Gather(given, everything))  # type: ignore[misc]
    return found


def counted(comm: MPI.Intracomm, participants: int) -> dict[str, float]:
    """Collectives of a round of scripted participants, and bytes through the busiest rank; collective."""
    few, many = (_count(comm, participants, rounds) for rounds in (1, 3))
    per_round = {name: (many[name] - few[name]) / 2 for name in few}
    return {"ranks": comm.size, "participants": participants, **per_round}


def _count(comm: MPI.Intracomm, participants: int, rounds: int) -> dict[str, float]:
    group = {"name": "players", "count": participants, "kind": "uniform"}
    experiment = loads(json.dumps({"name": "count", "game": {"rounds": rounds}, "population": [group]}))
    counting = Counted(comm)
    hosted = partition_population(experiment, comm.size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(comm.bcast(name))
        counting.start()
        play_whole(counting, experiment, hosted, Participants(experiment, hosted[comm.rank]), folder, Interrupt())
        given = comm.allgather(dict(counting.given))
        idle_barrier(comm)
    collected = sum(one.get(name, 0) for one in given for name in _COLLECTED)
    shared = sum(max(one.get(name, 0) for one in given) for name in _SHARED)
    return {
        "meetings": counting.meetings,
        "collectives": counting.collectives,
        "collected_bytes": collected,
        "shared_bytes": shared,
    }


def main() -> None:
    """Times and counts on all ranks; rank 0 prints."""
    comm = MPI.COMM_WORLD
    cores = int(sys.argv[1])
    exchanges = timed(comm, cores) if comm.size > 1 else []
    counts = [counted(comm, participants) for participants in (1_000, 5_000)] if comm.size > 1 else []
    if comm.rank == 0:
        mpi = MPI.Get_library_version().splitlines()[0].strip("\x00")
        print(json.dumps({"mpi": mpi, "exchanges": exchanges, "counts": counts}), flush=True)


if __name__ == "__main__":
    main()
