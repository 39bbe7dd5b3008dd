"""Reading a run: what plots, analyses and notebooks start from. Never imports the runtime."""

from __future__ import annotations

import dataclasses
import json
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
            reason = error.strerror or "it is not an HDF5 file"
            raise ConfigError(f"cannot read a run from {self.path}: {reason}") from None
        version = self.file.attrs.get("schema_version")
        if version is None or "rounds" not in self.file:
            raise ConfigError(f"{self.path} is an HDF5 file, but not a run of pbeauty")
        if version > SCHEMA_VERSION:
            raise ConfigError(
                f"{self.path} has schema version {version}, this pbeauty reads up to {SCHEMA_VERSION}: install a newer one"
            )

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
        return loads(str(self.file.attrs["experiment"]), source=f"the experiment in {self.path}")

    @cached_property
    def provenance(self) -> Mapping[str, Any]:
        """Where and with what the run was made."""
        return json.loads(self.file.attrs["provenance"])

    @property
    def finished(self) -> bool:
        """Whether every round that was to be played has been."""
        return bool(self.file.attrs["finished"])

    @property
    def rounds(self) -> int:
        """Finished rounds."""
        return len(self.file["rounds/target"])

    @property
    def seconds(self) -> NDArray[np.float64]:
        """Wall time of each round in s, float64[round]."""
        return self.file["rounds/seconds"][:]

    def outcome(self, round_index: int) -> Outcome:
        """The figures of a round, from 0."""
        rounds = self.file["rounds"]
        return Outcome(**{f.name: rounds[f.name][round_index].item() for f in dataclasses.fields(Outcome)})

    def guesses(self, round_index: int) -> NDArray[np.float64]:
        """All guesses of a round, float64[participant], NaN where there is none."""
        return self.file["rounds/guess"][round_index]

    def status(self, round_index: int) -> NDArray[np.uint8]:
        """What became of every reply of a round, uint8[participant], values of `game.Status`."""
        return self.file["rounds/status"][round_index]
