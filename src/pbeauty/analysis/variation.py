"""How much results vary, and where from: sampling within a game, between games, between what a sweep varies.

Runs whose resolved experiments differ in nothing but the seed are replicates of one case. The participants of one game
share its announcements, so that intervals from within one game are too narrow for statements about other games;
replicates are what such statements need. The statistic throughout is a round's mean guess, y of each run, whose
sampling variance within the game is v = sd^2 / (n - 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty.analysis import intervals
from pbeauty.analysis.group_stats import GroupStats
from pbeauty.analysis.intervals import CONFIDENCE, NONE, REPLICATES, Estimate
from pbeauty.analysis.run_analysis import Analysis
from pbeauty.game.experiment import Experiment
from pbeauty.game.randomness import seeds

_NOT_A_SETTING = ("name", "seed", "results", "patience", "margin", "plots")
"""Keys that make no case of their own."""
_LONGEST = 60

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """Runs of the same experiment but for the seed."""

    settings: dict[str, str]
    """What tells the case from the others; empty if there is only one."""
    analyses: list[Analysis]

    @property
    def label(self) -> str:
        """In one line."""
        return ", ".join(f"{key}={value}" for key, value in self.settings.items()) or "one case"

    @property
    def short(self) -> str:
        """The values alone."""
        return " · ".join(self.settings.values()) or "one case"


@dataclass(frozen=True)
class Replicated:
    """The replicates of one case, for one group and round."""

    case: str
    by: str
    label: str
    round: int
    runs: int
    mean: Estimate
    """Mean of the games' means; t interval with runs - 1 degrees of freedom."""
    observed: Estimate
    """Standard deviation (divisor runs - 1) of the games' means; chi-square interval."""
    sampling: float
    """The standard deviation that sampling within a game alone would give them."""
    between: Estimate
    """Standard deviation between games beyond that: method of moments, interval by Q-profile (Viechtbauer 2007)."""


@dataclass(frozen=True)
class Source:
    """A part of the variance of games' means, for one group and round."""

    by: str
    label: str
    round: int
    source: str
    """A key of the experiment that varies; `interactions` of these; `between games`; or `sampling within a game`."""
    share: Estimate
    """Of the sum of squares around the grand mean; bootstrap interval over replicates."""
    p_value: float = math.nan
    """F test against the variance between replicates; NaN without replicates."""
    p_holm: float = math.nan
    """Adjusted for all keys, groups and rounds."""


@dataclass(frozen=True)
class Variation:
    """Everything about several runs together."""

    cases: list[Case]
    varied: list[str]
    """Keys of the experiment whose values differ between cases."""
    replicated: list[Replicated]
    sources: list[Source]
    notes: list[str]


def settings(experiment: Experiment) -> dict[str, Any]:
    """The experiment as flat keys, `population.0.sampling.temperature`, and values, but for what makes no case."""
    flat: dict[str, Any] = {}

    def walk(value: Any, key: str) -> None:
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        if not isinstance(value, (dict, list)) or not value:
            flat[key] = value
        for name, child in children:
            walk(child, f"{key}.{name}" if key else str(name))

    walk({key: value for key, value in experiment.model_dump(mode="json").items() if key not in _NOT_A_SETTING}, "")
    return flat


def cases(runs: Sequence[tuple[Mapping[str, Any], Analysis]]) -> tuple[list[Case], list[str]]:
    """Sorts runs into cases, in the order given, and says which keys vary.

    Args:
        runs: `settings` of each and its analysis.
    """
    keys = dict.fromkeys(key for flat, _ in runs for key in flat)
    varied = [key for key in keys if len({repr(flat.get(key)) for flat, _ in runs}) > 1]
    found: dict[tuple[str, ...], Case] = {}
    for flat, analysis in runs:
        values = {key: _text(flat.get(key)) for key in varied}
        found.setdefault(tuple(repr(flat.get(key)) for key in varied), Case(values, [])).analyses.append(analysis)
    return list(found.values()), varied


