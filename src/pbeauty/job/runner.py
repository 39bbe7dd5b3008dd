"""A run from its first check to its last plot, as the program that every rank of the MPI job executes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pbeauty import STARTED
from pbeauty.config import loader
from pbeauty.errors import DONE, FAILED, INTERRUPTED, ConfigError
from pbeauty.game.experiment import Experiment, LLMGroup
from pbeauty.game.personas import Personas
from pbeauty.job import provenance
from pbeauty.job.checkpoint import Checkpoint, Record, read_checkpoint
from pbeauty.job.context import JobContext
from pbeauty.job.display import Display
from pbeauty.job.game_loop import play_game
from pbeauty.job.live_status import Live
from pbeauty.job.moderator import Moderator
from pbeauty.job.participants import Participants
from pbeauty.job.personas_setup import scatter_personas, write_backgrounds
from pbeauty.job.provenance import PhaseTimer, Usage, cores
from pbeauty.job.stop_requests import Interrupt, job_end
from pbeauty.llm import backgrounds
from pbeauty.llm.engine import Engine, check_engine_arguments, check_vllm
from pbeauty.llm.engine import checkpoint as check_checkpoint
from pbeauty.mpi.collectives import idle_barrier, node_rank, run_on_all, run_on_root, run_on_root_only
from pbeauty.mpi.partition import Block, drawers, partition_population
from pbeauty.mpi.watchdog import Watchdog
from pbeauty.storage.lock import locked, this_process
from pbeauty.storage.run_folder import refuse_played, run_folder
from pbeauty.storage.run_writer import RunWriter

if TYPE_CHECKING:
    from mpi4py.MPI import Comm


@dataclass(frozen=True)
class Request:
    """What the command line asked for."""

    config: Path
    overrides: tuple[str, ...] = ()
    out: Path | None = None
    resume: bool = False


@dataclass(frozen=True)
class Plan:
    """What every rank must know to play a run."""

    experiment: Experiment
    folder: Path
    checkpoint: Checkpoint
    """What earlier jobs have left."""
    session: str
    """Names this job, and a file in the folder by which every rank recognises it."""


Planned = tuple[Plan, Record]
"""What every rank must know to play a run, and what rank 0 alone must."""


@dataclass(frozen=True)
class Drawing:
    """The figures of a run, which some ranks draw together."""

    path: Path
    drawers: int
    """The ranks below this one."""

    def draw(self, rank: int) -> None:
        """Draws a rank's share."""
        if rank < self.drawers:
            from pbeauty.plots import plot_run

            plot_run(self.path, share=(rank, self.drawers))


class EngineCache:
    """This rank's engine, which stays loaded as long as it is the one that is wanted."""

    def __init__(self) -> None:
        self.wait_began: float | None = STARTED
        """When somebody began to wait for the next run, on the monotonic clock; None where nobody does yet."""
        self._engine: Engine | None = None
        self._what: tuple[Any, ...] = ()

    def get(self, comm: Comm, experiment: Experiment, hosted: Sequence[Block]) -> Engine | None:
        """The engine that this rank needs for its block, None if it needs none; collective."""
        groups = [experiment.population[segment.group] for segment in hosted[comm.rank]]
        model = next((experiment.models[group.model] for group in groups if isinstance(group, LLMGroup)), None)
        where = node_rank(comm, engine=model is not None)
        if model is None:
            return None
        # An engine that draws by itself goes on where it stopped, so each run that wants that has one of its own.
        seed = experiment.seed if experiment.seeding == "engine" else None
        what = (model.model_copy(update={"weight": None}).model_dump_json(), where, seed)
        if self._engine and (what != self._what or seed is not None):
            self._engine.close()
            self._engine = None
        if self._engine:
            self._engine.forget()
        else:
            self._engine, self._what = Engine(model, where, seed=experiment.seed), what
        return self._engine


def run(comm: Comm, request: Request) -> int:
    """Plays the experiment that `request` names; returns the exit code, the same on every rank.

    Raises:
        JobError: on every rank, where the request cannot be met or an engine does not start.
    """
    interrupt = Interrupt()
    with ExitStack() as held:
        return play(comm, lambda: _prepare(request, held, interrupt), held, interrupt, EngineCache())


