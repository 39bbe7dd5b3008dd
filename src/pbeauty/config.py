"""What an experiment is made of: the schema of the experiment file, with every default.

Sections are immutable and refuse unknown keys. `pbeauty.config_file` reads files into them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StrictBool,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pbeauty.prompts import SYSTEM_PROMPTS, USER_PROMPTS

DEMO_MODEL = "demo"
LARGEST = 1e15
"""The largest number that an experiment may name, in size; arithmetic on guesses stays exact far beyond cents."""


class ConfigError(ValueError):
    """A request that cannot be played: a bad experiment file, argument, model path or result folder."""


# --- values ------------------------------------------------------------------------------------------------


def is_number(value: Any) -> bool:
    """Whether a value can be a number of the experiment: not infinite, not NaN, no larger than +-1e15."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PydanticCustomError("number", "expected a number")
    if not is_number(value):
        raise PydanticCustomError("number", "expected a finite number, at most 1e15 in size")
    return float(value)


def _multiplier(value: Any) -> str:
    """The multiplier as text, as prompts show it: a fraction such as `2/3` or a decimal such as `0.7`."""
    text = ""
    if isinstance(value, str):
        text = re.sub(r" */ *", "/", value.strip())
    elif is_number(value):
        text = f"{Decimal(str(value)):f}"  # 0.00001, where str says 1e-05
    if not re.fullmatch(r"\+?[0-9]{1,9}(\.[0-9]{1,20})?(/[0-9]{1,9}(\.[0-9]{1,20})?)?", text):
        raise PydanticCustomError("multiplier", "expected a positive fraction such as 2/3 or a decimal such as 0.7")
    above, _, below = text.lstrip("+").partition("/")
    if below and Fraction(below) == 0:
        raise PydanticCustomError("multiplier", "the denominator is zero; give a fraction such as 2/3")
    if Fraction(above) == 0:
        raise PydanticCustomError("multiplier", "the multiplier must be above zero")
    return text.lstrip("+")


def nearest(name: str, known: Sequence[str]) -> str:
    """`; did you mean '...'?`, or nothing where no known name is close."""
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""


def _known_name(value: str, known: Sequence[str], what: str) -> str:
    if value not in known:
        raise PydanticCustomError(
            "name",
            "no {what} of this name{nearest}; known: {known}",
            {"what": what, "nearest": nearest(value, known), "known": ", ".join(known)},
        )
    return value


