"""`pbeauty export`: a run in other formats; `pbeauty import`: a published configuration as one of ours.

Exporting reads run.h5 and the stored replies, and never imports the runtime.
csv, jsonl and parquet hold a row per round and participant, of one run or of many; agentscope is the result folder of
the published example "paper_large_scale_simulation" of AgentScope, which its own scripts can read. To it every session
is a game of its own, with a folder of its own.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pbeauty.cli.analyze import add_runs
from pbeauty.cli.run import given_path
from pbeauty.config.differences import varied_settings
from pbeauty.errors import DONE, FAILED, ConfigError
from pbeauty.files import csv_cell, replaced
from pbeauty.game.experiment import Experiment, LLMGroup
from pbeauty.game.personas import Source
from pbeauty.game.records import Ragged, Status
from pbeauty.storage.hdf5 import read_errors
from pbeauty.storage.replies import last_answers
from pbeauty.storage.run_folder import named_runs
from pbeauty.storage.run_reader import Run, run_file

_AT_ONCE = 1 << 16
"""Rows that a Parquet file gets at once."""
FORMATS = ("csv", "jsonl", "parquet", "agentscope")

_SYSTEM_IDS = {
    "classic": (1, 6),
    "rational": (2, 7),
    "rational-think-of-others": (3, None),
    "named-classic": (4, 8),
    "named-classic-rational": (5, 9),
    "background": (10, None),
    "background-one-expert": (13, None),
}
"""The example's numbers of the system prompts that say what ours do: without an offset, and with one."""
_COMPOSITION_IDS = {"education": 11, "profession": 12}
"""Those of a background with the composition of the players, by the attribute that it is told of."""
_USER_IDS = {"direct": 1, "step-by-step": 2}
_STATISTICS = {
    "win": "target", "cnt": "n_valid", "avg": "mean", "med": "median", "std": "std", "max": "max", "min": "min"
}  # fmt: skip
"""The example's names of figures of a round."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `pbeauty export` takes."""
    add_runs(parser)
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--out", type=given_path, metavar="PATH", help="the file, or, for agentscope, the folder")


def command(options: argparse.Namespace) -> int:
    """Exports and prints what was written."""
    for path in export(options.runs, options.format, options.out):
        print(path)
    return DONE


