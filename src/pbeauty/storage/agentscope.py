"""`pbeauty import`: the configuration of AgentScope's published example, as experiments of this project.

The example keeps three files in its `configs` folder: experiment.csv (a case per row), model_configs.json (a list, with
`config_name` = `{model}_{models per host}_{id}`) and prompt.json (SYSTEM and USER texts by number).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pbeauty.config.loader import load
from pbeauty.config.parsing import parse, read_csv, read_text, to_yaml
from pbeauty.errors import ConfigError
from pbeauty.mpi.partition import split

COLUMNS = (
    "participant_num", "agent_type", "agent_server_num", "env_server_num", "model_per_host", "model_name", "sys_id",
    "usr_id", "host_num", "ratio", "round",
)  # fmt: skip
T = TypeVar("T")

_SAMPLING = {"temperature": "temperature", "max_tokens": "max_tokens", "top_p": "top_p", "top_k": "top_k"}
_PLACEHOLDERS = {"max_value": "high", "ratio": "multiplier", "background": "background"}


@dataclass
class Imported:
    """What came of an import."""

    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What has no counterpart, or had to be decided, in sentences."""

    def note(self, text: str) -> None:
        """Adds a note once."""
        if text not in self.notes:
            self.notes.append(text)


def import_example(folder: Path, out: Path, personas: Path | None = None) -> Imported:
    """Reads the example's files and writes an experiment per row, and a sweep over them all.

    Args:
        folder: holds experiment.csv, model_configs.json and prompt.json.
        out: a folder to be made, or an empty one.
        personas: the example's file of backgrounds, a JSON object with the key `prompt` on each line.

    Raises:
        ConfigError: saying what is wrong with the files.
    """
    faults: list[str] = []
    cases = _read(lambda: _cases(folder / "experiment.csv"), faults)
    models = _read(lambda: _models(_json(folder / "model_configs.json")), faults)
    prompts = _read(lambda: _prompts(_json(folder / "prompt.json")), faults)
    if cases is None or models is None or prompts is None:
        raise ConfigError("\n".join(faults))
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} is not empty; choose another folder")
    made = Imported()
    made.note("api_key, client_args and model_type have no counterpart: engines run inside the job, not behind ports")
    made.note("agent_server_num and env_server_num have no counterpart: participants need no servers")
    made.note("an unusable reply is asked for again up to twice and counted; the example left it out without a count")
    out.mkdir(parents=True, exist_ok=True)
    texts = {
        "system": {f"sys-{number}": _text(str(text), made) for number, text in prompts["SYSTEM"].items()},
        "user": {f"usr-{number}": _text(str(text), made) for number, text in prompts["USER"].items()},
    }
    _write(made, out / "prompts.yaml", texts)
    if personas:
        _personas(made, personas, out / "personas.jsonl")
    names = []
    for number, row in enumerate(cases, start=1):
        experiment = _experiment(number, row, models, prompts["SYSTEM"], made, bool(personas))
        if experiment:
            names.append(f"{experiment['name']}.yaml")
            _write(made, out / names[-1], experiment)
            load(out / names[-1])
    if not names:
        raise ConfigError("no row could be taken over: " + "; ".join(made.notes))
    _write(made, out / "all.yaml", {"name": out.name, "base": names})
    return made


def _read(read: Callable[[], T], faults: list[str]) -> T | None:
    """What `read` gives; None where it cannot, with the fault among `faults`."""
    try:
        return read()
    except ConfigError as error:
        faults.append(str(error))
        return None


def _cases(path: Path) -> list[dict[str, Any]]:
    rows = read_csv(read_text(path), path.name, COLUMNS)
    return [{column: parse(cell, path.name) for column, cell in row.items()} for row in rows]


def _json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from None


