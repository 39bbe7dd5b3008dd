"""A run from its first check to its last plot, as the program that every rank of the MPI job executes.

What one rank cannot do ends the whole job: a JobError is raised on every rank.
"""

from __future__ import annotations

import gc
import importlib
import shlex
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pbeauty.errors import DONE, FAILED, INTERRUPTED, ConfigError
from pbeauty.game.experiment import Experiment, LLMGroup
from pbeauty.game.personas import Personas, unmentioned_personas
from pbeauty.game.population import groups_of
from pbeauty.job import provenance
from pbeauty.job.checkpoint import EarlierJobs, Plan, RunRequest, fixed_provenance, plan_run, prepare
from pbeauty.job.context import JobContext
from pbeauty.job.display import Display, print_line
from pbeauty.job.game_loop import play_game
from pbeauty.job.live_status import LiveStatus
from pbeauty.job.participants import Participants
from pbeauty.job.personas_setup import scatter_personas, write_backgrounds, writing
from pbeauty.job.provenance import PhaseTimer, Usage
from pbeauty.job.stop_requests import Interrupt
from pbeauty.llm.context_size import game_context, longest_traits
from pbeauty.llm.engine import Engine
from pbeauty.llm.engine_arguments import check_models
from pbeauty.llm.model_files import require_files
from pbeauty.mpi.collectives import node_rank, run_on_all, run_on_root, run_on_root_only
from pbeauty.mpi.partition import partition_population, partition_warnings
from pbeauty.program import STARTED

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

    from pbeauty.job.moderator import Moderator
    from pbeauty.storage.run_writer import RunWriter

Wanted = Callable[[], tuple[Experiment, RunRequest]]
"""Says what is to be played, checked, and what is asked for about it."""
_ROUNDS_WORTH_SHARING = 20
"""From so many rounds on, all ranks draw figures; of fewer, rank 0 has drawn them before the others could begin."""


class EngineCache:
    """This rank's engine, which stays loaded as long as it is the one that is wanted."""

    def __init__(self, *, always: bool = False) -> None:
        """Nothing is loaded yet; with `always` an engine that draws by itself stays, too, and its draws go on."""
        self._always = always
        self._engine: Engine | None = None
        self._loaded: tuple[Any, ...] = ()

    def get(self, job: JobContext, plan: Plan, live: LiveStatus | None, personas: Personas | None) -> Engine | None:
        """The engine that this rank needs for its block, None if it needs none; collective.

        Its context is as long as the conversations of the block with these personas can become. On rank 0 `live`
        follows how many are loaded.
        """
        experiment = plan.experiment
        groups = [experiment.population[segment.groups[0]] for segment in job.block]
        model = next((experiment.models[group.model] for group in groups if isinstance(group, LLMGroup)), None)
        place = node_rank(job.comm, engine=model is not None)
        needed = job.comm.allgather(model is not None)

        def load() -> Engine | None:
            if model is None:
                return None
            # An engine that draws by itself goes on where it stopped, so each run that wants that has one of its own.
            seed = experiment.seed if experiment.seeding == "engine" and not self._always else None
            longest = longest_traits(experiment, groups_of(job.block), personas)
            context = partial(game_context, experiment, groups=longest)
            wanted = (model.model_copy(update={"weight": None}).model_dump_json(), place, seed)
            if self._engine and (wanted != self._loaded or seed is not None or not self._engine.fits(context)):
                self._engine.close()
                self._engine = None
            if self._engine:
                self._engine.forget()
            else:
                require_files(model)
                self._engine, self._loaded = Engine(model, place, experiment.seed, context), wanted
            self._engine.template = self._engine.template.dated(plan.checkpoint.date)
            return self._engine

        def show(ranks: set[int]) -> None:
            if live and any(needed):
                live.loading(sum(needed[rank] for rank in ranks), sum(needed))

        return run_on_all(job.comm, load, finished=show)


def run(comm: Comm, request: RunRequest) -> int:
    """Plays the experiment or case that `request` names; returns the exit code, the same on every rank."""
    return play(comm, lambda: prepare(request), Interrupt(), EngineCache(), alone=True)


