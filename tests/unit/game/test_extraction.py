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

from pbeauty.game.extraction import number_pattern, read_extraction, read_guess
from pbeauty.game.records import ReadingRule, Status

DIRECT = [
    ("33", 33),
    ("33.", 33),
    ("33!", 33),
    ("  33  \n", 33),
    ("\n\n33", 33),
    ("33.33", 33.33),
    ("0", 0),
    ("0.0", 0),
    ("100", 100),
    ("-0", 0),
    ("+22", 22),
    ("007", 7),
    (".5", 0.5),
    ("33,5", 33.5),
    ("33,33", 33.33),
    ("0,667", 0.667),
    ("33.3...", 33.3),
    ("33...", 33),
    ("33.3.", 33.3),
    ("33…", 33),
    ("~22", 22),
    ("≈ 33.3", 33.3),
    ("≈33.3", 33.3),
    ("= 33.3", 33.3),
    ("**33**", 33),
    ("*33*", 33),
    ("***33***", 33),
    ("`33`", 33),
    ("```\n33\n```", 33),
    ("$22$", 22),
    ("$$22$$", 22),
    ("\\(22\\)", 22),
    ("\\[ 22 \\]", 22),
    ("\\boxed{22}", 22),
    ("$\\boxed{22.5}$", 22.5),
    ("\\boxed{\\text{22}}", 22),
    ('"33"', 33),
    ("'33'", 33),
    ("“33”", 33),
    ("(33)", 33),
    ("[33]", 33),
    ("{33}", 33),
    ("<33>", 33),
    ("#### 33", 33),
    ("- 33", 33),
    ("* 33", 33),
    ("> 33", 33),
    ("22", 22),
    ("33.5", 33.5),
    ("33 🙂", 33),
    ("33。", 33),
    ("\u200b33\ufeff", 33),
    ("\x0033\x1b", 33),
    ("\u00a033", 33),
    ("33\r\n", 33),
    ("About 33", 33),
    ("Around 33.", 33),
    ("approximately 22.2", 22.2),
    ("33\n\nBecause 2/3 of 50 is 33.33.", 33),
    ("33\n\nExplanation: if everyone picks at random, the average is 50, and 2/3 of 50 = 33.3.", 33),
    ("**22**\n\nReasoning: the others will pick 33, so I go one step further.", 22),
    ("33, because 2/3 of 50 is 33.3.", 33),
    ("33 (2/3 of 50)", 33),
    ("33. I expect the average to be 50.", 33),
    ("33: two thirds of the midpoint", 33),
    ("33 because I expect an average of 50", 33),
    ("22 - level 2 reasoning", 22),
    ("18 — people will be clever", 18),
    ("0. In equilibrium everybody picks 0.", 0),
    ("22\n22", 22),
]

