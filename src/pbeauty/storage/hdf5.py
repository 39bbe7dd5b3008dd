"""Files that are there whole or not at all, with a checksum on every chunk and a description on every dataset."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import h5py
from numpy.typing import NDArray

from pbeauty import files
from pbeauty.errors import RunFileError


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the operating system says about a write to `path` into a RunFileError that names it."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise RunFileError(f"cannot write {path}: {reason}; rounds finished before are intact") from error


@contextlib.contextmanager
def replaced(path: Path, *, keep: bool = False) -> Iterator[h5py.File]:
    """A file that takes the place of `path` when the block ends well, and leaves it untouched otherwise.

    With `keep` it starts as a copy of `path`. Data reach the disk before the name does, so
    that a reader finds the old file or the new one, whenever the machine stops.

    Raises:
        RunFileError: if it cannot be written.
    """
    with writing(path), files.replaced(path) as draft:
        if keep:
            with path.open("rb") as before:
                shutil.copyfileobj(before, draft)
            draft.flush()
        disk = _Disk(draft.raw)
        try:
            with h5py.File(disk, "r+" if keep else "w") as file:
                yield file
        finally:
            if disk.error:
                raise disk.error


class _Disk:
    """A file that HDF5 writes to, and that never fails it.

    HDF5 crashes the process where a write fails, on a full disk say. Here the first error is kept, whatever is written
    after it is thrown away, and whoever opened the file raises it.
    """

    def __init__(self, handle: FileIO) -> None:
        self._handle = handle
        self.error: OSError | None = None
        self.seek, self.tell, self.read, self.readinto = handle.seek, handle.tell, handle.read, handle.readinto

    def write(self, data: memoryview) -> int:
        """Writes all of `data`, or so it seems."""
        rest = data
        try:
            while len(rest) and self.error is None:
                rest = rest[self._handle.write(rest) :]
        except OSError as error:
            self.error = error
        return len(data)

    def truncate(self, size: int) -> int:
        """Cuts off what is beyond `size` bytes."""
        try:
            self._handle.truncate(size)
        except OSError as error:
            self.error = self.error or error
        return size

    def flush(self) -> None:
        """Nothing is held back that would have to be written."""


def checked(file: h5py.File, name: str, values: NDArray, chunk: int) -> h5py.Dataset:
    """A new dataset whose chunks bear checksums, so that a flipped byte is an error and not a result."""
    if not len(values):
        return file.create_dataset(name, data=values)
    return file.create_dataset(name, data=values, chunks=(min(len(values), chunk),), fletcher32=True)


def describe(dataset: h5py.Dataset, units: str, description: str) -> None:
    """Says on the dataset itself what is in it."""
    dataset.attrs["units"] = units
    dataset.attrs["description"] = description
