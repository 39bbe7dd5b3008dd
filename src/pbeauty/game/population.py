"""Who is who: ids of participants run session by session, and within a session group by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pbeauty.game.experiment import Experiment


@dataclass(frozen=True, slots=True)
class Segment:
    """Participants of some population groups: of all who are in these groups, in the order of ids, a stretch.

    They are consecutive if the groups are all that there are, and otherwise those of each session, with gaps.
    """

    groups: tuple[int, ...]
    """Indices into the population, ascending."""
    counts: tuple[int, ...]
    """Of every group of the population, how many are in it in a session."""
    start: int
    """The first, counted from 0 among all participants of these groups."""
    stop: int
    """The one after the last."""

    def __len__(self) -> int:
        return self.stop - self.start

    def part(self, start: int, stop: int) -> Segment:
        """A part of it: from its `start`-th participant to the one before its `stop`-th."""
        return Segment(self.groups, self.counts, self.start + start, min(self.start + stop, self.stop))

    @property
    def consecutive(self) -> bool:
        """Whether no ids are left out between the first and the last."""
        return len(self.groups) == len(self.counts)

    def ids(self) -> NDArray[np.int64]:
        """The ids of these participants, int64[participant], ascending."""
        if self.consecutive:
            return np.arange(self.start, self.stop)
        session, member, place = self._located()
        before = np.cumsum(self.counts) - self.counts  # participants of a session before each group
        mine = np.array([self.counts[group] for group in self.groups])
        before_mine = before[list(self.groups)] - (np.cumsum(mine) - mine)
        return session * sum(self.counts) + before_mine[place] + member

    def group_of(self) -> NDArray[np.uint16]:
        """The population group of each of these participants, uint16[participant]."""
        if len(self.groups) == 1:
            return np.full(len(self), self.groups[0], np.uint16)
        return np.array(self.groups, np.uint16)[self._located()[2]]

    def _located(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Each one's session, number among those of `groups` in it, and place in `groups`, int64[participant] each."""
        ends = np.cumsum([self.counts[group] for group in self.groups])
        session, member = np.divmod(np.arange(self.start, self.stop), ends[-1])
        return session, member, np.searchsorted(ends, member, side="right")


Block = tuple[Segment, ...]
"""The participants of one rank; arrays over a block have them segment after segment."""


def group_counts(experiment: Experiment) -> tuple[int, ...]:
    """How many participants each population group has in a session."""
    return tuple(group.count for group in experiment.population)


def everybody(experiment: Experiment, groups: Sequence[int] | None = None) -> Segment:
    """All participants, or all of some population groups."""
    counts = group_counts(experiment)
    chosen = tuple(range(len(counts)) if groups is None else groups)
    return Segment(chosen, counts, 0, experiment.sessions * sum(counts[group] for group in chosen))


def in_words(sessions: int, size: int) -> str:
    """How many play, of this size each session: `20 sessions of 18`, or `300 participants`."""
    return f"{sessions:,} sessions of {size:,}" if sessions > 1 else f"{size:,} participant{'s' * (size != 1)}"


def ids(block: Sequence[Segment]) -> NDArray[np.int64]:
    """The participants of a block, int64[participant]."""
    return np.concatenate([segment.ids() for segment in block] or [np.empty(0, np.int64)])


def groups_of(block: Sequence[Segment]) -> NDArray[np.uint16]:
    """The population group of each participant of a block, uint16[participant]."""
    return np.concatenate([segment.group_of() for segment in block] or [np.empty(0, np.uint16)])


def rows_of(block: Sequence[Segment]) -> list[slice]:
    """Where each segment of a block is in arrays over the block."""
    return [slice(start, stop) for start, stop in pairwise(accumulate(map(len, block), initial=0))]


def span(block: Sequence[Segment]) -> tuple[int, int]:
    """The lowest id in a block and the one after the highest, between which others' may lie; nobody: (0, 0)."""
    ends = [int(one.ids()[0]) for part in block for one in (part.part(0, 1), part.part(len(part) - 1, len(part)))]
    return (min(ends), max(ends) + 1) if ends else (0, 0)


def largest_remainders(count: int, weights: Sequence[Fraction | float], lots: Sequence[float] = ()) -> list[int]:
    """`count` things dealt out by weight: rounded down, and what is left over to the largest remainders (Hamilton).

    Args:
        count: how many.
        weights: positive, exact as they are.
        lots: decide between equal remainders, the lowest first; without them the first.
    """
    total = sum((Fraction(weight) for weight in weights), Fraction())
    wanted = [count * Fraction(weight) / total for weight in weights]
    given = [int(number) for number in wanted]
    order = sorted(range(len(weights)), key=lambda i: (given[i] - wanted[i], lots[i] if lots else i))
    for i in order[: count - sum(given)]:
        given[i] += 1
    return given
