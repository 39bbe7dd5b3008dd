"""The cognitive hierarchy's tau: how many steps of reasoning a group takes on average (Camerer, Ho & Chong 2004).

Levels are Poisson(tau); level 0 guesses uniformly, and level k best-responds to the levels below it in their true
proportions. Two estimators: the tau whose predicted mean is the sample's (the authors' own), and maximum likelihood
with a noise model, which uses the whole distribution. After the first round, levels start from the last aggregate
as everybody was told it, in place of the midpoint: an extension of this package, since the model is one of first play.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pbeauty.analysis.intervals import CONFIDENCE, NONE, Estimate
from pbeauty.game.experiment import Game
from pbeauty.game.scripted import hierarchy_guesses, poisson_shares

LARGEST_TAU = 10.0
"""Beyond it one more step of reasoning hardly moves a guess."""
BINS = 500
_TAUS = np.concatenate([np.arange(0, 3, 0.15), np.arange(3, LARGEST_TAU + 0.1, 0.5)])
_SCALES = (0.001, 0.01, 0.04, 0.1)
"""Standard deviations to start from, as shares of the range."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fit:
    """The hierarchy as maximum likelihood fits it."""

    tau: Estimate
    sigma: float
    """Standard deviation of the guesses around what their level should guess, in units of the game."""
    log_likelihood: float
    """Of the counts in `Binned`, without the multinomial coefficient."""


@dataclass(frozen=True)
class Binned:
    """Guesses counted in bins; a likelihood of counts is bounded, also where all guesses are the same number."""

    edges: Floats
    """float64[bin + 1]; bins are a 500th of the range wide and centred on their multiples, so that none splits at an
    integer; the first and the last end with the range."""
    counts: NDArray[np.int64]
    """int64[bin]"""

    @property
    def width(self) -> float:
        """Of a whole bin, in units of the game."""
        return float(self.edges[2] - self.edges[1])

    def filled(self) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """Lower ends, upper ends and counts of the bins that hold a guess."""
        full = np.flatnonzero(self.counts)
        return self.edges[full], self.edges[full + 1], self.counts[full]


def binned(ordered: Floats, game: Game) -> Binned:
    """Counts sorted guesses, float64[guess], all in [low, high]."""
    width = (game.high - game.low) / BINS
    edges = np.linspace(game.low - width / 2, game.high + width / 2, BINS + 2)
    edges[0], edges[-1] = game.low, game.high
    places = np.searchsorted(ordered, edges[1:-1])
    return Binned(edges, np.diff(places, prepend=0, append=ordered.size))


# --- tau by the mean -----------------------------------------------------------------------------------------


def predicted_mean(game: Game, tau: float, reference: float) -> float:
    """The mean guess of a population with this tau; in the first round the reference is the range's midpoint."""
    return float(poisson_shares(tau) @ hierarchy_guesses(game, tau, reference))


def tau_by_mean(game: Game, mean: Estimate, reference: float) -> Estimate:
    """The tau whose predicted mean is the sample's; its interval is the mean's, through the same function.

    That function is monotone, so that the interval keeps the confidence of the mean's. A mean on the far side of
    level 0's has tau 0, one beyond the prediction at `LARGEST_TAU` has that. Nothing where all levels guess the same.
    """
    from scipy.optimize import brentq

    start, end = (predicted_mean(game, tau, reference) for tau in (0.0, LARGEST_TAU))
    if abs(end - start) < 1e-9 * (game.high - game.low) or math.isnan(mean.value):
        return NONE

    def solve(value: float) -> float:
        if math.isnan(value):
            return math.nan
        if (value - start) * np.sign(end - start) <= 0:
            return 0.0
        if (value - end) * np.sign(end - start) >= 0:
            return LARGEST_TAU
        return float(brentq(lambda tau: predicted_mean(game, tau, reference) - value, 0.0, LARGEST_TAU, xtol=1e-6))

    low, high = sorted((solve(mean.low), solve(mean.high)))
    return Estimate(solve(mean.value), low, high)


# --- tau by maximum likelihood -------------------------------------------------------------------------------


