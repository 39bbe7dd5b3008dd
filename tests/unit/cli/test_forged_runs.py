"""Runs whose content is nonsense, but whose digests were made anew: an error of one line, and no traceback."""

from __future__ import annotations

import json
import shutil

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made import altered, experiment, make

from pbeauty.analysis.findings import document, examine
from pbeauty.cli.main import main
from pbeauty.cli.tables import run_tables
from pbeauty.errors import RunFileError
from pbeauty.plots import KINDS, run_drawings
from pbeauty.storage.hdf5 import describe
from pbeauty.storage.run_reader import Run

POPULATION = [{"name": "a", "count": 3, "kind": "llm"}, {"name": "b", "count": 2, "kind": "uniform"}]
ROUNDS, SESSIONS, SIZE = 3, 4, 5
VALUES = [np.nan, np.inf, -np.inf, -1.0, 0.0, 1e300, -1e-300, 33.0, 100.5, 255.0, 2.0**63, 2.0**64]


@pytest.fixture(scope="module", params=[True, False], ids=["finished", "played"])
def folder(request, tmp_path_factory):
    """A run of several sessions and rounds, with replies, unusable ones, a session that has ended, and an attribute."""
    generator = np.random.default_rng(5)
    guesses = generator.integers(0, 60, (ROUNDS, SESSIONS * SIZE)).astype(float)
    guesses[0, 1] = np.nan
    guesses[1:, -SIZE:] = np.nan
    said = [[(0, 0, "My number: 20"), (1, 0, "no idea"), (1, 1, "33")] for _ in range(ROUNDS)]
    described = experiment(SIZE, sessions=SESSIONS, rounds=ROUNDS + (not request.param), population=POPULATION)
    columns = {"age": (["young", "old"], np.arange(SESSIONS * SIZE) % 2)} if request.param else None
    return make(tmp_path_factory.mktemp("forged") / "run", guesses, described, said=said, columns=columns)


def datasets(path):
    with h5py.File(path) as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


@np.errstate(all="ignore")
def forge(values, draw):
    """An array that whoever forges a run may put in the place of another."""
    kind = draw(st.sampled_from(["values", "shuffled", "shape", "type", "scaled"]))
    if kind == "shape":
        return draw(st.sampled_from([values[:0], values[None], values.repeat(2, axis=0), values[:1], np.float64(3)]))
    if kind == "type":
        return values.astype(draw(st.sampled_from(["f4", "f8", "i8", "u1", "u8", "S3"])))
    if kind == "shuffled":
        return np.random.default_rng(draw(st.integers(0, 9))).permutation(values.ravel()).reshape(values.shape)
    if kind == "scaled":
        return (values.astype(float) * draw(st.sampled_from([-1, 0, 2, 1000]))).astype(values.dtype)
    forged = values.copy()
    for _ in range(draw(st.integers(1, 3)) if forged.size else 0):
        forged.flat[draw(st.integers(0, forged.size - 1))] = np.array(draw(st.sampled_from(VALUES))).astype(
            values.dtype
        )
    return forged


def put(path, name, values):
    """Puts an array in the place of another, which keeps its attributes, and makes the digests anew."""
    with altered(path) as file:
        kept = dict(file[name].attrs)
        del file[name]
        made = file.create_dataset(name, data=values)
        for key, value in kept.items():
            made.attrs[key] = value


def show(folder, kinds):
    """Everything that is said of a run, and some kinds of figures."""
    findings = examine([folder], 0.95, within=1.0)
    json.dumps(document(findings, 0.95), allow_nan=False)
    (one,) = findings.examined
    run_tables(one)
    with Run(folder) as run:
        for drawing in run_drawings(run, one.analysis):
            if drawing.kind in kinds:
                drawing.draw()
        run.participants, run.rounds, run.provenance, run.personas  # noqa: B018
        for round_index in range(run.round_count):
            list(run.pieces(round_index))
            run.announcement(round_index + 1)
            for participant in range(2):
                run.replies(round_index + 1, participant)


@given(data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_forged_arrays_are_refused_by_name_or_make_figures(folder, tmp_path_factory, data):
    copy = tmp_path_factory.mktemp("copy") / "run"
    shutil.copytree(folder, copy)
    files = sorted(copy.rglob("*.h5"))
    path = data.draw(st.sampled_from([copy / "run.h5"] * 3 + files))
    name = data.draw(st.sampled_from([n for n in datasets(path) if not n.startswith("digests/replies")]))
    with h5py.File(path) as file:
        if file[name].is_virtual:
            return
        values = file[name][:]
    put(path, name, forge(values, data.draw))
    try:
        show(copy, data.draw(st.sampled_from([()] * 20 + [(kind,) for kind in KINDS])))
    except RunFileError as error:
        assert str(copy) in str(error)
        assert "\n" not in str(error)
        assert name.rpartition("/")[2].partition("_")[0] in str(error) or path.name in str(error)
    finally:
        shutil.rmtree(copy.parent)


@pytest.mark.parametrize("folder", [True], indirect=True, scope="module")
@pytest.mark.parametrize(
    ("name", "row", "value", "told"),
    [
        ("rounds/target", (0, 1), np.nan, "round 1, session 2"),
        ("rounds/target", (1, 0), 99.0, "does not follow from the mean"),
        ("rounds/mean", (2, 0), 1e300, "is outside the range of guesses"),
        ("rounds/std", (0, 0), -1.0, "is no deviation"),
        ("rounds/median", (0, 0), 0.0, "is less than lower_quartile"),
        ("rounds/n_valid", (0, 1), 4, "it is not the number of guesses"),
        ("rounds/n_valid", (2, 3), 5, "in a session that had ended"),
        ("rounds/n_winners", (0, 0), 2**63, "are more than have a valid guess"),
        ("rounds/seconds", (0,), -3.0, "one is no length of time"),
        ("rounds/group_number", (0, 0, 1), np.inf, "is outside the range of guesses"),
        ("participants/group", (0,), 1, "not in the groups of the experiment, in order"),
        ("participants/session", (0,), 2, "not in sessions of 5, in order"),
    ],
)
def test_what_is_wrong_is_said_on_one_line(folder, tmp_path, capsys, name, row, value, told):
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    with h5py.File(copy / "run.h5") as file:
        values = file[name][:]
    values[row] = value
    put(copy / "run.h5", name, values)
    assert main(["analyze", str(copy)]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    assert line.startswith(f"pbeauty: {copy / 'run.h5'} is damaged: {name}: ")
    assert told in line


@pytest.mark.parametrize("folder", [True], indirect=True, scope="module")
@pytest.mark.parametrize(
    ("about", "told"),
    [
        ({"provenance": "[1, 2]"}, "provenance"),
        ({"provenance": json.dumps({"ranks": [3]})}, "provenance"),
        ({"experiment": "name: x\npopulation: [{name: a, count: 20, kind: uniform}]"}, "sessions"),
        ({"experiment": "name: x"}, "experiment"),
    ],
)
def test_what_is_said_of_a_run_and_does_not_fit_is_refused(folder, tmp_path, about, told, capsys):
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    with altered(copy / "run.h5") as file:
        describe(file, **about)
    assert main(["report", str(copy)]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert f"{copy / 'run.h5'} is damaged: " in line
    assert told in line
