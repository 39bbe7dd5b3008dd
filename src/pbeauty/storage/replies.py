"""What the ranks write of a round: guesses that are not gathered, and replies, each in files that nobody changes again.

Plain HDF5 like run.h5, which refers to them. A file is put together in memory, so large blocks have several.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t
from numpy.typing import NDArray

from pbeauty.game.records import Purpose, Replies, Rows
from pbeauty.game.rules import Status
from pbeauty.storage.hdf5 import checked, describe, replaced, writing

REPLIES = "replies"
GUESSES = "guesses"
CHUNK, REPLY_CHUNK = 1 << 16, 1 << 20
_TOKEN_CHUNK = 1 << 17
_ROWS_PER_FILE = 1 << 22
"""Participants whose rows are in one file."""
_BYTES_PER_FILE = 1 << 25
"""Of replies that are in one file."""
_PER_REPLY = 25
"""Bytes of a sealed reply besides its text and tokens."""
NOTHING = {"guess": np.nan, "status": Status.FAILED}
"""What a lost file leaves behind, which must not pass for a guess; 0 for all else."""

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


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Consecutive participants whose rows are in a file of their own: start..stop-1."""

    path: str
    """Relative to the run's folder."""
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Sealed:
    """What one rank has written of a round."""

    replies: list[str] = dataclasses.field(default_factory=list)
    """Paths relative to the run's folder; empty where nothing was said."""
    guesses: list[Stretch] = dataclasses.field(default_factory=list)
    """Where rows are not gathered."""


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


def seal_guesses(folder: Path, round_index: int, stretches: Sequence[tuple[int, int]], rows: Rows) -> list[Stretch]:
    """Writes one block's rows of a round, to as many files as keep each small in memory.

    Args:
        folder: the run's.
        round_index: from 0.
        stretches: the participants of the block, as (start, stop) in id order.
        rows: theirs.

    Raises:
        StoreError: if they cannot be written.
    """
    written, at = [], 0
    for first, last in stretches:
        for start in range(first, last, _ROWS_PER_FILE):
            stop = min(start + _ROWS_PER_FILE, last)
            stretch = Stretch(f"{GUESSES}/{round_index + 1:04d}/{start:09d}.h5", start, stop)
            path = folder / stretch.path
            _make_folder_of(path)
            with replaced(path) as file:
                for name, values in rows.items():
                    describe(checked(file, name, values[at : at + stop - start], CHUNK), *PER_PARTICIPANT[name])
                file["status"].attrs["labels"] = [status.name.lower() for status in Status]
            written.append(stretch)
            at += stop - start
    return written


def index_guesses(folder: Path, round_index: int, columns: Mapping[str, np.dtype], stretches: Sequence[Stretch]) -> str:
    """Writes the file that makes one array of all blocks' rows of a round: virtual datasets, which h5py reads as any.

    One for each round, so that what run.h5 has to say of it does not grow with the ranks.

    Args:
        folder: the run's.
        round_index: from 0.
        columns: the type of each column that every stretch has.
        stretches: all of the round's, in any order.

    Returns:
        Its path relative to `folder`.

    Raises:
        StoreError: if it cannot be written.
    """
    number = f"{round_index + 1:04d}"
    count = max(stretch.stop for stretch in stretches)
    with replaced(folder / GUESSES / f"{number}.h5") as file:
        for name, kind in columns.items():
            describe(_virtual(file, name, kind, count, stretches), *PER_PARTICIPANT[name])
        file["status"].attrs["labels"] = [status.name.lower() for status in Status]
    return f"{GUESSES}/{number}.h5"


def _virtual(file: h5py.File, name: str, kind: np.dtype, count: int, stretches: Sequence[Stretch]) -> h5py.Dataset:
    """As h5py.VirtualLayout, which takes ten times as long for each stretch: a thousand ranks have a thousand."""
    whole, created = h5s.create_simple((count,)), h5p.create(h5p.DATASET_CREATE)
    created.set_fill_value(np.array(NOTHING.get(name, 0), kind))
    for one in stretches:
        whole.select_hyperslab((one.start,), (one.stop - one.start,))
        path = one.path.removeprefix(f"{GUESSES}/")
        created.set_virtual(whole, path.encode(), name.encode(), h5s.create_simple((one.stop - one.start,)))
    whole.select_all()
    h5d.create(file.id, name.encode(), h5t.py_create(kind), whole, dcpl=created)
    return file[name]


def _make_folder_of(path: Path) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
