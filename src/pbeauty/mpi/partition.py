"""The block of participants of each rank: pure arithmetic over counts, the same on every rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from pbeauty.errors import ConfigError
from pbeauty.game.experiment import Experiment, LLMGroup

_FEW = 16
"""Participants at one engine, below which its batches are too small for it to be any faster than with so many."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of participant ids within one population group: start..stop-1."""

    group: int
    """Index of the group in the population."""
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


Block = tuple[Segment, ...]
"""The participants of one rank, as segments in id order."""


def partition_population(experiment: Experiment, ranks: int) -> tuple[Block, ...]:
    """The block of each of `ranks` ranks; every participant is in exactly one of them.

    Rank 0 moderates, with an empty block, unless it is alone. Ranks are apportioned to models by participants, each
    model's participants are spread evenly over its ranks, and scripted participants over all of them.

    Raises:
        ConfigError: if there are more models than ranks to play them.
    """
    first = 0 if ranks == 1 else 1
    playing = ranks - first
    segments = _segments(experiment)
    by_model: dict[str, list[Segment]] = {}
    scripted = []
    for group, segment in zip(experiment.population, segments, strict=True):
        if isinstance(group, LLMGroup):
            by_model.setdefault(group.model, []).append(segment)
        else:
            scripted.append(segment)
    if len(by_model) > playing:
        raise ConfigError(
            f"{len(by_model)} models ({', '.join(by_model)}) need a rank each besides the moderator: "
            f"start at least {len(by_model) + (len(by_model) > 1)} ranks, not {ranks}"
        )
    blocks: list[list[Segment]] = [[] for _ in range(ranks)]
    weights = [experiment.models[name].weight or sum(map(len, parts)) for name, parts in by_model.items()]
    shares = apportion(playing, weights)
    ends = list(accumulate(shares, initial=first))
    for (begin, end), parts in zip(pairwise(ends), by_model.values(), strict=True):
        _spread(parts, blocks[begin:end])
    _spread(scripted, blocks[first:])
    return tuple(tuple(sorted(parts, key=lambda segment: segment.start)) for parts in blocks)


def ids(segments: Sequence[Segment]) -> NDArray[np.int64]:
    """The participants of segments in their order, int64[participant]."""
    return np.concatenate([np.arange(s.start, s.stop) for s in segments] or [np.empty(0, np.int64)])


def groups_of(segments: Sequence[Segment]) -> NDArray[np.uint16]:
    """The population group of each participant of these segments, in their order."""
    return np.repeat(np.array([s.group for s in segments], np.uint16), [len(s) for s in segments])


def span(block: Block) -> tuple[int, int]:
    """The first participant of a block and the one after its last, between whom others' may lie; nobody: (0, 0)."""
    return (block[0].start, block[-1].stop) if block else (0, 0)


def rows_of(block: Block) -> list[slice]:
    """Where each segment of a block is in arrays over the block."""
    ends = accumulate(map(len, block), initial=0)
    return [slice(start, stop) for start, stop in pairwise(ends)]


def partition_warnings(experiment: Experiment, partition: Sequence[Block]) -> list[str]:
    """What is wasteful about a partition of language models, one sentence each."""
    playing = partition if len(partition) == 1 else partition[1:]
    sizes = [sum(len(s) for s in block if isinstance(experiment.population[s.group], LLMGroup)) for block in playing]
    engines = [size for size in sizes if size]
    if not engines:
        return []
    warnings = []
    if len(engines) < len(sizes):
        idle = len(sizes) - len(engines)
        warnings.append(
            f"{idle} of {len(sizes)} playing ranks have no language model to play with: there are only "
            f"{sum(engines)} participants of kind llm; {len(engines) + 1} ranks are enough"
        )
    if max(engines) < _FEW and len(engines) > len(experiment.used_models):
        warnings.append(
            f"an engine answers many requests at once, but these {len(engines)} have {max(engines)} participants or "
            "fewer each; a game on fewer ranks (and GPUs) takes about as long"
        )
    return warnings


def split(count: int, parts: int) -> list[int]:
    """`count` things in `parts` shares that differ by one at most, the larger ones first."""
    share, rest = divmod(count, parts)
    return [share + (part < rest) for part in range(parts)]


def apportion(ranks: int, weights: Sequence[float]) -> list[int]:
    """Ranks by weight, at least one each: largest remainders over what the ones leave (Hamilton's method).

    Needs `ranks >= len(weights)` and positive weights.
    """
    if not weights:
        return []
    free, total = ranks - len(weights), sum(map(Fraction, weights))
    extra = [int(free * Fraction(weight) // total) for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-(free * Fraction(weights[i]) % total), i))
    for i in by_remainder[: free - sum(extra)]:
        extra[i] += 1
    return [1 + more for more in extra]


def _segments(experiment: Experiment) -> list[Segment]:
    ends = accumulate((group.count for group in experiment.population), initial=0)
    return [Segment(group, start, stop) for group, (start, stop) in enumerate(pairwise(ends))]


def _spread(segments: Sequence[Segment], blocks: Sequence[list[Segment]]) -> None:
    """Deals consecutive ids out to consecutive blocks, cutting segments where one block's share ends."""
    queue = iter(segments)
    rest = next(queue, None)
    for block, missing in zip(blocks, split(sum(map(len, segments)), len(blocks)), strict=True):
        while missing and rest is not None:
            taken = min(missing, len(rest))
            block.append(Segment(rest.group, rest.start, rest.start + taken))
            missing -= taken
            rest = Segment(rest.group, rest.start + taken, rest.stop) if taken < len(rest) else next(queue, None)
