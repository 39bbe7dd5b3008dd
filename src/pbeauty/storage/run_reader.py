"""Reading a run: what plots, analyses and notebooks start from. Never imports the runtime."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pbeauty.config.loader import loads
from pbeauty.errors import RunFileError
from pbeauty.files import printable
from pbeauty.game.announcement import Announcement, announcement, needs_guesses
from pbeauty.game.experiment import Experiment
from pbeauty.game.personas import Personas
from pbeauty.game.records import Purpose, Ragged
from pbeauty.game.rules import Outcome
from pbeauty.storage import dataframes
from pbeauty.storage.replies import StoredReplies, stored_replies
from pbeauty.storage.schema import RUN_FILE, SCHEMA_VERSION, round_file
from pbeauty.storage.validation import (
    check_experiment,
    check_run,
    open_reply_file,
    open_round,
    reading,
    reply_file_names,
)

_AT_ONCE = 1 << 20
"""Participants of a round that are read at once where all are gone through."""


@dataclasses.dataclass(frozen=True)
class Reply:
    """One reply of a language model, as it came: text to be shown with care."""

    purpose: Purpose
    text: str


class LazyArray:
    """An array of a run on disk, of which as much is read as is indexed: `run.guesses[0]`, `run.guesses[:, 17]`."""

    def __init__(self, dataset: h5py.Dataset, path: Path) -> None:
        self._dataset, self._path = dataset, path
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: np.dtype = dataset.dtype

    def __getitem__(self, which: Any) -> Any:
        """As numpy indexes; a damaged file is a RunFileError."""
        with reading(self._path):
            return self._dataset[which]

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def __repr__(self) -> str:
        return f"LazyArray({self.dtype}{list(self.shape)} in {self._path})"


class RoundFiles:
    """A column of `/rounds` of a run that is being played, read from the file of each round.

    run.h5 refers to these files, but whom such a reference reaches depends on the reader's environment and on what
    else lies there; so they are opened by name, and checked.
    """

    def __init__(self, run: Run, name: str, dataset: h5py.Dataset) -> None:
        self._run, self._name = run, name
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: np.dtype = dataset.dtype

    def __getitem__(self, which: Any) -> NDArray[Any]:
        """As numpy indexes [round, participant]."""
        first, *rest = which if isinstance(which, tuple) else (which,)
        rows = np.arange(self.shape[0])[first]
        if rows.ndim == 0:
            return self._run.round_rows(int(rows))[self._name][tuple(rest) or ...]
        if not len(rows):
            return np.empty((0, *self.shape[1:]), self.dtype)
        return np.stack([self[int(row), *rest] for row in rows])


class Run:
    """A run on disk, opened for reading; finished rounds only. Use it as a context manager, or `close` it."""

    def __init__(self, path: str | Path) -> None:
        """Opens a run.

        Args:
            path: run.h5, or the folder that holds it.

        Raises:
            RunFileError: if there is no run, or one of a newer schema.
        """
        path = Path(path)
        self._rows: dict[int, h5py.File] = {}
        self._blocks: dict[tuple[int, str], tuple[Path, h5py.File]] = {}
        self.path = path / RUN_FILE if path.is_dir() else path
        try:
            self.file = h5py.File(self.path, "r")
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else "it is not an HDF5 file, or a damaged one"
            raise RunFileError(f"cannot read a run from {self.path}: {reason}") from None
        try:
            self._check()
        except RunFileError:
            self.close()
            raise

    def _check(self) -> None:
        with reading(self.path):
            version = self.file.attrs.get("schema_version")
            if not isinstance(version, np.integer) or "rounds/target" not in self.file:
                raise RunFileError(f"{self.path} is an HDF5 file, but not a run of pbeauty")
        if version != SCHEMA_VERSION:
            raise RunFileError(
                f"{self.path} has schema version {version}, this pbeauty reads {SCHEMA_VERSION}: "
                "install the version that wrote it (attribute pbeauty_version)"
            )
        check_run(self.file, self.path)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file, and those of its rounds."""
        for file in [*self._rows.values(), *(block for _, block in self._blocks.values())]:
            file.close()
        self.file.close()

    @cached_property
    def experiment(self) -> Experiment:
        """The resolved experiment."""
        text = str(self.file.attrs["experiment"])
        check_experiment(text, self.path)
        return loads(text, source=f"the experiment in {self.path}")

    @cached_property
    def provenance(self) -> Mapping[str, Any]:
        """Where and with what the run was made."""
        with reading(self.path):
            return json.loads(self.file.attrs["provenance"])

    @property
    def finished(self) -> bool:
        """Whether every round that was to be played has been."""
        return self.round_count == self.experiment.game.rounds

    @property
    def complete(self) -> bool:
        """Whether, besides, a job has come to the end that follows the last round: run.h5 then stands alone."""
        return bool(self.file.attrs["finished"])

    @property
    def round_count(self) -> int:
        """Finished rounds."""
        return len(self.file["rounds/target"])

    def read(self, name: str, which: int | slice = slice(None)) -> NDArray[Any]:
        """A dataset of `/rounds`, or some rounds of it.

        Args:
            name: guess, status, mean, ...
            which: a round, from 0, or a range of rounds.

        Raises:
            RunFileError: if it is damaged.
        """
        with reading(self.path):
            return self._column(name)[which]

    def _column(self, name: str) -> h5py.Dataset | RoundFiles:
        """A dataset of `/rounds`; while the run is played, what its files of rounds hold."""
        dataset = self.file[f"rounds/{name}"]
        return RoundFiles(self, name, dataset) if dataset.is_virtual else dataset

    def round_rows(self, round_index: int) -> h5py.File:
        """The file of a round's rows while the run is played, checked when it is first opened.

        Raises:
            RunFileError: if it is missing, damaged, or of another run or round.
        """
        if round_index not in self._rows:
            path = self.path.parent / round_file(round_index)
            self._rows[round_index] = open_round(path, self.file, round_index)
        return self._rows[round_index]

    def pieces(self, round_index: int) -> Iterator[tuple[NDArray[np.float64], NDArray[np.uint8]]]:
        """Guesses and statuses of a round from 0, some participants at a time, in id order."""
        for start in range(0, self.guesses.shape[1], _AT_ONCE):
            where = slice(start, start + _AT_ONCE)
            yield self.guesses[round_index, where], self.status[round_index, where]

    @property
    def guesses(self) -> LazyArray:
        """All guesses, float64[round, participant], NaN where there is none; read as far as it is indexed."""
        return LazyArray(self._column("guess"), self.path)

    @property
    def status(self) -> LazyArray:
        """What became of every reply, uint8[round, participant], values of `game.Status`; read as indexed."""
        return LazyArray(self._column("status"), self.path)

    @property
    def rounds(self) -> Any:
        """The figures of every round: a pandas frame by round from 1, or see `dataframes.rounds` without pandas."""
        with reading(self.path):
            return dataframes.rounds(self.file)

    @property
    def participants(self) -> Any:
        """Group and attributes of everybody: a pandas frame by id, or see `dataframes.participants` without pandas."""
        with reading(self.path):
            return dataframes.participants(self.file)

    @property
    def attributes(self) -> dict[str, list[str]]:
        """The labels of every coded column of participants: `group`, and the attributes of personas."""
        columns = self.file.get("participants", {})
        return {
            name: [printable(label) for label in column.attrs["labels"]]
            for name, column in columns.items()
            if "labels" in column.attrs
        }

    def codes(self, attribute: str) -> NDArray[np.uint16]:
        """One of `attributes` by participant, uint16[participant], indices into its labels."""
        with reading(self.path):
            return self.file[f"participants/{attribute}"][:]

    @property
    def seconds(self) -> NDArray[np.float64]:
        """Wall time of each round in s, float64[round]."""
        return self.read("seconds")

    def outcome(self, round_index: int) -> Outcome:
        """The figures of a round, from 0."""
        names = [field.name for field in dataclasses.fields(Outcome)]
        return Outcome(**{name: self.read(name, round_index).item() for name in names})

    def group_numbers(self, round_index: int) -> NDArray[np.float64]:
        """The mean of each group's valid guesses in a round from 0, float64[group], NaN where it has none."""
        return self.read("group_number", round_index)

    def announcement(self, round_index: int) -> Announcement:
        """What everybody was, or is to be, told at the start of a round from 0, as far as `round_count`."""
        if round_index == 0:
            return announcement(self.experiment, 0)
        last = round_index - 1
        seen = [self.read(name, last) for name in ("guess", "status")] if needs_guesses(self.experiment) else []
        return announcement(self.experiment, round_index, self.outcome(last), self.group_numbers(last), *seen)

    def said(self, round_index: int, participants: NDArray[np.int64]) -> StoredReplies:
        """What language models said in a round, as far as their conversations go on from it.

        Args:
            round_index: from 0.
            participants: ids, ascending.

        Returns:
            Token ids by position in `participants`. They have been held against their checksums.

        Raises:
            RunFileError: if a reply is missing or damaged.
        """
        return stored_replies(self.path.parent, round_index, reply_file_names(self.file, round_index), participants)

    @cached_property
    def personas(self) -> Personas | None:
        """Attributes and backgrounds of all participants; None where they are not stored.

        Raises:
            RunFileError: if they are damaged.
        """
        if "personas" not in self.file:
            return None
        with reading(self.path):
            names = [name for name in self.file["participants"] if name != "group"]
            columns = {name: self.file[f"participants/{name}"] for name in names}
            texts = Ragged.of(self.file["personas/text"][:], self.file["personas/text_offsets"][:])
            row = self.file["personas/row"][:]
            source = self.file["personas/source"][:]
            return Personas(
                {name: [str(label) for label in column.attrs["labels"]] for name, column in columns.items()},
                {name: column[:] for name, column in columns.items()},
                texts,
                row,
                source,
            )

    def replies(self, round: int, participant: int) -> list[Reply]:
        """Everything that a participant replied in a round, in order; nothing where no model was asked.

        Args:
            round: from 1.
            participant: id, from 0.

        Raises:
            IndexError: if there is no such finished round, or no such participant.
            RunFileError: if the stored replies are missing or damaged.
        """
        rounds, count = self.guesses.shape
        if not (1 <= round <= rounds and 0 <= participant < count):
            raise IndexError(
                f"no participant {participant} in round {round}: there are rounds 1 to {rounds}, participants 0 to "
                f"{count - 1}"
            )
        for path, block in self._reply_files_until(round - 1, participant):
            with reading(path):
                first, last = np.searchsorted(block["participant"][:], [participant, participant + 1])
                if first == last:
                    continue
                offsets = block["text_offsets"][first : last + 1]
                return [
                    Reply(Purpose(purpose), block["text"][start:stop].tobytes().decode("utf-8", errors="replace"))
                    for purpose, start, stop in zip(
                        block["purpose"][first:last], offsets[:-1], offsets[1:], strict=True
                    )
                ]
        return []

    def _reply_files_until(self, round_index: int, participant: int) -> Iterator[tuple[Path, h5py.Group]]:
        """Files of stored replies that may have a participant, each checked once; the likeliest come first.

        A file begins with the participant that names it, but where models take turns in the order of ids, those of
        another block may lie between its own.
        """
        for name in reversed(reply_file_names(self.file, round_index)):
            if int(name) > participant:
                continue
            if (round_index, name) not in self._blocks:
                self._blocks[round_index, name] = open_reply_file(self.path.parent, round_index, name)
            yield self._blocks[round_index, name]
