"""Runs beside people, published language models and each other, and all that is said of several runs (`examine`).

Published are means, standard deviations and numbers of participants, no single guesses. A difference of means
therefore has an interval wherever the spread was published. Comparing with many pools finds differences by chance:
p-values stand beside Holm's, adjusted for the number of comparisons.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from pbeauty.analysis import intervals
from pbeauty.analysis.group_stats import Binned, GroupStats
from pbeauty.analysis.intervals import Difference, Estimate
from pbeauty.analysis.references import Pool, human_means, load
from pbeauty.analysis.run_analysis import EVERYBODY, Analysis, analyse
from pbeauty.analysis.variation import Variation, settings, vary
from pbeauty.game.experiment import Experiment, Game
from pbeauty.storage.run_folder import find_runs
from pbeauty.storage.run_reader import Run

SCHEMA_VERSION = 2

CAUTIONS = (
    "Intervals hold for one figure at a time: of twenty at 95 %, one misses by chance. Where groups or pools are "
    "compared, p-values adjusted by Holm's method stand beside the raw ones.",
    "Intervals are for other participants under the same announcements. How other games would go takes replicates: "
    "runs that differ in nothing but the seed.",
)
"""What every reader of the figures is told."""


@dataclass(frozen=True)
class Comparison:
    """One group in one round beside one published figure."""

    what: str
    """`people`, `people by round`, `language model`, or `run`."""
    reference: str
    """Who played there."""
    source: str
    by: str
    label: str
    round: int
    mean: float
    """Theirs."""
    n: int | None
    difference: Difference
    """Our mean less theirs."""
    p_holm: float = math.nan
    """The p-value adjusted for all comparisons of the same kind."""


def comparable(game: Game) -> bool:
    """Whether the rules are those of the published games but for p: target p times the mean, range [0, 100]."""
    return game.aggregate == "mean" and game.offset == 0 and (game.low, game.high) == (0, 100)


def pools(game: Game) -> list[Pool]:
    """The pools of people who played this game, with the mean that a published target implies, target / p."""
    if not comparable(game):
        return []
    found = [pool for pool in load().pools if math.isclose(pool.p, game.p, rel_tol=1e-3)]
    implied = [pool if pool.mean is not None or pool.target is None else replace(pool, mean=pool.target / pool.p)
               for pool in found]  # fmt: skip
    return [pool for pool in implied if pool.mean is not None]


def compare(analysis: Analysis) -> list[Comparison]:
    """Everybody, and every group, of the first round with all pools; everybody in all rounds with all else.

    Empty where nobody has published the same game.
    """
    game, confidence = analysis.game, analysis.confidence
    if not comparable(game):
        return []
    everybody = [cell for cell in analysis.of() if cell.n_valid]
    start = [cell for cell in analysis.cells if cell.round == 1 and cell.n_valid]
    found = [_with_pool(cell, pool, confidence) for cell in start for pool in pools(game)]
    made = _adjusted(found)
    made += _adjusted([c for cell in everybody for c in _with_sessions(cell, game, confidence)])
    return made + [c for cell in everybody for c in _with_models(cell, game)]


def _with_pool(cell: GroupStats, pool: Pool, confidence: float) -> Comparison:
    assert pool.mean is not None
    theirs = (pool.mean, math.nan if pool.std is None else pool.std, float(pool.n or 0))
    gap = intervals.difference(_moments(cell), theirs, confidence)
    return Comparison("people", pool.label, pool.source.short, cell.by, cell.label, 1, pool.mean, pool.n, gap)


def _with_sessions(cell: GroupStats, game: Game, confidence: float) -> list[Comparison]:
    """People in the same period; their sessions are the units, since those who play together move together."""
    people = human_means(game.p)
    if people is None or cell.round > len(people.average):
        return []
    means = [session[cell.round - 1] for session in people.sessions]
    theirs = (fmean(means), stdev(means), float(len(means)))
    gap = intervals.difference(_moments(cell), theirs, confidence)
    name, short = f"mean of {len(means)} sessions, period {cell.round}", people.source.short
    return [Comparison("people by round", name, short, cell.by, cell.label, cell.round, theirs[0], len(means), gap)]


def _with_models(cell: GroupStats, game: Game) -> list[Comparison]:
    """Published language models, all at p = 2/3; their numbers of replies are not, so there is no interval."""
    if not math.isclose(game.p, 2 / 3, rel_tol=1e-3):
        return []
    rows = []
    if cell.round == 1:
        rows += [(f"{row.model}, {row.prompt_text}", row.source.short, row.mean) for row in load().llm_rounds]
    rows += [
        (f"{path.model}, round {cell.round}", path.source.short, path.means[path.rounds.index(cell.round)])
        for path in load().llm_trajectories
        if cell.round in path.rounds and (cell.round > 1 or path.prompt is None)
    ]
    return [
        Comparison(
            "language model", name, source, cell.by, cell.label, cell.round, mean, None,
            Difference(Estimate(cell.mean.value - mean)),
        )
        for name, source, mean in rows
    ]  # fmt: skip


def between_runs(first: Analysis, second: Analysis) -> list[Comparison]:
    """Everybody of the second run beside everybody of the first, in each round that both have."""
    if (first.game.low, first.game.high) != (second.game.low, second.game.high):
        return []
    found = []
    for one, other in zip(first.of(), second.of(), strict=False):
        if not one.n_valid or not other.n_valid:
            continue
        gap = intervals.difference(_moments(other), _moments(one), second.confidence)
        found.append(
            Comparison(
                "run", first.path, f"seed {first.seed}", EVERYBODY, EVERYBODY, one.round, one.mean.value, one.n_valid,
                gap,
            )
        )  # fmt: skip
    return _adjusted(found)


def _moments(cell: GroupStats) -> tuple[float, float, float]:
    """Mean, standard deviation with divisor n - 1, and n."""
    n = cell.n_valid
    return cell.mean.value, cell.sd.value * math.sqrt(n / (n - 1)) if n > 1 else math.nan, float(n)


def _adjusted(comparisons: list[Comparison]) -> list[Comparison]:
    adjusted = intervals.holm([comparison.difference.p_value for comparison in comparisons])
    return [replace(comparison, p_holm=p) for comparison, p in zip(comparisons, adjusted, strict=True)]


# --- groups beside each other ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contrast:
    """One group beside all others of its round."""

    by: str
    label: str
    round: int
    difference: Difference
    """Mean of the group less that of all others."""
    p_holm: float
    """The p-value adjusted for all groups and rounds of the same way to make groups."""


def contrasts(analysis: Analysis) -> list[Contrast]:
    """Each group beside the rest, in each round, by Welch's t; nothing where there is but one group."""
    found: list[Contrast] = []
    everybody = {cell.round: cell for cell in analysis.of()}
    for by in dict.fromkeys(cell.by for cell in analysis.cells if cell.by != EVERYBODY):
        cells = [cell for cell in analysis.of(by) if 0 < cell.n_valid < everybody[cell.round].n_valid]
        gaps = [
            intervals.difference(_moments(cell), _rest(everybody[cell.round], cell), analysis.confidence)
            for cell in cells
        ]
        adjusted = intervals.holm([gap.p_value for gap in gaps])
        found += [
            Contrast(by, cell.label, cell.round, gap, p) for cell, gap, p in zip(cells, gaps, adjusted, strict=True)
        ]
    return found


