"""Which GPUs an engine takes and the environment it starts in."""

from __future__ import annotations

import ctypes
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbeauty.errors import ConfigError
from pbeauty.llm import placement
from pbeauty.llm.placement import PORTS_PER_ENGINE, NodeRank, engine_environment, take_gpus, visible_gpus

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


def test_an_engine_on_gpus_sees_those_alone_and_is_not_bound_to_cores():
    environment = engine_environment(NodeRank(1, 2), ["2", "3"], threads=4)
    assert environment["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert not {"OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND", "VLLM_CPU_KVCACHE_SPACE"} & environment.keys()


@pytest.mark.parametrize(("threads", "told"), [(4, "4"), (1, "1"), (0, "1")])
def test_an_engine_without_gpus_is_told_its_threads(threads, told):
    environment = engine_environment(NodeRank(0, 2), [], threads)
    assert environment["OMP_NUM_THREADS"] == told
    assert "CUDA_VISIBLE_DEVICES" not in environment


@pytest.mark.parametrize(("engines", "binding"), [(1, "auto"), (2, "nobind"), (8, "nobind")])
def test_engines_that_share_a_node_are_not_bound_to_the_same_cores(engines, binding):
    assert engine_environment(NodeRank(0, engines), [], 1)["VLLM_CPU_OMP_THREADS_BIND"] == binding


@pytest.mark.parametrize("gpus", [[], ["0"]])
def test_engines_of_a_node_share_neither_ports_nor_caches(gpus):
    environments = [engine_environment(NodeRank(index, 64), gpus, 1) for index in range(64)]
    ports = sorted(int(environment["VLLM_PORT"]) for environment in environments)
    assert all(b - a >= PORTS_PER_ENGINE for a, b in itertools.pairwise(ports))
    assert ports[0] > 1024
    assert ports[-1] + PORTS_PER_ENGINE < 32768, "above this Linux hands ports out to anybody"
    assert len({environment["VLLM_CACHE_ROOT"] for environment in environments}) == 64


def test_the_cache_is_where_the_user_keeps_caches(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch/me")
    assert engine_environment(NodeRank(2, 3), [], 1)["VLLM_CACHE_ROOT"] == "/scratch/me/pbeauty/vllm/engine-2"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert engine_environment(NodeRank(0, 3), [], 1)["VLLM_CACHE_ROOT"] == "/home/me/.cache/pbeauty/vllm/engine-0"


def test_every_setting_is_text_that_an_environment_can_hold():
    for gpus in ([], ["0", "1"]):
        environment = engine_environment(NodeRank(0, 1), gpus, 3)
        assert all(isinstance(value, str) and value for value in environment.values())
        assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
