"""Who the participants are: attributes with exact quotas, and backgrounds, as arrays over the whole population.

Attributes are dealt out by (seed, attribute, participant id) alone, so that they do not depend on the number of ranks.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty.errors import ConfigError
from pbeauty.game.experiment import RESERVED, Experiment, LLMGroup, PersonaSettings
from pbeauty.game.ragged import Ragged
from pbeauty.game.randomness import uniforms
from pbeauty.game.rules import prompt_variables

NOBODY = "(none)"
"""The label of participants that have no value of an attribute."""
LONGEST_BACKGROUND = 100_000
"""Characters."""
_FOR_PEOPLE = ("participant", "background_source")
"""Keys of a file of backgrounds that only say where a line comes from."""


class Source(IntEnum):
    """Where a participant's background comes from; stored as uint8."""

    NONE = 0
    """There is none."""
    FILE = 1
    TEMPLATE = 2
    WRITTEN = 3
    """The participant's model wrote it."""
    IN_WORDS = 4
    """The model was to write it, and gave no usable reply: it is the attributes in words."""

    @property
    def label(self) -> str:
        """As people read it."""
        return self.name.lower().replace("_", " ")


@dataclass
class Personas:
    """Attributes and backgrounds of some participants: all of them, or those of one rank."""

    labels: dict[str, list[str]] = field(default_factory=dict)
    """The values of each attribute, by code."""
    codes: dict[str, NDArray[np.uint16]] = field(default_factory=dict)
    """uint16[participant] of each attribute."""
    texts: Ragged = field(default_factory=lambda: Ragged(np.uint8))
    """Different backgrounds, UTF-8."""
    row: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """int64[participant]: the row of `texts` that is each participant's background, -1 where there is none."""
    source: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    """uint8[participant], values of `Source`."""

    def of(self, participants: NDArray[np.int64]) -> Personas:
        """The same of some participants, in the given order; only the backgrounds that they need."""
        rows = self.row[participants]
        used, place = np.unique(rows[rows >= 0], return_inverse=True)
        mine = np.full(len(rows), -1)
        mine[rows >= 0] = place
        codes = {name: column[participants] for name, column in self.codes.items()}
        return Personas(self.labels, codes, Ragged.of(*self.texts.take(used)), mine, self.source[participants])

    def attributes(self, participant: int) -> dict[str, str]:
        """The attributes that a participant (a place in this cast) has, by name."""
        named = {name: self.labels[name][column[participant]] for name, column in self.codes.items()}
        return {name: value for name, value in named.items() if value != NOBODY}

    def background(self, participant: int) -> str | None:
        """A participant's background; None where there is none."""
        row = int(self.row[participant])
        return None if row < 0 else bytes(self.texts[row]).decode("utf-8")

    def traits(self, participant: int) -> dict[str, str]:
        """Attributes and background, as system prompts use them."""
        background = self.background(participant)
        return self.attributes(participant) | ({} if background is None else {"background": background})

    def kinds(self) -> NDArray[np.int64]:
        """int64[participant]: equal for participants whose attributes and backgrounds are equal."""
        if not self.codes and not len(self.texts):
            return np.zeros(len(self.row), np.int64)
        columns = np.column_stack([self.row, *(column.astype(np.int64) for column in self.codes.values())])
        return np.unique(columns, axis=0, return_inverse=True)[1].reshape(-1)

    def set_backgrounds(self, participants: NDArray[np.int64], texts: Ragged, sources: Sequence[int]) -> None:
        """Gives participants (places in this cast) backgrounds of their own: row r of `texts` to the r-th."""
        for participant, row in zip(participants.tolist(), range(len(texts)), strict=True):
            self.row[participant] = self.texts.append(texts[row])
        self.source[participants] = sources


# --- quotas ------------------------------------------------------------------------------------------------


def quotas(count: int, shares: Sequence[float], seed: int, stream: str) -> list[int]:
    """How many of `count` each share comes to; they differ from share x count by less than one, and add up.

    What whole numbers leave over goes to the largest remainders (Hamilton's method), among equal ones by lot.
    """
    exact = [Fraction(share).limit_denominator(10**9) for share in shares]
    wanted = [count * share / sum(exact) for share in exact]
    given = [int(number) for number in wanted]
    lots = uniforms(seed, f"remainder/{stream}", 0, 0, len(shares))
    order = sorted(range(len(shares)), key=lambda i: (given[i] - wanted[i], lots[i]))
    for i in order[: count - sum(given)]:
        given[i] += 1
    return given


def deal(start: int, stop: int, shares: Sequence[float], seed: int, stream: str) -> NDArray[np.uint16]:
    """Deals values out to participants start..stop-1 in exact quotas, uint16[stop - start]."""
    order = np.argsort(uniforms(seed, f"persona/{stream}", 0, start, stop), kind="stable")
    dealt = np.empty(stop - start, np.uint16)
    dealt[order] = np.repeat(np.arange(len(shares), dtype=np.uint16), quotas(stop - start, shares, seed, stream))
    return dealt


def counts(experiment: Experiment) -> dict[str, Counter[str]]:
    """How many participants have each value of each attribute that the experiment gives quotas of."""
    found: dict[str, Counter[str]] = {}
    for group in experiment.population:
        if not isinstance(group, LLMGroup) or not group.personas:
            continue
        for name, shares in group.personas.attributes.items():
            many = quotas(group.count, list(shares.values()), experiment.seed, f"{group.name}/{name}")
            found.setdefault(name, Counter()).update(dict(zip(shares, many, strict=True)))
        if group.personas.joint:
            many = quotas(group.count, group.personas.joint_shares, experiment.seed, f"{group.name}/joint")
            for row, number in zip(group.personas.joint, many, strict=True):
                for name, value in row.items():
                    found.setdefault(name, Counter())[value] += number
    return found


