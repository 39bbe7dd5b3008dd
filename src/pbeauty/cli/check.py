"""`pbeauty check`: an experiment, or all cases of a sweep, resolved and forecast, without MPI and without a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbeauty.cli.forecast import actual, forecast, ranks_on, seconds_together
from pbeauty.cli.forecast_text import beside, describe, total
from pbeauty.config.sweep import is_sweep
from pbeauty.game.experiment import Experiment
from pbeauty.job.runner import Request, prepare
from pbeauty.job.sweep_runner import prepare_sweep
from pbeauty.pace import Pace
from pbeauty.storage.run_reader import Run
from pbeauty.storage.runs import find


@dataclass(frozen=True)
class Terms:
    """What a job is to be played with, and where, as far as that is known beforehand."""

    ranks: int | None = None
    """None for as many as fit, or else the fewest."""
    measured: Pace | None = None
    """Of one engine, and what else was measured."""
    limit: float | None = None
    """Seconds that a job may take."""
    gpu_memory: float | None = None
    """Of one GPU, in GiB."""
    nodes: int | None = None
    gpus_per_node: int | None = None
    cores_per_node: int | None = None
    """None for as many as the machine had that was measured."""

    def forecast(self, experiment: Experiment) -> dict[str, Any]:
        """What an experiment will take under these terms, as JSON values.

        Raises:
            ConfigError: if it cannot be played under them.
        """
        ranks, nodes = self.ranks, self.nodes or 1
        if self.gpus_per_node and not ranks:
            ranks = ranks_on(experiment, nodes, self.gpus_per_node)
        return forecast(experiment, ranks, self.measured, nodes, self.cores_per_node, self.gpu_memory)


def check(request: Request, case: str | None, terms: Terms, as_json: bool) -> Iterator[str]:
    """What would be played and what it would take, line by line, or as one JSON document.

    Of a run on disk, or a folder of them: what it was to take, and what it took.

    Args:
        request: what is asked for.
        case: of a sweep, one alone.
        terms: what it would be played with.
        as_json: as JSON.

    Raises:
        ConfigError: saying everything that is wrong.
    """
    if request.config.is_dir() or request.config.suffix == ".h5":
        yield from _played(request.config, as_json)
        return
    if not is_sweep(request.config):
        experiment = prepare(request)
        found = terms.forecast(experiment)
        if as_json:
            yield json.dumps(experiment.model_dump(mode="json") | {"forecast": found}, indent=1)
            return
        yield f"{request.config}: good"
        yield from (f"  {line}" for line in _summary(experiment))
        yield from (f"  {line}" for line in describe(found, terms.limit))
        return
    sweep = prepare_sweep(request).sweep
    cases = (sweep.pick(case),) if case else sweep.cases
    forecasts = [terms.forecast(chosen.experiment) for chosen in cases]
    if as_json:
        documents = [
            {
                "case": c.name,
                "folder": str(sweep.folder / c.name),
                "forecast": f,
                **c.experiment.model_dump(mode="json"),
            }
            for c, f in zip(cases, forecasts, strict=True)
        ]
        whole: Any = documents[0] if case else {"sweep": sweep.name, "folder": str(sweep.folder), "cases": documents}
        yield json.dumps(whole, indent=1)
        return
    yield f"{request.config}: good, {len(cases)} case(s)"
    for number, (chosen, found) in enumerate(zip(cases, forecasts, strict=True), start=1):
        yield f"  {number}. {chosen.name}: " + "; ".join(_summary(chosen.experiment)[:1])
        yield from (f"       {line}" for line in describe(found, None))
    seconds = seconds_together(forecasts)
    if terms.measured and len(cases) > 1:
        gpu_hours = sum(found["gpu_hours"] or 0.0 for found in forecasts)
        yield f"  all cases: about {seconds:,.0f} s, {gpu_hours:,.2f} GPU-hours"
    if terms.limit is not None and seconds > terms.limit:
        longer = f"longer than the time limit of {terms.limit:,.0f} s"
        yield f"  WARNING: {longer}; the job will be interrupted, to be resumed"


def _played(path: Path, as_json: bool) -> Iterator[str]:
    """Forecast and outcome of every run at `path`, and of all together."""
    found = []
    for file in find([path]):
        with Run(file) as run:
            note = "" if run.finished else f", {run.round_count} of {run.experiment.game.rounds} rounds so far"
            name = path if file.parent == path or file == path else file.parent.relative_to(path)
            found.append((f"{name}{note}", run.provenance.get("forecast", {}), actual(run)))
    expected, took = (total(figures) for figures in zip(*((f, t) for _, f, t in found), strict=True))
    if as_json:
        documents = [{"run": name, "forecast": wanted, "actual": taken} for name, wanted, taken in found]
        whole = {key: documents[0][key] for key in ("forecast", "actual")} if len(found) == 1 else {"runs": documents}
        yield json.dumps(whole, indent=1)
        return
    for name, wanted, taken in found:
        yield f"{name}: {beside(wanted, taken)}"
    if len(found) > 1:
        yield f"all {len(found)} runs: {beside(expected, took)}"


def _summary(experiment: Experiment) -> list[str]:
    game = experiment.game
    offset = f"{game.offset:g} + " if game.offset else ""
    rule = f"{offset}{game.multiplier} x {game.aggregate}"
    lines = [
        f"{game.rounds} rounds, guesses from {game.low:g} to {game.high:g}, target {rule}",
        f"announced: {', '.join(game.announce) or 'nothing'}",
        f"{experiment.count:,} participants, seed {experiment.seed}",
    ]
    for group in experiment.population:
        details = group.model_dump(mode="json", exclude={"name", "count", "kind", "sampling", "personas"})
        settings = ", ".join(f"{key} {value}" for key, value in details.items() if value is not None)
        if getattr(group, "personas", None):
            settings += ", with personas"
        lines.append(f"  {group.name}: {group.count:,} {group.kind}" + (f" ({settings})" if settings else ""))
    return lines
