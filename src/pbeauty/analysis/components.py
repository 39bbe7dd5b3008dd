"""How much sessions' means vary, what that goes with, and how many sessions an experiment takes to see a difference.

The statistics are of the mean guess y of each session in one round, whose variance by sampling its participants is
v = sd^2 / (n - 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pbeauty.analysis import intervals
from pbeauty.analysis.group_stats import BySession
from pbeauty.analysis.intervals import CONFIDENCE, NONE, Difference, Estimate
from pbeauty.game.records import Floats

FEWEST_SESSIONS = 5
"""Of one case, and one more for each further case. With fewer, no variance between sessions is estimated."""

WORDED = ("system_prompt", "user_prompt")
"""Keys that say in which words participants are asked."""
_LARGEST_RATIO = 1e9
"""Of variances: beyond, sessions of one case differ by rounding alone."""


@dataclass(frozen=True)
class Components:
    """Standard deviations in one round, pooled over cases."""

    round: int
    sessions: int
    freedom: int
    """Sessions less cases."""
    guesses: float
    """Of guesses within a session."""
    observed: float
    """Of sessions' means within a case; NaN with too few sessions, as is the next."""
    between: Estimate
    """The same beyond what different participants make of it: the ANOVA estimator, with the interval by Q-profile
    (Viechtbauer 2007)."""
    sampling: float
    """What different participants alone would make of it."""


@dataclass(frozen=True)
class Effect:
    """How much of the variance of sessions' means goes with one varied key, in one round."""

    key: str
    """Several, joined by " + ", where these vary together."""
    round: int
    share: Estimate
    """Partial omega squared: of the variance that is left when all other keys are accounted for; interval by the
    noncentral F (Steiger 2004). NaN where it cannot be told from the other keys', and where sessions of one case are
    all the same."""
    p_value: float = math.nan
    """F test against the variance between sessions of one case."""
    p_holm: float = math.nan
    """Adjusted for all keys and rounds."""


# --- how much sessions vary ------------------------------------------------------------------------------------


def _within_cases(means: Sequence[Floats]) -> tuple[float, int]:
    """The mean square of sessions' means within cases, float64[session] each, and its degrees of freedom."""
    freedom = sum(y.size - 1 for y in means)
    return sum(float(np.square(y - y.mean()).sum()) for y in means) / max(freedom, 1), freedom


def components_of(round_number: int, cases: Sequence[BySession], confidence: float) -> Components:
    """The components in one round, from the figures of each session of each case."""
    means, within = [case.mean for case in cases], [np.square(case.error) for case in cases]
    (square, freedom), observed, between = _within_cases(means), math.nan, NONE
    if freedom >= FEWEST_SESSIONS - 1:
        observed, between = math.sqrt(square), between_sessions(means, within, confidence)
    guesses = math.sqrt(float(np.mean(np.square(np.concatenate([case.sd for case in cases])))))
    sampling = math.sqrt(float(np.concatenate(within).mean()))
    return Components(round_number, freedom + len(cases), freedom, guesses, observed, between, sampling)


def between_sessions(means: Sequence[Floats], within: Sequence[Floats], confidence: float = CONFIDENCE) -> Estimate:
    """The standard deviation between sessions of one case that their participants do not account for.

    The estimate is by moments, sqrt(max(0, MS - mean(within))), MS being the mean square within cases. The interval
    holds every s for which Q = sum (y - y_w)^2 / (v + s^2), with each case's y_w weighted by 1 / (v + s^2), is an
    ordinary chi-square of sessions less cases degrees of freedom.

    Args:
        means: of each case, float64[session].
        within: likewise, the variance of each mean by sampling participants.

    Returns:
        NaN with one session a case, and where a variance by sampling is NaN.
    """
    from scipy.optimize import brentq
    from scipy.special import chdtri  # all of scipy.stats takes half a second to import

    square, freedom = _within_cases(means)
    if freedom < 1 or any(np.isnan(v).any() for v in within):
        return NONE
    sampling = float(np.concatenate(within).mean())

    def q(variance: float) -> float:
        total = 0.0
        for y, v in zip(means, within, strict=True):
            weights = 1 / np.maximum(v + variance, 1e-300)
            total += float(weights @ np.square(y - weights @ y / weights.sum()))
        return total

    def solve(level: float) -> float:
        if not square or q(0.0) <= level:
            return 0.0
        most = 2 * freedom * square / level  # Q is at most the sum of squares over s^2
        return math.sqrt(float(brentq(lambda variance: q(variance) - level, 0.0, most)))

    high, low = (solve(float(chdtri(freedom, 0.5 + sign * confidence / 2))) for sign in (1, -1))
    value = math.sqrt(max(0.0, square - sampling))
    return Estimate(value, min(low, value), max(high, value))


