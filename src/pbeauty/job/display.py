"""What a person sees of a run: one line for each finished round, and how far the current round has come.

Progress is a live bar where standard error is a terminal. Elsewhere, as in a log file or under an MPI launcher that
collects what its ranks write, it is a plain line every few seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from pbeauty.game.experiment import Game
from pbeauty.game.records import Progress
from pbeauty.game.rules import Outcome, Status
from pbeauty.mpi.monitor import add

_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_BEFORE_BAR = 0.3
"""A round that is shorter than this shows no bar, which would only flicker."""


class Display:
    """Shows the progress of rounds on standard error, and their results on standard output."""

    def __init__(self, game: Game, count: int, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._game, self._count = game, count
        self._out, self._err = out or sys.stdout, err or sys.stderr
        self._live = self._err.isatty()
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._round = self._title = ""
        self._began = self._last_line = 0.0
        self._tabled = False

    def begin_round(self, round_index: int) -> None:
        """A round starts; -1 stands for the backgrounds that are written before the first round."""
        self._began = self._last_line = time.monotonic()
        self._title = f"round {round_index + 1}/{self._game.rounds}" if round_index >= 0 else "backgrounds"

    def show(self, ranks: Mapping[int, Progress]) -> None:
        """Shows how far the round has come, all ranks taken together."""
        progress = add(ranks.values())
        now = time.monotonic()
        seconds = max(now - self._began, 1e-9)
        rate = f"{progress.done / seconds:,.0f}/s"
        unusable = f", {progress.unusable:,} unusable" if progress.unusable else ""
        if self._live:
            if not self._bar and seconds >= _SECONDS_BEFORE_BAR:
                self._start_bar()
            if self._bar:
                self._bar.update(self._task, completed=progress.done, rate=f"{rate}{unusable}")
        elif now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            share = 100 * progress.done / max(self._count, 1)
            self.say(f"{self._title}: {progress.done:,} of {self._count:,} ({share:.0f}%), {rate}{unusable}")

    def end_round(self) -> None:
        """Removes the bar: the round is over, or was broken off."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def result(self, round_index: int, outcome: Outcome, statuses: dict[Status, int], seconds: float) -> None:
        """Prints a line for a finished round; a heading precedes the first line."""
        if not self._tabled:
            self._tabled = True
            heading = (
                f"{'round':>5} {'mean':>8} {'median':>8} {'target':>8} {'winners':>9} {'valid':>11} {'seconds':>8}"
            )
            print(f"{heading}  unusable", file=self._out)
        unusable = ", ".join(
            f"{count:,} {status.name.lower()}" for status, count in statuses.items() if count and not status.valid
        )
        print(
            f"{round_index + 1:>5} {outcome.mean:>8.2f} {outcome.median:>8.2f} {outcome.target:>8.2f} "
            f"{outcome.n_winners:>9,} {outcome.n_valid:>11,} {seconds:>8.2f}  {unusable or 'none'}",
            file=self._out,
            flush=True,
        )

    def say(self, message: str) -> None:
        """Prints a message on standard error."""
        print(message, file=self._err, flush=True)

    def _start_bar(self) -> None:
        columns = [
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        ]
        self._bar = Bar(*columns, console=Console(file=self._err), transient=True, expand=True)
        self._task = self._bar.add_task(self._title, total=self._count, rate="")
        self._bar.start()
