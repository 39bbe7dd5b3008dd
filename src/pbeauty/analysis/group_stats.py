"""The figures of one group in one round, with their intervals: a `GroupStats`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty.analysis import intervals, levels
from pbeauty.analysis.hierarchy import tau_by_mean
from pbeauty.analysis.intervals import NONE, Bounds, Estimate
from pbeauty.game.experiment import Game
from pbeauty.game.randomness import seeds
from pbeauty.game.rules import Status
from pbeauty.game.theory import equilibrium
from pbeauty.storage.run_reader import Run

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BINS = 500

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


@dataclass(frozen=True)
class GroupStats:
    """One group in one round. Guesses are in units of the game; shares are of valid guesses unless said otherwise."""

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
    sd: Estimate = NONE
    """Divisor n, as in `run.h5`."""
    min: float = math.nan
    max: float = math.nan
    quantiles: dict[float, Estimate] = field(default_factory=dict)
    mode: Estimate = NONE
    """The most frequent guess, after rounding to a hundredth of the range."""
    mode_share: Estimate = NONE
    mean_bounds: Bounds | None = None
    """Of the mean, under the worst treatments of missing guesses."""
    target: Estimate = NONE
    """offset + multiplier x this group's aggregate; of `all`, that is the game's own target."""
    n_winners: int = 0
    """Winners of the game who belong to the group."""
    distance: Estimate = NONE
    """Mean less equilibrium."""
    below_target: Estimate = NONE
    """Share below the game's target of the round before."""
    convergence: Estimate = NONE
    """Distance over that of the round before: 1 stands still, 0 is there, more than 1 moves away."""
    rate: Estimate = NONE
    """The same per round since the first: the geometric mean."""
    levels: dict[str, Estimate] = field(default_factory=dict)
    """Shares by level (`pbeauty.analysis.levels`); empty where all levels guess the same."""
    tau_mean: Estimate = NONE
    """The cognitive hierarchy's tau, by the mean."""
    counted: Binned | None = None
    """The distribution itself, in bins."""

    @property
    def median(self) -> Estimate:
        """The 0.5 quantile."""
        return self.quantiles.get(0.5, NONE)


