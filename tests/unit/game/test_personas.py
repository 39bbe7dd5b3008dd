"""Who participants are: quotas, files, backgrounds that models write; the same on any ranks, and only once."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import h5py
import mpi
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import altered, texts
from mpi import PARROT, silent_after

from pbeauty.config.loader import dumps, load, loads
from pbeauty.config.persona_files import load_personas, write_file
from pbeauty.errors import ConfigError, RunFileError
from pbeauty.game.experiment import Writer
from pbeauty.game.personas import NOBODY, Source, assign_personas, unmentioned_personas
from pbeauty.game.prompt_variables import population_variables
from pbeauty.game.randomness import deal, quotas
from pbeauty.llm.backgrounds import usable
from pbeauty.storage.run_reader import Run

TEXT = """
name: cast
seed: 9
game: {rounds: 2, announce: [target, group_numbers, own_rank], tolerance: 3}
prompts: {system: {mine: "You finished {school}. {background} {rules}"}}
population:
  - name: pupils
    count: 101
    kind: llm
    system_prompt: mine
    personas:
      attributes: {school: [primary school, high school, college]}
      joint: [{age: 20, city: Rome, share: 1/4}, {age: 60, city: Oslo, share: 3/4}]
      template: You are {age} and live in {city}.
  - name: written
    count: 40
    kind: llm
    system_prompt: background-one-expert
    personas:
      attributes: {school: {college: 0.975, none: 0.025}}
      write: {language: LANGUAGE, retries: 1, min_chars: 9}
  - {name: noise, count: 9, kind: uniform}
