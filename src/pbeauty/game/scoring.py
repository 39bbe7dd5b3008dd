"""Scores a round: aggregate, target and winners of every session, on the rank that has the guesses of all participants.

The guesses come in the order of participants, whatever ranks they were played on, so the outcome of a round is the
same to the bit for every number of ranks, and that of a session the same whatever sessions are played beside it.
Every copy of a hundred million guesses takes 0.8 GB: quantiles need one, and everything else goes through the guesses
a piece at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from pbeauty.game.experiment import Game
from pbeauty.game.records import Floats, Status

_AT_ONCE = 1 << 16
"""How many guesses make a piece: its intermediate results fit into a core's cache."""


@dataclass(frozen=True)
class Outcome:
    """What a round came to, by session: float64[session], in the game's own units, over the valid guesses.

    Where groups play, the statistics are of the groups' numbers, and winners are groups. In a session without a valid
    guess all are NaN, and the counts 0.
    """

    mean: Floats
    median: Floats
    std: Floats
    """Population standard deviation (divisor n)."""
    lower_quartile: Floats
    """With the next, linear between guesses where it falls between two (type 7 of Hyndman and Fan 1996)."""
    upper_quartile: Floats
    min: Floats
    max: Floats
    target: Floats
    """offset + multiplier x aggregate."""
    winning_guess: Floats
    """The guess nearest to the target; where one below and one above are equally near, the lower. NaN if nobody won."""
    n_valid: NDArray[np.int64]
    """Participants with a valid guess, int64[session]."""
    n_winners: NDArray[np.int64]
    """How many guessed nearest to the target, ties share the win; with a tolerance, how many were within it."""

    def of(self, session: int) -> Outcome:
        """That of one session, from 0: arrays of one value."""
        return Outcome(*(getattr(self, field.name)[session : session + 1] for field in fields(self)))


@dataclass(frozen=True)
class Scored:
    """The result of a round, with what the moderator shows and stores besides."""

    outcome: Outcome
    statuses: dict[Status, int]
    """How many participants have each status."""
    group_numbers: Floats
    """float64[session, group]: the mean of each group's valid guesses, NaN where it has none."""


def score(game: Game, guesses: Floats, status: NDArray[np.uint8], counts: Sequence[int] | None = None) -> Scored:
    """Scores a round.

    Args:
        game: the rules.
        guesses: float64[participant] in the game's units, NaN where there is none; session after session, and within a
            session group after group.
        status: uint8[participant], values of `Status`.
        counts: how many participants each population group has in a session; None for one group and one session.
    """
    counts = counts or [len(guesses)]
    totals = np.zeros(len(Status), np.int64)
    for piece in (status[start : start + _AT_ONCE] for start in range(0, len(status), _AT_ONCE)):
        totals += np.bincount(piece, minlength=len(Status))  # which turns what it counts into integers of 8 bytes
    valid, lengths = _valid(guesses, status, counts)
    numbers = _means(valid, lengths)
    n_valid = lengths.sum(axis=1)
    if game.players == "individuals":
        outcome = outcome_of(game, valid, n_valid, n_valid)
    else:
        outcome = outcome_of(game, numbers[lengths > 0], np.count_nonzero(lengths, axis=1), n_valid)
    return Scored(outcome, {code: int(totals[code]) for code in Status}, numbers)


def group_numbers(guesses: Floats, status: NDArray[np.uint8], counts: Sequence[int]) -> Floats:
    """The mean of each group's valid guesses, float64[session, group], NaN where it has none; arguments of `score`."""
    return _means(*_valid(guesses, status, counts))


