"""Scores a round: aggregate, target and winners, on the rank that has the guesses of all participants.

The guesses come in the order of participants, whatever ranks they were played on, so the outcome of a round is the
same to the bit for every number of ranks. Every copy of a hundred million guesses takes 0.8 GB: quantiles need one,
and everything else goes through the guesses a piece at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty.game.experiment import Game
from pbeauty.game.records import Status

Floats = NDArray[np.float64]

_AT_ONCE = 1 << 16
"""How many guesses make a piece: its intermediate results fit into a core's cache."""


@dataclass(frozen=True)
class Outcome:
    """What a round came to. Statistics are over the valid guesses, in the game's own units."""

    mean: float
    median: float
    std: float
    """Population standard deviation (divisor n)."""
    lower_quartile: float
    """With the next, linear between guesses where it falls between two (type 7 of Hyndman and Fan 1996)."""
    upper_quartile: float
    min: float
    max: float
    target: float
    """offset + multiplier x aggregate."""
    winning_guess: float
    """The guess nearest to the target; where one below and one above are equally near, the lower. NaN if nobody won."""
    n_valid: int
    """Participants with a valid guess."""
    n_winners: int
    """How many guessed nearest to the target, ties share the win; with a tolerance, how many were within it."""


@dataclass(frozen=True)
class Scored:
    """The result of a round, with what the moderator shows and stores besides."""

    outcome: Outcome | None
    """None where nobody gave a valid guess: the round has no target."""
    statuses: dict[Status, int]
    """How many participants have each status."""
    group_numbers: NDArray[np.float64]
    """float64[group]: the mean of each group's valid guesses, NaN where it has none."""


def score(
    game: Game,
    guesses: Floats,
    status: NDArray[np.uint8],
    group_of: NDArray[np.uint16] | None = None,
    groups: int = 1,
) -> Scored:
    """Scores a round.

    Args:
        game: the rules.
        guesses: float64[participant] in the game's units, NaN where there is none.
        status: uint8[participant], values of `Status`.
        group_of: uint16[participant], each participant's population group; None where all are of the first. Where
            groups play, the statistics are of the groups' numbers, and winners are groups.
        groups: how many groups there are.
    """
    if group_of is None and game.players == "groups":
        raise ValueError("where groups play, each participant's group is needed")
    counts = np.zeros(len(Status), np.int64)
    for piece in _pieces(status):  # bincount turns what it counts into integers of 8 bytes
        counts += np.bincount(piece, minlength=len(Status))
    statuses = {code: int(counts[code]) for code in Status}
    numbers = group_numbers(guesses, status, group_of, groups)
    n_valid = sum(statuses[code] for code in Status if code.valid)
    if not n_valid:
        return Scored(None, statuses, numbers)
    playing = numbers[~np.isnan(numbers)] if game.players == "groups" else guesses[status <= Status.RETRIED]
    return Scored(_outcome(game, playing, n_valid), statuses, numbers)


def group_numbers(
    guesses: Floats, status: NDArray[np.uint8], group_of: NDArray[np.uint16] | None, groups: int
) -> NDArray[np.float64]:
    """The mean of each group's valid guesses, float64[group], NaN where it has none; arguments as for `score`."""
    means = [_Mean() for _ in range(groups)]
    for group, values in _valid_by_group(guesses, status, group_of):
        means[group].add(values)
    return np.array([mean.value for mean in means])


def places(
    game: Game,
    guesses: Floats,
    status: NDArray[np.uint8],
    target: float,
    group_of: NDArray[np.uint16],
    groups: int,
) -> NDArray[np.int32]:
    """Each participant's place by nearness to the target, int32[participant]; other arguments as for `score`.

    The nearest have place 1; n players that are equally near share a place, and the next n - 1 places are empty. Where
    groups play, a participant has the place of its group. 0 stands for those whose own, or whose group's, number does
    not count.
    """
    if game.players == "individuals":
        numbers = np.where(status <= Status.RETRIED, guesses, np.nan)
    else:
        numbers = group_numbers(guesses, status, group_of, groups)
    distance = np.abs(numbers - target)
    counted = ~np.isnan(distance)
    ordered = np.sort(distance[counted])
    found = np.zeros(len(numbers), np.int32)
    found[counted] = np.searchsorted(ordered, distance[counted], side="left") + 1
    return found[group_of] if game.players == "groups" else found


