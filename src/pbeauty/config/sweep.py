"""Sweep files: a base experiment, what varies, and the cases that come of it, checked before any of them is played.

base: classic.yaml              # an experiment or another sweep, a list of files, or an experiment itself
set: {game.rounds: 1}           # for all cases
vary:                           # every combination
  game.multiplier: [1/2, 2/3]
table: cases.csv                # or a list of mappings, or a YAML file of one: a case per row

What a file sets or varies takes the place of what its base makes of the same key: cases of the base that differ in
nothing else become one. So a sweep over models is played with a single one by setting the model.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from math import prod
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pbeauty.config.differences import WITHOUT_EFFECT
from pbeauty.config.loader import MISSING, assign, described, experiment_of, load, parse_override, validated
from pbeauty.config.parsing import folder_of, parse, read_csv, read_text
from pbeauty.errors import ConfigError, nearest
from pbeauty.files import OWN_NAMES
from pbeauty.game.experiment import Experiment, Section
from pbeauty.game.values import Slug, Text, fraction

_MOST = 100_000
_DEEPEST = 5
_LISTED = 10
"""Pairs of equal cases that a message lists."""
Row = dict[str, Any]
"""What is special about a case: keys and their values."""


class SweepFile(Section):
    """What a sweep file holds; `base`, `table` and what is varied are looked at when the cases are made."""

    base: Any
    name: Slug | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    vary: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    table: Any = None
    results: Text | None = None


@dataclass(frozen=True)
class Case:
    """One experiment of a sweep."""

    name: str
    """Unique within the sweep; names the case's folder."""
    experiment: Experiment


@dataclass(frozen=True)
class Sweep:
    """A sweep file with all its cases."""

    name: str
    folder: Path
    """Where the cases' folders are, by default."""
    cases: tuple[Case, ...]

    def pick(self, which: str) -> Case:
        """The case of a number, from 1, or of a name that is no number; ConfigError if there is none."""
        names = [case.name for case in self.cases]
        if re.fullmatch("[1-9][0-9]{0,8}", which):
            if int(which) <= len(names):
                return self.cases[int(which) - 1]
        elif which in names:
            return self.cases[names.index(which)]
        raise ConfigError(f"sweep {self.name} has no case {which!r}{nearest(which, names)}; it has {len(names)}")


@dataclass
class _Draft:
    """A case that has not been checked yet."""

    data: dict[str, Any]
    folder: Path
    """What the files that it names are relative to."""
    parts: list[tuple[str, str]] = field(default_factory=list)
    """Of its name, with the key that each comes from; "" where it comes from none."""
    varied: set[str] = field(default_factory=set)
    """The keys that make the case what it is."""


class _Faults(dict[str, str]):
    """What is wrong, each once, with the case that has it, or "" for faults of the sweep itself."""

    def of_file(self, path: Path, message: object) -> None:
        self.setdefault(f"{path.name}: {message}", "")


def is_sweep(path: Path) -> bool:
    """Whether a file is a sweep, and not an experiment; False where it cannot be told."""
    try:
        data = parse(read_text(path), str(path))
    except ConfigError:
        return False
    return isinstance(data, dict) and "base" in data


def load_cases(path: Path, overrides: Sequence[str] = (), case: str | None = None) -> list[Experiment]:
    """Reads all cases of a sweep, or the one that `case` names, or an experiment; errors are those of `load_sweep`."""
    if case is not None:
        return [load_case(path, overrides, case)[1].experiment]
    return [one.experiment for one in load_sweep(path, overrides).cases] if is_sweep(path) else [load(path, overrides)]


