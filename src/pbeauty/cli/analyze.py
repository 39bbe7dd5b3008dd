"""`pbeauty analyze`: the statistics of runs, in tables for people and as JSON for scripts."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from pbeauty.analysis.comparison import CAUTIONS, Examined, Findings, document, examine
from pbeauty.analysis.variation import Variation
from pbeauty.cli.tables import Table, number, run_tables, sweep_tables
from pbeauty.storage.untrusted import printable

_MOST_ROWS = 40


def analyze(paths: Sequence[Path], *, confidence: float, as_json: bool) -> None:
    """The command: prints what `examine` finds.

    Raises:
        ConfigError: if a run cannot be read.
    """
    findings = examine(paths, confidence)
    try:
        if as_json:
            print(json.dumps(document(findings, confidence), indent=1, allow_nan=False))
        else:
            _show(findings)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show(findings: Findings) -> None:
    """Prints the findings on standard output, as wide as the tables are."""
    console = Console(file=sys.stdout, width=200, color_system=None, force_terminal=False, legacy_windows=False)
    for one in findings.examined:
        _head(console, one)
        for table in run_tables(one):
            _table(console, table)
        _say(console)
    if findings.variation:
        _heads(console, findings.variation)
        for table in sweep_tables(findings):
            _table(console, table)
        _say(console)
    for caution in CAUTIONS:
        _say(console, f"Note: {caution}")


def _say(console: Console, text: str = "") -> None:
    console.print(Text(printable(text, 2000)), soft_wrap=True)


def _head(console: Console, one: Examined) -> None:
    """What a run is, before its tables."""
    analysis = one.analysis
    if analysis.unfinished:
        _say(console, f"*** {analysis.unfinished} ***")
    game, percent = analysis.game, f"{100 * analysis.confidence:g} %"
    offset = f"{game.offset:g} + " if game.offset else ""
    _say(console, f"{analysis.name} (seed {analysis.seed}): {analysis.path}")
    _say(
        console,
        f"{analysis.participants:,} participants, target {offset}{game.multiplier} x {game.aggregate}, "
        f"[{game.low:g}, {game.high:g}], equilibrium {number(analysis.equilibrium)}; [{percent} intervals]",
    )
    for note in analysis.notes:
        _say(console, f"Note: {note}")


def _heads(console: Console, variation: Variation) -> None:
    """What several runs are, before their tables."""
    runs = sum(len(case.analyses) for case in variation.cases)
    varied = ", ".join(variation.varied) or "nothing but the seed"
    _say(console, f"{runs} runs, {len(variation.cases)} case(s); what varies: {varied}")
    for note in variation.notes:
        _say(console, f"Note: {note}")


def _table(console: Console, table: Table) -> None:
    _say(console)
    _say(console, table.title)
    grid = Grid(box=None, pad_edge=False)
    for index, heading in enumerate(table.headings):
        grid.add_column(Text(printable(heading)), justify="left" if index == 0 else "right", no_wrap=True)
    for row in table.rows[:_MOST_ROWS]:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    console.print(grid)
    if len(table.rows) > _MOST_ROWS:
        _say(console, f"... and {len(table.rows) - _MOST_ROWS:,} rows more; --json has them all")
