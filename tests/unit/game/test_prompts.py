"""What language models are told: complete, and of the very game that is scored."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from pbeauty.cli.main import main
from pbeauty.cli.prompts import render
from pbeauty.config.loader import dumps, loads
from pbeauty.errors import ConfigError
from pbeauty.game.experiment import Game, OwnPrompts
from pbeauty.game.prompt_variables import prompt_variables
from pbeauty.game.prompts import (
    ABOUT,
    ANNOUNCEMENTS,
    SYSTEM_PROMPTS,
    USER_PROMPTS,
    extraction_message,
    needed,
    placeholders,
    retry_message,
    system_message,
    user_message,
)
from pbeauty.game.scoring import score

GAMES = [
    Game(multiplier=multiplier, offset=offset, low=low, high=high, aggregate=aggregate)
    for multiplier, offset, (low, high), aggregate in itertools.product(
        ["2/3", "0.7", "4/3"], [0, 12.5, -3], [(0, 100), (-20.5, 7), (0, 1e6)], ["mean", "median"]
    )
]
COUNTS = [2, 300, 10_000_000]
PLACEHOLDER = re.compile(r"[{}]")
TOLD = {
    "target": "33.33",
    "mean": "50",
    "median": "48.5",
    "winning_guess": "33.4",
    "group_numbers": "red 7.25",
    "own_rank": "19",
}
TRAITS = {
    "background": "You are Ann, a nurse.",
    "composition": "3 whose job is nurse",
    "only_one": "whose job is nurse",
}

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
    rendered = 0
    for game, count in itertools.product(GAMES, COUNTS):
        told = prompt_variables(game, count) | TRAITS
        missing = set(needed(SYSTEM_PROMPTS[name], told)) - told.keys()
        if missing:  # a prompt that does not fit a game cannot be rendered with it
            assert missing <= {"decimal", "percent", "words", "shift_rule", "median_rule"}
            with pytest.raises(KeyError):
                system_message(name, told)
            continue
        rendered += 1
        text = system_message(name, told)
        assert not PLACEHOLDER.search(text)
        for key in ("count", "low", "high"):
            assert says(text, told[key]), (key, text)
        form = {"p-fraction": "fraction", "p-decimal": "decimal", "p-percent": "percent", "p-words": "words"}.get(name)
        assert told[form or "multiplier"] in text
        assert {"mean": "average", "median": "median"}[game.aggregate] in text
        assert (f"plus {told['offset']}" in text) is (game.offset > 0)
        assert (f"minus {told['offset'].lstrip('-')}" in text) is (game.offset < 0)
        assert "  " not in text
        assert text == text.strip()
    assert rendered > 5


def test_system_prompts_differ():
    told = prompt_variables(Game(multiplier="2/4", offset=5, aggregate="median"), 3) | TRAITS
    texts = {system_message(name, told) for name in SYSTEM_PROMPTS}
    assert len(texts) == len(SYSTEM_PROMPTS)
    assert ABOUT.keys() == SYSTEM_PROMPTS.keys() | USER_PROMPTS.keys() | {"retry", "extraction"}


def test_the_shifted_game_tells_its_offset_in_rules_and_scores_it():
    game = Game(multiplier="1/2", offset=5)
    text = system_message("shifted", prompt_variables(game, 3))
    assert "1/2 times the average of all numbers picked in that round, plus 5." in text
    assert "5 is added after multiplying, and the target that is announced includes it" in text
    outcome = score(game, np.array([10.0, 10.0]), np.zeros(2, np.uint8)).outcome
    assert (outcome.target, outcome.n_winners) == (10.0, 2)
    assert needed(SYSTEM_PROMPTS["shifted"], prompt_variables(Game(), 3))[-1] not in prompt_variables(Game(), 3)


def test_groups_and_tolerances_change_the_rules_that_are_told():
    told = prompt_variables(Game(players="groups", tolerance=0.5), 30, 3)
    text = system_message("classic", told)
    assert "30 players in 3 groups" in text
    assert "2/3 times the average of the numbers of all groups in that round" in text
    assert "A group whose number is within 0.5 of the target wins the round." in text
    for name in ("disguised", "paraphrased", "p-fraction"):  # they speak of individuals
        with pytest.raises(KeyError):
            system_message(name, told)


def test_what_there_is_none_of_is_said_so():
    text = user_message("direct", 1, prompt_variables(Game(), 3), {"winning_guess": "", "own_rank": ""})
    assert "Nobody was near enough to the target to win. In that round your number did not count." in text


def test_the_rank_is_that_of_the_number_that_plays():
    alone, teams = prompt_variables(Game(), 3), prompt_variables(Game(players="groups"), 6, 2)
    assert "By nearness to the target, your number ranked 12. " in user_message("direct", 1, alone, {"own_rank": "12"})
    assert "your group's number ranked 1. Round 2." in user_message("direct", 1, teams, {"own_rank": "1"})
    assert "your group's number did not count." in user_message("direct", 1, teams, {"own_rank": ""})


@pytest.mark.parametrize("template", ["{a.b}", "{0}", "{}", "{a!r}", "{a:3}", "{a", "a}"])
def test_templates_hold_names_only(template):
    with pytest.raises(ValueError):
        placeholders(template)


def test_every_prompt_can_be_listed_and_shown(capsys):
    assert main(["prompts"]) == 0
    assert {line.split()[1] for line in capsys.readouterr().out.splitlines()} == ABOUT.keys()
    assert main(["prompts", "--show", "rational", "configs/quickstart.yaml", "--set", "game.multiplier=0.7"]) == 0
    shown = capsys.readouterr().out
    assert "300 players" in shown
    assert "0.7 times" in shown
    assert (
        main(["prompts", "--show", "classic", "configs/paper/ratios.yaml", "--case", "51-100-named_model-qwen2-72b"])
        == 0
    )
    assert "51/100" in capsys.readouterr().out
    assert main(["prompts", "--show", "classic", "configs/paper/ratios.yaml"]) == 0
    assert "2/3" in capsys.readouterr().out
    assert main(["prompts", "--show", "classic", "configs/paper/ratios.yaml", "--case", "99"]) == 2
    for command in (["prompts", "--show", "classic"], ["check"]):
        assert main([*command, "configs/quickstart.yaml", "--case", "1"]) == 2
        assert "is no sweep and has no cases" in capsys.readouterr().err
    assert main(["prompts", "--show", "shifted"]) == 2
    assert "{shift_rule}" in capsys.readouterr().err
    assert main(["prompts", "--show", "clasic"]) == 2
    assert "did you mean 'classic'?" in capsys.readouterr().err


@every_user_prompt
@pytest.mark.parametrize("round_index", [0, 1, 7, 99])
def test_requests_name_the_round(name, round_index):
    for game in GAMES:
        text = user_message(name, round_index, prompt_variables(game, 3), TOLD if round_index else {})
        assert not PLACEHOLDER.search(text)
        assert f"Round {round_index + 1}." in text
        assert (f"Round {round_index} is over." in text) is (round_index > 0)
        assert "number" in text
        assert "  " not in text
        assert text == text.strip()


@every_user_prompt
@pytest.mark.parametrize("quantities", [quantities for n in range(4) for quantities in itertools.combinations(TOLD, n)])
def test_what_is_announced_is_told_and_nothing_else(name, quantities):
    announced = {quantity: TOLD[quantity] for quantity in quantities}
    text = user_message(name, 1, prompt_variables(Game(), 3), announced)
    for quantity, value in TOLD.items():
        assert says(text, value) is (quantity in quantities)
    assert "  " not in text


def test_every_quantity_that_a_game_can_announce_has_a_text():
    assert ANNOUNCEMENTS.keys() == TOLD.keys() | {"no_winning_guess", "no_own_rank"}
    for quantity in TOLD:
        assert Game(announce=[quantity]).announce == (quantity,)
        assert ANNOUNCEMENTS[quantity].format_map({**TOLD, "own_number": "your number"}).count(TOLD[quantity]) == 1


def test_announcements_keep_the_order_of_the_game():
    forward = user_message("direct", 1, prompt_variables(Game(), 3), {"mean": "50", "target": "33.33"})
    backward = user_message("direct", 1, prompt_variables(Game(), 3), {"target": "33.33", "mean": "50"})
    assert forward.index("50") < forward.index("33.33")
    assert backward.index("33.33") < backward.index("50")


@every_user_prompt
def test_nothing_announced_reads_smoothly(name):
    text = user_message(name, 3, prompt_variables(Game(announce=()), 3), {})
    assert text.startswith("Round 3 is over. Round 4. ")


def test_retry_names_the_range():
    for game in GAMES:
        told = prompt_variables(game, 3)
        text = retry_message(told)
        assert not PLACEHOLDER.search(text)
        assert says(text, told["low"])
        assert says(text, told["high"])


@pytest.mark.parametrize("reply", ["I go for 33.", "", "{low} {unknown} {", "%s \\1 {0}", "a\nb\0c 🙂"])
def test_extraction_quotes_the_reply_as_it_is(reply):
    for game in GAMES[:3]:
        told = prompt_variables(game, 3)
        text = extraction_message(reply, told)
        assert reply in text
        rest = text.replace(reply, "", 1) if reply else text
        assert not PLACEHOLDER.search(rest)
        assert says(rest, told["low"])
        assert says(rest, told["high"])


OWN = """
name: own
game: {announce: [target, winning_guess, own_rank]}
prompts:
  user: {mine: "Your bid, {low} to {high}?"}
  announcements:
    target: "Mark: {two_decimals} ({target})."
    no_winning_guess: Nobody.
    own_rank: "{own_number} came {own_rank}."
  first_round: "{request}"
  next_round: "{announced}\\n{request} [{round}]"
  retry: "Say it as a number up to {high}."
  extraction: "<{reply}> of {count}: which?"
