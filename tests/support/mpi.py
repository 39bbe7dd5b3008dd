"""Runs the real program under the real launcher, and leaves nothing running behind."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

BIN = Path(sys.executable).parent
MPICH = (str(BIN / "mpirun"),)
PYTHON = (sys.executable,)
PBEAUTY = (str(BIN / "pbeauty"),)
_SUPPORT = Path(__file__).parent
PARROT = (*PYTHON, str(_SUPPORT / "parrot.py"))
_MARK = "PBEAUTY_TEST_JOB"
_GRACE = 30.0
"""Seconds that the ranks of a job may live on after its launcher."""
LIMIT = 300.0
"""Seconds after which a job counts as hanging: many times what one takes, since others may have the machine."""


@dataclass(frozen=True)
class Done:
    """A job that has ended."""

    code: int
    out: str
    err: str
    left: list[int]
    """Processes of the job that did not end with it; they have been killed."""

    @property
    def table(self) -> list[str]:
        """The lines of standard output, without what the launcher adds when it is interrupted."""
        return [line for line in self.out.splitlines() if not line.startswith("[mpiexec@")]


class Job:
    """A running job in a session of its own."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], folder: Path | None = None) -> None:
        self._token = secrets.token_hex(8)
        self._process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**os.environ, **environ, _MARK: self._token},
            start_new_session=True,
        )

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Signals the launcher."""
        self._process.send_signal(number)

    @property
    def ended(self) -> bool:
        """Whether the launcher has ended."""
        return self._process.poll() is not None

    def ranks(self) -> dict[int, int]:
        """Process ids of the program's ranks, by rank."""
        found = {}
        for pid in self._processes():
            environ = _environ(pid)
            rank = environ.get("PMI_RANK", environ.get("OMPI_COMM_WORLD_RANK"))
            if rank is not None:
                found.setdefault(int(rank), pid)
        return found

    def wait_for(self, ready: Callable[[], bool], timeout: float = LIMIT) -> None:
        """Waits until `ready`, which must not take the job longer than its own end."""
        deadline = time.monotonic() + timeout
        while True:
            ended = self.ended  # before the look: what a job has left at its end is seen, too
            if ready():
                return
            assert not ended, f"ended too early: {self._process.communicate()}"
            assert time.monotonic() < deadline, "not ready in time"
            time.sleep(0.05)

    def end(self, timeout: float = LIMIT) -> Done:
        """Waits for the job's end."""
        try:
            out, err = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self._kill()
            out, err = self._process.communicate()
            raise AssertionError(f"the job hangs; so far:\n{out}\n{err}") from None
        deadline = time.monotonic() + _GRACE
        while (left := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        self._kill()
        return Done(self._process.returncode, out, err, left)

    def _processes(self) -> list[int]:
        """Processes of the job; a launcher's ranks lead sessions of their own, so only their environment tells."""
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
        return [pid for pid in sorted(pids) if _environ(pid).get(_MARK) == self._token]

    def _kill(self) -> None:
        kill(self._processes())


def kill(pids: Iterable[int]) -> None:
    """Kills processes of one job. The death of the first can end the others before their turn comes."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def start(
    ranks: int,
    *arguments: str | Path,
    program: Sequence[str] = PBEAUTY,
    launcher: Sequence[str] = MPICH,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Job:
    """Starts `mpirun -n <ranks> pbeauty <arguments>`, without figures; to be used as a context manager."""
    command = [*launcher, "-n", str(ranks), *program, *_without_figures(arguments)]
    return Job(command, environ or {}, folder)


def mpirun(ranks: int, *arguments: str | Path, timeout: float = LIMIT, **options: object) -> Done:
    """Runs `mpirun -n <ranks> pbeauty <arguments>` to its end; options as for `start`."""
    with start(ranks, *arguments, **options) as job:  # type: ignore[arg-type]
        return job.end(timeout)


def alone(*arguments: str | Path, timeout: float = LIMIT, environ: Mapping[str, str] | None = None) -> Done:
    """Runs `pbeauty <arguments>`, without a launcher and without figures."""
    with Job([*PBEAUTY, *_without_figures(arguments)], environ or {}) as job:
        return job.end(timeout)


def silent_after(replies: int) -> dict[str, Any]:
    """Options of `start`: parrots that fall silent after so many replies each, and so stay in a round."""
    return {"program": PARROT, "environ": {"PARROT_REPLIES": str(replies)}}


def thinking_from(round_number: int) -> dict[str, Any]:
    """Options of `start`: participants without a model who think for an hour from a round on, counted from 1."""
    return {"program": (*PYTHON, str(_SUPPORT / "thinker.py")), "environ": {"THINK_FROM": str(round_number)}}


IN_TURN = f"\nsys.path.insert(0, {str(_SUPPORT)!r})\nfrom in_turn import play_first\nplay_first()"
"""For `altered`: one job for several commands, with the word `then` between them."""


def altered(folder: Path, setup: str) -> tuple[str, ...]:
    """The program with its surroundings altered by a few lines of code, which are put into `folder`."""
    lines = ["import sys", setup, "from pbeauty.cli.main import main", "sys.exit(main())"]
    (folder / "altered.py").write_text("\n".join(lines))
    return (*PYTHON, str(folder / "altered.py"))


def results(folder: Path) -> dict[str, np.ndarray]:
    """What a run came to, by dataset: all but the time it took."""
    found = {}

    def keep(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("rounds/seconds"):
            found[name] = item[:]

    with h5py.File(folder / "run.h5") as file:
        for name in ("participants", "rounds"):
            file[name].visititems(lambda path, item, name=name: keep(f"{name}/{path}", item))
    return found


def assert_same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> None:
    """Equal to the bit: names, types, shapes, and every byte (so that NaN equals NaN)."""
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert (values.dtype, values.shape) == (other[name].dtype, other[name].shape), name
        assert values.tobytes() == other[name].tobytes(), name


def rounds_kept(folder: Path) -> int:
    """Finished rounds of a run that h5py can read; every value of them is there."""
    with h5py.File(folder / "run.h5") as file:
        lengths = {len(dataset) for dataset in file["rounds"].values()}
        assert len(lengths) == 1, "datasets of the rounds differ in length"
        return lengths.pop()


def _without_figures(arguments: Sequence[str | Path]) -> list[str]:
    """`run` draws nothing, which takes longer than most games here; tests of figures set `plots=true` themselves."""
    texts = list(map(str, arguments))
    if "then" in texts:
        end = texts.index("then")
        return [*_without_figures(texts[:end]), "then", *_without_figures(texts[end + 1 :])]
    return [*texts, "--set", "plots=false"] if texts[:1] == ["run"] and "plots=true" not in texts else texts


def _environ(pid: int) -> dict[str, str]:
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in raw.split("\0") if "=" in entry)
