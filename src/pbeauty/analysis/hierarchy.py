"""The cognitive hierarchy's tau: how many steps of reasoning a group takes on average (Camerer, Ho & Chong 2004).

Levels are Poisson(tau); level 0 guesses uniformly, and level k best-responds to the levels below it in their true
proportions. The estimate is the authors' own: the tau whose predicted mean is the sample's. After the first round,
levels start from the last aggregate as everybody was told it, in place of the midpoint: an extension of this package,
since the model is one of first play.
"""

from __future__ import annotations

import math

import numpy as np

from pbeauty.analysis.intervals import NONE, Estimate
from pbeauty.game.experiment import Game
from pbeauty.game.theory import hierarchy_guesses, poisson_shares

LARGEST_TAU = 10.0
"""Beyond it one more step of reasoning hardly moves a guess."""
ABOVE, BELOW = math.inf, -math.inf
"""A tau above `LARGEST_TAU`; a mean on the far side of level 0's, which no tau predicts."""


def predicted_mean(game: Game, tau: float, reference: float) -> float:
    """The mean guess of a population with this tau; in the first round the reference is the range's midpoint."""
    return float(poisson_shares(tau) @ hierarchy_guesses(game, tau, reference))


def tau_by_mean(game: Game, mean: Estimate, reference: float) -> Estimate:
    """The tau whose predicted mean is the sample's; its interval is the mean's, through the same function.

    That function is monotone, so that the interval keeps the confidence of the mean's. Value and ends may be `ABOVE`
    or `BELOW`. Nothing where all levels guess the same, and in a game of medians, of which the model says nothing.
    """
    from scipy.optimize import brentq

    start, end = (predicted_mean(game, tau, reference) for tau in (0.0, LARGEST_TAU))
    if abs(end - start) < 1e-9 * (game.high - game.low) or math.isnan(mean.value) or game.aggregate == "median":
        return NONE

    def solve(value: float) -> float:
        if math.isnan(value):
            return math.nan
        if (value - start) * np.sign(end - start) < 0:
            return BELOW
        if (value - end) * np.sign(end - start) > 0:
            return ABOVE
        return float(brentq(lambda tau: predicted_mean(game, tau, reference) - value, 0.0, LARGEST_TAU, xtol=1e-6))

    low, high = sorted((solve(mean.low), solve(mean.high)))
    return Estimate(solve(mean.value), low, high)
