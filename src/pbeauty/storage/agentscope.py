"""`pbeauty import`: the configuration of AgentScope's published example, as experiments of this project.

The example keeps three files in its `configs` folder: experiment.csv (a case per row), model_configs.json (a list, with
`config_name` = `{model}_{models per host}_{id}`) and prompt.json (SYSTEM and USER texts by number).
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pbeauty.config.loader import loads
from pbeauty.config.parsing import read_csv, read_text, to_yaml
from pbeauty.errors import ConfigError, nearest
from pbeauty.game.experiment import DEMO_MODEL
from pbeauty.game.population import largest_remainders

COLUMNS = (
    "participant_num", "agent_type", "agent_server_num", "env_server_num", "model_per_host", "model_name", "sys_id",
    "usr_id", "host_num", "ratio", "round",
)  # fmt: skip
T = TypeVar("T")

_AGENTS = ("random", "llm", "background")
_SAMPLING = ("temperature", "max_tokens", "top_p", "top_k")
_MAX_TOKENS = 1024
"""Of a reply, where the example leaves it to its server."""
_PLACEHOLDERS = {"max_value": "high", "ratio": "multiplier", "background": "background"}
_GPUS = "tensor_parallel_size"
_NOT_NEEDED = ("config_name", "model_name", "model_type", "api_key", "client_args", "generate_args")
_OFFSETS = (
    r"(?P<number>\d+(\.\d+)?) (?P<sign>plus|\+) (the )?\{multiplier\}",
    r"\{multiplier\}[^.;\n]*? (?P<sign>plus|minus|\+|-) (?P<number>\d+(\.\d+)?)",
)
"""How a text says that something is added to p times the average."""
_ROUNDS = {
    "announcements": {"target": "The winner number of this round is {two_decimals}. Let's move on to the next round."},
    "first_round": "{request}",
    "next_round": "{announced}\n{request}",
}
"""What the example puts before a USER text; it is in its code, and not in its files."""


@dataclass
class Imported:
    """What came of an import."""

    files: list[Path] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    """What has no counterpart, or had to be decided, in sentences, each once."""
    left_out: list[str] = field(default_factory=list)
    """The cases that could not be taken over, and why."""

    def note(self, text: str) -> None:
        """Adds a note once."""
        self.notes[text] = None


def import_example(folder: Path, out: Path, personas: Path | None = None) -> Imported:
    """Reads the example's files and writes an experiment for each row that can be taken over, and a sweep of them all.

    Args:
        folder: holds experiment.csv, model_configs.json and prompt.json.
        out: a folder to be made, or an empty one; it is written as a whole or not at all.
        personas: the example's file of backgrounds, a JSON object with the key `prompt` on each line.

    Raises:
        ConfigError: saying what is wrong with the files, if none of it can be taken over.
    """
    faults: list[str] = []
    rows = _try(lambda: read_csv(read_text(folder / "experiment.csv"), "experiment.csv", COLUMNS), faults)
    models = _try(lambda: _models(_json(folder / "model_configs.json")), faults)
    prompts = _try(lambda: _prompts(_json(folder / "prompt.json")), faults)
    people = _try(lambda: _people(personas), faults) if personas else None
    if faults or rows is None or models is None or prompts is None:
        raise ConfigError("\n".join(faults))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not empty; choose another folder")
    made = Imported()
    made.note("api_key, client_args and model_type have no counterpart: engines run inside the job, not behind ports")
    made.note("agent_server_num and env_server_num have no counterpart: participants need no servers")
    made.note("an unusable reply is asked for again up to twice and counted; the example left it out without a count")
    made.note("the retry and the question that reads a number from a reply are worded by pbeauty")
    for column in rows[0].keys() - set(COLUMNS):
        made.note(f"the column {column} of experiment.csv has no counterpart")
    draft = out.with_name(f".{out.name}.draft")
    try:
        draft.mkdir(parents=True)
        texts = {
            "system": {f"sys-{key}": _template(text, key, made) for key, text in prompts["SYSTEM"].items()},
            "user": {f"usr-{key}": _escaped(text) for key, text in prompts["USER"].items()},
        }
        texts = {kind: {key: text for key, text in some.items() if text.strip()} for kind, some in texts.items()}
        (draft / "prompts.yaml").write_text(to_yaml(texts | _ROUNDS), encoding="utf-8")
        if people:
            (draft / "personas.jsonl").write_text("".join(people), encoding="utf-8")
        contents: dict[str, Any] = {}
        for number, row in enumerate(rows, start=1):
            try:
                case = _Case(number, row, models, texts, bool(people), made)
                experiment = case.experiment()
                loads(to_yaml(experiment), source=f"experiment.csv, case {number}", folder=draft)
            except ConfigError as error:
                made.left_out.append(str(error))
                continue
            contents[f"{experiment['name']}.yaml"] = experiment
            launcher = f"mpirun -n {ranks} " if (ranks := case.ranks()) > 1 else ""
            start = f"{launcher}pbeauty run {shlex.quote(str(out / experiment['name']))}.yaml"
            made.note(f"host_num and model_per_host are no settings of an experiment; play case {number} with: {start}")
        if not contents:
            raise ConfigError("no case can be taken over:\n" + "\n".join(made.left_out))
        contents["all.yaml"] = {"name": _slug(out.resolve().name), "base": list(contents)}
        for name, content in contents.items():
            (draft / name).write_text(to_yaml(content), encoding="utf-8")
        made.files += [out / path.name for path in sorted(draft.iterdir())]
        draft.replace(out)
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return made


def _try(read: Callable[[], T], faults: list[str]) -> T | None:
    """What `read` gives; None where it cannot, with the fault among `faults`."""
    try:
        return read()
    except ConfigError as error:
        faults.append(str(error))
        return None


def _json(path: Path) -> Any:
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from None


def _models(configs: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(configs, list) or not all(isinstance(c, dict) and "config_name" in c for c in configs):
        raise ConfigError("model_configs.json: expected a list of models with a config_name each")
    return {str(config["config_name"]): config for config in configs}


def _prompts(prompts: Any) -> dict[str, dict[str, str]]:
    if not isinstance(prompts, dict) or not all(isinstance(prompts.get(kind), dict) for kind in ("SYSTEM", "USER")):
        raise ConfigError("prompt.json: expected SYSTEM and USER, with texts by number")
    return {kind: {number: str(text) for number, text in prompts[kind].items()} for kind in ("SYSTEM", "USER")}


def _people(path: Path) -> list[str]:
    """The lines of a file of ours, from the example's."""
    lines = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                background = json.loads(line)["prompt"].strip()
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                background = ""
            if not background:
                raise ConfigError(f"{path}, line {number}: expected a JSON object with a text under `prompt`")
            lines.append(json.dumps({"background": background}, ensure_ascii=False) + "\n")
    if not lines:
        raise ConfigError(f"{path} is empty")
    return lines


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _template(text: str, number: str, made: Imported) -> str:
    """A SYSTEM text with this project's placeholders; empty if the example itself could not fill it in."""
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        made.note(f"SYSTEM text {number} in prompt.json cannot be filled in: {error}")
        return ""
    whole = ""
    for literal, name, form, conversion in parts:
        whole += _escaped(literal)
        if name in _PLACEHOLDERS:
            whole += f"{{{_PLACEHOLDERS[name]}}}"
            if form not in ("", "s") or conversion not in (None, "s"):
                made.note(f"SYSTEM text {number} in prompt.json gives {{{name}}} a format, which is left out")
        elif name is not None:
            whole += f"{{{{{name}}}}}"
            made.note(f"the placeholder {{{name}}} in prompt.json has no counterpart and stays as text")
    return whole


