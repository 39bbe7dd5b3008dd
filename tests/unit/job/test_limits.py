"""Runs that end by themselves ahead of the time limit of their Slurm job, and go on in the next."""

import json
import re
import signal
import time

import pytest
from mpi import alone, mpirun, rounds_kept

from pbeauty.config.loader import loads
from pbeauty.errors import ConfigError
from pbeauty.job import stop_requests
from pbeauty.job.stop_requests import SIGNALS, Interrupt, job_end, parse_duration

THINKERS = """
name: thinkers
game: {rounds: 8}
population: [{name: crowd, count: 50, kind: uniform, think_time: 0.7}]
"""
"""Longer than the time that is left in the first job, however soon it starts."""


@pytest.fixture
def signals():
    """Puts the handlers back that an Interrupt replaces."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def write(folder):
    (folder / "experiment.yaml").write_text(THINKERS)
    return folder / "experiment.yaml"


def fake_squeue(folder, says, code=0):
    (folder / "squeue").write_text(f'#!/bin/sh\necho "$*" >> {folder}/asked\necho "{says}"\nexit {code}\n')
    (folder / "squeue").chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_ID": "77", "SLURM_JOB_END_TIME": ""}


# --- whole jobs ------------------------------------------------------------------------------------------------


def test_a_run_stops_before_the_end_of_its_job_and_goes_on_in_the_next(tmp_path):
    """Slurm is asked for the time left: once, by one rank."""
    config, run = write(tmp_path), tmp_path / "run"
    environ = fake_squeue(tmp_path, "0:05")
    done = mpirun(3, "run", config, "--set", "margin=4", "--out", run, environ=environ)
    assert (tmp_path / "asked").read_text().splitlines() == ["-h -j 77 -o %L"]
    kept = rounds_kept(run)
    assert done.code not in (0, 1, 2), "an interrupted run must not look like another"
    assert done.left == []
    assert kept < 8
    message = rf"pbeauty: stopped by the time limit of its Slurm job \(1 s before it\) after {kept} finished round"
    assert re.search(message, done.err), done.err
    state = json.loads((run / "live.json").read_text())
    assert state["state"] == "interrupted"
    assert state["message"].startswith("stopped by the time limit of its Slurm job")
    # Neither key alters results, so that they may change on the way.
    resumed = alone("run", config, "--set", "margin=0", "--set", "patience=5", "--out", run, "--resume")
    assert resumed.code == 0, resumed
    assert rounds_kept(run) == 8


def test_a_long_round_is_broken_off_at_the_limit_and_the_exit_code_is_75(tmp_path):
    environ = {"SLURM_JOB_END_TIME": str(int(time.time()) + 12)}
    long = ("--set", "population.0.think_time=3600")
    done = alone("run", write(tmp_path), *long, "--out", tmp_path / "run", environ=environ)
    assert (done.code, done.left) == (75, [])
    assert "stopped by the time limit of its Slurm job" in done.err
    assert rounds_kept(tmp_path / "run") == 0


# --- the parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("0:45", 45),
        ("12:05", 725),
        ("3:00:01", 10801),
        ("2-03:00:01", 183601),
        ("UNLIMITED", None),
        ("NOT_SET", None),
        ("INVALID", None),
        ("", None),
        ("5", 300),
        ("1:2:3:4", None),
    ],
)
def test_durations_as_slurm_writes_them(told, expected):
    assert parse_duration(told) == expected


def test_the_end_of_the_job(tmp_path, monkeypatch):
    assert job_end({}) is None
    assert job_end({"SLURM_JOB_END_TIME": "1800000000", "SLURM_JOB_ID": "7"}) == 1_800_000_000
    monkeypatch.setenv("PATH", str(tmp_path))
    assert job_end({"SLURM_JOB_ID": "7"}) is None  # there is no squeue
    fake_squeue(tmp_path, "1:00")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert job_end({"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": "later"}) == pytest.approx(time.time() + 60, abs=20)
    assert job_end({"SLURM_JOB_ID": "7; reboot"}) is None
    for says, code in (("UNLIMITED", 0), ("slurm_load_jobs error", 1), ("1:00", 1)):
        fake_squeue(tmp_path, says, code)
        assert job_end({"SLURM_JOB_ID": "7"}) is None


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(
    ("left", "margin", "stops_after"),
    [(1000, 120, 880), (1000, 0, 1000), (100, 120, 75), (None, 120, None), (-5, 120, None), (0, 120, None)],
    ids=["margin", "no-margin", "little-time", "no-limit", "long-over", "over"],
)
def test_it_stops_a_margin_before_the_end(left, margin, stops_after, monkeypatch):
    now = [1e9]
    monkeypatch.setattr(stop_requests.time, "time", lambda: now[0])
    asked = Interrupt()
    asked.end_before(None if left is None else 1e9 + left, margin)
    for after in range(0, 1100, 5):
        now[0] = 1e9 + after
        assert asked.requested() is (stops_after is not None and after >= stops_after), after
    assert (asked.reason is not None) is (stops_after is not None)


@pytest.mark.usefixtures("signals")
def test_the_first_reason_counts():
    asked = Interrupt()
    assert not asked.requested()
    signal.raise_signal(signal.SIGUSR1)
    asked.end_before(time.time() + 1e-6, 0)
    asked.ask("something else")
    assert asked.requested()
    assert asked.reason == "SIGUSR1"


@pytest.mark.parametrize("line", ["margin: -1", "patience: 0", "patience: -3", "margin: .inf", "patience: soon"])
def test_what_makes_no_sense_is_refused(line):
    with pytest.raises(ConfigError, match=line.partition(":")[0]):
        loads(f"{THINKERS}\n{line}")
