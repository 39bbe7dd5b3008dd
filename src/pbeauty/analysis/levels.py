"""Level-k reasoning: which level a guess is nearest to, and where the levels are.

A level-k participant best-responds to level k-1, and level 0 guesses the reference point on average: the midpoint
before the first round, the last aggregate after it, as far as it was announced (Nagel 1995). With f(x) = c + p x and
its fixed point x* = c / (1 - p), s steps from the reference r lead to x* + p^s (r - x*). Solved for s, that is the
depth of reasoning of any guess; level k is the window of depths from k - 1/4 to k + 1/4 (Nagel 1995, whose
boundaries 50 p^(k +- 1/4) these are where c = 0; she rounds them to integers, which is not done here).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pbeauty.game.announcement import announced
from pbeauty.game.experiment import Game
from pbeauty.game.theory import equilibrium, level_k_guess, reference_point
from pbeauty.storage.run_reader import Run

DEEPEST = 3
"""The deepest level that is told apart."""
LABELS = (*(f"level {level}" for level in range(DEEPEST + 1)), "between levels", "deeper", "equilibrium", "outside")
BETWEEN, DEEPER, EQUILIBRIUM, OUTSIDE = range(DEEPEST + 1, DEEPEST + 5)
UNDEFINED = 255
"""The code where there is no guess, and of every guess where all levels are the same."""
WINDOW = 0.25
"""Depths within this of a level are that level's."""
NEAR = 0.01
"""Guesses within this share of the range of the equilibrium, and deeper than every level told apart, are at it."""
_PIECE = 1 << 20

Floats = NDArray[np.float64]


def reference(run: Run, round_index: int) -> float:
    """The reference point of a round, from 0: what the aggregate of the last was, as far as all were told."""
    game = run.experiment.game
    return reference_point(game, announced(game, run.outcome(round_index - 1) if round_index else None))


def depths(guesses: Floats, game: Game, reference: float) -> Floats:
    """Steps of reasoning from the reference point to each guess, float64[guess].

    Negative on the far side of the reference; infinite at the fixed point; NaN beyond it, where no number of steps
    leads, and everywhere if p = 1 and c = 0, or if the reference is the fixed point itself.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        if game.p == 1:
            return (guesses - reference) / np.float64(game.offset)
        fixed_point = game.offset / (1 - game.p)
        return np.log((guesses - fixed_point) / np.float64(reference - fixed_point)) / math.log(game.p)


def marks(game: Game, reference: float) -> list[float]:
    """The guesses of levels 0, 1, ..., as far as they can be told from each other and from the equilibrium.

    Empty if p = 1 and c = 0, where every level guesses the same.
    """
    end, near = equilibrium(game), NEAR * (game.high - game.low)
    guesses: list[float] = []
    for level in range(DEEPEST + 1):
        guess = level_k_guess(game, level, reference)
        if math.isnan(end) or abs(guess - end) <= near or (guesses and abs(guess - guesses[-1]) <= near / 10):
            break
        guesses.append(guess)
    return guesses


def assign(guesses: Floats, game: Game, reference: float) -> NDArray[np.uint8]:
    """The level of each guess, uint8[guess]: an index into `LABELS`, or `UNDEFINED`.

    `level 0` reaches from the reference point itself, not from beyond it (as in Nagel 1995). `deeper` is past the
    last level told apart, `equilibrium` those of them within a hundredth of the range of it. `outside` is whatever
    no number of steps from the reference leads to: beyond it, or past the fixed point.
    """
    codes = np.empty(guesses.size, np.uint8)
    told = len(marks(game, reference))
    for start in range(0, guesses.size, _PIECE):  # bounds the memory for temporary arrays
        piece = slice(start, start + _PIECE)
        codes[piece] = _assign(guesses[piece], game, reference, told)
    return codes


def _assign(guesses: Floats, game: Game, reference: float, told: int) -> NDArray[np.uint8]:
    end = equilibrium(game)
    if math.isnan(end):
        return np.full(guesses.size, UNDEFINED, np.uint8)
    steps = depths(guesses, game, reference)
    with np.errstate(invalid="ignore"):
        level = np.rint(steps)
        codes = np.where(np.abs(steps - level) <= WINDOW, level, BETWEEN)
        past = steps > told - 1 + WINDOW
        codes[past] = DEEPER
        codes[~(steps >= -1e-9)] = OUTSIDE
        near = np.abs(guesses - end) <= NEAR * (game.high - game.low)
        codes[near & (past | np.isnan(steps) | (told == 0))] = EQUILIBRIUM
    codes[np.isnan(guesses)] = UNDEFINED
    return codes.astype(np.uint8)


def windows(game: Game, reference: float) -> list[tuple[float, float]]:
    """The window of guesses of each level of `marks`, low and high, as far as it lies in the range."""
    if game.p == 1:
        ends = [(reference + game.offset * (level - WINDOW), reference + game.offset * (level + WINDOW))
                for level in range(DEEPEST + 1)]  # fmt: skip
    else:
        fixed_point = game.offset / (1 - game.p)
        ends = [
            tuple(fixed_point + game.p**depth * (reference - fixed_point) for depth in (level - WINDOW, level + WINDOW))
            for level in range(DEEPEST + 1)
        ]
    found = []
    for level, pair in enumerate(ends[: len(marks(game, reference))]):
        pair = (reference, pair[1]) if level == 0 else pair
        low, high = sorted(pair)
        found.append((max(low, game.low), min(high, game.high)))
    return found
