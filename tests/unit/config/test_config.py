"""Experiment files: what they may say, and what is said about those that may not."""

from __future__ import annotations

import copy
import re
from math import ceil, floor
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pbeauty.cli.prompts import entries
from pbeauty.config.loader import dumps, load, loads
from pbeauty.config.parsing import LARGEST_FILE, to_yaml
from pbeauty.config.sweep import is_sweep, load_sweep
from pbeauty.errors import ConfigError
from pbeauty.game.experiment import KINDS, Experiment, Game, Model, UniformGroup
from pbeauty.game.prompts import SYSTEM_PROMPTS, USER_PROMPTS

FIT_ANY_GAME = sorted(entry.name for entry in entries() if entry.kind == "system" and not entry.needs)
BASE = "name: trial\npopulation: [{name: crowd, count: 3, kind: uniform}]\n"


def refusal(text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loads(text, overrides)
    return str(caught.value)


def faults(text: str, *overrides: str) -> dict[str, str]:
    """Every fault that the message lists, by key."""
    heading, *lines = refusal(text, *overrides).splitlines()
    count = re.fullmatch(r"experiment: (\d+) errors?", heading)
    assert count, heading
    assert int(count[1]) == len(lines)
    assert heading.endswith("error" if len(lines) == 1 else "errors")
    told = dict(line.strip().split(": ", 1) for line in lines)
    assert len(told) == len(lines), "a key is told twice"
    return told


def one_group(text: str) -> str:
    return f"name: trial\npopulation: [{{name: crowd, count: 3, {text}}}]\n"


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


# --- files -------------------------------------------------------------------------------------------------


def test_load_reads_utf8_with_or_without_byte_order_mark_and_any_line_ends(tmp_path):
    for number, content in enumerate(
        [BASE.encode(), b"\xef\xbb\xbf" + BASE.encode(), BASE.replace("\n", "\r\n").encode()]
    ):
        path = tmp_path / f"{number}.yaml"
        path.write_bytes(content)
        assert load(path) == load(str(path)) == loads(BASE)


def test_messages_name_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: trial\n")
    with pytest.raises(ConfigError, match=re.escape(f"{path}: 1 error")):
        load(path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_bytes(BASE.encode("utf-16")), "not UTF-8"),
        (lambda path: path.write_bytes("name: a\n# é".encode("latin-1")), "not UTF-8 text: line 2 has the byte 0xe9"),
        (lambda path: path.write_bytes(b"#" * (LARGEST_FILE + 1)), "it is larger than 16 MiB"),
        (lambda path: path.symlink_to("/dev/zero"), "it is larger than 16 MiB$"),
        (lambda path: path.symlink_to(path), "symbolic link"),
    ],
)
def test_file_that_cannot_be_read(tmp_path, make, said):
    path = tmp_path / "x.yaml"
    make(path)
    with pytest.raises(ConfigError, match=f"cannot read {re.escape(str(path))}: .*{said}"):
        load(path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "nothing"),
        ("# only a comment\n", "nothing"),
        ("- a\n", "a list"),
        ("hello", "'hello'"),
        ("3", "3"),
    ],
)
def test_file_that_is_not_keys_and_values(text, found):
    message = refusal(text)
    assert message.startswith("experiment: expected keys and values (name, game, population, ...), found " + found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: trial\ngame: [", "line 2, column 8"),
        ("name: trial\n  game: {}\n", "line 2"),
        ("name: trial\n\tgame: {}\n", "line 2"),
        ("name: 'trial\n", "line 2"),
        ("name: a\nseed: 1\nname: b\n", "line 3, column 1: the key 'name' is given more than once"),
        ("name: a\ngame: {low: 1, low: 2}\n", "line 2, column 16: the key 'low' is given more than once"),
        ("name: a\npopulation: [{name: a, name: b}]\n", "line 2"),
        ("name: a\nseed: !!int x\n", "line 2, column 7: this value cannot be read"),
        ("name: a\nseed: !!float ''\n", "line 2, column 7"),
        ("name: a\nseed: !!timestamp x\n", "line 2, column 7"),
        ("name: a\nseed: !!python/object/apply:os.system [x]\n", "line 2, column 7"),
        (f"name: a\nseed: {'9' * 5000}\n", "line 2, column 7"),
        ("name: a\n? [1, 2]\n: 3\n", "line 2"),
        ("name: a\n? {b: 1}\n: 3\n", "line 2"),
        ("name: &x [*x]\n", "line 1"),
        ("name: *unknown\n", "line 1, column 7"),
        ("name: a\n---\nname: b\n", "line 2, column 1: expected a single document in the stream, but found another"),
        ("name: \0\n", "special characters are not allowed"),
        ("[" * 1500, "nested too deeply"),
        ("{a: " * 1500, "nested too deeply"),
    ],
)
def test_text_that_is_not_yaml(text, said):
    message = refusal(text)
    assert message.startswith("experiment is not valid YAML: ")
    assert said in message


