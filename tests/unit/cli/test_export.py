"""Runs in other formats, the published example's configuration as ours, and what a run is expected to take."""

from __future__ import annotations

import builtins
import csv
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import mpi
import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import experiment, make

from pbeauty.cli.check import describe
from pbeauty.cli.export import export
from pbeauty.cli.forecast import Conditions, forecast
from pbeauty.cli.main import main
from pbeauty.cli.prompts import render
from pbeauty.config.loader import load, loads
from pbeauty.config.sweep import load_sweep
from pbeauty.errors import ConfigError
from pbeauty.files import CONTROL_CHARACTERS, csv_cell, printable, replaced
from pbeauty.game.prompt_variables import number_text, population_variables
from pbeauty.game.prompts import system_message, user_message
from pbeauty.game.records import Status
from pbeauty.job.stop_requests import parse_duration
from pbeauty.storage.agentscope import COLUMNS, import_example
from pbeauty.storage.run_reader import Run

BIRDS = (sys.executable, str(Path(__file__).parents[2] / "support/parrot.py"))
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
    done = mpi.mpirun(2, "run", folder / "talk.yaml", "--out", folder / "run", program=BIRDS)
    assert done.code == 0, done
    return folder / "run"


# --- export ------------------------------------------------------------------------------------------------


def one(run, form, out):
    (path,) = export([run], form, out)
    return path


def test_tables_hold_a_row_per_round_and_participant(run, tmp_path):
    with one(run, "csv", tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in one(run, "jsonl", tmp_path / "x.jsonl").read_text().splitlines()]
    assert len(rows) == len(lines) == 68
    about = ["round", "session", "participant", "group", "job", "background_source"]
    assert list(rows[0]) == list(lines[0]) == [*about, "guess", "status", "target", "reply"]
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
    one(run, "parquet", path)
    lines = [json.loads(line) for line in one(run, "jsonl", tmp_path / "x.jsonl").read_text().splitlines()]
    assert pyarrow.parquet.read_table(path).to_pylist() == lines
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'pbeauty\[export\]'"):
        one(run, "parquet", path)


def test_the_example_can_read_what_is_exported(run, tmp_path):
    folder = one(run, "agentscope", tmp_path)
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


