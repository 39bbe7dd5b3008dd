"""Whole games on more ranks than any machine at hand has cores: 1,024 simulated ones, 33 real ones."""

from __future__ import annotations

import mpi
import pytest
from test_simulated import ALL_TOLD, GAMES, MANY, described, game, play

from pbeauty.config.loader import loads


@pytest.mark.parametrize("name", ["own rank", "by block"])
def test_results_are_the_same_to_the_bit_on_1024_ranks(name, tmp_path):
    experiment = game(**MANY | GAMES[name], rounds=2)
    play(1, experiment.model_copy(update={"gather_limit": 10**6}), tmp_path / "1")
    ended = play(1024, experiment, tmp_path / "1024")
    mpi.assert_same(mpi.results(tmp_path / "1024"), mpi.results(tmp_path / "1"))
    assert len(ended.comms) == 1024


def test_results_are_the_same_to_the_bit_on_33_real_ranks(tmp_path):
    config = tmp_path / "mixed.yaml"
    config.write_text(described(aggregate="median", announce=ALL_TOLD, **MANY))
    for ranks in (1, 33):
        done = mpi.mpirun(ranks, "run", config, "--out", tmp_path / str(ranks), timeout=240)
        assert done.code == 0, done
    real = mpi.results(tmp_path / "33")
    mpi.assert_same(real, mpi.results(tmp_path / "1"))
    play(33, loads(config.read_text()), tmp_path / "simulated")
    mpi.assert_same(real, mpi.results(tmp_path / "simulated"))
