"""A run beside people and published language models, and its groups beside each other.

Published are means, standard deviations and numbers of participants, no single guesses. p-values that stand in one
table are adjusted by Holm's method for all that stand there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean

from pbeauty.analysis import intervals
from pbeauty.analysis.group_stats import GroupStats
from pbeauty.analysis.intervals import Bounds, Difference, Estimate, Moments
from pbeauty.analysis.references import Pool, Source, human_means, load, published_as, published_rules
from pbeauty.analysis.run_analysis import Analysis, Clustered, is_demo
from pbeauty.game.experiment import Game

MOST_IN_PAIRS = 10
"""Groups of one kind that are compared in pairs; of more, every pair is a table that nobody reads."""


@dataclass(frozen=True)
class Comparison:
    """Everybody in one round beside one published figure."""

    what: str
    """`people`, `people by round`, or `language model`."""
    reference: str
    """Who played there."""
    source: Source
    round: int
    theirs: Estimate
    """Their mean, with its interval where the spread was published; of `people by round`, with the interval in which
    another of their sessions would be expected."""
    n: int | None
    """Participants; of `people by round`, sessions."""
    difference: Difference
    """Our mean less theirs."""
    same: bool = False
    """Whether a published model is the one that plays here, and was asked for the same (`references.published_as`)."""
    tau: float | None = None
    """Of a pool of people, as published."""


def pools(game: Game) -> list[Pool]:
    """The pools of people who played this game, none twice; a published target stands for the mean that it implies."""
    found = [pool for pool in load().pools if pool.same_people is None and pool.plays(game)]
    return [pool if pool.target is None else replace(pool, mean=(pool.target - pool.offset) / game.p) for pool in found]


def compare(analysis: Analysis) -> list[Comparison]:
    """Everybody in the first round with all pools, and in all rounds with all else.

    Empty where nobody has published the same game, and where the demo model plays, which is made to be like people.
    """
    game = analysis.game
    if not published_rules(game) or is_demo(analysis.experiment):
        return []
    everybody = [cell for cell in analysis.of() if cell.n_valid]
    found = intervals.adjusted(
        [_with_pool(cell, pool, analysis.confidence) for cell in everybody[:1] for pool in pools(game)]
    )
    if (game.offset, game.low, game.high) == (0, 0, 100):
        same = published_as(analysis.experiment)
        found += intervals.adjusted([c for cell in everybody for c in _with_sessions(cell, game, analysis.confidence)])
        found += [c for cell in everybody for c in _with_models(cell, game, same)]
    return found


def _with_pool(cell: GroupStats, pool: Pool, confidence: float) -> Comparison:
    assert pool.mean is not None
    error = math.nan if pool.std is None or not pool.n else pool.std / math.sqrt(pool.n)
    theirs = Moments(pool.mean, error, pool.n or 0)
    gap = intervals.difference(cell.moments, theirs, confidence)
    return Comparison("people", pool.label, pool.source, 1, theirs.interval(confidence), pool.n, gap, tau=pool.tau)


def _with_sessions(cell: GroupStats, game: Game, confidence: float) -> Iterator[Comparison]:
    """People in the same period. Their sessions are the units, since those who play together move together; a test
    takes several of ours.

    From the second round on: in the first, these people are among the pools.
    """
    people = human_means(game.p)
    if people is None or not 1 < cell.round <= len(people.average):
        return
    means = [session[cell.round - 1] for session in people.sessions]
    expected, theirs = intervals.prediction(means, confidence), intervals.moments(means)
    expected = replace(expected, low=max(expected.low, game.low), high=min(expected.high, game.high))
    if cell.means.size == 1:
        theirs = theirs._replace(error=math.nan)
    gap = intervals.difference(cell.moments, theirs, confidence)
    name = "sessions of people"
    yield Comparison("people by round", name, people.source, cell.round, expected, len(means), gap)


def _with_models(cell: GroupStats, game: Game, same: tuple[str, str] | None) -> Iterator[Comparison]:
    """Published language models, all at p = 2/3; their numbers of replies are not, so there is no interval."""
    if not math.isclose(game.p, 2 / 3, rel_tol=1e-3):
        return
    for one in load().models:
        if cell.round in one.rounds:
            mean = one.means[one.rounds.index(cell.round)]
            gap, name = intervals.difference(cell.moments, Moments(mean, math.nan, 0)), f"{one.model}, {one.asked}"
            here = (one.model, one.prompt) == same
            yield Comparison("language model", name, one.source, cell.round, Estimate(mean), None, gap, here)


# --- groups beside each other ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contrast:
    """Two groups of one kind beside each other."""

    by: str
    first: str
    second: str
    rounds: str
    """`1`, `4`, or `1-4`: the mean over these rounds."""
    difference: Difference
    """Mean of the first less that of the second."""


def contrasts(analysis: Analysis) -> list[Contrast]:
    """Every pair of groups once, in the first round, the last and over all rounds.

    In a run of several sessions by the differences within each, with Student's t. In one session, in the first round by
    Welch's t; over all rounds, with standard errors clustered by participant; not in the last round alone.
    Nothing of kinds of more than `MOST_IN_PAIRS` groups, and where groups play, whose numbers are no samples.
    """
    found: list[Contrast] = []
    for by in analysis.ways if analysis.game.players == "individuals" else []:
        start = [cell for cell in analysis.of(by) if cell.round == 1 and cell.n_valid]
        if 1 < len(start) <= MOST_IN_PAIRS:
            found += intervals.adjusted(list(_pairs(analysis, by, start)))
    return found


def _pairs(analysis: Analysis, by: str, start: Sequence[GroupStats]) -> Iterator[Contrast]:
    over = {o.label: o for o in analysis.over_rounds if o.by == by}
    several, last = analysis.sessions > 1, analysis.rounds
    for pair in combinations([cell.label for cell in start], 2):
        cells = [analysis.of(by, label) for label in pair]
        for first, end in dict.fromkeys([(1, 1), (last, last), (1, last)] if several else [(1, 1), (1, last)]):
            played = [mine[first - 1 : end] for mine in cells]
            moments = [mine[0].moments if end == 1 else over[mine[0].label].moments for mine in played]
            one, other = (m._replace(bounds=_average(mine)) for m, mine in zip(moments, played, strict=True))
            gap = intervals.difference(one, other, analysis.confidence, _within_sessions(*played) if several else None)
            yield Contrast(by, *pair, str(end) if first == end else f"{first}-{end}", gap)


def _within_sessions(one: Sequence[GroupStats], other: Sequence[GroupStats]) -> Moments:
    """Of the difference of two groups over some rounds, in each session, whose members share its announcements."""
    differences = Clustered(one[0].means.size, len(one))
    for index, (mine, yours) in enumerate(zip(one, other, strict=True)):
        differences.add(index, mine.means - yours.means)
    return differences.moments()[0]


def _average(cells: Sequence[GroupStats]) -> Bounds | None:
    """Of the mean over rounds of a group's mean."""
    if not any(cell.bounds for cell in cells):
        return None
    limits = [cell.moments.limits for cell in cells]
    return Bounds(fmean(one.low for one in limits), fmean(one.high for one in limits))