DECLARED = [
    ("My number: 22", 22),
    ("My number: 22.", 22),
    ("my number:22", 22),
    ("MY NUMBER: 22", 22),
    ("My number : 22", 22),
    ("My number = 22", 22),
    ("My number - 22", 22),
    ("My number — 22", 22),
    ("My number -> 22", 22),
    ("My number → 22", 22),
    ("My number is 22", 22),
    ("My number is: 22", 22),
    ("My number would be 22.", 22),
    ("My number will be 22.", 22),
    ("My number for this round is 22.", 22),
    ("My number for round 2: 22", 22),
    ("My guess for Round 3 is 14.8.", 14.8),
    ("My number: **22**", 22),
    ("**My number:** 22", 22),
    ("**My number: 22**", 22),
    ("*My number: 22*", 22),
    ("My number: *22* (level 2)", 22),
    ("**My number**: 22", 22),
    ("### My number: 22", 22),
    ("My number: `22`", 22),
    ("My number: $22$", 22),
    ("My number: \\(22\\)", 22),
    ("My number: \\boxed{22}", 22),
    ("My number: <22>", 22),
    ("My number: <number>22</number>", 22),
    ("My number: [22]", 22),
    ('My number: "22"', 22),
    ("My number:\n22", 22),
    ("My number:\n\n**22**", 22),
    ("My number: ~22", 22),
    ("My number: ≈ 22.2", 22.2),
    ("My number: about 22", 22),
    ("My number: 22 (2/3 of 33)", 22),
    ("My number: 22, since 2/3 of 33 is 22", 22),
    ("My number: 33,3", 33.3),
    ("My number: .5", 0.5),
    ("My number: 33.333333333333336", 33.333333333333336),
    ("My number: 22", 22),
    ("My number:22", 22),
    ("My number (0-100): 22", 22),
    ("My number (between 0 and 100): 22", 22),
    ("My number: 2/3 × 50 = 33.33", 33.33),
    ("My number: 2/3 * 36 = 24", 24),
    ("My number: 50 * 2/3 = 33.3", 33.3),
    ("My number: (2/3) × 50 = 33.33", 33.33),
    ("My chosen number is 22.", 22),
    ("My final number is 22.", 22),
    ("My final answer: 22", 22),
    ("my guess is **22.5**", 22.5),
    ("My guess: 22", 22),
    ("My pick is 22!", 22),
    ("My choice would be 22.", 22),
    ("My best guess is around 22.", 22),
    ("My answer is 22", 22),
    ("Our number is 22.", 22),
    ("Final answer: 33", 33),
    ("**Final Answer:** 33", 33),
    ("Final answer - 33", 33),
    ("Final Answer\n33", 33),
    ("The final answer is 33.", 33),
    ("The final answer is $\\boxed{33}$.", 33),
    ("Final number: 33", 33),
    ("Answer: 33", 33),
    ("Answer = 12", 12),
    ("The answer is 12.", 12),
    ("Number: 12", 12),
    ("Guess: 12", 12),
    ("Pick: 12", 12),
    ("The number I choose is 33.", 33),
    ("The number I will submit is 33.", 33),
    ("The number I'd pick is 33.", 33),
    ("I choose 22", 22),
    ("I choose 22.", 22),
    ("I choose: 22", 22),
    ("I choose **22**.", 22),
    ("I choose the number 22.", 22),
    ("I choose number 22.", 22),
    ("I will choose 22.", 22),
    ("I'll choose 22", 22),
    ("I’ll choose 22", 22),
    ("I would choose 22.", 22),
    ("I'd choose 22.", 22),
    ("I am choosing 22.", 22),
    ("I'm going to choose 22.", 22),
    ("I am going with 22.", 22),
    ("I'm going with 22!", 22),
    ("I'll go with 18", 18),
    ("I'll go for 18.", 18),
    ("I think I'll go with 18.", 18),
    ("I will therefore go with 18.", 18),
    ("I would rather pick 18.", 18),
    ("I'd say 30.", 30),
    ("I'd guess 30", 30),
    ("I guess 30", 30),
    ("I pick 30", 30),
    ("so I pick 33.", 33),
    ("So I'll pick around 33.", 33),
    ("I'll pick a number around 22, say.", 22),
    ("I will submit 27.5 as my number.", 27.5),
    ("I have decided to go with 27.", 27),
    ("I have decided on 27.", 27),
    ("I've settled on 27.", 27),
    ("I will settle for 27.", 27),
    ("I'll stick with 27.", 27),
    ("I opt for 27.", 27),
    ("I bid 27.", 27),
    ("I should choose 27.", 27),
    ("I will play 0, the Nash equilibrium.", 0),
    ("I'll choose 33 instead of 50.", 33),
    ("Let's go with 33", 33),
    ("Let me go with 33.", 33),
    ("We choose 33.", 33),
    ("Going with 33.", 33),
    ("So, choose 33.", 33),
    ("Choosing 33.", 33),
    ("Thus, I select 33.3.", 33.3),
    ("33 is my number.", 33),
    ("33 is my choice", 33),
    ("**33** is my final answer.", 33),
    ("I'll take 33 as my guess.", 33),
    ('{"number": 33}', 33),
    ('{"guess": "33"}', 33),
    ('{"reasoning": "the average is 50", "number": 33.3}', 33.3),
    ('```json\n{\n  "guess": 33\n}\n```', 33),
    ("{'choice': 33}", 33),
    ("<answer>33</answer>", 33),
    ("<reasoning>The average is 50.</reasoning>\n<answer>33</answer>", 33),
    ("我选择22", 22),
    ("我选择 22。", 22),
    ("我会选择22。", 22),
    ("我选22", 22),
    ("我猜22", 22),
    ("我的数字是22", 22),
    ("我的数字是:22", 22),
    ("我的数字:22", 22),
    ("我的答案是 **22**。", 22),
    ("我选择的数字是22.5", 22.5),
    ("我决定选择数字33", 33),
    ("最终答案:33", 33),
    ("平均值是50,所以我选择33。", 33),
    ("大家的平均大约是50,50的2/3是33.3,所以我选33。", 33),
]

