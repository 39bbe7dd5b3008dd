"""Files: replaced whole or not at all, read in bounded amounts, named without harm to a terminal."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import unicodedata
from collections.abc import Iterator, Sequence
from io import BufferedRandom, BufferedReader, FileIO
from pathlib import Path

CASES_FILE = "cases.csv"
"""Table of a sweep's cases, in the order of its file; a case's folder has the name in the first column."""
RUN_FILE, LOCK_FILE, LIVE_FILE, REPORT_FILE, PLOTS = "run.h5", "lock", "live.json", "report.html", "plots"
"""What else is in the folder of a run or a sweep: the run, its lock, its live status, its page, its figures."""
OWN_NAMES = (CASES_FILE, RUN_FILE, LOCK_FILE, LIVE_FILE, REPORT_FILE, PLOTS)
"""Names that no case of a sweep can have."""
_DRAFT = ".draft"
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""What no text has: control characters, but for tabs and line ends, and halves of characters (surrogates)."""


@contextlib.contextmanager
def replaced(path: Path, *, durable: bool = True) -> Iterator[BufferedRandom]:
    """A new file, open for reading and writing bytes, that takes the place of `path` when the block ends well.

    Otherwise `path` stays as it is, and the new file is removed; what a killed process has left of it, `remove_drafts`
    removes.

    Args:
        path: the file; its folder must exist.
        durable: whether the content reaches the disk before the name does, so that a reader finds the old file or the
            new one even after a power cut.

    Raises:
        OSError: if it cannot be written, or is a device or a pipe, which must not make way for a file.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(f"{path} is no regular file")
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_DRAFT}")
    try:
        with draft.open("x+b") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        draft.replace(path)
        if durable:
            _sync_folder(path.parent)
    except OSError as error:
        if error.filename in (None, str(draft)):  # whoever asked for a file knows of no draft
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        draft.unlink(missing_ok=True)


def replace_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Replaces the content of `path`, as `replaced`.

    Raises:
        OSError: if it cannot be written.
    """
    with replaced(path, durable=durable) as file:
        file.write(text.encode("utf-8"))


def remove_drafts(folder: Path) -> None:
    """Removes what killed processes have left of files below `folder`, in which nobody else may be writing."""
    for draft in folder.rglob(f".*{_DRAFT}"):
        draft.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- what others may have written ---------------------------------------------------------------------------


def open_at_once(path: str | Path, flags: int) -> int:
    """Opens a file as `os.open`, without waiting for the other end of a pipe; an `opener` for `FileIO`."""
    return os.open(path, flags | os.O_NONBLOCK)


class RegularFile(FileIO):
    """A regular file, open for reading; a pipe or a device of its name is not waited for.

    It closes itself without a warning once nobody holds it any longer.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file.

        Raises:
            OSError: if it cannot be opened.
            ValueError: if it is no regular file.
        """
        super().__init__(path, "rb", opener=open_at_once)
        if not stat.S_ISREG(os.fstat(self.fileno()).st_mode):
            self.close()
            raise ValueError(f"{path} is no regular file")

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return str(self.name)


def read_bounded(path: Path, limit: int) -> tuple[bytes, os.stat_result]:
    """The content of a regular file and its status, taken together.

    Args:
        path: the file.
        limit: bytes that it may hold at most.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no regular file, or a larger one.
    """
    with BufferedReader(RegularFile(path)) as file:
        data, status = file.read(limit + 1), os.fstat(file.fileno())
    if len(data) > limit:
        raise ValueError(f"{path} holds more than {limit:,} bytes")
    return data, status


def printable(text: object, limit: int = 200) -> str:
    """`text` on one line: whatever could steer a terminal is replaced, and what passes `limit` characters cut off."""
    line = re.sub(r"\s", " ", str(text))
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def aligned(rows: Sequence[Sequence[str]], left: int = 0) -> list[str]:
    """A table as lines: the first `left` columns aligned to the left, the others to the right."""
    widths = [max(map(_columns, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        gaps = [" " * (width - _columns(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [cell + gap if n < left else gap + cell for n, (cell, gap) in enumerate(zip(row, gaps, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines


def _columns(text: str) -> int:
    """Columns of a terminal that a text takes: two for each wide character."""
    return len(text) + sum(unicodedata.east_asian_width(character) in "WF" for character in text)


def csv_cell(value: object) -> object:
    """A value as a cell of a CSV table, which a spreadsheet must not compute and which must not steer a terminal.

    Text that begins like a formula, or with an apostrophe, gets an apostrophe put before it, which is how spreadsheets
    mark text; control characters are replaced. Numbers stay as they are.
    """
    if not isinstance(value, str):
        return value
    text = CONTROL_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", value)
    return f"'{text}" if re.match(r"\s*[=+\-@']", text) else text
