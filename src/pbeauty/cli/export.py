"""`pbeauty export`: a run in other formats; `pbeauty import`: a published configuration as one of ours.

Exporting reads run.h5 and the stored replies, and never imports the runtime.
csv, jsonl and parquet hold a row per round and participant; agentscope is the result folder of the published example
"paper_large_scale_simulation" of AgentScope, which its own scripts can read.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pbeauty.errors import DONE, FAILED, ConfigError
from pbeauty.game.experiment import Experiment, LLMGroup
from pbeauty.game.personas import Source
from pbeauty.game.records import Ragged
from pbeauty.game.rules import Status
from pbeauty.storage.replies import last_answers
from pbeauty.storage.run_reader import Run
from pbeauty.storage.validation import reading, round_replies

FORMATS = ("csv", "jsonl", "parquet", "agentscope")

_SYSTEM_IDS = {
    "classic": (1, 6),
    "rational": (2, 7),
    "rational-think-of-others": (3, None),
    "named-classic": (4, 8),
    "named-classic-rational": (5, 9),
    "background": (10, None),
    "background-composition": (11, None),
    "background-one-expert": (13, None),
}
"""The example's numbers of the system prompts that say what ours do: without an offset, and with one."""
_USER_IDS = {"direct": "1", "step-by-step": "2"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `pbeauty export` takes."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or its run.h5")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--out", type=Path, metavar="PATH", help="the file, or, for agentscope, the folder")


def command(options: argparse.Namespace) -> int:
    """Exports and prints what was written."""
    print(export(options.run, options.format, options.out))
    return DONE


