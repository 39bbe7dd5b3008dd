"""What an experiment will take: ranks, requests, tokens, memory, disk, and, from a measured rate, time and GPU-hours.

Tokens are estimated from the length of texts (four characters a token, as English runs in usual vocabularies) and the
way of asking; everything else is counted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pbeauty.config.parsing import read_text
from pbeauty.config.persona_files import read_persona_files
from pbeauty.errors import ConfigError
from pbeauty.game.experiment import DEMO_MODEL, Experiment, LLMGroup, Model, UniformGroup, is_number
from pbeauty.game.personas import assign_personas
from pbeauty.game.prompt_variables import population_variables
from pbeauty.game.prompts import system_message, user_message
from pbeauty.mpi.partition import partition_population
from pbeauty.storage.run_reader import Run
from pbeauty.storage.schema import REPLIES

_CHARACTERS = 4
"""Per token."""
_DIRECT, _REASONED = 8, 160
"""Tokens of a reply: a number, or a few sentences (the published runs had 155 to 249)."""
_GIB = 1 << 30
_PER_GUESS, _PER_REPLY_ROW = 9, 16
"""Bytes per participant and round: the guess with its status, and the counts of tokens where there are models."""
_PER_REPLY = 40
"""Bytes that a stored reply takes besides its text and tokens."""
_UTILIZATION = 0.92
"""The share of a GPU's memory that vLLM takes unless told otherwise."""


@dataclass(frozen=True)
class Pace:
    """How fast one engine was when it was measured."""

    participants_per_second: float
    output_tokens: float | None = None
    """Sampled per participant and round, where that was measured."""


def pace(bench: Path | None, rate: float | None) -> Pace | None:
    """What the JSON of a bench, or a rate in participants/s of one engine, stands for; None without either.

    Args:
        bench: what `pbeauty bench --json` printed.
        rate: comes before the bench's.

    Raises:
        ConfigError: if the file is no bench result.
    """
    if rate is not None:
        if not 0 < rate < float("inf"):
            raise ConfigError("--rate: expected participants per second and engine, above zero")
        return Pace(rate)
    if bench is None:
        return None
    try:
        found = json.loads(read_text(bench))
        measured = float(found["participants_per_second"]["real"])
        return Pace(measured, float(found["output_tokens_per_second"]) / measured)
    except (ValueError, KeyError, TypeError, ZeroDivisionError):
        raise ConfigError(f"{bench} is not the result of `pbeauty bench --json`") from None


