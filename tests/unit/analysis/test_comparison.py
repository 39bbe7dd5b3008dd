"""Runs beside people and published language models, and groups beside each other."""

import json

import numpy as np
import pytest
import scipy
from made import experiment, make

from pbeauty.analysis.comparison import MOST_IN_PAIRS, compare, contrasts, pools
from pbeauty.analysis.references import published_as
from pbeauty.analysis.run_analysis import DEMO, analyse, is_demo
from pbeauty.cli.main import main
from pbeauty.config.loader import loads
from pbeauty.game.experiment import Game
from pbeauty.storage.run_reader import Run

HUMANLIKE = np.clip(np.random.default_rng(11).normal(37, 20, (3, 60)), 0, 100) * np.array([[1.0], [0.6], [0.35]])
THREE = [{"name": name, "count": 20, "kind": "uniform"} for name in ("a", "b", "c")]
TALKERS = [{"name": "talkers", "count": 60, "kind": "llm"}]


def analysed(folder, guesses=HUMANLIKE, described=None, **fields):
    with Run(make(folder, guesses, described, **fields)) as run:
        return analyse(run)


def test_people_are_found_where_the_game_is_theirs():
    labels = [pool.label for pool in pools(Game(multiplier="2/3"))]
    assert {"three newspaper contests", "game theorists", "CEOs"} <= set(labels)
    (politiken,) = [pool for pool in pools(Game()) if "Politiken" in pool.label]
    assert politiken.mean == pytest.approx(21.6 * 1.5)
    assert [pool.n for pool in pools(Game(multiplier="1/2"))] == [48]
    assert len(pools(Game(multiplier="4/3"))) == len(pools(Game(multiplier="0.9"))) == 1
    assert [pool.label for pool in pools(Game(multiplier="0.7", offset=12.6))] == ["0.7 x (mean + 18)"]
    others = {"offset": 5}, {"aggregate": "median"}, {"high": 10}, {"tolerance": 0.5}, {"players": "groups"}
    assert not any(pools(Game(**other)) for other in others)


def test_difference_to_a_pool_is_welchs(tmp_path):
    found = compare(analysed(tmp_path))
    (board,) = [c for c in found if c.reference == "Caltech board"]
    expected = scipy.stats.ttest_ind_from_stats(
        HUMANLIKE[0].mean(), HUMANLIKE[0].std(ddof=1), 60, 42.6, 23.4, 73, equal_var=False
    )
    assert board.difference.estimate.value == pytest.approx(HUMANLIKE[0].mean() - 42.6)
    assert board.difference.p_value == pytest.approx(expected.pvalue)
    tested = [c.difference for c in found if not np.isnan(c.difference.p_value)]
    assert max(d.p_holm / d.p_value for d in tested) == pytest.approx(len(tested))
    assert {c.what for c in found if not np.isnan(c.difference.p_value)} == {"people"}, (
        "adjusted for what is not tested"
    )
    assert any(c.reference.startswith("GPT-4o, mean of 5 games") and c.theirs.value == 13.1 for c in found)


def test_people_by_round_are_sessions_and_ours_is_one_more(tmp_path):
    """One game is one observation: it lies where another of their sessions would or not, and there is no test."""
    found = [c for c in compare(analysed(tmp_path)) if c.what == "people by round"]
    assert [c.round for c in found] == [2, 3]  # in round 1 the same people are among the pools
    means = [28.6, 20.2, 20.3, 26.5]
    reach = scipy.stats.t.ppf(0.975, 3) * np.std(means, ddof=1) * np.sqrt(5 / 4)
    assert (found[0].theirs.low, found[0].theirs.high) == pytest.approx(
        (np.mean(means) - reach, np.mean(means) + reach)
    )
    assert all(np.isnan(c.difference.p_value) and np.isnan(c.difference.estimate.low) for c in found)
    assert [c.n for c in found] == [4, 4]
    assert all(0 <= c.theirs.low < c.theirs.high <= 100 for c in found)


def asked(model, user="step-by-step", **settings):
    group = {"name": "a", "count": 60, "kind": "llm", "model": "m", "user_prompt": user, **settings}
    text = {"name": "x", "game": {"rounds": 3}, "models": {"m": {"path": model}}, "population": [group]}
    return loads(json.dumps(text))


