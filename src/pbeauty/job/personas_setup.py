"""Who the participants are, dealt out to the ranks, and the backgrounds that models write before the first round.

Where the writer is another model than the one that plays, it writes them into a file, as a job of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pbeauty.errors import ConfigError
from pbeauty.game.experiment import Experiment, FixedGroup, Game, LLMGroup, OwnPrompts
from pbeauty.game.personas import Personas, Source, has_personas, writers
from pbeauty.game.population import everybody, ids
from pbeauty.game.records import BACKGROUNDS_ROUND
from pbeauty.job.context import JobContext
from pbeauty.job.game_loop import watch_progress
from pbeauty.job.participants import Participants
from pbeauty.mpi.collectives import run_on_root_only, scatter_objects

if TYPE_CHECKING:
    from pbeauty.job.moderator import Moderator
    from pbeauty.llm.backgrounds import Backgrounds

PERSONAS_FILE = "personas.jsonl"


def scatter_personas(job: JobContext, experiment: Experiment, stored: Personas | None) -> Sequence[Personas | None]:
    """Attributes and backgrounds: those of everybody on rank 0, None elsewhere, and those of the block; collective.

    What the run has on record comes before what the experiment's files say today. Both are None where nobody has any.
    """
    if not has_personas(experiment):
        return None, None

    def assign() -> Personas | None:
        from pbeauty.config.persona_files import load_personas

        return stored or load_personas(experiment)

    everyone = run_on_root_only(job.comm, assign)
    parts = [everyone.of(ids(block)) for block in job.partition] if everyone else None
    return everyone, scatter_objects(job.comm, parts)


def writing(experiments: Sequence[Experiment], what: str) -> Experiment:
    """The experiment whose participants' backgrounds are written and nothing is played: the writers take part alone.

    Raises:
        ConfigError: if no backgrounds are to be written, or not the same ones in all experiments; `what` names them.
    """
    found = [_writing(experiment) for experiment in experiments if writers(experiment)]
    if not found:
        raise ConfigError(f"{what}: no group has `personas.write`, so there are no backgrounds to write")
    if len({one.model_copy(update={"name": ""}).model_dump_json() for one in found}) > 1:
        raise ConfigError(f"{what}: its cases have different backgrounds; write those of one with --case")
    return found[0]


def _writing(experiment: Experiment) -> Experiment:
    names = writers(experiment)
    groups: list[LLMGroup | FixedGroup] = []
    for index, group in enumerate(experiment.population):
        about: dict[str, Any] = {"name": group.name, "count": group.count}
        if isinstance(group, LLMGroup) and group.personas and group.writer:
            write = group.writer.model_copy(update={"model": None})
            about |= {"model": names[index], "personas": group.personas.model_copy(update={"write": write})}
            groups.append(LLMGroup(**about, kind="llm", system_prompt="background", sampling=group.sampling))
        else:  # ids stay what they are, and with them what is drawn for each participant
            groups.append(FixedGroup(**about, kind="fixed", value=0))
    models = {name: experiment.models[name] for name in dict.fromkeys(names.values())}
    parts = {"game": Game(rounds=1), "prompts": OwnPrompts(), "models": models, "population": tuple(groups)}
    return experiment.model_copy(update=parts | {"plots": False})


def write_backgrounds(
    job: JobContext, participants: Participants, moderator: Moderator | None, personas: Personas | None
) -> bool:
    """Has the models write what backgrounds are missing, and stores them; collective, False where it was broken off.

    On rank 0 the personas of everybody are filled in; they are None elsewhere. Other arguments as for `play_game`.
    """
    if not (groups := list(writers(participants.experiment))):
        return True
    # Rank 0 decides, when it has opened the record of the run: journals without one would be lost.
    members = everybody(participants.experiment, groups).ids()
    if not job.bcast(personas is not None and bool((personas.row[members] < 0).any())):
        return True
    answers = watch_progress(job, moderator, participants.write_backgrounds, BACKGROUNDS_ROUND)
    if not job.all(answers.complete):
        return False
    written = answers.backgrounds
    if participants.llm and written:
        participants.llm.set_backgrounds(written.participant, written.text, written.source)
    parts = [part for part in job.gather_objects(written) or () if part]
    if moderator and personas and parts:
        _store(moderator, job.folder, personas, parts)
    return True


def _store(moderator: Moderator, folder: Path, personas: Personas, written: Sequence[Backgrounds]) -> None:
    """Stores the backgrounds that the ranks have written, and says so; on rank 0."""
    from pbeauty.config.persona_files import write_file
    from pbeauty.storage.journal import drop_journals

    for part in written:
        personas.set_backgrounds(np.array(part.participant, np.int64), part.text, part.source)
    moderator.writer.keep_personas(personas)
    write_file(folder / PERSONAS_FILE, moderator.experiment, personas)
    drop_journals(folder, BACKGROUNDS_ROUND)
    failed = sum(part.source.count(Source.IN_WORDS) for part in written)
    moderator.live.say(
        f"{sum(map(len, written)) - failed:,} backgrounds written"
        + (f"; {failed:,} had no usable reply and are their attributes in words" if failed else "")
    )
