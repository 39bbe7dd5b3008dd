"""Exact sums, the search for a place, and rounds scored on any number of ranks."""

from __future__ import annotations

import itertools
import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
import simulated
from hypothesis import given, settings
from hypothesis import strategies as st

from pbeauty import exact
from pbeauty.game.experiment import Game
from pbeauty.game.rules import Status
from pbeauty.game.scoring import play_out, score, score_alone
from pbeauty.mpi.collectives import Ranks
from pbeauty.selection import Alone, select

NUMBERS = st.floats(-1e6, 1e6) | st.integers(-5, 5).map(float) | st.floats(-1e-9, 1e-9)


def cut(values, places):
    """An array in consecutive parts."""
    bounds = [0, *sorted(place % (len(values) + 1) for place in places), len(values)]
    return [values[start:stop] for start, stop in itertools.pairwise(bounds)]


# --- sums ----------------------------------------------------------------------------------------------------


@given(st.lists(NUMBERS, min_size=1, max_size=60), st.lists(st.integers(0, 60), max_size=4), st.randoms())
def test_sums_do_not_depend_on_order_or_partition_and_are_exact(numbers, places, random):
    exponent = exact.exponent(max(map(abs, numbers)))
    whole = exact.words(np.array(numbers), exponent)
    shuffled = numbers.copy()
    random.shuffle(shuffled)
    parts = [exact.words(part, exponent) for part in cut(np.array(shuffled), places)]
    assert np.sum(parts, axis=0).tolist() == whole.tolist()
    cut_off = len(numbers) * Fraction(2) ** (exponent - 90)
    assert abs(sum(map(Fraction, numbers)) - exact.total(whole, exponent)) <= cut_off


def test_a_sum_that_floats_get_wrong():
    values = np.array([1e16, 1.0, -1e16, 1.0])
    assert values.sum() != 2
    exponent = exact.exponent(1e16)
    assert exact.total(exact.words(values, exponent), exponent) == 2


def test_words_of_many_large_numbers_do_not_overflow():
    """The first word of 2**33 numbers at the upper end is 2**63: the bound that the module states, less one number."""
    one = exact.words(np.array([np.nextafter(128.0, 0)]), exact.exponent(np.nextafter(128.0, 0)))
    assert int(one[0]) * (2**33) < 2**63


@given(st.floats(0.1, 99.9), st.integers(1, 5000))
def test_the_mean_of_equal_guesses_is_that_guess(guess, count):
    outcome = play_out(Game(), np.full(count, guess), np.zeros(count, np.uint8))
    assert (outcome.mean, outcome.median, outcome.std) == (guess, guess, 0.0)


# --- places --------------------------------------------------------------------------------------------------


@given(st.lists(NUMBERS, min_size=1, max_size=60), st.lists(st.integers(0, 10**6), min_size=1, max_size=8))
def test_every_place_is_found_in_any_partition(numbers, places):
    values, places = np.array(numbers), [place % len(numbers) for place in places]
    pieces = cut(values, [len(numbers) // 3, len(numbers) // 2])
    found = select(lambda: pieces, places, len(values), values.min(), values.max(), Alone())
    assert found == np.sort(values)[places].tolist()


def test_a_place_among_neighbours_that_differ_by_the_last_bit():
    values = 1 + np.arange(5000) * np.finfo(float).eps
    found = select(lambda: [values], [0, 17, 2500, 4999], 5000, values[0], values[-1], Alone())
    assert found == values[[0, 17, 2500, 4999]].tolist()


# --- rounds --------------------------------------------------------------------------------------------------

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


@settings(max_examples=25, deadline=None)
@given(PLAYED, st.sampled_from(GAMES), st.lists(st.integers(0, 40), max_size=5))
def test_ranks_score_a_round_as_one_that_has_everything(played, game, places):
    guesses, status, groups = arrays(played)
    alone = score_alone(game, guesses, status, groups, 5)
    parts = [cut(values, places) for values in (guesses, status, groups)]

    def body(comm):
        mine = [part[comm.rank] for part in parts]
        members = [(int(group), slice(row, row + 1)) for row, group in enumerate(mine[2])]
        return score(game, *mine[:2], members, 5, Ranks(comm))

    ended = simulated.run(len(parts[0]), body)
    for scored in ended.results:
        assert repr((scored.outcome, scored.statuses)) == repr((alone.outcome, alone.statuses))  # NaN is NaN here
        assert scored.group_numbers.tobytes() == alone.group_numbers.tobytes()
    assert ended.calls()["Allreduce"] <= 13


@given(PLAYED)
def test_a_round_is_scored_as_fractions_score_it(played):
    guesses, status, groups = arrays(played)
    scored = score_alone(Game(), guesses, status, groups, 4)
    valid = [guess for guess in guesses.tolist() if not math.isnan(guess)]
    assert scored.statuses == {code: status.tolist().count(code) for code in Status}
    if not valid:
        assert scored.outcome is None
        assert np.isnan(scored.group_numbers).all()
        return
    outcome = scored.outcome
    mean = sum(map(Fraction, valid)) / len(valid)
    assert outcome.mean == pytest.approx(float(mean), rel=1e-15, abs=1e-25)
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
        outcome = play_out(Game(low=0, high=4 * scale), guesses, np.zeros(3, np.uint8))
        assert outcome.mean == pytest.approx(7 / 3 * scale)
        assert outcome.median == 2 * scale
        assert outcome.std == pytest.approx(math.sqrt(14 / 9) * scale)
