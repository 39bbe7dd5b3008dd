"""The figures of one group in one round, with their intervals: a `GroupStats`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty.analysis import intervals, levels
from pbeauty.analysis.hierarchy import tau_by_mean
from pbeauty.analysis.intervals import NONE, Bounds, Counts, Estimate, Moments
from pbeauty.game.experiment import Game
from pbeauty.game.records import Floats, ReadingRule, Status
from pbeauty.game.scoring import Outcome, outcome_of
from pbeauty.game.theory import equilibrium
from pbeauty.storage.run_reader import Run

EVERYBODY = "all"
BINS = 500


@dataclass(frozen=True)
class Binned:
    """Guesses counted in bins."""

    edges: Floats
    """float64[bin + 1]; bins are a 500th of the range wide and centred on their multiples, so that none splits at an
    integer; the first and the last end with the range."""
    counts: NDArray[np.int64]
    """int64[bin]"""


def binned(ordered: Floats, game: Game) -> Binned:
    """Counts sorted guesses, float64[guess], all in [low, high]."""
    width = (game.high - game.low) / BINS
    edges = np.linspace(game.low - width / 2, game.high + width / 2, BINS + 2)
    edges[0], edges[-1] = game.low, game.high
    places = np.searchsorted(ordered, edges[1:-1])
    return Binned(edges, np.diff(places, prepend=0, append=ordered.size))


@dataclass(frozen=True)
class BySession:
    """A group in one round, in each session of a run: arrays over sessions, in the game's units."""

    n: Counts
    """Its participants; 0 where the session had ended before."""
    n_valid: Counts
    """Those of them with a valid guess; where it is 0, the next three are NaN."""
    mean: Floats
    sd: Floats
    """Divisor n, as in run.h5."""
    error: Floats
    """Standard error of the mean by sampling participants; NaN of a single guess, and of groups' numbers."""
    target: Floats
    """The session's own, for all groups."""
    reference: Floats
    """Where level 0 is (`levels.references`), on average over members who are told different things."""

    def _where(self, which: NDArray[np.bool_]) -> BySession:
        return BySession(*(values[which] for values in vars(self).values()))

    @property
    def heard(self) -> BySession:
        """The sessions with a valid guess."""
        return self._where(self.n_valid > 0)

    def moments(self, game: Game, *, of_groups: bool) -> Moments:
        """Of the mean of the sessions' means: over sessions in a run of several, else over participants.

        With bounds for whatever the unusable replies would have said (Manski 1989), unless the means are `of_groups`,
        which have a number whatever becomes of some replies. One session at least must have a valid guess.
        """
        asked, heard, bounds = self._where(self.n > 0), self.heard, None
        missing = asked.n - asked.n_valid
        if missing.any() and not of_groups:
            valid = np.where(asked.n_valid, asked.n_valid * asked.mean, 0)
            bounds = Bounds(*(float(np.mean((valid + missing * end) / asked.n)) for end in (game.low, game.high)))
        if self.n.size > 1:
            return intervals.moments(heard.mean)._replace(bounds=bounds)
        return Moments(float(heard.mean[0]), float(heard.error[0]), int(heard.n_valid[0]), bounds)


@dataclass(frozen=True, kw_only=True)
class GroupStats:
    """One group in one round. Guesses are in units of the game; shares are of valid guesses unless said otherwise.

    Those of everybody are the round's own, out of run.h5; where groups play, they are of the groups' numbers.
    """

    round: int
    """From 1."""
    by: str
    """What groups are made by: `all`, `group`, `model`, or an attribute of personas."""
    label: str
    """Which of them this is; `all` for everybody."""
    n: int
    """Participants who were asked: not those of sessions that had ended."""
    statuses: dict[str, Estimate]
    """Shares of those asked, by status; intervals here and of other shares are by session where there are several."""
    unusable: Estimate
    """Share of those asked without a valid guess."""
    means: Floats
    """Of its guesses in each session of the run, float64[session], NaN where there are none."""
    by_session: BySession | None
    """More of each session; None of a part of the participants."""
    sessions: int = 0
    """Those with a valid guess."""
    n_valid: int = 0
    """Valid guesses; where there are none, all figures of guesses are NaN or None."""
    mean: Estimate = NONE
    """Mean of the sessions' means, with Student's t interval over sessions; in a run of one session over its guesses,
    and none where groups play, whose numbers are no sample."""
    error: float = math.nan
    """Its standard error; NaN where it has no interval."""
    sd: Estimate = NONE
    """Standard deviation within sessions. Of one session with divisor n, as in `run.h5`; of several, the root of their
    mean variance, weighted by degrees of freedom."""
    sd_of_means: float = math.nan
    """Standard deviation of the sessions' means; NaN of one session."""
    min: float = math.nan
    """Like the maximum over all sessions; quartiles and median are means of the sessions'."""
    max: float = math.nan
    lower_quartile: float = math.nan
    median: float = math.nan
    upper_quartile: float = math.nan
    target: float = math.nan
    """Mean of the sessions' targets, which are the same for all groups."""
    targets: Bounds | None = None
    """From the least target to the greatest; None in a run of one session."""
    n_winners: int | None = None
    """Players who won, in all sessions; of a group, those who belong to it, and None where groups play and these are no
    such groups."""
    bounds: Bounds | None = None
    """Of the mean, whatever the unusable replies would have said; None without any, and where groups play."""
    mode: float = math.nan
    """The most frequent guess, after rounding to a hundredth of the range."""
    mode_share: float = math.nan
    convergence: float = math.nan
    """Distance of the mean to the equilibrium over that of the round before: 1 stands still, 0 is there, more than 1
    moves away, less than 0 went past it."""
    levels: dict[str, Estimate] = field(default_factory=dict)
    """Shares by level (`pbeauty.analysis.levels`), from the announcement of each session; empty where all levels guess
    the same."""
    tau: Estimate = NONE
    """The cognitive hierarchy's tau by the mean, or `hierarchy.ABOVE` or `hierarchy.BELOW`."""
    counted: Binned | None = None
    """The distribution itself, in bins, over all sessions."""

    @property
    def moments(self) -> Moments:
        """What `intervals.difference` takes of the mean."""
        return Moments(self.mean.value, self.error, self.sessions if self.means.size > 1 else self.n_valid, self.bounds)


