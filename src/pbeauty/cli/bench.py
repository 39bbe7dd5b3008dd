"""What a round costs beside what the model costs: several ways to play it, on one engine, in one process.

    naive      `LLM.chat` for all replies, then `LLM.chat` for all extractions: two blocking calls a round
    ceiling    the prompts ready as token ids, through the step loop; nothing is read, nothing kept
    real       the round as `pbeauty run` plays it, everything included
    unseeded   the ceiling, without a seed of each request's own
    one-way    the ceiling, asking in the same order every round instead of forwards and backwards in turn

All answer the same prompts, those of a game played before; the prefix cache is emptied before each. They take turns, so
that a machine whose speed drifts, drifts for all; what is reported is medians, and ratios turn by turn.
"""

from __future__ import annotations

import functools
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from pbeauty.errors import ConfigError
from pbeauty.game.experiment import Experiment, LLMGroup, Model
from pbeauty.game.personas import cast, has_personas
from pbeauty.game.prompts import extraction_message
from pbeauty.game.records import TOKEN_COUNTS
from pbeauty.job import moderator
from pbeauty.job.display import Display
from pbeauty.job.moderator import Moderator, play_game
from pbeauty.job.participants import Participants
from pbeauty.job.stop_requests import Interrupt
from pbeauty.llm import answering
from pbeauty.llm.backgrounds import writer
from pbeauty.llm.engine import ChatEngine
from pbeauty.llm.placement import NodeRank
from pbeauty.llm.request_loop import QUEUE_DEPTH
from pbeauty.mpi.collectives import idle_barrier
from pbeauty.mpi.partition import Block, partition_population
from pbeauty.storage.journal import Journal
from pbeauty.storage.run_reader import Run
from pbeauty.storage.run_writer import RunWriter

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

WAYS = ("naive", "ceiling", "real", "unseeded", "one-way")


@dataclass(frozen=True)
class _Prompts:
    """Everything that one round asks, by seat, in the forms that the ways take."""

    tokens: list[list[int]]
    messages: list[list[dict[str, str]]]
    params: list[Any]
    seeds: list[int | None]
    order: range
    """The order in which the real way asks."""


@dataclass(frozen=True)
class Report:
    """Figures of a bench; rates are per second of the rounds, the start of the engine apart."""

    participants: int
    rounds: int
    repeats: int
    seconds: dict[str, list[float]]
    """For all rounds, by way, turn by turn."""
    participants_per_second: dict[str, float]
    """Median over the turns, by way."""
    output_tokens_per_second: float
    """Of the real way."""
    prompt_tokens_per_second: float
    real_to_naive: float
    """Median of the ratios of rates, turn by turn; so are the next ones."""
    real_to_ceiling: float
    seeded_to_unseeded: float
    alternating_to_one_way: float
    by_cpu_time: dict[str, float]
    """The same ratios of CPU time, which other programs on the machine disturb less; on a GPU it says little."""
    cached_share: list[float]
    """Cached tokens / prompt tokens of each round of the real way."""
    cached_share_one_way: list[float]
    """The same where every round asks in the same order."""
    split: dict[str, float]
    """Share of the real way's time, by what it was spent on."""

    def __str__(self) -> str:
        rates = self.participants_per_second.items()
        cached, one_way = (
            ", ".join(f"{100 * share:.0f}%" for share in shares)
            for shares in (self.cached_share, self.cached_share_one_way)
        )
        split = ", ".join(f"{what} {100 * share:.1f}%" for what, share in self.split.items())
        ratios = [(" / ".join(ways), name) for name, ways in _RATIOS.items()]
        rows = [
            *((f"{way}", f"{rate:,.1f} participants/s") for way, rate in rates),
            *((what, f"{getattr(self, name):.3f} (by CPU time {self.by_cpu_time[name]:.3f})") for what, name in ratios),
            ("prompts", f"{self.prompt_tokens_per_second:,.0f} tokens/s"),
            ("cached by round", f"{cached}; one-way {one_way}"),
            ("replies", f"{self.output_tokens_per_second:,.0f} tokens/s"),
            ("time", split),
        ]
        title = f"{self.participants:,} participants, {self.rounds} rounds, median of {self.repeats}"
        return "\n".join([title, *(f"  {what:<18} {figure}" for what, figure in rows)])


