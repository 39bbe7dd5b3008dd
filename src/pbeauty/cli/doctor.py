"""What every rank of a job would find: its host, MPI, GPUs, vLLM and the result folder; and what is wrong with it.

Starts no engine and imports neither vLLM nor torch, so that it takes seconds, alone or under any launcher.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pbeauty.cli.folder_check import FolderReport, check_folder
from pbeauty.cli.sight import RankReport, runs, see
from pbeauty.storage.untrusted import printable

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

_NAMED = 6


@dataclass(frozen=True)
class Finding:
    """Something that a person should know."""

    wrong: bool
    """False where it only may be."""
    text: str
    remedy: str
    ranks: tuple[int, ...] = ()
    """Whom it concerns; empty if all."""


def examine(comm: Comm | None, out: Path) -> tuple[list[RankReport], FolderReport, list[Finding]]:
    """What all ranks see, and what is to be said about it; the same on every rank.

    Args:
        comm: all ranks; None where no MPI library could be loaded.
        out: the result folder to try; created, and removed again, if there is none.
    """
    gather: Callable[[Any], list[Any]] = comm.allgather if comm else lambda value: [value]
    sights = gather(see(comm))
    folder = check_folder(out, comm.rank if comm else 0, gather)
    return sights, folder, [*_findings(sights), *(Finding(*finding) for finding in folder.findings)]


def doctor(comm: Comm | None, out: Path, *, as_json: bool) -> int:
    """Examines and prints, on rank 0; the exit code: 0 if nothing is wrong, else 1."""
    sights, folder, findings = examine(comm, out)
    good = not any(finding.wrong for finding in findings)
    if comm is None or comm.rank == 0:
        if as_json:
            document = {
                "ok": good,
                "findings": [asdict(finding) for finding in findings],
                "folder": asdict(folder),
                "ranks": [asdict(sight) for sight in sights],
            }
            print(json.dumps(document, indent=1), flush=True)
        else:
            _print(sights, folder, findings)
    return 0 if good else 1


# --- what is to be said about it -------------------------------------------------------------------------------


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


# --- what a person sees ----------------------------------------------------------------------------------------


def _print(sights: Sequence[RankReport], folder: FolderReport, findings: Sequence[Finding]) -> None:
    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else 120, markup=False, highlight=False)
    table = Table(box=None, pad_edge=False)
    for heading in ("ranks", "hosts", "part", "started by", "CPUs", "memory", "GPUs", "an engine takes"):
        table.add_column(heading, overflow="fold")
    alike = _by(sights, lambda sight: (sight.engine, sight.launcher, sight.cpus, sight.gpus))
    for (engine, launcher, cpus, gpus), ranks in alike.items():
        group = [sights[rank] for rank in ranks]
        part = ("moderates, plays" if len(sights) == 1 else "plays") if engine else "moderates"
        memory = f"{min(sight.memory_gib for sight in group):.0f} GiB"
        takes = _names(",".join(sight.takes) for sight in group) if any(sight.takes for sight in group) else "none"
        cells = (name_ranks(ranks), _names(s.host for s in group), part, launcher, str(cpus), memory)
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
