"""All that `pbeauty bench --scaling` finds out, as one JSON document: written, read again, checked."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbeauty.config.loader import read_text
from pbeauty.cost import MEANING, PARTS, CostModel, Exchange, Measurement, Traffic, Work
from pbeauty.errors import ConfigError

FORMAT = "pbeauty-scaling-1"
"""Names the JSON of `pbeauty bench --scaling`, and its version."""


@dataclass(frozen=True)
class Scaling:
    """All that `pbeauty bench --scaling` finds out."""

    machine: dict[str, Any]
    measurements: tuple[Measurement, ...]
    exchanges: tuple[Exchange, ...]
    model: CostModel

    def dump(self) -> str:
        """As one JSON document, which `parse` takes back."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1, allow_nan=False)


def parse(text: str, source: str = "the document") -> Scaling:
    """What `Scaling.dump` wrote.

    Raises:
        ConfigError: if it did not write this.
    """
    try:
        found = json.loads(text)
        if found["format"] != FORMAT:
            raise ConfigError(f"{source} is of format {str(found['format'])[:40]!r}, this pbeauty reads {FORMAT!r}")
        model = found["model"]
        coefficients = {name: _number(model["coefficients"][name]) for name in MEANING}
        return Scaling(
            machine=dict(found["machine"]),
            measurements=tuple(_measurement(entry) for entry in found["measurements"]),
            exchanges=tuple(Exchange(**entry) for entry in found["exchanges"]),
            model=CostModel(coefficients, Traffic(**model["traffic"]), _cores(model["cores"])),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConfigError(f"{source} is not the result of `pbeauty bench --scaling --json`") from None


def load(path: Path) -> Scaling:
    """The result of a bench, from a file.

    Raises:
        ConfigError: if it cannot be read, or is none.
    """
    return parse(read_text(path), str(path))


def _measurement(entry: Mapping[str, Any]) -> Measurement:
    work = Work(**entry["work"])
    seconds = {part: float(entry["seconds"][part]) for part in PARTS}
    return Measurement(**{**entry, "work": work, "seconds": seconds, "series": tuple(entry["series"])})


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError("no coefficient")
    return float(value)


def _cores(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError("no number of cores")
    return value
