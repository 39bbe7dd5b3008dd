"""Chat templates: prompts grow token by token to what the template makes of the whole conversation."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from pbeauty.errors import ConfigError
from pbeauty.llm.chat_template import ChatTemplate

TURNS = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
ANSWER = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
PLAIN = TURNS + ANSWER
WITH_FIRST_TOKEN = "<s>" + PLAIN
TRIMMING = PLAIN.replace("m['content']", "m['content'] | trim")
REFUSES_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% endfor %}" + PLAIN
)
IGNORES_SYSTEM = TURNS.replace("messages", "messages if m['role'] != 'system'") + ANSWER
STRIPS_THOUGHTS = PLAIN.replace(
    "{{ m['content'] }}",
    "{% if m['role'] == 'assistant' and '</think>' in m['content'] %}{{ m['content'].split('</think>')[-1] }}"
    "{% else %}{{ m['content'] }}{% endif %}",
)
OPENS_A_THOUGHT = TURNS + ANSWER.replace("assistant\n", "assistant\n<think>\n")
RULES_LAST = (  # the system prompt moves along with the last user message
    "{% set rules = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}"
    "{% for m in messages %}{% if m['role'] != 'system' %}<|im_start|>{{ m['role'] }}\n"
    "{% if loop.last %}{{ rules }} {% endif %}{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}" + ANSWER
)
GROWING = {
    "plain": PLAIN,
    "first token": WITH_FIRST_TOKEN,
    "trimming": TRIMMING,
    "refuses system": REFUSES_SYSTEM,
    "ignores system": IGNORES_SYSTEM,
    "strips thoughts": STRIPS_THOUGHTS,
}
REWRITING = {"opens a thought": OPENS_A_THOUGHT, "rules last": RULES_LAST}

SYSTEM = "300 players take part; the target is 2/3 times the average."
ASKED = ["Round 1. Reply with your number only.", "The target was 33.33. Round 2.", "Naïve — 20 €? 🙂 Round 3."]
SAID = ["33", " I pick 22.5, since\nothers will\n\nnot.", "<b>ünïcode 猫🙂</b>"]


def tokenizer(template):
    import tokenizers
    import transformers  # takes a second, and not at every collection of the tests

    model = tokenizers.models.BPE()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    made.train_from_iterator([*ASKED, *SAID, SYSTEM, "system user assistant <think> </think>"] * 4, trainer)
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="<|im_end|>", name_or_path="the/model"
    )
    fast.chat_template = template
    return fast


def rendered(fast, merges_system_prompt, system, asked, said):
    """The template's own rendering of the whole conversation, as token ids."""
    first = f"{system}\n\n{asked[0]}" if merges_system_prompt else asked[0]
    messages = [] if merges_system_prompt else [{"role": "system", "content": system}]
    messages.append({"role": "user", "content": first})
    for reply, user in zip(said, asked[1:], strict=True):
        messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": user}]
    return fast.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)


growing = pytest.mark.parametrize("template", GROWING.values(), ids=GROWING)
rewriting = pytest.mark.parametrize("template", REWRITING.values(), ids=REWRITING)


@growing
def test_opening_reply_and_turns_are_the_whole_rendering_token_for_token(template):
    fast = tokenizer(template)
    conversation = ChatTemplate(fast)
    assert conversation.is_append_only
    said = [reply.strip() for reply in SAID] if template == TRIMMING else SAID
    grown = conversation.opening(SYSTEM, ASKED[0])
    for rounds in range(1, 4):
        whole = rendered(fast, conversation.merges_system_prompt, SYSTEM, ASKED[:rounds], said[: rounds - 1])
        assert grown == whole
        if rounds < 3:
            reply = fast.encode(said[rounds - 1], add_special_tokens=False)
            grown = grown + reply + conversation.turn(ASKED[rounds])


@growing
def test_prompts_hold_the_words_that_were_said(template):
    fast = tokenizer(template)
    conversation = ChatTemplate(fast)
    assert SYSTEM in fast.decode(conversation.opening(SYSTEM, ASKED[0]))
    assert ASKED[0] in fast.decode(conversation.opening(SYSTEM, ASKED[0]))
    turn = fast.decode(conversation.turn(ASKED[2]))
    assert ASKED[2] in turn
    assert SYSTEM not in turn
    assert turn.startswith("<|im_end|>")
    assert turn.endswith("<|im_start|>assistant\n")


def test_the_first_token_comes_once():
    conversation = ChatTemplate(tokenizer(WITH_FIRST_TOKEN))
    assert conversation.opening(SYSTEM, ASKED[0]).count(0) == 1
    assert conversation.turn(ASKED[1]).count(0) == 0


@pytest.mark.parametrize(
    ("template", "folds"), [(PLAIN, False), (TRIMMING, False), (REFUSES_SYSTEM, True), (IGNORES_SYSTEM, True)]
)
def test_a_system_prompt_that_the_template_does_not_keep_opens_the_first_message(template, folds):
    fast = tokenizer(template)
    conversation = ChatTemplate(fast)
    assert conversation.merges_system_prompt is folds
    text = fast.decode(conversation.opening(SYSTEM, ASKED[0]))
    assert (f"<|im_start|>user\n{SYSTEM}\n\n{ASKED[0]}<|im_end|>" in text) is folds
    assert ("<|im_start|>system" in text) is not folds
    assert any("no system role" in note for note in conversation.notes()) is folds


