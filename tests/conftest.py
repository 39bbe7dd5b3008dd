"""Settings of the whole suite."""

from __future__ import annotations

import os

import pytest
from hypothesis import Phase, settings

SLOWEST = {"test_slurm.py", "test_quickstart.py", "test_failures.py", "test_demo.py"}
"""Files that start first, so that none of them is what is left over when the rest has ended."""

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Orders files; tests of a file stay as they are."""
    items.sort(key=lambda item: item.path.name not in SLOWEST)
