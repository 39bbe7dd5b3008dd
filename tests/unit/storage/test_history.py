"""What was said in finished rounds: found again in the files of replies, whoever wrote them."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parrot import Engine
from test_store import ABOUT, EXPERIMENT, RunWriter, commit

from pbeauty.config.loader import loads
from pbeauty.errors import RunFileError
from pbeauty.game.announcement import Announcement
from pbeauty.game.records import Purpose, Replies
from pbeauty.job.participants import Participants
from pbeauty.mpi.partition import partition_population
from pbeauty.storage import replies
from pbeauty.storage.replies import read_answers, write_replies
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
    return [write_replies(folder, "id", round_index, min(block), replies_of(block)) for block in blocks]


@settings(max_examples=15)
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
        written = [write_replies(folder, "id", 0, min(block), replies_of(block)) for block in hosted if block]
        everywhere = sorted(stored for files in written for stored in files)
        wanted = np.array(sorted(data.draw(st.sets(st.sampled_from(range(count)), min_size=1))))
        asked = np.array([data.draw(st.booleans()) for _ in wanted])
        for read, answered in (
            (read_answers(folder, everywhere, wanted), [True] * len(wanted)),
            (read_answers(folder, everywhere, wanted, asked), asked),
        ):
            for slot, who in enumerate(wanted.tolist()):
                last = [tokens for purpose, tokens in said[who] if purpose != Purpose.EXTRACTION][-1]
                assert read[slot].tolist() == (last if answered[slot] else [])
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
        spoken = read_answers(tmp_path, run.reply_files(0), np.arange(5))
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
        spoken = read_answers(tmp_path, run.reply_files(0), np.array([2, 4]))
        assert [spoken[seat].tolist() for seat in (0, 1)] == [[2, 2], [4]]


def test_who_resumes_opens_the_files_of_its_own_participants(tmp_path, monkeypatch):
    writer = RunWriter.create(tmp_path, EXPERIMENT, ABOUT)
    commit(writer, 0, sealed_by(tmp_path, [{who: [(Purpose.ANSWER, [who])]} for who in range(5)]))
    opened = []
    real = replies.open_file
    monkeypatch.setattr(replies, "open_file", lambda path, digest: (opened.append(path.stem), real(path, digest))[1])
    with Run(tmp_path) as run:
        read_answers(tmp_path, run.reply_files(0), np.array([2, 3]))
    assert opened == ["000000003", "000000002"]


def test_what_is_missing_or_altered_is_an_error(tmp_path):
    writer = RunWriter.create(tmp_path, EXPERIMENT, ABOUT)
    (paths,) = sealed_by(tmp_path, [{who: [(Purpose.ANSWER, [who] * 3)] for who in range(4)}])
    commit(writer, 0, [paths])
    with Run(tmp_path) as run, pytest.raises(RunFileError, match="replies/0001: the replies of some participants are"):
        read_answers(tmp_path, run.reply_files(0), np.arange(5))
    (tmp_path / paths[0].path).unlink()
    with Run(tmp_path) as run, pytest.raises(RunFileError, match=r"000000000\.h5: No such file"):
        read_answers(tmp_path, run.reply_files(0), np.arange(4))


def test_conversations_that_are_taken_up_again_are_the_same(tmp_path):
    birds = {"name": "birds", "count": 40, "kind": "llm", "extraction": "pattern-then-model"}
    experiment = loads(json.dumps({"name": "x", "seed": 3, "game": {"rounds": 3}, "population": [birds]}))
    partition = partition_population(experiment, 1)[0]
    block, again = (Participants(experiment, partition, Engine(None, None, 0)) for _ in range(2))
    announcements = [Announcement(0, {}), *(Announcement(index, {"target": np.array([20.0])}) for index in (1, 2))]
    files = []
    for announcement in announcements:
        play = block.answer(announcement)
        files.append(write_replies(tmp_path, "id", announcement.round_index, 0, play.replies))
    again.llm.restore(tmp_path, announcements, files)
    for block_of in (block, again):
        block_of.llm.add_user_turn(Announcement(3, {"target": np.array([10.0])}))
    prompts = [block.llm.prompt(seat) for seat in range(40)]
    assert [again.llm.prompt(seat) for seat in range(40)] == prompts
    assert len(prompts[0][0]) > len(block.llm.prompt(0, round_index=1)[0])