def tau_by_likelihood(
    counted: Binned, game: Game, reference: float, *, first: bool, confidence: float = CONFIDENCE
) -> Fit | None:
    """Tau and the noise around each level's guess, by maximum likelihood over bins.

    Level 0 is uniform: over the range in the first round, later over the widest interval around the reference that
    fits into it. Level k >= 1 is normal around its guess with one standard deviation sigma, truncated to the range.
    Later rounds have lapses as well, a hundredth of all guesses, uniform over the range, as no level explains a
    guess far from everything. The interval is the profile likelihood's: all tau whose likelihood, maximised over
    sigma, is within chi-square(1) / 2 of the maximum.

    Args:
        counted: the guesses.
        game: the rules.
        reference: the point that levels start from.
        first: whether this is the first round.
        confidence: in (0, 1).

    Returns:
        None where all levels guess the same, or nothing was guessed.
    """
    from scipy.optimize import minimize, minimize_scalar
    from scipy.stats import chi2

    spread = abs(predicted_mean(game, 1.0, reference) - reference)
    if not counted.counts.any() or spread < 1e-9 * (game.high - game.low):
        return None
    loss = _loss(counted, game, reference, lapses=0.0 if first else 0.01)
    floor, ceiling = math.log(counted.width / 4), math.log((game.high - game.low) / 4)

    tried = [(float(tau), math.log(scale * (game.high - game.low))) for tau in _TAUS for scale in _SCALES]
    starts = sorted(tried, key=lambda start: loss(*start))[:2]
    fits = [
        minimize(
            lambda at: loss(*at), start, method="Nelder-Mead", bounds=[(0, LARGEST_TAU), (floor, ceiling)],
            options={"xatol": 1e-4, "fatol": 1e-4, "maxfev": 200},
        )
        for start in starts
    ]  # fmt: skip
    best = min(fits, key=lambda fit: fit.fun)
    tau, scale = (float(value) for value in best.x)

    def profile(at: float) -> float:
        # A bracket around the best scale is enough: along the interval of tau it moves little.
        bounds = (max(floor, scale - 1), min(ceiling, scale + 1))
        found = minimize_scalar(lambda scale: loss(at, scale), bounds=bounds, method="bounded", options={"xatol": 0.02})
        return min(found.fun, loss(at, scale)) - best.fun - float(chi2.ppf(confidence, 1)) / 2

    interval = Estimate(tau, _crossing(profile, tau, 0.0), _crossing(profile, tau, LARGEST_TAU))
    return Fit(interval, math.exp(scale), -float(best.fun))


def _crossing(profile: Callable[[float], float], inside: float, end: float) -> float:
    """Where the profile crosses zero between the maximum and an end of the range; the end if it does not."""
    from scipy.optimize import brentq

    step = math.copysign(0.02, end - inside)
    outside = inside
    while outside != end:  # the profile need not be monotone far away: the first crossing counts
        inside, outside = outside, inside + step
        if (outside - end) * step > 0:
            outside = end
        if profile(outside) > 0:
            return float(brentq(profile, inside, outside, xtol=1e-3)) if profile(inside) < 0 else inside
        step *= 2
    return end


def _loss(counted: Binned, game: Game, reference: float, lapses: float) -> Callable[[float, float], float]:
    """The negative log-likelihood of (tau, log sigma)."""
    lower, upper, counts = counted.filled()
    reach = min(reference - game.low, game.high - reference)
    anywhere = (upper - lower) / (game.high - game.low)
    zero = np.clip(np.minimum(upper, reference + reach) - np.maximum(lower, reference - reach), 0, None)
    # A reference at an end of the range leaves level 0 a single number: it is then noise like any other level.
    level_zero = zero / (2 * reach) if reach > counted.width else None

    @cache
    def hierarchy(tau: float) -> tuple[Floats, Floats]:
        shares = poisson_shares(tau)
        kept = max(2, int(np.searchsorted(np.cumsum(shares), 1 - 1e-7)) + 1)
        return shares[:kept] / shares[:kept].sum(), hierarchy_guesses(game, tau, reference)[:kept]

    def loss(tau: float, log_sigma: float) -> float:
        shares, guesses = hierarchy(tau)
        chances = normal_bins(lower, upper, guesses, math.exp(log_sigma), game)
        if level_zero is not None:
            chances[0] = level_zero
        mixed = (1 - lapses) * (shares @ chances) + lapses * anywhere
        return -float(counts @ np.log(np.maximum(mixed, 1e-300)))

    return loss


def normal_bins(lower: Floats, upper: Floats, centres: Floats, sigma: float, game: Game) -> Floats:
    """Chances of bins under normals truncated to the game's range, float64[centre, bin]."""
    from scipy.special import ndtr

    centres = np.asarray(centres)[:, None]
    inside = ndtr((game.high - centres) / sigma) - ndtr((game.low - centres) / sigma)
    # In the upper tail two values next to 1 would be subtracted: reflect them into the lower one.
    left, right = (lower - centres) / sigma, (upper - centres) / sigma
    flip = left > 0
    low, high = np.where(flip, -right, left), np.where(flip, -left, right)
    return (ndtr(high) - ndtr(low)) / inside