def _rest(everybody: GroupStats, group: GroupStats) -> tuple[float, float, float]:
    """The moments of all but a group: sums of guesses and of squares are additive."""
    n = everybody.n_valid - group.n_valid
    total = everybody.n_valid * everybody.mean.value - group.n_valid * group.mean.value
    mean = total / n
    squares = sum(
        sign * cell.n_valid * (cell.sd.value**2 + (cell.mean.value - mean) ** 2)
        for sign, cell in ((1, everybody), (-1, group))
    )
    return mean, math.sqrt(max(squares, 0.0) / (n - 1)) if n > 1 else math.nan, float(n)


# --- all that is said of runs ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Examined:
    """One run and all that is said of it."""

    path: Path
    experiment: Experiment
    analysis: Analysis
    comparisons: list[Comparison]
    contrasts: list[Contrast]


@dataclass(frozen=True)
class Findings:
    """Several runs, each by itself and all together."""

    examined: list[Examined]
    variation: Variation | None
    """None for a single run."""
    between: list[list[Comparison]]
    """Every run but the first beside the first."""


def examine(paths: Sequence[Path], confidence: float) -> Findings:
    """Analyses all runs that the paths mean, one after the other.

    Raises:
        ConfigError: if one cannot be read.
    """
    found = []
    for path in find_runs(paths):
        with Run(path) as run:
            analysis = analyse(run, confidence=confidence)
            found.append(Examined(path, run.experiment, analysis, compare(analysis), contrasts(analysis)))
        if analysis.unfinished:
            print(f"pbeauty: {path}: {analysis.unfinished}; analysed as far as it goes", file=sys.stderr, flush=True)
    if len(found) == 1:
        return Findings(found, None, [])
    variation = vary([(settings(one.experiment), one.analysis) for one in found], confidence)
    return Findings(found, variation, [between_runs(found[0].analysis, one.analysis) for one in found[1:]])


def document(findings: Findings, confidence: float) -> dict[str, Any]:
    """The findings as one JSON value; null stands for what there is none of."""
    variation = plain(findings.variation)
    if findings.variation is not None:
        variation["cases"] = [
            {"settings": case.settings, "runs": [analysis.path for analysis in case.analyses]}
            for case in findings.variation.cases
        ]
    return {
        "schema_version": SCHEMA_VERSION,
        "confidence": confidence,
        "cautions": list(CAUTIONS),
        "runs": [
            plain(one.analysis) | {
                "unfinished": one.analysis.unfinished,
                "comparisons": plain(one.comparisons),
                "contrasts": plain(one.contrasts),
            }
            for one in findings.examined
        ],
        "variation": variation,
        "between_runs": plain(findings.between),
    }  # fmt: skip


def plain(value: Any) -> Any:
    """Records as JSON values: dataclasses and rules as objects, NaN and infinity as null, without the raw counts."""
    if isinstance(value, Game):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: plain(item) for name, item in fields.items() if not isinstance(item, Binned)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
