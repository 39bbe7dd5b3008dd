"""What an experiment is made of: the schema of the experiment file, with every default.

Sections are immutable and refuse unknown keys. `pbeauty.config.loader` reads files into them.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal, TypeGuard, get_args

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
    model_validator,
)
from pydantic_core import PydanticCustomError

from pbeauty.files import CONTROL_CHARACTERS

DEMO_MODEL = "demo"
LARGEST = 1e15
"""The largest number that an experiment may name, in size; arithmetic on guesses stays exact far beyond cents."""

RESERVED = (
    "group", "session", "background", "background_source", "written_by", "participant", "share", "run", "round",
    "guess", "status", "target", "seed", "seeding", "sessions", "count", "others", "low", "high", "multiplier",
    "offset", "aggregate", "target_rule", "win_rule", "win_by", "shift", "shift_rule", "median_rule", "fraction",
    "decimal", "percent", "words", "all_numbers", "players", "group_count", "groups", "composition", "only_one",
    "rules", "rules_paraphrased", "rules_as_story", "rules_as_fraction", "rules_as_decimal", "rules_as_percent",
    "rules_in_words", "reply", "rank",
)  # fmt: skip
"""Names that an attribute of participants cannot have, since prompts and results use them."""


# --- values ------------------------------------------------------------------------------------------------


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value can be a number of the experiment: not infinite, not NaN, no larger than +-1e15."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PydanticCustomError("number", "expected a number")
    if not is_number(value):
        raise PydanticCustomError("number", "expected a finite number, at most 1e15 in size")
    return float(value) + 0.0  # never -0.0


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


def _share(value: Any) -> float:
    """A share of a population: a number, or a fraction as text such as `1/6`."""
    if isinstance(value, str) and re.fullmatch(r" *[0-9]{1,9} */ *[1-9][0-9]{0,8} *", value):
        value = float(Fraction(value.replace(" ", "")))
    if not is_number(value) or not 0 <= value <= 1:
        raise PydanticCustomError("share", "expected a share from 0 to 1, or a fraction such as 1/6")
    return float(value)


def _whole(value: Any) -> Any:
    """A number without a fraction, such as 1e6, as a whole number."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53 else value


def _prose(value: str) -> str:
    if found := CONTROL_CHARACTERS.search(value):
        raise PydanticCustomError("fault", "it has the character {code}, which no text has", {"code": repr(found[0])})
    return value


def _label(value: Any) -> Any:
    """A value of an attribute: text, or a number or true/false, which stand for their text as it is written."""
    value = str(value).lower() if isinstance(value, bool) else value
    return getattr(value, "text", str(value)) if isinstance(value, (int, float)) else value


def _once(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) < len(value):
        raise PydanticCustomError("fault", "each quantity can be announced once")
    return value


def _attribute(value: str) -> str:
    if not re.fullmatch("[a-z][a-z0-9_]{0,49}", value) or value in RESERVED:
        raise PydanticCustomError(
            "attribute",
            "expected a name of small letters, digits and '_' that prompts have no other meaning for (not {reserved})",
            {"reserved": ", ".join(RESERVED)},
        )
    return value


Number = Annotated[float, BeforeValidator(_number)]
Whole = Annotated[StrictInt, BeforeValidator(_whole)]
Multiplier = Annotated[str, BeforeValidator(_multiplier)]
Slug = Annotated[StrictStr, AfterValidator(_slug)]
Text = Annotated[StrictStr, AfterValidator(_text)]
Prose = Annotated[StrictStr, AfterValidator(_prose)]
PositiveInt = Annotated[Whole, Field(ge=1, lt=2**31)]
Announced = Literal["target", "mean", "median", "winning_guess", "group_numbers", "own_rank"]
Announcements = Annotated[tuple[Announced, ...], AfterValidator(_once)]
Share = Annotated[float, BeforeValidator(_share)]
Label = Annotated[StrictStr, BeforeValidator(_label), AfterValidator(_text)]
Attribute = Annotated[StrictStr, AfterValidator(_attribute)]


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
        above, _, below = self.multiplier.partition("/")
        return float(Fraction(above) / Fraction(below or 1))

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


def _equal_shares(name: str, values: Any) -> Any:
    if not isinstance(values, list) or not values or not all(isinstance(v, (str, int, float)) for v in values):
        return values
    labels = [_label(value) for value in values]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise PydanticCustomError("fault", "{name} lists {twice} more than once", {"name": name, "twice": twice})
    return dict.fromkeys(labels, 1 / len(labels))


class PersonaSettings(Section):
    """Who the participants of a group are: attributes with exact quotas, and backgrounds.

    `attributes` gives the shares of each attribute's values (a list of values has equal ones), drawn independently of
    one another; `joint` is a table of values that go together, with the `share` of each row. Backgrounds come from a
    `template` over the attributes, from a JSONL `file`, or are written by a model (`write`). `digest` is that of the
    file, filled in when it is read.
    """

    attributes: dict[Attribute, dict[Label, Share]] = {}
    joint: tuple[dict[Attribute, Label], ...] = ()
    joint_shares: tuple[Share, ...] = ()
    template: Prose | None = None
    file: Text | None = None
    digest: StrictStr | None = None
    write: Writer | None = None

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, data: Any) -> Any:
        """Lists of equal shares as mappings; the shares of joint rows apart from their values."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        attributes, joint = data.get("attributes"), data.get("joint")
        if isinstance(attributes, dict):
            data["attributes"] = {name: _equal_shares(name, values) for name, values in attributes.items()}
        rows = joint if isinstance(joint, list) else []
        if "joint_shares" not in data and rows and all(isinstance(row, dict) for row in rows):
            data["joint_shares"] = [row.get("share", 1 / len(rows)) for row in rows]
            data["joint"] = [{key: value for key, value in row.items() if key != "share"} for row in rows]
        return data


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
    def with_models(self) -> bool:
        """Whether language models take part."""
        return any(isinstance(group, LLMGroup) for group in self.population)

    @property
    def used_models(self) -> dict[str, Model]:
        """The models that some group plays with, by name, in the order of the population."""
        return {group.model: self.models[group.model] for group in self.population if isinstance(group, LLMGroup)}
