"""What playing together costs: one game on several engines, against a game of its own on each of them.

Together, ranks wait for each other and for the moderator in every round; apart, each engine's rank plays its share of
the participants as a job of one rank would, at the same time as the others. Both ways take turns on the same engines.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pbeauty.cli.bench import play_whole, the_model
from pbeauty.game.experiment import Experiment
from pbeauty.job.participants import Participants
from pbeauty.job.stop_requests import Interrupt
from pbeauty.llm.engine import Engine
from pbeauty.mpi.collectives import idle_barrier, node_rank
from pbeauty.mpi.partition import partition_population

if TYPE_CHECKING:
    from mpi4py.MPI import Comm


@dataclass(frozen=True)
class RanksReport:
    """Figures of a bench of several ranks."""

    participants: int
    rounds: int
    engines: int
    repeats: int
    together: list[float]
    """Participants/s of all engines in one game, turn by turn."""
    apart: list[float]
    """Participants/s of games of their own, added up."""
    together_to_apart: float
    """Median of the ratios, turn by turn."""

    def __str__(self) -> str:
        played = f"{self.participants:,} participants, {self.rounds} rounds, {self.engines} engines"
        rows = {
            "together": f"{statistics.median(self.together):,.1f} participants/s",
            "apart": f"{statistics.median(self.apart):,.1f} participants/s",
            "together / apart": f"{self.together_to_apart:.3f}",
        }
        lines = [f"  {what:<18} {figure}" for what, figure in rows.items()]
        return "\n".join([f"{played}, median of {self.repeats}", *lines])


def bench_ranks(comm: Comm, experiment: Experiment, repeats: int, say: Callable[[str], None]) -> RanksReport:
    """Plays both ways, `repeats` times in turn; collective.

    Args:
        comm: a moderator and at least one rank with an engine.
        experiment: one that `check_bench` lets pass.
        repeats: turns that count; one more is played first.
        say: is told of progress, on rank 0.
    """
    engines = comm.size - 1
    shares = tuple(group.model_copy(update={"count": group.count // engines}) for group in experiment.population)
    own = experiment.model_copy(update={"population": shares})
    where = node_rank(comm, engine=comm.rank > 0)
    engine = Engine(the_model(experiment), where, experiment.seed) if comm.rank else None
    idle_barrier(comm)
    if comm.rank == 0:
        say(f"engines ready; {repeats} turns, after one that does not count")
    rates: dict[str, list[float]] = {"together": [], "apart": []}
    interrupt = Interrupt()
    for turn in range(1 + repeats):
        for way in rates:
            rate = (
                _together(comm, experiment, engine, interrupt)
                if way == "together"
                else _apart(comm, own, engine, interrupt)
            )
            if turn:
                rates[way].append(rate)
        if turn and comm.rank == 0:
            say(f"turn {turn}/{repeats}: " + ", ".join(f"{way} {found[-1]:,.0f}/s" for way, found in rates.items()))
    return RanksReport(
        participants=experiment.count,
        rounds=experiment.game.rounds,
        engines=engines,
        repeats=repeats,
        **rates,
        together_to_apart=statistics.median(a / b for a, b in zip(rates["together"], rates["apart"], strict=True)),
    )


def _together(comm: Comm, experiment: Experiment, engine: Engine | None, interrupt: Interrupt) -> float:
    hosted = partition_population(experiment, comm.size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(comm.bcast(name))
        if engine:
            engine.forget()
        block = Participants(experiment, hosted[comm.rank], engine)
        took, _ = play_whole(comm, experiment, hosted, block, folder, interrupt)
        idle_barrier(comm)
    return comm.bcast(experiment.count * experiment.game.rounds / took)


def _apart(comm: Comm, experiment: Experiment, engine: Engine | None, interrupt: Interrupt) -> float:
    from mpi4py.MPI import COMM_SELF

    rate = 0.0
    idle_barrier(comm)
    if engine:
        hosted = partition_population(experiment, 1)
        engine.forget()
        block = Participants(experiment, hosted[0], engine)
        with tempfile.TemporaryDirectory() as name:
            took, _ = play_whole(COMM_SELF, experiment, hosted, block, Path(name), interrupt)
        rate = experiment.count * experiment.game.rounds / took
    idle_barrier(comm)
    return comm.allreduce(rate)
