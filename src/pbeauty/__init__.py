"""pbeauty: the p-beauty contest ("guess p times the average") with up to millions of LLM participants, over MPI.

For notebooks: `pbeauty.open(path)` opens a run (`pbeauty.storage.run_reader.Run`), `pbeauty.rounds(path)` is a table of
the rounds of all runs in a folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pbeauty.program import __version__ as __version__

if TYPE_CHECKING:
    from os import PathLike

    from pbeauty.storage.run_reader import Run


def __dir__() -> list[str]:
    return ["__version__", "open", "rounds"]


def open(path: str | PathLike[str]) -> Run:
    """Opens a run for reading: `run.guesses`, `run.rounds`, `run.participants`, `run.replies(round, participant)`.

    Args:
        path: run.h5, a link to it, or the folder that holds it; the run may be one that is being played.

    Raises:
        RunFileError: if there is no run, a damaged one, or one of another schema.
    """
    from pathlib import Path

    from pbeauty.storage.run_reader import Run  # what it needs is loaded only when it is used

    return Run(Path(path))


def rounds(*paths: str | PathLike[str]) -> Any:
    """The figures of every round of several runs, with what varies between them, to be grouped by it.

    Args:
        paths: runs, or folders with runs below, such as that of a sweep.

    Returns:
        A pandas frame, or without pandas a structured array, a row per run, round and session; see
        `pbeauty.storage.dataframes.rounds_of_runs`.

    Raises:
        ConfigError: if there is no such run.
        RunFileError: if one is damaged.
    """
    from pathlib import Path

    from pbeauty.storage.dataframes import rounds_of_runs

    return rounds_of_runs([Path(path) for path in paths])
