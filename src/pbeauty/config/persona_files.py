"""Files of backgrounds (JSON Lines): one participant a line, with a background and any attributes."""

from __future__ import annotations

import hashlib
import json
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from pbeauty.errors import ConfigError
from pbeauty.files import replaced
from pbeauty.game.experiment import RESERVED, Experiment, LLMGroup
from pbeauty.game.personas import Personas, PersonRecord, Source

LONGEST_BACKGROUND = 100_000
"""The most characters that a background in a file may have."""
_FOR_PEOPLE = ("participant", "background_source")
"""Keys that only tell a human reader where a line comes from; reading ignores them."""


def read_persona_files(experiment: Experiment) -> dict[str, list[PersonRecord]]:
    """Reads the persona file of every group that has one, for `game.personas.assign_personas`.

    Returns:
        The people of each file, by the name of the group that takes them.

    Raises:
        ConfigError: if a file cannot be read or is not valid.
    """
    return {
        group.name: read_file(Path(group.personas.file), group.name)
        for group in experiment.population
        if isinstance(group, LLMGroup) and group.personas and group.personas.file
    }


def read_file(path: Path, group: str) -> list[PersonRecord]:
    """Reads the people that a JSONL file describes for one group.

    Every person has the key `background`, and all people have the same attributes. A line whose key `group` names
    another group is skipped. The keys `participant` and `background_source` are ignored.

    Raises:
        ConfigError: if the file cannot be read or a line is not valid; the message names the file and the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read {path}: {reason}") from None
    people: list[PersonRecord] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}, line {number}: no JSON: {error}") from None
        if not isinstance(entry, dict):
            raise ConfigError(f"{path}, line {number}: expected an object with the key `background`")
        if entry.pop("group", group) != group:
            continue
        for name in _FOR_PEOPLE:
            entry.pop(name, None)
        people.append(_person(entry, f"{path}, line {number}"))
        if people[-1].keys() != people[0].keys():
            raise ConfigError(
                f"{path}, line {number}: its keys are {', '.join(people[-1])}; those of the first are "
                f"{', '.join(people[0])}"
            )
    return people


def _person(entry: dict[str, Any], where: str) -> PersonRecord:
    """Checks one line of a file and returns its values as text; `where` is what error messages call the line."""
    background = entry.get("background")
    if not isinstance(background, str) or not background.strip():
        raise ConfigError(f"{where}: `background` is missing or empty; keys found: {', '.join(entry) or 'none'}")
    if len(background) > LONGEST_BACKGROUND:
        raise ConfigError(f"{where}: the background has more than {LONGEST_BACKGROUND:,} characters")
    for name, value in entry.items():
        if name in RESERVED and name != "background":
            raise ConfigError(f"{where}: an attribute cannot have the name {name!r}; prompts use it for something else")
        if not name.isidentifier() or not isinstance(value, (str, int, float)) or isinstance(value, bool):
            raise ConfigError(f"{where}: {name!r} is no attribute; expected a name and a text or a number")
    return {name: str(value).strip() for name, value in entry.items()}


def digest(path: Path) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256; a stored experiment keeps it in place of the content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def write_file(path: Path, experiment: Experiment, personas: Personas) -> None:
    """Writes the backgrounds of the whole population to a file that a later run can read, replaced as a whole."""
    ends = accumulate((group.count for group in experiment.population), initial=0)
    with replaced(path) as file:
        for group, (start, stop) in zip(experiment.population, pairwise(ends), strict=True):
            for participant in range(start, stop):
                if (background := personas.background(participant)) is not None:
                    entry = {"participant": participant, "group": group.name, **personas.attributes(participant)}
                    source = Source(personas.source[participant]).label
                    entry |= {"background": background, "background_source": source}
                    file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