"""


def faults(text, folder):
    (folder / "experiment.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(folder / "experiment.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("prompt", "mentioned"),
    [("{rules}", 0), ("{count} of {group}", 0), ("{composition}", 1), ("{age}: {rules}", 1), ("{background}", 1)],
)
def test_personas_that_nobody_is_told_of_are_named(prompt, mentioned):
    text = TEXT.replace("LANGUAGE", "en").replace("You finished {school}. {background} {rules}", prompt)
    warnings = unmentioned_personas(loads(text))
    assert [warning.partition(":")[0] for warning in warnings] == ["population.0"] * (not mentioned)


def test_a_template_can_name_the_group():
    text = "name: a\npopulation: [{name: reds, count: 2, kind: llm, personas: {template: 'You play for {group}.'}}]"
    assert assign_personas(loads(text)).traits(1)["background"] == "You play for reds."


# --- quotas ------------------------------------------------------------------------------------------------


@given(st.integers(1, 5000), st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(0, 2**40))
def test_quotas_add_up_and_differ_from_the_share_by_less_than_one(count, weights, seed):
    shares = [weight / sum(weights) for weight in weights]
    given_out = quotas(count, shares, seed, "x")
    assert sum(given_out) == count
    assert all(abs(number - count * share) < 1 + 1e-6 for number, share in zip(given_out, shares, strict=True))


def test_what_is_left_over_is_spread_by_lot():
    extra = Counter(int(np.argmax(quotas(6, [0.2] * 5, seed, "x"))) for seed in range(200))
    assert extra.keys() == {0, 1, 2, 3, 4}, "some value never gets the odd one"
    assert quotas(1200, [1 / 6] * 6, 3, "x") == [200] * 6


def test_values_are_dealt_in_exact_quotas_and_not_in_order():
    dealt = deal(np.arange(1000, 1500), [0.5, 0.3, 0.2], 4, "x")
    assert np.bincount(dealt).tolist() == [250, 150, 100]
    assert np.all(np.bincount(dealt[:100], minlength=3) > 0)
    assert np.array_equal(dealt, deal(np.arange(1000, 1500), [0.5, 0.3, 0.2], 4, "x"))
    assert not np.array_equal(dealt, deal(np.arange(1000, 1500), [0.5, 0.3, 0.2], 5, "x"))


def test_joint_attributes_stay_together_and_independent_ones_mix():
    everybody = assign_personas(loads(TEXT.replace("LANGUAGE", "en")))
    people = [everybody.traits(i) for i in range(101)]
    assert {(person["age"], person["city"]) for person in people} == {("20", "Rome"), ("60", "Oslo")}
    assert Counter(person["age"] for person in people)["20"] in (25, 26)
    assert len({(person["age"], person["school"]) for person in people}) == 6
    assert all(person["background"] == f"You are {person['age']} and live in {person['city']}." for person in people)
    assert len(everybody.texts) == 6, "the background of equal people is kept once"
    assert everybody.attributes(145) == {}
    assert everybody.labels["school"][everybody.codes["school"][145]] == NOBODY


def test_the_population_is_told_as_it_is():
    told = population_variables(loads(TEXT.replace("LANGUAGE", "en")))
    assert told["only_one"] == "whose school is none"
    assert "1 whose school is none" in told["composition"]
    people = loads("name: x\npopulation: [{name: a, count: 2, kind: uniform}, {name: b, count: 1, kind: uniform}]")
    assert population_variables(people)["only_one"] == 'in the group "b"'
    assert population_variables(people)["composition"] == '2 in the group "a", 1 in the group "b"'


# --- sessions ----------------------------------------------------------------------------------------------


def test_every_session_has_the_same_quotas_and_other_people():
    one = loads(TEXT.replace("LANGUAGE", "en"))
    several = one.model_copy(update={"sessions": 5})
    everybody, alone = assign_personas(several), assign_personas(one)
    schools = everybody.codes["school"].reshape(5, one.count)
    counts = [Counter(session.tolist()) for session in schools[:, :101]]
    assert counts == [counts[0]] * 5 and max(counts[0].values()) - min(counts[0].values()) == 1
    assert len({tuple(session) for session in schools[:, :101].tolist()}) == 5
    assert population_variables(several) == population_variables(one), "people are told of their own session"
    np.testing.assert_array_equal(schools[0], alone.codes["school"], "the first session is the game of one session")
    assert len(everybody.texts) == 6
    assert (everybody.row.reshape(5, one.count)[:, :101] >= 0).all()
    assert (everybody.row.reshape(5, one.count)[:, 101:] < 0).all()


@pytest.mark.parametrize(("people", "expected"), [(3, "abcabc"), (5, "abcabc"), (6, "abcdef"), (9, "abcdef")])
def test_people_of_a_file_are_others_in_each_session_if_there_are_enough(tmp_path, people, expected):
    lines = [json.dumps({"group": "b", "background": f"You are {letter}."}) for letter in "abcdefghi"[:people]]
    (tmp_path / "people.jsonl").write_text("\n".join(lines))
    path = tmp_path / "experiment.yaml"
    path.write_text(
        "name: x\nsessions: 2\npopulation:\n  - {name: a, count: 2, kind: uniform}\n"
        "  - {name: b, count: 3, kind: llm, system_prompt: background, personas: {file: people.jsonl}}"
    )
    experiment = load(path)
    everybody = load_personas(experiment)
    found = [everybody.background(participant) for participant in (2, 3, 4, 7, 8, 9)]
    assert found == [f"You are {letter}." for letter in expected]
    assert [everybody.background(participant) for participant in (0, 1, 5, 6)] == [None] * 4
    write_file(tmp_path / "again.jsonl", experiment, everybody)
    path.write_text(path.read_text().replace("people.jsonl", "again.jsonl"))
    again = load(path)
    same = load_personas(again)
    assert [same.background(participant) for participant in range(10)] == [
        everybody.background(participant) for participant in range(10)
    ]


def test_too_few_people_for_one_session_are_refused(tmp_path):
    (tmp_path / "few.jsonl").write_text('{"background": "You are Ann."}\n')
    told = faults(
        "name: x\nsessions: 2\npopulation: [{name: a, count: 2, kind: llm, personas: {file: few.jsonl}}]", tmp_path
    )
    assert "few.jsonl has 1 backgrounds for a group of 2" in told


# --- bad input ---------------------------------------------------------------------------------------------


def test_everything_that_is_wrong_is_said_in_one_message(tmp_path):
    (tmp_path / "few.jsonl").write_text('{"background": "You are Ann."}\n{"background": "You are Bo."}\n')
    told = faults(
        """
