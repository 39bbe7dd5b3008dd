"""The figures of one group in one round, with their intervals: a `GroupStats`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty.analysis import intervals, levels
from pbeauty.analysis.hierarchy import tau_by_mean
from pbeauty.analysis.intervals import NONE, Bounds, Counts, Estimate
from pbeauty.game.experiment import Game
from pbeauty.game.records import Floats, ReadingRule, Status
from pbeauty.game.scoring import Outcome, outcome_of
from pbeauty.game.theory import equilibrium
from pbeauty.storage.run_reader import Run

EVERYBODY = "all"
BINS = 500
QUARTILES = ("lower_quartile", "median", "upper_quartile")


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

    def where(self, which: Any) -> BySession:
        """Some of the sessions: bool[session]."""
        return BySession(*(values[which] for values in vars(self).values()))

    @property
    def heard(self) -> BySession:
        """Those with a valid guess."""
        return self.where(self.n_valid > 0)

    def limits(self, game: Game) -> Bounds:
        """Of the mean of the sessions' means, whatever the unusable replies would have said (Manski 1989)."""
        asked = self.where(self.n > 0)
        valid, missing = np.where(asked.n_valid, asked.n_valid * asked.mean, 0), asked.n - asked.n_valid
        low, high = (float(np.mean((valid + missing * end) / asked.n)) for end in (game.low, game.high))
        return Bounds(low, high)


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
    def moments(self) -> tuple[float, float, float]:
        """Mean, its standard error, and n: what `intervals.difference` takes.

        n are guesses in a run of one session and sessions in one of several. The error is NaN of a single one, and of
        the groups' numbers of one session where groups play, which are no sample.
        """
        if self.means.size > 1:
            return intervals.sessions(self.means[~np.isnan(self.means)])
        known = not math.isnan(self.mean.low)
        return self.mean.value, self.sd.value / math.sqrt(self.n_valid - 1) if known else math.nan, float(self.n_valid)

    @property
    def limits(self) -> Bounds:
        """`bounds`, or the mean itself where no reply is unusable."""
        return self.bounds or Bounds(self.mean.value, self.mean.value)


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
        self.as_groups = self.game.players == "groups"
        self.everybody = _over_sessions(self.outcome, confidence, sample=not self.as_groups)
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
        averaged = by == EVERYBODY and self.as_groups  # over the groups' numbers, which are no sample of anything
        everybody = by == EVERYBODY
        own = self.outcome if everybody else outcome_of(self.game, guesses, n_valid, n_valid)
        won = int(own.n_winners.sum()) if everybody else self._winners(by, label, guesses, session)
        told = np.bincount(self.told[members][valid] if len(self.references) > 1 else self.told)
        reference = (told / told.sum()) @ self.references[: told.size] if told.any() else self.references[0]
        figures = _over_sessions(own, self.confidence, sample=not averaged)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where((n_valid > 1) & (not averaged), own.std / np.sqrt(n_valid - 1), np.nan)
        by_session = BySession(n, n_valid, own.mean, own.std, error, self.outcome.target, reference)
        known: dict[str, Any] = {
            "round": self.index + 1, "by": by, "label": label, "n": int(n.sum()),
            "statuses": {Status(s).name.lower(): self._share(column, n) for s, column in enumerate(statuses.T)},
            "unusable": self._share(n - n_valid, n),
            "means": own.mean, "by_session": by_session if by == EVERYBODY else None,
        }  # fmt: skip
        if not guesses.size:
            return GroupStats(**known)
        guesses.sort()
        if n.size == 1 and not averaged:
            figures["sd"] = intervals.deviation(guesses, figures["sd"].value, self.confidence)
        past = math.nan if before is None else before.mean.value - self.equilibrium
        mode, mode_share = self._mode(guesses)
        heard = by_session.heard
        return GroupStats(
            **known,
            **figures | {name: value for name, value in self.everybody.items() if name.startswith("target")},
            n_winners=won,
            bounds=None if averaged or (n == n_valid).all() else by_session.limits(self.game),
            mode=mode,
            mode_share=mode_share,
            convergence=(figures["mean"].value - self.equilibrium) / past if past else math.nan,
            levels=self._levels(members, n_valid),
            tau=tau_by_mean(self.game, figures["mean"], heard.reference, heard.mean, self.confidence),
            counted=binned(guesses, self.game),
        )

    def readings(self) -> Readings | None:
        """How replies were read; None where no language model gave a guess."""
        if not self.reading.any():
            return None
        read = ~np.isnan(self.guesses) & (self.reading != ReadingRule.NONE)
        counts = np.bincount(self.reading[read], minlength=len(ReadingRule))
        strict = read & np.isin(self.reading, [rule for rule in ReadingRule if rule.strict])
        return Readings(
            self.index + 1,
            {
                rule.name.lower().replace("_", " "): int(counts[rule]) / int(counts.sum())
                for rule in ReadingRule
                if rule
            },
            self._mean(read).value,
            self._mean(strict),
        )

    def _mean(self, which: NDArray[np.bool_]) -> Estimate:
        """Of some valid guesses, bool[participant]."""
        n = np.bincount(self.session[which], minlength=self.outcome.mean.size)
        return _over_sessions(outcome_of(self.game, self.guesses[which], n, n), self.confidence).get("mean", NONE)

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
        if not self.as_groups:
            return int(np.count_nonzero(np.abs(guesses - target[session]) <= within[session]))
        return int(np.count_nonzero(np.abs(self.numbers[label] - target) <= within)) if by == "group" else None

    def _mode(self, ordered: Floats) -> tuple[float, float]:
        width = (self.game.high - self.game.low) / 100
        values = np.linspace(self.game.low, self.game.high, 101)
        places = np.searchsorted(ordered, values[1:] - width / 2)
        counts = np.diff(places, prepend=0, append=ordered.size)
        return float(values[counts.argmax()]), int(counts.max()) / ordered.size

    def _levels(self, members: Any, n_valid: Counts) -> dict[str, Estimate]:
        if math.isnan(self.equilibrium):
            return {}
        counts = self._count(self.session[members], self.codes[members], len(levels.LABELS))
        return {label: self._share(column, n_valid) for label, column in zip(levels.LABELS, counts.T, strict=True)}


