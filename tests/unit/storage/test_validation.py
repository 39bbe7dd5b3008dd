"""Folders of runs that were damaged, or made to harm whoever reads them: refused by name, and nothing is fetched."""

from __future__ import annotations

import json
import os
import shutil

import h5py
import numpy as np
import pytest
from made import altered

from pbeauty.config.loader import loads
from pbeauty.errors import ConfigError, RunFileError
from pbeauty.game.records import COLUMNS, Purpose, Replies
from pbeauty.game.scoring import score
from pbeauty.job.checkpoint import read_checkpoint
from pbeauty.storage.hdf5 import describe, read_errors
from pbeauty.storage.journal import journals
from pbeauty.storage.replies import read_answers, write_replies
from pbeauty.storage.run_reader import Run
from pbeauty.storage.run_writer import RunWriter

ABOUT = {"host": "here", "date": "2026-01-31"}

EXPERIMENT = """
name: sealed
game: {rounds: 3}
population: [{name: birds, count: 4, kind: llm}]
"""


def play(folder):
    """A run of two finished rounds with stored replies."""
    folder.mkdir(exist_ok=True)
    experiment = loads(EXPERIMENT)
    writer = RunWriter.create(folder, experiment, ABOUT)
    for round_index in range(2):
        replies = Replies()
        rows = np.zeros(4, COLUMNS)
        for participant in range(4):
            replies.append(participant, Purpose.ANSWER, f"{participant}!", [participant, 7])
            rows[participant]["guess"] = participant
        paths = write_replies(folder, folder.name, round_index, 0, replies)
        scored = score(experiment.game, rows["guess"], rows["status"])
        writer.commit(round_index, rows, scored, {"seconds": 1.0}, paths)
    return folder


@pytest.fixture
def folder(tmp_path):
    """Such a run."""
    return play(tmp_path)


def read_all(folder):
    """Everything that a resumption or a page would read."""
    with Run(folder) as run:
        assert run.experiment.count == 4
        assert run.provenance == ABOUT
        for round_index in range(run.round_count):
            run.outcome(round_index), run.guesses[round_index], run.status[round_index]
            said = read_answers(folder, run.reply_files(round_index), np.arange(4))
            assert [said[seat].tolist() for seat in range(4)] == [[who, 7] for who in range(4)]


def test_a_sound_run_is_read_to_the_end(folder):
    read_all(folder)


def swap(path, name, make):
    """Puts something else in the place of a dataset or group."""
    with altered(path) as file:
        attributes = dict(file[name].attrs)
        del file[name]
        make(file, name)
        if isinstance(file.get(name, getlink=True), h5py.HardLink):
            file[name].attrs.update(attributes)


def huge(file, name):
    file.create_dataset(name, (1 << 34,), "f8", chunks=(1 << 16,))


def compressed(file, name):
    file.create_dataset(name, data=np.zeros(1 << 21), compression="gzip")


def objects(file, name):
    file.create_dataset(name, data=["a", "b"], dtype=h5py.string_dtype())


def of_another_file(file, name):
    file.create_dataset(name, (2,), "f8", external=[("/etc/passwd", 0, 16)])


def virtual(file, name):
    layout = h5py.VirtualLayout((2,), "f8")
    layout[:] = h5py.VirtualSource("/tmp/elsewhere.h5", "data", (2,))
    file.create_virtual_dataset(name, layout)


def linked(file, name):
    file[name] = h5py.ExternalLink("/tmp/elsewhere.h5", "/data")


def soft(file, name):
    file[name] = h5py.SoftLink("/rounds/mean")


def group(file, name):
    file.create_group(name)


TRAPS = [huge, compressed, objects, of_another_file, virtual, linked, soft, group]


