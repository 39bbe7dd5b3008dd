"""Experiments: what their keys may say, and what is said about those that may not."""

from __future__ import annotations

import re

import pytest
import yaml
from pydantic import ValidationError
from refused import BASE, faults, one_group

from pbeauty.config.loader import dumps, loads
from pbeauty.config.sweep import load_sweep
from pbeauty.game.experiment import KINDS, Experiment, Game, Model
from pbeauty.game.prompts import SYSTEM_PROMPTS, USER_PROMPTS

# --- defaults ----------------------------------------------------------------------------------------------


def test_defaults_of_experiment_game_and_models():
    experiment = loads(BASE)
    assert experiment.model_dump() == {
        "name": "trial",
        "seed": 0,
        "seeding": "request",
        "results": "results",
        "patience": 600.0,
        "margin": 120.0,
        "sessions": 1,
        "plots": True,
        "game": {
            "multiplier": "2/3",
            "offset": 0.0,
            "low": 0.0,
            "high": 100.0,
            "aggregate": "mean",
            "rounds": 4,
            "announce": ("target",),
            "players": "individuals",
            "tolerance": None,
        },
        "prompts": {
            "system": {},
            "user": {},
            "announcements": {},
            **dict.fromkeys(("first_round", "next_round", "retry", "extraction")),
        },
        "models": {
            "demo": {
                "path": "demo",
                "tensor_parallel_size": 1,
                "weight": None,
                "engine": {},
                "chat_template_kwargs": {},
                "reasoning_parser": None,
            }
        },
        "population": (
            {"name": "crowd", "count": 3, "announce": None, "kind": "uniform", "integers": False, "think_time": 0.0},
        ),
    }


def test_defaults_of_language_models():
    (group,) = loads(one_group("kind: llm")).population
    assert group.model_dump(exclude={"name", "count", "announce", "kind"}) == {
        "model": "demo",
        "system_prompt": "classic",
        "user_prompt": "direct",
        "sampling": {"temperature": 1.0, "max_tokens": 64, "top_p": 1.0, "top_k": 0},
        "extraction": "pattern-then-model",
        "guided": None,
        "retries": 1,
        "personas": None,
    }


@pytest.mark.parametrize(
    ("kind", "key"), [("fixed", "value"), ("level_k", "level"), ("cognitive_hierarchy", "tau"), ("fixed", "name")]
)
def test_what_has_no_default_must_be_given(kind, key):
    given_keys = {"name": "crowd", "count": 3, "kind": kind, "value": 1, "level": 1, "tau": 1}
    group = {k: v for k, v in given_keys.items() if k in KINDS[kind].model_fields and k != key}
    told = faults(yaml.safe_dump({"name": "trial", "population": [group]}))
    assert told == {f"population.0.{key}": "missing; this key must be given"}


def test_count_is_the_sum_over_groups():
    text = "name: trial\npopulation: [{name: a, count: 3, kind: uniform}, {name: b, count: 4, kind: fixed, value: 1}]"
    assert loads(text).count == 7


def test_sections_cannot_be_changed():
    experiment = loads(BASE)
    with pytest.raises(ValidationError, match="frozen"):
        experiment.game.rounds = 9


# --- the multiplier ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "text", "p"),
    [
        ("2/3", "2/3", 2 / 3),
        ("'2/3'", "2/3", 2 / 3),
        ("2 / 3", "2/3", 2 / 3),
        ("' +2/3 '", "2/3", 2 / 3),
        ("4/3", "4/3", 4 / 3),
        ("51/100", "51/100", 0.51),
        ("0.7", "0.7", 0.7),
        ("'0.70'", "0.70", 0.7),
        ("1", "1", 1.0),
        ("3/3", "3/3", 1.0),
        ("1.5/2", "1.5/2", 0.75),
        ("0.00001", "0.00001", 1e-5),
        ("0.6666666666666666", "0.6666666666666666", 0.6666666666666666),
    ],
)
def test_multiplier_keeps_its_text_and_knows_its_value(written, text, p):
    game = loads(f"{BASE}game: {{multiplier: {written}}}").game
    assert game.multiplier == text
    assert game.p == p


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("0/0", "denominator is zero"),
        ("1/0", "denominator is zero"),
        ("1/0.0", "denominator is zero"),
        ("0", "above zero"),
        ("0/3", "above zero"),
        ("0.0", "above zero"),
        *[
            (written, "expected a positive fraction such as 2/3 or a decimal such as 0.7")
            for written in [
                "-1/2",
                "-1",
                "true",
                "[]",
                "{}",
                "abc",
                "1e400",
                ".nan",
                ".inf",
                "2/3/4",
                "/",
                "1/",
                "/2",
                "1//2",
                "２/３",
                "0x10/3",
                "''",
                "null",
                "1.2.3",
                "2020-01-01",
            ]
        ],
        ("1 1/2", "expected a positive fraction"),
        ("2 3", "expected a positive fraction"),
        ("9" * 400, "expected a positive fraction"),
        (f"'1/{'9' * 400}'", "expected a positive fraction"),
    ],
)
def test_multiplier_refuses(written, said):
    message = faults(f"{BASE}game: {{multiplier: {written}}}")
    assert message.keys() == {"game.multiplier"}
    assert said in message["game.multiplier"]
    assert len(message["game.multiplier"]) < 250