def places(
    game: Game, guesses: Floats, status: NDArray[np.uint8], target: Floats, counts: Sequence[int]
) -> NDArray[np.int32]:
    """Each participant's place by nearness to the target of its session, int32[participant].

    The nearest have place 1; n players that are equally near share a place, and the next n - 1 places are empty. Where
    groups play, a participant has the place of its group. 0 stands for those whose own, or whose group's, number does
    not count.

    Args:
        game, guesses, status, counts: as for `score`.
        target: float64[session].
    """
    if game.players == "individuals":
        numbers = np.where(status <= Status.RETRIED, guesses, np.nan).reshape(len(target), -1)
    else:
        numbers = group_numbers(guesses, status, counts)
    distance = np.abs(numbers - target[:, None])
    order = np.argsort(distance, axis=1, kind="stable")
    ordered = np.take_along_axis(distance, order, axis=1)
    position = np.broadcast_to(np.arange(1, distance.shape[1] + 1, dtype=np.int32), distance.shape).copy()
    position[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = 0
    found = np.empty_like(position)
    np.put_along_axis(found, order, np.maximum.accumulate(position, axis=1), axis=1)
    found[np.isnan(distance)] = 0
    return (np.repeat(found, counts, axis=1) if game.players == "groups" else found).reshape(-1)


def _valid(guesses: Floats, status: NDArray[np.uint8], counts: Sequence[int]) -> tuple[Floats, NDArray[np.int64]]:
    """The valid guesses in their order, float64[guess], and how many there are, int64[session, group]."""
    valid = status <= Status.RETRIED
    sessions = len(guesses) // sum(counts)
    starts = np.cumsum(np.tile(counts, sessions)) - np.tile(counts, sessions)
    lengths = np.add.reduceat(valid.view(np.uint8), starts, dtype=np.int64)
    return guesses[valid], lengths.reshape(sessions, -1)


def _samples(numbers: Floats, lengths: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """Samples that lie one after the other in `numbers`, with those of one length together, as many as make a piece.

    Args:
        numbers: float64[number].
        lengths: int64[sample]; those of length 0 are left out.

    Yields:
        Which samples, int64[some], and their numbers, float64[some, number]; a view where they lie side by side.
    """
    starts = np.cumsum(lengths) - lengths
    for length in np.unique(lengths[lengths > 0]).tolist():
        found = np.flatnonzero(lengths == length)
        at_once = max(1, _AT_ONCE // length)
        for which in (found[start : start + at_once] for start in range(0, len(found), at_once)):
            begin, end = starts[which[0]], starts[which[-1]] + length
            if end - begin == len(which) * length:  # side by side
                yield which, numbers[begin:end].reshape(-1, length)
            else:
                yield which, numbers[starts[which][:, None] + np.arange(length)]


def _pieces(samples: Floats) -> Iterator[Floats]:
    """Samples, float64[sample, number], in parts of at most `_AT_ONCE` numbers of each, as views."""
    return (samples[:, start : start + _AT_ONCE] for start in range(0, samples.shape[1], _AT_ONCE))


def _sums(samples: Floats, of: Callable[[Floats], Floats]) -> Floats:
    """Sums over `of` the numbers of each sample, float64[sample]: pieces pairwise, as numpy does, and those exactly."""
    parts = [of(piece).sum(axis=1) for piece in _pieces(samples)]
    return parts[0] if len(parts) == 1 else np.array([math.fsum(part) for part in zip(*parts, strict=True)])


def _mean(samples: Floats) -> tuple[Floats, Floats, Floats]:
    """Means, least and greatest numbers, float64[sample] each; the mean of equal numbers is that number, to the bit."""
    least, most = samples.min(axis=1), samples.max(axis=1)
    return np.clip(_sums(samples, lambda piece: piece) / samples.shape[1], least, most), least, most


def _means(numbers: Floats, lengths: NDArray[np.int64]) -> Floats:
    """The means of samples, in the shape of `lengths`, NaN for those without a number; arguments as for `_samples`."""
    means = np.full(lengths.size, np.nan)
    for which, samples in _samples(numbers, lengths.reshape(-1)):
        means[which] = _mean(samples)[0]
    return means.reshape(lengths.shape)


def outcome_of(game: Game, numbers: Floats, players: NDArray[np.int64], n_valid: NDArray[np.int64]) -> Outcome:
    """The outcome of the numbers of all players, which are put in another order.

    Args:
        game: the rules.
        numbers: float64[player], valid guesses or the numbers of groups, session after session.
        players: int64[session], how many of them are of each.
        n_valid: int64[session], how many participants gave a valid guess.
    """
    names = [field.name for field in fields(Outcome) if not field.name.startswith("n_")]
    found = {name: np.full(len(players), np.nan) for name in names}
    n_winners = np.zeros(len(players), np.int64)
    for which, samples in _samples(numbers, players):
        mean, least, most = _mean(samples)
        std = _deviation(samples, mean, most - least)
        # Both partition the numbers in place, where a copy of many would take too much memory.
        median = np.median(samples, axis=1, overwrite_input=True)
        lower, upper = np.quantile(samples, (0.25, 0.75), axis=1, overwrite_input=True)
        target = game.offset + game.p * (mean if game.aggregate == "mean" else median)
        winning_guess, n_winners[which] = _winners(samples, target, game.tolerance)
        for name, values in zip(
            names, (mean, median, std, lower, upper, least, most, target, winning_guess), strict=True
        ):
            found[name][which] = values
    return Outcome(**found, n_valid=n_valid, n_winners=n_winners)


def _deviation(samples: Floats, mean: Floats, span: Floats) -> Floats:
    """Population standard deviations (divisor n) of samples that span `span` from the least to the greatest."""
    # Deviations are at most as large as the span; in units of about its size, their squares stay in range.
    scale = np.ldexp(1.0, -np.maximum(np.frexp(span)[1], -1000))[:, None]
    squares = _sums(samples, lambda piece: np.square((piece - mean[:, None]) * scale))
    return np.sqrt(squares / samples.shape[1]) / scale[:, 0]


def _winners(samples: Floats, target: Floats, tolerance: float | None) -> tuple[Floats, NDArray[np.int64]]:
    """The winning guess of each sample, NaN where nobody won, and how many players won."""
    aim = target[:, None]
    nearest = np.min([np.abs(piece - aim).min(axis=1) for piece in _pieces(samples)], axis=0)
    guess = np.full(len(samples), np.inf)
    winners = np.zeros(len(samples), np.int64)
    for piece in _pieces(samples):
        distance = np.abs(piece - aim)
        there = distance == nearest[:, None]
        guess = np.minimum(guess, np.where(there, piece, np.inf).min(axis=1))
        winners += np.count_nonzero(there if tolerance is None else distance <= tolerance, axis=1)
    return (guess if tolerance is None else np.where(nearest <= tolerance, guess, np.nan)), winners
