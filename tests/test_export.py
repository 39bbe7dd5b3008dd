"""Runs in other formats, the published example's configuration as ours, and what a run is expected to take."""

from __future__ import annotations

import builtins
import csv
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

import mpi
from pbeauty.agentscope import COLUMNS, import_example
from pbeauty.cli import main
from pbeauty.config import ConfigError
from pbeauty.config_file import load, loads
from pbeauty.export import export
from pbeauty.forecast import Pace, describe, forecast, pace, time_limit
from pbeauty.results import Run
from pbeauty.sweep import load_sweep

BIRDS = (sys.executable, str(Path(__file__).with_name("parrot.py")))
TEXT = """
name: talk
game: {rounds: 2, offset: 5}
population:
  - {name: birds, count: 30, kind: llm, retries: 0, personas: {attributes: {job: [nurse, cook]}}}
  - {name: noise, count: 4, kind: uniform}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("talk")
    (folder / "talk.yaml").write_text(TEXT)
    done = mpi.mpirun(2, "run", folder / "talk.yaml", "--out", folder / "run", "--rate", "50", program=BIRDS)
    assert done.code == 0, done
    return folder / "run"


# --- export ------------------------------------------------------------------------------------------------


def test_tables_hold_a_row_per_round_and_participant(run, tmp_path):
    with export(run, "csv", tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in export(run, "jsonl", tmp_path / "x.jsonl").read_text().splitlines()]
    assert len(rows) == len(lines) == 68
    about = ["round", "participant", "group", "job", "background_source"]
    assert list(rows[0]) == list(lines[0]) == [*about, "guess", "status", "reply"]
    with Run(run) as stored:
        guesses = [np.nan if line["guess"] is None else line["guess"] for line in lines]
        assert np.array_equal(
            guesses, np.concatenate([stored.read("guess", 0), stored.read("guess", 1)]), equal_nan=True
        )
    assert {line["job"] for line in lines[:30]} == {"nurse", "cook"}
    assert lines[30]["job"] == "(none)"
    assert lines[30]["reply"] is None
    assert "".join(lines[0]["reply"].split()) != ""
    assert {line["status"] for line in lines} > {"ok"}


def test_parquet_is_the_same_or_a_clear_refusal(run, tmp_path, monkeypatch):
    path = tmp_path / "x.parquet"
    export(run, "parquet", path)
    lines = [json.loads(line) for line in export(run, "jsonl", tmp_path / "x.jsonl").read_text().splitlines()]
    assert pyarrow.parquet.read_table(path).to_pylist() == lines
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'pbeauty\[export\]'"):
        export(run, "parquet", path)


def test_the_example_can_read_what_is_exported(run, tmp_path):
    folder = export(run, "agentscope", tmp_path)
    *_, benchmark, model, settings, _ = folder.parts
    assert (benchmark, model, settings) == ("talk", "demo", "6-1-34-1-0.667")
    assert sorted(path.name for path in folder.iterdir()) == [
        f"result_{r}.{kind}" for r in (0, 1) for kind in ("json", "pdf")
    ]
    with Run(run) as stored:
        for round_index in range(2):
            found = json.loads((folder / f"result_{round_index}.json").read_text())
            outcome, status = stored.outcome(round_index), stored.read("status", round_index)
            assert list(found["data"]) == [f"P{i}" for i in np.flatnonzero(status <= 2)]
            values = [entry["value"] for entry in found["data"].values()]
            assert found["stats"]["avg"] == pytest.approx(np.mean(values)) == pytest.approx(outcome.mean)
            assert (found["stats"]["win"], found["stats"]["cnt"]) == (outcome.target, len(values))
            assert {"win", "cnt", "avg", "med", "std", "max", "min", "time"} == found["stats"].keys()
            assert all(entry["round"] == round_index + 1 for entry in found["data"].values())
            assert all(("raw" in entry) is (int(name[1:]) < 30) for name, entry in found["data"].items())
    assert (folder / "result_0.pdf").read_bytes().startswith(b"%PDF")


# --- import ------------------------------------------------------------------------------------------------


@pytest.fixture
def example(tmp_path):
    folder = tmp_path / "configs"
    folder.mkdir()
    rows = [
        "100,random,4,1,2,small,1,1,1,2/3,3",
        "101,llm,4,1,2,small,1,2,1,2/3,3",
        "50,llm,4,1,1,small,2,1,2,1/2,5",
        "9,llm,4,1,2,mix,1,1,1,51/100,1",
        "6,llm,4,1,1,small,3,1,1,2/3,1",
    ]
    (folder / "experiment.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")

    def model(name, path="demo", **arguments):
        return {"model_type": "x", "config_name": name, "model_name": path, "api_key": "E", "generate_args": arguments}

    models = [model("small_2_1", temperature=0.5), model("small_2_2", temperature=0.5, max_tokens=9)]
    models += [model("small_1_1", best_of=3), model("mix_2_1"), model("mix_2_2", "a/b")]
    (folder / "model_configs.json").write_text(json.dumps(models))
    system = {
        "1": "Numbers from 0 to {max_value}; nearest to {ratio} of the average.",
        "2": "0 to {max_value}, nearest to 5 plus {ratio} of the average {odd}",
        "3": "You are: {background}. 0 to {max_value}, {ratio} of the average.",
    }
    (folder / "prompt.json").write_text(json.dumps({"SYSTEM": system, "USER": {"1": "Number!", "2": "Think."}}))
    return folder


def test_the_examples_configuration_becomes_ours(example, tmp_path):
    (tmp_path / "people.jsonl").write_text("".join(f'{{"prompt": "Name: P{i}"}}\n' for i in range(6)))
    made = import_example(example, tmp_path / "ours", tmp_path / "people.jsonl")
    cases = [load(path) for path in made.files if path.name[:3].isdecimal()]
    assert len(cases) == len(load_sweep(tmp_path / "ours/all.yaml").cases) == 5
    random, twice, shifted, mixed, people = cases
    assert (random.population[0].kind, random.game.rounds) == ("uniform", 3)
    assert (twice.population[0].count, twice.population[0].sampling.temperature) == (101, 0.5)
    assert twice.prompts.system["sys-1"] == "Numbers from {low_or_not}".replace("{low_or_not}", "0 to {high}") + (
        "; nearest to {multiplier} of the average."
    )
    assert (shifted.game.offset, shifted.game.p) == (5, 0.5)
    assert "{{odd}}" in shifted.prompts.system["sys-2"]
    assert [(g.count, mixed.models[g.model].path) for g in mixed.population] == [(5, "demo"), (4, "a/b")]
    assert people.population[0].personas.file
    notes = " ".join(made.notes)
    for word in ("best_of", "api_key", "agent_server_num", "host_num", "{odd}", "game.offset is 5"):
        assert word in notes, word


def test_an_import_says_what_is_missing(example, tmp_path, capsys):
    made = import_example(example, tmp_path / "ours")
    assert any("left out: its prompt needs backgrounds" in note for note in made.notes)
    assert main(["import", str(example), "--out", str(tmp_path / "ours")]) == 2
    assert "is not empty" in capsys.readouterr().err
    (example / "experiment.csv").write_text("participant_num,agent_type\n5,random\n")
    with pytest.raises(ConfigError, match=r"experiment\.csv has no column agent_server_num, .*, round"):
        import_example(example, tmp_path / "more")


# --- forecasts ---------------------------------------------------------------------------------------------


def test_a_forecast_counts_requests_blocks_and_time():
    experiment = loads(
        "name: x\ngame: {rounds: 3}\npopulation: [{name: a, count: 100, kind: llm, retries: 2, extraction: model},"
        " {name: b, count: 10, kind: uniform, think_time: 50}]"
    )
    found = forecast(experiment, 3, Pace(10))
    assert (found["ranks"], found["engines"], found["gpus"], found["blocks"]) == (3, 2, 2, [0, 55, 55])
    assert (found["requests"], found["requests_at_most"]) == (600, 1800)
    assert found["seconds"] == 150.0, "the uniform ones think longest"
    assert found["gpu_hours"] == pytest.approx(2 * 150 / 3600)
    assert found["gpu_memory"]["demo"]["cache_kib_per_token"] > 0
    assert not any("WARNING" in line for line in describe(found, 151))
    assert any("WARNING: longer than the time limit of 149 s" in line for line in describe(found, 149))
    assert forecast(experiment)["seconds"] is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 5400), ("1:30", 90), ("4:00:00", 14400), ("1-12", 129600), ("2-00:30:00", 174600)]
)
def test_time_limits_are_slurms(text, seconds):
    assert time_limit(text) == seconds


def test_a_pace_comes_from_a_bench(tmp_path):
    (tmp_path / "b.json").write_text('{"participants_per_second": {"real": 50.0}, "output_tokens_per_second": 400.0}')
    assert pace(tmp_path / "b.json", None) == Pace(50.0, 8.0)
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(ConfigError, match="is not the result of"):
        pace(tmp_path / "b.json", None)
    with pytest.raises(ConfigError, match="--time-limit soon"):
        time_limit("soon")


def test_the_forecast_stands_beside_what_happened(run, capsys):
    with Run(run) as stored:
        expected, took = stored.provenance["forecast"], stored.provenance["actual"]
        assert expected["requests"] == 60
        assert expected["seconds"] == pytest.approx(2 * 30 / 50)
        assert took["output_tokens"] == stored.read("output_tokens").sum()
    assert main(["check", str(run)]) == 0
    assert f"output tokens (forecast {expected['output_tokens']:,})" in capsys.readouterr().out


def test_check_resolves_and_forecasts_sweeps(capsys):
    path = "configs/paper/ratios-demo.yaml"
    assert main(["check", path, "--rate", "4", "--time-limit", "0:10"]) == 0
    shown = capsys.readouterr().out
    assert "6 case(s)" in shown
    assert "  4. 51-100-named" in shown
    assert "WARNING: longer than the time limit of 10 s" in shown
    assert main(["check", path, "--case", "4", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert (one["case"], one["folder"], one["game"]["multiplier"]) == (
        "51-100-named",
        "results/ratios-demo/51-100-named",
        "51/100",
    )
    assert main(["check", path, "--case", "7"]) == 2
    assert "has no case 7" in capsys.readouterr().err
