"""Hosts of our own on one machine: each with its own name, network, mounts and processes, on a network of their own.

A host is a set of Linux namespaces that live as long as one process does. Killing that process is a power cut: the
kernel ends everything that ran on the host, and its network and mounts vanish. So there is nothing to clean up, not
even after a test run that was killed itself. File systems are shared, as on a cluster, unless a host mounts its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import pytest

PROGRAMS = {"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2"}
"""Programs that this needs, and the Debian packages that bring them."""
_KINDS = ("--mount", "--net", "--uts", "--ipc", "--pid")
_UNSHARE = ("unshare", *_KINDS, "--fork", "--kill-child", "--mount-proc")
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_INIT = """
set -e
hostname "$0"
mount --bind "$1" /etc/hosts
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /dev/shm
ip link set lo up
trap '' CHLD  # whoever loses its parent here is reaped by the kernel
echo up
exec sleep infinity
"""


def missing(programs: Mapping[str, str]) -> str | None:
    """Why tests that need root and these programs cannot run; None where they can."""
    absent = sorted({package for name, package in programs.items() if not _program(name)})
    if absent:
        return f"not installed: apt-get install -y --no-install-recommends {' '.join(absent)}"
    if os.geteuid():
        return "only root may set up hosts of its own"
    probe = subprocess.run(
        ["unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "true"], capture_output=True
    )
    return f"this machine grants no namespaces: {probe.stderr.decode().strip()}" if probe.returncode else None


def require(what: str, programs: Mapping[str, str]) -> None:
    """Skips the test where what it needs is missing, saying what that is; in continuous integration it fails."""
    reason = missing(programs)
    if reason and os.environ.get("CI"):
        pytest.fail(f"{what} cannot run: {reason}", pytrace=False)
    if reason:
        pytest.skip(f"{what} do NOT run here: {reason}")


class Host:
    """One host, up from the start."""

    def __init__(self, name: str, address: str, names: Path) -> None:
        self.name = name
        self.address = address
        self._names = names
        self.boot()

    def boot(self) -> None:
        """Starts the host, without a network yet."""
        self._process = subprocess.Popen(
            [*_UNSHARE, "sh", "-c", _INIT, self.name, str(self._names)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=_end_with_parent,
        )
        assert self._process.stdout
        if self._process.stdout.readline() != b"up\n":
            raise RuntimeError(f"host {self.name} does not start: {self._process.communicate()[1].decode()}")
        self.pid = _children(self._process.pid)[0]

    def command(self, *command: str | Path, folder: Path | None = None) -> list[str]:
        """What to execute on this machine so that `command` runs on the host."""
        return ["nsenter", f"--target={self.pid}", *_KINDS, "--", "env", f"--chdir={folder or '/'}", *map(str, command)]

    def run(
        self, *command: str | Path, environ: Mapping[str, str] | None = None, timeout: float = 120, check: bool = True
    ) -> str:
        """Runs a command on the host to its end, and returns its standard output."""
        done = subprocess.run(
            self.command(*command),
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert not (check and done.returncode), f"{command} on {self.name}: {done.returncode}\n{done.stderr}"
        return done.stdout

    def start(self, command: Sequence[str | Path], environ: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        """Starts a daemon in the foreground, which ends with the host."""
        with log.open("ab") as output:
            return subprocess.Popen(
                self.command(*command),
                env={**os.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=_end_with_parent,
            )

    def processes(self) -> list[int]:
        """Ids, on this machine, of all that runs on the host, its first process apart."""
        here = _pid_namespace(self.pid)
        pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
        return [pid for pid in sorted(pids) if pid != self.pid and _pid_namespace(pid) == here]

    def cut_power(self) -> None:
        """Ends the host at once, without a word to anybody."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._process.communicate()  # ends when all that ran on the host is gone


class Hosts:
    """Hosts on one network; the first of them is where the cables meet."""

    def __init__(self, folder: Path, *names: str) -> None:
        """Starts the hosts.

        Args:
            folder: for the files of the network.
            names: of the hosts.
        """
        addresses = [f"10.77.0.{number}" for number in range(1, len(names) + 1)]
        file = folder / "hosts"
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for address, name in zip(addresses, names, strict=True))]
        file.write_text("\n".join(lines) + "\n")
        self._hosts: list[Host] = []
        try:
            for name, address in zip(names, addresses, strict=True):
                self._hosts.append(Host(name, address, file))
            self.hub = self._hosts[0]
            self.hub.run("ip", "link", "add", "switch", "type", "bridge")
            self.hub.run("ip", "address", "add", f"{self.hub.address}/24", "dev", "switch")
            self.hub.run("ip", "link", "set", "switch", "up")
            for host in self._hosts[1:]:
                self._connect(host)
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> Host:
        return next(host for host in self._hosts if host.name == name)

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Takes all hosts down."""
        for host in reversed(self._hosts):
            host.cut_power()

    def lose(self, name: str) -> None:
        """Takes a host down as a power cut does: its peers hear no more of it, not even that it is gone."""
        self.hub.run("ip", "link", "delete", f"to-{name}")
        self[name].cut_power()

    def bring_back(self, name: str) -> None:
        """Boots a host that was lost."""
        self[name].boot()
        self._connect(self[name])

    def _connect(self, host: Host) -> None:
        cable = f"to-{host.name}"
        # Process ids as this machine counts them, so with nothing of the hub's but its network.
        plug = ["ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid)]
        subprocess.run(["nsenter", f"--target={self.hub.pid}", "--net", "--", *plug], check=True)
        self.hub.run("ip", "link", "set", cable, "master", "switch", "up")
        host.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")


def _program(name: str) -> str | None:
    """Where a program is; daemons are not on everybody's path."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def _end_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _children(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == parent:
                found.append(int(entry.name))
    return found


def _pid_namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115
    except OSError:
        return None
