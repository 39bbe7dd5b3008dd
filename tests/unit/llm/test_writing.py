"""Backgrounds that a real engine writes (the demo model, which is not believed), and those written beforehand."""

from __future__ import annotations

import json

import mpi
import pytest

from pbeauty.cli.main import main
from pbeauty.config.loader import loads
from pbeauty.config.sweep import load_sweep
from pbeauty.errors import ConfigError
from pbeauty.game.personas import Source, assign_personas
from pbeauty.job.personas_setup import writing
from pbeauty.llm.backgrounds import usable
from pbeauty.storage.run_reader import Run

SWEEP = """
base:
  name: writing
  seed: 3
  population:
    - name: pupils
      count: 40
      kind: llm
      system_prompt: background
      sampling: {max_tokens: 32}
      personas:
        attributes: {school: [primary school, college]}
        write: {max_tokens: 96, temperature: 2, retries: 4}
    - {name: noise, count: 3, kind: uniform}
table:  # two that begin alike, and another between them
  - {case: first, population.0.personas.write.min_chars: 1, game.rounds: 2}
  - {case: strict, population.0.personas.write.min_chars: 100000, game.rounds: 1}
  - {case: lenient, population.0.personas.write.min_chars: 1, game.rounds: 1}
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """All cases, on two ranks, and after them the backgrounds of one beforehand: the job and the sweep's folder."""
    folder = tmp_path_factory.mktemp("writing")
    (folder / "writing.yaml").write_text(SWEEP)
    play = "run", folder / "writing.yaml", "--out", folder / "out"
    write = "personas", folder / "writing.yaml", "--case", "lenient", "--out", folder / "people.jsonl"
    done = mpi.mpirun(2, *play, "then", *write, program=mpi.altered(folder, mpi.IN_TURN))
    assert done.code == 0, done
    return done, folder / "out"


def people(folder):
    return [json.loads(line) for line in (folder / "personas.jsonl").read_text().splitlines()]


def test_who_gets_no_usable_reply_has_the_attributes_in_words_and_is_counted_and_marked(written):
    done, folder = written
    assert "0 backgrounds written" in done.err
    assert "; 40 had no usable reply and are their attributes in words" in done.err
    with Run(folder / "strict") as run:
        assert run.personas.source.tolist() == [Source.IN_WORDS] * 40 + [Source.NONE] * 3
        for participant, line in enumerate(people(folder / "strict")):
            school = run.personas.attributes(participant)["school"]
            assert line["background"] == run.personas.background(participant) == f"school: {school}."
            assert line["background_source"] == "in words"
        assert run.finished and run.outcome(0).n_valid > 30, "the game is played all the same"


def test_what_the_model_wrote_is_the_background_where_it_is_usable(written):
    done, folder = written
    with Run(folder / "lenient") as run:
        sources = run.personas.source[:40].tolist()
        told = [run.personas.background(participant) for participant in range(40)]
        found = run.experiment.population[0].personas.write
    count = sources.count(Source.WRITTEN)
    assert count > 5 and set(sources) <= {Source.WRITTEN, Source.IN_WORDS}
    assert f"{count} backgrounds written" in done.err
    for text, source, line in zip(told, sources, people(folder / "lenient"), strict=True):
        assert text.startswith("school: ") is (source == Source.IN_WORDS)
        assert source == Source.IN_WORDS or usable(text, found)
        assert (line["background"], line["background_source"]) == (text, Source(source).label)


def test_a_case_on_an_engine_that_other_cases_have_used_is_as_if_it_had_been_played_alone(written):
    _, folder = written
    assert (folder / "first/personas.jsonl").read_bytes() == (folder / "lenient/personas.jsonl").read_bytes()
    first, again = mpi.results(folder / "first"), mpi.results(folder / "lenient")
    mpi.assert_same({name: v[: 1 if "rounds" in name else None] for name, v in first.items()}, again)


# --- by another model, beforehand --------------------------------------------------------------------------

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


def test_the_demo_model_writes_beforehand_what_it_would_have_written_in_the_game(written, tmp_path):
    _, folder = written
    assert (folder.parent / "people.jsonl").read_bytes() == (folder / "lenient/personas.jsonl").read_bytes()
    refused = mpi.alone("personas", folder.parent / "writing.yaml", "--out", tmp_path / "people.jsonl")
    assert refused.code == 2 and "different backgrounds; write those of one with --case" in refused.err


def test_a_writer_must_be_a_model_and_there_must_be_something_to_write():
    group = "{name: a, count: 2, kind: llm, personas: {attributes: {job: [x]}, write: {model: dem}}}"
    with pytest.raises(ConfigError, match=r"population.0.personas.write.model: no model 'dem' .*did you mean 'demo'"):
        loads(f"name: x\npopulation: [{group}]")
    with pytest.raises(ConfigError, match=r"x.yaml: no group has `personas.write`"):
        writing([loads("name: x\npopulation: [{name: a, count: 2, kind: llm}]")], "x.yaml")
