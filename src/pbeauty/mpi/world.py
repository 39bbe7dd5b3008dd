"""The communicator of all ranks, and how a command comes to its end on every one of them."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from pbeauty.errors import FAILED, ConfigError, JobError, PbeautyError
from pbeauty.mpi.watchdog import SECONDS_TO_BE_HEARD

if TYPE_CHECKING:
    from mpi4py.MPI import Comm


class NoMPIError(ConfigError):
    """There is no MPI library, or one that mpi4py cannot load."""


def world() -> Comm:
    """All ranks.

    Raises:
        NoMPIError: if there is no MPI library.
        ConfigError: if the launcher started several tasks and MPI sees only one.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise NoMPIError(
            f"no MPI library could be loaded ({error}); load your site's MPI module, or pip install 'pbeauty[mpi]'"
        ) from None
    check_world_size(MPI.COMM_WORLD.size)
    return MPI.COMM_WORLD


def on_every_rank(comm: Comm, work: Callable[[Comm], int]) -> int:
    """The exit code that `work` gives on every rank; a fault of one rank alone ends all of them."""
    try:
        return work(comm)
    except JobError as error:
        if comm.rank == 0:
            print(f"pbeauty: {error}", file=sys.stderr, flush=True)
        return error.code
    except BaseException as error:
        # A rank that ends alone leaves the others waiting in a collective for good: end them all.
        told = "" if isinstance(error, PbeautyError) else traceback.format_exc()
        # In one piece, or what two ranks say at the same time would run into each other.
        sys.stderr.write(f"{told}pbeauty: rank {comm.rank} of {comm.size}: {str(error) or type(error).__name__}\n")
        sys.stderr.flush()
        sys.stdout.flush()
        time.sleep(SECONDS_TO_BE_HEARD)
        comm.Abort(FAILED)  # which comes back under some MPI libraries
        os._exit(FAILED)


def check_world_size(size: int, environ: Mapping[str, str] = os.environ) -> None:
    """Refuses to run as one of several processes that do not know of each other.

    Raises:
        ConfigError: if the launcher started several tasks and MPI sees only one.
    """
    if size > 1:
        return
    launchers = {
        "SLURM_STEP_NUM_TASKS": "srun",
        "OMPI_COMM_WORLD_SIZE": "Open MPI's mpirun",
        "PMI_SIZE": "the MPI launcher",
    }
    for variable, launcher in launchers.items():
        if environ.get(variable, "1").isdecimal() and int(environ.get(variable, "1")) > 1:
            raise ConfigError(
                f"{launcher} started {environ[variable]} tasks, but MPI sees only this one: the launcher and the MPI "
                "library that mpi4py loaded do not belong together; use the launcher of that library (with srun, "
                "the matching --mpi=pmi2 or --mpi=pmix)"
            )
