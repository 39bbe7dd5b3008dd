"""Estimates with their intervals: the formulas that the analysis is made of.

Intervals are two-sided, at a confidence in (0, 1). One is given only where it keeps its confidence on the data of this
game, which are bounded and heaped on a few numbers (tests/unit/analysis/test_coverage.py simulates it): means always,
shares from `FEWEST_FOR_SHARES` participants or `FEWEST_SESSIONS_FOR_SHARES` sessions on, standard deviations from
`FEWEST_FOR_SD` guesses on, quantiles and modes never.

Those from one session take its participants as independent draws, which they are given what all of them were told. How
another session would go is known from several: then a session is one observation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pbeauty.game.records import Floats

CONFIDENCE = 0.95
FEWEST_FOR_SHARES = 100
"""Below, Wilson's interval of a small share misses its confidence by several percent."""
FEWEST_SESSIONS_FOR_SHARES = 5
"""With guesses of the kind, and with others; with fewer, a share over sessions has no interval."""
FEWEST_FOR_SD = 1000
"""Below, a few far guesses, which a sample may lack, make the interval of a standard deviation too narrow."""

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A figure and the ends of its interval; NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan


NONE = Estimate(math.nan)
"""Nothing to estimate from."""


@dataclass(frozen=True)
class Bounds:
    """What a figure can be, whatever the unusable replies would have said (Manski 1989)."""

    low: float
    high: float

    def less(self, other: Bounds) -> Bounds:
        """Of the difference of two figures."""
        return Bounds(self.low - other.high, self.high - other.low)

    @property
    def identified(self) -> bool:
        """Of a difference: whether its sign is the same whatever the unusable replies would have said."""
        return self.low > 0 or self.high < 0 or self.low == self.high


@dataclass(frozen=True)
class Difference:
    """A difference of two means."""

    estimate: Estimate
    p_value: float = math.nan
    """Of there being none, two-sided."""
    margin: float = math.nan
    """The smallest margin within which two one-sided tests at 5 % find the means equivalent (Schuirmann 1987)."""
    bounds: Bounds | None = None
    """None where no reply is unusable."""
    p_holm: float = math.nan
    """The p-value adjusted for all that stand in the same table."""


class Moments(NamedTuple):
    """A mean, how exactly it is known, and from how many independent observations: participants, or sessions."""

    value: float
    error: float
    """Standard error; NaN where it is unknown, as of a single observation."""
    n: float
    """Where the error is pooled, one more than its degrees of freedom."""
    bounds: Bounds | None = None
    """What the mean can be; None where no reply is unusable."""

    @property
    def limits(self) -> Bounds:
        """`bounds`, or the mean itself where no reply is unusable."""
        return self.bounds or Bounds(self.value, self.value)

    def interval(self, confidence: float = CONFIDENCE) -> Estimate:
        """Student's t interval; none where the error is unknown."""
        if math.isnan(self.error) or self.n <= 1:
            return Estimate(self.value)
        from scipy.special import stdtrit  # the quantile of t; all of scipy.stats takes half a second to import

        reach = float(stdtrit(self.n - 1, 0.5 + confidence / 2)) * self.error
        return Estimate(self.value, self.value - reach, self.value + reach)


def moments(values: Sequence[float] | Floats) -> Moments:
    """Of independent values, float64[value], such as the means of sessions: a session is one observation."""
    values = np.asarray(values, float)
    error = float(values.std(ddof=1)) / math.sqrt(values.size) if values.size > 1 else math.nan
    return Moments(float(values.mean()), error, values.size)


