"""All that is said of one run or several: what `pbeauty analyze` prints and `pbeauty report` shows."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pbeauty.analysis.comparison import Comparison, Contrast, compare, contrasts
from pbeauty.analysis.components import Power, power
from pbeauty.analysis.contamination import Probe, probes
from pbeauty.analysis.group_stats import EVERYBODY, Binned, BySession
from pbeauty.analysis.run_analysis import Analysis, analyse, is_demo
from pbeauty.analysis.variation import Variation, vary
from pbeauty.game.experiment import Experiment
from pbeauty.storage.run_folder import find_runs
from pbeauty.storage.run_reader import Run

SCHEMA_VERSION = 5

_ONE_SESSION = (
    "Intervals of one session are for other participants who are told the same. How another session would go takes "
    "several: `sessions` of a run, or runs that differ in nothing but the seed. Intervals are then over sessions."
)
_ONE_FIGURE = (
    "Intervals hold for one figure at a time: of twenty at 95 %, one misses by chance. p-values of one table are "
    "adjusted for all that stand in it by Holm's method."
)


@dataclass(frozen=True)
class Within:
    """Valid guesses within a distance of the target of their session, whoever won by the rules that were told."""

    distance: float
    counts: list[dict[str, int]]
    """By round, of `all` and of each population group."""


@dataclass(frozen=True)
class Examined:
    """One run and all that is said of it."""

    path: Path
    analysis: Analysis
    comparisons: list[Comparison]
    contrasts: list[Contrast]
    within: Within | None
    """None unless asked for."""


@dataclass(frozen=True)
class Findings:
    """Several runs, each by itself and all together."""

    examined: list[Examined]
    variation: Variation | None
    """None for a single run."""
    probes: list[Probe]
    """For a memorised answer; empty where runs do not vary wording or p."""
    power: list[Power]
    """Empty unless asked for."""

    @property
    def cautions(self) -> list[str]:
        """What every reader of the figures is told."""
        alone = any(one.analysis.sessions == 1 for one in self.examined)
        return [_ONE_SESSION, _ONE_FIGURE] if alone else [_ONE_FIGURE]


def examine(
    paths: Sequence[Path], confidence: float, detectable: float | None = None, within: float | None = None
) -> Findings:
    """Analyses all runs that the paths mean, one after the other.

    Args:
        paths: runs, or folders with runs below.
        confidence: of all intervals, in (0, 1).
        detectable: a difference of means, in units of the game, that `power` plans for; None for no plan.
        within: a distance to the target, for `Examined.within`; None for none.

    Raises:
        ConfigError: if a run cannot be read.
    """
    found = []
    for path in find_runs(paths):
        with Run(path) as run:
            analysis = analyse(run, confidence=confidence)
            near = None if within is None else count_within(run, within)
            found.append(Examined(path, analysis, compare(analysis), contrasts(analysis), near))
        if analysis.unfinished:
            print(f"pbeauty: {path}: {analysis.unfinished}; analysed as far as it goes", file=sys.stderr, flush=True)
    variation = vary([one.analysis for one in found], confidence)
    planned = [] if detectable is None else power(variation.components, detectable)
    if len(found) == 1:
        return Findings(found, None, [], planned)
    return Findings(found, variation, probes(variation), planned)


def count_within(run: Run, distance: float) -> Within:
    """Counts the guesses of a run that are that near to the target."""
    labels, codes = run.attributes["group"], run.codes("group")
    rounds = []
    for index in range(run.round_count):
        targets = np.repeat(run.outcome(index).target, len(codes) // run.experiment.sessions)
        near = np.abs(run.answers(index)[0] - targets) <= distance
        counts = np.bincount(codes[near], minlength=len(labels)).tolist()
        rounds.append({EVERYBODY: sum(counts), **dict(zip(labels, counts, strict=True))})
    return Within(distance, rounds)


def document(findings: Findings, confidence: float) -> dict[str, Any]:
    """The findings as one JSON value; null stands for what there is none of."""
    variation = None
    if findings.variation:
        cases = [
            {"settings": case.settings, "runs": [analysis.path for analysis in case.analyses]}
            for case in findings.variation.cases
        ]
        variation = vars(findings.variation) | {"cases": cases}
    return plain({
        "schema_version": SCHEMA_VERSION,
        "confidence": confidence,
        "cautions": findings.cautions,
        "runs": [_document_of_run(one) for one in findings.examined],
        "variation": variation,
        "probes": findings.probes,
        "power": findings.power,
    })  # fmt: skip


def _document_of_run(one: Examined) -> dict[str, Any]:
    analysis, experiment = one.analysis, one.analysis.experiment
    sessions = [(c.round, c.by_session) for c in analysis.of() if analysis.sessions > 1]
    names = ("n", "n_valid", "mean", "sd", "target")
    return plain(analysis) | {
        "seed": experiment.seed,
        "sessions": experiment.sessions,
        "participants": experiment.count,
        "game": experiment.game.model_dump(mode="json"),
        "demo": is_demo(experiment),
        "unfinished": analysis.unfinished,
        # Everybody by session: an object of lists for each round; none of a run of one session.
        "by_session": [{"round": r} | {name: getattr(of, name).tolist() for name in names} for r, of in sessions],
        "comparisons": one.comparisons,
        "contrasts": one.contrasts,
        "within": one.within,
    }


def plain(value: Any) -> Any:
    """Records as JSON values: dataclasses as objects, NaN as null, without experiments, counts and arrays of sessions.

    Infinite is only a tau beyond what is estimated: `above` or `below`.
    """
    if dataclasses.is_dataclass(value):
        left_out = Experiment | Binned | BySession | np.ndarray
        return {name: plain(item) for name, item in vars(value).items() if not isinstance(item, left_out)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "above" if value > 0 else "below"
    return value