@pytest.mark.parametrize("name", ["rounds/target", "rounds/guess", "participants/group"])
@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_an_array_that_is_not_what_it_claims_is_refused(name, trap, folder):
    swap(folder / "run.h5", name, trap)
    with pytest.raises(RunFileError, match=r"\.h5"):
        read_all(folder)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("participants/session", lambda values: values + 1),
        ("participants/session", lambda values: values.astype("f8")),
        ("participants/group", lambda values: values + 1),
        ("rounds/target", lambda values: values[:, 0]),
        ("rounds/mean", lambda values: np.repeat(values, 4, axis=1)),
        ("rounds/n_valid", lambda values: values.astype("f8")),
        ("rounds/n_valid", lambda values: values * 0),
        ("rounds/n_winners", lambda values: np.repeat(values, 3, axis=1)),
        ("rounds/n_valid", lambda values: values + 1),
        ("rounds/group_number", lambda values: values[:, :, 0]),
        ("rounds/status", lambda values: values.astype("f8")),
        ("rounds/status", lambda values: values[:, :1]),
        ("rounds/seconds", lambda values: values[:, None]),
    ],
)
def test_figures_that_are_not_those_of_the_sessions_are_refused(name, make, folder):
    with h5py.File(folder / "run.h5") as run:
        values = make(run[name][:])
    swap(folder / "run.h5", name, lambda file, name: file.create_dataset(name, data=values))
    with pytest.raises(RunFileError, match=rf"run\.h5 is damaged: {name}: "):
        read_all(folder)


@pytest.mark.parametrize("name", ["participants/session", "rounds/mean", "rounds/status", "rounds/seconds"])
def test_a_run_without_one_of_its_columns_is_refused(name, folder):
    with altered(folder / "run.h5") as file:
        del file[name]
    with pytest.raises(RunFileError, match=name.split("/")[1]):
        read_all(folder)


@pytest.mark.parametrize("name", ["participant", "tokens", "token_offsets", "text", "text_offsets", "purpose"])
@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_a_sealed_reply_that_is_not_what_it_claims_is_refused(name, trap, folder):
    path = folder / "replies/0002/000000000.h5"
    swap(path, name, trap)
    with pytest.raises(RunFileError, match=str(path)):
        read_all(folder)


@pytest.mark.parametrize("offsets", [[0, 2, 4, 6, 9], [0, 2, 1, 6, 8], [1, 2, 4, 6, 8], [0, 2, 4, 8]])
def test_offsets_that_lead_astray_are_refused(offsets, folder):
    path = folder / "replies/0001/000000000.h5"
    swap(path, "token_offsets", lambda file, name: file.create_dataset(name, data=np.array(offsets)))
    with pytest.raises(RunFileError, match=str(path)):
        read_all(folder)


@pytest.mark.parametrize("file", ["/etc/passwd", "../../elsewhere.h5", "replies/0001/../../run.h5", "run.h5"])
def test_links_lead_nowhere_but_to_the_runs_own_replies(file, folder):
    def link(run, name):
        run[name] = h5py.ExternalLink(file, "/")

    swap(folder / "run.h5", "replies/0001/000000000", link)
    with pytest.raises(RunFileError, match="no link to the run's own replies"):
        read_all(folder)


@pytest.mark.parametrize("put", [shutil.copy, lambda source, target: target.symlink_to(source)])
@pytest.mark.parametrize("source", ["replies/0001/000000000.h5", "other/replies/0002/000000000.h5"])
def test_replies_of_another_round_or_run_are_not_taken_for_those_that_belong_there(put, source, folder):
    play(folder / "other")
    target = folder / "replies/0002/000000000.h5"
    target.unlink()
    put(folder / source, target)
    with pytest.raises(
        RunFileError, match=f"{target} is whole, but not the file that run.h5 refers to; it is of round"
    ):
        read_all(folder)


@pytest.mark.parametrize("name", ["rounds/0001.h5", "rounds/0002.h5", "run.h5"])
def test_a_damaged_round_is_found_before_another_one_is_played(name, folder):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(RunFileError, match=f"{name} is damaged"):
        read_checkpoint(folder, loads(EXPERIMENT))


@pytest.mark.parametrize("name", ["experiment", "provenance", "name"])
def test_a_flipped_bit_of_what_was_asked_for_is_found(name, folder):
    """As the one that turns a multiplier of 2/3 into 2/7 would be."""
    whole = (folder / "run.h5").read_bytes()
    with h5py.File(folder / "run.h5") as file:
        at = whole.index(file.attrs[name])
    (folder / "run.h5").write_bytes(whole[: at + 3] + bytes([whole[at + 3] ^ 4]) + whole[at + 4 :])
    with pytest.raises(RunFileError, match=r"run\.h5 is damaged"):
        Run(folder)


