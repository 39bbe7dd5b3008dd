"""The replies of a round: each rank writes those of its block, to files that nobody changes again, and reads them back.

Every round adds a reply to each conversation. Once stored it need not stay in memory: a block keeps where each reply
is, and holds as many as it is walking through.

They are plain HDF5 like run.h5, which links them. A file is put together in memory, so a large block has several.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty.errors import RunFileError
from pbeauty.game.records import Purpose, Ragged, Replies, gather
from pbeauty.storage.hdf5 import (
    describe,
    open_again,
    open_file,
    read_errors,
    replaced,
    stored_file,
    write_array,
    write_errors,
)
from pbeauty.storage.schema import LABELS, PER_REPLY, REPLY_CHUNK, StoredFile, reply_file
from pbeauty.storage.validation import check_replies

_TOKEN_CHUNK = 1 << 17
_TOKENS_AT_ONCE = 1 << 17
"""Token ids that are read at once, about."""
_FEWEST = 1 << 10
"""Participants whose token ids are read at once, at least."""
_HELD = 4
"""Pieces of a round that are in memory: the one that is being walked through, and those before it.

Together they have more participants than an engine has in flight, so that whoever is asked again is still at hand.
"""
_BYTES_PER_FILE = 1 << 25
"""Of replies that are in one file."""
_PER_REPLY = 25
"""Bytes of a stored reply besides its text and tokens."""


@dataclass(frozen=True)
class AnswerPositions:
    """Where the last answers of some participants lie in one file of stored replies."""

    path: Path
    participants: NDArray[np.int64]
    """Ids, ascending."""
    starts: NDArray[np.int64]
    """int64[answer]: where its token ids begin in the file."""
    stops: NDArray[np.int64]


def write_replies(
    folder: Path, run_id: str, round_index: int, first_participant: int, replies: Replies
) -> tuple[list[StoredFile], list[AnswerPositions]]:
    """Writes one block's replies of one round, to as many files as keep each small in memory.

    Args:
        folder: the run's.
        run_id: the run's.
        round_index: from 0.
        first_participant: of the block.
        replies: in any order; a participant's in that of its calls.

    Returns:
        The files, in the order of participants, and where in each of them the last answers are. A file is named by
        the first participant that may be in it.

    Raises:
        RunFileError: if they cannot be written.
    """
    participant, purpose = np.array(replies.participant, np.uint64), np.array(replies.purpose, np.uint8)
    order = np.argsort(participant, kind="stable")
    sizes = (replies.text.lengths() + 4 * replies.tokens.lengths() + _PER_REPLY)[order]
    stored: list[StoredFile] = []
    positions = []
    for first, last in _pieces(participant[order], sizes):
        rows = order[first:last]
        text, text_offsets = replies.text.take(rows)
        tokens, token_offsets = replies.tokens.take(rows)
        columns: dict[str, NDArray[Any]] = {
            "participant": participant[rows],
            "purpose": purpose[rows],
            "text": text,
            "text_offsets": text_offsets,
            "tokens": tokens,
            "token_offsets": token_offsets,
        }
        begin = int(participant[rows[0]]) if stored else first_participant
        relative = reply_file(round_index, begin)
        path = folder / relative
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as file:
            describe(file, run_id=run_id, round=round_index + 1, first_participant=begin)
            for name, values in columns.items():
                chunk = _TOKEN_CHUNK if name == "tokens" else REPLY_CHUNK
                write_array(file, name, values, PER_REPLY[name], chunk)
            describe(file["purpose"], labels=LABELS["purpose"])
        stored.append(stored_file(folder, relative))
        ids, answer = last_answers(participant[rows], purpose[rows])
        positions.append(AnswerPositions(path, ids, token_offsets[answer], token_offsets[answer + 1]))
    return stored, positions


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
    """Who answered, and the row of everybody's last answer.

    A model's own reading of an answer, an extraction, is none.

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


@dataclass(frozen=True)
class PendingReplies:
    """The answers of a round that is not stored yet."""

    tokens: Ragged
    rows: NDArray[np.int64]
    """int64[slot]: of `tokens`."""

    def __getitem__(self, slot: int) -> NDArray[np.int32]:
        """The token ids of the last answer of the participant at `slot`."""
        return self.tokens[self.rows[slot]]


