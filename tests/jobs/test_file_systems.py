"""Runs on file systems as clusters have them: without locks, behind automounts, without a home, moved and copied."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mpi
import pytest

from pbeauty.storage.run_reader import Run

GAME = """
name: game
seed: 5
game: {rounds: 8}
population:
  - {name: birds, count: 23, kind: llm, retries: 1}
  - {name: crowd, count: 40, kind: uniform}
"""
NO_LOCKS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int flock(int handle, int operation) {
    char link[64], path[PATH_MAX] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    char *below = getenv("NO_LOCKS_BELOW");
    if (readlink(link, path, sizeof path - 1) > 0 && !strncmp(path, below, strlen(below)))
        return errno = atoi(getenv("NO_LOCKS_ERRNO")), -1;
    return ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(handle, operation);
}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "game.yaml"
    path.write_text(GAME)
    return path


@pytest.fixture(scope="module")
def no_locks(tmp_path_factory):
    """A library whose `flock` fails below a folder, as on Lustre without -o flock."""
    folder = tmp_path_factory.mktemp("no-locks")
    (folder / "flock.c").write_text(NO_LOCKS)
    library = folder / "flock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, folder / "flock.c", "-ldl"], check=True)
    return library


def play(folder, config, *more, environ=None, rounds=3):
    command = ("run", config, "--out", folder, "--resume", "--set", f"game.rounds={rounds}", *more)
    done = mpi.mpirun(2, *command, program=mpi.PARROT, environ=environ)
    assert done.code in (0, 9, 75), done
    return done


@pytest.mark.parametrize("number", [11, 37, 95, 524])
def test_a_file_system_without_locks(config, no_locks, tmp_path, number):
    """A lock is refused with each of these numbers somewhere."""
    below = {"NO_LOCKS_BELOW": str(tmp_path / "results"), "NO_LOCKS_ERRNO": str(number)}
    environ = below | {"LD_PRELOAD": str(no_locks)}
    code = f"import fcntl; fcntl.flock(open({str(tmp_path / 'results/file')!r}, 'w'), fcntl.LOCK_EX)"
    (tmp_path / "results").mkdir()
    refused = subprocess.run([sys.executable, "-c", code], env=os.environ | environ, capture_output=True, text=True)
    assert f"[Errno {number}]" in refused.stderr, "the file system has locks"
    (tmp_path / "results/file").unlink()
    environ |= {"HDF5_USE_FILE_LOCKING": "TRUE"}
    commands = ("doctor", "--out", tmp_path / "results", "then", "run", config, "--out", tmp_path / "results/run")
    done = mpi.mpirun(2, *commands, "--set", "game.rounds=3", program=mpi.PARROT, environ=environ)
    assert (done.code, "damaged" in done.err) == (0, False)
    assert "\nall good\n" in done.out
    done = mpi.alone("export", "--format", "csv", tmp_path / "results/run", environ=environ)
    assert done.code == 0, done
    with Run(tmp_path / "results/run") as run:
        assert run.complete


def test_nothing_depends_on_the_variables_of_hdf5(config, tmp_path):
    play(tmp_path / "plain", config)
    play(tmp_path / "other", config, "--set", "seed=6")
    environ = {
        "HDF5_VDS_PREFIX": str(tmp_path / "other"),
        "HDF5_EXT_PREFIX": str(tmp_path / "other"),
        "HDF5_EXTFILE_PREFIX": str(tmp_path / "other"),
        "HDF5_DRIVER": "core",
        "HDF5_USE_FILE_LOCKING": "FALSE",
        "HDF5_PREFER_PARALLEL_READ": "true",
    }
    play(tmp_path / "changed", config, environ=environ)
    mpi.assert_same(mpi.results(tmp_path / "changed"), mpi.results(tmp_path / "plain"))
    shown = [mpi.alone("export", "--format", "csv", tmp_path / "plain", environ=given) for given in ({}, environ)]
    assert shown[0].code == shown[1].code == 0


def test_a_killed_run_goes_on_where_it_was_moved_or_copied_to(config, tmp_path):
    play(tmp_path / "whole", config, rounds=8)
    old, copied, moved = tmp_path / "old", tmp_path / "far/copied", tmp_path / "far/moved"
    with mpi.start(3, "run", config, "--out", old, **mpi.silent_after(40)) as job:
        job.wait_for((old / "rounds/0001.h5").exists)
        mpi.kill(job.ranks().values())
        job.end()
    shutil.copytree(old, copied, symlinks=True)
    shutil.move(old, moved)
    for new in (copied, moved):
        play(new, config, rounds=8)
        mpi.assert_same(mpi.results(new), mpi.results(tmp_path / "whole"))
        with Run(new) as run:
            assert run.complete
            assert all(run.replies(index + 1, 7) for index in range(run.round_count))


def test_without_a_home(config, tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    for name in (str(home), str(tmp_path / "nowhere")):
        folder = tmp_path / f"run-{Path(name).name}"
        done = play(folder, config, environ={"HOME": name, "XDG_CACHE_HOME": f"{name}/cache"})
        assert done.code == 0, done
        assert mpi.alone("analyze", folder, environ={"HOME": name}).code == 0
    assert not list(home.iterdir()) or os.geteuid() == 0
