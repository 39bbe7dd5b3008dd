"""Backgrounds written beforehand, by a model that plays or by another one."""

from __future__ import annotations

import json

import mpi
import pytest

from pbeauty.cli.main import main
from pbeauty.config.loader import loads
from pbeauty.config.sweep import load_sweep
from pbeauty.errors import ConfigError
from pbeauty.game.personas import assign_personas
from pbeauty.job.personas_setup import writing
from pbeauty.storage.run_reader import Run

COMPARED = """
base:
  name: compared
  seed: 3
  game: {rounds: 1}
  models: {strong: {path: demo}, one: {path: demo}, other: {path: demo}}
  population:
    - {name: noise, count: 3, kind: uniform}
    - name: pupils
      count: 40
      kind: llm
      system_prompt: background
      personas:
        attributes: {school: [primary school, college], age: [20, 30, 40]}
        write: {model: strong, min_chars: 9}
    - {name: others, count: 7, kind: llm, model: one, personas: {template: You are somebody.}}
vary: {population.1.model: [one, other]}
"""


@pytest.fixture
def compared(tmp_path):
    """Two cases whose backgrounds a third model writes."""
    (tmp_path / "compared.yaml").write_text(COMPARED)
    return tmp_path / "compared.yaml"


def test_backgrounds_of_another_model_are_written_first_and_then_those_of_every_case(compared, tmp_path, capsys):
    refused = mpi.mpirun(3, "run", compared, "--out", tmp_path / "out", program=mpi.PARROT)
    assert refused.code == 2
    assert "strong writes the backgrounds of pupils and does not play them" in refused.err
    assert main(["check", str(compared)]) == 0
    assert "WARNING: population.1.personas.write.model: strong writes" in capsys.readouterr().out

    file = tmp_path / "people.jsonl"
    done = mpi.mpirun(3, "personas", compared, "--out", file, program=mpi.PARROT)
    assert done.code == 0, done
    assert done.out == f"backgrounds: {file}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compared.yaml", "people.jsonl"]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["group"], line["participant"]) for line in lines] == [("pupils", 3 + i) for i in range(40)]
    assert all((line.get("written_by") == "strong") is (line["background_source"] == "written") for line in lines)
    attributes = assign_personas(load_sweep(compared).cases[0].experiment).attributes
    assert all(line.items() >= attributes(line["participant"]).items() for line in lines), "as dealt in the game"

    given = "population.1.personas.write=null", f"population.1.personas.file={file}"
    done = mpi.mpirun(
        3, "run", compared, "--out", tmp_path / "out", *(f"--set={one}" for one in given), program=mpi.PARROT
    )
    assert done.code == 0, done
    for folder in tmp_path.glob("out/*/run.h5"):
        with Run(folder) as run:
            assert [run.personas.background(3 + i) for i in range(40)] == [line["background"] for line in lines]
    again = mpi.mpirun(1, "personas", compared, "--out", file, program=mpi.PARROT)
    assert again.code == 2 and "is there already" in again.err


def test_writing_beforehand_goes_on_after_a_kill_and_ends_as_if_it_had_not_been(compared, tmp_path):
    whole, file = tmp_path / "whole.jsonl", tmp_path / "people.jsonl"
    assert mpi.mpirun(1, "personas", compared, "--out", whole, program=mpi.PARROT).code == 0
    journals = tmp_path / ".people.jsonl.writing/journal/0000"
    with mpi.start(3, "personas", compared, "--out", file, **mpi.silent_after(5)) as job:
        job.wait_for(lambda: any(path.stat().st_size for path in journals.glob("*")))
        mpi.kill(job.ranks().values())
        job.end()
    assert not file.exists()
    refused = mpi.mpirun(1, "personas", compared, "--out", file, program=mpi.PARROT)
    assert refused.code == 2 and "--resume goes on" in refused.err
    done = mpi.mpirun(2, "personas", compared, "--out", file, "--resume", program=mpi.PARROT)
    assert done.code == 0, done
    assert file.read_bytes() == whole.read_bytes()


def test_backgrounds_of_cases_that_differ_are_written_one_case_at_a_time(tmp_path):
    pupils = "{name: pupils, count: 4, kind: llm, personas: {attributes: {school: [x]}, write: {min_chars: 9}}}"
    vary = "vary: {population.0.personas.write.min_chars: [1, 2]}"
    (tmp_path / "writing.yaml").write_text(f"base: {{name: writing, population: [{pupils}]}}\n{vary}")
    refused = mpi.alone("personas", tmp_path / "writing.yaml", "--out", tmp_path / "people.jsonl")
    assert refused.code == 2 and "different backgrounds; write those of one with --case" in refused.err


def test_a_writer_must_be_a_model_and_there_must_be_something_to_write():
    group = "{name: a, count: 2, kind: llm, personas: {attributes: {job: [x]}, write: {model: dem}}}"
    with pytest.raises(ConfigError, match=r"population.0.personas.write.model: no model 'dem' .*did you mean 'demo'"):
        loads(f"name: x\npopulation: [{group}]")
    with pytest.raises(ConfigError, match=r"x.yaml: no group has `personas.write`"):
        writing([loads("name: x\npopulation: [{name: a, count: 2, kind: llm}]")], "x.yaml")
