"""What it costs to keep replies: taking them down, sealing and storing a round, reading all of it back to go on.

No engine: replies are made up, as long as direct answers are, and come in an order of their own as they do from
an engine. One rank; ranks write and read their own blocks at the same time.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pbeauty.errors import ConfigError
from pbeauty.game.announcement import group_of
from pbeauty.game.experiment import Experiment, LLMGroup
from pbeauty.game.randomness import uniforms
from pbeauty.game.records import Purpose, Replies, new_rows
from pbeauty.game.scoring import score
from pbeauty.storage.journal import Journal, Record, ReplayedReplies
from pbeauty.storage.replies import seal_replies
from pbeauty.storage.run_reader import Run
from pbeauty.storage.run_writer import RunWriter, journal_path, journals

_TEXT = "I choose 33.5."
_TOKENS = list(range(10))
_REPLIES_PER_FLUSH = 128
"""What an engine finishes in a step, about."""


@dataclass(frozen=True)
class StorageReport:
    """Seconds for one round of replies, one of each participant."""

    participants: int
    journal: float
    """Taking every reply down as it comes."""
    seal: float
    commit: float
    """Writing run.h5 with the round's figures."""
    restore: float
    """To go on: reading the conversations of one finished round."""
    recall: float
    """To go on inside a round: reading all of its journal."""

    def __str__(self) -> str:
        rows = {
            "journal, all replies": self.journal,
            "seal": self.seal,
            "commit run.h5": self.commit,
            "read a sealed round": self.restore,
            "read a journal": self.recall,
        }
        lines = [f"  {what:<22} {seconds:7.2f} s" for what, seconds in rows.items()]
        return "\n".join([f"{self.participants:,} participants, one round, one block", *lines])


def bench_storage(experiment: Experiment) -> StorageReport:
    """Stores a round of made-up replies of all participants in a temporary folder, and reads it back.

    Raises:
        ConfigError: if the experiment has no language models.
    """
    if not any(isinstance(group, LLMGroup) for group in experiment.population):
        raise ConfigError("a bench of the storage needs participants of kind llm; this experiment has none")
    count = experiment.count
    order = uniforms(experiment.seed, "bench", 0, 0, count).argsort().tolist()
    replies = Replies()
    for participant in order:
        replies.append(participant, Purpose.ANSWER, _TEXT, _TOKENS)
    rows = new_rows(count, model=True)
    rows["guess"][:] = (experiment.game.low + experiment.game.high) / 2
    members, groups = group_of(experiment), len(experiment.population)
    scored = score(experiment.game, rows["guess"], rows["status"], members, groups)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = RunWriter.create(folder, experiment, {})
        clock = _Clock()
        _write_journal(folder, order)
        journal = clock.lap()
        sealed = seal_replies(folder, 0, 0, replies)
        seal = clock.lap()
        writer.commit(0, rows, scored, 0.0, sealed)
        commit = clock.lap()
        with Run(folder) as run:
            run.said(0, np.arange(count))
        restore = clock.lap()
        recorded = ReplayedReplies(journals(folder, 0, (0, count)), np.arange(count), len(_TOKENS), warn=print)
        recall = clock.lap()
        assert len(recorded) == count
    return StorageReport(count, journal, seal, commit, restore, recall)


def _write_journal(folder: Path, order: list[int]) -> None:
    journal = Journal(journal_path(folder, 0, "bench", 0, (0, len(order))))
    for number, participant in enumerate(order):
        journal.append(Record(participant, 0, False, 300, 200, _TOKENS))
        if number % _REPLIES_PER_FLUSH == 0:
            journal.flush()
    journal.close()


class _Clock:
    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        before, self._last = self._last, time.perf_counter()
        return self._last - before
