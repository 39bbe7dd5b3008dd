"""Conversations and the step loop, with an engine that needs no model (`parrot`)."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import made
import mpi
import numpy as np
import parrot
import pytest
from made import table

from pbeauty.config.loader import dumps, loads
from pbeauty.config.persona_files import load_personas
from pbeauty.errors import ConfigError, RunFileError
from pbeauty.game.announcement import Announcement
from pbeauty.game.extraction import read_guess
from pbeauty.game.prompt_variables import population_variables
from pbeauty.game.prompts import user_message
from pbeauty.game.records import Purpose, Status
from pbeauty.job.participants import Asking, Participants
from pbeauty.llm import context_size, request_loop
from pbeauty.mpi.partition import partition_population
from pbeauty.storage.journal import Journal, ReplayedReplies


def experiment(count=40, rounds=4, **group):
    settings = {"name": "birds", "count": count, "kind": "llm", "extraction": "pattern", **group}
    return loads(f"name: test\nseed: 3\ngame: {{rounds: {rounds}}}\npopulation: [{settings}]")


class Listening(parrot.Engine):
    """A parrot that remembers what it was asked."""

    def __init__(self):
        super().__init__(None, None, 0)
        self.asked = []
        self.deepest = 0

    def submit(self, key, prompt, params, seed):
        super().submit(key, prompt, params, seed)
        self.asked.append((bytes(prompt).decode(), seed))
        self.deepest = max(self.deepest, self.in_flight)


def seated(game, engine=None, job=None):
    return Participants(game, partition_population(game, 1)[0], engine or Listening(), job)


def played(block, rounds):
    return [block.answer(Announcement(r, {"target": np.array([20.0 + r])} if r else {})) for r in range(rounds)]


def said(play, participant):
    """The participant's calls of a round as (purpose, text)."""
    rows = [r for r, who in enumerate(play.replies.participant) if who == participant]
    return [(play.replies.purpose[r], bytes(play.replies.text[r]).decode()) for r in rows]


def test_every_prompt_extends_the_one_before_by_the_reply_and_the_announcement():
    block = seated(experiment(retries=0))
    plays = played(block, 3)
    for seat in range(40):
        for r in (1, 2):
            before, _ = block.llm.prompt(seat, round_index=r - 1)
            after, lacking = block.llm.prompt(seat, round_index=r)
            reply = said(plays[r - 1], seat)[-1][1].encode()
            assert lacking == 0
            assert bytes(after).startswith(bytes(before) + reply)
            assert f"The target was {20 + r}." in bytes(after[len(before) :]).decode()


def test_a_retry_shows_the_unreadable_reply_and_is_counted():
    engine = Listening()
    block = seated(experiment(count=200, retries=2), engine)
    (play,) = played(block, 1)
    calls = [said(play, who) for who in range(200)]
    assert {len(c) for c in calls} == {1, 2, 3}
    for (who, row), mine in zip(enumerate(table(play.rows)), calls, strict=True):
        assert [purpose for purpose, _ in mine] == [Purpose.ANSWER, *[Purpose.RETRY] * (len(mine) - 1)], who
        reading = read_guess(mine[-1][1], 0, 100)
        np.testing.assert_equal(row["guess"], reading.guess)
        expected = (Status.RETRIED if len(mine) > 1 else Status.OK) if reading.status.valid else reading.status
        assert row["status"] == expected
        assert row["output_tokens"] == sum(len(text) for _, text in mine)
    again = [prompt for prompt, _ in engine.asked if "I cannot read a number" in prompt]
    assert len(again) == sum(len(c) - 1 for c in calls)
    unread = {text for mine in calls for _, text in mine[:-1]}
    assert all(any(f"<assistant>{text}<" in prompt for text in unread) for prompt in again)


def test_an_experiments_own_texts_are_what_the_model_reads():
    own = """{
        announcements: {target: "{two_decimals} it was."},
        first_round: "{request}", next_round: "{announced} {request}",
        retry: "Say it again.", extraction: "<{reply}> means?"}"""
    settings = "{name: birds, count: 200, kind: llm, retries: 1}"
    game = loads(f"name: test\nseed: 3\ngame: {{rounds: 2}}\nprompts: {own}\npopulation: [{settings}]")
    engine = Listening()
    plays = played(seated(game, engine), 2)
    purposes = Counter(int(purpose) for play in plays for purpose in play.replies.purpose)
    asked = [prompt for prompt, _ in engine.asked]
    assert purposes[Purpose.RETRY] > 5
    assert sum(prompt.endswith("<user>Say it again.</><assistant>") for prompt in asked) == purposes[Purpose.RETRY]
    assert sum("> means?" in prompt for prompt in asked) == purposes[Purpose.EXTRACTION]
    assert sum("21.00 it was. Reply with your number only." in prompt for prompt in asked) >= 200
    assert not any("Round" in prompt or "The target was" in prompt for prompt in asked)


