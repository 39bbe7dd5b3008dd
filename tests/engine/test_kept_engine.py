"""A sweep's engines: kept from case to case, closed when another is wanted."""

from __future__ import annotations

import sys

import mpi


def test_an_engine_is_kept_for_cases_that_want_it_and_closed_when_another_is_wanted(tmp_path):
    """Real engines: two settings of one model, three cases, results as of runs of their own."""
    (tmp_path / "sweep.yaml").write_text(
        "base: {name: x, game: {rounds: 2}, models: {demo: {path: demo}},"
        " population: [{name: p, count: 30, kind: llm, retries: 2}]}\n"
        "table:\n"
        "  - {case: small, models.demo.engine: {max_num_seqs: 8}, game.rounds: 2}\n"
        "  - {case: large, models.demo.engine: {max_num_seqs: 32}, game.rounds: 2}\n"
        "  - {case: small-again, models.demo.engine: {max_num_seqs: 8}, game.rounds: 1}\n"
    )
    counting = tmp_path / "counting.py"
    counting.write_text(
        "import os, sys\nimport pbeauty.job.runner\nfrom pbeauty.cli.main import main\n"
        "class Engine(pbeauty.job.runner.Engine):\n"
        "    def __init__(self, *given, **named):\n"
        "        super().__init__(*given, **named)\n"
        "        os.write(2, b'engine of %d loaded\\n' % self.max_num_seqs)\n"
        "    def close(self):\n"
        "        os.write(2, b'engine of %d closed\\n' % self.max_num_seqs)\n"
        "        super().close()\n"
        "pbeauty.job.runner.Engine = Engine\nsys.exit(main())\n"
    )
    program = (sys.executable, str(counting))
    done = mpi.mpirun(2, "run", tmp_path / "sweep.yaml", "--out", tmp_path / "out", program=program, timeout=240)
    assert (done.code, done.left) == (0, []), done
    lines = [line for line in done.err.splitlines() if line.startswith(("engine of", "case "))]
    first, second = [32, 8] if lines[1] == "engine of 32 loaded" else [8, 32]
    loads = [line for line in lines if line.startswith("engine of")]
    assert loads[:3] == [f"engine of {first} loaded", f"engine of {first} closed", f"engine of {second} loaded"], lines
    assert len([line for line in loads if line.endswith("loaded")]) == 2, "small and small-again are played on one"
    # An engine that was kept plays as a new one; and a process's second engine as its first.
    outcomes = {case: mpi.results(tmp_path / "out" / case) for case in ("small", "small-again", "large")}
    first_round = {name: values[: 1 if "rounds" in name else None] for name, values in outcomes["small"].items()}
    mpi.assert_same(outcomes["small-again"], first_round)
    case = "large" if second == 32 else "small"
    own = mpi.mpirun(2, "run", tmp_path / "sweep.yaml", "--case", case, "--out", tmp_path / "own", timeout=240)
    assert own.code == 0, own
    mpi.assert_same(outcomes[case], mpi.results(tmp_path / "own"))
