"""The cost model (`cost`) that fits measured runs best: non-negative least squares on relative residuals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pbeauty.cost import MEANING, PARTS, CostModel, Exchange, Measurement, Traffic, terms_of
from pbeauty.errors import ConfigError

_FLOOR = 0.02
"""Share of a whole run below which an error of one of its parts is of no interest."""
_INDEPENDENT = 1e-6


def fit(measurements: Iterable[Measurement], exchanges: Sequence[Exchange], traffic: Traffic) -> CostModel:
    """The model that fits measured runs best, those apart that are held out.

    Args:
        measurements: of runs.
        exchanges: timed collectives, from which latency and bandwidth come.
        traffic: the collectives of a round.

    Raises:
        ConfigError: if there is nothing to fit to.
    """
    used = [m for m in measurements if not m.held_out]
    if not used:
        raise ConfigError("a cost model needs measured runs; there are none that are not held out")
    found: dict[str, float | None] = {**dict.fromkeys(MEANING), **_fit_exchanges(exchanges)}
    rows = [(m, terms_of(m.work, traffic)) for m in used]
    for part in PARTS:
        _solve([(terms[part], m.seconds[part], _FLOOR * m.wall_seconds) for m, terms in rows], found)
    memory = [(terms["moderator_memory"], m.moderator_memory, 0.0) for m, terms in rows]
    memory += [(terms["host_memory"], m.host_memory, 0.0) for m, terms in rows if m.host_memory]
    _solve(memory, found)
    return CostModel(found, traffic, used[0].work.cores)


def _fit_exchanges(exchanges: Sequence[Exchange]) -> dict[str, float | None]:
    """Latency and bandwidth, from collectives among ranks that do not share cores, where there are such.

    Only those after which every rank has heard of every other: of the rest, several are under way at a time.
    """
    timed = [e for e in exchanges if e.ranks > 1 and e.operation in ("barrier", "allreduce")]
    timed = [e for e in timed if e.ranks <= e.cores] or timed
    found: dict[str, float | None] = {"latency": None, "byte_sent": None}
    _solve([({"latency": e.steps, "byte_sent": e.bytes}, e.seconds, 0.0) for e in timed], found)
    return found


def _solve(rows: Sequence[tuple[Mapping[str, float], float, float]], found: dict[str, float | None]) -> None:
    """Fits the coefficients that `found` has no value for, on relative residuals, as far as the rows determine them.

    Args:
        rows: how often each coefficient counts, the measured sum, and the least that its errors are relative to.
        found: gets the new values.
    """
    from scipy.optimize import nnls  # here, since every rank of a job loads this module, and none fits anything

    if not rows:
        return
    names = list(dict.fromkeys(name for terms, *_ in rows for name in terms if found[name] is None))
    scale = np.array([max(total, floor) for _, total, floor in rows])
    known = [sum(n * (found[name] or 0.0) for name, n in terms.items() if name not in names) for terms, *_ in rows]
    target = np.array([total for _, total, _ in rows]) - np.array(known)
    counts = np.array([[terms.get(name, 0.0) for name in names] for terms, *_ in rows], float).reshape(len(rows), -1)
    good = scale > 0
    counts, target = counts[good] / scale[good, None], target[good] / scale[good]
    told = _independent(counts)
    if told:
        values, _ = nnls(counts[:, told], np.maximum(target, 0.0))
        found.update({names[column]: float(value) for column, value in zip(told, values, strict=True)})


def _independent(columns: NDArray[np.float64]) -> list[int]:
    """The columns, from the left, that are no combination of those before them."""
    chosen: list[int] = []
    basis = np.empty((len(columns), 0))
    for index, column in enumerate(columns.T):
        length = np.linalg.norm(column)
        if not length:
            continue
        rest = column / length
        for _ in range(2):  # once more, for what rounding has left
            rest = rest - basis @ (basis.T @ rest)
        if np.linalg.norm(rest) > _INDEPENDENT:
            chosen.append(index)
            basis = np.column_stack([basis, rest / np.linalg.norm(rest)])
    return chosen
