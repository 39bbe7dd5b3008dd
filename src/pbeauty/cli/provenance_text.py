"""Where a run comes from, and how long it was expected to take beside how long it took, in words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pbeauty.cli.tables import number
from pbeauty.storage.run_reader import Run

_LONGEST = 400
_HIDDEN = ("ranks", "earlier_jobs", "forecast")


def rows(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values, as text of bounded length; ranks are summed up by host."""
    found = [(key, _text(value)) for key, value in provenance.items() if key not in _HIDDEN and value is not None]
    ranks = provenance.get("ranks") or []
    hosts: dict[str, int] = {}
    for rank in ranks:
        hosts[str(rank.get("host"))] = hosts.get(str(rank.get("host")), 0) + 1
    if hosts:
        found.append(("hosts", ", ".join(f"{host} ({count} ranks)" for host, count in hosts.items())[:_LONGEST]))
    gpus = [str(gpu) for rank in ranks for gpu in rank.get("gpus") or []]
    if gpus:
        found.append(("GPUs", f"{len(gpus)}: {', '.join(dict.fromkeys(gpus))}"[:_LONGEST]))
    engines = {json.dumps(rank["engine"], sort_keys=True) for rank in ranks if rank.get("engine")}
    found += [("engine", engine[:_LONGEST]) for engine in sorted(engines)]
    if earlier := provenance.get("earlier_jobs"):
        found.append(("jobs before", f"{len(earlier)}: the run was interrupted and gone on with"))
    return found


def forecast(run: Run) -> tuple[str, list[str], list[list[str]]] | None:
    """Caption, headings and rows of a table of forecast against actual; None where nothing can be forecast.

    The forecast that the run was started with is in its provenance, `forecast`, where there was one: `seconds` of all
    rounds. For every later round there is also the plainest one, the average time of the rounds before it, which is
    what a live view can tell at that point.
    """
    made = run.provenance.get("forecast")
    seconds = run.seconds
    table = []
    if isinstance(made, Mapping) and isinstance(made.get("seconds"), (int, float)) and run.finished:
        table.append(_row("all rounds, before the start", float(made["seconds"]), float(seconds.sum())))
    table += [
        _row(f"round {index + 1}, from those before", float(np.mean(seconds[:index])), float(seconds[index]))
        for index in range(1, seconds.size)
    ]
    if not table:
        return None
    return "Time: forecast against actual.", ["what", "forecast (s)", "actual (s)", "actual / forecast"], table


def _row(what: str, expected: float, actual: float) -> list[str]:
    ratio = actual / expected if expected else math.nan
    return [what, number(expected), number(float(actual)), number(ratio)]


def _text(value: Any) -> str:
    if isinstance(value, list):
        text = " ".join(map(str, value))
    elif isinstance(value, Mapping):
        text = ", ".join(f"{key} {_sum(item)}" for key, item in value.items())
    else:
        text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _sum(value: Any) -> Any:
    """One figure of what there is a list of, a figure for each rank."""
    numeric = isinstance(value, list) and value and all(isinstance(item, (int, float)) for item in value)
    return f"{sum(value):,.0f} on {len(value)} rank(s)" if numeric else value
