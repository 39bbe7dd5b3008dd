"""How a run is getting on, as a small JSON file that anybody may read while it is played: `live.json`.

Rank 0 replaces it whole, about once a second, so a reader finds one status or the next and never half of one. Its
keys are the fields of `RunStatus`; `pbeauty watch` shows it.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pbeauty.files import LIVE_FILE, replace_text
from pbeauty.job.display import print_line

if TYPE_CHECKING:
    from pbeauty.game.experiment import Experiment
    from pbeauty.game.records import Progress
    from pbeauty.game.scoring import Outcome, Scored
    from pbeauty.job.display import Display
    from pbeauty.storage.lock import Owner
    from pbeauty.storage.run_reader import Run

SECONDS_BETWEEN_WRITES = 1.0
_ROUNDS_KEPT = 500
_LONGEST_MESSAGE = 2000


@dataclass
class RankStatus:
    """One playing rank in the round that is being played."""

    rank: int
    host: str
    total: int
    """Participants that the rank asks; `done` have answered, `unusable` of them without a valid guess."""
    done: int = 0
    unusable: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    participants_per_second: float = 0.0
    """Since the round began; of a rank that has finished it, until then."""


@dataclass
class RoundResult:
    """A finished round, counted from 1; guesses and targets are in the units of the game, seconds are wall time.

    Of several sessions, mean, median and target are averages over those with a valid guess, and counts are sums.
    """

    round: int
    sessions: int
    """Those with a valid guess; the others have ended."""
    mean: float
    median: float
    target: float
    n_valid: int
    n_winners: int
    seconds: float


@dataclass
class RunStatus:
    """The content of live.json; what is not known is null."""

    state: str
    """starting, playing, finished, interrupted or failed."""
    name: str | None = None
    message: str | None = None
    """Why the run was interrupted, or failed."""
    user: str | None = None
    host: str | None = None
    pid: int | None = None
    """Of rank 0, on `host`."""
    slurm_job_id: str | None = None
    started: str | None = None
    """When this job began; it and the next one are in UTC, ISO 8601."""
    updated: str | None = None
    engines: int = 0
    """Engines that this job loads."""
    engines_ready: int = 0
    """Engines loaded so far."""
    loading_seconds: float | None = None
    """How long engines have been loading; null before and afterwards."""
    rounds: int | None = None
    """To be played in all."""
    rounds_finished: int = 0
    round: int | None = None
    """Being played, from 1; 0 while backgrounds are written; null before, between and after rounds."""
    round_seconds: float = 0.0
    """Since the round's announcement."""
    seconds_left: float | None = None
    """Roughly, to the end of the run; null where nobody can tell yet."""
    participants: int | None = None
    """In all sessions."""
    sessions: int | None = None
    ranks: list[RankStatus] = field(default_factory=list)
    """Ranks that have participants."""
    results: list[RoundResult] = field(default_factory=list)
    """The latest finished rounds, at most 500; run.h5 has them all."""


