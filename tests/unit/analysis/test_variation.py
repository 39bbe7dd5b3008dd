"""Several runs together: cases, how much sessions vary, what with, and how many it takes."""

import json
import math
from collections import defaultdict
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import scipy
from made import experiment, make

from pbeauty.analysis.components import between_sessions, effects_of, power, sessions_needed
from pbeauty.analysis.contamination import probes
from pbeauty.analysis.intervals import Estimate
from pbeauty.analysis.run_analysis import analyse
from pbeauty.analysis.variation import vary
from pbeauty.cli.main import main
from pbeauty.config.loader import loads
from pbeauty.storage.run_reader import Run


def games(folder, means, *, n=200, sd=5.0, generator=None, rounds=1, seeds=None, **fields):
    """Analyses of runs whose first-round guesses are normal around the given means."""
    generator = generator or np.random.default_rng(5)
    found = []
    for index, mean in enumerate(means):
        guesses = np.clip(generator.normal(mean, sd, (1, n)), 0, 100)
        seed = index if seeds is None else seeds[index]
        with Run(make(folder / str(index), guesses, experiment(n, seed=seed, rounds=rounds, **fields))) as run:
            found.append(analyse(run))
    return found


def test_runs_that_differ_by_seed_are_sessions_of_one_case(tmp_path):
    found = games(tmp_path / "a", [40, 41, 39]) + games(tmp_path / "b", [30, 31], multiplier="1/2")
    variation = vary(found)
    assert variation.varied == ["game.multiplier"]
    assert [(case.label, len(case.analyses)) for case in variation.cases] == [
        ("multiplier=2/3", 3), ("multiplier=1/2", 2)
    ]  # fmt: skip
    assert [one.sessions for one in variation.stats] == [3, 2]


def test_cases_keep_apart_whose_values_begin_alike(tmp_path):
    long = "the same hundred words " * 9
    found = []
    for number, end in enumerate("aab"):
        described = experiment(20, seed=number)
        prompts = described.prompts.model_copy(update={"user": {"own": long + end}})
        with Run(make(tmp_path / str(number), np.full((1, 20), 30.0), described)) as run:
            found.append(replace(analyse(run), experiment=described.model_copy(update={"prompts": prompts})))
    cases = vary(found).cases
    assert [len(case.analyses) for case in cases] == [2, 1]
    assert len({case.label for case in cases}) == 2


def test_games_on_other_ranges_are_not_subtracted(tmp_path):
    found = games(tmp_path / "a", [40, 41]) + games(tmp_path / "b", [30, 31], high=200)
    assert [one.difference for one in vary(found).stats] == [None, None]


def test_a_session_is_one_observation(tmp_path):
    found = games(tmp_path / "a", [30, 40, 50]) + games(tmp_path / "b", [31, 42, 49], multiplier="1/2")
    means = [[analysis.of()[0].mean.value for analysis in part] for part in (found[:3], found[3:])]
    first, second = vary(found).stats
    expected = scipy.stats.t.interval(0.95, 2, np.mean(means[0]), scipy.stats.sem(means[0]))
    assert (first.mean.low, first.mean.high) == pytest.approx(expected)
    test = scipy.stats.ttest_rel(means[1], means[0])
    assert second.difference.p_value == pytest.approx(test.pvalue)
    assert first.difference is None
    found = found[:3] + games(tmp_path / "c", [31, 42, 49], multiplier="1/2", seeds=[0, 1, 7])
    means[1] = [analysis.of()[0].mean.value for analysis in found[3:]]
    test = scipy.stats.ttest_ind(means[1], means[0], equal_var=False)  # of which one seed is another one
    assert vary(found).stats[1].difference.p_value == pytest.approx(test.pvalue)


def test_what_cases_of_one_seed_have_in_common_is_no_uncertainty(tmp_path):
    """Sessions that are told different things are the same in the first round, and so is each with itself."""
    first = np.random.default_rng(3).uniform(0, 100, 60)
    later = np.random.default_rng(4).uniform(0, 60, (2, 60))
    runs = []
    for second, announce in zip(later, (["target"], ["mean"]), strict=True):
        described = experiment(12, sessions=5, rounds=2, announce=announce)
        with Run(make(tmp_path / announce[0], [first, second], described)) as run:
            runs.append(analyse(run))
    same, other = (one.difference for one in vary(runs).stats if one.difference)
    assert any("have seeds in common" in note for note in vary(runs).notes)
    assert (same.estimate, same.p_value, same.margin) == (Estimate(0, 0, 0), 1, 0)
    means = later.reshape(2, 5, 12).mean(axis=2)
    assert other.p_value == pytest.approx(scipy.stats.ttest_rel(means[1], means[0]).pvalue)


