"""A rank's block of participants: everybody it hosts, played at once, as arrays."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pbeauty.game import scripted
from pbeauty.game.announcement import Announcement
from pbeauty.game.experiment import Experiment, LLMGroup, ScriptedGroup, UniformGroup
from pbeauty.game.personas import Personas
from pbeauty.game.records import Progress, Replies, Rows, new_rows
from pbeauty.game.rules import Status
from pbeauty.game.theory import Floats
from pbeauty.job.checkpoint import Checkpoint
from pbeauty.llm import answering, backgrounds
from pbeauty.llm.backgrounds import Backgrounds
from pbeauty.llm.conversations import LLMParticipants
from pbeauty.llm.engine import Engine
from pbeauty.llm.request_loop import RequestLoop
from pbeauty.mpi.partition import Block, Segment, ids, rows_of, span
from pbeauty.mpi.watchdog import Watchdog
from pbeauty.storage.journal import Journal, ReplayedReplies, journals
from pbeauty.storage.replies import write_replies

OnStep = Callable[[Progress], bool]
"""Called every now and then while a block plays; False asks it to stop."""

_NAP = 0.1
"""Seconds between two ticks while participants think."""
_AT_ONCE = 1 << 18
"""Participants without a model whose guesses are computed at once: the steps between need memory of their own."""


@dataclass
class Answers:
    """What a block made of one round."""

    rows: Rows
    """Of the participants of the block, in id order."""
    progress: Progress
    replies: Replies = field(default_factory=Replies)
    """Every reply of the language models in the block."""
    complete: bool = True
    """False where the round was broken off."""
    backgrounds: Backgrounds = field(default_factory=Backgrounds)
    """Those that were written, in id order, where it is them that were asked for."""


class Participants:
    """The participants that one rank hosts."""

    def __init__(
        self,
        experiment: Experiment,
        block: Block,
        engine: Engine | None = None,
        watchdog: Watchdog | None = None,
        personas: Personas | None = None,
    ) -> None:
        """Seats the participants.

        Args:
            experiment: the whole experiment.
            block: the segments of this rank, in id order.
            engine: loaded with the model of the hosted language models; None where there are none.
            watchdog: ends the job if the engine hangs.
            personas: attributes and backgrounds of this rank's participants, in id order; None where nobody has any.
        """
        self.experiment = experiment
        self.block = block
        """Of this rank, in id order."""
        self.count = sum(map(len, block))
        llm_segments = [s for s in block if isinstance(experiment.population[s.group], LLMGroup)]
        self._watchdog = watchdog
        self._recorded: ReplayedReplies | None = None
        self.llm: LLMParticipants | None = None
        if engine and llm_segments:
            self._slots = np.isin(ids(block), ids(llm_segments), assume_unique=True).nonzero()[0]
            self.llm = LLMParticipants(experiment, llm_segments, engine, personas and personas.of(self._slots))

    def notes(self) -> list[str]:
        """What a person should know about how the models' conversations are held."""
        return self.llm.notes() if self.llm else []

    def restore(self, folder: Path, checkpoint: Checkpoint) -> None:
        """Goes on from a run that was interrupted: its finished rounds, and the journals of the one being played.

        Raises:
            ConfigError: if stored replies are missing or damaged. Damaged records of a journal are left out, with a
                message on standard error.
        """
        if self.llm:
            self.llm.restore(folder, checkpoint.announcements, checkpoint.reply_files)
            self._recorded = self.replayed(folder, checkpoint.rounds)

    def replayed(self, folder: Path, round_index: int, but_of: str = "\0") -> ReplayedReplies | None:
        """The replies of a broken-off round that are in journals, but not in those of the job named `but_of`."""
        if self.llm is None:
            return None
        found = [path for path in journals(folder, round_index, span(self.block)) if not path.name.startswith(but_of)]
        return ReplayedReplies(
            found,
            self.llm.ids,
            len(self.llm.engine.tokenizer),
            warn=lambda damage: print(f"pbeauty: {damage}", file=sys.stderr, flush=True),
        )

    def write(self, on_step: OnStep, journal: Path | None = None, recorded: ReplayedReplies | None = None) -> Answers:
        """Has the models write the backgrounds of those who are to have one and have none yet.

        Args:
            on_step: as for `play`.
            journal: a new file, where replies are taken down as they come.
            recorded: replies from before an interruption.

        Returns:
            As `play`, with `backgrounds` in place of rows and replies.
        """
        answers = Answers({}, Progress())
        if self.llm and (slots := backgrounds.wanted(self.llm)).size:
            taken_down = Journal(journal) if journal else None
            with self._watching(self.llm.engine, answers.progress):
                loop = RequestLoop(self.llm.engine, answers.progress, on_step, taken_down, recorded)
                answers.complete = backgrounds.write(self.llm, slots, answers.backgrounds, loop)
            if taken_down:
                taken_down.close()
        return answers

    def answer(
        self, announcement: Announcement, on_step: OnStep = lambda progress: True, journal: Path | None = None
    ) -> Answers:
        """Asks every participant for a guess.

        Args:
            announcement: what everybody is told.
            on_step: called every now and then; False breaks the round off, which is then incomplete.
            journal: a new file, where replies are taken down as they come.
        """
        progress = Progress(total=self.count)
        rows = new_rows(self.count, model=self.experiment.with_models)
        answers = Answers(rows, progress)
        rows["guess"].fill(np.nan)
        rows["status"].fill(Status.FAILED)  # until there is a reply
        began = time.monotonic()
        thinking = 0.0
        for segment, where in zip(self.block, rows_of(self.block), strict=True):
            group = self.experiment.population[segment.group]
            if isinstance(group, LLMGroup):
                continue
            if isinstance(group, UniformGroup):
                thinking = max(thinking, group.think_time)
            if not self._guess(group, segment, announcement, rows["guess"][where], progress, on_step):
                answers.complete = False
                return answers
            rows["status"][where] = Status.OK
        # Everybody thinks at the same time, the language models meanwhile.
        awake = began + thinking
        if self.llm:
            played = {name: values[self._slots] for name, values in rows.items()}
            taken_down = Journal(journal) if journal else None
            with self._watching(self.llm.engine, progress):
                loop = RequestLoop(self.llm.engine, progress, on_step, taken_down, self._recorded)
                answers.complete = answering.play(self.llm, announcement, played, answers.replies, loop)
            self._recorded = None
            if taken_down:
                taken_down.close()
            for name, values in rows.items():
                values[self._slots] = played[name]
        while answers.complete and (rest := awake - time.monotonic()) > 0:
            time.sleep(min(rest, _NAP))
            answers.complete = on_step(progress)
        if answers.complete:
            progress.done = self.count
        return answers

    def store_replies(self, folder: Path, announcement: Announcement, answers: Answers) -> list[str]:
        """Writes the replies of the round that has just been answered, from where conversations go on.

        Args:
            folder: the run's.
            announcement: of that round.
            answers: of this block.

        Returns:
            Paths relative to `folder`; empty where no model was asked.

        Raises:
            RunFileError: if they cannot be written.
        """
        if not len(answers.replies):
            return []
        files, positions = write_replies(folder, announcement.round_index, self.block[0].start, answers.replies)
        if self.llm:
            self.llm.attach_stored(positions)
        return files

    def _guess(
        self,
        group: ScriptedGroup,
        segment: Segment,
        announcement: Announcement,
        guesses: Floats,
        progress: Progress,
        on_step: OnStep,
    ) -> bool:
        """Fills in the guesses of a segment without a model, a piece at a time; False where that was broken off."""
        for start in range(segment.start, segment.stop, _AT_ONCE):
            if start > segment.start and not on_step(progress):
                return False
            stop = min(start + _AT_ONCE, segment.stop)
            guesses[start - segment.start : stop - segment.start] = scripted.guess(
                group,
                self.experiment.game,
                announcement.quantities,
                seed=self.experiment.seed,
                round_index=announcement.round_index,
                start=start,
                stop=stop,
            )
            if not (isinstance(group, UniformGroup) and group.think_time):
                progress.done += stop - start
        return True

    def _watching(self, engine: Engine, progress: Progress) -> contextlib.AbstractContextManager[None]:
        if self._watchdog is None:
            return contextlib.nullcontext()
        return self._watchdog.watching(progress, lambda: engine.in_flight)
