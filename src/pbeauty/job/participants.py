"""A rank's block of participants: everybody it hosts, played at once, as arrays."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pbeauty.game import scripted
from pbeauty.game.announcement import Announcement
from pbeauty.game.experiment import Experiment, UniformGroup
from pbeauty.game.personas import Personas
from pbeauty.game.population import Block, Segment, ids, rows_of, span
from pbeauty.game.records import Progress, Replies, Rows, Status, new_rows
from pbeauty.game.theory import Floats
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
    rows: Rows
    """Of the participants of the block, segment after segment; empty where backgrounds were asked for."""
    replies: Replies | None = None
    """Every reply of the language models in the block; None where there are none."""
    backgrounds: Backgrounds | None = None
    """Those that were written, in id order, where they were asked for."""
    complete: bool = True
    """False where the round was broken off."""


class Participants:
    """The participants of one rank."""

    def __init__(
        self,
        experiment: Experiment,
        block: Block,
        engine: Engine | None = None,
        watchdog: Watchdog | None = None,
        personas: Personas | None = None,
    ) -> None:
        """Sets up the participants before the first round.

        Args:
            experiment: the whole experiment.
            block: of this rank, language models first.
            engine: with the model of the block's language models; None where there are none.
            watchdog: ends the job if the engine hangs.
            personas: attributes and backgrounds of the block's participants; None where nobody has any.
        """
        self.experiment = experiment
        self.block = block
        self.count = sum(map(len, block))
        self._watchdog = watchdog
        self._replayed: ReplayedReplies | None = None
        self.llm: LLMParticipants | None = None
        if engine and block and plays_model(experiment, block[0]):
            from pbeauty.llm.conversations import LLMParticipants

            self._slots = slice(0, len(block[0]))
            own = personas and personas.of(np.arange(len(block[0])))
            self.llm = LLMParticipants(experiment, block[0], engine, own)

    @property
    def replies_kept(self) -> int:
        """Replies of the round that an earlier job broke off, which are not asked for again."""
        return len(self._replayed) if self._replayed else 0

    def notes(self) -> list[str]:
        """What a person should know about how the models' conversations are held."""
        return self.llm.notes() if self.llm else []

    def restore(self, folder: Path, checkpoint: Checkpoint) -> None:
        """Goes on from a run that was interrupted: its finished rounds, and the journals of the one being played.

        Raises:
            RunFileError: if stored replies are missing or damaged. Damaged records of a journal are left out, with a
                message on standard error.
        """
        if self.llm:
            self.llm.restore(folder, checkpoint.announcements, checkpoint.reply_files)
            self._replayed = self.replayed(folder, checkpoint.rounds)

    def replayed(self, folder: Path, round_index: int, except_job: str | None = None) -> ReplayedReplies | None:
        """The replies of a broken-off round that are in journals, but not in those of the job `except_job`."""
        if self.llm is None:
            return None
        from pbeauty.storage.journal import ReplayedReplies, journals

        found = journals(folder, round_index, span(self.block))
        if except_job:
            found = [path for path in found if not path.name.startswith(except_job)]
        return ReplayedReplies(
            found,
            self.llm.ids,
            self.llm.engine.vocabulary,
            warn=lambda damage: print(f"pbeauty: {damage}", file=sys.stderr, flush=True),
        )

    def without_background(self) -> int:
        """How many are to have a background written by their model, and have none yet."""
        if self.llm is None:
            return 0
        from pbeauty.llm import backgrounds

        return backgrounds.wanted(self.llm).size

    def write_backgrounds(
        self, on_step: OnStep, journal: Path | None = None, replayed: ReplayedReplies | None = None
    ) -> Answers:
        """Has the models write the backgrounds of those who are to have one and have none yet.

        Args:
            on_step: as for `answer`.
            journal: a new file, to which replies are appended as they come.
            replayed: replies from before an interruption.
        """
        answers = Answers(Progress(), {})
        if self.llm is None:
            return answers
        from pbeauty.llm import backgrounds

        if (wanted := backgrounds.wanted(self.llm)).size:
            answers.backgrounds = backgrounds.Backgrounds()
            with self._request_loop(answers.progress, on_step, journal, replayed) as loop:
                answers.complete = backgrounds.write(self.llm, wanted, answers.backgrounds, loop)
        return answers

    def answer(
        self, announcement: Announcement, on_step: OnStep = lambda progress: True, journal: Path | None = None
    ) -> Answers:
        """Asks every participant for a guess.

        Args:
            announcement: what everybody is told.
            on_step: called every now and then; False breaks the round off, which is then incomplete.
            journal: a new file, to which replies are appended as they come.
        """
        began = time.monotonic()
        rows = new_rows(self.count, model=self.experiment.with_models)
        asked = self._asked(announcement)
        rows["guess"].fill(np.nan)
        rows["status"].fill(Status.FAILED)  # until there is a reply
        if asked is not None:
            rows["status"][~asked] = Status.NOT_ASKED
        answers = Answers(Progress(total=self.count if asked is None else int(asked.sum())), rows)
        think_time = self._compute_guesses(announcement, answers, on_step)
        if answers.complete and self.llm:
            self._ask_models(announcement, answers, on_step, journal)
        # Everybody thinks at the same time, the language models meanwhile.
        while answers.complete and (rest := began + think_time - time.monotonic()) > 0:
            time.sleep(min(rest, _LONGEST_SLEEP))
            answers.complete = on_step(answers.progress)
        if answers.complete:
            answers.progress.done = answers.progress.total
        return answers

    def _asked(self, announcement: Announcement) -> NDArray[np.bool_] | None:
        """Whose sessions go on, bool[participant of the block]; None for all."""
        if announcement.playing is None:
            return None
        return announcement.plays(ids(self.block) // self.experiment.session_size)

    def store_replies(self, job: JobContext, announcement: Announcement, answers: Answers) -> list[StoredFile]:
        """Writes the replies of the round that has just been answered, from where conversations go on.

        Args:
            job: which run it is, and where.
            announcement: of that round.
            answers: of this block.

        Returns:
            The files; none where no model was asked.

        Raises:
            RunFileError: if they cannot be written.
        """
        if not self.llm or not answers.replies:
            return []
        from pbeauty.storage.replies import write_replies

        first = int(self.llm.ids[0])
        files, positions = write_replies(job.folder, job.run_id, announcement.round_index, first, answers.replies)
        self.llm.attach_stored(positions)
        return files

    def _compute_guesses(self, announcement: Announcement, answers: Answers, on_step: OnStep) -> float:
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
                if start and not on_step(answers.progress):
                    answers.complete = False
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
            return scripted.guess(self.experiment, part.groups[0], announcement, participants)
        groups, found = part.group_of(), np.empty(len(part))
        for group in part.groups:
            if (mine := groups == group).any():
                found[mine] = scripted.guess(self.experiment, group, announcement, participants[mine])
        return found

    def _ask_models(self, announcement: Announcement, answers: Answers, on_step: OnStep, journal: Path | None) -> None:
        """Has the language models answer, and fills in their rows."""
        from pbeauty.llm import answering

        assert self.llm is not None
        rows = {name: values[self._slots] for name, values in answers.rows.items()}
        answers.replies = Replies()
        with self._request_loop(answers.progress, on_step, journal, self._replayed) as loop:
            answers.complete = answering.play(self.llm, announcement, rows, answers.replies, loop)
        self._replayed = None

    @contextmanager
    def _request_loop(
        self, progress: Progress, on_step: OnStep, journal: Path | None, replayed: ReplayedReplies | None
    ) -> Iterator[RequestLoop]:
        """The loop around the engine for one round, with a new journal, under the eyes of the watchdog."""
        from pbeauty.llm.request_loop import RequestLoop
        from pbeauty.storage.journal import Journal

        assert self.llm is not None
        engine = self.llm.engine
        watching = self._watchdog.watching(progress, lambda: engine.in_flight) if self._watchdog else nullcontext()
        with watching, Journal(journal) if journal else nullcontext() as opened:
            yield RequestLoop(engine, progress, on_step, opened, replayed)
