"""Experiments from files and with overrides: whatever stands there is read, or refused in so many words."""

from __future__ import annotations

import copy
import re
from math import ceil, floor
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from refused import BASE, faults, one_group, refusal

from pbeauty.cli.prompts import entries
from pbeauty.config.loader import dumps, load, loads
from pbeauty.config.parsing import LARGEST_FILE, to_yaml
from pbeauty.config.sweep import is_sweep, load_sweep
from pbeauty.errors import ConfigError
from pbeauty.game.experiment import Experiment, Game, UniformGroup
from pbeauty.game.prompts import USER_PROMPTS

FIT_ANY_GAME = sorted(entry.name for entry in entries() if entry.kind == "system" and not entry.needs)


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
