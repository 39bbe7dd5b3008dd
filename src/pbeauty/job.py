"""A run from its first check to its last plot, as the program that every rank of the MPI job executes."""

from __future__ import annotations

import os
import platform
import secrets
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pbeauty import STARTED, config_file, provenance
from pbeauty.config import ConfigError, Experiment, LLMGroup
from pbeauty.devices import Place
from pbeauty.engine import Engine, check_engine_arguments, check_vllm, checkpoint
from pbeauty.interrupt import Interrupt
from pbeauty.moderator import Moderator, play_game
from pbeauty.participants import Block
from pbeauty.partition import Hosting, hostings
from pbeauty.progress import Display
from pbeauty.store import RUN_FILE, RunWriter
from pbeauty.wire import meet

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

DONE, FAILED, BAD_REQUEST, INTERRUPTED = 0, 1, 2, 75

T = TypeVar("T")


class JobError(Exception):
    """An error that every rank knows of: rank 0 tells it, all end with `code`."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Request:
    """What the command line asked for."""

    config: Path
    overrides: tuple[str, ...] = ()
    out: Path | None = None


@dataclass(frozen=True)
class _Plan:
    experiment: Experiment
    folder: Path
    token: str
    """Names a file in the folder, by which every rank recognises it."""


def run(comm: Comm, request: Request) -> int:
    """Plays the experiment that `request` names; returns the exit code, the same on every rank.

    Raises:
        JobError: on every rank, where the request cannot be met or an engine does not start.
    """
    interrupt = Interrupt()
    plan = _on_root(comm, lambda: _prepare(request))
    experiment = plan.experiment
    hosted = _on_root(comm, lambda: hostings(experiment, comm.size))
    _everywhere(comm, lambda: _recognise(plan))
    _on_root(comm, lambda: (plan.folder / plan.token).unlink())
    started = time.monotonic()
    engine = _everywhere(comm, lambda: _start_engine(comm, experiment, hosted))
    block = _everywhere(comm, lambda: Block(experiment, hosted[comm.rank], engine))
    ready = time.monotonic()
    seen = comm.gather(provenance.of_rank(engine, block.count))
    moderator = None
    if seen is not None:
        about = provenance.of_job(comm, seen)
        writer = RunWriter.create(plan.folder, experiment, about)
        moderator = Moderator(experiment, writer, Display(experiment.game, experiment.count), interrupt)
        moderator.display.say(
            f"{experiment.name}: {experiment.count:,} participants on {comm.size} rank(s), "
            f"started in {started - STARTED:.1f} s"
            + (f", engines in {ready - started:.1f} s" if _needs_model(experiment) else "")
        )
    play_game(comm, block, hosted, plan.folder, moderator)
    code = DONE
    if moderator:
        code = _close(moderator, writer, about)
    code = comm.bcast(code)
    meet(comm)
    return code


def prepare(request: Request) -> Experiment:
    """Loads and checks an experiment as far as that goes without MPI and without starting an engine.

    Raises:
        ConfigError: saying everything that is wrong.
    """
    experiment = config_file.load(request.config, request.overrides)
    used = {group.model for group in experiment.population if isinstance(group, LLMGroup)}
    if used:
        check_vllm()
    for name in sorted(used):
        checkpoint(experiment.models[name])
        check_engine_arguments(name, experiment.models[name])
    return experiment


def refuse_singleton(size: int, environ: Mapping[str, str] = os.environ) -> None:
    """Refuses to run as one of several processes that do not know of each other.

    Raises:
        ConfigError: if the launcher started several tasks and MPI sees only one.
    """
    if size > 1:
        return
    launchers = {
        "SLURM_STEP_NUM_TASKS": "srun",
        "OMPI_COMM_WORLD_SIZE": "Open MPI's mpirun",
        "PMI_SIZE": "the MPI launcher",
    }
    for variable, launcher in launchers.items():
        if environ.get(variable, "1").isdecimal() and int(environ.get(variable, "1")) > 1:
            raise ConfigError(
                f"{launcher} started {environ[variable]} tasks, but MPI sees only this one: the launcher and the MPI "
                "library that mpi4py loaded do not belong together; use the launcher of that library (with srun, "
                "the matching --mpi=pmi2 or --mpi=pmix)"
            )


def _prepare(request: Request) -> _Plan:
    experiment = prepare(request)
    folder = _make_folder(experiment, request.out)
    token = f".pbeauty-{secrets.token_hex(8)}"
    try:
        (folder / token).touch()
    except OSError as error:
        raise ConfigError(f"cannot write to the result folder {folder}: {error.strerror}") from None
    return _Plan(experiment, folder.resolve(), token)


def _make_folder(experiment: Experiment, out: Path | None) -> Path:
    """The run's own folder: `out`, or a new one under `results` named after the experiment and the time."""
    population = "+".join(f"{group.name}-{group.count}" for group in experiment.population)[:100]
    game = experiment.game
    settings = f"p{game.multiplier.replace('/', '-')}_c{game.offset:g}_{game.aggregate}_seed{experiment.seed}"
    stamp = datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    parent = Path(experiment.results) / experiment.name / population / settings
    attempts = [out] if out else [parent / stamp, *(parent / f"{stamp}-{n}" for n in range(2, 100))]
    for folder in attempts:
        try:
            folder.mkdir(parents=True, exist_ok=out is not None)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(f"cannot create the result folder {folder}: {error.strerror}") from None
        if (folder / RUN_FILE).exists():
            raise ConfigError(f"{folder} holds a run already; give another --out")
        return folder
    raise ConfigError(f"cannot create a result folder: {attempts[0]} and its like exist")


