"""A sweep's engines: kept from case to case, closed when another is wanted."""

from __future__ import annotations

import mpi

SWEEP = """
base:
  name: x
  game: {rounds: 2}
  models: {demo: {path: demo}}
  population: [{name: p, count: 30, kind: llm, retries: 2}]
table:
  - {case: small, models.demo.engine: {max_num_seqs: 8}, game.rounds: 2}
  - {case: large, models.demo.engine: {max_num_seqs: 32}, game.rounds: 2}
  - {case: small-again, models.demo.engine: {max_num_seqs: 8}, game.rounds: 1}
"""
COUNTED = """
import os
import pbeauty.job.runner
class Engine(pbeauty.job.runner.Engine):
    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        os.write(2, b"engine of %d loaded\\n" % self.max_num_seqs)
    def close(self):
        os.write(2, b"engine of %d closed\\n" % self.max_num_seqs)
        super().close()
pbeauty.job.runner.Engine = Engine
"""


def test_an_engine_is_kept_for_cases_that_want_it_and_closed_when_another_is_wanted(tmp_path):
    """Real engines: two settings of one model, three cases, and once more the case that came first."""
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    sweep, own = ("run", tmp_path / "sweep.yaml", "--out"), tmp_path / "own"
    program = mpi.altered(tmp_path, COUNTED + mpi.IN_TURN)
    done = mpi.mpirun(2, *sweep, tmp_path / "out", "then", *sweep, own, "--case", "large", program=program)
    assert (done.code, done.left) == (0, []), done
    assert [line for line in done.err.splitlines() if line.startswith("engine of")] == [
        "engine of 32 loaded",
        "engine of 32 closed",
        "engine of 8 loaded",
        "engine of 32 loaded",
    ]
    # An engine that was kept plays as a new one; and a process's third engine as its first.
    outcomes = {case: mpi.results(tmp_path / "out" / case) for case in ("small", "small-again", "large")}
    first_round = {name: values[: 1 if "rounds" in name else None] for name, values in outcomes["small"].items()}
    mpi.assert_same(outcomes["small-again"], first_round)
    mpi.assert_same(mpi.results(own), outcomes["large"])
