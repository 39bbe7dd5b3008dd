"""The k-th smallest of numbers that lie on many ranks, exactly: counted in narrowing intervals, never gathered.

Every pass counts the numbers of an interval in 2,048 parts and goes on with the part that holds the place. Parts are
even in the order of float64 (the integers that IEEE 754 numbers sort by), so six passes at most reach a single number.
Several places are searched for at once, with as many messages as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Chunks = Callable[[], Iterable[Floats]]
"""The numbers of this rank, in pieces; they can be gone through more than once."""
_Keys = NDArray[np.uint64]

_BITS = 11
_SIGN = np.uint64(1 << 63)


class Ranks(Protocol):
    """What all ranks know of together; every rank calls the same in the same order."""

    def sum(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Element by element, over all ranks."""
        ...

    def least(self, values: Floats) -> Floats:
        """Element by element, over all ranks."""
        ...


class Alone:
    """A single rank, which knows everything."""

    def sum(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """The values themselves."""
        return values

    def least(self, values: Floats) -> Floats:
        """The values themselves."""
        return values


@dataclass
class _Interval:
    """Keys from `low` to `high`, both included."""

    low: int
    high: int
    before: int
    """Numbers on all ranks that lie below it."""
    count: int
    """Numbers on all ranks that lie in it."""
    numbers: Callable[[], Iterable[_Keys]]
    """Those of them on this rank."""


def select(chunks: Chunks, places: Sequence[int], count: int, least: float, most: float, ranks: Ranks) -> list[float]:
    """The numbers at some places in ascending order; collective.

    Args:
        chunks: the numbers of this rank, finite.
        places: from 0 to count - 1.
        count: of all numbers on all ranks.
        least, most: of all numbers on all ranks.
        ranks: all of them.
    """
    low, high = (int(_keys(np.array([end]))[0]) for end in (least, most))
    whole = _Interval(low, high, 0, count, lambda: map(_keys, chunks()))
    at = [whole] * len(places)
    while unsettled := list({id(one): one for one in at if one.low < one.high}.values()):
        counts = ranks.sum(np.stack([_counted(interval) for interval in unsettled]))
        for interval, parts in zip(unsettled, counts, strict=True):
            here = [index for index, one in enumerate(at) if one is interval]
            narrowed = _narrowed(interval, parts, [places[index] for index in here])
            for index, one in zip(here, narrowed, strict=True):
                at[index] = one
    return [_number(one.low) for one in at]


def _shift(interval: _Interval) -> int:
    """How many bits of a key's distance from `low` do not count, for the rest to fit in `_BITS`."""
    return max(0, (interval.high - interval.low).bit_length() - _BITS)


def _counted(interval: _Interval) -> NDArray[np.int64]:
    counts = np.zeros(1 << _BITS, np.int64)
    low, shift = np.uint64(interval.low), np.uint64(_shift(interval))
    for keys in interval.numbers():
        counts += np.bincount(((keys - low) >> shift).astype(np.int64), minlength=len(counts))
    return counts


def _narrowed(interval: _Interval, counts: NDArray[np.int64], places: Sequence[int]) -> list[_Interval]:
    """The part of an interval that holds each place; places in the same part share one object."""
    shift, ends = _shift(interval), interval.before + np.cumsum(counts)
    parts = np.searchsorted(ends, places, side="right").tolist()
    found = {}
    for part in parts:
        low = interval.low + (part << shift)
        high = min(interval.high, low + (1 << shift) - 1)
        found[part] = _Interval(low, high, int(ends[part] - counts[part]), int(counts[part]), list)
    going_on = [part for part in found.values() if part.low < part.high]
    kept: list[list[_Keys]] = [[] for _ in going_on]
    for keys in interval.numbers() if going_on else ():
        for part, pieces in zip(going_on, kept, strict=True):
            pieces.append(keys[(keys >= np.uint64(part.low)) & (keys <= np.uint64(part.high))])
    for part, pieces in zip(going_on, kept, strict=True):
        part.numbers = pieces.copy
    return [found[part] for part in parts]


def _keys(values: Floats) -> _Keys:
    """Integers in the order of the numbers; both zeros are one."""
    bits = (values + 0.0).view(np.uint64)
    # Negative numbers are stored as sign and size, so their order is turned round.
    flip = (bits.view(np.int64) >> 63).view(np.uint64) | _SIGN
    return bits ^ flip


def _number(key: int) -> float:
    bits = key ^ (1 << 63) if key >> 63 else key ^ ((1 << 64) - 1)
    return float(np.array([bits], np.uint64).view(np.float64)[0])