# --- what they vary with ---------------------------------------------------------------------------------------


def effects_of(
    round_number: int,
    cases: Sequence[tuple[Mapping[str, str], Sequence[float] | Floats]],
    varied: Sequence[str],
    confidence: float,
) -> Iterator[Effect]:
    """An effect for each varied key; none with too few sessions.

    Args:
        cases: settings of each, and the mean of each of its sessions in that round.
        varied: keys of these settings.
    """
    from scipy.special import fdtrc

    of_cases = [np.asarray(sessions, float) for _, sessions in cases]
    error, freedom = _within_cases(of_cases)
    if freedom < FEWEST_SESSIONS - 1:
        return
    case, means = np.repeat(np.arange(len(cases)), [y.size for y in of_cases]), np.concatenate(of_cases)
    values: dict[tuple[int, ...], list[str]] = {}  # keys that vary together are one
    for key in varied:
        seen = list(dict.fromkeys(settings[key] for settings, _ in cases))
        values.setdefault(tuple(seen.index(settings[key]) for settings, _ in cases), []).append(key)
    columns = {" + ".join(keys): np.eye(len(cases))[np.array(codes)[case]] for codes, keys in values.items()}
    full, rank = _left(means, list(columns.values()))
    for key in columns:
        rest, fewer = _left(means, [column for name, column in columns.items() if name != key])
        own = rank - fewer
        ratio = max(0.0, rest - full) / own / error if own and error else math.nan
        if not ratio < _LARGEST_RATIO:
            yield Effect(key, round_number, NONE)
            continue
        low, high = (noncentrality(ratio, own, freedom, 0.5 + sign * confidence / 2) for sign in (1, -1))
        over, n = max(0.0, own * (ratio - 1)), means.size
        share = Estimate(over / (over + n), low / (low + n), high / (high + n))
        yield Effect(key, round_number, share, float(fdtrc(own, freedom, ratio)))


def _left(means: Floats, columns: Sequence[Floats]) -> tuple[float, int]:
    """The sum of squares that a linear model of these columns and a constant leaves, and its rank."""
    design = np.column_stack([np.ones(means.size), *columns])
    fitted, _, rank, _ = np.linalg.lstsq(design, means, rcond=None)
    return float(np.square(means - design @ fitted).sum()), int(rank)


def noncentrality(ratio: float, own: int, freedom: int, level: float) -> float:
    """That of an F distribution, with these degrees of freedom, of which the ratio is this quantile; 0 if none is."""
    from scipy.optimize import brentq
    from scipy.special import ncfdtr

    if ncfdtr(own, freedom, 0.0, ratio) <= level:
        return 0.0
    top = 10.0 + own * ratio
    while ncfdtr(own, freedom, top, ratio) > level:
        top *= 2
    return float(brentq(lambda centre: ncfdtr(own, freedom, centre, ratio) - level, 0.0, top))


# --- wordings as a sample ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OverWordings:
    """Cases that differ in nothing but the wording of prompts, in one round: a sample of all wordings there might be.

    A wording is one observation here, the mean of its sessions' means.
    """

    case: str
    """Its other settings."""
    round: int
    wordings: int
    mean: Estimate
    """Mean over wordings, with Student's t interval over them."""
    between: Estimate
    """Standard deviation between wordings beyond what different sessions make of it, as in `Components`; NaN with fewer
    than `FEWEST_SESSIONS` wordings, and where it is not known what sessions make of it."""
    difference: Difference | None
    """Mean less that of the first such cases, by the differences within each wording; None of these themselves."""