def import_add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `pbeauty import` takes."""
    files, people = "with experiment.csv, model_configs.json, prompt.json", "the backgrounds, JSONL with `prompt`"
    parser.add_argument("folder", type=given_path, metavar="FOLDER", help=files)
    parser.add_argument("--out", type=given_path, required=True, metavar="FOLDER", help="where the experiments go")
    parser.add_argument("--personas", type=given_path, metavar="FILE", help=people)


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


def export(paths: Sequence[Path], form: str, out: Path | None = None) -> list[Path]:
    """Writes runs in another format: all of them into one file, or for agentscope into one folder.

    Args:
        paths: runs, or folders with runs below.
        form: one of `FORMATS`.
        out: the file (or a folder for it), or, for agentscope, the folder; by default it lies in the folder of the run,
            or in that above all runs.

    Returns:
        The file, or, for agentscope, the folder of each run, or of each session of a run of several.

    Raises:
        ConfigError: if there is no such run, nothing can be written there, or a library is missing.
        RunFileError: if a run is damaged.
    """
    runs = named_runs(paths)
    files = list(runs.values())
    if out is None and len(paths) > 1 and len(files) > 1:
        raise ConfigError("several folders are to be exported together: say where to, with --out")
    above = run_file(files[0]).parent if len(files) == 1 else paths[0]
    if len(paths) > 1:
        above = Path(os.path.commonpath([path.absolute() for path in paths]))
    try:
        if form == "agentscope":
            return _agentscope(files, out or above / "agentscope", above.resolve().name if len(files) > 1 else None)
        path = out or above
        path = path / f"guesses.{form}" if path.is_dir() else path
        path.parent.mkdir(parents=True, exist_ok=True)
        {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}[form](_Table.of(runs), path)
        return [path]
    except OSError as error:
        raise ConfigError(f"cannot write {error.filename or out or above}: {error.strerror or error}") from None


def rows(run: Run, round_index: int) -> Iterator[dict[str, Any]]:
    """A row per participant of a round: round, session, participant, group, attributes, guess, status, target, reply.

    Rounds and sessions count from 1; the target is that of the session. After the attributes comes `background_source`,
    where there are personas.
    """
    columns = {name: (run.attributes[name], run.codes(name).tolist()) for name in _attributes(run)}
    if run.personas:
        columns["background_source"] = [source.label for source in Source], run.personas.source.tolist()
    status_labels = [status.name.lower() for status in Status]
    last = last_replies(run, round_index)
    guesses, status = run.read("guess", round_index).tolist(), run.read("status", round_index).tolist()
    targets, size = run.read("target", round_index).tolist(), run.experiment.session_size
    for participant, guess in enumerate(guesses):
        target = targets[participant // size]
        yield {
            "round": round_index + 1,
            "session": participant // size + 1,
            "participant": participant,
            **{name: labels[codes[participant]] for name, (labels, codes) in columns.items()},
            "guess": None if np.isnan(guess) else guess,
            "status": status_labels[status[participant]],
            "target": None if np.isnan(target) else target,
            "reply": last(participant),
        }


def last_replies(run: Run, round_index: int) -> Callable[[int], str | None]:
    """What each language model said last in a round, extractions apart: the text by id, None where there is none.

    Raises:
        RunFileError: if replies are missing or damaged.
    """
    rows: dict[int, tuple[Ragged, int]] = {}
    for path, file in run.open_reply_files(round_index):
        with read_errors(path):
            texts = Ragged.of(file["text"][:], file["text_offsets"][:])
            ids, last = last_answers(file["participant"][:], file["purpose"][:])
            rows |= {i: (texts, row) for i, row in zip(ids.tolist(), last.tolist(), strict=True)}

    def text(participant: int) -> str | None:
        texts, row = rows.get(participant, (None, 0))
        return None if texts is None else bytes(texts[row]).decode("utf-8", errors="replace")

    return text


def _attributes(run: Run) -> list[str]:
    """The attributes of participants, the group before all others."""
    return sorted(run.attributes, key=lambda name: name != "group")


class _Table(NamedTuple):
    """A table of all rows of runs, which are opened one after the other: a sweep may have many."""

    runs: Mapping[str, Path]
    about: Mapping[str, Mapping[str, Any]]
    """What all rows of a run share, by its name: of several runs, the name and what varies between them."""
    columns: Sequence[str]

    @classmethod
    def of(cls, runs: Mapping[str, Path]) -> _Table:
        experiments = []
        shown: dict[str, None] = {}
        source: list[str] = []
        for path in runs.values():
            with Run(path) as run:
                experiments.append(run.experiment)
                shown |= dict.fromkeys(_attributes(run))
                source = ["background_source"] if run.personas else source
        settings = zip(runs, varied_settings(experiments), strict=True)
        about = {name: {"run": name, **varied} if len(runs) > 1 else {} for name, varied in settings}
        first = [*next(iter(about.values())), "round", "session", "participant"]
        return cls(runs, about, [*first, *shown, *source, "guess", "status", "target", "reply"])

    def rows(self) -> Iterator[dict[str, Any]]:
        for name, path in self.runs.items():
            with Run(path) as run:
                for round_index in range(run.round_count):
                    for row in rows(run, round_index):
                        yield {**self.about[name], **row}


def _csv(table: _Table, path: Path) -> None:
    with replaced(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text)
        writer.writerow(map(csv_cell, table.columns))
        writer.writerows([csv_cell(row.get(column)) for column in table.columns] for row in table.rows())
        text.detach()


def _jsonl(table: _Table, path: Path) -> None:
    with replaced(path) as file:
        file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in table.rows())


def _parquet(table: _Table, path: Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            "parquet needs pyarrow, which is not installed: pip install 'pbeauty[export]'; csv and jsonl need nothing"
        ) from None
    abouts = list(table.about.values())
    kinds = {key: pyarrow.infer_type([about[key] for about in abouts]) for key in abouts[0]}
    kinds |= dict.fromkeys(("round", "session"), pyarrow.uint32())
    kinds |= dict.fromkeys(("guess", "target"), pyarrow.float64())
    kinds["participant"] = pyarrow.uint64()
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in table.columns])
    with replaced(path) as file, pyarrow.parquet.ParquetWriter(file, schema) as writer:
        all_rows = table.rows()
        while chunk := list(islice(all_rows, _AT_ONCE)):
            writer.write_table(pyarrow.Table.from_pylist(chunk, schema))


# --- the published example ---------------------------------------------------------------------------------


def _agentscope(files: Sequence[Path], out: Path, benchmark: str | None) -> list[Path]:
    """Writes the result folder of each session of each run below that of their benchmark, and returns them.

    Args:
        files: of the runs.
        out: the example's `result`.
        benchmark: the name of all runs together; None for the experiment's.
    """
    from pbeauty.plots import pdf, round_histogram

    folders: dict[Path, None] = {}
    for file in files:
        with Run(file) as run:
            started = datetime.fromisoformat(str(run.provenance["started"]))
            above = out / (benchmark or run.experiment.name) / _model(run.experiment) / _settings(run)
            of_run = []
            for _ in range(run.experiment.sessions):
                while (folder := above / f"{started:%Y-%m-%d-%H:%M:%S}") in folders:
                    started += timedelta(seconds=1)  # sessions, and cases in what these names do not tell, are alike
                folder.mkdir(parents=True, exist_ok=True)
                folders[folder] = None
                of_run.append(folder)
            for round_index in range(run.round_count):
                last, played = last_replies(run, round_index), run.read("n_valid", round_index)
                for session in np.flatnonzero(played).tolist():  # one without a valid guess has ended
                    text = json.dumps(_result(run, round_index, session, last), indent=2)
                    (of_run[session] / f"result_{round_index}.json").write_text(text, encoding="utf-8")
                    histogram = pdf(round_histogram(run, round_index, session))
                    (of_run[session] / f"result_{round_index}.pdf").write_bytes(histogram)
    return list(folders)


def _result(run: Run, round_index: int, session: int, last: Callable[[int], str | None]) -> dict[str, Any]:
    """A round of a session as the example stores it; ids are those within the session."""
    outcome, first = run.outcome(round_index).of(session), session * run.experiment.session_size
    mine = slice(first, first + run.experiment.session_size)
    guesses, status = run.answers(round_index, mine)
    valid = np.flatnonzero(status <= Status.RETRIED)
    data = {}
    for participant in valid.tolist():
        text = last(first + participant)
        said = {} if text is None else {"raw": text}
        data[f"P{participant}"] = {"value": float(guesses[participant]), **said, "round": round_index + 1}
    stats = {theirs: getattr(outcome, ours).item() for theirs, ours in _STATISTICS.items()}
    return {"data": data, "stats": stats | {"time": float(run.read("seconds").sum())}}


def _model(experiment: Experiment) -> str:
    """Names of the models, or where there are none of the groups; `pbeauty import` calls both as the example does."""
    return "+".join(experiment.used_models or [group.name for group in experiment.population])


def _settings(run: Run) -> str:
    """The example's <system prompt>-<user prompt>-<participants>-<hosts>-<ratio>."""
    experiment = run.experiment
    groups = [group for group in experiment.population if isinstance(group, LLMGroup)]
    system = "+".join(dict.fromkeys(_system_id(group, experiment.game.offset) for group in groups)) or "1"
    user = "+".join(dict.fromkeys(_id(group.user_prompt, _USER_IDS.get(group.user_prompt)) for group in groups)) or "1"
    ranks = run.provenance.get("ranks", [])
    hosts = len({rank.get("host") for rank in ranks}) or 1
    return f"{system}-{user}-{experiment.session_size}-{hosts}-{experiment.game.p:.3f}"


def _system_id(group: LLMGroup, offset: float) -> str:
    plain, shifted = _SYSTEM_IDS.get(group.system_prompt, (None, None))
    if group.system_prompt == "background-composition" and group.personas:
        plain = next((_COMPOSITION_IDS[name] for name in group.personas.attributes if name in _COMPOSITION_IDS), None)
    return _id(group.system_prompt, shifted if offset else plain)


def _id(prompt: str, number: int | None) -> str:
    """The example's number of a prompt; of one that it has not, the name, as far as names of its folders go."""
    return str(number) if number else re.sub("^(sys|usr)-", "", prompt).replace("-", "_")
