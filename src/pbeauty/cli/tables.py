"""The tables about runs, as text: `pbeauty analyze` prints them, and `pbeauty report` puts them into its page."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from pbeauty.analysis.comparison import CAUTIONS, Comparison, Examined, Findings
from pbeauty.analysis.group_stats import GroupStats
from pbeauty.analysis.intervals import Estimate
from pbeauty.analysis.run_analysis import EVERYBODY
from pbeauty.analysis.variation import Variation
from pbeauty.files import printable

_MOST_ROWS = 40
"""Of a table on a terminal; JSON has them all."""


@dataclass(frozen=True)
class Table:
    """A table as text. Names in it may be other people's words: whoever shows it must make them harmless."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def run_tables(one: Examined) -> list[Table]:
    """What is told of one run; tables without a row are left out."""
    cells = one.analysis.of()
    made = [
        Table(
            "Guesses by round",
            ("round", "valid", "mean", "SD", "median", "mode", "target", "winners", "below last target (%)",
             "to equilibrium"),
            [(str(c.round), _valid(c), estimate(c.mean), estimate(c.sd), estimate(c.median), estimate(c.mode),
              number(c.target.value), f"{c.n_winners:,}", share(c.below_target), number(c.distance.value))
             for c in cells],
        ),
        Table(
            "Quantiles and convergence (distance to equilibrium over that of the round before, and per round)",
            ("round", *(f"{100 * q:g} %" for c in cells[:1] for q in c.quantiles), "convergence", "rate"),
            [(str(c.round), *map(estimate, c.quantiles.values()), estimate(c.convergence), estimate(c.rate))
             for c in cells if c.n_valid],
        ),
        _levels(cells),
        _unusable(cells),
    ]  # fmt: skip
    made += [_groups(one, by) for by in dict.fromkeys(cell.by for cell in one.analysis.cells) if by != EVERYBODY]
    return _with_rows(made + _published(one.comparisons))


def sweep_tables(findings: Findings) -> list[Table]:
    """What is told of several runs together; nothing of a single one."""
    variation = findings.variation
    if variation is None:
        return []
    paths = [one.analysis.path for one in findings.examined]
    return _with_rows([
        Table(
            "Means across replicates",
            ("case", "round", "runs", "mean of means", "SD of means", "of that by sampling", "between games"),
            [(r.case, str(r.round), str(r.runs), estimate(r.mean), estimate(r.observed), number(r.sampling),
              estimate(r.between)) for r in variation.replicated if r.by == EVERYBODY],
        ),
        Table(
            "Where the variance of means comes from (%)",
            ("source", "round", "share", "p", "p (Holm)"),
            [(s.source, str(s.round), share(s.share), p_value(s.p_value), p_value(s.p_holm))
             for s in variation.sources if s.by == EVERYBODY],
        ),
        Table(
            f"Each run beside the first, {paths[0]}",
            ("run", "round", "mean less the first's", "p (Holm)"),
            [(path, str(c.round), estimate(c.difference.estimate), p_value(c.p_holm))
             for path, found in zip(paths[1:], findings.between, strict=True) for c in found],
        ),
    ])  # fmt: skip


def _with_rows(tables: Iterable[Table]) -> list[Table]:
    return [table for table in tables if table.rows]


def _valid(cell: GroupStats) -> str:
    return f"{cell.n_valid:,} of {cell.n:,}"


def _levels(cells: Sequence[GroupStats]) -> Table:
    levelled = [cell for cell in cells if cell.levels]
    return Table(
        "Share of guesses by level, in windows of a quarter step (%), and the cognitive hierarchy's tau by the mean",
        ("round", *(name for cell in levelled[:1] for name in cell.levels), "tau"),
        [(str(c.round), *map(share, c.levels.values()), estimate(c.tau_mean)) for c in levelled],
    )


def _unusable(cells: Sequence[GroupStats]) -> Table:
    bad = [cell for cell in cells if cell.n_valid < cell.n]
    statuses = [name for name in (bad[0].statuses if bad else ()) if any(c.statuses[name].value for c in bad)]

    def worst(cell: GroupStats) -> tuple[str, str]:
        if not cell.mean_bounds:
            return "-", "-"
        return f"{number(cell.mean_bounds.low)} to {number(cell.mean_bounds.high)}", ends(cell.mean_bounds.interval)

    return Table(
        "Statuses (%), and the mean if all missing guesses were at the low and at the high end",
        ("round", *statuses, "mean at worst", "interval"),
        [(str(c.round), *(share(c.statuses[name]) for name in statuses), *worst(c)) for c in bad],
    )


def _groups(one: Examined, by: str) -> Table:
    gaps = {(c.label, c.round): c for c in one.contrasts if c.by == by}

    def row(cell: GroupStats) -> Sequence[str]:
        gap = gaps.get((cell.label, cell.round))
        tested = (estimate(gap.difference.estimate), p_value(gap.difference.p_value), p_value(gap.p_holm)) if gap else (
            "-", "-", "-")  # fmt: skip
        return (
            cell.label, str(cell.round), _valid(cell), estimate(cell.mean), estimate(cell.sd), estimate(cell.median),
            estimate(cell.tau_mean), f"{cell.n_winners:,}", *tested,
        )  # fmt: skip

    headings = (by, "round", "valid", "mean", "SD", "median", "tau", "winners", "mean less the rest's", "p", "p (Holm)")
    return Table(f"By {by}", headings, [row(cell) for cell in one.analysis.of(by)])


def _published(comparisons: Sequence[Comparison]) -> list[Table]:
    def row(c: Comparison) -> Sequence[str]:
        return (
            f"{c.reference} ({c.source})", str(c.round), f"{c.n:,}" if c.n else "-", number(c.mean),
            estimate(c.difference.estimate), p_value(c.difference.p_value), p_value(c.p_holm),
        )  # fmt: skip

    headings = ("who", "round", "n", "mean", "our mean less it", "p", "p (Holm)")
    titles = {
        "people": "People, first round",
        "people by round": "People, by round; n counts sessions",
        "language model": "Language models, p = 2/3 (numbers of replies unpublished: no intervals)",
    }
    return [
        Table(title, headings, [row(c) for c in comparisons if c.by == EVERYBODY and c.what == what])
        for what, title in titles.items()
    ]


# --- figures as text -----------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Two decimals, or as many digits as it takes to tell a small number from zero; `-` for none."""
    if not math.isfinite(value):
        return "-"
    if value and abs(value) < 0.005:
        return f"{value:.1g}"
    return f"{value:,.2f}" if abs(value) < 1e7 else f"{value:.4g}"


def ends(found: Estimate) -> str:
    """The interval alone."""
    return "" if math.isnan(found.low) or math.isnan(found.high) else f"[{number(found.low)}, {number(found.high)}]"


def estimate(found: Estimate) -> str:
    """A value and its interval: `36.73 [31.90, 41.56]`."""
    return f"{number(found.value)} {ends(found)}".strip()


def share(found: Estimate) -> str:
    """The same in percent, with one decimal."""
    if math.isnan(found.value):
        return "-"
    interval = "" if math.isnan(found.low) else f" [{100 * found.low:.1f}, {100 * found.high:.1f}]"
    return f"{100 * found.value:.1f}{interval}"


def p_value(value: float) -> str:
    """Three decimals, or `<0.001`."""
    return "-" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def show(findings: Findings) -> None:
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