# --- single keys -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ("game: {rounds: true}", "game.rounds", "expected a whole number, found true"),
        ("game: {rounds: '4'}", "game.rounds", "expected a whole number, found '4'"),
        ("game: {rounds: 4.5}", "game.rounds", "expected a whole number, found 4.5"),
        ("game: {rounds: 1_000}", "game.rounds", "found '1_000'"),
        ("game: {rounds: 1e20}", "game.rounds", "expected a whole number"),
        ("game: {rounds: .nan}", "game.rounds", "expected a whole number"),
        ("game: {rounds: null}", "game.rounds", "expected a whole number, found nothing"),
        ("game: {rounds: [4]}", "game.rounds", "expected a whole number, found a list"),
        ("game: {rounds: 0}", "game.rounds", "expected a number greater than or equal to 1, found 0"),
        (f"game: {{rounds: {'9' * 400}}}", "game.rounds", "less than 2147483648"),
        (f"game: {{rounds: 0x{'f' * 5000}}}", "game.rounds", "less than 2147483648, found 0x"),
        ("game: {low: .nan}", "game.low", "expected a finite number"),
        ("game: {high: .inf}", "game.high", "expected a finite number"),
        ("game: {high: 1e400}", "game.high", "expected a finite number"),
        ("game: {low: -1e308}", "game.low", "at most 1e15"),
        ("game: {low: '0'}", "game.low", "expected a number, found '0'"),
        ("game: {low: false}", "game.low", "expected a number, found false"),
        (f"game: {{offset: {'9' * 400}}}", "game.offset", "expected a finite number"),
        ("game: {aggregate: mode}", "game.aggregate", "expected 'mean' or 'median'"),
        ("game: {aggregate: [mean]}", "game.aggregate", "expected 'mean' or 'median'"),
        ("game: {announce: target}", "game.announce", "expected a list, found 'target'"),
        ("game: {announce: [target, mean, target]}", "game.announce", "each quantity can be announced once"),
        (
            "game: {announce: [winner]}",
            "game.announce.0",
            "expected 'target', 'mean', 'median'",
        ),
        ("game: 3", "game", "expected a section, found 3"),
        ("game: null", "game", "expected a section, found nothing"),
        ("game: []", "game", "expected a section, found a list"),
        ("seed: -1", "seed", "expected a number greater than or equal to 0, found -1"),
        (f"seed: {2**63}", "seed", f"less than {2**63}"),
        ("seed: true", "seed", "expected a whole number"),
        ("results: 3", "results", "expected text (quotes make it text), found 3"),
        ("results: ''", "results", "expected printable text"),
        (r'results: "a\0b"', "results", "expected printable text"),
        ("models: []", "models", "expected a section, found a list"),
        ("models: {a/b: {}}", "models.a/b", "expected letters, digits"),
        ("models: {demo: null}", "models.demo", "expected a section, found nothing"),
        (r'models: {demo: {path: "\uD800"}}', "models.demo.path", "expected printable text"),
        ("models: {demo: {tensor_parallel_size: 0}}", "models.demo.tensor_parallel_size", "greater than or equal to 1"),
        ("models: {demo: {weight: 0}}", "models.demo.weight", "greater than 0"),
        ("models: {demo: {weight: .inf}}", "models.demo.weight", "expected a finite number"),
        ("seeding: requests", "seeding", "expected 'request' or 'engine'"),
        ("models: {demo: {engine: [a]}}", "models.demo.engine", "expected a section, found a list"),
        ("models: {demo: {engine: {a: !!binary aGk=}}}", "models.demo.engine.a", "expected text, a number"),
        ("1: 2", "1", "unknown key"),
        ("null: 2", "null", "unknown key"),
        ("no: 2", "no", "unknown key"),
        (
            r'prompts: {system: {x: "a \uD800"}}',
            "prompts.system.x",
            r"it has the character '\ud800', which no text has",
        ),
        (r'prompts: {user: {x: "a \e[31m"}}', "prompts.user.x", r"it has the character '\x1b'"),
        ("models: {demo: {path: ''}}", "models.demo.path", "expected printable text"),
        (r'prompts: "a\0b"', "prompts", r"cannot read 'a\x00b': embedded null byte"),
        ('"\\e[31m": 3', "\ufffd[31m", "unknown key"),
        ("name2: 3", "name2", "unknown key; did you mean 'name'?"),
        (r'models: {demo: {chat_template_kwargs: {a: "\uDFFF"}}}', "models.demo.chat_template_kwargs", "no text has"),
        (r'models: {demo: {engine: {a: "\uDFFF"}}}', "models.demo.engine", "it has a character that no text has"),
    ],
)
def test_key_refuses(text, key, said):
    told = faults(BASE + text)
    assert told.keys() == {key}
    assert said in told[key]


