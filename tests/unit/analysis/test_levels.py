"""Levels of guesses: where they are, and which guesses are theirs."""

import math

import numpy as np
import pytest

from pbeauty.analysis import levels
from pbeauty.game.experiment import Game

CLASSIC = Game()


def named(guesses, game=CLASSIC, reference=50.0, round_index=0, whole=False):
    codes = levels.assign(np.asarray(guesses, float), game, reference, round_index, whole=whole)
    return [levels.LABELS[code] if code != levels.UNDEFINED else None for code in codes]


def windows(game, reference, round_index=0, **options):
    """Those of one session, as far as levels can be told apart."""
    found = levels.windows(game, np.array([float(reference)]), round_index, **options)[:, 0]
    return [tuple(ends) for ends in found if not np.isnan(ends[0])]


def test_windows_are_nagels():
    # Ends 50 p^(k +- 1/4); level 0 reaches from 50 down.
    found = windows(CLASSIC, 50)
    assert found[0] == pytest.approx((45.18, 50), abs=0.01)
    assert found[1] == pytest.approx((30.12, 36.89), abs=0.01)
    assert found[2] == pytest.approx((20.08, 24.59), abs=0.01)
    assert windows(Game(multiplier="1/2"), 50)[1] == pytest.approx((21.02, 29.73), abs=0.01)


def test_windows_of_whole_numbers_are_rounded_as_hers():
    assert windows(CLASSIC, 50, whole=True) == [(45, 50), (30, 37), (20, 25), (13, 16)]
    assert windows(Game(multiplier="1/2"), 50, whole=True)[:3] == [(42, 50), (21, 30), (11, 15)]
    ends = [45, 50, 30, 37, 20, 25, 13, 16]
    assert named(ends, whole=True) == [f"level {level}" for level in (0, 0, 1, 1, 2, 2, 3, 3)]
    assert set(named([44, 38, 29, 26, 19, 17], whole=True)) == {"interim"}
    assert named([12, 51], whole=True) == ["deeper", "outside"]
    # Rounding would make the windows of a narrow range overlap.
    narrow = Game(high=1)
    assert windows(narrow, 0.5, whole=True) == windows(narrow, 0.5)


def test_whole_numbers_are_seen_in_the_guesses():
    assert levels.mostly_whole(np.array([33.0] * 19 + [33.33, np.nan]))
    assert not levels.mostly_whole(np.array([33.0] * 8 + [33.33] * 2))
    codes = levels.assign(np.array([45.0, 30, 37, 20, 25]), CLASSIC, 50)
    assert codes.tolist() == [0, 1, 1, 2, 2]


def test_from_the_second_round_on_classes_are_of_half_steps():
    r, p = 36.0, 2 / 3
    found = windows(CLASSIC, r, 1)
    assert found == [pytest.approx((r * p ** (k + 0.5), r * p ** max(k - 0.5, 0))) for k in range(4)]
    guesses = np.linspace(r * p**3.5 + 0.01, r, 200)
    assert "interim" not in named(guesses, reference=r, round_index=1)
    assert named([36.1, 36, 30, 24, 16, 10, 8, 0], reference=r, round_index=1) == [
        "outside", "level 0", "level 0", "level 1", "level 2", "level 3", "deeper", "equilibrium"
    ]  # fmt: skip


def test_transitions_count_those_who_guess_in_both_rounds():
    before = levels.assign(np.array([33.0, 33, 22, np.nan, 50]), CLASSIC, 50)
    after = levels.assign(np.array([20.0, np.nan, 13.0, 13, 20]), CLASSIC, 30, 1)
    found = levels.transitions(before, after)
    assert found.sum() == 3
    assert (found[1, 1], found[2, 2], found[0, 1]) == (1, 1, 1)


def test_classic_guesses():
    found = named([50, 33, 22, 14.81, 40, 27, 9, 0.5, 0, 51, 100, np.nan])
    assert found == [
        "level 0", "level 1", "level 2", "level 3", "interim", "interim", "deeper", "equilibrium",
        "equilibrium", "outside", "outside", None,
    ]  # fmt: skip


def test_windows_and_assignment_agree():
    for game, reference in ((CLASSIC, 50.0), (Game(multiplier="1/2", offset=5), 50.0), (Game(multiplier="4/3"), 50.0)):
        for level, (low, high) in enumerate(windows(game, reference)):
            inside = np.linspace(low, high, 23)[1:-1]
            assert set(named(inside, game, reference)) == {f"level {level}"}


def test_later_rounds_start_from_the_last_aggregate():
    assert named([20, 13.3, 8.9], reference=20) == ["level 0", "level 1", "level 2"]


def test_close_to_equilibrium_all_is_one():
    assert np.isnan(levels.marks(CLASSIC, 0.9)).all()
    assert named([0.9, 0.3, 40], reference=0.9) == ["equilibrium", "equilibrium", "outside"]


def test_above_one_levels_go_up_to_the_end():
    game = Game(multiplier="4/3")
    assert levels.marks(game, 50) == pytest.approx([50, 66.67, 88.89, np.nan], abs=0.01, nan_ok=True)
    assert named([50, 66.7, 88.9, 100, 30], game) == ["level 0", "level 1", "level 2", "equilibrium", "outside"]


def test_shifted_game():
    game = Game(multiplier="1/2", offset=5)  # f(x) = 5 + x / 2, equilibrium 10
    assert levels.marks(game, 50) == pytest.approx([50, 30, 20, 15])
    assert named([50, 30, 20, 15, 10, 4], game) == [
        "level 0", "level 1", "level 2", "level 3", "equilibrium", "outside"
    ]  # fmt: skip


def test_where_all_levels_are_the_same_there_are_none():
    game = Game(multiplier="1")
    assert np.isnan(levels.marks(game, 50)).all()
    assert named([50, 33], game) == [None, None]
    shifted = Game(multiplier="1", offset=-10)
    assert named([50, 40, 30, 0], shifted) == ["level 0", "level 1", "level 2", "equilibrium"]


def test_depths_invert_the_best_response():
    game = Game(multiplier="0.7", offset=3)
    steps = levels.depths(levels.marks(game, 50), game, 50)
    assert steps == pytest.approx([0, 1, 2, 3])
    assert math.isinf(levels.depths(np.array([0.0]), CLASSIC, 50)[0])


def test_every_session_has_its_own_reference():
    """All at once is each by itself, also where fewer levels can be told apart."""
    references = np.array([50.0, 20, 3, 0.9, np.nan])
    guesses = np.random.default_rng(1).uniform(0, 60, (5, 400))
    guesses[:, ::7] = np.nan
    guesses[4] = np.nan
    for game in (CLASSIC, Game(multiplier="1/2", offset=5), Game(multiplier="4/3"), Game(multiplier="1", offset=-3)):
        together = levels.assign(guesses.reshape(-1), game, references, 1).reshape(5, -1)
        for row, reference, codes in zip(guesses, references, together, strict=True):
            assert np.array_equal(codes, levels.assign(row, game, reference, 1))
