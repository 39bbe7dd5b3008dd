"""What the moderator announces at the start of a round, made from the results of the round before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty.game.experiment import Experiment
from pbeauty.game.population import group_counts
from pbeauty.game.records import Floats
from pbeauty.game.scoring import Outcome, places


@dataclass(frozen=True)
class Announcement:
    """What the moderator broadcasts at the start of a round; every session has its own."""

    round_index: int
    """The round that starts, from 0."""
    quantities: dict[str, Floats]
    """Quantities of the round before, float64[session] by name, as far as any group is told them; empty before the
    first. The winning guess is NaN if nobody won."""
    group_numbers: Floats | None = None
    """The number of each group in the round before, float64[session, group], if any group is told; NaN if the group had
    no valid guess."""
    ranks: NDArray[np.int32] | None = None
    """Each participant's rank by nearness to the target, int32[participant], if any group is told; 0 for none."""
    playing: NDArray[np.bool_] | None = None
    """Which sessions go on, bool[session]; None for all. One without a valid guess in a round has ended with it."""

    def plays(self, sessions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each of these sessions, counted from 0, goes on: bool, in their shape."""
        return np.ones(sessions.shape, bool) if self.playing is None else self.playing[sessions]

    def to(self, told: Sequence[str]) -> dict[str, Floats]:
        """Those of `quantities` that are among what a group is told, in its order."""
        return {name: self.quantities[name] for name in told if name in self.quantities}


def announcement(
    experiment: Experiment,
    round_index: int,
    last: Outcome | None = None,
    group_numbers: Floats | None = None,
    column: Callable[[str], NDArray[Any]] | None = None,
) -> Announcement:
    """The announcement that a round, from 0, starts with.

    Args:
        experiment: the experiment.
        round_index: the round that starts.
        last: the outcome of the round before; None before the first.
        group_numbers: those of the round before, float64[session, group].
        column: gives a column of the round before by participant, for ranks, which are left out without it.
    """
    if last is None:
        return Announcement(round_index, {})
    told = dict.fromkeys(name for group in experiment.population for name in experiment.announced_to(group))
    quantities = {name: getattr(last, name) for name in told if name not in ("group_numbers", "own_rank")}
    numbers = group_numbers if "group_numbers" in told else None
    ranks = None
    if "own_rank" in told and column:
        ranks = places(experiment.game, column("guess"), column("status"), last.target, group_counts(experiment))
    playing = last.n_valid > 0
    return Announcement(round_index, quantities, numbers, ranks, None if playing.all() else playing)


def announced_in_words(experiment: Experiment) -> str:
    """What is announced, and to groups that are told something else: `target; to experts: own_rank, mean`."""
    usual = ", ".join(experiment.game.announce) or "nothing"
    told = {group.name: ", ".join(experiment.announced_to(group)) or "nothing" for group in experiment.population}
    others = [f"to {name}: {quantities}" for name, quantities in told.items() if quantities != usual]
    return "; ".join([usual, *others] if usual in told.values() else others)