def prediction(means: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """The mean of sessions, with the interval in which one more session's mean is to be expected (Student's t)."""
    value, error, n, _ = moments(means)
    return Moments(value, error * math.sqrt(n + 1), n).interval(confidence)


def deviation(ordered: Floats, sd: float, confidence: float = CONFIDENCE) -> Estimate:
    """The standard deviation (divisor n), with Bonett's interval (Bonett 2006, equation 4).

    Args:
        ordered: float64[guess], ascending.
        sd: their standard deviation with divisor n.
    """
    n = ordered.size
    if n < FEWEST_FOR_SD or not sd:
        return Estimate(sd)
    cut = int(n / (2 * math.sqrt(n - 4)))
    centre = float(ordered[cut : n - cut].mean())
    kurtosis = float(np.mean(np.square(np.square(ordered - centre)))) / sd**4
    z = normal(confidence)
    factor = n / (n - z)
    reach = z * factor * math.sqrt(max(kurtosis - (n - 3) / n, 0.0) / (n - 1))
    low, high = (math.sqrt(factor * sd**2 * math.exp(sign * reach)) for sign in (-1, 1))
    return Estimate(sd, low, high)


def share(count: int, n: int, confidence: float = CONFIDENCE) -> Estimate:
    """A share of n with Wilson's score interval (Wilson 1927; Brown, Cai & DasGupta 2001)."""
    if n < FEWEST_FOR_SHARES:
        return Estimate(count / n) if n else NONE
    p, z = count / n, normal(confidence)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return Estimate(p, max(0.0, min(middle - reach, p)), min(1.0, max(middle + reach, p)))


def share_by_session(counts: Counts, n: Counts, confidence: float = CONFIDENCE) -> Estimate:
    """A share over all sessions, with the interval of Korn and Graubard (1998).

    It is Clopper and Pearson's for as many independent guesses as would vary as much, and wider for the few sessions
    that tell how much these vary: by Student's t with one degree of freedom less than there would be sessions if each
    had equally many guesses of the kind, (sum k)^2 / sum k^2 (Kish 1965), or of other kinds if that is less.

    Args:
        counts: int64[session].
        n: of how many, int64[session].
    """
    from scipy.special import betaincinv, stdtrit

    total, sessions, kinds = int(n.sum()), int(np.count_nonzero(n)), (counts, n - counts)
    if not total:
        return NONE
    p = float(counts.sum()) / total
    if min(np.count_nonzero(kind) for kind in kinds) < FEWEST_SESSIONS_FOR_SHARES:
        return Estimate(p)
    variance = float(np.square((counts - p * n) / total).sum()) * sessions / (sessions - 1)
    size = p * (1 - p) / variance if variance else total
    freedom = max(min(float(kind.sum()) ** 2 / float(kind @ kind) for kind in kinds) - 1, 1.0)
    level = 0.5 + confidence / 2
    size *= float(stdtrit(total - 1, level) / stdtrit(freedom, level)) ** 2
    k = p * size
    return Estimate(p, float(betaincinv(k, size - k + 1, 1 - level)), float(betaincinv(k + 1, size - k, level)))


def difference(
    first: Moments, second: Moments, confidence: float = CONFIDENCE, paired: Moments | None = None
) -> Difference:
    """First mean less second, by Welch's unequal-variances t (Welch 1947), or by paired differences.

    Args:
        first: an error of NaN gives no interval.
        second: likewise.
        paired: of the differences within pairs, where the observations of both come in pairs and are not independent;
            of the two means, only the bounds count then.
    """
    from scipy.special import stdtr, stdtrit

    gap = _welch(first, second) if paired is None else paired
    bounds = first.limits.less(second.limits) if first.bounds or second.bounds else None
    if math.isnan(gap.error) or gap.n <= 1:
        return Difference(Estimate(gap.value), bounds=bounds)
    size, freedom = abs(gap.value), gap.n - 1
    t = size / gap.error if gap.error else math.inf if size else 0.0
    margin = size + float(stdtrit(freedom, 0.95)) * gap.error
    return Difference(gap.interval(confidence), 2 * float(stdtr(freedom, -t)), margin, bounds)


def _welch(first: Moments, second: Moments) -> Moments:
    fewest = min(first.n, second.n) - 1
    squares = [one.error**2 for one in (first, second)]
    error = math.sqrt(sum(squares)) if fewest > 0 else math.nan
    freedom = float(fewest)
    if error > 0:
        freedom = error**4 / sum(square**2 / (one.n - 1) for square, one in zip(squares, (first, second), strict=True))
    return Moments(first.value - second.value, error, freedom + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, so that the chance of any false alarm is kept (Holm 1979); NaN stays NaN."""
    p = np.asarray(p_values, float)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN comes last
    found = np.full(p.size, np.nan)
    found[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(order.size, 0, -1)), 1)
    return list(found.tolist())


Row = TypeVar("Row", bound=Any)


def adjusted(rows: Sequence[Row]) -> list[Row]:
    """Rows of one table, dataclasses, with p-values adjusted by `holm`: their own, or those of their fields
    `difference`, which may be None."""
    tests = [getattr(row, "difference", row) for row in rows]
    p_values = iter(holm([test.p_value for test in tests if test]))
    tests = [test and replace(test, p_holm=next(p_values)) for test in tests]
    return [replace(r, difference=t) if hasattr(r, "difference") else t for r, t in zip(rows, tests, strict=True)]


def normal(confidence: float) -> float:
    """The normal quantile of a two-sided interval: 1.96 at 0.95."""
    from scipy.special import ndtri

    return float(ndtri(0.5 + confidence / 2))
