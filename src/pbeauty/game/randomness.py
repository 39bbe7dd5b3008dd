"""Counter-based draws: what participant i draws in round t depends on nothing but the run's seed, t and i.

The stream of a (seed, stream name, round) is Philox under a key hashed from the three; participant i owns the
i-th number of it. A block therefore draws the same numbers whichever rank hosts it, and however often the
run was interrupted (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

_PER_COUNTER = 4
"""64-bit numbers that Philox4x64 makes of one counter value."""


def uniforms(seed: int, stream: str, round_index: int, start: int, stop: int) -> NDArray[np.float64]:
    """The draws of participants start..stop-1 from [0, 1), float64[stop - start].

    Args:
        seed: the run's seed, 0 <= seed < 2**63.
        stream: what the draws are for; different names are independent.
        round_index: from 0; for draws made once a run, use 0 and a name of their own.
        start, stop: participant ids, 0 <= start <= stop.
    """
    skip = start % _PER_COUNTER
    return np.random.Generator(_philox(seed, stream, round_index, start)).random(stop - start + skip)[skip:]


def seeds(seed: int, stream: str, round_index: int, start: int, stop: int) -> NDArray[np.int64]:
    """Seeds for other generators, whole numbers from [0, 2**63), int64[stop - start]; arguments as for `uniforms`."""
    skip = start % _PER_COUNTER
    raw = _philox(seed, stream, round_index, start).random_raw(stop - start + skip)[skip:]
    return (raw >> np.uint64(1)).astype(np.int64)


def quotas(count: int, shares: Sequence[float], seed: int, stream: str) -> list[int]:
    """How many of `count` participants each share gets: less than one away from share x count, and `count` in all.

    What rounding down leaves over goes to the largest remainders (Hamilton's method), among equal ones by lot.
    """
    exact = [Fraction(share).limit_denominator(10**9) for share in shares]
    wanted = [count * share / sum(exact) for share in exact]
    given = [int(number) for number in wanted]
    lots = uniforms(seed, f"remainder/{stream}", 0, 0, len(shares))
    order = sorted(range(len(shares)), key=lambda i: (given[i] - wanted[i], lots[i]))
    for i in order[: count - sum(given)]:
        given[i] += 1
    return given


def deal(start: int, stop: int, shares: Sequence[float], seed: int, stream: str) -> NDArray[np.uint16]:
    """Deals values out to participants start..stop-1 in exact quotas, uint16[stop - start]."""
    order = np.argsort(uniforms(seed, f"persona/{stream}", 0, start, stop), kind="stable")
    dealt = np.empty(stop - start, np.uint16)
    dealt[order] = np.repeat(np.arange(len(shares), dtype=np.uint16), quotas(stop - start, shares, seed, stream))
    return dealt


def _philox(seed: int, stream: str, round_index: int, start: int) -> np.random.Philox:
    digest = hashlib.blake2b(f"{seed}/{stream}/{round_index}".encode(), digest_size=16).digest()
    return np.random.Philox(key=int.from_bytes(digest, "little"), counter=start // _PER_COUNTER)
