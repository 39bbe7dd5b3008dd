"""`pbeauty analyze`: the statistics of runs, in tables for people and as JSON for scripts."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pbeauty.analysis.analyze_runs import document, examine
from pbeauty.cli.tables import show


def analyze(paths: Sequence[Path], *, confidence: float, as_json: bool, fits: bool) -> None:
    """The command: prints what `examine` finds.

    Raises:
        ConfigError: if a run cannot be read.
    """
    findings = examine(paths, confidence, fits=fits)
    try:
        if as_json:
            print(json.dumps(document(findings, confidence), indent=1, allow_nan=False))
        else:
            show(findings)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