def test_two_runs_of_one_seed_count_once(tmp_path):
    variation = vary(games(tmp_path, [40, 40, 44], seeds=[3, 3, 4]))
    assert variation.stats[0].sessions == variation.components[0].sessions == 2
    assert any("have the seed of another run" in note for note in variation.notes)


def test_a_single_session_says_nothing_of_later_rounds(tmp_path):
    guesses = np.random.default_rng(1).uniform(0, 60, (2, 50))
    found = []
    for name, p in (("a", "2/3"), ("b", "1/2")):
        with Run(make(tmp_path / name, guesses, experiment(50, rounds=2, multiplier=p))) as run:
            found.append(analyse(run))
    first, *_, last = vary(found).stats
    assert first.mean.low < first.mean.value < first.mean.high
    assert math.isnan(last.mean.low)
    assert math.isnan(last.difference.p_value)


def test_components_need_five_sessions(tmp_path):
    few = vary(games(tmp_path / "few", [38, 40, 42, 44]))
    assert math.isnan(few.components[0].observed)
    assert math.isnan(few.components[0].between.value)
    assert any("too few sessions" in note for note in few.notes)
    enough = vary(games(tmp_path / "enough", [36, 38, 40, 42, 44]))
    (one,) = enough.components
    assert one.freedom == 4
    assert one.observed == pytest.approx(math.sqrt(10), abs=0.6)
    assert one.sampling == pytest.approx(5 / math.sqrt(200), rel=0.15)
    assert one.between.value == pytest.approx(math.sqrt(one.observed**2 - one.sampling**2), rel=1e-6)
    assert one.between.low < one.between.value < one.between.high
    assert not any("too few sessions" in note or "seeds in common" in note for note in enough.notes)


def test_no_variation_between_sessions_where_there_is_none(tmp_path):
    (one,) = vary(games(tmp_path, [40] * 8, n=50)).components
    assert one.between.low == 0
    assert one.between.value < 0.6


def test_between_sessions_is_the_anova_estimator():
    generator = np.random.default_rng(1)
    means = [generator.normal(40, 3, 6), generator.normal(20, 3, 4)]
    within = [np.full(6, 0.5), np.full(4, 0.5)]
    residual = sum(((y - y.mean()) ** 2).sum() for y in means) / 8
    assert between_sessions(means, within).value == pytest.approx(math.sqrt(residual - 0.5))
    assert math.isnan(between_sessions([np.array([1.0])], [np.array([0.1])]).value)


def test_effects_are_partial_omega_squared():
    """Against a two-way analysis of variance by hand."""
    generator = np.random.default_rng(3)
    made = {(p, low): generator.normal(40 * p + low, 2, 4) for p in (0.5, 0.7) for low in (0, 1)}
    cases = [({"p": str(p), "low": str(low)}, y.tolist()) for (p, low), y in made.items()]
    found = {effect.key: effect for effect in effects_of(1, cases, ["p", "low"], 0.95)}
    y = np.array(list(made.values())).reshape(2, 2, 4)
    error = ((y - y.mean(axis=2, keepdims=True)) ** 2).sum() / 12
    for key, axes in (("p", (1, 2)), ("low", (0, 2))):
        ratio = 8 * ((y.mean(axis=axes) - y.mean()) ** 2).sum() / error
        assert found[key].share.value == pytest.approx(max(0, ratio - 1) / (max(0, ratio - 1) + 16))
        assert found[key].p_value == pytest.approx(scipy.stats.f.sf(ratio, 1, 12))
    assert found["p"].share.value > 0.6
    assert found["low"].share.low == 0


def test_keys_that_are_not_to_be_told_apart():
    cases = [({"p": p, "model": m}, [x, x + 1, x + 2]) for p, m, x in (("1", "a", 10), ("2", "b", 30))]
    (together,) = effects_of(1, cases, ["p", "model"], 0.95)
    assert together.key == "p + model"
    assert together.share.value > 0.9
    three = [({"p": p, "model": m}, [x, x + 1, x + 2]) for p, m, x in (("1", "a", 10), ("2", "b", 30), ("3", "b", 9))]
    found = {effect.key: effect for effect in effects_of(1, three, ["p", "model"], 0.95)}
    assert math.isnan(found["model"].share.value), "all that goes with the model goes with p as well"
    assert found["p"].p_value < 0.001
    assert not list(effects_of(1, [(case, means[:1]) for case, means in cases], ["p"], 0.95)), (
        "without sessions to spare"
    )


