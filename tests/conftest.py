"""Settings of the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from xdist.scheduler import LoadFileScheduling

LONG = (
    "engine",
    "test_slurm.py",
    "test_smollm2.py",
    "test_failures.py",
    "test_quickstart.py",
    "test_engines_in_a_row.py",
)
"""Files, or the folder of them, that start first, so that none of them is what is left over when the rest has ended."""
IN_PROCESS = {"test_bench.py", "test_demo.py", "test_engine.py", "test_engine_arguments.py", "test_speakers.py"}
"""Files that load vLLM into the process of the tests, of which one is enough: its import takes as long as ten tests."""

# Several processes share the cores: threads of one that wait for each other, spinning, take them from all others.
os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", OPENBLAS_NUM_THREADS="1")

settings.register_profile(
    "pbeauty",
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
settings.load_profile("pbeauty")


def scope(name: str) -> str:
    """The tests that share a process with those of a file: its own, or all that load vLLM."""
    return "engine" if name in IN_PROCESS else name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Orders files; tests of a file stay as they are."""
    items.sort(key=lambda item: LONG.index(name) if (name := scope(item.path.name)) in LONG else len(LONG))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileScheduling:
    """As `--dist loadfile`, but that several files may go to one process."""

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope(Path(nodeid.split("::")[0]).name)

    return Scheduling(config, log)
