"""The cognitive hierarchy: published figures, and an estimator that finds what a population was made with."""

import numpy as np
import pytest

from pbeauty.analysis import references
from pbeauty.analysis.hierarchy import LARGEST_TAU, predicted_mean, tau_by_mean
from pbeauty.analysis.intervals import Estimate, mean
from pbeauty.game.experiment import CognitiveHierarchyGroup, Game
from pbeauty.game.scripted import guess

CLASSIC = Game()


def population(tau, n, *, game=CLASSIC, noise=0.0, seed=5, announced=None):
    group = CognitiveHierarchyGroup(name="people", count=n, kind="cognitive_hierarchy", tau=tau)
    guesses = guess(group, game, announced or {}, seed=seed, round_index=0, start=0, stop=n)
    spread = noise * np.random.default_rng(seed).standard_normal(n)
    return np.sort(np.clip(guesses + spread, game.low, game.high))


@pytest.mark.parametrize(
    ("p", "tau", "predicted"), [("2/3", 0.5, 43.10), ("2/3", 1.1, 36.91), ("2/3", 1.6, 32.72), ("1/2", 1.5, 26.67)]
)
def test_predicted_means_of_table_ii(p, tau, predicted):
    assert round(predicted_mean(Game(multiplier=p), tau, 50), 2) == predicted


def test_tau_of_table_ii_from_the_sample_mean():
    rows = [pool for pool in references.load().pools if pool.tau_interval]
    assert len(rows) == 4
    for row in rows:
        game = Game(multiplier="1/2" if row.p == 0.5 else "2/3")
        n = row.n
        found = tau_by_mean(game, mean(row.mean, row.std * np.sqrt((n - 1) / n), n, 0.9), 50)
        assert round(found.value, 1) == row.tau
        assert (found.low, found.high) == pytest.approx(row.tau_interval, abs=0.15)


def test_tau_of_the_newspapers_is_near_theirs():
    assert tau_by_mean(CLASSIC, Estimate(23.0), 50).value == pytest.approx(3.0, abs=0.2)


@pytest.mark.parametrize("tau", [0.5, 1.5, 3.0])
@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_tau_is_recovered(tau, noise):
    guesses = population(tau, 4000, noise=noise)
    found = tau_by_mean(CLASSIC, mean(guesses.mean(), guesses.std(), guesses.size), 50)
    assert found.value == pytest.approx(tau, abs=0.2)
    assert found.low < found.value < found.high


def test_coverage_of_the_interval():
    hits, trials = 0, 60
    for seed in range(trials):
        guesses = population(1.5, 200, noise=4.0, seed=seed)
        found = tau_by_mean(CLASSIC, mean(guesses.mean(), guesses.std(), guesses.size), 50)
        hits += found.low <= 1.5 <= found.high
    assert hits / trials > 0.83  # nominally 0.95, and four standard errors below


def test_later_rounds_and_another_game():
    guesses = population(1.5, 4000, noise=1.0, announced={"target": 16.0})
    assert tau_by_mean(CLASSIC, mean(guesses.mean(), guesses.std(), 4000), 24).value == pytest.approx(1.5, abs=0.2)
    upward = Game(multiplier="4/3")
    guesses = population(1.0, 4000, game=upward)
    assert tau_by_mean(upward, mean(guesses.mean(), guesses.std(), 4000), 50).value == pytest.approx(1.0, abs=0.15)


def test_means_that_no_tau_predicts():
    assert tau_by_mean(CLASSIC, Estimate(60.0, 55.0, 65.0), 50) == Estimate(0, 0, 0)
    assert tau_by_mean(CLASSIC, Estimate(0.0), 50).value == LARGEST_TAU
    same = Game(multiplier="1")
    assert np.isnan(tau_by_mean(same, Estimate(50.0), 50).value)
