"""`pbeauty analyze`: the statistics of runs, in tables and as JSON; `pbeauty plot`: their figures."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING

from pbeauty.cli.run import given_path
from pbeauty.errors import DONE
from pbeauty.files import printable

if TYPE_CHECKING:  # rich and the analysis are loaded by those commands that need them
    from rich.console import Console

    from pbeauty.analysis.findings import Findings
    from pbeauty.cli.tables import Table

_MOST_ROWS = 60
"""Of a table on a terminal; JSON has them all."""
_WIDTH_OF_FILES = 100
_NARROWEST = 8
"""Characters of a table's first column, in a terminal that is too narrow for it."""


def add_runs(parser: argparse.ArgumentParser) -> None:
    """What every command about several runs takes."""
    about = "a run's folder, its run.h5, or a folder with runs below"
    parser.add_argument("runs", nargs="+", type=given_path, metavar="RUN", help=about)


def add_confidence(parser: argparse.ArgumentParser) -> None:
    """Of intervals."""
    read = number_below(1, "confidence between 0 and 1, such as 0.95")
    parser.add_argument("--confidence", type=read, default=0.95, metavar="SHARE", help="of all intervals (0.95)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_runs(parser)
    add_confidence(parser)
    parser.add_argument("--full", action="store_true", help="print every table, not the summary alone")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "--power", type=number_below(math.inf, "difference of means above 0, such as 5"), metavar="D",
        help="plan from this pilot: sessions per case that show a difference of means of D",
    )  # fmt: skip
    parser.add_argument(
        "--within", type=number_below(math.inf, "distance above 0, such as 0.5"), metavar="D",
        help="count the guesses within D of the target, whoever won by the rules that were told",
    )  # fmt: skip


def command(options: argparse.Namespace) -> int:
    from pbeauty.analysis.findings import document, examine

    findings = examine(options.runs, options.confidence, options.power, options.within)
    if options.json:
        print(json.dumps(document(findings, options.confidence), indent=1, allow_nan=False))
    else:
        show(findings, full=options.full)
    return DONE


def plot_add_arguments(parser: argparse.ArgumentParser) -> None:
    from pbeauty.plots import KINDS

    add_runs(parser)
    parser.add_argument(
        "--only", action="append", default=[], choices=KINDS, metavar="KIND",
        help=f"draw this kind of figure and no other: {', '.join(KINDS)}; may be given several times",
    )  # fmt: skip


def plot_command(options: argparse.Namespace) -> int:
    """Draws, on all cores, and prints the path of each figure."""
    from pbeauty.plots import plot_all

    for path in plot_all(options.runs, options.only):
        print(path, flush=True)
    return DONE


def show(findings: Findings, *, full: bool) -> None:
    """Prints findings on standard output, as wide as the terminal is; `full`: every table, not the summary alone."""
    from rich.console import Console

    from pbeauty.cli.tables import headline, power_table, run_tables, summary, sweep_summary, sweep_tables

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WIDTH_OF_FILES
    text = io.StringIO()  # where standard output is closed, rich would end the process with an error
    console = Console(file=text, width=width, color_system=None, force_terminal=False, legacy_windows=False)
    variation = findings.variation
    if variation:
        varied = ", ".join(variation.varied) or "nothing but seed and sessions"
        runs = sum(len(case.analyses) for case in variation.cases)
        _say(console, f"{runs} runs, {len(variation.cases)} case(s); what varies: {varied}")
        for note in variation.notes:
            _say(console, f"Note: {note}")
        for table in sweep_tables(findings) if full else sweep_summary(findings):
            _table(console, table)
    for table in power_table(findings):
        _table(console, table)
    for one in findings.examined if full or not variation else []:
        _say(console)
        if one.analysis.unfinished:
            _say(console, f"*** {one.analysis.unfinished} ***")
        for line in headline(one):
            _say(console, line)
        for note in one.analysis.notes:
            _say(console, f"Note: {note}")
        for table in run_tables(one) if full else summary(one):
            _table(console, table)
    _say(console)
    for caution in findings.cautions:
        _say(console, f"Note: {caution}")
    if not full:
        _say(console, "--full has every table, --json every figure." + (" Of each run: --full." if variation else ""))
    sys.stdout.write(text.getvalue())


def _say(console: Console, text: str = "") -> None:
    from rich.text import Text

    console.print(Text(printable(text, 2000)))


def _table(console: Console, table: Table) -> None:
    from rich.table import Table as Grid
    from rich.text import Text

    _say(console)
    console.rule(Text(printable(table.title, 200)), align="left", characters="─")
    grid = Grid(box=None, pad_edge=False)
    cells = [max(len(row[index]) for row in table.rows) for index in range(len(table.headings))]
    fits = sum(map(max, cells, map(len, table.headings))) + 2 * len(cells) <= console.width
    widths = [max([cell, *map(len, heading.split())]) for cell, heading in zip(cells, table.headings, strict=True)]
    for index, heading in enumerate(table.headings):
        # Where it does not fit, headings are folded between words, and the first column is; figures never are.
        text = printable(heading) if fits or not index else "\n".join(textwrap.wrap(printable(heading), widths[index]))
        grid.add_column(Text(text), justify="right" if index else "left", no_wrap=bool(index), overflow="fold")
    for row in table.rows[:_MOST_ROWS]:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    least = min(widths[0], _NARROWEST) + sum(widths[1:]) + 2 * (len(widths) - 1)
    width, console.width = console.width, max(console.width, least)  # rather too wide than without its last columns
    console.print(grid)
    console.width = width
    if len(table.rows) > _MOST_ROWS:
        _say(console, f"... and {len(table.rows) - _MOST_ROWS:,} rows more; --json has them all")
    if table.note:
        _say(console, table.note)


def number_below(most: float, what: str) -> Callable[[str], float]:
    """What reads a number above 0 and below `most`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < most:
            raise argparse.ArgumentTypeError(f"{text!r} is no {what}")
        return value

    return read
