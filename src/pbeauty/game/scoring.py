"""What a round's guesses come to: aggregate, target, winners, by every rank for its own and put together exactly.

No rank needs the guesses of another. Ranks add whole numbers and compare; so the outcome is the same to the bit for
every number of ranks and every partition, one rank that has everything included. In a round there are at most thirteen
such reductions: one of counts and one of extremes, one of sums, six for the quartiles, one of squared deviations, one
of the nearest distance and two of winners.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pbeauty import exact
from pbeauty.game.experiment import Game
from pbeauty.game.rules import NoValidGuessError, Outcome, Status
from pbeauty.selection import Alone, Floats, Ranks, select

Members = Sequence[tuple[int, slice]]
"""The population groups of an array of guesses: (group, where its participants are), each at most once in a place."""

_AT_ONCE = 1 << 16
"""Guesses whose intermediate steps fit in a core's cache."""


@dataclass(frozen=True)
class Scored:
    """A round as the moderator needs it."""

    outcome: Outcome | None
    """None where nobody gave a valid guess: the round has no target."""
    statuses: dict[Status, int]
    """Participants by status."""
    group_numbers: NDArray[np.float64]
    """float64[group]: the mean of each group's valid guesses, NaN where it has none."""


def score(
    game: Game, guesses: Floats, status: NDArray[np.uint8], members: Members, groups: int, ranks: Ranks
) -> Scored:
    """Scores a round; collective.

    Args:
        game: the rules.
        guesses: float64[participant of this rank], NaN where there is none.
        status: uint8[participant of this rank], values of `Status`.
        members: their groups; together the slices are the whole array.
        groups: how many groups there are.
        ranks: all of them.
    """
    block = _Block(guesses, status, members)
    statuses = ranks.sum(block.statuses())
    told = {status: int(statuses[status]) for status in Status}
    if not sum(told[status] for status in Status if status.valid):
        return Scored(None, told, np.full(groups, np.nan))
    low, negative_high = (float(end) for end in ranks.least(block.ends()))
    counts, sums = _group_sums(block, groups, max(abs(low), abs(negative_high)), ranks)
    numbers = np.array([float(s / n) if n else math.nan for s, n in zip(sums, counts, strict=True)])
    if game.players == "individuals":
        outcome = _outcome(game, block, sum(counts), sum(sums, Fraction()), (low, -negative_high), ranks)
    else:
        playing = numbers[~np.isnan(numbers)]
        outcome = _of_groups(game, playing, sum(counts))
    return Scored(outcome, told, numbers)


def score_alone(
    game: Game,
    guesses: Floats,
    status: NDArray[np.uint8],
    group_of: NDArray[np.uint16] | None = None,
    groups: int = 1,
) -> Scored:
    """Scores a round of which everything is at hand.

    Args:
        game: the rules.
        guesses: float64[participant], NaN where there is none.
        status: uint8[participant], values of `Status`.
        group_of: uint16[participant], each participant's population group; needed where groups play. The statistics
            are then of the groups' numbers, and winners are groups.
        groups: how many groups there are.
    """
    if group_of is None and game.players == "groups":
        raise ValueError("where groups play, each participant's group is needed")
    return score(game, guesses, status, _members(group_of, len(guesses)), groups, Alone())


def play_out(
    game: Game,
    guesses: Floats,
    status: NDArray[np.uint8],
    group_of: NDArray[np.uint16] | None = None,
    groups: int = 1,
) -> Outcome:
    """The outcome of a round of which everything is at hand; arguments as for `score_alone`.

    Raises:
        NoValidGuessError: if no status is valid.
    """
    outcome = score_alone(game, guesses, status, group_of, groups).outcome
    if outcome is None:
        raise NoValidGuessError
    return outcome


def group_numbers(
    guesses: Floats, status: NDArray[np.uint8], group_of: NDArray[np.uint16], groups: int
) -> NDArray[np.float64]:
    """The mean of each group's valid guesses, float64[group], NaN where it has none; arguments as for `play_out`."""
    return score_alone(Game(), guesses, status, group_of, groups).group_numbers