def load_case(path: Path, overrides: Sequence[str], case: str) -> tuple[Sweep, Case]:
    """Reads a sweep, and picks a case of it; errors are those of `load_sweep` and `Sweep.pick`."""
    if not is_sweep(path):
        raise ConfigError(f"{path} is no sweep and has no cases")
    sweep = load_sweep(path, overrides)
    return sweep, sweep.pick(case)


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Reads a sweep and checks all its cases.

    Args:
        path: a YAML file.
        overrides: assignments that hold for all cases; they take the place of what the file makes of the same keys.

    Raises:
        ConfigError: naming every fault, each once, with a case that has it.
    """
    path = Path(path)
    faults = _Faults()
    given = [(*parse_override(assignment), assignment) for assignment in overrides]
    drafts = _overridden(_expand(path, faults, 0), {key for key, _, _ in given})
    unsure = bool(faults)  # what could not be read may have given the keys that seem to be missing
    cases: list[Case] = []
    names: set[str] = set()
    seen: dict[bytes, int] = {}
    for number, draft in enumerate(drafts, start=1):
        try:
            for key, value, assignment in given:
                assign(draft.data, key, copy.deepcopy(value), f"--set {assignment}")
            experiment = experiment_of(draft.data, "", draft.folder)
        except ConfigError as error:
            for line in str(error).splitlines()[1:] or [str(error)]:
                if not (unsure and line.endswith(MISSING)):
                    faults.setdefault(line.strip(), f"case {number}")
            continue
        if (first := seen.setdefault(_identity(experiment), number)) != number and number - len(seen) <= _LISTED:
            faults.of_file(path, f"cases {first} and {number} are the same experiment")
        name = "_".join(part for _, part in draft.parts)[:80] or experiment.name
        while name.lower() in names:
            name = f"{name}_{number}"
        if name.lower() in OWN_NAMES:
            faults.of_file(path, f"a case cannot be called {name}, which is a file in the sweep's folder")
        names.add(name.lower())
        cases.append(Case(name, experiment))
    if faults:
        lines = "".join(f"\n  {text}" + (f" ({where})" if where else "") for text, where in faults.items())
        raise ConfigError(f"{path}: {len(faults)} error{'s' if len(faults) > 1 else ''}{lines}")
    top = parse(read_text(path), str(path))
    name = top.get("name") or _slug(path.stem)
    return Sweep(name, Path(top.get("results") or cases[0].experiment.results) / name, tuple(cases))


def _identity(experiment: Experiment) -> bytes:
    """Equal for experiments that play the same, however p is written and wherever they are kept."""
    p = {"multiplier": str(fraction(experiment.game.multiplier))}
    same = experiment.model_copy(update={"game": experiment.game.model_copy(update=p)})
    return hashlib.sha256(same.model_dump_json(exclude=set(WITHOUT_EFFECT)).encode()).digest()


def _expand(path: Path, faults: _Faults, depth: int) -> list[_Draft]:
    """The cases of a file, which may be an experiment: then there is one."""
    try:
        data = parse(read_text(path), f"{path} is not valid YAML")
        if not isinstance(data, dict):
            raise ConfigError(f"{path}: expected keys and values (base, vary, ...), found {described(data)}")
        if depth > _DEEPEST:
            raise ConfigError(f"{path}: bases are nested too deeply; is one its own base?")
    except ConfigError as error:
        faults.setdefault(str(error), "")
        return []
    return _expand_data(path, data, faults, depth) if "base" in data else [_Draft(data, folder_of(path))]


def _expand_data(path: Path, data: dict[str, Any], faults: _Faults, depth: int) -> list[_Draft]:
    """The cases of a sweep that has been read from `path`, be it the whole file or an entry of its list of bases."""
    data = {key: value for key, value in data.items() if value is not None and not key.startswith("x-")}
    wrong: list[tuple[str, str]] = []
    sweep, _ = validated(SweepFile, {"base": None, **data}, wrong)
    for key, message in wrong:
        faults.of_file(path, f"{key}: {message}")
    if sweep is None:
        return []
    drafts = _bases(path, sweep.base, faults, depth)
    table: list[Row] = [{}]
    try:
        table = _table(path, sweep.table)
    except ConfigError as error:
        faults.of_file(path, f"table: {error}")
    if len(drafts) * len(table) * prod(map(len, sweep.vary.values())) > _MOST:
        faults.of_file(path, f"more than {_MOST:,} cases")
        return []
    _check_keys(path, {"set": sweep.set, "table": table[0], "vary": sweep.vary}, faults)
    drafts = _overridden(drafts, {*sweep.set, *sweep.vary, *(key for row in table for key in row)})
    varied = [dict(zip(sweep.vary, values, strict=True)) for values in product(*sweep.vary.values())]
    return [_case(path, draft, sweep, row, values, faults) for draft, row, values in product(drafts, table, varied)]


def _check_keys(path: Path, sections: Mapping[str, Mapping[str, Any]], faults: _Faults) -> None:
    """Nothing may be given twice: not the same key in two sections, nor a key and another below it."""
    for key in sorted({key for given in sections.values() for key in given if not all(key.split("."))}):
        faults.of_file(path, f"{key!r} is no key; expected one such as game.rounds")
    keys = [(key, section) for section, given in sections.items() for key in given if key != "case"]
    for (key, section), (other, its_section) in combinations(sorted(keys), 2):
        if key == other:
            faults.of_file(path, f"{key} is given in {section} and in {its_section}")
        elif other.startswith(f"{key}."):
            faults.of_file(path, f"{key} is given in {section}, and {other}, which is a part of it, in {its_section}")


def _bases(path: Path, base: Any, faults: _Faults, depth: int) -> list[_Draft]:
    match base:
        case str():
            return _expand(folder_of(path) / base, faults, depth + 1)
        case dict():
            return [_Draft(base, folder_of(path))]
        case list() if base and all(isinstance(_file_of(entry), str) for entry in base):
            drafts: list[_Draft] = []
            for entry in base:
                sweep = entry if isinstance(entry, dict) else {"base": entry}
                for draft in _expand_data(path, sweep, faults, depth + 1):
                    draft.parts.insert(0, ("", _slug(Path(sweep["base"]).stem)))
                    drafts.append(draft)
                if len(drafts) > _MOST:
                    faults.of_file(path, f"more than {_MOST:,} cases")
                    return []
            return drafts
    faults.of_file(
        path,
        "base: expected a file, an experiment, or a list of files and of sweeps whose base is a file, "
        f"found {described(base)}",
    )
    return []


def _file_of(entry: Any) -> Any:
    """The file that an entry of a list of bases is about."""
    return entry.get("base") if isinstance(entry, dict) else entry


def _overridden(drafts: list[_Draft], given: set[str]) -> list[_Draft]:
    """A base's cases without what the file above it gives itself; of those that differ in nothing else, the first."""
    kept: list[_Draft] = []
    settled: set[tuple[str, Path]] = set()
    for draft in drafts:
        replaced = {key for key in draft.varied if any(f"{key}.".startswith(f"{other}.") for other in given)}
        if replaced:
            draft.varied -= replaced
            draft.parts = [(key, part) for key, part in draft.parts if key not in replaced]
            rest = copy.deepcopy(draft.data)
            for key in replaced:
                assign(rest, key, None, key)
            what = json.dumps(rest, sort_keys=True, default=str), draft.folder
            if what in settled:
                continue
            settled.add(what)
        kept.append(draft)
    return kept


