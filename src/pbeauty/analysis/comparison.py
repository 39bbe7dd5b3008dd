"""A run beside people and published language models: distances with intervals, and the pool of people nearest to it.

Published are means, standard deviations and numbers of participants, no single guesses. A difference of means
therefore has an interval wherever the spread was published; distances of whole distributions are to the cognitive
hierarchy at the tau that was published for a pool, and between runs. Comparing with many pools finds differences by
chance: p-values stand beside Holm's, adjusted for the number of comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from pbeauty.analysis import intervals
from pbeauty.analysis.group_stats import GroupStats
from pbeauty.analysis.hierarchy import Binned
from pbeauty.analysis.intervals import CONFIDENCE, NONE, REPLICATES, Difference, Estimate
from pbeauty.analysis.references import Pool, human_means, load
from pbeauty.analysis.run_analysis import EVERYBODY, Analysis
from pbeauty.game.experiment import Game
from pbeauty.game.randomness import seeds
from pbeauty.game.scripted import hierarchy_guesses, poisson_shares

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """One group in one round beside one published figure."""

    what: str
    """`people`, `people by round`, `language model`, or `run`."""
    reference: str
    """Who played there."""
    source: str
    by: str
    label: str
    round: int
    mean: float
    """Theirs."""
    n: int | None
    difference: Difference
    """Our mean less theirs."""
    p_holm: float = math.nan
    """The p-value adjusted for all comparisons of the same kind."""
    wasserstein: Estimate = NONE
    """Mean distance that guesses would have to be moved, in units of the game; see `distribution`."""
    kolmogorov: float = math.nan
    """Largest difference between the distribution functions, in [0, 1]."""
    distribution: str | None = None
    """What distribution the two distances are to."""


def comparable(game: Game) -> bool:
    """Whether the rules are those of the published games but for p: target p times the mean, range [0, 100]."""
    return game.aggregate == "mean" and game.offset == 0 and (game.low, game.high) == (0, 100)


def pools(game: Game) -> list[Pool]:
    """The pools of people who played this game, with the mean that a published target implies, target / p."""
    if not comparable(game):
        return []
    found = [pool for pool in load().pools if math.isclose(pool.p, game.p, rel_tol=1e-3)]
    implied = [pool if pool.mean is not None or pool.target is None else replace(pool, mean=pool.target / pool.p)
               for pool in found]  # fmt: skip
    return [pool for pool in implied if pool.mean is not None]


def compare(analysis: Analysis) -> list[Comparison]:
    """Everybody, and every group, of the first round with all pools; everybody in all rounds with all else.

    Empty where nobody has published the same game.
    """
    game, confidence = analysis.game, analysis.confidence
    if not comparable(game):
        return []
    everybody = [cell for cell in analysis.of() if cell.n_valid]
    start = [cell for cell in analysis.cells if cell.round == 1 and cell.n_valid]
    found = [_with_pool(cell, pool, game, analysis.seed, confidence) for cell in start for pool in pools(game)]
    made = _adjusted(found)
    made += _adjusted([c for cell in everybody for c in _with_sessions(cell, game, confidence)])
    return made + [c for cell in everybody for c in _with_models(cell, game)]


def nearest(comparisons: Sequence[Comparison], by: str = EVERYBODY, label: str = EVERYBODY) -> Comparison | None:
    """The pool of people whose mean is nearest to a group's in the first round; None where there is none."""
    people = [c for c in comparisons if c.what == "people" and (c.by, c.label) == (by, label)]
    return min(people, key=lambda c: abs(c.difference.estimate.value), default=None)


def _with_pool(cell: GroupStats, pool: Pool, game: Game, seed: int, confidence: float) -> Comparison:
    assert pool.mean is not None
    theirs = (pool.mean, math.nan if pool.std is None else pool.std, float(pool.n or 0))
    made = Comparison(
        "people", pool.label, pool.source.short, cell.by, cell.label, 1, pool.mean, pool.n,
        intervals.difference(_moments(cell), theirs, confidence),
    )  # fmt: skip
    if pool.tau is None or cell.counted is None:
        return made
    key = seeds(seed, f"comparison/{cell.by}/{cell.label}/{pool.label}", 0, 0, 1)
    model = hierarchy_distribution(game, pool.tau, cell.counted)
    moved, apart = distances(cell.counted, model, np.random.default_rng(int(key[0])), confidence)
    of_model = f"cognitive hierarchy at tau {pool.tau}, which was fitted to them"
    return replace(made, wasserstein=moved, kolmogorov=apart, distribution=of_model)


def _with_sessions(cell: GroupStats, game: Game, confidence: float) -> list[Comparison]:
    """People in the same period; their sessions are the units, since those who play together move together."""
    people = human_means(game.p)
    if people is None or cell.round > len(people.average):
        return []
    means = [session[cell.round - 1] for session in people.sessions]
    theirs = (fmean(means), stdev(means), float(len(means)))
    gap = intervals.difference(_moments(cell), theirs, confidence)
    name, short = f"mean of {len(means)} sessions, period {cell.round}", people.source.short
    return [Comparison("people by round", name, short, cell.by, cell.label, cell.round, theirs[0], len(means), gap)]


def _with_models(cell: GroupStats, game: Game) -> list[Comparison]:
    """Published language models, all at p = 2/3; their numbers of replies are not, so there is no interval."""
    if not math.isclose(game.p, 2 / 3, rel_tol=1e-3):
        return []
    rows = []
    if cell.round == 1:
        rows += [(f"{row.model}, {row.prompt_text}", row.source.short, row.mean) for row in load().llm_rounds]
    rows += [
        (f"{path.model}, round {cell.round}", path.source.short, path.means[path.rounds.index(cell.round)])
        for path in load().llm_trajectories
        if cell.round in path.rounds and (cell.round > 1 or path.prompt is None)
    ]
    return [
        Comparison(
            "language model", name, source, cell.by, cell.label, cell.round, mean, None,
            Difference(Estimate(cell.mean.value - mean)),
        )
        for name, source, mean in rows
    ]  # fmt: skip


