"""How ranks wait, gather and agree: waiting without burning a core, objects of any size, one verdict on every rank."""

from __future__ import annotations

import os
import platform
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from pbeauty.errors import BAD_REQUEST, FAILED, REFUSALS, JobError
from pbeauty.game.population import Block, Segment, rows_of
from pbeauty.game.records import Rows
from pbeauty.mpi.watchdog import KEPT, SILENCE, SilentRankError, WakingClock

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

T = TypeVar("T")

_SHORTEST_NAP, _LONGEST_NAP = 1e-4, 3e-3
_LATE = 0.1
"""The share of a wait by which a nap may overshoot its end: a round has a dozen waits, most of a few milliseconds."""
_SECONDS_AWAKE = 1e-3
"""How long a rank looks for the others before it naps: where all are near, naps would be most of the waiting."""
_OUTCOME_TAG = 13
_AT_ONCE = 1 << 18
"""Participants that are put in order at once."""


# --- waiting -----------------------------------------------------------------------------------------------------


def idle_barrier(comm: Comm, patience: float | None = None) -> None:
    """Waits until every rank has come here; idle, where a blocking collective would spin on a core.

    Raises:
        SilentRankError: if that takes longer than `patience` seconds, give or take, where there is such a bound: that a
            host has vanished is reported by nobody.
    """
    request = comm.Ibarrier()
    clock = WakingClock(longest_nap=1.0)
    while not request.Test():
        if (waited := clock()) < _SECONDS_AWAKE:
            os.sched_yield()
            continue
        if patience is not None and waited > patience + SILENCE:
            raise SilentRankError(
                f"rank {comm.rank} has waited {patience + SILENCE:g} s, longer than the patience of {patience:g} s, "
                f"for the other ranks between two rounds; {KEPT}"
            )
        nap(waited)


def nap(waited: float) -> None:
    """Sleeps, the longer the longer the wait has been, in s."""
    time.sleep(min(max(_SHORTEST_NAP, _LATE * waited), _LONGEST_NAP))


# --- places ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NodeRank:
    """An engine's place on its node, counted over engines only (a moderator takes none)."""

    index: int
    """This engine's number on the node, from 0."""
    count: int
    """Engines on the node."""
    cores: float = 0.0
    """CPU cores for this engine, those that several engines may run on divided among them; 0 where that is unknown."""


def node_rank(comm: Comm, engine: bool) -> NodeRank:
    """This rank's number among the engines of its host; collective.

    By host name, since launchers do not tell every MPI library which ranks share a node (srun, with a list of hosts).
    The place of a rank without an `engine` is that of the next that would have one.
    """
    here, usable = platform.node(), usable_cores()
    hosts = comm.allgather((here, engine, usable))
    before = sum(host == here and has for host, has, _ in hosts[: comm.rank])
    engines = [cores for host, has, cores in hosts if host == here and has]
    users = Counter(core for cores in engines for core in cores)
    return NodeRank(before, len(engines), cores=sum(1 / users[core] for core in usable if users[core]))


def usable_cores() -> set[int]:
    """The CPU cores that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


# --- gathering and scattering ------------------------------------------------------------------------------------


def gather_rows(comm: Comm, rows: Rows, partition: Sequence[Block]) -> Rows | None:
    """Brings every rank's rows to rank 0, there in participant order; None on the others."""
    counts = [sum(map(len, block)) for block in partition]
    segments = [segment for block in partition for segment in block]
    gathered = {}
    for name, values in rows.items():
        received = None if comm.rank else np.empty(sum(counts), values.dtype)
        comm.Gatherv(values, None if received is None else [received, counts])
        if received is not None:
            gathered[name] = _in_order(received, segments)
    return None if comm.rank else gathered


def _in_order(received: NDArray, segments: Sequence[Segment]) -> NDArray:
    """Values of participants, segment after segment, in the order of ids."""
    if all(segment.consecutive for segment in segments):
        return received
    ordered = np.empty_like(received)
    for segment, where in zip(segments, rows_of(segments), strict=True):
        for start in range(0, len(segment), _AT_ONCE):
            part = segment.part(start, start + _AT_ONCE)
            ordered[part.ids()] = received[where][start : start + _AT_ONCE]
    return ordered


def gather_objects(comm: Comm, value: T) -> list[T] | None:
    """Every rank's object on rank 0, in their order, of any size; None on the others."""
    from mpi4py.util import pkl5  # mpi4py's own gather ends at 2 GiB with libraries that follow MPI-3

    return pkl5.Intracomm(comm).gather(value)


def scatter_objects(comm: Comm, values: Sequence[T] | None) -> T:
    """Deals out the objects that rank 0 has, one for each rank, of any size."""
    from mpi4py.util import pkl5

    return pkl5.Intracomm(comm).scatter(values)


# --- the same verdict on every rank ------------------------------------------------------------------------------


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


def run_on_all(comm: Comm, work: Callable[[], T], finished: Callable[[set[int]], None] = lambda ranks: None) -> T:
    """What `work` gives on this rank, once it has come to a good end on all; each kind of fault is reported once.

    On rank 0 `finished` is called with the ranks that have finished their work, at the start and for each of them.

    Raises:
        JobError: on every rank, where one of them cannot do its work; what nobody expected is traced before it, on
            standard error.
    """
    from mpi4py.MPI import Status

    value: T | None = None
    fault: tuple[str, str, int] | None = None  # where it was raised, what it says, exit code
    if comm.rank == 0:
        finished(set())
    try:
        value = work()
    except REFUSALS as error:
        fault = ("", str(error), BAD_REQUEST)
    except Exception as error:
        fault = (traceback.format_exc(), f"{type(error).__name__}: {' '.join(str(error).split())}", FAILED)
    outcomes = {comm.rank: (platform.node(), fault)}
    if comm.rank:
        comm.send(outcomes[comm.rank], dest=0, tag=_OUTCOME_TAG)
    else:
        finished({0})
    began, status = time.monotonic(), Status()
    while comm.rank == 0 and len(outcomes) < comm.size:
        if comm.iprobe(tag=_OUTCOME_TAG, status=status):
            # From the rank that was seen: receiving from any would hang in MPICH where ranks are on several hosts.
            rank = status.Get_source()
            outcomes[rank] = comm.recv(source=rank, tag=_OUTCOME_TAG)
            finished(set(outcomes))
        else:
            nap(time.monotonic() - began)
    idle_barrier(comm)
    ranks_by_fault: dict[tuple[str, str, int], list[str]] = {}
    for rank, (host, found) in sorted(comm.bcast(outcomes).items()):
        if found:
            ranks_by_fault.setdefault(found, []).append(f"rank {rank} on {host}")
    if ranks_by_fault:
        if comm.rank == 0:
            print("".join(trace for trace, _, _ in ranks_by_fault), end="", file=sys.stderr, flush=True)
        message = "\n".join(f"{', '.join(ranks)}: {text}" for (_, text, _), ranks in ranks_by_fault.items())
        raise JobError(message, FAILED if any(code == FAILED for _, _, code in ranks_by_fault) else BAD_REQUEST)
    return value  # type: ignore[return-value]