def test_merge_keys_and_aliases_work():
    text = """
name: trial
population:
- &crowd {name: a, count: 3, kind: uniform}
- {<<: *crowd, name: b}
"""
    assert [(group.name, group.count) for group in loads(text).population] == [("a", 3), ("b", 3)]


# --- overrides ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("name=other", lambda e: e.name, "other"),
        ("game.rounds=10", lambda e: e.game.rounds, 10),
        (" game.rounds = 10 ", lambda e: e.game.rounds, 10),
        ("game.multiplier=4/3", lambda e: e.game.multiplier, "4/3"),
        ("game.announce=[mean, target]", lambda e: e.game.announce, ("mean", "target")),
        ("game={rounds: 2}", lambda e: e.game.rounds, 2),
        ("population.0.count=5", lambda e: e.population[0].count, 5),
        ("population.0={name: z, count: 1, kind: fixed, value: 3}", lambda e: e.population[0].value, 3),
        ("models.demo.engine.max_num_seqs=8", lambda e: e.models["demo"].engine, {"max_num_seqs": 8}),
        ("results=a=b", lambda e: e.results, "a=b"),
        ("seed=1 # a comment", lambda e: e.seed, 1),
    ],
)
def test_override(override, read, value):
    assert read(loads(BASE, [override])) == value


def test_overrides_apply_in_order():
    assert loads(BASE, ["game.rounds=2", "game={high: 10}", "game.low=5"]).game == Game(low=5, high=10)


def test_override_reaches_below_a_key_that_the_file_leaves_empty():
    assert loads(f"{BASE}game:\n", ["game.low=5"]).game.low == 5


def test_override_changes_one_of_two_aliased_groups_only():
    text = "name: trial\npopulation: [&g {name: a, count: 1, kind: uniform}, *g]"
    experiment = loads(text, ["population.1.name=b", "population.1.count=7"])
    assert [(group.name, group.count) for group in experiment.population] == [("a", 1), ("b", 7)]


def test_overridden_values_are_checked_like_any_other():
    assert faults(BASE, "game.rouns=3", "population.0.count=0").keys() == {"game.rouns", "population.0.count"}
    assert faults(BASE, "game.rounds=") == {"game.rounds": "expected a whole number, found nothing"}


@pytest.mark.parametrize("assignment", ["game.rounds", "", "=", "=3", "game..rounds=3", ".game=3", "game.=3", " =3"])
def test_override_without_key_and_value(assignment):
    assert refusal(BASE, assignment) == f"--set {assignment}: expected KEY=VALUE, for example game.rounds=10"


@pytest.mark.parametrize("index", ["1", "5", "-1", "x", "²", "0x0", "9" * 5000])
def test_override_of_an_entry_that_is_not_there(index):
    for assignment in (f"population.{index}.count=5", f"population.{index}=5"):
        assert refusal(BASE, assignment) == (
            f"--set {assignment}: {index!r} is not an entry of a list of 1 (counted from 0)"
        )


@pytest.mark.parametrize(
    ("assignment", "parent"),
    [("name.x=3", "name"), ("name.x.y=3", "name"), ("population.0.kind.x=3", "population.0.kind")],
)
def test_override_below_a_single_value(assignment, parent):
    assert refusal(BASE, assignment) == f"--set {assignment}: nothing can be set below {parent!r}"


@pytest.mark.parametrize("value", ["[", "*x", "{a: 1, a: 2}", "'"])
def test_override_with_a_value_that_is_not_yaml(value):
    message = refusal(BASE, f"game.low={value}")
    assert message.startswith(f"--set game.low={value}: the value is not valid YAML: line 1")


# --- anything at all ---------------------------------------------------------------------------------------

slugs = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,12}", fullmatch=True)
numbers = st.floats(-1e15, 1e15) | st.integers(-(10**15), 10**15)
words = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=9)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def groups(draw, name, models, low, high):
    inside = st.floats(low, high)
    kinds = {
        "uniform": {"think_time": st.floats(0, 1e3)},
        "fixed": {"value": inside},
        "level_k": {"level": st.integers(0, 1000)},
        "cognitive_hierarchy": {"tau": st.floats(0, 20)},
    }
    if models:
        kinds["llm"] = {
            "model": st.sampled_from(models),
            "system_prompt": st.sampled_from(FIT_ANY_GAME),
            "user_prompt": st.sampled_from(sorted(USER_PROMPTS)),
            "extraction": st.sampled_from(["pattern", "pattern-then-model", "model"]),
            "guided": st.sampled_from([None, "number"] if ceil(100 * low) <= floor(100 * high) else [None]),
            "retries": st.integers(0, 10),
            "sampling": st.fixed_dictionaries(
                {},
                optional={
                    "temperature": st.floats(0, 2),
                    "max_tokens": st.integers(1, 10**6),
                    "top_p": st.floats(0, 1, exclude_min=True),
                    "top_k": st.integers(0, 10**6),
                },
            ),
        }
    kind = draw(st.sampled_from(sorted(kinds)))
    return {
        "name": name,
        "count": draw(st.integers(1, 2**27)),
        "kind": kind,
        **draw(st.fixed_dictionaries(kinds[kind])),
    }


