"""Several runs together: cases beside each other, how much sessions vary, and what that varies with.

Runs whose resolved experiments differ in nothing but the seed are sessions of one case. The participants of a session
share its announcements and move together, so that a session is one independent observation: the unit throughout is a
session's mean guess in a round. Two runs of one case and one seed are the same session, and counted once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pbeauty.analysis import intervals
from pbeauty.analysis.components import FEWEST_SESSIONS, Components, Effect, components_of, effects_of
from pbeauty.analysis.group_stats import GroupStats
from pbeauty.analysis.intervals import CONFIDENCE, NONE, Bounds, Difference, Estimate
from pbeauty.analysis.run_analysis import DEMO, Analysis
from pbeauty.game.experiment import Experiment

_NOT_A_SETTING = ("name", "seed", "results", "patience", "margin", "plots")
"""Keys that make no case of their own."""
_LONGEST = 60


@dataclass(frozen=True)
class Case:
    """Runs of the same experiment but for the seed."""

    settings: dict[str, str]
    """What tells the case from the others; empty if there is only one."""
    analyses: list[Analysis]

    @property
    def label(self) -> str:
        """In one line."""
        return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in self.settings.items()) or "one case"

    @property
    def short(self) -> str:
        """The values alone."""
        return " · ".join(self.settings.values()) or "one case"

    def sessions(self, round_number: int) -> list[GroupStats]:
        """The figures of every independent session in a round, from 1, that has a valid guess there."""
        distinct = {analysis.seed: analysis for analysis in reversed(self.analyses)}
        cells = (cell for analysis in reversed(distinct.values()) for cell in analysis.of())
        return [cell for cell in cells if cell.round == round_number and cell.n_valid]


@dataclass(frozen=True)
class CaseStats:
    """One case in one round."""

    case: str
    round: int
    sessions: int
    unusable: float
    """Share of all participants without a valid guess."""
    mean: Estimate
    """Mean of the sessions' means, with Student's t interval over sessions; of a single session's first round, over its
    participants, and later none, since they have heard of each other."""
    bounds: Bounds | None
    """Of the mean, whatever the unusable replies would have said; None without any."""
    tau: Estimate
    """Mean of the sessions' tau, likewise; NaN where one of several is beyond what is estimated."""
    difference: Difference | None
    """Mean less that of the first case, in the first round and the last; None of that case itself, and of one with
    another range. By Welch's t over sessions if both have several; in the first round over participants if not."""


@dataclass(frozen=True)
class Variation:
    """Everything about several runs together."""

    cases: list[Case]
    varied: list[str]
    """Keys of the experiment whose values differ between cases."""
    stats: list[CaseStats]
    components: list[Components]
    effects: list[Effect]
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


def sort_into_cases(runs: Sequence[tuple[Mapping[str, Any], Analysis]]) -> tuple[list[Case], list[str]]:
    """Sorts runs into cases, in the order given, and says which keys vary.

    Args:
        runs: `settings` of each and its analysis.
    """
    keys = dict.fromkeys(key for flat, _ in runs for key in flat)
    varied = [key for key in keys if len({repr(flat.get(key)) for flat, _ in runs}) > 1]
    texts = {key: _texts([flat.get(key) for flat, _ in runs]) for key in varied}
    found: dict[tuple[str, ...], Case] = {}
    for flat, analysis in runs:
        values = {key: texts[key][repr(flat.get(key))] for key in varied}
        found.setdefault(tuple(values.values()), Case(values, [])).analyses.append(analysis)
    return list(found.values()), varied


