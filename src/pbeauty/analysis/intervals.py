"""Estimates with their intervals: the textbook formulas that the analysis is made of.

Intervals are two-sided and take the participants of a round as independent draws, which they are given what
was announced to all of them. They say how a round would vary with other participants of the same kind under the same
announcement, and nothing about how a whole game would vary: that is `pbeauty.analysis.variation`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
REPLICATES = 200
"""Bootstrap samples, where no formula will do."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure and the ends of its interval; NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def moved(self, scale: float, shift: float = 0.0) -> Estimate:
        """The estimate of shift + scale x value."""
        low, high = sorted((shift + scale * self.low, shift + scale * self.high))
        return Estimate(shift + scale * self.value, low, high)


NONE = Estimate(math.nan)
"""Nothing to estimate from."""


@dataclass(frozen=True)
class Bounds:
    """What a mean can be at worst, given that some guesses are missing."""

    low: float
    """With all missing guesses at the low end."""
    high: float
    """With all of them at the high end."""
    interval: Estimate
    """Of the mean of everybody, around both."""


@dataclass(frozen=True)
class Difference:
    """A difference of two means, with the p-value of there being none."""

    estimate: Estimate
    p_value: float = math.nan


def mean(value: float, sd: float, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """Student's t interval of a mean, +- t(n - 1) sd / sqrt(n - 1).

    Args:
        value: the mean.
        sd: with divisor n, as in `run.h5`; hence the n - 1 above.
        n: how many guesses; a single one has no interval.
        confidence: in (0, 1).
    """
    from scipy.stats import t

    if n < 2:
        return Estimate(value)
    reach = float(t.ppf(0.5 + confidence / 2, n - 1)) * sd / math.sqrt(n - 1)
    return Estimate(value, value - reach, value + reach)


def deviation(guesses: Floats, centre: float, confidence: float = CONFIDENCE) -> Estimate:
    """The standard deviation (divisor n), with an interval that assumes no distribution.

    The variance of the sample variance is (m4 - sd^4) / n, whatever the distribution (Cramér 1946, chapter 27);
    the delta method makes of it one of log sd, and the interval is symmetric there.

    Args:
        guesses: float64[guess].
        centre: their mean.
        confidence: in (0, 1).
    """
    n = guesses.size
    squares = np.square(guesses - centre)
    variance = float(squares.mean())
    sd = math.sqrt(variance)
    if n < 2 or not variance:
        return Estimate(sd)
    fourth = float(np.square(squares, out=squares).mean())
    reach = normal(confidence) * math.sqrt(max(fourth - variance**2, 0.0) / n) / (2 * variance)
    return Estimate(sd, sd * math.exp(-reach), sd * math.exp(reach))


def quantile(ordered: Floats, share: float, ends: tuple[float, float], confidence: float = CONFIDENCE) -> Estimate:
    """A quantile, with the interval between two order statistics, exact for any distribution.

    Their ranks are quantiles of Binomial(n, share) (Conover 1999, section 3.2). Where a sample is too small to have
    such an order statistic, the end of the range stands for it.

    Args:
        ordered: float64[guess], ascending, one at least.
        share: 0.5 for the median.
        ends: of the range of guesses.
        confidence: in (0, 1).
    """
    from scipy.stats import binom

    n = ordered.size
    first, last = (int(rank) for rank in binom.ppf([0.5 - confidence / 2, 0.5 + confidence / 2], n, share))
    place = share * (n - 1)  # numpy's default: linear between the two nearest
    below = int(place)
    value = float(ordered[below])
    if below + 1 < n:
        value += (place - below) * (float(ordered[below + 1]) - value)
    low = float(ordered[first - 1]) if first >= 1 else ends[0]
    high = float(ordered[last]) if last < n else ends[1]
    return Estimate(value, low, high)


def share(count: int, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """A share of n with Wilson's score interval (Wilson 1927; Brown, Cai & DasGupta 2001)."""
    if not n:
        return NONE
    z = normal(confidence)
    p = count / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return Estimate(p, max(0.0, min(middle - reach, p)), min(1.0, max(middle + reach, p)))


def mode(
    counts: NDArray[np.int64], values: Floats, generator: np.random.Generator, confidence: float = CONFIDENCE
) -> Estimate:
    """The most frequent value, with the percentile interval of multinomial bootstrap samples.

    Args:
        counts: int64[value], how often each was guessed; one at least.
        values: float64[value], ascending.
        generator: draws the samples.
        confidence: in (0, 1).
    """
    n = int(counts.sum())
    top = float(values[counts.argmax()])
    if n < 2:
        return Estimate(top)
    samples = generator.multinomial(n, counts / n, size=REPLICATES)
    tails = [0.5 - confidence / 2, 0.5 + confidence / 2]
    low, high = np.quantile(values[samples.argmax(axis=1)], tails, method="nearest")
    return Estimate(top, float(min(low, top)), float(max(high, top)))


def worst_cases(
    value: float, sd: float, n: int, missing: int, ends: tuple[float, float], confidence: float = CONFIDENCE
) -> Bounds:
    """The mean had all missing guesses been at the low end, and at the high end of the range (Manski 1989).

    The interval covers the mean of everybody, wherever it lies between the two (Imbens & Manski 2004).

    Args:
        value: the mean of the n guesses there are, with `sd` of divisor n.
        sd: see there.
        n: valid guesses, one at least.
        missing: replies without one.
        ends: of the range of guesses.
        confidence: in (0, 1).
    """
    from scipy.optimize import brentq

    count = n + missing
    valid = n / count
    low, high = (valid * value + (1 - valid) * end for end in ends)
    if count < 2:
        return Bounds(low, high, Estimate(value))
    # The variance of a mixture: the valid guesses, and all others at one end.
    errors = [math.sqrt((valid * sd**2 + valid * (1 - valid) * (value - end) ** 2) / (count - 1)) for end in ends]
    z = normal(confidence)
    if max(errors):
        apart = (high - low) / max(errors)
        z = float(brentq(lambda c: phi(c + apart) - phi(-c) - confidence, 0.0, z + 1))
    interval = Estimate(value, max(low - z * errors[0], ends[0]), min(high + z * errors[1], ends[1]))
    return Bounds(low, high, interval)


def difference(
    first: tuple[float, float, float], second: tuple[float, float, float], confidence: float = CONFIDENCE
) -> Difference:
    """First mean less second, by Welch's unequal-variances t (Welch 1947).

    Args:
        first: mean, standard deviation (divisor n - 1) and n.
        second: likewise; NaN where it was not published, and there is then no interval.
        confidence: in (0, 1).
    """
    from scipy.stats import t

    gap = first[0] - second[0]
    parts = [sd**2 / n if n > 1 else math.nan for _, sd, n in (first, second)]
    error = math.sqrt(sum(parts)) if sum(parts) >= 0 else math.nan
    if math.isnan(error):
        return Difference(Estimate(gap))
    if not error:
        return Difference(Estimate(gap, gap, gap), float(gap == 0))
    freedom = error**4 / sum(part**2 / (n - 1) for part, (_, _, n) in zip(parts, (first, second), strict=True))
    reach = float(t.ppf(0.5 + confidence / 2, freedom)) * error
    return Difference(Estimate(gap, gap - reach, gap + reach), float(2 * t.sf(abs(gap) / error, freedom)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, so that the chance of any false alarm is kept (Holm 1979); NaN stays NaN."""
    tested = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p))
        adjusted[index] = highest
    return adjusted


def normal(confidence: float) -> float:
    """The normal quantile of a two-sided interval: 1.96 at 0.95."""
    from scipy.special import ndtri

    return float(ndtri(0.5 + confidence / 2))


def phi(value: float) -> float:
    """The normal distribution function."""
    return 0.5 * math.erfc(-value / math.sqrt(2))
