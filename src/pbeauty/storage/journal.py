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

import numpy as np
from numpy.typing import NDArray

from pbeauty.game.records import Reply
from pbeauty.storage.hdf5 import write_errors
from pbeauty.storage.schema import JOURNALS

_MAGIC = b"\xb5pbr"
_FRAME = struct.Struct("<4sII")
_FIELDS = struct.Struct("<QH?II")
_LONGEST = 1 << 26
"""Bytes of payload that no genuine record exceeds: a damaged length must not exhaust memory."""


class Journal:
    """The file that one rank appends to during one round; a context manager, which closes it.

    What cannot be written, on a full disk say, raises RunFileError.
    """

    def __init__(self, path: Path) -> None:
        """Creates the file; `path` must be new."""
        self.path = path
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("xb", buffering=1 << 20)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def append(self, participant: int, call: int, reply: Reply) -> None:
        """Adds a reply to a participant's call, from 0 in this round; after `flush`, a crash does not lose it."""
        fields = (participant, call, reply.truncated, reply.prompt_tokens, reply.cached_tokens)
        payload = _FIELDS.pack(*fields) + struct.pack(f"<{len(reply.tokens)}i", *reply.tokens)
        self._file.write(_FRAME.pack(_MAGIC, len(payload), zlib.crc32(payload)) + payload)

    def flush(self) -> None:
        """Hands what was appended to the operating system."""
        with write_errors(self.path):
            self._file.flush()

    def close(self) -> None:
        """Makes sure that the records are on the disk itself."""
        with write_errors(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


class ReplayedReplies:
    """The replies that journals of a round hold for some participants."""

    def __init__(
        self, paths: Iterable[Path], participants: NDArray[np.int64], vocabulary: int, warn: Callable[[str], None]
    ) -> None:
        """Reads journals; damaged records are passed over, with one warning for each file.

        Args:
            paths: the files, in any order.
            participants: ids of those whose replies are wanted here.
            vocabulary: token ids are below this.
            warn: called with a message for each damaged file.
        """
        self._payloads: dict[tuple[int, int], bytes] = {}
        wanted = set(participants.tolist())
        for path in paths:
            damage = 0
            for payload in payloads(path):
                tokens = np.frombuffer(payload or b"", "<i4", offset=_FIELDS.size if payload else 0)
                if payload is None or tokens.min(initial=0) < 0 or tokens.max(initial=-1) >= vocabulary:
                    damage += 1
                    continue
                participant, call, *_ = _FIELDS.unpack_from(payload)
                if participant in wanted:
                    self._payloads.setdefault((participant, call), payload)
            if damage:
                warn(f"{path}: {damage} damaged or unfinished record(s) left out; their replies are asked for again")

    def __len__(self) -> int:
        return len(self._payloads)

    def get(self, participant: int, call: int) -> Reply | None:
        """The reply to a participant's call, without its text, if it is on record."""
        payload = self._payloads.get((participant, call))
        return unpacked(payload)[2] if payload else None


def payloads(path: Path) -> Iterator[bytes | None]:
    """The payloads of a journal's records, in order; None wherever there is no whole record."""
    with path.open("rb") as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        # Mapped, since a sparse file can claim any size.
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    while 0 <= at < size:
        if at + _FRAME.size <= size:
            magic, length, checksum = _FRAME.unpack_from(data, at)
            start, end = at + _FRAME.size, at + _FRAME.size + length
            fits = magic == _MAGIC and _FIELDS.size <= length <= _LONGEST and end <= size
            if fits and not (length - _FIELDS.size) % 4 and zlib.crc32(payload := data[start:end]) == checksum:
                yield payload
                at = end
                continue
        yield None
        at = data.find(_MAGIC, at + 1)  # after damage, the next place that looks like a record


def unpacked(payload: bytes) -> tuple[int, int, Reply]:
    """A record: participant, call, and the reply without its text."""
    participant, call, *about = _FIELDS.unpack_from(payload)
    return participant, call, Reply(np.frombuffer(payload, "<i4", offset=_FIELDS.size).tolist(), *about)


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
