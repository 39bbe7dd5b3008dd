"""What a schema cannot see: faults between the keys of an experiment file, in its prompts and in the files it names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import ceil, floor
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pbeauty.config.persona_files import read_file
from pbeauty.errors import ConfigError
from pbeauty.game.experiment import (
    DEMO_MODEL,
    KINDS,
    RESERVED,
    Experiment,
    Game,
    LLMGroup,
    OwnPrompts,
    PersonaSettings,
    Section,
    is_number,
    nearest,
)
from pbeauty.game.prompt_variables import population_variables, prompt_variables
from pbeauty.game.prompts import SYSTEM_PROMPTS, USER_PROMPTS, needed, placeholders
from pbeauty.game.randomness import quotas

Fault = tuple[str, str]
"""A key and what is wrong with its value."""

_SUM = 1e-6
"""How far shares may be from one together."""


def cross_check(data: dict[str, Any]) -> Iterator[Fault]:
    """Faults between keys, from the raw data, so that they are told together with those of single keys."""
    population = data.get("population")
    groups = [group if isinstance(group, dict) else {} for group in population] if isinstance(population, list) else []
    yield from _check_game_and_groups(data, groups)
    own = _section(OwnPrompts, data.get("prompts", {})) or OwnPrompts()
    yield from _check_own(own)
    game = _section(Game, data.get("game") or {})
    read = [_section(KINDS[str(group["kind"])], group) if str(group.get("kind")) in KINDS else None for group in groups]
    told = _told(data, game, read)
    for index, (raw, group) in enumerate(zip(groups, read, strict=True)):
        if raw.get("kind") != "llm":
            continue
        for key, default, library, own_texts in (
            ("system_prompt", "classic", SYSTEM_PROMPTS, own.system),
            ("user_prompt", "direct", USER_PROMPTS, own.user),
        ):
            name, known = raw.get(key, default), [*library, *own_texts]
            if isinstance(name, str) and name not in known:
                what = key.replace("_", " ")
                yield (
                    f"population.{index}.{key}",
                    f"no {what} of this name{nearest(name, known)}; known: {', '.join(known)}, found {name!r}",
                )
        # Faults of the group itself are told elsewhere; what else is wrong with it is to be told with them.
        group, left_out = (group, set()) if group else _partly(LLMGroup, raw)
        if isinstance(group, LLMGroup):
            seed = data.get("seed", 0)
            yield from _check_personas(f"population.{index}.personas", group, seed if type(seed) is int else 0, told)
            if told and not left_out & {"personas", "system_prompt", "user_prompt"}:
                yield from _check_prompts(f"population.{index}", group, own, told)


def _check_game_and_groups(data: dict[str, Any], groups: list[dict[str, Any]]) -> Iterator[Fault]:
    models = data.get("models")
    known = [str(name) for name in models] if isinstance(models, dict) else [DEMO_MODEL]
    game = data.get("game")
    game = game if isinstance(game, dict) else {}
    low, high = game.get("low", 0), game.get("high", 100)
    ranged = is_number(low) and is_number(high)
    if ranged and low >= high:
        yield "game", f"low ({low}) must be below high ({high})"
        ranged = False
    seen: dict[str, int] = {}
    for index, group in enumerate(groups):
        name = group.get("name")
        if isinstance(name, str) and seen.setdefault(name, index) != index:
            yield f"population.{index}.name", f"{name!r} is also the name of group {seen[name]}; names must differ"
        model = group.get("model", DEMO_MODEL)
        if group.get("kind") == "llm" and isinstance(model, str) and model not in known:
            yield (
                f"population.{index}.model",
                f"no model {model!r} under `models`{nearest(model, known)}; known: {', '.join(known) or 'none'}",
            )
        value = group.get("value")
        if group.get("kind") == "fixed" and ranged and is_number(value) and not low <= value <= high:
            yield f"population.{index}.value", f"{value} lies outside the range of the game, [{low}, {high}]"
        if group.get("kind") == "uniform" and group.get("integers") is True and ranged and ceil(low) > floor(high):
            yield f"population.{index}.integers", f"the range of the game, [{low}, {high}], holds no whole number"


def _section(kind: type[Section], raw: Any) -> Any:
    """A section by itself, where it is valid."""
    try:
        return kind.model_validate(raw)
    except ValidationError:
        return None


def _partly(kind: type[Section], raw: Mapping[str, Any]) -> tuple[Any, set[str]]:
    """A group as far as it is valid, None if hardly, and the keys that were left out; a size that is missing is 1."""
    try:
        return kind.model_validate(raw), set()
    except ValidationError as error:
        wrong = {str(details["loc"][0]) for details in error.errors() if details["loc"]}
    rest = {key: value for key, value in raw.items() if str(key) not in wrong}
    return _section(kind, {"name": "unnamed", "count": 1, **rest}), wrong


_GAMES = (Game(), Game(multiplier="1/2", offset=1.0, aggregate="median"), Game(players="groups"))
"""Between them they have a value for everything that a prompt can ask of a game."""


def _told(data: dict[str, Any], game: Game | None, groups: Sequence[Any]) -> dict[str, str] | None:
    """The facts that prompts are filled in with, as far as they can be read.

    Those of the game alone where a group cannot be read, those of any game where it is the game.
    """
    whole = [group for group in groups if group is not None]
    if game is not None and whole and len(whole) == len(groups):
        seed = data.get("seed", 0)
        experiment = Experiment.model_construct(
            name="", seed=seed if type(seed) is int else 0, game=game, population=tuple(whole)
        )
        if all(_shares_add_up(group.personas) for group in whole if isinstance(group, LLMGroup) and group.personas):
            return population_variables(experiment)
    unknown = {"composition": "?", "only_one": "?"}  # not to be complained of on top of what is wrong already
    count = sum(group.count for group in whole) or 1
    games = _GAMES if game is None else (game,)
    return {name: text for game in games for name, text in prompt_variables(game, count, len(groups)).items()} | unknown


# --- prompts -----------------------------------------------------------------------------------------------


def _check_own(own: OwnPrompts) -> Iterator[Fault]:
    for kind, texts, library in (("system", own.system, SYSTEM_PROMPTS), ("user", own.user, USER_PROMPTS)):
        for name, text in texts.items():
            if name in library:
                yield f"prompts.{kind}.{name}", "there is a prompt of this name already; choose another"
            try:
                placeholders(text)
            except ValueError as error:
                yield f"prompts.{kind}.{name}", str(error)
            if not text.strip():
                yield f"prompts.{kind}.{name}", "the text is empty"


def _check_prompts(key: str, group: LLMGroup, own: OwnPrompts, told: Mapping[str, str]) -> Iterator[Fault]:
    personas = group.personas
    traits = _attributes(personas, group.name) if personas else set()
    if personas and (personas.template is not None or personas.file or personas.write):
        traits.add("background")
    for what, text, known in (
        ("system_prompt", {**SYSTEM_PROMPTS, **own.system}.get(group.system_prompt), told.keys() | traits),
        ("user_prompt", {**USER_PROMPTS, **own.user}.get(group.user_prompt), told.keys()),
    ):
        if text is None:
            continue  # told already
        try:
            wanted = needed(text, told) if what == "system_prompt" else placeholders(text)
        except ValueError:
            continue  # told already
        missing = [name for name in wanted if name not in known]
        if personas and personas.digest:  # the file was read once, when the run began; its attributes are in the run
            missing = [name for name in missing if name in RESERVED]
        if missing:
            name = getattr(group, what)
            yield f"{key}.{what}", f"{name!r} needs {_explain(missing, known)}"


def _explain(missing: Sequence[str], known: Any) -> str:
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
    told = []
    for name in missing:
        reason = reasons.get(name, "")
        told.append(f"{{{name}}}, which has no value here" + (f": {reason}" if reason else nearest(name, list(known))))
    return "; ".join(told)


# --- personas ----------------------------------------------------------------------------------------------


def _attributes(personas: PersonaSettings, group: str) -> set[str]:
    named = {*personas.attributes, *(name for row in personas.joint for name in row)}
    if not personas.file or personas.digest:
        return named
    try:
        people = read_file(Path(personas.file), group)
    except ConfigError:
        return named
    return named | (people[0].keys() - {"background"} if people else set())


def _shares_add_up(personas: PersonaSettings) -> bool:
    tables = [tuple(shares.values()) for shares in personas.attributes.values()]
    tables += [personas.joint_shares] if personas.joint else []
    return all(abs(sum(shares) - 1) <= _SUM for shares in tables) and len(personas.joint) == len(personas.joint_shares)


def _check_personas(key: str, group: LLMGroup, seed: int, told: Mapping[str, str] | None) -> Iterator[Fault]:
    personas = group.personas
    if personas is None:
        return
    for name, shares in personas.attributes.items():
        if abs(sum(shares.values()) - 1) > _SUM:
            yield f"{key}.attributes.{name}", f"the shares add up to {sum(shares.values()):g}, and not to 1"
    if personas.joint:
        if abs(sum(personas.joint_shares) - 1) > _SUM:
            yield f"{key}.joint", f"the shares add up to {sum(personas.joint_shares):g}, and not to 1"
        if any(row.keys() != personas.joint[0].keys() or not row for row in personas.joint):
            yield f"{key}.joint", "all rows must give the same attributes"
        if len(personas.joint) != len(personas.joint_shares):
            yield f"{key}.joint_shares", "expected a share for each row of `joint`"
        if both := personas.joint[0].keys() & personas.attributes.keys():
            yield f"{key}.joint", f"{', '.join(sorted(both))} is among the independent attributes, too"
    sources = [n for n in ("template", "file", "write") if getattr(personas, n) is not None]
    if len(sources) > 1:
        yield key, f"backgrounds come from one of template, file and write, and not from {' and '.join(sources)}"
    if personas.template is not None:
        try:
            known = {*_attributes(personas, group.name), *(told or {})}
            missing = [name for name in placeholders(personas.template) if name not in known]
            if missing and told:
                yield f"{key}.template", f"it needs {_explain(missing, known)}"
        except ValueError as error:
            yield f"{key}.template", str(error)
    if personas.write and not personas.attributes and not personas.joint:
        yield f"{key}.write", "the model needs attributes to write a background from"
    if personas.file and personas.digest is None:
        yield from _check_file(key, group, personas, seed)


def _check_file(key: str, group: LLMGroup, personas: PersonaSettings, seed: int) -> Iterator[Fault]:
    try:
        people = read_file(Path(str(personas.file)), group.name)
    except ConfigError as error:
        yield f"{key}.file", str(error)
        return
    if len(people) < group.count:
        yield f"{key}.file", f"{personas.file} has {len(people):,} backgrounds for a group of {group.count:,}"
        return
    for name in people[0].keys() & personas.attributes.keys():
        shares = personas.attributes[name]
        wanted = dict(
            zip(shares, quotas(group.count, list(shares.values()), seed, f"{group.name}/{name}"), strict=True)
        )
        found = Counter(person[name] for person in people[: group.count])
        if found != Counter(wanted):
            yield f"{key}.file", f"{personas.file} has {dict(found)} of {name}, and the quotas want {wanted}"
