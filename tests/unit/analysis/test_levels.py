"""Levels of guesses: where they are, and which guesses are theirs."""

import math

import numpy as np
import pytest

from pbeauty.analysis import levels
from pbeauty.game.experiment import Game

CLASSIC = Game()


def named(guesses, game=CLASSIC, reference=50.0):
    codes = levels.assign(np.asarray(guesses, float), game, reference)
    return [levels.LABELS[code] if code != levels.UNDEFINED else None for code in codes]


def test_windows_are_nagels():
    # Boundaries 50 p^(k +- 1/4); level 0 reaches from 50 down.
    found = levels.windows(CLASSIC, 50)
    assert found[0] == pytest.approx((45.18, 50), abs=0.01)
    assert found[1] == pytest.approx((30.12, 36.89), abs=0.01)
    assert found[2] == pytest.approx((20.08, 24.59), abs=0.01)
    assert levels.windows(Game(multiplier="1/2"), 50)[1] == pytest.approx((21.02, 29.73), abs=0.01)


def test_classic_guesses():
    found = named([50, 33, 22, 14.81, 40, 27, 9, 0.5, 0, 51, 100, np.nan])
    assert found == [
        "level 0", "level 1", "level 2", "level 3", "between levels", "between levels", "deeper", "equilibrium",
        "equilibrium", "outside", "outside", None,
    ]  # fmt: skip


def test_windows_and_assignment_agree():
    for game, reference in ((CLASSIC, 50.0), (Game(multiplier="1/2", offset=5), 50.0), (Game(multiplier="4/3"), 50.0)):
        for level, (low, high) in enumerate(levels.windows(game, reference)):
            inside = np.linspace(low, high, 23)[1:-1]
            assert set(named(inside, game, reference)) == {f"level {level}"}


def test_later_rounds_start_from_the_last_aggregate():
    assert named([20, 13.3, 8.9], reference=20) == ["level 0", "level 1", "level 2"]


def test_close_to_equilibrium_all_is_one():
    assert levels.marks(CLASSIC, 0.9) == []
    assert named([0.9, 0.3, 40], reference=0.9) == ["equilibrium", "equilibrium", "outside"]


def test_above_one_levels_go_up_to_the_end():
    game = Game(multiplier="4/3")
    assert levels.marks(game, 50) == pytest.approx([50, 66.67, 88.89], abs=0.01)
    assert named([50, 66.7, 88.9, 100, 30], game) == ["level 0", "level 1", "level 2", "equilibrium", "outside"]


def test_shifted_game():
    game = Game(multiplier="1/2", offset=5)  # f(x) = 5 + x / 2, equilibrium 10
    assert levels.marks(game, 50) == pytest.approx([50, 30, 20, 15])
    assert named([50, 30, 20, 15, 10, 4], game) == [
        "level 0", "level 1", "level 2", "level 3", "equilibrium", "outside"
    ]  # fmt: skip


def test_where_all_levels_are_the_same_there_are_none():
    game = Game(multiplier="1")
    assert levels.marks(game, 50) == []
    assert named([50, 33], game) == [None, None]
    shifted = Game(multiplier="1", offset=-10)
    assert named([50, 40, 30, 0], shifted) == ["level 0", "level 1", "level 2", "equilibrium"]


def test_depths_invert_the_best_response():
    game = Game(multiplier="0.7", offset=3)
    steps = levels.depths(np.array(levels.marks(game, 50)), game, 50)
    assert steps == pytest.approx([0, 1, 2, 3])
    assert math.isinf(levels.depths(np.array([0.0]), CLASSIC, 50)[0])
