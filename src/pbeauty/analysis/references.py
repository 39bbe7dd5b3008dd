"""Published results of p-beauty contests, with people and with language models, to compare runs with.

The figures are in `references.yaml`, each with its source; what can be computed from them is computed here. Rounds
(periods) count from 1; the target is offset + p times the mean, and the range [0, 100] unless an entry says otherwise.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.resources import files
from statistics import fmean
from typing import Any

import yaml

from pbeauty.game.experiment import Experiment, Game, LLMGroup

_PROMPTS = {
    ("classic", "direct"): "P1",
    ("classic", "step-by-step"): "P2",
    ("rational", "step-by-step"): "P3",
    ("rational-think-of-others", "step-by-step"): "P4",
    ("sys-1", "usr-1"): "P1",
    ("sys-1", "usr-2"): "P2",
    ("sys-2", "usr-2"): "P3",
    ("sys-3", "usr-2"): "P4",
}
"""The prompts that ask for what those of Pan et al. do, system and user, ours and those of an import."""


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

    @property
    def marked(self) -> str:
        """`short`, and whether the source is a secondary one."""
        return f"{self.short}, secondary" if self.secondary else self.short


@dataclass(frozen=True)
class Trajectory:
    """Sessions with people, by period."""

    p: float
    sessions: tuple[tuple[float, ...], ...]
    """[session][period]: the mean guess, as published."""
    source: Source

    @property
    def average(self) -> tuple[float, ...]:
        """[period]: the mean over sessions of their means, each counting the same; computed, not published."""
        return tuple(fmean(period) for period in zip(*self.sessions, strict=True))


@dataclass(frozen=True)
class Pool:
    """The first-period guesses of one pool of people. None where a figure was not published."""

    label: str
    source: Source
    p: float | None = None
    """None where the table that has the figures does not say by what rule they played."""
    offset: float = 0.0
    low: float = 0.0
    high: float = 100.0
    n: int | None = None
    mean: float | None = None
    std: float | None = None
    """With divisor n - 1, as it is taken to be."""
    target: float | None = None
    """The number that won, p times the mean."""
    tau: float | None = None
    """The cognitive-hierarchy parameter whose predicted mean is the sample's, rounded to 0.1."""
    same_people: str | None = None
    """The label of another entry that has these people's guesses as well; runs are compared with that one."""

    def plays(self, game: Game) -> bool:
        """Whether these people played this game, alone, for the nearest guess, as published."""
        ours = (game.p, game.offset, game.low, game.high)
        theirs = (self.p or math.nan, self.offset, self.low, self.high)
        alike = all(math.isclose(one, other, rel_tol=1e-3) for one, other in zip(ours, theirs, strict=True))
        return alike and published_rules(game)


@dataclass(frozen=True)
class Model:
    """Mean guesses of one language model, at p = 2/3."""

    model: str
    rounds: tuple[int, ...]
    """Those that were published."""
    means: tuple[float, ...]
    """[round]"""
    source: Source
    prompt: str = ""
    """The study's name for it, `P1` to `P4`."""
    asked: str = ""
    """What the prompt asks for, or what each mean is of."""


@dataclass(frozen=True)
class References:
    """Everything in the data file."""

    sources: tuple[Source, ...]
    sessions: tuple[Trajectory, ...]
    pools: tuple[Pool, ...]
    models: tuple[Model, ...]


def published_rules(game: Game) -> bool:
    """Whether the rules are those of the published games but for p, offset and range: the mean counts, individuals
    play, and the nearest guess wins."""
    return game.aggregate == "mean" and game.players == "individuals" and game.tolerance is None


def published_as(experiment: Experiment) -> tuple[str, str] | None:
    """The published model and prompt, such as `Qwen2-72B` and `P2`, that everybody in an experiment plays with.

    None where there are none, or not at the published temperature, 1. Models are known by the names of their folders.
    """
    group = experiment.population[0]
    if len(experiment.population) > 1 or not isinstance(group, LLMGroup) or group.sampling.temperature != 1:
        return None
    prompt = _PROMPTS.get((group.system_prompt, group.user_prompt))
    path = _letters(experiment.models[group.model].path.rpartition("/")[2])
    model = next((one.model for one in load().models if one.prompt and _letters(one.model) in path), None)
    return (model, prompt) if model and prompt else None


def _letters(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


@cache
def load() -> References:
    """All published figures; read once per process."""
    text = (files("pbeauty.analysis") / "references.yaml").read_text(encoding="utf-8")
    document = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # libyaml's, where it is there
    sources = {key: Source(key=key, **fields) for key, fields in document["sources"].items()}

    def resolved(entry: dict[str, Any]) -> dict[str, Any]:
        """The entry as constructor arguments: lists frozen, p as a number, the source in full."""
        fields = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
        if "p" in fields:
            fields["p"] = float(Fraction(str(fields["p"])))
        return fields | {"source": sources[entry["source"]]}

    prompts = document["llm_prompts"]
    source, asked = sources[prompts["source"]], prompts["prompts"]
    return References(
        sources=tuple(sources.values()),
        sessions=tuple(
            Trajectory(entry["p"], tuple(map(tuple, entry["means"])), entry["source"])
            for entry in map(resolved, document["human_sessions"])
        ),
        pools=tuple(Pool(**resolved(entry)) for entry in document["human_pools"]),
        models=tuple(
            Model(model, tuple(range(1, len(means) + 1)), tuple(means), source, prompt, asked[prompt])
            for model, by_prompt in prompts["means"].items()
            for prompt, means in by_prompt.items()
        )
        + tuple(Model(**resolved(entry)) for entry in document["llm_rounds"]),
    )


def human_means(multiplier: float) -> Trajectory | None:
    """Session means of people by period at this multiplier; None where nobody published any.

    The tolerance takes 0.667 for 2/3, but not 0.67, which is a treatment of its own in the literature.
    """
    return next((people for people in load().sessions if math.isclose(people.p, multiplier, rel_tol=1e-3)), None)
