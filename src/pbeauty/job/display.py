"""What a person sees of a run: how engines load, how far the current round has come, a line for each finished round.

Progress is a live bar where standard error is a terminal. Elsewhere, as in a log file or under an MPI launcher that
collects what its ranks write, it is a plain line every few seconds.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TextIO

import numpy as np

from pbeauty.game.experiment import Experiment
from pbeauty.game.records import Floats, Status
from pbeauty.game.scoring import Scored

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_BEFORE_BAR = 0.3
"""A round that is shorter than this shows no bar, which would only flicker."""
_UNUSABLE = [status for status in Status if not status.valid and status != Status.NOT_ASKED]
_COLUMNS = {"round": 5, "mean": 8, "median": 8, "target": 8, "winners": 9, "valid": 11, "seconds": 8}
"""The columns of the line of a round, and their widths."""
_COLUMNS_OF_SESSIONS = {"round": 5, "mean [95 % interval]": 22, "targets": 17, "winners": 9, "valid": 11, "seconds": 8}


def print_line(text: str, stream: TextIO | None = None) -> None:
    """Prints a line at once, on standard output by default.

    That nobody reads any more (`| head`), or that a full disk takes no more lines, ends no run.
    """
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError:
        discard_output(stream)


def discard_output(stream: TextIO) -> None:
    """Lets whatever is written to a stream from now on go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Display:
    """Shows the progress of a run on standard error, and the results of its rounds on standard output.

    A context manager, since a bar must not outlast an error.
    """

    def __init__(self, experiment: Experiment, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._rounds, self._sessions = experiment.game.rounds, experiment.sessions
        self._out, self._err = out or sys.stdout, err or sys.stderr
        self._terminal = self._err.isatty()
        self._bar: Bar | None = None
        self._title = ""
        self._next_line = _SECONDS_BETWEEN_LINES  # seconds after the loading of engines, or the round, began
        self._has_heading = False

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop_bar()

    def loading(self, ready: int, engines: int, seconds: float) -> None:
        """So many engines have been loaded after so many seconds."""
        self._title = "loading engines"
        self._follow(ready, engines, seconds, f"{seconds:.0f} s")

    def begin_round(self, round_index: int) -> None:
        """The ranks begin to answer; at BACKGROUNDS_ROUND they write backgrounds."""
        self._next_line = _SECONDS_BETWEEN_LINES
        self._title = f"round {round_index + 1}/{self._rounds}" if round_index >= 0 else "backgrounds"

    def show(self, done: int, total: int, unusable: int, seconds: float) -> None:
        """So many participants have answered, some of them without a valid guess, after so many seconds."""
        rate = f"{done / seconds:,.0f}/s, {seconds:.0f} s"
        self._follow(done, total, seconds, f"{rate}, {unusable:,} unusable" if unusable else rate)

    def result(self, round_index: int, scored: Scored, seconds: float) -> None:
        """The line of a round, which took so many seconds."""
        outcome, several = scored.outcome, self._sessions > 1
        columns = _COLUMNS_OF_SESSIONS if several else _COLUMNS
        if not self._has_heading:
            self._has_heading = True
            print_line(" ".join(f"{name:>{width}}" for name, width in columns.items()) + "  unusable", self._out)
        played = outcome.n_valid > 0
        if several:
            targets = outcome.target[played]
            figures = [_mean_of_sessions(outcome.mean[played]), f"{targets.min():.2f} to {targets.max():.2f}"]
        else:
            figures = [f"{value.item():.2f}" for value in (outcome.mean, outcome.median, outcome.target)]
        counts = [f"{outcome.n_winners.sum():,}", f"{outcome.n_valid.sum():,}"]
        cells = [round_index + 1, *figures, *counts, f"{seconds:.2f}"]
        row = " ".join(f"{cell:>{width}}" for cell, width in zip(cells, columns.values(), strict=True))
        unusable = [f"{scored.statuses[code]:,} {code.name.lower()}" for code in _UNUSABLE if scored.statuses.get(code)]
        ended = f"; {np.count_nonzero(~played):,} of {played.size:,} sessions have ended" if not played.all() else ""
        print_line(f"{row}  {', '.join(unusable) or 'none'}{ended}", self._out)

    def say(self, message: str) -> None:
        """Something that a person should know."""
        print_line(message, self._err)

    def _follow(self, done: int, total: int, seconds: float, text: str) -> None:
        """Moves the bar, or prints a line if it is time for one."""
        if not self._terminal:
            if seconds >= self._next_line:
                self._next_line = seconds + _SECONDS_BETWEEN_LINES
                self.say(f"{self._title}: {done:,} of {total:,} ({done / max(total, 1):.0%}), {text}")
            return
        if self._bar is None and seconds >= _SECONDS_BEFORE_BAR:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
            console = Console(file=self._err)
            self._bar = Progress("{task.description}", *columns, console=console, transient=True, expand=True)
            self._bar.add_task(self._title, total=total, text=text)
            self._bar.start()
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=done, total=total, text=text)

    def stop_bar(self) -> None:
        """Takes the bar away."""
        if self._bar:
            self._bar.stop()
            self._bar = None


def _mean_of_sessions(means: Floats) -> str:
    """The mean of sessions' means, float64[session], with Student's t interval: `36.70 [35.10, 38.40]`."""
    from pbeauty.analysis import intervals

    found = intervals.moments(means).interval()
    return f"{found.value:.2f}" + (f" [{found.low:.2f}, {found.high:.2f}]" if means.size > 1 else "")
