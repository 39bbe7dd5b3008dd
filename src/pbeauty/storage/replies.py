"""The replies of a round: each rank writes those of its block, to files that nobody changes again.

They are plain HDF5 like run.h5, which links them. A file is put together in memory, so a large block has several.
Whoever goes on with a run reads back from where its conversations go on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty.errors import RunFileError
from pbeauty.game.records import Purpose, Ragged, Replies, join_stretches
from pbeauty.storage.hdf5 import open_file, read_errors, write_columns
from pbeauty.storage.schema import PER_REPLY, StoredFile, reply_file
from pbeauty.storage.validation import check_replies

_BYTES_PER_FILE = 1 << 25
"""Of replies that are in one file."""
_PER_REPLY = 25
"""Bytes of a stored reply besides its text and tokens."""


def write_replies(
    folder: Path, run_id: str, round_index: int, first_participant: int, replies: Replies
) -> list[StoredFile]:
    """Writes one block's replies of one round, to as many files as keep each small in memory.

    Args:
        folder: the run's, as is `run_id`.
        round_index: from 0.
        first_participant: of the block.
        replies: in any order; a participant's in that of its calls.

    Returns:
        The files, in the order of participants; each is named by the first participant that may be in it.

    Raises:
        RunFileError: if they cannot be written.
    """
    participant, purpose = np.array(replies.participant, np.uint64), np.array(replies.purpose, np.uint8)
    order = np.argsort(participant, kind="stable")
    sizes = (replies.text.lengths() + 4 * replies.tokens.lengths() + _PER_REPLY)[order]
    stored: list[StoredFile] = []
    for first, last in _pieces(participant[order], sizes):
        rows = order[first:last]
        of_rows = participant[rows], purpose[rows], *replies.text.take(rows), *replies.tokens.take(rows)
        columns: dict[str, NDArray[Any]] = dict(zip(PER_REPLY, of_rows, strict=True))  # which are in that order
        begin = int(participant[rows[0]]) if stored else first_participant
        where = {"run_id": run_id, "round": round_index + 1, "first_participant": begin}
        stored.append(write_columns(folder, reply_file(round_index, begin), columns, PER_REPLY, **where))
    return stored


def _pieces(participant: NDArray[np.uint64], sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Replies in the order of participants, in pieces of about `_BYTES_PER_FILE`: (first, last) of each, at least one.

    A participant's replies are never in two of them.
    """
    heads = np.flatnonzero(np.diff(participant, prepend=participant[:1] + 1))
    piece = ((np.cumsum(sizes) - sizes) // _BYTES_PER_FILE)[heads]
    cuts = heads[np.flatnonzero(np.diff(piece)) + 1]
    return pairwise([0, *cuts.tolist(), len(participant)])


# --- reading back -----------------------------------------------------------------------------------------------


def last_answers(
    participant: NDArray[np.integer], purpose: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Who answered, and the row of everybody's last answer; a model's own reading of one, an extraction, is none.

    Args:
        participant: ids by reply, ascending, with a participant's replies in the order of its calls.
        purpose: what each reply was for.

    Returns:
        Ids, ascending; rows.
    """
    answers = np.flatnonzero(purpose != Purpose.EXTRACTION)
    ids = participant[answers].astype(np.int64)
    last = np.flatnonzero(np.diff(ids, append=-1))
    return ids[last], answers[last]


def read_answers(
    folder: Path, stored: Sequence[StoredFile], participants: NDArray[np.int64], asked: NDArray[np.bool_] | None = None
) -> Ragged:
    """The last answers of participants in a finished round, from which their conversations go on.

    Args:
        folder: the run's.
        stored: the round's files of replies, in order; each is named by the first participant that may be in it.
        participants: ids, ascending.
        asked: who of them was asked in that round, bool[participant]; None for all.

    Returns:
        Token ids, int32, by position in `participants`; none of those who were not asked.

    Raises:
        RunFileError: if a reply is missing or damaged.
    """
    slots = np.arange(len(participants)) if asked is None else np.flatnonzero(asked)
    ids, found = [np.empty(0, np.int64)], [(np.empty(0, np.int32), np.zeros(1, np.int64))]
    for one in reversed(stored):
        if sum(map(len, ids)) == len(slots):
            break
        if int(Path(one.path).stem) > participants[-1]:
            continue
        with open_file(folder / one.path, one.digest) as file, read_errors(folder / one.path):
            check_replies(file)
            who, rows = last_answers(file["participant"][:], file["purpose"][:])
            replies = Ragged.of(file["tokens"][:], file["token_offsets"][:])
        mine = np.isin(who, participants[slots], assume_unique=True)
        ids.append(who[mine])
        found.append(replies.take(rows[mine]))
    everybody = np.concatenate(ids)
    order = np.argsort(everybody, kind="stable")
    if not np.array_equal(everybody[order], participants[slots]):
        where = Path(stored[0].path).parent if stored else "run.h5"
        raise RunFileError(f"{folder / where}: the replies of some participants are missing")
    lengths = np.concatenate([np.diff(offsets) for _, offsets in found])
    starts, stops = np.zeros((2, len(participants)), np.int64)
    stops[slots] = np.cumsum(lengths)[order]
    starts[slots] = stops[slots] - lengths[order]
    tokens = np.concatenate([flat.astype(np.int32, copy=False) for flat, _ in found])
    return Ragged.of(*join_stretches(tokens, starts, stops))
