"""`pbeauty bench`: what a round costs beside what the model costs; ways to play it, on one engine, in one process.

    naive      `LLM.chat` for all replies, then `LLM.chat` for all extractions: two blocking calls a round
    ceiling    the prompts ready as token ids, through the step loop; nothing is read, nothing kept
    real       the round as `pbeauty run` plays it, everything included

All answer the same prompts, those of a game played before; the prefix cache is emptied before each. They take turns, so
that a machine whose speed drifts, drifts for all; what is reported is medians, and ratios turn by turn.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pbeauty.cli.run import add_experiment
from pbeauty.config.sweep import is_sweep
from pbeauty.errors import DONE, FAILED, STOPPED, ConfigError, JobError
from pbeauty.game.experiment import Experiment
from pbeauty.game.prompts import extraction_message
from pbeauty.game.records import TOKEN_COUNTS
from pbeauty.job.checkpoint import RunRequest, prepare
from pbeauty.job.game_loop import play_game
from pbeauty.job.participants import Participants
from pbeauty.job.runner import EngineCache, prepared_run
from pbeauty.job.stop_requests import Interrupt
from pbeauty.llm import answering
from pbeauty.llm.request_loop import QUEUE_DEPTH
from pbeauty.mpi.collectives import run_on_root
from pbeauty.mpi.world import on_every_rank, world
from pbeauty.storage.run_reader import Run

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

WAYS = ("naive", "ceiling", "real")
RATIOS = ("real_to_naive", "real_to_ceiling")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `pbeauty bench` takes."""
    add_experiment(parser)
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="turns to take the median of (5)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def command(options: argparse.Namespace) -> int:
    """Measures, and prints the report."""
    if options.repeats < 1:
        raise ConfigError(f"--repeats {options.repeats}: expected 1 or more")

    def work(comm: Comm) -> int:
        experiment = run_on_root(comm, lambda: _prepare(comm, RunRequest(options.config, tuple(options.set))))
        report = bench(comm, experiment, options.repeats)
        print(json.dumps(report, indent=1) if options.json else describe(report))
        return DONE

    return on_every_rank(world(), work)


def _prepare(comm: Comm, request: RunRequest) -> Experiment:
    """The experiment, if it can be measured on one engine."""
    if comm.size > 1:
        raise ConfigError("a bench is of one engine: start it without mpirun")
    if is_sweep(request.config):
        raise ConfigError(f"{request.config} is a sweep; a bench is of one experiment, such as one of its bases")
    experiment, _ = prepare(request)
    models = len(experiment.used_models)
    if models != 1:
        raise ConfigError(f"a bench needs participants of exactly one model; this experiment has {models}")
    if any(group.writer for group in experiment.population):
        raise ConfigError("a bench has no backgrounds written; give those of a run with personas.file")
    return experiment


def bench(comm: Comm, experiment: Experiment, repeats: int) -> dict[str, Any]:
    """Plays the experiment's language models in all ways, `repeats` times in turn; reports progress on standard error.

    Args:
        comm: a communicator of one rank.
        experiment: of one model; participants without a model are played in the real way only.
        repeats: turns that count; one more is played first.

    Returns:
        JSON values. `seconds`: for all rounds, by way, turn by turn. `participants_per_second`: by way, the median over
        the turns; the start of the engine is not in it. `real_to_naive`, `real_to_ceiling`: medians of the ratios of
        these rates, turn by turn; `by_cpu_time` has the same of CPU time, which other programs on the machine disturb
        less (on a GPU it says little). `prompt_tokens_per_second`, `output_tokens_per_second`, and `cached_share` (of
        the prompt tokens of each round) are of the real way.
    """
    players = _Players(comm, experiment)
    print(f"engine ready; {repeats} turns of {len(WAYS)} ways, after one that does not count", file=sys.stderr)
    times = np.empty((1 + repeats, len(WAYS), 2))  # wall and CPU seconds
    for turn in range(1 + repeats):
        times[turn] = [players.play(way) for way in WAYS]
        if turn:
            shown = ", ".join(f"{way} {took:.2f} s" for way, took in zip(WAYS, times[turn, :, 0], strict=True))
            print(f"turn {turn}/{repeats}: {shown}", file=sys.stderr, flush=True)
    rounds, participants = experiment.game.rounds, len(players.llm.ids)
    seconds = dict(zip(WAYS, times[1:, :, 0].T.tolist(), strict=True))
    ratios, by_cpu_time = np.median(times[1:, :2] / times[1:, 2:], axis=0).T.tolist()
    prompt_tokens, cached_tokens, output_tokens = players.tokens
    median = {way: float(np.median(took)) for way, took in seconds.items()}
    return {
        "participants": participants,
        "rounds": rounds,
        "repeats": repeats,
        "seconds": seconds,
        "participants_per_second": {way: participants * rounds / took for way, took in median.items()},
        "prompt_tokens_per_second": float(prompt_tokens.sum()) / median["real"],
        "output_tokens_per_second": float(output_tokens.sum()) / median["real"],
        **dict(zip(RATIOS, ratios, strict=True)),
        "by_cpu_time": dict(zip(RATIOS, by_cpu_time, strict=True)),
        "cached_share": (cached_tokens / prompt_tokens).tolist(),
    }


