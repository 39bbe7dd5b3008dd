"""Whether a folder will do as the place of results: tried out by all ranks at once, and left as it was."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

_LEAST_FREE = 1 << 30
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
    """Whether every rank sees what the others write."""
    exclusive_create: bool = False
    rename: bool = False
    locks: bool = False
    """fcntl and flock; HDF5 takes the latter."""
    free_gib: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.writable:
            return f"{self.path}: not writable"
        able = {"shared": self.shared, "exclusive create": self.exclusive_create, "rename": self.rename}
        told = [f"{what} {'works' if works else 'FAILS'}" for what, works in (able | {"locks": self.locks}).items()]
        return f"{self.path}: {', '.join(told)}, {self.free_gib:,.1f} GiB free"


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
    say = report.findings.append
    blind = tuple(number for number, seen in enumerate(gather(probe.is_dir())) if not seen)
    written = gather(_attempt(lambda: (probe / f"rank-{rank}").write_text(str(rank)))[1])
    mute = tuple(number for number, fault in enumerate(written) if fault and number not in blind)
    unseen = gather([number for number in range(len(written)) if not (probe / f"rank-{number}").exists()])[0]
    report.shared = not (blind or mute or unseen)
    if blind:
        say(
            Finding(
                True, f"{report.path} is another folder for some ranks", "use a file system that all hosts share", blind
            )
        )
    if mute:
        say(Finding(True, f"cannot write to {report.path}: {written[mute[0]]}", "give another --out", mute))
    if blind or mute:
        return

    first, second = (gather(_attempt(lambda: (probe / "exclusive").open("x").close())[1]) for _ in range(2))
    report.exclusive_create = first.count(None) == 1 and None not in second
    if not report.exclusive_create:
        say(Finding(True, f"{report.path}: exclusive creation of files fails", "results need another file system"))

    renamed = gather(_attempt(lambda: _rename(probe, rank)))
    report.rename = all(fine for fine, _ in renamed)
    if not report.rename:
        say(Finding(True, f"{report.path}: replacing a file by renaming fails", "results need another file system"))

    report.locks = True
    for name, lock in (("fcntl", fcntl.lockf), ("flock", fcntl.flock)):  # a file each: some systems mix the kinds
        with (probe / name).open("a") as file:
            faults = gather(_attempt(partial(lock, file, fcntl.LOCK_EX | fcntl.LOCK_NB))[1])
            report.locks &= faults.count(None) == 1
    if not report.locks:
        say(
            Finding(
                False, f"{report.path}: file locks fail", "if reading results does, set HDF5_USE_FILE_LOCKING=FALSE"
            )
        )

    report.free_gib = round(shutil.disk_usage(probe).free / _GIB, 2)
    if report.free_gib * _GIB < _LEAST_FREE:
        say(Finding(True, f"{report.path}: only {report.free_gib} GiB are free", "make room, or give another --out"))


def _rename(probe: Path, rank: int) -> bool:
    old, new = probe / f"old-{rank}", probe / f"new-{rank}"
    old.write_text("old")
    new.write_text("new")
    new.replace(old)
    return old.read_text() == "new" and not new.exists()


def _attempt(work: Callable[[], Any]) -> tuple[Any, str | None]:
    """What `work` gives, or what the operating system has against it."""
    try:
        return work(), None
    except OSError as error:
        return None, os.strerror(error.errno) if error.errno else str(error)
