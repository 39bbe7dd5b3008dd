"""How ranks talk: waiting without burning a core, progress while a round is played, adding up and gathering."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pbeauty.game.records import Progress, Rows
from pbeauty.llm.placement import NodeRank
from pbeauty.mpi.partition import Block, Segment
from pbeauty.mpi.watchdog import SILENCE, SilentRankError, WakingClock

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

_PROGRESS_TAG, _ORDER_TAG = 11, 12
_CARRY_ON, _BREAK_OFF = 0, 1
_SECONDS_BETWEEN_REPORTS = 0.2
_SECONDS_BETWEEN_LOOKS = 0.1
_RANKS_NAMED = 20
_SHORTEST_NAP, _LONGEST_NAP = 1e-4, 0.01
_LATE = 0.1
"""The share of a wait by which a nap may overshoot its end: a round has a dozen waits, most of a few milliseconds."""
_SECONDS_AWAKE = 1e-3
"""How long a rank looks for the others before it naps: where all are near, naps would be most of the waiting."""


def idle_barrier(comm: Comm, patience: float | None = None) -> None:
    """Waits until every rank has come here; idle, where a blocking collective would spin on a core.

    Raises:
        SilentRankError: if that takes longer than `patience` seconds, give or take, where there is such a bound: a host
            that has vanished is told of by nobody.
    """
    request = comm.Ibarrier()
    clock = WakingClock(longest_nap=1.0)
    while not request.Test():
        if (waited := clock()) < _SECONDS_AWAKE:
            os.sched_yield()
            continue
        if patience is not None and waited > patience + SILENCE:
            raise SilentRankError(
                f"rank {comm.rank} has waited {patience + SILENCE:g} s (patience) for the other ranks between two "
                "rounds; what was finished is kept, and --resume goes on with it"
            )
        _nap(waited)


def _nap(waited: float) -> None:
    """Sleeps, the longer the longer the wait has been, in s."""
    time.sleep(min(max(_SHORTEST_NAP, _LATE * waited), _LONGEST_NAP))


def node_rank(comm: Comm, engine: bool) -> NodeRank:
    """This rank's place among the engines of its host; collective.

    By host name, since launchers do not tell every MPI library which ranks share a node (srun, with a list of hosts).

    Args:
        comm: all ranks.
        engine: whether this rank has an engine; the place of one without is that of the next that would have one.
    """
    here = platform.node()
    hosts = comm.allgather((here, engine))
    before = sum(host == here and has for host, has in hosts[: comm.rank])
    return NodeRank(index=before, count=sum(host == here and has for host, has in hosts))


class ProgressReporter:
    """A playing rank's line to the moderator during a round: progress one way, one order the other."""

    def __init__(self, comm: Comm) -> None:
        self._comm = comm
        self._next_report = 0.0
        self._order: int | None = None

    def tick(self, progress: Progress) -> bool:
        """Reports, at most a few times a second; whether to go on."""
        now = time.monotonic()
        if now < self._next_report or self._order is not None:
            return self._order != _BREAK_OFF
        self._next_report = now + _SECONDS_BETWEEN_REPORTS
        self._send(progress, finished=False)
        if self._comm.Iprobe(source=0, tag=_ORDER_TAG):
            self._receive_order()
        return self._order != _BREAK_OFF

    def finish(self, progress: Progress) -> None:
        """Reports for the last time this round, and waits for the order that the moderator still owes."""
        self._send(progress, finished=True)
        began = time.monotonic()
        while self._order is None:
            if self._comm.Iprobe(source=0, tag=_ORDER_TAG):
                self._receive_order()
            else:
                _nap(time.monotonic() - began)

    def _send(self, progress: Progress, *, finished: bool) -> None:
        self._comm.Send(np.append(progress.pack(), int(finished)), dest=0, tag=_PROGRESS_TAG)

    def _receive_order(self) -> None:
        order = np.empty(1, np.int64)
        self._comm.Recv(order, source=0, tag=_ORDER_TAG)
        self._order = int(order[0])


def monitor_ranks(
    comm: Comm, show: Callable[[Mapping[int, Progress]], None], interrupted: Callable[[], bool], patience: float
) -> None:
    """The moderator's side of a round: follows every playing rank until all have finished.

    Every playing rank gets exactly one order a round: to break off, as soon as `interrupted` says so, or to carry on
    once it has finished. So none is left in flight when the round ends.

    Args:
        comm: all ranks.
        show: told, a few times a second, how far each rank is.
        interrupted: whether the round is to be broken off.
        patience: seconds that a rank may be silent, give or take.

    Raises:
        SilentRankError: if one is silent for longer.
    """
    playing = comm.size - 1
    latest = {rank: Progress() for rank in range(1, comm.size)}
    ordered: set[int] = set()
    message = np.empty(len(Progress().pack()) + 1, np.int64)
    clock = WakingClock(longest_nap=1.0)
    heard = dict.fromkeys(latest, 0.0)
    next_look = last_word = 0.0

    def order(rank: int, what: int) -> None:
        if rank not in ordered:
            ordered.add(rank)
            comm.Send(np.array([what], np.int64), dest=rank, tag=_ORDER_TAG)

    from mpi4py.MPI import ANY_SOURCE, Status

    status = Status()
    while playing:
        if interrupted():
            for rank in latest:
                order(rank, _BREAK_OFF)
        now = clock()
        if now >= next_look:
            next_look = now + _SECONDS_BETWEEN_LOOKS
            show(latest)
            silent = [rank for rank, at in heard.items() if now - at > patience + SILENCE]
            if silent:
                ranks = ", ".join(map(str, silent[:_RANKS_NAMED])) + (", ..." if len(silent) > _RANKS_NAMED else "")
                raise SilentRankError(
                    f"no sign of life for {patience + SILENCE:g} s (patience) from {len(silent)} of {comm.size} ranks: "
                    f"{ranks}; what they did before is kept, and --resume goes on with it"
                )
        if not comm.Iprobe(source=ANY_SOURCE, tag=_PROGRESS_TAG, status=status):
            _nap(now - last_word)
            continue
        last_word = now
        rank = status.Get_source()
        comm.Recv(message, source=rank, tag=_PROGRESS_TAG)
        latest[rank] = Progress.unpack(message[:-1])
        heard[rank] = now
        if message[-1]:
            playing -= 1
            del heard[rank]
            order(rank, _CARRY_ON)
    show(latest)


def add(parts: Iterable[Progress]) -> Progress:
    """The sum over ranks."""
    rows = [part.pack() for part in parts]
    return Progress.unpack(np.sum(rows, axis=0)) if rows else Progress()


def gather(comm: Comm, rows: Rows, hostings: Sequence[Block]) -> Rows | None:
    """Brings every rank's rows to rank 0, there in participant order; None on the others."""
    counts = [sum(map(len, hosting)) for hosting in hostings]
    if comm.rank:
        for values in rows.values():
            comm.Gatherv(values, None, root=0)
        return None
    order = [segment for hosting in hostings for segment in hosting]
    gathered = {}
    for name, values in rows.items():
        received = np.empty(sum(counts), values.dtype)
        comm.Gatherv(values, [received, counts], root=0)
        gathered[name] = received if _ascending(order) else _ordered(received, order)
    return gathered


def _ascending(segments: Sequence[Segment]) -> bool:
    return all(one.stop == other.start for one, other in pairwise(segments))


def _ordered(received: NDArray, segments: Sequence[Segment]) -> NDArray:
    ordered = np.empty_like(received)
    at = 0
    for segment in segments:
        ordered[segment.start : segment.stop] = received[at : at + len(segment)]
        at += len(segment)
    return ordered
