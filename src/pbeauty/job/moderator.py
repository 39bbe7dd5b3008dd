"""Rank 0's part in a game: what is announced, when it ends, what a round came to, and the record of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from pbeauty.game.announcement import Announcement, announcement, group_of, needs_guesses
from pbeauty.game.experiment import Experiment
from pbeauty.game.personas import Personas
from pbeauty.game.records import Progress, Rows
from pbeauty.game.rules import NoValidGuessError, Outcome, Status
from pbeauty.game.scoring import Scored, score
from pbeauty.job.checkpoint import Checkpoint
from pbeauty.job.stop_requests import Interrupt
from pbeauty.storage.journal import drop_journals
from pbeauty.storage.run_writer import RunWriter


class Observer(Protocol):
    """Is told how a game goes, on rank 0."""

    def begin_round(self, round_index: int) -> None:
        """The ranks begin to answer; at -1 they write backgrounds."""
        ...

    def show(self, progress: Mapping[int, Progress]) -> None:
        """How far each rank is, a few times a second."""
        ...

    def end_round(self) -> None:
        """The ranks have answered, or were told to stop."""
        ...

    def result(self, round_index: int, outcome: Outcome, statuses: dict[Status, int], seconds: float) -> None:
        """A round is finished and stored."""
        ...

    def say(self, message: str) -> None:
        """Something that a person should know."""
        ...


class Moderator:
    """Rank 0's part: decides whether there is another round, tells how it went, keeps the record."""

    def __init__(
        self,
        experiment: Experiment,
        writer: RunWriter,
        interrupt: Interrupt,
        checkpoint: Checkpoint,
        observers: Sequence[Observer] = (),
    ) -> None:
        """Starts the game, or goes on after the finished rounds of `checkpoint`.

        Args:
            experiment: what is played.
            writer: of the run.
            interrupt: says when the game is to stop early.
            checkpoint: what earlier jobs have left.
            observers: are told how the game goes.
        """
        self.experiment = experiment
        self.interrupt = interrupt
        self.failure: str | None = None
        """Why the game could not go on, where it could not."""
        self._writer, self._observers = writer, observers
        self._began = self._seconds = 0.0
        self._scored: Scored | None = None
        self._round = checkpoint.rounds
        self._next = checkpoint.announcements[-1]

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

    def keep_personas(self, personas: Personas) -> None:
        """Stores who the participants are."""
        self._writer.keep_personas(personas)

    def begin_round(self, round_index: int) -> None:
        """The ranks begin to answer; -1 stands for the backgrounds that are written before the first round."""
        self._began = time.monotonic()
        for observer in self._observers:
            observer.begin_round(round_index)

    def show(self, progress: Mapping[int, Progress]) -> None:
        """How far each rank is."""
        for observer in self._observers:
            observer.show(progress)

    def end_round(self) -> None:
        """The ranks have answered, or were told to stop."""
        for observer in self._observers:
            observer.end_round()

    def say(self, message: str) -> None:
        """Tells the person at the terminal."""
        for observer in self._observers:
            observer.say(message)

    def score(self, rows: Rows) -> None:
        """Scores the round that has just been answered: rows of all participants, in the order of their ids."""
        groups = len(self.experiment.population)
        members = group_of(self.experiment)
        self._scored = score(self.experiment.game, rows["guess"], rows["status"], members, groups)
        self._seconds = time.monotonic() - self._began

    def close_round(self, rows: Rows, files: Sequence[str], times: Sequence[Sequence[float]]) -> None:
        """Stores the round that has been scored, tells of it, and makes the next announcement.

        Args:
            rows: of all participants, in the order of their ids.
            files: of the round's replies, as paths relative to the run's folder.
            times: by rank, the seconds that its block took and the number of its participants.
        """
        scored, seconds = self._scored, self._seconds
        assert scored is not None  # a round is scored before it is closed
        if scored.outcome is None:
            told = ", ".join(f"{n:,} {status.name.lower()}" for status, n in scored.statuses.items() if n)
            self.failure = f"round {self._round + 1}: {NoValidGuessError()} ({told}); the rounds before it are kept"
            return
        parts = time_parts(times, seconds, time.monotonic() - self._began)
        self._writer.commit(self._round, rows, scored, seconds, files, parts)
        drop_journals(self._writer.folder, self._round)
        for observer in self._observers:
            observer.result(self._round, scored.outcome, scored.statuses, seconds)
        self._round += 1
        if not self.finished:
            seen = [rows[name] for name in ("guess", "status")] if needs_guesses(self.experiment) else []
            self._next = announcement(self.experiment, self._round, scored.outcome, scored.group_numbers, *seen)


def time_parts(times: Sequence[Sequence[float]], seconds: float, whole: float) -> dict[str, float]:
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
