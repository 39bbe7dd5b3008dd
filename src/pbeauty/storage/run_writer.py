"""The result of a run on disk: run.h5, replaced whole after every round, and files beside it.

While a run is played, the rows of each round are in a file of their own; when it is finished they are in run.h5.

Plain HDF5, written so that h5py alone reads it: no variable-length strings in bulk data, `units` and `description`
on every dataset, files of replies linked into run.h5. Whoever opens run.h5 sees finished rounds and nothing else. With
each file that it refers to run.h5 keeps the file's digest.
"""

from __future__ import annotations

import json
import math
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t
from numpy.typing import NDArray

from pbeauty import files
from pbeauty.config.loader import dumps
from pbeauty.files import RUN_FILE
from pbeauty.game.experiment import Experiment, LLMGroup
from pbeauty.game.personas import Personas, Source
from pbeauty.game.population import everybody
from pbeauty.game.prompts import all_texts, placeholders, rules_texts
from pbeauty.game.records import COLUMNS, WITHOUT_MODEL, Rows, Status
from pbeauty.game.scoring import Scored
from pbeauty.program import __version__
from pbeauty.storage.hdf5 import create, describe, described, open_file, read_text, replaced, write_array, write_columns
from pbeauty.storage.schema import (
    DIGESTS,
    JOURNALS,
    PER_PARTICIPANT,
    PER_ROUND,
    PER_SESSION,
    PERSONAS,
    REPLIES,
    ROUNDS,
    SCHEMA_VERSION,
    TIME_PARTS,
    StoredFile,
    round_file,
)

_CHUNK = 1 << 16
"""Participants in a chunk of a column of run.h5."""
_AT_ONCE = 1 << 22
"""Participants whose groups or rows are written at once."""


