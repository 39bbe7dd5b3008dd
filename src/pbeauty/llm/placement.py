"""Which GPUs an engine takes, and the environment it starts in: decided before vLLM is imported."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

from pbeauty.errors import ConfigError
from pbeauty.mpi.collectives import NodeRank

PORTS_PER_ENGINE = 64
FIRST_PORT = 27_400


def visible_gpus(environ: Mapping[str, str] = os.environ) -> list[str]:
    """The GPUs that this process may use, as entries of `CUDA_VISIBLE_DEVICES`; empty without a GPU."""
    listed = environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [entry.strip() for entry in listed.split(",") if entry.strip() not in ("", "-1")]
    return [str(index) for index in range(_driver_count())]


def _driver_count() -> int:
    """GPUs that NVIDIA's driver knows, asked without creating a CUDA context; 0 without a driver."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 0
    count = ctypes.c_uint()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return 0
    return count.value


def take_gpus(place: NodeRank, per_engine: int, visible: list[str]) -> list[str]:
    """The entries of `visible` that one engine takes: consecutive ones, by its number on the node.

    Where the scheduler already gave every rank GPUs of its own, each rank sees just `per_engine` of them and
    takes them all. Without GPUs the answer is empty (vLLM's CPU build).

    Raises:
        ConfigError: if the engines of the node need more GPUs than there are.
    """
    if not visible and per_engine == 1:
        return []
    needed = per_engine * place.count
    if len(visible) >= needed:
        return visible[per_engine * place.index : per_engine * (place.index + 1)]
    if len(visible) == per_engine:
        return visible
    raise ConfigError(
        f"{place.count} engine(s) on this node with tensor_parallel_size {per_engine} need {needed} GPUs, "
        f"but {len(visible)} are visible; start fewer ranks per node or lower tensor_parallel_size"
    )


def engine_environment(place: NodeRank, gpus: list[str], threads: int) -> dict[str, str]:
    """Environment variables for one engine; those that the user has set already are to be kept.

    Args:
        place: the engine's place on its node.
        gpus: as `take_gpus` gives them.
        threads: CPU threads for this engine, used without GPUs.
    """
    environment = {
        # The engine lives in the rank's own process: no sockets, no second copy of the weights.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        # Engines that start together on a node must not race for a port or for a compile cache.
        "VLLM_PORT": str(FIRST_PORT + PORTS_PER_ENGINE * place.index),
        "VLLM_CACHE_ROOT": os.path.join(_cache_root(), f"engine-{place.index}"),  # noqa: PTH118
        "TOKENIZERS_PARALLELISM": "false",
    }
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    else:
        environment |= {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            # vLLM binds every engine to the same first cores otherwise.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind" if place.count > 1 else "auto",
            "OMP_NUM_THREADS": str(max(1, threads)),
            # Threads that spin while they wait make an engine many times slower on a core that others use too.
            "OMP_WAIT_POLICY": "PASSIVE",
        }
    return environment


def _cache_root() -> str:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return os.path.join(home, "pbeauty", "vllm")  # noqa: PTH118
