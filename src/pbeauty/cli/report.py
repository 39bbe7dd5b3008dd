"""`pbeauty report`: one HTML page about runs that needs nothing but itself.

What models and files say is data: text that is escaped when it is put into the page, without control characters. The
page may run no script and fetch nothing, which its content security policy has the browser enforce.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pbeauty import __version__
from pbeauty.analysis import levels
from pbeauty.analysis.findings import CAUTIONS, Examined, examine
from pbeauty.cli.analyze import add_confidence, add_runs
from pbeauty.cli.tables import Table, number, run_tables, sweep_tables
from pbeauty.config.loader import dumps
from pbeauty.errors import DONE, ConfigError, RunFileError
from pbeauty.files import printable, replace_text
from pbeauty.game.randomness import uniforms
from pbeauty.game.rules import Status
from pbeauty.plots.figures import Drawn, draw, draw_round, draw_sweep
from pbeauty.plots.style import HOUSE_STYLE
from pbeauty.storage.run_reader import Reply, Run

MOST_HISTOGRAMS = 3
MOST_FULL = 3
MOST_RUNS = 20
"""Runs with sections of their own; beyond, a page is neither light nor read."""
_LONGEST_REPLY, _LONGEST_VALUE = 1500, 400
_HIDDEN = ("ranks", "earlier_jobs", "forecast")
"""What is in a run's provenance and not copied into its page: it is summed up, or shown in a table."""
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
class Picture:
    """A figure as it stands in the page."""

    uri: str
    caption: str


@dataclass(frozen=True)
class Sample:
    """One participant's round in words."""

    round: int
    """From 1."""
    participant: int
    group: str
    kind: str
    """The level of the guess, or the status of a reply without one."""
    guess: float
    """NaN where there is none."""
    status: str
    replies: list[Reply]
    """Everything that was said, in order."""


