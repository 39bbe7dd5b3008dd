"""`pbeauty analyze`: the statistics of runs, in tables and as JSON; `pbeauty plot`: their figures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from pbeauty.errors import DONE


def add_runs(parser: argparse.ArgumentParser) -> None:
    """What every command about several runs takes."""
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, its run.h5, or a folder with runs below"
    )


def add_confidence(parser: argparse.ArgumentParser) -> None:
    """Of intervals."""
    parser.add_argument("--confidence", type=_confidence, default=0.95, metavar="SHARE", help="of all intervals (0.95)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `pbeauty analyze` takes."""
    add_runs(parser)
    add_confidence(parser)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def command(options: argparse.Namespace) -> int:
    """Prints the statistics."""
    analyze(options.runs, confidence=options.confidence, as_json=options.json)
    return DONE


def plot_add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `pbeauty plot` takes."""
    add_runs(parser)


def plot_command(options: argparse.Namespace) -> int:
    """Draws, and prints the path of each figure."""
    from pbeauty.plots import plot_all

    for path in plot_all(options.runs):
        print(path, flush=True)
    return DONE


def analyze(paths: Sequence[Path], *, confidence: float, as_json: bool) -> None:
    """Prints what `examine` finds.

    Raises:
        ConfigError: if a run cannot be read.
    """
    from pbeauty.analysis.comparison import document, examine
    from pbeauty.cli.tables import show

    findings = examine(paths, confidence)
    if as_json:
        print(json.dumps(document(findings, confidence), indent=1, allow_nan=False))
    else:
        show(findings)


def _confidence(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no confidence between 0 and 1, such as 0.95")
    return value
