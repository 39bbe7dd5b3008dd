"""The statistics of a run: for each round and each group of its participants, every figure with its interval.

A `GroupStats` is one group in one round, an `OverRounds` one group in all of them. Groups are everybody, the population
groups, the models, and each attribute of personas. Rounds are read one at a time, so that memory is bounded by one
round, however many there are: about 100 bytes per participant, and as many per session, group and round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty.analysis import levels
from pbeauty.analysis.group_stats import EVERYBODY, GroupStats, Readings, Round
from pbeauty.analysis.intervals import CONFIDENCE, Estimate, Moments
from pbeauty.files import CASES_FILE, LIVE_FILE
from pbeauty.game.experiment import DEMO_MODEL, Experiment, Game, LLMGroup
from pbeauty.game.records import Floats
from pbeauty.game.theory import equilibrium
from pbeauty.storage.run_reader import Run

MOST_LABELS = 50
"""An attribute with more labels than this is not analysed: it names participants rather than kinds of them."""
DEMO = "demo model: trained to play like people; no evidence"
"""What stands wherever the shipped model's play is shown."""


@dataclass(frozen=True)
class OverRounds:
    """One group over all finished rounds; standard errors are clustered, by session where there are several, and by
    participant, who plays in all rounds, where there is one."""

    by: str
    label: str
    average: Estimate
    """Mean over rounds of the group's mean guess."""
    error: float
    """Its standard error."""
    n: int
    """Sessions with a valid guess in any round; participants, in a run of one session."""
    trend: Estimate
    """Slope of the group's mean guess per round, by least squares; NaN with one round."""

    @property
    def moments(self) -> Moments:
        """What `intervals.difference` takes of the average, but for its bounds."""
        return Moments(self.average.value, self.error, self.n)


@dataclass(frozen=True)
class Analysis:
    """All that is known of a run, and what is to be known of it to read that."""

    path: str
    name: str
    """`run_name`."""
    experiment: Experiment
    """As it was played."""
    rounds: int
    """Finished ones."""
    finished: bool
    """Whether that is all rounds of the game."""
    confidence: float
    equilibrium: float
    cells: list[GroupStats]
    over_rounds: list[OverRounds]
    readings: list[Readings]
    """Of each round in which language models gave guesses."""
    transitions: dict[str, dict[str, int]]
    """Participants by level before and level after, over every two consecutive rounds from the second on."""
    notes: list[str]
    """What a reader must know besides."""

    @property
    def game(self) -> Game:
        """Its rules."""
        return self.experiment.game

    @property
    def sessions(self) -> int:
        """How many it has."""
        return self.experiment.sessions

    def of(self, by: str = EVERYBODY, label: str | None = None) -> list[GroupStats]:
        """The figures of one way to make groups, in rounds and labels; of one label if it is given."""
        return [cell for cell in self.cells if cell.by == by and label in (None, cell.label)]

    @property
    def ways(self) -> list[str]:
        """The ways to make groups other than everybody."""
        return list(dict.fromkeys(cell.by for cell in self.cells if cell.by != EVERYBODY))

    @property
    def unfinished(self) -> str | None:
        """What is to be said wherever figures of an unfinished run stand; None for a finished one."""
        if self.finished:
            return None
        return f"UNFINISHED RUN: {self.rounds} of {self.game.rounds} rounds"


def is_demo(experiment: Experiment) -> bool:
    """Whether the shipped demo model plays in this experiment: what it does is no evidence of anything."""
    played = {group.model for group in experiment.population if isinstance(group, LLMGroup)}
    return any(name in experiment.models and experiment.models[name].path == DEMO_MODEL for name in played)


def run_name(run: Run) -> str:
    """The name of the experiment; in a sweep, in whose folder each case has its own, that of the case."""
    folder = run.path.parent.resolve()
    in_sweep = any((folder.parent / name).exists() for name in (CASES_FILE, LIVE_FILE))
    return folder.name if in_sweep else run.experiment.name


