"""What a round tells everybody of the one before it: put together from the same guesses in every job of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pbeauty.game.experiment import Experiment, Game
from pbeauty.game.rules import Outcome
from pbeauty.game.scoring import places


@dataclass(frozen=True)
class Announcement:
    """What the moderator tells every rank at the start of a round."""

    round_index: int
    """From 0."""
    quantities: dict[str, float]
    """The quantities of the round before that everybody is told, by name; the winning guess is NaN if nobody won."""
    group_numbers: dict[str, float] = field(default_factory=dict)
    """The number of each group in the round before, where they are told; NaN of a group without a valid guess."""
    ranks: NDArray[np.int32] | None = None
    """int32[participant of the whole population]: own places, where they are told; 0 of those whose guess was none."""


def group_of(experiment: Experiment) -> NDArray[np.uint16]:
    """The population group of each participant, uint16[participant]."""
    groups = experiment.population
    return np.repeat(np.arange(len(groups), dtype=np.uint16), [group.count for group in groups])


def needs_guesses(experiment: Experiment) -> bool:
    """Whether an announcement takes everybody's guesses of the round before."""
    return "own_rank" in experiment.game.announce


def announcement(
    experiment: Experiment,
    round_index: int,
    last: Outcome | None = None,
    group_numbers: NDArray[np.float64] | None = None,
    guesses: NDArray[np.float64] | None = None,
    status: NDArray[np.uint8] | None = None,
) -> Announcement:
    """What a round starts with.

    Args:
        experiment: whose.
        round_index: from 0.
        last: the figures of the round before; None before the first.
        group_numbers: float64[group] of the round before; None before the first.
        guesses, status: float64[participant] and uint8[participant] of the round before, where `needs_guesses`.
    """
    told = Announcement(round_index, announced(experiment.game, last))
    if last is None:
        return told
    game, groups = experiment.game, experiment.population
    if "group_numbers" in game.announce and group_numbers is not None:
        told.group_numbers.update((group.name, float(n)) for group, n in zip(groups, group_numbers, strict=True))
    if not needs_guesses(experiment) or guesses is None or status is None:
        return told
    own = places(game, guesses, status, last.target, group_of(experiment), len(groups))
    return Announcement(round_index, told.quantities, told.group_numbers, own)


def announced(game: Game, last: Outcome | None) -> dict[str, float]:
    """The quantities of the round before that everybody is told alike; empty before the first round.

    The winning guess is NaN where nobody won. The groups' numbers and everybody's own rank are told besides.
    """
    common = (quantity for quantity in game.announce if quantity not in ("group_numbers", "own_rank"))
    return {} if last is None else {quantity: getattr(last, quantity) for quantity in common}
