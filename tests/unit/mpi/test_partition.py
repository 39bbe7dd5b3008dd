"""Who hosts whom: every participant once, evenly, whatever the numbers of ranks, groups and models."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pbeauty.errors import ConfigError
from pbeauty.game.experiment import Experiment, LLMGroup, Model, UniformGroup
from pbeauty.game.population import everybody, groups_of, ids, largest_remainders, rows_of, span
from pbeauty.mpi.partition import partition_population


def population(*groups, weights=None, sessions=1):
    """An experiment of groups given as (model or None for scripted ones, count)."""
    made = [
        LLMGroup(name=f"g{i}", count=count, kind="llm", model=model)
        if model
        else UniformGroup(name=f"g{i}", count=count, kind="uniform")
        for i, (model, count) in enumerate(groups)
    ]
    models = {model: Model(weight=(weights or {}).get(model)) for model, _ in groups if model}
    return Experiment(name="trial", sessions=sessions, models=models, population=tuple(made))


def hosted_ids(block):
    return ids(block).tolist()


def hosted(blocks):
    """What a rank's participants are, by group: their ids."""
    found = []
    for block in blocks:
        of_block = {}
        for participant, group in zip(hosted_ids(block), groups_of(block).tolist(), strict=True):
            of_block.setdefault(group, []).append(participant)
        found.append(of_block)
    return found


groups = st.lists(st.tuples(st.sampled_from([None, "a", "b", "c"]), st.integers(1, 40)), min_size=1, max_size=7)


@given(groups, st.integers(1, 4), st.integers(1, 14))
def test_every_participant_is_hosted_once_and_evenly(parts, sessions, ranks):
    experiment = population(*parts, sessions=sessions)
    models = {model for model, _ in parts if model}
    hosts = ranks if ranks == 1 else ranks - 1
    assume(len(models) <= hosts)
    blocks = partition_population(experiment, ranks)
    assert len(blocks) == ranks
    at = [hosted_ids(block) for block in blocks]
    assert sorted(itertools.chain(*at)) == list(range(experiment.count))
    assert all(len(segment) > 0 for block in blocks for segment in block)
    assert all(
        span(block) == ((min(found), max(found) + 1) if found else (0, 0))
        for block, found in zip(blocks, at, strict=True)
    )
    if ranks > 1:
        assert blocks[0] == ()

    group_of = [index for index, (_, count) in enumerate(parts) for _ in range(count)] * sessions
    assert everybody(experiment).group_of().tolist() == group_of
    for block in blocks:
        assert groups_of(block).tolist() == [group_of[i] for i in hosted_ids(block)]
        for segment, where in zip(block, rows_of(block), strict=True):
            own = segment.ids().tolist()
            assert own == sorted(own) == hosted_ids(block)[where]
            middle = len(segment) // 2
            assert [*segment.part(0, middle).ids(), *segment.part(middle, len(segment) + 5).ids()] == own

    playing = at[ranks - hosts :]
    model_of = [parts[group][0] for group in group_of]
    at_ranks = [{model_of[i] for i in block} - {None} for block in playing]
    assert all(len(found) <= 1 for found in at_ranks), "a rank starts one engine at most"
    for kind in {model for model, _ in parts}:
        sizes = [sum(model_of[i] == kind for i in block) for block in playing]
        shares = sizes if kind is None else sizes[: max(i for i, s in enumerate(sizes) if s) + 1]
        used = [size for size in shares if size]
        assert max(used) - min(used) <= 1
        if kind is None:
            assert max(sizes) - min(sizes) <= 1


def test_one_rank_hosts_everybody():
    assert hosted(partition_population(population(("a", 3), (None, 2)), 1)) == [{0: [0, 1, 2], 1: [3, 4]}]


def test_two_ranks_are_a_moderator_and_a_host():
    assert hosted(partition_population(population(("a", 3), (None, 2)), 2)) == [{}, {0: [0, 1, 2], 1: [3, 4]}]


def test_language_models_come_first_in_a_block():
    assert hosted_ids(partition_population(population((None, 2), ("a", 3)), 1)[0]) == [2, 3, 4, 0, 1]


def test_the_rest_is_spread_over_the_first_hosts():
    blocks = partition_population(population((None, 5), (None, 3)), 4)
    assert hosted(blocks) == [{}, {0: [0, 1, 2]}, {0: [3, 4], 1: [5]}, {1: [6, 7]}]