def _texts(values: Sequence[Any]) -> dict[str, str]:
    """What to call each value of a key, by its repr: long ones are cut off, and numbered if that makes them alike."""
    texts = {repr(value): "(none)" if value is None else str(value) for value in values}
    short = {key: text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…" for key, text in texts.items()}
    alike = len(set(short.values())) < len(short)
    return {key: f"{text} ({number})" if alike else text for number, (key, text) in enumerate(short.items(), 1)}


def vary(runs: Sequence[tuple[Mapping[str, Any], Analysis]], confidence: float = CONFIDENCE) -> Variation:
    """What is to be said of several runs together.

    Args:
        runs: `settings` of each and its analysis.
        confidence: in (0, 1).
    """
    cases, varied = sort_into_cases(runs)
    rounds = sorted({cell.round for _, analysis in runs for cell in analysis.of()})
    stats, components, effects = [], [], []
    for number in rounds:
        found = [(case, case.sessions(number)) for case in cases]
        found = [(case, sessions) for case, sessions in found if sessions]
        stats += _case_stats(found, confidence, compared=number in (1, rounds[-1]))
        if found:
            components.append(components_of(number, [sessions for _, sessions in found], confidence))
            values = [(case.settings, [cell.mean.value for cell in sessions]) for case, sessions in found]
            effects += effects_of(number, values, varied, confidence)
    adjusted = intervals.holm([effect.p_value for effect in effects])
    effects = [replace(effect, p_holm=p) for effect, p in zip(effects, adjusted, strict=True)]
    return Variation(cases, varied, intervals.adjusted(stats), components, effects, list(_notes(cases, runs)))


def _notes(cases: Sequence[Case], runs: Sequence[tuple[Mapping[str, Any], Analysis]]) -> Iterator[str]:
    unfinished = sum(not analysis.finished for _, analysis in runs)
    sessions = sum(len({a.seed for a in case.analyses}) for case in cases)
    if unfinished:
        yield f"UNFINISHED: {unfinished} of {len(runs)} runs; later rounds rest on fewer runs"
    if len(runs) > sessions:
        yield f"{len(runs) - sessions} run(s) have the seed of another run of the same case, and are not counted again"
    if sessions - len(cases) < FEWEST_SESSIONS - 1:
        yield (
            "too few sessions to tell chance from what varies: there are variance components from "
            f"{FEWEST_SESSIONS} sessions of one case on"
        )
    if any(analysis.demo for _, analysis in runs):
        yield DEMO


def _case_stats(
    found: Sequence[tuple[Case, list[GroupStats]]], confidence: float, *, compared: bool
) -> Iterator[CaseStats]:
    for case, sessions in found:
        start, first = found[0]
        value, error, n = _moments(sessions)
        limits = _limits(sessions)
        taus = np.array([cell.tau.value for cell in sessions])
        single = n == 1 and sessions[0].round == 1
        if n == 1:
            tau = sessions[0].tau if single else Estimate(sessions[0].tau.value)
        else:
            known = np.isfinite(taus).all()
            spread = intervals.standard_error(taus) if known else math.nan
            tau = intervals.student(float(taus.mean()), spread, n - 1, confidence) if known else NONE
        games = [one.analyses[0].game for one in (case, start)]
        comparable = compared and case is not start and len({(game.low, game.high) for game in games}) == 1
        yield CaseStats(
            case.label, sessions[0].round, int(n),
            unusable=1 - sum(cell.n_valid for cell in sessions) / sum(cell.n for cell in sessions),
            mean=sessions[0].mean if single else intervals.student(value, error, n - 1, confidence),
            bounds=limits if any(cell.bounds for cell in sessions) else None,
            tau=tau,
            difference=_difference(sessions, first, confidence) if comparable else None,
        )  # fmt: skip


def _moments(sessions: Sequence[GroupStats]) -> tuple[float, float, float]:
    return intervals.sessions([cell.mean.value for cell in sessions])


def _limits(sessions: Sequence[GroupStats]) -> Bounds:
    low, high = (float(np.mean([getattr(cell.limits, end) for cell in sessions])) for end in ("low", "high"))
    return Bounds(low, high)


def _difference(sessions: list[GroupStats], first: list[GroupStats], confidence: float) -> Difference:
    missing = any(cell.bounds for cell in (*sessions, *first))
    limits = _limits(sessions).less(_limits(first)) if missing else None
    if min(len(sessions), len(first)) == 1 and sessions[0].round == 1:
        one, other = (_pooled(cells) for cells in (sessions, first))
    else:
        one, other = _moments(sessions), _moments(first)
    return intervals.difference(one, other, confidence, limits)


def _pooled(cells: Sequence[GroupStats]) -> tuple[float, float, float]:
    """Mean of sessions' means with its standard error over participants, who in the first round are independent."""
    values, errors, sizes = zip(*(cell.moments for cell in cells), strict=True)
    return float(np.mean(values)), math.sqrt(float(np.square(errors).sum())) / len(cells), float(sum(sizes))
