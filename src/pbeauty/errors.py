"""What can go wrong, in four kinds that callers tell apart, and the exit codes of the command line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

DONE, FAILED, BAD_REQUEST, INTERRUPTED, STOPPED = 0, 1, 2, 75, 130
"""Exit codes: finished; an error while running; a bad request (config, arguments, files); interrupted and resumable; a
command that has nothing to resume, stopped by Ctrl-C."""


class PbeautyError(Exception):
    """Base of every error that this package raises on purpose; its text is meant for the person at the terminal."""


class ConfigError(PbeautyError, ValueError):
    """A request that cannot be met: a bad experiment file, argument, model path or result folder."""


class RunFileError(PbeautyError):
    """A file of a run cannot be read or written: it is missing, damaged, of another schema, or the disk is full."""


class LockedError(PbeautyError):
    """Another job is playing in the run's folder."""


REFUSALS = (ConfigError, RunFileError, LockedError)
"""What a person can mend before trying again; a command then ends with `BAD_REQUEST`."""


class JobError(PbeautyError):
    """The whole job has to end, on every rank, with exit code `code`."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def nearest(name: str, known: Sequence[str]) -> str:
    """`; did you mean '...'?`, or nothing where no known name is close."""
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.65)
    return f"; did you mean {match[0]!r}?" if match else ""
