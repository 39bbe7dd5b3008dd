"""Starting and going on: what is to be played, and what earlier jobs have left of it, found out once, by rank 0."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pbeauty.errors import ConfigError
from pbeauty.files import RUN_FILE
from pbeauty.game.announcement import Announcement, announcement
from pbeauty.game.experiment import Experiment
from pbeauty.game.personas import Personas, other_writers
from pbeauty.job.live_status import RoundResult, latest_results
from pbeauty.job.stop_requests import Interrupt, job_end
from pbeauty.llm.model_files import changes, fingerprint
from pbeauty.storage.schema import StoredFile


@dataclass(frozen=True)
class RunRequest:
    """What the command line asked for."""

    config: Path
    overrides: tuple[str, ...] = ()
    out: Path | None = None
    resume: bool = False
    case: str | None = None
    """Which case of a sweep, by number or name; None for an experiment, or all cases."""
    only_backgrounds: bool = False
    """Whether the job ends when backgrounds have been written."""


@dataclass(frozen=True)
class Checkpoint:
    """What every rank needs to go on with a run, or to start it."""

    exists: bool
    """Whether an earlier job has begun the run."""
    complete: bool
    """Whether a job has played the run to its end and closed run.h5."""
    announcements: list[Announcement]
    """Of every finished round, and of the one that follows."""
    reply_files: list[list[StoredFile]] = field(default_factory=list)
    """The files of replies of every finished round."""
    run_id: str = field(default_factory=lambda: secrets.token_hex(8))
    """Tells this run from every other one, and is in each of its files."""
    date: datetime = field(default_factory=lambda: datetime.now().astimezone())
    """When the run was begun: what chat templates take for today, in every job."""

    @property
    def rounds(self) -> int:
        """Finished rounds."""
        return len(self.reply_files)


@dataclass(frozen=True)
class EarlierJobs:
    """What rank 0 alone needs to know of a run that earlier jobs have begun."""

    personas: Personas | None = None
    """Attributes and backgrounds of all participants, where they are stored."""
    results: list[RoundResult] = field(default_factory=list)
    """The latest finished rounds, for the live status."""


@dataclass(frozen=True)
class Plan:
    """What every rank must know to play a run."""

    experiment: Experiment
    folder: Path
    checkpoint: Checkpoint
    job_id: str
    """Names this job, and a file in the folder by which every rank recognises the folder."""
    folder_names: tuple[Path, ...]
    """What the folder may be called on other hosts."""
    only_backgrounds: bool
    """As in the request."""

    @property
    def token(self) -> Path:
        """That file, which rank 0 makes."""
        return self.folder / f".{self.job_id}"


def prepare(request: RunRequest) -> tuple[Experiment, RunRequest]:
    """Loads and checks an experiment, or a case of a sweep, as far as that goes without MPI and without an engine.

    The request comes back with it, that of a case with its folder.

    Raises:
        ConfigError: saying everything that is wrong.
    """
    from pbeauty.config.loader import load
    from pbeauty.llm.engine_arguments import check_models

    if request.case is None:
        experiment = load(request.config, request.overrides)
    else:
        from pbeauty.config.sweep import load_case

        sweep, found = load_case(request.config, request.overrides, request.case)
        experiment, request = found.experiment, replace(request, out=request.out or sweep.folder / found.name)
    check_models(experiment, request.config.parent)
    return experiment, request


def refuse_other_writers(experiments: Iterable[Experiment]) -> None:
    """Refuses (ConfigError) experiments whose backgrounds models are to write that do not play: a job of its own."""
    if found := dict.fromkeys(filter(None, map(other_writers, experiments))):
        raise ConfigError("\n".join(found))


def plan_run(
    experiment: Experiment, request: RunRequest, until_end: ExitStack, interrupt: Interrupt
) -> tuple[Plan, EarlierJobs]:
    """Where a run is to be played, and what of it is there already; called on rank 0.

    The run's folder is locked for as long as `until_end` lasts, and the end of a Slurm job interrupts the run.

    Raises:
        ConfigError: if the run cannot be played there.
        LockedError: if another job is playing there.
    """
    from pbeauty.storage.lock import locked
    from pbeauty.storage.run_folder import folder_names, refuse_played, run_folder

    refuse_other_writers([experiment])
    folder = run_folder(experiment, request.out, resume=request.resume)
    until_end.enter_context(locked(folder, lost=interrupt.ask))
    interrupt.end_before(job_end(), experiment.margin)
    if not request.resume:
        refuse_played(folder)
    checkpoint, earlier = read_checkpoint(folder, experiment)
    names = folder_names(folder)
    plan = Plan(experiment, names[0], checkpoint, secrets.token_hex(8), tuple(names), request.only_backgrounds)
    try:
        if not checkpoint.complete:
            plan.token.touch()
    except OSError as error:
        raise ConfigError(f"cannot write to the result folder {folder}: {error.strerror}") from None
    return plan, earlier


def read_checkpoint(folder: Path, experiment: Experiment) -> tuple[Checkpoint, EarlierJobs]:
    """Opens the run in `folder`, checks it, and takes from it what a job needs to go on.

    Raises:
        ConfigError: if the run there is of another experiment, listing every difference.
        RunFileError: if it is damaged.
    """
    if not os.path.lexists(folder / RUN_FILE):
        return Checkpoint(exists=False, complete=False, announcements=[announcement(experiment, 0)]), EarlierJobs()
    from pbeauty.storage.run_folder import check_same_experiment
    from pbeauty.storage.run_reader import Run

    with Run(folder) as run:
        check_same_experiment(run, experiment)
        if run.complete:
            return Checkpoint(exists=True, complete=True, announcements=[]), EarlierJobs()
        _check_same_models(run.path.parent, run.provenance, experiment)
        run.check_rounds()
        checkpoint = Checkpoint(
            exists=True,
            complete=False,
            announcements=[run.announcement(round_index) for round_index in range(run.round_count + 1)],
            reply_files=[run.reply_files(round_index) for round_index in range(run.round_count)],
            run_id=run.run_id,
            date=datetime.fromisoformat(str(run.provenance["date"])),
        )
        return checkpoint, EarlierJobs(run.personas, latest_results(run))


def fixed_provenance(plan: Plan) -> dict[str, Any]:
    """The part of a run's provenance that must be the same for all its jobs: its date and the files of its models."""
    models = {name: fingerprint(model) for name, model in plan.experiment.used_models.items()}
    return {"date": plan.checkpoint.date.isoformat(), "models": models}


def _check_same_models(folder: Path, provenance: Mapping[str, Any], experiment: Experiment) -> None:
    """Refuses to go on with other weights, another tokenizer or another template than the run began with."""
    faults = []
    for name, model in experiment.used_models.items():
        before, now = provenance.get("models", {}).get(name, {}), fingerprint(model)
        if before and now and (changed := changes(before, now)):
            faults.append(f"\n  model {name} ({model.path}): {', '.join(changed)}")
    if faults:
        raise ConfigError(f"{folder} cannot be resumed: files of its models have changed:{''.join(faults)}")