class RunWriter:
    """Writes one run; owned by the moderator.

    What cannot be written, or is damaged, raises RunFileError; the file then holds what it held before.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / RUN_FILE

    @classmethod
    def create(
        cls, folder: Path, experiment: Experiment, provenance: Mapping[str, Any], run_id: str | None = None
    ) -> RunWriter:
        """Starts a run in `folder`, which must exist and hold no run.

        Args:
            folder: the run's own.
            experiment: resolved; stored whole.
            provenance: JSON values that say where and with what the run was made.
            run_id: a new one unless given.
        """
        writer = cls(folder)
        # The room that every round leaves in it the next one takes: HDF5 forgets of such room when a file is closed,
        # unless it is asked not to.
        with replaced(writer.path, fs_strategy="fsm", fs_persist=True) as file:
            describe(
                file,
                schema_version=SCHEMA_VERSION,
                run_id=run_id or secrets.token_hex(8),
                pbeauty_version=__version__,
                name=experiment.name,
                seed=experiment.seed,
                experiment=dumps(experiment),
                provenance=json.dumps(dict(provenance), indent=1),
                finished=False,
            )
            _write_population(file, experiment)
            _create_rounds(file, experiment)
            file.create_group(REPLIES)
        return writer

    def commit(
        self,
        round_index: int,
        rows: Rows,
        scored: Scored,
        times: Mapping[str, float],
        replies: Sequence[StoredFile] = (),
    ) -> None:
        """Adds a finished round.

        Args:
            round_index: from 0; must be the next.
            rows: of all participants, in the order of their ids.
            scored: what the round came to.
            times: in s, `seconds` for how long it took, and by `TIME_PARTS` where that went; NaN is stored for those
                that are missing.
            replies: the files of the round's replies.
        """
        seconds = dict.fromkeys(TIME_PARTS, math.nan) | dict(times)
        with replaced(self.path, keep=True) as file:
            rounds, number = file["rounds"], f"{round_index + 1:04d}"
            if (stored := len(rounds["target"])) != round_index:
                raise ValueError(f"round {round_index} does not follow the {stored} that are stored")
            columns = [name for name in PER_PARTICIPANT if name in rounds]
            # The rows are written once, here, and moved when the run is finished: run.h5 stays small until then.
            own = {name: rows[name] for name in columns}
            where = {"run_id": read_text(file, "run_id"), "round": round_index + 1}
            written = write_columns(self.folder, round_file(round_index), own, PER_PARTICIPANT, **where)
            _append(file["digests/rounds"], round_index, list(written.digest))
            for name in columns:
                _refer(rounds, name, round_index)
            _append(rounds["group_number"], round_index, scored.group_numbers)
            for name in PER_SESSION:
                _append(rounds[name], round_index, getattr(scored.outcome, name))
            for name in PER_ROUND:
                _append(rounds[name], round_index, seconds[name])
            group, replies = file[REPLIES].create_group(number), sorted(replies)
            for path, _ in replies:
                group[Path(path).stem] = h5py.ExternalLink(path, "/")
            digests = np.array([list(digest) for _, digest in replies], np.uint8).reshape(-1, 32)
            create(file, f"digests/{REPLIES}/{number}", DIGESTS, data=digests)

    def keep_personas(self, personas: Personas) -> None:
        """Adds attributes and backgrounds, or replaces them once a model has written its part."""
        with replaced(self.path, keep=True) as file:
            for name, codes in personas.codes.items():
                if name not in file["participants"]:
                    about = "code", f"the attribute {name} of each participant; `labels` names the codes"
                    column = write_array(file, f"participants/{name}", codes, about)
                    describe(column, labels=personas.labels[name])
            if "personas" in file:
                del file["personas"]
            text = personas.texts.take(np.arange(len(personas.texts)))
            columns: list[NDArray[Any]] = [personas.source, personas.row, *text]  # in the order of PERSONAS
            for (name, about), values in zip(PERSONAS.items(), columns, strict=True):
                write_array(file, f"personas/{name}", values, about)
            describe(file["personas/source"], labels=[source.label for source in Source])

    def resume(self, provenance: Mapping[str, Any]) -> None:
        """Notes that another job goes on with the run; all that stays of an unfinished round is its journals."""
        files.remove_drafts(self.folder)
        with replaced(self.path, keep=True) as file:
            before = json.loads(read_text(file, "provenance"))
            earlier = before.pop("earlier_jobs", [])
            jobs = dict(provenance) | {"earlier_jobs": [*earlier, before]}
            describe(file, provenance=json.dumps(jobs, indent=1))
            rounds = len(file["rounds/target"])
        for path in [path for name in (REPLIES, ROUNDS) for path in (self.folder / name).glob("[0-9]*")]:
            if int(path.stem) > rounds:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in (self.folder / JOURNALS).glob("[0-9]*"):
            if 0 < int(path.name) <= rounds:  # 0 is of the backgrounds, which are dropped when they are stored
                shutil.rmtree(path)

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Marks the run as played to its end, adds to its provenance, and moves the rows of all rounds into run.h5."""
        with replaced(self.path, keep=True) as file:
            rounds, digests = file["rounds"], file["digests/rounds"][:]
            for name, shape in [(name, column.shape) for name, column in rounds.items() if column.is_virtual]:
                del rounds[name]
                options = {"chunks": (1, min(shape[1], _CHUNK)), "fletcher32": True}
                create(rounds, name, PER_PARTICIPANT[name], shape=shape, dtype=COLUMNS[name], **options)
            for round_index, digest in enumerate(digests):
                with open_file(self.folder / round_file(round_index), bytes(digest)) as played:
                    for name, values in played.items():
                        for start in range(0, len(values), _AT_ONCE):
                            rounds[name][round_index, start : start + _AT_ONCE] = values[start : start + _AT_ONCE]
            del file["digests/rounds"]
            about = json.loads(read_text(file, "provenance")) | dict(provenance)
            describe(file, finished=True, provenance=json.dumps(about, indent=1))
        shutil.rmtree(self.folder / ROUNDS, ignore_errors=True)