def ranks_on(experiment: Experiment, nodes: int, gpus_per_node: int) -> int:
    """The ranks that so many nodes have room for: the moderator, and an engine for every GPU, or set of GPUs.

    Raises:
        ConfigError: if a node has too few GPUs for an engine.
    """
    used = {group.model for group in experiment.population if isinstance(group, LLMGroup)}
    size = max((experiment.models[name].tensor_parallel_size for name in used), default=1)
    if gpus_per_node < size:
        raise ConfigError(f"an engine takes {size} GPUs (tensor_parallel_size), but a node has {gpus_per_node}")
    return 1 + nodes * (gpus_per_node // size)


def forecast(
    experiment: Experiment,
    ranks: int | None = None,
    measured: Pace | None = None,
    gpu_memory: float | None = None,
) -> dict[str, Any]:
    """What an experiment will take, as JSON values.

    Args:
        experiment: resolved.
        ranks: that it is to be played on; by default the fewest.
        measured: the pace of one engine.
        gpu_memory: of one GPU, in GiB.

    Raises:
        ConfigError: if it cannot be played on so few ranks.
    """
    models = {group.model for group in experiment.population if isinstance(group, LLMGroup)}
    ranks = ranks or (len(models) + 1 if models else 1)
    partition = partition_population(experiment, ranks)
    blocks = [sum(map(len, block)) for block in partition]
    rounds = experiment.game.rounds
    talk = _talk(experiment, None if measured is None else measured.output_tokens)
    words = talk.output_tokens * (_CHARACTERS + 4)  # UTF-8 and token ids
    row = _PER_GUESS + (_PER_REPLY_ROW if models else 0)
    found: dict[str, Any] = {
        "ranks": ranks,
        "blocks": blocks,
        "engines": sum(any(_is_llm(experiment, s.group) for s in block) for block in partition),
        "gpus": sum(_gpus(experiment, block) for block in partition),
        "requests": talk.requests,
        "requests_at_most": talk.most,
        "prompt_tokens": talk.prompt_tokens,
        "output_tokens": talk.output_tokens,
        "gpu_memory": {
            name: _memory(experiment.models[name], talk.longest[name], gpu_memory) for name in sorted(models)
        },
        "disk_bytes": experiment.count * rounds * row + words + talk.requests * _PER_REPLY + 100_000,
        "seconds": None,
        "gpu_hours": None,
    }
    thinking = max((g.think_time for g in experiment.population if isinstance(g, UniformGroup)), default=0.0)
    if measured:
        largest = max(sum(len(s) for s in block if _is_llm(experiment, s.group)) for block in partition)
        seconds = rounds * max(thinking, largest / measured.participants_per_second)
        found |= {"seconds": seconds, "gpu_hours": seconds * found["gpus"] / 3600}
    return found


def actual(run: Run) -> dict[str, Any]:
    """What a run took, by the names of its forecast; with what its last job noted itself (`PhaseTimer.bill`)."""
    noted = run.provenance.get("actual")
    folder = run.path.parent
    totals = {
        name: int(sum(int(run.read(name, r).sum()) for r in range(run.round_count)))
        for name in ("prompt_tokens", "output_tokens")
        if name in run.file["rounds"]
    }
    stored = folder.glob(f"{REPLIES}/**/*.h5")
    size = sum(path.stat().st_size for path in [run.path, *stored])
    counted = {**totals, "disk_bytes": size, "seconds": float(run.seconds.sum())}
    return (noted if isinstance(noted, dict) else {}) | counted


@dataclass(frozen=True)
class _Talk:
    """What is asked of language models and said by them in a whole game."""

    requests: int
    most: int
    """Requests, if every retry were needed."""
    prompt_tokens: int
    output_tokens: int
    longest: dict[str, float]
    """Conversation of each model, in tokens."""


def _talk(experiment: Experiment, measured: float | None) -> _Talk:
    """`measured` is how many tokens are sampled per participant and round, where that is known."""
    told = population_variables(experiment)
    rounds = experiment.game.rounds
    requests = most = prompt_tokens = output_tokens = 0
    longest: dict[str, float] = {}
    for group in experiment.population:
        if not isinstance(group, LLMGroup):
            continue
        calls = 2 if group.extraction == "model" else 1
        requests += group.count * rounds * calls
        most += group.count * rounds * (1 + group.retries) * (1 if group.extraction == "pattern" else 2)
        if group.personas and group.personas.write:
            requests += group.count
            most += group.count * (1 + group.personas.write.retries)
            output_tokens += group.count * group.personas.write.max_tokens
        reply = _reply_tokens(group) if measured is None else measured
        opening, turn = _prompt_tokens(experiment, group, told)
        per_game = sum(opening + before * (reply + turn) for before in range(rounds))
        whole = opening + (rounds - 1) * (reply + turn) + reply
        longest[group.model] = max(whole, longest.get(group.model, 0))
        prompt_tokens += group.count * int(per_game)
        output_tokens += group.count * int(rounds * reply)
    return _Talk(requests, most, prompt_tokens, output_tokens, longest)


def _is_llm(experiment: Experiment, group: int) -> bool:
    return isinstance(experiment.population[group], LLMGroup)


def _gpus(experiment: Experiment, block: Any) -> int:
    for segment in block:
        group = experiment.population[segment.group]
        if isinstance(group, LLMGroup):
            return experiment.models[group.model].tensor_parallel_size
    return 0


def _reply_tokens(group: LLMGroup) -> float:
    return min(group.sampling.max_tokens, _DIRECT if group.user_prompt == "direct" else _REASONED)


def _prompt_tokens(experiment: Experiment, group: LLMGroup, told: dict[str, str]) -> tuple[float, float]:
    """Tokens of the first prompt, and of what follows a reply."""
    traits: dict[str, str] = {}
    if group.personas:
        start = sum(g.count for g in experiment.population[: experiment.population.index(group)])
        traits = assign_personas(experiment, read_persona_files(experiment)).traits(start)
        if group.personas.write:
            traits["background"] = "x" * (_CHARACTERS * group.personas.write.max_tokens)
    system = system_message(group.system_prompt, {**told, **traits}, experiment.prompts.system)
    first = user_message(group.user_prompt, 0, told, {}, experiment.prompts.user)
    announced: dict[str, str] = dict.fromkeys(map(str, experiment.game.announce), "33.33")
    later = user_message(group.user_prompt, 1, told, announced, experiment.prompts.user)
    return len(system + first) / _CHARACTERS + 20, len(later) / _CHARACTERS + 10


def _memory(model: Model, conversation: float, gpu_memory: float | None) -> dict[str, float | None]:
    """What a model takes of each of its GPUs, and what of a conversation's length fits beside it.

    Weights in GiB and cache in KiB per token are from the checkpoint on disk, None where it is not there; how many
    tokens of cache, and how many conversations, is for GPUs of `gpu_memory` GiB, None where that is unknown. What the
    engine takes for its own computations is not in it.
    """
    folder = Path(__file__).parents[1] / "demo" if model.path == DEMO_MODEL else Path(model.path).expanduser()
    weights = sum(path.stat().st_size for kind in ("*.safetensors", "*.bin") for path in folder.glob(kind))
    cache = None
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        heads = config.get("num_key_value_heads") or config["num_attention_heads"]
        size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        bytes_each = 4 if "32" in str(config.get("dtype", config.get("torch_dtype", ""))) else 2
        cache = 2 * config["num_hidden_layers"] * heads * size * bytes_each / 1024
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no checkpoint here, or one of a kind that says it otherwise
    share = model.tensor_parallel_size
    tokens = None
    if gpu_memory is not None and weights and cache:
        used = model.engine.get("gpu_memory_utilization", _UTILIZATION)
        left = gpu_memory * (used if is_number(used) else _UTILIZATION) - weights / share / _GIB
        tokens = max(0, int(left * _GIB / 1024 / (cache / share)))
    return {
        "weights_gib_per_gpu": weights / share / _GIB if weights else None,
        "cache_kib_per_token": cache / share if cache else None,
        "conversation_tokens": int(conversation),
        "cache_tokens": tokens,
        "conversations": None if tokens is None else int(tokens / conversation),
    }
