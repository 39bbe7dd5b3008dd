"""What asks a run to end early: a signal, the end of its Slurm job, or another part of the program."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Mapping
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""SIGUSR1 is what batch systems send ahead of a time limit. (MPICH's launcher dies of SIGUSR2 and SIGHUP.)"""
_LARGEST_SHARE = 0.25
_SECONDS_FOR_SLURM = 10.0


class Interrupt:
    """Remembers whether the run has been asked to end. Every rank catches signals; only the moderator acts on them.

    The first signal is a request, a second one of the same kind ends the process at once.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        """Who or what asked first."""
        self._deadline = float("inf")
        self._limit = ""
        for number in SIGNALS:
            signal.signal(number, self._catch)

    def requested(self) -> bool:
        """Whether the run has been asked to end."""
        if self.reason is None and time.time() >= self._deadline:
            self.ask(self._limit)
        return self.reason is not None

    def ask(self, reason: str) -> None:
        """Asks the run to end; `reason` follows the words "stopped by"."""
        self.reason = self.reason or reason

    def end_before(self, end: float | None, margin: float) -> None:
        """Asks the run to end `margin` seconds before its job does, which does so `end` seconds after 1970, if at all.

        Of a job with little time left the margin is a quarter of that time at most: one that stopped at once, to be
        started again, would never get anywhere.
        """
        if end is not None and (left := end - time.time()) > 0:
            margin = min(margin, _LARGEST_SHARE * left)
            self._deadline = end - margin
            self._limit = f"the time limit of its Slurm job ({margin:.0f} s before it)"

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self.ask(signal.Signals(number).name)
        signal.signal(number, signal.SIG_DFL)


def job_end(environ: Mapping[str, str] = os.environ) -> float | None:
    """When Slurm will end this job, in seconds since 1970; None outside Slurm, without a limit, or if nobody says."""
    end, job = environ.get("SLURM_JOB_END_TIME", ""), environ.get("SLURM_JOB_ID", "")
    if re.fullmatch("[0-9]{1,12}", end):
        return float(end)
    if not re.fullmatch("[0-9]+", job):
        return None
    import subprocess

    try:
        command = ["squeue", "-h", "-j", job, "-o", "%L"]
        answer = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL, timeout=_SECONDS_FOR_SLURM)
    except (OSError, subprocess.SubprocessError):
        return None
    left = parse_duration(answer)
    return None if left is None else time.time() + left


def parse_duration(text: str) -> float | None:
    """A duration as Slurm writes and takes it, in seconds; None for anything else.

    That is minutes, minutes:seconds, hours:minutes:seconds or days-hours[:minutes[:seconds]].
    """
    parts = re.fullmatch(r"(?:([0-9]{1,4})-)?([0-9]{1,6})(?::([0-9]{1,2}))?(?::([0-9]{1,2}))?", text.strip())
    if not parts:
        return None
    days, *given = parts.groups()
    numbers = [int(part) for part in given if part is not None]
    if days is None and len(numbers) < 3:
        numbers.insert(0, 0)
    hours, minutes, seconds = (*numbers, 0, 0)[:3]
    return float(((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds)
