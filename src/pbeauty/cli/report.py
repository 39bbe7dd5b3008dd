"""`pbeauty report`: one HTML page about runs that needs nothing but itself.

What models and files say is data: text that is escaped when it is put into the page, without control characters. The
page may run no script and fetch nothing, which its content security policy has the browser enforce.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pbeauty.analysis import levels
from pbeauty.analysis.findings import Examined, Findings, examine
from pbeauty.analysis.run_analysis import DEMO
from pbeauty.cli.analyze import add_confidence, add_runs
from pbeauty.cli.tables import headline, run_tables, short, sweep_tables
from pbeauty.config.loader import dumps
from pbeauty.errors import DONE, ConfigError, RunFileError
from pbeauty.files import REPORT_FILE, printable, replace_text
from pbeauty.game.experiment import Experiment, LLMGroup
from pbeauty.game.prompt_variables import population_variables
from pbeauty.game.prompts import (
    SYSTEM_PROMPTS,
    extraction_message,
    needed,
    retry_message,
    system_message,
    user_message,
)
from pbeauty.game.randomness import uniforms
from pbeauty.game.records import Status
from pbeauty.plots import Drawing, png, run_drawings, sweep_drawings
from pbeauty.plots.figures import notes
from pbeauty.plots.style import evenly
from pbeauty.program import __version__
from pbeauty.storage.run_reader import Run, run_file

MOST_RUNS = 20
"""Runs with sections of their own; beyond, a page is neither light nor read."""
MOST_FULL = 3
"""On a page about more runs, a run has its histograms, and the figures of `_FEW`."""
MOST_HISTOGRAMS = 200
"""On one page; with more rounds, of each run so many as leave room for the others."""
_FEW = ("rounds", "trajectory", "ridgelines")
_LONGEST_REPLY = 1500
_HIDDEN = ("ranks", "earlier_jobs")
"""What is in a run's provenance and not copied into its page: it is summed up."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `pbeauty report` takes."""
    add_runs(parser)
    add_confidence(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (report.html beside the first run.h5)")
    parser.add_argument("--samples", type=int, default=3, metavar="N", help="replies shown per level and status (3)")


def command(options: argparse.Namespace) -> int:
    """Writes the page and prints its path."""
    print(report(options.runs, options.out, confidence=options.confidence, samples=options.samples))
    return DONE


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
        out = (paths[0] if paths[0].is_dir() else run_file(paths[0]).parent) / REPORT_FILE
    findings = examine(paths, confidence)
    variation, examined = findings.variation, findings.examined
    names = dict.fromkeys(one.analysis.name for one in examined)
    page = _render(
        name=paths[0].resolve().name if variation and len(paths) == 1 else ", ".join(names),
        sections=[_section(one, samples, findings) for one in examined[:MOST_RUNS]],
        pictures=[_picture(drawing) for drawing in sweep_drawings(variation)] if variation else [],
        tables=sweep_tables(findings),
        variation=variation,
        unfinished=sum(not one.analysis.finished for one in examined),
        runs=len(examined),
        confidence=f"{100 * confidence:g} %",
        cautions=findings.cautions,
        sources=dict.fromkeys(c.source.citation for one in examined for c in one.comparisons),
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
    environment.filters |= {"readable": readable, "line": printable}
    return environment.get_template("report.html.j2").render(**values)


def readable(text: str, limit: int = _LONGEST_REPLY) -> str:
    """Text of others over several lines: line ends stay, all else that is not printable is replaced."""
    lines = re.split(r"\r\n|\r|\n", text[:limit])
    shown = "\n".join(printable(line, limit) for line in lines)
    return shown if len(text) <= limit else f"{shown}… ({len(text):,} characters)"


def _picture(drawing: Drawing) -> dict[str, str]:
    """A figure with its data URI, as PNG: a tenth of the size of the same figure as SVG."""
    return {
        "uri": "data:image/png;base64," + base64.b64encode(png(drawing.draw())).decode(),
        "caption": drawing.caption,
    }


# --- one run -------------------------------------------------------------------------------------------------


def _section(one: Examined, samples: int, findings: Findings) -> dict[str, Any]:
    """What the page has of a run."""
    analysis, runs, title = one.analysis, len(findings.examined), one.analysis.name
    for case in findings.variation.cases if findings.variation else []:
        if analysis in case.analyses:
            title = case.name or (case.label if case.settings else title)
            title += f", seed {analysis.experiment.seed}" if len(case.analyses) > 1 else ""
    with Run(one.path) as run:
        drawings = list(run_drawings(run, analysis))
        rounds = [drawing for drawing in drawings if drawing.kind == "rounds"]
        rounds = [rounds[index] for index in evenly(len(rounds), max(2, MOST_HISTOGRAMS // min(runs, MOST_RUNS)))]
        shown = [d for d in drawings if d.kind != "rounds" and (runs <= MOST_FULL or d.kind in _FEW)]
        return {
            "title": title,
            "path": analysis.path,
            # What every figure of the run is marked with: that it is unfinished, that the demo model plays.
            "marks": notes(analysis.experiment, analysis.rounds),
            "headline": headline(one),
            "notes": [note for note in analysis.notes if note != DEMO],
            "pictures": [_picture(drawing) for drawing in shown],
            "histograms": [_picture(drawing) for drawing in rounds],
            "tables": run_tables(one),
            "samples": list(_samples(run, samples)),
            "prompts": list(_prompts(analysis.experiment)),
            "experiment": dumps(analysis.experiment),
            "provenance": _provenance(run.provenance),
        }


def _prompts(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """The prompts of language models in full, as far as they are used; what differs within a group stays in braces."""
    own = experiment.prompts
    for group in experiment.population:
        if isinstance(group, LLMGroup):
            variables = population_variables(experiment) | {"group": group.name}
            template = {**SYSTEM_PROMPTS, **own.system}[group.system_prompt]
            variables |= {name: f"{{{name}}}" for name in needed(template, variables) if name not in variables}
            yield f"{group.name}: system", system_message(group.system_prompt, variables, own)
            yield f"{group.name}: user, round 1", user_message(group.user_prompt, 0, variables, {}, own)
            if experiment.game.rounds > 1:
                announced = {str(quantity): "…" for quantity in experiment.announced_to(group)}
                yield f"{group.name}: user, round 2", user_message(group.user_prompt, 1, variables, announced, own)
    variables, groups = population_variables(experiment), experiment.population
    if any(isinstance(group, LLMGroup) and group.retries for group in groups):
        yield "all groups: retry, after a reply without a number", retry_message(variables, own)
    if any(isinstance(group, LLMGroup) and group.extraction != "pattern" for group in groups):
        yield "all groups: extraction question", extraction_message("…", variables, own)


# --- replies and provenance -----------------------------------------------------------------------------------


def _samples(run: Run, count: int) -> Iterator[dict[str, Any]]:
    """Participants of the first and the last round; a run whose replies have been taken away is reported without."""
    for index in sorted({0, run.round_count - 1}) if run.round_count and count else ():
        try:
            yield from _samples_of_round(run, index, count)
        except RunFileError as error:
            print(f"pbeauty: {error}; the report shows no replies of round {index + 1}", file=sys.stderr)


def _samples_of_round(run: Run, index: int, count: int) -> list[dict[str, Any]]:
    """Up to `count` participants of each level, and of each status beside `ok`, with all that they replied.

    Who is drawn depends on the run's seed alone. Participants without a model have no replies and are left out.
    """
    if not run.reply_files(index):
        return []
    guesses, status = run.answers(index)
    asked = run.read("output_tokens", index) > 0
    codes, _, _ = levels.codes_of(run, index, guesses)
    kinds = {label: asked & (codes == code) for code, label in enumerate(levels.LABELS)}
    if not any(chosen.any() for chosen in kinds.values()):  # a game in which all levels guess the same
        kinds = {"valid": asked & (status <= Status.RETRIED)}
    kinds |= {s.name.lower(): asked & (status == s) for s in Status if s != Status.OK}
    order = uniforms(run.experiment.seed, "samples", index, np.arange(guesses.size))
    groups, group, size = run.attributes["group"], run.codes("group"), run.experiment.session_size
    found: list[dict[str, Any]] = []
    for kind, chosen in kinds.items():
        members = np.flatnonzero(chosen)
        found += [
            {
                "kind": kind,
                "round": index + 1,
                "session": participant // size + 1 if run.experiment.sessions > 1 else None,
                "participant": participant,
                "group": groups[group[participant]],
                "guess": float(guesses[participant]),
                "status": Status(status[participant]).name.lower(),
                "replies": run.replies(index + 1, participant),
            }
            for participant in members[np.argsort(order[members])[:count]].tolist()
        ]
    return found


def _provenance(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values as text; ranks are summed up by host."""
    found = [(key, _text(value)) for key, value in provenance.items() if key not in _HIDDEN and value is not None]
    ranks = provenance.get("ranks") or []
    if hosts := Counter(str(rank.get("host")) for rank in ranks):
        found.append(("hosts", ", ".join(f"{host} ({count} ranks)" for host, count in hosts.items())))
    if gpus := [str(gpu) for rank in ranks for gpu in rank.get("gpus") or []]:
        found.append(("GPUs", f"{len(gpus)}: {', '.join(dict.fromkeys(gpus))}"))
    engines = {json.dumps(rank["engine"], sort_keys=True) for rank in ranks if rank.get("engine")}
    found += [("engine", engine) for engine in sorted(engines)]
    if earlier := provenance.get("earlier_jobs"):
        found.append(("jobs before", f"{len(earlier)}: the run was interrupted and resumed"))
    return found


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    if isinstance(value, list) and value and all(isinstance(item, (int, float)) for item in value):
        return f"{sum(value):,.0f} on {len(value)} rank(s)"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return short(value) if isinstance(value, float) else str(value)
