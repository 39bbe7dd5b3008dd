"""What theory says about a game (its equilibrium, level-k reasoning, the cognitive hierarchy), and who plays by it.

`analysis/` compares what participants did with it; participants without a model play by it (`guess`). Since their
guesses are known in advance, they are what statistics, partitions and interruptions are tested with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from pbeauty.game.announcement import Announcement
from pbeauty.game.experiment import (
    CognitiveHierarchyGroup,
    Experiment,
    FixedGroup,
    Game,
    LevelKGroup,
    LLMGroup,
    UniformGroup,
)
from pbeauty.game.randomness import uniforms
from pbeauty.game.records import Floats


def equilibrium(game: Game) -> float:
    """The guess that repeats itself under best response, c / (1 - p), kept in range; NaN where p = 1 and c = 0.

    For p > 1 the fixed point repels: play runs to the end of the range on the far side of it, which is the
    upper end for every game whose offset is not negative.
    """
    if game.p == 1 and game.offset == 0:
        return float("nan")
    if game.p == 1:
        return game.high if game.offset > 0 else game.low
    fixed_point = game.offset / (1 - game.p)
    if game.p > 1:
        return game.high if fixed_point < game.high else game.low
    return float(np.clip(fixed_point, game.low, game.high))


def reference_point(game: Game, announced: Mapping[str, Floats] | Mapping[str, float]) -> Floats:
    """The aggregate of the last round, as far as the announcement tells it; the shape is that of what is announced.

    Level-k reasoning starts from it (Nagel 1995, p. 1318: the mean of the previous period; the midpoint of
    the range before the first). The target is inverted, (target - c) / p; the winning guess stands in for it.
    """
    if game.aggregate in announced:
        return np.asarray(announced[game.aggregate])
    reference = np.asarray(announced.get("mean", announced.get("median", (game.low + game.high) / 2)))
    for quantity in ("winning_guess", "target"):
        if quantity in announced:
            value = announced[quantity]
            inverted = np.clip((value - game.offset) / game.p, game.low, game.high)
            reference = np.where(np.isnan(value), reference, inverted)
    return reference


def level_k_guess(game: Game, level: int, reference: Floats | float) -> Floats:
    """Level k's guess: the best response to level k-1, k times over, from the reference point (Nagel 1995).

    Best response ignores one's own weight in the aggregate, as the literature does for all but tiny groups.
    """
    for _ in range(level):
        reference = np.clip(game.offset + game.p * reference, game.low, game.high)
    return np.asarray(reference)


def hierarchy_guesses(game: Game, tau: float, reference: Floats) -> Floats:
    """The guess of each level of the Poisson cognitive hierarchy, float64[level, ...] (Camerer, Ho & Chong 2004).

    Level 0 guesses `reference` on average, which may have any shape; level k best-responds to the levels below it, in
    the proportions that Poisson(tau) gives them, normalised to one. Responses are to the mean, also where the median
    counts.
    """
    shares = poisson_shares(tau)
    choices = np.empty((len(shares), *np.shape(reference)))
    choices[0] = reference
    weight, total, p = 0.0, np.zeros(np.shape(reference)), game.p
    for level in range(1, len(shares)):
        # Added level by level, so that a reference has the same guesses, to the bit, whatever others are beside it.
        weight, total = weight + shares[level - 1], total + shares[level - 1] * choices[level - 1]
        choices[level] = np.clip(game.offset + p * (total / weight), game.low, game.high)
    return choices


def poisson_shares(tau: float) -> Floats:
    """Poisson(tau) shares of levels 0, 1, ..., cut where the rest is below 1e-12 and normalised, float64[level]."""
    levels = [np.exp(-tau)]
    while len(levels) <= tau or levels[-1] > 1e-12:
        levels.append(levels[-1] * tau / len(levels))
    return np.array(levels) / np.sum(levels)


# --- participants without a model ----------------------------------------------------------------------------


def guess(experiment: Experiment, group: int, announcement: Announcement, ids: NDArray[np.int64]) -> Floats:
    """The guesses of participants without a model, float64[participant], all within [low, high].

    Args:
        experiment: what is played.
        group: the index of the population group that all of them belong to.
        announcement: with which the round begins.
        ids: int64[participant], ascending.
    """
    game, settings = experiment.game, experiment.population[group]
    sessions = ids // experiment.session_size
    first, last = (int(sessions[0]), int(sessions[-1]) + 1) if ids.size else (0, 0)
    own = sessions - first

    def draws(stream: str, round_index: int = announcement.round_index) -> Floats:
        return uniforms(experiment.seed, stream, round_index, ids)

    def reference() -> Floats:
        """float64[session], of the sessions that the participants are in."""
        told = announcement.to(experiment.announced_to(settings))
        point = reference_point(game, {name: values[first:last] for name, values in told.items()})
        return np.broadcast_to(point, last - first)

    match settings:
        case FixedGroup():
            return np.full(len(ids), settings.value)
        case UniformGroup(integers=True):
            return _uniform_integers(draws("guess"), game)
        case UniformGroup():
            return game.low + (game.high - game.low) * draws("guess")
        case LevelKGroup(level=0):
            return _level_zero(draws("guess"), game, reference()[own])
        case LevelKGroup():
            return level_k_guess(game, settings.level, reference())[own]
        case CognitiveHierarchyGroup():
            start = reference()
            choices = hierarchy_guesses(game, settings.tau, start)
            # A participant's level is theirs for the whole game, so its stream does not depend on the round.
            levels = np.searchsorted(np.cumsum(poisson_shares(settings.tau)), draws("level", 0), side="right")
            levels = np.minimum(levels, len(choices) - 1)
            return np.where(levels == 0, _level_zero(draws("guess"), game, start[own]), choices[levels, own])
        case LLMGroup():
            raise ValueError(f"the group {settings.name} is played by a language model")
        case _:
            assert_never(settings)


def _level_zero(draws: Floats, game: Game, reference: Floats) -> Floats:
    """Guesses around the reference point: uniform on the widest symmetric interval that fits the range.

    Before the first round that interval is the whole range; later it keeps level 0's mean at what the levels
    above it respond to.
    """
    half_width = np.minimum(reference - game.low, game.high - reference)
    return np.clip(reference + half_width * (2 * draws - 1), game.low, game.high)


def _uniform_integers(draws: Floats, game: Game) -> Floats:
    lowest, highest = np.ceil(game.low), np.floor(game.high)
    return lowest + np.minimum(np.floor(draws * (highest - lowest + 1)), highest - lowest)
