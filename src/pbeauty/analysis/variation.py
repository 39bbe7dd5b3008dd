"""Several runs together: cases beside each other, how much sessions vary, and what that varies with.

Runs whose resolved experiments differ in nothing but the seed and the number of sessions are one case, with the
sessions of all of them. The participants of a session share its announcements and move together, so that a session is
one independent observation: the unit throughout is a session's mean guess in a round. Two runs of one case and one seed
have the same sessions, and those of the one with more of them are counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
from pbeauty.analysis.intervals import CONFIDENCE, Bounds, Difference, Estimate, Moments
from pbeauty.analysis.run_analysis import DEMO, Analysis, is_demo
from pbeauty.config.differences import flat, in_words, joined, value_of, varied

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

    def cells(self, round_number: int) -> dict[int, GroupStats]:
        """Everybody in a round, from 1, by the seed of the run; of runs with one seed, in that with most sessions."""
        runs = sorted(self.analyses, key=lambda one: (one.experiment.seed, one.sessions))
        return {one.experiment.seed: cell for one in runs for cell in one.of() if cell.round == round_number}

    def sessions(self, round_number: int) -> BySession:
        """Everybody in a round, from 1, that some run of the case has, in each session."""
        cells = [vars(cell.by_session).values() for cell in self.cells(round_number).values()]
        return BySession(*map(np.concatenate, zip(*cells, strict=True)))

    def moments(self, round_number: int) -> Moments:
        """Of the mean in a round: over sessions; of a single session over participants, who hear of nobody in the first
        round only: later without an error."""
        game, sessions = self.analyses[0].game, self.sessions(round_number)
        found = sessions.moments(game, of_groups=game.players == "groups")
        return found if round_number == 1 or sessions.n.size > 1 else found._replace(error=math.nan)


def paired(one: Case, other: Case, round_number: int) -> Moments | None:
    """The difference of the means of two cases by session, where both have the same sessions of the same seeds.

    These have random numbers in common, so that their means are not independent. None where there are no two such
    sessions, or one case has other ones.
    """
    ours, theirs = one.cells(round_number), other.cells(round_number)
    if {seed: cell.means.size for seed, cell in ours.items()} != {seed: c.means.size for seed, c in theirs.items()}:
        return None
    gaps = np.concatenate([cell.means - theirs[seed].means for seed, cell in ours.items()])
    gaps = gaps[~np.isnan(gaps)]
    return intervals.moments(gaps) if gaps.size > 1 else None


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
    another range. By the differences of sessions that have seeds in common (`paired`), else by Welch's t, over
    sessions or, of a single one in the first round, over participants."""


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


def sort_into_cases(runs: Sequence[Analysis]) -> tuple[list[Case], list[str]]:
    """Sorts runs into cases, in the order given, and says which keys vary."""
    flats = joined(flat(one.experiment, without=_NOT_A_SETTING) for one in runs)
    keys = varied(flats)
    texts = {key: _texts([value_of(one, key) for one in flats]) for key in keys}
    found: dict[tuple[str, ...], Case] = {}
    for one, analysis in zip(flats, runs, strict=True):
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


def vary(runs: Sequence[Analysis], confidence: float = CONFIDENCE) -> Variation:
    """What is to be said of several runs together, with intervals at `confidence`, in (0, 1)."""
    cases, keys = sort_into_cases(runs)
    rounds = sorted({cell.round for one in runs for cell in one.of()})
    stats: list[CaseStats] = []
    components: list[Components] = []
    effects: list[Effect] = []
    wordings: list[OverWordings] = []
    for number in rounds:
        there = [(case, case.sessions(number)) for case in cases if case.cells(number)]
        played = [(case, sessions) for case, sessions in there if sessions.n_valid.any()]
        if not played:
            continue
        ends = number in (1, rounds[-1])
        stats += _case_stats(played, number, confidence, compared=ends)
        heard = [(case.settings, sessions.heard) for case, sessions in played]
        components.append(components_of(number, [sessions for _, sessions in heard], confidence))
        wordings += over_wordings(number, heard, keys, confidence) if ends else ()
        effects += effects_of(number, [(known, sessions.mean) for known, sessions in heard], keys, confidence)
    tested = intervals.adjusted(stats), components, intervals.adjusted(effects), intervals.adjusted(wordings)
    return Variation(cases, keys, *tested, list(_notes(cases, runs)))


def _notes(cases: Sequence[Case], runs: Sequence[Analysis]) -> Iterator[str]:
    unfinished = sum(not one.finished for one in runs)
    distinct = sum(len({one.experiment.seed for one in case.analyses}) for case in cases)
    sessions = sum(cell.sessions for case in cases for cell in case.cells(1).values())
    seeds = [seed for case in cases for seed in case.cells(1)]
    if unfinished:
        yield f"UNFINISHED: {unfinished} of {len(runs)} runs; later rounds rest on fewer runs"
    if len(runs) > distinct:
        yield f"{len(runs) - distinct} run(s) have the seed of another run of the same case, and are not counted again"
    if sessions - len(cases) < FEWEST_SESSIONS - 1:
        yield (
            "too few sessions to tell chance from what varies: there are variance components from "
            f"{FEWEST_SESSIONS} sessions of one case on"
        )
    elif len(set(seeds)) < len(seeds):
        yield (
            "cases have seeds in common, and with them random numbers: their differences are by session, but what is "
            "said of the variance takes all sessions for independent; seeds that differ between cases make them so"
        )
    if any(is_demo(one.experiment) for one in runs):
        yield DEMO


def _case_stats(
    played: Sequence[tuple[Case, BySession]], number: int, confidence: float, *, compared: bool
) -> Iterator[CaseStats]:
    start = played[0][0]
    origin, first = start.analyses[0].game, start.moments(number)
    for case, sessions in played:
        game, moments, heard = case.analyses[0].game, case.moments(number), sessions.heard
        mean = moments.interval(confidence)
        difference = None
        if compared and case is not start and (game.low, game.high) == (origin.low, origin.high):
            difference = intervals.difference(moments, first, confidence, paired(case, start, number))
        yield CaseStats(
            case.label, number, heard.n.size,
            unusable=1 - float(sessions.n_valid.sum() / sessions.n.sum()),
            mean=mean,
            bounds=moments.bounds,
            tau=tau_by_mean(game, mean, heard.reference, heard.mean, confidence),
            difference=difference,
        )  # fmt: skip
