"""What a forecast says to people, alone and beside what happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pbeauty.cost import MEANING

_GIB = 1 << 30
_BESIDE = {
    "prompt_tokens": "prompt tokens",
    "output_tokens": "output tokens",
    "disk_bytes": "bytes",
    "seconds": "s in rounds",
    "wall_seconds": "s from start to end",
    "cpu_seconds": "s of CPU time",
    "peak_memory_bytes": "bytes of memory at most over all ranks",
}
"""What stands beside its forecast, and the unit that people read."""


def describe(found: Mapping[str, Any], limit: float | None = None) -> list[str]:
    """A forecast in lines for people; with a warning if it takes longer than `limit` seconds."""
    blocks = found["blocks"]
    hosting = [size for size in blocks if size]
    sizes = f"{min(hosting):,}" + (f" to {max(hosting):,}" if min(hosting) != max(hosting) else "")
    lines = [
        f"{found['ranks']} rank(s), {found['engines']} engine(s), blocks of {sizes} participants",
        f"{found['requests']:,} requests (at most {found['requests_at_most']:,}), about "
        f"{found['prompt_tokens']:,} prompt tokens and {found['output_tokens']:,} output tokens",
        f"about {found['disk_bytes'] / 1e6:,.1f} MB on disk",
    ]
    for name, memory in found["gpu_memory"].items():
        weights, cache = memory["weights_gib_per_gpu"], memory["cache_kib_per_token"]
        lines.append(
            f"model {name}: "
            + (f"{weights:,.2f} GiB of weights per GPU" if weights is not None else "weights not on disk, size unknown")
            + (f", {cache:,.1f} KiB of cache per token" if cache is not None else "")
            + f", conversations of about {memory['conversation_tokens']:,} tokens"
        )
        lines += _fit(name, memory)
    if found["seconds"] is None:
        lines.append("time: unknown without a measured rate (--bench FILE or --rate PARTICIPANTS_PER_SECOND)")
        return lines
    if "wall_seconds" in found:
        lines += _describe_whole(found)
    else:
        lines.append(
            f"about {found['seconds']:,.0f} s without the start of engines, {found['gpu_hours']:,.2f} GPU-hours"
        )
    if limit is not None and found.get("wall_seconds", found["seconds"]) > limit:
        lines.append(
            f"WARNING: longer than the time limit of {limit:,.0f} s; the run will be interrupted, to be resumed"
        )
    return lines


def _fit(name: str, memory: Mapping[str, Any]) -> list[str]:
    """What fits into the memory of GPUs of a known size, with a warning if that is too little."""
    tokens, conversations = memory["cache_tokens"], memory["conversations"]
    if tokens is None:
        return []
    lines = [
        f"model {name}: room for about {tokens:,} tokens of cache, {conversations:,} whole conversations at a time"
    ]
    if not conversations:
        lines.append(
            f"WARNING: not one conversation of model {name} fits"
            + (" beside its weights" if tokens else ", and not even its weights do")
            + "; give it more GPUs (tensor_parallel_size), a larger gpu_memory_utilization, or shorter games"
        )
    return lines


def _describe_whole(found: Mapping[str, Any]) -> list[str]:
    parts, memory = found["seconds_by_part"], found["memory_bytes"]
    lines = [
        f"about {found['wall_seconds']:,.1f} s on {found['nodes']} node(s) of {found['cores_per_node']} core(s): "
        f"start {parts['start']:,.1f} s, engines {parts['engines']:,.1f} s, playing {parts['playing']:,.1f} s, between "
        f"and storing {parts['between']:,.1f} s, figures {parts['figures']:,.1f} s; "
        f"{found['gpu_hours']:,.2f} GPU-hours",
        f"about {memory['moderator'] / _GIB:,.2f} GiB of memory on the moderator"
        + (f", {memory['host'] / _GIB:,.2f} GiB on the fullest other rank" if memory["host"] else "")
        + f", {found['peak_memory_bytes'] / _GIB:,.2f} GiB in all",
    ]
    if found["undetermined"]:
        about = "; ".join(f"{name} ({MEANING[name][1]})" for name in found["undetermined"])
        lines.append(f"WARNING: counted as nothing, since the bench did not determine it: {about}")
    return lines


def beside(expected: Mapping[str, Any], took: Mapping[str, Any]) -> str:
    """Forecast and outcome on one line; what each rank used is summed up."""
    told = []
    for key, unit in _BESIDE.items():
        if key in took:
            wanted = expected.get(key)
            told.append(f"{_sum(took[key]):,.0f} {unit}" + (f" (forecast {wanted:,.0f})" if wanted is not None else ""))
    return "took " + ", ".join(told)


def total(taken: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several runs took together, as far as all of them tell it: sums, but the most of memory."""
    names = [name for name in _BESIDE if all(found.get(name) is not None for found in taken)]
    over = {name: max if name == "peak_memory_bytes" else sum for name in names}
    return {name: over[name](_sum(found[name]) for found in taken) for name in names}


def _sum(value: float | list[float]) -> float:
    return sum(value) if isinstance(value, list) else value
