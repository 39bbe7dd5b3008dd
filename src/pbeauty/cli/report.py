"""`pbeauty report`: one HTML page about runs that needs nothing but itself.

What models and files say is data: text that is escaped when it is put into the page, without control characters. The
page may run no script and fetch nothing, which its content security policy has the browser enforce.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from pbeauty import __version__
from pbeauty.analysis.analyze_runs import CAUTIONS, Examined, examine
from pbeauty.analysis.comparison import nearest
from pbeauty.analysis.group_stats import GroupStats
from pbeauty.analysis.run_analysis import EVERYBODY
from pbeauty.cli import provenance_text, samples
from pbeauty.cli.analyze import add_confidence, add_runs
from pbeauty.cli.samples import Sample
from pbeauty.cli.tables import estimate, number, p_value, share
from pbeauty.errors import DONE, ConfigError
from pbeauty.plots.figures import Drawn, draw, draw_round, draw_sweep
from pbeauty.plots.style import HOUSE_STYLE
from pbeauty.storage.run_reader import Run
from pbeauty.storage.untrusted import printable

MOST_HISTOGRAMS = 3
MOST_FULL = 3
MOST_RUNS = 20
"""Runs with sections of their own; beyond, a page is neither light nor read."""
_LONGEST_REPLY = 1500
_ROUNDS_SAMPLED = 2
_DPI, _COLOURS = 160, 64
_FEW = ("trajectory-intervals", "ridgelines")
"""What is shown of each run of a page about more runs than `MOST_FULL`."""
_TEMPLATE = "report.html.j2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_runs(parser)
    add_confidence(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (report.html beside the first run.h5)")
    parser.add_argument("--samples", type=int, default=3, metavar="N", help="replies shown per level and status (3)")


def command(options: argparse.Namespace) -> int:
    """Writes the page and prints its path."""
    print(report(options.runs, options.out, confidence=options.confidence, samples=options.samples))
    return DONE


@dataclass(frozen=True)
class Table:
    """A table as text."""

    caption: str
    headings: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Picture:
    """A figure as it stands in the page."""

    uri: str
    caption: str


@dataclass(frozen=True)
class Section:
    """One run."""

    title: str
    path: str
    mark: str | None
    """What says that the run is unfinished."""
    facts: list[tuple[str, str]]
    notes: list[str]
    nearest: str | None
    pictures: list[Picture]
    tables: list[Table]
    samples: list[Sample]
    experiment: str
    provenance: list[tuple[str, str]]


def report(paths: Sequence[Path], out: Path | None, *, confidence: float, samples: int) -> Path:
    """Writes the page and returns where it is.

    Args:
        paths: runs, or folders with runs below.
        out: the file; `report.html` beside the first run, or for a folder of runs in that folder.
        confidence: of all intervals, in (0, 1).
        samples: replies to show of each level and status; not negative.

    Raises:
        ConfigError: if a run cannot be read, or the page not be written.
    """
    if samples < 0:
        raise ConfigError(f"--samples {samples}: expected 0 or more")
    if out is None:
        out = (paths[0] if paths[0].is_dir() else paths[0].parent) / "report.html"
    findings = examine(paths, confidence)
    shown = findings.examined[:MOST_RUNS]
    comparing: list[Picture] = []
    tables: list[Table] = []
    if findings.variation:
        comparing = [picture(drawn) for drawn in draw_sweep(findings.variation)]
        tables = _variation_tables(findings.variation)
    page = _render(
        sections=[_section(one, samples, full=len(shown) <= MOST_FULL) for one in shown],
        left_out=len(findings.examined) - len(shown),
        pictures=comparing,
        tables=tables,
        varied=findings.variation.varied if findings.variation else [],
        variation_notes=findings.variation.notes if findings.variation else [],
        unfinished=[one for one in findings.examined if one.analysis.unfinished],
        runs=len(findings.examined),
        confidence=f"{100 * confidence:g} %",
        cautions=CAUTIONS,
        version=__version__,
    )
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, encoding="utf-8")
        partial.replace(out)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise ConfigError(f"cannot write the report to {out}: {error.strerror}") from None
    return out


def _render(**values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pbeauty.cli", ""), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"number": number, "readable": readable, "line": printable}
    return environment.get_template(_TEMPLATE).render(**values)


def readable(text: str, limit: int = _LONGEST_REPLY) -> str:
    """Text of others over several lines: line ends stay, all else that is not printable is replaced."""
    lines = re.split(r"\r\n|\r|\n", text[:limit])
    shown = "\n".join(printable(line, limit) for line in lines)
    return shown if len(text) <= limit else f"{shown}… ({len(text):,} characters)"


@HOUSE_STYLE
def picture(drawn: Drawn) -> Picture:
    """A figure as a PNG of few colours in a data URI: a tenth of the size of the same figure as SVG."""
    drawn_at, small = io.BytesIO(), io.BytesIO()
    drawn.figure.savefig(drawn_at, format="png", dpi=_DPI)
    Image.open(drawn_at).convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return Picture("data:image/png;base64," + base64.b64encode(small.getvalue()).decode(), drawn.caption)


# --- one run -------------------------------------------------------------------------------------------------


def _section(one: Examined, count: int, *, full: bool) -> Section:
    analysis, game = one.analysis, one.analysis.game
    offset = f"{number(game.offset)} + " if game.offset else ""
    with Run(one.path) as run:
        rounds = range(run.round_count)
        chosen = rounds if len(rounds) <= MOST_HISTOGRAMS else [0, len(rounds) // 2, len(rounds) - 1]
        rest = [drawn for drawn in draw(run, analysis, one.comparisons) if full or drawn.stem in _FEW]
        pictures = [picture(drawn) for drawn in [*(_histogram(run, i) for i in chosen if full), *rest]]
        sampled = list(_sampled(run, count))
        forecast = provenance_text.forecast(run)
        facts = [
            ("participants", f"{analysis.participants:,}"),
            ("rounds", f"{analysis.rounds} of {game.rounds}"),
            ("target", f"{offset}{game.multiplier} × {game.aggregate}"),
            ("range", f"{game.low:g} to {game.high:g}"),
            ("equilibrium", number(analysis.equilibrium)),
            ("seed", str(analysis.seed)),
            ("groups", ", ".join(f"{g.name} ({g.count:,} {g.kind})" for g in one.experiment.population)),
        ]
        closest = nearest(one.comparisons)
        return Section(
            title=analysis.name,
            path=analysis.path,
            mark=analysis.unfinished,
            facts=facts,
            notes=analysis.notes,
            nearest=f"{closest.reference} ({closest.source}), mean {number(closest.mean)}" if closest else None,
            pictures=pictures,
            tables=[*_tables(one), *([Table(*forecast)] if forecast else [])],
            samples=sampled,
            experiment=one.experiment.dump(),
            provenance=provenance_text.rows(run.provenance),
        )


def _histogram(run: Run, index: int) -> Drawn:
    caption = f"The distribution of guesses in round {index + 1}."
    return Drawn(f"round-{index + 1}", caption, draw_round(run, index))


def _sampled(run: Run, count: int) -> Iterator[Sample]:
    """From the first and the last round; a run whose replies have been taken away is reported without them."""
    rounds = sorted({1, run.round_count}) if run.round_count and count else []
    for number_of_round in rounds[:_ROUNDS_SAMPLED]:
        try:
            yield from samples.draw(run, number_of_round, count)
        except ConfigError as error:
            print(f"pbeauty: {error}; the report shows no replies of round {number_of_round}", file=sys.stderr)


def _tables(one: Examined) -> list[Table]:
    cells = one.analysis.of()
    valid = [cell for cell in cells if cell.n_valid]
    made = [
        Table(
            "Guesses by round, with intervals.",
            ["round", "valid", "mean", "SD", "median", "target", "winners", "below last target (%)", "convergence"],
            [[str(c.round), f"{c.n_valid:,} of {c.n:,}", estimate(c.mean), estimate(c.sd), estimate(c.median),
              number(c.target.value), f"{c.n_winners:,}", share(c.below_target), estimate(c.convergence)]
             for c in cells],
        ),
        _levels_table(valid),
        Table(
            "Replies without a valid guess (%), and the mean if those were all at one end of the range.",
            ["round", "unusable", "mean at worst", "mean at best", "interval of the mean of all"],
            [[str(c.round), share(c.unusable), number(c.mean_bounds.low), number(c.mean_bounds.high),
              estimate(c.mean_bounds.interval)] for c in valid if c.mean_bounds and c.n_valid < c.n],
        ),
    ]  # fmt: skip
    kinds = dict.fromkeys(cell.by for cell in one.analysis.cells if cell.by != EVERYBODY)
    made += [_groups_table(one, by) for by in kinds]
    people = [c for c in one.comparisons if c.by == EVERYBODY and c.what != "language model"]
    made.append(
        Table(
            "People: differences of means, p-values raw and adjusted for their number (Holm).",
            ["who", "round", "mean", "ours less theirs", "p", "p (Holm)"],
            [[f"{c.reference} ({c.source})", str(c.round), number(c.mean), estimate(c.difference.estimate),
              p_value(c.difference.p_value), p_value(c.p_holm)] for c in people],
        )
    )  # fmt: skip
    return [table for table in made if table.rows]


def _levels_table(cells: Sequence[GroupStats]) -> Table:
    levelled = [cell for cell in cells if cell.levels]
    names = list(levelled[0].levels) if levelled else []
    rows = [
        [str(c.round), *(share(c.levels[name]) for name in names), estimate(c.tau_mean),
         estimate(c.tau_likelihood.tau) if c.tau_likelihood else "-"] for c in levelled
    ]  # fmt: skip
    caption = "Shares of guesses by level (%), and the cognitive hierarchy's tau by the mean and by likelihood."
    return Table(caption, ["round", *names, "tau (mean)", "tau (likelihood)"], rows)


def _groups_table(one: Examined, by: str) -> Table:
    gaps = {(c.label, c.round): c for c in one.contrasts if c.by == by}

    def row(cell: GroupStats) -> list[str]:
        gap = gaps.get((cell.label, cell.round))
        tested = [estimate(gap.difference.estimate), p_value(gap.p_holm)] if gap else ["-", "-"]
        return [cell.label, str(cell.round), f"{cell.n_valid:,} of {cell.n:,}", estimate(cell.mean),
                estimate(cell.median), *tested]  # fmt: skip

    headings = [by, "round", "valid", "mean", "median", "mean less the rest's", "p (Holm)"]
    return Table(f"By {by}.", headings, [row(cell) for cell in one.analysis.of(by)])


def _variation_tables(variation: Any) -> list[Table]:
    made = [
        Table(
            "Replicates: means of games, and what part of their spread is more than sampling.",
            ["case", "round", "runs", "mean of means", "SD of means", "by sampling", "between games"],
            [[r.case, str(r.round), str(r.runs), estimate(r.mean), estimate(r.observed), number(r.sampling),
              estimate(r.between)] for r in variation.replicated if r.by == EVERYBODY],
        ),
        Table(
            "Where the variance of means comes from (%).",
            ["source", "round", "share", "p", "p (Holm)"],
            [[s.source, str(s.round), share(s.share), p_value(s.p_value), p_value(s.p_holm)]
             for s in variation.sources if s.by == EVERYBODY],
        ),
    ]  # fmt: skip
    return [table for table in made if table.rows]