def over_wordings(
    round_number: int, cases: Sequence[tuple[Mapping[str, str], BySession]], varied: Sequence[str], confidence: float
) -> Iterator[OverWordings]:
    """A row for each of the other settings; none unless all of them were played in the same two wordings or more.

    Args:
        cases: settings of each, and its sessions with a valid guess in that round.
        varied: keys of these settings.
    """
    worded = [key for key in varied if key.rpartition(".")[2] in WORDED or key.startswith("prompts.")]
    rest = [key for key in varied if key not in worded]
    table: dict[str, dict[tuple[str, ...], BySession]] = {}
    for settings, sessions in cases:
        row = table.setdefault(" · ".join(settings[key] for key in rest) or "all", {})
        row[tuple(settings[key] for key in worded)] = sessions
    common = [w for w in next(iter(table.values()), {}) if all(w in row for row in table.values())]
    if len(common) < 2:
        return
    means = {case: np.array([row[w].mean.mean() for w in common]) for case, row in table.items()}
    square, freedom = _within_cases([sessions.mean for _, sessions in cases])

    def sampling(sessions: BySession) -> float:
        """Of the mean of a case, its variance by sampling sessions; in the first round these are participants."""
        if freedom >= FEWEST_SESSIONS - 1:
            return square / sessions.mean.size
        return float(np.square(sessions.error).sum()) / sessions.mean.size**2 if round_number == 1 else math.nan

    first = next(iter(means.values()))
    for case, y in means.items():
        between = NONE
        if y.size >= FEWEST_SESSIONS:
            between = between_sessions([y], [np.array([sampling(table[case][w]) for w in common])], confidence)
        mean, gap = intervals.moments(y), None
        if y is not first:
            gap = intervals.difference(mean, intervals.moments(first), confidence, paired=intervals.moments(y - first))
        yield OverWordings(case, round_number, y.size, mean.interval(confidence), between, gap)


# --- how many sessions it takes ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Power:
    """Sessions of each of two cases that show a difference of their means in one round, as a two-sided test at 5 %."""

    round: int
    difference: float
    sd: float
    """Of sessions' means, as in the pilot."""
    basis: str
    """What that is known from."""
    sessions_80: int
    """For a power of 80 %."""
    sessions_90: int
    cautious: int | None
    """For 80 % if the standard deviation is at the upper end of its 95 % interval; None where that is unknown."""


def power(components: Sequence[Components], difference: float) -> list[Power]:
    """Plans an experiment from a pilot: sessions as large as its own, with as many participants.

    Args:
        components: of the pilot's rounds; one session is enough, though it cannot tell how sessions vary.
        difference: of means, in units of the game, not 0.
    """
    from scipy.special import chdtri

    found = []
    for one in components:
        known = not math.isnan(one.observed)
        sd = one.observed if known else one.sampling
        if math.isnan(sd):
            continue
        basis = f"{one.sessions} sessions" if known else "participants alone: at least"
        high = sd * math.sqrt(one.freedom / float(chdtri(one.freedom, 0.975)))
        needed, surer = (sessions_needed(sd, difference, goal) for goal in (0.8, 0.9))
        cautious = sessions_needed(high, difference, 0.8) if known else None
        found.append(Power(one.round, difference, sd, basis, needed, surer, cautious))
    return found


def sessions_needed(sd: float, difference: float, goal: float) -> int:
    """The fewest observations in each of two groups with which Student's t finds a difference with this power."""
    from scipy.special import nctdtr, stdtrit

    def reached(n: int) -> bool:
        freedom, centre = 2 * n - 2, abs(difference) / sd * math.sqrt(n / 2)
        # That a difference of the other sign is found is next to impossible at such a power, and left out.
        return 1 - float(nctdtr(freedom, centre, stdtrit(freedom, 0.975))) >= goal

    if not sd:
        return 2
    z = intervals.normal(0.95) + intervals.normal(2 * goal - 1)
    n = max(2, math.floor(2 * (z * sd / difference) ** 2))  # the normal approximation, which is never too large
    while n < 1_000_000 and not reached(n):
        n += 1
    return n
