"""Reading a run: what plots, analyses and notebooks start from. Never imports the runtime."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pbeauty.config import ConfigError, Experiment
from pbeauty.config_file import loads
from pbeauty.game import Outcome
from pbeauty.personas import Cast
from pbeauty.ragged import Ragged
from pbeauty.records import Purpose
from pbeauty.sound import check_experiment, check_run, reading, sealed_replies
from pbeauty.store import RUN_FILE, SCHEMA_VERSION


class Run:
    """A run on disk, opened for reading; finished rounds only. Use it as a context manager, or `close` it."""

    def __init__(self, path: str | Path) -> None:
        """Opens a run.

        Args:
            path: run.h5, or the folder that holds it.

        Raises:
            ConfigError: if there is no run, or one of a newer schema.
        """
        path = Path(path)
        self.path = path / RUN_FILE if path.is_dir() else path
        try:
            self.file = h5py.File(self.path, "r")
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else "it is not an HDF5 file, or a damaged one"
            raise ConfigError(f"cannot read a run from {self.path}: {reason}") from None
        try:
            self._check()
        except ConfigError:
            self.close()
            raise

    def _check(self) -> None:
        with reading(self.path):
            version = self.file.attrs.get("schema_version")
            if not isinstance(version, np.integer) or "rounds/target" not in self.file:
                raise ConfigError(f"{self.path} is an HDF5 file, but not a run of pbeauty")
        if version > SCHEMA_VERSION:
            raise ConfigError(
                f"{self.path} has schema version {version}, this pbeauty reads up to {SCHEMA_VERSION}: "
                "install a newer one"
            )
        check_run(self.file, self.path)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
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
        return bool(self.file.attrs["finished"])

    @property
    def rounds(self) -> int:
        """Finished rounds."""
        return len(self.file["rounds/target"])

    def read(self, name: str, which: int | slice = slice(None)) -> NDArray[Any]:
        """A dataset of `/rounds`, or some rounds of it.

        Args:
            name: guess, status, mean, ...
            which: a round, from 0, or a range of rounds.

        Raises:
            ConfigError: if it is damaged.
        """
        with reading(self.path):
            return self.file[f"rounds/{name}"][which]

    @property
    def seconds(self) -> NDArray[np.float64]:
        """Wall time of each round in s, float64[round]."""
        return self.read("seconds")

    def outcome(self, round_index: int) -> Outcome:
        """The figures of a round, from 0."""
        return Outcome(**{f.name: self.read(f.name, round_index).item() for f in dataclasses.fields(Outcome)})

    def said(self, round_index: int, participants: NDArray[np.int64]) -> tuple[Ragged, NDArray[np.int64]]:
        """What language models said in a round, as far as their conversations go on from it.

        Args:
            round_index: from 0.
            participants: ids, ascending.

        Returns:
            Token ids, and the row of them that is each participant's last answer, int64[len(participants)].

        Raises:
            ConfigError: if a reply is missing or damaged.
        """
        flats, lengths, found = [], [], []
        for path, block in sealed_replies(self.file, self.path.parent, round_index).items():
            with reading(path):
                ids = block["participant"][:].astype(np.int64)
                spoken = np.flatnonzero(block["purpose"][:] != Purpose.EXTRACTION)
                rows = Ragged.of(block["tokens"][:], block["token_offsets"][:])
            last = spoken[np.append(np.flatnonzero(np.diff(ids[spoken])), len(spoken) - 1)]
            last = last[np.isin(ids[last], participants, assume_unique=True)]
            tokens, offsets = rows.take(last)
            flats.append(tokens)
            lengths.append(np.diff(offsets))
            found.append(ids[last])
        everyone = np.concatenate(found) if found else np.empty(0, np.int64)
        order = np.argsort(everyone)
        if not np.array_equal(everyone[order], participants):
            raise ConfigError(
                f"{self.path}: replies of round {round_index + 1} are missing from {self.path.parent / 'replies'}"
            )
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]) if lengths else np.zeros(1, np.int64)
        return Ragged.of(np.concatenate(flats) if flats else np.empty(0, np.int32), offsets), order

    @cached_property
    def cast(self) -> Cast | None:
        """Attributes and backgrounds of all participants; None where they are not stored.

        Raises:
            ConfigError: if they are damaged.
        """
        if "personas" not in self.file:
            return None
        with reading(self.path):
            names = [name for name in self.file["participants"] if name != "group"]
            columns = {name: self.file[f"participants/{name}"] for name in names}
            texts = Ragged.of(self.file["personas/text"][:], self.file["personas/text_offsets"][:])
            return Cast(
                {name: [str(label) for label in column.attrs["labels"]] for name, column in columns.items()},
                {name: column[:] for name, column in columns.items()},
                texts,
                self.file["personas/row"][:],
            )

    def guesses(self, round_index: int) -> NDArray[np.float64]:
        """All guesses of a round, float64[participant], NaN where there is none."""
        return self.read("guess", round_index)

    def status(self, round_index: int) -> NDArray[np.uint8]:
        """What became of every reply of a round, uint8[participant], values of `game.Status`."""
        return self.read("status", round_index)
