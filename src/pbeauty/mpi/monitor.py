"""Progress during a round: what ranks report to the moderator while they play, and the order that it sends back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pbeauty.game.records import Progress
from pbeauty.mpi.collectives import nap
from pbeauty.mpi.watchdog import SILENCE, SilentRankError, WakingClock

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

_PROGRESS_TAG, _ORDER_TAG = 11, 12
_CARRY_ON, _BREAK_OFF = 0, 1
_SECONDS_BETWEEN_REPORTS = 0.2
_SECONDS_BETWEEN_LOOKS = 0.1
_RANKS_NAMED = 20
"""Of silent ranks, in a message."""


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
        if self._comm.iprobe(source=0, tag=_ORDER_TAG):
            self._order = self._comm.recv(source=0, tag=_ORDER_TAG)
        return self._order != _BREAK_OFF

    def finish(self, progress: Progress) -> None:
        """Reports for the last time this round, and waits for the order that the moderator still owes."""
        self._send(progress, finished=True)
        began = time.monotonic()
        while self._order is None:
            if self._comm.iprobe(source=0, tag=_ORDER_TAG):
                self._order = self._comm.recv(source=0, tag=_ORDER_TAG)
            else:
                nap(time.monotonic() - began)

    def _send(self, progress: Progress, *, finished: bool) -> None:
        self._comm.send((progress, finished), dest=0, tag=_PROGRESS_TAG)


def monitor_ranks(
    comm: Comm, show: Callable[[Mapping[int, Progress]], None], interrupted: Callable[[], bool], patience: float
) -> None:
    """The moderator's side of a round: follows every playing rank until all have finished.

    Every playing rank gets exactly one order a round: to break off, as soon as `interrupted` says so, or to carry on
    once it has finished. So none is left in flight when the round ends.

    Args:
        comm: all ranks.
        show: told, a few times a second, how far each rank is that has said so.
        interrupted: whether the round is to be broken off.
        patience: seconds that a rank may be silent, give or take.

    Raises:
        SilentRankError: if one is silent for longer.
    """
    playing = comm.size - 1
    latest: dict[int, Progress] = {}
    ordered: set[int] = set()
    clock = WakingClock(longest_nap=1.0)
    heard = dict.fromkeys(range(1, comm.size), 0.0)
    next_look = last_word = 0.0

    def order(rank: int, what: int) -> None:
        if rank not in ordered:
            ordered.add(rank)
            comm.send(what, dest=rank, tag=_ORDER_TAG)

    from mpi4py.MPI import ANY_SOURCE, Status

    status = Status()
    while playing:
        if interrupted():
            for rank in range(1, comm.size):
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
        if not comm.iprobe(source=ANY_SOURCE, tag=_PROGRESS_TAG, status=status):
            nap(now - last_word)
            continue
        last_word = now
        rank = status.Get_source()
        latest[rank], finished = comm.recv(source=rank, tag=_PROGRESS_TAG)
        heard[rank] = now
        if finished:
            playing -= 1
            del heard[rank]
            order(rank, _CARRY_ON)
    show(latest)
