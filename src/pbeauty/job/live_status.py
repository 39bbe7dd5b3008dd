"""How a run is getting on, as a small JSON file that anybody may read while it is played: `live.json`.

Rank 0 replaces it whole, at most once a second, so a reader finds one state or the next and never half of one. Its
schema is `LiveState`; `pbeauty watch` shows it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pbeauty.files import replace_text
from pbeauty.game.experiment import Experiment
from pbeauty.game.records import Progress
from pbeauty.game.rules import Outcome, Status
from pbeauty.storage.lock import Owner
from pbeauty.storage.run_reader import Run

LIVE_FILE = "live.json"
ROUNDS_SHOWN = 500
"""Finished rounds whose figures the file keeps, the latest ones; run.h5 holds them all."""
SECONDS_BETWEEN_WRITES = 1.0
_LONGEST_MESSAGE = 2000
_LONGEST = 1e15
"""Seconds, or anything else that is counted per second."""

State = Literal["starting", "playing", "finished", "interrupted", "failed"]
Count = Annotated[int, Field(ge=0, le=2**53)]
Figure = Annotated[float, Field(ge=-1e60, le=1e60, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, le=_LONGEST, allow_inf_nan=False)]
Name = Annotated[str, StringConstraints(max_length=500)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore")


class RankState(_Record):
    """One playing rank in the round that is being played."""

    rank: Count
    host: Name
    total: Count
    """Participants of the rank."""
    done: Count = 0
    """Those who have answered."""
    unusable: Count = 0
    """Those of them without a valid guess."""
    prompt_tokens: Count = 0
    output_tokens: Count = 0
    participants_per_second: Amount = 0.0
    """Since the round began; of a rank that is through, until it was."""


class RoundState(_Record):
    """A finished round; guesses and targets are in the units of the game."""

    round: Count
    """From 1."""
    mean: Figure
    median: Figure
    target: Figure
    n_valid: Count
    n_winners: Count
    seconds: Amount
    """Wall time."""


class SweepState(BaseModel):
    """What the live file of a sweep's folder holds, where the cases have one each: which of them is being played."""

    model_config = ConfigDict(extra="forbid")
    state: Literal["playing", "finished", "interrupted", "failed"]
    sweep: Name
    case: Annotated[str, StringConstraints(max_length=500, pattern=r"^([^/\x00.][^/\x00]*)?$")]
    """Its folder below the sweep's; empty where none is."""


class LiveState(_Record):
    """The content of live.json."""

    schema_version: Count = 1
    state: State
    name: Name
    message: Annotated[str, StringConstraints(max_length=_LONGEST_MESSAGE)] | None = None
    """Why the run was interrupted, or failed."""
    user: Name
    host: Name
    pid: Count
    """Of rank 0, on `host`."""
    slurm_job_id: Name | None
    started: Name
    """When this job began, UTC, ISO 8601."""
    updated: Name
    """When this state was written."""
    rounds: Count
    """To be played in all."""
    rounds_finished: Count
    round: Count | None = None
    """Being played, from 1; null between rounds, before the first and after the last."""
    participants: Count
    done: Count = 0
    """Participants who have answered in this round; likewise the next ones."""
    unusable: Count = 0
    prompt_tokens: Count = 0
    output_tokens: Count = 0
    round_seconds: Amount = 0.0
    """Since the round's announcement."""
    participants_per_second: Amount = 0.0
    tokens_per_second: Amount = 0.0
    """Sampled tokens."""
    round_seconds_left: Amount | None = None
    """If the slowest rank goes on as it has so far; null where nobody can tell yet."""
    run_seconds_left: Amount | None = None
    """Roughly: further rounds are taken to last as long as those before."""
    ranks: Annotated[list[RankState], Field(max_length=100_000)] = []
    """Ranks that host participants."""
    results: Annotated[list[RoundState], Field(max_length=10_000)] = []
    """The latest finished rounds, at most 500."""


