"""Guesses that are not gathered: written by block, referred to by run.h5, read as if they were in it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import h5py
import mpi
import numpy as np
import pytest

from pbeauty.config.loader import loads
from pbeauty.errors import ConfigError
from pbeauty.game.records import new_rows
from pbeauty.game.rules import Status
from pbeauty.game.scoring import score_alone
from pbeauty.plots import plot_run
from pbeauty.storage import replies, run_reader
from pbeauty.storage.replies import Sealed, seal_guesses
from pbeauty.storage.run_folder import earlier
from pbeauty.storage.run_reader import Run
from pbeauty.storage.run_writer import RunWriter

TEXT = """
name: blocks
gather_limit: 0
game: {rounds: 3, announce: [target, group_numbers]}
population:
  - {name: drawn, count: 40, kind: uniform}
  - {name: whole, count: 7, kind: uniform, integers: true}
"""
EXPERIMENT = loads(TEXT)
BLOCKS = [[(0, 13), (40, 44)], [(13, 40), (44, 47)]]
"""Two ranks that host members of both groups."""


def guesses(round_index):
    values = np.arange(47.0) + round_index / 8
    values[5] = np.nan
    return values


def rows_of(round_index):
    rows = new_rows(47, model=False)
    rows["guess"][:] = guesses(round_index)
    rows["status"][5] = Status.UNPARSABLE
    return rows


def commit(writer, round_index, rows, stretches):
    scored = score_alone(EXPERIMENT.game, rows["guess"], rows["status"])
    writer.commit(round_index, None, scored, 1.0, [Sealed([], stretches)])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run of two finished rounds of three, with several files a block."""
    monkeypatch.setattr(replies, "_ROWS_PER_FILE", 10)
    writer = RunWriter.create(tmp_path, EXPERIMENT, {"host": "here"})
    for round_index in range(2):
        rows, stretches = rows_of(round_index), []
        for block in BLOCKS:
            seats = np.concatenate([np.arange(*stretch) for stretch in block])
            mine = {name: values[seats] for name, values in rows.items()}
            stretches += seal_guesses(tmp_path, round_index, block, mine)
        commit(writer, round_index, rows, stretches)
    return tmp_path


def test_they_read_as_if_they_were_in_the_file(folder):
    assert len(list((folder / "guesses/0001").iterdir())) == 2 + 1 + 3 + 1
    with h5py.File(folder / "run.h5") as file:  # h5py alone
        np.testing.assert_equal(file["rounds/guess"][:], [guesses(0), guesses(1)])
        assert file["rounds/status"][:, 5].tolist() == [Status.UNPARSABLE] * 2
        assert file["rounds/guess"].attrs["units"] == "units of the game"
        assert file["rounds/status"].attrs["labels"][4] == "unparsable"
    with Run(folder) as run:
        np.testing.assert_equal(run.guesses[1], guesses(1))
        np.testing.assert_equal(run.read("guess", 0), guesses(0))
        assert run.guesses[1, 39:45].tolist() == guesses(1)[39:45].tolist()
        pieces = [guess for guess, _ in run.pieces(1)]
        np.testing.assert_equal(np.concatenate(pieces), guesses(1))
    assert len(plot_run(folder)) == 6


def test_going_through_a_round_keeps_no_file_open(folder, monkeypatch):
    """Each that is open takes memory, and a hundred million participants have dozens of them in every round."""
    monkeypatch.setattr(run_reader, "_AT_ONCE", 10)
    with Run(folder) as run:
        counts = []
        for _ in run.pieces(0):
            open_files = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
            counts.append(sum("guesses/0001" in name for name in open_files))
    assert len(counts) == 5
    assert max(counts) <= 2


def test_a_folder_that_has_moved_is_read_where_it_is(folder, tmp_path_factory):
    moved = tmp_path_factory.mktemp("elsewhere") / "run"
    shutil.move(folder, moved)
    with Run(moved) as run:
        np.testing.assert_equal(run.guesses[0], guesses(0))


