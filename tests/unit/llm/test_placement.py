"""Which GPUs an engine takes and the environment it starts in."""

from __future__ import annotations

import ctypes
import itertools
import os
import platform
import subprocess
import sys
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbeauty.errors import ConfigError
from pbeauty.llm import placement
from pbeauty.llm.placement import (
    PORTS_PER_ENGINE,
    NodeRank,
    engine_environment,
    engine_threads,
    enter_environment,
    node_slot,
    take_gpus,
    visible_gpus,
)

# --- GPUs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listed", "gpus"),
    [
        ("0,1,2", ["0", "1", "2"]),
        (" 3 , 5 ", ["3", "5"]),
        ("GPU-1a2b,MIG-77", ["GPU-1a2b", "MIG-77"]),
        ("", []),
        ("-1", []),
        (",", []),
    ],
)
def test_visible_gpus_are_those_of_the_variable(listed, gpus, monkeypatch):
    monkeypatch.setattr(placement, "_driver_count", lambda: 8)
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": listed}) == gpus


@pytest.mark.parametrize("count", [0, 1, 4])
def test_without_the_variable_all_of_the_drivers_gpus_are_visible(count, monkeypatch):
    monkeypatch.setattr(placement, "_driver_count", lambda: count)
    assert visible_gpus({}) == [str(i) for i in range(count)]


class FakeDriver:
    def __init__(self, count, init=0, ask=0):
        self.count, self.init, self.ask = count, init, ask

    def nvmlInit_v2(self):  # noqa: N802
        return self.init

    def nvmlDeviceGetCount_v2(self, pointer):  # noqa: N802
        pointer._obj.value = self.count
        return self.ask


@pytest.mark.parametrize(
    ("driver", "count"), [(FakeDriver(3), 3), (FakeDriver(3, init=9), 0), (FakeDriver(3, ask=9), 0), (None, 0)]
)
def test_a_missing_or_failing_driver_has_no_gpus(driver, count, monkeypatch):
    def library(name):
        if driver is None:
            raise OSError(name)
        return driver

    monkeypatch.setattr(ctypes, "CDLL", library)
    assert visible_gpus({}) == [str(i) for i in range(count)]


@given(st.integers(1, 8), st.integers(1, 4), st.integers(0, 5))
def test_engines_of_a_node_take_consecutive_gpus_of_their_own(engines, per_engine, spare):
    visible = [f"gpu{i}" for i in range(engines * per_engine + spare)]
    taken = [take_gpus(NodeRank(index, engines), per_engine, visible) for index in range(engines)]
    assert list(itertools.chain(*taken)) == visible[: engines * per_engine]
    assert all(len(gpus) == per_engine for gpus in taken)


@pytest.mark.parametrize("index", [0, 1, 3])
@pytest.mark.parametrize("visible", [["5"], ["2", "3"], ["GPU-a", "GPU-b", "GPU-c", "GPU-d"]])
def test_a_rank_that_the_scheduler_gave_gpus_of_its_own_takes_them_all(index, visible):
    assert take_gpus(NodeRank(index, 5), len(visible), visible) == visible


@pytest.mark.parametrize("index", [0, 2])
def test_without_gpus_an_engine_takes_none(index):
    assert take_gpus(NodeRank(index, 3), 1, []) == []


@pytest.mark.parametrize(
    ("engines", "per_engine", "visible"), [(3, 1, 2), (2, 2, 3), (1, 4, 2), (1, 2, 0), (4, 2, 0), (3, 4, 8)]
)
def test_too_few_gpus_is_refused_on_every_rank(engines, per_engine, visible):
    for index in range(engines):
        with pytest.raises(ConfigError) as caught:
            take_gpus(NodeRank(index, engines), per_engine, [str(i) for i in range(visible)])
        message = str(caught.value)
        assert f"{engines} engine(s) on this node with tensor_parallel_size {per_engine}" in message
        assert f"need {engines * per_engine} GPUs, but {visible} are visible" in message


# --- environment -------------------------------------------------------------------------------------------


