"""What every part of a running job needs to know: who plays with whom, where, and how long a wait may last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pbeauty.game.population import Block, span
from pbeauty.game.records import Rows
from pbeauty.mpi.collectives import gather_objects, gather_rows, idle_barrier

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

T = TypeVar("T")


@dataclass(frozen=True)
class JobContext:
    """One MPI job on one run; the same on every rank but for the communicator's rank.

    What takes all ranks is a method that every rank calls, in the same order: `bcast`, `all`, `wait` and the gathers.
    """

    comm: Comm
    """All ranks; rank 0 moderates."""
    partition: Sequence[Block]
    """The block of each rank."""
    folder: Path
    """The run's folder, which all ranks share."""
    run_id: str
    """Tells the run from every other one."""
    job_id: str
    """Names this job; no earlier job on the same run had the same name."""
    patience: float
    """Seconds that the other ranks may be silent, give or take, before the job ends as hanging."""

    @property
    def block(self) -> Block:
        """That of this rank."""
        return self.partition[self.comm.rank]

    def journal_path(self, round_index: int) -> Path:
        """The journal of this rank's replies of a round from 0, or BACKGROUNDS_ROUND."""
        from pbeauty.storage.journal import journal_path

        return journal_path(self.folder, round_index, self.job_id, self.comm.rank, span(self.block))

    def bcast(self, value: T | None) -> T | None:
        """The value that rank 0 gives, on every rank."""
        idle_barrier(self.comm, self.patience)
        return self.comm.bcast(value)

    def all(self, holds: bool) -> bool:
        """Whether `holds` is true on every rank."""
        self.wait()
        return all(self.comm.allgather(holds))

    def gather(self, rows: Rows) -> Rows | None:
        """The rows of all ranks in the order of participants, on rank 0; None on the others."""
        return gather_rows(self.comm, rows, self.partition)

    def gather_objects(self, value: T) -> list[T] | None:
        """The values of all ranks in their order, on rank 0; None on the others."""
        self.wait()
        return gather_objects(self.comm, value)

    def wait(self) -> None:
        """Waits until every rank is here.

        Only the moderator's wait is bounded: it has heard that all ranks are done with the round, while the others
        may wait here for a slow rank's whole round.
        """
        idle_barrier(self.comm, None if self.comm.rank else self.patience)