def _models(configs: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(configs, list) or not all(isinstance(c, dict) and "config_name" in c for c in configs):
        raise ConfigError("model_configs.json: expected a list of models with a config_name each")
    return {str(config["config_name"]): config for config in configs}


def _prompts(prompts: Any) -> dict[str, dict[str, str]]:
    if not isinstance(prompts, dict) or not all(isinstance(prompts.get(kind), dict) for kind in ("SYSTEM", "USER")):
        raise ConfigError("prompt.json: expected SYSTEM and USER, with texts by number")
    return prompts


def _text(text: str, made: Imported) -> str:
    """A prompt with this project's placeholders."""
    escaped = text.replace("{", "{{").replace("}", "}}")
    for theirs, ours in _PLACEHOLDERS.items():
        escaped = escaped.replace(f"{{{{{theirs}}}}}", f"{{{ours}}}")
    for other in re.findall(r"\{\{(\w+)\}\}", escaped):
        made.note(f"the placeholder {{{other}}} in prompt.json has no counterpart and stays as text")
    return escaped.strip()


def _experiment(
    number: int, row: dict[str, Any], models: dict[str, Any], system: dict[str, str], made: Imported, personas: bool
) -> dict[str, Any] | None:
    where = f"experiment.csv, case {number}"
    count, rounds, kind = row["participant_num"], row["round"], row["agent_type"]
    name = re.sub("[^A-Za-z0-9._-]+", "-", f"{number:03d}-{row['model_name']}-{row['sys_id']}-{row['usr_id']}")
    game: dict[str, Any] = {"multiplier": row["ratio"], "rounds": rounds, "announce": ["target"]}
    experiment: dict[str, Any] = {"name": name, "seed": number, "game": game}
    engines = f"mpirun -n {row['host_num']} x {row['model_per_host']} + 1"
    made.note(f"{where}: host_num and model_per_host are no settings of an experiment; start it with {engines} ranks")
    if kind == "random":
        group = {"name": "players", "count": count, "kind": "uniform", "integers": True, "think_time": 1.0}
        return experiment | {"population": [group]}
    text = str(system.get(str(row["sys_id"]), ""))
    if not text:
        raise ConfigError(f"{where}: prompt.json has no SYSTEM text {row['sys_id']}")
    if shift := re.search(r"(\d+(?:\.\d+)?) plus (?:the )?\{ratio\}", text):
        game["offset"] = float(shift[1])
        made.note(
            f"system prompt {row['sys_id']} says {shift[1]} plus {{ratio}}: game.offset is {shift[1]}, so that the "
            "same is scored and announced (the example leaves it out there)"
        )
    if "{background}" in text and not personas:
        made.note(f"{where} is left out: its prompt needs backgrounds; give the example's file with --personas")
        return None
    if "{background}" in text and shift is None:
        made.note("backgrounds are taken from the file in its order")
    per_host = int(row["model_per_host"])
    found = [f"{row['model_name']}_{per_host}_{index + 1}" for index in range(per_host)]
    if missing := [config for config in found if config not in models]:
        raise ConfigError(f"{where}: model_configs.json has no config_name {', '.join(missing)}")
    return experiment | _players(found, count, row, models, made, background="{background}" in text)


def _players(
    names: list[str], count: int, row: dict[str, Any], models: dict[str, Any], made: Imported, *, background: bool
) -> dict[str, Any]:
    """The models and groups of a case: one, or several where its config_names stand for different models."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        config = models[name]
        sampling = {k: v for k, v in config.get("generate_args", {}).items() if k not in ("max_tokens",)}
        kinds.setdefault(json.dumps([config.get("model_name"), sampling], sort_keys=True), []).append(name)
    shares = dict(zip(names, split(count, len(names)), strict=True))
    sections, groups = {}, []
    for number, members in enumerate(kinds.values(), start=1):
        config = models[members[0]]
        arguments = dict(config.get("generate_args", {}))
        sampling = {ours: arguments.pop(theirs) for theirs, ours in _SAMPLING.items() if theirs in arguments}
        arguments.pop("seed", None)
        for other in arguments:
            made.note(f"generate_args.{other} of {members[0]} has no counterpart")
        label = re.sub("[^A-Za-z0-9._-]+", "-", str(row["model_name"])) + (f"-{number}" if len(kinds) > 1 else "")
        sections[label] = {"path": str(config.get("model_name", ""))}
        group = {
            "name": "players" if len(kinds) == 1 else label,
            "count": sum(shares[name] for name in members),
            "kind": "llm",
            "model": label,
            "system_prompt": f"sys-{row['sys_id']}",
            "user_prompt": f"usr-{row['usr_id']}",
            "sampling": {"max_tokens": 1024} | sampling,
            "extraction": "model",
            "retries": 2,
        }
        groups.append(group | ({"personas": {"file": "personas.jsonl"}} if background else {}))
    return {"prompts": "prompts.yaml", "models": sections, "population": groups}


def _personas(made: Imported, source: Path, target: Path) -> None:
    lines = []
    for number, line in enumerate(read_text(source).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            lines.append(json.dumps({"background": entry["prompt"].strip()}, ensure_ascii=False))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(f"{source}, line {number}: expected a JSON object with a text under `prompt`") from None
    target.write_text("\n".join([*lines, ""]), encoding="utf-8")
    made.files.append(target)


def _write(made: Imported, path: Path, content: dict[str, Any]) -> None:
    path.write_text(to_yaml(content), encoding="utf-8")
    made.files.append(path)
