"""Personas: who the language-model participants are, as arrays over the whole population.

A persona is a set of attributes (for example a profession) and a background, a text that describes the person.
Attributes are dealt out in exact quotas. The draw depends only on the seed, the group, the attribute and the
participant's id, so the result is the same for every number of ranks. `config/persona_files.py` reads and
writes the files of backgrounds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pbeauty.errors import ConfigError
from pbeauty.game.experiment import Experiment, LLMGroup, PersonaSettings
from pbeauty.game.population import everybody
from pbeauty.game.prompt_variables import population_variables
from pbeauty.game.prompts import all_texts, needed
from pbeauty.game.randomness import deal
from pbeauty.game.records import Ragged

PersonRecord = dict[str, str]
"""One person of a persona file: the background under the key `background`, and the attributes by name."""
NOBODY = "(none)"
"""The label of participants that have no value of an attribute."""


class Source(IntEnum):
    """Where a participant's background comes from; run.h5 stores it as uint8."""

    NONE = 0
    """The participant has no background."""
    FILE = 1
    """It was read from a persona file."""
    TEMPLATE = 2
    """It is the group's template, filled in with the participant's attributes."""
    WRITTEN = 3
    """The participant's model wrote it."""
    IN_WORDS = 4
    """The model was asked to write it but gave no usable reply, so it lists the attributes in words."""

    @property
    def label(self) -> str:
        """The name as reports and files print it, for example `in words`."""
        return self.name.lower().replace("_", " ")


@dataclass
class Personas:
    """Attributes and backgrounds of a list of participants: the whole population, or those of one rank.

    "Participant" below means a position in this list, counted from 0.
    """

    labels: dict[str, list[str]] = field(default_factory=dict)
    """The possible values of each attribute; a code is an index into this list."""
    codes: dict[str, NDArray[np.uint16]] = field(default_factory=dict)
    """For each attribute the code of every participant's value, uint16[participant]."""
    texts: Ragged = field(default_factory=lambda: Ragged(np.uint8))
    """The different backgrounds as UTF-8, one a row; participants with the same background share a row."""
    row: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """The row of `texts` that holds each participant's background, int64[participant]; -1 means no background."""
    source: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    """Where each background comes from, uint8[participant] with the values of `Source`."""

    def of(self, participants: NDArray[np.int64]) -> Personas:
        """The personas of some participants, int64[participant], in the given order; unused texts are left out."""
        rows = self.row[participants]
        used, place = np.unique(rows[rows >= 0], return_inverse=True)
        mine = np.full(len(rows), -1)
        mine[rows >= 0] = place
        codes = {name: column[participants] for name, column in self.codes.items()}
        return Personas(self.labels, codes, Ragged.of(*self.texts.take(used)), mine, self.source[participants])

    def attributes(self, participant: int) -> dict[str, str]:
        """The attributes that a participant has, by name."""
        named = {name: self.labels[name][column[participant]] for name, column in self.codes.items()}
        return {name: value for name, value in named.items() if value != NOBODY}

    def background(self, participant: int) -> str | None:
        """A participant's background, or None if there is none."""
        row = int(self.row[participant])
        return None if row < 0 else bytes(self.texts[row]).decode("utf-8")

    def traits(self, participant: int) -> dict[str, str]:
        """A participant's attributes, and the background under the key `background`, as system prompts use them."""
        background = self.background(participant)
        return self.attributes(participant) | ({} if background is None else {"background": background})

    def kinds(self) -> NDArray[np.int64]:
        """A number for each participant, int64[participant]; it is equal where attributes and background are equal."""
        columns = np.column_stack([self.row, *self.codes.values()])
        return np.unique(columns, axis=0, return_inverse=True)[1].reshape(-1)

    def set_backgrounds(self, participants: NDArray[np.int64], texts: Ragged, sources: Sequence[int]) -> None:
        """Gives each of some participants, int64[n], a background of its own: UTF-8, one a row, and n of `Source`."""
        self.row[participants] = [self.texts.append(texts[row]) for row in range(len(texts))]
        self.source[participants] = sources


# --- the whole population ----------------------------------------------------------------------------------


def has_personas(experiment: Experiment) -> bool:
    """Whether any group of the experiment has personas."""
    return any(isinstance(group, LLMGroup) and group.personas for group in experiment.population)


def writers(experiment: Experiment) -> dict[int, str]:
    """The models that write backgrounds: the name of each, by the index of the group that they are for."""
    return {
        index: group.writer.model or group.model
        for index, group in enumerate(experiment.population)
        if isinstance(group, LLMGroup) and group.writer
    }


def other_writers(experiment: Experiment) -> str | None:
    """What has to be done first where a group's backgrounds are written by a model that does not play it, else None."""
    for index, group in enumerate(experiment.population):
        if isinstance(group, LLMGroup) and group.writer and group.writer.model not in (None, group.model):
            return (
                f"population.{index}.personas.write.model: {group.writer.model} writes the backgrounds of {group.name} "
                "and does not play them; have them written first (`pbeauty personas CONFIG --out FILE`), then give "
                f"population.{index}.personas.file=FILE and population.{index}.personas.write=null"
            )
    return None


