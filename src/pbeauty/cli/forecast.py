"""What an experiment will take: ranks, requests, tokens, memory, disk, and, from a measured rate, time and GPU-hours.

Tokens are estimated from the length of texts (four characters a token, as English runs in usual vocabularies) and the
way of asking; everything else is counted.
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbeauty.config.persona_files import load_personas
from pbeauty.game.experiment import Experiment, LLMGroup, Model, UniformGroup
from pbeauty.game.personas import other_writers, unmentioned_personas
from pbeauty.game.prompt_variables import population_variables
from pbeauty.game.prompts import system_message, user_message
from pbeauty.game.records import new_rows
from pbeauty.game.values import is_number
from pbeauty.llm.model_files import cache_bytes_per_token, longest_context, weight_bytes
from pbeauty.mpi.partition import partition_population, partition_warnings
from pbeauty.storage.schema import PER_SESSION

_CHARACTERS = 4
"""Per token."""
_DIRECT, _REASONED = 8, 160
"""Tokens of a reply: a number, or a few sentences (the published runs had 155 to 249)."""
_GIB = 1 << 30
_PER_REPLY = 40
"""Bytes that a stored reply takes besides its text (four bytes a token) and its token ids (four each)."""
_UTILIZATION = 0.92
"""The share of a GPU's memory that vLLM takes unless told otherwise."""
_ROUND_AT_MODERATOR = 22
"""Bytes of memory per participant that a round takes on rank 0."""
_SESSION_AT_MODERATOR = 350
"""Bytes of memory per session, likewise (measured at 50,000 to 200,000 sessions)."""
_TOKEN_KEPT, _TOKEN_OF_ROUND = 4, 16
"""Bytes of memory per token of a reply: until the game ends, and more until the round does (measured at 155 tokens)."""
_LONGEST_DAYS = 60


@dataclass(frozen=True)
class Conditions:
    """What a job is to be played with, and where, as far as that is known beforehand."""

    ranks: int | None = None
    """By default the fewest."""
    gpu_memory: float | None = None
    """Of one GPU, in GiB."""
    rate: float | None = None
    """Participants per second of one engine."""
    time_limit: float | None = None
    """Seconds that the job may take."""


def forecast(experiment: Experiment, conditions: Conditions = Conditions()) -> dict[str, Any]:
    """What an experiment will take, as JSON values; `warnings` says what makes no sense about it.

    Raises:
        ConfigError: if it cannot be played under these conditions.
    """
    models = experiment.used_models
    ranks = conditions.ranks or (len(models) + 1 if models else 1)
    partition = partition_population(experiment, ranks)
    gpus, at_engines = 0, list[tuple[str, int]]()  # model of every block that has one, and how many are played by it
    for block in partition:
        group = experiment.population[block[0].groups[0]] if block else None  # language models come first
        if isinstance(group, LLMGroup):
            gpus += models[group.model].tensor_parallel_size
            at_engines.append((group.model, len(block[0])))
    counts = Counter[str]()
    longest = dict.fromkeys(models, 0.0)  # conversation of each model, in tokens
    reply = dict.fromkeys(models, 0)  # of each model, in tokens
    for group in experiment.population:
        if isinstance(group, LLMGroup):
            of_group, conversation = _requests(experiment, group)
            counts.update(of_group)
            longest[group.model] = max(longest[group.model], conversation)
            reply[group.model] = max(reply[group.model], _reply_tokens(group))
    bytes_each = sum(column.itemsize for column in new_rows(1, model=bool(models)).values())
    per_session = 8 * (len(PER_SESSION) + len(experiment.population))
    per_token = experiment.game.rounds * _TOKEN_KEPT + _TOKEN_OF_ROUND
    replies = counts["requests"] * _PER_REPLY + counts["output_tokens"] * (_CHARACTERS + 4)
    found: dict[str, Any] = {
        "ranks": ranks,
        "blocks": [sum(map(len, block)) for block in partition],
        "engines": len(at_engines),
        "gpus": gpus,
        **{name: counts[name] for name in ("requests", "requests_at_most", "prompt_tokens", "output_tokens")},
        "disk_bytes": experiment.game.rounds * (experiment.count * bytes_each + experiment.sessions * per_session)
        + replies
        + 100_000,
        "moderator_memory_bytes": experiment.count * _ROUND_AT_MODERATOR + experiment.sessions * _SESSION_AT_MODERATOR,
        "block_memory_bytes": max((count * reply[name] * per_token for name, count in at_engines), default=0),
        "gpu_memory": {name: _memory(models[name], longest[name], conditions.gpu_memory) for name in sorted(models)},
        "seconds": None,
        "gpu_hours": None,
    }
    if conditions.rate is not None:
        largest = max((count for _, count in at_engines), default=0)
        thinking = max((g.think_time for g in experiment.population if isinstance(g, UniformGroup)), default=0.0)
        found["seconds"] = experiment.game.rounds * max(thinking, largest / conditions.rate)
        found["gpu_hours"] = found["seconds"] * gpus / 3600
    found["warnings"] = (
        unmentioned_personas(experiment)
        + partition_warnings(experiment, partition)
        + _warnings(experiment, found, conditions)
    )
    return found


