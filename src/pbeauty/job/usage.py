"""What a process has used of its machine: CPU time and peak memory; and how long each part of a run took."""

from __future__ import annotations

import os
import re
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process, from its start until now."""

    cpu_seconds: float
    """In user and system mode together, over all threads and the children that have ended."""
    peak_memory_bytes: int
    """The most that was resident at any time. What processes share, libraries above all, counts in each of them."""


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def used() -> Usage:
    """What this process has used so far."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    return Usage(cpu, _high_water_mark() or own.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def _high_water_mark() -> int | None:
    """Peak resident bytes by Linux's own count, which unlike ru_maxrss leaves out the process that started this one."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return None
    return int(found[1]) * 1024 if found else None


class PhaseTimer:
    """What this process uses for one run, from when somebody began to wait for it."""

    def __init__(self, began: float, *, first: bool) -> None:
        """Starts to count.

        Args:
            began: on the monotonic clock.
            first: whether this is the first run of the process, which has what went before it on its bill.
        """
        self._began = self._last = began
        self._cpu_before = 0.0 if first else used().cpu_seconds
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """The part of the run that is called so ends here."""
        before, self._last = self._last, time.monotonic()
        self._laps[f"{name}_seconds"] = self._last - before

    def used(self) -> Usage:
        """Since the run began; the peak of memory is that of the process."""
        return replace(used(), cpu_seconds=used().cpu_seconds - self._cpu_before)

    def bill(self, others: Sequence[Usage]) -> dict[str, Any]:
        """What all ranks have used, as JSON values; to be called on rank 0.

        Args:
            others: what the ranks from 1 on have used, in order.
        """
        ranks = [self.used(), *others]
        return {
            "wall_seconds": time.monotonic() - self._began,
            **self._laps,
            "cpu_seconds": [rank.cpu_seconds for rank in ranks],
            "peak_memory_bytes": [rank.peak_memory_bytes for rank in ranks],
        }
