"""The reference of configuration keys in configs/README.md, held against the schema."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from pbeauty.config.sweep import SweepFile
from pbeauty.game import experiment as schema

README = Path(__file__).parents[3] / "configs" / "README.md"
EVERY_GROUP = {"name", "count", "announce", "kind"}
SECTIONS: dict[str, type[BaseModel]] = {
    "Top level": schema.Experiment,
    "`game`": schema.Game,
    "`models.<name>`": schema.Model,
    "`sampling`": schema.Sampling,
    "`prompts`": schema.OwnPrompts,
    "`personas`": schema.PersonaSettings,
    "`personas.write`": schema.Writer,
    **{f"`kind: {name}`": kind for name, kind in schema.KINDS.items()},
}
ELSEWHERE = ("game", "prompts", "models", "sampling")
"""Keys whose default is a section, which has a table of its own."""


def tables() -> dict[str, dict[str, str]]:
    """The default of each key, as it is written, by section."""
    found = {}
    for part in re.split(r"^## ", README.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        rows = re.findall(r"^\| `([a-z_]+)` \|[^|]+\| ([^|]+) \|[^|]+\|$", text, re.MULTILINE)
        if rows:
            assert len({key for key, _ in rows}) == len(rows), f"{title} lists a key twice"
            found[title] = dict(rows)
    return found


def test_every_section_has_a_table_and_no_table_is_of_something_else():
    groups = {"`population`: every group", "Sweeps"}
    assert set(tables()) == {*SECTIONS, *groups}
    assert set(tables()["`population`: every group"]) == EVERY_GROUP
    assert set(tables()["Sweeps"]) == set(SweepFile.model_fields)


@pytest.mark.parametrize("title", SECTIONS)
def test_every_key_is_listed_with_its_default(title):
    fields, listed = SECTIONS[title].model_fields, tables()[title]
    assert set(listed) == set(fields) - (EVERY_GROUP if title.startswith("`kind") else set())
    for key, written in listed.items():
        field = fields[key]
        if field.is_required():
            assert written == "required", key
        elif key not in ELSEWHERE:
            value: Any = yaml.safe_load(written.strip("`"))
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            assert value == default, key