@pytest.mark.parametrize(
    ("group", "key", "said"),
    [
        ("kind: llm, extraction: models", "extraction", "expected 'pattern', 'pattern-then-model' or 'model'"),
        ("kind: llm, guided: json", "guided", "expected 'number'"),
        (
            "kind: llm, sampling: {temperature: 2.1}",
            "sampling.temperature",
            "less than or equal to 2, found 2.1",
        ),
        ("kind: llm, retries: 11", "retries", "expected a number less than or equal to 10, found 11"),
        ("kind: llm, retries: -1", "retries", "greater than or equal to 0"),
        ("kind: llm, sampling: null", "sampling", "expected a section, found nothing"),
        (
            "kind: llm, sampling: {temperature: -0.1}",
            "sampling.temperature",
            "greater than or equal to 0, found -0.1",
        ),
        ("kind: llm, sampling: {max_tokens: 0}", "sampling.max_tokens", "greater than or equal to 1"),
        ("kind: llm, sampling: {top_p: 0}", "sampling.top_p", "greater than 0, found 0"),
        ("kind: llm, sampling: {top_p: 1.1}", "sampling.top_p", "less than or equal to 1"),
        ("kind: llm, sampling: {top_k: 1.5}", "sampling.top_k", "expected a whole number"),
        ("kind: llm, model: 03", "model", "expected text (quotes make it text), found 03"),
        ("kind: llm, personas: {template: ' '}", "personas.template", "the text is empty"),
        ("kind: llm, personas: {attributes: {a: {x: 1/0, y: 1}}}", "personas.attributes.a.x", "expected a share"),
        ('kind: llm, personas: {attributes: {a: ["\\e"]}}', "personas.attributes.a.\ufffd", "expected printable text"),
        ("kind: uniform, integers: 1", "integers", "expected true or false, found 1"),
        ("kind: uniform, integers: 'yes'", "integers", "expected true or false"),
        ("kind: uniform, think_time: -1", "think_time", "greater than or equal to 0"),
        ("kind: uniform, think_time: .inf", "think_time", "expected a finite number"),
        ("kind: fixed, value: '3'", "value", "expected a number, found '3'"),
        ("kind: fixed, value: .nan", "value", "expected a finite number"),
        ("kind: level_k, level: 1.5", "level", "expected a whole number"),
        ("kind: level_k, level: -1", "level", "greater than or equal to 0"),
        ("kind: level_k, level: 1001", "level", "less than or equal to 1000"),
        ("kind: cognitive_hierarchy, tau: -0.5", "tau", "greater than or equal to 0"),
        ("kind: cognitive_hierarchy, tau: 21", "tau", "less than or equal to 20"),
        ("kind: cognitive_hierarchy, tau: .nan", "tau", "expected a finite number"),
        ("kind: lm", "kind", "no kind 'lm'; did you mean 'llm'?; kinds: llm, uniform, fixed, level_k"),
        ("kind: [llm]", "kind", "kinds: llm, uniform, fixed, level_k, cognitive_hierarchy"),
        ("kind: null", "kind", "kinds: llm"),
        ("integers: true", "kind", "missing; kinds: llm, uniform, fixed, level_k, cognitive_hierarchy"),
    ],
)
def test_group_refuses(group, key, said):
    told = faults(one_group(group))
    assert told.keys() == {f"population.0.{key}"}
    assert said in told[f"population.0.{key}"]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("sessions: 2147483647\npopulation: [{name: a, count: 2, kind: uniform}]", "sessions"),
        ("population: [{name: a, count: 2147483647, kind: uniform}, {name: b, count: 1, kind: uniform}]", "population"),
    ],
)
def test_more_participants_than_can_play_are_refused(text, key):
    assert "at most 2,147,483,647 can play" in faults(f"name: huge\n{text}")[key]


