"""The first game of the README, and its kin, with the real engine and the shipped model."""

import json
import signal

import h5py
import numpy as np
import pytest
import yaml
from made import texts
from mpi import IN_TURN, altered, assert_same, results, rounds_kept, start

from pbeauty.game.extraction import read_extraction, read_guess
from pbeauty.game.records import ReadingRule, Status
from pbeauty.storage.run_reader import Run

QUICKSTART = "configs/quickstart.yaml"
KINDS = """
name: kinds
seed: 5
game: {multiplier: 1/2, rounds: 2, announce: [target, mean]}
population:
  - {name: thinkers, count: 30, kind: llm, user_prompt: step-by-step, sampling: {max_tokens: 128}}
  - {name: noise, count: 11, kind: uniform}
  - {name: wild, count: 60, kind: llm, extraction: pattern, sampling: {temperature: 2, max_tokens: 24}, retries: 2}
  - {name: cut, count: 10, kind: llm, user_prompt: step-by-step, extraction: pattern, retries: 0,
     sampling: {max_tokens: 1}}
"""
LIMIT = 600
"""Seconds after which a job counts as hanging; an engine takes 10 to 20 to start."""


@pytest.fixture(scope="module")
def job(tmp_path_factory, pytestconfig):
    """The quickstart as `make quickstart` plays it, and then a sweep: several kinds of participants, the example of
    sessions, and the quickstart again, of which rounds without end are broken off by a
    signal. One job, which has vLLM imported once; the job and the folder of the runs."""
    folder, configs = tmp_path_factory.mktemp("quickstart"), pytestconfig.rootpath / "configs"
    (folder / "kinds.yaml").write_text(KINDS)
    cases = [
        {"base": "kinds.yaml"},
        {"base": f"{configs}/sessions.yaml", "set": {"game.rounds": 2}},
        {"base": f"{configs}/quickstart.yaml", "set": {"game.rounds": 1000}},
    ]
    (folder / "sweep.yaml").write_text(json.dumps({"base": cases}))
    first = "run", QUICKSTART, "--out", folder / "first"
    sweep = "run", folder / "sweep.yaml", "--out", folder / "all"
    last = folder / "all/quickstart/run.h5"
    program = altered(folder, IN_TURN)
    with start(3, *first, "then", *sweep, program=program, folder=pytestconfig.rootpath) as job:
        job.wait_for(lambda: last.exists() and rounds_kept(last.parent) >= 4, timeout=LIMIT)
        job.send(signal.SIGTERM)
        return job.end(LIMIT), folder


@pytest.fixture
def quickstart(job):
    """The folder of the first game."""
    return job[1] / "first"


@pytest.fixture
def sweep(job):
    """The folder of the cases."""
    return job[1] / "all"


@pytest.fixture
def kinds(sweep):
    """The game of several kinds of participants: the folder of the run."""
    return sweep / "kinds"


def replies_of(run, round_index):
    """Every reply of a round as (participant, purpose, text, number of tokens)."""
    found = []
    for _, block in run.open_reply_files(round_index):
        labels = texts(block["purpose"].attrs, "labels")
        text, at = block["text"][:].tobytes(), block["text_offsets"][:]
        tokens = np.diff(block["token_offsets"][:])
        assert len(block["tokens"]) == tokens.sum()
        for row, participant in enumerate(block["participant"][:].tolist()):
            said = text[at[row] : at[row + 1]].decode()
            found.append((participant, labels[block["purpose"][row]], said, int(tokens[row])))
    return found


def last_words(run, round_index):
    """The last reply of each participant in a round."""
    return {participant: text for participant, _, text, _ in replies_of(run, round_index)}


# --- the quickstart --------------------------------------------------------------------------------------------


def test_it_plays_four_rounds_with_hardly_an_unusable_reply(job, quickstart):
    done, _ = job
    assert done.left == []
    assert "300 participants on 3 rank(s)" in done.err
    assert "engines ready in " in done.err
    assert "Traceback" not in done.err
    assert done.table[5] == f"results: {quickstart}", "a header, four rounds, and where they are"
    with Run(quickstart) as run:
        assert run.finished
        assert run.round_count == 4
        for index in range(run.round_count):
            status, guesses = run.status[index], run.guesses[index]
            valid = status <= Status.RETRIED
            assert valid.mean() >= 0.99
            assert np.array_equal(np.isnan(guesses), ~valid)
            assert np.all((guesses[valid] >= 0) & (guesses[valid] <= 100))
        means = [run.outcome(index).mean for index in range(run.round_count)]
        assert 20 < means[0] < 45, "people begin near 35"
        assert means[-1] < means[0] - 5, "and go down"
        assert len(set(run.guesses[0])) > 20, "all participants say the same"


def test_the_replies_are_kept_and_are_what_the_guesses_were_read_from(quickstart):
    with Run(quickstart) as run:
        for index in range(run.round_count):
            said, guesses, status = last_words(run, index), run.guesses[index], run.status[index]
            assert sorted(said) == list(range(300))
            assert len(run.file[f"replies/{index + 1:04d}"]) == 2, "one file for each rank that plays"
            for participant, text in said.items():
                reading = read_guess(text, 0, 100)
                if status[participant] in (Status.OK, Status.RETRIED):
                    assert reading.guess == guesses[participant], text
                elif status[participant] == Status.EXTRACTED:
                    assert read_extraction(text, 0, 100).guess == guesses[participant], text
                else:
                    assert not reading.status.valid, text


