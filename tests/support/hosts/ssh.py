"""Hosts with an ssh server each, which nobody but their login host can reach."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from hosts import virtual

PROGRAMS = {**virtual.PROGRAMS, "sshd": "openssh-server", "ssh": "openssh-client", "ssh-keygen": "openssh-client"}
_SERVER = """
HostKey {folder}/key
AuthorizedKeysFile {folder}/key.pub
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
"""
# ServerAlive: without it the launcher waits for a host that is gone until TCP gives up, a quarter of an hour later.
_CLIENT = """
IdentityFile {folder}/key
IdentitiesOnly yes
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
ServerAliveInterval 2
ServerAliveCountMax 2
BatchMode yes
"""


class Network:
    """A login host and others, which it reaches over ssh, from the start."""

    def __init__(self, *names: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="hosts-"))
        self._hosts: virtual.Hosts | None = None
        try:
            key = self._folder / "key"
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
            (self._folder / "server").write_text(_SERVER.format(folder=self._folder))
            (self._folder / "client").write_text(_CLIENT.format(folder=self._folder))
            self.ssh = self._folder / "ssh"
            self.ssh.write_text(f'#!/bin/sh\nexec ssh -F {self._folder}/client "$@"\n')
            self.ssh.chmod(0o755)
            self._hosts = virtual.Hosts(self._folder, "login", *names)
            self.login = self._hosts.hub
            for name in names:
                self._serve(name)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Network:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def __getitem__(self, name: str) -> virtual.Host:
        assert self._hosts
        return self._hosts[name]

    def close(self) -> None:
        """Takes everything down."""
        if self._hosts:
            self._hosts.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def lose(self, name: str) -> None:
        """A host's power fails."""
        assert self._hosts
        self._hosts.lose(name)

    def bring_back(self, name: str) -> None:
        """A host that was lost is back."""
        assert self._hosts
        self._hosts.bring_back(name)
        self._serve(name)

    def _serve(self, name: str) -> None:
        host = self[name]
        host.run("mkdir", "/run/sshd")
        host.run("/usr/sbin/sshd", "-f", self._folder / "server", "-E", self._folder / f"sshd-{name}.log")
