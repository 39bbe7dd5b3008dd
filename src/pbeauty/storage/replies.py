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

import h5py
import numpy as np
from numpy.typing import NDArray

from pbeauty.errors import RunFileError
from pbeauty.game.records import Purpose, Ragged, Replies, gather
from pbeauty.storage.hdf5 import checked, describe, replaced, writing
from pbeauty.storage.schema import PER_REPLY, REPLIES, REPLY_CHUNK
from pbeauty.storage.validation import open_replies, reading

_TOKEN_CHUNK = 1 << 17
_TOKENS_AT_ONCE = 1 << 17
"""Of a stretch, about."""
_FEWEST = 1 << 10
"""Participants of a stretch at least."""
_HELD = 4
"""Stretches of a round that are in memory: the one that is being walked through, and those before it.

Together they have more participants than an engine has in flight, so that whoever is asked again is still at hand.
"""
_CHECKED_AT_ONCE = 1 << 20
_BYTES_PER_FILE = 1 << 25
"""Of replies that are in one file."""
_PER_REPLY = 25
"""Bytes of a stored reply besides its text and tokens."""


def write_replies(
    folder: Path, round_index: int, first_participant: int, replies: Replies
) -> tuple[list[str], list[AnswerPositions]]:
    """Writes one block's replies of one round, to as many files as keep each small in memory.

    Args:
        folder: the run's.
        round_index: from 0.
        first_participant: of the block.
        replies: in any order; a participant's in that of its calls.

    Returns:
        The files as paths relative to `folder`, in the order of participants, and where in each of them the last
        answers are. A file is named by the first participant that may be in it.

    Raises:
        RunFileError: if they cannot be written.
    """
    participant, purpose = np.array(replies.participant, np.uint64), np.array(replies.purpose, np.uint8)
    order = np.argsort(participant, kind="stable")
    sizes = (replies.text.lengths() + 4 * replies.tokens.lengths() + _PER_REPLY)[order]
    files: list[str] = []
    positions = []
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
        begin = int(participant[rows[0]]) if files else first_participant
        relative = f"{REPLIES}/{round_index + 1:04d}/{begin:09d}.h5"
        path = folder / relative
        _make_folder_of(path)
        with replaced(path) as file:
            for name, values, chunk in columns:
                describe(checked(file, name, values, chunk), *PER_REPLY[name])
            file["purpose"].attrs["labels"] = [purpose.name.lower() for purpose in Purpose]
        files.append(relative)
        ids, answer = last_answers(participant[rows], purpose[rows])
        positions.append(AnswerPositions(path, ids, token_offsets[answer], token_offsets[answer + 1]))
    return files, positions


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


# --- reading back -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PendingReplies:
    """What was said in a round that is not stored yet."""

    tokens: Ragged
    rows: NDArray[np.int64]
    """int64[slot]: of `tokens`."""

    def __getitem__(self, slot: int) -> NDArray[np.int32]:
        """The token ids of what the participant at `slot` said."""
        return self.tokens[self.rows[slot]]


@dataclass(frozen=True)
class AnswerPositions:
    """Where the last answers of some participants lie in one file of stored replies."""

    path: Path
    participants: NDArray[np.int64]
    """Ids, ascending."""
    starts: NDArray[np.int64]
    """int64[answer]: where its token ids begin in the file."""
    stops: NDArray[np.int64]


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


def find_answers(path: Path, file: h5py.Group, participants: NDArray[np.int64]) -> AnswerPositions:
    """Where a file of stored replies has the last answers of participants: what conversations go on from.

    Args:
        path: of the file.
        file: its content.
        participants: ids, ascending; those who are not in the file are passed over.

    Raises:
        RunFileError: if it is damaged.
    """
    with reading(path):
        ids, last = last_answers(file["participant"][:], file["purpose"][:])
        wanted = np.isin(ids, participants, assume_unique=True)
        ids, last = ids[wanted], last[wanted]
        offsets = file["token_offsets"][:]
        return AnswerPositions(path, ids, offsets[last], offsets[last + 1])


