"""Real engines one after another in one job, which imports vLLM once: kept from case to case of a sweep, closed when
another is wanted, writing backgrounds (with the demo model, which is not believed), and failing to load."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import mpi
import pytest

import pbeauty
from pbeauty.game.personas import Source
from pbeauty.llm.backgrounds import usable
from pbeauty.storage.run_reader import Run

KEPT = """
base:
  name: kept
  game: {rounds: 2}
  models: {one: {path: demo}, other: {path: other}}
  population: [{name: p, count: 30, kind: llm, retries: 2}]
table:
  - {case: first, population.0.model: one, game.rounds: 2}
  - {case: second, population.0.model: other, game.rounds: 2}
  - {case: first-again, population.0.model: one, game.rounds: 1}
"""
BROKEN = """
name: broken
models: {garbage: {path: garbage}}
population: [{name: p, count: 5, kind: llm, model: garbage}]
"""
WRITING = """
base:
  name: writing
  seed: 3
  population:
    - name: pupils
      count: 24
      kind: llm
      system_prompt: background
      sampling: {max_tokens: 32}
      personas:
        attributes: {school: [primary school, college]}
        write: {max_tokens: 64, temperature: 2, retries: 2}
    - {name: noise, count: 3, kind: uniform}
table:  # two that begin alike, and another between them
  - {case: first, population.0.personas.write.min_chars: 1, game.rounds: 2}
  - {case: strict, population.0.personas.write.min_chars: 100000, game.rounds: 1}
  - {case: lenient, population.0.personas.write.min_chars: 1, game.rounds: 1}
"""
COUNTED = """
import os
import pbeauty.job.runner
class Engine(pbeauty.job.runner.Engine):
    def __init__(self, model, *given):
        self.path = os.path.basename(model.path)
        super().__init__(model, *given)
        os.write(2, f"engine: {self.path} loaded\\n".encode())
    def close(self):
        os.write(2, f"engine: {self.path} closed\\n".encode())
        super().close()
pbeauty.job.runner.Engine = Engine
"""


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """Both sweeps, backgrounds beforehand, one case by itself, and what does not load: the job and its folder."""
    folder = tmp_path_factory.mktemp("row")
    for name in ("other", "garbage"):
        shutil.copytree(Path(pbeauty.__path__[0]) / "demo", folder / name)
    (folder / "garbage/model.safetensors").write_bytes(b"\x08" + bytes(7) + b"garbage.")
    for name, text in (("kept", KEPT), ("writing", WRITING), ("broken", BROKEN)):
        (folder / f"{name}.yaml").write_text(text)
    commands = [
        ("run", folder / "kept.yaml", "--out", folder / "kept"),
        ("run", folder / "kept.yaml", "--out", folder / "own", "--case", "second"),
        ("run", folder / "writing.yaml", "--out", folder / "writing"),
        ("personas", folder / "writing.yaml", "--case", "lenient", "--out", folder / "people.jsonl"),
        ("run", folder / "broken.yaml", "--out", folder / "broken"),
    ]
    row = [part for command in commands for part in ("then", *command)][1:]
    return mpi.mpirun(2, *row, program=mpi.altered(folder, COUNTED + mpi.IN_TURN)), folder


@pytest.fixture
def written(played):
    """The folder of the cases with backgrounds."""
    return played[1] / "writing"


def people(folder):
    return [json.loads(line) for line in (folder / "personas.jsonl").read_text().splitlines()]


# --- kept and closed ---------------------------------------------------------------------------------------


def test_an_engine_is_kept_for_cases_that_want_it_and_closed_when_another_is_wanted(played):
    done, folder = played
    kept, own = ["other loaded", "other closed", "demo loaded"], ["other loaded"]
    writing, beforehand = ["demo loaded"], ["demo loaded"]
    assert re.findall("^engine: (.*)$", done.err, re.MULTILINE) == [*kept, *own, *writing, *beforehand]
    # An engine that was kept plays as a new one; and a process's third engine as its first.
    outcomes = {case: mpi.results(folder / "kept" / case) for case in ("first", "first-again", "second")}
    first_round = {name: values[: 1 if "rounds" in name else None] for name, values in outcomes["first"].items()}
    mpi.assert_same(outcomes["first-again"], first_round)
    mpi.assert_same(mpi.results(folder / "own"), outcomes["second"])


def test_a_checkpoint_that_is_garbage_ends_every_rank_and_is_told_once(played):
    done, _ = played
    assert (done.code, done.left) == (1, []), done
    assert done.err.count("Traceback") == done.err.count("pbeauty: rank 1 on ") == 1, done.err


# --- backgrounds that they write ---------------------------------------------------------------------------


def test_who_gets_no_usable_reply_has_the_attributes_in_words_and_is_counted_and_marked(played, written):
    done, _ = played
    assert "0 backgrounds written" in done.err
    assert "; 24 had no usable reply and are their attributes in words" in done.err
    with Run(written / "strict") as run:
        assert run.personas.source.tolist() == [Source.IN_WORDS] * 24 + [Source.NONE] * 3
        for participant, line in enumerate(people(written / "strict")):
            school = run.personas.attributes(participant)["school"]
            assert line["background"] == run.personas.background(participant) == f"school: {school}."
            assert line["background_source"] == "in words"
        assert run.finished and run.outcome(0).n_valid > 18, "the game is played all the same"


def test_what_the_model_wrote_is_the_background_where_it_is_usable(played, written):
    with Run(written / "lenient") as run:
        sources = run.personas.source[:24].tolist()
        told = [run.personas.background(participant) for participant in range(24)]
        found = run.experiment.population[0].personas.write
    count = sources.count(Source.WRITTEN)
    assert count > 1 and set(sources) <= {Source.WRITTEN, Source.IN_WORDS}
    assert f"{count} backgrounds written" in played[0].err
    for text, source, line in zip(told, sources, people(written / "lenient"), strict=True):
        assert text.startswith("school: ") is (source == Source.IN_WORDS)
        assert source == Source.IN_WORDS or usable(text, found)
        assert (line["background"], line["background_source"]) == (text, Source(source).label)


def test_a_case_on_an_engine_that_other_cases_have_used_is_as_if_it_had_been_played_alone(written):
    assert (written / "first/personas.jsonl").read_bytes() == (written / "lenient/personas.jsonl").read_bytes()
    first, again = mpi.results(written / "first"), mpi.results(written / "lenient")
    mpi.assert_same({name: v[: 1 if "rounds" in name else None] for name, v in first.items()}, again)


def test_the_demo_model_writes_beforehand_what_it_would_have_written_in_the_game(written):
    assert (written.parent / "people.jsonl").read_bytes() == (written / "lenient/personas.jsonl").read_bytes()