population: [{name: players, count: 7, kind: llm, user_prompt: mine}]
"""


def test_own_texts_take_the_place_of_the_librarys(tmp_path, capsys):
    own, told = loads(OWN).prompts, prompt_variables(Game(), 7)
    assert loads(dumps(loads(OWN))).prompts == own, "a run keeps them"
    assert user_message("mine", 0, told, {}, own) == "Your bid, 0 to 100?"
    for target, shown in (("33.5", "33.50 (33.5)"), ("50", "50.00 (50)"), ("-3.25", "-3.25 (-3.25)")):
        announced = {"target": target, "winning_guess": "", "own_rank": "3"}
        text = user_message("mine", 1, told, announced, own)
        assert text == f"Mark: {shown}. Nobody. your number came 3.\nYour bid, 0 to 100? [2]"
    text = user_message("mine", 1, told, {"winning_guess": "7", "own_rank": ""}, own)
    assert text.startswith("The winning number was 7. In that round your number did not count.\n"), "the library's"
    assert retry_message(told, own) == "Say it as a number up to 100."
    assert extraction_message("{x}", told, own) == "<{x}> of 7: which?"
    assert retry_message(told, OwnPrompts()) == retry_message(told)
    (tmp_path / "own.yaml").write_text(OWN)
    for name, shown in (
        ("mine", "Your bid, 0 to 100?\n\nMark: 33.33 (33.33). The winning number was 33.33. your number came 2.\n"),
        ("retry", "Say it as a number up to 100."),
        ("extraction", "<(the reply)> of 7: which?"),
    ):
        assert main(["prompts", "--show", name, str(tmp_path / "own.yaml")]) == 0
        assert capsys.readouterr().out.startswith(shown)


@pytest.mark.parametrize(
    ("own", "key", "words"),
    [
        ('announcements: {target: "{mean}"}', "announcements.target", "{mean}, which has no value here; known: "),
        ('announcements: {no_winning_guess: "{winning_guess}"}', "announcements.no_winning_guess", "{winning_guess}"),
        ("announcements: {targt: x}", "announcements.targt", "expected 'target', "),
        ("announcements: {target: ' '}", "announcements.target", "the text is empty"),
        ('first_round: "{before}"', "first_round", "{before}, which has no value here"),
        ('next_round: "{announcd} {request}"', "next_round", "{announcd}, which has no value here; did you mean"),
        ('retry: "{reply}"', "retry", "known: aggregate, "),
        ('retry: "{0}"', "retry", "is no placeholder"),
        ("extraction: A number.", "extraction", "it needs {reply}, the reply that the question is about"),
    ],
)  # fmt: skip
def test_a_fault_in_an_own_text_is_named(own, key, words):
    with pytest.raises(ConfigError) as caught:
        loads(f"name: a\nprompts: {{{own}}}\npopulation: [{{name: b, count: 2, kind: llm}}]")
    (fault,) = str(caught.value).splitlines()[1:]
    assert fault.strip().startswith(f"prompts.{key}: ")
    assert words in fault


def test_unknown_names_are_errors():
    with pytest.raises(KeyError):
        system_message("nonsense", prompt_variables(Game(), 3))
    with pytest.raises(KeyError):
        user_message("nonsense", 0, prompt_variables(Game(), 3), {})


def test_what_is_announced_is_shown_within_a_message():
    for name in ("own_rank", "next_round"):
        with pytest.raises(ConfigError, match=rf"{name}.*--show direct"):
            render(name)


@pytest.mark.parametrize(
    ("name", "meant"), [("clasic", "; did you mean 'classic'?"), ("step_by_step", "; did you mean 'step-by-step'?"),
                        ("nextround", ""), ("announcement", ""), ("Zufall", "")],
)  # fmt: skip
def test_only_a_near_name_is_suggested_and_all_are_listed(name, meant):
    with pytest.raises(ConfigError) as caught:
        render(name)
    assert str(caught.value).startswith(f"no prompt {name!r}{meant}; known: classic, ")
    assert str(caught.value).endswith(", retry, extraction")