@pytest.mark.parametrize("count", ["0", "-1", "1.5", "'3'", "true", "null", ".inf", ".nan", "6:30", "1e10", str(2**31)])
def test_group_count_is_a_positive_whole_number(count):
    told = faults(f"name: trial\npopulation: [{{name: crowd, count: {count}, kind: uniform}}]")
    assert told.keys() == {"population.0.count"}
    assert re.search("expected a whole number|greater than or equal to 1|less than", told["population.0.count"])


@pytest.mark.parametrize(
    "name", ["../x", "", "a/b", "é", "..", ".hidden", "-n", "a b", "a\n", "a\0", "x" * 101, "名", "a\\b", "con:"]
)
@pytest.mark.parametrize("key", ["name", "population.0.name"])
def test_names_that_cannot_be_folders_are_refused(name, key):
    data = yaml.safe_load(BASE)
    (data if key == "name" else data["population"][0])["name"] = name
    told = faults(yaml.safe_dump(data, allow_unicode=False))
    assert told.keys() == {key}
    assert "expected letters, digits, '.', '_' and '-' only" in told[key]


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "0", "x" * 100, "2020-01-01"])
def test_names_that_can_be_folders_are_kept(name):
    assert loads(BASE, [f"name='{name}'"]).name == name


def test_a_date_is_text():
    assert loads(BASE, ["name=2020-01-01"]).name == "2020-01-01"


@pytest.mark.parametrize(
    ("written", "count"), [("0100", 100), ("08", 8), ("+7", 7), ("0x10", 16), ("0o17", 15), ("1e6", 10**6), ("4.0", 4)]
)
def test_whole_numbers_are_those_of_yaml_1_2_wherever_they_come_from(written, count, tmp_path):
    assert loads(BASE.replace("count: 3", f"count: {written}")).count == count
    assert loads(BASE, [f"population.0.count={written}"]).count == count
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "cases.csv").write_text(f"population.0.count\n{written}\n")
    (tmp_path / "sweep.yaml").write_text("base: base.yaml\ntable: cases.csv")
    (case,) = load_sweep(tmp_path / "sweep.yaml").cases
    assert case.experiment.count == count
    assert type(case.experiment.count) is int


def test_scientific_notation_is_a_number():
    assert loads(f"{BASE}game: {{high: 1e3, low: -1E2}}").game.high == 1000


@pytest.mark.parametrize(
    ("population", "key", "said"),
    [
        ("[]", "population", "expected at least one group"),
        ("{}", "population", "expected a list, found a section"),
        ("null", "population", "expected a list, found nothing"),
        ("x", "population", "expected a list, found 'x'"),
        ("[3]", "population.0", "expected a section, found 3"),
        ("[null]", "population.0", "expected a section, found nothing"),
        ("[[]]", "population.0", "expected a section, found a list"),
    ],
)
def test_population_refuses(population, key, said):
    assert faults(f"name: trial\npopulation: {population}") == {key: said}


@pytest.mark.parametrize(
    ("text", "key", "meant", "section"),
    [
        ("gmae: {}", "gmae", "game", Experiment),
        ("game: {rouns: 3}", "game.rouns", "rounds", Game),
        ("models: {demo: {pth: x}}", "models.demo.pth", "path", Model),
        ("models: {llm: {pth: x}}", "models.llm.pth", "path", Model),
    ],
)
def test_unknown_key_names_the_nearest_and_all_known(text, key, meant, section):
    known = ", ".join(section.model_fields)
    assert faults(BASE + text) == {key: f"unknown key; did you mean {meant!r}?; known here: {known}"}


