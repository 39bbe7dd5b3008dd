"""The statistics of a run: for each round and each group of its participants, every figure with its interval.

A `GroupStats` is one group in one round. Groups are everybody, the population groups, the models, and each attribute
of personas. Rounds are read one at a time, so that memory is bounded by one round, however many there are: about 60
bytes per participant.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty.analysis.group_stats import GroupStats, Round
from pbeauty.analysis.intervals import CONFIDENCE
from pbeauty.game.experiment import Game, LLMGroup
from pbeauty.game.rules import Status
from pbeauty.game.theory import equilibrium
from pbeauty.storage.run_reader import Run

EVERYBODY = "all"
MOST_LABELS = 50
"""An attribute with more labels than this is not analysed: it names participants rather than kinds of them."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Analysis:
    """All cells of a run and what is to be known of it to read them."""

    path: str
    name: str
    seed: int
    game: Game
    participants: int
    rounds: int
    """Finished ones."""
    finished: bool
    """Whether that is all rounds of the game."""
    confidence: float
    equilibrium: float
    cells: list[GroupStats]
    notes: list[str]
    """What a reader must know besides."""

    def of(self, by: str = EVERYBODY, label: str | None = None) -> list[GroupStats]:
        """The cells of one way to make groups, in rounds and labels; of one label if it is given."""
        return [cell for cell in self.cells if cell.by == by and label in (None, cell.label)]

    @property
    def unfinished(self) -> str | None:
        """What is to be said wherever figures of an unfinished run stand; None for a finished one."""
        if self.finished:
            return None
        return f"UNFINISHED RUN: {self.rounds} of {self.game.rounds} rounds"


@dataclass(frozen=True)
class _Partition:
    """One way to make groups."""

    by: str
    labels: list[str]
    codes: NDArray[np.uint16] | None
    """uint16[participant]; None for everybody."""

    def members(self) -> Iterator[tuple[str, Any]]:
        """Each label and what selects its participants from an array."""
        if self.codes is None:
            yield self.labels[0], slice(None)
            return
        for code, label in enumerate(self.labels):
            chosen = self.codes == code
            if chosen.any():
                yield label, chosen


def analyse(run: Run, *, confidence: float = CONFIDENCE) -> Analysis:
    """Every cell of every finished round of a run.

    Args:
        run: open.
        confidence: of all intervals, in (0, 1).
    """
    game = run.experiment.game
    partitions, notes = _partitions(run)
    cells: list[GroupStats] = []
    first: dict[tuple[str, str], GroupStats] = {}
    before: Floats | None = None
    for index in range(run.round_count):
        guesses, status = run.guesses[index], run.status[index]
        guesses[status > Status.RETRIED] = np.nan
        one = Round(run, index, confidence)
        for partition in partitions:
            for label, chosen in partition.members():
                earlier = None if before is None else before[chosen]
                key = (partition.by, label)
                cell = one.cell(*key, guesses[chosen], status[chosen], earlier, first.get(key))
                first.setdefault(key, cell)
                cells.append(cell)
        before = guesses
    if math.isnan(equilibrium(game)):
        notes.append("p = 1 and no offset: every number is an equilibrium, so there is no distance, level or tau")
    return Analysis(
        path=str(run.path),
        name=run.experiment.name,
        seed=run.experiment.seed,
        game=game,
        participants=run.experiment.count,
        rounds=run.round_count,
        finished=run.finished,
        confidence=confidence,
        equilibrium=equilibrium(game),
        cells=cells,
        notes=notes,
    )


def _partitions(run: Run) -> tuple[list[_Partition], list[str]]:
    found, notes = [_Partition(EVERYBODY, [EVERYBODY], None)], []
    for name, labels in run.attributes.items():
        if len(labels) > MOST_LABELS:
            notes.append(f"the attribute {name} has {len(labels):,} labels: no figures by it")
        elif len(labels) > 1 or name != "group":
            found.append(_Partition(name, labels, run.codes(name)))
    groups = run.experiment.population
    kinds = [group.model if isinstance(group, LLMGroup) else f"no model ({group.kind})" for group in groups]
    models = sorted(set(kinds))
    if len(models) > 1 and len(models) < len(groups):
        codes = np.array([models.index(kind) for kind in kinds], np.uint16)
        found.append(_Partition("model", models, codes[run.codes("group")]))
    return found, notes
