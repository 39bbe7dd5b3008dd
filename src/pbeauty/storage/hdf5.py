"""The HDF5 files of a run: replaced whole, and opened only after they have been held against their digest.

A file begins with what HDF5 calls a user block, 512 bytes that every HDF5 library passes over. In it is the BLAKE2b
digest of all that follows, so that damage is found before HDF5 reads anything. Files are read and written through
Python's file objects: HDF5 takes no locks then, which some network file systems lack, none of its environment
variables matter, and what is read is what was checked, even if the file is replaced meanwhile.

Text is stored as attributes of a fixed length.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pbeauty import files
from pbeauty.errors import RunFileError
from pbeauty.storage.schema import LABELS, StoredFile

_BLOCK = 512
_HEADER = b"pbeauty; BLAKE2b-256 of all that follows these 512 bytes: "
_CHUNK_BYTES = 1 << 20
_LONGEST_TEXT = 1 << 26
"""Bytes of an attribute that no genuine run exceeds."""


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turns what the operating system says about a write to `path` into a RunFileError that names it."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise RunFileError(f"cannot write {path}: {reason}; rounds finished before are intact") from None


@contextlib.contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turns what h5py and the operating system say when `path` cannot be read into a RunFileError that names it."""
    try:
        yield
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:
            raise RunFileError(f"cannot read {path}: {os.strerror(error.errno)}") from None
        raise RunFileError(f"{path} is damaged: {' '.join(str(error).split())}") from None


@contextlib.contextmanager
def replaced(path: Path, *, keep: bool = False, **options: Any) -> Iterator[h5py.File]:
    """A file that takes the place of `path` when the block ends well, and leaves it untouched otherwise.

    With `keep` it starts as a copy of `path`, else as an empty file; `options` of that are h5py's. RunFileError if it
    cannot be written, or `path` is damaged and kept.
    """
    with write_errors(path), files.replaced(path) as draft:
        if keep:
            with read_errors(path):
                before = files.RegularFile(path)
                _verify(before)
            before.seek(0)
            shutil.copyfileobj(before, draft)
            draft.flush()
        raw = draft.raw
        assert isinstance(raw, FileIO)
        disk = _Disk(raw)
        how: dict[str, Any] = {"mode": "r+"} if keep else {"mode": "w", "userblock_size": _BLOCK, "libver": "v108"}
        try:
            with h5py.File(disk, **how, **options) as file:
                yield file
        finally:
            if disk.error:
                raise disk.error
        write_digest(raw)


def open_file(path: Path, digest: bytes | None = None) -> h5py.File:
    """Opens a file of a run for reading, once it has been held against its digest.

    Args:
        path: the file.
        digest: the one that the file must have, where run.h5 says so.

    Raises:
        RunFileError: if it is missing, damaged, or not the file that run.h5 refers to.
    """
    with read_errors(path):
        handle = files.RegularFile(path)
        found = _verify(handle)
        file = h5py.File(handle, "r")
    if digest and found != digest:
        with read_errors(path):
            about = files.printable(f"round {file.attrs['round']} of run {read_text(file, 'run_id')}")
        file.close()
        raise RunFileError(f"{path} is whole, but not the file that run.h5 refers to; it is of {about}")
    return file


def write_digest(file: FileIO) -> None:
    """Writes the digest of a file's content into its first block."""
    block = _block(_digest(file))
    file.seek(0)
    file.write(block)


def stored_file(folder: Path, relative: str) -> StoredFile:
    """A file that has just been written, as run.h5 refers to it: by its path from the run's folder."""
    with read_errors(folder / relative), files.RegularFile(folder / relative) as file:
        return StoredFile(relative, bytes.fromhex(file.read(_BLOCK)[len(_HEADER) :].decode("ascii")))


def _digest(file: FileIO) -> bytes:
    file.seek(_BLOCK)
    return hashlib.file_digest(file, functools.partial(hashlib.blake2b, digest_size=32)).digest()


def _block(digest: bytes) -> bytes:
    return (_HEADER + digest.hex().encode("ascii")).ljust(_BLOCK - 1) + b"\n"


def _verify(file: FileIO) -> bytes:
    """The digest of a file; ValueError if it is not the one that the file bears."""
    block = file.read(_BLOCK)
    if not block.startswith(_HEADER):
        raise ValueError("pbeauty did not write it, or it does not begin as it was written")
    digest = _digest(file)
    if block != _block(digest):
        raise ValueError("its content does not match its digest")
    return digest


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
        """Does nothing: writes are unbuffered."""


# --- what is in them ----------------------------------------------------------------------------------------


def describe(item: h5py.Group | h5py.Dataset, **attributes: Any) -> None:
    """Sets attributes; texts and lists of texts are stored as UTF-8 of a fixed length."""
    for name, value in attributes.items():
        item.attrs[name] = _fixed(value) if isinstance(value, str | list) else value


def create(group: h5py.Group, name: str, about: tuple[str, str], **options: Any) -> h5py.Dataset:
    """A new dataset, described; options as of h5py's `create_dataset`."""
    return described(group.create_dataset(name, **options), name, about)


def described(dataset: h5py.Dataset, name: str, about: tuple[str, str]) -> h5py.Dataset:
    """`dataset` with its units and a description, and with the labels of its codes, which go by its name."""
    describe(dataset, units=about[0], description=about[1])
    if name in LABELS:
        describe(dataset, labels=LABELS[name])
    return dataset


def write_array(group: h5py.Group, name: str, values: NDArray[Any], about: tuple[str, str]) -> h5py.Dataset:
    """A new dataset of one-dimensional `values` whose chunks bear checksums, described by units and a description."""
    size = min(len(values), _CHUNK_BYTES // values.dtype.itemsize)
    return create(group, name, about, data=values, **({"chunks": (size,), "fletcher32": True} if size else {}))


def write_columns(
    folder: Path, relative: str, columns: Mapping[str, NDArray[Any]], about: Mapping[str, tuple[str, str]], **of: Any
) -> StoredFile:
    """Writes a file of a run beside run.h5.

    Args:
        folder: the run's.
        relative: the path of the file from there.
        columns: its datasets, and `about` their units and descriptions, by name.
        of: attributes, which say where the file belongs.

    If it cannot be written, that is a RunFileError.
    """
    with write_errors(folder / relative):
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
    with replaced(folder / relative) as file:
        describe(file, **of)
        for name, values in columns.items():
            write_array(file, name, values, about[name])
    return stored_file(folder, relative)


def read_text(item: h5py.Group | h5py.Dataset, name: str) -> str:
    """An attribute that `describe` has stored as text."""
    return _read_fixed(item, name).tobytes().rstrip(b"\0").decode("utf-8")


def read_labels(item: h5py.Dataset) -> list[str]:
    """The names of a dataset's codes, in the order of the codes."""
    return [label.decode("utf-8") for label in _read_fixed(item, "labels").tolist()]


def _fixed(text: str | Sequence[str]) -> NDArray[np.bytes_]:
    lines = [text] if isinstance(text, str) else text
    data = np.array([line.encode("utf-8", errors="replace") for line in lines], np.bytes_)
    data = data.astype(h5py.string_dtype("utf-8", max(1, data.dtype.itemsize)))
    return data.reshape(()) if isinstance(text, str) else data


def _read_fixed(item: h5py.Group | h5py.Dataset, name: str) -> NDArray[np.bytes_]:
    attribute = item.attrs.get_id(name)
    if attribute.dtype.kind != "S" or attribute.get_storage_size() > _LONGEST_TEXT:
        raise ValueError(f"{name} is no text of a fixed length")
    return np.asarray(item.attrs[name])
