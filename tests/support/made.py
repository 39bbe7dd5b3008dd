"""Runs made for tests: guesses written by the package's own writer, as the moderator writes them."""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace

import h5py
import numpy as np

from pbeauty.config.loader import loads
from pbeauty.game.records import COLUMNS, Replies, Status, new_rows
from pbeauty.game.scoring import score
from pbeauty.job.context import JobContext
from pbeauty.mpi.partition import partition_population
from pbeauty.storage.hdf5 import describe, stored_file, write_digest
from pbeauty.storage.replies import write_replies
from pbeauty.storage.run_writer import RunWriter

ABOUT = {"started": "2026-01-01T00:00:00+00:00", "command": ["pbeauty", "run"], "ranks": [{"host": "node-1"}]}


def experiment(count, *, name="made", seed=1, sessions=1, rounds=1, population=None, **game):
    """An experiment of `count` participants without a model, or of another population, in each session."""
    crowd = population or [{"name": "crowd", "count": count, "kind": "uniform"}]
    about = {"name": name, "seed": seed, "sessions": sessions, "game": {"rounds": rounds, **game}}
    return loads(json.dumps({**about, "population": crowd}))


def job(folder, experiment):
    """A job of one rank on a run of the experiment in this folder."""
    partition = partition_population(experiment, 1)
    return JobContext(SimpleNamespace(rank=0), partition, folder, run_id="id", job_id="job", patience=600)


def table(rows):
    """Rows as one structured array, COLUMNS[participant]."""
    made = np.zeros(len(rows["guess"]), COLUMNS)
    for name, values in rows.items():
        made[name] = values
    return made


def texts(attributes, name):
    """An attribute, or a list of labels, as h5py gives them: bytes of UTF-8."""
    value = attributes[name]
    return value.decode() if isinstance(value, bytes) else [label.decode() for label in value]


@contextlib.contextmanager
def altered(path):
    """A file of a run, open to be altered by somebody who makes up for the digests."""
    with h5py.File(path, "r+") as file:
        yield file
    seal_again(path)
    if path.name == "run.h5":
        return
    folder = next(parent for parent in path.parents if (parent / "run.h5").exists())
    stored = stored_file(folder, str(path.relative_to(folder)))
    kind, *_ = stored.path.split("/")
    with h5py.File(folder / "run.h5", "r+") as run:
        if kind == "rounds":
            run["digests/rounds"][int(path.stem) - 1] = list(stored.digest)
        else:
            number = path.parent.name
            run[f"digests/replies/{number}"][sorted(run[f"replies/{number}"]).index(path.stem)] = list(stored.digest)
    seal_again(folder / "run.h5")


def seal_again(path):
    """Gives an altered file the digest of its content."""
    with path.open("r+b", buffering=0) as file:
        write_digest(file)


def make(folder, guesses, described=None, *, finished=None, said=None, readings=None, columns=None, **settings):
    """Writes a run and returns its folder.

    Args:
        folder: made if need be.
        guesses: float64[round, participant]; NaN is an unparsable reply, or none in a session that has ended.
        described: the experiment; one for these guesses, with `settings`, unless given.
        finished: whether it is marked so; unless given, whether all rounds are there.
        said: by round, (participant, purpose, text) of every reply.
        readings: uint8[round, participant], values of `ReadingRule`; 0 unless given.
        columns: attributes of personas, (labels, codes) by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    guesses = np.array(guesses, float)
    described = described or experiment(guesses.shape[1], rounds=max(len(guesses), 1), **settings)
    writer = RunWriter.create(folder, described, ABOUT, "made")
    ended = np.zeros(described.sessions, bool)
    for index, row in enumerate(guesses):
        rows = new_rows(row.size, model=True)
        rows["guess"][:] = row
        rows["reading"][:] = 0 if readings is None else readings[index]
        rows["status"][:] = np.where(np.isnan(row), Status.UNPARSABLE, Status.OK)
        rows["status"][np.repeat(ended, described.session_size)] = Status.NOT_ASKED
        replies = Replies()
        for participant, purpose, text in said[index] if said else ():
            rows["output_tokens"][participant] += len(text)
            replies.append(participant, purpose, text, [1] * len(text))
        sealed = write_replies(folder, "made", index, 0, replies) if len(replies) else []
        counts = [group.count for group in described.population]
        scored = score(described.game, rows["guess"], rows["status"], counts)
        ended = scored.outcome.n_valid == 0
        writer.commit(index, rows, scored, {"seconds": 2.0}, sealed)
    if finished if finished is not None else len(guesses) == described.game.rounds:
        writer.finish({"ended": "2026-01-01T00:01:00+00:00"})
    if columns:
        with altered(folder / "run.h5") as file:
            for name, (labels, codes) in columns.items():
                column = file.create_dataset(f"participants/{name}", data=np.array(codes, np.uint16))
                describe(column, labels=labels)
    return folder
