"""Finished replies of the round that is being played, one checksummed record each, in append-only files.

Each rank that hosts language models appends to a file of its own and flushes after every step in which replies
finished. A run that was killed reads all of them back, whatever ranks wrote them, and asks nobody again. Layout, all
little-endian:

    magic (4 bytes) · length of the payload (u32) · CRC-32 of the payload (u32) · payload
    payload: participant (u64) · call (u16) · truncated (u8) · prompt tokens (u32) · cached tokens (u32)
             · token ids (i32 each)
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pbeauty.game.records import Ragged, gather
from pbeauty.storage.hdf5 import write_errors
from pbeauty.storage.schema import JOURNALS

_MAGIC = b"\xb5pbr"
_FRAME = struct.Struct("<4sII")
_FIELDS = struct.Struct("<QHBII")
_HEAD = np.dtype(
    {
        "names": ["magic", "length", "checksum", "participant", "call", "truncated", "prompt_tokens", "cached_tokens"],
        "formats": ["S4", "<u4", "<u4", "<u8", "<u2", "u1", "<u4", "<u4"],
    }
)
"""Frame and fields as numpy reads them: what comes before the tokens."""
_CALLS = 1 << 16
_LONGEST = 1 << 26
"""Bytes of payload that no genuine record exceeds: a damaged length must not exhaust memory."""


class Record(NamedTuple):
    """One finished reply, as much of it as cannot be computed again."""

    participant: int
    call: int
    """Which of the participant's calls of the round this is, from 0."""
    truncated: bool
    prompt_tokens: int
    cached_tokens: int
    tokens: list[int]


