"""Journals that were cut, flipped or made up: whatever is whole in them is read, and nothing else."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from journals import read

from pbeauty.game.records import Reply
from pbeauty.storage.journal import Journal, ReplayedReplies, journal_path, journals

REPLIES = st.builds(
    Reply,
    tokens=st.lists(st.integers(0, 2**31 - 1), max_size=8),
    truncated=st.booleans(),
    prompt_tokens=st.integers(0, 2**32 - 1),
    cached_tokens=st.integers(0, 2**32 - 1),
    text=st.just(""),  # a journal keeps none
)
PARTICIPANTS = st.integers(0, 20) | st.integers(0, 2**64 - 1)
RECORDS = st.lists(st.tuples(PARTICIPANTS, st.integers(0, 2**16 - 1), REPLIES), max_size=12)


def written(path, records):
    path.unlink(missing_ok=True)
    journal = Journal(path)
    for record in records:
        journal.append(*record)
    journal.close()
    return path


@given(records=RECORDS)
def test_what_is_written_is_read(tmp_path_factory, records):
    path = written(tmp_path_factory.getbasetemp() / "read", records)
    assert list(read(path)) == records


@given(records=RECORDS, cut=st.floats(0, 1))
def test_a_torn_tail_costs_only_the_record_that_it_tears(tmp_path_factory, records, cut):
    path = written(tmp_path_factory.getbasetemp() / "torn", records)
    data = path.read_bytes()[: int(cut * path.stat().st_size)]
    path.write_bytes(data)
    found = [record for record in read(path) if record]
    assert found == records[: len(found)]
    ends = [0]
    for record in records:
        ends.append(ends[-1] + 12 + struct.calcsize("<QHBII") + 4 * len(record[2].tokens))
    assert len(found) == sum(end <= len(data) for end in ends) - 1


@given(records=RECORDS.filter(bool), where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_flipped_byte_costs_only_the_record_that_it_is_in(tmp_path_factory, records, where, flip):
    path = written(tmp_path_factory.getbasetemp() / "flipped", records)
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= flip
    path.write_bytes(data)
    found = list(read(path))
    whole = [record for record in found if record]
    assert len(whole) == len(records) - 1
    assert all(record in records for record in whole)
    assert None in found


@given(junk=st.binary(max_size=300))
def test_junk_is_no_record_and_no_error(tmp_path_factory, junk):
    path = tmp_path_factory.getbasetemp() / "junk"
    path.write_bytes(b"\xb5pbr" + junk)
    assert all(record is None for record in read(path))


def test_a_damaged_length_asks_for_no_memory(tmp_path):
    path = tmp_path / "long"
    path.write_bytes(b"\xb5pbr" + struct.pack("<II", 2**32 - 1, 0) + b"x" * 100)
    assert list(read(path)) == [None]


def test_damage_is_told_once_a_file_and_foreign_tokens_are_damage(tmp_path):
    whole, foreign = (1, 0, Reply([1, 2], False, 9, 0)), (2, 0, Reply([1, 999], False, 9, 0))
    path = written(tmp_path / "mixed", [whole, foreign])
    path.write_bytes(path.read_bytes()[:-3])
    told = []
    recorded = ReplayedReplies([path, written(tmp_path / "good", [foreign])], np.arange(5), 500, told.append)
    assert recorded.get(1, 0) == whole[2] and recorded.get(2, 0) is None
    assert len(told) == 2 and all("damaged or unfinished" in line for line in told)
    assert str(path) in told[0]


def test_only_wanted_participants_are_kept(tmp_path):
    path = written(tmp_path / "many", [(who, 0, Reply([who], False, 1, 0)) for who in range(10)])
    recorded = ReplayedReplies([path], np.arange(0, 10, 2), 100, pytest.fail)
    assert len(recorded) == 5 and recorded.get(3, 0) is None and recorded.get(4, 0).tokens == [4]


@given(records=st.lists(RECORDS, max_size=3))
def test_replies_are_found_by_participant_and_call_whatever_file_holds_them(tmp_path_factory, records):
    folder = tmp_path_factory.getbasetemp()
    files = [written(folder / f"found-{number}", some) for number, some in enumerate(records)]
    own = {record[:2]: record[2] for some in reversed(records) for record in reversed(some) if record[0] < 2**47}
    wanted = np.array(sorted({participant for participant, _ in own}), np.int64)
    recorded = ReplayedReplies(files, wanted, 2**31, pytest.fail)
    assert len(recorded) == len(own)
    assert all(recorded.get(*call) == reply for call, reply in own.items())


def test_only_journals_that_may_have_a_blocks_replies_are_read(tmp_path):
    """By name; those with names of another kind may have anything."""
    blocks = [(0, 10), (10, 30), (30, 31), (5, 40), (0, 0)]
    for rank, span in enumerate(blocks):
        written(journal_path(tmp_path, 2, "5e55", rank, span), [])
    (tmp_path / "journal/0003/5e55-00007").touch()

    def found(start, stop):
        names = [path.name.removeprefix("5e55-") for path in journals(tmp_path, 2, (start, stop))]
        assert names[-1] == "00007"
        return [blocks[int(name[:5])] for name in names[:-1]]

    assert found(0, 40) == blocks[:4]
    assert found(0, 5) == [(0, 10)]
    assert found(10, 30) == [(10, 30), (5, 40)]
    assert found(31, 39) == [(5, 40)]
    assert found(39, 99) == [(5, 40)]
    assert journals(tmp_path, 0, (0, 40)) == []
