"""What a person sees of a run: how engines load, how far the current round has come, a line for each finished round.

Progress is a live bar where standard error is a terminal. Elsewhere, as in a log file or under an MPI launcher that
collects what its ranks write, it is a plain line every few seconds.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from pbeauty.game.experiment import Game
from pbeauty.game.records import Progress, Status
from pbeauty.game.scoring import Outcome

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_BETWEEN_LOADING_LINES = 10.0
_SECONDS_BEFORE_BAR = 0.3
"""A round that is shorter than this shows no bar, which would only flicker."""
_UNUSABLE = [status for status in Status if not status.valid]


def print_line(text: str, stream: TextIO | None = None) -> None:
    """Prints a line at once, on standard output by default; that nobody reads any more (`| head`) is no error."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        discard_output(stream)


def discard_output(stream: TextIO) -> None:
    """Lets whatever is written to a stream from now on go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Display:
    """Shows the progress of a run on standard error, and the results of its rounds on standard output.

    One of the moderator's observers; a context manager, since a bar must not outlast an error.
    """

    def __init__(self, game: Game, count: int, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._game, self._count = game, count
        self._out, self._err = out or sys.stdout, err or sys.stderr
        self._terminal = self._err.isatty()
        self._bar: Bar | None = None
        self._title = ""
        self._began = self._last_line = 0.0
        self._has_heading = False
        self._engines = self._engines_ready = 0
        self._loaded = threading.Event()
        self._loading_lines: threading.Thread | None = None

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *error: object) -> None:
        self._end_loading()
        self._stop_bar()

    def loading(self, ready: int, engines: int) -> None:
        self._engines_ready, self._engines = ready, engines
        if self._terminal:
            self._move_bar("loading engines", ready, engines)
        elif self._loading_lines is None:
            self._began = time.monotonic()
            self._loading_lines = threading.Thread(target=self._print_loading, name="loading", daemon=True)
            self._loading_lines.start()

    def begin_playing(self, hosts: Sequence[str], counts: Sequence[int]) -> None:
        self._end_loading()
        self._stop_bar()

    def begin_round(self, round_index: int) -> None:
        self._began = self._last_line = time.monotonic()
        self._title = f"round {round_index + 1}/{self._game.rounds}" if round_index >= 0 else "backgrounds"

    def show(self, progress: Mapping[int, Progress]) -> None:
        now = time.monotonic()
        seconds = max(now - self._began, 1e-9)
        done = sum(part.done for part in progress.values())
        unusable = sum(part.unusable for part in progress.values())
        rate = f"{done / seconds:,.0f}/s" + (f", {unusable:,} unusable" if unusable else "")
        if self._terminal:
            if seconds >= _SECONDS_BEFORE_BAR:
                self._move_bar(self._title, done, self._count, rate)
        elif now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            share = 100 * done / max(self._count, 1)
            self.say(f"{self._title}: {done:,} of {self._count:,} ({share:.0f}%), {rate}")

    def end_round(self) -> None:
        self._stop_bar()

    def result(self, round_index: int, outcome: Outcome, statuses: Mapping[Status, int], seconds: float) -> None:
        if not self._has_heading:
            self._has_heading = True
            names = ("mean", "median", "target", "winners", "valid", "seconds")
            widths = (8, 8, 8, 9, 11, 8)
            columns = [f"{name:>{width}}" for name, width in zip(names, widths, strict=True)]
            print_line(f"round {' '.join(columns)}  unusable", self._out)
        unusable = [f"{statuses[status]:,} {status.name.lower()}" for status in _UNUSABLE if statuses.get(status)]
        print_line(
            f"{round_index + 1:>5} {outcome.mean:>8.2f} {outcome.median:>8.2f} {outcome.target:>8.2f} "
            f"{outcome.n_winners:>9,} {outcome.n_valid:>11,} {seconds:>8.2f}  {', '.join(unusable) or 'none'}",
            self._out,
        )

    def say(self, message: str) -> None:
        print_line(message, self._err)

    def end(self, state: str, message: str | None = None) -> None:
        pass  # said by the moderator

    def _print_loading(self) -> None:
        while not self._loaded.wait(_SECONDS_BETWEEN_LOADING_LINES):
            seconds = time.monotonic() - self._began
            self.say(f"loading engines: {self._engines_ready} of {self._engines}, {seconds:.0f} s")

    def _end_loading(self) -> None:
        self._loaded.set()
        if self._loading_lines:
            self._loading_lines.join()

    def _move_bar(self, title: str, done: int, total: int, rate: str = "") -> None:
        """Moves the bar, which is there from its first move on."""
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn())
            columns += (TextColumn("{task.fields[rate]}"), TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(file=self._err), transient=True, expand=True)
            self._bar.add_task(title, total=total, rate="")
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, rate=rate)

    def _stop_bar(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None