@pytest.fixture
def own_caches(tmp_path, monkeypatch):
    """A folder of the user's caches; what this test claims of the node's ports is given back."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("VLLM_CACHE_ROOT", raising=False)
    monkeypatch.setattr(placement, "_held_sockets", held := [])
    placement.node_slot.cache_clear()
    yield tmp_path
    placement.node_slot.cache_clear()
    for one in held:
        one.close()


def test_an_engine_on_gpus_sees_those_alone_and_is_not_bound_to_cores(own_caches):
    environment, notes = engine_environment(NodeRank(1, 2), ["2", "3"])
    assert environment["CUDA_VISIBLE_DEVICES"] == "2,3" and notes == []
    assert not {"OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND", "VLLM_CPU_KVCACHE_SPACE"} & environment.keys()


@pytest.mark.parametrize(("engines", "binding"), [(1, "auto"), (2, "nobind"), (8, "nobind")])
def test_engines_that_share_a_node_are_not_bound_to_the_same_cores(engines, binding, own_caches):
    environment, _ = engine_environment(NodeRank(0, engines), [])
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == binding
    assert "CUDA_VISIBLE_DEVICES" not in environment


@pytest.mark.parametrize(("cores", "quota", "threads"), [(8.0, None, 8), (2.5, None, 2), (0.4, None, 1), (8.0, 3, 3)])
def test_an_engine_has_threads_for_its_part_of_the_cores(cores, quota, threads, tmp_path):
    if quota:
        (tmp_path / "cpu.max").write_text(f"{quota * 100_000} 100000")
    assert engine_threads(NodeRank(0, 1, cores), tmp_path) == threads


def test_the_time_that_a_cgroup_allows_is_divided_among_the_engines_of_the_node(tmp_path):
    (tmp_path / "cpu.max").write_text("800000 100000")
    assert engine_threads(NodeRank(0, 4, 64.0), tmp_path) == 2
    (tmp_path / "cpu.max").write_text("max 100000")
    assert engine_threads(NodeRank(0, 4, 64.0), tmp_path) == 64


def test_without_word_of_cores_those_that_this_process_may_use_are_divided(tmp_path):
    mine = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, mine[:1])
    try:
        assert engine_threads(NodeRank(0, 1), tmp_path) == 1
    finally:
        os.sched_setaffinity(0, mine)


CLAIM = """
import sys
from pbeauty.llm.placement import NodeRank, engine_environment
found, _ = engine_environment(NodeRank(int(sys.argv[1]), 2), [])
print(found["VLLM_PORT"], found["VLLM_CACHE_ROOT"], flush=True)
sys.stdin.read()
"""


def test_engines_of_one_node_share_neither_ports_nor_caches_whatever_job_they_are_of(tmp_path):
    """Two jobs of two engines, each a process of its own, all alive at once."""
    environ = {k: v for k, v in os.environ.items() if k != "VLLM_CACHE_ROOT"} | {"XDG_CACHE_HOME": str(tmp_path)}
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environ}
    engines = [subprocess.Popen([sys.executable, "-c", CLAIM, str(i)], **pipe) for i in (0, 1, 0, 1)]
    said = [engine.stdout.readline().split() for engine in engines]
    for engine in engines:
        engine.communicate("")
    ports = sorted(int(port) for port, _ in said)
    assert all(b - a >= PORTS_PER_ENGINE for a, b in itertools.pairwise(ports))
    assert ports[0] > 1024 and ports[-1] + PORTS_PER_ENGINE <= 32768 + 1
    assert len({cache for _, cache in said}) == 4
    assert all(cache.startswith(f"{tmp_path}/pbeauty/vllm/{platform.node()}-") for _, cache in said)


def test_a_port_that_somebody_else_has_is_passed_over(own_caches):
    first = node_slot()
    placement.node_slot.cache_clear()
    assert node_slot() > first


def test_a_home_that_cannot_be_written_is_replaced_by_a_temporary_folder_with_a_note(own_caches, monkeypatch):
    (own_caches / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(own_caches / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(own_caches))
    environment, (note,) = engine_environment(NodeRank(0, 1), [])
    assert environment["VLLM_CACHE_ROOT"].startswith(str(own_caches / "pbeauty-vllm-"))
    assert "cannot be written" in note and str(own_caches / "file") in note


def test_what_the_user_has_set_is_kept_but_for_the_gpus(own_caches, monkeypatch):
    for name, value in {"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "0,1", "VLLM_CACHE_ROOT": "/scratch"}.items():
        monkeypatch.setenv(name, value)
    for name in ("VLLM_PORT", "VLLM_LOGGING_LEVEL", "VLLM_NO_USAGE_STATS", "VLLM_ENABLE_V1_MULTIPROCESSING"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    assert enter_environment(NodeRank(1, 2), ["1"]) == []
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1" and os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ["VLLM_CACHE_ROOT"] == "/scratch" and os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
