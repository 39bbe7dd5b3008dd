"""What tells experiments apart, as flat keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbeauty.config.differences import flat, varied, varied_settings
from pbeauty.config.loader import loads
from pbeauty.config.parsing import to_yaml

GAME = "name: x\npopulation: [{name: a, count: 3, kind: llm}, {name: b, count: 2, kind: uniform}]"
VALUES = {
    "seed": st.integers(0, 9),
    "seeding": st.sampled_from(["request", "engine"]),
    "game.multiplier": st.sampled_from(["1/2", "2/3"]),
    "game.announce": st.sampled_from([[], ["target"], ["target", "mean"]]),
    "game.tolerance": st.sampled_from([None, 0.5]),
    "models.demo.engine": st.sampled_from([{}, {"dtype": "half"}]),
    "population.0.announce": st.sampled_from([None, []]),
    "population.0.sampling.temperature": st.sampled_from([0.5, 1.0]),
    "population.1.name": st.sampled_from(["b", "c"]),
    "results": st.sampled_from(["here", "there"]),
}


@given(st.lists(st.fixed_dictionaries(VALUES), min_size=1, max_size=4))
def test_experiments_differ_in_what_was_set_and_in_nothing_else(given):
    experiments = [loads(GAME, [f"{key}={to_yaml(value)}" for key, value in one.items()]) for one in given]
    found = varied([flat(experiment, without=["results"]) for experiment in experiments])
    for one in given:  # what all are told makes no difference
        one["population.0.announce"] = None if one["game.announce"] == [] else one["population.0.announce"]
    expected = {key for key in VALUES if key != "results" and any(one[key] != given[0][key] for one in given)}
    assert sorted(key.removesuffix(".dtype") for key in found) == sorted(expected)
    settings = varied_settings(experiments)
    assert all(list(one) == found for one in settings)
    for one, values in zip(settings, given, strict=True):
        assert {one[key] for key in found if key == "game.multiplier"} <= {values["game.multiplier"]}


@pytest.mark.parametrize(
    ("values", "column"),
    [
        (["0.5", "1"], [0.5, 1.0]),
        (["null", "2"], [None, 2.0]),
    ],
)
def test_numbers_stay_numbers_and_none_stays_none(values, column):
    experiments = [loads(GAME, [f"game.tolerance={value}"]) for value in values]
    assert [one["game.tolerance"] for one in varied_settings(experiments)] == column


def test_lists_and_values_of_several_kinds_are_text():
    ways = ["{stop: [a, b]}", "{stop: []}", "{}", "{stop: 3, ignore_eos: true}"]
    settings = varied_settings([loads(GAME, [f"population.0.sampling={way}"]) for way in ways])
    assert [one["population.0.sampling.stop"] for one in settings] == ["a, b", "none", None, "3"]
    assert [one["population.0.sampling.ignore_eos"] for one in settings] == [None, None, None, True]


def test_a_group_that_others_lack_is_one_difference():
    alone = "name: x\npopulation: [{name: a, count: 3, kind: llm}]"
    assert list(varied_settings([loads(GAME), loads(alone)])[0]) == ["population.1.name"]


def test_what_a_group_is_told_is_in_words():
    ways = [["population.0.announce=[]"], [], ["game.announce=[mean, median]", "population.0.announce=null"]]
    settings = varied_settings([loads(GAME, way) for way in ways])
    assert [one["population.0.announce"] for one in settings] == ["nothing", "target", "mean, median"]
    assert [one["game.announce"] for one in settings] == ["target", "target", "mean, median"]


def test_a_section_that_others_lack_is_one_difference():
    """Unless those that have it differ in it."""
    ways = ["null", "{attributes: {age: {20: 1/2, 70: 1/2}, job: {cook: 1/2, judge: 1/2}}}",
            "{attributes: {age: {20: 1/3, 70: 2/3}, job: {cook: 1/2, judge: 1/2}}}"]  # fmt: skip
    experiments = [loads(GAME, [f"population.0.personas={way}"]) for way in ways]
    found = varied_settings(experiments[:2])
    assert list(found[0]) == ["population.0.personas"]
    assert [one["population.0.personas"] for one in found] == [None, "20=0.5, 70=0.5, cook=0.5, judge=0.5"]
    found = varied_settings(experiments)
    assert list(found[0]) == [f"population.0.personas.attributes.age.{age}" for age in (20, 70)]
    assert [one["population.0.personas.attributes.age.20"] for one in found] == [None, 0.5, pytest.approx(1 / 3)]