def _text(value: Any) -> str:
    text = "(none)" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def vary(runs: Sequence[tuple[Mapping[str, Any], Analysis]], confidence: float = CONFIDENCE) -> Variation:
    """Decomposes the variation of several runs.

    Args:
        runs: `settings` of each and its analysis.
        confidence: in (0, 1).
    """
    found, varied = cases(runs)
    notes = []
    unfinished = sum(not analysis.finished for _, analysis in runs)
    if unfinished:
        notes.append(f"UNFINISHED: {unfinished} of {len(runs)} runs; later rounds rest on fewer runs")
    copies = len(runs) - sum(len({a.seed for a in case.analyses}) for case in found)
    if copies:
        notes.append(f"{copies} run(s) have the seed of another run of the same case: no independent replicates")
    if all(len(case.analyses) < 2 for case in found):
        notes.append("no case has replicates: variation between games is mixed up with what varies between cases")
    keys = dict.fromkeys((cell.by, cell.label, cell.round) for _, analysis in runs for cell in analysis.cells)
    replicated, sources = [], []
    for key in keys:
        members = [(case, _cells(case, key)) for case in found]
        members = [(case, cells) for case, cells in members if cells]
        replicated += [_replicated(case.label, key, cells, confidence) for case, cells in members if len(cells) > 1]
        if sum(len(cells) for _, cells in members) > 2:
            sources += _sources(key, members, varied, confidence)
    adjusted = intervals.holm([source.p_value for source in sources])
    sources = [Source(**{**vars(source), "p_holm": p}) for source, p in zip(sources, adjusted, strict=True)]
    if len(varied) > 1 and len(found) != math.prod(len({case.settings[key] for case in found}) for key in varied):
        notes.append("not every combination of what varies was played: shares of single keys may overlap")
    return Variation(found, varied, replicated, sources, notes)


def _cells(case: Case, key: tuple[str, str, int]) -> list[GroupStats]:
    return [
        cell for analysis in case.analyses for cell in analysis.cells
        if (cell.by, cell.label, cell.round) == key and cell.n_valid
    ]  # fmt: skip


def _sampling_variances(cells: Sequence[GroupStats]) -> Floats:
    return np.array([cell.sd.value**2 / max(cell.n_valid - 1, 1) for cell in cells])


# --- one case ------------------------------------------------------------------------------------------------


def _replicated(case: str, key: tuple[str, str, int], cells: Sequence[GroupStats], confidence: float) -> Replicated:
    from scipy.stats import chi2

    means, within = np.array([cell.mean.value for cell in cells]), _sampling_variances(cells)
    k = means.size
    sd = float(means.std(ddof=1))
    ends = chi2.ppf([0.5 + confidence / 2, 0.5 - confidence / 2], k - 1)
    low, high = (sd * math.sqrt((k - 1) / end) for end in ends)
    return Replicated(
        case, *key, k,
        mean=intervals.mean(float(means.mean()), float(means.std()), k, confidence),
        observed=Estimate(sd, low, high),
        sampling=math.sqrt(float(within.mean())),
        between=between_games(means, within, confidence),
    )  # fmt: skip


def between_games(means: Floats, within: Floats, confidence: float = CONFIDENCE) -> Estimate:
    """The standard deviation between games that sampling within them does not account for.

    The estimate is by moments, sqrt(max(0, var(means) - mean(within))). The interval holds every tau for which
    Q = sum (y - y_w)^2 / (v + tau^2), with y_w weighted by 1 / (v + tau^2), is an ordinary chi-square(k - 1).

    Args:
        means: float64[game].
        within: float64[game], the sampling variance of each.
        confidence: in (0, 1).
    """
    from scipy.optimize import brentq
    from scipy.stats import chi2

    k = means.size
    if k < 2:
        return NONE
    spread = float(means.var(ddof=1))

    def q(variance: float) -> float:
        weights = 1 / np.maximum(within + variance, 1e-300)
        return float(weights @ np.square(means - weights @ means / weights.sum()))

    def solve(level: float) -> float:
        bottom, top = 1e-12 * (spread + float(within.mean())), spread + float(within.mean())
        if not spread or q(bottom) <= level:
            return 0.0
        while q(top) > level:
            top *= 4
        return math.sqrt(float(brentq(lambda variance: q(variance) - level, bottom, top)))

    high, low = (solve(float(level)) for level in chi2.ppf([0.5 - confidence / 2, 0.5 + confidence / 2], k - 1))
    value = math.sqrt(max(0.0, spread - float(within.mean())))
    return Estimate(value, min(low, value), max(high, value))


