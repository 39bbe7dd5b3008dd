"""The figures of one group in one round, with their intervals: a `GroupStats`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty.analysis import intervals, levels
from pbeauty.analysis.hierarchy import tau_by_mean
from pbeauty.analysis.intervals import CONFIDENCE, NONE, Bounds, Estimate
from pbeauty.game.experiment import Game
from pbeauty.game.records import ReadingRule, Status
from pbeauty.game.scoring import Outcome
from pbeauty.game.theory import equilibrium
from pbeauty.storage.run_reader import Run

EVERYBODY = "all"
BINS = 500
QUARTILES = ("lower_quartile", "median", "upper_quartile")

Floats = NDArray[np.float64]


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


@dataclass(frozen=True, kw_only=True)
class Figures:
    """A round, or a group in it, over its sessions; those without a valid guess of it are left out."""

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
    between: float = math.nan
    """Standard deviation of the sessions' means; NaN of one session."""
    min: float = math.nan
    """Like the maximum over all sessions; quartiles and median are means of the sessions'."""
    max: float = math.nan
    lower_quartile: float = math.nan
    median: float = math.nan
    upper_quartile: float = math.nan
    target: float = math.nan
    """Mean of the sessions' targets."""
    targets: Bounds | None = None
    """From the least target to the greatest; None in a run of one session."""
    n_winners: int | None = None
    """Players who won, in all sessions; of a group, those who belong to it, and None where groups play and these are no
    such groups."""


def over_sessions(outcome: Outcome, confidence: float = CONFIDENCE, *, sample: bool = True) -> Figures:
    """The figures of a round over its sessions.

    Args:
        outcome: of each session, as `Run.outcome` gives it.
        confidence: of the mean's interval, in (0, 1).
        sample: whether it is made of participants' guesses; not so where groups play.
    """
    there = outcome.n_valid > 0
    n, mean, std, target = (getattr(outcome, name)[there] for name in ("n_valid", "mean", "std", "target"))
    if not n.size:
        return Figures()
    between, targets = math.nan, None
    if there.size == 1:
        sd = float(std[0])
        centre = intervals.mean(float(mean[0]), sd, int(n[0]), confidence) if sample else Estimate(float(mean[0]))
    else:
        value, error, count = intervals.sessions(mean)
        centre, between = intervals.student(value, error, count - 1, confidence), error * math.sqrt(count)
        targets = Bounds(float(target.min()), float(target.max()))
        weights, freedom = (n, n - 1) if sample else (np.ones(n.size), np.ones(n.size))
        sd = math.sqrt(float(weights @ np.square(std)) / freedom.sum()) if freedom.any() else math.nan
    quartiles = {name: float(getattr(outcome, name)[there].mean()) for name in QUARTILES}
    return Figures(
        sessions=n.size, n_valid=int(n.sum()), mean=centre, sd=Estimate(sd), between=between,
        target=float(target.mean()), targets=targets,
        min=float(outcome.min[there].min()), max=float(outcome.max[there].max()),
        n_winners=int(outcome.n_winners.sum()), **quartiles,
    )  # fmt: skip


