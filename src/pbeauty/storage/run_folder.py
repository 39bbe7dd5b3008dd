"""A run's folder: what it is called, whether an earlier run in it can be resumed, and which runs a path means."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pbeauty.config.differences import WITHOUT_EFFECT, flat
from pbeauty.errors import ConfigError
from pbeauty.files import CASES_FILE, RUN_FILE
from pbeauty.game.experiment import Experiment
from pbeauty.storage.run_reader import Run, run_file

_MAY_DIFFER: Any = {
    **dict.fromkeys(WITHOUT_EFFECT, True),
    "models": {"__all__": {"weight": True, "tensor_parallel_size": True, "engine": {"gpu_memory_utilization"}}},
    "population": {"__all__": {"personas": {"file"}}},
}
"""Keys that may differ between a run and its resumption, as pydantic leaves them out. (What is in a file of personas is
compared by its digest.)"""

_MOST_FOLDERS = 20_000
"""Folders without a run that are looked into: more are no results."""


def run_folder(experiment: Experiment, out: Path | None, *, resume: bool) -> Path:
    """The folder for a run, created if need be.

    Args:
        experiment: what is to be played.
        out: exactly this folder; None for one under `results`, named after the experiment and the time.
        resume: without `out`, the latest unfinished run of the experiment is taken.

    A folder that cannot be created is a ConfigError.
    """
    parent = Path(experiment.results) / experiment.name / _population(experiment) / _settings(experiment)
    if out is None and resume and (unfinished := _latest_unfinished(parent)):
        return unfinished
    stamp = datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    candidates = [out] if out else [parent / stamp, *(parent / f"{stamp}-{n}" for n in range(2, 100))]
    for folder in candidates:
        try:
            folder.mkdir(parents=True, exist_ok=out is not None)
            return folder
        except OSError as error:
            if out or not isinstance(error, FileExistsError):
                raise ConfigError(f"cannot create the result folder {folder}: {error.strerror}") from None
    raise ConfigError(f"cannot create a result folder: {candidates[0]} and its like exist")


def folder_names(folder: Path) -> list[Path]:
    """The names by which other hosts may know a folder, the likeliest first.

    Where home folders are mounted when they are used, the name that a link or the working directory leads to may be
    known to this host alone; the shell's name of the working directory is known to all.
    """
    shell = Path(os.environ.get("PWD", "/")) / folder
    names = [shell] if shell.exists() and shell.samefile(folder) else []
    return list(dict.fromkeys([*names, folder.absolute(), folder.resolve()]))


def refuse_played(folder: Path) -> None:
    """Refuses, with a ConfigError, to start a run in a folder that holds one, finished or not."""
    if not os.path.lexists(folder / RUN_FILE):
        return
    with Run(folder) as run:
        if run.complete:
            raise ConfigError(f"{folder} holds a finished run; another --out starts anew")
    raise ConfigError(f"{folder} holds a run already; --resume goes on with it, another --out starts anew")


def check_same_experiment(run: Run, experiment: Experiment) -> None:
    """Refuses to go on with the run of another experiment: a ConfigError lists every difference that alters results."""
    before, now = (flat(one, _MAY_DIFFER) for one in (run.experiment, experiment))
    differences = [
        f"\n  {key}: {before.get(key)!r} in the run, {now.get(key)!r} now"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    ]
    if differences:
        raise ConfigError(
            f"{run.path.parent} holds a run of another experiment; another --out starts anew:{''.join(differences)}"
        )


def _population(experiment: Experiment) -> str:
    sessions = f"{experiment.sessions}x" if experiment.sessions > 1 else ""
    return (sessions + "+".join(f"{group.name}-{group.count}" for group in experiment.population))[:100]


def _settings(experiment: Experiment) -> str:
    game = experiment.game
    return f"p{game.multiplier.replace('/', '-')}_c{game.offset:g}_{game.aggregate}_seed{experiment.seed}"


def _latest_unfinished(parent: Path) -> Path | None:
    for path in sorted(parent.glob(f"*/{RUN_FILE}"), reverse=True):
        with Run(path) as run:
            if not run.complete:
                return path.parent
    return None


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The files of all runs that are meant, each once, in the order given.

    Below a folder they are sorted by path, and cases of a sweep as in its file.

    Raises:
        ConfigError: if a path does not exist, or is a folder without a run, or of too many others.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = run_folders(path, lambda folder: os.path.lexists(folder / RUN_FILE))
            if not below:
                raise ConfigError(f"there is no {RUN_FILE} in {path}, nor in a folder below it")
            found += [folder / RUN_FILE for folder in below]
        elif os.path.lexists(path):
            found.append(path)
        else:
            raise ConfigError(f"cannot read a run from {path}: there is no such file or folder")
    files = {path: run_file(path) for path in found}
    return list({file.parent.resolve() / file.name: path for path, file in files.items()}.values())


def named_runs(paths: Sequence[Path]) -> dict[str, Path]:
    """The files of `find_runs` by what each run is called beside the others: its folder, seen from the one given."""
    named = {}
    for file in find_runs(paths):
        folder = file.parent
        above = next((path for path in paths if len(paths) == 1 and folder.is_relative_to(path)), Path())
        named[str(folder.relative_to(above)) if folder.is_relative_to(above) else str(folder)] = file
    return named


def run_folders(path: Path, holds_run: Callable[[Path], bool]) -> list[Path]:
    """The folder itself, if it holds a run, or the nearest folders below that do, sorted as in `find_runs`.

    Folders that cannot be read are named on standard error; too many without a run are a ConfigError.
    """

    def tell(error: OSError) -> None:
        print(f"pbeauty: cannot read {error.filename}: {error.strerror}; runs in it are left out", file=sys.stderr)

    found, without = [], 0
    for name, folders, _ in os.walk(path, onerror=tell):
        if holds_run(Path(name)):
            folders.clear()
            found.append(Path(name))
        elif (without := without + 1) > _MOST_FOLDERS:
            raise ConfigError(
                f"{path} has more than {_MOST_FOLDERS:,} folders without a run; give one nearer to the runs"
            )
    return sorted(found, key=_sort_key)


def _sort_key(run: Path) -> Path:
    """What runs are sorted by: their folder, and cases of a sweep by their rows in its table of cases."""
    try:
        with (run.parent / CASES_FILE).open(newline="", encoding="utf-8") as file:
            names = [row[0] for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error):
        return run
    return run.with_name(f"{names.index(run.name):09d}") if run.name in names else run
