"""`pbeauty run`: an experiment, or all cases of a sweep, as the program that every rank executes.

`pbeauty personas` writes the backgrounds of an experiment alone, by the same program.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

    from pbeauty.job.checkpoint import RunRequest


def add_experiment(parser: argparse.ArgumentParser, **optional: Any) -> None:
    """What every command about an experiment takes."""
    parser.add_argument("config", type=given_path, metavar="CONFIG", help="the experiment, a YAML file", **optional)
    about = "override a key, such as game.rounds=10"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=about)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `pbeauty run` takes."""
    add_experiment(parser)
    parser.add_argument("--out", type=given_path, metavar="FOLDER", help="put the run into exactly this folder")
    parser.add_argument("--case", metavar="CASE", help="play this case of a sweep alone: its number, from 1, or name")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run, if there is one")


def command(options: argparse.Namespace) -> int:
    """Plays, on every rank."""
    return _on_every_rank(options, _play)


def personas_add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `pbeauty personas` takes."""
    add_experiment(parser)
    about = "the file to be made (NAME-OF-CONFIG.personas.jsonl)"
    parser.add_argument("--out", type=given_path, metavar="FILE", help=about)
    parser.add_argument("--case", metavar="CASE", help="of a sweep whose cases have different backgrounds: this one")
    parser.add_argument("--resume", action="store_true", help="go on where a job was interrupted, if one was")


def personas_command(options: argparse.Namespace) -> int:
    """Has backgrounds written, on every rank."""

    def write(comm: Comm, request: RunRequest) -> int:
        from pbeauty.job.runner import write_personas

        return write_personas(comm, request)

    return _on_every_rank(options, write)


def _on_every_rank(options: argparse.Namespace, work: Callable[[Comm, RunRequest], int]) -> int:
    from pbeauty.mpi.world import on_every_rank, world

    def start(comm: Comm) -> int:
        from pbeauty.job.checkpoint import RunRequest

        return work(comm, RunRequest(options.config, tuple(options.set), options.out, options.resume, options.case))

    return on_every_rank(world(), start)


def _play(comm: Comm, request: RunRequest) -> int:
    from pbeauty.job.runner import run  # on all ranks at once, before they wait for the first time
    from pbeauty.mpi.collectives import run_on_root

    def sweep() -> bool:
        from pbeauty.config.sweep import is_sweep  # which the other ranks have no use for

        return is_sweep(request.config)

    if request.case is not None or not run_on_root(comm, sweep):
        return run(comm, request)
    from pbeauty.job.sweep_runner import run_sweep

    return run_sweep(comm, request)


def given_path(text: str) -> Path:
    """A path of the command line: not empty, as a script's unset variable is, nor `-`, which is no stream here."""
    if text in ("", "-"):
        raise argparse.ArgumentTypeError(f"expected a path, found {repr(text) if text else 'nothing'}")
    return Path(text)