def population_variables(experiment: Experiment) -> dict[str, str]:
    """The game and its population in words, for prompts: `game.facts`, `composition`, and `only_one`.

    `only_one` is what exactly one participant is: a value of an attribute, or, without attributes, a group.
    """
    told = prompt_variables(experiment.game, experiment.count, len(experiment.population))
    by_value = [
        (value, f"{many:,} with {name.replace('_', ' ')} {value}", many)
        for name, values in counts(experiment).items()
        for value, many in values.items()
        if many
    ] or [(group.name, f"{group.count:,} of group {group.name}", group.count) for group in experiment.population]
    told["composition"] = ", ".join(text for _, text, _ in by_value)
    alone = [value for value, _, many in by_value if many == 1]
    if len(alone) == 1:
        told["only_one"] = alone[0]
    return told


# --- files -------------------------------------------------------------------------------------------------


def read_file(path: Path, group: str) -> list[dict[str, str]]:
    """The participants that a JSONL file describes: a `background` each, and attributes, which all of them have.

    Lines that name another group in their key `group` are passed over; `participant` and `background_source` are only
    for people.

    Raises:
        ConfigError: saying what is wrong with the file.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read {path}: {reason}") from None
    people: list[dict[str, str]] = []
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


def _person(entry: dict[str, Any], where: str) -> dict[str, str]:
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
    """What stands for the content of a file in a stored experiment."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def write_file(path: Path, experiment: Experiment, cast: Personas) -> None:
    """Writes the whole population's backgrounds as a file that a later run can take."""
    draft = path.with_name(f".{path.name}.draft")
    ends = accumulate((group.count for group in experiment.population), initial=0)
    with draft.open("w", encoding="utf-8") as file:
        for group, (start, stop) in zip(experiment.population, pairwise(ends), strict=True):
            for participant in range(start, stop):
                if (background := cast.background(participant)) is not None:
                    entry = {"participant": participant, "group": group.name, **cast.attributes(participant)}
                    source = Source(cast.source[participant]).label
                    entry |= {"background": background, "background_source": source}
                    print(json.dumps(entry, ensure_ascii=False), file=file)
    draft.replace(path)


# --- the whole population ----------------------------------------------------------------------------------


def has_personas(experiment: Experiment) -> bool:
    """Whether any participant has attributes or a background."""
    return any(isinstance(group, LLMGroup) and group.personas for group in experiment.population)


def cast(experiment: Experiment) -> Personas:
    """The whole population, as far as it is known before a model has written anything.

    Raises:
        ConfigError: if a file has gone, or changed so that it does not fit any more.
    """
    made = Personas(row=np.full(experiment.count, -1, np.int64), source=np.zeros(experiment.count, np.uint8))
    ends = accumulate((group.count for group in experiment.population), initial=0)
    for group, (start, stop) in zip(experiment.population, pairwise(ends), strict=True):
        if not isinstance(group, LLMGroup) or not group.personas:
            continue
        personas = group.personas
        values = _dealt(personas, group.name, experiment.seed, start, stop)
        people = read_file(Path(personas.file), group.name)[: stop - start] if personas.file else []
        if personas.file and len(people) < stop - start:
            raise ConfigError(f"{personas.file} has {len(people)} backgrounds for the {group.count} of {group.name}")
        if people:
            for name in people[0].keys() - {"background"}:
                values[name] = [person[name] for person in people]
        for name in sorted(values):
            _encode(made, name, values[name], start, experiment.count)
        for offset, person in enumerate(people):
            made.row[start + offset] = made.texts.append(person["background"].encode())
            made.source[start + offset] = Source.FILE
        if personas.template is not None:
            made.source[start:stop] = Source.TEMPLATE
            _fill_in(made, personas.template, population_variables(experiment), start, stop)
    return made


def _dealt(personas: PersonaSettings, group: str, seed: int, start: int, stop: int) -> dict[str, Sequence[str]]:
    values: dict[str, Sequence[str]] = {}
    for name, shares in personas.attributes.items():
        codes = deal(start, stop, list(shares.values()), seed, f"{group}/{name}")
        values[name] = np.array(list(shares), object)[codes].tolist()
    if personas.joint:
        rows = deal(start, stop, personas.joint_shares, seed, f"{group}/joint")
        for name in personas.joint[0]:
            values[name] = np.array([row[name] for row in personas.joint], object)[rows].tolist()
    return values


def _encode(made: Personas, name: str, values: Sequence[str], start: int, count: int) -> None:
    """Adds a group's values of an attribute to the population's column."""
    labels = made.labels.setdefault(name, [NOBODY])
    known = {label: code for code, label in enumerate(labels)}
    for value in dict.fromkeys(values):
        if value not in known:
            known[value] = len(labels)
            labels.append(value)
    if len(labels) > 1 << 16:
        raise ConfigError(f"the attribute {name} has more than {(1 << 16) - 1:,} different values")
    column = made.codes.setdefault(name, np.zeros(count, np.uint16))
    column[start : start + len(values)] = [known[value] for value in values]


def _fill_in(made: Personas, template: str, told: Mapping[str, str], start: int, stop: int) -> None:
    """Backgrounds from a template: one text for all who have the same attributes."""
    members = made.of(np.arange(start, stop))
    kinds = members.kinds()
    first = np.unique(kinds, return_index=True)[1]
    rows = [made.texts.append(template.format_map({**told, **members.attributes(int(one))}).encode()) for one in first]
    made.row[start:stop] = np.array(rows)[kinds]
