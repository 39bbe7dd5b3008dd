"""What files of a run may hold: plain arrays of numbers, stored where they are, and links to replies in its own folder.

Digests tell damage, but whoever means harm makes new ones. HDF5 can hold arrays that claim a size which no file has,
arrays and links that fetch other files of the reader's, and values that are objects. None of that is ever opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pbeauty.game.experiment import Experiment, Game
from pbeauty.game.personas import Source
from pbeauty.game.population import group_counts
from pbeauty.game.records import COLUMNS, WITHOUT_MODEL, Status
from pbeauty.storage.hdf5 import read_labels
from pbeauty.storage.schema import LABELS, PER_PARTICIPANT, PER_ROUND, PER_SESSION, REPLIES, StoredFile, reply_file

_FIGURE, _COUNT = np.dtype(np.float64), np.dtype(np.uint64)
_AT_ONCE = 1 << 22
"""Participants that are checked at once."""

_OUTSIDE = "is outside the range of guesses"
_DEFLATED = 1100
"""Bytes that a compressed byte can stand for at most (zlib: 1032)."""
_DEPTH = 3
"""Groups within groups that a run has at most."""


def check_run(file: h5py.File, experiment: Experiment) -> None:
    """Checks what run.h5 holds itself, against the experiment in it; rows of participants are checked as they are read.

    Raises:
        KeyError: if something is missing.
        ValueError: if something is not what a run's would be, naming it.
    """
    _check_plain(file, "", virtual=not file.attrs["finished"])
    counted = file["rounds/n_valid"]
    _expect(counted.ndim == 2 and counted.shape[1] > 0, "rounds/n_valid", f"its shape is {counted.shape}")
    rounds, sessions = counted.shape
    participants, groups = len(file["participants/group"]), len(experiment.population)
    _expect(sessions == experiment.sessions, "rounds/n_valid", f"it is of {sessions} sessions")
    _expect(rounds <= experiment.game.rounds, "rounds/n_valid", f"it has {rounds} rounds")
    _expect(participants == experiment.count, "participants/group", f"it is of {participants} participants")
    _check_participants(file, experiment)
    expected: dict[str, tuple[np.dtype, tuple[int, ...]]] = {
        name: (COLUMNS[name], (rounds, participants)) for name in PER_PARTICIPANT
    }
    expected |= {name: (_FIGURE if name[:2] != "n_" else _COUNT, (rounds, sessions)) for name in PER_SESSION}
    expected |= {"group_number": (_FIGURE, (rounds, sessions, groups))}
    expected |= dict.fromkeys(PER_ROUND, (_FIGURE, (rounds,)))
    for name in {*expected, *file["rounds"]} - (PER_PARTICIPANT.keys() - {*WITHOUT_MODEL, *file["rounds"]}):
        column = file[f"rounds/{name}"]
        _expect(name in expected, f"rounds/{name}", "pbeauty did not write it")
        _check_form(column, f"rounds/{name}", *expected[name])
        _expect(name in PER_PARTICIPANT or not column.is_virtual, f"rounds/{name}", "it is not in this file")
    _check_figures(file, experiment)
    if not file.attrs["finished"]:
        _check_form(file["digests/rounds"], "digests/rounds", np.dtype(np.uint8), (rounds, 32))
    if "personas" in file:
        row, source = file["personas/row"], file["personas/source"]
        _check_offsets(file["personas"], "text")
        fits = row.shape == source.shape == (participants,) and source.dtype == file["personas/text"].dtype == np.uint8
        fits &= bool(row[:].min(initial=0) >= -1)
        fits &= bool(row[:].max(initial=-1) < len(file["personas/text_offsets"]) - 1)
        fits &= bool(source[:].max(initial=0) < len(Source))
        _expect(fits, "personas", "backgrounds and participants do not fit together")


def check_provenance(found: Any) -> dict[str, Any]:
    """What is known of how a run was made, in the form that it is written in; errors as of `check_run`."""
    lists = [found.get(name) or [] for name in ("ranks", "earlier_jobs")] if isinstance(found, dict) else [0]
    fits = all(isinstance(one, list) and all(isinstance(item, dict) for item in one) for one in lists)
    _expect(fits, "provenance", "pbeauty did not write it")
    return found


def check_replies(file: h5py.File) -> None:
    """Checks a file of replies; errors as of `check_run`."""
    _check_plain(file, "")
    for name in ("text", "tokens"):
        _check_offsets(file, name, len(file["participant"]))
    _expect(file["purpose"].shape == file["participant"].shape, "purpose", f"its shape is {file['purpose'].shape}")


def check_rows(file: h5py.File, run: h5py.File) -> None:
    """Checks a file of a round's rows against the run that refers to it; errors as of `check_run`."""
    _check_plain(file, "")
    for name, column in run["rounds"].items():
        if column.is_virtual:
            _check_form(file[name], name, column.dtype, column.shape[1:])