def unmentioned_personas(experiment: Experiment) -> list[str]:
    """A sentence for each group whose system prompt mentions nothing of its personas."""
    general = population_variables(experiment)
    told_of_all = {"composition", "only_one"}
    warnings = []
    for index, group in enumerate(experiment.population):
        if isinstance(group, LLMGroup) and group.personas:
            text = all_texts(experiment.prompts).system[group.system_prompt]
            if not set(needed(text, general)) - (general.keys() - told_of_all) - {"group"}:
                warnings.append(
                    f"population.{index}: {group.name} are not told who they are: the system prompt "
                    f"{group.system_prompt} has neither {{background}} nor an attribute of their personas"
                )
    return warnings


def assign_personas(
    experiment: Experiment, from_files: Mapping[str, Sequence[PersonRecord]] = MappingProxyType({})
) -> Personas:
    """Gives every participant of the population attributes and a background, but for those that a model is to write.

    Args:
        experiment: whose population it is.
        from_files: the people in the groups' persona files, by group name.

    Raises:
        ConfigError: if a file has too few people for its group, or an attribute has too many values.
    """
    personas = Personas(row=np.full(experiment.count, -1, np.int64), source=np.zeros(experiment.count, np.uint8))
    for index, group in enumerate(experiment.population):
        if not isinstance(group, LLMGroup) or not group.personas:
            continue
        wanted = group.personas
        members = everybody(experiment, [index]).ids()
        values = _dealt(wanted, group.name, experiment.seed, members.reshape(experiment.sessions, -1))
        people = people_of(group, from_files.get(group.name, ()), experiment.sessions) if wanted.file else []
        if people:
            values |= {name: [person[name] for person in people] for name in people[0].keys() - {"background"}}
            personas.row[members] = [personas.texts.append(person["background"].encode()) for person in people]
            personas.source[members] = Source.FILE
        for name in sorted(values):
            _encode(personas, name, values[name], members, experiment.count)
        if wanted.template is not None:
            personas.source[members] = Source.TEMPLATE
            variables = population_variables(experiment) | {"group": group.name}
            _fill_in(personas, wanted.template, variables, members)
    return personas


def people_of(group: LLMGroup, people: Sequence[PersonRecord], sessions: int) -> list[PersonRecord]:
    """The people of a file as the members of a group: others in each session if there are enough, else the same.

    Raises:
        ConfigError: if there are too few for one session.
    """
    if len(people) < group.count:
        file = group.personas.file if group.personas else None
        raise ConfigError(f"{file} has {len(people):,} backgrounds for a group of {group.count:,}")
    if len(people) < group.count * sessions:
        return [*people[: group.count]] * sessions
    return [*people[: group.count * sessions]]


def _dealt(wanted: PersonaSettings, group: str, seed: int, members: NDArray[np.int64]) -> dict[str, list[str]]:
    """Deals the values of a group's attributes out to its members, int64[session, member], by name of the attribute."""
    values: dict[str, list[str]] = {}

    def deal_to_all(shares: Sequence[float], stream: str) -> NDArray[np.uint16]:
        return np.concatenate([deal(ids, shares, seed, f"{group}/{stream}") for ids in members])

    for name, shares in wanted.attributes.items():
        values[name] = np.array(list(shares), object)[deal_to_all(list(shares.values()), name)].tolist()
    if wanted.joint:
        rows = deal_to_all(wanted.joint_shares, "joint")
        for name in wanted.joint[0]:
            values[name] = np.array([row[name] for row in wanted.joint], object)[rows].tolist()
    return values


def _encode(personas: Personas, name: str, values: Sequence[str], members: NDArray[np.int64], count: int) -> None:
    """Stores the values of one attribute for some members of a population of `count`."""
    labels = list(dict.fromkeys([*personas.labels.get(name, [NOBODY]), *values]))
    if len(labels) > 1 << 16:
        raise ConfigError(f"the attribute {name} has more than {(1 << 16) - 1:,} different values")
    personas.labels[name], code_of = labels, {label: code for code, label in enumerate(labels)}
    column = personas.codes.setdefault(name, np.zeros(count, np.uint16))
    column[members] = [code_of[value] for value in values]


def _fill_in(personas: Personas, template: str, variables: Mapping[str, str], members: NDArray[np.int64]) -> None:
    """Gives participants the template as background; those with equal attributes share one text."""
    own = personas.of(members)
    kinds = own.kinds()
    attributes = [own.attributes(int(one)) for one in np.unique(kinds, return_index=True)[1]]
    texts = [template.format_map({**variables, **values}) for values in attributes]
    personas.row[members] = np.array([personas.texts.append(text.encode()) for text in texts])[kinds]
