"""Checkpoints on network file systems are read ahead, each file once a node."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbeauty import weights
from pbeauty.devices import Place
from pbeauty.weights import on_network, read_ahead, share

MOUNTS = """\
overlay / overlay rw 0 0
server:/home /home nfs4 rw 0 0
mgs@tcp:/scratch /scratch lustre rw 0 0
/dev/sda1 /scratch/local xfs rw 0 0
bucket /with\\040space fuse.s3fs rw 0 0
tmpfs /dev/shm tmpfs rw 0 0
"""


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    table = tmp_path / "mounts"
    table.write_text(MOUNTS)
    monkeypatch.setattr(weights, "_MOUNTS", table)
    return table


@pytest.mark.parametrize(
    ("path", "network"),
    [
        ("/", False),
        ("/opt/models", False),
        ("/home/someone/models", True),
        ("/scratch/models/llama", True),
        ("/scratch/local/llama", False),
        ("/with space/llama", True),
        ("/dev/shm/llama", False),
        ("/homeless", False),
    ],
)
def test_the_nearest_mount_decides(path, network, mounts):
    assert on_network(Path(path)) is network


def test_a_system_that_does_not_tell_has_local_disks(monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "_MOUNTS", tmp_path / "none")
    assert not on_network(tmp_path)


@given(files=st.integers(0, 40), engines=st.integers(1, 9), host=st.text(max_size=5))
def test_engines_of_a_node_read_every_file_once(files, engines, host):
    names = [Path(f"model-{number}.safetensors") for number in range(files)]
    shares = [share(names, Place(index, engines), host) for index in range(engines)]
    assert sorted(path for some in shares for path in some) == sorted(names)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_nodes_do_not_all_begin_with_the_same_file():
    names = [Path(f"model-{number}.safetensors") for number in range(8)]
    assert len({share(names, Place(0, 1), f"node{number}")[0] for number in range(20)}) > 3


def test_what_is_read_is_the_weights_where_they_are_far_and_fit(tmp_path, mounts, monkeypatch):
    for name, size in (("a.safetensors", 1000), ("b.safetensors", 20), ("config.json", 7)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert read_ahead(tmp_path, Place(0, 1)) == 0, "a local disk"
    mounts.write_text(f"server:/models {tmp_path} nfs4 rw 0 0\n")
    assert read_ahead(tmp_path, Place(0, 1)) == 1020
    assert sum(read_ahead(tmp_path, Place(index, 2)) for index in range(2)) == 1020
    monkeypatch.setattr(weights, "_free_memory", lambda: 1200)
    assert read_ahead(tmp_path, Place(0, 1)) == 0, "larger than 80% of the memory"


def test_free_memory_is_that_of_this_machine(monkeypatch, tmp_path):
    assert weights._free_memory() > 1 << 20
    monkeypatch.setattr(weights, "_MEMORY", tmp_path / "none")
    assert weights._free_memory() > 1 << 20