def _over_sessions(outcome: Outcome, confidence: float, *, sample: bool = True) -> dict[str, Any]:
    """The fields of `GroupStats` that are made of the figures of each session.

    Args:
        outcome: by session.
        confidence: of the mean's interval, in (0, 1).
        sample: whether it is made of participants' guesses; not so where groups play.
    """
    there = outcome.n_valid > 0
    n, mean, std, target = (getattr(outcome, name)[there] for name in ("n_valid", "mean", "std", "target"))
    if not n.size:
        return {}
    found: dict[str, Any] = {"sessions": n.size, "n_valid": int(n.sum()), "target": float(target.mean())}
    found |= {name: float(getattr(outcome, name)[there].mean()) for name in QUARTILES}
    found |= {"min": float(outcome.min[there].min()), "max": float(outcome.max[there].max())}
    if there.size == 1:
        value, sd = float(mean[0]), float(std[0])
        centre = intervals.mean(value, sd, int(n[0]), confidence) if sample else Estimate(value)
        return found | {"mean": centre, "sd": Estimate(sd)}
    weights, freedom = (n, n - 1) if sample else (np.ones(n.size), np.ones(n.size))
    sd = math.sqrt(float(weights @ np.square(std)) / freedom.sum()) if freedom.any() else math.nan
    return found | {
        "mean": intervals.over(mean, confidence),
        "sd": Estimate(sd),
        "sd_of_means": float(mean.std(ddof=1)) if mean.size > 1 else math.nan,
        "targets": Bounds(float(target.min()), float(target.max())),
    }
