"""Runs of several sessions in all that shows and exports them."""

import csv
import io
import json
import re
import subprocess
import sys
from itertools import pairwise, product
from pathlib import Path

import mpi
import numpy as np
import pytest
import scipy
from made import experiment, make

from pbeauty.cli.forecast import forecast
from pbeauty.cli.main import main
from pbeauty.cli.watch import observe, show
from pbeauty.config.loader import loads
from pbeauty.config.parsing import to_yaml
from pbeauty.game.records import Purpose, Status
from pbeauty.game.scoring import score
from pbeauty.job.display import Display
from pbeauty.storage.run_reader import Run

POPULATION = [{"name": "talkers", "count": 2, "kind": "llm"}, {"name": "noise", "count": 1, "kind": "uniform"}]
GUESSES = [[50.0, 33.0, 70.0, 20.0, np.nan, 10.0, np.nan, np.nan, np.nan]]
GUESSES += [[30.0, 22.0, 60.0, 10.0, 12.0, 5.0, np.nan, np.nan, np.nan]]
SAID = [[(i, Purpose.ANSWER, f"mine is {guess}") for i, guess in enumerate(row) if i % 3 < 2] for row in GUESSES]


@pytest.fixture
def run(tmp_path):
    """Three sessions of three; in the third nobody gives a guess, and it ends with the first round."""
    about = experiment(3, name="small", sessions=3, rounds=2, population=POPULATION)
    return make(tmp_path / "run", GUESSES, about, said=[SAID[0], SAID[1][:4]])


def test_rows_say_which_session_they_are_of(run, tmp_path):
    assert main(["export", str(run), "--format", "csv", "--out", str(tmp_path / "x.csv")]) == 0
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["session"] for row in rows] == ["1"] * 3 + ["2"] * 3 + ["3"] * 3 + ["1"] * 3 + ["2"] * 3 + ["3"] * 3
    assert [row["participant"] for row in rows[:9]] == [str(number) for number in range(9)]
    assert {row["status"] for row in rows[-3:]} == {"not_asked"}
    with Run(run) as stored:
        targets = np.repeat(stored.read("target").ravel(), 3)
    assert [float(row["target"] or "nan") for row in rows] == pytest.approx(targets.tolist(), nan_ok=True)


def test_to_the_example_every_session_is_a_game_of_its_own(run, tmp_path):
    assert main(["export", str(run), "--format", "agentscope", "--out", str(tmp_path / "result")]) == 0
    folders = sorted((tmp_path / "result/small/demo/1-1-3-1-0.667").iterdir())
    assert [folder.name for folder in folders] == [f"2026-01-01-00:00:0{second}" for second in range(3)]
    assert [len(list(folder.glob("*.json"))) for folder in folders] == [2, 2, 0], "the third has ended"
    second = json.loads((folders[1] / "result_0.json").read_text())
    assert second["data"] == {
        "P0": {"value": 20.0, "raw": "mine is 20.0", "round": 1},
        "P2": {"value": 10.0, "round": 1},
    }
    assert (second["stats"]["win"], second["stats"]["cnt"], second["stats"]["avg"]) == (10.0, 2, 15.0)
    reader = Path(__file__).parents[2] / "support/read_agentscope.py"
    done = subprocess.run([sys.executable, "-I", reader, tmp_path / "result"], capture_output=True, check=True)
    games = json.loads(done.stdout)
    assert [(game["count"], [one["stats"]["win"] for one in game["rounds"]]) for game in games] == [
        (3, [pytest.approx(34), pytest.approx(2 / 3 * 112 / 3)]),
        (3, [pytest.approx(10), pytest.approx(6)]),
    ]


def test_watching_says_how_many_sessions_there_are(run):
    lines = show(observe(run)).splitlines()
    assert lines[0] == "small: finished, 2 of 2 rounds, 3 sessions of 3"
    assert "mean, median, target: means over sessions" in lines
    assert lines[-3].split()[:3] == ["round", "sessions", "mean"]
    assert lines[-2].split() == ["1", "2", "33.00", "32.50", "22.00", "2", "5", "2.00"]


def test_the_line_of_a_round_is_over_sessions_and_says_which_have_ended():
    guesses = np.array(GUESSES[0])
    status = np.where(np.isnan(guesses), Status.UNPARSABLE, Status.OK).astype(np.uint8)
    about, out = experiment(3, sessions=3, population=POPULATION), io.StringIO()
    with Display(about, out=out, err=io.StringIO()) as display:
        display.result(0, score(about.game, guesses, status, [2, 1]), 1.5)
    heading, line = out.getvalue().splitlines()
    assert heading.split()[:6] == ["round", "mean", "[95", "%", "interval]", "targets"]
    low, high = scipy.stats.t.interval(0.95, 1, 33, scipy.stats.sem([51, 15]))
    assert line.split() == [
        "1", "33.00", f"[{low:.2f},", f"{high:.2f}]", "10.00", "to", "34.00", "2", "5", "1.50", "4", "unparsable;",
        "1", "of", "3", "sessions", "have", "ended",
    ]  # fmt: skip