def between_runs(first: Analysis, second: Analysis) -> list[Comparison]:
    """Everybody of the second run beside everybody of the first, in each round that both have."""
    if (first.game.low, first.game.high) != (second.game.low, second.game.high):
        return []
    found = []
    for one, other in zip(first.of(), second.of(), strict=False):
        if one.counted is None or other.counted is None:
            continue
        key = seeds(first.seed, "comparison/runs", one.round, 0, 1)
        theirs = np.cumsum(one.counted.counts) / one.n_valid
        moved, apart = distances(
            other.counted, theirs, np.random.default_rng(int(key[0])), second.confidence, one.counted
        )
        gap = intervals.difference(_moments(other), _moments(one), second.confidence)
        found.append(
            Comparison(
                "run", first.path, f"seed {first.seed}", EVERYBODY, EVERYBODY, one.round, one.mean.value, one.n_valid,
                gap, wasserstein=moved, kolmogorov=apart, distribution="its own",
            )
        )  # fmt: skip
    return _adjusted(found)


def _moments(cell: GroupStats) -> tuple[float, float, float]:
    """Mean, standard deviation with divisor n - 1, and n."""
    n = cell.n_valid
    return cell.mean.value, cell.sd.value * math.sqrt(n / (n - 1)) if n > 1 else math.nan, float(n)


def _adjusted(comparisons: list[Comparison]) -> list[Comparison]:
    adjusted = intervals.holm([comparison.difference.p_value for comparison in comparisons])
    return [replace(comparison, p_holm=p) for comparison, p in zip(comparisons, adjusted, strict=True)]


# --- groups beside each other ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contrast:
    """One group beside all others of its round."""

    by: str
    label: str
    round: int
    difference: Difference
    """Mean of the group less that of all others."""
    p_holm: float
    """The p-value adjusted for all groups and rounds of the same way to make groups."""


def contrasts(analysis: Analysis) -> list[Contrast]:
    """Each group beside the rest, in each round, by Welch's t; nothing where there is but one group."""
    found: list[Contrast] = []
    everybody = {cell.round: cell for cell in analysis.of()}
    for by in dict.fromkeys(cell.by for cell in analysis.cells if cell.by != EVERYBODY):
        cells = [cell for cell in analysis.of(by) if 0 < cell.n_valid < everybody[cell.round].n_valid]
        gaps = [
            intervals.difference(_moments(cell), _rest(everybody[cell.round], cell), analysis.confidence)
            for cell in cells
        ]
        adjusted = intervals.holm([gap.p_value for gap in gaps])
        found += [
            Contrast(by, cell.label, cell.round, gap, p) for cell, gap, p in zip(cells, gaps, adjusted, strict=True)
        ]
    return found


def _rest(everybody: GroupStats, group: GroupStats) -> tuple[float, float, float]:
    """The moments of all but a group: sums of guesses and of squares are additive."""
    n = everybody.n_valid - group.n_valid
    total = everybody.n_valid * everybody.mean.value - group.n_valid * group.mean.value
    mean = total / n
    squares = sum(
        sign * cell.n_valid * (cell.sd.value**2 + (cell.mean.value - mean) ** 2)
        for sign, cell in ((1, everybody), (-1, group))
    )
    return mean, math.sqrt(max(squares, 0.0) / (n - 1)) if n > 1 else math.nan, float(n)


# --- distributions -------------------------------------------------------------------------------------------


def hierarchy_distribution(game: Game, tau: float, counted: Binned) -> Floats:
    """The first-round distribution function of the cognitive hierarchy at the upper ends of bins, float64[bin]."""
    shares = poisson_shares(tau)
    guesses = hierarchy_guesses(game, tau, (game.low + game.high) / 2)
    ends = counted.edges[1:]
    uniform = (ends - game.low) / (game.high - game.low)
    return shares[0] * uniform + (guesses[1:, None] <= ends).T @ shares[1:]


def distances(
    counted: Binned,
    theirs: Floats,
    generator: np.random.Generator,
    confidence: float = CONFIDENCE,
    sample: Binned | None = None,
) -> tuple[Estimate, float]:
    """Wasserstein's first distance, with a bootstrap percentile interval, and Kolmogorov and Smirnov's, over bins.

    Both are from distribution functions at the ends of bins: the area between them, and their largest difference
    (to within one bin's share). Sampling alone makes either larger than zero.

    Args:
        counted: our guesses.
        theirs: float64[bin], their distribution function at the upper ends of the same bins.
        generator: draws the bootstrap samples.
        confidence: in (0, 1).
        sample: the guesses that `theirs` is from, if it is no model.
    """
    widths = np.diff(counted.edges)

    def drawn(bins: Binned) -> Floats:
        n = bins.counts.sum()
        return np.cumsum(generator.multinomial(n, bins.counts / n, size=REPLICATES), axis=1) / n

    ours = np.cumsum(counted.counts) / counted.counts.sum()
    gaps = np.abs(ours - theirs)
    repeated = np.abs(drawn(counted) - (theirs if sample is None else drawn(sample))) @ widths
    low, high = np.quantile(repeated, [0.5 - confidence / 2, 0.5 + confidence / 2])
    moved = float(gaps @ widths)
    return Estimate(moved, float(min(low, moved)), float(max(high, moved))), float(gaps.max())