def test_scripted_participants_are_spread_over_the_ranks_of_all_models():
    blocks = partition_population(population(("a", 6), (None, 4), ("b", 6)), 5)
    assert [sorted(found) for found in hosted(blocks)] == [[], [0, 1], [0, 1], [1, 2], [1, 2]]


def test_groups_of_one_model_share_its_ranks():
    blocks = partition_population(population(("a", 2), ("b", 4), ("a", 2)), 3)
    assert hosted(blocks) == [{}, {0: [0, 1], 2: [6, 7]}, {1: [2, 3, 4, 5]}]


def test_sessions_lie_one_after_the_other_and_each_model_has_its_part_of_all():
    blocks = partition_population(population(("a", 1), ("b", 2), sessions=3), 3)
    assert hosted(blocks) == [{}, {0: [0, 3, 6]}, {1: [1, 2, 4, 5, 7, 8]}]


@pytest.mark.parametrize(
    ("weights", "ranks_of_each"),
    [
        ({}, {"a": 6, "b": 2}),
        ({"a": 1, "b": 1}, {"a": 4, "b": 4}),
        ({"a": 0.1, "b": 0.3}, {"a": 3, "b": 5}),
        ({"b": 300}, {"a": 4, "b": 4}),
    ],
)
def test_ranks_go_to_models_by_weight_or_else_by_participants(weights, ranks_of_each):
    blocks = partition_population(population(("a", 300), ("b", 100), weights=weights), 9)
    at = [{"ab"[group] for group in found} for found in hosted(blocks)[1:]]
    assert {model: at.count({model}) for model in "ab"} == ranks_of_each


def test_more_ranks_than_participants_leaves_some_without_any():
    blocks = partition_population(population(("a", 2), (None, 1)), 6)
    assert sorted(hosted_ids(itertools.chain(*blocks))) == [0, 1, 2]
    assert [sum(map(len, block)) for block in blocks] == [0, 2, 1, 0, 0, 0]


@pytest.mark.parametrize(("models", "ranks", "needed"), [(2, 1, 3), (2, 2, 3), (3, 3, 4), (3, 1, 4)])
def test_fewer_ranks_than_models_is_refused(models, ranks, needed):
    experiment = population(*[(f"m{i}", 5) for i in range(models)])
    with pytest.raises(ConfigError, match=f"{models} models .*start at least {needed} ranks, not {ranks}$") as caught:
        partition_population(experiment, ranks)
    assert all(f"m{i}" in str(caught.value) for i in range(models))
    assert len(partition_population(experiment, needed)) == needed


def test_hosting_ten_million_participants_is_arithmetic():
    blocks = partition_population(population(("a", 2**31 - 1), (None, 2**31 - 1)), 65)
    assert sum(len(segment) for block in blocks for segment in block) == 2**32 - 2
    assert sum(len(block) for block in blocks) <= 130


# --- shares ------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**9), st.integers(1, 50))
def test_equal_shares_are_even_and_whole(count, parts):
    shares = largest_remainders(count, [1] * parts)
    assert sum(shares) == count
    assert len(shares) == parts
    assert shares == sorted(shares, reverse=True)
    assert shares[0] - shares[-1] <= 1


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=9), st.integers(0, 100))
def test_shares_are_whole_and_near_the_weights(weights, count):
    shares = largest_remainders(count, weights)
    assert sum(shares) == count
    for share, weight in zip(shares, weights, strict=True):
        assert abs(share - count * weight / sum(weights)) < 1
    for (share, weight), (other, lighter) in itertools.permutations(zip(shares, weights, strict=True), 2):
        assert weight <= lighter or share >= other
        assert weight != lighter or abs(share - other) <= 1


@pytest.mark.parametrize(
    ("seats", "weights", "shares"),
    [
        (3, [1, 1, 1], [1, 1, 1]),
        (4, [100, 100], [2, 2]),
        (5, [100, 100], [3, 2]),
        (8, [300, 100], [6, 2]),
        (8, [1, 10**9], [1, 7]),
        (1, [5], [1]),
        (7, [5], [7]),
        (8, [0.1, 0.2], [3, 5]),
        (4, [1e-9, 1e15], [1, 3]),
    ],
)
def test_every_model_has_a_rank_and_the_others_are_dealt_out_by_weight(seats, weights, shares):
    names = [f"m{index}" for index in range(len(weights))]
    experiment = population(*((name, 100) for name in names), weights=dict(zip(names, weights, strict=True)))
    blocks = partition_population(experiment, seats + 1)[1:]
    assert [sum(block[0].groups == (index,) for block in blocks) for index in range(len(weights))] == shares
