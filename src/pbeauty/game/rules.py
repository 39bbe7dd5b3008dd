"""The rules: what a round comes to, where play rests, what is announced, and the game in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction

import numpy as np

from pbeauty.game.experiment import Game

AGGREGATE_NAMES = {"mean": "average", "median": "median"}
_CARDINALS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_ORDINALS = ("", "", "half", "third", "quarter", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


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


class NoValidGuessError(RuntimeError):
    """A round in which nobody gave a valid guess: it has no aggregate and no target."""

    def __init__(self) -> None:
        super().__init__("no participant gave a valid guess, so the round has no target")


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
        if quantity in announced and not np.isnan(announced[quantity]):
            return float(np.clip((announced[quantity] - game.offset) / game.p, game.low, game.high))
    return announced.get("mean", announced.get("median", (game.low + game.high) / 2))


def announced(game: Game, last: Outcome | None) -> dict[str, float]:
    """The quantities of the round before that everybody is told alike; empty before the first round.

    The winning guess is NaN where nobody won. The groups' numbers and everybody's own rank are told besides.
    """
    common = (quantity for quantity in game.announce if quantity not in ("group_numbers", "own_rank"))
    return {} if last is None else {quantity: getattr(last, quantity) for quantity in common}


def prompt_variables(game: Game, count: int, groups: int = 1) -> dict[str, str]:
    """The game in words, for prompts. What a game has no value for is not in it: a prompt that needs it does not fit.

    Args:
        game: the rules.
        count: participants.
        groups: population groups.
    """
    aggregate = AGGREGATE_NAMES[game.aggregate]
    individuals = game.players == "individuals"
    all_numbers = "all numbers picked in that round" if individuals else "the numbers of all groups in that round"
    shift = f", {'plus' if game.offset > 0 else 'minus'} {_exact_text(abs(game.offset))}" if game.offset else ""
    win_by = "is nearest to" if game.tolerance is None else f"is within {_exact_text(game.tolerance)} of"
    told = {
        "players": game.players,
        "count": str(count),
        "others": str(count - 1),
        "low": _exact_text(game.low),
        "high": _exact_text(game.high),
        "multiplier": game.multiplier,
        "offset": _exact_text(game.offset),
        "aggregate": aggregate,
        "target_rule": f"{game.multiplier} times the {aggregate} of {all_numbers}{shift}",
        "shift": shift,
        "win_rule": f"{'Whoever' if individuals else 'A group whose number'} {win_by} the target wins the round.",
    }
    if individuals:  # whole tellings of the rules that speak of nobody else
        told |= {"win_by": win_by, "all_numbers": all_numbers} | multiplier_forms(game.multiplier)
    else:
        told["group_count"] = str(groups)
    if game.offset:
        added = "added" if game.offset > 0 else "taken away"
        told["shift_rule"] = f"{_exact_text(abs(game.offset))} is {added} after multiplying"
    if game.aggregate == "median":
        told["median_rule"] = "The median is the number in the middle when all are put in order, not the average."
    return told


def multiplier_forms(multiplier: str) -> dict[str, str]:
    """A multiplier as fraction, decimal, percent and words, as far as it has that form exactly."""
    above, _, below = multiplier.partition("/")
    value = Fraction(above) / Fraction(below or 1)
    forms = {"fraction": str(value)}
    decimal = Decimal(value.numerator) / Decimal(value.denominator)
    if Fraction(decimal) == value:
        forms["decimal"] = f"{decimal:f}"
        forms["percent"] = f"{(100 * decimal).normalize():f}%"
    if value.numerator < len(_CARDINALS) and 2 <= value.denominator < len(_ORDINALS):
        ending = "" if value.numerator == 1 else "s"
        ordinal = "halve" if ending and value.denominator == 2 else _ORDINALS[value.denominator]
        forms["words"] = f"{_CARDINALS[value.numerator]} {ordinal}{ending}"
    return forms


def number_text(value: float) -> str:
    """A number as people write it, with two decimals at most: `50`, `33.33`, `0.5`."""
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")


def _exact_text(value: float) -> str:
    """A number of the rules, with all its decimals, so that nobody is told other rules than those that score."""
    return np.format_float_positional(value + 0.0, trim="-")
