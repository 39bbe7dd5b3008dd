"""Checks a run's HDF5 files before anything in them is believed: they may be damaged, or somebody's trap.

A run needs plain arrays of numbers, stored where they are, and links to stored replies in its own folder. HDF5 can hold
much more: arrays that claim a size which no file has, arrays and links that fetch other files of the reader's, values
that are objects. None of that is ever opened.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import yaml

from pbeauty.errors import RunFileError
from pbeauty.files import printable
from pbeauty.game.personas import Source

_LONGEST_TEXT = 1 << 24
"""Characters of an attribute that no genuine run exceeds."""
_DEFLATED = 1100
"""Bytes that a compressed byte can stand for at most (zlib: 1032)."""


def check_run(file: h5py.File, path: Path) -> None:
    """Checks what run.h5 holds itself.

    Raises:
        RunFileError: if a dataset is not what a run's would be, naming it.
    """
    with reading(path):
        participants = len(_plain(file, "participants/group", path))
        rounds, groups = len(_plain(file, "rounds/target", path)), len(_own(file, "groups", path))
        for group in ("participants", "rounds"):
            for name in file[group]:
                dataset = _own(file, f"{group}/{name}", path)
                played = group == "rounds" and isinstance(dataset, h5py.Dataset) and dataset.is_virtual
                # What it refers to is never followed: `open_round` opens the files of rounds.
                shape = dataset.shape if played else _plain(file, f"{group}/{name}", path).shape
                expected = (
                    [(participants,)]
                    if group == "participants"
                    else [(rounds,), (rounds, participants), (rounds, groups)]
                )
                if shape not in expected:
                    raise RunFileError(f"{path}: {group}/{name} is damaged: its shape is {shape}")
        if "personas" in file:
            sound = _plain(file, "personas/row", path).shape == (participants,)
            size, bounds = len(_plain(file, "personas/text", path)), _plain(file, "personas/text_offsets", path)[:]
            sound &= bounds[0] == 0 and bounds[-1] == size and bool((bounds[1:] >= bounds[:-1]).all())
            row = file["personas/row"][:]
            source = _plain(file, "personas/source", path)
            sound &= source.shape == (participants,) and source.dtype == np.uint8 and source[:].max() < len(Source)
            if not sound or row.min() < -1 or row.max() >= len(bounds) - 1:
                raise RunFileError(f"{path}: personas are damaged: their backgrounds do not fit together")
        for name in ("experiment", "provenance"):
            if not isinstance(text := file.attrs.get(name), str) or len(text) > _LONGEST_TEXT:
                raise RunFileError(f"{path}: the attribute {name} is missing or damaged")


def open_round(path: Path, run: h5py.File, round_index: int) -> h5py.File:
    """Opens the file of a round's rows.

    Args:
        path: of the file.
        run: run.h5.
        round_index: from 0.

    Raises:
        RunFileError: if it is missing, damaged, or of another run or round.
    """
    if not path.exists():
        raise RunFileError(f"{path} is missing; if the run was finished while it was being read, open it again")
    with reading(path):
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("it is no regular file")
        file = h5py.File(path, "r")
    try:
        with reading(path):
            found = file.attrs["run_id"], file.attrs["round"]
            if found != (run.attrs["run_id"], round_index + 1):
                raise ValueError(f"it is not round {round_index + 1} of this run")
            for name, column in run["rounds"].items():
                if column.is_virtual and _plain(file, name, path).shape != column.shape[1:]:
                    raise ValueError(f"{name} has another shape")
    except RunFileError:
        file.close()
        raise
    return file


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what h5py says of damage, in its many ways, into a RunFileError that names the file."""
    try:
        yield
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise RunFileError(f"{path} is damaged: {error}") from None


def check_experiment(text: str, path: Path) -> None:
    """Refuses an experiment that would unfold in memory: a stored one never refers to parts of itself.

    Raises:
        RunFileError: if there are anchors or aliases in it.
    """
    try:
        if any(isinstance(token, (yaml.AliasToken, yaml.AnchorToken)) for token in yaml.scan(text)):
            raise RunFileError(f"{path}: the stored experiment was not written by pbeauty: it has YAML aliases")
    except yaml.YAMLError:
        raise RunFileError(f"{path}: the stored experiment is damaged: it is not YAML") from None