@dataclass(frozen=True)
class Section:
    """One run."""

    title: str
    path: str
    mark: str | None
    """What says that the run is unfinished."""
    facts: list[tuple[str, str]]
    notes: list[str]
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
    comparing = [picture(drawn) for drawn in draw_sweep(findings.variation)] if findings.variation else []
    page = _render(
        sections=[_section(one, samples, full=len(shown) <= MOST_FULL) for one in shown],
        left_out=len(findings.examined) - len(shown),
        pictures=comparing,
        tables=sweep_tables(findings),
        varied=findings.variation.varied if findings.variation else [],
        variation_notes=findings.variation.notes if findings.variation else [],
        unfinished=[one for one in findings.examined if one.analysis.unfinished],
        runs=len(findings.examined),
        confidence=f"{100 * confidence:g} %",
        cautions=CAUTIONS,
        version=__version__,
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_text(out, page, durable=False)
    except OSError as error:
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
        facts = [
            ("participants", f"{analysis.participants:,}"),
            ("rounds", f"{analysis.rounds} of {game.rounds}"),
            ("target", f"{offset}{game.multiplier} × {game.aggregate}"),
            ("range", f"{game.low:g} to {game.high:g}"),
            ("equilibrium", number(analysis.equilibrium)),
            ("seed", str(analysis.seed)),
            ("groups", ", ".join(f"{g.name} ({g.count:,} {g.kind})" for g in one.experiment.population)),
        ]
        return Section(
            title=analysis.name,
            path=analysis.path,
            mark=analysis.unfinished,
            facts=facts,
            notes=analysis.notes,
            pictures=pictures,
            tables=run_tables(one) + _forecast(run),
            samples=sampled,
            experiment=dumps(one.experiment),
            provenance=_provenance(run.provenance),
        )


def _histogram(run: Run, index: int) -> Drawn:
    caption = f"The distribution of guesses in round {index + 1}."
    return Drawn(f"round-{index + 1}", caption, draw_round(run, index))


def _sampled(run: Run, count: int) -> Iterator[Sample]:
    """From the first and the last round; a run whose replies have been taken away is reported without them."""
    rounds = sorted({1, run.round_count}) if run.round_count and count else []
    for number_of_round in rounds[:_ROUNDS_SAMPLED]:
        try:
            yield from draw_samples(run, number_of_round, count)
        except (ConfigError, RunFileError) as error:
            print(f"pbeauty: {error}; the report shows no replies of round {number_of_round}", file=sys.stderr)


# --- replies and provenance -----------------------------------------------------------------------------------


def draw_samples(run: Run, round: int, count: int) -> list[Sample]:
    """Up to `count` participants of each level, and of each status beside `ok`, with what they replied.

    Who is drawn depends on the run's seed alone. Participants without a model have no replies and are left out.

    Args:
        run: open.
        round: from 1.
        count: of each kind.

    Raises:
        ConfigError: if stored replies are missing or damaged.
    """
    index = round - 1
    if not len(run.file[f"replies/{round:04d}"]):
        return []
    guesses, status = run.guesses[index], run.status[index]
    asked = run.read("output_tokens", index) > 0
    game = run.experiment.game
    valid = np.where(status <= Status.RETRIED, guesses, np.nan)
    codes = levels.assign(valid, game, levels.reference(run, index), index)
    kinds = {label: asked & (codes == code) for code, label in enumerate(levels.LABELS)}
    if not any(chosen.any() for chosen in kinds.values()):  # a game in which all levels guess the same
        kinds = {"valid": asked & (status <= Status.RETRIED)}
    kinds |= {s.name.lower(): asked & (status == s) for s in Status if s != Status.OK}
    order = uniforms(run.experiment.seed, "samples", index, 0, guesses.size)
    names, group = run.attributes["group"], run.codes("group")
    drawn: list[tuple[str, int]] = []
    for kind, chosen in kinds.items():
        members = np.flatnonzero(chosen)
        drawn += [(kind, int(participant)) for participant in members[np.argsort(order[members])[:count]]]
    return [
        Sample(
            round, participant, names[group[participant]], kind, float(guesses[participant]),
            Status(status[participant]).name.lower(), run.replies(round, participant),
        )
        for kind, participant in drawn
    ]  # fmt: skip


def _provenance(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values, as text of bounded length; ranks are summed up by host."""
    found = [(key, _text(value)) for key, value in provenance.items() if key not in _HIDDEN and value is not None]
    ranks = provenance.get("ranks") or []
    hosts: dict[str, int] = {}
    for rank in ranks:
        hosts[str(rank.get("host"))] = hosts.get(str(rank.get("host")), 0) + 1
    if hosts:
        found.append(("hosts", ", ".join(f"{host} ({count} ranks)" for host, count in hosts.items())[:_LONGEST_VALUE]))
    gpus = [str(gpu) for rank in ranks for gpu in rank.get("gpus") or []]
    if gpus:
        found.append(("GPUs", f"{len(gpus)}: {', '.join(dict.fromkeys(gpus))}"[:_LONGEST_VALUE]))
    engines = {json.dumps(rank["engine"], sort_keys=True) for rank in ranks if rank.get("engine")}
    found += [("engine", engine[:_LONGEST_VALUE]) for engine in sorted(engines)]
    if earlier := provenance.get("earlier_jobs"):
        found.append(("jobs before", f"{len(earlier)}: the run was interrupted and gone on with"))
    return found


def _forecast(run: Run) -> list[Table]:
    """A table of forecast against actual; none where nothing can be forecast.

    The forecast that the run was started with is in its provenance, `forecast`, where there was one: `seconds` of all
    rounds. For every later round there is also the plainest one, the average time of the rounds before it, which is
    what a live view can tell at that point.
    """
    made = run.provenance.get("forecast")
    seconds = run.seconds
    table = []
    if isinstance(made, Mapping) and isinstance(made.get("seconds"), (int, float)) and run.finished:
        table.append(_row("all rounds, before the start", float(made["seconds"]), float(seconds.sum())))
    table += [
        _row(f"round {index + 1}, from those before", float(np.mean(seconds[:index])), float(seconds[index]))
        for index in range(1, seconds.size)
    ]
    headings = ("what", "forecast (s)", "actual (s)", "actual / forecast")
    return [Table("Time: forecast against actual", headings, table)] if table else []


def _row(what: str, expected: float, actual: float) -> list[str]:
    ratio = actual / expected if expected else math.nan
    return [what, number(expected), number(float(actual)), number(ratio)]


def _text(value: Any) -> str:
    if isinstance(value, list):
        text = " ".join(map(str, value))
    elif isinstance(value, Mapping):
        text = ", ".join(f"{key} {_sum(item)}" for key, item in value.items())
    else:
        text = str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _sum(value: Any) -> Any:
    """One figure of what there is a list of, a figure for each rank."""
    numeric = isinstance(value, list) and value and all(isinstance(item, (int, float)) for item in value)
    return f"{sum(value):,.0f} on {len(value)} rank(s)" if numeric else value
