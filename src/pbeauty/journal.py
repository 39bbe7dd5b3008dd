"""Finished replies of the round that is being played, one checksummed record each, in append-only files.

Each rank that hosts language models appends to a file of its own and flushes after every step in which replies
finished. A run that was killed reads all of them back, whatever ranks wrote them, and asks nobody again. Layout, all
little-endian:

    magic (4 bytes) · length of the payload (u32) · CRC-32 of the payload (u32) · payload
    payload: participant (u64) · call (u16) · truncated (u8) · prompt tokens (u32) · cached tokens (u32)
             · token ids (i32 each)
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pbeauty.store import writing

_MAGIC = b"\xb5pbr"
_FRAME = struct.Struct("<4sII")
_FIELDS = struct.Struct("<QHBII")
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
    """The file that one rank appends to during one round."""

    def __init__(self, path: Path) -> None:
        """Creates the file; `path` must be new.

        Raises:
            StoreError: if it cannot be created.
        """
        self.path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("xb", buffering=1 << 20)

    def append(self, record: Record) -> None:
        """Adds a reply; it is safe from a crash of the program after the next `flush`."""
        *fields, tokens = record
        payload = _FIELDS.pack(*fields) + np.array(tokens, "<i4").tobytes()
        self._file.write(_FRAME.pack(_MAGIC, len(payload), zlib.crc32(payload)) + payload)

    def flush(self) -> None:
        """Hands what was appended to the operating system.

        Raises:
            StoreError: if it does not take it, on a full disk say.
        """
        with writing(self.path):
            self._file.flush()

    def close(self) -> None:
        """Makes sure that the records are on the disk itself.

        Raises:
            StoreError: as `flush`.
        """
        with writing(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


class Recorded:
    """The replies that journals of a round hold for some participants."""

    def __init__(
        self, paths: Iterable[Path], keep: Callable[[int], bool], vocabulary: int, warn: Callable[[str], None]
    ) -> None:
        """Reads journals; damaged records are passed over, each file's damage told once.

        Args:
            paths: the files, in any order.
            keep: whether a participant id is wanted here.
            vocabulary: token ids are below this.
            warn: is told of damage.
        """
        self._records: dict[tuple[int, int], Record] = {}
        for path in paths:
            damage = 0
            for record in read(path):
                if record is None or not all(0 <= token < vocabulary for token in record.tokens):
                    damage += 1
                elif keep(record.participant):
                    self._records[record.participant, record.call] = record
            if damage:
                warn(f"{path}: {damage} damaged or unfinished record(s) left out; their replies are asked for again")

    def __len__(self) -> int:
        return len(self._records)

    def get(self, participant: int, call: int) -> Record | None:
        """The reply to a participant's call, if it is on record."""
        return self._records.get((participant, call))


def read(path: Path) -> Iterator[Record | None]:
    """The records of a journal in order; None for each stretch that is no whole record."""
    data = memoryview(path.read_bytes())
    at = 0
    while at < len(data):
        record, end = _record(data, at)
        yield record
        if record is None:
            # After damage, reading goes on at the next place that looks like a record.
            end = bytes(data).find(_MAGIC, at + 1)
            if end < 0:
                return
        at = end


def _record(data: memoryview, at: int) -> tuple[Record | None, int]:
    if at + _FRAME.size > len(data):
        return None, len(data)
    magic, length, checksum = _FRAME.unpack_from(data, at)
    start, end = at + _FRAME.size, at + _FRAME.size + length
    sound = magic == _MAGIC and _FIELDS.size <= length <= _LONGEST and end <= len(data)
    payload = data[start:end]
    if not sound or (length - _FIELDS.size) % 4 or zlib.crc32(payload) != checksum:
        return None, at
    participant, call, truncated, prompt_tokens, cached_tokens = _FIELDS.unpack_from(payload)
    tokens: NDArray[np.int32] = np.frombuffer(payload, "<i4", offset=_FIELDS.size)
    return Record(participant, call, bool(truncated), prompt_tokens, cached_tokens, tokens.tolist()), end