REASONED = [
    ("If everyone picks randomly, the average is 50, and 2/3 of 50 is 33.3. My number: 33.3", 33.3),
    ("If all 100 players pick between 0 and 100, the mean is 50. 2/3 of that: 33. I choose 22.", 22),
    ("Step 1: the average is 50.\nStep 2: 2/3 × 50 = 33.3.\nStep 3: one more gives 22.2.\n\nMy number: 22.2", 22.2),
    ("1. Random players average 50.\n2. 2/3 of 50 is 33.\n3. Clever ones pick 22.\n\nMy number: 22", 22),
    ("- Level 0: 50\n- Level 1: 33\n- Level 2: 22\n\nI'll play level 2, so my number is 22.", 22),
    ("Level-1 players choose 33, level-2 players choose 22. I'll go with 20.", 20),
    ("Others will probably choose 33. So I will choose 22.", 22),
    ("I would choose 50 if I were naive. But the others are not. My guess: 22", 22),
    ("I would choose 22 if all chose 33, but they will not. My number: 27", 27),
    ("My first guess would be 33. However, others think alike. My final guess is 22.", 22),
    ("My number: 33. Wait, others will do the same. My number: 22", 22),
    ("I choose 33. Actually, I'd go with 22.", 22),
    ("I'd pick 33.\n\nMy number: 22", 22),
    ("I'd pick 33.\n\n22", 22),
    ("33\n\nMy number: 22", 22),
    ("I choose 33. That is because the average is 50.", 33),
    ("My number: 33. This is 2/3 of 50, which is what most people pick.", 33),
    ("I choose 33, because people pick from 0 to 100 and 2/3 of 50 is about 33.", 33),
    ("I'll choose 2/3 of 50, which is 33.33.", 33.33),
    ("I'll choose 2/3 of 50, which is 33.33, assuming the average is 50.", 33.33),
    ("I pick 2/3 × 50 = 33.33 ≈ 33.", 33),
    ("The target was 33.3, so people will go lower. My number: 20", 20),
    ("The last target was 22.17. Two thirds of it is 14.78. My number: 14.78", 14.78),
    ("Round 1 is over. The target was 20.5. For round 2 I choose 13.7.", 13.7),
    ("In Round 2, I'll go with 15.", 15),
    ("With 99 others picking, my own pick hardly matters. I'll say 25.", 25),
    ("The Nash equilibrium is 0, but not all are rational. I will go with 12.", 12),
    ("If everybody is rational the only equilibrium is 0. My number: 0", 0),
    ("The average is likely 30-40, so 2/3 of 35 is 23.3. My number: 23", 23),
    ("50% will pick 50, the other 50% will pick 33. My number: 27.7", 27.7),
    ("20 or 30? I choose 25.", 25),
    ("Should I choose 33? No, I'll choose 22.", 22),
    ("Suppose I choose 33 and others too. I would lose. My number: 21", 21),
    ("If my number is 33, I am too high. My number: 21", 21),
    ("The average guess: 50. My guess: 33", 33),
    ("The winning number was 18. I'll pick 12.", 12),
    ("<think>My number: 50</think>22", 22),
    ("<think>\nOthers pick 50.\n</think>\n\nMy number: 22", 22),
    ("Others pick 50, say.\n</think>\n\n22", 22),
    ("<thinking>50</thinking><answer>22</answer>", 22),
    ("I'm going with 33 this round; last round I picked 50.", 33),
    ("Last round I chose 50. I'll choose 33", 33),
    ("I should choose 20 if others do. I'll stay with 30.", 30),
    ("I will choose 20 as it's 2/3 of 30", 20),
    ("My number: 22; the average will be 33", 22),
    ("My number: 22 = 2/3 × 33", 22),
    ("I predict an average of 36, so my number is 24.", 24),
    ("Thinking about it, the others will aim for 33. That makes 22 the better pick. My number: 22", 22),
    ("Target = 2/3 × average. With an average of 33, target = 22. My number: 22", 22),
    ("Given the last mean of 41.2, 2/3 × 41.2 = 27.5, then 2/3 × 27.5 = 18.3.\nMy number: 20", 20),
]

