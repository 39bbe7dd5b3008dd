"""Shares of levels by a mixture fit, which does without windows: every guess counts for the levels it may come from.

Components are the levels that can be told apart (`levels.marks`), the equilibrium where there is one, and guesses
uniform on the whole range, which is level 0 in the first round and stands for lapses later. Levels are normal around
their guess with one standard deviation sigma, truncated to the range. The shares come from the EM algorithm over bins
(Dempster, Laird & Rubin 1977; over several such fits for guessing games: Bosch-Domènech et al. 2010).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pbeauty.analysis.hierarchy import Binned, normal_bins
from pbeauty.analysis.intervals import CONFIDENCE, REPLICATES, Estimate
from pbeauty.analysis.levels import marks
from pbeauty.game.experiment import Game
from pbeauty.game.rules import equilibrium

_STEPS = 200
_SCALES = 12

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Mixture:
    """Level shares as the mixture fits them."""

    shares: dict[str, Estimate]
    """By component; they add up to one."""
    sigma: float
    """Of the guesses around each level's, in units of the game."""
    log_likelihood: float
    """Of the counts, without the multinomial coefficient."""


def components(game: Game, reference: float, *, first: bool) -> dict[str, float]:
    """The guess that each component is centred on, by its name; NaN for the uniform one, which comes first."""
    centres = {"level 0" if first else "anywhere": math.nan}
    for level, guess in enumerate(marks(game, reference)):
        if level or not first:
            centres[f"level {level}"] = guess
    if not math.isnan(end := equilibrium(game)):
        centres["equilibrium"] = end
    return centres


def fit(
    counted: Binned,
    game: Game,
    reference: float,
    *,
    first: bool,
    generator: np.random.Generator,
    confidence: float = CONFIDENCE,
) -> Mixture | None:
    """Fits shares and sigma; the intervals are percentiles of a multinomial bootstrap at the fitted sigma.

    sigma is at most half the distance between neighbouring centres, above which levels are not told apart.

    Args:
        counted: the guesses.
        game: the rules.
        reference: the point that levels start from.
        first: whether this is the first round.
        generator: draws the bootstrap samples.
        confidence: in (0, 1).

    Returns:
        None where nothing was guessed, or all levels guess the same.
    """
    from scipy.optimize import minimize_scalar

    named = components(game, reference, first=first)
    centres = np.array(list(named.values())[1:])
    if not counted.counts.any() or not centres.size:
        return None
    lower, upper, counts = counted.filled()
    anywhere = (upper - lower) / (game.high - game.low)
    gap = float(np.diff(np.sort(centres)).min()) if centres.size > 1 else (game.high - game.low) / 10

    def chances(sigma: float) -> Floats:
        return np.vstack([anywhere, normal_bins(lower, upper, centres, sigma, game)])

    even = np.full((1, len(named)), 1 / len(named))

    def loss(log_sigma: float) -> float:
        given = chances(math.exp(log_sigma))
        return -float(counts @ np.log(np.maximum(_maximise(even, counts[None, :], given)[0] @ given, 1e-300)))

    floor = math.log(counted.width / 4)
    tried = np.linspace(floor, max(math.log(gap / 2), floor + 0.1), _SCALES)  # the likelihood has several maxima
    place = int(np.argmin([loss(scale) for scale in tried]))
    around = (tried[max(place - 1, 0)], tried[min(place + 1, _SCALES - 1)])
    best = minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 0.01})
    sigma, likelihood = math.exp(best.x), -float(best.fun)
    shares = _maximise(even, counts[None, :], chances(sigma))
    n = int(counts.sum())
    samples = generator.multinomial(n, counts / n, size=REPLICATES)
    started = 0.99 * np.repeat(shares, REPLICATES, axis=0) + 0.01 * even  # EM never leaves a share of zero
    repeated = _maximise(started, samples, chances(sigma))
    shares, repeated = (np.where(values < 1e-6, 0.0, values) for values in (shares, repeated))
    low, high = np.quantile(repeated, [0.5 - confidence / 2, 0.5 + confidence / 2], axis=0)
    estimates = {
        name: Estimate(float(value), float(min(a, value)), float(max(b, value)))
        for name, value, a, b in zip(named, shares[0], low, high, strict=True)
    }
    return Mixture(estimates, sigma, likelihood)


def _maximise(shares: Floats, counts: NDArray, chances: Floats) -> Floats:
    """EM from the given shares, for many samples at once.

    Args:
        shares: float64[sample, component].
        counts: int64[sample, bin].
        chances: float64[component, bin].
    """
    n = counts.sum(axis=1, keepdims=True)
    for _ in range(_STEPS):
        mixed = np.maximum(shares @ chances, 1e-300)
        renewed = shares * ((counts / mixed) @ chances.T) / n
        if np.abs(renewed - shares).max() < 1e-6:
            return renewed
        shares = renewed
    return shares
