"""What a schema cannot see: faults between the keys of an experiment, in its prompts and in the files it names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import ceil, floor

from pbeauty.errors import ConfigError, nearest
from pbeauty.files import CONTROL_CHARACTERS
from pbeauty.game.experiment import (
    Experiment,
    FixedGroup,
    Game,
    LLMGroup,
    OwnPrompts,
    PersonaSettings,
    Sampling,
    UniformGroup,
)
from pbeauty.game.personas import PersonRecord, people_of
from pbeauty.game.prompt_variables import population_variables, prompt_variables
from pbeauty.game.prompts import BESIDES, SYSTEM_PROMPTS, USER_PROMPTS, needed, placeholders
from pbeauty.game.randomness import quotas
from pbeauty.game.values import RESERVED

Key = tuple[str, ...]
"""A key of the file, such as ("population", "0", "count")."""
Fault = tuple[Key, str]
"""A key and what is wrong with its value."""
People = dict[int, list[PersonRecord] | ConfigError]
"""What the persona file of a group holds, or why it cannot be read, by the number of the group."""

_SUM = 1e-6
"""How far shares may be from one together."""
_SET_BY_US = {
    "model": "`path` says which model",
    "reasoning_parser": "it is a key of the model itself, beside `engine`",
    "seed": "it follows from the experiment's seed",
    "tensor_parallel_size": "it is a key of the model itself, beside `engine`",
    "pipeline_parallel_size": "an engine is one process on one node",
    "data_parallel_size": "an engine is one process on one node",
    "skip_tokenizer_init": "conversations need the tokenizer",
    "runner": "replies have to be generated",
}
"""Arguments of vLLM that `engine` cannot give, and why."""
_SAMPLED_BY_US = {
    "n": "every participant gives one reply",
    "seed": "every request has one of its own, from the experiment's seed, the round and the participant",
    "structured_outputs": "see `guided`",
    **dict.fromkeys(("logprobs", "prompt_logprobs", "flat_logprobs"), "probabilities are not stored"),
    **dict.fromkeys(("detokenize", "skip_special_tokens", "spaces_between_special_tokens"), "replies are decoded here"),
    **dict.fromkeys(("output_kind", "include_stop_str_in_output", "stream_interval"), "replies are decoded here"),
    **dict.fromkeys(("skip_clone", "output_text_buffer_length"), "it is internal to vLLM"),
}
"""Sampling parameters of vLLM that `sampling` cannot give, and why."""

MOST_PARTICIPANTS = 2**31 - 1
"""Of all groups and sessions together."""


@dataclass(frozen=True)
class _Given:
    """An experiment, and what of it was in the file."""

    experiment: Experiment
    left_out: set[Key]
    """The keys whose values were not valid; the experiment has others in their place."""
    people: People

    def whole(self, *key: str) -> bool:
        """Whether a value is as the file gives it, with all that lies below."""
        return not any(is_within(key, other) or is_within(other, key) for other in self.left_out)


def is_within(key: Key, other: Key) -> bool:
    """Whether a key is another, or lies below it."""
    return key[: len(other)] == other


def cross_check(experiment: Experiment, left_out: set[Key], people: People) -> Iterator[Fault]:
    """Faults between the keys of an experiment, as far as it is valid.

    Args:
        experiment: what is valid of a file, with something else in place of the rest.
        left_out: the keys of the rest.
        people: what is in the persona files that have to be read.
    """
    given = _Given(experiment, left_out, people)
    yield from _check_engines(experiment)
    if experiment.count > MOST_PARTICIPANTS and given.whole("sessions"):
        most = "sessions" if experiment.sessions > 1 else "population"
        yield (most,), f"{experiment.count:,} participants in all are too many; at most {MOST_PARTICIPANTS:,} can play"
    variables = _variables(given)
    yield from _check_own_prompts(experiment.prompts, variables)
    names: dict[str, int] = {}
    for index, group in enumerate(experiment.population):
        key = ("population", str(index))
        if names.setdefault(group.name, index) != index:
            yield (*key, "name"), f"{group.name!r} is also the name of group {names[group.name]}; names must differ"
        if isinstance(group, LLMGroup):
            yield from _check_models(given, key, group)
            yield from _check_sampling((*key, "sampling"), group.sampling)
            yield from _check_prompts(given, index, group, variables)
            if group.personas:
                yield from _check_personas(given, (*key, "personas"), group.personas, variables)
                if index in people:
                    yield from _check_people((*key, "personas", "file"), group, experiment, people[index])
        if given.whole("game", "low") and given.whole("game", "high"):
            yield from _check_range(key, group, experiment.game)


def _check_engines(experiment: Experiment) -> Iterator[Fault]:
    for name, model in experiment.models.items():
        for argument in model.engine.keys() & _SET_BY_US.keys():
            yield ("models", name, "engine", argument), f"it cannot be given here: {_SET_BY_US[argument]}"
        for what in ("engine", "chat_template_kwargs"):
            if _has_control_characters(getattr(model, what)):
                yield ("models", name, what), "it has a character that no text has"


def _has_control_characters(values: object) -> bool:
    return bool(CONTROL_CHARACTERS.search(json.dumps(values, ensure_ascii=False)))


def _check_models(given: _Given, key: Key, group: LLMGroup) -> Iterator[Fault]:
    models, writer = given.experiment.models, group.personas.write if group.personas else None
    named: dict[Key, str | None] = {("model",): group.model}
    if writer:
        named["personas", "write", "model"] = writer.model
    for below, name in named.items():
        if name and name not in models and not any(is_within(("models", name), other) for other in given.left_out):
            known = ", ".join(models) or "none"
            yield (*key, *below), f"no model {name!r} under `models`{nearest(name, list(models))}; known: {known}"


def _check_sampling(key: Key, sampling: Sampling) -> Iterator[Fault]:
    """Parameters that are passed on to vLLM, as far as it is not for vLLM to judge them."""
    for name, value in (sampling.model_extra or {}).items():
        if _has_control_characters([name, value]):
            yield (*key, name), "it has a character that no text has"
        elif name in _SAMPLED_BY_US:
            yield (*key, name), f"it cannot be given here: {_SAMPLED_BY_US[name]}"
        elif near := get_close_matches(name, Sampling.model_fields, n=1, cutoff=0.85):
            yield (*key, name), f"unknown key; did you mean {near[0]!r}?"


def _check_range(key: Key, group: object, game: Game) -> Iterator[Fault]:
    ends = f"[{game.low:g}, {game.high:g}]"
    match group:
        case FixedGroup(value=value) if not game.low <= value <= game.high:
            yield (*key, "value"), f"{value:g} lies outside the range of the game, {ends}"
        case UniformGroup(integers=True) if ceil(game.low) > floor(game.high):
            yield (*key, "integers"), f"the range of the game, {ends}, holds no whole number"
        case LLMGroup(guided="number") if ceil(100 * game.low) > floor(100 * game.high):
            yield (*key, "guided"), f"the range of the game, {ends}, holds no number with two decimals at most"


# --- prompts -----------------------------------------------------------------------------------------------

_GAMES = (Game(), Game(multiplier="1/2", offset=1.0, aggregate="median"), Game(players="groups"))
"""Between them they have a value for everything that a prompt can ask of a game."""


def _variables(given: _Given) -> Mapping[str, str]:
    """What prompts are filled in with; where the game or its population is not known, all that there could be."""
    experiment = given.experiment
    settings = [group.personas for group in experiment.population if isinstance(group, LLMGroup) and group.personas]
    if given.whole("game") and given.whole("population") and not any(map(_share_faults, settings)):
        return population_variables(experiment)
    games = (experiment.game,) if given.whole("game") else _GAMES
    variables = {"composition": "?", "only_one": "?"}
    for game in games:
        variables |= prompt_variables(game, experiment.session_size, len(experiment.population))
    return variables


def _check_own_prompts(own: OwnPrompts, variables: Mapping[str, str]) -> Iterator[Fault]:
    for what, texts, library in (("system", own.system, SYSTEM_PROMPTS), ("user", own.user, USER_PROMPTS)):
        for name, text in texts.items():
            if name in (*library, "retry", "extraction"):
                yield ("prompts", what, name), "there is a prompt of this name already; choose another"
            yield from _check_text(("prompts", what, name), text)  # what it needs is judged where a group uses it
    others: dict[Key, str | None] = {("announcements", quantity): text for quantity, text in own.announcements.items()}
    others |= {(name,): getattr(own, name) for name in ("first_round", "next_round", "retry", "extraction")}
    for key, other in others.items():
        if other is not None:
            yield from _check_text(("prompts", *key), other, [*BESIDES[key[-1]], *variables])
    if own.extraction and "{reply}" not in own.extraction:
        yield ("prompts", "extraction"), "it needs {reply}, the reply that the question is about"


def _check_text(key: Key, text: str, known: Sequence[str] | None = None) -> Iterator[Fault]:
    """A text with placeholders: whether there is one, and whether it asks for what is not known."""
    try:
        wanted = placeholders(text)
    except ValueError as error:
        yield key, str(error)
        return
    if not text.strip():
        yield key, "the text is empty"
    if known is not None and (missing := [name for name in wanted if name not in known]):
        yield key, f"it needs {_explain(missing, known)}"


def _check_prompts(given: _Given, index: int, group: LLMGroup, variables: Mapping[str, str]) -> Iterator[Fault]:
    """Names of prompts that there are none of, and prompts that ask for something that has no value here."""
    key = ("population", str(index))
    own, personas, people = given.experiment.prompts, group.personas or PersonaSettings(), given.people.get(index)
    traits = [*_attributes(personas), *(people[0] if isinstance(people, list) and people else [])]
    if personas.template is not None or personas.file or personas.write:
        traits.append("background")
    for what, name, texts, known in (
        ("system", group.system_prompt, {**SYSTEM_PROMPTS, **own.system}, [*variables, "group", *traits]),
        ("user", group.user_prompt, {**USER_PROMPTS, **own.user}, [*variables, "group"]),
    ):
        if name not in texts:
            similar = nearest(name, list(texts))
            yield (*key, f"{what}_prompt"), f"no {what} prompt {name!r}{similar}; known: {', '.join(texts)}"
            continue
        try:
            wanted = needed(texts[name], variables) if what == "system" else placeholders(texts[name])
        except ValueError:
            continue  # which is a fault of the prompt itself
        missing = [name for name in wanted if name not in known]
        # A persona file is read once, when the run begins; its attributes are in the run.
        if personas.digest and people is None:
            missing = [name for name in missing if name in RESERVED]
        if missing and given.whole(*key, "personas"):
            yield (*key, f"{what}_prompt"), f"{name!r} needs {_explain(missing, known)}"


def _explain(missing: Sequence[str], known: Sequence[str]) -> str:
    reasons = {
        "background": "the group's personas have no background (template, file or write)",
        "only_one": "not exactly one participant differs from all others",
        "shift_rule": "the game has no offset",
        "median_rule": "the game's aggregate is not the median",
        "decimal": "p has no exact decimal",
        "percent": "p is not exact in per cent",
        "words": "p has no words",
        "win_by": "it speaks of individuals, and groups play",
        "all_numbers": "it speaks of individuals, and groups play",
    }
    explained = (
        f"{{{name}}}, which has no value here" + (f": {reasons[name]}" if name in reasons else nearest(name, known))
        for name in missing
    )
    listed = "" if set(missing) <= reasons.keys() else f"; known: {', '.join(sorted({*known}))}"
    return "; ".join(explained) + listed


# --- personas ----------------------------------------------------------------------------------------------


def _attributes(personas: PersonaSettings) -> list[str]:
    return [*personas.attributes, *(name for row in personas.joint for name in row)]


def _share_faults(personas: PersonaSettings) -> list[Fault]:
    """Shares that do not add up, and tables without a share for each row; the keys are those below `personas`."""
    tables: dict[Key, list[float]] = {
        ("attributes", name): list(shares.values()) for name, shares in personas.attributes.items()
    }
    if personas.joint:
        tables["joint",] = list(personas.joint_shares)
    faults: list[Fault] = [
        (key, f"the shares add up to {sum(shares):g}, and not to 1")
        for key, shares in tables.items()
        if abs(sum(shares) - 1) > _SUM
    ]
    if len(personas.joint) != len(personas.joint_shares):
        faults.append((("joint_shares",), "expected a share for each row of `joint`"))
    return faults


def _check_personas(
    given: _Given, key: Key, personas: PersonaSettings, variables: Mapping[str, str]
) -> Iterator[Fault]:
    yield from (((*key, *below), message) for below, message in _share_faults(personas) if given.whole(*key, *below))
    if personas.joint:
        if any(row.keys() != personas.joint[0].keys() or not row for row in personas.joint):
            yield (*key, "joint"), "all rows must give the same attributes"
        if both := personas.joint[0].keys() & personas.attributes.keys():
            yield (*key, "joint"), f"{', '.join(sorted(both))} is among the independent attributes, too"
    sources = [name for name in ("template", "file", "write") if getattr(personas, name) is not None]
    if len(sources) > 1:
        yield key, f"backgrounds come from one of template, file and write, and not from {' and '.join(sources)}"
    if personas.template is not None:
        known = [*variables, "group", *_attributes(personas)]
        yield from _check_text((*key, "template"), personas.template, known)
    if personas.write and not _attributes(personas):
        yield (*key, "write"), "the model needs attributes to write a background from"


def _check_people(
    key: Key, group: LLMGroup, experiment: Experiment, people: list[PersonRecord] | ConfigError
) -> Iterator[Fault]:
    """A persona file that cannot be read, or does not fit the group."""
    try:
        if isinstance(people, ConfigError):
            raise people
        members = people_of(group, people, experiment.sessions)
    except ConfigError as error:
        yield key, str(error)
        return
    attributes = group.personas.attributes if group.personas else {}
    for name in members[0].keys() & attributes.keys():
        shares = attributes[name]
        counts = quotas(group.count, list(shares.values()), experiment.seed, f"{group.name}/{name}")
        wanted = Counter(dict(zip(shares, counts, strict=True)))
        sessions = (members[start : start + group.count] for start in range(0, len(members), group.count))
        found = (Counter(person[name] for person in session) for session in sessions)
        if wrong := next((one for one in found if one != wanted), None):
            yield key, f"the file has {dict(wrong)} of {name}, and the quotas want {dict(wanted)}"
