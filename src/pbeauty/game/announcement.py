"""What the moderator announces at the start of a round, made from the results of the round before."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pbeauty.game.experiment import Experiment, Game
from pbeauty.game.scoring import Outcome, places


@dataclass(frozen=True)
class Announcement:
    """What the moderator broadcasts at the start of a round."""

    round_index: int
    """The round that starts, from 0."""
    quantities: dict[str, float]
    """Quantities of the round before, the same for everybody, by name; the winning guess is NaN if nobody won."""
    group_numbers: dict[str, float] = field(default_factory=dict)
    """The number of each group in the round before, if the game announces it; NaN if the group had no valid guess."""
    ranks: NDArray[np.int32] | None = None
    """Each participant's rank by nearness to the target, int32[participant], if the game announces it; 0 for none."""


def group_of(experiment: Experiment) -> NDArray[np.uint16]:
    """The population group of each participant, uint16[participant]."""
    groups = experiment.population
    return np.repeat(np.arange(len(groups), dtype=np.uint16), [group.count for group in groups])


def needs_guesses(experiment: Experiment) -> bool:
    """Whether an announcement is made from all guesses of the round before, and not from its outcome alone."""
    return "own_rank" in experiment.game.announce


def announcement(
    experiment: Experiment,
    round_index: int,
    last: Outcome | None = None,
    group_numbers: NDArray[np.float64] | None = None,
    guesses: NDArray[np.float64] | None = None,
    status: NDArray[np.uint8] | None = None,
) -> Announcement:
    """The announcement that a round starts with.

    Args:
        experiment: the experiment.
        round_index: the round that starts, from 0.
        last: the outcome of the round before; None before the first.
        group_numbers: the groups' numbers in the round before, float64[group]; None before the first.
        guesses, status: float64[participant] and uint8[participant] of the round before, if `needs_guesses`.
    """
    game, groups = experiment.game, experiment.population
    numbers, ranks = {}, None
    if last is not None and "group_numbers" in game.announce and group_numbers is not None:
        numbers = {group.name: float(number) for group, number in zip(groups, group_numbers, strict=True)}
    if last is not None and needs_guesses(experiment) and guesses is not None and status is not None:
        ranks = places(game, guesses, status, last.target, group_of(experiment), len(groups))
    return Announcement(round_index, announced(game, last), numbers, ranks)


def announced(game: Game, last: Outcome | None) -> dict[str, float]:
    """The announced quantities that are the same for everybody, by name; empty before the first round.

    The winning guess is NaN if nobody won.
    """
    common = (quantity for quantity in game.announce if quantity not in ("group_numbers", "own_rank"))
    return {} if last is None else {quantity: getattr(last, quantity) for quantity in common}