def import_add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `pbeauty import` takes."""
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="with experiment.csv, model_configs.json, prompt.json"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the experiments go")
    parser.add_argument("--personas", type=Path, metavar="FILE", help="the example's backgrounds, JSONL with `prompt`")


def import_command(options: argparse.Namespace) -> int:
    """Imports and prints what was written."""
    from pbeauty.storage.agentscope import import_example

    made = import_example(options.folder, options.out, options.personas)
    for note in made.notes:
        print(f"note: {note}", file=sys.stderr)
    for reason in made.left_out:
        print(f"left out: {reason}", file=sys.stderr)
    for path in made.files:
        print(path)
    return FAILED if made.left_out else DONE


def export(path: Path, form: str, out: Path | None = None) -> Path:
    """Writes a run in another format; returns what was written.

    Args:
        path: run.h5 or the folder that holds it.
        form: one of `FORMATS`.
        out: the file, or, for agentscope, the folder; by default in the run's folder.

    Raises:
        ConfigError: if there is no such run or it is damaged, or a library is missing.
    """
    with Run(path) as run:
        folder = run.path.parent
        try:
            match form:
                case "agentscope":
                    return _agentscope(run, out or folder / "agentscope")
                case "parquet":
                    return _parquet(run, out or folder / "guesses.parquet")
                case "csv":
                    return _csv(run, out or folder / "guesses.csv")
                case _:
                    return _jsonl(run, out or folder / "guesses.jsonl")
        except OSError as error:
            raise ConfigError(f"cannot write {out or folder}: {error.strerror or error}") from None


def rows(run: Run, round_index: int) -> Iterator[dict[str, Any]]:
    """A row per participant of a round: round (from 1), participant, group, attributes, guess, status, reply.

    After the attributes `background_source`, where there are personas.
    """
    group_of = run.file["participants/group"][:].tolist()
    names = [str(name) for name in run.file["participants/group"].attrs["labels"]]
    personas = run.personas
    columns = {}
    if personas:
        columns = {name: (personas.labels[name], codes.tolist()) for name, codes in personas.codes.items()}
        columns["background_source"] = [source.label for source in Source], personas.source.tolist()
    labels = [status.name.lower() for status in Status]
    said = last_words(run, round_index)
    guesses, status = run.read("guess", round_index).tolist(), run.read("status", round_index).tolist()
    for participant, guess in enumerate(guesses):
        yield {
            "round": round_index + 1,
            "participant": participant,
            "group": names[group_of[participant]],
            **{name: values[codes[participant]] for name, (values, codes) in columns.items()},
            "guess": None if np.isnan(guess) else guess,
            "status": labels[status[participant]],
            "reply": said.get(participant),
        }


class _Said:
    """The last reply of each participant in a round, by id."""

    def __init__(self) -> None:
        self.blocks: list[tuple[Ragged, dict[int, int]]] = []

    def get(self, participant: int) -> str | None:
        """The text; None where there is none."""
        for texts, place in self.blocks:
            if participant in place:
                return bytes(texts[place[participant]]).decode("utf-8", errors="replace")
        return None


def last_words(run: Run, round_index: int) -> _Said:
    """What each language model said last in a round, extractions apart.

    Raises:
        ConfigError: if replies are missing or damaged.
    """
    said = _Said()
    if f"{round_index + 1:04d}" not in run.file["replies"]:
        return said
    for path, block in round_replies(run.file, run.path.parent, round_index).items():
        with reading(path):
            texts = Ragged.of(block["text"][:], block["text_offsets"][:])
            ids, last = last_answers(block["participant"][:], block["purpose"][:])
            said.blocks.append((texts, dict(zip(ids.tolist(), last.tolist(), strict=True))))
    return said


def _csv(run: Run, path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = None
        for round_index in range(run.round_count):
            for row in rows(run, round_index):
                if writer is None:
                    writer = csv.DictWriter(file, list(row))
                    writer.writeheader()
                writer.writerow(row)
    return path


def _jsonl(run: Run, path: Path) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for round_index in range(run.round_count):
            for row in rows(run, round_index):
                print(json.dumps(row, ensure_ascii=False), file=file)
    return path


def _parquet(run: Run, path: Path) -> Path:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            "parquet needs pyarrow, which is not installed: pip install 'pbeauty[export]'; csv and jsonl need nothing"
        ) from None
    attributes = [*run.personas.codes, "background_source"] if run.personas else []
    schema = pyarrow.schema(
        [
            ("round", pyarrow.uint32()),
            ("participant", pyarrow.uint64()),
            *((name, pyarrow.string()) for name in ("group", *attributes)),
            ("guess", pyarrow.float64()),
            ("status", pyarrow.string()),
            ("reply", pyarrow.string()),
        ]
    )
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for round_index in range(run.round_count):
            writer.write_table(pyarrow.Table.from_pylist(list(rows(run, round_index)), schema))
    return path


# --- the published example ---------------------------------------------------------------------------------


def _agentscope(run: Run, out: Path) -> Path:
    from pbeauty.plots import plot_run

    experiment = run.experiment
    started = str(run.provenance.get("started", ""))[:19].replace("T", "-") or "unknown"
    folder = out / experiment.name / _model(experiment) / _settings(run) / started
    folder.mkdir(parents=True, exist_ok=True)
    seconds = float(run.seconds.sum())
    with tempfile.TemporaryDirectory() as drawn:
        histograms = {path.stem: path for path in plot_run(run.path, Path(drawn)) if path.suffix == ".pdf"}
        for round_index in range(run.round_count):
            outcome, said = run.outcome(round_index), last_words(run, round_index)
            guesses, status = run.read("guess", round_index), run.read("status", round_index)
            valid = np.flatnonzero(status <= Status.RETRIED)
            data = {}
            for participant in valid.tolist():
                text = said.get(participant)
                data[f"P{participant}"] = {
                    "value": float(guesses[participant]),
                    **({} if text is None else {"raw": text}),
                    "round": round_index + 1,
                }
            numbers = guesses[valid]
            stats = {
                "win": outcome.target,
                "cnt": outcome.n_valid,
                "avg": float(numbers.mean()),
                "med": float(np.median(numbers)),
                "std": float(numbers.std()),
                "max": float(numbers.max()),
                "min": float(numbers.min()),
                "time": seconds,
            }
            text = json.dumps({"data": data, "stats": stats}, indent=2)
            (folder / f"result_{round_index}.json").write_text(text, encoding="utf-8")
            source = next(path for stem, path in histograms.items() if stem == f"round-{round_index + 1:04d}-histogram")
            (folder / f"result_{round_index}.pdf").write_bytes(source.read_bytes())
    return folder


def _model(experiment: Experiment) -> str:
    names = dict.fromkeys(group.model for group in experiment.population if isinstance(group, LLMGroup))
    return "+".join(names) or "random"


def _settings(run: Run) -> str:
    """The example's <system prompt>-<user prompt>-<participants>-<hosts>-<ratio>."""
    experiment = run.experiment
    system, user = "1", "1"
    for group in experiment.population:
        if isinstance(group, LLMGroup):
            plain, shifted = _SYSTEM_IDS.get(group.system_prompt, (None, None))
            number = shifted if experiment.game.offset else plain
            system = str(number) if number else group.system_prompt.removeprefix("sys-").replace("-", "_")
            user = _USER_IDS.get(group.user_prompt, group.user_prompt.removeprefix("usr-").replace("-", "_"))
            break
    ranks = run.provenance.get("ranks", [])
    hosts = len({rank.get("host") for rank in ranks}) or 1
    return f"{system}-{user}-{experiment.count}-{hosts}-{experiment.game.p:.3f}"
