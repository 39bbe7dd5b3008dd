"""One job at a time in a run's folder.

A job that plays in a folder keeps a file named `lock` there, which says who plays. It renews the file's time every
10 s, and removes the file at its end. A lock that a dead job has left is taken over by the next job: at once where that
one can see that the process is gone, otherwise after 90 s without a renewal.

Some network file systems have no file locks of their own, so this relies only on creating files exclusively. Lock files
are not trusted: only their beginning is read, and they are shown without control characters.
"""

from __future__ import annotations

import getpass
import os
import platform
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, StringConstraints, ValidationError

from pbeauty.errors import ConfigError, LockedError
from pbeauty.files import LOCK_FILE, printable, read_bounded

SECONDS_BETWEEN_RENEWALS = 10.0
SECONDS_TO_STALE = 90.0
"""Network file systems may show the time of a file up to 60 s late."""
_MOST_BYTES = 1 << 16
_ATTEMPTS = 5


class Owner(BaseModel):
    """The content of a lock file: who holds the lock."""

    token: Annotated[str, StringConstraints(pattern="^[0-9a-f]{16}$")]
    """A random number that tells this lock from every other one."""
    user: str
    host: str
    pid: int
    scope: str = ""
    """Where the process can be looked up by its pid; empty if nowhere."""
    started: str = ""
    """When the process started. A later process may get the same pid."""
    slurm_job_id: str | None = None
    since: str
    """When the lock was taken, in UTC, as ISO 8601."""

    def __str__(self) -> str:
        job = f", Slurm job {self.slurm_job_id}" if self.slurm_job_id else ""
        return printable(f"{self.user} on {self.host} (pid {self.pid}{job}, since {self.since})", 400)


def this_process() -> Owner:
    """Describes this process as the owner of a new lock."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in containers, user ids may have no name
        user = f"user {os.getuid()}"
    return Owner(
        token=secrets.token_hex(8),
        user=user,
        host=platform.node(),
        pid=os.getpid(),
        scope=_process_scope(),
        started=process_start(os.getpid()),
        slurm_job_id=os.environ.get("SLURM_JOB_ID") or None,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )


class FoundLock(NamedTuple):
    """A lock file that was found in a folder."""

    owner: Owner | None
    """None where the file is just being written, or is damaged."""
    identity: str
    """Differs between any two locks, even if they cannot be read."""
    age: float
    """Seconds since the lock was last renewed."""

    @property
    def stale(self) -> bool:
        """Whether the job that held the lock is gone."""
        if self.owner and self.owner.scope and self.owner.scope == _process_scope():
            return process_start(self.owner.pid) != self.owner.started
        return self.age > SECONDS_TO_STALE


@contextmanager
def locked(folder: Path, lost: Callable[[str], None] = lambda reason: None) -> Iterator[Owner]:
    """Holds the lock of a run's folder, and renews it from a thread of its own.

    Args:
        folder: the run's folder, which must exist.
        lost: called from that thread if another job takes the lock over. That can happen after this job has stood
            still for 90 s.

    Raises:
        LockedError: if another job holds the lock; the message says who.
        ConfigError: if the folder cannot be written to.
    """
    path, mine, ended = folder / LOCK_FILE, this_process(), threading.Event()
    try:
        _take(path, mine)
    except OSError as error:
        raise ConfigError(f"cannot write to the result folder {folder}: {error.strerror}") from None
    renewing = threading.Thread(target=_renew, args=(path, mine, ended, lost), name="lock", daemon=True)
    renewing.start()
    try:
        yield mine
    finally:
        ended.set()
        renewing.join(timeout=5)
        with suppress(OSError):
            if (found := read_lock(path)) and found.owner == mine:
                path.unlink()


def read_lock(path: Path, now: float | None = None) -> FoundLock | None:
    """Returns what a lock file tells, or None where there is no such file.

    Args:
        path: the lock file.
        now: the time by the clock of its file system, in seconds of Unix time; by default that of this host.
    """
    try:
        data, status = read_bounded(path, _MOST_BYTES)
    except FileNotFoundError:
        return None
    except ValueError:  # not a lock file, whatever it is
        data, status = b"", path.stat()
    age = (time.time() if now is None else now) - status.st_mtime
    try:
        owner = Owner.model_validate_json(data)
    except ValidationError:
        return FoundLock(None, f"inode-{status.st_ino}", age)
    return FoundLock(owner, owner.token, age)


def _take(path: Path, mine: Owner) -> None:
    """Makes `path` the lock of `mine`.

    Several jobs may find the same stale lock. To remove it, a job must first take another lock, whose name contains the
    identity of the stale one; if it gets that one late, it sees that the stale lock is gone. Should a job die while it
    holds this second lock, the next job takes it over by the same rules.
    """
    owner: object = None
    remedy = "wait for its end, stop it, or give another --out"
    for _ in range(_ATTEMPTS):
        with suppress(FileExistsError), path.open("x") as file:
            file.write(mine.model_dump_json(indent=1))
            return
        if not (found := read_lock(path, _now(path.parent))):
            continue
        owner = found.owner
        if not found.stale:
            if found.age > 2 * SECONDS_BETWEEN_RENEWALS:
                remedy += f" (last sign of life {found.age:.0f} s ago; it is gone after {SECONDS_TO_STALE:.0f} s)"
            break
        claim = path.with_name(f".{path.name.lstrip('.')}.{found.identity}")
        _take(claim, mine)
        try:
            if (again := read_lock(path, _now(path.parent))) and again.identity == found.identity and again.stale:
                path.unlink()
                print(f"pbeauty: removed the lock of a job that is gone: {owner}", file=sys.stderr, flush=True)
        finally:
            claim.unlink(missing_ok=True)
    raise LockedError(f"{path.parent} is being played by {owner or 'another job that has just started'}: {remedy}")


def _renew(path: Path, mine: Owner, ended: threading.Event, lost: Callable[[str], None]) -> None:
    while not ended.wait(SECONDS_BETWEEN_RENEWALS):
        with suppress(OSError):  # a file system that does not answer for a while comes back, or ends the run
            if (found := read_lock(path)) and found.identity != mine.token:
                lost(f"the loss of its lock to {found.owner or 'another job'}")
                return
            os.utime(path)


def _now(folder: Path) -> float:
    """The time by the clock of a folder's file system: that of this host may be wrong, and must not make a lock old."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock-") as probe:
        return os.fstat(probe.fileno()).st_mtime


def _process_scope() -> str:
    """The running system, the process namespace (of a container) and the user; empty where Linux does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()} {os.getuid()}"
    except OSError:
        return ""


def process_start(pid: int) -> str:
    """When a process of the own user started, in ticks of the system's clock; empty if it has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if state in "ZX" else fields[18]
