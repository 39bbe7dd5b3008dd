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
from pbeauty.analysis.group_stats import Binned
from pbeauty.analysis.intervals import Estimate
from pbeauty.analysis.references import published_rules
from pbeauty.analysis.variation import Case, Variation
from pbeauty.game.experiment import Game
from pbeauty.game.randomness import seeds
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
    if not any(key.rpartition(".")[2] in PROBED for key in variation.varied):
        return []
    counted = [(case, _first(case)) for case in variation.cases]
    rows: list[Probe] = []
    start: tuple[Game, NDArray[np.int64]] | None = None
    for index, (case, bins) in enumerate(counted):
        game = case.analyses[0].game
        if bins is None or not published_rules(game) or (game.low, game.high) != (TEXTBOOK.low, TEXTBOOK.high):
            continue
        start = start or (game, bins.counts)
        alike = rows and math.isclose(game.p, start[0].p) and game.offset == start[0].offset
        distance, p_value = _distance(bins.counts, start[1], index) if alike else (math.nan, math.nan)
        rows.append(_probe(case.label, game, bins, (distance, p_value)))
    return intervals.adjusted(rows)


def _first(case: Case) -> Binned | None:
    """First guesses of all sessions of a case."""
    found = [cell.counted for cell in case.cells(1).values() if cell.counted]
    return Binned(found[0].edges, np.sum([bins.counts for bins in found], axis=0)) if found else None


def _probe(label: str, game: Game, bins: Binned, difference: tuple[float, float]) -> Probe:
    from scipy.stats import binomtest

    n = int(bins.counts.sum())
    textbook, own = (_near(bins, rules) for rules in (TEXTBOOK, game))
    recited = math.nan
    classic = math.isclose(game.p, TEXTBOOK.p, rel_tol=1e-3) and not game.offset
    if not classic:
        apart = int(bins.counts[textbook & ~own].sum()), int(bins.counts[own & ~textbook].sum())
        recited = float(binomtest(apart[0], sum(apart), alternative="greater").pvalue) if sum(apart) else math.nan
    shares = [intervals.share(int(bins.counts[near].sum()), n) for near in (textbook, own)]
    return Probe(label, n, shares[0], intervals.NONE if classic else shares[1], recited, *difference)


def _near(bins: Binned, game: Game) -> NDArray[np.bool_]:
    """Which bins, bool[bin], are near what levels 1 and 2 guess in the first round of this game."""
    middles = (bins.edges[:-1] + bins.edges[1:]) / 2
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
