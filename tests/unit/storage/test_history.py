"""What was said in finished rounds: found again in the files of replies, whoever wrote them, and not kept in memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parrot import Engine
from talker import Engine as Talker
from test_store import ABOUT, EXPERIMENT, RunWriter, commit

from pbeauty.config.loader import loads
from pbeauty.errors import RunFileError
from pbeauty.game.announcement import Announcement
from pbeauty.game.records import Purpose, Replies
from pbeauty.job.participants import Participants
from pbeauty.mpi.partition import partition_population
from pbeauty.storage import replies
from pbeauty.storage.replies import StoredReplies, stored_replies, write_replies
from pbeauty.storage.run_reader import Run

calls = st.lists(
    st.tuples(st.sampled_from([Purpose.RETRY, Purpose.EXTRACTION]), st.lists(st.integers(0, 2**31 - 1), max_size=9)),
    max_size=3,
)


def replies_of(block):
    """The replies of a block, {participant: [(purpose, tokens), ...]}."""
    replies = Replies()
    for participant, said in block.items():
        for purpose, tokens in said:
            replies.append(participant, purpose, "x" * len(tokens), tokens)
    return replies


def sealed_by(folder, blocks, round_index=0):
    """Writes the replies of blocks; the paths."""
    return [write_replies(folder, "id", round_index, min(block), replies_of(block))[0] for block in blocks]


@settings(max_examples=40)
@given(st.data())
def test_everybodys_last_answer_is_found_whatever_files_it_is_in(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("said")
    count, blocks = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 4))
    said = {
        who: [(Purpose.ANSWER, data.draw(st.lists(st.integers(0, 99), max_size=9))), *data.draw(calls)]
        for who in range(count)
    }
    owner = [data.draw(st.integers(0, blocks - 1)) for _ in range(count)]
    hosted = [{who: said[who] for who in range(count) if owner[who] == block} for block in range(blocks)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replies, "_BYTES_PER_FILE", data.draw(st.sampled_from([1, 200, 1000, 1 << 25])))
        patch.setattr(replies, "_TOKENS_AT_ONCE", data.draw(st.sampled_from([1, 20, 1 << 18])))
        patch.setattr(replies, "_FEWEST", data.draw(st.integers(1, 8)))
        written = [write_replies(folder, "id", 0, min(block), replies_of(block)) for block in hosted if block]
        everywhere = sorted(stored for files, _ in written for stored in files)
        asked = np.array(sorted(data.draw(st.sets(st.sampled_from(range(count)), min_size=1))))
        read = stored_replies(folder, everywhere, asked)
        kept = StoredReplies([one for _, positions in written for one in positions], np.arange(count))
        for slot in data.draw(st.lists(st.integers(0, len(asked) - 1), max_size=60)):
            last = [tokens for purpose, tokens in said[asked[slot]] if purpose != Purpose.EXTRACTION][-1]
            assert read[slot].tolist() == kept[asked[slot]].tolist() == last
    for stored in everywhere:
        with h5py.File(folder / stored.path) as file:
            assert file["participant"][0] >= int(Path(stored.path).stem)


def test_large_rounds_are_sealed_in_several_files_that_part_nobodys_replies(tmp_path, monkeypatch):
    monkeypatch.setattr(replies, "_BYTES_PER_FILE", 500)
    writer = RunWriter.create(tmp_path, EXPERIMENT, ABOUT)
    said = {who: [(Purpose.ANSWER, [who] * 30), (Purpose.RETRY, [who] * (1 + who))] for who in range(5)}
    (paths,) = sealed_by(tmp_path, [said])
    commit(writer, 0, [paths])
    assert [path for path, _ in paths] == [f"replies/0001/{first:09d}.h5" for first in (0, 3)]
    seen = []
    for path, _ in paths:
        with h5py.File(tmp_path / path) as block:
            seen += block["participant"][:].tolist()
    assert seen == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    with Run(tmp_path) as run:
        assert [[len(r.text) for r in run.replies(1, who)] for who in range(5)] == [[30, 1 + who] for who in range(5)]
        spoken = run.last_answers(0, np.arange(5))
        assert [spoken[seat].tolist() for seat in (4, 0, 2)] == [[4] * 5, [0], [2] * 3]


def test_replies_are_found_where_blocks_lie_between_each_other(tmp_path):
    """As where models take turns in the order of participants."""
    writer = RunWriter.create(tmp_path, EXPERIMENT, ABOUT)
    one = {who: [(Purpose.ANSWER, [who])] for who in (0, 3, 4)}
    other = {who: [(Purpose.ANSWER, [who, who])] for who in (1, 2)}
    commit(writer, 0, sealed_by(tmp_path, [one, other]))
    with Run(tmp_path) as run:
        assert [len(run.replies(1, who)[0].text) for who in range(5)] == [1, 2, 2, 1, 1]
        assert run.replies(1, 7) == [], "it has no model"
        spoken = run.last_answers(0, np.array([2, 4]))
        assert [spoken[seat].tolist() for seat in (0, 1)] == [[2, 2], [4]]


def test_who_resumes_opens_the_files_of_its_own_participants(tmp_path, monkeypatch):
    writer = RunWriter.create(tmp_path, EXPERIMENT, ABOUT)
    commit(writer, 0, sealed_by(tmp_path, [{who: [(Purpose.ANSWER, [who])]} for who in range(5)]))
    opened = []
    real = replies.open_file
    monkeypatch.setattr(replies, "open_file", lambda path, digest: (opened.append(path.stem), real(path, digest))[1])
    with Run(tmp_path) as run:
        run.last_answers(0, np.array([2, 3]))
    assert opened == ["000000003", "000000002"]


def test_what_is_missing_or_altered_is_an_error(tmp_path):
    writer = RunWriter.create(tmp_path, EXPERIMENT, ABOUT)
    (paths,) = sealed_by(tmp_path, [{who: [(Purpose.ANSWER, [who] * 3)] for who in range(4)}])
    commit(writer, 0, [paths])
    with Run(tmp_path) as run, pytest.raises(RunFileError, match="replies/0001: the replies of some participants are"):
        run.last_answers(0, np.arange(5))
    with Run(tmp_path) as run:
        spoken = run.last_answers(0, np.arange(4))
    (tmp_path / paths[0].path).unlink()
    with pytest.raises(RunFileError, match=r"000000000\.h5: No such file"):
        spoken[1]
    sealed_by(tmp_path, [{0: [(Purpose.ANSWER, [])]}])
    with pytest.raises(RunFileError, match="altered while the run was played"):
        spoken[1]


def test_conversations_are_the_same_once_their_replies_are_sealed(tmp_path, monkeypatch):
    monkeypatch.setattr(replies, "_FEWEST", 3)
    monkeypatch.setattr(replies, "_TOKENS_AT_ONCE", 1)
    birds = {"name": "birds", "count": 40, "kind": "llm", "extraction": "pattern-then-model"}
    experiment = loads(json.dumps({"name": "x", "seed": 3, "game": {"rounds": 3}, "population": [birds]}))
    block = Participants(experiment, partition_population(experiment, 1)[0], Engine(None, None, 0))
    for round_index in range(3):
        play = block.answer(Announcement(round_index, {"target": np.array([20.0])} if round_index else {}))
        before = [block.llm.prompt(seat) for seat in range(40)]
        _, positions = write_replies(tmp_path, "id", round_index, 0, play.replies)
        block.llm.attach_stored(positions)
        assert [block.llm.prompt(seat) for seat in range(40)] == before
    assert len(before[0][0]) > len(block.llm.prompt(0, round_index=1)[0])


def test_memory_does_not_grow_with_rounds(tmp_path, monkeypatch):
    monkeypatch.setattr(replies, "_FEWEST", 20)
    monkeypatch.setattr(replies, "_TOKENS_AT_ONCE", 1000)
    monkeypatch.setattr(Talker, "length", 300)
    count = 700
    group = {"name": "all", "count": count, "kind": "llm"}
    experiment = loads(json.dumps({"name": "x", "game": {"rounds": 6}, "population": [group]}))
    block = Participants(experiment, partition_population(experiment, 1)[0], Talker(None, None, 0))
    held = []
    tracemalloc.start()
    try:
        for round_index in range(6):
            play = block.answer(Announcement(round_index, {"target": np.array([20.0])} if round_index else {}))
            assert play.rows["output_tokens"].sum() == 300 * count
            _, positions = write_replies(tmp_path, "id", round_index, 0, play.replies)
            block.llm.attach_stored(positions)
            del play
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    per_round = (held[5] - held[1]) / 4
    assert per_round < 0.2 * 4 * 300 * count, "token ids of earlier rounds are kept"
