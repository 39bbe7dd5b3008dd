"""A rank's block of participants: everybody it hosts, played at once, as arrays."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

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

OnStep = Callable[[Progress], bool]
"""Called every now and then while a block plays; False asks it to stop."""

_LONGEST_SLEEP = 0.1
"""Seconds between two steps while participants think."""
_PIECE = 1 << 18
"""Participants without a model whose guesses are computed at once: intermediate results need memory of their own."""


@dataclass
class Answers:
    """What came of asking a block."""

    progress: Progress
    on_step: OnStep
    rows: Rows = field(default_factory=dict)
    """Of the participants of the block, segment after segment; empty where backgrounds were asked for."""
    replies: Replies | None = None
    """Every reply of the language models in the block; None where there are none."""
    backgrounds: Backgrounds | None = None
    """Those that were written, in id order, where they were asked for."""
    complete: bool = True
    """False where the round was broken off."""

    def go_on(self) -> bool:
        """Whether to go on; to be called every now and then."""
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

            self._slots = slice(0, len(block[0]))
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

    def without_background(self) -> int:
        """How many are to have a background written by their model, and have none yet."""
        if self.llm is None:
            return 0
        from pbeauty.llm import backgrounds

        return backgrounds.wanted(self.llm).size

    def write_backgrounds(self, on_step: OnStep) -> Answers:
        """Has the models write the backgrounds that are missing; `on_step` as for `answer`."""
        answers = Answers(Progress(), on_step)
        if self.llm is None:
            return answers
        from pbeauty.llm import backgrounds

        if (wanted := backgrounds.wanted(self.llm)).size:
            with self._request_loop(answers, BACKGROUNDS_ROUND) as loop:
                answers.backgrounds = backgrounds.write(self.llm, wanted, loop)
            answers.complete = answers.backgrounds is not None
        return answers

    def answer(self, announcement: Announcement, on_step: OnStep = lambda progress: True) -> Answers:
        """Asks every participant for a guess.

        Args:
            announcement: what everybody is told.
            on_step: called every now and then; False breaks the round off, which is then incomplete.
        """
        began = time.monotonic()
        rows = new_rows(self.count, model=self.experiment.with_models)
        asked = self._asked(announcement)
        rows["guess"].fill(np.nan)
        rows["status"].fill(Status.FAILED)  # until there is a reply
        if asked is not None:
            rows["status"][~asked] = Status.NOT_ASKED
        answers = Answers(Progress(total=self.count if asked is None else int(asked.sum())), on_step, rows)
        think_time = self._compute_guesses(announcement, answers)
        if answers.complete and self.llm:
            self._ask_models(announcement, answers)
        # Everybody thinks at the same time, the language models meanwhile.
        while answers.complete and (rest := began + think_time - time.monotonic()) > 0:
            time.sleep(min(rest, _LONGEST_SLEEP))
            answers.go_on()
        if answers.complete:
            answers.progress.done = answers.progress.total
        return answers

    def _asked(self, announcement: Announcement) -> NDArray[np.bool_] | None:
        """Whose sessions go on, bool[participant of the block]; None for all."""
        if announcement.playing is None:
            return None
        return announcement.plays(ids(self.block) // self.experiment.session_size)

    def store_replies(self, round_index: int, answers: Answers) -> list[StoredFile]:
        """Writes the replies of the round, from 0, that this block has just answered.

        Returns:
            The files; none where no model was asked.

        Raises:
            RunFileError: if they cannot be written.
        """
        if not self.llm or not self._job or not answers.replies:
            return []
        from pbeauty.storage.replies import write_replies

        return write_replies(self._job.folder, self._job.run_id, round_index, int(self.llm.ids[0]), answers.replies)

    def _compute_guesses(self, announcement: Announcement, answers: Answers) -> float:
        """Fills in the guesses of those without a model; the seconds that the slowest of them thinks."""
        slowest = 0.0
        for segment, where in zip(self.block, rows_of(self.block), strict=True):
            if plays_model(self.experiment, segment):
                continue
            groups = [self.experiment.population[index] for index in segment.groups]
            think_time = max(group.think_time if isinstance(group, UniformGroup) else 0.0 for group in groups)
            slowest = max(slowest, think_time)
            guesses, status = answers.rows["guess"][where], answers.rows["status"][where]
            for start in range(0, len(segment), _PIECE):
                if start and not answers.go_on():
                    return slowest
                part = segment.part(start, start + _PIECE)
                stop = start + len(part)
                asked = status[start:stop] != Status.NOT_ASKED
                guesses[start:stop] = np.where(asked, self._guesses(announcement, part), np.nan)
                status[start:stop][asked] = Status.OK
                answers.progress.done += 0 if think_time else int(asked.sum())
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

    def _ask_models(self, announcement: Announcement, answers: Answers) -> None:
        """Has the language models answer, and fills in their rows."""
        from pbeauty.llm import answering

        assert self.llm is not None
        rows = {name: values[self._slots] for name, values in answers.rows.items()}
        answers.replies = Replies()
        with self._request_loop(answers, announcement.round_index) as loop:
            answers.complete = answering.play(self.llm, announcement, rows, answers.replies, loop)

    @contextmanager
    def _request_loop(self, answers: Answers, round_index: int) -> Iterator[RequestLoop]:
        """The loop around the engine for one round, with a new journal, under the eyes of the watchdog."""
        from pbeauty.llm.request_loop import RequestLoop
        from pbeauty.storage.journal import Journal

        assert self.llm is not None
        engine, replayed = self.llm.engine, self._replayed.pop(round_index, None)
        loop = RequestLoop(engine, answers.progress, answers.on_step, replayed=replayed)
        if (job := self._job) is None:
            yield loop
            return
        watchdog = Watchdog(job.patience, job.comm.rank, end=lambda: job.comm.Abort(FAILED))
        watching = watchdog.watching(answers.progress, lambda: engine.in_flight)
        with watching, Journal(job.journal_path(round_index)) as loop.journal:
            yield loop
