"""Whether a folder will do as the place of results: all ranks do there what a run does, and leave it as it was."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pbeauty.errors import RunFileError
from pbeauty.storage.hdf5 import open_file, replaced

_GIB = 1 << 30


class Finding(NamedTuple):
    """Something that a person should know."""

    wrong: bool
    """False where it only may be."""
    text: str
    remedy: str
    ranks: tuple[int, ...] = ()
    """Whom it concerns; empty if all."""


@dataclass
class FolderReport:
    """What came of trying out a folder."""

    path: str
    writable: bool = False
    shared: bool = False
    """Whether every rank reads what the others write."""
    exclusive_create: bool = False
    """Whether of all ranks that create a file one succeeds: the lock of a run relies on it."""
    free_gib: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.writable:
            return f"{self.path}: not writable"
        able = {"writing and reading by all ranks": self.shared, "exclusive create": self.exclusive_create}
        results = [f"{what} {'works' if works else 'FAILS'}" for what, works in able.items()]
        return f"{self.path}: {', '.join(results)}, {self.free_gib:,.1f} GiB free"


def check_folder(folder: Path, rank: int, gather: Callable[[Any], list[Any]]) -> FolderReport:
    """Tries out `folder`; all ranks together, with the same report for each.

    Args:
        folder: created, and removed again, if there is none.
        rank: of this process.
        gather: gives every rank the values of all, in rank order.
    """
    folder = folder.absolute()
    report = FolderReport(str(folder))
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    probe, fault = gather(_attempt(lambda: _make(folder)) if rank == 0 else None)[0]
    try:
        if fault:
            report.findings.append(Finding(True, f"cannot write to {folder}: {fault}", "give another --out"))
        else:
            report.writable = True
            _try_out(report, Path(probe), rank, gather)
            gather(None)  # until all have been there
    finally:
        if rank == 0:
            shutil.rmtree(probe or "", ignore_errors=True)
            for path in missing:
                with contextlib.suppress(OSError):
                    path.rmdir()
    return report


def _make(folder: Path) -> str:
    probe = folder / f".doctor-{secrets.token_hex(8)}"
    probe.mkdir(parents=True)
    return str(probe)


def _try_out(report: FolderReport, probe: Path, rank: int, gather: Callable[[Any], list[Any]]) -> None:
    def add(faults: list[str | None] | list[bool], text: str, remedy: str) -> bool:
        ranks = tuple(number for number, fault in enumerate(faults) if fault)
        if ranks:
            report.findings.append(Finding(True, text, remedy, ranks))
        return not ranks

    shared = "use a file system that all hosts share"
    if not add(gather(not probe.is_dir()), f"{report.path} is another folder for some ranks", shared):
        return
    written = gather(_attempt(lambda: _write(probe, rank))[1])
    reason = next((fault for fault in written if fault), "")
    if not add(written, f"files of a run cannot be written in {report.path}: {reason}", "give another --out"):
        return
    read = gather(_attempt(lambda: [_read(probe, other) for other in range(len(written))])[1])
    reason = next((fault for fault in read if fault), "")
    report.shared = add(read, f"what some ranks write in {report.path} others cannot read: {reason}", shared)
    first, second = (gather(_attempt(lambda: (probe / "exclusive").open("x").close())[1]) for _ in range(2))
    report.exclusive_create = first.count(None) == 1 and None not in second
    if not report.exclusive_create:
        text = f"{report.path}: exclusive creation of files fails"
        report.findings.append(Finding(True, text, "results need another file system"))
    report.free_gib = round(shutil.disk_usage(probe).free / _GIB, 2)
    if report.free_gib < 1:
        text = f"{report.path}: only {report.free_gib} GiB are free"
        report.findings.append(Finding(True, text, "make room, or give another --out"))


def _write(probe: Path, rank: int) -> None:
    """Writes a file as ranks write replies, and replaces it as rank 0 replaces run.h5."""
    path = probe / f"{rank}.h5"
    for keep in (False, True):
        with replaced(path, keep=keep) as file:
            file.attrs["rank"] = rank


def _read(probe: Path, rank: int) -> None:
    with open_file(probe / f"{rank}.h5") as file:
        file.attrs["rank"]


def _attempt(work: Callable[[], Any]) -> tuple[Any, str | None]:
    """What `work` gives, or why it cannot."""
    try:
        return work(), None
    except RunFileError as error:
        return None, str(error).partition(";")[0]
    except OSError as error:
        return None, os.strerror(error.errno) if error.errno else str(error)
