"""Reading experiment files: YAML, overrides, validation with every fault in one message."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import ceil, floor
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pbeauty.config import DEMO_MODEL, KINDS, ConfigError, Experiment, Model, Section, Slug, is_number, nearest


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: a key given twice is an error, `1e3` is a number, and dates are text (YAML 1.2)."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError) as error:
            raise yaml.constructor.ConstructorError(
                None, None, f"this value cannot be read ({error})", node.start_mark
            ) from None


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    keys = [loader.construct_object(key, deep=True) for key in own]
    for key, key_node in zip(keys, own, strict=True):
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is given more than once", key_node.start_mark
            )
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Reads, overrides and validates an experiment file.

    Args:
        path: a YAML file.
        overrides: assignments such as `game.rounds=10` or `population.0.count=50`; values are YAML.

    Raises:
        ConfigError: naming the file and every fault in it.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read the experiment file {path}: {reason}") from None
    return loads(text, overrides, source=str(path))


def loads(text: str, overrides: Sequence[str] = (), source: str = "experiment") -> Experiment:
    """As `load`, from the text itself; `source` is what errors call it."""
    data = _parse(text, f"{source} is not valid YAML")
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: expected keys and values (name, game, population, ...), found {_kind(data)}")
    for assignment in overrides:
        _override(data, assignment)
    faults: list[tuple[str, str]] = []
    experiment = None
    try:
        experiment = Experiment.model_validate(data)
    except ValidationError as error:
        faults += [_explain(details) for details in error.errors() if not _is_told_elsewhere(details)]
    faults += _cross_check(data)
    if faults or experiment is None:
        lines = "".join(f"\n  {key}: {message}" for key, message in faults)
        plural = "error" if len(faults) == 1 else "errors"
        raise ConfigError(f"{source}: {len(faults)} {plural}{lines}")
    return experiment


def _parse(text: str, complaint: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{complaint}: {_yaml_fault(error)}") from None
    except RecursionError:
        raise ConfigError(f"{complaint}: it is nested too deeply") from None


def _override(data: dict[str, Any], assignment: str) -> None:
    key, equals, text = assignment.partition("=")
    *parents, last = key.strip().split(".")
    if not equals or not all([*parents, last]):
        raise ConfigError(f"--set {assignment}: expected KEY=VALUE, for example game.rounds=10")
    value = _parse(text, f"--set {assignment}: the value is not valid YAML")
    node: Any = data
    for depth, part in enumerate(parents):
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = {}  # a section that the file leaves to its defaults
        step = _step(node, part, assignment)
        if not isinstance(node[step], (dict, list)):
            raise ConfigError(f"--set {assignment}: nothing can be set below {'.'.join(parents[: depth + 1])!r}")
        node[step] = node[step].copy()  # an alias may stand for the same section elsewhere
        node = node[step]
    node[_step(node, last, assignment)] = value


def _step(node: dict[str, Any] | list[Any], part: str, assignment: str) -> Any:
    """What `part` of an assignment's key indexes `node` with."""
    if isinstance(node, dict):
        return part
    if re.fullmatch("[0-9]{1,9}", part) and int(part) < len(node):
        return int(part)
    raise ConfigError(f"--set {assignment}: {part!r} is not an entry of a list of {len(node)} (counted from 0)")


def _cross_check(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Faults between keys, from the raw data, so that they are told together with those of single keys."""
    population = data.get("population")
    groups = [group if isinstance(group, dict) else {} for group in population] if isinstance(population, list) else []
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


def _is_told_elsewhere(details: ErrorDetails) -> bool:
    """The range is checked between keys; and a list whose entries all have faults counts as too short."""
    return details["type"] == "range" or (details["type"] == "too_short" and len(details["input"]) > 0)


def _explain(details: ErrorDetails) -> tuple[str, str]:
    """One fault as (key, message), in the words of the file rather than of the validator."""
    location = [part for part in details["loc"] if part != "[key]"]
    if _names_kind(location):
        del location[2]
    key = ".".join(str(part) for part in location) or "(file)"
    context = details.get("ctx", {})
    found = details["input"]
    shown = _kind(found) if isinstance(found, (dict, list)) or found is None else _brief(found)
    match details["type"]:
        case "extra_forbidden":
            known = _known_keys(details["loc"][:-1])
            return key, f"unknown key{nearest(str(location[-1]), known)}; known here: {', '.join(known)}"
        case "missing":
            return key, "missing; this key must be given"
        case "union_tag_not_found":
            return f"{key}.kind", f"missing; kinds: {', '.join(KINDS)}"
        case "union_tag_invalid":
            return (
                f"{key}.kind",
                f"no kind {context['tag']!r}{nearest(context['tag'], list(KINDS))}; kinds: {', '.join(KINDS)}",
            )
        case "literal_error":
            return key, f"{shown} is not allowed; expected {context['expected']}"
        case "int_type":
            return key, f"expected a whole number, found {_kind(found)}"
        case "greater_than_equal":
            return key, f"{shown} is not allowed; expected {context['ge']:g} or more"
        case "less_than_equal":
            return key, f"{shown} is not allowed; expected {context['le']:g} or less"
        case "greater_than":
            return key, f"{shown} is not allowed; expected more than {context['gt']:g}"
        case "less_than":
            return key, f"{shown} is not allowed; expected less than {context['lt']}"
        case "too_short":
            return key, "expected at least one group"
        case "announce":
            return key, details["msg"]
    message = _EXPECTED.get(details["type"]) or f"{details['msg'][0].lower()}{details['msg'][1:]}"
    return key, f"{message}, found {shown}"


_EXPECTED = {
    "tuple_type": "expected a list",
    "dict_type": "expected a section",
    "model_type": "expected a section",
    "model_attributes_type": "expected a section",
    "string_type": "expected text",
    "bool_type": "expected true or false",
    "invalid-json-value": "expected text, a number, true/false, a list or a section",
    "invalid_key": "expected text as the key",
}
"""What a value should have been, by the validator's type of error."""


def _names_kind(location: Sequence[int | str]) -> bool:
    """Whether a validator's location tells a group's kind, which is no key: ('population', 0, 'llm', ...)."""
    return len(location) > 2 and location[0] == "population" and location[2] in KINDS


def _known_keys(location: Sequence[int | str]) -> list[str]:
    """The keys of the section at a validator's location, such as ('population', 0, 'llm', 'sampling')."""
    section: Any = Experiment
    for depth, part in enumerate(location):
        if depth == 2 and _names_kind(location):
            section = KINDS[str(part)]
        elif isinstance(section, type) and issubclass(section, Section) and part in section.model_fields:
            section = section.model_fields[str(part)].annotation
        elif section == dict[Slug, Model]:
            section = Model
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, Section) else []


def _kind(value: Any) -> str:
    names = {dict: "a section", list: "a list", str: "text", bool: "true/false", type(None): "nothing"}
    name = names.get(type(value), type(value).__name__)
    return f"{name} ({_brief(value)})" if isinstance(value, (str, bool, float)) else name


def _brief(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out integers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 100 else f"{text[:97]}..."


def _yaml_fault(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem
