"""Experiments as flat keys, and which of them tell several experiments apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pbeauty.game.experiment import Experiment

WITHOUT_EFFECT = ("results", "patience", "margin", "plots")
"""Keys that say where and how an experiment is played, and not what."""
_LONGEST = 60
"""Characters of a section that is written out as one value."""


def flat(experiment: Experiment, without: Any = None) -> dict[str, Any]:
    """An experiment as keys such as `population.0.sampling.temperature`, and JSON values, but for keys `without`.

    What is left out is told as pydantic's `model_dump` is told: names of keys, or such below each of them.

    A list of single values, such as what is announced, is one value; of an empty section there is nothing.
    """
    found: dict[str, Any] = {}

    def walk(value: Any, key: str) -> None:
        if isinstance(value, list) and any(isinstance(child, (dict, list)) for child in value):
            value = dict(enumerate(value))
        if not isinstance(value, dict):
            found[key] = value
            return
        for name, child in value.items():
            walk(child, f"{key}.{name}" if key else str(name))

    walk(experiment.model_dump(mode="json", exclude=without), "")
    for index, group in enumerate(experiment.population):  # a group that is told what all are has nothing of its own
        found[f"population.{index}.announce"] = None if group.announce == experiment.game.announce else group.announce
    return found


def joined(experiments: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Flat experiments in which a section that others lack, such as personas, is one value; only what differs among
    those that have it keeps keys of its own."""
    found = [dict(one) for one in experiments]
    for section in dict.fromkeys(key for one in found for key, value in one.items() if value is None):
        having = [one for one in found if any(key.startswith(f"{section}.") for key in one)]
        within = dict.fromkeys(key for one in having for key in one if key.startswith(f"{section}."))
        differing = {key for key in within if len({repr(one.get(key)) for one in having}) > 1}
        for one in having:
            own = {key: one.pop(key) for key in within if key in one and key not in differing}
            if not differing:
                text = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in own.items() if value)
                one[section] = text if len(text) <= _LONGEST else True
    return found


def value_of(one: Mapping[str, Any], key: str) -> Any:
    """What a flat experiment has for a key: what is announced, also to a group, in words; None for nothing."""
    value = one.get(key)
    if key not in one or not key.endswith(".announce"):
        return value
    return ", ".join(map(str, one["game.announce"] if value is None else value)) or "nothing"


def varied(experiments: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of flat experiments whose values differ, in their order.

    Keys of a group that some experiments lack, or that is of another kind there, are not among them if all others agree
    on them: the group's name or kind tells these experiments apart.
    """
    keys = dict.fromkeys(key for one in experiments for key in one)
    differing = [key for key in keys if len({repr(one.get(key)) for one in experiments}) > 1]
    return [key for key in differing if not _comes_with_group(key, experiments)]


def _comes_with_group(key: str, experiments: Sequence[Mapping[str, Any]]) -> bool:
    section, _, rest = key.partition(".")
    place, _, rest = rest.partition(".")
    if section != "population" or rest == "name":
        return False
    kind = f"population.{place}.kind"
    having, lacking = [one for one in experiments if key in one], [one for one in experiments if key not in one]
    apart = {one[kind] for one in having}.isdisjoint(one.get(kind) for one in lacking)
    return bool(lacking) and apart and len({repr(one[key]) for one in having}) == 1


def varied_settings(experiments: Iterable[Experiment]) -> list[dict[str, Any]]:
    """What tells experiments apart, as columns of a table of them: of each its values by key, None where it has none.

    A column holds true and false, or numbers, where all of its values are such; otherwise text.
    """
    settings = joined(flat(experiment, {"name", *WITHOUT_EFFECT}) for experiment in experiments)
    found: list[dict[str, Any]] = [{} for _ in settings]
    for key in varied(settings):
        values = [value_of(one, key) for one in settings]
        kinds = {bool if isinstance(value, bool) else float for value in values if isinstance(value, (int, float))}
        plain = len(kinds) == 1 and all(value is None or isinstance(value, (int, float)) for value in values)
        for one, value in zip(found, values, strict=True):
            one[key] = value if plain or value is None else in_words(value)
    return found


def in_words(value: Any) -> str:
    """A value as a cell of a table, or in a line of text."""
    if isinstance(value, list) and value:
        return ", ".join(map(str, value))
    return {"None": "none", "True": "yes", "False": "no", "[]": "none"}.get(repr(value), str(value).removesuffix(".0"))
