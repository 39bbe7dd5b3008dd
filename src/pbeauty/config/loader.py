"""Experiment files as typed experiments: overrides, and validation that tells every fault in one message."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pbeauty.config.crosscheck import Key, People, cross_check, is_within
from pbeauty.config.parsing import folder_of, parse, read_text, to_yaml
from pbeauty.config.persona_files import digest, read_file
from pbeauty.errors import ConfigError, nearest
from pbeauty.files import printable
from pbeauty.game.experiment import DEMO_MODEL, KINDS, Experiment, LLMGroup, Section

S = TypeVar("S", bound=Section)
MISSING = "missing; this key must be given"
_PASSES = 50
"""How often what is wrong with a file is left out before it is given up on."""


def load(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Reads, overrides and validates an experiment file.

    Args:
        path: a YAML file.
        overrides: assignments such as `game.rounds=10` or `population.0.count=50`; values are YAML.

    Raises:
        ConfigError: naming the file and every fault in it.
    """
    path = Path(path)
    return loads(read_text(path), overrides, source=str(path), folder=folder_of(path))


def loads(
    text: str, overrides: Sequence[str] = (), source: str = "experiment", folder: Path | None = None
) -> Experiment:
    """As `load`, from the text itself; `source` is what errors call it.

    Files that the experiment names are relative to `folder`.
    """
    data = parse(text, f"{source} is not valid YAML")
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: expected keys and values (name, game, population, ...), found {described(data)}")
    for assignment in overrides:
        key, value = parse_override(assignment)
        assign(data, key, value, f"--set {assignment}")
    return experiment_of(data, source, folder)


def dumps(experiment: Experiment) -> str:
    """The resolved experiment as YAML: every default spelled out; `loads` reads it back unchanged."""
    return to_yaml(experiment.model_dump(mode="json"))


def experiment_of(data: dict[str, Any], source: str, folder: Path | None = None) -> Experiment:
    """As `loads`, from the parsed content of a file, which is not altered.

    Top-level keys that begin with `x-` are ignored; what they hold can be repeated elsewhere by aliases.
    """
    faults: list[tuple[str, str]] = []
    data, folder = {key: value for key, value in data.items() if not key.startswith("x-")}, folder or Path()
    if isinstance(name := data.get("prompts"), str):
        try:
            data["prompts"] = parse(read_text(folder / name), f"{folder / name} is not valid YAML")
        except ConfigError as error:
            faults.append(("prompts", str(error)))
            data["prompts"] = {}
    experiment, left_out = validated(Experiment, data, faults)
    if experiment:
        experiment, people = _located(experiment, folder)
        for key, message in cross_check(experiment, left_out, people):
            if not any(is_within(key, other) for other in left_out):
                faults.append((_dotted(key), message))
    if faults or experiment is None:
        lines = "".join(f"\n  {key}: {message}" for key, message in faults)
        plural = "error" if len(faults) == 1 else "errors"
        raise ConfigError(f"{source}: {len(faults)} {plural}{lines}")
    return experiment


def _located(experiment: Experiment, folder: Path) -> tuple[Experiment, People]:
    """The experiment with its paths as they are seen from here, and the digests of its persona files.

    With it comes what those files hold whose digests are not known yet. A model that is no folder may be a hub id.
    """
    people: People = {}
    groups: list[Any] = list(experiment.population)
    for index, group in enumerate(groups):
        personas = group.personas if isinstance(group, LLMGroup) else None
        if personas and personas.file and not personas.digest:
            path = folder / personas.file
            update = {"file": str(path)}
            try:
                people[index] = read_file(path, group.name, group.count * experiment.sessions)
                update["digest"] = digest(path)
            except ConfigError as error:
                people[index] = error
            groups[index] = group.model_copy(update={"personas": personas.model_copy(update=update)})
    models = dict(experiment.models)
    for name, model in models.items():
        if model.path != DEMO_MODEL and (folder / model.path).is_dir():
            models[name] = model.model_copy(update={"path": str((folder / model.path).absolute())})
    return experiment.model_copy(update={"population": tuple(groups), "models": models}), people


# --- validation --------------------------------------------------------------------------------------------


def validated(kind: type[S], data: dict[str, Any], faults: list[tuple[str, str]]) -> tuple[S | None, set[Key]]:
    """A section as far as it is valid, and the keys that were left out of it since they are not.

    What must be there and is not valid is replaced by something that is, so that everything else can be checked, too.
    What is wrong is added to `faults`.
    """
    left_out: set[Key] = set()
    for _ in range(_PASSES):
        try:
            return kind.model_validate(data), left_out
        except ValidationError as error:
            data = copy.deepcopy(data)
            for details in error.errors():
                if details["type"] == "too_short" and details["input"]:
                    continue  # only because all of its entries have faults
                key = _key_of(details)
                if not any(is_within(key, other) for other in left_out):
                    faults.append(_explain(kind, details, key))
                    left_out.add((*key, "kind") if details["type"].startswith("union_tag") else key)
                _mend(data, key, details)
    return None, left_out


def _key_of(details: ErrorDetails) -> Key:
    """The key that a fault is about; its location also names the kind of a group: ('population', 0, 'llm', ...)."""
    location = [part for part in details["loc"] if part != "[key]"]
    if location[:1] == ["population"] and location[2:3] and location[2] in KINDS:
        del location[2]
    return tuple(map(str, location))