def test_sessions_that_do_not_differ_have_no_effects():
    alike = [({"p": p}, [x + noise for noise in (0, 1e-15, 0, 1e-15)]) for p, x in (("1", 1.0), ("2", 3.0))]
    assert all(math.isnan(effect.share.value) for effect in effects_of(1, alike, ["p"], 0.95))
    same = [({"p": p}, [7.0, 9.0, 8.0]) for p in "123"]
    (none,) = effects_of(1, same, ["p"], 0.95)
    assert (none.share.value, none.share.low) == (0, 0)
    assert none.p_value == pytest.approx(1)


def test_sessions_needed_are_those_of_students_t():
    assert sessions_needed(1.0, 1.0, 0.8) == 17  # Cohen 1988, table 2.4.1: d = 1
    assert sessions_needed(1.0, 0.5, 0.8) == 64
    assert sessions_needed(2.0, 1.0, 0.9) == 86
    assert sessions_needed(0.001, 5.0, 0.8) == 2


def test_power_of_a_plan_is_reached(tmp_path):
    """Experiments with as many sessions as the plan says find the difference as often as it says."""
    (plan,) = power(vary(games(tmp_path, [36, 38, 40, 42, 44])).components, 5.0)
    assert plan.basis == "5 sessions"
    generator = np.random.default_rng(6)
    draws = generator.normal(0, plan.sd, (4000, 2, plan.sessions_80))
    draws[:, 1] += 5
    p = scipy.stats.ttest_ind(draws[:, 0], draws[:, 1], axis=1).pvalue
    assert 0.78 < np.mean(p < 0.05) < 0.9
    assert plan.sessions_80 <= plan.sessions_90
    assert plan.cautious > plan.sessions_80


def test_a_pilot_of_one_run_gives_a_lower_bound(tmp_path, capsys):
    games(tmp_path, [40], n=50)
    assert main(["analyze", str(tmp_path), "--power", "2"]) == 0
    assert "participants alone: at least" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit):
        main(["analyze", str(tmp_path), "--power", "-1"])


def test_groups_numbers_are_no_sample_of_participants(tmp_path, capsys):
    """Where groups play, nothing is known of other participants from one session; over sessions all is as ever."""
    population = [{"name": name, "count": 20, "kind": "uniform"} for name in ("a", "b")]
    for seed in range(5):
        guesses = np.random.default_rng(seed).uniform(0, 100, (1, 40))
        make(tmp_path / str(seed), guesses, experiment(40, seed=seed, population=population, players="groups"))
    with Run(tmp_path / "0") as run:
        (alone,) = vary([analyse(run)]).stats
        assert math.isnan(alone.mean.low)
    assert main(["analyze", str(tmp_path / "0"), "--power", "5"]) == 0
    assert "Sessions per case" not in capsys.readouterr().out
    assert main(["analyze", str(tmp_path), "--full", "--power", "5"]) == 0
    assert "5 sessions" in capsys.readouterr().out


def test_unfinished_runs_are_said(tmp_path):
    assert any("UNFINISHED: 2 of 2 runs" in note for note in vary(games(tmp_path, [40, 41], rounds=3)).notes)


def test_identical_means_have_no_components(tmp_path):
    variation = vary(games(tmp_path, [50] * 5, sd=0.0))
    assert variation.components[0].between.value == 0
    assert variation.effects == []


# --- wordings as a sample ---------------------------------------------------------------------------------------


def worded(folder, wordings, cases, sessions=2):
    """Runs of language models, a wording and a case each, with means by wording and case, and sessions around these."""
    found = []
    for (word, shift), (p, mean), seed in product(wordings.items(), cases.items(), range(sessions)):
        generator = np.random.default_rng([seed, ord(word), len(cases) * mean])
        crowd = [{"name": "players", "count": 40, "kind": "llm", "user_prompt": word}]
        described = loads(json.dumps({
            "name": "x", "seed": seed, "game": {"rounds": 1, "multiplier": p}, "population": crowd,
            "prompts": {"user": dict.fromkeys(wordings, "Guess {low} to {high}.")},
        }))  # fmt: skip
        guesses = np.clip(generator.normal(mean + shift, 4, (1, 40)), 0, 100)
        with Run(make(folder / f"{word}-{p[0]}-{p[-1]}-{seed}", guesses, described)) as run:
            found.append(analyse(run))
    return found


