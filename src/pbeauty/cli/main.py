"""The command line. Exit codes: 0 done, 1 error, 2 bad request, 75 interrupted."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pbeauty.cli.arguments import parser
from pbeauty.config import loader
from pbeauty.config.sweep import is_sweep
from pbeauty.errors import BAD_REQUEST, DONE, FAILED, ConfigError, JobError
from pbeauty.game.experiment import Experiment
from pbeauty.job.runner import Request, prepare, run
from pbeauty.job.stop_requests import job_end
from pbeauty.mpi.together import check_world_size, run_on_root
from pbeauty.mpi.watchdog import SECONDS_TO_BE_HEARD, SilentRankError
from pbeauty.pace import pace

if TYPE_CHECKING:
    from mpi4py.MPI import Comm


class NoMPIError(ConfigError):
    """There is no MPI library, or one that mpi4py cannot load."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except ConfigError as error:
        print(f"pbeauty: {error}", file=sys.stderr)
        return BAD_REQUEST


def _run(options: argparse.Namespace) -> int:
    request = Request(options.config, tuple(options.set), options.out, options.resume, options.rate)
    if is_sweep(options.config):
        from pbeauty.job.sweep_runner import run_case, run_sweep

        if options.case:
            return _on_every_rank(_world(), lambda comm: run_case(comm, request, options.case))
        return _on_every_rank(_world(), lambda comm: run_sweep(comm, request))
    if options.case:
        raise ConfigError(f"{options.config} is no sweep and has no cases")
    return _on_every_rank(_world(), lambda comm: run(comm, request))


def _doctor(options: argparse.Namespace) -> int:
    from pbeauty.cli.doctor import doctor

    try:
        comm = _world()
    except NoMPIError:
        return doctor(None, options.out, as_json=options.json)
    return _on_every_rank(comm, lambda comm: doctor(comm, options.out, as_json=options.json))


def _watch(options: argparse.Namespace) -> int:
    from pbeauty.cli.watch import watch

    watch(options.run, as_json=options.json, once=options.once)
    return DONE


def _world() -> Comm:
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise NoMPIError(
            f"no MPI library could be loaded ({error}); load your site's MPI module, or pip install 'pbeauty[mpi]'"
        ) from None
    check_world_size(MPI.COMM_WORLD.size)
    return MPI.COMM_WORLD


def _on_every_rank(comm: Comm, work: Callable[[Comm], int]) -> int:
    try:
        return work(comm)
    except JobError as error:
        if comm.rank == 0:
            print(f"pbeauty: {error}", file=sys.stderr, flush=True)
        return error.code
    except BaseException as error:
        # A rank that ends alone leaves the others waiting in a collective for good: end them all.
        told = "" if isinstance(error, (ConfigError, SilentRankError)) else traceback.format_exc()
        # In one piece, or what two ranks say at the same time would run into each other.
        sys.stderr.write(f"{told}pbeauty: rank {comm.rank} of {comm.size}: {str(error) or type(error).__name__}\n")
        sys.stderr.flush()
        sys.stdout.flush()
        time.sleep(SECONDS_TO_BE_HEARD)
        comm.Abort(FAILED)  # which comes back under some MPI libraries
        os._exit(FAILED)


def _check(options: argparse.Namespace) -> int:
    from pbeauty.cli.check import Terms, check

    limit = options.time_limit
    if limit is None and (end := job_end()) is not None:
        limit = max(0.0, end - time.time())
    request = Request(options.config, tuple(options.set))
    terms = Terms(
        options.ranks,
        pace(options.bench, options.rate),
        limit,
        options.gpu_memory,
        options.nodes,
        options.gpus_per_node,
        options.cores_per_node,
    )
    for line in check(request, options.case, terms, options.json):
        print(line)
    return DONE