@dataclass(frozen=True)
class Readings:
    """How the guesses of language models were read out of their replies in one round."""

    round: int
    shares: dict[str, float]
    """Of these guesses, by `ReadingRule`."""
    mean: float
    """Of all of them."""
    strict: Estimate
    """Mean of those that leave nothing to interpret (`ReadingRule.strict`)."""


class Round:
    """What all groups of one round have in common."""

    def __init__(self, run: Run, index: int, confidence: float) -> None:
        self.index, self.confidence = index, confidence
        self.game, self.outcome = run.experiment.game, run.outcome(index)
        numbers = run.read("group_number", index)
        self.numbers = {name: numbers[:, place] for place, name in enumerate(run.attributes["group"])}
        self.equilibrium = equilibrium(self.game)
        self.session = np.repeat(np.arange(len(numbers), dtype=np.int32), run.experiment.session_size)
        self.guesses, self.status = run.answers(index)
        self.reading = run.read("reading", index) if "reading" in run.file["rounds"] else np.empty(0, np.uint8)
        self.codes, self.references, self.told = levels.codes_of(run, index, self.guesses)

    def stats(self, by: str, label: str, members: Any, before: GroupStats | None) -> GroupStats:
        """One group's figures.

        Args:
            by: what groups are made by.
            label: the group.
            members: what selects its participants from an array.
            before: the group's figures of the round before.
        """
        guesses, status, session = (values[members] for values in (self.guesses, self.status, self.session))
        statuses = self._count(session, status, Status.NOT_ASKED)
        n, valid = statuses.sum(axis=1), ~np.isnan(guesses)
        guesses, session = guesses[valid], session[valid]
        n_valid = np.bincount(session, minlength=n.size)
        everybody = by == EVERYBODY
        averaged = everybody and self.game.players == "groups"  # over numbers that are no sample of anything
        own = self.outcome if everybody else outcome_of(self.game, guesses, n_valid, n_valid)
        told = np.bincount(self.told[members][valid] if len(self.references) > 1 else self.told)
        reference = (told / told.sum()) @ self.references[: told.size] if told.any() else self.references[0]
        by_session = _by_session(own, n, self.outcome.target, reference, sample=not averaged)
        known: dict[str, Any] = {
            "round": self.index + 1, "by": by, "label": label, "n": int(n.sum()),
            "statuses": {Status(s).name.lower(): self._share(column, n) for s, column in enumerate(statuses.T)},
            "unusable": self._share(n - n_valid, n),
            "means": own.mean, "by_session": by_session if everybody else None,
        }  # fmt: skip
        if not guesses.size:
            return GroupStats(**known)
        won = int(own.n_winners.sum()) if everybody else self._winners(by, label, guesses, session)
        guesses.sort()
        heard, moments = by_session.heard, by_session.moments(self.game, of_groups=averaged)
        several, mean = n.size > 1, moments.interval(self.confidence)
        sd = Estimate(_pooled(heard, averaged=averaged) if several else float(own.std[0]))
        if not several and not averaged:
            sd = intervals.deviation(guesses, sd.value, self.confidence)
        targets = self.outcome.target[~np.isnan(self.outcome.target)]
        past = math.nan if before is None else before.mean.value - self.equilibrium
        counted = binned(guesses, self.game)
        # Five bins lie around each hundredth of the range, and at its ends three.
        by_hundredth = np.add.reduceat(counted.counts, np.maximum(np.arange(0, BINS + 1, 5) - 2, 0))
        return GroupStats(
            **known,
            sessions=heard.n.size,
            n_valid=guesses.size,
            mean=mean,
            error=moments.error,
            sd=sd,
            sd_of_means=float(heard.mean.std(ddof=1)) if heard.n.size > 1 else math.nan,
            min=float(np.nanmin(own.min)),
            max=float(np.nanmax(own.max)),
            lower_quartile=float(np.nanmean(own.lower_quartile)),
            median=float(np.nanmean(own.median)),
            upper_quartile=float(np.nanmean(own.upper_quartile)),
            target=float(targets.mean()),
            targets=Bounds(float(targets.min()), float(targets.max())) if several else None,
            n_winners=won,
            bounds=moments.bounds,
            mode=self.game.low + (self.game.high - self.game.low) * int(by_hundredth.argmax()) / 100,
            mode_share=int(by_hundredth.max()) / guesses.size,
            convergence=(mean.value - self.equilibrium) / past if past else math.nan,
            levels=self._levels(members, n_valid),
            tau=tau_by_mean(self.game, mean, heard.reference, heard.mean, self.confidence),
            counted=counted,
        )

    def readings(self) -> Readings | None:
        """How replies were read; None where no language model gave a guess."""
        if not self.reading.any():
            return None
        read = ~np.isnan(self.guesses) & (self.reading != ReadingRule.NONE)
        counts = np.bincount(self.reading[read], minlength=len(ReadingRule))
        strict = read & np.isin(self.reading, [rule for rule in ReadingRule if rule.strict])
        shares = {r.name.lower().replace("_", " "): float(counts[r] / counts.sum()) for r in ReadingRule if r}
        return Readings(self.index + 1, shares, self._mean(read).value, self._mean(strict))

    def _mean(self, which: NDArray[np.bool_]) -> Estimate:
        """Of some valid guesses, bool[participant]."""
        if not which.any():
            return NONE
        n = np.bincount(self.session[which], minlength=self.outcome.mean.size)
        own = outcome_of(self.game, self.guesses[which], n, n)
        of_some = _by_session(own, n, own.target, own.target, sample=True)
        return of_some.moments(self.game, of_groups=False).interval(self.confidence)

    def _count(self, session: NDArray[np.int32], codes: NDArray[np.uint8], kinds: int) -> Counts:
        """How many of the codes below `kinds` there are, int64[session, code]."""
        some = codes < kinds
        counts = np.bincount(session[some] * kinds + codes[some], minlength=self.outcome.mean.size * kinds)
        return counts.reshape(-1, kinds)

    def _share(self, counts: Counts, n: Counts) -> Estimate:
        """A share of `n`, both int64[session]."""
        if n.size == 1:
            return intervals.share(int(counts[0]), int(n[0]), self.confidence)
        return intervals.share_by_session(counts, n, self.confidence)

    def _winners(self, by: str, label: str, guesses: Floats, session: NDArray[np.int32]) -> int | None:
        """Winners of a group, by the game's own rule, as `game/scoring.py` has it."""
        target = self.outcome.target
        nearest = np.abs(self.outcome.winning_guess - target)
        within = nearest if self.game.tolerance is None else np.full(target.size, self.game.tolerance)
        if self.game.players == "individuals":
            return int(np.count_nonzero(np.abs(guesses - target[session]) <= within[session]))
        return int(np.count_nonzero(np.abs(self.numbers[label] - target) <= within)) if by == "group" else None

    def _levels(self, members: Any, n_valid: Counts) -> dict[str, Estimate]:
        if math.isnan(self.equilibrium):
            return {}
        counts = self._count(self.session[members], self.codes[members], len(levels.LABELS))
        return {label: self._share(column, n_valid) for label, column in zip(levels.LABELS, counts.T, strict=True)}


def _by_session(outcome: Outcome, n: Counts, target: Floats, reference: Floats, *, sample: bool) -> BySession:
    """The figures of each session, of `n` participants; `sample` says whether its guesses are one of participants."""
    n_valid, sd = outcome.n_valid, outcome.std
    error = np.where(sample & (n_valid > 1), sd / np.sqrt(np.maximum(n_valid - 1, 1)), np.nan)
    return BySession(n, n_valid, outcome.mean, sd, error, target, reference)


def _pooled(sessions: BySession, *, averaged: bool) -> float:
    """The standard deviation within sessions."""
    weights = np.ones(sessions.n.size) if averaged else sessions.n_valid
    freedom = weights.sum() - (0 if averaged else weights.size)
    return math.sqrt(float(weights @ np.square(sessions.sd)) / freedom) if freedom else math.nan
