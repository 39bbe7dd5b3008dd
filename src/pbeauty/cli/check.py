"""`pbeauty check`: an experiment, or all cases of a sweep, resolved and forecast, without MPI and without a model."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pbeauty.cli.forecast import Pace, actual, forecast, pace, ranks_on
from pbeauty.cli.run import add_experiment
from pbeauty.config.sweep import is_sweep
from pbeauty.errors import DONE, ConfigError, RunFileError
from pbeauty.game.experiment import Experiment
from pbeauty.job.checkpoint import Request, prepare
from pbeauty.job.stop_requests import job_end, time_limit
from pbeauty.job.sweep_runner import prepare_sweep
from pbeauty.storage.run_folder import find_runs
from pbeauty.storage.run_reader import Run

_BESIDE = {
    "prompt_tokens": "prompt tokens",
    "output_tokens": "output tokens",
    "disk_bytes": "bytes",
    "seconds": "s in rounds",
    "wall_seconds": "s from start to end",
    "cpu_seconds": "s of CPU time",
    "peak_memory_bytes": "bytes of memory at most over all ranks",
}
"""What stands beside its forecast, and the unit that people read."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_experiment(parser)
    add = parser.add_argument
    add("--json", action="store_true", help="print the resolved experiment and the forecast as JSON")
    add("--case", metavar="CASE", help="of a sweep: this case alone")
    add("--ranks", type=_positive, metavar="N", help="forecast for N ranks (the fewest)")
    add("--nodes", type=_positive, metavar="N", help="with --gpus-per-node: on N nodes (1)")
    add("--gpus-per-node", type=_positive, metavar="G", help="forecast for an engine on every GPU")
    add("--bench", type=Path, metavar="FILE", help="forecast times from what `pbeauty bench --json` printed")
    add("--rate", type=float, metavar="R", help="the same, from R participants/s of each engine")
    add("--gpu-memory", type=_gib, metavar="GIB", help="say what fits into GPUs of this size, such as 80")
    add("--time-limit", type=_limit, metavar="TIME", help="warn if it takes longer, such as 4:00:00 (Slurm's)")


def command(options: argparse.Namespace) -> int:
    """Prints what `check` says."""
    limit = options.time_limit
    if limit is None and (end := job_end()) is not None:
        limit = max(0.0, end - time.time())
    measured = pace(options.bench, options.rate)
    terms = Terms(options.ranks, measured, limit, options.gpu_memory, options.nodes, options.gpus_per_node)
    for line in check(Request(options.config, tuple(options.set)), options.case, terms, options.json):
        print(line)
    return DONE


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above zero")
    return int(text)