# --- several cases -------------------------------------------------------------------------------------------


def _sources(
    key: tuple[str, str, int],
    members: Sequence[tuple[Case, list[GroupStats]]],
    varied: Sequence[str],
    confidence: float,
) -> list[Source]:
    from scipy.stats import f

    case = np.concatenate([np.full(len(cells), index) for index, (_, cells) in enumerate(members)])
    cells = [cell for _, found in members for cell in found]
    means, within = np.array([cell.mean.value for cell in cells]), _sampling_variances(cells)
    levels = {
        name: np.unique([members[index][0].settings[name] for index in case], return_inverse=True)[1] for name in varied
    }
    levels = {name: codes for name, codes in levels.items() if codes.max() > 0}
    found = _shares(means, within, case, levels)
    if found is None:
        return []
    key_seed = seeds(0, f"variation/{key[0]}/{key[1]}", key[2], 0, 1)
    generator = np.random.default_rng(int(key_seed[0]))
    low, high = {}, {}
    if (np.bincount(case) > 1).all():
        repeated = []
        for _ in range(REPLICATES):
            drawn = np.concatenate([generator.choice(np.flatnonzero(case == index), int((case == index).sum()))
                                    for index in range(len(members))])  # fmt: skip
            repeated.append(_shares(means[drawn], within[drawn], case, levels) or dict.fromkeys(found, 0.0))
        for name in found:
            values = [shares[name] for shares in repeated]
            low[name], high[name] = np.quantile(values, [0.5 - confidence / 2, 0.5 + confidence / 2])
    freedom = means.size - len(members)
    residual = found["between games"] + found["sampling within a game"]
    rows = []
    for name, share in found.items():
        p = math.nan
        if name in levels and freedom and residual > 0:
            ratio = share / int(levels[name].max()) / (residual / freedom)
            p = float(f.sf(ratio, int(levels[name].max()), freedom))
        interval = (min(low[name], share), max(high[name], share)) if name in low else (math.nan, math.nan)
        rows.append(Source(*key, name, Estimate(share, *map(float, interval)), p))
    return rows


def _shares(means: Floats, within: Floats, case: NDArray, levels: Mapping[str, NDArray]) -> dict[str, float] | None:
    """Shares of the total sum of squares; None where all means are the same."""
    total = float(np.square(means - means.mean()).sum())
    if total <= 1e-20 * max(1.0, float(np.square(means).sum())):
        return None
    between = _between(means, case)
    shares = {name: _between(means, codes) / total for name, codes in levels.items()}
    if len(levels) > 1:
        shares["interactions"] = max(0.0, between / total - sum(shares.values()))
    remaining = max(0.0, total - between)
    sizes = np.bincount(case)[case]
    expected = float((within * (1 - 1 / sizes)).sum())  # of the squares around each case's mean
    sampling = min(expected, remaining)
    return shares | {"between games": (remaining - sampling) / total, "sampling within a game": sampling / total}


def _between(means: Floats, codes: NDArray) -> float:
    """The sum of squares between the groups of `codes`."""
    sizes = np.bincount(codes)
    centres = np.bincount(codes, means) / np.maximum(sizes, 1)
    return float(sizes @ np.square(centres - means.mean()))
