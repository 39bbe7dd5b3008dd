"""How ranks talk: waiting without burning a core, progress while a round is played, adding up and gathering."""

from __future__ import annotations

import os
import platform
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from pbeauty.errors import BAD_REQUEST, FAILED, REFUSALS, JobError
from pbeauty.game.records import Rows
from pbeauty.mpi.partition import Block, Segment
from pbeauty.mpi.watchdog import SILENCE, SilentRankError, WakingClock

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

T = TypeVar("T")

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
        nap(waited)


def nap(waited: float) -> None:
    """Sleeps, the longer the longer the wait has been, in s."""
    time.sleep(min(max(_SHORTEST_NAP, _LATE * waited), _LONGEST_NAP))


@dataclass(frozen=True)
class NodeRank:
    """An engine's place on its node, counted over engines only (a moderator takes none)."""

    index: int
    """This engine's number on the node, from 0."""
    count: int
    """Engines on the node."""


def node_rank(comm: Comm, engine: bool) -> NodeRank:
    """This rank's number among the engines of its host; collective.

    By host name, since launchers do not tell every MPI library which ranks share a node (srun, with a list of hosts).

    Args:
        comm: all ranks.
        engine: whether this rank has an engine; the place of one without is that of the next that would have one.
    """
    here = platform.node()
    hosts = comm.allgather((here, engine))
    before = sum(host == here and has for host, has in hosts[: comm.rank])
    return NodeRank(index=before, count=sum(host == here and has for host, has in hosts))


def gather(comm: Comm, rows: Rows, partition: Sequence[Block]) -> Rows | None:
    """Brings every rank's rows to rank 0, there in participant order; None on the others."""
    counts = [sum(map(len, block)) for block in partition]
    if comm.rank:
        for values in rows.values():
            comm.Gatherv(values, None, root=0)
        return None
    order = [segment for block in partition for segment in block]
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


# --- the same verdict on every rank -----------------------------------------------------------------------------


def run_on_root(comm: Comm, work: Callable[[], T]) -> T:
    """What `work` gives on rank 0, on every rank; what it refuses there is refused on every rank."""
    verdict: tuple[T | None, str | None] = (None, None)
    if comm.rank == 0:
        try:
            verdict = (work(), None)
        except REFUSALS as error:
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
    except REFUSALS as error:
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
