"""Draws that depend on the seed, the stream, the round and the participant, and on nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbeauty.game.randomness import seeds, uniforms


def stretch(draw):
    """The draws of participants start..stop-1."""
    return lambda *key: draw(*key[:-2], np.arange(*key[-2:]))


uniforms_of, seeds_of = stretch(uniforms), stretch(seeds)
DRAWS = {"uniforms": uniforms_of, "seeds": seeds_of}
both = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
N = 20_000


@both
@given(st.data(), st.integers(0, 10**12), st.integers(0, 60))
def test_any_split_of_a_block_draws_the_same(draw, data, start, count):
    cuts = sorted(data.draw(st.lists(st.integers(start, start + count), max_size=8)))
    whole = draw(3, "guess", 2, start, start + count)
    edges = [start, *cuts, start + count]
    parts = [draw(3, "guess", 2, a, b) for a, b in itertools.pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert len(whole) == count


@both
@given(st.sets(st.integers(0, 5000) | st.integers(10**9, 10**9 + 300), min_size=1, max_size=30))
def test_participants_with_gaps_between_them_draw_what_each_draws_alone(draw, chosen):
    original = uniforms if draw is uniforms_of else seeds
    found = original(3, "guess", 2, np.array(sorted(chosen)))
    np.testing.assert_array_equal(found, np.concatenate([draw(3, "guess", 2, i, i + 1) for i in sorted(chosen)]))


@both
def test_repeating_a_draw_gives_the_same(draw):
    np.testing.assert_array_equal(draw(7, "guess", 0, 5, 50), draw(7, "guess", 0, 5, 50))


@both
@pytest.mark.parametrize(
    "other",
    [
        (8, "guess", 3),
        (7, "level", 3),
        (7, "guess", 4),
        (7, "guess/3", 3),
        (73, "guess", 3),
        (2**63 - 1, "guess", 3),
    ],
)
def test_seeds_streams_and_rounds_are_independent(draw, other):
    ours, theirs = (draw(*key, 0, N).astype(float) for key in ((7, "guess", 3), other))
    assert (ours != theirs).mean() > 0.99
    for shift in range(4):
        assert abs(np.corrcoef(ours[shift:], theirs[: N - shift])[0, 1]) < 4 / np.sqrt(N)


@both
def test_neighbouring_participants_are_independent(draw):
    values = draw(7, "guess", 0, 0, N).astype(float)
    for lag in range(1, 9):
        assert abs(np.corrcoef(values[lag:], values[:-lag])[0, 1]) < 4 / np.sqrt(N)
    assert len(np.unique(values)) == N


def test_participants_of_neighbouring_rounds_and_seeds_never_share_draws():
    blocks = [seeds_of(seed, "reply", t, 0, 1000) for seed in range(5) for t in range(5)]
    assert len(np.unique(np.concatenate(blocks))) == 25_000


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_draws_are_uniform(seed):
    values = uniforms_of(seed, "guess", 0, 0, 100_000)
    assert values.min() >= 0
    assert values.max() < 1
    observed = np.bincount((values * 100).astype(int), minlength=100)
    chi_square = ((observed - 1000) ** 2 / 1000).sum()
    assert 60 < chi_square < 149  # 99 degrees of freedom: two-sided 0.1 %


def test_seeds_fill_their_range():
    values = seeds_of(11, "reply", 0, 0, 100_000)
    assert values.dtype == np.int64
    assert values.min() >= 0
    observed = np.bincount(values >> 56, minlength=128)
    assert 75 < ((observed - 781.25) ** 2 / 781.25).sum() < 186  # 127 degrees of freedom: two-sided 0.1 %
    low_bits = np.bincount(values & 63, minlength=64)
    assert 31 < ((low_bits - 1562.5) ** 2 / 1562.5).sum() < 107  # 63 degrees of freedom: two-sided 0.1 %


def test_an_empty_block_draws_nothing():
    for draw in DRAWS.values():
        assert draw(1, "guess", 0, 6, 6).shape == (0,)


def test_results_stay_the_same_between_versions():
    assert uniforms_of(7, "guess", 0, 0, 3).tolist() == [0.9151926822517666, 0.6493066494600813, 0.5577397437874586]
    assert uniforms_of(2**63 - 1, "level", 12, 10**9, 10**9 + 2).tolist() == [0.18853148700186906, 0.9999268037131857]
    assert seeds_of(7, "reply", 0, 1, 4).tolist() == [7435419639056197895, 3618312393438586958, 8091362230054885973]