class StoredReplies:
    """The last answers of a stored round, by slot."""

    def __init__(
        self,
        positions: Iterable[AnswerPositions],
        participants: NDArray[np.int64],
        asked: NDArray[np.bool_] | None = None,
    ) -> None:
        """Takes note of where every answer is.

        Args:
            positions: of the answers in each file.
            participants: ids by slot, ascending.
            asked: who was asked in that round, bool[slot]; None for all.

        Raises:
            LookupError: if the answer of somebody who was asked is in none of the files.
        """
        files = list(positions)
        ids = np.concatenate([one.participants for one in files] or [np.empty(0, np.int64)])
        order = np.argsort(ids, kind="stable")
        slots = np.arange(len(participants)) if asked is None else np.flatnonzero(asked)
        if not np.array_equal(ids[order], participants[slots]):
            raise LookupError
        self._paths = [one.path for one in files]
        self._file = np.full(len(participants), -1, np.int32)  # of nobody
        self._starts, self._stops = np.zeros((2, len(participants)), np.int64)
        if files:
            numbers = [np.full(len(one.participants), index, np.int32) for index, one in enumerate(files)]
            self._file[slots] = np.concatenate(numbers)[order]
            self._starts[slots] = np.concatenate([one.starts for one in files])[order]
            self._stops[slots] = np.concatenate([one.stops for one in files])[order]
        tokens = max(1.0, float(np.mean(self._stops - self._starts))) if len(participants) else 1.0
        self._size = max(_FEWEST, int(_TOKENS_AT_ONCE / tokens))
        self._pieces: OrderedDict[int, Ragged] = OrderedDict()

    def __getitem__(self, slot: int) -> NDArray[np.int32]:
        """The token ids of the last answer of the participant at `slot`; none of one who was not asked.

        Raises:
            RunFileError: if the file has been damaged or lost since.
        """
        number, row = divmod(slot, self._size)
        if number not in self._pieces:
            while len(self._pieces) >= _HELD:
                self._pieces.popitem(last=False)
            self._pieces[number] = self._read(slice(number * self._size, (number + 1) * self._size))
        self._pieces.move_to_end(number)
        return self._pieces[number][row]

    def _read(self, slots: slice) -> Ragged:
        file, starts, stops = self._file[slots], self._starts[slots].copy(), self._stops[slots].copy()
        flats: list[NDArray[np.int32]] = [np.empty(0, np.int32)]
        size = 0
        for index in np.unique(file[file >= 0]).tolist():
            mine, path = file == index, self._paths[index]
            first, last = int(starts[mine].min()), int(stops[mine].max())
            with read_errors(path), open_again(path) as replies:
                flats.append(replies["tokens"][first:last].astype(np.int32, copy=False))
            if len(flats[-1]) != last - first:
                raise RunFileError(f"{path}: the stored replies have been altered while the run was played")
            starts[mine] += size - first
            stops[mine] += size - first
            size += last - first
        return Ragged.of(*gather(np.concatenate(flats), starts, stops))


def stored_replies(
    folder: Path,
    stored: Sequence[StoredFile],
    participants: NDArray[np.int64],
    asked: NDArray[np.bool_] | None = None,
) -> StoredReplies:
    """The answers of participants in a finished round, from which their conversations go on.

    Args:
        folder: the run's.
        stored: the round's files of replies, in order; each is named by the first participant that may be in it.
        participants: ids, ascending.
        asked: who of them was asked in that round; None for all.

    Returns:
        Token ids by position in `participants`.

    Raises:
        RunFileError: if a reply is missing or damaged.
    """
    found, missing = [], len(participants) if asked is None else int(asked.sum())
    for one in reversed(stored):
        if not missing:
            break
        if int(Path(one.path).stem) > participants[-1]:
            continue
        path = folder / one.path
        with open_file(path, one.digest) as file, read_errors(path):
            check_replies(file)
            ids, last = last_answers(file["participant"][:], file["purpose"][:])
            offsets = file["token_offsets"][:]
        wanted = np.isin(ids, participants, assume_unique=True)
        if wanted.any():
            last = last[wanted]
            found.append(AnswerPositions(path, ids[wanted], offsets[last], offsets[last + 1]))
            missing -= len(last)
    try:
        return StoredReplies(found, participants, asked)
    except LookupError:
        where = Path(stored[0].path).parent if stored else "run.h5"
        raise RunFileError(f"{folder / where}: the replies of some participants are missing") from None
