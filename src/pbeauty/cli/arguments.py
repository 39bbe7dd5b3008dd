"""What the command line takes, and how what is given there is read."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from pbeauty import __version__


def parser() -> argparse.ArgumentParser:
    """Of all commands; `command` is the name of the one that was given."""
    whole = argparse.ArgumentParser(
        prog="pbeauty",
        description='Plays "guess p times the average" (the p-beauty contest) with LLM participants, as an MPI job.',
    )
    whole.add_argument("--version", action="version", version=f"pbeauty {__version__}")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")

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
    check.add_argument(
        "--time-limit", type=time_limit, metavar="TIME", help="warn if it takes longer, such as 4:00:00 (Slurm's)"
    )

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

    look = commands.add_parser("watch", help="show how a run is getting on, from wherever its folder can be read")
    look.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or its run.h5")
    look.add_argument("--once", action="store_true", help="print its state once instead of following it")
    look.add_argument("--json", action="store_true", help="print its state once, as JSON")

    examine = commands.add_parser("doctor", help="say what every rank sees, and what is wrong (alone or under mpirun)")
    examine.add_argument(
        "--out", type=Path, default=Path("results"), metavar="FOLDER", help="the result folder to try (results)"
    )
    examine.add_argument("--json", action="store_true", help="print the findings as JSON")

    library = commands.add_parser("prompts", help="list the prompts, or show one as participants get it")
    library.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="with the game of this experiment")
    library.add_argument("--show", metavar="NAME", help="show this prompt")
    library.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for run")
    library.add_argument("--json", action="store_true", help="print JSON")

    bring = commands.add_parser("import", help="turn the configuration of AgentScope's published example into ours")
    bring.add_argument(
        "folder", type=Path, metavar="FOLDER", help="with experiment.csv, model_configs.json, prompt.json"
    )
    bring.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the experiments go")
    bring.add_argument("--personas", type=Path, metavar="FILE", help="the example's backgrounds, JSONL with `prompt`")

    give = commands.add_parser("export", help="write a run in another format")
    give.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or its run.h5")
    give.add_argument("--format", choices=("csv", "jsonl", "parquet", "agentscope"), required=True)
    give.add_argument("--out", type=Path, metavar="PATH", help="the file, or, for agentscope, the folder")

    plot = commands.add_parser("plot", help="draw the figures of runs again")
    plot.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, its run.h5, or a folder with runs below"
    )

    def finished(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, its run.h5, or a folder with runs below"
        )
        command.add_argument(
            "--confidence", type=_confidence, default=0.95, metavar="SHARE", help="of all intervals (0.95)"
        )

    study = commands.add_parser("analyze", help="statistics by round and group, with intervals; comparisons; variation")
    finished(study)
    study.add_argument("--json", action="store_true", help="print everything as JSON")

    page = commands.add_parser("report", help="write one self-contained HTML page about runs")
    finished(page)
    page.add_argument("--out", type=Path, metavar="FILE", help="the page (report.html beside the first run.h5)")
    page.add_argument("--samples", type=int, default=3, metavar="N", help="replies shown per level and status (3)")
    return whole


def _gib(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no size of memory in GiB, such as 80")
    return value


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


def time_limit(text: str) -> float:
    """A time limit as Slurm takes it, in s: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:min[:s]].

    Raises:
        argparse.ArgumentTypeError: if it is none of these.
    """
    parts = re.fullmatch(r"(?:(\d{1,4})-)?(\d{1,6})(?::(\d{1,2}))?(?::(\d{1,2}))?", text.strip())
    if not parts:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90, 4:00:00 or 1-12:00:00")
    days, *given = parts.groups()
    numbers = [int(part) for part in given if part is not None]
    if days is not None:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
        return float(((int(days) * 24 + hours) * 60 + minutes) * 60 + seconds)
    if len(numbers) == 3:
        return float((numbers[0] * 60 + numbers[1]) * 60 + numbers[2])
    return float(numbers[0] * 60 + (numbers[1] if len(numbers) > 1 else 0))