def test_everybody_is_told_the_own_group():
    game = loads("""
        name: test
        game: {rounds: 2}
        prompts:
          system: {mine: "{rules} You are in {group}."}
          user: {mine: "What do you of {group} say?"}
          announcements: {target: "{target}, {group}!"}
        x-all: &all {kind: llm, extraction: pattern, retries: 0, system_prompt: mine, user_prompt: mine}
        population:
          - {<<: *all, name: red, count: 3}
          - {<<: *all, name: blue, count: 2}
          - {<<: *all, name: green, count: 4, personas: {attributes: {job: [nurse, cook]}}}
    """)
    block = seated(game)
    played(block, 2)
    for seat, name in enumerate(["red"] * 3 + ["blue"] * 2 + ["green"] * 4):
        asked = bytes(block.llm.prompt(seat)[0]).decode()
        assert f"You are in {name}.</><user>Round 1. What do you of {name} say?</>" in asked
        assert f"Round 1 is over. 21, {name}! Round 2. What do you of {name} say?</>" in asked


@pytest.mark.parametrize("mode", ["pattern", "pattern-then-model", "model"])
def test_extraction_asks_the_model_as_often_as_its_mode_says(mode):
    block = seated(experiment(count=200, extraction=mode, retries=0))
    (play,) = played(block, 1)
    purposes = Counter(play.replies.purpose)
    unclear = sum(
        read_guess(said(play, who)[0][1], 0, 100).status in (Status.UNPARSABLE, Status.TRUNCATED) for who in range(200)
    )
    assert purposes[Purpose.ANSWER] == 200
    assert purposes[Purpose.EXTRACTION] == {"pattern": 0, "pattern-then-model": unclear, "model": 200}[mode]
    assert unclear > 5
    if mode == "model":
        assert set(play.rows["status"]) <= {Status.EXTRACTED, Status.UNPARSABLE, Status.OUT_OF_RANGE}
    assert (np.isnan(play.rows["guess"]) == (play.rows["status"] > Status.RETRIED)).all()


def test_the_extraction_question_quotes_the_reply_and_joins_the_running_batch():
    engine = Listening()
    block = seated(experiment(count=200, extraction="pattern-then-model", retries=0), engine)
    (play,) = played(block, 1)
    questions = [i for i, (prompt, _) in enumerate(engine.asked) if "Which number does this player pick?" in prompt]
    answers = [i for i, (prompt, _) in enumerate(engine.asked) if "guessing game" in prompt]
    assert questions[0] < answers[-1], "extraction waited for everybody's answer"
    assert all(seed is None for i in questions for seed in [engine.asked[i][1]])
    assert len(play.replies) == len(engine.asked)


def test_requests_in_flight_are_bounded_and_the_walk_turns_round():
    engine = Listening()
    block = seated(experiment(count=100, retries=0), engine)
    played(block, 2)
    assert engine.deepest == request_loop.QUEUE_DEPTH * engine.max_num_seqs
    first = [block.llm.seeds(r) for r in (0, 1)]
    seeds = [seed for _, seed in engine.asked]
    assert seeds[:100] == first[0]
    assert seeds[100:] == first[1][::-1]


def test_seeds_are_the_engines_own_when_asked_for():
    engine = Listening()
    game = experiment(count=20)
    game = loads(dumps(game), ["seeding=engine"])
    played(seated(game, engine), 1)
    assert {seed for _, seed in engine.asked} == {None}


@pytest.mark.parametrize("extends", [True, False])
def test_a_conversation_that_outgrows_the_context_loses_its_oldest_rounds_and_says_so(extends, monkeypatch):
    monkeypatch.setattr(Listening, "max_model_len", 900)
    engine = Listening()
    block = seated(experiment(count=5, rounds=30, retries=0, sampling={"max_tokens": 40}), engine)
    block.llm.template.is_append_only = extends
    plays = played(block, 30)
    forgotten = np.array([play.rows["forgotten"] for play in plays])
    assert forgotten[:3].max() == 0 and forgotten[-1].min() > 20
    assert (np.diff(forgotten, axis=0) >= 0).all()
    for prompt, _ in engine.asked:
        assert len(prompt) <= 900 - 40
        assert prompt.startswith("<system>5 players take part")
    last = engine.asked[-1][0]
    assert "Round 30." in last and "The target was 49." in last and "Round 1." not in last


@pytest.mark.parametrize("personas", [{}, {"attributes": {"job": {"cook": 0.5, "pilot": 0.5}}, "template": "{job}."}])
def test_a_conversation_is_opened_once_as_long_as_all_of_it_fits(personas, monkeypatch):
    game = experiment(count=2, rounds=4, **({"personas": personas} if personas else {})).model_copy(
        update={"sessions": 5}
    )
    block = Participants(
        game, partition_population(game, 1)[0], Listening(), personas=load_personas(game) if personas else None
    )
    opened = []
    make = block.llm.template.opening
    monkeypatch.setattr(block.llm.template, "opening", lambda system, text: opened.append(text) or make(system, text))
    for r in range(4):
        block.answer(Announcement(r, {"target": np.arange(5.0) + r} if r else {}))
    assert len(opened) == (2 if personas else 1) and all(text.startswith("Round 1.") for text in opened)


