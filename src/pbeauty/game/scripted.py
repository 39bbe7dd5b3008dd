"""Participants without a model: the guesses of a whole block, computed at once from the rules and the announcement.

They play the same rounds as language models. Since their guesses are known in advance, they are what statistics,
partitions and interruptions are tested with.
"""

from __future__ import annotations

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
from pbeauty.game.theory import Floats, hierarchy_guesses, level_k_guess, poisson_shares, reference_point


def guess(experiment: Experiment, group: int, announcement: Announcement, ids: NDArray[np.int64]) -> Floats:
    """The guesses of participants without a model, float64[participant], all within [low, high].

    Args:
        experiment: what is played.
        group: the population group that all of these participants belong to, by number.
        announcement: with which the round begins.
        ids: int64[participant], ascending.
    """
    game, settings = experiment.game, experiment.population[group]
    sessions = ids // experiment.session_size
    first, last = (int(sessions[0]), int(sessions[-1]) + 1) if ids.size else (0, 0)

    def draws(stream: str, round_index: int = announcement.round_index) -> Floats:
        return uniforms(experiment.seed, stream, round_index, ids)

    def of_each(by_session: Floats) -> Floats:
        """From what holds in a session to what holds for its participants."""
        return by_session[..., sessions - first] if by_session.ndim else by_session

    def reference() -> Floats:
        """By session, of those that the participants are in; one number before the first round."""
        announced = {
            name: values[first:last] for name, values in announcement.to(experiment.announced_to(settings)).items()
        }
        return reference_point(game, announced)

    match settings:
        case FixedGroup():
            return np.full(len(ids), settings.value)
        case UniformGroup(integers=True):
            return _uniform_integers(draws("guess"), game)
        case UniformGroup():
            return game.low + (game.high - game.low) * draws("guess")
        case LevelKGroup(level=0):
            return _level_zero(draws("guess"), game, of_each(reference()))
        case LevelKGroup():
            return np.broadcast_to(of_each(level_k_guess(game, settings.level, reference())), len(ids))
        case CognitiveHierarchyGroup():
            start = reference()
            choices = hierarchy_guesses(game, settings.tau, start)
            # A participant's level is theirs for the whole game, so its stream does not depend on the round.
            levels = np.searchsorted(np.cumsum(poisson_shares(settings.tau)), draws("level", 0), side="right")
            levels = np.minimum(levels, len(choices) - 1)
            chosen = choices[levels, sessions - first] if choices.ndim > 1 else choices[levels]
            return np.where(levels == 0, _level_zero(draws("guess"), game, of_each(start)), chosen)
        case LLMGroup():
            raise ValueError(f"the group {settings.name} is played by a language model")


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