def reply_files(run: h5py.File, round_index: int) -> list[StoredFile]:
    """The files of a round's stored replies, in order: each is named by the first participant that may be in it.

    Raises:
        KeyError, ValueError: as of `check_run`.
    """
    number = f"{round_index + 1:04d}"
    links, digests = run[REPLIES][number], run["digests"][REPLIES][number]
    names = sorted(links)
    _expect(digests.shape == (len(names), 32) and digests.dtype == np.uint8, f"digests/replies/{number}", "its shape")
    stored = []
    for name, digest in zip(names, digests[:], strict=True):
        _expect(name.isascii() and name.isdecimal(), f"replies/{number}/{name}", "pbeauty did not write it")
        link, path = links.get(name, getlink=True), reply_file(round_index, int(name))
        own = isinstance(link, h5py.ExternalLink) and (link.filename, link.path) == (path, "/")
        _expect(own, f"replies/{number}/{name}", "it is no link to the run's own replies")
        stored.append(StoredFile(path, bytes(digest)))
    return stored


def _check_plain(group: h5py.Group, place: str, *, virtual: bool = False, depth: int = 0) -> None:
    """Refuses everything in a group but numbers that are all in this very file, and links below `replies`."""
    for name in group:
        where = f"{place}/{name}"
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink) and place.startswith(f"/{REPLIES}/"):
            continue  # whoever follows it checks it first
        _expect(isinstance(link, h5py.HardLink) and depth < _DEPTH, where, "it is not in this file")
        item = group[name]
        if isinstance(item, h5py.Group):
            _check_plain(item, where, virtual=virtual, depth=depth + 1)
            continue
        plain = isinstance(item, h5py.Dataset) and item.dtype.kind in "iuf" and bool(item.shape)
        _expect(plain and not item.external, where, "it is no array of numbers")
        if virtual and item.is_virtual and place == "/rounds":
            continue  # what it refers to is never followed: the files of rounds are opened by name
        # What has not been written takes no room in the file, whatever size it claims.
        most = item.id.get_storage_size() * (_DEFLATED if item.compression else 1)
        size = np.prod(item.shape, dtype=object) * item.dtype.itemsize
        _expect(not item.is_virtual and most >= size, where, "not all of it is in the file")


