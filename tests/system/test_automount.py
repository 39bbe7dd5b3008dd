"""Folders that every host mounts under a name of its own, to which a link with a common name leads."""

from __future__ import annotations

import sys
from pathlib import Path

import mpi
import pytest
from hosts import virtual

PARROT = Path(__file__).parents[1] / "support/parrot.py"
GAME = """
name: game
game: {rounds: 2}
population:
  - {name: birds, count: 23, kind: llm, retries: 1}
  - {name: crowd, count: 40, kind: uniform}
"""
HOST = """#!/bin/sh
exec unshare -m --propagation private sh -c '
mount -t tmpfs none "$PLACE/auto" &&
mount --bind "$PLACE/data" "$PLACE/net-$PMI_RANK" &&
ln -s "$PLACE/net-$PMI_RANK" "$PLACE/auto/user" &&
cd "$PLACE/auto/user" && exec "$@"' sh "$@"
"""
"""A rank as on a host of its own: only there is the folder of data mounted as net-RANK, and reached by auto/user."""


@pytest.mark.parametrize("out", ["run", "{place}/auto/user/run"])
def test_ranks_find_a_folder_by_the_name_that_all_hosts_know(tmp_path, out):
    virtual.require("the test of automounts", {"unshare": "util-linux", "mount": "mount"})
    for name in ("auto", "data", "net-0", "net-1", "net-2"):
        (tmp_path / name).mkdir()
    (tmp_path / "data/game.yaml").write_text(GAME)
    host = tmp_path / "host"
    host.write_text(HOST)
    host.chmod(0o755)
    command = ("run", "game.yaml", "--out", out.format(place=tmp_path))
    done = mpi.mpirun(3, *command, program=(str(host), sys.executable, str(PARROT)), environ={"PLACE": str(tmp_path)})
    assert done.code == 0, done
    assert mpi.rounds_kept(tmp_path / "data/run") == 2
