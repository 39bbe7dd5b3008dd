"""The rules as pure functions: from a round's guesses to its aggregate, target and winners."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from pbeauty.config import Game

AGGREGATE_NAMES = {"mean": "average", "median": "median"}


class Status(IntEnum):
    """What became of a participant's reply; stored as uint8 beside every guess."""

    OK = 0
    """Read from the reply."""
    EXTRACTED = 1
    """Read by a second, extraction call."""
    RETRIED = 2
    """Read from the reply to a repeated request."""
    OUT_OF_RANGE = 3
    """A number outside the game's range."""
    UNPARSABLE = 4
    """No number that the participant clearly chose."""
    TRUNCATED = 5
    """The reply reached `max_tokens` before it named a number."""
    FAILED = 6
    """The engine gave no reply."""

    @property
    def valid(self) -> bool:
        """Whether a guess with this status enters the aggregate."""
        return self <= Status.RETRIED


@dataclass(frozen=True)
class Outcome:
    """What a round came to. Statistics are over the valid guesses, in the game's own units."""

    mean: float
    median: float
    std: float
    """Population standard deviation (divisor n)."""
    min: float
    max: float
    target: float
    """offset + multiplier x aggregate."""
    winning_guess: float
    """The guess nearest to the target; where one below and one above are equally near, the lower."""
    n_valid: int
    n_winners: int
    """How many guessed nearest to the target; ties share the win."""


class NoValidGuessError(RuntimeError):
    """A round in which nobody gave a valid guess: it has no aggregate and no target."""


def play_out(game: Game, guesses: NDArray[np.float64], status: NDArray[np.uint8]) -> Outcome:
    """Scores one round.

    Args:
        game: the rules.
        guesses: float64[participant], NaN where there is none.
        status: uint8[participant], values of `Status`.

    Raises:
        NoValidGuessError: if no status is valid.
    """
    valid = guesses[status <= Status.RETRIED]
    if not valid.size:
        raise NoValidGuessError("no participant gave a valid guess, so the round has no target")
    mean, median = float(np.mean(valid)), float(np.median(valid))
    target = game.offset + game.p * (mean if game.aggregate == "mean" else median)
    distance = np.abs(valid - target)
    nearest = distance.min()
    winners = valid[distance == nearest]
    return Outcome(
        mean=mean,
        median=median,
        std=float(np.std(valid)),
        min=float(valid.min()),
        max=float(valid.max()),
        target=target,
        winning_guess=float(winners.min()),
        n_valid=int(valid.size),
        n_winners=int(winners.size),
    )


def equilibrium(game: Game) -> float:
    """The guess that repeats itself under best response, c / (1 - p), kept in range; NaN where p = 1 and c = 0.

    For p > 1 the fixed point repels: play runs to the end of the range on the far side of it, which is the
    upper end for every game whose offset is not negative.
    """
    if game.p == 1 and game.offset == 0:
        return float("nan")
    if game.p == 1:
        return game.high if game.offset > 0 else game.low
    fixed_point = game.offset / (1 - game.p)
    if game.p > 1:
        return game.high if fixed_point < game.high else game.low
    return float(np.clip(fixed_point, game.low, game.high))


def reference_point(game: Game, announced: Mapping[str, float]) -> float:
    """The aggregate of the last round, as far as the announcement tells it.

    Level-k reasoning starts from it (Nagel 1995, p. 1318: the mean of the previous period; the midpoint of
    the range before the first). The target is inverted, (target - c) / p; the winning guess stands in for it.
    """
    if game.aggregate in announced:
        return announced[game.aggregate]
    for quantity in ("target", "winning_guess"):
        if quantity in announced:
            return float(np.clip((announced[quantity] - game.offset) / game.p, game.low, game.high))
    return announced.get("mean", announced.get("median", (game.low + game.high) / 2))


def announced(game: Game, last: Outcome | None) -> dict[str, float]:
    """The quantities of the round before that everybody is told; empty before the first round."""
    return {} if last is None else {quantity: getattr(last, quantity) for quantity in game.announce}


def facts(game: Game, count: int) -> dict[str, str]:
    """The game in words, for prompts: count, low, high, multiplier, offset, aggregate, target_rule."""
    aggregate = AGGREGATE_NAMES[game.aggregate]
    rule = f"{game.multiplier} times the {aggregate} of all numbers picked in that round"
    if game.offset:
        rule += f", {'plus' if game.offset > 0 else 'minus'} {_exact_text(abs(game.offset))}"
    return {
        "count": str(count),
        "low": _exact_text(game.low),
        "high": _exact_text(game.high),
        "multiplier": game.multiplier,
        "offset": _exact_text(game.offset),
        "aggregate": aggregate,
        "target_rule": rule,
    }


def number_text(value: float) -> str:
    """A number as people write it, with two decimals at most: `50`, `33.33`, `0.5`."""
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")


def _exact_text(value: float) -> str:
    """A number of the rules, with all its decimals, so that nobody is told other rules than those that score."""
    return np.format_float_positional(value + 0.0, trim="-")