def _slug(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise PydanticCustomError(
            "slug", "expected letters, digits, '.', '_' and '-' only (it names a folder), at most 100 of them"
        )
    return value


def _text(value: str) -> str:
    if not value.isprintable() or not value.strip():
        raise PydanticCustomError("text", "expected printable text")
    return value


Number = Annotated[float, BeforeValidator(_number)]
Multiplier = Annotated[str, BeforeValidator(_multiplier)]
Slug = Annotated[StrictStr, AfterValidator(_slug)]
Text = Annotated[StrictStr, AfterValidator(_text)]
PositiveInt = Annotated[StrictInt, Field(ge=1, lt=2**31)]
Announced = Literal["target", "mean", "median", "winning_guess"]


class Section(BaseModel):
    """A part of the experiment file: immutable, and without room for unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --- the game ----------------------------------------------------------------------------------------------


class Game(Section):
    """The rules: guesses in [low, high], target = offset + multiplier x aggregate, nearest guess wins."""

    multiplier: Multiplier = "2/3"
    offset: Number = 0.0
    low: Number = 0.0
    high: Number = 100.0
    aggregate: Literal["mean", "median"] = "mean"
    rounds: PositiveInt = 4
    announce: tuple[Announced, ...] = ("target",)

    @property
    def p(self) -> float:
        """The multiplier as a number."""
        above, _, below = self.multiplier.partition("/")
        return float(Fraction(above) / Fraction(below or 1))

    @field_validator("announce")
    @classmethod
    def _announce_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise PydanticCustomError("announce", "each quantity can be announced once")
        return value

    @model_validator(mode="after")
    def _range(self) -> Game:
        if self.low >= self.high:
            raise PydanticCustomError(
                "range",
                "low ({low}) must be below high ({high})",
                {"low": self.low, "high": self.high},
            )
        return self


# --- models and population ---------------------------------------------------------------------------------


class Model(Section):
    """A language model: `demo`, a checkpoint folder, or a hub id; `engine` passes vLLM arguments through.

    Ranks are apportioned to models by `weight`; a model without one weighs as many as it has participants.
    """

    path: Text = DEMO_MODEL
    tensor_parallel_size: PositiveInt = 1
    weight: Annotated[Number, Field(gt=0)] | None = None
    engine: dict[StrictStr, JsonValue] = {}


class Sampling(Section):
    """How replies are sampled. Temperature 0 is greedy."""

    temperature: Annotated[Number, Field(ge=0, le=2)] = 1.0
    max_tokens: PositiveInt = 64
    top_p: Annotated[Number, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[StrictInt, Field(ge=0)] = 0


class _Group(Section):
    name: Slug
    count: PositiveInt


class LLMGroup(_Group):
    """Participants who are language models.

    `extraction` says how a reply is read: by patterns alone, by a second call to the model where patterns find no
    clear answer, or always by a second call. `retries` bounds how often an unreadable reply is asked again.
    `guided: number` lets the engine sample nothing but a number.
    """

    kind: Literal["llm"]
    model: StrictStr = DEMO_MODEL
    system_prompt: StrictStr = "classic"
    user_prompt: StrictStr = "direct"
    sampling: Sampling = Sampling()
    extraction: Literal["pattern", "pattern-then-model", "model"] = "pattern"
    guided: Literal["number"] | None = None
    retries: Annotated[StrictInt, Field(ge=0, le=10)] = 1

    @field_validator("system_prompt")
    @classmethod
    def _known_system_prompt(cls, value: str) -> str:
        return _known_name(value, list(SYSTEM_PROMPTS), "system prompt")

    @field_validator("user_prompt")
    @classmethod
    def _known_user_prompt(cls, value: str) -> str:
        return _known_name(value, list(USER_PROMPTS), "user prompt")


class UniformGroup(_Group):
    """Guesses drawn uniformly from [low, high]; `think_time` seconds pass before all of a block answer."""

    kind: Literal["uniform"]
    integers: StrictBool = False
    think_time: Annotated[Number, Field(ge=0)] = 0.0


class FixedGroup(_Group):
    """Always the same guess."""

    kind: Literal["fixed"]
    value: Number


class LevelKGroup(_Group):
    """Level-k reasoners of one level (Nagel 1995); level 0 guesses around the reference point."""

    kind: Literal["level_k"]
    level: Annotated[StrictInt, Field(ge=0, le=1000)]


class CognitiveHierarchyGroup(_Group):
    """Levels drawn from Poisson(tau), each best-responding to the levels below (Camerer, Ho & Chong 2004)."""

    kind: Literal["cognitive_hierarchy"]
    tau: Annotated[Number, Field(ge=0, le=20)]


ScriptedGroup = UniformGroup | FixedGroup | LevelKGroup | CognitiveHierarchyGroup
Group = Annotated[LLMGroup | ScriptedGroup, Field(discriminator="kind")]


KINDS: dict[str, type[Section]] = {
    get_args(cls.model_fields["kind"].annotation)[0]: cls for cls in (LLMGroup, *get_args(ScriptedGroup))
}
"""The kinds of population groups and their sections."""


class Experiment(Section):
    """One validated experiment file.

    `seeding: request` gives every call to a model a seed of its own, from (seed, round, participant); `engine` seeds
    each engine once, which some builds sample faster with. `patience` is how many seconds an engine may finish no
    reply, or a rank say nothing, before the job is ended as hanging. Under Slurm a run stops by itself `margin` seconds
    before the job's time limit, to be resumed.
    """

    name: Slug
    seed: Annotated[StrictInt, Field(ge=0, lt=2**63)] = 0
    seeding: Literal["request", "engine"] = "request"
    results: Text = "results"
    patience: Annotated[Number, Field(gt=0)] = 600.0
    margin: Annotated[Number, Field(ge=0)] = 120.0
    game: Game = Game()
    models: dict[Slug, Model] = {DEMO_MODEL: Model()}
    population: Annotated[tuple[Group, ...], Field(min_length=1)]

    @property
    def count(self) -> int:
        """Participants in all groups together."""
        return sum(group.count for group in self.population)

    def dump(self) -> str:
        """The resolved experiment as YAML: every default spelled out; `loads` reads it back unchanged."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