def describe(report: dict[str, Any]) -> str:
    """A report in lines for people."""
    rows = [
        *((way, f"{rate:,.1f} participants/s") for way, rate in report["participants_per_second"].items()),
        *(
            (name.replace("_to_", " / "), f"{report[name]:.3f} (by CPU time {report['by_cpu_time'][name]:.3f})")
            for name in RATIOS
        ),
        ("prompts", f"{report['prompt_tokens_per_second']:,.0f} tokens/s"),
        ("cached by round", ", ".join(f"{100 * share:.0f}%" for share in report["cached_share"])),
        ("replies", f"{report['output_tokens_per_second']:,.0f} tokens/s"),
    ]
    title = f"{report['participants']:,} participants, {report['rounds']} rounds, median of {report['repeats']}"
    return "\n".join([title, *(f"  {what:<18} {figure}" for what, figure in rows)])


@dataclass(frozen=True)
class _Prompts:
    """Everything that one round asks, by slot, in the forms that the ways take."""

    tokens: list[list[int]]
    messages: list[list[dict[str, str]]]
    params: list[Any]
    seeds: list[int | None]
    order: range
    """The order in which the real way asks."""


class _Players:
    """One engine, its participants, and the ways to play them."""

    def __init__(self, comm: Comm, experiment: Experiment) -> None:
        self._comm, self._experiment = comm, experiment
        self._interrupt, self._engines = Interrupt(), EngineCache(always=True)
        with self._played() as participants:  # prompts are those of a game that has been played
            assert participants.llm is not None  # there is a model, and one rank has everybody
            self.llm, self._engine = participants.llm, participants.llm.engine
            self._prompts = [self._prompts_of(round_index) for round_index in range(experiment.game.rounds)]

    def play(self, way: str) -> tuple[float, float]:
        """Plays all rounds in one of `WAYS`; the wall seconds and the CPU seconds that it took."""
        self._engine.forget()
        if way == "real":
            with self._played():
                return self._took
        began, began_cpu = time.perf_counter(), time.process_time()
        for prompts in self._prompts:
            if way == "naive":
                self._chat(prompts)
            else:
                self._stream(prompts)
        return time.perf_counter() - began, time.process_time() - began_cpu

    @contextmanager
    def _played(self) -> Iterator[Participants]:
        """The real way: all rounds, from announcement to stored result; the block, while the folder is there.

        Raises:
            ConfigError: if the game does not come to its end.
        """
        with ExitStack() as until_end:
            folder = Path(until_end.enter_context(tempfile.TemporaryDirectory()))
            request = RunRequest(Path(), out=folder)
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # whoever follows the run is not shown it
                ready = until_end.enter_context(
                    prepared_run(
                        self._comm, lambda: (self._experiment, request), self._interrupt, self._engines, alone=False
                    )
                )
            assert ready and ready.moderator  # in an empty folder, and on one rank
            began, began_cpu = time.perf_counter(), time.process_time()
            play_game(ready.job, ready.participants, ready.moderator)
            self._took = time.perf_counter() - began, time.process_time() - began_cpu
            if not ready.moderator.finished:
                failure = ready.moderator.failure
                end = (failure or "interrupted").partition(";")[0]  # nothing of a bench is kept
                raise JobError(f"the game could not be played to its end: {end}", FAILED if failure else STOPPED)
            with Run(folder) as run:
                self.tokens = np.array([run.read(kind).sum(axis=1, dtype=np.float64) for kind in TOKEN_COUNTS])
                """Of prompts, of cached prompts and of output, float64[kind, round]."""
            yield ready.participants

    def _prompts_of(self, round_index: int) -> _Prompts:
        slots = range(len(self.llm.ids))
        return _Prompts(
            tokens=[self.llm.prompt(slot, round_index=round_index)[0] for slot in slots],
            messages=[self.llm.messages(slot, round_index) for slot in slots],
            params=[self.llm.group_settings(slot).params for slot in slots],
            seeds=list(self.llm.seeds(round_index)),
            order=answering.walk(len(slots), round_index),
        )

    def _stream(self, prompts: _Prompts) -> None:
        """The ceiling: as many requests in flight as the real way keeps, and nothing but requests."""
        engine = self._engine
        waiting = iter(prompts.order)
        while True:
            for slot in islice(waiting, QUEUE_DEPTH * engine.max_num_seqs - engine.in_flight):
                engine.submit(slot, prompts.tokens[slot], prompts.params[slot], prompts.seeds[slot])
            if not engine.in_flight:
                return
            engine.step()

    def _chat(self, prompts: _Prompts) -> None:
        """The naive way: everybody's reply, and only then everybody's extraction."""
        replies = self._engine.llm.chat(prompts.messages, [_for_chat(p) for p in prompts.params], use_tqdm=False)
        own = self.llm.experiment.prompts
        texts = [extraction_message(reply.outputs[0].text, self.llm.variables, own) for reply in replies]
        questions = [[{"role": "user", "content": text}] for text in texts]
        self._engine.llm.chat(questions, _for_chat(self.llm.extraction_params), use_tqdm=False)


def _for_chat(params: Any) -> Any:
    """Sampling parameters as somebody who calls `LLM.chat` has them: text comes back, seeds do not matter."""
    params = params.clone()
    params.detokenize = True
    return params