def places(
    game: Game,
    guesses: Floats,
    status: NDArray[np.uint8],
    target: float,
    group_of: NDArray[np.uint16],
    groups: int,
) -> NDArray[np.int32]:
    """Each participant's place by nearness to the target, int32[participant]; other arguments as for `play_out`.

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


class _Block:
    """The valid guesses of one rank, a piece at a time."""

    def __init__(self, guesses: Floats, status: NDArray[np.uint8], members: Members) -> None:
        self._guesses, self._status, self._members = guesses, status, members

    def by_group(self) -> Iterator[tuple[int, Floats]]:
        """Pieces of valid guesses, each of one group."""
        for group, where in self._members:
            start, stop, _ = where.indices(len(self._guesses))
            for begin in range(start, stop, _AT_ONCE):
                piece = slice(begin, min(begin + _AT_ONCE, stop))
                values, valid = self._guesses[piece], self._status[piece] <= Status.RETRIED
                yield group, values if valid.all() else values[valid]

    def pieces(self) -> Iterator[Floats]:
        """Pieces of valid guesses, none empty."""
        return (values for _, values in self.by_group() if values.size)

    def statuses(self) -> NDArray[np.int64]:
        """How many have each status, int64[status]."""
        found = np.zeros(len(Status), np.int64)
        for begin in range(0, len(self._status), _AT_ONCE):  # counting makes whole numbers of 8 bytes of them
            found += np.bincount(self._status[begin : begin + _AT_ONCE], minlength=len(Status))
        return found

    def ends(self) -> Floats:
        """The least guess and the greatest, negated: float64[2]; infinite without any."""
        ends = np.array([np.inf, np.inf])
        for values in self.pieces():
            ends = np.minimum(ends, [values.min(), -values.max()])
        return ends


def _group_sums(block: _Block, groups: int, most: float, ranks: Ranks) -> tuple[list[int], list[Fraction]]:
    """Valid guesses of each group over all ranks, and their sum."""
    exponent = exact.exponent(most)
    found = np.zeros((groups, 1 + exact.WORDS), np.int64)
    for group, values in block.by_group():
        found[group, 0] += values.size
        found[group, 1:] += exact.words(values, exponent)
    found = ranks.sum(found)
    return found[:, 0].tolist(), [exact.total(words, exponent) for words in found[:, 1:]]


def _of_groups(game: Game, numbers: Floats, n_valid: int) -> Outcome:
    """The outcome where groups play: their numbers, float64[group that has one], are known to every rank."""
    block = _Block(numbers, np.zeros(len(numbers), np.uint8), [(0, slice(None))])
    low, negative_high = (float(end) for end in block.ends())
    (count,), (total,) = _group_sums(block, 1, max(abs(low), abs(negative_high)), Alone())
    return _outcome(game, block, count, total, (low, -negative_high), Alone(), n_valid)


def _outcome(
    game: Game,
    block: _Block,
    count: int,
    total: Fraction,
    ends: tuple[float, float],
    ranks: Ranks,
    n_valid: int | None = None,
) -> Outcome:
    """The outcome of numbers of which this rank has a block.

    Args:
        game: the rules.
        block: the numbers of this rank.
        count, total, ends: of the numbers of all ranks: how many, their sum, least and greatest.
        ranks: all of them.
        n_valid: participants with a valid guess, where the numbers are not theirs.
    """
    mean = float(total / count)
    lower, median, upper = _quantiles(block, (0.25, 0.5, 0.75), count, ends, ranks)
    target = game.offset + game.p * (mean if game.aggregate == "mean" else median)
    winners = _Winners(target, game.tolerance)
    # Deviations are at most as large as the range that the numbers span; scaled by it, their squares cannot overflow.
    span = exact.exponent(ends[1] - ends[0])
    squares = np.zeros(exact.WORDS, np.int64)
    for values in block.pieces():
        winners.see(values)
        deviations = (values - mean) * 2.0**-span
        squares += exact.words(deviations * deviations, 1)
    variance = exact.total(ranks.sum(squares), 1) / count
    winning_guess, n_winners = winners.over(ranks)
    return Outcome(
        mean=mean,
        median=median,
        std=math.sqrt(variance) * 2.0**span,
        lower_quartile=lower,
        upper_quartile=upper,
        min=ends[0],
        max=ends[1],
        target=target,
        winning_guess=winning_guess,
        n_valid=count if n_valid is None else n_valid,
        n_winners=n_winners,
    )


def _quantiles(
    block: _Block, shares: Sequence[float], count: int, ends: tuple[float, float], ranks: Ranks
) -> list[float]:
    """Quantiles, between two numbers on the straight line (type 7 of Hyndman and Fan 1996, as numpy has it)."""
    at = [share * (count - 1) for share in shares]
    places = [place for point in at for place in (math.floor(point), math.ceil(point))]
    found = select(block.pieces, places, count, *ends, ranks)
    return [_between(one, other, point % 1) for one, other, point in zip(found[::2], found[1::2], at, strict=True)]


def _between(one: float, other: float, part: float) -> float:
    if part == 0:
        return one
    if part == 0.5:
        return (one + other) / 2
    return one + (other - one) * part if part < 0.5 else other - (other - one) * (1 - part)


class _Winners:
    """Who is nearest to the target, found in one pass over the numbers of a rank."""

    def __init__(self, target: float, tolerance: float | None) -> None:
        self._target, self._tolerance = target, tolerance
        self._nearest, self._guess = np.inf, np.inf
        self._sharing = self._within = 0

    def see(self, values: Floats) -> None:
        """Goes through some of the numbers."""
        distance = np.abs(values - self._target)
        if self._tolerance is not None:
            self._within += int(np.count_nonzero(distance <= self._tolerance))
        nearest = float(distance.min())
        if nearest > self._nearest:
            return
        if nearest < self._nearest:
            self._nearest, self._guess, self._sharing = nearest, np.inf, 0
        there = values[distance == nearest]
        self._sharing += there.size
        self._guess = min(self._guess, float(there.min()))

    def over(self, ranks: Ranks) -> tuple[float, int]:
        """The winning guess, NaN where nobody won, and how many won; collective."""
        nearest = float(ranks.least(np.array([self._nearest]))[0])
        mine = nearest == self._nearest
        guess = float(ranks.least(np.array([self._guess if mine else np.inf]))[0])
        sharing, within = ranks.sum(np.array([self._sharing if mine else 0, self._within])).tolist()
        if self._tolerance is None:
            return guess, sharing
        return (guess if nearest <= self._tolerance else math.nan), within


def _members(group_of: NDArray[np.uint16] | None, count: int) -> Members:
    """The slices of an array that belong to one group each."""
    if group_of is None:
        return [(0, slice(0, count))]
    starts = np.flatnonzero(np.diff(group_of)) + 1
    bounds = [0, *starts.tolist(), count] if count else [0]
    return [(int(group_of[start]), slice(start, stop)) for start, stop in pairwise(bounds)]
