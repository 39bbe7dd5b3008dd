"""What the ranks write of a round: the replies of their participants, in files that nobody changes again.

They are plain HDF5 like run.h5, which links them. A file is put together in memory, so a large block has several.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty.game.records import Purpose, Replies
from pbeauty.storage.hdf5 import checked, describe, replaced, writing

REPLIES = "replies"
CHUNK, REPLY_CHUNK = 1 << 16, 1 << 20
_TOKEN_CHUNK = 1 << 17
_BYTES_PER_FILE = 1 << 25
"""Of replies that are in one file."""
_PER_REPLY = 25
"""Bytes of a sealed reply besides its text and tokens."""

PER_PARTICIPANT = {
    "guess": ("units of the game", "the participant's guess; NaN where there is none"),
    "status": ("code", "what became of the reply; the attribute `labels` names the codes"),
    "forgotten": ("rounds", "oldest rounds left out of the prompt to fit the model's context"),
    "prompt_tokens": ("tokens", "prompt tokens of all calls for the participant in the round"),
    "cached_tokens": ("tokens", "those of them that the engine's prefix cache served"),
    "output_tokens": ("tokens", "tokens sampled in all calls for the participant in the round"),
}
_REPLIES = {
    "participant": ("id", "who replied; ascending, with a participant's calls in order"),
    "purpose": ("code", "what the call was for; the attribute `labels` names the codes"),
    "text": ("UTF-8 bytes", "all replies, one after the other"),
    "text_offsets": ("bytes", "reply r is text[text_offsets[r]:text_offsets[r + 1]]"),
    "tokens": ("token ids", "all replies as sampled, one after the other"),
    "token_offsets": ("tokens", "reply r is tokens[token_offsets[r]:token_offsets[r + 1]]"),
}


def seal_replies(folder: Path, round_index: int, first_participant: int, replies: Replies) -> list[str]:
    """Writes one block's replies of one round, to as many files as keep each small in memory.

    Args:
        folder: the run's.
        round_index: from 0.
        first_participant: of the block.
        replies: in any order; a participant's in that of its calls.

    Returns:
        Paths relative to `folder`, in the order of participants. A file is named by the first that may be in it.

    Raises:
        StoreError: if they cannot be written.
    """
    participant, purpose = np.array(replies.participant, np.uint64), np.array(replies.purpose, np.uint8)
    order = np.argsort(participant, kind="stable")
    sizes = (replies.text.lengths() + 4 * replies.tokens.lengths() + _PER_REPLY)[order]
    written = []
    for first, last in _pieces(participant[order], sizes):
        rows = order[first:last]
        text, text_offsets = replies.text.take(rows)
        tokens, token_offsets = replies.tokens.take(rows)
        columns: tuple[tuple[str, NDArray[Any], int], ...] = (
            ("participant", participant[rows], REPLY_CHUNK),
            ("purpose", purpose[rows], REPLY_CHUNK),
            ("text", text, REPLY_CHUNK),
            ("text_offsets", text_offsets, REPLY_CHUNK),
            ("tokens", tokens, _TOKEN_CHUNK),
            ("token_offsets", token_offsets, REPLY_CHUNK),
        )
        begin = int(participant[rows[0]]) if written else first_participant
        relative = f"{REPLIES}/{round_index + 1:04d}/{begin:09d}.h5"
        path = folder / relative
        _make_folder_of(path)
        with replaced(path) as file:
            for name, values, chunk in columns:
                describe(checked(file, name, values, chunk), *_REPLIES[name])
            file["purpose"].attrs["labels"] = [purpose.name.lower() for purpose in Purpose]
        written.append(relative)
    return written


def _pieces(participant: NDArray[np.uint64], sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Replies in the order of participants, in pieces of about `_BYTES_PER_FILE`: (first, last) of each, at least one.

    A participant's replies are never in two of them.
    """
    heads = np.flatnonzero(np.diff(participant, prepend=participant[:1] + 1))
    piece = ((np.cumsum(sizes) - sizes) // _BYTES_PER_FILE)[heads]
    cuts = heads[np.flatnonzero(np.diff(piece)) + 1]
    return pairwise([0, *cuts.tolist(), len(participant)])


def _make_folder_of(path: Path) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
