"""What passes between the parts during a round: plain records of arrays and numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty.game.ragged import Ragged

PLAY = np.dtype(
    [
        ("guess", np.float64),  # NaN where there is none
        ("status", np.uint8),  # game.Status
        ("forgotten", np.uint16),  # oldest rounds left out of the prompt to fit the context
        ("prompt_tokens", np.uint32),  # over all calls of the round, as the next two
        ("cached_tokens", np.uint32),
        ("output_tokens", np.uint32),
    ]
)
"""A participant's round."""

Rows = dict[str, NDArray[Any]]
"""A round of several participants, in id order: an array per field of `PLAY`; without a model, only the first two."""

TOKEN_COUNTS = ("prompt_tokens", "cached_tokens", "output_tokens")


def new_rows(count: int, *, model: bool) -> Rows:
    """Rows of zeros for `count` participants; `model` says whether language models play in the game."""
    return {name: np.zeros(count, PLAY[name]) for name in PLAY.names or () if model or name in ("guess", "status")}


@dataclass(frozen=True)
class Announcement:
    """What the moderator tells every rank at the start of a round."""

    round_index: int
    """From 0."""
    quantities: dict[str, float]
    """The quantities of the round before that everybody is told, by name; the winning guess is NaN if nobody won."""
    group_numbers: dict[str, float] = field(default_factory=dict)
    """The number of each group in the round before, where they are told; NaN of a group without a valid guess."""
    ranks: NDArray[np.int32] | None = None
    """int32[participant of the whole population]: own places, where they are told; 0 of those whose guess was none."""


@dataclass
class Progress:
    """How far a block's round has come."""

    total: int = 0
    """Participants of the block."""
    done: int = 0
    """Those who have answered."""
    unusable: int = 0
    """Those of them without a valid guess."""
    prompt_tokens: int = 0
    output_tokens: int = 0

    def pack(self) -> NDArray[np.int64]:
        """As int64[5], to be sent."""
        return np.array(list(vars(self).values()), np.int64)

    @classmethod
    def unpack(cls, numbers: NDArray[np.int64]) -> Progress:
        """The inverse of `pack`."""
        return cls(*(int(number) for number in numbers))


class Purpose(IntEnum):
    """What a call to a model was for; stored as uint8."""

    ANSWER = 0
    """The participant's reply to the announcement."""
    RETRY = 1
    """The reply to a repeated request, after one that could not be read."""
    EXTRACTION = 2
    """The model's own reading of the reply before."""


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