def play(
    comm: Comm,
    prepare_run: Callable[[], tuple[Plan, Record]],
    held: ExitStack,
    interrupt: Interrupt,
    engines: EngineCache,
) -> int:
    """Plays one run from its plan to its plots; returns the exit code, the same on every rank.

    Args:
        comm: all ranks.
        prepare_run: makes the plan, and what only rank 0 needs to know of the run, on rank 0.
        held: gets what rank 0 holds until the run's end: the folder's lock, the live state.
        interrupt: what may end the run early.
        engines: this rank's engine, if it has one already.

    Raises:
        JobError: on every rank, where the run cannot be played.
    """
    began, engines.wait_began = engines.wait_began or time.monotonic(), None
    meter = PhaseTimer(began, first=began == STARTED)
    planned = run_on_root_only(comm, prepare_run)
    plan, record = comm.bcast(planned and planned[0]), planned[1] if planned else Record()
    experiment, checkpoint = plan.experiment, plan.checkpoint
    if checkpoint.complete:
        if comm.rank == 0:
            print(f"results: {plan.folder} (finished already)", flush=True)
        return DONE
    hosted = run_on_root(comm, lambda: partition_population(experiment, comm.size))
    run_on_all(comm, lambda: _recognise(plan))
    run_on_root(comm, lambda: _token(plan).unlink())
    job = JobContext(comm, hosted, plan.folder, plan.session, experiment.patience)
    personas, mine = scatter_personas(job, experiment, record.personas)
    live = held.enter_context(Live(plan.folder, experiment, this_process())) if comm.rank == 0 else None
    started = time.monotonic()
    meter.lap("starting")
    engine = None
    if checkpoint.rounds < experiment.game.rounds:
        engine = run_on_all(comm, lambda: engines.get(comm, experiment, hosted))
    watchdog = Watchdog(experiment.patience, comm.rank, end=lambda: comm.Abort(FAILED))
    block = run_on_all(comm, lambda: _seat(plan, hosted[comm.rank], engine, watchdog, mine))
    ready = time.monotonic()
    meter.lap("engines")
    seen = comm.gather(provenance.of_rank(engine, block.count, block.notes()))
    moderator = None
    if seen is not None and live:
        display = Display(experiment.game, experiment.count)
        writer = _open_writer(plan, provenance.of_job(comm, seen), personas)
        live.go_on(checkpoint.rounds, record.results)
        live.seat([rank["host"] for rank in seen], [rank["participants"] for rank in seen])
        moderator = Moderator(experiment, writer, interrupt, checkpoint, [display, live])
        going_on = f", going on after round {checkpoint.rounds}" if checkpoint.rounds else ""
        display.say(
            f"{experiment.name}: {experiment.count:,} participants on {comm.size} rank(s){going_on}, "
            f"started in {started - began:.1f} s"
            + (f", engines in {ready - started:.1f} s" if _needs_model(experiment) else "")
        )
        for note in sorted({note for rank in seen for note in rank.get("notes", [])}):
            display.say(note)
    written = True
    if not checkpoint.rounds and any(backgrounds.writer(group) for group in experiment.population):
        written = write_backgrounds(job, block, moderator, personas)
    if written:
        play_game(job, block, moderator)
    meter.lap("game")
    drawing = _end_game(moderator, writer, live, comm.size) if moderator and live else None
    idle_barrier(comm)
    if drawing := comm.bcast(drawing):
        run_on_all(comm, partial(drawing.draw, comm.rank))
    used = comm.gather(meter.used())
    code = _close(moderator, writer, meter, used[1:]) if moderator and used else DONE
    idle_barrier(comm)
    return comm.bcast(code)


def prepare(request: Request) -> Experiment:
    """Loads and checks an experiment as far as that goes without MPI and without starting an engine.

    Raises:
        ConfigError: saying everything that is wrong.
    """
    experiment = loader.load(request.config, request.overrides)
    check_models(experiment)
    return experiment