@dataclass(frozen=True)
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
    """Participants."""
    n_valid: int
    """Those of them with a valid guess; where it is 0, all figures of guesses are NaN or None."""
    statuses: dict[str, Estimate]
    """Shares of all participants, by status."""
    unusable: Estimate
    """Share of all participants without a valid guess."""
    mean: Estimate = NONE
    bounds: Bounds | None = None
    """Of the mean, whatever the unusable replies would have said; None without any, and where groups play."""
    sd: Estimate = NONE
    """Standard deviation, divisor n as in `run.h5`."""
    min: float = math.nan
    max: float = math.nan
    lower_quartile: float = math.nan
    median: float = math.nan
    upper_quartile: float = math.nan
    mode: float = math.nan
    """The most frequent guess, after rounding to a hundredth of the range."""
    mode_share: float = math.nan
    target: float = math.nan
    """The game's own, which is the same for all groups of a round."""
    n_winners: int | None = None
    """Players of the game who won and belong to the group; None where groups play, and these are no such groups."""
    convergence: float = math.nan
    """Distance of the mean to the equilibrium over that of the round before: 1 stands still, 0 is there, more than 1
    moves away, less than 0 went past it."""
    levels: dict[str, Estimate] = field(default_factory=dict)
    """Shares by level (`pbeauty.analysis.levels`); empty where all levels guess the same."""
    tau: Estimate = NONE
    """The cognitive hierarchy's tau by the mean, or `hierarchy.ABOVE` or `hierarchy.BELOW`."""
    counted: Binned | None = None
    """The distribution itself, in bins."""

    @property
    def moments(self) -> tuple[float, float, float]:
        """Mean, its standard error, and n: what `intervals.difference` takes of independent participants.

        The error is NaN of a single guess, and of the groups' numbers where groups play, which are no sample.
        """
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
        self.game, self.outcome = run.experiment.game, _first(run.outcome(index))
        self.as_groups = self.game.players == "groups"
        self.numbers = dict(zip(run.attributes["group"], run.group_numbers(index)[0].tolist(), strict=True))
        self.equilibrium = equilibrium(self.game)
        self.references = levels.references(run, index)
        self.guesses, self.status = run.guesses[index], run.status[index]
        self.guesses[self.status > Status.RETRIED] = np.nan
        self.reading = run.read("reading", index) if "reading" in run.file["rounds"] else np.empty(0, np.uint8)
        whole = levels.mostly_whole(self.guesses)
        self.codes = levels.assign(self.guesses, self.game, self.references, index, whole=whole)

    def stats(self, by: str, label: str, members: Any, before: GroupStats | None) -> GroupStats:
        """One group's figures.

        Args:
            by: what groups are made by.
            label: the group.
            members: what selects its participants from an array.
            before: the group's figures of the round before.
        """
        confidence, guesses = self.confidence, self.guesses[members]
        n = guesses.size
        counts = np.bincount(self.status[members], minlength=len(Status))
        valid = np.sort(guesses[~np.isnan(guesses)])
        known: dict[str, Any] = {
            "round": self.index + 1, "by": by, "label": label, "n": n, "n_valid": valid.size,
            "statuses": {s.name.lower(): intervals.share(int(counts[s]), n, confidence) for s in Status},
            "unusable": intervals.share(n - valid.size, n, confidence),
        }  # fmt: skip
        if not valid.size:
            return GroupStats(**known)
        own = self.outcome if by == EVERYBODY else _outcome(valid, self.outcome)
        averaged = by == EVERYBODY and self.as_groups  # over the groups' numbers, which are no sample of anything
        mean = Estimate(own.mean) if averaged else intervals.mean(own.mean, own.std, valid.size, confidence)
        past = math.nan if before is None else before.mean.value - self.equilibrium
        mode, mode_share = self._mode(valid)
        ends = (self.game.low, self.game.high)
        return GroupStats(
            **known,
            mean=mean,
            bounds=None if averaged or n == valid.size else intervals.bounds(
                own.mean, valid.size, n - valid.size, ends
            ),
            sd=Estimate(own.std) if averaged else intervals.deviation(valid, own.std, confidence),
            **{name: getattr(own, name) for name in ("min", "max", "lower_quartile", "median", "upper_quartile")},
            mode=mode,
            mode_share=mode_share,
            target=self.outcome.target,
            n_winners=self._winners(by, label, valid),
            convergence=(own.mean - self.equilibrium) / past if past else math.nan,
            levels=self._levels(self.codes[members], valid.size),
            tau=tau_by_mean(self.game, mean, float(self.references[0])),
            counted=binned(valid, self.game),
        )  # fmt: skip

    def readings(self) -> Readings | None:
        """How replies were read; None where no language model gave a guess."""
        if not self.reading.any():
            return None
        read = ~np.isnan(self.guesses) & (self.reading != ReadingRule.NONE)
        rules, guesses = self.reading[read], self.guesses[read]
        counts = np.bincount(rules, minlength=len(ReadingRule))
        strict = guesses[np.isin(rules, [rule for rule in ReadingRule if rule.strict])]
        mean, sd = (float(strict.mean()), float(strict.std())) if strict.size else (math.nan, math.nan)
        return Readings(
            self.index + 1,
            {rule.name.lower().replace("_", " "): int(counts[rule]) / rules.size for rule in ReadingRule if rule},
            float(guesses.mean()),
            intervals.mean(mean, sd, strict.size, self.confidence),
        )

    def _wins(self) -> Callable[[Floats], NDArray[np.bool_]]:
        """Which numbers, float64[number], win: by the game's own rule, as `game/scoring.py` has it."""
        nearest = abs(self.outcome.winning_guess - self.outcome.target)
        within = nearest if self.game.tolerance is None else self.game.tolerance
        return lambda numbers: np.abs(numbers - self.outcome.target) <= within

    def _winners(self, by: str, label: str, valid: Floats) -> int | None:
        if by == EVERYBODY:
            return self.outcome.n_winners
        if not self.as_groups:
            return int(np.count_nonzero(self._wins()(valid)))
        return int(self._wins()(np.array(self.numbers[label]))) if by == "group" else None

    def _mode(self, ordered: Floats) -> tuple[float, float]:
        width = (self.game.high - self.game.low) / 100
        values = np.linspace(self.game.low, self.game.high, 101)
        places = np.searchsorted(ordered, values[1:] - width / 2)
        counts = np.diff(places, prepend=0, append=ordered.size)
        return float(values[counts.argmax()]), int(counts.max()) / ordered.size

    def _levels(self, codes: NDArray[np.uint8], n_valid: int) -> dict[str, Estimate]:
        if math.isnan(self.equilibrium):
            return {}
        counts = np.bincount(codes, minlength=len(levels.LABELS))
        return {
            label: intervals.share(int(count), n_valid, self.confidence)
            for label, count in zip(levels.LABELS, counts, strict=False)
        }


def _first(outcome: Outcome) -> Any:
    """The first session's."""
    return replace(outcome, **{name: value[0].item() for name, value in vars(outcome).items()})


def _outcome(ordered: Floats, of_round: Outcome) -> Outcome:
    """The same figures of a part of the guesses, float64[guess], ascending."""
    lower, median, upper = (float(value) for value in np.quantile(ordered, (0.25, 0.5, 0.75)))
    # The mean of equal numbers can miss them by rounding, and would then have a spread.
    mean = float(ordered.mean()) if ordered[0] < ordered[-1] else float(ordered[0])
    return replace(
        of_round, mean=mean, median=median, std=float(np.sqrt(np.mean(np.square(ordered - mean)))),
        lower_quartile=lower, upper_quartile=upper, min=float(ordered[0]), max=float(ordered[-1]),
        n_valid=ordered.size, n_winners=0,
    )  # fmt: skip
