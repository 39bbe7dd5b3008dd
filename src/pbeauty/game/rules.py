"""The vocabulary of a round: what became of each reply, and what the guesses come to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


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


class ReadingRule(IntEnum):
    """Which rule read a participant's guess from the reply; stored as uint8 in `/rounds/reading`."""

    NONE = 0
    """No guess was read: the reply has none, or no language model plays the participant."""
    NUMBER_ALONE = 1
    """The reply, its first line or its last one is a number and nothing else."""
    ANSWER_LINE = 2
    """A line in the form that was asked for, such as `My number: 22`."""
    JSON = 3
    """A field of a JSON object, such as `{"guess": 22}`."""
    BOXED = 4
    r"""A number in a box, a tag or brackets: `\boxed{22}`, `<answer>22</answer>`, `[22]`."""
    OWN_WORDS = 5
    """A sentence in which the participant chooses, such as "I'll go with 22"."""
    EXTRACTION = 6
    """The reply of a second, extraction call."""

    @property
    def strict(self) -> bool:
        """Whether the reply gave the number in a form that leaves nothing to interpret."""
        return self.NUMBER_ALONE <= self <= self.BOXED


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
