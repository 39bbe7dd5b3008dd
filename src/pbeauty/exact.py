"""Sums of float64 that neither order nor partition can change: numbers are cut into whole ones, and those add exactly.

The idea is that of reproducible summation (Demmel and Nguyen 2015, "Parallel reproducible summation"): a number x with
|x| <= 2**e is 2**(e - 30) * (w0 + w1 / 2**30 + w2 / 2**60), with what lies below 2**(e - 90) cut off. The sums of each
w over 2**33 participants fit in int64, so ranks may add them in whatever order.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

WORDS = 3
"""Whole numbers that stand for one sum."""
_BITS = 30
_SMALLEST = -900
"""Exponents below it would overflow in scaling; numbers so small are cut off instead."""
_AT_ONCE = 1 << 16
"""Numbers whose intermediate steps fit in a core's cache; the sum of as many words is exact in float64."""


def exponent(most: float) -> int:
    """The e of the module's text for numbers up to `most` in absolute value."""
    return max(math.frexp(most)[1], _SMALLEST)


def words(values: NDArray[np.float64], exponent: int) -> NDArray[np.int64]:
    """The sum of `values` as int64[WORDS], to be added to those of other values with the same `exponent`."""
    sums = np.zeros(WORDS, np.int64)
    for start in range(0, len(values), _AT_ONCE):
        rest = values[start : start + _AT_ONCE] * 2.0 ** (_BITS - exponent)
        for word in range(WORDS):
            whole = np.trunc(rest)  # not floor: what it leaves of a small negative number would be rounded
            sums[word] += int(whole.sum())
            rest -= whole
            rest *= 2.0**_BITS
    return sums


def total(words: NDArray[np.int64], exponent: int) -> Fraction:
    """The number that int64[WORDS] stand for."""
    whole = sum(int(word) << (_BITS * (WORDS - 1 - place)) for place, word in enumerate(words))
    return Fraction(whole) * Fraction(2) ** (exponent - WORDS * _BITS)
