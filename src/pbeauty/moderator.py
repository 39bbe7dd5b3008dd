"""The game itself: announce, play, gather, score, store, until the moderator says that it is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pbeauty.announcing import announcement, group_of, needs_guesses
from pbeauty.config import Experiment
from pbeauty.game import NoValidGuessError, Outcome, Status, play_out
from pbeauty.interrupt import Interrupt
from pbeauty.live import Live
from pbeauty.participants import Block, Play, Tick
from pbeauty.partition import Hosting
from pbeauty.personas import Cast
from pbeauty.progress import Display
from pbeauty.records import Announcement, Progress
from pbeauty.results import Run
from pbeauty.store import JOURNALS, RunWriter, drop_journals, seal_replies
from pbeauty.wire import Reporter, add, gather, meet, oversee

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
        self._last = finished[-1] if finished else None
        self._seen: tuple[NDArray[np.float64] | None, NDArray[np.uint8] | None] = (None, None)
        if finished and needs_guesses(experiment):
            with Run(writer.folder) as run:
                self._seen = run.read("guess", self._round - 1), run.read("status", self._round - 1)
        self._group_of = group_of(experiment)

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
        return announcement(self.experiment, self._round, self._last, *self._seen)

    def keep_personas(self, cast: Cast) -> None:
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
        self, rows: NDArray[np.void], seconds: float, sealed: list[str], parts: Mapping[str, float] | None = None
    ) -> None:
        """Scores a round, stores it and reports it.

        Args:
            rows: PLAY[participant].
            seconds: from the announcement to the gathered guesses.
            sealed: where the round's replies are.
            parts: where the time went, by `store.TIME_PARTS`.
        """
        counts = np.bincount(rows["status"], minlength=len(Status))
        statuses = {status: int(counts[status]) for status in Status}
        try:
            groups = len(self.experiment.population)
            outcome = play_out(self.experiment.game, rows["guess"], rows["status"], self._group_of, groups)
        except NoValidGuessError as error:
            told = ", ".join(f"{n:,} {status.name.lower()}" for status, n in statuses.items() if n)
            self.failure = f"round {self._round + 1}: {error} ({told}); the rounds before it are kept"
            return
        self._writer.commit(self._round, rows, outcome, seconds, sealed, parts)
        drop_journals(self._writer.folder, self._round)
        self.display.result(self._round, outcome, statuses, seconds)
        if self._live:
            self._live.result(outcome, seconds)
        self._last = outcome
        if needs_guesses(self.experiment):
            self._seen = rows["guess"].copy(), rows["status"].copy()
        self._round += 1


def play_game(
    comm: Comm, block: Block, hostings: Sequence[Hosting], folder: Path, session: str, moderator: Moderator | None
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
        began = time.monotonic()
        journal = folder / JOURNALS / f"{announcement.round_index + 1:04d}" / f"{session}-{comm.rank:05d}"
        play = play_together(comm, partial(_play, block, announcement, journal), moderator, announcement.round_index)
        if play.journal:
            play.journal.close()
        played = time.monotonic() - began
        # Whoever waits for the moderator here may wait for a straggler's whole round; the moderator knows better.
        patience = moderator.experiment.patience if moderator else None
        meet(comm, patience)
        rows = gather(comm, play.rows, hostings)
        seconds = time.monotonic() - began
        if not all(comm.allgather(play.complete)):
            continue  # broken off: the moderator has its reason not to announce another
        path = _seal(folder, announcement, block, play)
        meet(comm, patience)
        ended = comm.gather((path, played, block.count))
        if moderator and rows is not None and ended is not None:
            parts = time_parts([times for _, *times in ended], seconds, time.monotonic() - began)
            moderator.close_round(rows, seconds, [path for path, *_ in ended if path], parts)


def time_parts(times: Sequence[Sequence[float]], seconds: float, whole: float) -> dict[str, float]:
    """Where the time of a round went, in s, by `store.TIME_PARTS`.

    Args:
        times: how long each rank played, and how many participants it has; ranks without any only wait.
        seconds: from the announcement to the gathered guesses.
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
    meet(comm, patience)
    return comm.bcast(moderator.announce() if moderator else None)


def _play(block: Block, announcement: Announcement, journal: Path, tick: Tick) -> Play:
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
        reporter = Reporter(comm)
        played = play(reporter.tick)
        reporter.finish(played.progress)
        return played
    interrupt = moderator.interrupt
    moderator.begin_round(round_index)
    try:
        if comm.size > 1:
            oversee(comm, moderator.show, interrupt, moderator.experiment.patience)

        def tick(progress: Progress) -> bool:
            moderator.show({0: progress})
            return not interrupt()

        return play(tick)
    finally:
        moderator.display.end()


def _seal(folder: Path, announcement: Announcement, block: Block, play: Play) -> str | None:
    if not len(play.replies):
        return None
    return seal_replies(folder, announcement.round_index, block.hosting[0].start, play.replies)
