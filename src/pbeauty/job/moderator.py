"""The game itself: announce, play, score, store, until the moderator says that it is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pbeauty.game.announcement import announcement, group_of, needs_guesses
from pbeauty.game.experiment import Experiment
from pbeauty.game.personas import Personas
from pbeauty.game.records import Announcement, Progress, Rows
from pbeauty.game.rules import NoValidGuessError, Outcome
from pbeauty.game.scoring import Scored, score
from pbeauty.job.display import Display
from pbeauty.job.live_status import Live
from pbeauty.job.participants import Participants, Play, Tick
from pbeauty.job.stop_requests import Interrupt
from pbeauty.mpi.collectives import gather, idle_barrier
from pbeauty.mpi.monitor import ProgressReporter, add, monitor_ranks
from pbeauty.mpi.partition import Block, span
from pbeauty.storage.replies import seal_replies
from pbeauty.storage.run_reader import Run
from pbeauty.storage.run_writer import RunWriter, drop_journals, journal_path

if TYPE_CHECKING:
    from mpi4py.MPI import Comm


class Moderator:
    """Rank 0's part: decides whether there is another round, tells how it went, keeps the record."""

    def __init__(
        self,
        experiment: Experiment,
        writer: RunWriter,
        display: Display,
        interrupt: Interrupt,
        finished: Sequence[Outcome] = (),
        live: Live | None = None,
    ) -> None:
        """Starts the game, or goes on after the rounds in `finished`."""
        self.experiment = experiment
        self.display = display
        self.interrupt = interrupt
        self.failure: str | None = None
        """Why the game could not go on, where it could not."""
        self._writer = writer
        self._live = live
        self._round = len(finished)
        self._next = announcement(experiment, 0)
        if finished:
            with Run(writer.folder) as run:
                self._next = run.announcement(self._round)

    @property
    def finished(self) -> bool:
        """Whether every round has been played."""
        return self._round == self.experiment.game.rounds

    @property
    def rounds_played(self) -> int:
        """Finished rounds."""
        return self._round

    def announce(self) -> Announcement | None:
        """What the next round starts with; None when the game is over, or has to stop."""
        if self.finished or self.failure or self.interrupt():
            return None
        return self._next

    def keep_personas(self, cast: Personas) -> None:
        """Stores who the participants are."""
        self._writer.keep_personas(cast)

    def begin_round(self, round_index: int) -> None:
        """The ranks begin to play."""
        self.display.begin(round_index)
        if self._live:
            self._live.begin(round_index)

    def show(self, progress: Mapping[int, Progress]) -> None:
        """How far each rank is."""
        self.display.show(add(progress.values()))
        if self._live:
            self._live.show(progress)

    def close_round(
        self,
        scored: Scored,
        rows: Rows,
        seconds: float,
        sealed: Sequence[str],
        parts: Mapping[str, float] | None = None,
    ) -> None:
        """Stores a round and reports it.

        Args:
            scored: what it came to.
            rows: of all participants, in the order of their ids.
            seconds: from the announcement to the score.
            sealed: the files of the round's replies, as paths relative to the run's folder.
            parts: where the time went, by `store.TIME_PARTS`.
        """
        if scored.outcome is None:
            told = ", ".join(f"{n:,} {status.name.lower()}" for status, n in scored.statuses.items() if n)
            self.failure = f"round {self._round + 1}: {NoValidGuessError()} ({told}); the rounds before it are kept"
            return
        self._writer.commit(self._round, rows, scored, seconds, sealed, parts)
        drop_journals(self._writer.folder, self._round)
        self.display.result(self._round, scored.outcome, scored.statuses, seconds)
        if self._live:
            self._live.result(scored.outcome, seconds)
        self._round += 1
        if not self.finished:
            seen = [rows[name] for name in ("guess", "status")] if needs_guesses(self.experiment) else []
            self._next = announcement(self.experiment, self._round, scored.outcome, scored.group_numbers, *seen)


