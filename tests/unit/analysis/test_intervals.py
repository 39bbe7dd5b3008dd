"""Intervals: the formulas against scipy's and by hand, and their coverage on simulated data."""

import numpy as np
import pytest
import scipy

from pbeauty.analysis import intervals
from pbeauty.analysis.intervals import Bounds, Estimate, Moments


def mean(value, sd, n):
    return Moments(value, sd / np.sqrt(n - 1) if n > 1 else np.nan, n).interval()


def test_mean_interval_is_students():
    guesses = np.array([20.0, 35.0, 50.0, 41.0])
    found = mean(guesses.mean(), guesses.std(), 4)
    expected = scipy.stats.t.interval(0.95, 3, guesses.mean(), scipy.stats.sem(guesses))
    assert (found.low, found.high) == pytest.approx(expected)


def test_one_guess_has_no_interval():
    assert np.isnan(mean(50, 0, 1).low)
    assert np.isnan(intervals.deviation(np.array([50.0]), 0.0).low)


def test_all_equal():
    assert mean(50, 0, 9) == Estimate(50, 50, 50)
    assert intervals.deviation(np.full(2000, 50.0), 0.0) == Estimate(0.0)


def test_deviation_is_bonetts():
    guesses = np.sort(np.random.default_rng(1).gamma(2, 10, 1500))
    n, z = guesses.size, scipy.stats.norm.ppf(0.975)
    centre = scipy.stats.trim_mean(guesses, 1 / (2 * np.sqrt(n - 4)))
    squares = np.sum(np.square(guesses - guesses.mean()))
    kurtosis = n * np.sum((guesses - centre) ** 4) / squares**2
    error = n / (n - z) * np.sqrt((kurtosis - (n - 3) / n) / (n - 1))
    sd = guesses.std()
    found = intervals.deviation(guesses, sd)
    expected = np.sqrt(n / (n - z) * sd**2 * np.exp([-z * error, z * error]))
    assert (found.low, found.high) == pytest.approx(tuple(expected), rel=1e-6)


def test_share_is_wilsons():
    found = intervals.share(12, 160)
    expected = scipy.stats.binomtest(12, 160).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert intervals.share(0, 400).low == 0
    assert intervals.share(400, 400).high == 1
    assert np.isnan(intervals.share(0, 0).value)
    assert np.isnan(intervals.share(3, 40).low)


def test_bounds_of_differences():
    found, other = Bounds(32, 52), Bounds(54, 64)
    gap = found.less(other)
    assert (gap.low, gap.high) == (32 - 64, 52 - 54)
    assert gap.identified
    assert not found.less(Bounds(40, 50)).identified


def test_difference_is_welchs_and_equivalence_that_of_two_one_sided_tests():
    generator = np.random.default_rng(3)
    one, other = generator.normal(40, 5, 30), generator.normal(37, 12, 50)
    found = intervals.difference(*map(intervals.moments, (one, other)))
    expected = scipy.stats.ttest_ind(one, other, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.estimate.low, found.estimate.high) == pytest.approx((interval.low, interval.high))
    below = scipy.stats.ttest_ind(one, other + found.margin, equal_var=False, alternative="less").pvalue
    above = scipy.stats.ttest_ind(one, other - found.margin, equal_var=False, alternative="greater").pvalue
    assert max(below, above) == pytest.approx(0.05)


def test_difference_from_an_unpublished_spread_has_no_interval():
    found = intervals.difference(Moments(40, 5, 30), Moments(37, np.nan, 0))
    assert found.estimate.value == 3
    assert np.isnan(found.p_value)


def test_prediction_is_for_one_more_session():
    means = [39.7, 37.7, 32.9, 36.4]
    found = intervals.prediction(means)
    reach = scipy.stats.t.ppf(0.975, 3) * np.std(means, ddof=1) * np.sqrt(1 + 1 / 4)
    assert (found.value, found.low) == pytest.approx((np.mean(means), np.mean(means) - reach))


def test_holm():
    assert intervals.holm([0.01, 0.04, np.nan, 0.03]) == pytest.approx([0.03, 0.06, np.nan, 0.06], nan_ok=True)
    assert intervals.holm([0.9, 0.8]) == [1.0, 1.0]
