"""Rounds scored: means, deviations, quantiles and winners, held against fractions and against plain definitions."""

from __future__ import annotations

import dataclasses
import itertools
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
from pbeauty.game.scoring import Outcome, places, score


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
    return guesses, status, [len(list(members)) for _, members in itertools.groupby(played, key=lambda one: one[2])]


@given(PLAYED)
def test_a_round_is_scored_as_fractions_score_it(played):
    guesses, status, counts = arrays(played)
    scored = score(Game(), guesses, status, counts)
    valid = [guess for guess in guesses.tolist() if not math.isnan(guess)]
    assert scored.statuses == {code: status.tolist().count(code) for code in Status}
    if not valid:
        assert scored.outcome.n_valid == scored.outcome.n_winners == 0
        assert np.isnan([scored.outcome.mean, scored.outcome.target, scored.outcome.winning_guess]).all()
        assert np.isnan(scored.group_numbers).all()
        return
    outcome = scored.outcome
    mean = sum(map(Fraction, valid)) / len(valid)
    assert outcome.mean == pytest.approx(float(mean), rel=2e-15, abs=1e-25)
    variance = sum((Fraction(guess) - mean) ** 2 for guess in valid) / len(valid)
    assert outcome.std == pytest.approx(math.sqrt(variance), rel=1e-9, abs=1e-12)
    assert outcome.median == statistics.median(valid)
    quartiles = np.percentile(valid, [25, 75])
    np.testing.assert_allclose([*outcome.lower_quartile, *outcome.upper_quartile], quartiles, rtol=1e-13)
    for number, group in zip(scored.group_numbers[0], np.split(guesses, np.cumsum(counts)[:-1]), strict=True):
        members = [guess for guess in group.tolist() if not math.isnan(guess)]
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
    guesses, status, counts = arrays(played)
    scored = score(game, guesses, status, counts)
    if not scored.outcome.n_valid:
        assert np.isnan(guesses).all()
        return
    numbers = scored.group_numbers[0] if game.players == "groups" else guesses
    distance = np.abs(numbers - scored.outcome.target)
    near = distance == np.nanmin(distance)
    winners = near if game.tolerance is None else distance <= game.tolerance
    assert scored.outcome.n_winners == winners.sum()
    assert scored.outcome.n_valid == np.count_nonzero(status <= Status.RETRIED)
    if winners.any():
        assert scored.outcome.winning_guess == numbers[near].min()
    else:
        assert np.isnan(scored.outcome.winning_guess)


@given(PLAYED, st.sampled_from(GAMES), st.integers(1, 7))
def test_pieces_do_not_show_in_what_a_round_comes_to(played, game, size):
    """Sums may differ in the last bits, all else in none."""
    guesses, status, counts = arrays(played)
    given_guesses = guesses.copy()
    whole = score(game, guesses, status, counts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_AT_ONCE", size)
        parts = score(game, guesses, status, counts)
    np.testing.assert_array_equal(guesses, given_guesses)
    assert parts.statuses == whole.statuses
    np.testing.assert_allclose(parts.group_numbers, whole.group_numbers, rtol=1e-14)
    names = ("mean", "std", "target", "median", "lower_quartile", "upper_quartile", "min", "max", "n_valid")
    for name in names:
        one, other = getattr(parts.outcome, name), getattr(whole.outcome, name)
        assert one == pytest.approx(other, rel=1e-13, abs=1e-13, nan_ok=True), name


def test_many_guesses_of_several_groups():
    generator = np.random.default_rng(1)
    guesses = generator.uniform(0, 100, 300_001)
    status = generator.choice(np.array([0, 1, 2, 4], np.uint8), guesses.size)
    status[100_000] = 0  # the only participant of the second group
    guesses[status == 4] = np.nan
    counts = [100_000, 1, 200_000]
    scored = score(Game(aggregate="median"), guesses, status, counts)
    valid = guesses[status != 4]
    mean = math.fsum(valid) / valid.size
    assert scored.outcome.mean == pytest.approx(mean, rel=4e-15)
    deviation = math.sqrt(math.fsum((valid - mean) ** 2) / valid.size)
    assert scored.outcome.std == pytest.approx(deviation, rel=1e-14)
    quartiles = [*scored.outcome.lower_quartile, *scored.outcome.median, *scored.outcome.upper_quartile]
    np.testing.assert_allclose(quartiles, np.percentile(valid, [25, 50, 75]), rtol=1e-15)
    for number, members in zip(scored.group_numbers[0], np.split(guesses, np.cumsum(counts)[:-1]), strict=True):
        members = members[~np.isnan(members)]
        assert number == pytest.approx(math.fsum(members) / members.size, rel=4e-15)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(1, 6), st.sampled_from(GAMES), st.data())
def test_a_session_is_scored_to_the_bit_as_if_it_were_alone(counts, sessions, game, data):
    size = sum(counts)
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    guesses = generator.choice([generator.uniform(0, 100, size * sessions).round(1), np.full(size * sessions, 7.3)])
    status = generator.choice(np.array([0, 1, 2, 3, 4], np.uint8), guesses.size, p=[0.4, 0.1, 0.1, 0.2, 0.2])
    guesses[status > Status.RETRIED] = math.nan
    together = score(game, guesses, status, counts)
    target = together.outcome.target
    ranks = places(game, guesses, status, target, counts)
    for session in range(sessions):
        mine = slice(session * size, (session + 1) * size)
        alone = score(game, guesses[mine], status[mine], counts)
        for field in dataclasses.fields(Outcome):
            one, other = getattr(together.outcome.of(session), field.name), getattr(alone.outcome, field.name)
            np.testing.assert_array_equal(one, other, field.name)
        np.testing.assert_array_equal(together.group_numbers[session], alone.group_numbers[0])
        own = places(game, guesses[mine], status[mine], target[session : session + 1], counts)
        np.testing.assert_array_equal(ranks[mine], own)


def test_many_sessions_of_many_sizes_are_scored_as_each_alone():
    generator = np.random.default_rng(3)
    guesses = generator.uniform(0, 100, (40, 5000))
    status = (generator.random(guesses.shape) < generator.choice([0, 0.3], (40, 1))).astype(np.uint8) * 4
    together = score(Game(), guesses.ravel(), status.ravel(), [5000])
    alone = [score(Game(), *row).outcome for row in zip(guesses, status, strict=True)]
    for field in dataclasses.fields(Outcome):
        one = np.concatenate([getattr(outcome, field.name) for outcome in alone])
        np.testing.assert_array_equal(getattr(together.outcome, field.name), one, field.name)
