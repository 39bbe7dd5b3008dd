"""Which runs a command line means: a run's folder, its file, or a folder that holds runs anywhere below it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pbeauty.errors import ConfigError
from pbeauty.storage.run_writer import RUN_FILE


def find(paths: Sequence[Path]) -> list[Path]:
    """The files of all runs that are meant, each once, in the order given and sorted below a folder.

    Raises:
        ConfigError: if a path does not exist, or is a folder without a run.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = [path / RUN_FILE] if (path / RUN_FILE).exists() else sorted(path.rglob(RUN_FILE))
            if not below:
                raise ConfigError(f"there is no {RUN_FILE} in {path}, nor in a folder below it")
            found += below
        elif path.exists():
            found.append(path)
        else:
            raise ConfigError(f"cannot read a run from {path}: there is no such file or folder")
    return list({path.resolve(): path for path in found}.values())