def check_models(experiment: Experiment) -> None:
    """Checks the models of an experiment as far as that goes without starting an engine.

    Raises:
        ConfigError: saying what is wrong.
    """
    used = {group.model for group in experiment.population if isinstance(group, LLMGroup)}
    if used:
        check_vllm()
    for name in sorted(used):
        check_checkpoint(experiment.models[name])
        check_engine_arguments(name, experiment.models[name])


def _prepare(request: Request, held: ExitStack, interrupt: Interrupt) -> tuple[Plan, Record]:
    return plan_run(prepare(request), request, held, interrupt)


def plan_run(experiment: Experiment, request: Request, held: ExitStack, interrupt: Interrupt) -> tuple[Plan, Record]:
    """Where a run is to be played, and what of it is there already; takes the folder's lock.

    Raises:
        ConfigError: if it cannot be played there.
        LockedError: if another job is playing there.
    """
    folder = run_folder(experiment, request.out, resume=request.resume)
    held.enter_context(locked(folder, lost=interrupt.ask))
    interrupt.end_before(job_end(), experiment.margin)
    if not request.resume:
        refuse_played(folder)
    checkpoint, record = read_checkpoint(folder, experiment)
    plan = Plan(experiment, folder.resolve(), checkpoint, session=secrets.token_hex(8))
    try:
        if not checkpoint.complete:
            _token(plan).touch()
    except OSError as error:
        raise ConfigError(f"cannot write to the result folder {folder}: {error.strerror}") from None
    return plan, record


def _token(plan: Plan) -> Path:
    return plan.folder / f".{plan.session}"


def _recognise(plan: Plan) -> None:
    """Every rank must see the folder that rank 0 made."""
    if not _token(plan).exists():
        raise ConfigError(
            f"the result folder {plan.folder} is not the one that rank 0 sees; "
            "put it on a file system that all hosts share"
        )


def _seat(
    plan: Plan, hosting: Block, engine: Engine | None, watchdog: Watchdog, personas: Personas | None
) -> Participants:
    """This rank's block, with the conversations that earlier jobs left."""
    block = Participants(plan.experiment, hosting, engine, watchdog, personas)
    if plan.checkpoint.exists:
        block.restore(plan.folder, plan.checkpoint)
    return block


def _open_writer(plan: Plan, about: dict[str, Any], personas: Personas | None) -> RunWriter:
    if not plan.checkpoint.exists:
        writer = RunWriter.create(plan.folder, plan.experiment, about)
        if personas:
            writer.keep_personas(personas)
        return writer
    writer = RunWriter(plan.folder)
    writer.resume(about)
    return writer


def _needs_model(experiment: Experiment) -> bool:
    return any(isinstance(group, LLMGroup) for group in experiment.population)


def _end_game(moderator: Moderator, writer: RunWriter, live: Live, ranks: int) -> Drawing | None:
    """The end of the game as rank 0 tells it; what is to be drawn then."""
    if moderator.finished:
        live.end("finished")
    elif moderator.failure:
        live.end("failed", moderator.failure)
        moderator.say(f"pbeauty: {moderator.failure}")
    else:
        live.end("interrupted", f"stopped by {moderator.interrupt.reason}")
        moderator.say(
            f"pbeauty: stopped by {moderator.interrupt.reason} after {moderator.rounds_played} finished round(s); "
            "the same command with --resume goes on"
        )
    # An interrupted job may have seconds left; the one that goes on draws the figures.
    if moderator.experiment.plots and moderator.rounds_played and (moderator.finished or moderator.failure):
        return Drawing(writer.path, drawers(ranks, cores(), moderator.rounds_played))
    return None


def _close(moderator: Moderator, writer: RunWriter, meter: PhaseTimer, others: Sequence[Usage]) -> int:
    """The very end: what it all took, the folder, the exit code."""
    if moderator.finished:
        writer.finish({"ended": provenance.now(), "actual": meter.bill(others)})
    print(f"results: {writer.folder}", flush=True)
    return FAILED if moderator.failure else DONE if moderator.finished else INTERRUPTED