def test_a_pipe_in_the_place_of_replies_or_of_a_journal_is_not_waited_for(folder):
    path = folder / "replies/0001/000000000.h5"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(RunFileError, match=str(path)):
        read_all(folder)
    (folder / "journal/0003").mkdir(parents=True)
    os.mkfifo(folder / "journal/0003/pipe")
    assert journals(folder, 2, (0, 4)) == []


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("name", ["run.h5", "replies/0001/000000000.h5"])
def test_a_file_that_was_cut_off_is_refused_and_left_as_it_is(name, share, folder):
    path = folder / name
    path.write_bytes(data := path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(RunFileError, match=str(path)):
        read_all(folder)
    assert path.read_bytes() == data


@pytest.mark.parametrize("name", ["run.h5", "replies/0001/000000000.h5"])
def test_a_flipped_byte_in_what_is_stored_is_refused(name, folder):
    path = folder / name
    with h5py.File(path) as file:
        places = {}
        file.visititems(lambda name, item: places.update({name: where(item)}))
    places = {name: place for name, place in places.items() if place}
    assert len(places) >= 6
    whole = path.read_bytes()
    for dataset, (start, size) in places.items():
        for at in (start, start + size // 2, start + size - 1):
            data = bytearray(whole)
            data[at] ^= 1
            path.write_bytes(data)
            with pytest.raises(RunFileError, match=f"{path}.* damaged"):
                read_everything(folder)
                pytest.fail(f"a flipped byte of {dataset} was not noticed")


def where(item):
    """(offset, size) of a dataset's first chunk."""
    if isinstance(item, h5py.Dataset) and item.chunks and item.size:
        chunk = item.id.get_chunk_info(0)
        return chunk.byte_offset, chunk.size
    return None


def read_everything(folder):
    """Every dataset of a run and of its replies."""
    with Run(folder) as run:
        for name in run.file["rounds"]:
            run.read(name)
        with read_errors(run.path):
            run.file["participants/group"][:]
        for round_index in range(run.round_count):
            for path, block in run.open_reply_files(round_index):
                with read_errors(path):
                    for dataset in block.values():
                        dataset[:]


def test_an_experiment_that_unfolds_in_memory_is_refused(folder):
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    with altered(folder / "run.h5") as file:
        describe(file, experiment=bomb)
    with pytest.raises(RunFileError, match="YAML aliases"):
        read_all(folder)


def test_nothing_stored_is_code(folder):
    with altered(folder / "run.h5") as file:
        describe(file, experiment="name: !!python/object/apply:os.system ['touch pwned']\n")
    with pytest.raises(RunFileError, match="python/object"):
        read_all(folder)
    for path in folder.rglob("*.h5"):
        assert b"pickle" not in path.read_bytes()
    with h5py.File(folder / "run.h5") as file:
        assert json.loads(file.attrs["provenance"]) == ABOUT


# --- resuming with another experiment ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "listed"),
    [
        ("game.rounds=5", ["game.rounds: 3 in the run, 5 now"]),
        ("seed=9", ["seed: 0 in the run, 9 now"]),
        ("population.0.count=5", ["population.0.count: 4 in the run, 5 now"]),
        ("population.0.sampling.temperature=0.5", ["population.0.sampling.temperature: 1.0 in the run, 0.5 now"]),
        ("models.demo.engine.dtype=half", ["models.demo.engine.dtype: None in the run, 'half' now"]),
    ],
)
def test_going_on_with_another_experiment_is_refused_with_the_differences(override, listed, folder):
    with pytest.raises(ConfigError) as caught:
        read_checkpoint(folder, loads(EXPERIMENT, [override, "game.multiplier=1/2"]))
    told = str(caught.value).splitlines()
    assert told[0] == f"{folder} holds a run of another experiment; another --out starts anew:"
    assert sorted(told[1:]) == sorted(f"  {line}" for line in [*listed, "game.multiplier: '2/3' in the run, '1/2' now"])


@pytest.mark.parametrize(
    "override",
    ["results=elsewhere", "patience=1", "margin=0", "models.demo.weight=3", "models.demo.tensor_parallel_size=2"],
)
def test_what_cannot_alter_results_may_change(override, folder):
    assert read_checkpoint(folder, loads(EXPERIMENT, [override]))[0].rounds == 2
