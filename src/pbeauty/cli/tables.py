"""What `pbeauty analyze` prints for people."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pbeauty.analysis.analyze_runs import CAUTIONS, Examined, Findings
from pbeauty.analysis.comparison import Comparison, nearest
from pbeauty.analysis.group_stats import GroupStats
from pbeauty.analysis.intervals import NONE, Estimate
from pbeauty.analysis.run_analysis import EVERYBODY, Analysis
from pbeauty.analysis.variation import Variation
from pbeauty.storage.untrusted import printable

_MOST_ROWS = 40


def show(findings: Findings) -> None:
    """Prints the findings on standard output, as wide as the tables are."""
    console = Console(file=sys.stdout, width=200, color_system=None, force_terminal=False, legacy_windows=False)
    for one in findings.examined:
        _run(console, one)
    if findings.variation:
        _variation(console, findings.variation)
        _between(console, findings)
    for caution in CAUTIONS:
        _say(console, f"Note: {caution}")


def _say(console: Console, text: str = "") -> None:
    console.print(Text(printable(text, 2000)), soft_wrap=True)


def _table(console: Console, title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    rows = list(rows)
    if not rows:
        return
    _say(console)
    _say(console, title)
    table = Table(box=None, pad_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows[:_MOST_ROWS]:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)
    if len(rows) > _MOST_ROWS:
        _say(console, f"... and {len(rows) - _MOST_ROWS:,} rows more; --json has them all")


# --- one run -------------------------------------------------------------------------------------------------


def _run(console: Console, one: Examined) -> None:
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
    cells = analysis.of()
    _table(
        console, "Guesses by round",
        ("round", "valid", "mean", "SD", "median", "mode", "target", "winners", "below last target", "to equilibrium"),
        ((str(c.round), f"{c.n_valid:,}", estimate(c.mean), estimate(c.sd), estimate(c.median), estimate(c.mode),
          number(c.target.value), f"{c.n_winners:,}", share(c.below_target), number(c.distance.value)) for c in cells),
    )  # fmt: skip
    _table(
        console, "Quantiles and convergence (distance to equilibrium over that of the round before, and per round)",
        ("round", *(f"{100 * q:g} %" for q in cells[0].quantiles), "convergence", "rate") if cells else (),
        ((str(c.round), *(estimate(c.quantiles[q]) for q in c.quantiles), estimate(c.convergence), estimate(c.rate))
         for c in cells if c.n_valid),
    )  # fmt: skip
    _levels(console, analysis, cells)
    _unusable(console, cells)
    for by in dict.fromkeys(cell.by for cell in analysis.cells if cell.by != EVERYBODY):
        _groups(console, one, by)
    _people(console, one.comparisons)
    _say(console)


def _levels(console: Console, analysis: Analysis, cells: Sequence[GroupStats]) -> None:
    levelled = [cell for cell in cells if cell.levels]
    if not levelled:
        return
    names = list(levelled[0].levels)
    _table(
        console, "Share of guesses by level, in windows of a quarter step (%)", ("round", *names),
        ((str(c.round), *(share(c.levels[name]) for name in names)) for c in levelled),
    )  # fmt: skip
    _table(
        console, "Cognitive hierarchy: tau by the mean, and by maximum likelihood with noise of SD sigma",
        ("round", "tau (mean)", "tau (likelihood)", "sigma"),
        ((str(c.round), estimate(c.tau_mean), estimate(c.tau_likelihood.tau), number(c.tau_likelihood.sigma))
         for c in levelled if c.tau_likelihood),
    )  # fmt: skip
    fitted = [(c.round, c.mixture) for c in levelled if c.mixture]
    names = list(dict.fromkeys(name for _, mixture in fitted for name in mixture.shares))
    _table(
        console, "Share of guesses by level, by a mixture fit (%)", ("round", *names, "sigma"),
        ((str(at), *(share(m.shares.get(name, NONE)) for name in names), number(m.sigma)) for at, m in fitted),
    )  # fmt: skip


def _unusable(console: Console, cells: Sequence[GroupStats]) -> None:
    bad = [cell for cell in cells if cell.n_valid < cell.n]
    statuses = [name for name in (cells[0].statuses if cells else ()) if any(c.statuses[name].value for c in bad)]
    _table(
        console, "Statuses (%), and the mean if all missing guesses were at the low and at the high end",
        ("round", *statuses, "mean at worst", "interval"),
        ((str(c.round), *(share(c.statuses[name]) for name in statuses),
          *((f"{number(c.mean_bounds.low)} to {number(c.mean_bounds.high)}", ends(c.mean_bounds.interval))
            if c.mean_bounds else ("-", "-"))) for c in bad),
    )  # fmt: skip


def _groups(console: Console, one: Examined, by: str) -> None:
    gaps = {(c.label, c.round): c for c in one.contrasts if c.by == by}

    def row(cell: GroupStats) -> Sequence[str]:
        gap = gaps.get((cell.label, cell.round))
        tested = (estimate(gap.difference.estimate), p_value(gap.difference.p_value), p_value(gap.p_holm)) if gap else (
            "-", "-", "-")  # fmt: skip
        return (
            cell.label, str(cell.round), f"{cell.n_valid:,} of {cell.n:,}", estimate(cell.mean), estimate(cell.sd),
            estimate(cell.median), estimate(cell.tau_mean), f"{cell.n_winners:,}", *tested,
        )  # fmt: skip

    headings = (by, "round", "valid", "mean", "SD", "median", "tau (mean)", "winners", "less the rest", "p", "p (Holm)")
    _table(console, f"By {by}", headings, map(row, one.analysis.of(by)))


def _people(console: Console, comparisons: Sequence[Comparison]) -> None:
    def row(c: Comparison) -> Sequence[str]:
        return (
            f"{c.reference} ({c.source})", str(c.round), f"{c.n:,}" if c.n else "-", number(c.mean),
            estimate(c.difference.estimate), p_value(c.difference.p_value), p_value(c.p_holm), estimate(c.wasserstein),
            number(c.kolmogorov),
        )  # fmt: skip

    headings = ("", "round", "n", "mean", "our mean less it", "p", "p (Holm)", "Wasserstein", "KS")
    everybody = [c for c in comparisons if c.by == EVERYBODY]
    for what, title in (
        ("people", "People, first round (distances to the cognitive hierarchy at their published tau)"),
        ("people by round", "People, by round; n counts sessions"),
        (
            "language model",
            "Language models, p = 2/3, the nearest of each round (numbers of replies unpublished: no intervals)",
        ),
    ):
        shown = [c for c in everybody if c.what == what]
        if what == "language model":
            shown = _closest(shown)
        _table(console, title, headings, map(row, shown))
    if closest := nearest(comparisons):
        _say(console, f"Nearest human pool: {closest.reference} ({closest.source}), "
                      f"mean {number(closest.mean)}")  # fmt: skip


def _closest(comparisons: Sequence[Comparison], most: int = 4) -> list[Comparison]:
    """The nearest few of each round."""
    ranked = sorted(comparisons, key=lambda c: (c.round, abs(c.difference.estimate.value)))
    return [c for index, c in enumerate(ranked) if index < most or ranked[index - most].round < c.round]


# --- several runs --------------------------------------------------------------------------------------------


def _variation(console: Console, variation: Variation) -> None:
    runs = sum(len(case.analyses) for case in variation.cases)
    varied = ", ".join(variation.varied) or "nothing but the seed"
    _say(console, f"{runs} runs, {len(variation.cases)} case(s); what varies: {varied}")
    for note in variation.notes:
        _say(console, f"Note: {note}")
    _table(
        console, "Means across replicates",
        ("case", "round", "runs", "mean of means", "SD of means", "of that by sampling", "between games"),
        ((r.case, str(r.round), str(r.runs), estimate(r.mean), estimate(r.observed), number(r.sampling),
          estimate(r.between)) for r in variation.replicated if r.by == EVERYBODY),
    )  # fmt: skip
    _table(
        console, "Where the variance of means comes from (%)", ("source", "round", "share", "p", "p (Holm)"),
        ((s.source, str(s.round), share(s.share), p_value(s.p_value), p_value(s.p_holm))
         for s in variation.sources if s.by == EVERYBODY),
    )  # fmt: skip


def _between(console: Console, findings: Findings) -> None:
    labels = [one.analysis.path for one in findings.examined[1:]]
    rows = [
        (label, str(c.round), estimate(c.difference.estimate), p_value(c.p_holm), estimate(c.wasserstein),
         number(c.kolmogorov))
        for label, found in zip(labels, findings.between, strict=True) for c in found
    ]  # fmt: skip
    headings = ("run", "round", "mean less the first's", "p (Holm)", "Wasserstein", "KS")
    _table(console, f"Each run beside the first, {findings.examined[0].analysis.path}", headings, rows)
    _say(console)


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