def _check_participants(file: h5py.File, experiment: Experiment) -> None:
    """Everybody has the group and the session of the experiment, and attributes that have names."""
    count, size = experiment.count, experiment.session_size
    groups, ends = [group.name for group in experiment.population], np.cumsum(group_counts(experiment))
    for name, column in file["participants"].items():
        _check_form(column, f"participants/{name}", np.dtype(np.uint32 if name == "session" else np.uint16), (count,))
        labels = [] if name == "session" else read_labels(column)
        for start in range(0, count, _AT_ONCE):
            codes = column[start : start + _AT_ONCE]
            who = np.arange(start, start + len(codes))
            if name == "session":
                in_order = np.array_equal(codes, who // size)
                _expect(in_order, "participants/session", f"participants are not in sessions of {size}, in order")
            elif name == "group":
                fits = labels == groups and np.array_equal(codes, np.searchsorted(ends, who % size, side="right"))
                _expect(fits, "participants/group", "participants are not in the groups of the experiment, in order")
            else:
                _expect(codes.max() < len(labels), f"participants/{name}", f"there is no code {codes.max()}")
    _expect("session" in file["participants"], "participants/session", "it is missing")


def _check_figures(file: h5py.File, experiment: Experiment) -> None:
    """Figures of rounds and sessions are such as guesses can have, and targets follow from them."""
    heard = np.ones((1, experiment.sessions), bool)
    at_once = max(1, (_AT_ONCE >> 4) // experiment.sessions)
    for start in range(0, len(file["rounds/n_valid"]), at_once):
        part = {name: file[f"rounds/{name}"][start : start + at_once] for name in (*PER_SESSION, "group_number")}
        before = np.vstack([heard[-1:], part["n_valid"][:-1] > 0])
        heard = part["n_valid"] > 0
        for name, holds, otherwise in _figures(part, before, experiment):
            for row, session, *_ in np.argwhere(~holds)[:1].tolist():
                where, value = f"round {start + row + 1}, session {session + 1}", part[name][row, session]
                _expect(False, f"rounds/{name}", f"{where}: {value} {otherwise}")
    for name in PER_ROUND:
        seconds = file[f"rounds/{name}"][:]
        fits = np.isnan(seconds) | ((seconds >= 0) & (seconds < np.inf))
        _expect(bool(np.all(fits)), f"rounds/{name}", "one is no length of time")


def _figures(
    part: dict[str, NDArray[Any]], before: NDArray[np.bool_], experiment: Experiment
) -> Iterator[tuple[str, NDArray[np.bool_], str]]:
    """What must hold of figures of some rounds: bool[round, session], and what is wrong elsewhere.

    Args:
        part: [round, session] by name.
        before: whether sessions go on, bool[round, session].
        experiment: theirs.
    """
    game, n, heard = experiment.game, part["n_valid"], part["n_valid"] > 0
    slack = 1e-9 * (abs(game.low) + abs(game.high))  # means of equal guesses differ from these in the last digits
    yield "n_valid", n <= experiment.session_size, "are more than play in a session"
    yield "n_valid", before | ~heard, "in a session that had ended"
    yield "n_valid", np.broadcast_to(heard.any(axis=1, keepdims=True), heard.shape), "in every session"
    yield "n_winners", part["n_winners"] <= n, "are more than have a valid guess"
    for name, values in part.items():
        if not name.startswith("n_") and name not in ("std", "target"):
            yield name, np.isnan(values) | ((values >= game.low - slack) & (values <= game.high + slack)), _OUTSIDE
        if not name.startswith("n_") and name != "group_number":
            known = part["n_winners"] > 0 if name == "winning_guess" else heard
            yield name, np.isnan(values) == ~known, "does not go with the count of valid guesses, or of winners"
    for less, more in pairwise(("min", "lower_quartile", "median", "upper_quartile", "max")):
        yield more, ~(part[more] < part[less] - slack), f"is less than {less}"
    yield "mean", ~((part["mean"] < part["min"] - slack) | (part["mean"] > part["max"] + slack)), "is no mean"
    yield "std", ~((part["std"] < 0) | (part["std"] > part["max"] - part["min"] + slack)), "is no deviation"
    follows = game.offset + game.p * part[game.aggregate]
    off = np.abs(part["target"] - follows) > 1e-9 * (abs(game.offset) + np.abs(follows)) + slack
    yield "target", ~off, f"does not follow from the {game.aggregate}"


def check_values(name: str, values: NDArray[Any], game: Game) -> NDArray[Any]:
    """Some values of a column by participant, checked; errors as of `check_run`."""
    if name == "guess":
        fits = np.isnan(values) | ((values >= game.low) & (values <= game.high))
        _expect(bool(np.all(fits)), "rounds/guess", f"one {_OUTSIDE}")
    elif name in LABELS:
        most = np.max(values, initial=0)
        _expect(most < len(LABELS[name]), f"rounds/{name}", f"there is no code {most}")
    return values


def check_answers(guesses: NDArray[np.float64], status: NDArray[np.uint8], n_valid: NDArray[np.int64] | None) -> None:
    """Checks guesses and statuses of a round against each other, and, of all participants, against the counts of
    sessions, int64[session]; errors as of `check_run`."""
    valid = ~np.isnan(guesses)
    _expect(np.array_equal(valid, status <= Status.RETRIED), "rounds/guess", "guesses and statuses do not fit together")
    if n_valid is not None:
        fits = np.array_equal(valid.reshape(len(n_valid), -1).sum(axis=1), n_valid)
        _expect(fits, "rounds/n_valid", "it is not the number of guesses")


def _check_form(column: h5py.Dataset, what: str, kind: np.dtype, shape: tuple[int, ...]) -> None:
    _expect(column.shape == shape, what, f"its shape is {column.shape}, and not {shape}")
    _expect(column.dtype == kind, what, f"its type is {column.dtype}, and not {kind}")


def _check_offsets(group: h5py.Group, name: str, rows: int | None = None) -> None:
    """Offsets must cut an array into rows."""
    offsets = f"{name.removesuffix('s')}_offsets"
    bounds = group[offsets][:]
    fits = bounds.ndim == 1 and len(bounds) == (len(bounds) if rows is None else rows + 1) > 0
    fits = fits and bounds[0] == 0 and bounds[-1] == len(group[name]) and bool((bounds[1:] >= bounds[:-1]).all())
    _expect(fits, offsets, f"they do not cut {name} into rows")


def _expect(holds: bool, what: str, otherwise: str) -> None:
    if not holds:
        raise ValueError(f"{what.lstrip('/')}: {otherwise}")