def bench(comm: Comm, experiment: Experiment, repeats: int, say: Callable[[str], None]) -> Report:
    """Plays the experiment's language models in all ways, `repeats` times in turn.

    Args:
        comm: a communicator of one rank.
        experiment: one that `check_bench` lets pass; participants without a model are played in the real way only.
        repeats: turns that count; one more is played first.
        say: is told of progress.
    """
    player = _Player(comm, experiment)
    say(f"engine ready; {repeats} turns of {len(WAYS)} ways to play, after one that does not count")
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    cpu: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(1 + repeats):
        for way in WAYS:
            took, worked = player.play(way)
            if turn:
                seconds[way].append(took)
                cpu[way].append(worked)
        if turn:
            say(f"turn {turn}/{repeats}: " + ", ".join(f"{way} {times[-1]:.2f} s" for way, times in seconds.items()))
    return _report(player, experiment, seconds, cpu)


def check_bench(experiment: Experiment, engines: int) -> None:
    """Refuses what cannot be measured on so many engines.

    Raises:
        ConfigError: if there is not exactly one model, a group has fewer participants than there are engines, or
            personas that would have to be written or shared out.
    """
    models = _models(experiment)
    if len(models) != 1:
        raise ConfigError(f"a bench needs participants of exactly one model; this experiment has {len(models)}")
    if any(writer(group) for group in experiment.population):
        raise ConfigError("a bench has no backgrounds written; give those of a run with personas.file")
    if engines > 1 and has_personas(experiment):
        raise ConfigError("a bench on several engines plays without personas; leave them out")
    if any(group.count < engines for group in experiment.population):
        raise ConfigError(f"a bench on {engines} engines needs at least {engines} participants in every group")


def the_model(experiment: Experiment) -> Model:
    """The one model that plays."""
    (name,) = _models(experiment)
    return experiment.models[name]


def _models(experiment: Experiment) -> set[str]:
    return {group.model for group in experiment.population if isinstance(group, LLMGroup)}


def play_whole(
    comm: Comm, experiment: Experiment, hosted: Sequence[Block], block: Participants, folder: Path, interrupt: Interrupt
) -> tuple[float, float]:
    """Plays and stores all rounds of a game in an empty folder; the wall seconds and the CPU seconds that it took.

    Raises:
        ConfigError: if the game does not come to its end.
    """
    moderator = None
    with Path(os.devnull).open("w") as nowhere:
        if comm.rank == 0:
            display = Display(experiment.game, experiment.count, nowhere, nowhere)
            moderator = Moderator(experiment, RunWriter.create(folder, experiment, {}), display, interrupt)
        idle_barrier(comm)
        began, began_cpu = time.perf_counter(), time.process_time()
        play_game(comm, block, hosted, folder, "bench", moderator)
        took = time.perf_counter() - began, time.process_time() - began_cpu
    if moderator and not moderator.finished:
        raise ConfigError(f"the game could not be played to its end: {moderator.failure or 'interrupted'}")
    return took


def _report(
    player: _Player, experiment: Experiment, seconds: dict[str, list[float]], cpu: dict[str, list[float]]
) -> Report:
    participants, rounds = len(player.llm.ids), experiment.game.rounds

    split, (prompt_tokens, cached_tokens, output_tokens) = player.split()
    real = statistics.median(seconds["real"])
    return Report(
        participants=participants,
        rounds=rounds,
        repeats=len(seconds["real"]),
        seconds=seconds,
        participants_per_second={way: participants * rounds / statistics.median(took) for way, took in seconds.items()},
        prompt_tokens_per_second=float(prompt_tokens.sum() / real),
        output_tokens_per_second=float(output_tokens.sum() / real),
        **_ratios(seconds),
        by_cpu_time=_ratios(cpu),
        cached_share=(cached_tokens / prompt_tokens).tolist(),
        cached_share_one_way=player.cached_one_way,
        split=split,
    )


_RATIOS = {
    "real_to_naive": ("real", "naive"),
    "real_to_ceiling": ("real", "ceiling"),
    "seeded_to_unseeded": ("ceiling", "unseeded"),
    "alternating_to_one_way": ("ceiling", "one-way"),
}


def _ratios(times: dict[str, list[float]]) -> dict[str, float]:
    """Medians over the turns of how many times as fast one way is as another."""
    return {
        name: statistics.median(b / a for a, b in zip(times[way], times[other], strict=True))
        for name, (way, other) in _RATIOS.items()
    }


