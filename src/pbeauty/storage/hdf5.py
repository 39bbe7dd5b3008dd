"""HDF5 files that are there whole or not at all, with a checksum on every chunk and a description on every dataset."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import h5py
from numpy.typing import NDArray

_GROWTH = 1 << 22
"""Bytes by which a file in memory grows."""


class StoreError(RuntimeError):
    """The result could not be written; what had been sealed before is intact."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the operating system says about a write to `path` into a StoreError that names it."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StoreError(f"cannot write {path}: {reason}; rounds finished before are intact") from error


@contextlib.contextmanager
def replaced(path: Path, *, keep: bool = False) -> Iterator[h5py.File]:
    """A file that takes the place of `path` when the block ends well, and leaves it untouched otherwise.

    With `keep` it starts as a copy of `path`. Data reach the disk before the name does, so
    that a reader finds the old file or the new one, whenever the machine stops.

    Raises:
        StoreError: if it cannot be written.
    """
    draft = path.with_name(f".{path.name}.draft")
    with writing(path):
        try:
            # HDF5 itself can crash the process when a disk fills up, so it never writes to one: the file is built
            # in memory, and its image written by plain means that fail in plain ways.
            with h5py.File.in_memory(path.read_bytes() if keep else None, block_size=_GROWTH) as file:
                yield file
                file.flush()
                image = file.id.get_file_image()
            with draft.open("wb") as handle:
                handle.write(image)
                handle.flush()
                os.fsync(handle.fileno())
            draft.replace(path)
            _sync_folder(path.parent)
        finally:
            draft.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checked(file: h5py.File, name: str, values: NDArray, chunk: int) -> h5py.Dataset:
    """A new dataset whose chunks bear checksums, so that a flipped byte is an error and not a result."""
    if not len(values):
        return file.create_dataset(name, data=values)
    return file.create_dataset(name, data=values, chunks=(min(len(values), chunk),), fletcher32=True)


def describe(dataset: h5py.Dataset, units: str, description: str) -> None:
    """Says on the dataset itself what is in it."""
    dataset.attrs["units"] = units
    dataset.attrs["description"] = description