def check_tokens(path: Path, block: h5py.Group) -> None:
    """Reads all token ids of a file of stored replies once, and so holds them against their checksums.

    Raises:
        RunFileError: if they are damaged.
    """
    with reading(path):
        for start in range(0, len(block["tokens"]), _CHECKED_AT_ONCE):
            block["tokens"][start : start + _CHECKED_AT_ONCE]


class StoredReplies:
    """What was said in a stored round, by slot."""

    def __init__(self, found: Iterable[AnswerPositions], participants: NDArray[np.int64]) -> None:
        """Takes note of where every answer is.

        Args:
            found: the files.
            participants: ids by slot, ascending.

        Raises:
            LookupError: if somebody's answer is in none of the files.
        """
        found = list(found)
        everyone = np.concatenate([one.participants for one in found] or [np.empty(0, np.int64)])
        order = np.argsort(everyone, kind="stable")
        if not np.array_equal(everyone[order], participants):
            raise LookupError
        self._paths = [one.path for one in found]
        files = [np.full(len(one.participants), index, np.int32) for index, one in enumerate(found)]
        self._file = np.concatenate(files or [np.empty(0, np.int32)])[order]
        self._starts = np.concatenate([one.starts for one in found] or [np.empty(0, np.int64)])[order]
        self._stops = np.concatenate([one.stops for one in found] or [np.empty(0, np.int64)])[order]
        tokens = max(1.0, float(np.mean(self._stops - self._starts))) if len(participants) else 1.0
        self._size = max(_FEWEST, int(_TOKENS_AT_ONCE / tokens))
        self._stretches: OrderedDict[int, Ragged] = OrderedDict()

    def __getitem__(self, slot: int) -> NDArray[np.int32]:
        """The token ids of what the participant at `slot` said.

        Raises:
            RunFileError: if the file has been damaged or lost since.
        """
        number, row = divmod(slot, self._size)
        if number not in self._stretches:
            while len(self._stretches) >= _HELD:
                self._stretches.popitem(last=False)
            self._stretches[number] = self._read(slice(number * self._size, (number + 1) * self._size))
        self._stretches.move_to_end(number)
        return self._stretches[number][row]

    def _read(self, slots: slice) -> Ragged:
        file, starts, stops = self._file[slots], self._starts[slots].copy(), self._stops[slots].copy()
        flats: list[NDArray[np.int32]] = []
        size = 0
        for index in np.unique(file).tolist():
            mine, path = file == index, self._paths[index]
            first, last = int(starts[mine].min()), int(stops[mine].max())
            with reading(path), h5py.File(path, "r") as block:
                flats.append(block["tokens"][first:last].astype(np.int32, copy=False))
            if len(flats[-1]) != last - first:
                raise RunFileError(f"{path}: the stored replies have been altered while the run was played")
            starts[mine] += size - first
            stops[mine] += size - first
            size += last - first
        return Ragged.of(*gather(np.concatenate(flats), starts, stops))


def stored_replies(
    folder: Path, round_index: int, names: Sequence[str], participants: NDArray[np.int64]
) -> StoredReplies:
    """What participants said in a finished round, as far as their conversations go on from it.

    Args:
        folder: the run's.
        round_index: from 0.
        names: of the round's files of replies, in order; each is named by the first participant that may be in it.
        participants: ids, ascending.

    Returns:
        Token ids by position in `participants`. They have been held against their checksums.

    Raises:
        RunFileError: if a reply is missing or damaged.
    """
    found, missing = [], len(participants)
    for name in reversed(names):
        if not missing:
            break
        if int(name) > participants[-1]:
            continue
        path = folder / REPLIES / f"{round_index + 1:04d}" / f"{name}.h5"
        with open_replies(path) as file:
            answers = find_answers(path, file, participants)
            if len(answers.participants):
                check_tokens(path, file)
                found.append(answers)
                missing -= len(answers.participants)
    try:
        return StoredReplies(found, participants)
    except LookupError:
        raise RunFileError(f"replies of round {round_index + 1} are missing from {folder / REPLIES}") from None
