"""`pbeauty run`: an experiment, or all cases of a sweep, as the program that every rank executes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_experiment(parser: argparse.ArgumentParser, **optional: Any) -> None:
    """What every command about an experiment takes."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="the experiment, a YAML file", **optional)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, such as game.rounds=10"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_experiment(parser)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="put the run into exactly this folder")
    parser.add_argument("--case", metavar="CASE", help="play this case of a sweep alone: its number, from 1, or name")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run, if there is one")


def command(options: argparse.Namespace) -> int:
    """Plays, on every rank."""
    from pbeauty.config.sweep import is_sweep
    from pbeauty.errors import ConfigError
    from pbeauty.job.checkpoint import Request
    from pbeauty.job.runner import run
    from pbeauty.mpi.world import on_every_rank, world

    request = Request(options.config, tuple(options.set), options.out, options.resume)
    if is_sweep(options.config):
        from pbeauty.job.sweep_runner import run_case, run_sweep

        if options.case:
            return on_every_rank(world(), lambda comm: run_case(comm, request, options.case))
        return on_every_rank(world(), lambda comm: run_sweep(comm, request))
    if options.case:
        raise ConfigError(f"{options.config} is no sweep and has no cases")
    return on_every_rank(world(), lambda comm: run(comm, request))
