"""Intervals: the formulas against scipy's and by hand, and their coverage on simulated data."""

import numpy as np
import pytest
from scipy import stats

from pbeauty.analysis import intervals
from pbeauty.analysis.intervals import Estimate


def test_mean_interval_is_students():
    guesses = np.array([20.0, 35.0, 50.0, 41.0])
    found = intervals.mean(guesses.mean(), guesses.std(), 4)
    expected = stats.t.interval(0.95, 3, guesses.mean(), stats.sem(guesses))
    assert (found.low, found.high) == pytest.approx(expected)


def test_one_guess_has_no_interval():
    assert np.isnan(intervals.mean(50, 0, 1).low)
    assert np.isnan(intervals.deviation(np.array([50.0]), 50.0).low)


def test_all_equal():
    guesses = np.full(9, 50.0)
    assert intervals.mean(50, 0, 9) == Estimate(50, 50, 50)
    assert intervals.quantile(guesses, 0.5, (0, 100)) == Estimate(50, 50, 50)
    assert intervals.deviation(guesses, 50.0).value == 0


@pytest.mark.parametrize("q", [0.05, 0.25, 0.5, 0.9])
def test_quantiles_are_numpys(q):
    guesses = np.sort(np.random.default_rng(1).uniform(0, 100, 37))
    assert intervals.quantile(guesses, q, (0, 100)).value == pytest.approx(np.quantile(guesses, q))


def test_small_samples_end_with_the_range():
    found = intervals.quantile(np.array([30.0, 40.0, 50.0]), 0.5, (0, 100))
    assert (found.value, found.low, found.high) == (40, 0, 100)


def covered(interval, truth, draw, times=400):
    hits = [found.low <= truth <= found.high for found in (interval(draw()) for _ in range(times))]
    return np.mean(hits)


def test_coverage():
    """Nominally 0.95; bounds are more than four standard errors of 400 trials away."""
    generator = np.random.default_rng(7)

    def draw():
        return np.sort(generator.exponential(20, 120))

    def mean(x):
        return intervals.mean(x.mean(), x.std(), x.size)

    assert covered(mean, 20, draw) > 0.89
    assert covered(lambda x: intervals.quantile(x, 0.5, (0, 1e9)), 20 * np.log(2), draw) > 0.90
    assert covered(lambda x: intervals.quantile(x, 0.05, (0, 1e9)), -20 * np.log(0.95), draw) > 0.90
    assert covered(lambda x: intervals.deviation(x, x.mean()), 20, draw) > 0.82
    assert covered(lambda x: intervals.share(int((x < 10).sum()), x.size), 1 - np.exp(-0.5), draw) > 0.90


def test_share_is_wilsons():
    found = intervals.share(3, 40)
    expected = stats.binomtest(3, 40).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert intervals.share(0, 40).low == 0
    assert intervals.share(40, 40).high == 1
    assert np.isnan(intervals.share(0, 0).value)


def test_mode_of_a_clear_and_of_an_unclear_case():
    values = np.arange(101.0)
    counts = np.zeros(101, np.int64)
    counts[33], counts[50] = 400, 100
    generator = np.random.default_rng(0)
    assert intervals.mode(counts, values, generator) == Estimate(33, 33, 33)
    counts[50] = 398
    found = intervals.mode(counts, values, generator)
    assert (found.value, found.low, found.high) == (33, 33, 50)


def test_worst_cases():
    found = intervals.worst_cases(40, 10, 80, 20, (0, 100))
    assert (found.low, found.high) == pytest.approx((32, 52))
    assert found.interval.low < 32
    assert found.interval.high > 52
    none_missing = intervals.worst_cases(40, 10, 80, 0, (0, 100))
    reach = 1.96 * 10 / np.sqrt(79)
    assert (none_missing.interval.low, none_missing.interval.high) == pytest.approx((40 - reach, 40 + reach), abs=1e-3)


def test_difference_is_welchs():
    generator = np.random.default_rng(3)
    one, other = generator.normal(40, 5, 30), generator.normal(37, 12, 50)
    found = intervals.difference((one.mean(), one.std(ddof=1), 30), (other.mean(), other.std(ddof=1), 50))
    expected = stats.ttest_ind(one, other, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.estimate.low, found.estimate.high) == pytest.approx((interval.low, interval.high))


def test_difference_from_an_unpublished_spread_has_no_interval():
    found = intervals.difference((40, 5, 30), (37, np.nan, 0))
    assert found.estimate.value == 3
    assert np.isnan(found.p_value)


def test_holm():
    assert intervals.holm([0.01, 0.04, np.nan, 0.03]) == pytest.approx([0.03, 0.06, np.nan, 0.06], nan_ok=True)
    assert intervals.holm([0.9, 0.8]) == [1.0, 1.0]
