"""A run beside people and published language models, and its groups beside each other.

Published are means, standard deviations and numbers of participants, no single guesses. p-values that stand in one
table are adjusted by Holm's method for all that stand there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations

from pbeauty.analysis import intervals
from pbeauty.analysis.group_stats import GroupStats
from pbeauty.analysis.intervals import Difference, Estimate
from pbeauty.analysis.references import Pool, human_means, load, published_as, published_rules
from pbeauty.analysis.run_analysis import Analysis, Clustered
from pbeauty.game.experiment import Experiment, Game

MOST_IN_PAIRS = 10
"""Groups of one kind that are compared in pairs; of more, every pair is a table that nobody reads."""


@dataclass(frozen=True)
class Comparison:
    """Everybody in one round beside one published figure."""

    what: str
    """`people`, `people by round`, or `language model`."""
    reference: str
    """Who played there."""
    source: str
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


def pools(game: Game) -> list[Pool]:
    """The pools of people who played this game, none twice; a published target stands for the mean that it implies."""
    found = [pool for pool in load().pools if pool.same_people is None and pool.plays(game)]
    return [pool if pool.target is None else replace(pool, mean=(pool.target - pool.offset) / game.p) for pool in found]


def compare(analysis: Analysis, experiment: Experiment | None = None) -> list[Comparison]:
    """Everybody in the first round with all pools, and in all rounds with all else.

    Empty where nobody has published the same game, and where the demo model plays, which is made to be like people.
    With the experiment, those of the same model and prompt are marked.
    """
    game = analysis.game
    if not published_rules(game) or analysis.demo:
        return []
    everybody = [cell for cell in analysis.of() if cell.n_valid]
    found = intervals.adjusted(
        [_with_pool(cell, pool, analysis.confidence) for cell in everybody[:1] for pool in pools(game)]
    )
    if (game.offset, game.low, game.high) == (0, 0, 100):
        same = published_as(experiment) if experiment else None
        found += intervals.adjusted([c for cell in everybody for c in _with_sessions(cell, game, analysis.confidence)])
        found += [c for cell in everybody for c in _with_models(cell, game, same)]
    return found


def _with_pool(cell: GroupStats, pool: Pool, confidence: float) -> Comparison:
    assert pool.mean is not None
    error = math.nan if pool.std is None or not pool.n else pool.std / math.sqrt(pool.n)
    theirs = intervals.student(pool.mean, error, (pool.n or 0) - 1, confidence)
    gap = _less(cell, (pool.mean, error, float(pool.n or 0)), confidence)
    return Comparison("people", pool.label, pool.source.marked, 1, theirs, pool.n, gap)


def _with_sessions(cell: GroupStats, game: Game, confidence: float) -> list[Comparison]:
    """People in the same period. Their sessions are the units, since those who play together move together; a test
    takes several of ours.

    From the second round on: in the first, these people are among the pools.
    """
    people = human_means(game.p)
    if people is None or not 1 < cell.round <= len(people.average):
        return []
    means = [session[cell.round - 1] for session in people.sessions]
    expected = intervals.prediction(means, confidence)
    theirs = Estimate(expected.value, max(expected.low, game.low), min(expected.high, game.high))
    gap = Difference(Estimate(cell.mean.value - theirs.value))
    if cell.means.size > 1:
        gap = _less(cell, intervals.sessions(means), confidence)
    return [
        Comparison("people by round", "sessions of people", people.source.marked, cell.round, theirs, len(means), gap)
    ]


def _with_models(cell: GroupStats, game: Game, same: tuple[str, str] | None) -> list[Comparison]:
    """Published language models, all at p = 2/3; their numbers of replies are not, so there is no interval."""
    if not math.isclose(game.p, 2 / 3, rel_tol=1e-3):
        return []
    published = load().prompted + tuple(path for path in load().models if cell.round > 1 or not path.prompt)
    found = []
    for one in published:
        if cell.round in one.rounds:
            mean = one.means[one.rounds.index(cell.round)]
            gap, name = _less(cell, (mean, math.nan, 0)), f"{one.model}, {one.asked}"
            here = (one.model, one.prompt) == same
            what = "language model"
            found.append(Comparison(what, name, one.source.marked, cell.round, Estimate(mean), None, gap, here))
    return found


def _less(cell: GroupStats, theirs: tuple[float, float, float], confidence: float = intervals.CONFIDENCE) -> Difference:
    limits = cell.bounds and intervals.Bounds(cell.bounds.low - theirs[0], cell.bounds.high - theirs[0])
    return intervals.difference(cell.moments, theirs, confidence, limits)


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
    for pair in combinations([cell.label for cell in start], 2):
        cells = [analysis.of(by, label) for label in pair]
        last = analysis.rounds
        spans = [(1, 1), (last, last), (1, last)] if analysis.sessions > 1 else [(1, 1), (1, last)]
        for first, end in dict.fromkeys(spans):
            one, other = played = [mine[first - 1 : end] for mine in cells]
            limits = _average(one).less(_average(other)) if any(cell.bounds for cell in chain(*played)) else None
            moments = [(o.average.value, o.error, float(o.n)) for o in (over[label] for label in pair)]
            if analysis.sessions > 1:
                moments = [_paired(one, other), (0.0, 0.0, math.inf)]
            elif end == 1:
                moments = [one[0].moments, other[0].moments]
            gap = intervals.difference(moments[0], moments[1], analysis.confidence, limits)
            yield Contrast(by, *pair, str(end) if first == end else f"{first}-{end}", gap)


def _paired(one: Sequence[GroupStats], other: Sequence[GroupStats]) -> tuple[float, float, float]:
    """Moments of the difference of two groups over some rounds, by session, whose members share its announcements."""
    differences = Clustered(one[0].means.size, len(one))
    for index, (mine, yours) in enumerate(zip(one, other, strict=True)):
        differences.add(index, mine.means - yours.means)
    found = differences.result("", "", intervals.CONFIDENCE)
    return found.average.value, found.error, float(found.n)


def _average(cells: Sequence[GroupStats]) -> intervals.Bounds:
    """Of the mean over rounds of a group's mean."""
    lows, highs = zip(*((cell.limits.low, cell.limits.high) for cell in cells), strict=True)
    return intervals.Bounds(sum(lows) / len(cells), sum(highs) / len(cells))