@dataclass(frozen=True)
class _Case:
    """A row of experiment.csv on its way to an experiment."""

    number: int
    row: Mapping[str, str]
    models: Mapping[str, dict[str, Any]]
    texts: Mapping[str, Mapping[str, str]]
    people: bool
    """Whether there is a file of backgrounds."""
    made: Imported

    def experiment(self) -> dict[str, Any]:
        """The row as an experiment file, or a ConfigError that says everything for which it cannot be one."""
        row, models = self.row, self.row["agent_type"] != "random"
        system, user = (f"{what}-{row[f'{what}_id'].lstrip('0')}" for what in ("sys", "usr"))
        members = self._members() if models else []
        if faults := list(self._faults(members, system, user)):
            raise ConfigError(f"experiment.csv, case {self.number}: {'; '.join(faults)}")
        name = f"{self.number:03d}-{row['model_name']}-{row['sys_id']}-{row['usr_id']}"
        game = {"multiplier": row["ratio"], "rounds": int(row["round"]), "announce": ["target"]}
        experiment = {"name": _slug(name), "seed": self.number, "game": game}
        count = int(row["participant_num"])
        if not models:
            if (row["sys_id"], row["usr_id"]) != ("1", "1"):
                self.made.note(
                    f"sys_id and usr_id of case {self.number} have no counterpart: its participants are random"
                )
            label = _slug(row["model_name"]).strip("-._") or "players"
            group = {"name": label, "count": count, "kind": "uniform", "integers": True, "think_time": 1.0}
            return experiment | {"population": [group]}
        text = self.texts["system"][system]
        game["offset"] = self._offset(text)
        sections, groups = self._players(members, count)
        for group in groups:
            group |= {"system_prompt": system, "user_prompt": user, "extraction": "model", "retries": 2}
            group |= {"personas": {"file": "personas.jsonl"}} if "{background}" in text else {}
        return experiment | {"prompts": "prompts.yaml", "models": sections, "population": groups}

    def ranks(self) -> int:
        """The ranks that the case is meant for: a moderator, and an engine for each of the example's servers."""
        if self.row["agent_type"] == "random":
            return 1
        return 1 + int(self.row["host_num"]) * int(self.row["model_per_host"])

    def _members(self) -> list[str]:
        per_host = self.row["model_per_host"]
        numbers = range(1, int(per_host) + 1) if _is_size(per_host) else ()
        return [f"{self.row['model_name']}_{int(per_host)}_{number}" for number in numbers]

    def _faults(self, members: list[str], system: str, user: str) -> Iterator[str]:
        row, kind = self.row, self.row["agent_type"]
        sizes = ("participant_num", "round") + (() if kind == "random" else ("host_num", "model_per_host"))
        for column in sizes:
            if not _is_size(row[column]):
                yield f"{column} is {row[column]!r}; expected a whole number from 1 on"
        if kind not in _AGENTS:
            yield f"agent_type is {kind!r}{nearest(kind, _AGENTS)}; expected {', '.join(_AGENTS)}"
        if kind == "random":
            return
        for what, name in (("system", system), ("user", user)):
            if not self.texts[what].get(name):
                yield f"prompt.json has no usable {what.upper()} text {name.partition('-')[2]}"
        if "{background}" in self.texts["system"].get(system, "") and not self.people:
            yield "its prompt needs backgrounds; give the example's file with --personas"
        if missing := [member for member in members if member not in self.models]:
            yield f"model_configs.json has no config_name {', '.join(missing)}"

    def _offset(self, text: str) -> float:
        prompt = f"system prompt {self.row['sys_id']}"
        for found in filter(None, (re.search(pattern, text) for pattern in _OFFSETS)):
            offset = float(found["number"]) * (-1 if found["sign"] in ("minus", "-") else 1)
            self.made.note(
                f"{prompt} says {found[0]!r}: game.offset is {offset:g}, so that the same is scored and announced "
                "(the example leaves it out there)"
            )
            return offset
        if re.search(r"\b(plus|minus|add|added|adding|subtract)\b|\+", text):
            self.made.note(f"{prompt} may speak of an offset: see what game.offset should be")
        return 0.0

    def _players(self, members: list[str], count: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The models and groups of a case: one, or several where its config_names stand for different ones."""
        kinds = Counter[str]()
        for member, share in zip(members, largest_remainders(count, [1] * len(members)), strict=True):
            kinds[json.dumps([self._model(member), self._sampling(member)])] += share
        label, sections, groups = _slug(self.row["model_name"]), dict[str, Any](), []
        for number, (kind, share) in enumerate(kinds.items(), start=1):
            section, sampling = json.loads(kind)
            new = f"{label}-{len(sections) + 1}" if sections else label
            model = next((known for known, other in sections.items() if other == section), new)
            sections[model] = section
            name = "players" if len(kinds) == 1 else f"{label}-{number}"
            groups.append({"name": name, "count": share, "kind": "llm", "model": model, "sampling": sampling})
        return sections, groups

    def _model(self, member: str) -> dict[str, Any]:
        config = self.models[member]
        path = str(config.get("model_name") or "")
        if path != DEMO_MODEL and not Path(path).exists() and "/" not in path:
            self.made.note(f"{member}: {path!r} is no folder here and no hub id; set its path under `models`")
        for key in config.keys() - {*_NOT_NEEDED, _GPUS}:
            self.made.note(f"{key} of {member} has no counterpart")
        return {"path": path} | ({_GPUS: config[_GPUS]} if _GPUS in config else {})

    def _sampling(self, member: str) -> dict[str, Any]:
        arguments = self.models[member].get("generate_args") or {}
        if not isinstance(arguments, dict):
            raise ConfigError(f"experiment.csv, case {self.number}: generate_args of {member} is no section")
        for name in arguments.keys() - set(_SAMPLING):
            why = "each request has a seed of its own, from the experiment's" if name == "seed" else "no counterpart"
            self.made.note(f"generate_args.{name} of {member} ({arguments[name]!r}) is left out: {why}")
        if arguments.get("max_tokens") is None:
            self.made.note(f"{member} gives no max_tokens: {_MAX_TOKENS} is written")
        given = {name: arguments[name] for name in _SAMPLING if arguments.get(name) is not None}
        return {"max_tokens": _MAX_TOKENS} | given


def _is_size(text: str) -> bool:
    return bool(re.fullmatch("0*[1-9][0-9]{0,8}", text))


def _slug(text: str) -> str:
    return re.sub("[^A-Za-z0-9._-]+", "-", text)
