"""The cognitive hierarchy's tau: how many steps of reasoning a group takes on average (Camerer, Ho & Chong 2004).

Levels are Poisson(tau); level 0 guesses uniformly, and level k best-responds to the levels below it in their true
proportions. The estimate is the authors' own: the tau whose predicted mean is the sample's. After the first round,
levels start from the last aggregate as everybody was told it, in place of the midpoint: an extension of this package,
since the model is one of first play.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from pbeauty.analysis import intervals
from pbeauty.analysis.intervals import CONFIDENCE, NONE, Estimate
from pbeauty.game.experiment import Game
from pbeauty.game.records import Floats
from pbeauty.game.theory import hierarchy_guesses, poisson_shares

LARGEST_TAU = 10.0
"""Beyond it one more step of reasoning hardly moves a guess."""
_NODES = 257
"""References that predictions are computed for."""
ABOVE, BELOW = math.inf, -math.inf
"""A tau above `LARGEST_TAU`; a mean on the far side of level 0's, which no tau predicts."""


def predicted_mean(game: Game, tau: float, reference: float | Floats) -> Any:
    """The mean guess of a population with this tau, from each reference; at first that is the range's midpoint."""
    return poisson_shares(tau) @ hierarchy_guesses(game, tau, np.asarray(reference, float))


def tau_by_mean(
    game: Game, mean: Estimate, reference: float | Floats, means: Floats | None = None, confidence: float = CONFIDENCE
) -> Estimate:
    """The tau whose predicted mean is the sample's; of several sessions, the one of which that holds on average.

    The interval of one session is its mean's, through the same monotone function. That of several holds every tau at
    which the sessions' means less their predicted ones are 0 on average, by Student's t: so it keeps the confidence of
    an interval of a mean. Value and ends may be `ABOVE` or `BELOW`. Nothing where all levels guess the same, and in a
    game of medians, of which the model says nothing.

    Args:
        mean: of the guesses, or of the sessions' means.
        reference: where level 0 is, or that of each session.
        means: of the sessions, float64[session]; None of a single one.
    """
    from scipy.optimize import brentq

    references = np.atleast_1d(reference)
    nodes = np.unique(references)
    if nodes.size > _NODES:  # predictions are piecewise linear in the reference: those of many are read off from some
        nodes = np.linspace(nodes[0], nodes[-1], _NODES)

    @cache
    def predicted(tau: float) -> Floats:
        return np.interp(references, nodes, predicted_mean(game, tau, nodes))

    start, end = (float(predicted(tau).mean()) for tau in (0.0, LARGEST_TAU))
    if not abs(end - start) >= 1e-9 * (game.high - game.low) or math.isnan(mean.value) or game.aggregate == "median":
        return NONE
    sign = 1 if end > start else -1

    def solve(side: int) -> float:
        """The tau at the estimate (0) or at an end of the mean's interval (-1, 1)."""

        def excess(tau: float) -> float:
            found, reach = predicted(tau), mean.high - mean.value
            if means is not None and means.size > 1:
                gaps = intervals.moments(means - found)
                reach = gaps.interval(confidence).high - gaps.value
            return float(found.mean()) - mean.value - (side * reach if side else 0.0)

        if math.isnan(excess(0.0)):
            return math.nan
        if excess(0.0) * sign > 0:
            return BELOW
        if excess(LARGEST_TAU) * sign < 0:
            return ABOVE
        return float(brentq(excess, 0.0, LARGEST_TAU, xtol=1e-6))

    low, high = sorted((solve(-1), solve(1)))
    return Estimate(solve(0), low, high)