def test_a_script_for_the_examples_layout_finds_the_figures_of_the_run(run, tmp_path):
    assert main(["export", str(run), "--format", "agentscope", "--out", str(tmp_path / "result")]) == 0
    reader = Path(__file__).parents[2] / "support/read_agentscope.py"
    command = [sys.executable, "-I", str(reader), str(tmp_path / "result")]
    (game,) = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    rounds = game.pop("rounds")
    about = {"benchmark": "talk", "model": "demo", "system": "6", "user": "1", "count": 34, "hosts": 1}
    assert game == {**about, "ratio": 0.667}
    with Run(run) as stored:
        assert len(rounds) == stored.round_count
        for index, found in enumerate(rounds):
            guesses, outcome = stored.read("guess", index), stored.outcome(index)
            valid = guesses[stored.read("status", index) <= Status.RETRIED]
            assert 0 < valid.size < 34
            assert found["counts"] == np.histogram(valid, bins=np.arange(102))[0].tolist()
            names = {"cnt": "n_valid", "avg": "mean", "med": "median", "std": "std", "max": "max", "min": "min"}
            for name, ours in names.items():
                assert found["computed"][name] == pytest.approx(getattr(outcome, ours).item(), rel=1e-12), name
                assert found["stats"][name] == pytest.approx(getattr(outcome, ours).item(), rel=1e-12), name
            assert (
                found["stats"]["win"] == pytest.approx(outcome.target.item()) == pytest.approx(5 + 2 / 3 * valid.mean())
            )
            assert found["stats"]["time"] == pytest.approx(stored.read("seconds").sum())


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Three cases: one has an attribute, one has no model and nothing played yet, one plays two rounds."""
    folder = tmp_path_factory.mktemp("sweep") / "temperatures"
    people = {"job": (["nurse", "=1+1"], [0, 1, 1])}
    said = [[(0, 0, '=HYPERLINK("x")'), (1, 0, "+5"), (2, 0, "\x1b[31m7\n@x")]]
    make(folder / "cold", [[10.0, 20.0, 30.0]], said=said, columns=people, name="cold")
    make(folder / "warm/again", [[1.0, 2.0], [3.0, 4.0]], name="warm")
    make(folder / "new", np.empty((0, 2)), described=experiment(2, name="new"))
    return folder


def test_a_pipe_or_a_device_does_not_make_way_for_a_file(run, tmp_path, capsys):
    os.mkfifo(tmp_path / "guesses.csv")
    assert main(["export", str(run), "--format", "csv", "--out", str(tmp_path / "guesses.csv")]) == 2
    assert "is no regular file" in capsys.readouterr().err
    assert (tmp_path / "guesses.csv").is_fifo()


@pytest.mark.parametrize(
    "words",
    [["run", "configs/quickstart.yaml", "--out"], ["check"], ["watch"], ["analyze"], ["doctor", "--out"], ["import"],
     ["export", "x", "--format", "csv", "--out"]],
)  # fmt: skip
def test_a_path_that_is_empty_or_stands_for_a_stream_elsewhere_is_none(words, capsys):
    for path, found in (("", "nothing"), ("-", "'-'")):
        with pytest.raises(SystemExit, match="2"):
            main([*words, path])
        assert f"expected a path, found {found}" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no prompt ''"):
        render("")


def test_a_file_that_cannot_be_written_is_named_as_it_was_asked_for(run, tmp_path, capsys, monkeypatch):
    """Not as the draft that it would have been made from, nor as standard output."""
    assert main(["export", str(run), "--format", "csv", "--out", str(tmp_path / "new" / "x.csv")]) == 0
    capsys.readouterr()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main(["export", str(run), "--format", "csv", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"pbeauty: cannot write {tmp_path}/guesses.csv: No space left on device\n"
    with pytest.raises(FileNotFoundError) as caught, replaced(tmp_path / "nowhere" / "x"):
        pass
    assert caught.value.filename == str(tmp_path / "nowhere" / "x")


def test_a_name_in_a_message_cannot_steer_the_terminal(capsys):
    assert main(["check", "\x1b[2Jred.yaml"]) == 2
    assert capsys.readouterr().err == "pbeauty: cannot read \ufffd[2Jred.yaml: No such file or directory\n"
    assert printable("{announced}\n\t{request}\x1b[2J") == "{announced}  {request}\ufffd[2J"


def test_a_table_of_a_whole_sweep_names_its_runs(sweep, tmp_path):
    assert main(["export", str(sweep), "--format", "csv"]) == 0
    with (sweep / "guesses.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    varied = ["game.rounds", "population.0.count"]
    about = ["run", *varied, "round", "session", "participant", "group", "job"]
    assert list(table[0]) == [*about, "guess", "status", "target", "reply"]
    assert {(row["run"], *(row[key] for key in varied)) for row in table} == {
        ("cold", "1", "3"),
        ("warm/again", "2", "2"),
    }
    assert [(row["run"], row["round"], row["guess"]) for row in table] == [
        *(("cold", "1", guess) for guess in ("10.0", "20.0", "30.0")),
        *(("warm/again", str(number), guess) for number, guess in ((1, "1.0"), (1, "2.0"), (2, "3.0"), (2, "4.0"))),
    ]
    assert [row["job"] for row in table] == ["nurse", "'=1+1", "'=1+1", "", "", "", ""]
    path = one(sweep, "parquet", tmp_path)
    assert path == tmp_path / "guesses.parquet"
    found = pyarrow.parquet.read_table(path).to_pylist()
    lines = [json.loads(line) for line in one(sweep, "jsonl", tmp_path / "x.jsonl").read_text().splitlines()]
    assert [{name: row[name] for name in line} for row, line in zip(found, lines, strict=True)] == lines
    with pytest.raises(ConfigError, match="say where to, with --out"):
        export([sweep / "cold", sweep / "warm"], "csv")
    two = export([sweep / "cold/run.h5", sweep / "warm"], "csv", tmp_path / "two.csv")
    assert len(two[0].read_text().splitlines()) == 9, "a reply has two lines"


def test_cells_are_nothing_that_a_spreadsheet_computes_or_a_terminal_obeys(sweep, tmp_path):
    text = one(sweep / "cold", "csv", tmp_path / "x.csv").read_text()
    assert "\x1b" not in text
    replies = [row["reply"] for row in csv.DictReader(text.splitlines(keepends=True))]
    assert replies == ['\'=HYPERLINK("x")', "'+5", "\N{REPLACEMENT CHARACTER}[31m7\n@x"]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_cell_can_be_read_back_and_begins_like_no_formula(text):
    cell = csv_cell(text)
    assert re.match(r"[\s]*[=+@-]", cell) is None
    file = io.StringIO(newline="")
    csv.writer(file).writerow([cell, -5.5])
    ((found, number),) = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert number == "-5.5"
    assert (found[1:] if found.startswith("'") else found) == CONTROL_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", text)


def test_an_example_of_a_sweep_is_one_benchmark(sweep, tmp_path):
    folders = export([sweep], "agentscope", tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in folders] == [
        "temperatures/crowd/1-1-3-1-0.667/2026-01-01-00:00:00",
        "temperatures/crowd/1-1-2-1-0.667/2026-01-01-00:00:00",
        "temperatures/crowd/1-1-2-1-0.667/2026-01-01-00:00:01",
    ]
    reader = Path(__file__).parents[2] / "support/read_agentscope.py"
    done = subprocess.run([sys.executable, "-I", reader, tmp_path], capture_output=True, text=True, check=True)
    games = json.loads(done.stdout)
    assert [(game["benchmark"], game["count"], len(game["rounds"])) for game in games] == [
        ("temperatures", 2, 2),
        ("temperatures", 3, 1),
    ]


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
        "4": "An open {brace",
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
    assert [(g.model, g.count, g.sampling.temperature, g.sampling.max_tokens) for g in twice.population] == [
        ("small", 51, 0.5, 1024),
        ("small", 50, 0.5, 9),
    ]
    assert twice.prompts.system["sys-1"] == "Numbers from {low_or_not}".replace("{low_or_not}", "0 to {high}") + (
        "; nearest to {multiplier} of the average."
    )
    assert (shifted.game.offset, shifted.game.p) == (5, 0.5)
    assert "{{odd}}" in shifted.prompts.system["sys-2"]
    told = population_variables(twice)
    text = system_message("sys-1", told, twice.prompts)
    assert text == "Numbers from 0 to 100; nearest to 2/3 of the average.", "to the letter, as is what follows"
    assert user_message("usr-2", 0, told, {}, twice.prompts) == "Think."
    for target, shown in ((50.0, "50.00"), (100 / 3, "33.33")):
        text = user_message("usr-2", 1, told, {"target": number_text(target)}, twice.prompts)
        assert text == f"The winner number of this round is {shown}. Let's move on to the next round.\nThink."
    assert [(g.count, mixed.models[g.model].path) for g in mixed.population] == [(5, "demo"), (4, "a/b")]
    assert people.population[0].personas.file
    notes = " ".join(made.notes)
    for word in ("best_of", "api_key", "agent_server_num", "host_num", "{odd}", "game.offset is 5"):
        assert word in notes, word


def test_what_is_imported_and_played_is_exported_under_the_names_of_the_example(example, tmp_path):
    with (example / "experiment.csv").open("a") as file:
        file.write("5,random,4,1,1,llama/3 8b,2,1,1,1/2,1\n6,random,4,1,1,,1,1,1,1/2,1\n")
    made = import_example(example, tmp_path / "ours")
    assert any(note.startswith("sys_id and usr_id of case 6 have no counterpart") for note in made.notes)
    exported = []
    for path in made.files:
        if path.name[:3] in ("001", "006", "007"):
            quick = ("--set", "population.0.think_time=0", "--set", "plots=false")
            done = mpi.alone("run", path, "--out", tmp_path / path.stem, *quick)
            assert done.code == 0, done
            exported.append(one(tmp_path / path.stem, "agentscope", tmp_path / "result").parts[-3:-1])
    assert exported == [("small", "1-1-100-1-0.667"), ("llama-3-8b", "1-1-5-1-0.500"), ("players", "1-1-6-1-0.500")]


def test_an_import_takes_over_what_can_be_and_names_the_rest(example, tmp_path, capsys):
    with (example / "experiment.csv").open("a") as file:
        file.write("7,ramdom,4,1,2,small,1,1,1,2/3,3\n,llm,4,1,0,small,1,1,1,2/3,0\n7,llm,4,1,x,small,8,9,1,2/3,1\n")
        file.write("7,llm,4,1,2,gone,1,1,1,2/3,1\n7,llm,4,1,1,small,4,1,1,2/3,1\n7,llm,4,1,1,small,1,1,1,3/0,1\n")
        file.write("07,random,4,1,0,small,1,1,,1/2,1\n")
    assert main(["import", str(example), "--out", str(tmp_path / "ours")]) == 1
    shown = capsys.readouterr()
    assert [Path(line).name[:3] for line in shown.out.splitlines()] == ["001", "002", "003", "004", "012", "all", "pro"]
    assert all(Path(line).exists() for line in shown.out.splitlines())
    left_out = [line for line in shown.err.splitlines() if not line.startswith("note: ")]
    for number, reasons in {
        5: ["its prompt needs backgrounds; give the example's file with --personas"],
        6: ["agent_type is 'ramdom'; did you mean 'random'?"],
        7: ["participant_num is ''", "round is '0'", "model_per_host is '0'; expected a whole number from 1 on"],
        8: ["model_per_host is 'x'", "prompt.json has no usable SYSTEM text 8", "no usable USER text 9"],
        9: ["model_configs.json has no config_name gone_2_1, gone_2_2"],
        10: ["prompt.json has no usable SYSTEM text 4"],
    }.items():
        (line,) = (line for line in left_out if line.startswith(f"left out: experiment.csv, case {number}: "))
        assert all(reason in line for reason in reasons), line
    assert "left out: experiment.csv, case 11: 1 error\n  game.multiplier: the denominator is zero" in shown.err
    assert len(load_sweep(tmp_path / "ours/all.yaml").cases) == 5
    assert main(["import", str(example), "--out", str(tmp_path / "ours")]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_an_import_knows_the_demo_model(example, tmp_path):
    notes = import_example(example, tmp_path / "ours").notes
    assert not any("'demo'" in note for note in notes)


def test_an_import_names_everything_that_changes(example, tmp_path):
    models = json.loads((example / "model_configs.json").read_text())
    models[0] |= {"generate_args": {"temperature": 0.5, "seed": 1234, "max_tokens": None}, "organization": "x"}
    models[1] |= {"generate_args": None, "tensor_parallel_size": 4}
    models[2] |= {"generate_args": {"max_tokens": 9}, "model_name": "your_model_path"}
    (example / "model_configs.json").write_text(json.dumps(models))
    table = (example / "experiment.csv").read_text().splitlines()
    rows = [table[0] + ",extra", table[2] + ",1", "40,llm,4,1,1,small,5,1,2,2/3,2,1"]
    (example / "experiment.csv").write_text("\r\n".join(rows) + "\r\n", encoding="utf-8-sig")
    prompts = json.loads((example / "prompt.json").read_text())
    prompts["SYSTEM"]["1"] = "0 to {max_value:d}, {{x}} {ratio:s}{odd}\n\n"
    prompts["SYSTEM"]["5"] = "nearest to {ratio} of the average plus 5."
    prompts["USER"]["2"] = "Say {n}"
    (example / "prompt.json").write_text(json.dumps(prompts), encoding="utf-8-sig")
    made = import_example(example, tmp_path / "our s")
    assert made.left_out == []
    two, shifted = (load(path) for path in made.files if path.name[:3].isdecimal())
    assert [(model.path, model.tensor_parallel_size) for model in two.models.values()] == [("demo", 1), ("demo", 4)]
    assert [group.sampling.max_tokens for group in two.population] == [1024, 1024]
    assert two.prompts.system["sys-1"] == "0 to {high}, {{x}} {multiplier}{{odd}}\n\n", "theirs to the letter"
    assert two.prompts.user["usr-2"] == "Say {{n}}"
    assert (shifted.game.offset, shifted.population[0].sampling.max_tokens) == (5, 9)
    notes = "\n".join(made.notes)
    for words in (
        "the column extra of experiment.csv has no counterpart",
        "generate_args.seed of small_2_1 (1234) is left out",
        "organization of small_2_1 has no counterpart",
        "small_2_2 gives no max_tokens: 1024 is written",
        "SYSTEM text 1 in prompt.json gives {max_value} a format",
        "the placeholder {odd} in prompt.json has no counterpart",
        "the retry and the question that reads a number from a reply are worded by pbeauty",
        "small_1_1: 'your_model_path' is no folder here and no hub id",
        f"play case 2 with: mpirun -n 3 pbeauty run '{tmp_path}/our s/002-small-5-1'.yaml",
    ):
        assert words in notes, words


def test_an_import_that_fails_leaves_nothing_behind(example, tmp_path):
    for lines in ('{"prompt": "x"}\n{"prompt": " "}\n{"prompt": 3}\nno\n', "\n"):
        (tmp_path / "people.jsonl").write_text(lines)
        with pytest.raises(ConfigError, match=r"under `prompt`|is empty") as caught:
            import_example(example, tmp_path / "more", tmp_path / "people.jsonl")
    assert "is empty" in str(caught.value)
    table = (example / "experiment.csv").read_text().splitlines()
    (example / "experiment.csv").write_text("\n".join([table[0], table[-1]]))
    with pytest.raises(ConfigError, match=r"no case can be taken over:\nexperiment\.csv, case 1: its prompt needs"):
        import_example(example, tmp_path / "more")
    (example / "experiment.csv").write_text("participant_num,agent_type\n5,random\n")
    before = (example / "prompt.json").read_text()
    (example / "prompt.json").write_text("{}")
    (example / "model_configs.json").write_text("[1]")
    with pytest.raises(ConfigError) as caught:
        import_example(example, tmp_path / "more")
    assert [line.split()[0] for line in str(caught.value).splitlines()] == [
        "experiment.csv",
        "model_configs.json:",
        "prompt.json:",
    ]
    (example / "prompt.json").write_text(before)
    with pytest.raises(ConfigError, match=r"experiment\.csv has no column agent_server_num, .*, round"):
        import_example(example, tmp_path / "more")
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(ConfigError):
            import_example(example, out)
    assert not [path for path in tmp_path.iterdir() if path.name not in ("configs", "people.jsonl", "file")]


# --- forecasts ---------------------------------------------------------------------------------------------


def test_a_forecast_counts_requests_blocks_and_time():
    described = loads(
        "name: x\ngame: {rounds: 3}\npopulation: [{name: a, count: 100, kind: llm, retries: 2, extraction: model},"
        " {name: b, count: 10, kind: uniform, think_time: 50}]"
    )
    found = forecast(described, Conditions(ranks=3, rate=10, time_limit=151))
    assert (found["ranks"], found["engines"], found["gpus"], found["blocks"]) == (3, 2, 2, [0, 55, 55])
    assert (found["requests"], found["requests_at_most"]) == (600, 1800)
    assert found["seconds"] == 150.0, "the uniform ones think longest"
    assert found["gpu_hours"] == pytest.approx(2 * 150 / 3600)
    assert found["block_memory_bytes"] == 50 * 8 * (3 * 4 + 16), "replies of half of them, 8 tokens each"
    assert found["gpu_memory"]["demo"]["cache_kib_per_token"] > 0
    assert not any("WARNING" in line for line in describe(found))
    found = forecast(described, Conditions(ranks=3, rate=10, time_limit=149))
    assert any("WARNING: longer than the time limit of 149 s" in line for line in describe(found))
    assert forecast(described)["seconds"] is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 5400), ("1:30", 90), ("4:00:00", 14400), ("1-12", 129600), ("2-00:30:00", 174600)]
)
def test_time_limits_are_slurms(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["soon", "", "-1", "1:2:3:4", "1.5"])
def test_what_is_no_time_limit_is_refused(text, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["check", "x.yaml", f"--time-limit={text}"])
    assert f"argument --time-limit: {text!r} is no time such as 90, 4:00:00 or" in capsys.readouterr().err


@pytest.fixture
def checkpoint(tmp_path):
    """A folder that tells the size of an 8B model: 15 GiB of weights, 128 KiB of cache per token."""
    folder = tmp_path / "llama"
    folder.mkdir()
    told = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}
    (folder / "config.json").write_text(json.dumps(told | {"torch_dtype": "bfloat16"}))
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(15 << 30)  # sparse: nothing is written
    return folder


def test_a_forecast_says_what_fits_into_the_memory_of_a_gpu(checkpoint):
    text = (
        f"name: x\ngame: {{rounds: 5}}\nmodels: {{big: {{path: '{checkpoint}', tensor_parallel_size: 2}}}}\n"
        "population: [{name: a, count: 100, kind: llm, model: big, user_prompt: step-by-step,"
        " sampling: {max_tokens: 512}}]"
    )
    found = forecast(loads(text), Conditions(gpu_memory=24))
    memory = found["gpu_memory"]["big"]
    assert (memory["weights_gib_per_gpu"], memory["cache_kib_per_token"]) == (7.5, 64)
    assert memory["cache_tokens"] == int((24 * 0.92 - 7.5) * (1 << 20) / 64)
    per_round = (found["prompt_tokens"] + found["output_tokens"]) / 100 / 5
    assert per_round < memory["conversation_tokens"] < 5 * per_round, "the last round's prompt and reply"
    assert memory["conversations"] == memory["cache_tokens"] // memory["conversation_tokens"]
    assert not any("WARNING" in line for line in describe(found))
    used = ["models.big.engine={gpu_memory_utilization: 0.5}"]
    assert forecast(loads(text, used), Conditions(gpu_memory=24))["gpu_memory"]["big"]["cache_tokens"] == int(
        4.5 * (1 << 20) / 64
    )
    for size, said in ((8.2, "fits beside its weights"), (4, "fits, and not even its weights do")):
        *_, warning = (
            line for line in describe(forecast(loads(text), Conditions(gpu_memory=size))) if "WARNING" in line
        )
        assert f"not one conversation of model big {said}" in warning
    assert forecast(loads(text))["gpu_memory"]["big"]["cache_tokens"] is None


def test_check_is_told_the_memory_of_gpus(capsys):
    path = "configs/quickstart.yaml"
    assert main(["check", path, "--gpu-memory", "0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["forecast"]["gpu_memory"]["demo"]["conversations"] > 100
    assert main(["check", path, "--gpu-memory", "0.000001"]) == 0
    assert "WARNING: not one conversation of model demo fits" in capsys.readouterr().out
    for wrong in ("-1", "0", "nan", "much"):
        with pytest.raises(SystemExit):
            main(["check", path, "--gpu-memory", wrong])
        assert "is no number above zero" in capsys.readouterr().err


def test_check_warns_of_a_forecast_that_makes_no_sense(checkpoint, tmp_path, capsys):
    """Idle GPUs, a rate that cannot be meant, a disk that is too small, a context that is too short."""
    (tmp_path / "x.yaml").write_text(
        "name: x\ngame: {rounds: 4}\npopulation: [{name: a, count: 300, kind: llm}, {name: b, count: 3, kind: uniform}]"
    )

    def warned(*arguments):
        assert main(["check", str(tmp_path / "x.yaml"), *arguments]) == 0
        shown = capsys.readouterr().out
        assert ("good, but see the warnings" in shown) is ("WARNING" in shown)
        return [line.partition("WARNING: ")[2] for line in shown.splitlines() if "WARNING" in line]

    assert warned() == warned("--ranks", "3") == []
    (few,) = warned("--ranks", "129")
    assert "these 128 have 3 participants or fewer each" in few
    idle, few = warned("--ranks", "8", "--set", "population.0.count=3")
    assert idle.startswith("4 of 7 playing ranks have no language model") and idle.endswith("4 ranks are enough")
    assert warned("--set", "population.0.count=1", "--ranks", "2") == []
    (slow,) = warned("--rate", "0.0001")
    assert slow.startswith("139 days: is the rate that of one engine")
    many = ("--set", "population.1.count=2000000000", "--set", "game.rounds=1000")
    assert any("GB of results, but" in line for line in warned(*many))
    config = checkpoint / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 500}))
    step_by_step = ("--set", "population.0.user_prompt=step-by-step", "--set", "population.0.sampling.max_tokens=300")
    (long,) = warned("--set", f"models.demo.path={checkpoint}", *step_by_step)
    assert "its context holds 500: their oldest rounds will be left out" in long


def test_check_warns_of_the_limit_of_the_slurm_job_that_it_runs_in(capsys, monkeypatch):
    arguments = ["check", "configs/quickstart.yaml", "--rate", "1"]  # 1,200 s
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 900))
    assert main(arguments) == 0
    assert re.search(r"WARNING: longer than the time limit of (8\d\d|900) s", capsys.readouterr().out)
    assert main([*arguments, "--time-limit", "1:00:00"]) == 0
    assert "WARNING" not in capsys.readouterr().out, "the limit that is asked about comes first"
    demo = (
        "--set",
        "models={demo: {path: demo}}",
        "--set",
        "population.0.model=demo",
        "--set",
        "population.0.count=12",
    )
    sweep = ["check", "configs/paper/ratios.yaml", *demo, "--rate", "0.05"]  # six cases of 240 s
    assert main(sweep) == 0
    assert "WARNING: longer than the time limit" in capsys.readouterr().out
    assert main([*sweep, "--case", "4"]) == 0
    assert "WARNING" not in capsys.readouterr().out, "an array task plays one case"
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 86_400))
    assert main(arguments) == 0
    assert "WARNING" not in capsys.readouterr().out


def test_check_resolves_and_forecasts_sweeps(capsys):
    path = "configs/paper/ratios.yaml"
    assert main(["check", path, "--rate", "4", "--time-limit", "0:10"]) == 0
    shown = capsys.readouterr().out
    assert "18 cases, in results/ratios: about" in shown
    assert "  10. 51-100-named_model-llama3-70b" in shown
    assert "WARNING: longer than the time limit of 10 s" in shown
    assert main(["check", path, "--case", "10", "--json"]) == 0
    one = json.loads(capsys.readouterr().out)
    assert (one["case"], one["folder"], one["game"]["multiplier"]) == (
        "51-100-named_model-llama3-70b",
        "results/ratios/51-100-named_model-llama3-70b",
        "51/100",
    )
    assert main(["check", path, "--case", "19"]) == 2
    assert "has no case '19'" in capsys.readouterr().err