def _bench(options: argparse.Namespace) -> int:
    if options.scaling:
        return _bench_scaling(options)
    if options.config is None:
        raise ConfigError("bench: expected an experiment, or --scaling, which brings its own")
    options.repeats = 5 if options.repeats is None else options.repeats
    if options.storage:
        from pbeauty.bench_storage import bench_storage

        stored = bench_storage(loader.load(options.config, tuple(options.set)))
        print(json.dumps(dataclasses.asdict(stored), indent=1) if options.json else stored)
        return DONE
    comm = _world()
    return _on_every_rank(comm, lambda comm: _bench_engines(comm, options))


def _bench_scaling(options: argparse.Namespace) -> int:
    from pbeauty.bench_scaling import bench_scaling, draw, table

    if options.config or options.set or options.storage:
        raise ConfigError("bench --scaling plays jobs of its own: leave out the experiment, --set and --storage")
    repeats = 3 if options.repeats is None else options.repeats
    found = bench_scaling(
        options.most,
        options.llm_most,
        options.ranks,
        options.rounds,
        repeats,
        lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(found.dump() if options.json else table(found), flush=True)
    if options.out:
        for path in draw(found, options.out):
            print(path, file=sys.stderr, flush=True)
    return DONE


def _bench_engines(comm: Comm, options: argparse.Namespace) -> int:
    from pbeauty.bench_ranks import bench_ranks
    from pbeauty.cli.bench import bench, check_bench

    def prepared() -> Experiment:
        experiment = prepare(Request(options.config, tuple(options.set)))
        check_bench(experiment, engines=max(1, comm.size - 1))
        return experiment

    experiment = run_on_root(comm, prepared)
    measure = bench_ranks if comm.size > 1 else bench
    report = measure(comm, experiment, options.repeats, lambda line: print(line, file=sys.stderr, flush=True))
    if comm.rank == 0:
        print(json.dumps(dataclasses.asdict(report), indent=1) if options.json else report)
    return DONE


def _prompts(options: argparse.Namespace) -> int:
    from pbeauty.cli.prompts import entries, render

    experiment = loader.load(options.config, options.set) if options.config else None
    if options.show:
        text = render(options.show, experiment)
        print(json.dumps({"name": options.show, "text": text}, ensure_ascii=False) if options.json else text)
        return DONE
    found = entries(experiment)
    if options.json:
        print(json.dumps([dataclasses.asdict(entry) for entry in found], indent=1))
        return DONE
    width = max(len(entry.name) for entry in found)
    for entry in found:
        needs = f" [needs {', '.join(entry.needs)}]" if entry.needs else ""
        print(f"{entry.kind:<6}  {entry.name:<{width}}  {entry.about}{needs}")
    return DONE


def _import(options: argparse.Namespace) -> int:
    from pbeauty.storage.agentscope import import_example

    made = import_example(options.folder, options.out, options.personas)
    for note in made.notes:
        print(f"note: {note}", file=sys.stderr)
    for path in made.files:
        print(path)
    return DONE


def _export(options: argparse.Namespace) -> int:
    from pbeauty.cli.export import export

    print(export(options.run, options.format, options.out))
    return DONE


def _plot(options: argparse.Namespace) -> int:
    from pbeauty.plots import plot_all

    for path in plot_all(options.runs):
        print(path, flush=True)
    return DONE


def _analyze(options: argparse.Namespace) -> int:
    from pbeauty.cli.analyze import analyze

    analyze(options.runs, confidence=options.confidence, as_json=options.json)
    return DONE


def _report(options: argparse.Namespace) -> int:
    from pbeauty.cli.report import report

    print(report(options.runs, options.out, confidence=options.confidence, samples=options.samples))
    return DONE


_COMMANDS = {
    "run": _run,
    "check": _check,
    "bench": _bench,
    "watch": _watch,
    "doctor": _doctor,
    "prompts": _prompts,
    "import": _import,
    "export": _export,
    "plot": _plot,
    "analyze": _analyze,
    "report": _report,
}