def test_tokens_are_counted_and_later_prompts_come_from_the_cache(quickstart):
    with Run(quickstart) as run:
        rounds = run.file["rounds"]
        prompt, cached, output = (rounds[f"{name}_tokens"][:].astype(int) for name in ("prompt", "cached", "output"))
        once = run.file["rounds/status"][:] == Status.OK
        assert np.all(cached <= prompt)
        assert np.all(np.diff(np.where(once, prompt, -1), axis=0)[once[1:] & once[:-1]] > 0), "histories do not grow"
        # All of a prompt but its end has been computed before; the cache holds blocks of 128 tokens, hence the slack.
        assert np.all(cached[-1] >= 128)
        assert cached[-1].sum() > 0.6 * prompt[-1].sum()
        for index in range(run.round_count):
            sampled = np.zeros(300, int)
            for participant, _, _, tokens in replies_of(run, index):
                sampled[participant] += tokens
            assert np.array_equal(sampled, output[index])
            assert np.all((sampled > 0) & (sampled < 200))
        assert np.all(rounds["forgotten"][:] == 0)
        assert np.array_equal(rounds["reading"][:] != ReadingRule.NONE, ~np.isnan(rounds["guess"][:]))


def test_prompts_and_provenance_are_kept(quickstart):
    with h5py.File(quickstart / "run.h5") as file:
        group = file["groups/players"].attrs
        assert "pick" in texts(group, "rules_text")
        assert group["user_prompt_text"]
        assert json.loads(group["sampling"])["temperature"] == 1.0
        about = json.loads(file.attrs["provenance"])
        assert [rank["participants"] for rank in about["ranks"]] == [0, 150, 150]
        assert "engine" not in about["ranks"][0]
        assert about["ranks"][1]["engine"]["enable_prefix_caching"] is True
        assert "model.safetensors" in about["models"]["demo"]
        assert any(name.startswith("vllm") for name in about["packages"])
        assert yaml.safe_load(file.attrs["experiment"])["models"]["demo"]["path"] == "demo"


def test_the_same_seed_plays_the_same_game_and_a_signal_ends_it_with_its_rounds_kept(job, quickstart, sweep):
    done, _ = job
    assert done.code != 0
    assert done.left == []
    assert "Traceback" not in done.err
    with Run(sweep / "quickstart") as run:
        kept = run.round_count
        assert f"stopped by SIGTERM after {kept} finished round(s)" in done.err
        assert not run.finished
        for index in range(kept):
            assert sorted(last_words(run, index)) == list(range(300))
    short, long = results(quickstart), results(sweep / "quickstart")
    assert_same({name: values if "rounds" not in name else values[:4] for name, values in long.items()}, short)


def test_the_example_of_sessions_plays_twenty_games(job, sweep):
    assert "360 participants in 20 sessions" in job[0].err
    with Run(sweep / "sessions") as run:
        assert run.finished
        targets = run.read("target")
        assert targets.shape == (2, 20)
        assert len(set(targets[0])) > 15, "sessions do not differ"
        assert 8 < targets[1].mean() < targets[0].mean() - 2 < 30


# --- several kinds ---------------------------------------------------------------------------------------------


def test_groups_of_all_kinds_play_one_game(kinds):
    with Run(kinds) as run:
        groups = run.file["participants/group"][:]
        assert np.bincount(groups).tolist() == [30, 11, 60, 10]
        for index in range(run.round_count):
            status = run.status[index]
            assert np.mean(status[groups == 0] <= Status.RETRIED) > 0.8, "hardly a thinker can be read"
            assert np.all(status[groups == 1] == Status.OK)
            assert np.all(status[groups == 3] != Status.OK), "a single token names no number here"
            assert run.file["rounds/prompt_tokens"][index][groups == 1].sum() == 0
            assert set(last_words(run, index)) == set(np.flatnonzero(groups != 1).tolist())
        texts = [text for participant, text in last_words(run, 0).items() if participant < 30]
        assert np.mean(["my number" in text.lower() for text in texts]) > 0.8


def test_unreadable_replies_are_asked_again_and_counted(kinds):
    with Run(kinds) as run:
        groups = run.file["participants/group"][:]
        for index in range(run.round_count):
            status, guesses = run.status[index], run.guesses[index]
            calls = {participant: [] for participant in range(len(groups))}
            for participant, purpose, text, _ in replies_of(run, index):
                calls[participant].append((purpose, text))
            assert np.any(status[groups == 2] == Status.RETRIED), "a temperature of 2 makes some replies unreadable"
            for participant in np.flatnonzero(groups == 2):
                purposes = [purpose for purpose, _ in calls[participant]]
                assert purposes == ["answer", "retry", "retry"][: len(purposes)]
                if status[participant] == Status.RETRIED:
                    assert len(purposes) > 1
                    assert read_guess(calls[participant][-1][1], 0, 100).guess == guesses[participant]
                elif status[participant] > Status.RETRIED:
                    assert len(purposes) == 3, "given up too early"
            assert all([purpose for purpose, _ in calls[participant]] == ["answer"] for participant in range(101, 111))
            assert run.outcome(index).n_valid == np.sum(status <= Status.RETRIED)