class Live:
    """Rank 0's pen; a context manager, which notes an error that ends the run."""

    def __init__(self, folder: Path, experiment: Experiment, owner: Owner) -> None:
        """Writes the first state: starting.

        Args:
            folder: the run's folder.
            experiment: what is played.
            owner: who plays it.
        """
        self._path = folder / LIVE_FILE
        self._owner, self._experiment = owner, experiment
        self._state: State = "starting"
        self._message: str | None = None
        self._ranks: dict[int, RankState] = {}
        self._results: list[RoundState] = []
        self._finished = 0
        self._round: int | None = None
        self._began = self._next_write = 0.0
        self._warned = False
        self._write()

    def __enter__(self) -> Live:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error:
            self.end("failed", str(error) or type(error).__name__)

    def go_on(self, rounds: int, results: Sequence[RoundState]) -> None:
        """Takes up what earlier jobs have played: so many rounds, and the results of the latest."""
        self._finished, self._results = rounds, list(results)

    def seat(self, hosts: Sequence[str], counts: Sequence[int]) -> None:
        """Everybody is there: each rank's host and number of participants."""
        self._ranks = {
            rank: RankState(rank=rank, host=host[:500], total=count)
            for rank, (host, count) in enumerate(zip(hosts, counts, strict=True))
            if count
        }
        self._state = "playing"
        self._write()

    def begin_round(self, round_index: int) -> None:
        """A round starts."""
        self._began = time.monotonic()
        self._round = round_index + 1
        for rank in self._ranks.values():
            rank.done = rank.unusable = rank.prompt_tokens = rank.output_tokens = 0
            rank.participants_per_second = 0.0
        self._write_if_due()

    def show(self, progress: Mapping[int, Progress]) -> None:
        """How far the ranks have come."""
        now = time.monotonic()
        if now < self._next_write:
            return
        seconds = max(now - self._began, 1e-9)
        for number, seen in progress.items():
            rank = self._ranks.get(number)
            if rank and rank.done < rank.total:
                rank.done, rank.unusable = seen.done, seen.unusable
                rank.prompt_tokens, rank.output_tokens = seen.prompt_tokens, seen.output_tokens
                rank.participants_per_second = seen.done / seconds
        self._write()

    def end_round(self) -> None:
        """Nothing is to be told until the round's result is."""

    def say(self, message: str) -> None:
        """Messages are for people; the state has none but the last."""

    def result(self, round_index: int, outcome: Outcome, statuses: Mapping[Status, int], seconds: float) -> None:
        """A round is finished."""
        self._finished += 1
        figures = {name: getattr(outcome, name) for name in ("mean", "median", "target", "n_valid", "n_winners")}
        self._results.append(RoundState(round=self._finished, seconds=seconds, **figures))
        del self._results[:-ROUNDS_SHOWN]
        self._round = None
        self._write_if_due()

    def end(self, state: State, message: str | None = None) -> None:
        """The run is over, or broken off."""
        self._state, self._round = state, None
        self._message = message and message[-_LONGEST_MESSAGE:]
        self._write()

    def _write_if_due(self) -> None:
        if time.monotonic() >= self._next_write:
            self._write()

    def _write(self) -> None:
        self._next_write = time.monotonic() + SECONDS_BETWEEN_WRITES
        try:
            replace_text(self._path, self._describe().model_dump_json(indent=1), durable=False)
        except OSError as error:
            if not self._warned:
                self._warned = True
                reason = os.strerror(error.errno) if error.errno else str(error)
                message = f"pbeauty: cannot write {self._path}: {reason}; the run goes on without it"
                print(message, file=sys.stderr, flush=True)

    def _describe(self) -> LiveState:
        ranks = list(self._ranks.values()) if self._round else []
        seconds = time.monotonic() - self._began if self._round else 0.0
        done, output_tokens = sum(rank.done for rank in ranks), sum(rank.output_tokens for rank in ranks)
        round_left = seconds_left(ranks) if self._round else None
        game = self._experiment.game
        return LiveState(
            state=self._state,
            name=self._experiment.name,
            message=self._message,
            user=self._owner.user,
            host=self._owner.host,
            pid=self._owner.pid,
            slurm_job_id=self._owner.slurm_job_id,
            started=self._owner.since,
            updated=datetime.now(UTC).isoformat(timespec="seconds"),
            rounds=game.rounds,
            rounds_finished=self._finished,
            round=self._round,
            participants=self._experiment.count,
            done=done,
            unusable=sum(rank.unusable for rank in ranks),
            prompt_tokens=sum(rank.prompt_tokens for rank in ranks),
            output_tokens=output_tokens,
            round_seconds=seconds,
            participants_per_second=done / max(seconds, 1e-9),
            tokens_per_second=output_tokens / max(seconds, 1e-9),
            round_seconds_left=round_left,
            run_seconds_left=self._run_left(seconds, round_left),
            ranks=list(self._ranks.values()),
            results=self._results,
        )

    def _run_left(self, seconds: float, round_left: float | None) -> float | None:
        if self._state != "playing":
            return None
        further = self._experiment.game.rounds - self._finished - bool(self._round)
        if self._results:
            per_round = sum(result.seconds for result in self._results) / len(self._results)
            if round_left is None:
                round_left = max(0.0, per_round - seconds) if self._round else 0.0
        elif round_left is None:
            return None
        else:
            per_round = seconds + round_left
        return min(_LONGEST, round_left + further * per_round)


def seconds_left(ranks: Sequence[RankState]) -> float | None:
    """Until the slowest rank is through with its round, at its pace so far; None where one has none yet."""
    waiting = [rank for rank in ranks if rank.done < rank.total]
    if any(rank.participants_per_second <= 0 for rank in waiting):
        return None
    return min(_LONGEST, max(((r.total - r.done) / r.participants_per_second for r in waiting), default=0.0))


def finished_rounds(run: Run) -> list[RoundState]:
    """The latest finished rounds of a run on disk."""
    first = max(0, run.round_count - ROUNDS_SHOWN)
    names = [name for name in RoundState.model_fields if name != "round"]
    columns = {name: run.read(name, slice(first, None)).tolist() for name in names}
    return [
        RoundState(round=first + index + 1, **dict(zip(columns, values, strict=True)))
        for index, values in enumerate(zip(*columns.values(), strict=True))
    ]
