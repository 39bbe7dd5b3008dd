"""Who the participants are, dealt out to the ranks, and the backgrounds that models write before the first round."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from pbeauty.config.persona_files import read_persona_files, write_file
from pbeauty.game.experiment import Experiment
from pbeauty.game.personas import Personas, Source, assign_personas, has_personas
from pbeauty.job.context import JobContext
from pbeauty.job.game_loop import watch_progress
from pbeauty.job.moderator import Moderator
from pbeauty.job.participants import Participants
from pbeauty.llm import backgrounds
from pbeauty.mpi.collectives import run_on_root_only
from pbeauty.mpi.partition import ids
from pbeauty.storage.journal import drop_journals

PERSONAS_FILE = "personas.jsonl"
_BEFORE_THE_FIRST = -1
"""The round that backgrounds are written in."""


def scatter_personas(job: JobContext, experiment: Experiment, stored: Personas | None) -> Sequence[Personas | None]:
    """Everybody's attributes and backgrounds on rank 0, and on every rank those of its block; collective.

    Args:
        job: all ranks.
        experiment: whose population it is.
        stored: on rank 0 what the run has on record, which comes before what the experiment's files say today.

    Returns:
        Those of everybody (None but on rank 0), those of the block; both None where nobody has any.

    Raises:
        JobError: on every rank, where a file of backgrounds cannot be read.
    """
    if not has_personas(experiment):
        return None, None
    everybody = run_on_root_only(
        job.comm, lambda: stored or assign_personas(experiment, read_persona_files(experiment))
    )
    parts = [everybody.of(ids(block)) for block in job.partition] if everybody else None
    return everybody, job.comm.scatter(parts)


def write_backgrounds(
    job: JobContext, participants: Participants, moderator: Moderator | None, personas: Personas | None
) -> bool:
    """Has the models write what backgrounds are missing, and stores them; collective.

    Args:
        job: all ranks.
        participants: the block of this rank.
        moderator: on rank 0, None elsewhere.
        personas: on rank 0 those of everybody, filled in; None elsewhere.

    Returns:
        False, on every rank, where it was broken off.
    """
    comm, folder, block = job.comm, job.folder, participants
    if not any(comm.allgather(bool(block.llm and backgrounds.wanted(block.llm).size))):
        return True
    write = partial(
        block.write,
        journal=job.journal_path(_BEFORE_THE_FIRST),
        recorded=block.replayed(folder, _BEFORE_THE_FIRST, job.job_id),
    )
    written = watch_progress(job, moderator, write, _BEFORE_THE_FIRST)
    if not job.all(written.complete):
        return False
    mine = written.backgrounds
    if block.llm and len(mine):
        block.llm.set_backgrounds(mine.participant, mine.text, mine.source)
    gathered = comm.gather(mine)
    if moderator and personas and gathered:
        for made in gathered:
            personas.set_backgrounds(np.array(made.participant, np.int64), made.text, made.source)
        moderator.keep_personas(personas)
        write_file(folder / PERSONAS_FILE, block.experiment, personas)
        drop_journals(folder, _BEFORE_THE_FIRST)
        failed = sum(made.source.count(Source.IN_WORDS) for made in gathered)
        moderator.say(
            f"{sum(map(len, gathered)) - failed:,} backgrounds written, in {folder / PERSONAS_FILE}"
            + (f"; {failed:,} had no usable reply and are their attributes in words" if failed else "")
        )
    return True
