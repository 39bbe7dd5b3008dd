"""Rounds scored: means, deviations, quantiles and winners, held against fractions and against plain definitions."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbeauty.game import scoring
from pbeauty.game.experiment import Game
from pbeauty.game.records import Status
from pbeauty.game.scoring import score


@given(st.floats(0.1, 99.9), st.integers(1, 5000))
def test_the_mean_of_equal_guesses_is_that_guess(guess, count):
    outcome = score(Game(), np.full(count, guess), np.zeros(count, np.uint8)).outcome
    assert (outcome.mean, outcome.median, outcome.std) == (guess, guess, 0.0)


PLAYED = st.lists(
    st.tuples(st.floats(0, 100) | st.integers(0, 100).map(float), st.sampled_from(list(Status)), st.integers(0, 3)),
    min_size=1,
    max_size=40,
)
GAMES = [
    Game(),
    Game(aggregate="median", multiplier="1/2", offset=7),
    Game(tolerance=3.5),
    Game(players="groups", announce=["target", "group_numbers"]),
]


def arrays(played):
    """Guesses, statuses and groups, in order of groups, as a population has them."""
    played = sorted(played, key=lambda one: one[2])
    status = np.array([status for _, status, _ in played], np.uint8)
    guesses = np.array([guess if code.valid else math.nan for guess, code, _ in played])
    return guesses, status, np.array([group for *_, group in played], np.uint16)


@given(PLAYED)
def test_a_round_is_scored_as_fractions_score_it(played):
    guesses, status, groups = arrays(played)
    scored = score(Game(), guesses, status, groups, 4)
    valid = [guess for guess in guesses.tolist() if not math.isnan(guess)]
    assert scored.statuses == {code: status.tolist().count(code) for code in Status}
    if not valid:
        assert scored.outcome is None
        assert np.isnan(scored.group_numbers).all()
        return
    outcome = scored.outcome
    mean = sum(map(Fraction, valid)) / len(valid)
    assert outcome.mean == pytest.approx(float(mean), rel=2e-15, abs=1e-25)
    variance = sum((Fraction(guess) - mean) ** 2 for guess in valid) / len(valid)
    assert outcome.std == pytest.approx(math.sqrt(variance), rel=1e-9, abs=1e-12)
    assert outcome.median == statistics.median(valid)
    quartiles = np.percentile(valid, [25, 75])
    np.testing.assert_allclose([outcome.lower_quartile, outcome.upper_quartile], quartiles, rtol=1e-13)
    for group, number in enumerate(scored.group_numbers.tolist()):
        members = [guess for guess in guesses[groups == group].tolist() if not math.isnan(guess)]
        assert math.isnan(number) if not members else number == pytest.approx(statistics.fmean(members), rel=1e-14)


def test_guesses_at_the_ends_of_what_a_range_may_be():
    for scale in (2e14, 1e-300):
        guesses = np.array([1.0, 2.0, 4.0]) * scale
        outcome = score(Game(low=0, high=4 * scale), guesses, np.zeros(3, np.uint8)).outcome
        assert outcome.mean == pytest.approx(7 / 3 * scale)
        assert outcome.median == 2 * scale
        assert outcome.std == pytest.approx(math.sqrt(14 / 9) * scale)


@given(PLAYED, st.sampled_from(GAMES))
def test_who_is_nearest_wins_and_ties_share(played, game):
    guesses, status, groups = arrays(played)
    scored = score(game, guesses, status, groups, 5)
    if scored.outcome is None:
        assert np.isnan(guesses).all()
        return
    numbers = scored.group_numbers if game.players == "groups" else guesses
    distance = np.abs(numbers - scored.outcome.target)
    near = distance == np.nanmin(distance)
    winners = near if game.tolerance is None else distance <= game.tolerance
    assert scored.outcome.n_winners == winners.sum()
    assert scored.outcome.n_valid == np.count_nonzero(status <= Status.RETRIED)
    if winners.any():
        assert scored.outcome.winning_guess == numbers[near].min()
    else:
        assert math.isnan(scored.outcome.winning_guess)


@given(PLAYED, st.sampled_from(GAMES), st.integers(1, 7))
def test_pieces_do_not_show_in_what_a_round_comes_to(played, game, size):
    """Sums may differ in the last bits, all else in none."""
    guesses, status, groups = arrays(played)
    given_guesses = guesses.copy()
    whole = score(game, guesses, status, groups, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_AT_ONCE", size)
        parts = score(game, guesses, status, groups, 5)
    np.testing.assert_array_equal(guesses, given_guesses)
    assert parts.statuses == whole.statuses
    np.testing.assert_allclose(parts.group_numbers, whole.group_numbers, rtol=1e-14)
    if whole.outcome is None:
        assert parts.outcome is None
        return
    names = ("mean", "std", "target", "median", "lower_quartile", "upper_quartile", "min", "max", "n_valid")
    for name in names:
        one, other = getattr(parts.outcome, name), getattr(whole.outcome, name)
        assert one == pytest.approx(other, rel=1e-13, abs=1e-13), name


def test_many_guesses_of_several_groups():
    generator = np.random.default_rng(1)
    guesses = generator.uniform(0, 100, 300_001)
    status = generator.choice(np.array([0, 1, 2, 4], np.uint8), guesses.size)
    status[100_000] = 0  # the only participant of the second group
    guesses[status == 4] = np.nan
    groups = np.repeat(np.arange(3, dtype=np.uint16), [100_000, 1, 200_000])
    scored = score(Game(aggregate="median"), guesses, status, groups, 3)
    valid = guesses[status != 4]
    mean = math.fsum(valid) / valid.size
    assert scored.outcome.mean == pytest.approx(mean, rel=4e-15)
    deviation = math.sqrt(math.fsum((valid - mean) ** 2) / valid.size)
    assert scored.outcome.std == pytest.approx(deviation, rel=1e-14)
    quartiles = [scored.outcome.lower_quartile, scored.outcome.median, scored.outcome.upper_quartile]
    np.testing.assert_allclose(quartiles, np.percentile(valid, [25, 50, 75]), rtol=1e-15)
    for group, number in enumerate(scored.group_numbers):
        members = guesses[(groups == group) & (status != 4)]
        assert number == pytest.approx(math.fsum(members) / members.size, rel=4e-15)


def test_groups_that_lie_between_one_another_are_told_apart():
    guesses, groups = np.array([1.0, 10.0, 3.0, 30.0]), np.array([0, 1, 0, 1], np.uint16)
    assert score(Game(), guesses, np.zeros(4, np.uint8), groups, 2).group_numbers.tolist() == [2.0, 20.0]