class LiveStatus:
    """Follows a run on rank 0: has it shown, and writes the file; a context manager.

    A thread of its own does the writing: a file system that takes its time must not hold up a round.
    """

    def __init__(
        self,
        folder: Path,
        experiment: Experiment,
        owner: Owner,
        display: Display,
        results: Sequence[RoundResult] = (),
    ) -> None:
        """Writes the first status of a run in `folder`; `results` are the latest rounds that earlier jobs finished."""
        self._path, self._display = folder / LIVE_FILE, display
        self._status = RunStatus(
            state="starting",
            name=experiment.name,
            **{name: getattr(owner, name) for name in ("user", "host", "pid", "slurm_job_id")},
            started=owner.since,
            rounds=experiment.game.rounds,
            rounds_finished=results[-1].round if results else 0,
            participants=experiment.count,
            sessions=experiment.sessions,
            results=list(results),
        )
        self._playing: list[tuple[int, str, int]] = []  # rank, host and participants
        self._since = 0.0  # when the round, or the loading of engines, began
        self._warned = False
        self._changing = threading.Lock()
        self._closing = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._keep_writing, name="live status", daemon=True)

    def __enter__(self) -> LiveStatus:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._closing.set()
        self._thread.join()
        if error:
            self.end("failed", str(error) or type(error).__name__)
        else:
            self._write()  # last, whatever the thread was writing when the game ended

    def loading(self, ready: int, engines: int) -> None:
        """So many of the job's engines have been loaded; from 0 on, until `begin_playing`."""
        self._since = self._since or time.monotonic()
        self._status.engines, self._status.engines_ready = engines, ready
        self._status.loading_seconds = 0.0

    def begin_playing(self, hosts: Sequence[str], counts: Sequence[int]) -> None:
        """All ranks are ready: the host and the number of participants of each."""
        everybody = zip(hosts, counts, strict=True)
        self._playing = [(rank, host, count) for rank, (host, count) in enumerate(everybody) if count]
        with self._changing:
            self._status.ranks = [RankStatus(*about) for about in self._playing]
            self._status.state, self._status.loading_seconds = "playing", None
            self._display.stop_bar()

    def begin_round(self, round_index: int) -> None:
        """The ranks begin to answer; at BACKGROUNDS_ROUND they write backgrounds."""
        with self._changing:
            self._since, self._status.round = time.monotonic(), round_index + 1
            self._status.ranks = [RankStatus(*about) for about in self._playing]
        self._display.begin_round(round_index)

    def show(self, progress: Mapping[int, Progress]) -> None:
        """How far each rank is that has reported, a few times a second."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        with self._changing:
            for rank in self._status.ranks:
                if rank.rank in progress and rank.done < rank.total:
                    vars(rank).update(asdict(progress[rank.rank]))
                    rank.participants_per_second = rank.done / seconds
            ranks = self._status.ranks
            done, total, unusable = (sum(getattr(one, name) for one in ranks) for name in ("done", "total", "unusable"))
        self._display.show(done, total, unusable, seconds)

    def end_round(self) -> None:
        """The ranks have answered, or were told to stop."""
        self._display.stop_bar()

    def result(self, round_index: int, scored: Scored, seconds: float) -> None:
        """A round is finished and stored."""
        with self._changing:
            self._status.rounds_finished, self._status.round = round_index + 1, None
            self._status.results.append(round_result(round_index, scored.outcome, seconds))
            del self._status.results[:-_ROUNDS_KEPT]
        self._display.result(round_index, scored, seconds)

    def say(self, message: str) -> None:
        """Something that a person at the terminal should know; it is not in live.json."""
        self._display.say(message)

    def end(self, state: str, message: str | None = None) -> None:
        """The game is over: `finished`, `failed` or `interrupted`, and why."""
        with self._changing:
            self._status.state, self._status.round, self._status.loading_seconds = state, None, None
            self._status.message = message and message[-_LONGEST_MESSAGE:]
        self._write()

    def _keep_writing(self) -> None:
        while not self._closing.wait(SECONDS_BETWEEN_WRITES):
            self._write()

    def _write(self) -> None:
        with self._changing:
            status, seconds = self._status, time.monotonic() - self._since
            status.updated = datetime.now(UTC).isoformat(timespec="seconds")
            status.round_seconds = 0.0 if status.round is None else seconds
            if status.loading_seconds is not None:
                status.loading_seconds = seconds
                self._display.loading(status.engines_ready, status.engines, seconds)
            status.seconds_left = seconds_left(status)
            content = json.dumps(asdict(status), indent=1)
        try:
            replace_text(self._path, content, durable=False)
        except OSError as error:
            if not self._warned:
                self._warned, reason = True, error.strerror or error
                print_line(f"pbeauty: cannot write {self._path}: {reason}; the run goes on without it", sys.stderr)


def seconds_left(status: RunStatus) -> float | None:
    """Seconds until the run ends: the rest of this round at the pace of its slowest rank, plus further rounds as long
    as the finished ones were on average; None where nothing is being played, or a rank has finished no reply yet.
    """
    if status.state != "playing" or status.rounds is None:
        return None
    waiting = [rank for rank in status.ranks if rank.done < rank.total] if status.round is not None else []
    this_round = None
    if all(rank.participants_per_second for rank in waiting):
        this_round = max(((rank.total - rank.done) / rank.participants_per_second for rank in waiting), default=0.0)
    further = status.rounds - status.rounds_finished - bool(status.round)
    if status.results:
        per_round = sum(result.seconds for result in status.results) / len(status.results)
        if this_round is None:
            this_round = max(0.0, per_round - status.round_seconds)
        return this_round + further * per_round
    return None if this_round is None else this_round + further * (status.round_seconds + this_round)


def round_result(round_index: int, outcome: Outcome, seconds: float) -> RoundResult:
    """What the status tells of a finished round, counted from 0."""
    played = outcome.n_valid > 0
    mean, median, target = (float(values[played].mean()) for values in (outcome.mean, outcome.median, outcome.target))
    n_valid, n_winners = int(outcome.n_valid.sum()), int(outcome.n_winners.sum())
    return RoundResult(round_index + 1, int(played.sum()), mean, median, target, n_valid, n_winners, seconds)


def latest_results(run: Run) -> list[RoundResult]:
    """The latest finished rounds of a run on disk."""
    seconds = run.read("seconds").tolist()
    return [round_result(index, run.outcome(index), seconds[index]) for index in range(run.round_count)[-_ROUNDS_KEPT:]]


def read_status(text: bytes) -> RunStatus:
    """The content of a live.json.

    Raises:
        ValueError: if it is not the live status of a run.
    """
    try:
        found = json.loads(text)
        ranks = [RankStatus(**rank) for rank in found.pop("ranks")]
        results = [RoundResult(**result) for result in found.pop("results")]
        return RunStatus(**found, ranks=ranks, results=results)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is not the live status of a run ({error})") from None
