"""Signals that ask a run to end: the first is a request, a second one ends the process at once."""

from __future__ import annotations

import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""SIGUSR1 is what batch systems send ahead of a time limit. (MPICH's launcher dies of SIGUSR2 and SIGHUP.)"""


class Interrupt:
    """Remembers whether a signal has come. Every rank catches signals; only the moderator acts on them."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        for number in SIGNALS:
            signal.signal(number, self._catch)

    def __call__(self) -> bool:
        """Whether the run has been asked to end."""
        return self.signal is not None

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        signal.signal(number, signal.SIG_DFL)