@pytest.mark.parametrize(
    ("group", "key", "said"),
    [
        ("kind: uniform, intgers: true", "intgers", "did you mean 'integers'?"),
        (
            "kind: uniform, level: 3",
            "level",
            "unknown key; kind level_k has 'level'; known here: name, count, announce, kind, integers, think_time",
        ),
        ("kind: llm, sampling: {temprature: 1}", "sampling.temprature", "did you mean 'temperature'?"),
        ("kind: fixed, value: 3, integer: true", "integer", "; kind uniform has 'integers'; known here"),
        ("kind: uniform, fixed: 3", "fixed", "known here: name, count, announce, kind, integers, think_time"),
    ],
)
def test_unknown_key_of_a_group_is_judged_by_its_kind(group, key, said):
    told = faults(one_group(group))
    assert told.keys() == {f"population.0.{key}"}
    assert told[f"population.0.{key}"].startswith("unknown key")
    assert said in told[f"population.0.{key}"]


@pytest.mark.parametrize(
    ("assignment", "meant"),
    [
        ("rounds=10", "game.rounds"),
        ("ronds=10", "game.rounds"),
        ("multiplier=1/2", "game.multiplier"),
        ("max_tokens=9", "population.0.sampling.max_tokens"),
        ("tau=1", "population.0.tau"),
        ("path=x", "models.NAME.path"),
        ("game.temperature=1", "population.0.sampling.temperature"),
        ("sed=1", "seed"),
    ],
)
def test_an_unknown_key_is_looked_for_in_all_sections(assignment, meant):
    (told,) = faults(BASE, assignment).values()
    assert told.startswith(f"unknown key; did you mean {meant!r}?; known here: ")


def test_keys_with_an_x_hold_what_aliases_repeat():
    text = (
        "name: trial\nx-crowd: &crowd {count: 3, kind: uniform}\nx-1: [&low 5]\n"
        "population: [{<<: *crowd, name: a}, {<<: *crowd, name: b}]\ngame: {low: *low}"
    )
    experiment = loads(text)
    assert [(group.name, group.count) for group in experiment.population] == [("a", 3), ("b", 3)]
    assert experiment.game.low == 5
    assert faults(BASE + "game: {x-a: 1}").keys() == {"game.x-a"}


@pytest.mark.parametrize(("name", "reason"), [("seed", "one of its own"), ("n", "one reply"), ("logprobs", "stored")])
def test_sampling_parameters_that_the_program_sets_are_refused(name, reason):
    assert reason in faults(one_group(f"kind: llm, sampling: {{{name}: 1}}"))[f"population.0.sampling.{name}"]


def test_other_sampling_parameters_of_vllm_are_kept_by_name():
    experiment = loads(one_group("kind: llm, sampling: {min_p: 0.1, stop: [x], repetition_penalty: 1.2}"))
    assert experiment.population[0].sampling.model_extra == {"min_p": 0.1, "stop": ["x"], "repetition_penalty": 1.2}
    assert loads(dumps(experiment)) == experiment


def test_a_key_that_nothing_resembles_gets_no_suggestion():
    assert "did you mean" not in faults(f"{BASE}zzzzzz: 1")["zzzzzz"]


def test_unknown_prompts_name_the_nearest_and_all_known():
    told = faults(one_group("kind: llm, system_prompt: clasic, user_prompt: qqq"))
    assert "did you mean 'classic'?" in told["population.0.system_prompt"]
    assert all(name in told["population.0.system_prompt"] for name in SYSTEM_PROMPTS)
    assert "did you mean" not in told["population.0.user_prompt"]
    assert all(name in told["population.0.user_prompt"] for name in USER_PROMPTS)


# --- between keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("low", "high"), [(100, 0), (5, 5), (0, -1), (200, None), (None, 0)])
def test_low_must_be_below_high(low, high):
    ends = {key: value for key, value in (("low", low), ("high", high)) if value is not None}
    low, high = ends.get("low", 0), ends.get("high", 100)
    assert faults(BASE + yaml.safe_dump({"game": ends})) == {"game": f"low ({low}) must be below high ({high})"}


