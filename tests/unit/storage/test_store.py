"""Runs on disk: what h5py alone finds there, and what is left when writing fails."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from made import altered, texts

import pbeauty
from pbeauty import __version__
from pbeauty.config.loader import loads
from pbeauty.errors import ConfigError, RunFileError
from pbeauty.game.prompts import ANNOUNCEMENTS, EXTRACTION, RETRY, RULES, SYSTEM_PROMPTS, USER_PROMPTS
from pbeauty.game.records import COLUMNS, Purpose, ReadingRule, Replies, Status
from pbeauty.game.scoring import score
from pbeauty.job.checkpoint import read_checkpoint
from pbeauty.storage import hdf5, run_writer
from pbeauty.storage.replies import write_replies
from pbeauty.storage.run_folder import find_runs, refuse_played
from pbeauty.storage.run_reader import Run
from pbeauty.storage.run_writer import RunWriter
from pbeauty.storage.schema import SCHEMA_VERSION

TEXT = """
name: trial
seed: 9223372036854775807
game: {multiplier: 1/2, rounds: 3}
population:
- {name: talkers, count: 5, kind: llm, sampling: {temperature: 0.5}}
- {name: noise, count: 3, kind: uniform}
- {name: rock, count: 2, kind: fixed, value: 10}
"""
EXPERIMENT = loads(TEXT)
SCRIPTED = loads("name: trial\npopulation: [{name: noise, count: 4, kind: uniform}]")
ABOUT = {"host": "node-1", "gpus": [], "started": "2026-01-01T00:00:00Z"}


def played(round_index=0, count=10):
    rows = np.zeros(count, COLUMNS)
    rows["guess"] = np.arange(count) + 10 * round_index
    rows["prompt_tokens"], rows["cached_tokens"], rows["output_tokens"] = 100, 60, np.arange(count)
    if count > 2:
        rows[2]["guess"], rows[2]["status"] = np.nan, Status.UNPARSABLE
        rows[1]["status"] = Status.RETRIED
    return rows


def commit(writer, round_index=0, sealed=(), experiment=EXPERIMENT):
    rows = played(round_index, experiment.count)
    counts = [group.count for group in experiment.population]
    scored = score(experiment.game, rows["guess"], rows["status"], counts)
    writer.commit(round_index, rows, scored, {"seconds": 1.5}, [stored for files in sealed for stored in files])
    return rows, scored.outcome


def replies(*said):
    """Replies given as (participant, purpose, text)."""
    made = Replies()
    for participant, purpose, text in said:
        made.append(participant, purpose, text, list(range(len(text))))
    return made


def said(sealed):
    data, offsets = sealed["text"][:].tobytes(), sealed["text_offsets"][:]
    return [data[a:b].decode() for a, b in itertools.pairwise(offsets)]


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- what is there -----------------------------------------------------------------------------------------


def test_a_new_run_holds_the_experiment_and_no_round(tmp_path):
    RunWriter.create(tmp_path, EXPERIMENT, ABOUT)
    assert files(tmp_path) == ["run.h5"]
    with h5py.File(tmp_path / "run.h5") as file:
        assert file.attrs["schema_version"] == SCHEMA_VERSION
        assert texts(file.attrs, "pbeauty_version") == __version__
        assert texts(file.attrs, "name") == "trial"
        assert file.attrs["seed"] == 2**63 - 1
        assert loads(texts(file.attrs, "experiment")) == EXPERIMENT
        assert json.loads(file.attrs["provenance"]) == ABOUT
        assert not file.attrs["finished"]
        assert all(len(dataset) == 0 for dataset in file["rounds"].values())
        assert len(file["replies"]) == 0


def test_groups_and_their_members(tmp_path):
    RunWriter.create(tmp_path, EXPERIMENT, ABOUT)
    with h5py.File(tmp_path / "run.h5") as file:
        group = file["participants/group"]
        assert group[:].tolist() == [0] * 5 + [1] * 3 + [2] * 2
        assert texts(group.attrs, "labels") == ["talkers", "noise", "rock"]
        assert set(file["groups"]) == {"talkers", "noise", "rock"}
        attributes = {name: dict(group.attrs) for name, group in file["groups"].items()}
        for values in attributes.values():
            values |= {name: value.decode() for name, value in values.items() if isinstance(value, bytes)}
        talkers = attributes["talkers"]
        assert (talkers["kind"], talkers["model"], talkers["count"]) == ("llm", "demo", 5)
        assert talkers["rules_text"] == RULES
        assert talkers["system_prompt_text"] == SYSTEM_PROMPTS["classic"]
        assert talkers["user_prompt_text"] == USER_PROMPTS["direct"]
        assert (talkers["retry_text"], talkers["extraction_text"]) == (RETRY, EXTRACTION)
        assert json.loads(talkers["announcement_texts"]) == ANNOUNCEMENTS
        assert json.loads(talkers["sampling"])["temperature"] == 0.5
        assert attributes["rock"] == {"name": "rock", "count": 2, "kind": "fixed", "value": 10.0}


def test_rounds_are_read_back_with_h5py_alone(tmp_path):
    writer = RunWriter.create(tmp_path, EXPERIMENT, ABOUT)
    made = [commit(writer, t) for t in range(3)]
    with h5py.File(tmp_path / "run.h5") as file:
        rounds = file["rounds"]
        assert rounds["guess"].shape == rounds["status"].shape == (3, 10)
        assert (rounds["guess"].dtype, rounds["status"].dtype) == (np.float64, np.uint8)
        assert texts(rounds["status"].attrs, "labels") == [status.name.lower() for status in Status]
        assert texts(rounds["reading"].attrs, "labels") == [rule.name.lower() for rule in ReadingRule]
        for t, (rows, outcome) in enumerate(made):
            for name in ("guess", "status", "reading", "forgotten", "prompt_tokens", "cached_tokens", "output_tokens"):
                np.testing.assert_array_equal(rounds[name][t], rows[name])
            for name in ("mean", "median", "std", "min", "max", "target", "winning_guess", "n_valid", "n_winners"):
                assert rounds[name][t] == getattr(outcome, name)
            assert rounds["seconds"][t] == 1.5


def test_every_dataset_says_what_it_is_and_holds_numbers(tmp_path):
    writer = RunWriter.create(tmp_path, EXPERIMENT, ABOUT)
    sealed = write_replies(tmp_path, "id", 0, 0, replies((0, Purpose.ANSWER, "7")))
    commit(writer, 0, [sealed])
    found = []

    def inspect(name, item):
        if isinstance(item, h5py.Dataset):
            found.append(name)
            assert item.attrs["units"], name
            assert item.attrs["description"], name
            assert item.dtype.kind in "iuf", name

    for path in (tmp_path / "run.h5", tmp_path / sealed[0].path):
        with h5py.File(path) as file:
            file.visititems(inspect)
    assert {"rounds/guess", "participants/group", "text", "tokens"} <= set(found)


def test_a_game_without_models_has_no_token_counts(tmp_path):
    writer = RunWriter.create(tmp_path, SCRIPTED, ABOUT)
    commit(writer, experiment=SCRIPTED)
    with h5py.File(tmp_path / "run.h5") as file:
        assert {"guess", "status", "target"} <= set(file["rounds"])
        assert not any("token" in name for name in file["rounds"])


def test_only_finished_rounds_are_visible(tmp_path):
    writer = RunWriter.create(tmp_path, EXPERIMENT, ABOUT)
    for t in range(3):
        with Run(tmp_path) as run:
            assert run.round_count == t
            assert not run.finished
            assert len(run.read("seconds")) == t
        sealed = write_replies(tmp_path, "id", t, 0, replies((0, Purpose.ANSWER, str(t))))
        with h5py.File(tmp_path / "run.h5") as file:
            assert len(file["replies"]) == t
        commit(writer, t, [sealed])
    with h5py.File(tmp_path / "run.h5") as file:
        assert list(file["replies"]) == ["0001", "0002", "0003"]


def test_finish_marks_the_run_and_keeps_the_rounds(tmp_path):
    writer = RunWriter.create(tmp_path, EXPERIMENT, ABOUT)
    rows, _ = commit(writer)
    writer.finish(ABOUT | {"ended": "later"})
    with Run(tmp_path) as run:
        assert run.complete
        assert run.provenance == ABOUT | {"ended": "later"}
        np.testing.assert_array_equal(run.guesses[0], rows["guess"])


def test_the_rows_of_a_round_are_written_once_and_moved_when_the_run_is_finished(tmp_path):
    writer = RunWriter.create(tmp_path, EXPERIMENT, ABOUT)
    rows = [commit(writer, t)[0] for t in range(3)]
    with h5py.File(tmp_path / "run.h5") as file, Run(tmp_path) as run:
        for name in ("guess", "status", "output_tokens"):
            assert file["rounds"][name].is_virtual
            for found in (file["rounds"][name], run.read(name)):
                np.testing.assert_array_equal(found[:], [row[name] for row in rows])
                np.testing.assert_array_equal(found[1, 2:5], rows[1][name][2:5])
                np.testing.assert_array_equal(found[0:2, 3], [row[name][3] for row in rows[:2]])
    writer.finish({})
    assert files(tmp_path) == ["run.h5"]
    with h5py.File(tmp_path / "run.h5") as file:
        for name in ("guess", "status", "output_tokens"):
            assert not file["rounds"][name].is_virtual and file["rounds"][name].fletcher32
            np.testing.assert_array_equal(file["rounds"][name][:], [row[name] for row in rows])
        assert texts(file["rounds/status"].attrs, "labels") == [status.name.lower() for status in Status]


def test_bytes_written_grow_linearly_with_rounds(tmp_path, monkeypatch):
    many = loads("name: many\ngame: {rounds: 40}\npopulation: [{name: noise, count: 20000, kind: uniform}]")
    written = []
    real = hdf5.os.fsync
    monkeypatch.setattr(hdf5.os, "fsync", lambda handle: (written.append(os.fstat(handle).st_size), real(handle)))
    for rounds in (4, 40):
        folder = tmp_path / str(rounds)
        folder.mkdir()
        writer = RunWriter.create(folder, many, ABOUT)
        for t in range(rounds):
            commit(writer, t, experiment=many)
        writer.finish({})
        written.append(-1)
    few, most = written[: written.index(-1)], written[written.index(-1) + 1 : -1]
    assert sum(most) < 11 * sum(few)


def test_run_h5_takes_the_room_again_that_references_to_more_rounds_leave(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5.os, "fsync", lambda handle: None)
    long = loads("name: long\ngame: {rounds: 80}\npopulation: [{name: noise, count: 2, kind: uniform}]")
    writer = RunWriter.create(tmp_path, long, ABOUT)
    sizes = [(commit(writer, t, experiment=long), writer.path.stat().st_size)[1] for t in range(80)]
    assert sizes[-1] < 2 * sizes[39]


@pytest.mark.parametrize("kind", ["other_run", "other_round", "missing", "cut", "fifo", "other_shape", "elsewhere"])
def test_a_file_of_rows_that_is_not_the_rounds_own_is_refused(tmp_path, kind, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        writer = RunWriter.create(tmp_path / name, SCRIPTED, ABOUT)
        for t in range(2):
            commit(writer, t, experiment=SCRIPTED)
    path, other = tmp_path / "a/rounds/0002.h5", tmp_path / "b/rounds/0002.h5"
    if kind == "other_run":
        shutil.copy(other, path)
    elif kind == "other_round":
        shutil.copy(path.with_name("0001.h5"), path)
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:700])
    elif kind == "fifo":
        path.unlink()
        os.mkfifo(path)
    elif kind == "other_shape":
        with altered(path) as file:
            del file["guess"]
            file["guess"] = np.zeros(3)
    elif kind == "elsewhere":
        with altered(path) as file:
            del file["guess"]
            file["guess"] = h5py.ExternalLink(str(other), "guess")
    else:
        path.unlink()
    with Run(tmp_path / "a") as run:
        assert not np.isnan(run.guesses[0]).all()
        with pytest.raises(RunFileError, match=r"rounds/0002\.h5"):
            run.guesses[1]


def test_the_environment_does_not_lead_to_the_rows_of_another_run(tmp_path):
    """HDF5 would follow `HDF5_VDS_PREFIX` to the file of the same name there."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        writer = RunWriter.create(tmp_path / name, SCRIPTED, ABOUT)
        commit(writer, experiment=SCRIPTED)
    with altered(tmp_path / "b/rounds/0001.h5") as file:
        file["guess"][:] = 77
    code = f"import pbeauty; print(pbeauty.open({str(tmp_path / 'a')!r}).guesses[0].tolist())"
    environ = os.environ | {"HDF5_VDS_PREFIX": str(tmp_path / "b")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
    assert "77" not in done.stdout and done.stdout.startswith("[0.0")


def test_a_reader_that_has_the_file_open_keeps_what_it_saw(tmp_path):
    writer = RunWriter.create(tmp_path, EXPERIMENT, ABOUT)
    commit(writer, 0)
    with Run(tmp_path) as early:
        commit(writer, 1)
        assert early.round_count == 1
        assert early.guesses[0][0] == 0
        with Run(tmp_path) as late:
            assert late.round_count == 2


# --- replies -----------------------------------------------------------------------------------------------

SAID = [
    (3, Purpose.ANSWER, "I pick 33."),
    (0, Purpose.ANSWER, "naïve 🙂 猫 \u202e"),
    (4, Purpose.ANSWER, ""),
    (0, Purpose.RETRY, "nul\0 inside\n\r\t"),
    (1, Purpose.ANSWER, "x" * 100_000),
]


def test_replies_are_sealed_in_the_order_of_participants_and_their_calls(tmp_path):
    ((path, _),) = write_replies(tmp_path, "id", 4, 120, replies(*SAID))
    assert path == "replies/0005/000000120.h5"
    assert files(tmp_path) == [path]
    with h5py.File(tmp_path / path) as sealed:
        assert sealed["participant"][:].tolist() == [0, 0, 1, 3, 4]
        assert sealed["purpose"][:].tolist() == [Purpose.ANSWER, Purpose.RETRY] + [Purpose.ANSWER] * 3
        assert texts(sealed["purpose"].attrs, "labels") == [purpose.name.lower() for purpose in Purpose]
        assert said(sealed) == [SAID[row][2] for row in (1, 3, 4, 0, 2)]
        offsets = sealed["token_offsets"][:]
        assert np.diff(offsets).tolist() == [len(SAID[row][2]) for row in (1, 3, 4, 0, 2)]
        assert sealed["tokens"][offsets[3] : offsets[4]].tolist() == list(range(10))


def test_replies_are_reached_from_the_run(tmp_path):
    writer = RunWriter.create(tmp_path, EXPERIMENT, ABOUT)
    sealed = [
        write_replies(tmp_path, "id", 0, 0, replies((0, Purpose.ANSWER, "7"), (1, Purpose.ANSWER, "🙂"))),
        write_replies(tmp_path, "id", 0, 2, replies((2, Purpose.ANSWER, "9"))),
    ]
    commit(writer, 0, sealed)
    with h5py.File(tmp_path / "run.h5") as file:
        blocks = file["replies/0001"]
        assert list(blocks) == ["000000000", "000000002"]
        assert [text for block in blocks.values() for text in said(block)] == ["7", "🙂", "9"]


@pytest.mark.parametrize("from_elsewhere", [False, True])
def test_a_run_that_was_moved_still_finds_its_replies(tmp_path, monkeypatch, from_elsewhere):
    old, new = tmp_path / "old", tmp_path / "far away" / "new"
    old.mkdir()
    writer = RunWriter.create(old, EXPERIMENT, ABOUT)
    commit(writer, 0, [write_replies(old, "id", 0, 0, replies((0, Purpose.ANSWER, "seven")))])
    new.parent.mkdir()
    shutil.move(old, new)
    monkeypatch.chdir("/" if from_elsewhere else new)
    with h5py.File(new / "run.h5" if from_elsewhere else "run.h5") as file:
        assert said(file["replies/0001/000000000"]) == ["seven"]


def test_no_replies_and_empty_replies_can_be_sealed(tmp_path):
    ((path, _),) = write_replies(tmp_path, "id", 0, 0, replies())
    with h5py.File(tmp_path / path) as sealed:
        assert (len(sealed["text"]), sealed["text_offsets"][:].tolist()) == (0, [0])
    silent = replies((2, Purpose.ANSWER, ""), (1, Purpose.ANSWER, ""))
    ((path, _),) = write_replies(tmp_path, "id", 0, 1, silent)
    with h5py.File(tmp_path / path) as sealed:
        assert sealed["participant"][:].tolist() == [1, 2]
        assert said(sealed) == ["", ""]


def test_text_that_is_not_unicode_is_kept_as_far_as_it_goes(tmp_path):
    ((path, _),) = write_replies(tmp_path, "id", 0, 0, replies((0, Purpose.ANSWER, "3\ud800")))
    with h5py.File(tmp_path / path) as sealed:
        assert said(sealed) == ["3?"]


def test_sealing_again_replaces(tmp_path):
    write_replies(tmp_path, "id", 0, 0, replies((0, Purpose.ANSWER, "first")))
    ((path, _),) = write_replies(tmp_path, "id", 0, 0, replies((0, Purpose.ANSWER, "second")))
    with h5py.File(tmp_path / path) as sealed:
        assert said(sealed) == ["second"]
    assert files(tmp_path) == [path]


# --- when writing fails ------------------------------------------------------------------------------------


@pytest.fixture
def one_round(tmp_path):
    writer = RunWriter.create(tmp_path, EXPERIMENT, ABOUT)
    commit(writer, 0)
    return writer


def assert_intact(folder, rounds):
    with h5py.File(folder / "run.h5") as file:
        assert {len(file["rounds"][name]) for name in file["rounds"]} == {rounds}
        assert len(file["replies"]) == rounds


@pytest.mark.parametrize("writes", [0, 1, 5, 12])
def test_a_commit_that_breaks_off_leaves_the_rounds_before(one_round, monkeypatch, writes):
    before = one_round.path.read_bytes()
    append, calls = run_writer._append, []

    def failing(dataset, index, values):
        if len(calls) == writes:
            raise KeyboardInterrupt
        calls.append(dataset.name)
        append(dataset, index, values)

    monkeypatch.setattr(run_writer, "_append", failing)
    with pytest.raises(KeyboardInterrupt):
        commit(one_round, 1)
    assert len(calls) == writes
    assert one_round.path.read_bytes() == before
    assert files(one_round.folder) == ["rounds/0001.h5", "rounds/0002.h5", "run.h5"]
    monkeypatch.undo()
    commit(one_round, 1)
    assert_intact(one_round.folder, 2)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_error_of_the_disk_is_a_store_error_and_leaves_the_rounds_before(one_round, monkeypatch, step):
    before = one_round.path.read_bytes()

    def fail(*arguments):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(*((hdf5.os, "fsync") if step == "fsync" else (Path, "replace")), fail)
    with pytest.raises(
        RunFileError, match=r"cannot write .*0002\.h5: Input/output error; rounds finished before are int"
    ):
        commit(one_round, 1)
    monkeypatch.undo()
    assert one_round.path.read_bytes() == before
    assert files(one_round.folder) == ["rounds/0001.h5", "run.h5"]


SUPPORT = Path(__file__).parents[2] / "support"
SCRIPT = """
import os, resource, sys
sys.path[:0] = [{tests!r}, {support!r}]
import test_store as t
writer = t.RunWriter(t.Path({folder!r}))
"""


def in_another_process(folder, code):
    script = SCRIPT.format(tests=str(Path(__file__).parent), support=str(SUPPORT), folder=str(folder)) + code
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


def test_a_process_that_dies_in_a_commit_leaves_the_rounds_before(one_round):
    before = one_round.path.read_bytes()
    died = in_another_process(
        one_round.folder, "t.run_writer._append = lambda *arguments: os.kill(os.getpid(), 9)\nt.commit(writer, 1)\n"
    )
    assert died.returncode == -9, died.stderr
    assert one_round.path.read_bytes() == before
    (one_round.folder / "plots").mkdir()
    (one_round.folder / "plots/.round-0001-histogram.pdf.0a1b2c3d.draft").touch()
    one_round.resume(ABOUT)
    commit(one_round, 1)
    assert_intact(one_round.folder, 2)
    assert files(one_round.folder) == ["rounds/0001.h5", "rounds/0002.h5", "run.h5"], "no drafts"


WRITE_UNTIL_FULL = """
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
for t_index in range(1, 200):
    try:
        t.commit(writer, t_index)
        t.write_replies(writer.folder, "id", t_index, 0, t.replies(*[(0, 0, "x" * 1000)] * t_index))
    except t.RunFileError as error:
        print(t_index, error)
        break
"""


@pytest.mark.parametrize("spare", [0, 700, 5000, 20_000])
def test_a_disk_that_is_full_is_a_store_error_and_leaves_the_rounds_before(one_round, spare):
    size = one_round.path.stat().st_size + spare
    done = in_another_process(one_round.folder, WRITE_UNTIL_FULL.format(size=size))
    assert done.returncode == 0, done.stderr
    reached, _, message = done.stdout.partition(" ")
    assert message.startswith(f"cannot write {one_round.folder}/")
    assert "File too large" in message
    assert "rounds finished before are intact" in message
    with h5py.File(one_round.path) as file:
        assert len(file["rounds/target"]) in (int(reached), int(reached) + 1)
    assert not [path for path in files(one_round.folder) if "draft" in path]


@pytest.fixture
def locked_folder():
    """A folder that this process may not write to, whoever runs it."""
    folder = Path(tempfile.mkdtemp())
    RunWriter.create(folder, EXPERIMENT, ABOUT)
    folder.chmod(0o555)
    (folder / "run.h5").chmod(0o444)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    if user == 0:
        os.seteuid(0)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_that_cannot_be_written_to_is_a_store_error(locked_folder):
    before = (locked_folder / "run.h5").read_bytes()
    writer = RunWriter(locked_folder)
    for write in (
        lambda: RunWriter.create(locked_folder, EXPERIMENT, ABOUT),
        lambda: commit(writer),
        lambda: writer.finish(ABOUT),
        lambda: write_replies(locked_folder, "id", 0, 0, replies((0, Purpose.ANSWER, "7"))),
    ):
        with pytest.raises(RunFileError, match=r"(?s)cannot write .*\.h5: .*Permission denied.*rounds finished before"):
            write()
    assert (locked_folder / "run.h5").read_bytes() == before


def test_a_folder_that_is_gone_is_a_store_error(tmp_path):
    for folder in (tmp_path / "gone", Path(__file__)):
        with pytest.raises(RunFileError, match=r"(?s)cannot write .*(No such file|Not a directory)"):
            RunWriter.create(folder, EXPERIMENT, ABOUT)


# --- reading -----------------------------------------------------------------------------------------------


def test_a_run_is_read_by_folder_or_file(tmp_path):
    writer = RunWriter.create(tmp_path, EXPERIMENT, ABOUT)
    rows, outcome = commit(writer)
    for path in (tmp_path, tmp_path / "run.h5", str(tmp_path)):
        with Run(path) as run:
            assert run.path == tmp_path / "run.h5"
            assert run.experiment == EXPERIMENT
            assert run.provenance == ABOUT
            assert run.outcome(0) == outcome
            assert run.outcome(0).n_valid.dtype == np.int64
            np.testing.assert_array_equal(run.guesses[0], rows["guess"])
            np.testing.assert_array_equal(run.status[0], rows["status"])
            assert run.read("seconds").tolist() == [1.5]
    assert not run.file, "the file is closed"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.write_text("hello"), "pbeauty did not write it"),
        (lambda path: path.touch(), "pbeauty did not write it"),
        (lambda path: h5py.File(path, "w").close(), "pbeauty did not write it"),
    ],
)
def test_what_is_not_a_run_is_refused(tmp_path, make, said):
    path = tmp_path / "run.h5"
    make(path)
    for given in (path, tmp_path):
        with pytest.raises(RunFileError, match=said) as caught:
            Run(given)
        assert str(path) in str(caught.value)


