"""`pbeauty check`: an experiment, or all cases of a sweep, resolved and forecast, without MPI and without a model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pbeauty.config import Experiment
from pbeauty.forecast import Pace, actual, beside, describe, forecast, ranks_on, seconds_together
from pbeauty.job import Request, prepare
from pbeauty.results import Run
from pbeauty.sweep import is_sweep
from pbeauty.sweep_job import prepare_sweep


@dataclass(frozen=True)
class Site:
    """Where an experiment is to be played."""

    ranks: int | None = None
    """None for as many as fit, or else the fewest."""
    nodes: int | None = None
    gpus_per_node: int | None = None
    cores_per_node: int | None = None
    """None for as many as the machine had that was measured."""

    def forecast(self, experiment: Experiment, measured: Pace | None) -> dict[str, Any]:
        """What an experiment takes here, as JSON values.

        Raises:
            ConfigError: if it cannot be played here.
        """
        ranks = self.ranks
        if self.gpus_per_node and not ranks:
            ranks = ranks_on(experiment, self.nodes or 1, self.gpus_per_node)
        return forecast(experiment, ranks, measured, self.nodes or 1, self.cores_per_node)


def check(
    request: Request, case: str | None, site: Site, measured: Pace | None, limit: float | None, as_json: bool
) -> Iterator[str]:
    """What would be played and what it would take, line by line, or as one JSON document.

    Of a run on disk: what it was to take, and what it took.

    Args:
        request: what is asked for.
        case: of a sweep, one alone.
        site: where it is to be played.
        measured: the pace of one engine, and what else was measured.
        limit: seconds that a job may take.
        as_json: as JSON.

    Raises:
        ConfigError: saying everything that is wrong.
    """
    if request.config.is_dir() or request.config.suffix == ".h5":
        with Run(request.config) as run:
            stored = {"forecast": run.provenance.get("forecast", {}), "actual": actual(run)}
        yield json.dumps(stored, indent=1) if as_json else f"{request.config}: {beside(*stored.values())}"
        return
    if not is_sweep(request.config):
        experiment = prepare(request)
        found = site.forecast(experiment, measured)
        if as_json:
            yield json.dumps(experiment.model_dump(mode="json") | {"forecast": found}, indent=1)
            return
        yield f"{request.config}: good"
        yield from (f"  {line}" for line in _summary(experiment))
        yield from (f"  {line}" for line in describe(found, limit))
        return
    sweep = prepare_sweep(request)
    cases = (sweep.pick(case),) if case else sweep.cases
    forecasts = [site.forecast(chosen.experiment, measured) for chosen in cases]
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
    total = seconds_together(forecasts)
    if measured and len(cases) > 1:
        gpu_hours = sum(found["gpu_hours"] or 0.0 for found in forecasts)
        yield f"  all cases: about {total:,.0f} s, {gpu_hours:,.2f} GPU-hours"
    if limit is not None and total > limit:
        yield f"  WARNING: longer than the time limit of {limit:,.0f} s; the job will be interrupted, to be resumed"


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