def write_personas(comm: Comm, request: RunRequest) -> int:
    """Has the writers of an experiment, or of a sweep, write its backgrounds into the new file `request.out`.

    Until they are complete they are kept, as a run without rounds, in a hidden folder beside the file. The exit code
    is the same on every rank.
    """
    out = request.out or Path(f"{request.config.stem}.personas.jsonl")
    folder = out.with_name(f".{out.name}.writing")

    def prepare_writing() -> tuple[Experiment, RunRequest]:
        from pbeauty.config.sweep import load_cases

        if out.exists():
            raise ConfigError(f"{out} is there already; another --out writes anew")
        experiment = writing(load_cases(request.config, request.overrides, request.case), str(request.config))
        check_models(experiment, request.config.parent)
        return experiment, replace(request, out=folder, only_backgrounds=True)

    def publish() -> None:
        from pbeauty.config.persona_files import write_file
        from pbeauty.storage.run_reader import Run

        with Run(folder) as run:
            assert run.personas, "a job that is played for its backgrounds"
            write_file(out, run.experiment, run.personas)
        shutil.rmtree(folder)
        print_line(f"backgrounds: {out}")

    code = play(comm, prepare_writing, Interrupt(), EngineCache(), alone=False)
    if code == DONE:
        run_on_root_only(comm, publish)
    return code


@dataclass(frozen=True)
class ReadyRun:
    """A run that is ready to be played, on one of the ranks."""

    job: JobContext
    plan: Plan
    participants: Participants
    personas: Personas | None
    """On rank 0 those of everybody; None elsewhere, and where nobody has any."""
    moderator: Moderator | None
    """On rank 0."""
    timer: PhaseTimer


@contextmanager
def prepared_run(
    comm: Comm, wanted: Wanted, interrupt: Interrupt, engines: EngineCache, *, alone: bool
) -> Iterator[ReadyRun | None]:
    """All that comes before the first round, steps 1 to 4 of `play`; None where the run is finished already."""
    timer = PhaseTimer(STARTED if alone else None)
    with ExitStack() as until_end:
        # 1. Rank 0 finds out what is to be played and what earlier jobs have left of it, and locks the run's folder.
        planned = run_on_root_only(comm, lambda: plan_run(*wanted(), until_end, interrupt))
        plan: Plan = comm.bcast(planned and planned[0])
        earlier = planned[1] if planned else EarlierJobs()
        experiment, checkpoint = plan.experiment, plan.checkpoint
        if checkpoint.complete:
            if comm.rank == 0:
                print_line(f"results: {plan.folder} (finished already)")
            yield None
            return

        # 2. Every rank gets its block of the participants, and must see the folder that rank 0 sees.
        partition = run_on_root(comm, lambda: partition_population(experiment, comm.size))
        plan = run_on_all(comm, partial(_find_folder, plan))
        job = JobContext(comm, partition, plan.folder, checkpoint.run_id, plan.job_id, experiment.patience)
        run_on_root(comm, lambda: plan.token.unlink())
        timer.end_phase("starting")
        live = _follow(plan, earlier, until_end) if comm.rank == 0 else None
        if live:
            _say_header(live, job, plan, timer)
            if experiment.plots and comm.size > 1:  # imported while the other ranks are waited for
                threading.Thread(target=importlib.import_module, args=("pbeauty.plots",), daemon=True).start()

        # 3. Personas are dealt out, engines loaded, conversations taken up where earlier jobs left them.
        everybody, own = scatter_personas(job, experiment, earlier.personas)
        engine = None
        if checkpoint.rounds < experiment.game.rounds:
            engine = engines.get(job, plan, live, own)
        participants = run_on_all(comm, lambda: Participants(experiment, job.block, engine, job, own))
        run_on_all(comm, lambda: participants.restore(checkpoint))
        timer.end_phase("engines")

        # 4. Rank 0 opens the record of the run.
        ranks = comm.gather(provenance.of_rank(engine, participants))
        moderator = None
        if live and ranks:
            from pbeauty.job.moderator import Moderator

            writer = _open_record(plan, provenance.of_job(comm, ranks) | fixed_provenance(plan), everybody)
            moderator = Moderator(experiment, interrupt, checkpoint, live, writer)
            _say_ready(moderator, timer, ranks)
        yield ReadyRun(job, plan, participants, everybody, moderator, timer)


def play(comm: Comm, wanted: Wanted, interrupt: Interrupt, engines: EngineCache, *, alone: bool) -> int:
    """Plays one run from its plan to its plots; returns the exit code, the same on every rank.

    Args:
        comm: all ranks.
        wanted: called on rank 0.
        interrupt: what may end the run early.
        engines: this rank's engine, if it has one already.
        alone: whether this process was started for this run alone, which then draws its own figures; not so for the
            cases of a sweep.
    """
    with prepared_run(comm, wanted, interrupt, engines, alone=alone) as ready:
        if ready is None:
            return DONE
        job, plan, moderator, timer = ready.job, ready.plan, ready.moderator, ready.timer

        # 5. The game: backgrounds that are missing, then round after round.
        written = write_backgrounds(job, ready.participants, moderator, ready.personas)
        if written and not plan.only_backgrounds:
            play_game(job, ready.participants, moderator)
        elif moderator:
            moderator.finished = written
        timer.end_phase("game")
        if moderator:
            moderator.end_game()

        # 6. The figures, what it all took, and the exit code.
        # An interrupted job may have seconds left; the one that goes on draws the figures. A sweep does so at its end.
        ended = moderator and (moderator.finished or moderator.failure)
        if job.bcast(bool(alone and plan.experiment.plots and ended)):
            draw_figures(comm, [plan.folder])
        used = comm.gather(timer.run_usage())
        code = _close(moderator, plan, timer, used) if moderator and used else DONE
        if moderator and code == DONE and alone:
            moderator.live.say(f"next: pbeauty report {shlex.quote(str(plan.folder))}")
        job.wait()
        return comm.bcast(code)


