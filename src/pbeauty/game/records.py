"""What passes between the parts during a round: plain records of arrays and numbers."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

COLUMNS = np.dtype(
    [
        ("guess", np.float64),  # NaN where there is none
        ("status", np.uint8),  # a Status
        ("reading", np.uint8),  # a ReadingRule
        ("forgotten", np.uint16),  # oldest rounds left out of the prompt to fit the context
        ("prompt_tokens", np.uint32),  # over all calls of the round, as the next two
        ("cached_tokens", np.uint32),
        ("output_tokens", np.uint32),
    ]
)
"""The columns of a round, by participant."""

WITHOUT_MODEL = ("guess", "status")
"""Those of them that games without language models have."""

Floats = NDArray[np.float64]
Rows = dict[str, NDArray[Any]]
"""A round of several participants: an array for each field of `COLUMNS`, or of `WITHOUT_MODEL`."""

BACKGROUNDS_ROUND = -1
"""The round index that stands for the backgrounds that models write before the first round."""

TOKEN_COUNTS = ("prompt_tokens", "cached_tokens", "output_tokens")
_AT_ONCE = 1 << 13
"""Stretches that are joined at once, since the positions in them take eight times the memory of bytes."""


def new_rows(count: int, *, model: bool) -> Rows:
    """Rows of zeros for `count` participants; `model` says whether language models play in the game."""
    return {name: np.zeros(count, COLUMNS[name]) for name in (COLUMNS.names if model else WITHOUT_MODEL) or ()}


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
    NOT_ASKED = 7
    """The participant's session had ended, with a round without a valid guess."""

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


@dataclass
class Progress:
    """How far a block's round has come."""

    total: int = 0
    """Participants of the block who are asked."""
    done: int = 0
    """Those who have answered."""
    unusable: int = 0
    """Those of them without a valid guess."""
    prompt_tokens: int = 0
    output_tokens: int = 0


class Purpose(IntEnum):
    """What a call to a model was for; stored as uint8."""

    ANSWER = 0
    """The participant's reply to the announcement."""
    RETRY = 1
    """The reply to a repeated request, after one that could not be read."""
    EXTRACTION = 2
    """The model's own reading of the reply before."""


class Reply(NamedTuple):
    """What an engine made of one request."""

    tokens: list[int]
    """The sampled token ids, without the one that ended the reply."""
    truncated: bool
    """Whether `max_tokens` cut the reply off."""
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens that the engine's prefix cache served."""
    text: str = ""
    """What the tokens decode to; a journal does not keep it."""


class Ragged:
    """A growing list of rows, each a run of one flat array; memory is the rows' own plus 8 bytes each."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._flat = array(np.dtype(dtype).char)
        self._offsets = array("q", [0])

    @classmethod
    def of(cls, flat: NDArray, offsets: NDArray[np.int64]) -> Ragged:
        """Rows that exist already, copied: row r is flat[offsets[r]:offsets[r + 1]], and offsets[0] is 0."""
        ragged = cls(flat.dtype)
        ragged._flat.frombytes(flat[: offsets[-1]].tobytes())
        ragged._offsets = array("q", offsets.astype(np.int64).tobytes())
        return ragged

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> array[int]:
        """A copy of row `row`."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return self._flat[self._offsets[row] : self._offsets[row + 1]]

    def lengths(self) -> NDArray[np.int64]:
        """The length of each row, int64[row]."""
        return np.diff(np.asarray(self._offsets))

    def append(self, values: Iterable[int] | bytes) -> int:
        """Adds a row and returns its number."""
        if isinstance(values, bytes):
            self._flat.frombytes(values)
        else:
            self._flat.extend(values)
        self._offsets.append(len(self._flat))
        return len(self._offsets) - 2

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray, NDArray[np.int64]]:
        """The given rows in the given order, as (flat values, offsets[len(rows) + 1])."""
        offsets = np.asarray(self._offsets)
        return join_stretches(np.asarray(self._flat), offsets[:-1][rows], offsets[1:][rows])


def join_stretches(
    flat: NDArray, starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> tuple[NDArray, NDArray[np.int64]]:
    """The stretches flat[starts[r]:stops[r]], one after the other, as (values, offsets[len(starts) + 1])."""
    offsets = np.concatenate([[0], np.cumsum(stops - starts)]).astype(np.int64)
    values = np.empty(offsets[-1], flat.dtype)
    for first in range(0, len(starts), _AT_ONCE):
        rows = slice(first, first + _AT_ONCE)
        begin, end = offsets[rows][0], offsets[1:][rows][-1]
        # Position j of the result lies in stretch r, at j - offsets[r] from its start.
        shift = np.repeat((starts - offsets[:-1])[rows], (stops - starts)[rows])
        values[begin:end] = flat[np.arange(begin, end) + shift]
    return values, offsets


@dataclass
class Replies:
    """Every reply of one round and block, in the order in which they came."""

    participant: list[int] = field(default_factory=list)
    """Participant ids."""
    purpose: list[int] = field(default_factory=list)
    text: Ragged = field(default_factory=lambda: Ragged(np.uint8))
    """UTF-8."""
    tokens: Ragged = field(default_factory=lambda: Ragged(np.int32))

    def __len__(self) -> int:
        return len(self.participant)

    def append(self, participant: int, purpose: Purpose, text: str, tokens: list[int]) -> int:
        """Adds a reply; returns its row."""
        self.participant.append(participant)
        self.purpose.append(purpose)
        self.text.append(text.encode("utf-8", errors="replace"))
        return self.tokens.append(tokens)
