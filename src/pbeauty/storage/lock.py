"""One job at a time in a run's folder: a lock file that says who plays there, and that goes stale with its job.

The file `lock` is created exclusively, touched every 10 s while the job lives, and removed at its end. A lock that a
dead job left is taken over by the next one: at once where it can be seen that the owner is gone (a dead process on
the same machine, an earlier start of the same requeued Slurm job), otherwise after 90 s without a sign of life.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from pbeauty.errors import ConfigError
from pbeauty.storage.hdf5 import printable, read_bounded

LOCK_FILE = "lock"
SECONDS_BETWEEN_SIGNS = 10.0
SECONDS_TO_STALE = 90.0
"""More than network file systems keep what they know of a file (60 s), and a sign of life."""
_LARGEST = 1 << 16
_ATTEMPTS = 5
_SECONDS_TO_JOIN = 5.0
_Name = Annotated[str, StringConstraints(max_length=500)]


class Owner(BaseModel):
    """Who holds a lock: the content of the file, as JSON."""

    token: Annotated[str, StringConstraints(pattern="^[0-9a-f]{16}$")]
    """Differs between any two locks."""
    user: _Name
    host: _Name
    pid: Annotated[int, Field(gt=0, lt=2**31)]
    machine: _Name = ""
    """Where `pid` means something: this boot of the host, and the process namespace. Empty where that is unknown."""
    born: _Name = ""
    """When the process started, in the machine's own ticks: another process may have its pid by now."""
    slurm_job_id: _Name | None = None
    slurm_restarts: Annotated[int, Field(ge=0, lt=2**31)] = 0
    since: _Name
    """UTC, ISO 8601."""

    def __str__(self) -> str:
        job = f", Slurm job {self.slurm_job_id}" if self.slurm_job_id else ""
        return printable(f"{self.user} on {self.host} (pid {self.pid}{job}, since {self.since})", 400)


def this_process() -> Owner:
    """This process as the owner of a new lock."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        user = f"user {os.getuid()}"
    restarts = os.environ.get("SLURM_RESTART_COUNT", "")
    return Owner(
        token=secrets.token_hex(8),
        user=user[:500],
        host=platform.node()[:500],
        pid=os.getpid(),
        machine=_machine(),
        born=_born(os.getpid()),
        slurm_job_id=os.environ.get("SLURM_JOB_ID", "")[:100] or None,
        slurm_restarts=int(restarts) if restarts.isdecimal() and len(restarts) < 9 else 0,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )


@dataclass(frozen=True)
class Found:
    """A lock file as somebody else finds it."""

    owner: Owner | None
    """None where the file does not tell: it is being written, or damaged."""
    identity: str
    """Differs between any two locks, legible or not."""
    age: float
    """Seconds since the last sign of life."""

    @property
    def stale(self) -> bool:
        """Whether the job that made it is gone."""
        owner = self.owner
        if owner:
            me = this_process()
            requeued = owner.slurm_job_id and owner.slurm_job_id == me.slurm_job_id
            if requeued and owner.slurm_restarts < me.slurm_restarts:
                return True
            if owner.machine and owner.machine == me.machine:
                return not _alive(owner.pid, owner.born)
        return self.age > SECONDS_TO_STALE


def look(folder: Path) -> Found | None:
    """The lock on a run's folder; None where there is none."""
    return _look(folder / LOCK_FILE)