class Clustered:
    """Weighted sums over rounds of means over units, participants or sessions, with standard errors clustered by unit.

    On sum_t w_t mean_t, unit i has the influence sum_t w_t (value_it - mean_t) / n_t over the rounds with a value; the
    squares of these add up to the variance (Liang and Zeger 1986).
    """

    def __init__(self, units: int, rounds: int) -> None:
        steps = np.arange(rounds) - (rounds - 1) / 2
        spread = float(steps @ steps)
        self.weights = np.array([np.full(rounds, 1 / rounds), steps / spread if spread else np.full(rounds, np.nan)])
        self.sums = np.zeros(2)
        self.influence = np.zeros((2, units))
        self.seen = np.zeros(units, bool)

    def add(self, index: int, values: Floats) -> None:
        """Adds a round, from 0: float64[unit], NaN where there is none."""
        valid = ~np.isnan(values)
        mean = float(values[valid].mean()) if valid.any() else math.nan
        self.sums += self.weights[:, index] * mean
        self.influence[:, valid] += self.weights[:, index : index + 1] * (values[valid] - mean) / max(valid.sum(), 1)
        self.seen |= valid

    def moments(self) -> tuple[Moments, Moments]:
        """Of the mean over rounds and of the change per round; n are units with a value."""
        n = int(self.seen.sum())
        scale = n / (n - 1) if n > 1 else math.nan
        errors = np.sqrt(np.square(self.influence).sum(axis=1) * scale)
        average, trend = (Moments(float(s), float(e), n) for s, e in zip(self.sums, errors, strict=True))
        return average, trend


def analyse(run: Run, *, confidence: float = CONFIDENCE) -> Analysis:
    """Every figure of every finished round of a run.

    Args:
        confidence: of all intervals, in (0, 1).
    """
    game = run.experiment.game
    groups, notes = _groups(run)
    cells: list[GroupStats] = []
    readings: list[Readings] = []
    last: dict[tuple[str, str], GroupStats] = {}
    clustered: dict[tuple[str, str], Clustered] = {}
    moved = np.zeros((len(levels.LABELS),) * 2, np.int64)
    codes: NDArray[np.uint8] | None = None
    for index in range(run.round_count):
        one = Round(run, index, confidence)
        for key, (column, code) in groups.items():
            chosen = slice(None) if column is None else column == code
            cells.append(one.stats(*key, chosen, last.get(key)))
            last[key] = cells[-1]
            units = one.guesses[chosen] if run.experiment.sessions == 1 else cells[-1].means
            clustered.setdefault(key, Clustered(units.size, run.round_count)).add(index, units)
        if found := one.readings():
            readings.append(found)
        if codes is not None and index > 1:
            moved += levels.transitions(codes, one.codes)
        codes = one.codes
    ended = int(np.isnan(last[EVERYBODY, EVERYBODY].means).sum()) if last else 0
    if ended:
        notes.append(f"{ended:,} of {run.experiment.sessions:,} sessions ended with a round without a valid guess")
    if math.isnan(equilibrium(game)):
        notes.append("p = 1 and no offset: every number is an equilibrium, so there is no level or tau")
    if game.players == "groups":
        notes.append("groups play: figures of a round are of the groups' numbers, levels are of single guesses")
    if is_demo(run.experiment):
        notes.append(DEMO)
    return Analysis(
        path=str(run.path),
        name=run_name(run),
        experiment=run.experiment,
        rounds=run.round_count,
        finished=run.finished,
        confidence=confidence,
        equilibrium=equilibrium(game),
        cells=cells,
        over_rounds=[_over_rounds(key, group, confidence) for key, group in clustered.items()],
        readings=readings,
        transitions={
            before: {after: int(count) for after, count in zip(levels.LABELS, row, strict=True)}
            for before, row in zip(levels.LABELS, moved, strict=True)
            if row.any()
        },
        notes=notes,
    )


def _over_rounds(key: tuple[str, str], group: Clustered, confidence: float) -> OverRounds:
    average, trend = group.moments()
    return OverRounds(*key, average.interval(confidence), average.error, int(average.n), trend.interval(confidence))


def _groups(run: Run) -> tuple[dict[tuple[str, str], tuple[Any, int]], list[str]]:
    """What groups are made by and the label of each, with the codes of all participants and its own; and notes."""
    found: dict[tuple[str, str], tuple[Any, int]] = {(EVERYBODY, EVERYBODY): (None, 0)}
    groups, attributes, notes = run.experiment.population, dict(run.attributes), []
    columns = {name: run.codes(name) for name in attributes}
    kinds = [group.model if isinstance(group, LLMGroup) else f"({group.kind})" for group in groups]
    models = list(dict.fromkeys(kinds))
    if 1 < len(models) < len(groups):
        attributes["model"] = models
        columns["model"] = np.array([models.index(kind) for kind in kinds], np.uint16)[columns["group"]]
    for by, labels in attributes.items():
        if len(labels) > MOST_LABELS:
            notes.append(f"the attribute {by} has {len(labels):,} labels: no figures by it")
        elif len(labels) > 1 or by != "group":
            found |= {(by, label): (columns[by], code) for code, label in enumerate(labels) if code in columns[by]}
    return found, notes
