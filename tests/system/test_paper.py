"""Every experiment of the paper is there, and is played on a small scale with the demo model."""

from __future__ import annotations

import csv
from pathlib import Path

import mpi
import numpy as np
import pytest
import yaml

from pbeauty.config.loader import load
from pbeauty.config.sweep import load_sweep
from pbeauty.storage.run_reader import Run

CONFIGS = Path(__file__).parents[2] / "configs"
EXPERIMENTS = sorted(path for path in (CONFIGS / "paper").glob("*.yaml") if path.stem not in ("models", "demo"))


def test_every_experiment_of_the_paper_is_there_and_has_a_demo():
    names = {path.stem for path in EXPERIMENTS}
    assert names == {
        *("scaling", "million", "million-random", "prompts", "rounds", "temperature", "ratios", "shifted"),
        *("education", "profession", "one-expert", "mixture-individuals", "mixture-groups"),
    }
    for path in EXPERIMENTS:
        comment = [line for line in path.read_text().splitlines() if line.startswith("# ")]
        assert load_sweep(path).cases
        assert "arXiv 2407.17789v2" in comment[0]
        assert "figure" in " ".join(comment) or "table" in " ".join(comment), "a comment says what it is"
    demo = yaml.safe_load((CONFIGS / "paper/demo.yaml").read_text())
    assert sorted(Path(entry["base"]).stem for entry in demo["base"]) == sorted(names)
    for case in load_sweep(CONFIGS / "paper/demo.yaml").cases:
        assert set(case.experiment.models) == {"demo"}
        assert case.experiment.count <= 1000
    education, *_ = load_sweep(CONFIGS / "paper/education.yaml").cases
    assert education.experiment.count == 1000
    assert load(CONFIGS / "paper/million-random.yaml").count == 1_000_000
    assert load_sweep(CONFIGS / "contamination.yaml").cases


def test_the_paper_is_played_on_a_small_scale_in_one_job(tmp_path):
    done = mpi.mpirun(2, "run", CONFIGS / "paper/demo.yaml", "--out", tmp_path, timeout=400)
    assert done.code == 0, done
    assert "28 of 28 cases finished" in done.out
    with (tmp_path / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["state"] for row in rows} == {"finished"}
    assert min(float(row["valid_share"]) for row in rows) > 0.5
    with Run(tmp_path / "shifted_system-prompt-shifted") as run:
        outcome = run.outcome(0)
        assert outcome.target == pytest.approx(5 + outcome.mean / 2)
    with Run(tmp_path / "mixture-groups") as run:
        assert run.outcome(0).mean == pytest.approx(run.read("group_number", 0).mean())
    with Run(tmp_path / "profession") as run:
        assert np.bincount(run.file["participants/profession"][:]).tolist() == [0, *[4] * 6]