NOTHING = [
    "",
    "   ",
    "\n\n",
    "\x00",
    "...",
    "I can't pick a number.",
    "I'm sorry, but I cannot take part in this game.",
    "As an AI, I do not play games.",
    "I'm sorry, I can't pick a number from 0 to 100.",
    "Please give me a number between 0 and 100.",
    "nan",
    "NaN",
    "My number: NaN",
    "none",
    "My number:",
    "My number: <number>",
    "either 20 or 30",
    "Either 20 or 30.",
    "20 or 30",
    "I choose 20 or 30",
    "I'd pick 20 or maybe 30.",
    "My number: 20 or 30",
    "My number: 20-30",
    "My number: 20 to 30",
    "My number: between 20 and 30",
    "10-20",
    "10–20",
    "10 - 20",
    "10 to 20",
    "between 10 and 20",
    "from 10 to 20",
    "[0, 100]",
    "[0,100]",
    "0-100",
    "20, 30",
    "20, 30, 40",
    "20,30,40",
    "20/30",
    "20 30",
    "33\n22",
    "1. 33\n2. 22",
    "50, 33, 22",
    "50 -> 33 -> 22",
    "2/3",
    "My number: 2/3",
    "My number: 2/3 of 50",
    "My number: 100/3",
    "My number: 33 1/3",
    "My number: 33⅓",
    "33⅓",
    "10²",
    "10^2",
    "10**2",
    "50 × 2/3",
    "50 * 2/3",
    "50 * (2/3)",
    "50*(2/3)",
    "50 x 2/3",
    "2/3 × 50",
    "2/3 of 50",
    "two thirds of 50",
    "67% of 50",
    "33%",
    "My number: 33%",
    "50 + 5",
    "50 - 5",
    "target - 5",
    "target-5",
    "I choose the target - 5",
    "33?",
    "33 or 34?",
    "My number: 33?",
    "Should I choose 33?",
    "Maybe 33? Or 22?",
    "How about 33?",
    "1.2.3",
    "1,000",
    "My number: 1,000",
    "12,345",
    "My number: - 5",
    "Round 2",
    "Round 2.",
    "level 2",
    "Level-2 reasoning.",
    "I am a level 2 player.",
    "There are 100 players.",
    "100 participants",
    "1st",
    "the 3rd",
    "A1",
    "GPT-4",
    "33k",
    "times 0.67",
    "0.67 times the average",
    "k = 2",
    "1. Think\n2. Act",
    "1. I think everyone is rational.",
    "Level 0: 50. Level 1: 33.3. Level 2: 22.2.",
    "Others will pick 50.",
    "Everyone picks 50",
    "I think everyone picks 33",
    "The average will be 50.",
    "I guess the average is 50",
    "I'd say 50 is the average.",
    "The target was 33.3.",
    "The average of 0 and 100 is what I expect.",
    "I choose a number slightly lower than 33.",
    "I choose not 50",
    "I would go below 33.",
    "I'd never choose 100",
    "I'd choose 0 if all were rational. But since 50% won't be, 15.",
    "I'm not going with 50.",
    "I won't pick 50.",
    "I will not choose 50 but maybe 33.",
    "I might pick 33",
    "I can choose 33 or lower",
    "I'd pick 33 or less.",
    "I chose 50 last round.",
    "My number: 22 out of 100",
    "My number: 40 → 30",
    "If all were rational I'd choose 0. But they are not.",
    "I choose 22nd",
    "I pick one that is low.",
    "I choose one, as low as possible",
    "two thirds",
    "one of them",
    "thirty or forty",
    "thirty-three point three",
    "My number: thirty or forty",
    "I choose fifty times two",
    "<think>33",
    "<think>My number: 33",
    "22 <think>33",
    "<think>33</think>",
    "My number: 33</think>",
    "Others pick around 33. My number: 2/3 of that.",
    "I choose 33. Wait, let me think again.",
    "平均值是50",
    "第2轮",
    "0到100之间",
    "20或30",
    "100个玩家",
    "Rounded to 2 decimal places.",
    "2/3 of the average of 100 is 66.67.",
    "It will be 3.",
    "The answer is 12 when you add them, and then you go on.",
    "So the number is 12 here, which is even.",
    "Let's pick 3 more.",
    "I'd choose 2 more numbers.",
    "2:1",
    "I choose 10:30",
    "My number: 2006-01-31",
    "2. Think\n3. Act",
    "I pick these:\n3. one\n4. another",
    "See [1] and [2].",
    "Nagel [1] says so.",
    "Starting with 0, there are many.",
    "Take 5 minutes.",
    "I'll take 10 minutes to think.",
    "My number: 555-1234",
    "I'd pick 1 number.",
    "I choose 2 decimals.",
    "You should choose 33.",
    "Players choose 33.",
    "I will never choose 33.",
    "What if I pick 33?",
    "I'll pick a number from 0 to 100.",
    "My number is 2/3 of the target.",
    "items[3] = 4",
    "Suppose I pick 33.",
    "In the text [33](https://example.org) it says so.",
    "My number: 1e1",
    "My number: twenty-two",
    "My number: thirty-three (33)",
    "I choose zero.",
    "I choose thirty-three.",
    "Let's say 33.",
    "33 it is!",
    "33 is the number I choose.",
    "33 is what I'll go with.",
    "Meine Zahl: 33",
    "Mi número es 33",
    "2/3 of 50 = 33.3",
    "2/3 of 50 is 33.33.",
    "2/3 × 36 = 24",
    "2/3 * 36 = 24",
    "0.67 times 50 is 33.5",
    "\\frac{2}{3} \\times 50 \\approx 33.3",
    "$\\frac{2}{3} \\cdot 50 = 33.33$",
    "The average will be 50, so 33.",
    "I think the average will be about 50, so 2/3 of that is 33.",
    "I choose 33. Wait, no: 22.",
    "Round 2: 33",
    "33 seems right.",
    "I choose twenty-two because it is low.",
    "If the average is 50, I would choose 33.",
    "I'd go with something between 20 and 25, say 22.",
    "I multiply 50 by 2/3 and get 33.3, then multiply again to get 22.2",
    "2/3*50=33.33",
    "33 is a good number because others choose 50.",
]

OUTSIDE = [
    "-5",
    "−5",
    "–5",
    "- 5 is silly, so my number: -5",
    "**-5**",
    "$-5$",
    "`-5`",
    "(-5)",
    "minus 5",
    "negative 5",
    "My number: -5",
    "My number: −5",
    "My number:-5",
    "My number = -5",
    "My number: **-5**",
    "My number: minus 5",
    "My number: -.5",
    "My number: -0.001",
    "My number: 100.001",
    "My number: 2/3 × -9 = -6",
    "I choose -5.",
    "我选择-5",
    "100.5",
    "101",
    "150",
    "I'll go with 150.",
    "9" * 400,
    "My number: 1" + "0" * 400,
    "1" + "0" * 100_000,
    "1,000,000",
    "150 is my choice.",
    "My number: 50. Wait. My number: 500",
]


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