def _recognise(plan: _Plan) -> None:
    """Every rank must see the folder that rank 0 made."""
    if not (plan.folder / plan.token).exists():
        raise ConfigError(
            f"the result folder {plan.folder} is not the one that rank 0 sees; "
            "put it on a file system that all hosts share"
        )


def _start_engine(comm: Comm, experiment: Experiment, hosted: Sequence[Hosting]) -> Engine | None:
    from mpi4py import MPI

    groups = [experiment.population[segment.group] for segment in hosted[comm.rank]]
    model = next((group.model for group in groups if isinstance(group, LLMGroup)), None)
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    engines = node.allgather(model is not None)
    if model is None:
        return None
    place = Place(index=sum(engines[: node.rank]), count=sum(engines))
    return Engine(experiment.models[model], place, seed=experiment.seed)


def _needs_model(experiment: Experiment) -> bool:
    return any(isinstance(group, LLMGroup) for group in experiment.population)


def _close(moderator: Moderator, writer: RunWriter, about: dict) -> int:
    """The end as rank 0 tells it: plots, the folder, the exit code."""
    display = moderator.display
    if moderator.finished:
        writer.finish(about | {"ended": provenance.now()})
    if moderator.rounds_played:
        from pbeauty.plots import plot_run

        plot_run(writer.path)
    if moderator.failure:
        display.say(f"pbeauty: {moderator.failure}")
    elif not moderator.finished:
        name = moderator.interrupt.signal.name if moderator.interrupt.signal else "an interrupt"
        display.say(f"pbeauty: stopped by {name} after {moderator.rounds_played} finished round(s), which are kept")
    print(f"results: {writer.folder}", flush=True)
    return FAILED if moderator.failure else DONE if moderator.finished else INTERRUPTED


def _on_root(comm: Comm, work: Callable[[], T]) -> T:
    """What `work` gives on rank 0, on every rank; what it refuses there is refused on every rank."""
    verdict: tuple[T | None, str | None] = (None, None)
    if comm.rank == 0:
        try:
            verdict = (work(), None)
        except ConfigError as error:
            verdict = (None, str(error))
    meet(comm)
    value, refusal = comm.bcast(verdict)
    if refusal is not None:
        raise JobError(refusal, BAD_REQUEST)
    return value  # type: ignore[return-value]


def _everywhere(comm: Comm, work: Callable[[], T]) -> T:
    """What `work` gives on this rank, once it has come to a good end on all; each kind of fault is told once."""
    value: T | None = None
    fault: tuple[str, int] | None = None
    try:
        value = work()
    except ConfigError as error:
        fault = (str(error), BAD_REQUEST)
    except Exception:
        fault = (traceback.format_exc().rstrip(), FAILED)
    meet(comm)
    faults = comm.allgather(fault and (f"rank {comm.rank} on {platform.node()}", *fault))
    told: dict[tuple[str, int], list[str]] = {}
    for found in faults:
        if found:
            told.setdefault(found[1:], []).append(found[0])
    if told:
        message = "\n".join(f"{', '.join(where)}: {text}" for (text, _), where in told.items())
        raise JobError(message, max(code for _, code in told) if all(c == BAD_REQUEST for _, c in told) else FAILED)
    return value  # type: ignore[return-value]