name: wrong
prompts: {system: {mine: "{rules} {colour}", classic: x}}
population:
  - {name: a, count: 5, kind: llm, system_prompt: clasic}
  - {name: a, count: 5, kind: llm, system_prompt: mine}
  - {name: b, count: 5, kind: llm, system_prompt: shifted}
  - {name: c, count: 5, kind: llm, personas: {attributes: {school: {x: 0.5, y: 0.4}}}}
  - {name: d, count: 5, kind: llm, system_prompt: background, personas: {file: few.jsonl}}
  - {name: e, count: 5, kind: llm, system_prompt: background}
  - {name: f, count: 5, kind: llm, personas: {attributes: {job: [x]}, template: "You are {jop}."}}
""",
        tmp_path,
    )
    lines = told.splitlines()
    assert lines[0].endswith("9 errors")
    for key, words in {
        "prompts.system.classic": "already",
        "population.0.system_prompt": "did you mean 'classic'?",
        "population.1.name": "also the name of group 0",
        "population.1.system_prompt": "{colour}, which has no value here",
        "population.2.system_prompt": "{shift_rule}, which has no value here: the game has no offset",
        "population.3.personas.attributes.school": "add up to 0.9, and not to 1",
        "population.4.personas.file": "has 2 backgrounds for a group of 5",
        "population.5.system_prompt": "{background}",
        "population.6.personas.template": "{jop}, which has no value here; did you mean 'job'?",
    }.items():
        assert any(line.strip().startswith(f"{key}: ") and words in line for line in lines), (key, told)


def test_a_fault_does_not_hide_another_of_the_same_group_or_game(tmp_path):
    (tmp_path / "few.jsonl").write_text('{"background": "You are Ann."}\n')
    told = faults(
        """
name: wrong
game: {ronds: 3, multiplier: nonsense}
prompts: {system: {mine: "{rules} {colour}", shift: "{rules} {shift_rule} {median_rule} {decimal}"}}
population:
  - {name: a, cuont: 5, kind: llm, system_prompt: mine}
  - {name: a, count: 0, kind: llm, personas: {attributes: {school: {x: 0.5, y: 0.4}}}}
  - {name: b, count: 5, kind: llm, max: 3, system_prompt: background, personas: {file: few.jsonl}}
  - {name: c, count: 5, kind: llm, system_prompt: clasic, user_prompt: none, sampling: {temperature: 9}}
  - {name: d, count: 5, kind: llm, system_prompt: background, personas: {atributes: {}}}
  - {name: e, count: 5, kind: llm, system_prompt: shift}
