"""The rules: scoring a round, resting points, reference points, the game in words."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pbeauty.config.loader import loads
from pbeauty.game.announcement import announcement
from pbeauty.game.experiment import Game
from pbeauty.game.prompt_variables import multiplier_forms, number_text, prompt_variables
from pbeauty.game.records import Status
from pbeauty.game.scoring import group_numbers, places, score
from pbeauty.game.theory import equilibrium, reference_point

VALID = {Status.OK, Status.EXTRACTED, Status.RETRIED}


def scored(game, guesses, status=None):
    guesses = np.array(guesses, float)
    codes = np.zeros(len(guesses), np.uint8) if status is None else np.array(status, np.uint8)
    return score(game, guesses, codes).outcome


# --- a round -----------------------------------------------------------------------------------------------


def test_statuses_that_count():
    assert {status for status in Status if status.valid} == VALID


@given(
    st.lists(st.tuples(st.floats(0, 100), st.sampled_from(list(Status))), min_size=1, max_size=30),
    st.sampled_from(["2/3", "1/2", "0.7", "1", "4/3", "51/100"]),
    st.floats(-50, 50),
    st.sampled_from(["mean", "median"]),
)
def test_round_is_scored_as_by_hand(played, multiplier, offset, aggregate):
    game = Game(multiplier=multiplier, offset=offset, aggregate=aggregate)
    values = [value for value, status in played if status in VALID]
    guesses = [value if status in VALID else math.nan for value, status in played]
    statuses = [status for _, status in played]
    if not values:
        assert scored(game, guesses, statuses).n_valid == 0 and np.isnan(scored(game, guesses, statuses).target)
        return
    outcome = scored(game, guesses, statuses)
    assert outcome.mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert outcome.median == pytest.approx(statistics.median(values), abs=1e-9)
    assert outcome.std == pytest.approx(statistics.pstdev(values), abs=1e-6)
    assert (outcome.min, outcome.max) == (min(values), max(values))
    assert outcome.n_valid == len(values)
    base = outcome.mean if aggregate == "mean" else outcome.median
    assert outcome.target == pytest.approx(offset + float(Fraction(multiplier)) * base, abs=1e-9)
    distances = [abs(value - outcome.target) for value in values]
    assert outcome.n_winners == distances.count(min(distances)) >= 1
    assert outcome.winning_guess == min(
        value for value, distance in zip(values, distances, strict=True) if distance == min(distances)
    )


def test_scores_of_a_known_round():
    outcome = scored(Game(multiplier="1/2", offset=5), [0, 20, 20, 40, 100])
    assert (outcome.mean, outcome.median, outcome.target) == (36, 20, 23)
    assert (outcome.winning_guess, outcome.n_winners) == (20, 2)
    assert (outcome.min, outcome.max, outcome.n_valid) == (0, 100, 5)
    assert outcome.std == pytest.approx(math.sqrt(1184))


def test_median_game_aims_at_the_median():
    assert scored(Game(multiplier="1/2", aggregate="median"), [0, 20, 20, 40, 100]).target == 10
    assert scored(Game(multiplier="1/2", aggregate="median"), [10, 20, 30, 100]).target == 12.5


def test_equal_guesses_share_the_win():
    outcome = scored(Game(multiplier="1/2"), [30, 30, 30, 90, 90])
    assert (outcome.target, outcome.winning_guess, outcome.n_winners) == (27, 30, 3)


def test_guesses_equally_near_on_both_sides_share_the_win_and_the_lower_is_named():
    outcome = scored(Game(multiplier="1/2"), [24, 40, 64, 128])
    assert (outcome.target, outcome.winning_guess, outcome.n_winners) == (32, 24, 2)


def test_everybody_wins_where_all_guess_alike():
    outcome = scored(Game(), [0, 0, 0, 0])
    assert (outcome.target, outcome.n_winners, outcome.std) == (0, 4, 0)


def test_a_single_participant_wins():
    outcome = scored(Game(), [77.5])
    assert (outcome.winning_guess, outcome.n_winners, outcome.std, outcome.n_valid) == (77.5, 1, 0, 1)


@pytest.mark.parametrize("status", [status for status in Status if status not in VALID])
def test_a_reply_without_a_valid_guess_does_not_enter(status):
    game = Game(multiplier="1/2")
    assert scored(game, [10, math.nan, 30], [0, status, 0]) == scored(game, [10, 30])
    assert scored(game, [10, 1000, 30], [0, status, 0]) == scored(game, [10, 30])
    assert scored(game, [10, 20], [status, status]).n_valid == 0


def test_scoring_leaves_the_guesses_alone():
    guesses = np.array([3.0, math.nan, 1.0])
    score(Game(), guesses, np.array([0, 4, 0], np.uint8))
    np.testing.assert_array_equal(guesses, [3, math.nan, 1])


# --- resting and reference points --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "resting"),
    [
        ({"multiplier": "2/3"}, 0),
        ({"multiplier": "2/3", "offset": 20}, 60),
        ({"multiplier": "1/2", "offset": 20}, 40),
        ({"multiplier": "2/3", "offset": 50}, 100),
        ({"multiplier": "2/3", "offset": -5}, 0),
        ({"multiplier": "2/3", "low": 10}, 10),
        ({"multiplier": "1", "offset": 5}, 100),
        ({"multiplier": "1", "offset": -5}, 0),
        ({"multiplier": "4/3"}, 100),
        ({"multiplier": "4/3", "offset": 10, "high": 200}, 200),
        ({"multiplier": "3/2", "offset": -60}, 0),
    ],
)
def test_equilibrium(rules, resting):
    assert equilibrium(Game(**rules)) == pytest.approx(resting, abs=1e-12)


def test_every_guess_rests_where_the_target_is_the_aggregate():
    assert math.isnan(equilibrium(Game(multiplier="1")))
    assert math.isnan(equilibrium(Game(multiplier="3/3")))


@given(
    st.sampled_from(["1/10", "1/2", "2/3", "0.9", "1", "1.1", "4/3", "3"]),
    st.floats(-30, 200),
    st.floats(-100, 50),
    st.floats(1, 200),
)
def test_equilibrium_is_its_own_best_response(multiplier, offset, low, width):
    game = Game(multiplier=multiplier, offset=offset, low=low, high=low + width)
    resting = equilibrium(game)
    assume(not math.isnan(resting))
    # The game repels from a fixed point inside the range where p > 1; both ends answer themselves there.
    assert np.clip(game.offset + game.p * resting, game.low, game.high) == pytest.approx(resting, abs=1e-9)


def test_reference_point_before_the_first_round_is_the_midpoint():
    assert reference_point(Game(), {}) == 50
    assert reference_point(Game(low=-10, high=30), {}) == 10


@given(
    st.sampled_from(["1/2", "2/3", "0.7", "1", "4/3"]),
    st.floats(-20, 20),
    st.floats(0, 100),
    st.sampled_from(["mean", "median"]),
)
def test_reference_point_inverts_the_target(multiplier, offset, level, aggregate):
    game = Game(multiplier=multiplier, offset=offset, aggregate=aggregate)
    outcome = scored(game, [level])
    assert reference_point(game, {"target": outcome.target}) == pytest.approx(level, abs=1e-9)
    assert reference_point(game, {"winning_guess": outcome.target}) == pytest.approx(level, abs=1e-9)


def test_reference_point_prefers_the_aggregate_then_the_target_then_what_there_is():
    told = {"mean": 30.0, "median": 20.0, "target": 10.0, "winning_guess": 12.0}

    def without(*names):
        return {name: value for name, value in told.items() if name not in names}

    game, median_game = Game(multiplier="1/2"), Game(multiplier="1/2", aggregate="median")
    assert reference_point(game, told) == 30
    assert reference_point(median_game, told) == 20
    assert reference_point(game, without("mean")) == 20
    assert reference_point(game, without("mean", "target")) == 24
    assert reference_point(game, without("mean", "target", "winning_guess")) == 20
    assert reference_point(median_game, without("median", "target", "winning_guess")) == 30


def test_reference_point_stays_in_the_range():
    assert reference_point(Game(multiplier="1/2"), {"winning_guess": 90.0}) == 100
    assert reference_point(Game(multiplier="1/2", offset=50), {"winning_guess": 10.0}) == 0


def test_everybody_is_told_what_the_game_announces_of_the_last_round():
    experiment = loads(
        "name: x\ngame: {announce: [winning_guess, mean]}\npopulation: [{name: a, count: 2, kind: uniform}]"
    )
    assert announcement(experiment, 0).quantities == {}
    outcome = scored(experiment.game, [10, 20])
    told = announcement(experiment, 1, outcome).to(experiment.game.announce)
    assert told == {"winning_guess": 10.0, "mean": 15.0} and list(told) == ["winning_guess", "mean"]
    assert announcement(experiment, 1, outcome).to(()) == {}


def test_a_session_without_a_valid_guess_has_ended():
    experiment = loads("name: x\nsessions: 3\npopulation: [{name: a, count: 2, kind: uniform}]")
    guesses, status = np.array([1, 2, np.nan, np.nan, 3, np.nan]), np.array([0, 0, 4, 6, 0, 4], np.uint8)
    outcome = score(experiment.game, guesses, status, [2]).outcome
    told = announcement(experiment, 1, outcome)
    assert told.playing.tolist() == [True, False, True]
    np.testing.assert_allclose(told.quantities["target"], [1, np.nan, 2])
    assert announcement(experiment, 1, scored(Game(), [1, 2])).playing is None


# --- words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (50.0, "50"),
        (100.0, "100"),
        (0.0, "0"),
        (-0.0, "0"),
        (-0.001, "0"),
        (-0.004999, "0"),
        (0.5, "0.5"),
        (33.333333, "33.33"),
        (66.666667, "66.67"),
        (10.10, "10.1"),
        (-5.25, "-5.25"),
        (99.999, "100"),
        (1e15, "1000000000000000"),
        (1_000_000.0, "1000000"),
    ],
)
def test_number_text(value, text):
    assert number_text(value) == text


@given(st.floats(-1e9, 1e9))
def test_number_text_has_no_superfluous_zeros_and_is_right_to_cents(value):
    text = number_text(value)
    assert "." not in text or text[-1] not in "0."
    assert text not in ("-0", "")
    assert abs(float(text) - value) <= 0.005 + 1e-6
    assert number_text(float(text)) == text


def test_facts_of_a_plain_game():
    assert prompt_variables(Game(), 300) == {
        "count": "300",
        "low": "0",
        "high": "100",
        "multiplier": "2/3",
        "offset": "0",
        "aggregate": "average",
        "target_rule": "2/3 times the average of all numbers picked in that round",
        "players": "individuals",
        "others": "299",
        "shift": "",
        "win_rule": "Whoever is nearest to the target wins the round.",
        "win_by": "is nearest to",
        "all_numbers": "all numbers picked in that round",
        "fraction": "2/3",
        "words": "two thirds",
    }


def test_facts_of_a_median_game_with_an_offset():
    told = prompt_variables(Game(multiplier="0.7", offset=-12.5, aggregate="median", low=-20, high=80.5), 2)
    assert told["target_rule"] == "0.7 times the median of all numbers picked in that round, minus 12.5"
    assert (told["low"], told["high"], told["offset"]) == ("-20", "80.5", "-12.5")
    assert prompt_variables(Game(offset=3), 2)["target_rule"].endswith(", plus 3")


@given(st.floats(-1e15, 1e15), st.floats(1e-9, 1e9), st.floats(-1e15, 1e15))
def test_facts_tell_the_rules_exactly(low, width, offset):
    assume(low < low + width <= 1e15)
    game = Game(low=low, high=low + width, offset=offset)
    told = prompt_variables(game, 2)
    assert (float(told["low"]), float(told["high"]), float(told["offset"])) == (game.low, game.high, game.offset)
    assert not any("e" in told[name] or told[name] == "-0" for name in ("low", "high", "offset"))


@pytest.mark.parametrize(
    ("multiplier", "forms"),
    [
        ("1/2", {"fraction": "1/2", "decimal": "0.5", "percent": "50%", "words": "one half"}),
        ("51/100", {"fraction": "51/100", "decimal": "0.51", "percent": "51%"}),
        ("0.60", {"fraction": "3/5", "decimal": "0.6", "percent": "60%", "words": "three fifths"}),
        ("4/3", {"fraction": "4/3", "words": "four thirds"}),
        ("2", {"fraction": "2", "decimal": "2", "percent": "200%"}),
    ],
)
def test_a_multiplier_is_only_told_in_forms_that_are_exact(multiplier, forms):
    assert multiplier_forms(multiplier) == forms


# --- groups, tolerance, ranks ------------------------------------------------------------------------------

GUESSES = np.array([10.0, 20.0, np.nan, 60.0, 50.0, 90.0])
STATUS = np.array([0, 0, Status.UNPARSABLE, 2, 0, 0], np.uint8)
COUNTS = [3, 2, 1]


def test_groups_play_the_mean_of_their_members():
    game = Game(players="groups", multiplier="1/2", offset=5)
    assert group_numbers(GUESSES, STATUS, COUNTS).tolist() == [[15.0, 55.0, 90.0]]
    assert np.isnan(group_numbers(GUESSES, STATUS, [2, 1, 3])[0, 1])
    outcome = score(game, GUESSES, STATUS, COUNTS).outcome
    assert outcome.mean == pytest.approx(160 / 3)
    assert outcome.target == pytest.approx(5 + 80 / 3)
    assert (outcome.winning_guess, outcome.n_winners, outcome.n_valid) == (15.0, 1, 5)
    assert places(game, GUESSES, STATUS, outcome.target, COUNTS).tolist() == [1, 1, 1, 2, 2, 3]


def test_within_a_tolerance_all_win_and_outside_nobody():
    near = score(Game(tolerance=11), GUESSES, STATUS).outcome
    assert near.target == pytest.approx(46 * 2 / 3)
    assert (near.n_winners, near.winning_guess) == (1, 20.0)
    assert score(Game(tolerance=30), GUESSES, STATUS).outcome.n_winners == 4
    far = score(Game(tolerance=0.5), GUESSES, STATUS).outcome
    assert far.n_winners == 0
    assert np.isnan(far.winning_guess)
    assert reference_point(Game(announce=["winning_guess"]), {"winning_guess": np.nan}) == 50


def test_ranks_are_shared_and_zero_without_a_guess():
    guesses = np.array([10.0, 30.0, 20.0, np.nan, 95.0])
    status = np.array([0, 0, 1, 6, 0], np.uint8)
    assert places(Game(), guesses, status, np.array([20.0]), [5]).tolist() == [2, 2, 1, 0, 4]
