"""The game itself: announce, answer, gather, score, store, until the moderator announces nothing more."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from pbeauty.game.announcement import Announcement
from pbeauty.game.records import Progress
from pbeauty.job.context import JobContext
from pbeauty.job.participants import Asking, Participants
from pbeauty.mpi.monitor import ProgressReporter, monitor_ranks

if TYPE_CHECKING:
    from pbeauty.job.moderator import Moderator


def play_game(job: JobContext, participants: Participants, moderator: Moderator | None) -> None:
    """Plays rounds until the moderator ends the game; the same collectives in the same order on every rank.

    Args:
        job: all ranks.
        participants: the block of this rank.
        moderator: on rank 0, None elsewhere.
    """
    while (announcement := job.bcast(moderator.announce() if moderator else None)) is not None:
        play_round(job, participants, moderator, announcement)


def play_round(
    job: JobContext, participants: Participants, moderator: Moderator | None, announcement: Announcement
) -> None:
    """Plays one round, or breaks it off where the moderator is asked to stop; arguments as for `play_game`."""
    began = time.monotonic()
    answers = watch_progress(job, moderator, partial(participants.answer, announcement), announcement.round_index)
    seconds = time.monotonic() - began
    if not job.all(answers.complete):
        return
    rows = job.gather(answers.rows)
    if moderator and rows:
        moderator.score(rows)
    files = participants.store_replies(announcement.round_index, answers.replies)
    stored = job.gather_objects((files, seconds, participants.count))
    if moderator and rows and stored:
        moderator.close_round(rows, stored)


def watch_progress(
    job: JobContext, moderator: Moderator | None, ask: Callable[[Asking], Asking], round_index: int
) -> Asking:
    """Has this rank's block asked, while rank 0 shows how far all ranks are and tells them to stop if need be.

    Args:
        job, moderator: as for `play_game`.
        ask: asks the block of this rank.
        round_index: from 0, or BACKGROUNDS_ROUND.
    """
    if moderator is None:
        reporter = ProgressReporter(job.comm)
        answers = ask(Asking(reporter.tick))
        reporter.finish(answers.progress)
        return answers
    moderator.begin_round(round_index)
    if job.comm.size > 1:
        monitor_ranks(job.comm, moderator.live.show, moderator.interrupt.requested, job.patience)

    def on_step(progress: Progress) -> bool:
        moderator.live.show({0: progress})
        return not moderator.interrupt.requested()

    answers = ask(Asking(on_step))
    moderator.live.end_round()
    return answers