def test_the_same_model_and_prompt_are_known(tmp_path, capsys):
    assert published_as(asked("meta-llama/Meta-Llama-3-70B-Instruct")) == ("Llama3-70B", "P2")
    assert published_as(asked("/disk/qwen2_72b", system_prompt="rational")) == ("Qwen2-72B", "P3")
    assert published_as(asked("meta-llama/Llama-3.1-70B-Instruct")) is None
    assert published_as(asked("Qwen/Qwen2-72B-Instruct", sampling={"temperature": 0.5})) is None
    assert published_as(asked("Qwen/Qwen2-72B-Instruct", system_prompt="rational", user="direct")) is None
    assert published_as(experiment(60)) is None
    make(tmp_path / "1", HUMANLIKE, asked("Qwen/Qwen2-72B-Instruct", "direct"))
    make(tmp_path / "2", HUMANLIKE, asked("Qwen/Qwen2-72B-Instruct"))
    assert main(["analyze", str(tmp_path)]) == 0
    title, *lines = capsys.readouterr().out.partition("Beside the same model and prompt")[2].splitlines()
    assert "as published" in title
    rows = [[*line.split()[:2], line.split()[-2]] for line in lines[1:5]]
    assert rows == [
        ["direct", "1", "50.6"],
        *(["step-by-step", *row] for row in (("1", "19.1"), ("2", "11.1"), ("3", "6.11"))),
    ]
    assert main(["analyze", "--json", str(tmp_path)]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    same = [[found["theirs"]["value"] for found in run["comparisons"] if found["same"]] for run in runs]
    assert same == [[50.56], [19.15, 11.06, 6.11]]


@pytest.mark.parametrize("game", [{"players": "groups"}, {"tolerance": 0.5}, {"aggregate": "median"}])
def test_other_rules_are_compared_with_nobody(tmp_path, game):
    assert compare(analysed(tmp_path, described=experiment(60, population=THREE, rounds=3, **game))) == []


def test_the_demo_model_is_no_evidence(tmp_path, capsys):
    """It is trained on people's means: nothing is compared with them, and all that shows it says so."""
    described = experiment(60, population=TALKERS, rounds=3)
    assert is_demo(described)
    assert not is_demo(experiment(60))
    found = analysed(tmp_path, described=described)
    assert DEMO in found.notes
    assert compare(found) == []
    for options in ([], ["--full"], ["--json"]):
        assert main(["analyze", str(tmp_path), *options]) == 0
        out = capsys.readouterr().out
        assert DEMO in " ".join(out.split())
        assert "Intervals of one session" in out
        assert "Caltech" not in out


def test_every_pair_of_groups_is_one_test(tmp_path):
    found = contrasts(analysed(tmp_path, described=experiment(60, population=THREE, rounds=3)))
    assert [(c.first, c.second, c.rounds) for c in found] == [
        ("a", "b", "1"), ("a", "b", "1-3"), ("a", "c", "1"), ("a", "c", "1-3"), ("b", "c", "1"), ("b", "c", "1-3")
    ]  # fmt: skip
    one, other = HUMANLIKE[:, :20], HUMANLIKE[:, 20:40]
    first = scipy.stats.ttest_ind(one[0], other[0], equal_var=False)
    overall = scipy.stats.ttest_ind(one.mean(axis=0), other.mean(axis=0), equal_var=False)
    assert [c.difference.p_value for c in found[:2]] == pytest.approx([first.pvalue, overall.pvalue])
    lowest = min(found, key=lambda c: c.difference.p_value).difference
    assert lowest.p_holm == pytest.approx(min(1, 6 * lowest.p_value))


def test_groups_whose_difference_the_unusable_replies_could_turn(tmp_path):
    """Nine of 60 against 22 of 60: hardly anything is known of either."""
    guesses = np.full((1, 120), np.nan)
    guesses[0, :9], guesses[0, 60:82] = 50, 30 + np.arange(22) % 2
    population = [{"name": name, "count": 60, "kind": "uniform"} for name in ("a", "b")]
    (found,) = contrasts(analysed(tmp_path, guesses, experiment(120, population=population)))
    assert not found.difference.bounds.identified
    low = (9 * 50) / 60 - (22 * 30.5 + 38 * 100) / 60
    assert found.difference.bounds.low == pytest.approx(low)


def test_many_groups_are_not_compared_in_pairs(tmp_path):
    population = [{"name": f"g{i}", "count": 5, "kind": "uniform"} for i in range(MOST_IN_PAIRS + 1)]
    guesses = np.random.default_rng(1).uniform(0, 100, (1, 55))
    assert contrasts(analysed(tmp_path, guesses, experiment(55, population=population))) == []
