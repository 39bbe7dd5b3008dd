"""A real Slurm on hosts of our own: a controller and compute nodes with pretend GPUs, gone when it is closed."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from hosts import virtual
from mpi import LIMIT

PROGRAMS = {
    **virtual.PROGRAMS,
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sbatch": "slurm-wlm",
    "munged": "slurm-wlm",
}
NODES = ("n1", "n2")
CPUS, GPUS = 8, 4
_SETTINGS = """
ClusterName=test
SlurmctldHost=head({head})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until its old credential has expired: 2 minutes by default.
AuthInfo=cred_expire=5,socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
TmpFS={folder}
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=2
SlurmdParameters=config_overrides
ReturnToService=2
# How soon a node that says nothing is taken for dead, and how long a cancelled job may take to end.
SlurmdTimeout=10
KillWait=5
GresTypes=gpu
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """Slurm, up from the start."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # paths of sockets must be short
        self._hosts: virtual.Hosts | None = None
        try:
            self._hosts = virtual.Hosts(self.folder, "head", *NODES)
            self._start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends everything that ran on the cluster, and forgets its jobs."""
        if self._hosts:
            self._hosts.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def hosts(self) -> virtual.Hosts:
        """The head and the nodes."""
        assert self._hosts
        return self._hosts

    def _start(self) -> None:
        (self.folder / "state").mkdir()
        for number in range(GPUS):
            os.mknod(self.folder / f"gpu{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        nodes = [
            f"NodeName={name} NodeAddr={self.hosts[name].address} CPUs={CPUS} RealMemory=8000 Gres=gpu:{GPUS}"
            for name in NODES
        ]
        settings = _SETTINGS.format(head=self.hosts.hub.address, folder=self.folder, nodes="\n".join(nodes))
        (self.folder / "slurm.conf").write_text(settings)
        gpus = f"{self.folder}/gpu[0-{GPUS - 1}]"
        (self.folder / "gres.conf").write_text(f"NodeName={','.join(NODES)} Name=gpu Count={GPUS} File={gpus}\n")
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        munged = ["munged", "--foreground", "--force", f"--key-file={key}"]
        munged += [f"--{what}={self.folder}/munge.{what.split('-')[0]}" for what in ("socket", "pid-file", "seed-file")]
        self._daemon("head", *munged)
        self.wait_until((self.folder / "munge.socket").exists, "munged")
        self._daemon("head", "slurmctld", "-D")
        for name in NODES:
            self._daemon(name, "slurmd", "-D")
        self.wait_until(lambda: self.states() == ["idle"] * len(NODES), "idle nodes")

    def _daemon(self, host: str, *command: str) -> None:
        self.hosts[host].start(command, self._environ(), self.folder / f"{command[0]}-{host}.log")

    def _environ(self, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        """As after a login, with the environment that holds pbeauty first on the path."""
        path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        return {"SLURM_CONF": f"{self.folder}/slurm.conf", "PATH": path, **(environ or {})}

    def command(
        self, *command: str | Path, folder: Path | None = None, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs one of Slurm's commands on the head."""
        return subprocess.run(
            self.hosts.hub.command(*command, folder=folder),
            env={**os.environ, **self._environ(environ)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )

    def ask(self, *command: str | Path) -> str:
        """What a command that must not fail says on standard output."""
        done = self.command(*command)
        assert done.returncode == 0, done
        return done.stdout.strip()

    def states(self) -> list[str]:
        """The nodes' states, as `sinfo` words them."""
        return self.command("sinfo", "--noheader", "--Node", "--format=%T").stdout.split()

    def submit(self, *arguments: str | Path, folder: Path, environ: Mapping[str, str] | None = None) -> str:
        """`sbatch <arguments>` in `folder`; the id of the job."""
        done = self.command("sbatch", "--parsable", *arguments, folder=folder, environ=environ)
        assert done.returncode == 0, done
        return done.stdout.strip()

    def job(self, job: str) -> dict[str, str]:
        """What Slurm knows of a job."""
        shown = self.ask("scontrol", "--oneliner", "show", "job", job)
        return dict(field.split("=", 1) for field in shown.split() if "=" in field)

    def wait_for(self, job: str, timeout: float = LIMIT) -> dict[str, str]:
        """Waits for the end of a job; what Slurm then knows of it."""
        ends = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE")
        self.wait_until(lambda: self.job(job)["JobState"] in ends, f"the end of job {job}", timeout)
        return self.job(job)

    def wait_until(self, ready: Callable[[], object], what: str, timeout: float = LIMIT) -> None:
        """Waits until `ready`."""
        deadline = time.monotonic() + timeout
        while not ready():
            if time.monotonic() > deadline:
                raise AssertionError(f"no {what} within {timeout} s\n{self.logs()}")
            time.sleep(0.1)

    def logs(self) -> str:
        """The last lines of every daemon."""
        queue = self.command("squeue", "--all").stdout
        parts = [f"--- {path.name}\n{path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.log"))]
        return "\n".join([queue, *parts])

    def lose(self, node: str) -> None:
        """A node's power fails."""
        self.hosts.lose(node)

    def bring_back(self, node: str) -> None:
        """A node that was lost is back."""
        self.hosts.bring_back(node)
        self._daemon(node, "slurmd", "-D")
