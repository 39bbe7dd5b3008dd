"""Participants without a model: the guesses of a whole block, computed at once from the rules and the announcement.

They play the same rounds as language models. Since their guesses are known in advance, they are what statistics,
partitions and interruptions are tested with.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pbeauty.game.experiment import CognitiveHierarchyGroup, FixedGroup, Game, LevelKGroup, ScriptedGroup, UniformGroup
from pbeauty.game.randomness import uniforms
from pbeauty.game.theory import Floats, hierarchy_guesses, level_k_guess, poisson_shares, reference_point


def guess(
    group: ScriptedGroup,
    game: Game,
    announced: Mapping[str, float],
    *,
    seed: int,
    round_index: int,
    start: int,
    stop: int,
) -> Floats:
    """The guesses of participants start..stop-1, float64[stop - start], all within [low, high].

    Args:
        group: the group that all of these participants belong to.
        game: the rules.
        announced: the announced quantities of the round before, by name; empty in the first round.
        seed: the run's seed.
        round_index: the round, from 0.
        start, stop: participant ids within the whole population.
    """
    count = stop - start

    def draws(stream: str, round_index: int = round_index) -> Floats:
        return uniforms(seed, stream, round_index, start, stop)

    match group:
        case FixedGroup():
            return np.full(count, group.value)
        case UniformGroup(integers=True):
            return _uniform_integers(draws("guess"), game)
        case UniformGroup():
            return game.low + (game.high - game.low) * draws("guess")
        case LevelKGroup():
            reference = reference_point(game, announced)
            if group.level == 0:
                return _level_zero(draws("guess"), game, reference)
            return np.full(count, level_k_guess(game, group.level, reference))
        case CognitiveHierarchyGroup():
            reference = reference_point(game, announced)
            choices = hierarchy_guesses(game, group.tau, reference)
            # A participant's level is theirs for the whole game, so its stream does not depend on the round.
            levels = np.searchsorted(np.cumsum(poisson_shares(group.tau)), draws("level", 0), side="right")
            levels = np.minimum(levels, len(choices) - 1)
            return np.where(levels == 0, _level_zero(draws("guess"), game, reference), choices[levels])


def _level_zero(draws: Floats, game: Game, reference: float) -> Floats:
    """Guesses around the reference point: uniform on the widest symmetric interval that fits the range.

    Before the first round that interval is the whole range; later it keeps level 0's mean at what the levels
    above it respond to.
    """
    half_width = min(reference - game.low, game.high - reference)
    return np.clip(reference + half_width * (2 * draws - 1), game.low, game.high)


def _uniform_integers(draws: Floats, game: Game) -> Floats:
    lowest, highest = np.ceil(game.low), np.floor(game.high)
    return lowest + np.minimum(np.floor(draws * (highest - lowest + 1)), highest - lowest)