def whole(folder):
    """A finished run with replies, and what a reader must find in it."""
    writer = RunWriter.create(folder, EXPERIMENT, ABOUT)
    commit(writer, 0, [write_replies(folder, "id", 0, 0, replies((0, Purpose.ANSWER, "seven")))])
    writer.finish({})


def assert_whole(path):
    with Run(path) as run:
        assert run.complete
        assert [reply.text for reply in run.replies(1, 0)] == ["seven"]


def test_links_lead_to_all_of_a_run(tmp_path):
    (tmp_path / "a").mkdir()
    whole(tmp_path / "a")
    (tmp_path / "b").mkdir()
    for name, target in (("best.h5", "a/run.h5"), ("latest", "a"), ("b/run.h5", "../a/run.h5"), ("2.h5", "best.h5")):
        (tmp_path / name).symlink_to(target)
        assert_whole(tmp_path / name)
        assert len(find_runs([tmp_path / name, tmp_path / "a"])) == 1
    assert_whole(tmp_path / "b")


def test_folders_that_cannot_be_read_are_named(locked_folder, capsys):
    with tempfile.TemporaryDirectory() as name:
        secret = Path(name) / "secret"
        secret.mkdir(mode=0)
        with pytest.raises(ConfigError, match="there is no run"):
            find_runs([locked_folder, Path(name)])
    assert capsys.readouterr().err == f"pbeauty: cannot read {secret}: Permission denied; runs in it are left out\n"


