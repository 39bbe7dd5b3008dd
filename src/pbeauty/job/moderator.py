"""Rank 0's part in a game: what is announced, when it ends, what a round came to, and the record of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from pbeauty.game.announcement import Announcement, announcement, needs_guesses
from pbeauty.game.experiment import Experiment
from pbeauty.game.population import group_counts
from pbeauty.game.records import Progress, Rows
from pbeauty.game.scoring import Scored, score
from pbeauty.job.checkpoint import Checkpoint
from pbeauty.job.stop_requests import Interrupt
from pbeauty.storage.journal import drop_journals
from pbeauty.storage.run_writer import RunWriter
from pbeauty.storage.schema import StoredFile

_LISTED = 10
"""Sessions that a message lists."""


class Observer(Protocol):
    """Follows a run, on rank 0."""

    def loading(self, ready: int, engines: int) -> None:
        """So many of the job's engines have been loaded; from 0 on, until `begin_playing`."""
        ...

    def begin_playing(self, hosts: Sequence[str], counts: Sequence[int]) -> None:
        """All ranks are ready: the host and the number of participants of each."""
        ...

    def begin_round(self, round_index: int) -> None:
        """The ranks begin to answer; at BACKGROUNDS_ROUND they write backgrounds."""
        ...

    def show(self, progress: Mapping[int, Progress]) -> None:
        """How far each rank is that has said so, of those that it asks in the round, a few times a second."""
        ...

    def end_round(self) -> None:
        """The ranks have answered, or were told to stop."""
        ...

    def result(self, round_index: int, scored: Scored, seconds: float) -> None:
        """A round is finished and stored."""
        ...

    def say(self, message: str) -> None:
        """Something that a person should know."""
        ...

    def end(self, state: str, message: str | None = None) -> None:
        """The game is over: `finished`, `failed` or `interrupted`, and why."""
        ...


class Observers:
    """Several observers as one: each of its methods calls that of all of them."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            for observer in self._observers:
                getattr(observer, name)(*arguments)

        return call


class Moderator:
    """Decides whether there is another round, scores and stores what was answered, and keeps observers informed."""

    def __init__(
        self, experiment: Experiment, interrupt: Interrupt, checkpoint: Checkpoint, observers: Sequence[Observer] = ()
    ) -> None:
        """Starts the game, or goes on after the finished rounds of `checkpoint`.

        Args:
            experiment: what is played.
            interrupt: says when the game is to stop early.
            checkpoint: what earlier jobs have left.
            observers: follow the run.
        """
        self.experiment = experiment
        self.interrupt = interrupt
        self.observers = Observers(observers)
        self.writer: RunWriter
        """Of the run; to be set before the game begins."""
        self.rounds = checkpoint.rounds
        """Finished ones."""
        self.failure: str | None = None
        """Why the game could not go on, where it could not."""
        self.finished = self.rounds == experiment.game.rounds
        """Whether all is done that was to be: every round played, or the backgrounds written where they are all."""
        self._began = self._seconds = 0.0
        self._scored: Scored | None = None
        self._next = checkpoint.announcements[-1]

    @contextmanager
    def answering(self, round_index: int) -> Iterator[None]:
        """While this lasts, ranks answer, or at BACKGROUNDS_ROUND write backgrounds."""
        self._began = time.monotonic()
        self.observers.begin_round(round_index)
        try:
            yield
        finally:
            self.observers.end_round()

    def announce(self) -> Announcement | None:
        """What the next round starts with; None when the game is over, or has to stop."""
        if self.finished or self.failure or self.interrupt.requested():
            return None
        return self._next

    def score(self, rows: Rows) -> None:
        """Scores the round that has just been answered: rows of all participants, in the order of their ids."""
        self._scored = score(self.experiment.game, rows["guess"], rows["status"], group_counts(self.experiment))
        self._seconds = time.monotonic() - self._began

    def close_round(self, rows: Rows, files: Sequence[StoredFile], times: Sequence[tuple[float, int]]) -> None:
        """Stores the round that has been scored, tells observers, and makes the next announcement.

        Args:
            rows: of all participants, in the order of their ids.
            files: of the round's replies.
            times: by rank, the seconds that its block took and the number of its participants.
        """
        scored, seconds = self._scored, self._seconds
        assert scored is not None  # a round is scored before it is closed
        empty = np.flatnonzero(scored.outcome.n_valid == 0) + 1
        if empty.size == self.experiment.sessions:
            counts = ", ".join(f"{n:,} {status.name.lower()}" for status, n in scored.statuses.items() if n)
            self.failure = (
                f"round {self.rounds + 1}: no participant gave a valid guess, so the round has no target ({counts}); "
                "the rounds before it are kept"
            )
            return
        took = {"seconds": seconds} | time_parts(times, seconds, time.monotonic() - self._began)
        self.writer.commit(self.rounds, rows, scored, took, files)
        drop_journals(self.writer.folder, self.rounds)
        self.observers.result(self.rounds, scored, seconds)
        if (ended := empty[self._next.plays(empty - 1)]).size:
            listed = ", ".join(map(str, ended[:_LISTED].tolist())) + ", ..." * (ended.size > _LISTED)
            which = f"session {listed}, which ends" if ended.size == 1 else f"sessions {listed}, which end"
            self.observers.say(f"round {self.rounds + 1}: no valid guess in {which} here")
        self.rounds += 1
        self.finished = self.rounds == self.experiment.game.rounds
        if not self.finished:
            answers = [rows[name] for name in ("guess", "status")] if needs_guesses(self.experiment) else []
            self._next = announcement(self.experiment, self.rounds, scored.outcome, scored.group_numbers, *answers)

    def end_game(self) -> None:
        """Tells observers how the game ended."""
        if self.finished:
            self.observers.end("finished")
        elif self.failure:
            self.observers.end("failed", self.failure)
            self.observers.say(f"pbeauty: {self.failure}")
        else:
            reason = f"stopped by {self.interrupt.reason}"
            self.observers.end("interrupted", reason)
            self.observers.say(
                f"pbeauty: {reason} after {self.rounds} finished round(s); the same command with --resume goes on"
            )


def time_parts(times: Sequence[tuple[float, int]], seconds: float, whole: float) -> dict[str, float]:
    """Where the time of a round went, in s, by `schema.TIME_PARTS`.

    Args:
        times: how long each rank played, and how many participants it has; ranks without any only wait.
        seconds: from the announcement to the score.
        whole: from the announcement to the stored replies.
    """
    played = [time for time, count in times if count]
    slowest, average = max(played), sum(played) / len(played)
    return {
        "seconds_playing": average,
        "seconds_waiting": slowest - average,
        "seconds_gathering": max(0.0, seconds - slowest),
        "seconds_storing": max(0.0, whole - seconds),
    }