class Journal:
    """The file that one rank appends to during one round; a context manager, which closes it."""

    def __init__(self, path: Path) -> None:
        """Creates the file; `path` must be new.

        Raises:
            RunFileError: if it cannot be created.
        """
        self.path = path
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("xb", buffering=1 << 20)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def append(self, record: Record) -> None:
        """Adds a reply; it is safe from a crash of the program after the next `flush`."""
        *fields, tokens = record
        payload = _FIELDS.pack(*fields) + np.array(tokens, "<i4").tobytes()
        self._file.write(_FRAME.pack(_MAGIC, len(payload), zlib.crc32(payload)) + payload)

    def flush(self) -> None:
        """Hands what was appended to the operating system.

        Raises:
            RunFileError: if it does not take it, on a full disk say.
        """
        with write_errors(self.path):
            self._file.flush()

    def close(self) -> None:
        """Makes sure that the records are on the disk itself.

        Raises:
            RunFileError: as `flush`.
        """
        with write_errors(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


class ReplayedReplies:
    """The replies that journals of a round hold for some participants: arrays, however many there are."""

    def __init__(
        self, paths: Iterable[Path], participants: NDArray[np.int64], vocabulary: int, warn: Callable[[str], None]
    ) -> None:
        """Reads journals; damaged records are passed over, with one warning for each file.

        Args:
            paths: the files, in any order.
            participants: ids of those whose replies are wanted here, each below 2**47.
            vocabulary: token ids are below this.
            warn: called with a message for each damaged file.
        """
        heads: list[NDArray[np.void]] = [np.empty(0, _HEAD)]
        tokens: list[NDArray[np.int32]] = [np.empty(0, "<i4")]
        lengths = [np.empty(0, np.int64)]
        for path in paths:
            data = _mapped(path)
            found = list(records(data))
            spans = np.array([span for span in found if span], np.int64).reshape(-1, 2)
            head = _heads(data, spans[:, 0])
            flat, offsets = gather(np.frombuffer(data, np.uint8), spans[:, 0] + _HEAD.itemsize, spans[:, 1])
            ids, offsets = flat.view("<i4"), offsets // 4
            invalid = np.concatenate([[0], np.cumsum((ids < 0) | (ids >= vocabulary))])
            foreign = invalid[offsets[1:]] > invalid[offsets[:-1]]
            if damage := found.count(None) + int(foreign.sum()):
                warn(f"{path}: {damage} damaged or unfinished record(s) left out; their replies are asked for again")
            kept = np.flatnonzero(~foreign & np.isin(head["participant"], participants.astype(np.uint64)))
            heads.append(head[kept])
            tokens.append(gather(ids, offsets[:-1][kept], offsets[1:][kept])[0])
            lengths.append(np.diff(offsets)[kept])
        self._heads = np.concatenate(heads)
        self._tokens = Ragged.of(np.concatenate(tokens), np.concatenate([[0], np.cumsum(np.concatenate(lengths))]))
        keys = _key(self._heads["participant"].astype(np.int64), self._heads["call"].astype(np.int64))
        self._keys, self._rows = np.unique(keys, return_index=True)

    def __len__(self) -> int:
        return len(self._keys)

    def get(self, participant: int, call: int) -> Record | None:
        """The reply to a participant's call, if it is on record."""
        key = _key(participant, call)
        at = self._keys.searchsorted(key)
        if at == len(self._keys) or self._keys[at] != key:
            return None
        row = self._rows[at]
        *_, truncated, prompt_tokens, cached_tokens = self._heads[row].item()
        return Record(participant, call, bool(truncated), prompt_tokens, cached_tokens, self._tokens[row].tolist())


def _mapped(path: Path) -> mmap.mmap | bytes:
    """A file's bytes, read from the disk where they are looked at: a sparse file can claim any size."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(file.fileno()).st_size else b""


def records(data: mmap.mmap | bytes) -> Iterator[tuple[int, int] | None]:
    """Where the records of a journal lie, (start, end) in bytes; None wherever there is no whole record."""
    at, size = 0, len(data)
    while at < size:
        if at + _HEAD.itemsize <= size:
            magic, length, checksum = _FRAME.unpack_from(data, at)
            start, end = at + _FRAME.size, at + _FRAME.size + length
            whole = magic == _MAGIC and _FIELDS.size <= length <= _LONGEST and end <= size
            if whole and not (length - _FIELDS.size) % 4 and zlib.crc32(data[start:end]) == checksum:
                yield at, end
                at = end
                continue
        yield None
        # After damage, reading goes on at the next place that looks like a record.
        at = data.find(_MAGIC, at + 1)
        if at < 0:
            return


def _heads(data: mmap.mmap | bytes, starts: NDArray[np.int64]) -> NDArray[np.void]:
    """Frames and fields of the records that begin at `starts`, _HEAD[record]."""
    if not len(starts):
        return np.empty(0, _HEAD)
    windows = sliding_window_view(np.frombuffer(data, np.uint8), _HEAD.itemsize)
    return np.ascontiguousarray(windows[starts]).view(_HEAD).reshape(-1)


def _key(participant: Any, call: Any) -> Any:
    """One number for a participant's call."""
    return participant * _CALLS + call


def drop_journals(folder: Path, round_index: int) -> None:
    """Deletes the journals of a round whose replies are stored and whose figures are committed."""
    shutil.rmtree(folder / JOURNALS / f"{round_index + 1:04d}", ignore_errors=True)


def journal_path(folder: Path, round_index: int, session: str, rank: int, span: tuple[int, int]) -> Path:
    """The journal of one rank in one round; its name says that it may hold replies of span[0]..span[1] - 1."""
    return folder / JOURNALS / f"{round_index + 1:04d}" / f"{session}-{rank:05d}-{span[0]}-{span[1]}"


def journals(folder: Path, round_index: int, span: tuple[int, int]) -> list[Path]:
    """The journals of a round, in which there may be replies of participants span[0]..span[1] - 1.

    A job with many ranks leaves many: nobody needs to read them all.
    """
    found = []
    for path in sorted((folder / JOURNALS / f"{round_index + 1:04d}").glob("*")):
        named = re.fullmatch(r".+-(\d{1,18})-(\d{1,18})", path.name, re.ASCII)
        elsewhere = named and (int(named[2]) <= span[0] or int(named[1]) >= span[1])
        if path.is_file() and not elsewhere:
            found.append(path)
    return found
