"""Starting and going on: what earlier jobs have left of a run, read once, by rank 0, and handed out to the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pbeauty.game.announcement import Announcement, announcement
from pbeauty.game.experiment import Experiment
from pbeauty.game.personas import Personas
from pbeauty.job.live_status import RoundState, finished_rounds
from pbeauty.storage.run_folder import check_same_experiment
from pbeauty.storage.run_reader import Run
from pbeauty.storage.schema import RUN_FILE
from pbeauty.storage.validation import reply_file_names


@dataclass(frozen=True)
class Checkpoint:
    """What every rank needs to go on with a run, or to start it."""

    exists: bool
    """Whether an earlier job has begun the run."""
    complete: bool
    """Whether one of them has come to its very end, which follows the last round."""
    announcements: list[Announcement]
    """Of every finished round, and of the one that follows."""
    reply_files: list[list[str]] = field(default_factory=list)
    """The names of the files of replies of every finished round."""

    @property
    def rounds(self) -> int:
        """Finished rounds."""
        return len(self.reply_files)


@dataclass(frozen=True)
class Record:
    """What rank 0 alone needs to know of a run that earlier jobs have begun."""

    personas: Personas | None = None
    """Attributes and backgrounds of all participants, where they are stored."""
    results: list[RoundState] = field(default_factory=list)
    """The latest finished rounds, for the live status."""


def read_checkpoint(folder: Path, experiment: Experiment) -> tuple[Checkpoint, Record]:
    """Opens the run in `folder`, checks it, and takes from it what a job needs to go on.

    Raises:
        ConfigError: if the run there is damaged, or of another experiment, listing every difference.
    """
    if not (folder / RUN_FILE).exists():
        return Checkpoint(exists=False, complete=False, announcements=[announcement(experiment, 0)]), Record()
    with Run(folder) as run:
        check_same_experiment(run, experiment)
        if run.complete:
            return Checkpoint(exists=True, complete=True, announcements=[]), Record()
        rounds = range(run.round_count)
        checkpoint = Checkpoint(
            exists=True,
            complete=False,
            announcements=[run.announcement(round_index) for round_index in range(run.round_count + 1)],
            reply_files=[reply_file_names(run.file, round_index) for round_index in rounds],
        )
        return checkpoint, Record(run.personas, finished_rounds(run))