class _Player:
    """One engine and the ways to play on it."""

    def __init__(self, comm: Comm, experiment: Experiment) -> None:
        self._comm, self._experiment = comm, experiment
        self._engine = ChatEngine(the_model(experiment), NodeRank(0, 1), experiment.seed)
        self._hosted = partition_population(experiment, 1)
        self._interrupt = Interrupt()
        with self._game() as block:  # prompts are read from the folder, which is thrown away
            assert block.llm is not None  # there is a model, and one rank hosts everybody
            self.llm = block.llm
            self._asked = [self._prompts(round_index) for round_index in range(experiment.game.rounds)]

    def play(self, way: str) -> tuple[float, float]:
        """Plays all rounds in one of `WAYS`; the wall seconds and the CPU seconds that it took."""
        self._engine.forget()
        if way == "real":
            with self._game():
                return self._took
        began, began_cpu = time.perf_counter(), time.process_time()
        match way:
            case "naive":
                for prompts in self._asked:
                    self._chat(prompts)
            case "one-way":
                self.cached_one_way = [self._stream(prompts, seeded=True, turn=False) for prompts in self._asked]
            case _:
                for prompts in self._asked:
                    self._stream(prompts, seeded=way == "ceiling", turn=True)
        return time.perf_counter() - began, time.process_time() - began_cpu

    def split(self) -> tuple[dict[str, float], NDArray[np.float64]]:
        """One more game, timed part by part.

        Returns:
            The share of the time by what it was spent on; tokens per round of prompts, of cached prompts and of
            output, float64[kind, round]; what was left over is `rest`.
        """
        parts: dict[str, float] = defaultdict(float)
        with ExitStack() as stack:
            for what, owner, name in (
                ("prompts", self.llm.__class__, "prompt"),
                ("add", self._engine, "submit"),
                ("step", self._engine, "step"),
                ("read", answering, "read_guess"),
                ("journal", Journal, "append"),
                ("journal", Journal, "flush"),
                ("store", moderator, "seal_replies"),
                ("store", RunWriter, "commit"),
                ("mpi", moderator, "gather"),
                ("mpi", moderator, "meet"),
            ):
                stack.enter_context(mock.patch.object(owner, name, _timed(getattr(owner, name), what, parts)))
            self._engine.forget()
            with self._game():
                total, _ = self._took
        parts["rest"] = total - sum(parts.values())
        return {what: seconds / total for what, seconds in parts.items()}, self._tokens

    @contextmanager
    def _game(self) -> Iterator[Participants]:
        """The real way: all rounds, from announcement to stored result; the block, while the folder is there."""
        everybody = cast(self._experiment) if has_personas(self._experiment) else None
        block = Participants(self._experiment, self._hosted[0], self._engine, cast=everybody)
        with tempfile.TemporaryDirectory() as name:
            self._took = play_whole(self._comm, self._experiment, self._hosted, block, Path(name), self._interrupt)
            with Run(name) as run:
                self._tokens = np.array([run.read(kind).sum(axis=1, dtype=np.float64) for kind in TOKEN_COUNTS])
            yield block

    def _prompts(self, round_index: int) -> _Prompts:
        block = self.llm
        seats = range(len(block.ids))
        return _Prompts(
            tokens=[block.prompt(seat, round_index=round_index)[0] for seat in seats],
            messages=[block.messages(seat, round_index) for seat in seats],
            params=[block.group_settings(seat).params for seat in seats],
            seeds=[None if seed is None else int(seed) for seed in block.seeds(round_index)],
            order=answering.walk(len(block.ids), round_index),
        )

    def _stream(self, prompts: _Prompts, *, seeded: bool, turn: bool) -> float:
        """The ceiling: as many requests in flight as the real way keeps, and nothing but requests.

        Returns:
            Cached tokens / prompt tokens.
        """
        engine = self._engine
        waiting = iter(prompts.order if turn else range(len(prompts.order)))
        depth = QUEUE_DEPTH * engine.max_num_seqs
        asked = cached = 0
        while True:
            for seat in islice(waiting, depth - engine.in_flight):
                seed = prompts.seeds[seat] if seeded else None
                engine.submit(seat, prompts.tokens[seat], prompts.params[seat], seed)
            if not engine.in_flight:
                return cached / asked
            for reply in engine.step():
                asked += reply.prompt_tokens
                cached += reply.cached_tokens

    def _chat(self, prompts: _Prompts) -> None:
        """The naive way: everybody's reply, and only then everybody's extraction."""
        replies = self._engine.chat.chat(prompts.messages, [_chatty(p) for p in prompts.params], use_tqdm=False)
        questions = [
            [{"role": "user", "content": extraction_message(reply.outputs[0].text, self.llm.facts)}]
            for reply in replies
        ]
        self._engine.chat.chat(questions, _chatty(self.llm.extraction_params), use_tqdm=False)


def _chatty(params: Any) -> Any:
    """Sampling parameters as somebody who calls `LLM.chat` has them: text comes back, seeds do not matter."""
    params = params.clone()
    params.detokenize = True
    return params


def _timed(function: Callable[..., Any], what: str, parts: dict[str, float]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            parts[what] += time.perf_counter() - began

    return wrapper
