"""What ranks decide together: the same verdict, and in the end the same exit code, on every one of them."""

from __future__ import annotations

import platform
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from pbeauty.errors import BAD_REQUEST, FAILED, ConfigError, JobError, LockedError
from pbeauty.mpi.collectives import idle_barrier

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

T = TypeVar("T")


def run_on_root(comm: Comm, work: Callable[[], T]) -> T:
    """What `work` gives on rank 0, on every rank; what it refuses there is refused on every rank."""
    verdict: tuple[T | None, str | None] = (None, None)
    if comm.rank == 0:
        try:
            verdict = (work(), None)
        except (ConfigError, LockedError) as error:
            verdict = (None, str(error))
    idle_barrier(comm)
    value, refusal = comm.bcast(verdict)
    if refusal is not None:
        raise JobError(refusal, BAD_REQUEST)
    return value  # type: ignore[return-value]


def run_on_root_only(comm: Comm, work: Callable[[], T]) -> T | None:
    """As `run_on_root`, but what `work` gives stays on rank 0; None on the others."""
    kept: list[T] = []
    run_on_root(comm, lambda: kept.append(work()))
    return kept[0] if kept else None


def run_on_all(comm: Comm, work: Callable[[], T]) -> T:
    """What `work` gives on this rank, once it has come to a good end on all; each kind of fault is told once."""
    value: T | None = None
    fault: tuple[str, int] | None = None
    try:
        value = work()
    except ConfigError as error:
        fault = (str(error), BAD_REQUEST)
    except Exception:
        fault = (traceback.format_exc().rstrip(), FAILED)
    idle_barrier(comm)
    faults = comm.allgather(fault and (f"rank {comm.rank} on {platform.node()}", *fault))
    told: dict[tuple[str, int], list[str]] = {}
    for found in faults:
        if found:
            told.setdefault(found[1:], []).append(found[0])
    if told:
        message = "\n".join(f"{', '.join(where)}: {text}" for (text, _), where in told.items())
        raise JobError(message, max(code for _, code in told) if all(c == BAD_REQUEST for _, c in told) else FAILED)
    return value  # type: ignore[return-value]