def _requests(experiment: Experiment, group: LLMGroup) -> tuple[dict[str, int], float]:
    """What is asked of a group's model in a whole game, and the length of one conversation in tokens.

    Each prompt holds the whole conversation so far.
    """
    rounds = experiment.game.rounds
    reply = _reply_tokens(group)
    opening, turn = _prompt_tokens(experiment, group)
    prompts = sum(opening + before * (reply + turn) for before in range(rounds))
    members = group.count * experiment.sessions
    counts = {
        "requests": members * rounds * (2 if group.extraction == "model" else 1),
        "requests_at_most": members * rounds * (1 + group.retries) * (1 if group.extraction == "pattern" else 2),
        "prompt_tokens": members * int(prompts),
        "output_tokens": members * rounds * reply,
    }
    if group.personas and (writer := group.personas.write) and writer.model in (None, group.model):
        counts["requests"] += members
        counts["requests_at_most"] += members * (1 + writer.retries)
        counts["output_tokens"] += members * writer.max_tokens
    return counts, opening + (rounds - 1) * (reply + turn) + reply


def _reply_tokens(group: LLMGroup) -> int:
    return min(group.sampling.max_tokens, _DIRECT if group.user_prompt == "direct" else _REASONED)


def _prompt_tokens(experiment: Experiment, group: LLMGroup) -> tuple[float, float]:
    """Tokens of the first prompt, and of what follows a reply, with some for the chat template."""
    variables = population_variables(experiment) | {"group": group.name}
    traits: dict[str, str] = {}
    if group.personas and (personas := load_personas(experiment)):
        traits = personas.traits(sum(g.count for g in experiment.population[: experiment.population.index(group)]))
        if group.personas.write:
            traits["background"] = "x" * (_CHARACTERS * group.personas.write.max_tokens)
    announced = dict.fromkeys(map(str, experiment.announced_to(group)), "33.33")
    system = system_message(group.system_prompt, {**variables, **traits}, experiment.prompts)
    opening = user_message(group.user_prompt, 0, variables, {}, experiment.prompts)
    later = user_message(group.user_prompt, 1, variables, announced, experiment.prompts)
    return len(system + opening) / _CHARACTERS + 20, len(later) / _CHARACTERS + 10


def _memory(model: Model, conversation: float, gpu_memory: float | None) -> dict[str, Any]:
    """What a model takes of each of its GPUs, and how many conversations fit beside it.

    Weights in GiB and cache in KiB per token are from the checkpoint on disk, None where it is not there; how many
    tokens of cache, and how many conversations, is for GPUs of `gpu_memory` GiB, None where that is unknown. What the
    engine takes for its own computations is not in it.
    """
    parts = model.tensor_parallel_size
    weights, cache = weight_bytes(model) / parts / _GIB or None, cache_bytes_per_token(model)
    cache = cache and cache / parts
    tokens = None
    if gpu_memory is not None and weights and cache:
        share = model.engine.get("gpu_memory_utilization")
        free = gpu_memory * (share if is_number(share) else _UTILIZATION) - weights
        tokens = max(0, int(free * _GIB / cache))
    return {
        "weights_gib_per_gpu": weights,
        "cache_kib_per_token": cache and cache / 1024,
        "context_tokens": model.engine.get("max_model_len", longest_context(model)),
        "conversation_tokens": int(conversation),
        "cache_tokens": tokens,
        "conversations": None if tokens is None else int(tokens / conversation),
    }


def _warnings(experiment: Experiment, found: dict[str, Any], conditions: Conditions) -> list[str]:
    """What cannot be meant: it does not fit into memory, disk or time."""
    warnings = [first] if (first := other_writers(experiment)) else []
    for name, memory in found["gpu_memory"].items():
        context, conversation = memory["context_tokens"], memory["conversation_tokens"]
        if isinstance(context, int) and conversation > context:
            warnings.append(
                f"conversations of model {name} grow to about {conversation:,} tokens, its context holds {context:,}: "
                "their oldest rounds will be left out"
            )
        if memory["conversations"] == 0:
            warnings.append(
                f"not one conversation of model {name} fits"
                + (" beside its weights" if memory["cache_tokens"] else ", and not even its weights do")
                + "; give it more GPUs (tensor_parallel_size), a larger gpu_memory_utilization, or shorter games"
            )
    place = Path(experiment.results).absolute()
    free = shutil.disk_usage(next(folder for folder in (place, *place.parents) if folder.exists())).free
    if found["disk_bytes"] > free:
        warnings.append(f"about {found['disk_bytes'] / 1e9:,.0f} GB of results, but {free / 1e9:,.0f} GB are free")
    seconds, limit = found["seconds"] or 0.0, conditions.time_limit
    if limit is not None and seconds > limit:
        warnings.append(f"longer than the time limit of {limit:,.0f} s; the job will be interrupted, to be resumed")
    if seconds > _LONGEST_DAYS * 86_400:
        warnings.append(f"{seconds / 86_400:,.0f} days: is the rate that of one engine, in participants per second?")
    return warnings
