"""Ends a job that hangs: an engine that finishes no reply, or a rank that falls silent, for longer than patience."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass

from pbeauty.errors import PbeautyError
from pbeauty.game.records import Progress

_LONGEST_NAP = 5.0
_SECONDS_TO_ABORT = 10.0
SECONDS_TO_BE_HEARD = 0.5
"""Launchers drop what they have not passed on when a job is aborted."""
SILENCE = 5.0
"""Seconds beyond its patience with an engine that the moderator waits for a rank, so that the rank speaks first."""


KEPT = "what was finished is kept, and --resume goes on with it"
"""What a message says of a run that has ended early."""


class WakingClock:
    """Seconds that this process was awake: one that a scheduler suspended must not find that all the others hang."""

    def __init__(self, longest_nap: float) -> None:
        """Starts at 0; between two readings it advances by `longest_nap` seconds at most."""
        self._longest_nap = longest_nap
        self._last = time.monotonic()
        self._now = 0.0

    def __call__(self) -> float:
        """The time; to be read more often than every `longest_nap` seconds."""
        now = time.monotonic()
        self._now += min(now - self._last, self._longest_nap)
        self._last = now
        return self._now


@dataclass(frozen=True)
class Watchdog:
    """Watches one rank's engine while it answers."""

    patience: float
    """Seconds without a finished reply after which the job is ended."""
    rank: int
    end: Callable[[], None]
    """Ends the whole job; may be called from any thread. Where it comes back, this process ends alone."""

    @contextlib.contextmanager
    def watching(self, progress: Progress, in_flight: Callable[[], int]) -> Iterator[None]:
        """While this lasts replies must come in, and change `progress`; `in_flight` counts those still owed."""
        over = threading.Event()
        self._arm()
        thread = threading.Thread(target=self._watch, args=(progress, in_flight, over), name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            faulthandler.cancel_dump_traceback_later()

    def _watch(self, progress: Progress, in_flight: Callable[[], int], over: threading.Event) -> None:
        nap = min(self.patience / 10, _LONGEST_NAP)
        clock = WakingClock(longest_nap=2 * nap)
        last, since = astuple(progress), 0.0
        while not over.wait(nap):
            self._arm()
            now, counts = clock(), astuple(progress)
            if counts != last:
                last, since = counts, now
            elif now - since >= self.patience:
                self._expire(progress, in_flight())
                return

    def _arm(self) -> None:
        """Puts off the end that needs no Python: a call that never lets Python run stops the thread here, too."""
        faulthandler.dump_traceback_later(2 * self.patience, exit=True, file=sys.__stderr__ or 2)

    def _expire(self, progress: Progress, in_flight: int) -> None:
        """Tells what all threads were doing, and ends the job, or at least this process."""
        print(
            f"pbeauty: rank {self.rank} on {platform.node()}: no reply has come from the engine for "
            f"{self.patience:g} s (patience), with {in_flight:,} request(s) in flight and {progress.done:,} of "
            f"{progress.total:,} participants done; the job is ended. What its threads were doing:",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
        threading.Timer(_SECONDS_TO_ABORT, os._exit, (1,)).start()
        sys.stdout.flush()
        time.sleep(SECONDS_TO_BE_HEARD)
        self.end()
        os._exit(1)


class SilentRankError(PbeautyError):
    """A rank, or its whole host, has stopped talking."""
