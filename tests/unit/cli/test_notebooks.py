"""Runs in notebooks: `pbeauty.open`, with pandas and without, and the examples of the documentation."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made import experiment, make

import pbeauty
from pbeauty.errors import RunFileError
from pbeauty.game.records import Purpose
from pbeauty.storage.run_reader import StoredReply

ROOT = Path(__file__).parents[3]
TALKERS = [{"name": "talkers", "count": 3, "kind": "llm"}, {"name": "noise", "count": 2, "kind": "uniform"}]
GUESSES = [[50.0, 33.0, np.nan, 70.0, 10.0], [30.0, 22.0, 20.0, 60.0, 5.0]]
SAID = [
    [(0, Purpose.ANSWER, "I say 50"), (1, Purpose.ANSWER, "33"), (2, Purpose.ANSWER, "no"), (2, Purpose.RETRY, "çü")],
    [(0, Purpose.ANSWER, "30"), (1, Purpose.ANSWER, "22"), (2, Purpose.ANSWER, "20")],
]


@pytest.fixture
def folder(tmp_path):
    described = experiment(5, population=TALKERS, rounds=2)
    return make(tmp_path / "run", GUESSES, described, said=SAID, columns={"mood": (["calm", "bold"], [0, 1, 1, 0, 0])})


def test_guesses_are_read_as_they_are_indexed(folder):
    with pbeauty.open(folder) as run:
        assert not isinstance(run.guesses, np.ndarray)
        assert np.asarray(run.guesses).tobytes() == np.array(GUESSES).tobytes()
        assert run.guesses.shape == (2, 5)
        np.testing.assert_array_equal(run.guesses[0], GUESSES[0])
        assert run.guesses[1, 3] == 60
        assert run.status[0, 2] == 4


def test_frames(folder):
    with pbeauty.open(str(folder)) as run:
        rounds, people = run.rounds, run.participants
    import pandas  # takes a second, and not at every collection of the tests

    assert isinstance(rounds, pandas.DataFrame)
    assert list(rounds.index) == [1, 2]
    assert rounds.loc[1, "mean"] == pytest.approx(np.nanmean(GUESSES[0]))
    assert {"median", "target", "n_valid", "seconds"} <= set(rounds.columns)
    assert list(people.index) == [0, 1, 2, 3, 4]
    assert list(people["group"]) == ["talkers"] * 3 + ["noise"] * 2
    assert list(people["mood"]) == ["calm", "bold", "bold", "calm", "calm"]


def test_without_pandas_tables_are_structured_arrays(folder):
    code = f"""
import sys
sys.modules["pandas"] = None  # its import fails
import numpy as np, pbeauty
with pbeauty.open({str(folder)!r}) as run:
    rounds, people = run.rounds, run.participants
    assert isinstance(rounds, np.ndarray) and rounds["round"].tolist() == [1, 2]
    assert rounds["n_valid"].tolist() == [4, 5]
    assert people["participant"].tolist() == [0, 1, 2, 3, 4] and people["mood"].tolist() == [0, 1, 1, 0, 0]
    assert run.attributes["mood"] == ["calm", "bold"]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_frames_of_sessions_have_a_row_for_each_and_what_the_documentation_says_of_them(tmp_path):
    guesses = np.array([[10.0, 20.0, 40.0, 50.0, 30.0, np.nan], [8.0, 10.0, 30.0, 20.0, np.nan, np.nan]])
    folder = make(tmp_path / "run", guesses, experiment(2, sessions=3, rounds=2))
    with pbeauty.open(folder) as run:
        rounds, people = run.rounds, run.participants
    assert list(rounds.index) == [(number, session) for number in (1, 2) for session in (1, 2, 3)]
    assert rounds.loc[(1, 2), "mean"] == 45
    assert list(rounds.loc[2, "n_valid"]) == [2, 2, 0]
    assert list(people["session"]) == [1, 1, 2, 2, 3, 3]
    done = subprocess.run(
        [sys.executable, "-c", examples("results/README.md")[2]],
        cwd=folder, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    shown = [line.split() for line in done.stdout.splitlines() if line[:1] in "12"]
    means = [[15, 45, 30], [9, 25]]
    expected = [np.mean(of) for of in means] + [np.std(of, ddof=1) / np.sqrt(len(of)) for of in means]
    assert [float(value) for _, value in shown] == pytest.approx(expected, abs=1e-5)


@pytest.fixture
def sweep(tmp_path):
    for case, p, guesses in (("half", "1/2", [[10.0, 20.0]]), ("more", "2/3", [[30.0, 60.0], [20.0, 30.0]])):
        make(tmp_path / "sweep" / case, guesses, experiment(2, name=case, multiplier=p, rounds=2))
    return tmp_path / "sweep"


def test_the_rounds_of_a_sweep_are_one_table_with_what_varies(sweep):
    table = pbeauty.rounds(sweep)
    assert list(table.columns[:4]) == ["run", "game.multiplier", "round", "session"]
    assert table[["run", "game.multiplier", "round", "mean"]].to_numpy().tolist() == [
        ["half", "1/2", 1, 15.0],
        ["more", "2/3", 1, 45.0],
        ["more", "2/3", 2, 25.0],
    ]
    assert table.groupby("game.multiplier")["mean"].mean().to_dict() == {"1/2": 15, "2/3": 35}
    both = pbeauty.rounds(sweep / "half", str(sweep / "more/run.h5"))
    assert both["mean"].tolist() == table["mean"].tolist()
    code = f"""
import sys
sys.modules["pandas"] = None
import pbeauty
table = pbeauty.rounds({str(sweep)!r})
assert table["game.multiplier"].tolist() == ["1/2", "2/3", "2/3"] and table["mean"].tolist() == [15, 45, 25]
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    done = subprocess.run(
        [sys.executable, "-c", examples("results/README.md")[3]],
        cwd=sweep, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert [line.split() for line in done.stdout.splitlines()[1:3]] == [["1/2", "1", "15.0"], ["2/3", "1", "45.0"]]


def test_replies(folder):
    with pbeauty.open(folder) as run:
        assert run.replies(1, 2) == [StoredReply(Purpose.ANSWER, "no"), StoredReply(Purpose.RETRY, "çü")]
        assert run.replies(round=2, participant=0) == [StoredReply(Purpose.ANSWER, "30")]
        assert run.replies(1, 4) == []
        for place in ((0, 1), (3, 1), (1, 5), (1, -1)):
            with pytest.raises(IndexError, match="rounds 1 to 2, participants 0 to 4"):
                run.replies(*place)


def test_replies_that_were_taken_away(folder):
    (folder / "replies/0001/000000000.h5").unlink()
    with pbeauty.open(folder) as run, pytest.raises(RunFileError, match="is missing"):
        run.replies(1, 0)


def test_what_is_no_run(tmp_path):
    with pytest.raises(RunFileError, match="cannot read"):
        pbeauty.open(tmp_path)


def examples(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)


def test_every_example_of_the_documentation_is_run():
    assert [len(examples(name)) for name in ("README.md", "results/README.md")] == [1, 4]


@pytest.mark.parametrize(
    ("name", "number", "told"),
    [
        ("README.md", 0, "1 40.75"),
        ("results/README.md", 0, "1 40.75"),
        ("results/README.md", 1, "I say 50"),
        ("results/README.md", 2, "1    40.75"),
    ],
)
def test_examples_of_the_documentation_run(folder, name, number, told):
    done = subprocess.run(
        [sys.executable, "-c", examples(name)[number]],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert told in done.stdout
    if "savefig" in examples(name)[number]:
        assert (folder / "levels.png").stat().st_size > 5000
