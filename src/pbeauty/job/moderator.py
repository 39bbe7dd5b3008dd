"""Rank 0's part in a game: what is announced, when it ends, what a round came to, and the record of it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from pbeauty.game.announcement import Announcement, announcement
from pbeauty.game.experiment import Experiment
from pbeauty.game.population import group_counts
from pbeauty.game.records import Rows
from pbeauty.game.scoring import Scored, score
from pbeauty.job.checkpoint import Checkpoint
from pbeauty.job.live_status import LiveStatus
from pbeauty.job.stop_requests import Interrupt
from pbeauty.storage.journal import drop_journals
from pbeauty.storage.run_writer import RunWriter
from pbeauty.storage.schema import StoredFile

_LISTED = 10
"""Sessions that a message lists."""


class Moderator:
    """Decides whether there is another round, scores and stores what was answered, and has the run followed."""

    def __init__(
        self,
        experiment: Experiment,
        interrupt: Interrupt,
        checkpoint: Checkpoint,
        live: LiveStatus,
        writer: RunWriter,
    ) -> None:
        """Starts the game, or goes on after the finished rounds of `checkpoint`; `interrupt` may stop it early."""
        self.experiment, self.interrupt, self.live, self.writer = experiment, interrupt, live, writer
        self.rounds = checkpoint.rounds
        """Finished ones."""
        self.failure: str | None = None
        """Why the game could not go on, where it could not."""
        self.finished = self.rounds == experiment.game.rounds
        """Whether all is done that was to be: every round played, or the backgrounds written where they are all."""
        self._began = self._seconds = 0.0
        self._scored: Scored | None = None
        self._next = checkpoint.announcements[-1]

    def begin_round(self, round_index: int) -> None:
        """Ranks begin to answer, or at BACKGROUNDS_ROUND to write backgrounds."""
        self._began = time.monotonic()
        self.live.begin_round(round_index)

    def announce(self) -> Announcement | None:
        """What the next round starts with; None when the game is over, or has to stop."""
        if self.finished or self.failure or self.interrupt.requested():
            return None
        return self._next

    def score(self, rows: Rows) -> None:
        """Scores the round that has just been answered: rows of all participants, in the order of their ids."""
        self._scored = score(self.experiment.game, rows["guess"], rows["status"], group_counts(self.experiment))
        self._seconds = time.monotonic() - self._began

    def close_round(self, rows: Rows, stored: Sequence[tuple[list[StoredFile], float, int]]) -> None:
        """Stores the round that has been scored, shows it, and makes the next announcement.

        Args:
            rows: of all participants, in the order of their ids.
            stored: by rank, the files of its replies, the seconds that its block took, and how many are in it.
        """
        scored, seconds = self._scored, self._seconds
        assert scored is not None  # a round is scored before it is closed
        empty = np.flatnonzero(scored.outcome.n_valid == 0) + 1
        if empty.size == self.experiment.sessions:
            counts = ", ".join(f"{n:,} {status.name.lower()}" for status, n in scored.statuses.items() if n)
            self.failure = (
                f"round {self.rounds + 1}: no participant gave a valid guess, so the round has no target ({counts}); "
                f"its replies are kept in replies/{self.rounds + 1:04}, and so are the rounds before it"
            )
            return
        played = [took for _, took, count in stored if count]  # the other ranks only wait
        took = {"seconds": seconds} | time_parts(played, seconds, time.monotonic() - self._began)
        self.writer.commit(self.rounds, rows, scored, took, [file for files, *_ in stored for file in files])
        drop_journals(self.writer.folder, self.rounds)
        self.live.result(self.rounds, scored, seconds)
        if (ended := empty[self._next.plays(empty - 1)]).size:
            listed = ", ".join(map(str, ended[:_LISTED].tolist())) + ", ..." * (ended.size > _LISTED)
            which = f"session {listed}, which ends" if ended.size == 1 else f"sessions {listed}, which end"
            self.live.say(f"round {self.rounds + 1}: no valid guess in {which} here")
        self.rounds += 1
        self.finished = self.rounds == self.experiment.game.rounds
        if not self.finished:
            outcome, numbers = scored.outcome, scored.group_numbers
            self._next = announcement(self.experiment, self.rounds, outcome, numbers, rows.__getitem__)

    def end_game(self) -> None:
        """Says how the game ended."""
        if self.finished:
            self.live.end("finished")
        elif self.failure:
            self.live.end("failed", self.failure)
            self.live.say(f"pbeauty: {self.failure}")
        else:
            reason = f"stopped by {self.interrupt.reason}"
            self.live.end("interrupted", reason)
            self.live.say(
                f"pbeauty: {reason} after {self.rounds} finished round(s); the same command with --resume goes on"
            )


def time_parts(played: Sequence[float], seconds: float, whole: float) -> dict[str, float]:
    """Where the time of a round went, in s, by `schema.TIME_PARTS`.

    Args:
        played: by each rank with participants.
        seconds: from the announcement to the score.
        whole: from the announcement to the stored replies.
    """
    slowest, average = max(played), sum(played) / len(played)
    return {
        "seconds_playing": average,
        "seconds_waiting": slowest - average,
        "seconds_gathering": max(0.0, seconds - slowest),
        "seconds_storing": max(0.0, whole - seconds),
    }