def test_runs_are_not_looked_for_in_a_whole_file_system(tmp_path, monkeypatch):
    (tmp_path / "a/run/replies").mkdir(parents=True)
    whole(tmp_path / "a/run")
    monkeypatch.setattr("pbeauty.storage.run_folder._MOST_FOLDERS", 2)
    assert find_runs([tmp_path]) == [tmp_path / "a/run/run.h5"], "what lies below a run is its own"
    for name in "bcd":
        (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match="more than 2 folders without a run"):
        find_runs([tmp_path])


def test_a_run_in_git_annex_is_read_where_its_links_are(tmp_path):
    """There every file is a link to content that is named by its hash, read-only, in a folder of its own."""
    (tmp_path / "a").mkdir()
    whole(tmp_path / "a")
    for index, path in enumerate(sorted((tmp_path / "a").rglob("*.h5"))):
        content = tmp_path / f".git/annex/objects/{index}/SHA256E-{index}.h5"
        content.parent.mkdir(parents=True)
        path.rename(content)
        content.chmod(0o444)
        path.symlink_to(os.path.relpath(content, path.parent))
    (tmp_path / "best.h5").symlink_to("a/run.h5")
    for path in (tmp_path / "a", tmp_path / "a/run.h5", tmp_path / "best.h5"):
        assert_whole(path)
    (tmp_path / ".git/annex/objects").rename(tmp_path / "elsewhere")  # as before `git annex get`
    for open_it in (Run, refuse_played, lambda folder: read_checkpoint(folder, EXPERIMENT)):
        with pytest.raises(RunFileError, match=r"run\.h5: No such file"):
            open_it(tmp_path / "a")


