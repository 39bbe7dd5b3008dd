"""Sweep files: a base experiment, what varies, and the cases that come of it, checked before any of them is played.

base: classic.yaml              # an experiment or another sweep, a list of files, or an experiment itself
set: {game.rounds: 1}           # for all cases
vary:                           # every combination
  game.multiplier: [1/2, 2/3]
table: cases.csv                # or a list of mappings, or a YAML file of one: a case per row
replicates: 3                   # each with a seed of its own

What a file sets or varies takes the place of what its base makes of the same key: cases of the base that differ in
nothing else become one. So a sweep over models is played with a single one by setting the model.
"""

from __future__ import annotations

import copy
import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from pbeauty.config.loader import MISSING, assign, experiment_of, kind, override, parse, read_text
from pbeauty.errors import ConfigError
from pbeauty.game.experiment import Experiment, nearest
from pbeauty.game.randomness import seeds

KEYS = ("name", "base", "set", "vary", "table", "replicates", "results")
_MOST = 100_000
_DEEPEST = 5
_TOLD = 10
"""Wrong lines of a table that are named."""


@dataclass(frozen=True)
class Case:
    """One experiment of a sweep."""

    name: str
    """Unique within the sweep; names the case's folder."""
    experiment: Experiment
    varied: dict[str, Any]
    """The keys that make the case what it is, and their values."""


@dataclass(frozen=True)
class Sweep:
    """A sweep file with all its cases."""

    name: str
    folder: Path
    """Where the cases' folders are, by default."""
    cases: tuple[Case, ...]

    def pick(self, which: str) -> Case:
        """The case of a number, from 1, or of a name.

        Raises:
            ConfigError: if there is none.
        """
        names = [case.name for case in self.cases]
        if which in names:
            return self.cases[names.index(which)]
        if re.fullmatch("[1-9][0-9]{0,8}", which) and int(which) <= len(names):
            return self.cases[int(which) - 1]
        raise ConfigError(f"sweep {self.name} has no case {which}{nearest(which, names)}; it has {len(names)}")


@dataclass
class _Draft:
    """A case that has not been checked yet."""

    data: dict[str, Any]
    folder: Path
    """What the files that it names are relative to."""
    parts: list[tuple[str, str]] = field(default_factory=list)
    """Of its name, with the key that each comes from; "" where it comes from none."""
    varied: dict[str, Any] = field(default_factory=dict)


