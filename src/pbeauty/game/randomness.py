"""Counter-based draws: what participant i draws in round t depends on nothing but the run's seed, t and i.

The stream of a (seed, stream name, round) is Philox under a key hashed from the three; participant i owns the
i-th number of it. A block therefore draws the same numbers whichever rank hosts it, and however often the
run was interrupted (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pbeauty.game.population import largest_remainders

T = TypeVar("T", bound=np.generic)

_PER_COUNTER = 4
"""64-bit numbers that Philox4x64 makes of one counter value."""
_WORTH_SKIPPING = 64
"""Numbers between those of two participants, above which starting anew is faster than drawing them."""


def uniforms(seed: int, stream: str, round_index: int, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """A draw of each of some participants from [0, 1), float64[participant].

    Args:
        seed: the run's seed, 0 <= seed < 2**63.
        stream: what the draws are for; different names are independent.
        round_index: from 0; for draws made once a run, use 0 and a name of their own.
        ids: int64[participant], ascending, from 0.
    """

    key = _key(seed, stream, round_index)
    return _of_each(ids, key, lambda philox, count: np.random.Generator(philox).random(count))


def seeds(seed: int, stream: str, round_index: int, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Seeds for other generators, whole numbers from [0, 2**63), int64[participant]; arguments as for `uniforms`."""
    key = _key(seed, stream, round_index)
    return _of_each(ids, key, lambda philox, count: (philox.random_raw(count) >> np.uint64(1)).astype(np.int64))


def _of_each(ids: NDArray[np.int64], key: int, draw: Callable[[np.random.Philox, int], NDArray[T]]) -> NDArray[T]:
    """Picks participants' own numbers from the stream of a key, of which `draw` gives so many."""
    parts = []
    for some in np.split(ids, np.flatnonzero(np.diff(ids) > _WORTH_SKIPPING) + 1):
        start = int(some[0]) // _PER_COUNTER * _PER_COUNTER if some.size else 0
        philox = np.random.Philox(key=key, counter=start // _PER_COUNTER)
        drawn = draw(philox, int(some[-1]) + 1 - start if some.size else 0)
        whole = some.size and drawn.size - (some[0] - start) == some.size
        parts.append(drawn[some[0] - start :] if whole else drawn[some - start])
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def quotas(count: int, shares: Sequence[float], seed: int, stream: str) -> list[int]:
    """How many of `count` participants each share gets: less than one away from share x count, and `count` in all.

    What rounding down leaves over goes to the largest remainders, among equal ones by lot.
    """
    exact = [Fraction(share).limit_denominator(10**9) for share in shares]
    return largest_remainders(count, exact, uniforms(seed, f"remainder/{stream}", 0, np.arange(len(shares))).tolist())


def deal(ids: NDArray[np.int64], shares: Sequence[float], seed: int, stream: str) -> NDArray[np.uint16]:
    """Deals values out to participants, int64[participant], ascending, in exact quotas: uint16[participant]."""
    order = np.argsort(uniforms(seed, f"persona/{stream}", 0, ids), kind="stable")
    dealt = np.empty(len(ids), np.uint16)
    dealt[order] = np.repeat(np.arange(len(shares), dtype=np.uint16), quotas(len(ids), shares, seed, stream))
    return dealt


def _key(seed: int, stream: str, round_index: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{stream}/{round_index}".encode(), digest_size=16).digest()
    return int.from_bytes(digest, "little")