def test_a_run_that_is_being_played_is_read_and_says_what_it_is(tmp_path):
    writer = RunWriter.create(tmp_path, EXPERIMENT, ABOUT)
    for t in range(2):
        rows, _ = commit(writer, t, [write_replies(tmp_path, "id", t, 0, replies((0, Purpose.ANSWER, f"say {t}")))])
        with pbeauty.open(tmp_path) as run:
            assert repr(run) == f"Run(trial: 10 participants, {t + 1} round(s), {tmp_path}/run.h5)"
            np.testing.assert_array_equal(run.guesses[t], rows["guess"])
            assert run.guesses[:, 3].tolist() == [3 + 10 * index for index in range(t + 1)]
            assert len(run.rounds) == t + 1
            assert [reply.text for reply in run.replies(t + 1, 0)] == [f"say {t}"]
            assert not run.complete
    assert repr(run).startswith("Run(trial"), "closed, too"


def test_the_package_shows_its_interface_and_nothing_else():
    code = "import pbeauty; print(dir(pbeauty)); pbeauty.open"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['__version__', 'open', 'rounds']\n"


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunFileError, match=f"(?s)cannot read {tmp_path}/run.h5"):
        Run(tmp_path)


def test_a_file_that_was_cut_off_is_refused(tmp_path):
    path = RunWriter.create(tmp_path, EXPERIMENT, ABOUT).path
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(RunFileError, match="its content does not match its digest"):
        Run(path)


def test_a_run_of_a_newer_schema_is_refused(tmp_path):
    path = RunWriter.create(tmp_path, EXPERIMENT, ABOUT).path
    with altered(path) as file:
        file.attrs["schema_version"] = SCHEMA_VERSION + 1
    with pytest.raises(
        RunFileError, match=f"schema version {SCHEMA_VERSION + 1}, this pbeauty reads {SCHEMA_VERSION}:"
    ):
        Run(path)
