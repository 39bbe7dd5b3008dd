"""`pbeauty analyze`: the statistics of runs, in tables and as JSON; `pbeauty plot`: their figures."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING

from pbeauty.cli.run import given_path
from pbeauty.errors import DONE
from pbeauty.files import aligned, printable

if TYPE_CHECKING:  # the analysis is loaded by those commands that need it
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
    """What `pbeauty analyze` takes."""
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
    """Prints the statistics."""
    from pbeauty.analysis.findings import document, examine

    findings = examine(options.runs, options.confidence, options.power, options.within)
    if options.json:
        print(json.dumps(document(findings, options.confidence), indent=1, allow_nan=False))
    else:
        show(findings, full=options.full)
    return DONE


def plot_add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `pbeauty plot` takes."""
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
    from pbeauty.cli.tables import headline, power_table, run_tables, summary, sweep_summary, sweep_tables

    texts: list[str | Table] = []
    variation = findings.variation
    if variation:
        varied = ", ".join(variation.varied) or "nothing but seed and sessions"
        runs = sum(len(case.analyses) for case in variation.cases)
        texts.append(f"{runs} runs, {len(variation.cases)} case(s); what varies: {varied}")
        texts += [f"Note: {note}" for note in variation.notes]
        texts += sweep_tables(findings) if full else sweep_summary(findings)
    texts += power_table(findings)
    for one in findings.examined if full or not variation else []:
        texts.append("")
        texts += [f"*** {one.analysis.unfinished} ***"] if one.analysis.unfinished else []
        texts += headline(one)
        texts += [f"Note: {note}" for note in one.analysis.notes]
        texts += run_tables(one) if full else summary(one)
    texts.append("")
    texts += [f"Note: {caution}" for caution in findings.cautions]
    if not full:
        texts.append("--full has every table, --json every figure." + (" Of each run: --full." if variation else ""))
    width = shutil.get_terminal_size((_WIDTH_OF_FILES, 0)).columns
    for text in texts:
        print(*(_wrapped(text, width) if isinstance(text, str) else _table(text, width)), sep="\n")


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(printable(text, 2000), width, break_on_hyphens=False) or [""]


def _table(table: Table, width: int) -> Iterator[str]:
    """A table as lines; where it does not fit, headings are folded between words, and so is the first column."""
    title = printable(table.title, 200)
    yield from ("", f"{title} {'─' * (width - len(title) - 1)}")
    headings, *rows = ([printable(cell) for cell in row] for row in (table.headings, *table.rows[:_MOST_ROWS]))
    cells = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths = list(map(max, cells, map(len, headings)))
    gaps = 2 * (len(widths) - 1)
    if sum(widths) + gaps > width:
        widths = [max([cell, *map(len, head.split())]) for cell, head in zip(cells, headings, strict=True)]
        widths[0] = min(widths[0], max(_NARROWEST, width - gaps - sum(widths[1:])))
    fold = partial(textwrap.wrap, break_on_hyphens=False)
    folded = [list(map(fold, row, widths)) for row in rows]
    above = [fold(heading, width)[::-1] for heading, width in zip(headings, widths, strict=True)]
    lines = [*zip_longest(*above, fillvalue="")][::-1]  # headings stand right above their columns
    yield from aligned([*lines, *(line for row in folded for line in zip_longest(*row, fillvalue=""))], left=1)
    if len(table.rows) > _MOST_ROWS:
        yield f"... and {len(table.rows) - _MOST_ROWS:,} rows more; --json has them all"
    if table.note:
        yield from _wrapped(table.note, width)


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
