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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pbeauty import __version__, config_file
from pbeauty.config import ConfigError, Experiment
from pbeauty.forecast import pace, time_limit
from pbeauty.interrupt import job_end
from pbeauty.job import Request, prepare, run
from pbeauty.sweep import is_sweep
from pbeauty.together import BAD_REQUEST, DONE, FAILED, JobError, on_root, refuse_singleton
from pbeauty.watchdog import SECONDS_TO_BE_HEARD, SilentRankError

if TYPE_CHECKING:
    from mpi4py.MPI import Comm


class NoMPIError(ConfigError):
    """There is no MPI library, or one that mpi4py cannot load."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except ConfigError as error:
        print(f"pbeauty: {error}", file=sys.stderr)
        return BAD_REQUEST


def _run(options: argparse.Namespace) -> int:
    request = Request(options.config, tuple(options.set), options.out, options.resume, options.rate)
    if is_sweep(options.config):
        from pbeauty.sweep_job import run_case, run_sweep

        if options.case:
            return _on_every_rank(_world(), lambda comm: run_case(comm, request, options.case))
        return _on_every_rank(_world(), lambda comm: run_sweep(comm, request))
    if options.case:
        raise ConfigError(f"{options.config} is no sweep and has no cases")
    return _on_every_rank(_world(), lambda comm: run(comm, request))


def _doctor(options: argparse.Namespace) -> int:
    from pbeauty.doctor import doctor

    try:
        comm = _world()
    except NoMPIError:
        return doctor(None, options.out, as_json=options.json)
    return _on_every_rank(comm, lambda comm: doctor(comm, options.out, as_json=options.json))


def _watch(options: argparse.Namespace) -> int:
    from pbeauty.watch import watch

    watch(options.run, as_json=options.json, once=options.once)
    return DONE


def _world() -> Comm:
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise NoMPIError(
            f"no MPI library could be loaded ({error}); load your site's MPI module, or pip install 'pbeauty[mpi]'"
        ) from None
    refuse_singleton(MPI.COMM_WORLD.size)
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


def _gib(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no size of memory in GiB, such as 80")
    return value


def _check(options: argparse.Namespace) -> int:
    from pbeauty.checking import Terms, check

    limit = time_limit(options.time_limit) if options.time_limit else None
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

        stored = bench_storage(config_file.load(options.config, tuple(options.set)))
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
    from pbeauty.bench import bench, check_bench
    from pbeauty.bench_ranks import bench_ranks

    def prepared() -> Experiment:
        experiment = prepare(Request(options.config, tuple(options.set)))
        check_bench(experiment, engines=max(1, comm.size - 1))
        return experiment

    experiment = on_root(comm, prepared)
    measure = bench_ranks if comm.size > 1 else bench
    report = measure(comm, experiment, options.repeats, lambda line: print(line, file=sys.stderr, flush=True))
    if comm.rank == 0:
        print(json.dumps(dataclasses.asdict(report), indent=1) if options.json else report)
    return DONE


def _prompts(options: argparse.Namespace) -> int:
    from pbeauty.library import entries, render

    experiment = config_file.load(options.config, options.set) if options.config else None
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
    from pbeauty.agentscope import import_example

    made = import_example(options.folder, options.out, options.personas)
    for note in made.notes:
        print(f"note: {note}", file=sys.stderr)
    for path in made.files:
        print(path)
    return DONE


def _export(options: argparse.Namespace) -> int:
    from pbeauty.export import export

    print(export(options.run, options.format, options.out))
    return DONE


def _plot(options: argparse.Namespace) -> int:
    from pbeauty.plots import plot_all

    for path in plot_all(options.runs):
        print(path, flush=True)
    return DONE


def _analyze(options: argparse.Namespace) -> int:
    from pbeauty.analyze import analyze

    analyze(options.runs, confidence=options.confidence, as_json=options.json, fits=not options.no_fits)
    return DONE


def _report(options: argparse.Namespace) -> int:
    from pbeauty.report import report

    print(report(options.runs, options.out, confidence=options.confidence, samples=options.samples))
    return DONE


def _counts(text: str) -> tuple[int, ...]:
    if not all(part.isdecimal() and int(part) for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers above zero, such as 1,2,3,5,9")
    return tuple(map(int, text.split(",")))


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above zero")
    return int(text)


def _count(text: str) -> int:
    """A whole number, also as 1e6."""
    try:
        value = float(text)
        if value == int(value) >= 0:
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number, such as 1000000 or 1e6")


def _confidence(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no confidence between 0 and 1, such as 0.95")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pbeauty",
        description='Plays "guess p times the average" (the p-beauty contest) with LLM participants, as an MPI job.',
    )
    parser.add_argument("--version", action="version", version=f"pbeauty {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def experiment(command: argparse.ArgumentParser, **optional: Any) -> None:
        command.add_argument("config", type=Path, metavar="CONFIG", help="the experiment, a YAML file", **optional)
        command.add_argument(
            "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, such as game.rounds=10"
        )

    play = commands.add_parser("run", help="play an experiment (under mpirun or srun for more than one rank)")
    experiment(play)
    play.add_argument("--out", type=Path, metavar="FOLDER", help="put the run into exactly this folder")
    play.add_argument("--rate", type=float, metavar="R", help="participants/s of an engine, for the stored forecast")
    play.add_argument("--case", metavar="CASE", help="play this case of a sweep alone: its number, from 1, or name")
    play.add_argument("--resume", action="store_true", help="go on with an interrupted run, if there is one")
    play.set_defaults(command=_run)

    check = commands.add_parser("check", help="say what a run would do, without MPI and without a model")
    experiment(check)
    check.add_argument("--json", action="store_true", help="print the resolved experiment and the forecast as JSON")
    check.add_argument("--case", metavar="CASE", help="of a sweep: this case alone")
    check.add_argument("--ranks", type=int, metavar="N", help="forecast for N ranks (the fewest)")
    check.add_argument("--nodes", type=_positive, metavar="N", help="forecast for ranks spread over N nodes (1)")
    check.add_argument("--gpus-per-node", type=_positive, metavar="G", help="forecast for an engine on every GPU")
    check.add_argument("--cores-per-node", type=_positive, metavar="C", help="of these nodes (those of the bench's)")
    check.add_argument(
        "--bench",
        type=Path,
        metavar="FILE",
        help="forecast times from the JSON of `pbeauty bench`, --scaling or not",
    )
    check.add_argument("--rate", type=float, metavar="R", help="the same, from R participants/s of each engine")
    check.add_argument(
        "--gpu-memory", type=_gib, metavar="GIB", help="say what fits into GPUs of this size, such as 80"
    )
    check.add_argument("--time-limit", metavar="TIME", help="warn if it takes longer, such as 4:00:00 (Slurm's)")
    check.set_defaults(command=_check)

    measure = commands.add_parser(
        "bench",
        help="measure what a round costs beside what the model costs; under mpirun, what playing together costs",
    )
    experiment(measure, nargs="?")
    measure.add_argument("--repeats", type=int, metavar="N", help="turns to take the median of (5; with --scaling 3)")
    measure.add_argument("--storage", action="store_true", help="what it costs to keep the replies, without an engine")
    measure.add_argument(
        "--scaling", action="store_true", help="how cost grows with participants, ranks and rounds: starts jobs itself"
    )
    measure.add_argument("--out", type=Path, metavar="FOLDER", help="of --scaling: put its figures and figure there")
    measure.add_argument("--most", type=_count, default=10**7, metavar="N", help="scripted participants at most (1e7)")
    measure.add_argument(
        "--llm-most",
        type=_count,
        default=10**4,
        metavar="N",
        help="participants of the demo model at most, 0 for none (1e4)",
    )
    measure.add_argument(
        "--ranks", type=_counts, default=(1, 2, 3, 5, 9), metavar="R,R,...", help="numbers of ranks (1,2,3,5,9)"
    )
    measure.add_argument(
        "--rounds", type=_counts, default=(1, 3, 10, 30), metavar="T,T,...", help="numbers of rounds (1,3,10,30)"
    )
    measure.add_argument("--json", action="store_true", help="print the report as JSON")
    measure.set_defaults(command=_bench)

    look = commands.add_parser("watch", help="show how a run is getting on, from wherever its folder can be read")
    look.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or its run.h5")
    look.add_argument("--once", action="store_true", help="print its state once instead of following it")
    look.add_argument("--json", action="store_true", help="print its state once, as JSON")
    look.set_defaults(command=_watch)

    examine = commands.add_parser("doctor", help="say what every rank sees, and what is wrong (alone or under mpirun)")
    examine.add_argument(
        "--out", type=Path, default=Path("results"), metavar="FOLDER", help="the result folder to try (results)"
    )
    examine.add_argument("--json", action="store_true", help="print the findings as JSON")
    examine.set_defaults(command=_doctor)

    library = commands.add_parser("prompts", help="list the prompts, or show one as participants get it")
    library.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="with the game of this experiment")
    library.add_argument("--show", metavar="NAME", help="show this prompt")
    library.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for run")
    library.add_argument("--json", action="store_true", help="print JSON")
    library.set_defaults(command=_prompts)

    bring = commands.add_parser("import", help="turn the configuration of AgentScope's published example into ours")
    bring.add_argument(
        "folder", type=Path, metavar="FOLDER", help="with experiment.csv, model_configs.json, prompt.json"
    )
    bring.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the experiments go")
    bring.add_argument("--personas", type=Path, metavar="FILE", help="the example's backgrounds, JSONL with `prompt`")
    bring.set_defaults(command=_import)

    give = commands.add_parser("export", help="write a run in another format")
    give.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or its run.h5")
    give.add_argument("--format", choices=("csv", "jsonl", "parquet", "agentscope"), required=True)
    give.add_argument("--out", type=Path, metavar="PATH", help="the file, or, for agentscope, the folder")
    give.set_defaults(command=_export)

    plot = commands.add_parser("plot", help="draw the figures of runs again")
    plot.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, its run.h5, or a folder with runs below"
    )
    plot.set_defaults(command=_plot)

    def finished(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, its run.h5, or a folder with runs below"
        )
        command.add_argument(
            "--confidence", type=_confidence, default=0.95, metavar="SHARE", help="of all intervals (0.95)"
        )

    study = commands.add_parser("analyze", help="statistics by round and group, with intervals; comparisons; variation")
    finished(study)
    study.add_argument("--no-fits", action="store_true", help="leave out the fits by maximum likelihood")
    study.add_argument("--json", action="store_true", help="print everything as JSON")
    study.set_defaults(command=_analyze)

    page = commands.add_parser("report", help="write one self-contained HTML page about runs")
    finished(page)
    page.add_argument("--out", type=Path, metavar="FILE", help="the page (report.html beside the first run.h5)")
    page.add_argument("--samples", type=int, default=3, metavar="N", help="replies shown per level and status (3)")
    page.set_defaults(command=_report)
    return parser
