"""The benchmark that ships: real vLLM, small figures, checked for what they must add up to."""

from __future__ import annotations

import json

import mpi
import pytest

from pbeauty.cli.main import main

SMALL = ("--set", "population.0.count=40", "--set", "game.rounds=2", "--repeats", "1")


def test_the_bench_reports_every_way_of_playing_and_its_ratios(capsys):
    assert main(["bench", "configs/bench.yaml", *SMALL, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["participants"] == 40 and report["rounds"] == 2 and report["repeats"] == 1
    seconds = {way: times[0] for way, times in report["seconds"].items()}
    assert set(seconds) == {"naive", "ceiling", "real"}
    for way, took in seconds.items():
        assert report["participants_per_second"][way] * took == pytest.approx(80)
    assert report["real_to_naive"] == seconds["naive"] / seconds["real"]
    assert report["real_to_ceiling"] == seconds["ceiling"] / seconds["real"]
    assert report["by_cpu_time"].keys() == {"real_to_naive", "real_to_ceiling"}
    assert all(ratio > 0 for ratio in report["by_cpu_time"].values())
    # The first round's prompts are all the same; the later ones begin with what was asked before.
    assert all(0.3 < share < 1 for share in report["cached_share"])


def test_a_bench_needs_exactly_one_model(tmp_path):
    config = tmp_path / "none.yaml"
    config.write_text("name: none\npopulation: [{name: u, count: 3, kind: uniform}]")
    (tmp_path / "sweep.yaml").write_text("base: none.yaml")
    for path, reason in ((config, "exactly one model"), (tmp_path / "sweep.yaml", "is a sweep; a bench is of one")):
        done = mpi.alone("bench", path)
        assert done.code == 2
        assert reason in done.err and "Traceback" not in done.err


def test_a_bench_that_cannot_be_played_says_why_in_a_line():
    """Nobody gives a number from 300 to 400; Ctrl-C ends it in the same way."""
    done = mpi.alone("bench", "configs/bench.yaml", *SMALL, "--set", "game.low=300", "--set", "game.high=400")
    assert done.code == 1 and "Abort" not in done.err
    assert done.err.startswith("pbeauty: the game could not be played to its end: round 1: no participant gave a valid")
    assert done.err.endswith("(40 out_of_range)\n")


def test_a_bench_is_of_one_engine():
    done = mpi.mpirun(2, "bench", "configs/bench.yaml", *SMALL)
    assert (done.code, done.out) == (2, "")
    assert done.err.count("a bench is of one engine") == 1 and "Traceback" not in done.err