def _mend(data: dict[str, Any], key: Key, details: ErrorDetails) -> None:
    """Takes what is wrong out of the data, or puts something valid in its place."""
    *parents, last = key or ("",)
    node: Any = data
    for part in parents:
        node = node.get(part) if isinstance(node, dict) else node[int(part)] if int(part) < len(node) else None
        if not isinstance(node, (dict, list)):
            return
    if key[:1] == ("population",) and len(key) <= 2:
        group = details["input"] if isinstance(details["input"], dict) else {}
        stand_in = {"name": f"unnamed-{last}", "count": 1} | {k: group[k] for k in ("name", "count") if k in group}
        stand_in["kind"] = "uniform"
        if len(key) == 1:
            data["population"] = [stand_in]
        else:
            node[int(last)] = stand_in
    elif details["type"] == "missing":
        node[last] = {"name": f"unnamed-{'-'.join(parents)}", "count": 1}.get(last, 0)
    elif isinstance(node, dict):
        node.pop(last, None)
    else:
        _mend(data, key[:-1], details)


def _explain(root: type[Section], details: ErrorDetails, key: Key) -> tuple[str, str]:
    """One fault as (key, message), in the words of the file rather than of the validator."""
    name, found = _dotted(key), described(details["input"])
    match details["type"]:
        case "extra_forbidden":
            return name, _unknown_key(root, details["loc"])
        case "missing":
            return name, MISSING
        case "union_tag_not_found" if isinstance(details["input"], dict):
            return f"{name}.kind", f"missing; kinds: {', '.join(KINDS)}"
        case "union_tag_invalid":
            tag = details["ctx"]["tag"]
            return f"{name}.kind", f"no kind {tag!r}{nearest(tag, list(KINDS))}; kinds: {', '.join(KINDS)}"
        case "too_short":
            return name, f"expected at least one {'group' if name == 'population' else 'value'}"
        case "less_than":  # whose own message rounds large bounds
            return name, f"expected a number less than {details['ctx']['lt']}, found {found}"
        case "fault":
            return name, details["msg"]
    message = details["msg"].replace("Input should be ", "expected ")
    message = re.sub("^expected (greater|less)", r"expected a number \1", message)
    return name, f"{_EXPECTED.get(details['type'], message)}, found {found}"


_EXPECTED = {
    **dict.fromkeys(("tuple_type", "list_type"), "expected a list"),
    **dict.fromkeys(("union_tag_not_found", "dict_type", "model_type", "model_attributes_type"), "expected a section"),
    "string_type": "expected text (quotes make it text)",
    "int_type": "expected a whole number",
    "bool_type": "expected true or false",
    "invalid-json-value": "expected text, a number, true/false, a list or a section",
}
"""What a value should have been, by the validator's type of error, where its own words are not the file's."""


def _unknown_key(root: type[Section], location: Sequence[int | str]) -> str:
    """What is known where a key is not; the key meant may also be one of another section."""
    name = str(location[-1])
    known = list(_sections_at(root, location[:-1])[0].model_fields)
    elsewhere = _all_keys(root)
    similar = nearest(name, [*known, *get_close_matches(name, elsewhere, cutoff=0.75)])
    if similar and (meant := similar.split("'")[1]) not in known:
        having = [kind for kind, section in KINDS.items() if meant in section.model_fields and len(location) == 4]
        similar = f"; kind {having[0]} has {meant!r}" if having else f"; did you mean {elsewhere[meant]!r}?"
    return f"unknown key{similar}; known here: {', '.join(known)}"


def _sections_at(root: type[Section], location: Sequence[int | str]) -> list[type[Section]]:
    """The section at a validator's location, such as ('population', 0, 'llm', 'sampling')."""
    sections = [root]
    parts = iter(location)
    for part in parts:
        if str(part) in KINDS and len(sections) > 1:
            sections = [KINDS[str(part)]]
            continue
        annotation = sections[0].model_fields[str(part)].annotation
        sections = _sections_in(annotation)
        if get_origin(annotation) in (dict, tuple):
            next(parts, None)  # a name, or a number, of the user's
    return sections


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for inner in get_args(annotation) for section in _sections_in(inner)]


def _all_keys(section: type[Section], above: str = "") -> dict[str, str]:
    """Where each name of the schema is a key, as `--set` takes it; of a name that is several, the outermost."""
    found: dict[str, str] = {}
    for name in section.model_fields:
        found.setdefault(name, f"{above}{name}")
    for name, field in section.model_fields.items():
        step = {dict: ".NAME", tuple: ".0"}.get(get_origin(field.annotation) or str, "")
        for inner in _sections_in(field.annotation):
            found = _all_keys(inner, f"{above}{name}{step}.") | found
    return found


def _dotted(key: Key) -> str:
    return printable(".".join(key)) or "(file)"


def described(value: Any) -> str:
    """A value as it is written, or what it is, in the words of the file."""
    if name := {dict: "a section", list: "a list", type(None): "nothing"}.get(type(value)):
        return name
    try:
        text = getattr(value, "text", "") or (str(value).lower() if isinstance(value, bool) else repr(value))
    except ValueError:  # Python refuses to write out integers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 100 else f"{text[:97]}..."


# --- overrides ---------------------------------------------------------------------------------------------


def parse_override(assignment: str) -> tuple[str, Any]:
    """The key and the value of an assignment such as `game.rounds=10`.

    Raises:
        ConfigError: if it is none.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not all(key.strip().split(".")):
        raise ConfigError(f"--set {assignment}: expected KEY=VALUE, for example game.rounds=10")
    return key.strip(), parse(text, f"--set {assignment}: the value is not valid YAML")


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
    if re.fullmatch("0|[1-9][0-9]{0,8}", part) and int(part) < len(node):
        return int(part)
    raise ConfigError(f"{what}: {part!r} is not an entry of a list of {len(node)} (counted from 0)")
