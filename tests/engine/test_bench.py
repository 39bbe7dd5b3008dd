"""The benchmark that ships: real vLLM, small figures, checked for what they must add up to."""

from __future__ import annotations

import json

import mpi
import pytest

from pbeauty.cli.main import main

SMALL = ("--set", "population.0.count=40", "--set", "game.rounds=2", "--repeats", "1")


def test_the_bench_reports_every_way_of_playing_and_its_ratios(tmp_path, capsys):
    done = mpi.alone("bench", "configs/bench.yaml", *SMALL, "--json", timeout=240)
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["participants"] == 40 and report["rounds"] == 2 and report["repeats"] == 1
    seconds = {way: times[0] for way, times in report["seconds"].items()}
    assert set(seconds) == {"naive", "ceiling", "real", "unseeded", "one-way"}
    for way, took in seconds.items():
        assert report["participants_per_second"][way] * took == pytest.approx(80)
    assert report["real_to_naive"] == seconds["naive"] / seconds["real"]
    assert report["real_to_ceiling"] == seconds["ceiling"] / seconds["real"]
    assert abs(sum(report["split"].values()) - 1) < 1e-9
    assert all(report["split"][part] > 0 for part in ("prompts", "add", "step", "read", "journal", "store", "mpi"))
    # The first round's prompts are all the same; the later ones begin with what was asked before.
    assert all(0.3 < share < 1 for share in report["cached_share"] + report["cached_share_one_way"])
    # What it printed is what a forecast takes.
    (tmp_path / "bench.json").write_text(done.out)
    assert main(["check", "configs/bench.yaml", "--bench", str(tmp_path / "bench.json"), *SMALL[:-2], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["forecast"]
    assert found["seconds"] == pytest.approx(80 / report["participants_per_second"]["real"])
    tokens = report["output_tokens_per_second"] / report["participants_per_second"]["real"]
    assert found["output_tokens"] == pytest.approx(80 * tokens, abs=40)


def test_a_bench_needs_exactly_one_model(tmp_path):
    config = tmp_path / "none.yaml"
    config.write_text("name: none\npopulation: [{name: u, count: 3, kind: uniform}]")
    done = mpi.alone("bench", config)
    assert done.code == 2
    assert "exactly one model" in done.err and "Traceback" not in done.err


def test_the_bench_of_the_storage_keeps_and_finds_every_reply(tmp_path):
    small = ("--set", "population.0.count=500")
    done = mpi.alone("bench", "configs/bench.yaml", "--storage", *small, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report.pop("participants") == 500
    assert set(report) == {"journal", "seal", "commit", "restore", "recall"}
    assert all(seconds > 0 for seconds in report.values())
    assert "500 participants" in mpi.alone("bench", "configs/bench.yaml", "--storage", *small).out
    config = tmp_path / "none.yaml"
    config.write_text("name: none\npopulation: [{name: u, count: 3, kind: uniform}]")
    done = mpi.alone("bench", config, "--storage")
    assert done.code == 2 and "has none" in done.err


def test_several_engines_play_together_and_apart(tmp_path, capsys):
    done = mpi.mpirun(3, "bench", "configs/bench.yaml", *SMALL, "--json", timeout=240)
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert (report["engines"], report["participants"], report["rounds"]) == (2, 40, 2)
    (together,), (apart,) = report["together"], report["apart"]
    assert together > 0 and apart > 0
    assert report["together_to_apart"] == together / apart
    (tmp_path / "bench.json").write_text(done.out)
    bench = "--ranks", "3", "--bench", str(tmp_path / "bench.json")
    assert main(["check", "configs/bench.yaml", *bench, *SMALL[:-2], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["forecast"]["seconds"] == pytest.approx(80 / together)


def test_more_engines_than_participants_are_refused_by_a_bench():
    done = mpi.mpirun(4, "bench", "configs/bench.yaml", "--set", "population.0.count=2")
    assert (done.code, done.out) == (2, "")
    assert "3 engines needs at least 3 participants" in done.err and "Traceback" not in done.err
