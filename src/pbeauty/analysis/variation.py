"""Several runs together: cases beside each other, how much sessions vary, and what that varies with.

Runs whose resolved experiments differ in nothing but the seed and the number of sessions are one case, with the
sessions of all of them. The participants of a session share its announcements and move together, so that a session is
one independent observation: the unit throughout is a session's mean guess in a round. Two runs of one case and one seed
have the same sessions, and those of the one with more of them are counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pbeauty.analysis import intervals
from pbeauty.analysis.components import (
    FEWEST_SESSIONS,
    Components,
    Effect,
    OverWordings,
    components_of,
    effects_of,
    over_wordings,
)
from pbeauty.analysis.group_stats import BySession, GroupStats
from pbeauty.analysis.hierarchy import tau_by_mean
from pbeauty.analysis.intervals import CONFIDENCE, Bounds, Difference, Estimate
from pbeauty.analysis.run_analysis import DEMO, Analysis
from pbeauty.config.differences import flat, in_words, joined, value_of, varied
from pbeauty.game.experiment import Experiment

_NOT_A_SETTING = {"name", "seed", "sessions", "results", "patience", "margin", "plots"}
"""Keys that make no case of their own."""
_LONGEST = 60
_MOST_KEYS = 3
"""Where more vary, cases are called by the names of their runs if these tell them apart."""


@dataclass(frozen=True)
class Case:
    """Runs of the same experiment but for the seed and the number of sessions."""

    settings: dict[str, str]
    """What tells the case from the others; empty if there is only one."""
    analyses: list[Analysis]
    name: str = ""
    """What to call it instead of by its settings."""

    @property
    def label(self) -> str:
        """In one line."""
        return ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in self.settings.items()) or "one case"

    @property
    def short(self) -> str:
        """The values alone, or its name."""
        return self.name or " · ".join(self.settings.values()) or "one case"

    def cells(self, round_number: int) -> list[GroupStats]:
        """Everybody in a round, from 1, in each run; of runs with one seed, in that with most sessions."""
        runs: dict[int, list[Analysis]] = {}
        for one in self.analyses:
            runs.setdefault(one.seed, []).append(one)
        chosen = [max(alike, key=lambda one: one.sessions) for alike in runs.values()]
        return [cell for analysis in chosen for cell in analysis.of() if cell.round == round_number]

    def sessions(self, round_number: int) -> BySession:
        """Everybody in a round, from 1, that some run of the case has, in each session that had not ended before."""
        cells = [vars(cell.by_session).values() for cell in self.cells(round_number)]
        found = BySession(*map(np.concatenate, zip(*cells, strict=True)))
        return found.where(found.n > 0)


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
    """By the sessions' means (`hierarchy.tau_by_mean`), with an interval likewise."""
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
    wordings: list[OverWordings]
    """In the first round and the last; empty where wordings do not vary."""
    notes: list[str]

    @property
    def keys(self) -> str:
        """What `Case.short` gives, in order."""
        named = any(case.name for case in self.cases)
        return "case" if named else " · ".join(key.rpartition(".")[2] for key in self.varied) or "case"


def settings(experiment: Experiment) -> dict[str, Any]:
    """The experiment as flat keys and values, but for what makes no case."""
    return flat(experiment, without=_NOT_A_SETTING)


def sort_into_cases(runs: Sequence[tuple[Mapping[str, Any], Analysis]]) -> tuple[list[Case], list[str]]:
    """Sorts runs into cases, in the order given, and says which keys vary.

    Args:
        runs: `settings` of each and its analysis.
    """
    flats = joined(known for known, _ in runs)
    keys = varied(flats)
    texts = {key: _texts([value_of(one, key) for one in flats]) for key in keys}
    found: dict[tuple[str, ...], Case] = {}
    for one, (_, analysis) in zip(flats, runs, strict=True):
        values = {key: texts[key][repr(value_of(one, key))] for key in keys}
        found.setdefault(tuple(values.values()), Case(values, [])).analyses.append(analysis)
    cases = list(found.values())
    names = [{one.name for one in case.analyses} for case in cases]
    if len(keys) > _MOST_KEYS and len(set.union(*names)) == len(cases) == sum(map(len, names)):
        cases = [replace(case, name=name) for case, (name,) in zip(cases, names, strict=True)]
    return cases, keys


