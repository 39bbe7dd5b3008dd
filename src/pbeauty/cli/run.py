"""`pbeauty run`: an experiment, or all cases of a sweep, as the program that every rank executes.

`pbeauty personas` writes the backgrounds of an experiment alone, by the same program.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pbeauty.errors import BAD_REQUEST, JobError

if TYPE_CHECKING:
    from mpi4py.MPI import Comm


def add_experiment(parser: argparse.ArgumentParser, **optional: Any) -> None:
    """What every command about an experiment takes."""
    parser.add_argument("config", type=given_path, metavar="CONFIG", help="the experiment, a YAML file", **optional)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, such as game.rounds=10"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_experiment(parser)
    parser.add_argument("--out", type=given_path, metavar="FOLDER", help="put the run into exactly this folder")
    parser.add_argument("--case", metavar="CASE", help="play this case of a sweep alone: its number, from 1, or name")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run, if there is one")


def command(options: argparse.Namespace) -> int:
    """Plays, on every rank."""
    from pbeauty.mpi.world import on_every_rank, world

    return on_every_rank(world(), lambda comm: _play(comm, options))


def personas_add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `pbeauty personas` takes."""
    add_experiment(parser)
    parser.add_argument(
        "--out", type=given_path, metavar="FILE", help="the file to be made (NAME-OF-CONFIG.personas.jsonl)"
    )
    parser.add_argument("--case", metavar="CASE", help="of a sweep whose cases have different backgrounds: this one")
    parser.add_argument("--resume", action="store_true", help="go on where a job was interrupted, if one was")


def personas_command(options: argparse.Namespace) -> int:
    """Has backgrounds written, on every rank."""
    from pbeauty.mpi.world import on_every_rank, world

    return on_every_rank(world(), lambda comm: _write_personas(comm, options))


def _write_personas(comm: Comm, options: argparse.Namespace) -> int:
    from pbeauty.job.checkpoint import RunRequest
    from pbeauty.job.runner import write_personas

    request = RunRequest(options.config, tuple(options.set), options.out, options.resume, options.case)
    return write_personas(comm, request)


def _play(comm: Comm, options: argparse.Namespace) -> int:
    from pbeauty.job.checkpoint import RunRequest
    from pbeauty.job.runner import run  # on all ranks at once, before they wait for the first time
    from pbeauty.mpi.collectives import run_on_root

    request = RunRequest(options.config, tuple(options.set), options.out, options.resume, options.case)
    sweep = run_on_root(comm, lambda: _is_sweep(options.config))
    if options.case is not None and not sweep:
        raise JobError(f"{options.config} is no sweep and has no cases", BAD_REQUEST)
    if options.case is not None or not sweep:
        return run(comm, request)
    from pbeauty.job.sweep_runner import run_sweep

    return run_sweep(comm, request)


def _is_sweep(config: Path) -> bool:
    from pbeauty.config.sweep import is_sweep

    return is_sweep(config)


def given_path(text: str) -> Path:
    """A path of the command line: not empty, as a script's unset variable is, nor `-`, which is no stream here."""
    if text in ("", "-"):
        raise argparse.ArgumentTypeError(f"expected a path, found {repr(text) if text else 'nothing'}")
    return Path(text)
