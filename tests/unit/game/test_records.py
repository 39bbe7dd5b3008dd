"""Rows of different lengths: the same as a list of lists, in one flat buffer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pbeauty.game.records import Ragged

ROWS = {
    "ints": (np.int32, st.lists(st.integers(-(2**31), 2**31 - 1), max_size=300)),
    "bytes": (np.uint8, st.binary(max_size=300)),
}
any_rows = pytest.mark.parametrize(("dtype", "row"), ROWS.values(), ids=ROWS)


@any_rows
@settings(max_examples=50)
@given(st.data())
def test_behaves_like_a_list_of_rows(dtype, row, data):
    rows = data.draw(st.lists(row, max_size=25))
    ragged = Ragged(dtype)
    for number, values in enumerate(rows):
        assert len(ragged) == number
        assert ragged.append(values) == number
    assert [ragged[i].tolist() for i in range(len(ragged))] == [list(values) for values in rows]
    order = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=30)) if rows else []
    flat, offsets = ragged.take(np.array(order, np.int64))
    assert flat.dtype == dtype
    assert offsets.dtype == np.int64
    assert offsets[0] == 0
    assert offsets[-1] == len(flat)
    assert [flat[a:b].tolist() for a, b in itertools.pairwise(offsets)] == [list(rows[i]) for i in order]


def test_arrays_can_be_rows():
    ragged = Ragged(np.int32)
    ragged.append(np.array([1, 2, 3], np.int64))
    assert ragged[0].tolist() == [1, 2, 3]
    assert ragged.take(np.array([0]))[0].dtype == np.int32


def test_rows_survive_growth_of_buffer_and_offsets():
    ragged = Ragged(np.int32)
    early = ragged.append([1, 2, 3])
    for number in range(5000):
        ragged.append([number] * (number % 7))
    ragged.append(list(range(100_000)))
    assert ragged[early].tolist() == [1, 2, 3]
    assert all(ragged[i + 1].tolist() == [i] * (i % 7) for i in range(5000))
    assert ragged[5001].tolist() == list(range(100_000))


def test_a_row_taken_before_growth_keeps_its_values():
    ragged = Ragged(np.int32)
    ragged.append([1, 2, 3])
    row = ragged[0]
    flat, _ = ragged.take(np.array([0]))
    for _ in range(3000):
        ragged.append([9] * 10)
    assert row.tolist() == flat.tolist() == [1, 2, 3]


def test_changing_what_was_appended_or_taken_does_not_change_the_rows():
    ragged = Ragged(np.int32)
    values = np.array([1, 2, 3], np.int32)
    ragged.append(values)
    values[:] = 0
    flat, _ = ragged.take(np.array([0]))
    flat[:] = 7
    assert ragged[0].tolist() == [1, 2, 3]


def test_rows_that_exist_already_are_taken_over_and_can_grow():
    flat, offsets = np.array([5, 6, 7], np.int32), np.array([0, 2, 2, 3])
    ragged = Ragged.of(flat, offsets)
    assert [ragged[i].tolist() for i in range(len(ragged))] == [[5, 6], [], [7]]
    assert ragged.take(np.array([2, 0]))[0].tolist() == [7, 5, 6]
    for number in range(2000):
        assert ragged.append([number]) == 3 + number
    assert ragged[0].tolist() == [5, 6]
    assert ragged[2002].tolist() == [1999]
    empty = Ragged.of(np.empty(0, np.int32), np.zeros(1, np.int64))
    assert (len(empty), empty.append([3]), empty[0].tolist()) == (0, 0, [3])


def test_empty_rows_and_no_rows():
    ragged = Ragged(np.uint8)
    flat, offsets = ragged.take(np.array([], np.int64))
    assert (len(flat), offsets.tolist()) == (0, [0])
    ragged.append(b"")
    ragged.append([])
    ragged.append(b"x")
    ragged.append(b"")
    assert [ragged[i].tobytes() for i in range(4)] == [b"", b"", b"x", b""]
    flat, offsets = ragged.take(np.array([3, 0, 1]))
    assert (len(flat), offsets.tolist()) == (0, [0, 0, 0, 0])


@pytest.mark.parametrize("row", [-1, 2, 10**6])
def test_rows_that_are_not_there(row):
    ragged = Ragged(np.uint8)
    ragged.append(b"a")
    ragged.append(b"b")
    with pytest.raises(IndexError, match=f"row {row} of 2"):
        ragged[row]