class Lock:
    """A run's folder, held for this process; a context manager."""

    def __init__(self, folder: Path, lost: Callable[[str], None] = lambda reason: None) -> None:
        """Takes the lock, and keeps it fresh from a thread of its own.

        Args:
            folder: the run's folder, which must exist.
            lost: told, in that thread, if another job has taken the lock over, as it may after a standstill of 90 s.

        Raises:
            ConfigError: naming the owner if another job holds the lock; or if the folder cannot be written.
        """
        self.path = folder / LOCK_FILE
        self.owner = this_process()
        self._lost = lost
        self._ended = threading.Event()
        try:
            before = _take(self.path, self.owner)
        except _HeldError as held:
            raise ConfigError(f"{folder} {held}") from None
        except OSError as error:
            raise ConfigError(f"cannot write to the result folder {folder}: {error.strerror}") from None
        if before:
            whose = before.owner or "an owner that it does not name"
            print(f"pbeauty: took over the lock of a job that is gone: {whose}", file=sys.stderr, flush=True)
        self._thread = threading.Thread(target=self._keep, name="lock", daemon=True)
        self._thread.start()

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Gives the folder free."""
        self._ended.set()
        self._thread.join(timeout=_SECONDS_TO_JOIN)
        with contextlib.suppress(OSError):
            found = _look(self.path)
            if found and found.identity == self.owner.token:
                self.path.unlink()

    def _keep(self) -> None:
        while not self._ended.wait(SECONDS_BETWEEN_SIGNS):
            try:
                found = _look(self.path)
                if found and found.identity != self.owner.token:
                    self._lost(f"the loss of its lock to {found.owner or 'another job'}")
                    return
                if found:
                    os.utime(self.path)
                else:
                    _create(self.path, self.owner)  # somebody has deleted it
            except OSError:
                continue  # a file system that is away for a while comes back, or stops the run where it matters


class _HeldError(Exception):
    """Somebody else holds the lock."""

    def __init__(self, found: Found | None) -> None:
        owner = found.owner if found else None
        sign = (
            f"; its last sign of life came {found.age:.0f} s ago, and without one for {SECONDS_TO_STALE:.0f} s it "
            "counts as gone"
            if found and found.age > 2 * SECONDS_BETWEEN_SIGNS
            else ""
        )
        super().__init__(
            f"is being played by {owner or 'another job that has just started'}: wait for its end, stop it, "
            f"or give another --out{sign}"
        )


def _take(path: Path, mine: Owner) -> Found | None:
    """Makes `path` the lock of `mine`; returns the stale lock that was there, if any.

    A stale lock is replaced by whoever holds the claim to it, a lock of its own whose name holds the stale one's
    identity. So of two newcomers one wins, and one who comes late finds that the identity is no longer there.

    Raises:
        _HeldError: if somebody else holds or just takes it.
        OSError: if it cannot be written.
    """
    for _ in range(_ATTEMPTS):
        if _create(path, mine):
            return None
        found = _look(path)
        if found is None:
            continue  # removed just now
        if not found.stale:
            raise _HeldError(found)
        claim = path.with_name(f".{path.name.lstrip('.')}.{found.identity}")
        _take(claim, mine)
        draft = path.with_name(f".{LOCK_FILE}.draft-{mine.token}")
        try:
            again = _look(path)
            if again and again.identity == found.identity:
                draft.write_text(mine.model_dump_json(indent=1))
                draft.replace(path)
                return found
        finally:
            draft.unlink(missing_ok=True)
            claim.unlink(missing_ok=True)
    raise _HeldError(None)


def _create(path: Path, mine: Owner) -> bool:
    try:
        file = path.open("x")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(mine.model_dump_json(indent=1))
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


def _look(path: Path) -> Found | None:
    try:
        data, status = read_bounded(path, _LARGEST)
    except FileNotFoundError:
        return None
    except ValueError:
        data, status = b"", path.stat()
    age = max(0.0, time.time() + _clock_difference(path.parent) - status.st_mtime)
    try:
        owner = Owner.model_validate_json(data)
    except ValidationError:
        return Found(None, f"inode-{status.st_ino}", age)
    return Found(owner, owner.token, age)


_differences: dict[Path, float] = {}


def _clock_difference(folder: Path) -> float:
    """Seconds by which the clock that dates files in `folder` is ahead of this host's; 0 where that cannot be told."""
    if folder not in _differences:
        try:
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock-") as fresh:
                _differences[folder] = os.fstat(fresh.fileno()).st_mtime - time.time()
        except OSError:  # somebody who may only read
            return 0.0
    return _differences[folder]


def _machine() -> str:
    """Names the process namespace that pids of this process belong to; empty where the system does not tell."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _alive(pid: int, born: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's; it is there, though /proc may hide it
    now = _born(pid)
    return now in ("", born)


def _born(pid: int) -> str:
    """When a process started, in ticks since the machine's start; empty if hidden, `dead` for a zombie."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "dead" if state in "ZX" else fields[18]