def test_a_game_made_without_a_file_has_low_below_high_too():
    with pytest.raises(ValidationError, match="must be below"):
        Game(low=3, high=3)


def test_groups_of_equal_names_are_refused():
    text = "name: trial\npopulation:\n" + "".join(f"- {{name: {n}, count: 1, kind: uniform}}\n" for n in "abaa")
    assert faults(text) == {
        f"population.{index}.name": "'a' is also the name of group 0; names must differ" for index in (2, 3)
    }


def test_unknown_model_names_the_nearest_and_all_known():
    told = faults(one_group("kind: llm, model: qwem") + "models: {qwen: {path: org/qwen}, llama: {path: /data/llama}}")
    assert told == {"population.0.model": "no model 'qwem' under `models`; did you mean 'qwen'?; known: qwen, llama"}


def test_demo_model_is_known_only_where_models_are_not_listed():
    assert loads(one_group("kind: llm")).models["demo"].path == "demo"
    assert "no model 'demo'" in faults(one_group("kind: llm") + "models: {}")["population.0.model"]


@pytest.mark.parametrize(
    ("value", "game", "inside"),
    [
        ("0", "{}", True),
        ("100", "{}", True),
        ("100.01", "{}", False),
        ("-0.01", "{}", False),
        ("-5", "{low: -5}", True),
        ("150", "{high: 200}", True),
        ("99", "{low: 100, high: 200}", False),
    ],
)
def test_fixed_value_lies_in_the_range(value, game, inside):
    text = one_group(f"kind: fixed, value: {value}") + f"game: {game}"
    if inside:
        assert loads(text).population[0].value == float(value)
    else:
        assert "lies outside the range of the game, [" in faults(text)["population.0.value"]


@pytest.mark.parametrize(
    ("low", "high", "holds_one"), [(0.2, 0.8, False), (-0.8, -0.2, False), (0.2, 1, True), (0, 0.5, True)]
)
def test_integer_guesses_need_a_whole_number_in_the_range(low, high, holds_one):
    text = one_group("kind: uniform, integers: true") + f"game: {{low: {low}, high: {high}}}"
    if holds_one:
        assert loads(text).population[0].integers
    else:
        assert "holds no whole number" in faults(text)["population.0.integers"]
        assert loads(text, ["population.0.integers=false"]).game.high == high


@pytest.mark.parametrize(("low", "high", "holds_one"), [(0.001, 0.009, False), (0.001, 0.01, True), (-0.004, 0, True)])
def test_guided_guesses_need_a_number_with_two_decimals_in_the_range(low, high, holds_one):
    text = one_group("kind: llm, guided: number") + f"game: {{low: {low}, high: {high}}}"
    if holds_one:
        assert loads(text).population[0].guided == "number"
    else:
        assert "holds no number with two decimals" in faults(text)["population.0.guided"]


def test_all_faults_are_told_at_once():
    text = """
name: ../x
seed: -1
gmae: {}
game: {low: 10, high: 5, rounds: 0, multiplier: 1/0}
models: {qwen: {pth: x}}
population:
- {name: a, count: 0, kind: uniform}
- {name: a, count: 3, kind: llm, model: qwn, retries: 99}
- {name: b, count: 3, kind: oracle}
- {count: 3, kind: fixed}
"""
    assert faults(text).keys() == {
        "name",
        "seed",
        "gmae",
        "game",
        "game.rounds",
        "game.multiplier",
        "models.qwen.pth",
        "population.0.count",
        "population.1.name",
        "population.1.model",
        "population.1.retries",
        "population.2.kind",
        "population.3.name",
        "population.3.value",
    }


def test_a_bad_value_is_told_once_even_if_it_breaks_a_rule_between_keys():
    told = faults(one_group("kind: fixed, value: .nan") + "game: {low: .inf}")
    assert told.keys() == {"population.0.value", "game.low"}


@pytest.mark.parametrize("argument", ["model", "seed", "tensor_parallel_size", "pipeline_parallel_size"])
def test_engines_cannot_be_given_what_pbeauty_gives_them(argument):
    told = faults(BASE + f"models: {{demo: {{engine: {{{argument}: 1, max_num_seqs: 8}}}}}}")
    assert told.keys() == {f"models.demo.engine.{argument}"}
    assert told[f"models.demo.engine.{argument}"].startswith("it cannot be given here: ")
