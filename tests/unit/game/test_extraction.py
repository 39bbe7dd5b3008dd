"""Replies as language models write them in this game, and what they must be read as."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from worded import DECLARED, DIRECT, NOTHING, OUTSIDE, REASONED

from pbeauty.game.extraction import number_pattern, read_extraction, read_guess
from pbeauty.game.records import ReadingRule, Status


def read(text: str, low: float, high: float, truncated: bool = False) -> tuple[float, Status]:
    """Guess and status of a reply, by whatever rule."""
    guess, status, rule = read_guess(text, low, high, truncated)
    assert (rule != ReadingRule.NONE) == (status == Status.OK)
    return guess, status


def read_second(text: str, low: float, high: float, truncated: bool = False) -> tuple[float, Status]:
    """Guess and status of the reply to an extraction call."""
    return read_extraction(text, low, high, truncated)[:2]


def ok(value: float) -> tuple[float, Status]:
    return float(value), Status.OK


def none(status: Status, reading: tuple[float, Status]) -> bool:
    return reading[1] == status and math.isnan(reading[0])


@pytest.mark.parametrize(("text", "value"), DIRECT + DECLARED + REASONED)
def test_a_clear_reply_is_read(text, value):
    assert read(text, 0, 100) == ok(value)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("33", "NUMBER_ALONE"),
        ("**33**", "NUMBER_ALONE"),
        ("The average is 50.\n\n33", "NUMBER_ALONE"),
        ("33, because 2/3 of 50 is 33.3.", "NUMBER_ALONE"),
        ("I'd go lower.\nMy number: 33", "ANSWER_LINE"),
        ("**Final answer:** 33", "ANSWER_LINE"),
        ('{"guess": 33}', "JSON"),
        ('{"guess": 33, "why": "I choose 22, then add 11"}', "JSON"),
        ("So: \\boxed{33}", "BOXED"),
        ("<answer>33</answer>", "BOXED"),
        ("That makes it [33].", "BOXED"),
        ("I'll go with 33.", "OWN_WORDS"),
        ("My guess is 33.", "OWN_WORDS"),
        ("我选择33", "OWN_WORDS"),
    ],
)
def test_the_rule_that_read_a_guess_is_named(text, rule):
    assert read_guess(text, 0, 100) == (33, Status.OK, ReadingRule[rule])
    assert ReadingRule[rule].strict == (rule != "OWN_WORDS")


def test_replies_of_a_small_model_are_read_as_people_read_them():
    """116 replies of SmolLM2-135M-Instruct in the game from 0 to 100, each with the number chosen in it, or none."""
    replies = [json.loads(line) for line in (Path(__file__).parent / "smollm2_replies.jsonl").open(encoding="utf-8")]
    found = [read_guess(reply["text"], 0, 100, reply["truncated"]) for reply in replies]
    read = [reading.status == Status.OK for reading in found]
    right = sum(reading.guess == reply["label"] for reading, reply in zip(found, replies, strict=True))
    false = sum(taken and reply["label"] is None for taken, reply in zip(read, replies, strict=True))
    assert right >= 0.97 * sum(read)
    assert right >= 0.9 * sum(reply["label"] is not None for reply in replies)
    assert false <= 0.01 * len(replies)


@pytest.mark.parametrize("text", NOTHING)
def test_an_unclear_reply_is_left_to_extraction(text):
    assert none(Status.UNPARSABLE, read(text, 0, 100))
    assert none(Status.TRUNCATED, read(text, 0, 100, truncated=True))


@pytest.mark.parametrize("text", OUTSIDE)
def test_a_number_outside_the_range_is_no_guess(text):
    assert none(Status.OUT_OF_RANGE, read(text, 0, 100))


# --- the range ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-5", -5),
        ("−5", -5),
        ("–5", -5),
        ("-.5", -0.5),
        ("minus 5", -5),
        ("My number: -5.5", -5.5),
        ("My number is negative 5.", -5),
        ("I choose −5, since 2/3 of -7.5 is -5.", -5),
        ("-5 is my choice", -5),
        ("我选择-5", -5),
    ],
)
def test_negative_numbers_count_where_the_range_allows_them(text, value):
    assert read(text, -50, 50) == ok(value)


@pytest.mark.parametrize("text", ["- 5", "My number - 5", "My number: - 5", "target - 5", "10-20", "10 - 20"])
def test_a_dash_that_could_be_a_sign_is_a_doubt(text):
    assert none(Status.UNPARSABLE, read(text, -50, 50))


@pytest.mark.parametrize(
    ("text", "high", "value"),
    [
        ("1,000", 1000, 1000),
        ("My number: 1,333.33", 2000, 1333.33),
        ("I choose 12,500.", 100_000, 12_500),
        ("1,000,000", 1e6, 1e6),
        ("1,00", 1000, 1),
        ("0,667", 1000, 0.667),
        ("1000", 1000, 1000),
        ("1.000", 1000, 1),
    ],
)
def test_commas_separate_thousands_only_where_the_range_has_any(text, high, value):
    assert read(text, 0, high) == ok(value)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0.5, 0.75)])
def test_both_ends_of_the_range_are_valid(low, high):
    assert read(f"My number: {low}", low, high) == ok(low)
    assert read(f"{high}", low, high) == ok(high)


# --- truncated replies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("My number: 33. That is because", 33),
        ("My number: 33. The other 99 players", 33),
        ("My number: 33\n", 33),
        ("**33**\n\nIf all players pick at ran", 33),
        ("33\n\nThe average of 0 and 100 is 50, and 2/3 of 5", 33),
        ("33, because the average is 5", 33),
        ("I choose 33 because others will", 33),
        ("\\boxed{33} is the", 33),
        ("<think>Others pick 50.</think>22\n\nThis is", 22),
    ],
)
def test_a_number_stated_before_the_cut_counts(text, value):
    assert read(text, 0, 100, truncated=True) == ok(value)


@pytest.mark.parametrize(
    "text",
    [
        "33",
        "33.",
        "33.3",
        "33 ",
        "-",
        "My number: 3",
        "My number: 33.",
        "My number: 33,",
        "My number: 33 ",
        "My number: **33",
        "My number: 33 or",
        "My number: 33 or ",
        "My number: 33e",
        "My number: thirty",
        "My number:",
        "I choose 20 or",
        "2/3 of 50 = 33.3",
        "2/3 of 50 = 33.3. That",
        "The average is 50, so 33. But then",
        "I choose 33. Wait, let me",
        "I choose 33.\n\nMy number: 2",
        "I choose 33.\n\n2",
        "My number: 2/3 of 50 = 33",
        "\\boxed{33",
        "<think>So my number: 33. Then",
        "If everyone",
    ],
)
def test_what_the_cut_may_have_changed_does_not_count(text):
    assert none(Status.TRUNCATED, read(text, 0, 100, truncated=True))


def test_a_clear_number_outside_the_range_stays_so_in_a_truncated_reply():
    assert none(Status.OUT_OF_RANGE, read("My number: 150. That is", 0, 100, truncated=True))


# --- extraction replies ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("33", 33),
        ("**33.5**", 33.5),
        ("The player picks 33.", 33),
        ("This player's number is 33", 33),
        ("The player chose 33.", 33),
        ("Number: 33", 33),
        ("They pick 33", 33),
    ],
)
def test_an_extraction_reply_is_read(text, value):
    assert read_second(text, 0, 100) == ok(value)


@pytest.mark.parametrize(
    "text",
    [
        "not a number",
        "The player picks no number: 2/3",
        "33 is not a pick of the player",
        "none",
        "None.",
        "**none**",
        '"none"',
        "NONE",
        "none (20 or 30)",
        "N/A",
        "",
        "20 or 30",
        "2/3",
        "33%",
    ],
)
def test_an_extraction_reply_without_a_number_is_unparsable(text):
    assert none(Status.UNPARSABLE, read_second(text, 0, 100))


@pytest.mark.parametrize("text", ["3", "The player's pick is 3", "33. The player said"])
def test_an_extraction_reply_that_was_cut_is_no_number(text):
    assert none(Status.UNPARSABLE, read_second(text, 0, 100, truncated=True))


def test_an_extraction_reply_can_be_out_of_range():
    assert none(Status.OUT_OF_RANGE, read_second("150", 0, 100))
    assert none(Status.OUT_OF_RANGE, read_second("The player picks -5.", 0, 100))


# --- properties --------------------------------------------------------------------------------------------

PROPERTY = settings(
    max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

NUMBERS = st.one_of(
    st.integers(0, 100).map(str),
    st.decimals(0, 100, places=1).map(str),
    st.decimals(0, 100, places=2).map(str),
    st.floats(0, 100).map("{:.15f}".format),
)
STATEMENTS = st.sampled_from(
    [
        "My number: {}",
        "My number is {}.",
        "my guess is {}.",
        "I choose {}.",
        "I'll go with {}",
        "I would pick around {}.",
        "So I pick {}.",
        "Therefore, I will choose {}.",
        "Final answer: {}",
        "Answer = {}",
        "The number I choose is {}.",
        "\\boxed{{{}}}",
        '{{"number": {}}}',
        '{{"guess": "{}"}}',
        "<answer>{}</answer>",
        "我选择{}。",
        "我的数字是{}",
        "I choose {} because 2/3 of 50 is about 33.",
        "My number: {} (level 2)",
    ]
)
MARKUP = st.sampled_from(["{}", "**{}**", "`{}`", "${}$", "\\({}\\)", "*{}*", '"{}"', "(({}))"])
REASONING = st.lists(
    st.sampled_from(
        [
            "There are 100 players, and numbers go from 0 to 100.",
            "The average of 0-100 is 50.",
            "2/3 of 50 = 33.3.",
            "50 × 2/3 = 33.33, and 2/3 * 33.33 = 22.22.",
            "Round 1 ended with a target of 20.5.",
            "A level-1 player chooses 33, a level 2 player 22.",
            "Most people pick either 20 or 30.",
            "1. Others choose about 33.",
            "- Step 2: 0.67 times 36 is 24.",
            "I would choose 50 if I were naive.",
            "About 30% of them will choose 33.",
            "Should I choose 40?",
            "My first guess was 44.",
            "$\\frac{2}{3} \\times 50 \\approx 33$.",
            "The equilibrium is 0, as k → ∞.",
        ]
    ),
    max_size=5,
)
JOINTS = st.sampled_from([" ", "\n", "\n\n", "\r\n"])
SPACE = st.text(" \t\n\r\u00a0\u3000\u200b", max_size=4)
ANYTHING = st.one_of(
    st.text(),
    st.binary().map(lambda raw: raw.decode("latin-1")),
    st.text("0123456789.,-/%$*_`\\{}()[]<>=~≈×^:;?!'\" \n", max_size=60),
    st.lists(
        st.one_of(
            st.sampled_from(["My number", ":", " is ", "I choose ", "33", "-", "2/3", " or ", " of ", "50", ".", ","]),
            st.sampled_from([" ", "\n", "**", "{", "}", "\\boxed", "\\frac", "<think>", "</think>", "thirty", "e5"]),
            st.sampled_from(["minus ", "9" * 400, "%", "wait", "1. ", "我选", "\\", "$", "(", ")"]),
        ),
        max_size=14,
    ).map("".join),
)


@PROPERTY
@given(REASONING, JOINTS, STATEMENTS, MARKUP, NUMBERS)
def test_the_number_stated_is_the_number_read(reasoning, joint, statement, markup, number):
    text = joint.join([*reasoning, statement.format(markup.format(number))])
    assert read(text, 0, 100) == ok(float(number))


@PROPERTY
@given(REASONING, JOINTS, STATEMENTS, STATEMENTS, NUMBERS, NUMBERS)
def test_the_last_of_two_statements_counts(reasoning, joint, one, other, before, after):
    assume("{{" not in one)  # a field of JSON counts before all else
    text = joint.join([one.format(before), *reasoning, other.format(after)])
    assert read(text, 0, 100) == ok(float(after))


@PROPERTY
@given(REASONING, NUMBERS, MARKUP)
def test_a_number_alone_counts_before_and_after_reasoning(reasoning, number, markup):
    told = markup.format(number)
    assert read("\n\n".join([told, *reasoning]), 0, 100) == ok(float(number))
    assert read("\n\n".join([*reasoning, told]), 0, 100) == ok(float(number))


@PROPERTY
@given(REASONING, STATEMENTS, NUMBERS)
def test_no_cut_makes_another_number_of_the_one_stated(reasoning, statement, number):
    text = " ".join([*reasoning, statement.format(number)])
    start = text.rindex(statement.format(number))
    for end in range(start, len(text) + 1):
        reading = read(text[:end], 0, 100, truncated=True)
        assert reading == ok(float(number)) or none(Status.TRUNCATED, reading)


@PROPERTY
@given(NUMBERS, STATEMENTS)
def test_the_minus_sign_is_never_dropped(number, statement):
    for sign in ("-", "−", "–", "minus "):
        reading = read(statement.format(sign + number), -100, 100)
        assert reading == ok(-float(number))
        if float(number):
            assert none(Status.OUT_OF_RANGE, read(statement.format(sign + number), 0, 100))


@PROPERTY
@given(NUMBERS, NUMBERS, st.sampled_from(["{} or {}", "{}-{}", "between {} and {}", "{}, {}", "{} to {}", "{}/{}"]))
def test_two_numbers_side_by_side_are_a_doubt(one, other, pair):
    for statement in ("{}", "I choose {}.", "My number: {}"):
        assert none(Status.UNPARSABLE, read(statement.format(pair.format(one, other)), 0, 100))


BOUNDS = st.one_of(
    st.integers(-1000, 1000).map(float),
    st.decimals(-300, 300, places=3).map(float),
    st.floats(-1e6, 1e6, allow_nan=False),
    st.sampled_from([0.0, 1e15, -1e15, 99.99, 100.004, -0.01, 0.001]),
)


@settings(PROPERTY, max_examples=80)
@given(BOUNDS, BOUNDS, st.data())
def test_guided_numbers_are_exactly_those_of_the_range(one, other, data):
    low, high = sorted((one, other))
    cents = [math.ceil(Decimal(repr(low)) * 100), math.floor(Decimal(repr(high)) * 100)]
    if cents[0] > cents[1]:
        with pytest.raises(ValueError, match="no number"):
            number_pattern(low, high)
        return
    pattern = number_pattern(low, high)
    allowed = data.draw(st.from_regex(pattern, fullmatch=True, alphabet="-.0123456789"))
    assert low <= float(allowed) <= high and re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]{1,2})?", allowed)
    inside = Decimal(data.draw(st.one_of(st.integers(*cents), st.sampled_from(cents)))) / 100
    for text in {f"{inside:.2f}", f"{inside.normalize():f}"}:
        assert re.fullmatch(pattern, text), text
    for outside in (cents[0] - data.draw(st.integers(1, 10**6)), cents[1] + data.draw(st.integers(1, 10**6))):
        text = f"{Decimal(outside) / 100:.2f}"
        assert not re.fullmatch(pattern, text) and not re.fullmatch(pattern, text.rstrip("0").rstrip(".")), text


@pytest.mark.parametrize(("low", "high", "text"), [(0, 100, "100.01"), (0, 100, "007"), (-5, 5, "-0"), (0, 9, "9.001")])
def test_a_guided_number_is_in_range_and_plain(low, high, text):
    assert not re.fullmatch(number_pattern(low, high), text)


@PROPERTY
@given(ANYTHING, st.booleans())
def test_any_text_has_a_reading(text, truncated):
    for low, high in ((0, 100), (-10, 10), (0, 10_000)):
        for guess, status in (read(text, low, high, truncated), read_second(text, low, high)):
            assert low <= guess <= high if status == Status.OK else math.isnan(guess)
            assert status in (Status.OK, Status.OUT_OF_RANGE, Status.UNPARSABLE, Status.TRUNCATED)
            assert type(guess) is float


@PROPERTY
@given(st.sampled_from(DIRECT + DECLARED + REASONED), SPACE, SPACE)
def test_space_around_a_reply_changes_nothing(case, before, after):
    assert read(before + case[0] + after, 0, 100) == ok(case[1])


@PROPERTY
@given(STATEMENTS, NUMBERS, MARKUP)
def test_markup_around_a_reply_changes_nothing(statement, number, markup):
    assert read(markup.format(number), 0, 100) == ok(float(number))
    assert read(f"**{statement.format(number)}**", 0, 100) == ok(float(number))


# Each repeated to a size at which anything worse than linear time would not come to an end.
HOSTILE = [
    "1", "1.", "1,", "1/", "1 ", "1-", "1e", "0.", "1x", "-", "- 1", " ", "\n", " \n", "(", "[0, ", "{", "*", "**", "_",
    "\\", "\\frac{", "\\frac{1}{", "<think>", "</think>", "1 or ", "1. a\n", "I ", "I really ", "my number ",
    "I choose 2/3 of ", "if I ", "33 is my ", "actually, ", "the average is ", "thirty-", "minus ", "我会", "1", "x",
    "I'll go ", "number of choice for the ", "[1] ", '"number": 1 ', "the final number is ",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_reading_takes_linear_time(piece):
    for end in ("", "!", " My number: 33"):
        text = piece * (20_000 // len(piece)) + end
        assert read(text, 0, 100)[1] in Status