def test_what_a_round_left_unfinished_goes_with_the_resumption(folder):
    seal_guesses(folder, 2, BLOCKS[0], {name: values[:17] for name, values in new_rows(47, model=False).items()})
    (folder / "guesses/0003.h5").write_bytes((folder / "guesses/0002.h5").read_bytes())
    RunWriter(folder).resume({"host": "there"})
    assert sorted(path.name for path in (folder / "guesses").iterdir()) == ["0001", "0001.h5", "0002", "0002.h5"]
    with Run(folder) as run:
        assert run.round_count == 2
        np.testing.assert_equal(run.guesses[1], guesses(1))


@pytest.mark.parametrize("name", ["0002/000000013.h5", "0002.h5"])
@pytest.mark.parametrize("change", ["lost", "empty", "cut", "short", "linked", "named otherwise"])
def test_a_file_that_is_not_what_it_was_is_named(folder, change, name, tmp_path_factory):
    path = folder / "guesses" / name
    data = path.read_bytes()
    path.unlink()
    if change == "linked":
        elsewhere = tmp_path_factory.mktemp("elsewhere") / "guess.h5"
        elsewhere.write_bytes(data)
        path.symlink_to(elsewhere)
    elif change == "short":
        with h5py.File(path, "w") as file:
            file["guess"], file["status"] = np.zeros(3), np.zeros(3, np.uint8)
    elif change == "named otherwise":
        with h5py.File(path, "w") as file:
            file["guesses"], file["status"] = np.zeros(10), np.zeros(10, np.uint8)
    elif change != "lost":
        path.write_bytes(data[: {"empty": 0, "cut": len(data) // 2}[change]])
    with Run(folder) as run:
        assert run.outcome(1).n_valid == 46  # figures need no guesses
        for read in (lambda: run.guesses, lambda: run.status, lambda: run.read("guess", 0)):
            with pytest.raises(ConfigError, match=re.escape(str(path))):
                read()


@pytest.mark.parametrize(
    ("sources", "damage"),
    [
        ([("/etc/passwd", "guess", 0, 47)], "refers to /etc/passwd"),
        ([("../other/guesses/0001/000000000.h5", "guess", 0, 47)], "refers to ../other"),
        ([("guesses/0001/000000000.h5", "status", 0, 47)], "refers to guesses"),
        ([("guesses/0001/000000000.h5", "guess", 0, 10)], "lacks participants"),
        (
            [("guesses/0001/000000000.h5", "guess", 0, 30), ("guesses/0001/000000013.h5", "guess", 13, 47)],
            "lacks participants",
        ),
        ([("guesses/0002.h5", "guess", 0, 47)], "refers to guesses/0002"),
        ([("guesses/0001.h5", "status", 0, 47)], "refers to guesses/0001"),
        ([("guesses/0001.h5", "guess", 0, 46)], "lacks participants"),
        ([], "lacks participants"),
    ],
)
def test_references_to_anything_else_are_refused(folder, sources, damage):
    with h5py.File(folder / "run.h5", "r+") as file:
        layout = h5py.VirtualLayout((2, 47), np.float64)
        for name, dataset, start, stop in sources:
            layout[0, start:stop] = h5py.VirtualSource(name, dataset, (stop - start,))
        del file["rounds/guess"]
        file["rounds"].create_virtual_dataset("guess", layout)
    with pytest.raises(ConfigError, match=damage):
        Run(folder)


@pytest.mark.parametrize(
    "sources",
    [
        [("/etc/passwd", "guess", 0, 47)],
        [("../run.h5", "rounds/target", 0, 47)],
        [("0001/000000000.h5", "guess", 0, 47)],
        [("0002/000000000.h5", "status", 0, 10)],
        [("0002/000000000.h5", "guess", 0, 10)],
        [("0002.h5", "status", 0, 47)],
        [],
    ],
)
def test_a_round_that_refers_to_anything_else_is_refused(folder, sources):
    path = folder / "guesses/0002.h5"
    with h5py.File(path, "r+") as file:
        layout = h5py.VirtualLayout((47,), np.float64)
        for name, dataset, start, stop in sources:
            layout[start:stop] = h5py.VirtualSource(name, dataset, (stop - start,))
        del file["guess"]
        file.create_virtual_dataset("guess", layout)
    with Run(folder) as run, pytest.raises(ConfigError, match=re.escape(f"{path}: the guesses of a round are")):
        run.read("guess", 0)


def test_what_a_round_adds_to_the_run_does_not_grow_with_ranks(tmp_path):
    """It is read and written again with every later round."""
    sizes = []
    for step in (47, 1):
        folder = tmp_path / str(step)
        folder.mkdir()
        writer = RunWriter.create(folder, EXPERIMENT, {})
        for round_index in range(2):
            rows, stretches = rows_of(round_index), []
            for start in range(0, 47, step):
                mine = {name: values[start : start + step] for name, values in rows.items()}
                stretches += seal_guesses(folder, round_index, [(start, start + step)], mine)
            commit(writer, round_index, rows, stretches)
        sizes.append((folder / "run.h5").stat().st_size)
        with Run(folder) as run:
            np.testing.assert_equal(run.guesses[:], [guesses(0), guesses(1)])
    assert sizes[0] == sizes[1]


def test_a_run_of_an_earlier_version_refers_to_blocks_itself_and_goes_on(folder):
    with h5py.File(folder / "run.h5", "r+") as file:
        for name in ("guess", "status"):
            before = file["rounds"][name]
            layout = h5py.VirtualLayout(before.shape, before.dtype)
            for path in sorted((folder / "guesses").glob("*/*.h5")):
                with h5py.File(path) as block:
                    start, count = int(path.stem), len(block[name])
                own = str(path.relative_to(folder))
                row = int(path.parent.name) - 1
                layout[row, start : start + count] = h5py.VirtualSource(own, name, (count,))
            about = dict(before.attrs)
            del file["rounds"][name]
            file["rounds"].create_virtual_dataset(name, layout).attrs.update(about)
    for path in (folder / "guesses").glob("*.h5"):
        path.unlink()
    rows = rows_of(2)
    commit(RunWriter(folder), 2, rows, seal_guesses(folder, 2, [(0, 47)], rows))
    with Run(folder) as run:
        np.testing.assert_equal(run.guesses[:], [guesses(index) for index in range(3)])
        assert run.status.shape == (3, 47)


def test_participants_who_hear_their_own_rank_are_gathered():
    assert not EXPERIMENT.gathered
    assert loads(TEXT.replace("group_numbers", "own_rank")).gathered
    assert loads(TEXT.replace("gather_limit: 0", "gather_limit: 47")).gathered
    assert not loads(TEXT.replace("gather_limit: 0", "gather_limit: 46")).gathered


def test_a_run_goes_on_as_it_began(folder):
    with pytest.raises(ConfigError, match="gather_limit: 0 in the run, 100 now"):
        earlier(folder, loads(TEXT.replace("gather_limit: 0", "gather_limit: 100")))


def test_a_run_of_an_earlier_version_has_quartiles_too(folder):
    with h5py.File(folder / "run.h5", "r+") as file:
        del file["rounds/lower_quartile"], file["rounds/upper_quartile"], file["rounds/group_number"]
    with Run(folder) as run:
        valid = guesses(1)[np.arange(47) != 5]
        assert (run.outcome(1).lower_quartile, run.outcome(1).upper_quartile) == tuple(np.percentile(valid, [25, 75]))
        assert run.group_numbers(1).tolist() == pytest.approx([np.nanmean(guesses(1)[:40]), guesses(1)[40:].mean()])


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_results_are_those_of_the_gathered_way_to_the_bit(ranks, tmp_path):
    config = tmp_path / "blocks.yaml"
    config.write_text(TEXT)
    assert mpi.mpirun(1, "run", config, "--set", "gather_limit=47", "--out", tmp_path / "gathered").code == 0
    done = mpi.mpirun(ranks, "run", config, "--out", tmp_path / "run")
    assert (done.code, done.left) == (0, [])
    mpi.assert_same(mpi.results(tmp_path / "run"), mpi.results(tmp_path / "gathered"))
    assert not (tmp_path / "gathered/guesses").exists()
    with h5py.File(tmp_path / "run/run.h5") as file:
        assert file["rounds/guess"].is_virtual
        assert not file["rounds/mean"].is_virtual
