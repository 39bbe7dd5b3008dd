"""Participants without a model: what each kind guesses, and that it depends on nothing it should not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbeauty.config.loader import loads
from pbeauty.game.announcement import Announcement
from pbeauty.game.experiment import CognitiveHierarchyGroup, Experiment, FixedGroup, Game, LevelKGroup, UniformGroup
from pbeauty.game.theory import guess, hierarchy_guesses, level_k_guess, poisson_shares
from pbeauty.job import participants
from pbeauty.job.participants import Asking, Participants
from pbeauty.mpi.partition import partition_population

UNIFORM = UniformGroup(name="u", count=1, kind="uniform")
INTEGERS = UniformGroup(name="i", count=1, kind="uniform", integers=True)
FIXED = FixedGroup(name="f", count=1, kind="fixed", value=42.5)
HIERARCHY = CognitiveHierarchyGroup(name="c", count=1, kind="cognitive_hierarchy", tau=1.5)


def level_k(level):
    return LevelKGroup(name="l", count=1, kind="level_k", level=level)


def hierarchy(tau):
    return CognitiveHierarchyGroup(name="c", count=1, kind="cognitive_hierarchy", tau=tau)


def play(group, game=None, told=None, *, seed=7, round_index=0, start=0, stop=1000):
    """The guesses of participants start..stop-1 of one session that is a group alone."""
    game = (game or Game()).model_copy(update={"announce": tuple(told or ())})
    many = group.model_copy(update={"count": 2**31 - 1})
    experiment = Experiment(name="trial", seed=seed, game=game, population=(many,))
    announcement = Announcement(round_index, {name: np.array([value]) for name, value in (told or {}).items()})
    return guess(experiment, 0, announcement, np.arange(start, stop))


ALL = {
    "uniform": UNIFORM,
    "integers": INTEGERS,
    "fixed": FIXED,
    "level 0": level_k(0),
    "level 2": level_k(2),
    "hierarchy": HIERARCHY,
}
every_kind = pytest.mark.parametrize("group", ALL.values(), ids=ALL)
drawing_kinds = pytest.mark.parametrize(
    "group", [ALL[name] for name in ("uniform", "integers", "level 0", "hierarchy")]
)


# --- what guesses depend on --------------------------------------------------------------------------------


@every_kind
@settings(max_examples=40)
@given(st.integers(0, 10**9), st.lists(st.integers(0, 50), max_size=6), st.integers(0, 5))
def test_any_partition_plays_the_same(group, start, cuts, round_index):
    told = {"target": 25.0} if round_index else {}
    whole = play(group, told=told, round_index=round_index, start=start, stop=start + 50)
    edges = [start, *sorted(start + cut for cut in cuts), start + 50]
    parts = [play(group, told=told, round_index=round_index, start=a, stop=b) for a, b in itertools.pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert whole.dtype == np.float64


@drawing_kinds
def test_seeds_and_rounds_play_differently(group):
    first = play(group)
    assert (first != play(group, seed=8)).mean() > 0.2
    assert (first != play(group, round_index=1)).mean() > 0.1
    np.testing.assert_array_equal(first, play(group))


def test_a_fixed_group_always_guesses_its_value():
    assert (play(FIXED, told={"target": 3.0}, round_index=4) == 42.5).all()


def test_uniform_guesses_ignore_announcements():
    np.testing.assert_array_equal(play(UNIFORM, round_index=2), play(UNIFORM, told={"target": 1.0}, round_index=2))


# --- ranges ------------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(
    st.sampled_from([group for name, group in ALL.items() if name != "fixed"]),
    st.sampled_from(["1/2", "2/3", "1", "4/3", "5"]),
    st.floats(-200, 200),
    st.floats(-1000, 1000),
    st.floats(1, 1000),
    st.none() | st.sampled_from(["target", "winning_guess", "mean", "median"]),
    st.floats(0, 1),
)
def test_guesses_stay_in_the_range(group, multiplier, offset, low, width, quantity, where):
    game = Game(multiplier=multiplier, offset=offset, low=low, high=low + width)
    told = {quantity: min(low + where * width, game.high)} if quantity else {}
    guesses = play(group, game, told, stop=64)
    assert guesses.shape == (64,)
    assert (guesses >= game.low).all()
    assert (guesses <= game.high).all()


@pytest.mark.parametrize(("low", "high"), [(0, 100), (-30, 10), (5, 5.5)])
def test_uniform_guesses_fill_the_range(low, high):
    shares = (play(UNIFORM, Game(low=low, high=high), stop=100_000) - low) / (high - low)
    counts = np.bincount((shares * 10).astype(int), minlength=10)
    assert abs(counts - 10_000).max() < 450


@pytest.mark.parametrize(
    ("low", "high", "values"),
    [(0, 4, range(5)), (-2, 2, range(-2, 3)), (0.5, 3.9, range(1, 4)), (-1.5, -0.5, [-1]), (3, 3.5, [3])],
)
def test_integer_guesses_include_both_ends_alike(low, high, values):
    guesses = play(INTEGERS, Game(low=low, high=high), stop=20_000)
    found, counts = np.unique(guesses, return_counts=True)
    assert found.tolist() == list(values)
    assert (abs(counts - 20_000 / len(values)) < 4 * np.sqrt(20_000 / len(values))).all()


# --- level-k -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("multiplier", ["1/2", "2/3", "0.7", "1"])
@pytest.mark.parametrize("level", [1, 2, 3, 10, 1000])
def test_level_k_multiplies_the_midpoint_by_p_to_the_k(multiplier, level):
    game = Game(multiplier=multiplier)
    assert play(level_k(level), game) == pytest.approx(50 * game.p**level)


def test_level_k_with_an_offset_nears_the_fixed_point():
    game = Game(multiplier="1/2", offset=20)
    assert [level_k_guess(game, level, 50) for level in range(5)] == [50, 45, 42.5, 41.25, 40.625]


def test_level_k_stops_at_the_end_of_the_range():
    assert [level_k_guess(Game(multiplier="4/3"), level, 60) for level in (1, 2, 3)] == pytest.approx([80, 100, 100])
    assert level_k_guess(Game(multiplier="1/2", offset=-30), 3, 50) == 0


def test_level_k_reacts_to_what_was_announced():
    game = Game(multiplier="1/2")
    assert (play(level_k(1), game, {"mean": 30.0}) == 15).all()
    assert (play(level_k(2), game, {"target": 15.0}) == 7.5).all()
    assert (play(level_k(2), game, {}) == 12.5).all()


def test_level_0_spreads_around_the_reference_and_keeps_it_as_its_mean():
    first = play(level_k(0), stop=100_000)
    assert (first.min() < 1, first.max() > 99) == (True, True)
    assert first.mean() == pytest.approx(50, abs=0.3)
    later = play(level_k(0), told={"mean": 20.0}, round_index=1, stop=100_000)
    assert (later.min() >= 0, later.max() <= 40) == (True, True)
    assert later.mean() == pytest.approx(20, abs=0.15)
    assert (play(level_k(0), told={"mean": 0.0}, round_index=1) == 0).all()


# --- cognitive hierarchy -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("multiplier", "tau", "mean"), [("2/3", 0.5, 43.10), ("2/3", 1.1, 36.91), ("2/3", 1.6, 32.72), ("1/2", 1.5, 26.67)]
)
def test_hierarchy_means_are_those_of_camerer_ho_and_chong(multiplier, tau, mean):
    game = Game(multiplier=multiplier)
    predicted = poisson_shares(tau) @ hierarchy_guesses(game, tau, 50)
    assert round(predicted, 2) == mean
    assert play(hierarchy(tau), game, stop=200_000).mean() == pytest.approx(predicted, abs=0.25)


def test_hierarchy_guesses_by_hand():
    choices = hierarchy_guesses(Game(multiplier="1/2"), 1.0, 40.0)
    # Levels 0 and 1 are equally many at tau = 1, level 2 half as many.
    assert choices[:4] == pytest.approx([40, 20, 0.5 * (40 + 20) / 2, 0.5 * (40 + 20 + 15 / 2) / 2.5])


@pytest.mark.parametrize("tau", [0, 1e-9, 0.5, 1.5, 7.3, 20])
def test_poisson_shares(tau):
    shares = poisson_shares(tau)
    assert shares.sum() == pytest.approx(1)
    assert shares @ np.arange(len(shares)) == pytest.approx(tau, abs=1e-9)
    assert (shares >= 0).all()
    if tau:
        assert shares[1] / shares[0] == pytest.approx(tau)


def test_hierarchy_at_tau_0_is_level_0():
    np.testing.assert_array_equal(play(hierarchy(0.0)), play(level_k(0)))


def test_hierarchy_at_tau_20_thinks_far_and_stays_finite():
    guesses = play(hierarchy(20.0), stop=10_000)
    assert np.isfinite(guesses).all()
    assert guesses.mean() < play(hierarchy(5.0), stop=10_000).mean() < play(hierarchy(1.0), stop=10_000).mean()


def test_levels_belong_to_participants_for_the_whole_game():
    rounds = [play(HIERARCHY, round_index=t) for t in range(3)]
    choices = hierarchy_guesses(Game(), 1.5, 50.0)
    thinkers = [np.isin(guesses, choices[1:]) for guesses in rounds]
    np.testing.assert_array_equal(thinkers[0], thinkers[1])
    for t in (1, 2):
        np.testing.assert_array_equal(rounds[0][thinkers[0]], rounds[t][thinkers[0]])
        assert (rounds[0][~thinkers[0]] != rounds[t][~thinkers[0]]).all()
    assert thinkers[0].mean() == pytest.approx(1 - poisson_shares(1.5)[0], abs=0.05)


def test_shares_of_levels_are_poisson():
    choices = hierarchy_guesses(Game(), 1.5, 50.0)
    guesses = play(HIERARCHY, stop=100_000)
    for level, share in list(enumerate(poisson_shares(1.5)))[1:6]:
        assert (guesses == choices[level]).mean() == pytest.approx(share, abs=0.006)


def test_hierarchy_reacts_to_what_was_announced():
    told = {"target": 20.0}
    game = Game(multiplier="1/2")
    guesses = play(HIERARCHY, game, told, round_index=1)
    choices = hierarchy_guesses(game, 1.5, 40.0)
    assert np.isin(guesses, choices[1:]).mean() > 0.6
    assert guesses.max() <= 80
    assert guesses.mean() < play(HIERARCHY, game, round_index=1).mean()


# --- sessions ----------------------------------------------------------------------------------------------


@every_kind
def test_each_session_plays_by_its_own_announcement(group):
    members = group.model_copy(update={"count": 50})
    experiment = Experiment(name="trial", seed=7, sessions=3, population=(members,))

    def play_on(targets, ids):
        return guess(experiment, 0, Announcement(1, {"target": np.array(targets)}), ids)

    targets = [5.0, 20.0, 60.0]
    together = play_on(targets, np.arange(150))
    alone = [play_on([target] * 3, np.arange(50) + 50 * number) for number, target in enumerate(targets)]
    np.testing.assert_array_equal(together, np.concatenate(alone))
    some = np.array([3, 49, 100, 149])
    np.testing.assert_array_equal(play_on(targets, some), together[some])


def test_a_group_is_told_what_it_is_to_be_told():
    experiment = loads(
        "name: x\ngame: {announce: [target]}\npopulation: [{name: a, count: 2, kind: level_k, level: 1}, "
        "{name: b, count: 2, kind: level_k, level: 1, announce: []}, "
        "{name: c, count: 2, kind: level_k, level: 1, announce: [mean]}]"
    )
    told = Announcement(1, {"target": np.array([20.0]), "mean": np.array([15.0])})
    block = partition_population(experiment, 1)[0]
    guesses = Participants(experiment, block).answer(told).rows["guess"]
    assert guesses.tolist() == pytest.approx([20, 20, 50 * 2 / 3, 50 * 2 / 3, 10, 10])


# --- stability ---------------------------------------------------------------------------------------------


def test_results_stay_the_same_between_versions():
    assert [play(group, stop=3, round_index=1).tolist() for group in (UNIFORM, INTEGERS, level_k(0), HIERARCHY)] == [
        [16.10643620563118, 58.81131648986474, 54.927322642109445],
        [16.0, 59.0, 55.0],
        [16.106436205631184, 58.81131648986474, 54.927322642109445],
        [26.666666666666664, 33.33333333333333, 33.33333333333333],
    ]


@pytest.mark.parametrize("stop_after", [None, 0, 2])
def test_a_large_block_tells_how_far_it_is_and_can_be_broken_off(stop_after, monkeypatch):
    monkeypatch.setattr(participants, "_AT_ONCE", 10)
    groups = "[{name: a, count: 25, kind: uniform}, {name: b, count: 15, kind: uniform}]"
    experiment = loads(f"name: x\npopulation: {groups}")
    heard = []

    def tick(progress):
        heard.append(progress.done)
        return stop_after is None or len(heard) <= stop_after

    play = Participants(experiment, partition_population(experiment, 1)[0]).answer(Announcement(0, {}), Asking(tick))
    assert heard == [10, 20, 30][: None if stop_after is None else stop_after + 1]
    assert play.complete == (stop_after is None)
    if play.complete:
        assert play.progress.done == 40 and not np.isnan(play.rows["guess"]).any()
