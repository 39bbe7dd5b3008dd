"""The communicator of all ranks, and how a command comes to its end on every one of them."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NoReturn

from pbeauty.errors import FAILED, ConfigError, JobError, PbeautyError
from pbeauty.mpi.watchdog import SECONDS_TO_BE_HEARD

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

_LAUNCHERS = {
    "SLURM_STEP_NUM_TASKS": "srun",
    "OMPI_COMM_WORLD_SIZE": "Open MPI's mpirun",
    "MV2_COMM_WORLD_SIZE": "MVAPICH's launcher",
    "PMI_SIZE": "the MPI launcher",
    "PALS_SIZE": "PALS",
    "JSM_NAMESPACE_SIZE": "jsrun",
    "WORLD_SIZE": "torchrun, or a launcher like it,",
}
"""Variables in which launchers say how many tasks they have started."""
_RANKS = {"PMIX_RANK": "a launcher with PMIx", "PALS_RANKID": "PALS", "LOCAL_RANK": "torchrun, or a launcher like it,"}
"""Variables in which they say which of several tasks this is, from 0."""


class NoMPIError(ConfigError):
    """There is no MPI library, or one that mpi4py cannot load."""


def world() -> Comm:
    """All ranks.

    Raises:
        NoMPIError: if there is no MPI library.
        ConfigError: as for `check_world_size`.
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
        trace = "" if isinstance(error, PbeautyError) else traceback.format_exc()
        # In one piece, or what two ranks say at the same time would run into each other.
        sys.stderr.write(f"{trace}pbeauty: rank {comm.rank} of {comm.size}: {str(error) or type(error).__name__}\n")
        sys.stderr.flush()
        sys.stdout.flush()
        time.sleep(SECONDS_TO_BE_HEARD)
        comm.Abort(FAILED)  # which comes back under some MPI libraries
        os._exit(FAILED)


def exit_at_once(code: int) -> NoReturn:
    """Ends this process without taking apart all that vLLM has loaded, which keeps an interpreter busy for 5 s."""
    from multiprocessing import active_children

    if active_children():  # those of an engine on several GPUs, which vLLM ends
        atexit._run_exitfuncs()
    if (mpi := sys.modules.get("mpi4py.MPI")) and mpi.Is_initialized() and not mpi.Is_finalized():
        mpi.Finalize()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads any more
            stream.flush()
    os._exit(code)


def check_world_size(size: int, environ: Mapping[str, str] = os.environ) -> None:
    """Refuses to run as one of several processes that do not know of each other.

    Raises:
        ConfigError: if a launcher started several tasks and MPI sees only one.
    """
    if size > 1:
        return
    for variable, launcher in {**_LAUNCHERS, **_RANKS}.items():
        text = environ.get(variable, "")
        tasks = int(text) + (variable in _RANKS) if text.isdecimal() else 1
        if tasks > 1:
            count = f"at least {tasks}" if variable in _RANKS else str(tasks)
            raise ConfigError(
                f"{launcher} started {count} tasks, but MPI sees only this one: the launcher and the MPI library that "
                "mpi4py loaded do not belong together; use the launcher of that library: its mpirun, or srun with the "
                f"matching --mpi=pmi2 or --mpi=pmix (or unset {variable}, if this process is alone)"
            )