def played(analysis):
    """Wording and multiplier."""
    return analysis.experiment.population[0].user_prompt, analysis.game.multiplier


def test_wordings_are_a_sample_where_several_are_played(tmp_path, capsys):
    shifts = {"a": -8, "b": -3, "c": 0, "d": 4, "e": 9}
    runs = worded(tmp_path, shifts, {"2/3": 40, "1/2": 30})
    first, second = vary(runs).wordings
    assert (first.case, second.case, first.wordings) == ("2/3", "1/2", 5)
    assert first.difference is None
    cells = defaultdict(list)
    for analysis in runs:
        cells[played(analysis)].append(analysis.of()[0].mean.value)
    one, other = ([np.mean(cells[word, p]) for word in shifts] for p in ("2/3", "1/2"))
    assert second.difference.p_value == pytest.approx(scipy.stats.ttest_rel(other, one).pvalue)
    assert (first.mean.low, first.mean.high) == pytest.approx(
        scipy.stats.t.interval(0.95, 4, np.mean(one), scipy.stats.sem(one))
    )
    assert first.between.low < np.std(list(shifts.values()), ddof=1) < first.between.high
    assert main(["analyze", "--full", str(tmp_path)]) == 0
    table = capsys.readouterr().out.partition("Wordings as a sample")[2].splitlines()
    rows = {tuple(row.split()[:3]) for row in table}
    assert rows >= {("2/3", "1", "5"), ("1/2", "1", "5")}


def test_few_wordings_have_no_component_and_uncrossed_ones_no_row(tmp_path):
    runs = worded(tmp_path, {"a": 0, "b": 5}, {"2/3": 40, "1/2": 30})
    assert [math.isnan(one.between.value) for one in vary(runs).wordings] == [True, True]
    apart = [run for run in runs if played(run) in (("a", "2/3"), ("b", "1/2"))]
    assert vary(apart).wordings == []


# --- probes for a memorised answer ------------------------------------------------------------------------------


def told(folder, draw, n=300, seed=0, system="classic", **game):
    """A run of language models with first guesses drawn by `draw`."""
    generator = np.random.default_rng(seed)
    population = [{"name": "players", "count": n, "kind": "llm", "system_prompt": system}]
    with Run(make(folder, [draw(generator, n)], experiment(n, seed=seed, population=population, **game))) as run:
        return analyse(run)


def recites(generator, n):
    return generator.choice([33.0, 33.33, 22.0, 50.0], n)


def reasons_at(p):
    return lambda generator, n: np.round(generator.choice([50 * p, 50 * p * p, 50.0], n), 2)


def test_a_model_that_recites_gives_the_textbooks_answers_at_another_p(tmp_path):
    p = 0.6413
    rows = probes(vary([told(tmp_path / "0", recites), told(tmp_path / "1", recites, multiplier=str(p))]))
    assert rows[1].textbook.value > 0.6
    assert rows[1].own.value == 0
    assert rows[1].p_recited < 1e-6
    assert math.isnan(rows[0].p_recited)
    rows = probes(vary([told(tmp_path / "2", recites), told(tmp_path / "3", reasons_at(p), multiplier=str(p))]))
    assert rows[1].own.value > 0.6
    assert rows[1].p_recited > 0.99


def test_a_wording_that_changes_the_answers_is_seen(tmp_path):
    cases = [told(tmp_path / "a", recites), told(tmp_path / "b", recites, seed=1, system="paraphrased"),
             told(tmp_path / "c", reasons_at(0.9), seed=2, system="disguised")]  # fmt: skip
    first, same, other = probes(vary(cases))
    assert math.isnan(first.distance)
    assert same.p_value > 0.05
    assert other.distance > 0.3
    assert other.p_holm < 0.01


def test_the_permutation_keeps_its_level_on_heaps(tmp_path):
    from pbeauty.analysis.contamination import _distance

    generator = np.random.default_rng(4)
    draws = generator.multinomial(80, [0.4, 0.3, 0.2, 0.1], size=(300, 2))
    found = [_distance(one, other, 1)[1] for one, other in draws]
    assert np.mean(np.array(found) < 0.05) <= 0.05 + 0.03


def test_nothing_is_probed_where_neither_wording_nor_p_varies(tmp_path):
    assert probes(vary(games(tmp_path / "a", [40]) + games(tmp_path / "b", [30], offset=1))) == []


# --- on the command line ------------------------------------------------------------------------------------------


