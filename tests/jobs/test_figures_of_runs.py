"""Figures at the end of a job: of a run, of the cases of a sweep, and none where the experiment leaves them out."""

import pytest
from mpi import mpirun

SWEEP = """
name: pair
base:
  name: pair
  game: {rounds: 2}
  population: [{name: crowd, count: 12, kind: uniform}]
vary: {game.multiplier: [1/2, 2/3]}
"""
DRAWN = [
    f"{stem}.{kind}"
    for stem in ("round-0001-histogram", "round-0002-histogram", "trajectory")
    for kind in ("pdf", "png")
]


def figures(folder):
    return sorted(path.name for path in folder.glob("plots/*"))


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path / "sweep.yaml"


def test_a_sweep_draws_the_figures_of_its_cases_at_its_end(sweep, tmp_path):
    done = mpirun(2, "run", sweep, "--set", "plots=true", "--out", tmp_path / "all")
    assert done.code == 0, done
    cases = sorted(path.parent for path in tmp_path.glob("all/*/run.h5"))
    assert [figures(case) for case in cases] == [DRAWN, DRAWN]

    # What a job that was killed while it drew has left out, the next one draws.
    for file in (*cases[0].glob("plots/*"), cases[1] / "plots/round-0002-histogram.png"):
        file.unlink()
    done = mpirun(2, "run", sweep, "--set", "plots=true", "--out", tmp_path / "all", "--resume")
    assert done.code == 0, done
    assert done.out.count("finished already") == 2
    assert [figures(case) for case in cases] == [DRAWN, DRAWN]


def test_no_figures_where_none_are_wanted(sweep, tmp_path):
    done = mpirun(2, "run", sweep, "--out", tmp_path / "none", "--set", "plots=false")
    assert done.code == 0, done
    assert len(list(tmp_path.glob("none/*/run.h5"))) == 2
    assert not list(tmp_path.glob("none/**/plots"))
