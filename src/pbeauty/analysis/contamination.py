"""Does a model know the game by heart? What the probes of `configs/contamination.yaml` say.

The best-known game has p = 2/3 on [0, 100], and 33 and 22 are its textbook answers. A model that recites gives them at
another p as well, and changes its answers when the same game is told in other words. So first guesses are counted near
the textbook's answers and near those that the played p calls for, and each case's first guesses are held against those
of the first case.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pbeauty.analysis import intervals
from pbeauty.analysis.components import WORDED
from pbeauty.analysis.intervals import Estimate
from pbeauty.analysis.references import published_rules
from pbeauty.analysis.variation import Variation
from pbeauty.game.experiment import Game
from pbeauty.game.randomness import seeds
from pbeauty.game.records import Floats
from pbeauty.game.theory import level_k_guess

TEXTBOOK = Game()
PROBED = (*WORDED, "multiplier")
"""Keys one of which must vary for there to be anything to see."""
_REACH = 0.005
"""Guesses within this share of the range of an answer are that answer."""
_PERMUTATIONS = 1999


@dataclass(frozen=True)
class Probe:
    """One case in the first round; its sessions are pooled, since nobody has heard of anybody yet."""

    case: str
    n: int
    """Valid guesses."""
    textbook: Estimate
    """Share within half a hundredth of the range of 33.33 or 22.22, what levels 1 and 2 guess at p = 2/3."""
    own: Estimate
    """The same for the p that is played; NaN where that is 2/3."""
    p_recited: float
    """Of guesses near the textbook's answers being no more frequent than near the own ones: one-sided exact binomial
    test; NaN likewise."""
    distance: float
    """Kolmogorov-Smirnov distance, from 0 to 1, to the first case's guesses; NaN of the first case, and where the
    played p differs, which moves guesses by itself."""
    p_value: float
    """Of the two being alike, by permutation."""
    p_holm: float = math.nan
    """Adjusted for all cases."""


def probes(variation: Variation) -> list[Probe]:
    """A row for each case of individual players on [0, 100]; empty where neither wording nor p varies."""
    from scipy.stats import binomtest

    if not any(key.rpartition(".")[2] in PROBED for key in variation.varied):
        return []
    rows: list[Probe] = []
    start: tuple[Game, NDArray[np.int64]] | None = None
    for index, case in enumerate(variation.cases):
        game, found = case.analyses[0].game, [cell.counted for cell in case.cells(1).values() if cell.counted]
        if not found or not published_rules(game) or (game.low, game.high) != (TEXTBOOK.low, TEXTBOOK.high):
            continue
        counts = np.sum([bins.counts for bins in found], axis=0)
        n, (textbook, own) = int(counts.sum()), (_near(found[0].edges, rules) for rules in (TEXTBOOK, game))
        shares = [intervals.share(int(counts[near].sum()), n) for near in (textbook, own)]
        recited = distance = p_value = math.nan
        if math.isclose(game.p, TEXTBOOK.p, rel_tol=1e-3) and not game.offset:
            shares[1] = intervals.NONE
        else:
            apart = int(counts[textbook & ~own].sum()), int(counts[own & ~textbook].sum())
            recited = float(binomtest(apart[0], sum(apart), alternative="greater").pvalue) if sum(apart) else math.nan
        if start and math.isclose(game.p, start[0].p) and game.offset == start[0].offset:
            distance, p_value = _distance(counts, start[1], index)
        start = start or (game, counts)
        rows.append(Probe(case.label, n, shares[0], shares[1], recited, distance, p_value))
    return intervals.adjusted(rows)


def _near(edges: Floats, game: Game) -> NDArray[np.bool_]:
    """Which bins, bool[bin], are near what levels 1 and 2 guess in the first round of this game."""
    middles = (edges[:-1] + edges[1:]) / 2
    answers = [level_k_guess(game, level, (game.low + game.high) / 2) for level in (1, 2)]
    return np.min([np.abs(middles - answer) for answer in answers], axis=0) <= _REACH * (game.high - game.low)


def _distance(counts: NDArray[np.int64], others: NDArray[np.int64], index: int) -> tuple[float, float]:
    """Kolmogorov-Smirnov distance of two samples in the same bins, and its p-value over permutations of the two.

    Permuting keeps the heaps of guesses, for which the textbook distribution of the distance does not hold.
    """
    both = counts + others
    n, m = int(counts.sum()), int(others.sum())
    key = seeds(0, "analysis/contamination", index, np.arange(1))
    drawn = np.random.default_rng(int(key[0])).multivariate_hypergeometric(both, n, size=_PERMUTATIONS)
    samples = np.vstack([counts, drawn])
    found = np.abs(np.cumsum(samples / n - (both - samples) / m, axis=1)).max(axis=1)
    return float(found[0]), float(np.mean(found >= found[0] - 1e-12))
