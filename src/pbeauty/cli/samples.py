"""Replies to look at: drawn at random from each level and each status of a round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pbeauty.analysis import levels
from pbeauty.game.randomness import uniforms
from pbeauty.game.rules import Status
from pbeauty.storage.run_reader import Reply, Run


@dataclass(frozen=True)
class Sample:
    """One participant's round in words."""

    round: int
    """From 1."""
    participant: int
    group: str
    kind: str
    """The level of the guess, or the status of a reply without one."""
    guess: float
    """NaN where there is none."""
    status: str
    replies: list[Reply]
    """Everything that was said, in order."""


def draw(run: Run, round: int, count: int) -> list[Sample]:
    """Up to `count` participants of each level, and of each status beside `ok`, with what they replied.

    Who is drawn depends on the run's seed alone. Participants without a model have no replies and are left out.

    Args:
        run: open.
        round: from 1.
        count: of each kind.

    Raises:
        ConfigError: if sealed replies are missing or damaged.
    """
    index = round - 1
    if not len(run.file[f"replies/{round:04d}"]):
        return []
    guesses, status = run.guesses[index], run.status[index]
    asked = run.read("output_tokens", index) > 0
    game = run.experiment.game
    codes = levels.assign(np.where(status <= Status.RETRIED, guesses, np.nan), game, levels.reference(run, index))
    kinds = {label: asked & (codes == code) for code, label in enumerate(levels.LABELS)}
    if not any(chosen.any() for chosen in kinds.values()):  # a game in which all levels guess the same
        kinds = {"valid": asked & (status <= Status.RETRIED)}
    kinds |= {s.name.lower(): asked & (status == s) for s in Status if s != Status.OK}
    order = uniforms(run.experiment.seed, "samples", index, 0, guesses.size)
    names, group = run.attributes["group"], run.codes("group")
    drawn: list[tuple[str, int]] = []
    for kind, chosen in kinds.items():
        members = np.flatnonzero(chosen)
        drawn += [(kind, int(participant)) for participant in members[np.argsort(order[members])[:count]]]
    return [
        Sample(
            round, participant, names[group[participant]], kind, float(guesses[participant]),
            Status(status[participant]).name.lower(), run.replies(round, participant),
        )
        for kind, participant in drawn
    ]  # fmt: skip