def _texts(values: Sequence[Any]) -> dict[str, str]:
    """What to call each value of a key, by its repr: long ones are cut off, and numbered if that makes them alike."""
    texts = {repr(value): in_words(value) for value in values}
    short = {key: text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…" for key, text in texts.items()}
    alike = len(set(short.values())) < len(short)
    return {key: f"{text} ({number})" if alike else text for number, (key, text) in enumerate(short.items(), 1)}


def vary(runs: Sequence[tuple[Mapping[str, Any], Analysis]], confidence: float = CONFIDENCE) -> Variation:
    """What is to be said of several runs together.

    Args:
        runs: `settings` of each and its analysis.
        confidence: in (0, 1).
    """
    cases, keys = sort_into_cases(runs)
    rounds = sorted({cell.round for _, analysis in runs for cell in analysis.of()})
    stats: list[CaseStats] = []
    components: list[Components] = []
    effects: list[Effect] = []
    wordings: list[OverWordings] = []
    for number in rounds:
        found = [(case, case.sessions(number)) for case in cases if case.cells(number)]
        found = [(case, sessions) for case, sessions in found if sessions.n_valid.any()]
        stats += _case_stats(found, number, confidence, compared=number in (1, rounds[-1]))
        if found:
            heard = [(case.settings, sessions.heard) for case, sessions in found]
            components.append(components_of(number, [sessions for _, sessions in heard], confidence))
            if number in (1, rounds[-1]):
                wordings += over_wordings(number, heard, keys, confidence)
            effects += effects_of(number, [(known, sessions.mean) for known, sessions in heard], keys, confidence)
    tested = intervals.adjusted(stats), components, intervals.adjusted(effects), intervals.adjusted(wordings)
    return Variation(cases, keys, *tested, list(_notes(cases, runs)))


def _notes(cases: Sequence[Case], runs: Sequence[tuple[Mapping[str, Any], Analysis]]) -> Iterator[str]:
    unfinished = sum(not analysis.finished for _, analysis in runs)
    distinct = sum(len({one.seed for one in case.analyses}) for case in cases)
    sessions = sum(cell.sessions for case in cases for cell in case.cells(1))
    if unfinished:
        yield f"UNFINISHED: {unfinished} of {len(runs)} runs; later rounds rest on fewer runs"
    if len(runs) > distinct:
        yield f"{len(runs) - distinct} run(s) have the seed of another run of the same case, and are not counted again"
    if sessions - len(cases) < FEWEST_SESSIONS - 1:
        yield (
            "too few sessions to tell chance from what varies: there are variance components from "
            f"{FEWEST_SESSIONS} sessions of one case on"
        )
    if any(analysis.demo for _, analysis in runs):
        yield DEMO


def _case_stats(
    found: Sequence[tuple[Case, BySession]], number: int, confidence: float, *, compared: bool
) -> Iterator[CaseStats]:
    for case, asked in found:
        start, first = found[0]
        game, sessions = case.analyses[0].game, asked.heard
        mean, n = intervals.over(sessions.mean, confidence), sessions.mean.size
        if n == 1 and number == 1:
            mean = intervals.student(mean.value, float(sessions.error[0]), float(sessions.n_valid[0]) - 1, confidence)
        origin = start.analyses[0].game
        comparable = compared and case is not start and (game.low, game.high) == (origin.low, origin.high)
        yield CaseStats(
            case.label, number, n,
            unusable=1 - float(asked.n_valid.sum() / asked.n.sum()),
            mean=mean,
            bounds=asked.limits(game) if _unusable(case, asked) else None,
            tau=tau_by_mean(game, mean, sessions.reference, sessions.mean, confidence),
            difference=_difference((case, asked), (start, first), number, confidence) if comparable else None,
        )  # fmt: skip


def _unusable(case: Case, sessions: BySession) -> bool:
    """Whether replies of players are unusable; groups have numbers whatever becomes of some replies."""
    return case.analyses[0].game.players == "individuals" and bool((sessions.n_valid < sessions.n).any())


def _difference(
    one: tuple[Case, BySession], other: tuple[Case, BySession], number: int, confidence: float
) -> Difference:
    both = [sessions.heard for _, sessions in (one, other)]
    limits = None
    if _unusable(*one) or _unusable(*other):
        game = one[0].analyses[0].game
        limits = one[1].limits(game).less(other[1].limits(game))
    alone = number == 1 and min(sessions.n.size for sessions in both) == 1
    mine, theirs = (_pooled(sessions) if alone else intervals.sessions(sessions.mean) for sessions in both)
    return intervals.difference(mine, theirs, confidence, limits)


def _pooled(sessions: BySession) -> tuple[float, float, float]:
    """Mean of sessions' means with its standard error over participants, who in the first round are independent."""
    error = math.sqrt(float(np.square(sessions.error).sum())) / sessions.n.size
    return float(sessions.mean.mean()), error, float(sessions.n_valid.sum())
