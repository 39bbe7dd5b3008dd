"""What others may have written: read in bounded amounts, and shown without harm to a terminal."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_bounded(path: Path, limit: int) -> tuple[bytes, os.stat_result]:
    """The content of a regular file and its status, taken together.

    Args:
        path: the file; a pipe or a device of that name is not waited for.
        limit: bytes that it may hold at most.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no regular file, or a larger one.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path} is no regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path} holds more than {limit:,} bytes")
    return data, status


def printable(text: object, limit: int = 200) -> str:
    """`text` on one line: whatever could steer a terminal is replaced, and what passes `limit` characters cut off."""
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(text))
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"
