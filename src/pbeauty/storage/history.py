"""What participants said in finished rounds: read back from the sealed replies a stretch at a time.

Every round adds a reply to each conversation. Since it has been sealed by then, it need not stay in memory: a block
keeps where each reply is, and holds as many as it is walking through.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from pbeauty.errors import ConfigError
from pbeauty.game.records import Purpose, Ragged, gather
from pbeauty.storage.replies import REPLIES
from pbeauty.storage.validation import open_replies, reading

_TOKENS_AT_ONCE = 1 << 17
"""Of a stretch, about."""
_FEWEST = 1 << 10
"""Participants of a stretch at least."""
_HELD = 4
"""Stretches of a round that are in memory: the one that is being walked through, and those before it.

Together they have more participants than an engine has in flight, so that whoever is asked again is still at hand.
"""
_CHECKED_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class PendingReplies:
    """What was said in a round that is not sealed yet."""

    tokens: Ragged
    rows: NDArray[np.int64]
    """int64[slot]: of `tokens`."""

    def __getitem__(self, slot: int) -> NDArray[np.int32]:
        """The token ids of what the participant at `slot` said."""
        return self.tokens[self.rows[slot]]


@dataclass(frozen=True)
class Answers:
    """The last answers of some participants in one file of sealed replies."""

    path: Path
    participants: NDArray[np.int64]
    """Ids, ascending."""
    starts: NDArray[np.int64]
    """int64[answer]: where its token ids begin in the file."""
    stops: NDArray[np.int64]


def last_answers(block: h5py.Group) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Who answered in a file of sealed replies, ids ascending, and the row of everybody's last answer in it.

    A model's own reading of an answer, an extraction, is none.
    """
    ids = block["participant"][:].astype(np.int64)
    spoken = np.flatnonzero(block["purpose"][:] != Purpose.EXTRACTION)
    last = spoken[np.append(np.flatnonzero(np.diff(ids[spoken])), len(spoken) - 1)] if len(spoken) else spoken
    return ids[last], last


def find_answers(path: Path, block: h5py.Group, participants: NDArray[np.int64]) -> Answers:
    """Where a file of sealed replies has the last answers of participants: what conversations go on from.

    Args:
        path: of the file.
        block: its content.
        participants: ids, ascending; those who are not in the file are passed over.

    Raises:
        ConfigError: if it is damaged.
    """
    with reading(path):
        ids, last = last_answers(block)
        wanted = np.isin(ids, participants, assume_unique=True)
        ids, last = ids[wanted], last[wanted]
        offsets = block["token_offsets"][:]
        return Answers(path, ids, offsets[last], offsets[last + 1])


def check_tokens(path: Path, block: h5py.Group) -> None:
    """Reads all token ids of a file of sealed replies once, and so holds them against their checksums.

    Raises:
        ConfigError: if they are damaged.
    """
    with reading(path):
        for start in range(0, len(block["tokens"]), _CHECKED_AT_ONCE):
            block["tokens"][start : start + _CHECKED_AT_ONCE]


class StoredReplies:
    """What was said in a sealed round, by slot."""

    def __init__(self, found: Iterable[Answers], participants: NDArray[np.int64]) -> None:
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
            ConfigError: if the file has been damaged or lost since.
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
                raise ConfigError(f"{path}: the sealed replies have been altered while the run was played")
            starts[mine] += size - first
            stops[mine] += size - first
            size += last - first
        return Ragged.of(*gather(np.concatenate(flats), starts, stops))


def look_up(paths: Iterable[Path], participants: NDArray[np.int64]) -> StoredReplies:
    """What a block said in a round that it has just sealed itself.

    Args:
        paths: of the files.
        participants: ids by slot, ascending.
    """
    found = []
    for path in paths:
        with reading(path), h5py.File(path, "r") as block:
            found.append(find_answers(path, block, participants))
    return StoredReplies(found, participants)


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
        ConfigError: if a reply is missing or damaged.
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
        raise ConfigError(f"replies of round {round_index + 1} are missing from {folder / REPLIES}") from None