class Round:
    """What all cells of one round have in common."""

    def __init__(self, run: Run, index: int, confidence: float) -> None:
        self.index, self.confidence = index, confidence
        self.seed = run.experiment.seed
        self.game = run.experiment.game
        self.ends = (self.game.low, self.game.high)
        self.equilibrium = equilibrium(self.game)
        self.outcome = run.outcome(index)
        self.last_target = run.outcome(index - 1).target if index else math.nan
        self.reference = levels.reference(run, index)

    def cell(
        self,
        by: str,
        label: str,
        guesses: Floats,
        status: NDArray[np.uint8],
        before: Floats | None,
        first: GroupStats | None,
    ) -> GroupStats:
        """One group's figures.

        Args:
            by: what groups are made by.
            label: the group.
            guesses: float64[member], NaN where none.
            status: uint8[member].
            before: the same members' guesses in the round before.
            first: the group's cell of the first round.
        """
        game, confidence, n = self.game, self.confidence, guesses.size
        counts = np.bincount(status, minlength=len(Status))
        statuses = {s.name.lower(): intervals.share(int(counts[s]), n, confidence) for s in Status}
        valid = np.sort(guesses[~np.isnan(guesses)])
        unusable = intervals.share(n - valid.size, n, confidence)
        head: dict[str, Any] = {"round": self.index + 1, "by": by, "label": label, "n": n, "n_valid": valid.size}
        if not valid.size:
            return GroupStats(**head, statuses=statuses, unusable=unusable)
        # The mean of equal numbers can miss them by rounding, and would then have a spread.
        centre = float(valid.mean()) if valid[0] < valid[-1] else float(valid[0])
        sd = intervals.deviation(valid, centre, confidence)
        mean = intervals.mean(centre, sd.value, valid.size, confidence)
        quantiles = {q: intervals.quantile(valid, q, self.ends, confidence) for q in QUANTILES}
        aggregate = mean if game.aggregate == "mean" else quantiles[0.5]
        mode, mode_share = self._mode(valid, f"{by}/{label}")
        distance = mean.moved(1, -self.equilibrium) if not math.isnan(self.equilibrium) else NONE
        convergence, rate = self._convergence(guesses, before, distance, sd.value, first)
        nearest = abs(self.outcome.winning_guess - self.outcome.target)
        return GroupStats(
            **head,
            statuses=statuses,
            unusable=unusable,
            mean=mean,
            sd=sd,
            min=float(valid[0]),
            max=float(valid[-1]),
            quantiles=quantiles,
            mode=mode,
            mode_share=mode_share,
            mean_bounds=intervals.worst_cases(centre, sd.value, valid.size, n - valid.size, self.ends, confidence),
            target=aggregate.moved(game.p, game.offset),
            n_winners=int(np.count_nonzero(np.abs(valid - self.outcome.target) == nearest)),
            distance=distance,
            below_target=(
                intervals.share(int(np.searchsorted(valid, self.last_target)), valid.size, confidence)
                if self.index
                else NONE
            ),
            convergence=convergence,
            rate=rate,
            counted=binned(valid, game),
            **self._levels(valid, mean),
        )

    def _generator(self, purpose: str, cell: str) -> np.random.Generator:
        key = seeds(self.seed, f"analysis/{purpose}/{cell}", self.index, 0, 1)
        return np.random.default_rng(int(key[0]))

    def _mode(self, ordered: Floats, cell: str) -> tuple[Estimate, Estimate]:
        width = (self.game.high - self.game.low) / 100
        values = np.linspace(self.game.low, self.game.high, 101)
        places = np.searchsorted(ordered, values[1:] - width / 2)
        counts = np.diff(places, prepend=0, append=ordered.size)
        found = intervals.mode(counts, values, self._generator("mode", cell), self.confidence)
        return found, intervals.share(int(counts.max()), ordered.size, self.confidence)

    def _convergence(
        self, guesses: Floats, before: Floats | None, distance: Estimate, sd: float, first: GroupStats | None
    ) -> tuple[Estimate, Estimate]:
        """Ratio to the last round's distance, and per round since the first; intervals by the delta method.

        The variance of log(d / d0) is that of the mean of (x / d - x0 / d0) over participants who guess in both rounds;
        since the first, rounds count as independent, which is conservative where guesses persist.
        """
        if before is None or first is None or math.isnan(distance.value):
            return NONE, NONE
        both = ~(np.isnan(guesses) | np.isnan(before))
        earlier = before[~np.isnan(before)]
        last = float(earlier.mean()) - self.equilibrium if earlier.size else math.nan
        convergence = NONE
        if distance.value * last > 0:
            paired = guesses[both] / distance.value - before[both] / last
            error = float(paired.std()) / math.sqrt(paired.size - 1) if paired.size > 1 else math.nan
            convergence = self._ratio(distance.value / last, error)
        rate, start = NONE, first.distance.value
        if distance.value * start > 0:
            n_valid = int(np.count_nonzero(~np.isnan(guesses)))
            parts = [(sd, distance.value, n_valid), (first.sd.value, start, first.n_valid)]
            errors = [spread / abs(gap) / math.sqrt(n - 1) if n > 1 else math.nan for spread, gap, n in parts]
            rate = self._ratio((distance.value / start) ** (1 / self.index), math.hypot(*errors) / self.index)
        return convergence, rate

    def _ratio(self, value: float, error: float) -> Estimate:
        """An estimate whose logarithm has this standard error."""
        reach = intervals.normal(self.confidence) * error
        return Estimate(value, value * math.exp(-reach), value * math.exp(min(reach, 500.0)))

    def _levels(self, ordered: Floats, mean: Estimate) -> dict[str, Any]:
        """The fields of a cell that are about levels."""
        game = self.game
        if math.isnan(self.equilibrium):
            return {}
        counts = np.bincount(levels.assign(ordered, game, self.reference), minlength=len(levels.LABELS))
        n, confidence = ordered.size, self.confidence
        return {
            "levels": {
                label: intervals.share(int(count), n, confidence)
                for label, count in zip(levels.LABELS, counts, strict=False)
            },
            "tau_mean": tau_by_mean(game, mean, self.reference),
        }
