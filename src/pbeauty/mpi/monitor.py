"""Progress during a round: what ranks report to the moderator while they play, and the order that it sends back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pbeauty.game.records import Progress
from pbeauty.mpi.collectives import nap
from pbeauty.mpi.watchdog import KEPT, SILENCE, SilentRankError, WakingClock

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

_PROGRESS_TAG, _ORDER_TAG = 11, 12
_SECONDS_BETWEEN_REPORTS = 0.2
_SECONDS_BETWEEN_LOOKS = 0.1
_RANKS_NAMED = 20
"""Of silent ranks, in a message."""


class ProgressReporter:
    """A playing rank's line to the moderator during a round: progress one way, one order the other."""

    def __init__(self, comm: Comm) -> None:
        self._comm = comm
        self._next_report = 0.0
        self._go_on: bool | None = None  # the order, once it has come

    def tick(self, progress: Progress) -> bool:
        """Reports, at most a few times a second; whether to go on."""
        now = time.monotonic()
        if self._go_on is None and now >= self._next_report:
            self._next_report = now + _SECONDS_BETWEEN_REPORTS
            self._report(progress, finished=False)
        return self._go_on is not False

    def finish(self, progress: Progress) -> None:
        """Reports for the last time this round, and waits for the order that the moderator still owes."""
        self._report(progress, finished=True)
        began = time.monotonic()
        while self._go_on is None:
            nap(time.monotonic() - began)
            self._look_for_order()

    def _report(self, progress: Progress, *, finished: bool) -> None:
        self._comm.send((progress, finished), dest=0, tag=_PROGRESS_TAG)
        self._look_for_order()

    def _look_for_order(self) -> None:
        if self._go_on is None and self._comm.iprobe(source=0, tag=_ORDER_TAG):
            self._go_on = self._comm.recv(source=0, tag=_ORDER_TAG)


def monitor_ranks(
    comm: Comm, show: Callable[[Mapping[int, Progress]], None], interrupted: Callable[[], bool], patience: float
) -> None:
    """The moderator's side of a round: follows every playing rank until all have finished.

    Every playing rank gets exactly one order a round: False, to break off, as soon as `interrupted` says so, or True
    once it has finished. So none is left in flight when the round ends. `show` is given, a few times a second, how far
    each rank is that has reported.

    Raises:
        SilentRankError: if one is silent for longer than `patience` seconds, give or take.
    """
    from mpi4py.MPI import ANY_SOURCE, Status

    status, clock = Status(), WakingClock(longest_nap=1.0)
    latest: dict[int, Progress] = {}
    heard = dict.fromkeys(range(1, comm.size), 0.0)  # when each rank that is still playing last said something
    without_order = set(heard)
    next_look = last_word = 0.0
    while heard:
        if interrupted():
            while without_order:
                comm.send(False, dest=without_order.pop(), tag=_ORDER_TAG)
        now = clock()
        if now >= next_look:
            next_look = now + _SECONDS_BETWEEN_LOOKS
            show(latest)
            if silent := [rank for rank, at in heard.items() if now - at > patience + SILENCE]:
                ranks = ", ".join(map(str, silent[:_RANKS_NAMED])) + ", ..." * (len(silent) > _RANKS_NAMED)
                raise SilentRankError(
                    f"no sign of life for {patience + SILENCE:g} s, longer than the patience of {patience:g} s, from "
                    f"{len(silent)} of {comm.size} ranks: {ranks}; {KEPT}"
                )
        if not comm.iprobe(source=ANY_SOURCE, tag=_PROGRESS_TAG, status=status):
            nap(now - last_word)
            continue
        last_word, rank = now, status.Get_source()
        latest[rank], finished = comm.recv(source=rank, tag=_PROGRESS_TAG)
        heard[rank] = now
        if finished:
            del heard[rank]
            if rank in without_order:
                without_order.remove(rank)
                comm.send(True, dest=rank, tag=_ORDER_TAG)
    show(latest)