GROUPS = """
name: groups
sessions: 4
game: {announce: [target]}
population:
  - {name: plain, count: 10, kind: llm}
  - {name: experts, count: 5, kind: llm, announce: [mean, own_rank]}
  - {name: deaf, count: 3, kind: llm, announce: [], user_prompt: step-by-step}
"""


def test_checking_counts_all_sessions_and_says_what_each_group_is_told(tmp_path, capsys):
    (tmp_path / "groups.yaml").write_text(GROUPS)
    assert main(["check", str(tmp_path / "groups.yaml")]) == 0
    printed = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "announced: target; to experts: mean, own_rank; to deaf: nothing" in printed
    assert "4 sessions of 18, 72 participants in all, seed 0" in printed
    assert any(line.startswith("experts: 5 llm in each session (model demo,") for line in printed)
    assert not any("announce [" in line for line in printed)
    assert any(line.startswith("288 requests (at most 1,152)") for line in printed)


NEW = {"name": "new", "count": 2, "kind": "llm"}


def test_checking_a_sweep_says_what_all_cases_play_and_where_they_differ(tmp_path, capsys):
    (tmp_path / "groups.yaml").write_text(GROUPS)
    varied = {
        "sessions": [1, 4],
        "game.announce": [[], ["target", "mean"]],
        "population.2": [{"name": "deaf", "count": 3, "kind": "fixed", "value": 5}, NEW],
        "prompts.system.mine": ["long" * 30, "\u202e" + "short"],
    }
    (tmp_path / "sweep.yaml").write_text(to_yaml({"base": "groups.yaml", "vary": varied}))
    assert main(["check", str(tmp_path / "sweep.yaml")]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert (first, lines[0]) == (f"{tmp_path / 'sweep.yaml'}: good", "  all cases:")
    starts = [number for number, line in enumerate(lines) if re.match(r"  \d+\. ", line)] + [-1]
    shared = [line.strip() for line in lines[1 : starts[0]]]
    assert shared[:2] == ["4 rounds, guesses from 0 to 100", "target 2/3 x mean"]
    assert len(starts) == 17
    assert (
        lines[starts[0]]
        == f"  1. sessions-1_announce-none_population.2-1_{'mine-longlonglonglonglonglonglonglonglong'[:40]}:"
    )
    cases = [{line.strip() for line in lines[start:end]} for start, end in pairwise(starts)]
    for number, (sessions, announce, group, prompt) in enumerate(product(*varied.values())):
        told = ", ".join(announce) or "nothing"
        others = "; to experts: mean, own_rank"
        size = 15 + group["count"]
        players = f"{size} participants"
        if sessions > 1:
            players = f"{sessions} sessions of {size}, {sessions * size} participants in all"
        each = " in each session" * (sessions > 1)
        text = "long" * 24 + "lon\u2026" if "long" in prompt else "\ufffdshort"
        assert cases[number] >= {f"announced: {told}{others}", f"{players}, seed 0", f"prompts.system.mine: {text}"}
        assert (f"deaf: 3 fixed{each} (value 5)" in cases[number]) is (group is not NEW)
        assert not cases[number] & set(shared)
    assert lines[-1] == "  16 cases, in results/sweep"


def test_a_case_says_which_it_is(tmp_path, capsys):
    (tmp_path / "groups.yaml").write_text(GROUPS)
    (tmp_path / "sweep.yaml").write_text("base: groups.yaml\nvary: {sessions: [1, 4]}")
    assert main(["check", str(tmp_path / "sweep.yaml"), "--case", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("sweep.yaml, case sessions-4: good")


def test_the_forecast_of_many_sessions_is_what_they_take(tmp_path):
    text = "name: x\nsessions: 20000\ngame: {rounds: 3}\npopulation: [{name: a, count: 2, kind: uniform}]"
    (tmp_path / "x.yaml").write_text(text)
    done = mpi.alone("run", tmp_path / "x.yaml", "--out", tmp_path / "run")
    assert done.code == 0, done
    found = forecast(loads(text))
    assert found["blocks"] == [40_000]
    taken = (tmp_path / "run/run.h5").stat().st_size
    assert 0.85 < taken / found["disk_bytes"] < 1.15


def test_a_prompt_is_shown_for_each_group_that_is_told_something_else(tmp_path, capsys):
    (tmp_path / "groups.yaml").write_text(GROUPS)
    assert main(["prompts", "--show", "direct", str(tmp_path / "groups.yaml")]) == 0
    assert capsys.readouterr().out.split("\n\n") == [
        "Round 1. Reply with your number only.",
        "(plain)\nRound 1 is over. The target was 33.33. Round 2. Reply with your number only.",
        "(experts)\nRound 1 is over. The average was 33.33. By nearness to the target, your number ranked 2. Round 2. "
        "Reply with your number only.\n",
    ]
    assert main(["prompts", "--show", "step-by-step", str(tmp_path / "groups.yaml")]) == 0
    assert "\n\nRound 1 is over. Round 2. Think" in capsys.readouterr().out