def play_game(
    comm: Comm, block: Participants, hostings: Sequence[Block], folder: Path, session: str, moderator: Moderator | None
) -> None:
    """Plays rounds until the moderator ends the game; the same collectives in the same order on every rank.

    Args:
        comm: the ranks that play; rank 0 moderates.
        block: the participants of this rank.
        hostings: what each rank hosts.
        folder: the run's folder, which all ranks share.
        session: a name for this job, which no earlier job on the same run has had.
        moderator: on rank 0, None elsewhere.
    """
    while (announcement := _broadcast(comm, block.experiment.patience, moderator)) is not None:
        _play_round(comm, block, hostings, folder, session, moderator, announcement)


def _play_round(
    comm: Comm,
    block: Participants,
    hostings: Sequence[Block],
    folder: Path,
    session: str,
    moderator: Moderator | None,
    announcement: Announcement,
) -> None:
    """One round, of which nothing but the block's own state stays in memory."""
    experiment = block.experiment
    began = time.monotonic()
    journal = journal_path(folder, announcement.round_index, session, comm.rank, span(block.hosting))
    play = play_together(comm, partial(_play, block, announcement, journal), moderator, announcement.round_index)
    if play.journal:
        play.journal.close()
    played = time.monotonic() - began
    # Whoever waits for the moderator here may wait for a straggler's whole round; the moderator knows better.
    patience = moderator.experiment.patience if moderator else None
    idle_barrier(comm, patience)
    if not all(comm.allgather(play.complete)):
        return  # broken off: the moderator has its reason not to announce another
    rows = gather(comm, play.rows, hostings)
    scored = None
    if rows is not None:
        groups = len(experiment.population)
        scored = score(experiment.game, rows["guess"], rows["status"], group_of(experiment), groups)
    seconds = time.monotonic() - began
    sealed = _seal(folder, announcement, block, play)
    idle_barrier(comm, patience)
    ended = comm.gather((sealed, played, block.count))
    if moderator and ended is not None and rows is not None and scored is not None:
        parts = time_parts([times for _, *times in ended], seconds, time.monotonic() - began)
        moderator.close_round(scored, rows, seconds, [path for sealed, *_ in ended for path in sealed], parts)


def time_parts(times: Sequence[Sequence[float]], seconds: float, whole: float) -> dict[str, float]:
    """Where the time of a round went, in s, by `store.TIME_PARTS`.

    Args:
        times: how long each rank played, and how many participants it has; ranks without any only wait.
        seconds: from the announcement to the score.
        whole: from the announcement to the sealed replies.
    """
    played = [time for time, count in times if count]
    slowest, average = max(played), sum(played) / len(played)
    return {
        "seconds_playing": average,
        "seconds_waiting": slowest - average,
        "seconds_gathering": max(0.0, seconds - slowest),
        "seconds_sealing": max(0.0, whole - seconds),
    }


def _broadcast(comm: Comm, patience: float, moderator: Moderator | None) -> Announcement | None:
    idle_barrier(comm, patience)
    return comm.bcast(moderator.announce() if moderator else None)


def _play(block: Participants, announcement: Announcement, journal: Path, tick: Tick) -> Play:
    return block.play(announcement, tick, journal)


def play_together(comm: Comm, play: Callable[[Tick], Play], moderator: Moderator | None, round_index: int) -> Play:
    """Every rank plays its block; rank 0 meanwhile shows how far the others are.

    Args:
        comm: the ranks that play.
        play: plays this rank's block, with something to call every now and then.
        moderator: on rank 0, None elsewhere.
        round_index: from 0; -1 for what comes before the first round.
    """
    if moderator is None:
        reporter = ProgressReporter(comm)
        played = play(reporter.tick)
        reporter.finish(played.progress)
        return played
    interrupt = moderator.interrupt
    moderator.begin_round(round_index)
    try:
        if comm.size > 1:
            monitor_ranks(comm, moderator.show, interrupt, moderator.experiment.patience)

        def tick(progress: Progress) -> bool:
            moderator.show({0: progress})
            return not interrupt()

        return play(tick)
    finally:
        moderator.display.end()


def _seal(folder: Path, announcement: Announcement, block: Participants, play: Play) -> list[str]:
    """Writes what the language models of this rank said in a round; returns the files, relative to the run's folder."""
    if not len(play.replies):
        return []
    written = seal_replies(folder, announcement.round_index, block.hosting[0].start, play.replies)
    block.sealed([folder / path for path in written])
    return written