def _pieces(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """An array in consecutive parts of at most `_AT_ONCE` values, as views."""
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))


def _valid_by_group(
    guesses: Floats, status: NDArray[np.uint8], group_of: NDArray[np.uint16] | None
) -> Iterator[tuple[int, Floats]]:
    """Pieces of valid guesses, each of one group and none empty: (group, float64[guess])."""
    for start in range(0, len(guesses), _AT_ONCE):
        where = slice(start, start + _AT_ONCE)
        values, valid = guesses[where], status[where] <= Status.RETRIED
        groups = np.zeros(len(values), np.uint16) if group_of is None else group_of[where]
        values, groups = values[valid], groups[valid]
        if values.size:
            # Participants are in the order of groups, so a piece has few of them, each in one part of it.
            starts = [0, *(np.flatnonzero(groups[1:] != groups[:-1]) + 1).tolist()]
            yield from zip(groups[starts].tolist(), np.split(values, starts[1:]), strict=True)


class _Mean:
    """A mean of numbers that are added in pieces: numpy sums each piece pairwise, and the sums are added exactly."""

    def __init__(self) -> None:
        self.least, self.most = math.inf, -math.inf
        self._sums: list[float] = []
        self._count = 0

    def add(self, values: Floats) -> None:
        """Adds numbers, float64[number], at least one."""
        self._sums.append(float(values.sum()))
        self._count += values.size
        self.least, self.most = min(self.least, float(values.min())), max(self.most, float(values.max()))

    @property
    def value(self) -> float:
        """The mean of all numbers so far, NaN without any; among equal numbers it is that number, to the bit."""
        if not self._count:
            return math.nan
        return min(max(math.fsum(self._sums) / self._count, self.least), self.most)


def _outcome(game: Game, numbers: Floats, n_valid: int) -> Outcome:
    """The outcome of the numbers of all players, float64[player], which are put in another order.

    Args:
        game: the rules.
        numbers: valid guesses, or the numbers of groups; at least one.
        n_valid: how many participants gave a valid guess.
    """
    sums = _Mean()
    for piece in _pieces(numbers):
        sums.add(piece)
    mean = sums.value
    std = _deviation(numbers, mean, sums.most - sums.least)
    # Both partition the numbers in place, where a copy of many would take too much memory.
    median = float(np.median(numbers, overwrite_input=True))
    lower, upper = np.quantile(numbers, (0.25, 0.75), overwrite_input=True).tolist()
    target = game.offset + game.p * (mean if game.aggregate == "mean" else median)
    winning_guess, n_winners = _winners(numbers, target, game.tolerance)
    return Outcome(
        mean=mean,
        median=median,
        std=std,
        lower_quartile=lower,
        upper_quartile=upper,
        min=sums.least,
        max=sums.most,
        target=target,
        winning_guess=winning_guess,
        n_valid=n_valid,
        n_winners=n_winners,
    )


def _deviation(numbers: Floats, mean: float, span: float) -> float:
    """The population standard deviation (divisor n) of numbers that span `span` from the least to the greatest."""
    # Deviations are at most as large as the span; in units of about its size, their squares stay in range.
    scale = 2.0 ** -max(math.frexp(span)[1], -1000)
    squares = math.fsum(float(np.square((piece - mean) * scale).sum()) for piece in _pieces(numbers))
    return math.sqrt(squares / len(numbers)) / scale


def _winners(numbers: Floats, target: float, tolerance: float | None) -> tuple[float, int]:
    """The winning guess, NaN where nobody won, and how many players won."""
    nearest = min(float(np.abs(piece - target).min()) for piece in _pieces(numbers))
    guess, sharing, within = math.inf, 0, 0
    for piece in _pieces(numbers):
        distance = np.abs(piece - target)
        there = piece[distance == nearest]
        sharing += there.size
        guess = min(guess, float(there.min(initial=math.inf)))
        if tolerance is not None:
            within += int(np.count_nonzero(distance <= tolerance))
    if tolerance is None:
        return guess, sharing
    return (guess if nearest <= tolerance else math.nan), within
