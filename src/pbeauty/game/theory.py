"""What theory says about a game: its equilibrium, level-k reasoning and the cognitive hierarchy.

These functions compute single guesses from the rules and from what was announced. `game/scripted.py` plays participants
by them, and `analysis/` compares what participants did with them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pbeauty.game.experiment import Game

Floats = NDArray[np.float64]


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


def reference_point(game: Game, announced: Mapping[str, float]) -> float:
    """The aggregate of the last round, as far as the announcement tells it.

    Level-k reasoning starts from it (Nagel 1995, p. 1318: the mean of the previous period; the midpoint of
    the range before the first). The target is inverted, (target - c) / p; the winning guess stands in for it.
    """
    if game.aggregate in announced:
        return announced[game.aggregate]
    for quantity in ("target", "winning_guess"):
        if quantity in announced and not np.isnan(announced[quantity]):
            return float(np.clip((announced[quantity] - game.offset) / game.p, game.low, game.high))
    return announced.get("mean", announced.get("median", (game.low + game.high) / 2))


def level_k_guess(game: Game, level: int, reference: float) -> float:
    """Level k's guess: the best response to level k-1, k times over, from the reference point (Nagel 1995).

    Best response ignores one's own weight in the aggregate, as the literature does for all but tiny groups.
    """
    value = reference
    for _ in range(level):
        value = float(np.clip(game.offset + game.p * value, game.low, game.high))
    return value


def hierarchy_guesses(game: Game, tau: float, reference: float) -> Floats:
    """The guess of each level of the Poisson cognitive hierarchy, float64[level] (Camerer, Ho & Chong 2004).

    Level 0 guesses `reference` on average; level k best-responds to the levels below it, in the proportions
    that Poisson(tau) gives them, normalised to one. Responses are to the mean, also where the median counts.
    """
    shares = poisson_shares(tau)
    choices = np.empty(len(shares))
    choices[0] = reference
    for level in range(1, len(shares)):
        below = shares[:level]
        weight = below.sum()
        # At tau = 0 nobody is above level 0, and far below the mode the weights can vanish in float64.
        mean = float(below @ choices[:level] / weight) if weight else reference
        choices[level] = np.clip(game.offset + game.p * mean, game.low, game.high)
    return choices


def poisson_shares(tau: float) -> Floats:
    """Poisson(tau) shares of levels 0, 1, ..., cut where the rest is below 1e-12 and normalised, float64[level]."""
    levels = [np.exp(-tau)]
    while len(levels) <= tau or levels[-1] > 1e-12:
        levels.append(levels[-1] * tau / len(levels))
    return np.array(levels) / np.sum(levels)
