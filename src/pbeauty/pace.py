"""What was measured beforehand, as far as a forecast can use it: an engine's rate, or what whole jobs cost."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from pbeauty.config.loader import read_text
from pbeauty.cost import CostModel
from pbeauty.cost_file import FORMAT, parse
from pbeauty.errors import ConfigError


@dataclass(frozen=True)
class Pace:
    """What was measured beforehand: how fast one engine is, and what everything else costs."""

    participants_per_second: float | None
    """Of one engine; None for that of `model`."""
    output_tokens: float | None = None
    """Sampled per participant and round, where that was measured."""
    model: CostModel | None = None
    """Of whole jobs, where they were measured."""


def pace(bench: Path | None, rate: float | None) -> Pace | None:
    """What a bench's JSON, or a rate in participants/s, stands for; None without either.

    Args:
        bench: of `pbeauty bench --json`, of one rank or of several, or of `pbeauty bench --scaling --json`.
        rate: of one engine; of a bench's figures it replaces this one.

    Raises:
        ConfigError: if the file is no bench result.
    """
    if rate is not None and not 0 < rate < float("inf"):
        raise ConfigError("--rate: expected participants per second and engine, above zero")
    if bench is None:
        return None if rate is None else Pace(rate)
    text = read_text(bench)
    if FORMAT.rpartition("-")[0] in text:
        return Pace(rate, None, parse(text, str(bench)).model)
    if rate is not None:
        return Pace(rate)
    try:
        found = json.loads(text)
        if "together" in found:
            return Pace(statistics.median(map(float, found["together"])) / int(found["engines"]))
        real = float(found["participants_per_second"]["real"])
        return Pace(real, float(found["output_tokens_per_second"]) / real)
    except (ValueError, KeyError, TypeError, ZeroDivisionError):  # StatisticsError is a ValueError
        raise ConfigError(f"{bench} is not the result of `pbeauty bench --json`") from None