def _gib(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no size of memory in GiB, such as 80")
    return value


def _limit(text: str) -> float:
    seconds = time_limit(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90, 4:00:00 or 1-12:00:00")
    return seconds


@dataclass(frozen=True)
class Terms:
    """What a job is to be played with, and where, as far as that is known beforehand."""

    ranks: int | None = None
    """None for as many as fit, or else the fewest."""
    measured: Pace | None = None
    """Of one engine."""
    limit: float | None = None
    """Seconds that a job may take."""
    gpu_memory: float | None = None
    """Of one GPU, in GiB."""
    nodes: int | None = None
    gpus_per_node: int | None = None

    def forecast(self, experiment: Experiment) -> dict[str, Any]:
        """What an experiment will take under these terms, as JSON values.

        Raises:
            ConfigError: if it cannot be played under them.
        """
        ranks = self.ranks
        if self.gpus_per_node and not ranks:
            ranks = ranks_on(experiment, self.nodes or 1, self.gpus_per_node)
        return forecast(experiment, ranks, self.measured, self.gpu_memory)


def check(request: Request, case: str | None, terms: Terms, as_json: bool) -> Iterator[str]:
    """What would be played and what it would take, line by line, or as one JSON document.

    Of a run on disk, or a folder of them: what it would have been forecast to take, and what it took.

    Args:
        request: what is asked for.
        case: of a sweep, one alone.
        terms: what it would be played with.
        as_json: as JSON.

    Raises:
        ConfigError: saying everything that is wrong.
    """
    if request.config.is_dir() or request.config.suffix == ".h5":
        yield from _played(request.config, terms, as_json)
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
    seconds = sum(found["seconds"] or 0.0 for found in forecasts)
    if terms.measured and len(cases) > 1:
        gpu_hours = sum(found["gpu_hours"] or 0.0 for found in forecasts)
        yield f"  all cases: about {seconds:,.0f} s, {gpu_hours:,.2f} GPU-hours"
    if terms.limit is not None and seconds > terms.limit:
        longer = f"longer than the time limit of {terms.limit:,.0f} s"
        yield f"  WARNING: {longer}; the job will be interrupted, to be resumed"


def _played(path: Path, terms: Terms, as_json: bool) -> Iterator[str]:
    """Forecast and outcome of every run at `path`, and of all together."""
    found = []
    for file in find_runs([path]):
        with Run(file) as run:
            note = "" if run.finished else f", {run.round_count} of {run.experiment.game.rounds} rounds so far"
            name = path if file.parent == path or file == path else file.parent.relative_to(path)
            found.append((f"{name}{note}", _expected(run, terms), actual(run)))
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


def _expected(run: Run, terms: Terms) -> dict[str, Any]:
    """The forecast of a run on as many ranks as it was played on; empty where a file of its experiment is gone."""
    ranks = terms.ranks or run.provenance.get("size")
    try:
        return replace(terms, ranks=ranks if isinstance(ranks, int) else None).forecast(run.experiment)
    except (ConfigError, RunFileError):
        return {}


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


# --- what a person reads ---


def describe(found: Mapping[str, Any], limit: float | None = None) -> list[str]:
    """A forecast in lines for people; with a warning if it takes longer than `limit` seconds."""
    blocks = found["blocks"]
    playing = [size for size in blocks if size]
    sizes = f"{min(playing):,}" + (f" to {max(playing):,}" if min(playing) != max(playing) else "")
    lines = [
        f"{found['ranks']} rank(s), {found['engines']} engine(s), blocks of {sizes} participants",
        f"{found['requests']:,} requests (at most {found['requests_at_most']:,}), about "
        f"{found['prompt_tokens']:,} prompt tokens and {found['output_tokens']:,} output tokens",
        f"about {found['disk_bytes'] / 1e6:,.1f} MB on disk",
    ]
    for name, memory in found["gpu_memory"].items():
        weights, cache = memory["weights_gib_per_gpu"], memory["cache_kib_per_token"]
        lines.append(
            f"model {name}: "
            + (f"{weights:,.2f} GiB of weights per GPU" if weights is not None else "weights not on disk, size unknown")
            + (f", {cache:,.1f} KiB of cache per token" if cache is not None else "")
            + f", conversations of about {memory['conversation_tokens']:,} tokens"
        )
        lines += _fit(name, memory)
    if found["seconds"] is None:
        lines.append("time: unknown without a measured rate (--bench FILE or --rate PARTICIPANTS_PER_SECOND)")
        return lines
    lines.append(f"about {found['seconds']:,.0f} s without the start of engines, {found['gpu_hours']:,.2f} GPU-hours")
    if limit is not None and found["seconds"] > limit:
        lines.append(
            f"WARNING: longer than the time limit of {limit:,.0f} s; the run will be interrupted, to be resumed"
        )
    return lines


def _fit(name: str, memory: Mapping[str, Any]) -> list[str]:
    """What fits into the memory of GPUs of a known size, with a warning if that is too little."""
    tokens, conversations = memory["cache_tokens"], memory["conversations"]
    if tokens is None:
        return []
    lines = [
        f"model {name}: room for about {tokens:,} tokens of cache, {conversations:,} whole conversations at a time"
    ]
    if not conversations:
        lines.append(
            f"WARNING: not one conversation of model {name} fits"
            + (" beside its weights" if tokens else ", and not even its weights do")
            + "; give it more GPUs (tensor_parallel_size), a larger gpu_memory_utilization, or shorter games"
        )
    return lines


def beside(expected: Mapping[str, Any], took: Mapping[str, Any]) -> str:
    """Forecast and outcome on one line; what each rank used is summed up."""
    told = []
    for key, unit in _BESIDE.items():
        if key in took:
            wanted = expected.get(key)
            told.append(f"{_sum(took[key]):,.0f} {unit}" + (f" (forecast {wanted:,.0f})" if wanted is not None else ""))
    return "took " + ", ".join(told)


def total(taken: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several runs took together, as far as all of them tell it: sums, but the most of memory."""
    names = [name for name in _BESIDE if all(found.get(name) is not None for found in taken)]
    over = {name: max if name == "peak_memory_bytes" else sum for name in names}
    return {name: over[name](_sum(found[name]) for found in taken) for name in names}


def _sum(value: float | list[float]) -> float:
    return sum(value) if isinstance(value, list) else value
