"""All that is said of runs, each by itself and all together: what the tables, the JSON and the pages show."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pbeauty.analysis.comparison import Comparison, Contrast, between_runs, compare, contrasts
from pbeauty.analysis.hierarchy import Binned
from pbeauty.analysis.run_analysis import Analysis, analyse
from pbeauty.analysis.variation import Variation, settings, vary
from pbeauty.game.experiment import Experiment, Game
from pbeauty.storage import runs
from pbeauty.storage.run_reader import Run

SCHEMA_VERSION = 1

CAUTIONS = (
    "Intervals hold for one figure at a time: of twenty at 95 %, one misses by chance. Where groups or pools are "
    "compared, p-values adjusted by Holm's method stand beside the raw ones.",
    "Intervals are for other participants under the same announcements. How other games would go takes replicates: "
    "runs that differ in nothing but the seed.",
)
"""What every reader of the figures is told."""


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


def examine(paths: Sequence[Path], confidence: float, *, fits: bool = True) -> Findings:
    """Analyses all runs that the paths mean, one after the other.

    Raises:
        ConfigError: if one cannot be read.
    """
    found = []
    for path in runs.find(paths):
        with Run(path) as run:
            analysis = analyse(run, confidence=confidence, fits=fits)
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
