"""Real vLLM on checkpoints that speak as the families people use do: templates, thoughts, ends of turns."""

from __future__ import annotations

import gc
from functools import cache

import made
import numpy as np
import pytest
import speaker

from pbeauty.config.loader import loads
from pbeauty.game.announcement import Announcement
from pbeauty.game.experiment import LLMGroup, Sampling
from pbeauty.game.personas import Source, assign_personas, has_personas
from pbeauty.game.records import Purpose, Status
from pbeauty.job.participants import Participants
from pbeauty.llm import context_size
from pbeauty.llm.engine import Engine
from pbeauty.llm.placement import NodeRank
from pbeauty.mpi.partition import partition_population
from pbeauty.storage.journal import ReplayedReplies

OPENS_A_THOUGHT = speaker.CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
KNOWS_THOUGHTS = speaker.CHATML + "{# </think> #}"
HARMONY = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|start|>assistant<|channel|>final<|message|>"
    "{{ m['content'] }}{% if loop.last and not add_generation_prompt %}<|return|>{% else %}<|end|>{% endif %}"
    "{% else %}<|start|>{{ m['role'] }}<|message|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
MAGISTRAL = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] }}</s>"
    "{% elif m['role'] == 'system' %}[SYSTEM_PROMPT]{{ m['content'] }}[/SYSTEM_PROMPT]"
    "{% else %}[INST]{{ m['content'] }}[/INST]{% endif %}{% endfor %}{# thoughts are in [THINK] #}"
)


@pytest.fixture(scope="module", autouse=True)
def quick_engines():
    """Starting and ending an engine takes a quarter: vLLM does not look through all modules for kernels to replace,
    which the CPU build needs once in a process, nor through all objects for memory to give back."""
    from vllm.platforms.cpu import CpuPlatform

    once = staticmethod(cache(CpuPlatform.register_triton_kernel_overrides))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CpuPlatform, "register_triton_kernel_overrides", once)
        patch.setattr(gc, "collect", lambda *generation: 0)
        yield


def player(folder, count=4, rounds=2, model="", **group):
    """Participants who are the model in `folder`. Engines with so small a cache need not be closed, which takes 2 s."""
    settings = {"name": "speakers", "count": count, "kind": "llm", "model": "m", "retries": 0, **group}
    game = loads(
        f"name: t\nseed: 1\ngame: {{rounds: {rounds}}}\npopulation: [{settings}]\n"
        f"models: {{m: {{path: {folder}, engine: {{num_gpu_blocks_override: 512}}, {model}}}}}"
    )
    engine = Engine(game.models["m"], NodeRank(0, 1), seed=1)
    personas = assign_personas(game, {}) if has_personas(game) else None
    return Participants(game, partition_population(game, 1)[0], engine, personas=personas)


@pytest.fixture
def play(tmp_path):
    """Plays a round of a checkpoint that says phrases; the block, and its answers."""

    def playing(*phrases, checkpoint=None, **settings):
        block = player(speaker.make(tmp_path / "m", *phrases, **(checkpoint or {})), **settings)
        return block, block.answer(Announcement(0, {}))

    return playing


def texts(answers, purpose=Purpose.ANSWER):
    rows = [row for row, found in enumerate(answers.replies.purpose) if found == purpose]
    return [bytes(answers.replies.text[row]).decode() for row in rows]


def second_prompts(block):
    """What every participant is sent in the second round, as text with all special tokens."""
    block.llm.add_user_turn(Announcement(1, {"target": np.array([20.0])}))
    return [block.llm.template.tokenizer.decode(block.llm.prompt(slot)[0]) for slot in range(block.count)]


def test_it_says_its_phrases(play):
    _, answers = play(["My number: ", "11"], ["My number: 2", "2"], count=40)
    assert set(texts(answers)) == {"My number: 11", "My number: 22"}
    assert set(answers.rows["guess"]) == {11, 22} and set(answers.rows["status"]) == {Status.OK}


# --- thoughts ----------------------------------------------------------------------------------------------

THOUGHTFUL = ["Half of 50 is 25, I think: ", "My number: 25.", "</think>", "\n\n12"]


@pytest.mark.parametrize(
    ("special", "extraction"),
    [([], "pattern-then-model"), (["<think>", "</think>"], "pattern")],
    ids=["visible", "special"],
)
def test_a_reply_cut_inside_a_thought_that_the_template_opened_is_truncated(play, special, extraction):
    checkpoint = {"template": OPENS_A_THOUGHT, "special": special}
    _, answers = play(THOUGHTFUL, checkpoint=checkpoint, extraction=extraction, sampling={"max_tokens": 2})
    assert set(answers.rows["status"]) == {Status.TRUNCATED}
    assert len(answers.replies) == 4, "a thought is not worth a second call"