def _case(path: Path, draft: _Draft, sweep: SweepFile, row: Row, values: Row, faults: _Faults) -> _Draft:
    """One case of a file; faults are told, and what they are about is left as it was."""
    data = copy.deepcopy(draft.data)
    parts = list(draft.parts)
    settings = {key: value for key, value in row.items() if key != "case"} | values
    for key, value in {**sweep.set, **settings}.items():
        try:
            assign(data, key, copy.deepcopy(value), key)
        except ConfigError as error:
            faults.of_file(path, error)
    if "case" in row:
        parts.append(("", _written(row["case"])))
        if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,39}", parts[-1][1]):
            faults.of_file(
                path,
                f"a case cannot be called {parts[-1][1]!r}, since that names its folder: expected at most 40 letters, "
                "digits, '.', '_' and '-', and none of these signs first",
            )
    for key, value in settings.items():
        if key in values or "case" not in row:
            number = sweep.vary[key].index(value) + 1 if key in values else ""
            sections = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(v, dict) for v in value))
            short = number if sections else _slug(_written(value))[:40]
            # The last part of a key, with its place where it is an entry of a list.
            parts.append((key, _slug(f"{re.sub(r'.*[.](?![0-9]+$)', '', key)}-{short}")[:40]))
    return _Draft(data, draft.folder, parts, draft.varied | settings.keys())


def _written(value: Any) -> str:
    """A value as it is written."""
    return "none" if value in (None, [], "") else str(getattr(value, "text", value))


def _slug(text: str) -> str:
    """A text as a part of a name, which is a folder's: without the signs that are none of one."""
    return re.sub("[^A-Za-z0-9.]+", "-", text).strip("-.") or "x"


def _table(path: Path, table: Any) -> list[Row]:
    if table is None:
        return [{}]
    if isinstance(table, str):
        text = read_text(folder_of(path) / table)
        if table.lower().endswith(".csv"):
            rows = enumerate(read_csv(text, table), start=1)
            table = [
                {key: cell if key == "case" else parse(cell, f"{table}, row {number}") for key, cell in row.items()}
                for number, row in rows
            ]
        else:
            table = parse(text, f"{table} is not valid YAML")
    if not isinstance(table, list) or not table or not all(isinstance(row, dict) and row for row in table):
        raise ConfigError(f"expected a list of cases, each with keys and values, found {described(table)}")
    for number, row in enumerate(table, start=1):
        if row.keys() != table[0].keys():
            raise ConfigError(f"case {number} gives {', '.join(row)}, and the first one {', '.join(table[0])}")
    names = Counter(_written(row["case"]).lower() for row in table if "case" in row)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ConfigError(f"more than one case is called {', '.join(twice)} (small letters and capitals are alike)")
    return table
