"""Published results of p-beauty contests, with people and with language models, to compare runs with.

The figures are in `references.yaml`, each with its source; what can be computed from them is computed
here. Guesses are in [0, 100], the target is p times the mean, and rounds (periods) count from 1 throughout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.resources import files
from statistics import fmean
from typing import Any

import yaml

SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Source:
    """Where figures were published."""

    key: str
    short: str
    """As it stands in a figure: `Nagel 1995`."""
    citation: str
    """In full."""
    secondary: bool = False
    """The figures were taken from later literature, not from this publication itself."""


@dataclass(frozen=True)
class Trajectory:
    """One statistic of the guesses of several sessions with people, by period."""

    p: float
    statistic: str
    """`mean` or `median`."""
    sessions: tuple[tuple[float, ...], ...]
    """[session][period], published."""
    source: Source

    @property
    def average(self) -> tuple[float, ...]:
        """[period]: the mean over sessions, each session counting the same; computed, not published."""
        return tuple(fmean(period) for period in zip(*self.sessions, strict=True))


@dataclass(frozen=True)
class Pool:
    """The first-period guesses of one pool of people. None where a figure was not published."""

    label: str
    p: float
    source: Source
    n: int | None = None
    mean: float | None = None
    median: float | None = None
    std: float | None = None
    target: float | None = None
    """The number that won, p times the mean."""
    tau: float | None = None
    """The cognitive-hierarchy parameter whose predicted mean is the sample's, rounded to 0.1."""
    tau_interval: tuple[float, float] | None = None
    """90 % interval."""
    model_mean: float | None = None
    """The mean that the cognitive-hierarchy model predicts at its tau."""


@dataclass(frozen=True)
class Tau:
    """The cognitive-hierarchy parameter over all pools of one study."""

    pools: int
    median: float
    mean: float
    recommended: float
    source: Source


@dataclass(frozen=True)
class Newspapers:
    """The newspaper contests that are pooled in the literature."""

    p: float
    entries: tuple[int, ...]
    """[contest]"""
    source: Source


@dataclass(frozen=True)
class LLMRound:
    """First-round guesses of one language model under one prompt."""

    model: str
    prompt: str
    """The study's name for it, `P1` to `P4`."""
    prompt_text: str
    """What the prompt asks for."""
    mean: float
    std: float
    source: Source


@dataclass(frozen=True)
class LLMTrajectory:
    """Mean guesses of one language model by round; `rounds` says which were published."""

    model: str
    rounds: tuple[int, ...]
    means: tuple[float, ...]
    source: Source
    prompt: str | None = None


@dataclass(frozen=True)
class WallTime:
    """How long a published run took."""

    participants: int
    players: str
    """The model, or what stands in for one."""
    way: str
    """How they answered or were run."""
    seconds: float
    source: Source
    hosts: int | None = None
    output_tokens: int | None = None
    """About how many tokens a reply had."""
    approximate: bool = False


@dataclass(frozen=True)
class References:
    """Everything in the data file."""

    sources: tuple[Source, ...]
    sessions: tuple[Trajectory, ...]
    pools: tuple[Pool, ...]
    newspapers: Newspapers
    tau: Tau
    llm_rounds: tuple[LLMRound, ...]
    llm_trajectories: tuple[LLMTrajectory, ...]
    wall_times: tuple[WallTime, ...]


@cache
def load() -> References:
    """All published figures; read once per process."""
    text = (files("pbeauty.analysis") / "references.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    sources = {key: Source(key=key, **fields) for key, fields in document["sources"].items()}

    def resolved(entry: dict[str, Any]) -> dict[str, Any]:
        """The entry as constructor arguments: lists frozen, p as a number, the source in full."""
        fields = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
        if "p" in fields:
            fields["p"] = float(Fraction(str(fields["p"])))
        return fields | {"source": sources[entry["source"]]}

    return References(
        sources=tuple(sources.values()),
        sessions=tuple(path for entry in document["human_sessions"] for path in _trajectories(resolved(entry))),
        pools=tuple(Pool(**resolved(entry)) for entry in document["human_pools"]),
        newspapers=Newspapers(**resolved(document["newspaper_entries"])),
        tau=Tau(**resolved(document["tau"])),
        llm_rounds=_llm_rounds(resolved(document["llm_prompts"])),
        llm_trajectories=tuple(LLMTrajectory(**resolved(entry)) for entry in document["llm_rounds"]),
        wall_times=tuple(_wall_time(resolved(entry)) for entry in document["wall_times"]),
    )


def _trajectories(entry: dict[str, Any]) -> list[Trajectory]:
    return [
        Trajectory(
            p=entry["p"],
            statistic=statistic,
            sessions=tuple(tuple(float(value) for value in session) for session in entry[f"{statistic}s"]),
            source=entry["source"],
        )
        for statistic in ("mean", "median")
    ]


def _llm_rounds(entry: dict[str, Any]) -> tuple[LLMRound, ...]:
    return tuple(
        LLMRound(model, prompt, entry["prompts"][prompt], mean, std, entry["source"])
        for model, cells in entry["cells"].items()
        for prompt, (mean, std) in cells.items()
    )


def _wall_time(entry: dict[str, Any]) -> WallTime:
    return WallTime(seconds=entry.pop("time") * SECONDS[entry.pop("unit")], **entry)


def human_means(multiplier: float) -> Trajectory | None:
    """Session means of people by period at this multiplier; None where nobody published any."""
    return _human(multiplier, "mean")


def human_medians(multiplier: float) -> Trajectory | None:
    """Session medians of people by period at this multiplier; None where nobody published any."""
    return _human(multiplier, "median")


def _human(multiplier: float, statistic: str) -> Trajectory | None:
    """The tolerance takes 0.667 for 2/3, but not 0.67, which is a treatment of its own in the literature."""
    for trajectory in load().sessions:
        if trajectory.statistic == statistic and math.isclose(trajectory.p, multiplier, rel_tol=1e-3):
            return trajectory
    return None
