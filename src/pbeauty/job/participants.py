"""A rank's block of participants: everybody it hosts, played at once, as arrays."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pbeauty.errors import FAILED
from pbeauty.game import theory
from pbeauty.game.announcement import Announcement
from pbeauty.game.experiment import Experiment, UniformGroup
from pbeauty.game.personas import Personas
from pbeauty.game.population import Block, Segment, ids, rows_of, span
from pbeauty.game.records import BACKGROUNDS_ROUND, Floats, Progress, Replies, Rows, Status, new_rows
from pbeauty.job.checkpoint import Checkpoint
from pbeauty.job.context import JobContext
from pbeauty.mpi.partition import plays_model
from pbeauty.mpi.watchdog import Watchdog
from pbeauty.storage.schema import StoredFile

# What only language models need is imported where they are: a rank without any starts in half the time.
if TYPE_CHECKING:
    from pbeauty.llm.backgrounds import Backgrounds
    from pbeauty.llm.conversations import LLMParticipants
    from pbeauty.llm.engine import Engine
    from pbeauty.llm.request_loop import RequestLoop
    from pbeauty.storage.journal import ReplayedReplies

_LONGEST_SLEEP = 0.1
"""Seconds between two steps while participants think."""
_AT_ONCE = 1 << 18
"""Participants without a model whose guesses are computed at once: intermediate results need memory of their own."""


@dataclass
class Asking:
    """A block that is asked, and what comes of it."""

    on_step: Callable[[Progress], bool] = lambda progress: True
    """Told how far the block is, every now and then; False asks it to stop."""
    progress: Progress = field(default_factory=Progress)
    rows: Rows = field(default_factory=dict)
    """Of the participants of the block, segment after segment; empty where backgrounds were asked for."""
    replies: Replies | None = None
    """Every reply of the language models in the block; None where there are none."""
    backgrounds: Backgrounds | None = None
    """Those that were written, in id order, where they were asked for."""
    complete: bool = True
    """False where the round was broken off."""

    def go_on(self) -> bool:
        """Whether to go on; to be asked every now and then."""
        self.complete = self.complete and self.on_step(self.progress)
        return self.complete


class Participants:
    """The participants of one rank."""

    def __init__(
        self,
        experiment: Experiment,
        block: Block,
        engine: Engine | None = None,
        job: JobContext | None = None,
        personas: Personas | None = None,
    ) -> None:
        """Sets up the participants before the first round.

        Args:
            experiment: the whole experiment.
            block: of this rank, language models first.
            engine: with the model of the block's language models; None where there are none.
            job: which run they play, and where; None to keep no journals, and to wait for the engine for good.
            personas: attributes and backgrounds of the block's participants; None where nobody has any.
        """
        self.experiment = experiment
        self.block = block
        self.count = sum(map(len, block))
        self._job = job
        self._replayed: dict[int, ReplayedReplies] = {}  # by round index
        self.llm: LLMParticipants | None = None
        if engine and block and plays_model(experiment, block[0]):
            from pbeauty.llm.conversations import LLMParticipants

            own = personas and personas.of(np.arange(len(block[0])))
            self.llm = LLMParticipants(experiment, block[0], engine, own)

    @property
    def replies_kept(self) -> int:
        """Replies of the round that an earlier job broke off, which are not asked for again."""
        return sum(len(replies) for index, replies in self._replayed.items() if index != BACKGROUNDS_ROUND)

    def notes(self) -> list[str]:
        """What a person should know about how the models' conversations are held."""
        return self.llm.notes() if self.llm else []

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes on from what earlier jobs have left: finished rounds, and the journals of the one being played.

        Raises:
            RunFileError: if stored replies are missing or damaged. Damaged records of a journal are left out, with a
                message on standard error.
        """
        if self.llm is None or self._job is None or not checkpoint.exists:
            return
        from pbeauty.storage.journal import ReplayedReplies, journals

        folder, llm = self._job.folder, self.llm
        llm.restore(folder, checkpoint.announcements, checkpoint.reply_files)
        for round_index in (BACKGROUNDS_ROUND, checkpoint.rounds):
            self._replayed[round_index] = ReplayedReplies(
                journals(folder, round_index, span(self.block)),
                llm.ids,
                llm.engine.vocabulary,
                warn=lambda damage: print(f"pbeauty: {damage}", file=sys.stderr, flush=True),
            )

    def write_backgrounds(self, asking: Asking | None = None) -> Asking:
        """Has the models write the backgrounds that are missing; `asking`, filled in."""
        asking = asking or Asking()
        if self.llm is None:
            return asking
        from pbeauty.llm import backgrounds

        if (wanted := backgrounds.wanted(self.llm)).size:
            with self._request_loop(asking, BACKGROUNDS_ROUND) as loop:
                asking.backgrounds = backgrounds.write(self.llm, wanted, loop)
        return asking

    def answer(self, announcement: Announcement, asking: Asking | None = None) -> Asking:
        """Asks every participant whose session goes on for a guess, with this announcement; `asking`, filled in."""
        began, asking = time.monotonic(), asking or Asking()
        asking.rows = rows = new_rows(self.count, model=bool(self.experiment.used_models))
        rows["guess"].fill(np.nan)
        rows["status"].fill(Status.FAILED)  # until there is a reply
        asking.progress.total = self.count
        if announcement.playing is not None:
            asked = announcement.plays(ids(self.block) // self.experiment.session_size)
            rows["status"][~asked] = Status.NOT_ASKED
            asking.progress.total = int(asked.sum())
        think_time = self._compute_guesses(announcement, asking)
        if asking.complete and self.llm:
            self._ask_models(announcement, asking)
        # Everybody thinks at the same time, the language models meanwhile.
        while asking.complete and (rest := began + think_time - time.monotonic()) > 0:
            time.sleep(min(rest, _LONGEST_SLEEP))
            asking.go_on()
        if asking.complete:
            asking.progress.done = asking.progress.total
        return asking

    def store_replies(self, round_index: int, replies: Replies | None) -> list[StoredFile]:
        """Writes the replies of a round, from 0, of this block; the files, none where no model was asked.

        Raises:
            RunFileError: if they cannot be written.
        """
        if not self.llm or not self._job or not replies:
            return []
        from pbeauty.storage.replies import write_replies

        return write_replies(self._job.folder, self._job.run_id, round_index, int(self.llm.ids[0]), replies)

    def _compute_guesses(self, announcement: Announcement, asking: Asking) -> float:
        """Fills in the guesses of those without a model; the seconds that the slowest of them thinks."""
        slowest = 0.0
        for segment, where in zip(self.block, rows_of(self.block), strict=True):
            if plays_model(self.experiment, segment):
                continue
            groups = [self.experiment.population[index] for index in segment.groups]
            think_time = max(group.think_time if isinstance(group, UniformGroup) else 0.0 for group in groups)
            slowest = max(slowest, think_time)
            guesses, status = asking.rows["guess"][where], asking.rows["status"][where]
            for start in range(0, len(segment), _AT_ONCE):
                if start and not asking.go_on():
                    return slowest
                part = segment.part(start, start + _AT_ONCE)
                stop = start + len(part)
                asked = status[start:stop] != Status.NOT_ASKED
                guesses[start:stop] = np.where(asked, self._guesses(announcement, part), np.nan)
                status[start:stop][asked] = Status.OK
                asking.progress.done += 0 if think_time else int(asked.sum())
        return slowest

    def _guesses(self, announcement: Announcement, part: Segment) -> Floats:
        """What participants without a model guess, float64[participant]."""
        participants = part.ids()
        if len(part.groups) == 1:
            return theory.guess(self.experiment, part.groups[0], announcement, participants)
        groups, found = part.group_of(), np.empty(len(part))
        for group in part.groups:
            if (mine := groups == group).any():
                found[mine] = theory.guess(self.experiment, group, announcement, participants[mine])
        return found

    def _ask_models(self, announcement: Announcement, asking: Asking) -> None:
        """Has the language models answer, and fills in their rows."""
        from pbeauty.llm import answering

        assert self.llm is not None
        rows = {name: values[: len(self.llm.ids)] for name, values in asking.rows.items()}
        asking.replies = Replies()
        with self._request_loop(asking, announcement.round_index) as loop:
            answering.play(self.llm, announcement, rows, asking.replies, loop)

    @contextmanager
    def _request_loop(self, asking: Asking, round_index: int) -> Iterator[RequestLoop]:
        """The loop around the engine for one round, with a new journal, under the eyes of the watchdog."""
        from pbeauty.llm.request_loop import RequestLoop
        from pbeauty.storage.journal import Journal

        assert self.llm is not None
        engine, replayed = self.llm.engine, self._replayed.pop(round_index, None)
        loop = RequestLoop(engine, asking.progress, asking.go_on, replayed=replayed)
        if (job := self._job) is None:
            yield loop
            return
        watchdog = Watchdog(job.patience, job.comm.rank, end=lambda: job.comm.Abort(FAILED))
        watching = watchdog.watching(asking.progress, lambda: engine.in_flight)
        with watching, Journal(job.journal_path(round_index)) as loop.journal:
            yield loop
