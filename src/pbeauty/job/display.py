"""What a person sees of a run: a live bar on a terminal, plain lines in a file, one line per round."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Mapping
from pathlib import Path
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
"""A shorter round shows no bar: it would only flicker, and meet the line of the round before on its way here."""
_LAUNCHERS = ("mpirun", "mpiexec", "mpiexec.hydra", "hydra_pmi_proxy", "prterun", "orterun")


class Display:
    """Progress of rounds on standard error, results of rounds on standard output."""

    def __init__(self, game: Game, count: int, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._game, self._count = game, count
        self._out, self._err = out or sys.stdout, err or sys.stderr
        self._terminal = _terminal(self._err)
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._round = self._title = ""
        self._began = self._last_line = 0.0
        self._tabled = False

    def begin_round(self, round_index: int) -> None:
        """A round starts, or, at -1, what comes before the first."""
        self._began = self._last_line = time.monotonic()
        self._title = f"round {round_index + 1}/{self._game.rounds}" if round_index >= 0 else "backgrounds"

    def show(self, ranks: Mapping[int, Progress]) -> None:
        """How far the round has come, all ranks together."""
        progress = add(ranks.values())
        now = time.monotonic()
        seconds = max(now - self._began, 1e-9)
        rate = f"{progress.done / seconds:,.0f}/s"
        unusable = f", {progress.unusable:,} unusable" if progress.unusable else ""
        if self._terminal:
            if not self._bar and seconds >= _SECONDS_BEFORE_BAR:
                self._start_bar(self._terminal)
            if self._bar:
                self._bar.update(self._task, completed=progress.done, rate=f"{rate}{unusable}")
        elif now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            share = 100 * progress.done / max(self._count, 1)
            self.say(f"{self._title}: {progress.done:,} of {self._count:,} ({share:.0f}%), {rate}{unusable}")

    def end_round(self) -> None:
        """The round's progress is over, however it ended."""
        if self._bar:
            with contextlib.suppress(OSError):  # the terminal may be gone by now; the game goes on
                self._bar.stop()
            self._bar = None

    def result(self, round_index: int, outcome: Outcome, statuses: dict[Status, int], seconds: float) -> None:
        """One line for a finished round, under a heading before the first."""
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
        """A line for the person, on standard error."""
        print(message, file=self._err, flush=True)

    def _start_bar(self, terminal: TextIO) -> None:
        columns = [
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        ]
        try:
            width = os.get_terminal_size(terminal.fileno()).columns or None
            self._bar = Bar(*columns, console=Console(file=terminal, width=width), transient=True, expand=True)
            self._task = self._bar.add_task(self._title, total=self._count, rate="")
            self._bar.start()
        except OSError:
            self._bar = self._terminal = None


def _terminal(err: TextIO) -> TextIO | None:
    """Where a person sees what is written to `err`: a terminal, be it at the other end of an MPI launcher's pipe.

    Launchers pipe what ranks say through themselves, so a launcher above this process whose own standard error is a
    terminal shows the person ours. The bar is written to that terminal directly: it must be gone before the
    round's line, which takes the pipe, arrives.
    """
    if err.isatty():
        return err
    try:
        kind = os.fstat(err.fileno()).st_mode
        pid = os.getppid()
        while _name(pid) not in _LAUNCHERS:
            pid = _parent(pid)
        while _name(pid) in _LAUNCHERS:
            launcher, pid = pid, _parent(pid)
        shown = Path(f"/proc/{launcher}/fd/2")
        if stat.S_ISREG(kind) or not stat.S_ISCHR(shown.stat().st_mode):
            return None
        # A rank leads a session of its own: without O_NOCTTY it would take the terminal over.
        terminal = os.fdopen(os.open(shown, os.O_WRONLY | os.O_NOCTTY), "w", encoding="utf-8")
    except (OSError, ValueError):  # no launcher above, no /proc, or a stream without a file
        return None
    return terminal if terminal.isatty() else None


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _parent(pid: int) -> int:
    """The parent of a process, as Linux tells it: the second field after the name, which may hold anything."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