def is_sweep(path: Path) -> bool:
    """Whether a file is a sweep, and not an experiment; False where it cannot be told."""
    try:
        data = parse(read_text(path), str(path))
    except ConfigError:
        return False
    return isinstance(data, dict) and "base" in data


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Reads a sweep and checks all its cases.

    Args:
        path: a YAML file.
        overrides: assignments that hold for all cases.

    Raises:
        ConfigError: naming every fault, each once, with a case that has it.
    """
    path = Path(path)
    faults: dict[str, str] = {}
    drafts = _expand(path, faults, 0)
    top = parse(read_text(path), f"{path} is not valid YAML")
    cases: list[Case] = []
    unsure = bool(faults)  # what could not be read may have given the keys that seem to be missing
    for number, draft in enumerate(drafts, start=1):
        try:
            for assignment in overrides:
                override(draft.data, assignment)
            experiment = experiment_of(draft.data, "", draft.folder)
        except ConfigError as error:
            for line in str(error).splitlines()[1:] or [str(error)]:
                if unsure and line.endswith(MISSING):
                    continue
                faults.setdefault(line.strip(), f"case {number}")
            continue
        taken = {case.name for case in cases}
        name = "_".join(part for _, part in draft.parts)[:80] or experiment.name
        cases.append(Case(name if name not in taken else f"{name}_{number}", experiment, draft.varied))
    if faults:
        lines = "".join(f"\n  {text}" + (f" ({where})" if where else "") for text, where in faults.items())
        raise ConfigError(f"{path}: {len(faults)} error{'s' if len(faults) > 1 else ''}{lines}")
    name = str(top.get("name", path.stem))
    results = str(top.get("results", cases[0].experiment.results))
    return Sweep(name, Path(results) / name, tuple(cases))


def _expand(path: Path, faults: dict[str, str], depth: int) -> list[_Draft]:
    """The cases of a file, which may be an experiment: then there is one."""
    try:
        data = parse(read_text(path), f"{path} is not valid YAML")
        if not isinstance(data, dict):
            raise ConfigError(f"{path}: expected keys and values (base, vary, ...), found {kind(data)}")
        if depth > _DEEPEST:
            raise ConfigError(f"{path}: bases are nested too deeply; is one its own base?")
    except ConfigError as error:
        faults.setdefault(str(error), "")
        return []
    return _expand_data(path, data, faults, depth) if "base" in data else [_Draft(data, path.parent)]


def _expand_data(path: Path, data: dict[str, Any], faults: dict[str, str], depth: int) -> list[_Draft]:
    """The cases of a sweep that has been read from `path`, be it the whole file or an entry of its list of bases."""
    for key in data:
        if key not in KEYS:
            faults[f"{path.name}: {key}: unknown key{nearest(str(key), KEYS)}; known here: {', '.join(KEYS)}"] = ""
    drafts = _bases(path, data["base"], faults, depth)
    rows = list(_rows(path, data, faults))
    fixed = data.get("set") or {}
    replicates = data.get("replicates", 1)
    if type(replicates) is not int or not 1 <= replicates <= _MOST:
        faults[f"{path.name}: replicates: expected a whole number from 1 to {_MOST:,}, found {replicates!r}"] = ""
        replicates = 1
    if len(drafts) * len(rows) * replicates > _MOST:
        faults[f"{path.name}: more than {_MOST:,} cases"] = ""
        return []
    if not isinstance(fixed, dict):
        faults[f"{path.name}: set: expected keys and values, found {kind(fixed)}"] = ""
        fixed = {}
    given = {str(key) for key in fixed} | {key for row, values in rows for key in (*row, *values)}
    drafts = _overridden(drafts, given)
    return [
        _case(draft, fixed, row, values, replicate if replicates > 1 else None, lambda fault: _add(faults, path, fault))
        for draft, (row, values), replicate in product(drafts, rows, range(replicates))
    ]


def _add(faults: dict[str, str], path: Path, fault: ConfigError) -> None:
    faults.setdefault(f"{path.name}: {fault}", "")


def _bases(path: Path, base: Any, faults: dict[str, str], depth: int) -> list[_Draft]:
    match base:
        case str():
            return _expand(path.parent / base, faults, depth + 1)
        case dict():
            return [_Draft(base, path.parent)]
        case list() if base and all(isinstance(_file_of(entry), str) for entry in base):
            drafts = []
            for entry in base:
                sweep = entry if isinstance(entry, dict) else {"base": entry}
                for draft in _expand_data(path, sweep, faults, depth + 1):
                    draft.parts.insert(0, ("", Path(sweep["base"]).stem))
                    drafts.append(draft)
            return drafts
    faults[
        f"{path.name}: base: expected a file, an experiment, or a list of files and of sweeps whose base is a file, "
        f"found {kind(base)}"
    ] = ""
    return []


def _file_of(entry: Any) -> Any:
    """The file that an entry of a list of bases is about."""
    return entry.get("base") if isinstance(entry, dict) else entry


def _overridden(drafts: list[_Draft], given: set[str]) -> list[_Draft]:
    """A base's cases without what the file above it gives itself; of those that differ in nothing else, the first."""
    kept: list[_Draft] = []
    settled: list[tuple[dict[str, Any], Path]] = []
    for draft in drafts:
        replaced = {key for key in draft.varied if any(f"{key}.".startswith(f"{other}.") for other in given)}
        if replaced:
            draft.varied = {key: value for key, value in draft.varied.items() if key not in replaced}
            draft.parts = [(key, part) for key, part in draft.parts if key not in replaced]
            rest = copy.deepcopy(draft.data)
            for key in replaced:
                assign(rest, key, None, key)
            if (rest, draft.folder) in settled:
                continue
            settled.append((rest, draft.folder))
        kept.append(draft)
    return kept