@pytest.mark.parametrize("special", [[], ["<think>", "</think>"]], ids=["visible", "special"])
def test_the_answer_after_a_thought_that_the_template_opened_is_read_and_kept(play, special):
    block, answers = play(THOUGHTFUL, checkpoint={"template": OPENS_A_THOUGHT, "special": special})
    assert set(answers.rows["guess"]) == {12} and set(answers.rows["status"]) == {Status.OK}
    assert texts(answers)[0] == "".join(THOUGHTFUL), "the stored reply is whole"
    for prompt in second_prompts(block):
        assert "<|im_start|>assistant\n12<|im_end|>" in prompt and "Half of 50" not in prompt
        assert prompt.endswith("<|im_start|>assistant\n<think>\n")


def test_a_model_that_never_ends_its_thought_has_not_answered(play):
    _, answers = play(["<think>", "My number: 3", "3"], checkpoint={"template": KNOWS_THOUGHTS})
    assert set(answers.rows["status"]) == {Status.UNPARSABLE}


def test_thoughts_in_channels_of_special_tokens_are_told_from_the_answer(play):
    """As gpt-oss speaks: the tags are special tokens, and the end of a thought is not the end of the reply."""
    special = ["<|channel|>", "<|message|>", "<|start|>", "<|end|>"]
    thought = ["<|channel|>analysis<|message|>", "I guess 70.", "<|end|><|start|>assistant"]
    phrase = [*thought, "<|channel|>final<|message|>", "My number: 14"]
    checkpoint = {"template": HARMONY, "special": special, "eos": "<|return|>", "ends": "<|return|>"}
    block, answers = play(phrase, checkpoint=checkpoint)
    assert set(answers.rows["guess"]) == {14} and set(answers.rows["status"]) == {Status.OK}
    assert any("openai_gptoss" in note for note in block.notes())
    for prompt in second_prompts(block):
        assert "<|start|>assistant<|channel|>final<|message|>My number: 14<|end|>" in prompt
        assert "I guess 70" not in prompt


def test_a_channel_that_is_cut_before_the_final_one_is_truncated(play):
    checkpoint = {"template": HARMONY, "special": ["<|channel|>", "<|message|>"], "ends": "<|return|>"}
    phrase = ["<|channel|>", "analysis", "<|message|>", "My number: 70", " or so"]
    _, answers = play(phrase, checkpoint=checkpoint, sampling={"max_tokens": 4})
    assert set(answers.rows["status"]) == {Status.TRUNCATED}


def test_thoughts_in_brackets_that_are_special_tokens_are_told_from_the_answer(play):
    """As Magistral speaks: a decoder that leaves special tokens out runs thought and answer together."""
    checkpoint = {"template": MAGISTRAL, "special": ["[THINK]", "[/THINK]"], "eos": "</s>", "ends": "</s>"}
    block, answers = play(["[THINK]", "My number: 80", "[/THINK]", "16"], checkpoint=checkpoint)
    assert set(answers.rows["guess"]) == {16}
    assert texts(answers)[0] == "[THINK]My number: 80[/THINK]16"
    assert all("[/INST]16</s>" in prompt and "80" not in prompt for prompt in second_prompts(block))


def test_a_parser_of_vllm_that_reads_text_can_be_named(play):
    """Granite marks thoughts in words."""
    phrase = ["Here is my thought process: I guess 70.", " Here is my response: ", "My number: 18"]
    block, answers = play(phrase, model="reasoning_parser: granite")
    assert set(answers.rows["guess"]) == {18}
    assert all("assistant\nMy number: 18<|im_end|>" in prompt for prompt in second_prompts(block))


@pytest.mark.parametrize("parser", ["qwen3", "seed_oss"])
def test_a_parser_of_vllm_with_tags_of_its_own_can_be_named(play, parser):
    start, end = ("<seed:think>", "</seed:think>") if parser == "seed_oss" else ("<think>", "</think>")
    phrase = [start, "I guess 70.", end, "My number: 18"]
    _, answers = play(phrase, model=f"reasoning_parser: {parser}", checkpoint={"special": [start, end]})
    assert set(answers.rows["guess"]) == {18}


# --- second calls ------------------------------------------------------------------------------------------


def test_an_extraction_that_is_cut_gives_no_number(play, monkeypatch):
    """`is 3|3` is not 3."""
    monkeypatch.setattr(context_size, "EXTRACTION_TOKENS", 2)
    phrase = ["Well, this player's ", "number is 3", "3 and no other"]
    _, answers = play(phrase, extraction="pattern-then-model", sampling={"max_tokens": 2})
    assert texts(answers, Purpose.EXTRACTION) == ["Well, this player's number is 3"] * 4
    assert set(answers.rows["status"]) == {Status.TRUNCATED}


