"""Backgrounds that a real engine writes: the demo model, which knows no prose, is not believed."""

from __future__ import annotations

import json

import mpi
import pytest

from pbeauty.game.personas import Source
from pbeauty.llm.backgrounds import usable
from pbeauty.storage.run_reader import Run

SWEEP = """
base:
  name: writing
  seed: 3
  game: {rounds: 1}
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
table:
  - {case: strict, population.0.personas.write.min_chars: 100000}
  - {case: lenient, population.0.personas.write.min_chars: 1}
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Both cases, on two ranks: the job and the sweep's folder."""
    folder = tmp_path_factory.mktemp("writing")
    (folder / "writing.yaml").write_text(SWEEP)
    done = mpi.mpirun(2, "run", folder / "writing.yaml", "--out", folder / "out", timeout=240)
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


def test_both_cases_are_written_by_one_engine_and_as_if_each_had_been_played_alone(written, tmp_path):
    _, folder = written
    config = folder.parent / "writing.yaml"
    done = mpi.mpirun(2, "run", config, "--case", "lenient", "--out", tmp_path / "alone", timeout=240)
    assert done.code == 0, done
    assert (tmp_path / "alone/personas.jsonl").read_bytes() == (folder / "lenient/personas.jsonl").read_bytes()
    mpi.assert_same(mpi.results(tmp_path / "alone"), mpi.results(folder / "lenient"))
