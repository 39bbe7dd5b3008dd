"""What a round tells everybody of the one before it: put together from the same guesses in every job of a run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pbeauty.config import Experiment
from pbeauty.game import Outcome, announced, group_numbers, ranks
from pbeauty.records import Announcement


def group_of(experiment: Experiment) -> NDArray[np.uint16]:
    """The population group of each participant, uint16[participant]."""
    groups = experiment.population
    return np.repeat(np.arange(len(groups), dtype=np.uint16), [group.count for group in groups])


def needs_guesses(experiment: Experiment) -> bool:
    """Whether an announcement takes more than the figures of the round before."""
    return not {"group_numbers", "own_rank"}.isdisjoint(experiment.game.announce)


def announcement(
    experiment: Experiment,
    round_index: int,
    last: Outcome | None,
    guesses: NDArray[np.float64] | None = None,
    status: NDArray[np.uint8] | None = None,
) -> Announcement:
    """What a round starts with.

    Args:
        experiment: whose.
        round_index: from 0.
        last: the figures of the round before; None before the first.
        guesses, status: float64[participant] and uint8[participant] of the round before, where `needs_guesses`.
    """
    told = Announcement(round_index, announced(experiment.game, last))
    if last is None or guesses is None or status is None:
        return told
    game, groups = experiment.game, experiment.population
    members = group_of(experiment)
    if "group_numbers" in game.announce:
        numbers = group_numbers(guesses, status, members, len(groups))
        told.group_numbers.update((group.name, float(n)) for group, n in zip(groups, numbers, strict=True))
    if "own_rank" not in game.announce:
        return told
    places = ranks(game, guesses, status, last.target, members, len(groups))
    return Announcement(round_index, told.quantities, told.group_numbers, places)