""",
        tmp_path,
    )
    lines = [line.strip() for line in told.splitlines()]
    for words in (
        "game.ronds: unknown key",
        "game.multiplier: expected",
        "population.0.cuont: unknown key",
        "population.0.count: missing",
        "population.0.system_prompt: 'mine' needs {colour}, which has no value here",
        "population.1.count: expected a number greater",
        "population.1.name: 'a' is also the name of group 0",
        "population.1.personas.attributes.school: the shares add up to 0.9",
        "population.2.max: unknown key",
        f"population.2.personas.file: {tmp_path / 'few.jsonl'} has 1 backgrounds for a group of 5",
        "population.3.system_prompt: no system prompt 'clasic'; did you mean 'classic'?; known: classic, ",
        "population.3.user_prompt: no user prompt 'none'; known: direct, ",
        "population.3.sampling.temperature: ",
        "population.4.personas.atributes: unknown key",
    ):
        assert sum(line.startswith(words) for line in lines) == 1, (words, told)
    assert lines[0].endswith("14 errors"), told
    group = "{name: a, count: 1, kind: llm, system_prompt: mine, personas: {file: few.jsonl}}"
    unknown = faults(f"name: x\nprompts: {{system: {{mine: '{{colour}}'}}}}\npopulation: [{group}]", tmp_path)
    known = unknown.partition("known: ")[2].split(", ")
    assert known == sorted(set(known)) and "background" in known, "each once"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("nonsense", 'line 1: expected {"background": "You are ..."}, in JSON'),
        ("[1]", "line 1: expected an object"),
        ('{"text": "x"}', "`background` is missing or empty; keys found: text"),
        ('{"background": "x", "job": 1}\n{"background": "y"}', "line 2: its keys are background"),
        ('{"background": "x", "count": 1}', "an attribute cannot have the name 'count'"),
        ('{"background": "x", "job": [1]}', "'job' is no attribute"),
        ('{"background": "x", "background": "y"}', "the key 'background' is given more than once"),
    ],
)
def test_files_of_backgrounds_are_checked(content, said, tmp_path):
    (tmp_path / "people.jsonl").write_text(content)
    assert said in faults(
        "name: x\npopulation: [{name: a, count: 2, kind: llm, personas: {file: people.jsonl}}]", tmp_path
    )


def test_own_prompts_come_from_a_file_and_are_part_of_the_experiment(tmp_path):
    (tmp_path / "mine.yaml").write_text("system: {short: '{count} bids. {rules}'}\nuser: {polite: 'Please answer.'}")
    (tmp_path / "x.yaml").write_text(
        "name: x\nprompts: mine.yaml\n"
        "population: [{name: a, count: 3, kind: llm, system_prompt: short, user_prompt: polite}]"
    )
    experiment = load(tmp_path / "x.yaml")
    assert experiment.prompts.user == {"polite": "Please answer."}
    assert loads(dumps(experiment)) == experiment
    assert "cannot read" in faults(
        "name: x\nprompts: none.yaml\npopulation: [{name: a, count: 1, kind: llm}]", tmp_path
    )


# --- backgrounds that models write -------------------------------------------------------------------------


def test_a_background_is_long_enough_and_in_its_language():
    english, chinese = Writer(), Writer(language="zh", min_chars=5)
    assert usable("You are Ann, a nurse of 40 who likes to swim.", english)
    assert not usable("You are Ann.", english)
    assert not usable("1234567890 1234567890 1234567890", english)
    assert not usable("\u4f60\u662f\u4e00\u4e2a\u4eba" * 6, english)
    assert usable("\u4f60\u662f\u4e00\u4e2a\u4eba", chinese)
    assert not usable("You are Ann, a nurse of 40.", chinese)


@pytest.fixture(scope="module", params=["en", "zh"])
def written(request, tmp_path_factory):
    """A game whose models write backgrounds first, on two ranks: the config and the folder of the run."""
    folder = tmp_path_factory.mktemp("written")
    (folder / "cast.yaml").write_text(TEXT.replace("LANGUAGE", request.param))
    done = mpi.mpirun(3, "run", folder / "cast.yaml", "--out", folder / "run", program=PARROT)
    assert done.code == 0, done
    assert "backgrounds written" in done.err
    return folder / "cast.yaml", folder / "run", request.param


in_chinese = pytest.mark.parametrize("written", ["zh"], indirect=True)
"""Where the language makes no difference but that of its characters."""


def test_backgrounds_are_written_once_stored_and_told(written):
    _, folder, language = written
    with Run(folder) as run:
        everybody = run.personas
        backgrounds = [everybody.background(i) for i in range(150)]
        assert all(text.startswith("You are ") for text in backgrounds[:101])
        assert backgrounds[141:] == [None] * 9
        in_words = [text for text in backgrounds[101:141] if text.startswith("school")]
        found = Writer(language=language, min_chars=9)
        right = [text for text in backgrounds[101:141] if usable(text, found) and text not in in_words]
        assert len(right) >= 25
        source = run.file["personas/source"]
        assert source.dtype == np.uint8
        assert texts(source.attrs, "labels") == ["none", "file", "template", "written", "in words"]
        written_or_not = [Source.WRITTEN if text in right else Source.IN_WORDS for text in backgrounds[101:141]]
        assert 0 < len(in_words) == 40 - len(right)
        assert source[:].tolist() == [Source.TEMPLATE] * 101 + written_or_not + [Source.NONE] * 9
        assert np.array_equal(everybody.source, source[:])
        assert Counter(run.participants["background_source"])["written"] == len(right)
        people = run.file["participants/school"]
        assert people.dtype == np.uint16
        assert texts(people.attrs, "labels")[0] == NOBODY
    lines = [json.loads(line) for line in (folder / "personas.jsonl").read_text().splitlines()]
    assert [line["background"] for line in lines] == backgrounds[:141]
    assert [line["background_source"] for line in lines] == [Source(code).label for code in everybody.source[:141]]
    assert not list((folder / "journal").glob("0000/*"))


@in_chinese
def test_the_number_of_ranks_makes_no_difference(written, tmp_path):
    config, folder, _ = written
    done = mpi.mpirun(1, "run", config, "--out", tmp_path / "run", program=PARROT)
    assert done.code == 0, done
    mpi.assert_same(mpi.results(tmp_path / "run"), mpi.results(folder))
    with h5py.File(tmp_path / "run/run.h5") as one, h5py.File(folder / "run.h5") as other:
        said = [[bytes(file["personas/text"][:]) for file in (one, other)]]
        assert len(said[0][0]) == len(said[0][1])
    assert (tmp_path / "run/personas.jsonl").read_text() == (folder / "personas.jsonl").read_text()


@in_chinese
def test_a_later_run_takes_the_file_and_writes_nothing(written, tmp_path):
    config, folder, _ = written
    given_text = config.read_text()
    start = given_text.index("write: {")  # one line, up to its closing brace
    text = given_text[:start] + f"file: {folder / 'personas.jsonl'}" + given_text[given_text.index("}", start) + 1 :]
    (tmp_path / "again.yaml").write_text(text)
    done = mpi.mpirun(2, "run", tmp_path / "again.yaml", "--out", tmp_path / "run", program=PARROT)
    assert done.code == 0, done
    assert "backgrounds written" not in done.err
    with Run(tmp_path / "run") as run, Run(folder) as before:
        assert [run.personas.traits(i) for i in range(141)] == [before.personas.traits(i) for i in range(141)]
        assert run.personas.source[101:141].tolist() == [Source.FILE] * 40
        assert np.array_equal(run.read("guess", 0), before.read("guess", 0), equal_nan=True)


@in_chinese
def test_a_resumed_run_keeps_what_was_written(written, tmp_path):
    config, folder, _ = written
    # Enough replies for all backgrounds, which are those of one rank, and too few for the game.
    with mpi.start(3, "run", config, "--out", tmp_path / "run", **silent_after(100)) as job:
        job.wait_for(lambda: (tmp_path / "run/personas.jsonl").exists())
        job.send(mpi.signal.SIGTERM)
        job.end()
    before = (tmp_path / "run/personas.jsonl").read_bytes()
    assert before == (folder / "personas.jsonl").read_bytes()
    done = mpi.mpirun(2, "run", config, "--out", tmp_path / "run", "--resume", program=PARROT)
    assert done.code == 0, done
    assert "backgrounds written" not in done.err
    assert (tmp_path / "run/personas.jsonl").read_bytes() == before
    with Run(tmp_path / "run") as run, Run(folder) as whole:
        assert np.array_equal(run.personas.source, whole.personas.source)
    assert np.array_equal(
        mpi.results(tmp_path / "run")["rounds/guess"], mpi.results(folder)["rounds/guess"], equal_nan=True
    )


@in_chinese
def test_a_job_killed_while_backgrounds_are_written_ends_as_if_it_had_not_been(written, tmp_path):
    config, folder, _ = written
    journals, people = tmp_path / "run/journal/0000", tmp_path / "run/personas.jsonl"
    with mpi.start(3, "run", config, "--out", tmp_path / "run", **silent_after(20)) as job:
        job.wait_for(lambda: any(path.stat().st_size for path in journals.glob("*")))
        mpi.kill(job.ranks().values())
        job.end()
    assert not people.exists()
    done = mpi.mpirun(2, "run", config, "--out", tmp_path / "run", "--resume", program=PARROT)
    assert done.code == 0, done
    assert people.read_bytes() == (folder / "personas.jsonl").read_bytes()
    mpi.assert_same(mpi.results(tmp_path / "run"), mpi.results(folder))


@in_chinese
@pytest.mark.parametrize("values", [np.full(150, 5, np.uint8), np.zeros(149, np.uint8), np.zeros(150)])
def test_sources_of_backgrounds_that_cannot_be_are_refused(values, written, tmp_path):
    _, folder, _ = written
    shutil.copytree(folder, tmp_path / "run")
    with altered(tmp_path / "run/run.h5") as file:
        del file["personas/source"]
        file["personas/source"] = values
    with pytest.raises(RunFileError, match="personas"):
        Run(tmp_path / "run")
