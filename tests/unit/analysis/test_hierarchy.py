"""The cognitive hierarchy: published figures, and estimators that find what a population was made with."""

import numpy as np
import pytest

from pbeauty import mixture
from pbeauty.analysis import references
from pbeauty.analysis.hierarchy import LARGEST_TAU, binned, predicted_mean, tau_by_likelihood, tau_by_mean
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
def test_both_estimators_recover_tau(tau, noise):
    guesses = population(tau, 4000, noise=noise)
    by_mean = tau_by_mean(CLASSIC, mean(guesses.mean(), guesses.std(), guesses.size), 50)
    assert by_mean.value == pytest.approx(tau, abs=0.2)
    assert by_mean.low < by_mean.value < by_mean.high
    fit = tau_by_likelihood(binned(guesses, CLASSIC), CLASSIC, 50, first=True)
    assert fit.tau.value == pytest.approx(tau, abs=0.1)
    assert fit.tau.low < fit.tau.value < fit.tau.high
    assert fit.sigma == pytest.approx(noise, abs=0.5)


def test_coverage_of_both_intervals():
    hits = np.zeros(2)
    trials = 60
    for seed in range(trials):
        guesses = population(1.5, 200, noise=4.0, seed=seed)
        by_mean = tau_by_mean(CLASSIC, mean(guesses.mean(), guesses.std(), guesses.size), 50)
        fit = tau_by_likelihood(binned(guesses, CLASSIC), CLASSIC, 50, first=True)
        hits += [found.low <= 1.5 <= found.high for found in (by_mean, fit.tau)]
    assert np.all(hits / trials > 0.83)  # nominally 0.95, and four standard errors below


def test_later_rounds_and_another_game():
    guesses = population(1.5, 4000, noise=1.0, announced={"target": 16.0})
    fit = tau_by_likelihood(binned(guesses, CLASSIC), CLASSIC, 24.0, first=False)
    assert fit.tau.value == pytest.approx(1.5, abs=0.15)
    upward = Game(multiplier="4/3")
    guesses = population(1.0, 4000, game=upward)
    assert tau_by_mean(upward, mean(guesses.mean(), guesses.std(), 4000), 50).value == pytest.approx(1.0, abs=0.15)


def test_means_that_no_tau_predicts():
    assert tau_by_mean(CLASSIC, Estimate(60.0, 55.0, 65.0), 50) == Estimate(0, 0, 0)
    assert tau_by_mean(CLASSIC, Estimate(0.0), 50).value == LARGEST_TAU
    same = Game(multiplier="1")
    assert np.isnan(tau_by_mean(same, Estimate(50.0), 50).value)
    assert tau_by_likelihood(binned(np.array([50.0]), same), same, 50, first=True) is None


def test_bins_hold_every_guess():
    for guesses in ([0.0, 0.0, 100.0], np.linspace(0, 100, 999), [50.0]):
        counted = binned(np.sort(np.asarray(guesses)), CLASSIC)
        assert counted.counts.sum() == len(guesses)
        assert (counted.edges[0], counted.edges[-1]) == (0, 100)


# --- mixture -------------------------------------------------------------------------------------------------


def test_mixture_recovers_shares():
    generator = np.random.default_rng(2)
    shares = {"level 0": 0.2, "level 1": 0.35, "level 2": 0.25, "level 3": 0.05, "equilibrium": 0.15}
    kind = generator.choice(5, size=5000, p=list(shares.values()))
    centre = np.array([np.nan, 100 / 3, 200 / 9, 400 / 27, 0])[kind]
    guesses = np.where(kind == 0, generator.uniform(0, 100, 5000), np.abs(centre + generator.standard_normal(5000)))
    fit = mixture.fit(binned(np.sort(guesses), CLASSIC), CLASSIC, 50, first=True, generator=generator)
    assert list(fit.shares) == list(shares)
    assert sum(share.value for share in fit.shares.values()) == pytest.approx(1)
    for name, share in shares.items():
        assert fit.shares[name].value == pytest.approx(share, abs=0.03)
        assert fit.shares[name].low <= fit.shares[name].value <= fit.shares[name].high
    assert fit.sigma == pytest.approx(1, abs=0.15)


def test_mixture_of_the_same_guess():
    fit = mixture.fit(
        binned(np.full(50, 33.33), CLASSIC), CLASSIC, 50, first=True, generator=np.random.default_rng(0)
    )  # fmt: skip
    assert fit.shares["level 1"].value == pytest.approx(1, abs=1e-3)


def test_no_mixture_where_all_levels_are_the_same():
    same = Game(multiplier="1")
    found = mixture.fit(binned(np.array([50.0]), same), same, 50, first=True, generator=np.random.default_rng(0))
    assert found is None
