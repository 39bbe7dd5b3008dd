"""Several sessions in one run: independent, whatever the ranks, the interruptions, and the fate of the others."""

from __future__ import annotations

import numpy as np
import pytest
from mpi import PARROT, assert_same, kill, mpirun, results, rounds_kept, silent_after, start

import pbeauty
from pbeauty.game.records import Status

MIXED = """
name: mixed
seed: 11
sessions: 7
game: {rounds: 3, announce: [target, own_rank, group_numbers]}
population:
  - {name: noise, count: 3, kind: uniform, integers: true}
  - {name: birds, count: 4, kind: llm, extraction: pattern, retries: 0, announce: [own_rank, mean]}
  - {name: thinkers, count: 2, kind: level_k, level: 1}
  - {name: more-birds, count: 2, kind: llm, extraction: pattern, retries: 0}
"""
FRAGILE = """
name: fragile
seed: 2
sessions: 12
game: {rounds: 6}
population: [{name: bird, count: 1, kind: llm, extraction: pattern, retries: 0}]
"""


def play(ranks, config, folder, *more):
    done = mpirun(ranks, "run", config, "--out", folder, *more, program=PARROT)
    assert done.code == 0, done
    return done


def written(folder, text, name="game.yaml"):
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """The games by name: mixed, fragile, and one of more sessions that are."""
    folder = tmp_path_factory.mktemp("configs")
    texts = {"mixed": MIXED, "fragile": FRAGILE, "many": FRAGILE.replace("sessions: 12", "sessions: 60")}
    return {name: written(folder, text, f"{name}.yaml") for name, text in texts.items()}


@pytest.fixture(scope="module")
def on_one(configs, tmp_path_factory):
    """The folder of a mixed game and of many sessions on one rank."""
    folder = tmp_path_factory.mktemp("one")
    play(1, configs["mixed"], folder / "mixed", "then", "run", configs["many"], "--out", folder / "many")
    return folder


@pytest.fixture(scope="module")
def on_three(configs, tmp_path_factory):
    """A job on three ranks, and the folder of what it has played: the mixed game, a session of it, the fragile one."""
    folder = tmp_path_factory.mktemp("three")
    one = ("then", "run", configs["mixed"], "--set", "sessions=1", "--out", folder / "one")
    fragile = ("then", "run", configs["fragile"], "--out", folder / "fragile")
    return play(3, configs["mixed"], folder / "mixed", *one, *fragile), folder


@pytest.fixture
def mixed(on_one):
    """The folder of the mixed game."""
    return on_one / "mixed"


def test_results_are_the_same_to_the_bit_on_any_number_of_ranks(configs, mixed, on_three, tmp_path):
    play(5, configs["mixed"], tmp_path / "run")
    assert_same(results(tmp_path / "run"), results(mixed))
    assert_same(results(on_three[1] / "mixed"), results(mixed))


def test_each_session_has_figures_ranks_and_announcements_of_its_own(mixed):
    with pbeauty.open(mixed) as run:
        guesses, status = run.guesses[:].reshape(3, 7, 11), run.status[:].reshape(3, 7, 11)
        valid = np.where(status <= Status.RETRIED, guesses, np.nan)
        np.testing.assert_allclose(run.read("mean"), np.nanmean(valid, axis=2))
        np.testing.assert_allclose(run.read("target"), np.nanmean(valid, axis=2) * 2 / 3)
        assert len(np.unique(run.read("target")[0])) == 7
        np.testing.assert_array_equal(run.read("n_valid"), np.sum(~np.isnan(valid), axis=2))
        np.testing.assert_allclose(guesses[1][:, 7], run.read("target")[0], err_msg="level 1 guesses p x the mean")
        distance = np.abs(valid[0] - run.read("target")[0][:, None])
        best = np.nanmin(distance, axis=1)
        np.testing.assert_array_equal(run.read("n_winners")[0], np.sum(distance == best[:, None], axis=1))
        ranks = run.announcement(1).ranks.reshape(7, 11)
        np.testing.assert_array_equal(ranks == 1, distance == best[:, None])
        assert run.participants.session.tolist() == np.repeat(np.arange(1, 8), 11).tolist()
        assert run.rounds.index.names == ["round", "session"] and len(run.rounds) == 21


def test_the_first_session_is_the_game_of_one_session(mixed, on_three):
    with pbeauty.open(on_three[1] / "one") as one, pbeauty.open(mixed) as many:
        np.testing.assert_array_equal(one.guesses[:], many.guesses[:, :11])
        np.testing.assert_array_equal(one.read("target")[:, 0], many.read("target")[:, 0])


def test_a_group_is_told_what_it_is_to_be_told(mixed):
    with pbeauty.open(mixed) as run:
        told = run.announcement(1)
        birds, others = run.experiment.population[1], run.experiment.population[3]
        assert list(told.to(run.experiment.announced_to(birds))) == ["mean"]
        assert list(told.to(run.experiment.announced_to(others))) == ["target"]


def test_a_session_without_a_valid_guess_ends_and_the_others_go_on(on_three):
    done, folder = on_three
    with pbeauty.open(folder / "fragile") as run:
        status, n_valid = run.status[:].reshape(6, 12, 1), run.read("n_valid")
        ended = np.logical_or.accumulate(n_valid == 0, axis=0)
        assert 0 < ended[-1].sum() < 12 and ended[:, ended[-1]].sum(axis=0).max() > 1
        before = np.vstack([np.zeros((1, 12), bool), ended[:-1]])
        np.testing.assert_array_equal((status == Status.NOT_ASKED).all(axis=2), before)
        np.testing.assert_array_equal((status == Status.NOT_ASKED).any(axis=2), before)
        assert np.isnan(run.guesses[:].reshape(6, 12, 1)[before]).all()
        assert np.isnan(run.read("target")[ended]).all() and not np.isnan(run.read("target")[~ended]).any()
        assert (run.read("n_winners")[ended] == 0).all()
        for index, participant in ((index, int(session)) for index, session in np.argwhere(before)):
            assert not run.replies(index + 1, participant)
    for index, session in np.argwhere(ended & ~before):
        assert f"round {index + 1}: no valid guess in session" in done.err
        assert str(session + 1) in done.err
    assert "not_asked" not in done.out, "nobody's reply was unusable who was not asked"


def test_a_run_whose_sessions_have_all_ended_fails_and_keeps_what_it_has(tmp_path):
    config = written(tmp_path, FRAGILE.replace("sessions: 12", "sessions: 2").replace("rounds: 6", "rounds: 400"))
    done = mpirun(2, "run", config, "--out", tmp_path / "run", program=PARROT)
    assert done.code == 1
    assert "no participant gave a valid guess, so the round has no target" in done.err
    with pbeauty.open(tmp_path / "run") as run:
        assert not run.finished and (run.read("n_valid")[-1] > 0).any()


def test_a_killed_run_goes_on_in_the_middle_of_a_round_with_sessions_that_have_ended(configs, on_one, tmp_path):
    config = configs["many"]
    # Twenty birds on each of three ranks answer twice, and then not all of them.
    with start(4, "run", config, "--out", tmp_path / "run", **silent_after(40)) as job:
        job.wait_for(lambda: (tmp_path / "run/run.h5").exists() and rounds_kept(tmp_path / "run") >= 2)
        kill(job.ranks().values())
        job.end()
    assert rounds_kept(tmp_path / "run") == 2
    play(3, config, tmp_path / "run", "--resume")
    assert_same(results(tmp_path / "run"), results(on_one / "many"))