def _find_folder(plan: Plan) -> Plan:
    """The plan with the name that this host has for the folder that rank 0 sees."""
    for name in plan.folder_names:
        if (here := replace(plan, folder=name)).token.exists():
            return here
    raise ConfigError(
        f"the result folder {plan.folder} is not the one that rank 0 sees; put it on a file system that all hosts share"
    )


def _follow(plan: Plan, earlier: EarlierJobs, until_end: ExitStack) -> LiveStatus:
    """What follows the run, on the terminal and in its folder."""
    from pbeauty.storage.lock import this_process

    display = until_end.enter_context(Display(plan.experiment))
    live = LiveStatus(plan.folder, plan.experiment, this_process(), display, earlier.results)
    return until_end.enter_context(live)


def _say_header(live: LiveStatus, job: JobContext, plan: Plan, timer: PhaseTimer) -> None:
    experiment, rounds = plan.experiment, plan.checkpoint.rounds
    going_on = f", going on after round {rounds}" if rounds else ""
    sessions = f" in {experiment.sessions:,} sessions" if experiment.sessions > 1 else ""
    live.say(
        f"{experiment.name}: {experiment.count:,} participants{sessions} on {job.comm.size} rank(s){going_on}, "
        f"started in {timer.seconds['starting']:.1f} s"
    )
    for warning in unmentioned_personas(experiment) + partition_warnings(experiment, job.partition):
        live.say(f"WARNING: {warning}")


def _open_record(plan: Plan, about: dict[str, Any], personas: Personas | None) -> RunWriter:
    """Creates run.h5, or notes in the one that is there that another job goes on with it."""
    from pbeauty.storage.run_writer import RunWriter

    if plan.checkpoint.exists:
        writer = RunWriter(plan.folder)
        writer.resume(about)
        return writer
    writer = RunWriter.create(plan.folder, plan.experiment, about, plan.checkpoint.run_id)
    if personas:
        writer.keep_personas(personas)
    return writer


def _say_ready(moderator: Moderator, timer: PhaseTimer, ranks: Sequence[dict[str, Any]]) -> None:
    live = moderator.live
    live.begin_playing([rank["host"] for rank in ranks], [rank["participants"] for rank in ranks])
    if any("engine" in rank for rank in ranks):
        live.say(f"engines ready in {timer.seconds['engines']:.1f} s")
    for note in sorted({note for rank in ranks for note in rank.get("notes", [])}):
        live.say(note)
    if kept := sum(rank.get("replies_kept", 0) for rank in ranks):
        live.say(f"{kept:,} replies of round {moderator.rounds + 1} were kept, and are not asked for again")


def draw_figures(comm: Comm, folders: Sequence[Path]) -> None:
    """Draws the figures of runs in these folders, as `plots.plot_run`; all ranks share the work if it is much."""

    def count_rounds() -> int:
        from pbeauty.storage.run_reader import Run

        total = 0
        for folder in folders:
            with Run(folder) as run:
                total += run.round_count
        return total

    def draw() -> None:
        if comm.rank < drawing:
            from pbeauty.plots import plot_run

            gc.freeze()  # what is loaded by now stays, and need not be looked through for garbage
            for number, folder in enumerate(folders):
                plot_run(folder, share=((comm.rank + number) % drawing, drawing))

    rounds = run_on_root(comm, count_rounds)
    drawing = comm.size if rounds >= _ROUNDS_WORTH_SHARING else 1
    if rounds:
        run_on_all(comm, draw)


def _close(moderator: Moderator, plan: Plan, timer: PhaseTimer, used: Sequence[Usage]) -> int:
    """Completes the record, and says where it is; the exit code."""
    if not plan.only_backgrounds:
        if moderator.finished:
            moderator.writer.finish({"ended": provenance.now(), "actual": timer.summary(used)})
        print_line(f"results: {moderator.writer.folder}")
    return FAILED if moderator.failure else DONE if moderator.finished else INTERRUPTED