def test_an_extraction_by_a_model_that_thinks_has_room_for_the_thought_and_its_answer_alone_is_read(play):
    pieces = [f"{letter} is no number. " for letter in "abcdefghijklmnopqrstuvwxyz"]
    phrase = ["<think>", *pieces, "They say 80.", "</think>", "It is 21"]
    _, answers = play(phrase, extraction="model", checkpoint={"template": KNOWS_THOUGHTS})
    assert len(texts(answers, Purpose.EXTRACTION)) == 4
    assert set(answers.rows["guess"]) == {21} and set(answers.rows["status"]) == {Status.EXTRACTED}


def test_an_extraction_cut_inside_its_thought_gives_no_number(play, monkeypatch):
    monkeypatch.setattr(LLMGroup.model_fields["sampling"], "default", Sampling(max_tokens=1))
    monkeypatch.setattr(context_size, "EXTRACTION_TOKENS", 1)
    _, answers = play(["They ", "say 33", "</think>"], extraction="model", checkpoint={"template": KNOWS_THOUGHTS})
    assert not set(answers.rows["status"]) & {Status.EXTRACTED, Status.OK}


WRITTEN = ["<think>", "A background is wanted.", "</think>", "You are a baker of forty who likes numbers."]


def test_a_written_background_is_stripped_of_its_thought_and_then_judged(tmp_path):
    personas = {"attributes": {"trade": ["baker", "smith"]}, "write": {"min_chars": 40, "retries": 0}}
    settings = {"personas": personas, "system_prompt": "background"}
    block = player(speaker.make(tmp_path / "m", WRITTEN, template=KNOWS_THOUGHTS), **settings)
    made = block.write_backgrounds().backgrounds
    assert {bytes(made.text[row]).decode() for row in range(4)} == {WRITTEN[-1]}
    assert set(made.source) == {Source.WRITTEN}


def test_a_background_whose_thought_alone_is_long_enough_is_none(tmp_path):
    phrase = ["<think>", "You are a baker of forty who likes numbers.", "</think>", "No."]
    personas = {"attributes": {"trade": ["baker", "smith"]}, "write": {"min_chars": 20, "retries": 0}}
    settings = {"personas": personas, "system_prompt": "background"}
    block = player(speaker.make(tmp_path / "m", phrase), **settings)
    made = block.write_backgrounds().backgrounds
    assert set(made.source) == {Source.IN_WORDS}


# --- where a reply ends ------------------------------------------------------------------------------------


def test_the_token_that_ends_a_turn_in_the_template_ends_a_reply(play):
    """The model's own settings name another, and it goes on with turns of its own making."""
    phrase = ["My number: 44", "<|im_end|>", "<|im_start|>", "user\nMy number: 99", "<|endoftext|>"]
    _, answers = play(phrase, checkpoint={"eos": "<|endoftext|>", "ends": "<|endoftext|>"})
    assert texts(answers) == ["My number: 44"] * 4
    assert set(answers.rows["guess"]) == {44}


def test_sampling_parameters_of_vllm_reach_it_by_name(play):
    phrase = ["My number: 4", "4", " and so on"]
    block, answers = play(phrase, sampling={"stop": [" and"], "min_tokens": 1, "repetition_penalty": 1.1})
    assert texts(answers) == ["My number: 44"] * 4 and set(answers.rows["guess"]) == {44}
    params = block.llm.group_settings(0).params
    assert (params.stop, params.min_tokens, params.repetition_penalty) == ([" and"], 1, 1.1)


def test_a_reply_with_ids_of_a_padded_vocabulary_is_taken_from_the_journal(play, tmp_path):
    block, answers = play(["My number: 4", "4", -1])
    assert max(max(answers.replies.tokens[row]) for row in range(4)) >= len(block.llm.template.tokenizer)
    block._job = made.job(tmp_path, block.experiment)
    block.answer(Announcement(0, {}))
    found = [block._job.journal_path(0)]
    stored = ReplayedReplies(found, block.llm.ids, block.llm.engine.vocabulary, warn=pytest.fail)
    assert len(stored) == 4


# --- templates ---------------------------------------------------------------------------------------------

SWITCHED = OPENS_A_THOUGHT.replace(
    "<think>\n{% endif %}", "<think>\n{% if enable_thinking is false %}\n</think>\n\n{% endif %}{% endif %}"
)


def test_arguments_of_the_template_are_the_experiments(play):
    quiet = "chat_template_kwargs: {enable_thinking: false}"
    block, answers = play(["My number: 7"], checkpoint={"template": SWITCHED}, model=quiet)
    assert set(answers.rows["guess"]) == {7}
    assert block.llm.template.tokenizer.decode(block.llm.prompt(0)[0]).endswith("assistant\n<think>\n</think>\n\n")


def test_a_template_that_opens_a_thought_unless_it_is_asked_not_to_does_so(play):
    _, answers = play(["My number: 7"], checkpoint={"template": SWITCHED})
    assert set(answers.rows["status"]) == {Status.UNPARSABLE}