@st.composite
def experiments(draw):
    low = draw(numbers.filter(lambda x: x < 1e15))
    high = draw(numbers.filter(lambda x: x > low))
    models = draw(
        st.dictionaries(
            slugs,
            st.fixed_dictionaries(
                {},
                optional={
                    "weight": st.none() | st.floats(1e-9, 1e15),
                    "engine": st.dictionaries(words, json_values, max_size=2),
                },
            ),
            max_size=2,
        )
    )
    names = draw(st.lists(slugs, min_size=1, max_size=4, unique=True))
    return {
        "name": draw(slugs),
        "seed": draw(st.integers(0, 2**63 - 1)),
        "game": {
            "low": low,
            "high": high,
            "multiplier": draw(st.sampled_from(["2/3", "0.50", 1, 0.7, "1.5/9"])),
            "offset": draw(numbers),
            "aggregate": draw(st.sampled_from(["mean", "median"])),
            "rounds": draw(st.integers(1, 10**6)),
            "announce": draw(st.lists(st.sampled_from(["target", "mean", "median", "winning_guess"]), unique=True)),
        },
        "models": models,
        "population": [draw(groups(name, sorted(models), low, high)) for name in names],
    }


@settings(max_examples=40)
@given(experiments())
def test_dump_is_read_back_unchanged(data):
    experiment = Experiment.model_validate(data)
    assert loads(dumps(experiment)) == experiment
    assert loads(to_yaml(data)) == experiment


def test_dump_spells_out_every_default():
    dumped = yaml.safe_load(dumps(loads(one_group("kind: llm"))))
    assert dumped["population"][0]["sampling"]["top_p"] == 1.0
    assert dumped["models"]["demo"]["engine"] == {}
    assert set(dumped) == set(Experiment.model_fields)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 2**63])
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.sampled_from(["llm", "uniform", "fixed", "1/0", "demo", "name", "kind"])
    | st.binary(max_size=3)
    | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "kind", "llm", "path", "low", "value", "x"]) | st.integers() | st.none(),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
WHOLE = {
    "name": "trial",
    "seed": 1,
    "results": "results",
    "game": Game().model_dump(mode="json"),
    "models": {"demo": {"path": "demo", "tensor_parallel_size": 1, "engine": {}}},
    "population": [
        {"name": "a", "count": 1, "kind": "llm", "model": "demo", "sampling": {"temperature": 1}, "retries": 0},
        {"name": "b", "count": 1, "kind": "uniform", "integers": True},
        {"name": "c", "count": 1, "kind": "fixed", "value": 1},
        {"name": "d", "count": 1, "kind": "level_k", "level": 1},
        {"name": "e", "count": 1, "kind": "cognitive_hierarchy", "tau": 1},
    ],
}


def places(node, path=()):
    yield path
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from places(value, (*path, key))


PLACES = [path for path in places(WHOLE) if path]


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(PLACES), st.booleans(), anything), min_size=1, max_size=3))
def test_whatever_stands_in_the_file_it_is_read_or_refused(changes):
    data = copy.deepcopy(WHOLE)
    for path, add, value in changes:
        node = data
        for part in path[:-1]:
            node = node[part] if isinstance(node, dict) and part in node else node
            node = node[part] if isinstance(node, list) and isinstance(part, int) and part < len(node) else node
        if isinstance(node, dict):
            node["extra" if add else path[-1]] = value
        elif isinstance(node, list) and isinstance(path[-1], int) and path[-1] < len(node):
            node[path[-1]] = value
    try:
        experiment = loads(yaml.safe_dump(data))
    except ConfigError as error:
        assert re.match("experiment: [0-9]+ error|experiment is not valid YAML: ", str(error))
    else:
        assert loads(dumps(experiment)) == experiment


@settings(max_examples=100)
@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("{}[]:,&*!#|>-?'\"\n "), max_size=40))
def test_whatever_is_set_it_is_applied_or_refused(text):
    try:
        experiment = loads(BASE, [text])
    except ConfigError:
        return
    assert isinstance(experiment, Experiment)


def test_shipped_experiments_are_valid():
    paths = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))
    assert paths
    for path in paths:
        found = [case.experiment for case in load_sweep(path).cases] if is_sweep(path) else [load(path)]
        assert all(experiment.count > 0 for experiment in found)


def test_groups_can_be_made_without_a_file():
    group = UniformGroup(name="a", count=3, kind="uniform")
    assert Experiment(name="trial", population=(group,)) == loads(BASE, ["population.0.name=a"])
