"""What language models are told: complete, and of the very game that is scored."""

from __future__ import annotations

import itertools
import re

import pytest

from pbeauty.config import Game
from pbeauty.game import facts
from pbeauty.prompts import (
    ANNOUNCEMENTS,
    SYSTEM_PROMPTS,
    USER_PROMPTS,
    extraction_message,
    retry_message,
    system_message,
    user_message,
)

GAMES = [
    Game(multiplier=multiplier, offset=offset, low=low, high=high, aggregate=aggregate)
    for multiplier, offset, (low, high), aggregate in itertools.product(
        ["2/3", "0.7", "4/3"], [0, 12.5, -3], [(0, 100), (-20.5, 7), (0, 1e6)], ["mean", "median"]
    )
]
COUNTS = [2, 300, 10_000_000]
PLACEHOLDER = re.compile(r"[{}]")
TOLD = {"target": "33.33", "mean": "50", "median": "48.5", "winning_guess": "33.4"}

every_system_prompt = pytest.mark.parametrize("name", SYSTEM_PROMPTS)
every_user_prompt = pytest.mark.parametrize("name", USER_PROMPTS)


def says(text, number):
    """Whether a number stands in a text by itself, and not within another."""
    return re.search(rf"(?<![\d.]){re.escape(number)}(?![\d]|\.\d)", text) is not None


def test_there_are_the_promised_prompts():
    assert {"classic", "rational", "think-of-others"} <= SYSTEM_PROMPTS.keys()
    assert {"direct", "step-by-step"} <= USER_PROMPTS.keys()


@every_system_prompt
def test_system_prompts_describe_the_game(name):
    for game, count in itertools.product(GAMES, COUNTS):
        told = facts(game, count)
        text = system_message(name, told)
        assert not PLACEHOLDER.search(text)
        for key in ("count", "low", "high", "multiplier"):
            assert says(text, told[key]), (key, text)
        assert {"mean": "average", "median": "median"}[game.aggregate] in text
        assert (f"plus {told['offset']}" in text) is (game.offset > 0)
        assert (f"minus {told['offset'].lstrip('-')}" in text) is (game.offset < 0)
        assert "  " not in text
        assert text == text.strip()


def test_system_prompts_differ():
    texts = {system_message(name, facts(Game(), 3)) for name in SYSTEM_PROMPTS}
    assert len(texts) == len(SYSTEM_PROMPTS)


@every_user_prompt
@pytest.mark.parametrize("round_index", [0, 1, 7, 99])
def test_requests_name_the_round(name, round_index):
    for game in GAMES:
        text = user_message(name, round_index, facts(game, 3), TOLD if round_index else {})
        assert not PLACEHOLDER.search(text)
        assert f"Round {round_index + 1}." in text
        assert (f"Round {round_index} is over." in text) is (round_index > 0)
        assert "number" in text
        assert "  " not in text
        assert text == text.strip()


@every_user_prompt
@pytest.mark.parametrize(
    "quantities", [quantities for n in range(5) for quantities in itertools.combinations(ANNOUNCEMENTS, n)]
)
def test_what_is_announced_is_told_and_nothing_else(name, quantities):
    announced = {quantity: TOLD[quantity] for quantity in quantities}
    text = user_message(name, 1, facts(Game(), 3), announced)
    for quantity, value in TOLD.items():
        assert says(text, value) is (quantity in quantities)
    assert "  " not in text


def test_every_quantity_that_a_game_can_announce_has_a_text():
    assert ANNOUNCEMENTS.keys() == TOLD.keys()
    for quantity in TOLD:
        assert Game(announce=[quantity]).announce == (quantity,)
        assert ANNOUNCEMENTS[quantity].format_map(TOLD).count(TOLD[quantity]) == 1


def test_announcements_keep_the_order_of_the_game():
    forward = user_message("direct", 1, facts(Game(), 3), {"mean": "50", "target": "33.33"})
    backward = user_message("direct", 1, facts(Game(), 3), {"target": "33.33", "mean": "50"})
    assert forward.index("50") < forward.index("33.33")
    assert backward.index("33.33") < backward.index("50")


@every_user_prompt
def test_nothing_announced_reads_smoothly(name):
    text = user_message(name, 3, facts(Game(announce=()), 3), {})
    assert text.startswith("Round 3 is over. Round 4. ")


def test_retry_names_the_range():
    for game in GAMES:
        told = facts(game, 3)
        text = retry_message(told)
        assert not PLACEHOLDER.search(text)
        assert says(text, told["low"])
        assert says(text, told["high"])


@pytest.mark.parametrize("reply", ["I go for 33.", "", "{low} {unknown} {", "%s \\1 {0}", "a\nb\0c 🙂"])
def test_extraction_quotes_the_reply_as_it_is(reply):
    for game in GAMES[:3]:
        told = facts(game, 3)
        text = extraction_message(reply, told)
        assert reply in text
        rest = text.replace(reply, "", 1) if reply else text
        assert not PLACEHOLDER.search(rest)
        assert says(rest, told["low"])
        assert says(rest, told["high"])


def test_unknown_names_are_errors():
    with pytest.raises(KeyError):
        system_message("nonsense", facts(Game(), 3))
    with pytest.raises(KeyError):
        user_message("nonsense", 0, facts(Game(), 3), {})
