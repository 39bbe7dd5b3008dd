"""`pbeauty check`: an experiment, or all cases of a sweep, resolved and forecast, without MPI and without a model."""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pbeauty.cli.analyze import number_below
from pbeauty.cli.forecast import Conditions, forecast
from pbeauty.cli.run import add_experiment
from pbeauty.config.differences import varied_settings
from pbeauty.config.sweep import is_sweep
from pbeauty.errors import DONE
from pbeauty.files import printable
from pbeauty.game.announcement import announced_in_words
from pbeauty.game.experiment import Experiment
from pbeauty.game.population import in_words
from pbeauty.job.checkpoint import RunRequest, prepare
from pbeauty.job.stop_requests import job_end, parse_duration

_SUMMARISED = re.compile(r"game\.|sessions$|seed$|population\.[0-9]+\.(?!personas)")
"""The keys whose values the summary of an experiment has."""
_USUAL = {"top_p": 1.0, "top_k": 0}
"""Sampling that need not be named."""
_LONGEST_VALUE = 100
_ABOVE_ZERO = number_below(math.inf, "number above zero")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `pbeauty check` takes."""
    add_experiment(parser)
    add = parser.add_argument
    add("--json", action="store_true", help="print the resolved experiment and the forecast as JSON")
    add("--case", metavar="CASE", help="of a sweep: this case alone")
    add("--engines", action="store_true", help="say what engines would be started with (loads vLLM, not the models)")
    add("--ranks", type=_positive, metavar="N", help="forecast for N ranks (the fewest)")
    add("--rate", type=_ABOVE_ZERO, metavar="R", help="forecast times from R participants/s of each engine (see bench)")
    add("--gpu-memory", type=_ABOVE_ZERO, metavar="GIB", help="say what fits into GPUs of this size, such as 80")
    add("--time-limit", type=_limit, metavar="TIME", help="warn if it takes longer, such as 4:00:00 (Slurm's)")


def command(options: argparse.Namespace) -> int:
    """Prints what `check` says of an experiment, of a case of a sweep, or of all its cases."""
    limit = options.time_limit
    if limit is None and (end := job_end()) is not None:
        limit = max(0.0, end - time.time())
    request, sweep = RunRequest(options.config, tuple(options.set), case=options.case), None
    if options.case is None and is_sweep(options.config):
        from pbeauty.job.sweep_runner import prepare_sweep

        sweep = prepare_sweep(request)[0]
        folder: Path | None = sweep.folder
        experiments = {case.name: case.experiment for case in sweep.cases}
    else:
        experiment, request = prepare(request)
        folder = request.out.parent if request.out else None  # that of a case is known
        experiments = {request.out.name if request.out else "": experiment}
    alone = len(experiments) == 1
    conditions = Conditions(options.ranks, options.gpu_memory, options.rate, limit if alone else None)
    found = {name: forecast(experiment, conditions) for name, experiment in experiments.items()}
    engines = {name: _engines(experiment) if options.engines else {} for name, experiment in experiments.items()}
    if options.json:
        documents = [
            ({"case": name, "folder": str(folder / name)} if folder else {})
            | {"forecast": found[name], "engines": engines[name]}
            | experiment.model_dump(mode="json")
            for name, experiment in experiments.items()
        ]
        whole = {"sweep": sweep.name, "folder": str(folder), "cases": documents} if sweep else documents[0]
        print(json.dumps(whole, indent=1))
        return DONE
    warned = any(one["warnings"] for one in found.values())
    case = f", case {next(iter(experiments))}" if folder and alone else ""
    print(f"{printable(options.config, 1000)}{case}: good{', but see the warnings' if warned else ''}")
    if not options.engines and any(model.engine for one in experiments.values() for model in one.used_models.values()):
        print("  engine arguments: names, types and limits are right; --engines has vLLM look at them together")
    described = {
        name: [*_summary(experiment), *_describe_engines(engines[name]), *describe(found[name])]
        for name, experiment in experiments.items()
    }
    if alone or folder is None:
        lines = next(iter(described.values()))
    else:
        lines = [*_cases(described, experiments), *_totals(folder, list(found.values()), limit)]
    print("\n".join(f"  {line}" for line in lines))
    return DONE


def _cases(described: Mapping[str, Sequence[str]], experiments: Mapping[str, Experiment]) -> Iterator[str]:
    """What is said of all cases of a sweep, and then of each only what is not."""
    first, *others = described.values()
    shared = [line for line in first if all(line in lines for lines in others)]
    yield "all cases:"
    yield from (f"  {line}" for line in shared)
    settings = varied_settings(experiments.values())
    for number, ((name, lines), varied) in enumerate(zip(described.items(), settings, strict=True), start=1):
        yield f"{number}. {name}:"
        for key, value in varied.items():
            if not _SUMMARISED.match(key) and value not in (None, "none"):
                yield f"     {key}: {printable(value, _LONGEST_VALUE)}"
        yield from (f"     {line}" for line in lines if line not in shared)


def _totals(folder: Path, found: Sequence[Mapping[str, Any]], limit: float | None) -> Iterator[str]:
    """What all cases of a sweep take together; the time limit is for them all."""
    seconds, gpu_hours = (sum(one[name] or 0.0 for one in found) for name in ("seconds", "gpu_hours"))
    takes = f": about {seconds:,.0f} s, {gpu_hours:,.2f} GPU-hours" if seconds else ""
    yield f"{len(found)} cases, in {folder}{takes}"
    if limit is not None and seconds > limit:
        yield f"WARNING: longer than the time limit of {limit:,.0f} s; the job will be interrupted, to be resumed"


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above zero")
    return int(text)


def _limit(text: str) -> float:
    seconds = parse_duration(text)
    if seconds is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90, 4:00:00 or 1-12:00:00")
    return seconds


def _engines(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """What the engine of each model would be started with, where its files are here."""
    from pbeauty.config.persona_files import load_personas
    from pbeauty.llm.engine_arguments import describe_engine
    from pbeauty.llm.model_files import is_here

    models = [name for name, model in experiment.used_models.items() if is_here(model)]
    personas = load_personas(experiment)
    return {name: describe_engine(experiment, name, personas) for name in models}


def _describe_engines(engines: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for name, engine in engines.items():
        if engine["context"]:
            lines.append(
                f"model {name}: a context of {engine['context']:,} tokens holds every conversation; "
                f"the model's own is {engine['own_context']:,}"
            )
        if engine["arguments"]:
            given = ", ".join(f"{key} {value}" for key, value in engine["arguments"].items() if value is not None)
            lines.append(f"model {name}: the engine starts with {given}")
        else:
            lines.append(f"WARNING: model {name}: what its engine starts with is unknown here: {engine['unresolved']}")
    return lines


def _summary(experiment: Experiment) -> list[str]:
    game, sessions = experiment.game, experiment.sessions
    offset = f"{game.offset:g} + " if game.offset else ""
    rules = [f"target {offset}{game.multiplier} x {game.aggregate}"]
    rules += ["each group plays one number"] if game.players == "groups" else []
    rules += [f"everybody within {game.tolerance:g} wins"] if game.tolerance is not None else []
    lines = [
        f"{game.rounds:,} round{'s' * (game.rounds > 1)}, guesses from {game.low:g} to {game.high:g}",
        ", ".join(rules),
        f"announced: {announced_in_words(experiment)}",
        f"{in_words(sessions, experiment.session_size)}"
        + (f", {experiment.count:,} participants in all" if sessions > 1 else "")
        + f", seed {experiment.seed}",
    ]
    for group in experiment.population:
        details = group.model_dump(mode="json", exclude={"name", "count", "kind", "announce", "personas"})
        details |= {key: value for key, value in details.pop("sampling", {}).items() if value != _USUAL.get(key)}
        settings = [f"{key} {_shown(value)}" for key, value in details.items() if value is not None]
        settings += ["with personas"] if getattr(group, "personas", None) else []
        lines.append(
            f"  {group.name}: {group.count:,} {group.kind}"
            + (" in each session" if sessions > 1 else "")
            + (f" ({', '.join(settings)})" if settings else "")
        )
    return lines


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def describe(found: Mapping[str, Any]) -> list[str]:
    """A forecast in lines for people, its warnings last."""
    sizes = sorted({size for size in found["blocks"] if size})
    lines = [
        f"{found['ranks']} rank(s), {found['engines']} engine(s), blocks of "
        f"{' to '.join(f'{size:,}' for size in dict.fromkeys((sizes[0], sizes[-1])))} participants",
        f"{found['requests']:,} requests (at most {found['requests_at_most']:,}), about "
        f"{found['prompt_tokens']:,} prompt tokens and {found['output_tokens']:,} output tokens",
        f"about {found['disk_bytes'] / 1e6:,.1f} MB on disk; of memory {found['moderator_memory_bytes'] / 1e6:,.1f} MB "
        "for a round on rank 0"
        + (f", {found['block_memory_bytes'] / 1e6:,.1f} MB for replies beside an engine" if found["engines"] else ""),
    ]
    for name, memory in found["gpu_memory"].items():
        weights, cache = memory["weights_gib_per_gpu"], memory["cache_kib_per_token"]
        facts = [f"{weights:,.2f} GiB of weights per GPU" if weights else "weights not on disk, size unknown"]
        facts += [f"{cache:,.1f} KiB of cache per token"] if cache else []
        lines.append(f"model {name}: {', '.join(facts)}, conversations of {memory['conversation_tokens']:,} tokens")
        if memory["cache_tokens"] is not None:
            lines.append(
                f"model {name}: room for about {memory['cache_tokens']:,} tokens of cache, "
                f"{memory['conversations']:,} whole conversations at a time"
            )
    if found["seconds"] is None:
        lines.append("time: unknown without --rate, the participants/s of an engine (`pbeauty bench` measures them)")
    else:
        lines.append(
            f"about {found['seconds']:,.0f} s without the start of engines, {found['gpu_hours']:,.2f} GPU-hours"
        )
    return lines + [f"WARNING: {warning}" for warning in found["warnings"]]