def test_a_template_that_rewrites_history_is_rendered_anew_from_the_same_words():
    extending, rewriting = seated(experiment(retries=0)), seated(experiment(retries=0))
    rewriting.llm.template.is_append_only = False
    for one, other in zip(played(extending, 3), played(rewriting, 3), strict=True):
        assert table(one.rows).tobytes() == table(other.rows).tobytes()
    assert [extending.llm.prompt(s) for s in range(40)] == [rewriting.llm.prompt(s) for s in range(40)]


def test_a_prompt_that_leaves_no_room_for_a_reply_is_refused_with_the_groups_name(monkeypatch):
    monkeypatch.setattr(Listening, "max_model_len", 300)
    with pytest.raises(ConfigError, match=r"group birds: its prompt \(\d+ tokens\).*max_tokens 64.*300 tokens"):
        seated(experiment())


def test_replies_on_record_are_not_asked_for_again(tmp_path):
    game = experiment(count=120, retries=2, extraction="pattern-then-model")
    job = made.job(tmp_path, game)
    (whole,) = played(seated(game, job=job), 1)

    engine = Listening()
    block = seated(game, engine)
    block._replayed[0] = ReplayedReplies([job.journal_path(0)], np.arange(60), 256, warn=pytest.fail)
    recorded = block.replies_kept
    (again,) = played(block, 1)
    assert table(again.rows).tobytes() == table(whole.rows).tobytes()
    assert [said(again, who) for who in range(120)] == [said(whole, who) for who in range(120)]
    assert len(engine.asked) == len(whole.replies) - recorded
    assert 60 <= recorded < len(whole.replies)


def test_a_broken_off_round_leaves_every_finished_reply_in_its_journal(tmp_path):
    game = experiment(count=120)
    job = made.job(tmp_path, game)
    block = seated(game, job=job)
    ticks = iter(range(1000))
    play = block.answer(Announcement(0, {}), Asking(lambda progress: next(ticks) < 10))
    assert not play.complete
    assert block.llm.engine.in_flight == 0
    on_record = ReplayedReplies([job.journal_path(0)], np.arange(120), 256, warn=pytest.fail)
    assert len(on_record) == len(play.replies) > 0


def test_memory_per_participant_stays_below_two_kilobytes_besides_the_tokens(monkeypatch):
    monkeypatch.setattr(parrot.Engine, "max_num_seqs", 256)
    monkeypatch.setattr(parrot.time, "sleep", lambda seconds: None)
    count, rounds = 1000, 4
    block = Participants(
        game := experiment(count=count, rounds=rounds), partition_population(game, 1)[0], parrot.Engine(None, None, 0)
    )
    tracemalloc.start()
    try:
        for r in range(rounds):
            block.answer(Announcement(r, {"target": np.array([20.0])} if r else {}))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / count < 2048


def test_two_models_play_one_game_on_ranks_of_their_own(tmp_path):
    config = tmp_path / "two.yaml"
    config.write_text(
        "name: two\nseed: 1\ngame: {rounds: 2}\nmodels: {one: {path: demo}, other: {path: demo, weight: 50}}\n"
        "population:\n"
        "  - {name: a, count: 31, kind: llm, model: one}\n"
        "  - {name: b, count: 20, kind: llm, model: other, sampling: {temperature: 0.5}}\n"
        "  - {name: c, count: 7, kind: llm, model: one, user_prompt: step-by-step}\n"
    )
    program = (*mpi.PYTHON, parrot.__file__)
    runs = []
    for ranks in (3, 4):
        done = mpi.mpirun(ranks, "run", config, "--out", tmp_path / str(ranks), program=program)
        assert done.code == 0, done.err
        runs.append(mpi.results(tmp_path / str(ranks)))
    mpi.assert_same(*runs)


def test_a_journal_belongs_to_one_writer(tmp_path):
    Journal(tmp_path / "journal").close()
    with pytest.raises(RunFileError, match="File exists"):
        Journal(tmp_path / "journal")


@pytest.mark.parametrize("told", [{"winning_guess": "8.99", "own_rank": ""}, {"winning_guess": "", "own_rank": "40"}])
def test_the_context_has_room_for_the_longest_request(told, monkeypatch):
    """A target beyond the range of guesses, a rank where nobody has won, and sentences of the experiment's own."""
    game = experiment(rounds=2, announce=["target", "winning_guess", "own_rank"])
    rules = game.game.model_copy(update={"multiplier": "10", "high": 9.0, "tolerance": 0.5})
    long = "It is nobody's. " * 8
    own = game.prompts.model_copy(update={"announcements": {"no_winning_guess": long, "own_rank": long + "{own_rank}"}})
    game = game.model_copy(update={"game": rules, "prompts": own})
    group, variables = game.population[0], population_variables(game) | {"group": "birds"}
    asked = user_message(group.user_prompt, 1, variables, {"target": "89.99", **told}, own)
    monkeypatch.setattr(context_size, "_STEP", 1)
    template = parrot.Engine(None, None, 0).template
    one = game.model_copy(update={"game": rules.model_copy(update={"rounds": 1})})
    more = np.diff([context_size.game_context(case, template, [(group, {})]) for case in (one, game)]).item()
    assert more >= len(template.uncached_turn(asked)) + group.sampling.max_tokens
