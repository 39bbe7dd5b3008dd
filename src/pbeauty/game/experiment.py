"""What an experiment is made of: the schema of the experiment file, with every default.

Sections are immutable and refuse unknown keys. `pbeauty.config.loader` reads files into them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StrictBool, StrictStr, model_validator
from pydantic_core import PydanticCustomError

from pbeauty.game.values import (
    Announced,
    Announcements,
    Attribute,
    Label,
    Multiplier,
    Number,
    PositiveInt,
    Prose,
    Share,
    Slug,
    Text,
    Whole,
    fraction,
    label,
)

DEMO_MODEL = "demo"


class Section(BaseModel):
    """A part of the experiment file: immutable, and without room for unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --- the game ----------------------------------------------------------------------------------------------


class Game(Section):
    """The rules: guesses in [low, high], target = offset + multiplier x aggregate, nearest guess wins.

    With `players: groups` each population group plays one number, the mean of its members' guesses. With a `tolerance`
    everybody wins who is that near to the target, and nobody else.
    """

    multiplier: Multiplier = "2/3"
    offset: Number = 0.0
    low: Number = 0.0
    high: Number = 100.0
    aggregate: Literal["mean", "median"] = "mean"
    rounds: PositiveInt = 4
    announce: Announcements = ("target",)
    players: Literal["individuals", "groups"] = "individuals"
    tolerance: Annotated[Number, Field(ge=0)] | None = None

    @property
    def p(self) -> float:
        """The multiplier as a number."""
        return float(fraction(self.multiplier))

    @model_validator(mode="after")
    def _range(self) -> Game:
        if self.low >= self.high:
            ends = {"low": f"{self.low:g}", "high": f"{self.high:g}"}
            raise PydanticCustomError("fault", "low ({low}) must be below high ({high})", ends)
        return self


# --- models and population ---------------------------------------------------------------------------------


class Model(Section):
    """A language model: `demo`, a checkpoint folder, or a hub id; `engine` passes vLLM arguments through.

    Ranks are apportioned to models by `weight`; a model without one weighs as many as it has participants.
    `chat_template_kwargs` are arguments of the model's chat template. `reasoning_parser` names the parser of vLLM that
    splits replies into thought and answer; without it the usual ones are found.
    """

    path: Text = DEMO_MODEL
    tensor_parallel_size: PositiveInt = 1
    weight: Annotated[Number, Field(gt=0)] | None = None
    engine: dict[StrictStr, JsonValue] = {}
    chat_template_kwargs: dict[StrictStr, JsonValue] = {}
    reasoning_parser: Text | None = None


