"""Reading a run: what plots, analyses and notebooks start from. Imports neither MPI nor vLLM."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import yaml
from numpy.typing import NDArray

from pbeauty.config.loader import loads
from pbeauty.errors import PbeautyError, RunFileError
from pbeauty.files import RUN_FILE, printable
from pbeauty.game.announcement import Announcement, announcement
from pbeauty.game.experiment import Experiment
from pbeauty.game.personas import Personas
from pbeauty.game.records import Purpose, Ragged, Status
from pbeauty.game.scoring import Outcome
from pbeauty.storage import dataframes, validation
from pbeauty.storage.hdf5 import open_file, read_errors, read_labels, read_text
from pbeauty.storage.schema import REPLIES, SCHEMA_VERSION, StoredFile, round_file

_MOST_LINKS = 40
"""Links to a run.h5, one after the other, as for Linux."""
_AT_ONCE = 1 << 20
"""Participants of a round that are read at once where all are gone through."""
_MOST_OPEN = 16
"""Files beside run.h5 that are open at a time."""


class StoredReply(NamedTuple):
    """One reply of a language model, as it came: text to be shown with care."""

    purpose: Purpose
    text: str


class LazyArray:
    """A column of a run, of which as much is read as is indexed: `run.guesses[0]`, `run.guesses[:, 17]`.

    While the run is played the column lies in the files of its rounds. run.h5 refers to them, but whom HDF5 reaches by
    such a reference depends on the reader's environment, so they are opened by name, and checked.
    """

    def __init__(self, run: Run, name: str) -> None:
        self._run, self._name = run, name
        self._dataset: h5py.Dataset = run.file[f"rounds/{name}"]
        self.shape: tuple[int, ...] = self._dataset.shape
        self.dtype: np.dtype = self._dataset.dtype

    def __getitem__(self, which: Any) -> Any:
        """As numpy indexes; RunFileError if a file is damaged."""
        if not self._dataset.is_virtual:
            with read_errors(self._run.path):
                return validation.check_values(self._name, self._dataset[which], self._run.experiment.game)
        first, *rest = which if isinstance(which, tuple) else (which,)
        rows = np.arange(self.shape[0])[first]
        if rows.ndim == 0:
            with read_errors(self._run.path.parent / round_file(int(rows))):
                values = self._run.round_rows(int(rows))[self._name][tuple(rest) or ...]
                return validation.check_values(self._name, values, self._run.experiment.game)
        if not len(rows):
            return np.empty((0, *self.shape[1:]), self.dtype)
        return np.stack([self[int(row), *rest] for row in rows])

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def __repr__(self) -> str:
        return f"LazyArray({self.dtype}{list(self.shape)} in {self._run.path})"


class Run:
    """A run on disk, opened for reading; finished rounds only. Use it as a context manager, or `close` it.

    Whatever reads from it raises RunFileError where a file is missing or damaged, and names the file.
    """

    def __init__(self, path: str | Path) -> None:
        """Opens a run; one that is being played is seen as it is now.

        Args:
            path: run.h5, a link to it, or the folder that holds it.

        Raises:
            RunFileError: if there is no run, a damaged one, or one of another schema.
        """
        self.path = run_file(Path(path))
        self._opened = lru_cache(_MOST_OPEN)(self._open)
        self.file = open_file(self.path)
        try:
            with read_errors(self.path):
                version = self.file.attrs.get("schema_version", 0)
                if version != SCHEMA_VERSION:
                    raise RunFileError(
                        f"{self.path} has schema version {version}, this pbeauty reads {SCHEMA_VERSION}: "
                        "install the version that wrote it (attribute pbeauty_version)"
                    )
                validation.check_run(self.file, self.experiment)
                self.round_count = len(self.file["rounds/target"])  # finished ones
        except PbeautyError:
            self.close()
            raise

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        about = f"{self.experiment.count:,} participants, {self.round_count} round(s)"
        return f"Run({self.experiment.name}: {about}, {self.path})"

    def close(self) -> None:
        """Closes the file, and those of its rounds."""
        self._opened.cache_clear()
        self.file.close()

    @cached_property
    def experiment(self) -> Experiment:
        """The resolved experiment."""
        with read_errors(self.path):
            text = read_text(self.file, "experiment")
            # A stored experiment never refers to parts of itself: one that does would unfold in memory.
            if any(isinstance(token, yaml.AliasToken | yaml.AnchorToken) for token in yaml.scan(text)):
                raise ValueError("the stored experiment has YAML aliases")
            return loads(text, source="experiment")

    @cached_property
    def provenance(self) -> Mapping[str, Any]:
        """Where and with what the run was made."""
        with read_errors(self.path):
            return validation.check_provenance(json.loads(read_text(self.file, "provenance")))

    @property
    def run_id(self) -> str:
        """Tells this run from every other one."""
        with read_errors(self.path):
            return read_text(self.file, "run_id")

    @property
    def finished(self) -> bool:
        """Whether every round that was to be played has been."""
        return self.round_count == self.experiment.game.rounds

    @property
    def complete(self) -> bool:
        """Whether, besides, a job has come to the end that follows the last round: run.h5 then stands alone."""
        return bool(self.file.attrs["finished"])

    def read(self, name: str, which: int | slice = slice(None)) -> NDArray[Any]:
        """A dataset of `/rounds`, or some rounds of it.

        Args:
            name: guess, status, mean, ... (see `schema`)
            which: a round, from 0, or a range of rounds.
        """
        with read_errors(self.path):
            return LazyArray(self, name)[which]

    def pieces(self, round_index: int, session: int | None = None) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Guesses and statuses of a round from 0, of all sessions or one from 0, some at a time, in id order."""
        size, sessions = self.experiment.session_size, slice(session, None if session is None else session + 1)
        who = range(self.experiment.count) if session is None else range(session * size, (session + 1) * size)
        left = int(self.read("n_valid", round_index)[sessions].sum())
        for start in who[::_AT_ONCE]:
            guesses, status = self.answers(round_index, slice(start, min(start + _AT_ONCE, who.stop)))
            left -= int(np.count_nonzero(status <= Status.RETRIED))
            yield guesses, status
        if left:
            raise RunFileError(f"{self.path} is damaged: rounds/n_valid: it is not the number of guesses")

    def answers(self, round_index: int, who: slice = slice(None)) -> tuple[NDArray[Any], NDArray[Any]]:
        """Guesses and statuses of a round from 0, of all participants or of some."""
        guesses, status = self.guesses[round_index, who], self.status[round_index, who]
        with read_errors(self.path):
            validation.check_answers(guesses, status, self.read("n_valid", round_index) if who == slice(None) else None)
        return guesses, status

    @property
    def guesses(self) -> LazyArray:
        """All guesses, float64[round, participant], NaN where there is none; read as far as it is indexed."""
        return LazyArray(self, "guess")

    @property
    def status(self) -> LazyArray:
        """What became of every reply, uint8[round, participant], values of `game.records.Status`; read as indexed."""
        return LazyArray(self, "status")

    @property
    def rounds(self) -> Any:
        """The figures of every round, and of every session if there are several.

        A pandas frame by round, and session, from 1; see `dataframes.rounds` for what it is without pandas.
        """
        with read_errors(self.path):
            return dataframes.rounds(self.file)

    @property
    def participants(self) -> Any:
        """Group, session and attributes of everybody, a pandas frame by id; without pandas see `dataframes`."""
        with read_errors(self.path):
            return dataframes.participants(self.file)

    @property
    def attributes(self) -> dict[str, list[str]]:
        """The labels of every coded column of participants: `group`, and the attributes of personas."""
        with read_errors(self.path):
            columns = self.file["participants"].items()
            return {
                name: [printable(label) for label in read_labels(column)]
                for name, column in columns
                if name != "session"
            }

    def codes(self, attribute: str) -> NDArray[np.uint16]:
        """One of `attributes` by participant, uint16[participant], indices into its labels."""
        with read_errors(self.path):
            return self.file[f"participants/{attribute}"][:]

    def outcome(self, round_index: int) -> Outcome:
        """The figures of a round, from 0, by session."""
        figures: dict[str, Any] = {}
        for field in dataclasses.fields(Outcome):
            values = self.read(field.name, round_index)
            figures[field.name] = values.astype(np.int64) if values.dtype.kind == "u" else values
        return Outcome(**figures)

    def announcement(self, round_index: int) -> Announcement:
        """What starts a round from 0, up to the one after the last that is finished."""
        if round_index == 0:
            return announcement(self.experiment, 0)
        last = round_index - 1
        column = partial(self.read, which=last)
        return announcement(self.experiment, round_index, self.outcome(last), column("group_number"), column)

    @cached_property
    def personas(self) -> Personas | None:
        """Attributes and backgrounds of all participants; None where they are not stored."""
        if "personas" not in self.file:
            return None
        with read_errors(self.path):
            columns = {
                name: column for name, column in self.file["participants"].items() if name not in ("group", "session")
            }
            texts = Ragged.of(self.file["personas/text"][:], self.file["personas/text_offsets"][:])
            return Personas(
                {name: read_labels(column) for name, column in columns.items()},
                {name: column[:] for name, column in columns.items()},
                texts,
                self.file["personas/row"][:],
                self.file["personas/source"][:],
            )

    def replies(self, round: int, participant: int) -> list[StoredReply]:
        """Everything that a participant replied in a round, in order; nothing where no model was asked.

        Args:
            round: from 1.
            participant: id, from 0.

        Raises:
            IndexError: if there is no such finished round, or no such participant.
        """
        rounds, count = self.guesses.shape
        if not (1 <= round <= rounds and 0 <= participant < count):
            raise IndexError(
                f"no participant {participant} in round {round}: there are rounds 1 to {rounds}, participants 0 to "
                f"{count - 1}"
            )
        # A file begins with the participant that names it, but where models take turns in the order of ids, those of
        # another block may lie between its own.
        for stored in reversed(self.reply_files(round - 1)):
            if int(Path(stored.path).stem) > participant:
                continue
            with read_errors(self.path.parent / stored.path):
                file = self._opened(stored)
                first, last = np.searchsorted(file["participant"][:], [participant, participant + 1])
                if first == last:
                    continue
                offsets = file["text_offsets"][first : last + 1]
                return [
                    StoredReply(Purpose(purpose), file["text"][start:stop].tobytes().decode("utf-8", errors="replace"))
                    for purpose, start, stop in zip(file["purpose"][first:last], offsets[:-1], offsets[1:], strict=True)
                ]
        return []

    def check_rounds(self) -> None:
        """Holds the files of all rounds against their digests: damage is to be found before other rounds are played."""
        for round_index in range(0 if self.complete else self.round_count):
            self.round_rows(round_index)

    def round_rows(self, round_index: int) -> h5py.File:
        """The file of a round's rows while the run is played."""
        with read_errors(self.path):
            digest = bytes(self.file["digests/rounds"][round_index])
        return self._opened(StoredFile(round_file(round_index), digest))

    def reply_files(self, round_index: int) -> list[StoredFile]:
        """The files of a round's stored replies, in order: each is named by the first participant that may be in it."""
        with read_errors(self.path):
            return validation.reply_files(self.file, round_index)

    def open_reply_files(self, round_index: int) -> Iterator[tuple[Path, h5py.File]]:
        """The files of a round's stored replies, path and content of one after the other."""
        for stored in self.reply_files(round_index):
            yield self.path.parent / stored.path, self._opened(stored)

    def _open(self, stored: StoredFile) -> h5py.File:
        """A file that run.h5 refers to, checked; it is closed when nobody holds it any longer."""
        path = self.path.parent / stored.path
        if not path.exists():
            raise RunFileError(f"{path} is missing; if the run was finished while it was being read, open it again")
        file = open_file(path, stored.digest)
        with read_errors(path):
            if stored.path.startswith(REPLIES):
                validation.check_replies(file)
            else:
                validation.check_rows(file, self.file)
        return file


def run_file(path: Path) -> Path:
    """The run.h5 that is meant by its folder, itself, or a link to it from elsewhere; its folder holds the rest.

    Only links to a run.h5 are followed: beyond one may be git-annex, which keeps the content under another name.
    """
    chain = [path / RUN_FILE if path.is_dir() else path]
    while chain[-1].is_symlink() and len(chain) < _MOST_LINKS:
        chain.append(chain[-1].parent / chain[-1].readlink())
    return next((link for link in reversed(chain) if link.name == RUN_FILE), chain[-1])
