"""Files of backgrounds (JSON Lines): one participant a line, with a background and any attributes."""

from __future__ import annotations

import hashlib
import json
from io import BufferedReader
from pathlib import Path
from typing import Any

from pbeauty.config.parsing import not_utf8
from pbeauty.errors import ConfigError
from pbeauty.files import CONTROL_CHARACTERS, RegularFile, replaced
from pbeauty.game.experiment import Experiment, LLMGroup
from pbeauty.game.personas import Personas, PersonRecord, Source, assign_personas, has_personas, writers
from pbeauty.game.population import everybody
from pbeauty.game.values import RESERVED

LONGEST_BACKGROUND = 100_000
"""The most characters that a background in a file may have."""
_LONGEST_LINE = 1 << 20
"""The most bytes of a line."""
_FOR_PEOPLE = ("participant", "background_source", "written_by")
"""Keys that only tell a human reader where a line comes from; reading ignores them."""


def load_personas(experiment: Experiment) -> Personas | None:
    """The personas of all participants, persona files included (errors: `read_file`); None where nobody has any."""
    if not has_personas(experiment):
        return None
    people = {
        group.name: read_file(Path(group.personas.file), group.name, group.count * experiment.sessions)
        for group in experiment.population
        if isinstance(group, LLMGroup) and group.personas and group.personas.file
    }
    return assign_personas(experiment, people)


def read_file(path: Path, group: str, most: int) -> list[PersonRecord]:
    """Reads the first `most` people that a JSONL file describes for one group.

    Every person has the key `background`, and all people have the same attributes. A line whose key `group` names
    another group is skipped. The keys `participant`, `background_source` and `written_by` are ignored.

    Raises:
        ConfigError: if the file cannot be read or a line is not valid; the message names the file and the line.
    """
    people: list[PersonRecord] = []
    number = 0
    try:
        with BufferedReader(RegularFile(path)) as file:
            while len(people) < most and (line := file.readline(_LONGEST_LINE)):
                number += 1
                if len(line) == _LONGEST_LINE:
                    raise ValueError(f"it has more than {_LONGEST_LINE >> 10:,} KiB")
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if text.strip() and (person := _person(text, group)):
                    people.append(person)
                    if person.keys() != (first := people[0].keys()):
                        raise ValueError(f"its keys are {', '.join(person)}; those of the first are {', '.join(first)}")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read {path}: {not_utf8(error, number)}") from None
    except ValueError as error:
        raise ConfigError(f"{path}, line {number}: {error}" if number else str(error)) from None
    return people


def _person(line: str, group: str) -> PersonRecord | None:
    """The values of a line as text, None if it is of another group, or a ValueError that says what is wrong with it."""
    try:
        # Numbers as they are written; a key that is given twice is a fault.
        entry: Any = json.loads(line, parse_int=str, parse_float=str, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'expected {{"background": "You are ..."}}, in JSON: {error}') from None
    if not isinstance(entry, dict):
        raise ValueError("expected an object with the key `background`")
    if entry.pop("group", group) != group:
        return None
    for name in _FOR_PEOPLE:
        entry.pop(name, None)
    background = entry.get("background")
    if not isinstance(background, str) or not background.strip():
        raise ValueError(f"`background` is missing or empty; keys found: {', '.join(entry) or 'none'}")
    if len(background) > LONGEST_BACKGROUND:
        raise ValueError(f"the background has more than {LONGEST_BACKGROUND:,} characters")
    for name, value in entry.items():
        if name in RESERVED and name != "background":
            raise ValueError(f"an attribute cannot have the name {name!r}; prompts use it for something else")
        if not name.isidentifier() or not isinstance(value, str):
            raise ValueError(f"{name!r} is no attribute; expected a name and a text or a number")
        if CONTROL_CHARACTERS.search(value) or (name != "background" and not value.isprintable()):
            raise ValueError(f"{name!r} has a character that no text has")
    return {name: value.strip() for name, value in entry.items()}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entry = dict(pairs)
    if len(entry) < len(pairs):
        twice = next(name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1)
        raise ValueError(f"the key {twice!r} is given more than once")
    return entry


def digest(path: Path) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256; a stored experiment keeps it in place of the content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def write_file(path: Path, experiment: Experiment, personas: Personas) -> None:
    """Writes the backgrounds of the whole population to a file that a later run can read, replaced as a whole."""
    models = writers(experiment)
    with replaced(path) as file:
        for index, group in enumerate(experiment.population):
            for participant in everybody(experiment, [index]).ids().tolist():
                if (background := personas.background(participant)) is not None:
                    entry = {"participant": participant, "group": group.name, **personas.attributes(participant)}
                    source = Source(personas.source[participant])
                    entry |= {"background": background, "background_source": source.label}
                    entry |= {"written_by": models[index]} if source == Source.WRITTEN else {}
                    file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