def _write_population(file: h5py.File, experiment: Experiment) -> None:
    whole = everybody(experiment)
    column: dict[str, Any] = {"shape": (len(whole),), "chunks": (min(len(whole), _CHUNK),), "fletcher32": True}
    column |= {"compression": "gzip", "compression_opts": 1}  # it is long runs of one number
    about = "code", "population group of each participant, in id order; `labels` names the codes"
    group_of = create(file, "participants/group", about, dtype=np.uint16, **column)
    describe(group_of, labels=[group.name for group in experiment.population])
    about = "index", "session of each participant, in id order, from 0"
    session_of = create(file, "participants/session", about, dtype=np.uint32, **column)
    for start in range(0, len(whole), _AT_ONCE):
        part = whole.part(start, start + _AT_ONCE)
        group_of[start : start + len(part)] = part.group_of()
        session_of[start : start + len(part)] = np.arange(start, start + len(part)) // experiment.session_size
    for group in experiment.population:
        attributes = group.model_dump(mode="json")
        if isinstance(group, LLMGroup):
            texts, rules = all_texts(experiment.prompts), rules_texts(experiment.game.players == "individuals")
            system = texts.system[group.system_prompt]
            attributes |= {
                "rules_text": next((rules[name] for name in placeholders(system) if name in rules), ""),
                "system_prompt_text": system,
                "user_prompt_text": texts.user[group.user_prompt],
                "announcement_texts": json.dumps(texts.announcements, ensure_ascii=False),
                "sampling": json.dumps(attributes["sampling"]),
            }
            for name in ("first_round", "next_round", "retry", "extraction"):
                attributes[f"{name}_text"] = getattr(texts, name)
            if group.personas:
                attributes["personas"] = json.dumps(attributes["personas"], ensure_ascii=False)
        given = {key: value for key, value in attributes.items() if value is not None}
        describe(file.create_group(f"groups/{group.name}"), **given)


def _create_rounds(file: h5py.File, experiment: Experiment) -> None:
    rounds = file.create_group("rounds")
    for name in PER_PARTICIPANT if experiment.used_models else WITHOUT_MODEL:
        _create_referring(rounds, name, (0, experiment.count))
    shape = (experiment.sessions, len(experiment.population))
    about = "mean of each group's valid guesses, NaN without any; `labels` names them"
    numbers = _table(rounds, "group_number", np.float64, shape, ("units of the game", about))
    describe(numbers, labels=[group.name for group in experiment.population])
    for name, about_figure in PER_SESSION.items():
        kind = np.uint64 if name.startswith("n_") else np.float64
        _table(rounds, name, kind, shape[:1], about_figure)
    for name, about_time in PER_ROUND.items():
        _table(rounds, name, np.float64, (), about_time)
    _table(file, "digests/rounds", np.uint8, (32,), DIGESTS)
    file["digests"].create_group(REPLIES)


def _table(group: h5py.Group, name: str, kind: Any, shape: tuple[int, ...], about: tuple[str, str]) -> h5py.Dataset:
    """An empty table whose rows, of this shape, are rounds."""
    chunk = [min(size, most) for size, most in zip(shape, (1 << 12, 1 << 4), strict=False)]
    options = {"maxshape": (None, *shape), "chunks": (max(1, 64 // math.prod(chunk)), *chunk), "fletcher32": True}
    return create(group, name, about, shape=(0, *shape), dtype=kind, **options)


def _refer(rounds: h5py.Group, name: str, round_index: int) -> None:
    """Adds a round to a column by reference to the file that has it, so that h5py alone reads a run being played."""
    count = rounds[name].shape[1]
    # h5py's own VirtualLayout would have to name the files of all rounds again, every round.
    references = rounds[name].id.get_create_plist()
    row, whole = h5s.create_simple((round_index + 1, count)), h5s.create_simple((count,))
    row.select_hyperslab((round_index, 0), (1, count))
    references.set_virtual(row, round_file(round_index).encode(), name.encode(), whole)
    del rounds[name]
    _create_referring(rounds, name, (round_index + 1, count), references)


def _create_referring(
    rounds: h5py.Group, name: str, shape: tuple[int, int], references: h5p.PropDCID | None = None
) -> None:
    """Creates a column by round and participant that refers to files of rounds; to none yet without `references`."""
    if references is None:
        references = h5p.create(h5p.DATASET_CREATE)
        references.set_layout(h5d.VIRTUAL)
        missing = {"guess": math.nan, "status": Status.FAILED}.get(name, 0)
        references.set_fill_value(np.array(missing, COLUMNS[name]))
    kind, space = h5t.py_create(COLUMNS[name]), h5s.create_simple(shape)
    column = h5py.Dataset(h5d.create(rounds.id, name.encode(), kind, space, references))
    described(column, name, PER_PARTICIPANT[name])


def _append(dataset: h5py.Dataset, index: int, values: Any) -> None:
    dataset.resize(index + 1, axis=0)
    dataset[index] = values