def test_a_sweep_on_the_command_line(tmp_path, capsys):
    games(tmp_path / "a", [40, 41, 39])
    games(tmp_path / "b", [30, 31, 29], multiplier="1/2")
    assert main(["analyze", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("6 runs, 2 case(s); what varies: game.multiplier")
    assert out.index("Cases ──") < out.index("Each case less the first")
    assert "How much sessions vary" not in out
    assert main(["analyze", str(tmp_path), "--full"]) == 0
    assert "How much sessions vary" in capsys.readouterr().out
    assert main(["analyze", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["variation"]["varied"] == ["game.multiplier"]
    assert [len(case["runs"]) for case in document["variation"]["cases"]] == [3, 3]


def test_a_group_that_others_lack_is_one_difference(tmp_path):
    """Its name tells the runs apart; all that every such group has is not named once more."""
    crowd = {"name": "crowd", "count": 20, "kind": "uniform"}
    more = {"name": "more", "count": 20, "kind": "uniform", "announce": ["mean", "own_rank"]}
    fixed = {"name": "more", "count": 20, "kind": "fixed", "value": 5}
    runs = []
    for number, population in enumerate([[crowd], [crowd, more], [crowd, fixed], [crowd, more | {"announce": []}]]):
        described = experiment(20 * len(population), population=population)
        with Run(make(tmp_path / str(number), np.full((1, described.count), 30.0), described)) as run:
            runs.append(analyse(run))
    variation = vary(runs[:2])
    assert variation.varied == ["population.1.name"]
    assert [case.short for case in variation.cases] == ["none", "more"]
    variation = vary(runs)
    assert variation.varied == ["population.1.name", "population.1.announce", "population.1.kind"]
    assert len({case.label for case in variation.cases}) == 4
    assert variation.cases[1].settings["population.1.announce"] == "mean, own_rank"


def cases_of(folder, *descriptions):
    """Variation of experiments of 20 participants, `(game, group)` each."""
    runs = []
    for number, (game, group) in enumerate(descriptions):
        crowd = [{"name": "crowd", "count": 20, "kind": "llm", **group}]
        described = experiment(20, name=f"run-{number}", population=crowd, **game)
        with Run(make(folder / str(number), np.full((1, 20), 30.0), described)) as run:
            runs.append(analyse(run))
    return vary(runs)


@pytest.mark.parametrize(
    ("descriptions", "varied", "called"),
    [
        ([({}, {}), ({}, {"announce": []})], ["population.0.announce"], ["target", "nothing"]),
        ([({}, {}), ({"announce": []}, {})], ["game.announce"], ["target", "nothing"]),
        ([({}, {}), ({"announce": ["mean", "median"]}, {})], ["game.announce"], ["target", "mean, median"]),
        ([({}, {}), ({}, {"announce": ["target"]})], [], ["one case"]),
        ([({}, {}), ({"tolerance": 2}, {})], ["game.tolerance"], ["none", "2"]),
    ],
)
def test_what_is_announced_is_in_words(descriptions, varied, called, tmp_path):
    variation = cases_of(tmp_path, *descriptions)
    assert variation.varied == varied
    assert [case.short for case in variation.cases] == called


PERSONAS = {"attributes": {"education": {"high school": 0.5, "doctorate": 0.5}, "age": {"young": 0.5, "old": 0.5}},
            "template": "You are {age} and finished {education}."}  # fmt: skip


def test_personas_that_others_lack_are_one_difference(tmp_path):
    plain, told = {}, {"system_prompt": "background", "personas": PERSONAS}
    old = told | {"personas": PERSONAS | {"template": "You are {age}; your school is {education}."}}
    variation = cases_of(tmp_path / "two", ({}, plain), ({}, told))
    assert variation.varied == ["population.0.system_prompt", "population.0.personas"]
    assert [case.short for case in variation.cases] == ["classic · none", "background · yes"]
    variation = cases_of(tmp_path / "three", ({}, plain), ({}, told), ({}, old))
    assert variation.varied == ["population.0.system_prompt", "population.0.personas.template"]
    assert len(variation.cases) == 3


def test_cases_that_differ_in_many_keys_are_called_by_the_names_of_their_runs(tmp_path):
    other = {"user_prompt": "step-by-step", "retries": 3, "sampling": {"temperature": 0.5}}
    variation = cases_of(tmp_path, ({}, {}), ({"offset": 1}, other))
    assert len(variation.varied) == 4
    assert [case.short for case in variation.cases] == ["run-0", "run-1"]
    assert variation.keys == "case"
