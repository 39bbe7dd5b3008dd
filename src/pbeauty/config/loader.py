"""Reading experiment files: YAML, overrides, validation with every fault in one message."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pbeauty.config.crosscheck import cross_check
from pbeauty.config.persona_files import digest
from pbeauty.errors import ConfigError
from pbeauty.game.experiment import KINDS, Experiment, Model, PersonaSettings, Section, Slug, Writer, nearest

MISSING = "missing; this key must be given"


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
    text = read_text(path)
    return loads(text, overrides, source=str(path), folder=path.parent)


def read_text(path: Path) -> str:
    """The content of a UTF-8 file.

    Raises:
        ConfigError: if it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read the experiment file {path}: {reason}") from None


def loads(
    text: str, overrides: Sequence[str] = (), source: str = "experiment", folder: Path | None = None
) -> Experiment:
    """As `load`, from the text itself; `source` is what errors call it.

    Files that the experiment names are relative to `folder`; without one they are not looked for.
    """
    data = parse(text, f"{source} is not valid YAML")
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: expected keys and values (name, game, population, ...), found {kind(data)}")
    for assignment in overrides:
        override(data, assignment)
    return experiment_of(data, source, folder)


def experiment_of(data: dict[str, Any], source: str, folder: Path | None = None) -> Experiment:
    """As `loads`, from the parsed content of a file, which is not altered."""
    faults: list[tuple[str, str]] = []
    data = _with_files(data, folder, faults) if folder else data
    experiment = None
    try:
        experiment = Experiment.model_validate(data)
    except ValidationError as error:
        faults += [_explain(details) for details in error.errors() if not _is_told_elsewhere(details)]
    faults += cross_check(data)
    if faults or experiment is None:
        lines = "".join(f"\n  {key}: {message}" for key, message in faults)
        plural = "error" if len(faults) == 1 else "errors"
        raise ConfigError(f"{source}: {len(faults)} {plural}{lines}")
    return _with_digests(experiment)


def _with_files(data: dict[str, Any], folder: Path, faults: list[tuple[str, str]]) -> dict[str, Any]:
    """The data with the content of the prompt file, and with the persona files' places and digests."""
    data = dict(data)
    if isinstance(name := data.get("prompts"), str):
        try:
            data["prompts"] = parse((folder / name).read_text(encoding="utf-8"), f"{folder / name} is not valid YAML")
        except (OSError, UnicodeDecodeError, ConfigError) as error:
            told = f"cannot read {folder / name}: {error.strerror}" if isinstance(error, OSError) else str(error)
            faults.append(("prompts", told))
            data["prompts"] = {}
    population = data.get("population")
    groups = list(population) if isinstance(population, list) else []
    for index, group in enumerate(groups):
        personas = group.get("personas") if isinstance(group, dict) else None
        if isinstance(personas, dict) and isinstance(name := personas.get("file"), str) and "digest" not in personas:
            groups[index] = {**group, "personas": {**personas, "file": str(folder / name)}}
    return data | ({"population": groups} if groups else {})


def _with_digests(experiment: Experiment) -> Experiment:
    """The experiment with the digest of every file that it still lacks one of."""
    groups = []
    for group in experiment.population:
        personas: PersonaSettings | None = getattr(group, "personas", None)
        if personas and personas.file and not personas.digest:
            found = personas.model_copy(update={"digest": digest(Path(personas.file))})
            groups.append(group.model_copy(update={"personas": found}))
        else:
            groups.append(group)
    return experiment.model_copy(update={"population": tuple(groups)})


def parse(text: str, complaint: str) -> Any:
    """What a YAML text holds.

    Raises:
        ConfigError: that begins with `complaint`, and says where the fault is.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{complaint}: {_yaml_fault(error)}") from None
    except RecursionError:
        raise ConfigError(f"{complaint}: it is nested too deeply") from None


def override(data: dict[str, Any], assignment: str) -> None:
    """Carries out an assignment such as `game.rounds=10` in parsed data.

    Raises:
        ConfigError: if it cannot be.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise ConfigError(f"--set {assignment}: expected KEY=VALUE, for example game.rounds=10")
    value = parse(text, f"--set {assignment}: the value is not valid YAML")
    assign(data, key.strip(), value, f"--set {assignment}")


def assign(data: dict[str, Any], key: str, value: Any, what: str) -> None:
    """Gives the key `key`, such as `game.rounds` or `population.0.count`, a value in parsed data.

    Raises:
        ConfigError: that begins with `what`, if there is no place for it.
    """
    *parents, last = key.split(".")
    node: Any = data
    for depth, part in enumerate(parents):
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = {}  # a section that the file leaves to its defaults
        step = _step(node, part, what)
        if not isinstance(node[step], (dict, list)):
            raise ConfigError(f"{what}: nothing can be set below {'.'.join(parents[: depth + 1])!r}")
        node[step] = node[step].copy()  # an alias may stand for the same section elsewhere
        node = node[step]
    node[_step(node, last, what)] = value


def _step(node: dict[str, Any] | list[Any], part: str, what: str) -> Any:
    """What `part` of a key indexes `node` with."""
    if isinstance(node, dict):
        return part
    if re.fullmatch("[0-9]{1,9}", part) and int(part) < len(node):
        return int(part)
    raise ConfigError(f"{what}: {part!r} is not an entry of a list of {len(node)} (counted from 0)")


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
    shown = kind(found) if isinstance(found, (dict, list)) or found is None else _brief(found)
    match details["type"]:
        case "extra_forbidden":
            known = _known_keys(details["loc"][:-1])
            return key, f"unknown key{nearest(str(location[-1]), known)}; known here: {', '.join(known)}"
        case "missing":
            return key, MISSING
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
            return key, f"expected a whole number, found {kind(found)}"
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
        if section in (PersonaSettings | None, Writer | None):
            section = next(kind for kind in (PersonaSettings, Writer) if section == kind | None)
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, Section) else []


def kind(value: Any) -> str:
    """What a value is, in the words of the file."""
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
