"""Levels of reasoning: where the guesses of level-k participants are, and which level a guess is nearest to.

A level-k participant best-responds to level k-1, and level 0 guesses the reference point on average: the midpoint
before the first round, the last aggregate after it, as far as it was announced (Nagel 1995). With f(x) = c + p x and
its fixed point x* = c / (1 - p), s steps from the reference r lead to x* + p^s (r - x*). Solved for s, that is the
depth of reasoning of any guess.

In the first round, level k is the window of depths from k - 1/4 to k + 1/4 (Nagel 1995, whose windows end at
50 p^(k +- 1/4)); what lies between two windows is interim. Where guesses are whole numbers, its ends are rounded to
whole numbers, as hers are: 45-50, 30-37, 20-25 and 13-16 for p = 2/3. From the second round on, level k is the class of
depths from k - 1/2 to k + 1/2, so that nothing is interim; level 0 ends at the reference in all rounds.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pbeauty.game.announcement import announcement
from pbeauty.game.experiment import Game
from pbeauty.game.records import Floats
from pbeauty.game.theory import equilibrium, level_k_guess, reference_point
from pbeauty.storage.run_reader import Run

DEEPEST = 3
"""The deepest level that is told apart."""
LABELS = (*(f"level {level}" for level in range(DEEPEST + 1)), "interim", "deeper", "equilibrium", "outside")
INTERIM, DEEPER, EQUILIBRIUM, OUTSIDE = range(DEEPEST + 1, DEEPEST + 5)
UNDEFINED = 255
"""The code where there is no guess, and of every guess where all levels are the same."""
NEAR = 0.01
"""Guesses within this share of the range of the equilibrium, and deeper than every level told apart, are at it."""
MOSTLY = 0.9
"""With this share of whole numbers among the guesses of the first round, windows are rounded."""


def references(run: Run, round_index: int) -> tuple[Floats, NDArray[np.uint16]]:
    """The reference points of each session in a round from 0: what the aggregate of the last round was, as far as
    participants are told.

    Returns:
        float64[kind, session], a row for each kind of announcement, mostly one; NaN in a session that had ended. And
        which kind each population group is told, uint16[group].
    """
    last, game = run.outcome(round_index - 1) if round_index else None, run.experiment.game
    announced = announcement(run.experiment, round_index, last)
    told = [run.experiment.announced_to(group) for group in run.experiment.population]
    kinds = list(dict.fromkeys(told))
    sessions = np.arange(run.experiment.sessions)
    rows = [np.broadcast_to(reference_point(game, announced.to(kind)), sessions.shape) for kind in kinds]
    return np.where(announced.plays(sessions), rows, np.nan), np.array([kinds.index(kind) for kind in told], np.uint16)


def codes_of(run: Run, round_index: int, guesses: Floats) -> tuple[NDArray[np.uint8], Floats, NDArray[np.uint16]]:
    """The level of each participant's guess in a round, from what their own group is told.

    Args:
        guesses: float64[participant], NaN where there is none.

    Returns:
        `assign`'s codes, uint8[participant]; the rows of `references`; and whose is which, uint16[participant], or [1]
        where there is one.
    """
    rows, kinds = references(run, round_index)
    kind_of = kinds[run.codes("group")] if len(rows) > 1 else np.zeros(1, np.uint16)
    whole, codes = mostly_whole(guesses), np.empty(guesses.size, np.uint8)
    for kind, row in enumerate(rows):
        found = assign(guesses, run.experiment.game, row, round_index, whole=whole)
        np.copyto(codes, found, where=kind_of == kind)
    return codes, rows, kind_of


def depths(guesses: Floats, game: Game, reference: float | Floats) -> Floats:
    """Steps of reasoning from the reference point to each guess, float64[guess]; the reference is one, or one of each.

    Negative on the far side of the reference; infinite at the fixed point; NaN beyond it, where no number of steps
    leads, and everywhere if p = 1 and c = 0, or if the reference is the fixed point itself.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        if game.p == 1:
            return (guesses - reference) / np.float64(game.offset)
        fixed_point = game.offset / (1 - game.p)
        return np.log((guesses - fixed_point) / np.subtract(reference, fixed_point)) / math.log(game.p)


def marks(game: Game, references: float | Floats) -> Floats:
    """The guesses of levels 0, 1, ..., float64[level, ...], from each reference point.

    NaN from where they cannot be told from each other or from the equilibrium: all if p = 1 and c = 0.
    """
    near = NEAR * (game.high - game.low)
    guesses = np.stack([level_k_guess(game, level, references) for level in range(DEEPEST + 1)])
    apart = np.abs(guesses - equilibrium(game)) > near
    apart[1:] &= np.abs(np.diff(guesses, axis=0)) > near / 10
    return np.where(np.logical_and.accumulate(apart), guesses, np.nan)


def mostly_whole(guesses: Floats) -> bool:
    """Whether most guesses, float64[guess] with NaN where there is none, are whole numbers."""
    valid = guesses[~np.isnan(guesses)]
    return valid.size > 0 and float(np.mean(valid == np.rint(valid))) >= MOSTLY


def windows(game: Game, references: Floats, round_index: int = 0, *, whole: bool = False) -> Floats:
    """The ends, low and high, of the guesses of each level of `marks`, as far as they lie in the range.

    Args:
        references: where level 0 is, float64[session].
        whole: whether guesses are whole numbers; ends are rounded unless that makes windows overlap.

    Returns:
        float64[level, session, end], NaN where a level cannot be told apart.
    """
    reach = 0.5 if round_index else 0.25
    depth = np.array([[max(level - reach, 0.0), level + reach] for level in range(DEEPEST + 1)])[:, None]
    if game.p == 1:
        ends = references[:, None] + game.offset * depth
    else:
        fixed_point = game.offset / (1 - game.p)
        ends = fixed_point + game.p**depth * (references[:, None] - fixed_point)
    ends = np.where(np.isnan(marks(game, references))[..., None], np.nan, np.clip(np.sort(ends), game.low, game.high))
    if not whole or round_index:
        return ends
    rounded = np.rint(ends)
    ordered = np.sort(rounded, axis=0)
    overlap = np.any(ordered[1:, :, 0] <= ordered[:-1, :, 1], axis=0)
    return np.where(overlap[:, None], ends, rounded)


def assign(
    guesses: Floats, game: Game, references: float | Floats, round_index: int = 0, *, whole: bool | None = None
) -> NDArray[np.uint8]:
    """The level of each guess, uint8[guess]: an index into `LABELS`, or `UNDEFINED`.

    `deeper` is past the last level told apart, `equilibrium` those of them within a hundredth of the range of it.
    `outside` is whatever no number of steps from the reference leads to: beyond it, or past the fixed point.

    Args:
        guesses: session after session, equally many of each; NaN where there is none.
        references: where level 0 is, float64[session], or a number for one session.
        whole: whether guesses are whole numbers; unless given, whether most of these are.
    """
    if math.isnan(equilibrium(game)):
        return np.full(guesses.size, UNDEFINED, np.uint8)
    references = np.atleast_1d(references)
    ends = windows(game, references, round_index, whole=mostly_whole(guesses) if whole is None else whole)
    by_session = guesses.reshape(references.size, -1)
    steps = depths(by_session, game, references[:, None])
    told_apart = np.count_nonzero(~np.isnan(ends[..., 0]), axis=0)[:, None]
    codes = np.full(by_session.shape, INTERIM, np.uint8)
    with np.errstate(invalid="ignore"):
        codes[steps > told_apart - 1] = DEEPER
        for level, window in reversed(list(enumerate(ends))):  # at the common end of two, it is of the lower level
            codes[(by_session >= window[:, :1]) & (by_session <= window[:, 1:])] = level
        codes[~(steps >= -1e-9)] = OUTSIDE
        near = np.abs(by_session - equilibrium(game)) <= NEAR * (game.high - game.low)
        codes[near & ((codes == DEEPER) | np.isnan(steps) | (told_apart == 0))] = EQUILIBRIUM
    codes[np.isnan(by_session)] = UNDEFINED
    return codes.reshape(-1)


def transitions(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How many participants went from one level to another, int64[label before, label after].

    Args:
        before: codes of `assign` in one round, uint8[participant].
        after: of the same participants in the next.
    """
    both = (before != UNDEFINED) & (after != UNDEFINED)
    pairs = before[both].astype(np.int64) * len(LABELS) + after[both]
    return np.bincount(pairs, minlength=len(LABELS) ** 2).reshape(len(LABELS), len(LABELS))
