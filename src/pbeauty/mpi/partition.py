"""The block of participants of each rank: pure arithmetic over counts, the same on every rank."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from pbeauty.errors import ConfigError
from pbeauty.game.experiment import Experiment, LLMGroup
from pbeauty.game.population import Block, Segment, everybody, largest_remainders

_FEW = 16
"""Participants at one engine, below which its batches are too small for it to be any faster than with so many."""


def partition_population(experiment: Experiment, ranks: int) -> tuple[Block, ...]:
    """The block of each of `ranks` ranks; every participant is in exactly one of them.

    Rank 0 moderates, with an empty block, unless it is alone. Ranks are apportioned to models by participants, each
    model's participants are spread evenly over its ranks, and scripted participants over all of them. A block has at
    most two segments: the participants of its model, then those without one.

    Raises:
        ConfigError: if there are more models than ranks to play them.
    """
    first = 0 if ranks == 1 else 1
    playing = ranks - first
    by_model: dict[str, list[int]] = {}
    scripted = []
    for index, group in enumerate(experiment.population):
        if isinstance(group, LLMGroup):
            by_model.setdefault(group.model, []).append(index)
        else:
            scripted.append(index)
    if len(by_model) > playing:
        raise ConfigError(
            f"{len(by_model)} models ({', '.join(by_model)}) need a rank each besides the moderator: "
            f"start at least {len(by_model) + (len(by_model) > 1)} ranks, not {ranks}"
        )
    blocks: list[list[Segment]] = [[] for _ in range(ranks)]
    players = {name: everybody(experiment, groups) for name, groups in by_model.items()}
    weights = [experiment.models[name].weight or len(whole) for name, whole in players.items()]
    # At least one each, and the others by weight.
    own = [1 + more for more in largest_remainders(playing - len(weights), weights)]
    ends = list(accumulate(own, initial=first))
    for (begin, end), whole in zip(pairwise(ends), players.values(), strict=True):
        _spread(whole, blocks[begin:end])
    _spread(everybody(experiment, scripted), blocks[first:])
    return tuple(map(tuple, blocks))


def plays_model(experiment: Experiment, segment: Segment) -> bool:
    """Whether the participants of a segment are language models."""
    return isinstance(experiment.population[segment.groups[0]], LLMGroup)


def partition_warnings(experiment: Experiment, partition: Sequence[Block]) -> list[str]:
    """What is wasteful about a partition of language models, one sentence each."""
    playing = partition if len(partition) == 1 else partition[1:]
    sizes = [sum(len(part) for part in block if plays_model(experiment, part)) for block in playing]
    engines = [size for size in sizes if size]
    if not engines:
        return []
    warnings = []
    if len(engines) < len(sizes):
        idle = len(sizes) - len(engines)
        warnings.append(
            f"{idle} of {len(sizes)} playing ranks {'has' if idle == 1 else 'have'} no language model to play with: "
            f"kind llm has {sum(engines)} participant{'s' * (sum(engines) != 1)}; {len(engines) + 1} ranks are enough"
        )
    if max(engines) < _FEW and len(engines) > len(experiment.used_models):
        warnings.append(
            f"an engine answers many requests at once, but these {len(engines)} have {max(engines)} "
            f"participant{'s' * (max(engines) != 1)} or fewer each; a game on fewer ranks (and GPUs) takes about as "
            "long"
        )
    return warnings


def _spread(whole: Segment, blocks: Sequence[list[Segment]]) -> None:
    """Deals participants out to blocks: a stretch each, as long as each other's but for one, longer ones first."""
    ends = accumulate(largest_remainders(len(whole), [1] * len(blocks)), initial=0)
    for block, (start, stop) in zip(blocks, pairwise(ends), strict=True):
        if start < stop:
            block.append(whole.part(start, stop))