@rewriting
def test_a_template_that_rewrites_earlier_turns_is_noticed(template):
    conversation = ChatTemplate(tokenizer(template))
    assert not conversation.is_append_only
    assert any("rewrites earlier turns" in note for note in conversation.notes())


@pytest.mark.parametrize("template", {**GROWING, **REWRITING}.values(), ids={**GROWING, **REWRITING})
def test_a_whole_conversation_is_rendered_as_the_template_has_it(template):
    fast = tokenizer(template)
    conversation = ChatTemplate(fast)
    replies = ["33", "25"]
    sampled = ["33</think>33", "</think>25"] if conversation.reasoning.parser else replies
    tokens = [fast.encode(reply, add_special_tokens=False) for reply in sampled]
    for rounds in range(1, 4):
        asked, said = ASKED[:rounds], replies[: rounds - 1]
        expected = rendered(fast, conversation.merges_system_prompt, SYSTEM, asked, said)
        assert conversation.whole(SYSTEM, asked, tokens[: rounds - 1]) == expected


def test_thoughts_that_the_template_strips_are_not_repeated():
    fast = tokenizer(STRIPS_THOUGHTS)
    tokens = fast.encode("<think>half of fifty</think>25", add_special_tokens=False)
    text = fast.decode(ChatTemplate(fast).whole(SYSTEM, ASKED[:2], [tokens]))
    assert "<|im_start|>assistant\n25<|im_end|>" in text
    assert "half of fifty" not in text


def test_a_plain_template_needs_no_notes():
    assert ChatTemplate(tokenizer(PLAIN)).notes() == []


@growing
def test_a_question_stands_alone(template):
    fast = tokenizer(template)
    asked = [{"role": "user", "content": "Which number is it?"}]
    assert ChatTemplate(fast).question("Which number is it?") == fast.apply_chat_template(
        asked, add_generation_prompt=True, tokenize=True, return_dict=False
    )


@pytest.mark.parametrize("template", [None, ""])
def test_a_tokenizer_without_a_template_is_refused(template):
    with pytest.raises(ConfigError, match="the tokenizer in the/model has no chat template; use an instruction-tuned"):
        ChatTemplate(tokenizer(template))


def test_equal_turns_are_rendered_once():
    fast = tokenizer(PLAIN)
    conversation = ChatTemplate(fast)
    calls = []
    render = fast.apply_chat_template
    fast.apply_chat_template = lambda *args, **kwargs: calls.append(args) or render(*args, **kwargs)
    first = conversation.turn("b")
    assert conversation.turn("b") == first
    assert len(calls) == 1


# --- the date, arguments, the end of a turn ----------------------------------------------------------------

DATED = (
    "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'system' %}Today: {{ date_string }}\n"
    "{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}" + ANSWER
)


def test_the_date_in_a_template_is_the_one_that_it_is_given():
    """As Llama 3 has it; a run that goes on tomorrow must not find another beginning of its conversations."""
    fast = tokenizer(DATED)
    day = datetime(2024, 7, 26, 23, 59).astimezone()
    template = ChatTemplate(fast).dated(day)
    assert "Today: 26 Jul 2024\n" in fast.decode(template.opening(SYSTEM, ASKED[0]))
    assert "Today: 26 Jul 2024\n" in fast.decode(template.whole(SYSTEM, ASKED[:2], [fast.encode("33")]))
    assert template.opening(SYSTEM, ASKED[0]) == template.dated(day + timedelta(seconds=30)).opening(SYSTEM, ASKED[0])
    assert template.opening(SYSTEM, ASKED[0]) != template.dated(day + timedelta(minutes=2)).opening(SYSTEM, ASKED[0])
    today = f"Today: {datetime.now().astimezone():%d %b %Y}"
    assert today in fast.decode(ChatTemplate(fast).opening(SYSTEM, ASKED[0])), "nothing else has been altered"


def test_a_template_is_given_its_arguments_whenever_it_is_rendered():
    fast = tokenizer(PLAIN + "{% if mood is defined %}{{ mood }}{% endif %}")
    template = ChatTemplate(fast, {"mood": "calm"})
    texts = [template.opening(SYSTEM, "a"), template.turn("b"), template.question("c")]
    assert all(fast.decode(tokens).endswith("assistant\ncalm") for tokens in texts)
    assert template.dated(datetime.now().astimezone()).opening(SYSTEM, "a") == texts[0]


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        (PLAIN, ["<|im_end|>"]),
        (TURNS.replace("<|im_end|>", "<s>") + ANSWER, ["<s>"]),
        (TURNS.replace("<|im_end|>\n", "\n\n<s><|im_end|>") + ANSWER, ["<s>"]),
        (TURNS.replace("<|im_end|>", "") + ANSWER, []),
        ("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}", []),
    ],
)
def test_the_token_that_ends_a_turn_is_taken_from_the_template(template, ends):
    fast = tokenizer(template)
    assert fast.convert_ids_to_tokens(ChatTemplate(fast).end_of_turn()) == ends