def _case(
    draft: _Draft,
    fixed: Mapping[str, Any],
    row: Mapping[str, Any],
    values: Mapping[str, Any],
    replicate: int | None,
    tell: Callable[[ConfigError], None],
) -> _Draft:
    """One case of a file; faults are told, and what they are about is left as it was."""
    data = copy.deepcopy(draft.data)
    parts, varied = list(draft.parts), dict(draft.varied)
    settings = {key: value for key, value in row.items() if key != "case"}
    for key, value in {**fixed, **settings, **values}.items():
        try:
            assign(data, str(key), copy.deepcopy(value), str(key))
        except ConfigError as error:
            tell(error)
    if "case" in row:
        parts.append(("", _slug(str(row["case"]))))
    for number, (key, value) in enumerate({**settings, **values}.items(), start=1):
        varied[key] = value
        if key in values or "case" not in row:
            short = value if isinstance(value, (str, int, float)) else number
            parts.append((key, _slug(f"{key.rpartition('.')[2]}-{short}")))
    if replicate is not None:
        seed = data.get("seed", 0)
        if type(seed) is int:
            data["seed"] = int(seeds(seed, "replicate", 0, replicate, replicate + 1)[0])
        parts.append(("replicate", f"r{replicate + 1}"))
        varied["replicate"] = replicate + 1
    return _Draft(data, draft.folder, parts, varied)


def _slug(text: str) -> str:
    return re.sub("[^A-Za-z0-9.]+", "-", text).strip("-.")[:40] or "x"


def _rows(
    path: Path, data: Mapping[str, Any], faults: dict[str, str]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What differs between the cases: every row of the table, and every combination of what varies."""
    vary = data.get("vary") or {}
    if not isinstance(vary, dict) or not all(isinstance(values, list) and values for values in vary.values()):
        faults[f"{path.name}: vary: expected a list of values for each key"] = ""
        vary = {}
    try:
        table = _table(path, data.get("table"))
    except ConfigError as error:
        faults[f"{path.name}: table: {error}"] = ""
        table = [{}]
    for row in table:
        for values in product(*vary.values()):
            named = {str(key): value for key, value in row.items()}
            yield named, dict(zip(map(str, vary), values, strict=True))


def _table(path: Path, table: Any) -> list[dict[str, Any]]:
    if table is None:
        return [{}]
    if isinstance(table, str):
        text = read_text(path.parent / table)
        if table.endswith(".csv"):
            return read_csv(text, table)
        table = parse(text, f"{table} is not valid YAML")
    if not isinstance(table, list) or not table or not all(isinstance(row, dict) and row for row in table):
        raise ConfigError(f"expected a list of cases, each with keys and values, found {kind(table)}")
    for number, row in enumerate(table, start=1):
        if missing := table[0].keys() - row.keys():
            raise ConfigError(f"case {number} gives no {', '.join(sorted(map(str, missing)))}, as the first does")
    return table


def read_csv(text: str, name: str, needed: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows of a CSV table with a header; values are read as YAML reads them.

    Args:
        text: its content.
        name: what errors call it.
        needed: columns that it must have.

    Raises:
        ConfigError: if columns are missing, from the table or from a row.
    """
    reader = csv.reader(io.StringIO(text), skipinitialspace=True)
    lines = [(reader.line_num, line) for line in reader if any(cell.strip() for cell in line)]
    if len(lines) < 2:
        raise ConfigError(f"{name} has no rows below its header")
    header = [cell.strip() for cell in lines[0][1]]
    if missing := [column for column in needed if column not in header]:
        raise ConfigError(f"{name} has no column {', '.join(missing)}; its columns: {', '.join(header)}")
    rows = []
    if wrong := [(number, len(cells)) for number, cells in lines[1:] if len(cells) != len(header)]:
        told = "; ".join(f"line {number}: {many} values" for number, many in wrong[:_TOLD])
        more = f"; and {len(wrong) - _TOLD} more" if len(wrong) > _TOLD else ""
        raise ConfigError(f"{name} has lines without a value for each of its {len(header)} columns: {told}{more}")
    for number, cells in lines[1:]:
        values = (parse(cell, f"{name}, line {number}") if cell.strip() else None for cell in cells)
        rows.append(dict(zip(header, values, strict=True)))
    return rows
