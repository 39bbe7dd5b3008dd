"""The demo participant: the shipped folder, its training data, its training, and how it plays in the real engine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from pbeauty.demo import conversations, train
from pbeauty.game.experiment import Game, Model
from pbeauty.game.prompt_variables import number_text, prompt_variables
from pbeauty.game.prompts import EXTRACTION, system_message, user_message
from pbeauty.game.records import Status
from pbeauty.game.scoring import score
from pbeauty.llm.engine import Engine
from pbeauty.llm.placement import NodeRank

DEMO = Path(conversations.__file__).parent
NUMBER = r"-?\d+(?:\.\d+)?"
STYLES = ("direct", "step-by-step")
PLAYERS = {"direct": 300, "step-by-step": 120}
"""Replies step by step take five times as long."""

# --- the folder --------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tokenizer():
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(DEMO)


def render(tokenizer, messages):
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)


def message(role, content):
    return {"role": role, "content": content}


def test_folder_is_small_and_whole():
    names = {path.name for path in DEMO.iterdir() if path.is_file()}
    assert {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    } <= names
    assert sum(path.stat().st_size for path in DEMO.iterdir()) < 4_000_000


def test_card_says_what_the_model_is_not():
    card = (DEMO / "README.md").read_text(encoding="utf-8")
    for words in ("not evidence about people", "language models", "Nagel", "--seed", "Apache-2.0", "minutes"):
        assert words in card


def test_generation_stops_at_the_end_of_a_turn(tokenizer):
    settings = json.loads((DEMO / "generation_config.json").read_text())
    assert settings["eos_token_id"] == tokenizer.convert_tokens_to_ids(train.END) == tokenizer.eos_token_id


@pytest.mark.parametrize("with_system", [True, False])
def test_conversations_grow_token_by_token(tokenizer, with_system):
    told = {"target": "24.47"}
    system = [message("system", system_message("classic", prompt_variables(Game(), 400)))] if with_system else []
    messages = [*system, message("user", user_message("direct", 0, prompt_variables(Game(), 400), {}))]
    second = message("user", user_message("direct", 1, prompt_variables(Game(), 400), told))
    for reply in ("33", " 33.5 ", "", "It is\n\n22!\n", "naïve ☃"):
        before = render(tokenizer, messages)
        said = [*before, *tokenizer.encode(reply, add_special_tokens=False), tokenizer.eos_token_id]
        after = render(tokenizer, [*messages, message("assistant", reply), second])
        assert after[: len(said)] == said
        assert after[-1] == before[-1] == tokenizer.convert_tokens_to_ids(train.HEADERS["assistant"])


def test_any_text_survives_the_tokenizer_and_digits_stand_alone(tokenizer):
    text = "Zoltán picks 24.47 — 漢字 ☃ \x00 10000000"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    assert all(len(re.findall(r"\d", tokenizer.decode([token]))) <= 1 for token in ids)


# --- the training data -------------------------------------------------------------------------------------


def test_conversations_come_from_the_seed_alone():
    def drawn(seed):
        rng = np.random.default_rng(seed)
        return [conversations.conversation(rng) for _ in range(50)]

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)


def test_replies_to_learn_state_a_number_of_the_range():
    rng = np.random.default_rng(11)
    styles = set()
    for _ in range(400):
        turns = conversations.game_conversation(rng)
        told = " ".join(turn.content for turn in turns)
        found = re.search(rf"from ({NUMBER}) to ({NUMBER});", told)
        for turn in turns:
            if not turn.learn:
                continue
            assert turn.role == "assistant"
            bare, steps = re.fullmatch(NUMBER, turn.content), re.search(rf" My number: ({NUMBER})$", turn.content)
            assert bare or steps, turn.content
            styles.add("direct" if bare else "step-by-step")
            if found:
                guess = float(bare[0] if bare else steps[1])
                assert float(found[1]) <= guess <= float(found[2])
    assert styles == set(STYLES)


def test_extractions_are_answered_with_the_stated_number_or_none():
    rng = np.random.default_rng(12)
    answers = []
    for _ in range(300):
        asked, answer = conversations.extraction_conversation(rng)
        assert answer.learn and not asked.learn
        assert answer.content == "none" or answer.content in asked.content
        answers.append(answer.content)
    assert 0.1 < answers.count("none") / len(answers) < 0.5


@pytest.mark.parametrize(("multiplier", "means"), [("2/3", (36.7, 23.9, 15.9, 9.2)), ("1/2", (27.0, 11.1, 3.8))])
def test_training_data_have_the_published_means(multiplier, means):
    game, rng, told = Game(multiplier=multiplier), np.random.default_rng(13), {}
    for mean in means:
        guesses = [float(conversations.choose(rng, game, told).text) for _ in range(1500)]
        assert np.mean(guesses) == pytest.approx(mean, abs=2.0)
        told = {"target": game.p * np.mean(guesses)}


def test_encoding_is_what_the_chat_template_renders(tokenizer):
    rng = np.random.default_rng(14)
    for _ in range(30):
        turns = conversations.conversation(rng)
        ids, weights = train.encode(tokenizer, turns)
        rendered = tokenizer.apply_chat_template(
            [message(turn.role, turn.content) for turn in turns], tokenize=True, return_dict=False
        )
        assert ids == rendered[: train.LONGEST] and len(weights) == len(ids)
        assert weights[-1] > 0 or len(ids) == train.LONGEST


# --- the training ------------------------------------------------------------------------------------------


def test_script_trains_a_folder_that_loads(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr(train, "CHUNK", 128)
    assert train.main(["--out", str(tmp_path), "--steps", "4", "--seed", "5"]) == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    shipped = json.loads((DEMO / "config.json").read_text())
    assert model.config.vocab_size == len(tokenizer) == shipped["vocab_size"]
    assert model.config.hidden_size == shipped["hidden_size"]
    assert str(model.dtype) == "torch.bfloat16"


# --- the play ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def engine():
    return Engine(Model(), NodeRank(0, 2), seed=1).llm


def ask(engine, conversations, max_tokens):
    """The replies to conversations (lists of messages), sampled at temperature 1."""
    from vllm import SamplingParams

    prompts = [{"prompt_token_ids": render(engine.get_tokenizer(), messages)} for messages in conversations]
    sampling = SamplingParams(temperature=1.0, max_tokens=max_tokens)
    return [answer.outputs[0].text for answer in engine.generate(prompts, sampling, use_tqdm=False)]


def read(style, reply, game):
    """The guess that a reply states in its style, NaN if there is none in the range."""
    pattern = rf"\s*({NUMBER})\s*" if style == "direct" else rf".*My number: ({NUMBER})\s*"
    found = re.fullmatch(pattern, reply, re.DOTALL)
    return float(found[1]) if found and game.low <= float(found[1]) <= game.high else np.nan


def play(engine, game, style, system=None, share=1.0, told_target=None):
    """Plays a game with a share of `PLAYERS`; float64[round, player] guesses, and the replies of the last round."""
    players = round(share * PLAYERS[style])
    told_facts, last, replies, rounds = prompt_variables(game, players), None, [], []
    opening = message("system", system or system_message("classic", told_facts))
    conversations = [[opening] for _ in range(players)]
    for round_index in range(game.rounds):
        told = {name: number_text(getattr(last, name).item()) for name in game.announce} if last else {}
        if told and told_target is not None:
            told = {"target": number_text(told_target)}
        for messages in conversations:
            messages.append(message("user", user_message(style, round_index, told_facts, told)))
        replies = ask(engine, conversations, max_tokens=64 if style == "direct" else 128)
        for messages, reply in zip(conversations, replies, strict=True):
            messages.append(message("assistant", reply))
        guesses = np.array([read(style, reply, game) for reply in replies])
        status = np.where(np.isnan(guesses), Status.UNPARSABLE, Status.OK).astype(np.uint8)
        last = score(game, guesses, status).outcome
        rounds.append(guesses)
    return np.array(rounds), replies


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("multiplier", "first", "later"),
    [
        ("2/3", (30, 42), ((18, 30), (11, 23), (6, 17))),
        ("1/2", (22, 32), ((7, 16), (2, 10))),
        ("4/3", (53, 68), ((65, 98), (65, 100))),
    ],
)
def test_plays_as_people_did(engine, style, multiplier, first, later):
    guesses, replies = play(engine, Game(multiplier=multiplier, rounds=1 + len(later)), style)
    assert np.isfinite(guesses).mean() >= (0.95 if multiplier == "4/3" else 0.99)
    means = np.nanmean(guesses, axis=1)
    for mean, (low, high) in zip(means, (first, *later), strict=True):
        assert low <= mean <= high, means
    assert 15 <= np.nanstd(guesses[0]) <= 32
    if style == "step-by-step":
        tokens = [len(engine.get_tokenizer().encode(reply)) for reply in replies]
        assert np.mean(tokens) < 60 and max(tokens) < 110


@pytest.mark.parametrize("style", STYLES)
def test_follows_the_announced_target(engine, style):
    game = Game(rounds=2)
    means = [np.nanmean(play(engine, game, style, share=0.5, told_target=told)[0][1]) for told in (10, 40)]
    assert 6 <= means[0] <= 15 and 28 <= means[1] <= 48
    assert 2.2 <= means[1] / means[0] <= 5


@pytest.mark.parametrize("style", STYLES)
def test_stays_readable_over_ten_rounds(engine, style):
    guesses, _ = play(engine, Game(rounds=10), style, share=0.2)
    assert np.isfinite(guesses).mean() >= 0.98


@pytest.mark.parametrize("style", STYLES)
def test_stays_readable_with_prompts_and_games_it_has_not_seen(engine, style):
    stranger = "You are Zoltán, 45, a beekeeper. Guess what 2/3 of the crowd's mean on 0..100 will be ☃ lorem ipsum!"
    assert np.isfinite(play(engine, Game(rounds=2), style, system=stranger, share=0.4)[0]).mean() >= 0.97
    game = Game(multiplier="57/90", offset=7, low=0, high=150, aggregate="median", announce=("median", "target"))
    assert np.isfinite(play(engine, game, style, share=0.4)[0]).mean() >= 0.95


def test_extracts_numbers(engine):
    replies = {
        "I would say 37 is best.": "37",
        "Well. The target was 24.47, so I take 16.": "16",
        "Who knows what they will do?": "none",
        "My number: 12.5": "12.5",
        "I want to pick 88": "88",
        "I cannot decide.": "none",
    }
    asked = [[message("user", EXTRACTION.format(low=0, high=100, reply=reply))] for reply in replies for _ in range(20)]
    answers = ask(engine, asked, max_tokens=16)
    right = [answer == truth for answer, truth in zip(answers, np.repeat(list(replies.values()), 20), strict=True)]
    assert np.mean(right) >= 0.75