class Sampling(Section):
    """How replies are sampled. Temperature 0 is greedy. Others of vLLM's parameters can be given by name."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)

    temperature: Annotated[Number, Field(ge=0, le=2)] = 1.0
    max_tokens: PositiveInt = 64
    top_p: Annotated[Number, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[Whole, Field(ge=0)] = 0


class Writer(Section):
    """Backgrounds that a model writes before the first round, from the participants' attributes.

    `model` names the writer, null the group's own model; those of another are written beforehand (`pbeauty personas`).
    A background that is shorter than `min_chars` characters, cut off by `max_tokens`, or in another script than its
    language's is asked for again, `retries` times at most.
    """

    model: StrictStr | None = None
    language: Literal["en", "zh"] = "en"
    max_tokens: PositiveInt = 200
    temperature: Annotated[Number, Field(ge=0, le=2)] = 1.0
    min_chars: PositiveInt = 20
    retries: Annotated[Whole, Field(ge=0, le=10)] = 3


def _shares(values: Any) -> Any:
    """A list of values as values of equal shares."""
    if not isinstance(values, list) or not values or not all(isinstance(v, (str, int, float)) for v in values):
        return values
    labels = [label(value) for value in values]
    if twice := next((one for one in labels if labels.count(one) > 1), None):
        raise PydanticCustomError("fault", "it lists {twice} more than once", {"twice": twice})
    return dict.fromkeys(labels, 1 / len(labels))


class PersonaSettings(Section):
    """Who the participants of a group are: attributes with exact quotas, and backgrounds.

    `attributes` gives the shares of each attribute's values (a list of values has equal ones), drawn independently of
    one another; `joint` is a table of values that go together, with the `share` of each row. Backgrounds come from a
    `template` over the attributes, from a JSONL `file`, or are written by a model (`write`). `digest` is that of the
    file, filled in when it is read.
    """

    attributes: dict[Attribute, Annotated[dict[Label, Share], BeforeValidator(_shares)]] = {}
    joint: tuple[dict[Attribute, Label], ...] = ()
    joint_shares: tuple[Share, ...] = ()
    template: Prose | None = None
    file: Text | None = None
    digest: StrictStr | None = None
    write: Writer | None = None

    @model_validator(mode="before")
    @classmethod
    def _split_joint(cls, data: Any) -> Any:
        """The shares of joint rows apart from their values."""
        rows = data.get("joint") if isinstance(data, dict) and "joint_shares" not in data else None
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            return data
        shares = [row.get("share", 1 / len(rows)) for row in rows]
        values = [{key: value for key, value in row.items() if key != "share"} for row in rows]
        return {**data, "joint": values, "joint_shares": shares}


class OwnPrompts(Section):
    """An experiment's own texts: prompts by name, and others in place of the library's, which stands for null."""

    system: dict[Slug, Prose] = {}
    user: dict[Slug, Prose] = {}
    announcements: dict[Literal[Announced, "no_winning_guess", "no_own_rank"], Prose] = {}
    first_round: Prose | None = None
    next_round: Prose | None = None
    retry: Prose | None = None
    extraction: Prose | None = None


class _Group(Section):
    """What its members are told of the last round (`announce`) is by default what the game announces."""

    name: Slug
    count: PositiveInt
    announce: Announcements | None = None

    @property
    def writer(self) -> Writer | None:
        """How a model writes its members' backgrounds; None where none does."""
        return None


class LLMGroup(_Group):
    """Participants who are language models.

    `extraction` says how a reply is read: by patterns alone, by a second call to the model where patterns find no
    clear answer, or always by a second call. `retries` bounds how often an unreadable reply is asked again.
    `guided: number` lets the engine sample nothing but a number of the range.
    """

    kind: Literal["llm"]
    model: StrictStr = DEMO_MODEL
    system_prompt: StrictStr = "classic"
    user_prompt: StrictStr = "direct"
    sampling: Sampling = Sampling()
    extraction: Literal["pattern", "pattern-then-model", "model"] = "pattern-then-model"
    guided: Literal["number"] | None = None
    retries: Annotated[Whole, Field(ge=0, le=10)] = 1
    personas: PersonaSettings | None = None

    @property
    def writer(self) -> Writer | None:
        return self.personas.write if self.personas else None


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
    level: Annotated[Whole, Field(ge=0, le=1000)]


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
    before the job's time limit, to be resumed. `plots: false` leaves the figures to `pbeauty plot`.

    `sessions` play side by side and hear nothing of each other; the counts of the population are those of each one.
    """

    name: Slug
    seed: Annotated[Whole, Field(ge=0, lt=2**63)] = 0
    seeding: Literal["request", "engine"] = "request"
    results: Text = "results"
    sessions: PositiveInt = 1
    patience: Annotated[Number, Field(gt=0)] = 600.0
    margin: Annotated[Number, Field(ge=0)] = 120.0
    plots: StrictBool = True
    game: Game = Game()
    prompts: OwnPrompts = OwnPrompts()
    models: dict[Slug, Model] = {DEMO_MODEL: Model()}
    population: Annotated[tuple[Group, ...], Field(min_length=1)]

    @property
    def session_size(self) -> int:
        """Participants of a session, in all groups together."""
        return sum(group.count for group in self.population)

    @property
    def count(self) -> int:
        """Participants of all sessions together."""
        return self.sessions * self.session_size

    def announced_to(self, group: Group) -> tuple[str, ...]:
        """What a group is told of the round before, in this order."""
        return self.game.announce if group.announce is None else group.announce

    @property
    def used_models(self) -> dict[str, Model]:
        """The models that some group plays with, by name, in the order of the population; none without an LLM group."""
        return {group.model: self.models[group.model] for group in self.population if isinstance(group, LLMGroup)}