def round_replies(file: h5py.File, folder: Path, round_index: int) -> dict[Path, h5py.Group]:
    """The stored replies of a round by path, in the order of participants, checked.

    Raises:
        RunFileError: if some are missing or damaged, naming the file.
    """
    names = reply_file_names(file, round_index)
    return dict(open_reply_file(folder, round_index, name) for name in names)


def reply_file_names(file: h5py.File, round_index: int) -> list[str]:
    """The files of a round's stored replies, in order: each is named by the first participant that may be in it.

    Raises:
        RunFileError: if run.h5 is damaged.
    """
    path, number = Path(file.filename), f"{round_index + 1:04d}"
    links = _own(file, f"replies/{number}", path)
    for name in links:
        if not (name.isdecimal() and name.isascii()):
            raise RunFileError(f"{path}: the stored replies {printable(name)!r} were not written by pbeauty")
        link = links.get(name, getlink=True)
        if not isinstance(link, h5py.ExternalLink) or (link.filename, link.path) != (
            f"replies/{number}/{name}.h5",
            "/",
        ):
            raise RunFileError(
                f"{path}: the stored replies are missing or damaged: replies/{number}/{name} is no link to them"
            )
    return sorted(links, key=int)


def open_reply_file(folder: Path, round_index: int, name: str) -> tuple[Path, h5py.File]:
    """The path and the content of one file of a round's replies, checked.

    Args:
        folder: the run's folder.
        round_index: from 0.
        name: one of `reply_file_names`.

    Raises:
        RunFileError: if it is missing or damaged, naming the file.
    """
    path = folder / "replies" / f"{round_index + 1:04d}" / f"{name}.h5"
    return path, open_replies(path)


def open_replies(path: Path) -> h5py.File:
    """Opens a file of replies, checked.

    Raises:
        RunFileError: if it is missing or damaged.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError
        file = h5py.File(path, "r")
        _check_replies(file, path)
    except (KeyError, OSError, RuntimeError, TypeError, ValueError):
        raise RunFileError(f"{path}: the stored replies are missing or damaged") from None
    return file


def _check_replies(block: h5py.Group, path: Path) -> None:
    count = len(_plain(block, "participant", path))
    sound = _plain(block, "purpose", path).shape == (count,)
    for name, offsets in (("text", "text_offsets"), ("tokens", "token_offsets")):
        size = len(_plain(block, name, path))
        bounds = _plain(block, offsets, path)[:]
        sound &= bounds.shape == (count + 1,) and bounds[0] == 0 and bounds[-1] == size
        sound &= bool((bounds[1:] >= bounds[:-1]).all())
    if not sound:
        raise ValueError


def _plain(parent: h5py.Group, name: str, path: Path) -> h5py.Dataset:
    """A dataset of numbers that are all in this very file."""
    dataset = _own(parent, name, path)
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "iuf" or not dataset.shape:
        raise RunFileError(f"{path}: {name} is damaged: it is no array of numbers")
    # What has not been written takes no room in the file, whatever size it claims.
    elsewhere = dataset.external or dataset.is_virtual
    most = dataset.id.get_storage_size() * (_DEFLATED if dataset.compression else 1)
    if elsewhere or most < np.prod(dataset.shape, dtype=object) * dataset.dtype.itemsize:
        raise RunFileError(f"{path}: {name} is damaged: not all of it is in the file")
    return dataset


def _own(parent: h5py.Group, name: str, path: Path) -> h5py.Group | h5py.Dataset:
    """What `name` is, reached without leaving the file."""
    found = parent
    for part in name.split("/"):
        if not isinstance(found, h5py.Group) or not isinstance(found.get(part, getlink=True), h5py.HardLink):
            raise RunFileError(f"{path}: {name} is missing, or not in this file")
        found = found[part]
    return found
