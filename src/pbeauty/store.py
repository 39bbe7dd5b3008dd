"""The result of a run on disk: run.h5, replaced whole after every round, and the sealed replies beside it.

Plain HDF5, written so that h5py alone reads it: no variable-length strings in bulk data, `units` and `description`
on every dataset, sealed files linked into run.h5. Whoever opens run.h5 sees finished rounds and nothing else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pbeauty import __version__
from pbeauty.config import Experiment, LLMGroup
from pbeauty.game import Status
from pbeauty.personas import Cast, Source
from pbeauty.prompts import PARTS, RULES, SYSTEM_PROMPTS, TEAM_RULES, USER_PROMPTS, placeholders
from pbeauty.records import PLAY, TOKEN_COUNTS, Purpose, Replies, Rows
from pbeauty.scoring import Scored

SCHEMA_VERSION = 1
RUN_FILE = "run.h5"
JOURNALS = "journal"
REPLIES = "replies"
GUESSES = "guesses"
_CHUNK, _REPLY_CHUNK, _TOKEN_CHUNK = 1 << 16, 1 << 20, 1 << 17
_ROWS_PER_FILE = 1 << 22
"""Participants whose rows are in one file: a file is put together in memory."""
_BYTES_PER_FILE = 1 << 25
"""Of replies that are in one file, for the same reason."""
_PER_REPLY = 25
"""Bytes of a sealed reply besides its text and tokens."""
_GROWTH = 1 << 22
"""Bytes by which a file in memory grows."""

_PER_PARTICIPANT = {
    "guess": ("units of the game", "the participant's guess; NaN where there is none"),
    "status": ("code", "what became of the reply; the attribute `labels` names the codes"),
    "forgotten": ("rounds", "oldest rounds left out of the prompt to fit the model's context"),
    "prompt_tokens": ("tokens", "prompt tokens of all calls for the participant in the round"),
    "cached_tokens": ("tokens", "those of them that the engine's prefix cache served"),
    "output_tokens": ("tokens", "tokens sampled in all calls for the participant in the round"),
}
_PER_ROUND = {
    "mean": ("units of the game", "mean of the valid guesses"),
    "median": ("units of the game", "median of the valid guesses"),
    "std": ("units of the game", "population standard deviation (divisor n) of the valid guesses"),
    "lower_quartile": ("units of the game", "0.25 quantile of the valid guesses, linear between two (type 7)"),
    "upper_quartile": ("units of the game", "0.75 quantile of the valid guesses, linear between two (type 7)"),
    "min": ("units of the game", "smallest valid guess"),
    "max": ("units of the game", "largest valid guess"),
    "target": ("units of the game", "offset + multiplier x aggregate"),
    "winning_guess": ("units of the game", "the guess nearest to the target"),
    "n_valid": ("participants", "valid guesses"),
    "n_winners": ("participants", "participants nearest to the target"),
    "seconds": ("s", "wall time from announcement to score"),
}
TIME_PARTS = {
    "seconds_playing": "playing",
    "seconds_waiting": "waiting for the slowest",
    "seconds_gathering": "scoring and gathering",
    "seconds_sealing": "sealing",
}
"""Where the time of a round goes: playing (the ranks' average), waiting for the slowest, scoring, sealing.

All but the last are parts of `seconds`."""
_PER_ROUND |= {name: ("s", f"wall time: {what}; NaN where it was not taken") for name, what in TIME_PARTS.items()}
_REPLIES = {
    "participant": ("id", "who replied; ascending, with a participant's calls in order"),
    "purpose": ("code", "what the call was for; the attribute `labels` names the codes"),
    "text": ("UTF-8 bytes", "all replies, one after the other"),
    "text_offsets": ("bytes", "reply r is text[text_offsets[r]:text_offsets[r + 1]]"),
    "tokens": ("token ids", "all replies as sampled, one after the other"),
    "token_offsets": ("tokens", "reply r is tokens[token_offsets[r]:token_offsets[r + 1]]"),
}


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Consecutive participants whose rows are in a file of their own: start..stop-1."""

    path: str
    """Relative to the run's folder."""
    start: int
    stop: int


@dataclasses.dataclass(frozen=True)
class Sealed:
    """What one rank has written of a round."""

    replies: list[str] = dataclasses.field(default_factory=list)
    """Paths relative to the run's folder; empty where nothing was said."""
    guesses: list[Stretch] = dataclasses.field(default_factory=list)
    """Where rows are not gathered."""


class StoreError(RuntimeError):
    """The result could not be written; what had been sealed before is intact."""


class RunWriter:
    """Writes one run; owned by the moderator."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / RUN_FILE

    @classmethod
    def create(cls, folder: Path, experiment: Experiment, provenance: Mapping[str, Any]) -> RunWriter:
        """Starts a run in `folder`, which must exist and hold no run.

        Args:
            folder: the run's own folder.
            experiment: resolved; stored whole.
            provenance: JSON values that say where and with what the run was made.

        Raises:
            StoreError: if the file cannot be written.
        """
        writer = cls(folder)
        with _replaced(writer.path) as file:
            file.attrs.update(
                {
                    "schema_version": SCHEMA_VERSION,
                    "pbeauty_version": __version__,
                    "name": experiment.name,
                    "seed": experiment.seed,
                    "experiment": experiment.dump(),
                    "provenance": json.dumps(dict(provenance), indent=1),
                    "finished": False,
                }
            )
            _write_population(file, experiment)
            _create_rounds(file, experiment)
            file.create_group("replies")
        return writer

    def commit(
        self,
        round_index: int,
        rows: Rows | None,
        scored: Scored,
        seconds: float,
        sealed: Sequence[Sealed] = (),
        parts: Mapping[str, float] | None = None,
    ) -> None:
        """Adds a finished round.

        Args:
            round_index: from 0; must be the next.
            rows: of all participants; None where `sealed` says where they are.
            scored: what the round came to; with an outcome.
            seconds: how long it took.
            sealed: what ranks have written of the round.
            parts: where the time went, by `TIME_PARTS`; NaN is stored for those that are missing.

        Raises:
            StoreError: if it cannot be written; the file then holds the rounds before.
        """
        nothing = dict.fromkeys(TIME_PARTS, math.nan)
        assert scored.outcome is not None  # a round without one is not committed
        figures = dataclasses.asdict(scored.outcome) | {"seconds": seconds} | nothing | dict(parts or {})
        with _replaced(self.path, keep=True) as file:
            rounds = file["rounds"]
            if len(rounds["target"]) != round_index:
                raise ValueError(f"round {round_index} does not follow the {len(rounds['target'])} that are stored")
            for name in _PER_PARTICIPANT:
                if name in rounds and rows is not None:
                    _append(rounds[name], round_index, rows[name])
                elif name in rounds:
                    _refer(rounds, name, round_index, [stretch for one in sealed for stretch in one.guesses])
            if "group_number" in rounds:  # an earlier version began the run without it
                _append(rounds["group_number"], round_index, scored.group_numbers)
            for name in _PER_ROUND:
                if name in rounds:
                    _append(rounds[name], round_index, figures[name])
            group = file["replies"].create_group(f"{round_index + 1:04d}")
            for path in (path for one in sealed for path in one.replies):
                group[Path(path).stem] = h5py.ExternalLink(path, "/")

    def keep_personas(self, cast: Cast) -> None:
        """Adds attributes and backgrounds, or replaces them once a model has written its part.

        Raises:
            StoreError: if they cannot be written.
        """
        with _replaced(self.path, keep=True) as file:
            for name, codes in cast.codes.items():
                if name not in file["participants"]:
                    dataset = _checked(file, f"participants/{name}", codes, _CHUNK)
                    _describe(dataset, "code", f"the attribute {name} of each participant; `labels` names the codes")
                    dataset.attrs["labels"] = cast.labels[name]
            if "personas" in file:
                del file["personas"]
            text, offsets = cast.texts.take(np.arange(len(cast.texts)))
            datasets: tuple[tuple[str, NDArray, str, str], ...] = (
                ("source", cast.source, "code", "where each background comes from; `labels` names the codes"),
                ("row", cast.row, "row", "the background of each participant; -1 where there is none"),
                ("text", text, "UTF-8 bytes", "all different backgrounds, one after the other"),
                ("text_offsets", offsets, "bytes", "background r is text[text_offsets[r]:text_offsets[r + 1]]"),
            )
            for name, values, units, about in datasets:
                _describe(_checked(file, f"personas/{name}", values, _REPLY_CHUNK), units, about)
            file["personas/source"].attrs["labels"] = [source.label for source in Source]

    def resume(self, provenance: Mapping[str, Any]) -> None:
        """Notes that another job goes on with the run; what it left of an unfinished round is its journals."""
        with _replaced(self.path, keep=True) as file:
            before = json.loads(file.attrs["provenance"])
            earlier = before.pop("earlier_jobs", [])
            file.attrs["provenance"] = json.dumps(dict(provenance) | {"earlier_jobs": [*earlier, before]}, indent=1)
            rounds = len(file["rounds/target"])
        for written in (REPLIES, GUESSES):
            for path in (self.folder / written).glob("[0-9]*"):
                if int(path.name) > rounds:
                    shutil.rmtree(path)
        for path in (self.folder / JOURNALS).glob("[0-9]*"):
            if 0 < int(path.name) <= rounds:  # 0 is of the backgrounds, which are dropped when they are stored
                shutil.rmtree(path)

    def finish(self, provenance: Mapping[str, Any]) -> None:
        """Marks the run as played to its end, and adds to its provenance."""
        with _replaced(self.path, keep=True) as file:
            file.attrs["finished"] = True
            about = json.loads(file.attrs["provenance"])
            file.attrs["provenance"] = json.dumps(about | dict(provenance), indent=1)


def drop_journals(folder: Path, round_index: int) -> None:
    """Deletes the journals of a round whose replies are sealed and whose figures are committed."""
    shutil.rmtree(folder / JOURNALS / f"{round_index + 1:04d}", ignore_errors=True)


def journal_path(folder: Path, round_index: int, session: str, rank: int, span: tuple[int, int]) -> Path:
    """Where a rank takes a round's replies down: its name says whose they may be, participants span[0]..span[1] - 1."""
    return folder / JOURNALS / f"{round_index + 1:04d}" / f"{session}-{rank:05d}-{span[0]}-{span[1]}"


def journals(folder: Path, round_index: int, span: tuple[int, int]) -> list[Path]:
    """The journals of a round, in which there may be replies of participants span[0]..span[1] - 1.

    A job with many ranks leaves many: nobody needs to read them all.
    """
    found = []
    for path in sorted((folder / JOURNALS / f"{round_index + 1:04d}").glob("*")):
        told = re.fullmatch(r".+-(\d{1,18})-(\d{1,18})", path.name, re.ASCII)
        elsewhere = told and (int(told[2]) <= span[0] or int(told[1]) >= span[1])
        if path.is_file() and not elsewhere:
            found.append(path)
    return found


def seal_replies(folder: Path, round_index: int, first_participant: int, replies: Replies) -> list[str]:
    """Writes one block's replies of one round, to as many files as keep each small in memory.

    Args:
        folder: the run's.
        round_index: from 0.
        first_participant: of the block.
        replies: in any order; a participant's in that of its calls.

    Returns:
        Paths relative to `folder`, in the order of participants. A file is named by the first that may be in it.

    Raises:
        StoreError: if they cannot be written.
    """
    participant, purpose = np.array(replies.participant, np.uint64), np.array(replies.purpose, np.uint8)
    order = np.argsort(participant, kind="stable")
    sizes = (replies.text.lengths() + 4 * replies.tokens.lengths() + _PER_REPLY)[order]
    written = []
    for first, last in _pieces(participant[order], sizes):
        rows = order[first:last]
        text, text_offsets = replies.text.take(rows)
        tokens, token_offsets = replies.tokens.take(rows)
        columns: tuple[tuple[str, NDArray[Any], int], ...] = (
            ("participant", participant[rows], _REPLY_CHUNK),
            ("purpose", purpose[rows], _REPLY_CHUNK),
            ("text", text, _REPLY_CHUNK),
            ("text_offsets", text_offsets, _REPLY_CHUNK),
            ("tokens", tokens, _TOKEN_CHUNK),
            ("token_offsets", token_offsets, _REPLY_CHUNK),
        )
        begin = int(participant[rows[0]]) if written else first_participant
        relative = f"{REPLIES}/{round_index + 1:04d}/{begin:09d}.h5"
        path = folder / relative
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with _replaced(path) as file:
            for name, values, chunk in columns:
                _describe(_checked(file, name, values, chunk), *_REPLIES[name])
            file["purpose"].attrs["labels"] = [purpose.name.lower() for purpose in Purpose]
        written.append(relative)
    return written


def _pieces(participant: NDArray[np.uint64], sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Replies in the order of participants, in pieces of about `_BYTES_PER_FILE`: (first, last) of each, at least one.

    A participant's replies are never in two of them.
    """
    heads = np.flatnonzero(np.diff(participant, prepend=participant[:1] + 1))
    piece = ((np.cumsum(sizes) - sizes) // _BYTES_PER_FILE)[heads]
    cuts = heads[np.flatnonzero(np.diff(piece)) + 1]
    return pairwise([0, *cuts.tolist(), len(participant)])


def seal_guesses(folder: Path, round_index: int, stretches: Sequence[tuple[int, int]], rows: Rows) -> list[Stretch]:
    """Writes one block's rows of a round, to as many files as keep each small in memory.

    Args:
        folder: the run's.
        round_index: from 0.
        stretches: the participants of the block, as (start, stop) in id order.
        rows: theirs.

    Raises:
        StoreError: if they cannot be written.
    """
    written, at = [], 0
    for first, last in stretches:
        for start in range(first, last, _ROWS_PER_FILE):
            stop = min(start + _ROWS_PER_FILE, last)
            stretch = Stretch(f"{GUESSES}/{round_index + 1:04d}/{start:09d}.h5", start, stop)
            path = folder / stretch.path
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            with _replaced(path) as file:
                for name, values in rows.items():
                    _describe(_checked(file, name, values[at : at + stop - start], _CHUNK), *_PER_PARTICIPANT[name])
                file["status"].attrs["labels"] = [status.name.lower() for status in Status]
            written.append(stretch)
            at += stop - start
    return written


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the operating system says about a write to `path` into a StoreError that names it."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StoreError(f"cannot write {path}: {reason}; rounds finished before are intact") from error


@contextlib.contextmanager
def _replaced(path: Path, *, keep: bool = False) -> Iterator[h5py.File]:
    """A file that takes the place of `path` when the block ends well, and leaves it untouched otherwise.

    With `keep` it starts as a copy of `path`. Data reach the disk before the name does, so that a reader finds
    the old file or the new one, whenever the machine stops.
    """
    draft = path.with_name(f".{path.name}.draft")
    with writing(path):
        try:
            # HDF5 itself can crash the process when a disk fills up, so it never writes to one: the file is built
            # in memory, and its image written by plain means that fail in plain ways.
            with h5py.File.in_memory(path.read_bytes() if keep else None, block_size=_GROWTH) as file:
                yield file
                file.flush()
                image = file.id.get_file_image()
            with draft.open("wb") as handle:
                handle.write(image)
                handle.flush()
                os.fsync(handle.fileno())
            draft.replace(path)
            _sync_folder(path.parent)
        finally:
            draft.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_population(file: h5py.File, experiment: Experiment) -> None:
    groups = experiment.population
    # Compressed, since it is long runs of one number: next to nothing, however many participants there are.
    shape = {"shape": (experiment.count,), "chunks": (min(experiment.count, _CHUNK),)}
    dataset = file.create_dataset(
        "participants/group", dtype=np.uint16, compression="gzip", compression_opts=1, fletcher32=True, **shape
    )
    start = 0
    for index, group in enumerate(groups):
        for first in range(start, start + group.count, _ROWS_PER_FILE):
            last = min(first + _ROWS_PER_FILE, start + group.count)
            dataset[first:last] = np.full(last - first, index, np.uint16)
        start += group.count
    _describe(dataset, "code", "population group of each participant, in id order; `labels` names the codes")
    dataset.attrs["labels"] = [group.name for group in groups]
    for group in groups:
        attributes = group.model_dump(mode="json")
        if isinstance(group, LLMGroup):
            system = {**SYSTEM_PROMPTS, **experiment.prompts.system}[group.system_prompt]
            tellings = {"rules": RULES if experiment.game.players == "individuals" else TEAM_RULES, **PARTS}
            told = next((tellings[name] for name in placeholders(system) if name in tellings), "")
            attributes |= {
                "rules_text": told,
                "system_prompt_text": system,
                "user_prompt_text": {**USER_PROMPTS, **experiment.prompts.user}[group.user_prompt],
                "sampling": json.dumps(attributes["sampling"]),
            }
            if group.personas:
                attributes["personas"] = json.dumps(attributes["personas"], ensure_ascii=False)
        given = {key: value for key, value in attributes.items() if value is not None}
        file.create_group(f"groups/{group.name}").attrs.update(given)


def _create_rounds(file: h5py.File, experiment: Experiment) -> None:
    count = experiment.count
    rounds = file.create_group("rounds")
    for name, about in _PER_PARTICIPANT.items():
        if experiment.with_models or name not in (*TOKEN_COUNTS, "forgotten"):
            shape = {"shape": (0, count), "maxshape": (None, count), "chunks": (1, min(count, _CHUNK))}
            _describe(rounds.create_dataset(name, dtype=PLAY[name], fletcher32=True, **shape), *about)
    groups = len(experiment.population)
    table = {"shape": (0, groups), "maxshape": (None, groups), "chunks": (64, groups)}
    numbers = rounds.create_dataset("group_number", dtype=np.float64, fletcher32=True, **table)
    _describe(numbers, "units of the game", "mean of each group's valid guesses, NaN without any; `labels` names them")
    numbers.attrs["labels"] = [group.name for group in experiment.population]
    rounds["status"].attrs["labels"] = [status.name.lower() for status in Status]
    for name, about in _PER_ROUND.items():
        kind = np.uint64 if name.startswith("n_") else np.float64
        dataset = rounds.create_dataset(name, (0,), maxshape=(None,), dtype=kind, chunks=(64,), fletcher32=True)
        _describe(dataset, *about)


def _checked(file: h5py.File, name: str, values: NDArray, chunk: int) -> h5py.Dataset:
    """A new dataset whose chunks bear checksums, so that a flipped byte is an error and not a result."""
    if not len(values):
        return file.create_dataset(name, data=values)
    return file.create_dataset(name, data=values, chunks=(min(len(values), chunk),), fletcher32=True)


def _append(dataset: h5py.Dataset, index: int, values: Any) -> None:
    dataset.resize(index + 1, axis=0)
    dataset[index] = values


def _refer(rounds: h5py.Group, name: str, round_index: int, stretches: Sequence[Stretch]) -> None:
    """Adds a round to a dataset by reference to the files that hold it: a virtual dataset, which h5py reads as any."""
    before = rounds[name]
    layout = h5py.VirtualLayout((round_index + 1, before.shape[1]), before.dtype)
    for earlier in before.virtual_sources() if before.is_virtual else ():
        (index, start), (_, last) = earlier.vspace.get_select_bounds()
        source = h5py.VirtualSource(earlier.file_name, earlier.dset_name, (last + 1 - start,))
        layout[index, start : last + 1] = source
    for stretch in stretches:
        count = stretch.stop - stretch.start
        layout[round_index, stretch.start : stretch.stop] = h5py.VirtualSource(stretch.path, name, (count,))
    about = dict(before.attrs)
    del rounds[name]
    # What a lost file would leave behind must not pass for a guess.
    nothing = {"guess": np.nan, "status": Status.FAILED}
    rounds.create_virtual_dataset(name, layout, fillvalue=nothing.get(name, 0)).attrs.update(about)


def _describe(dataset: h5py.Dataset, units: str, description: str) -> None:
    dataset.attrs["units"] = units
    dataset.attrs["description"] = description
