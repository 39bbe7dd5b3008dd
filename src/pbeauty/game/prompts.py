"""What language-model participants are told: rules, requests, announcements.

Every text is a template over the same variables of the game and of its population (see
`game/prompt_variables.py`), so a prompt cannot describe one game while another is scored: a placeholder that
the game has no value for is an error before anything starts. Texts are plain; each model's chat template wraps them.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

RULES = (
    "{count} players take part in a guessing game. In every round each player picks a number from {low} to {high}; "
    "decimals are allowed. The target is {target_rule}. "
    "{win_rule}"
)
TEAM_RULES = (
    "{count} players in {group_count} groups take part in a guessing game. In every round each player picks a number "
    "from {low} to {high}; decimals are allowed. The number of a group is the average of what its members pick. "
    "The target is {target_rule}. {win_rule}"
)
"""The rules where groups play, and not individuals."""

PARAPHRASED = (
    "There are {count} of you, each with one secret bid between {low} and {high} per turn (fractions are fine). Take "
    "the {aggregate} of all bids, multiply it by {multiplier}{shift}: that is the mark to hit. A bid that {win_by} the "
    "mark wins its turn."
)
STORY = (
    "In a valley there are {count} lighthouses. Every evening each keeper sets the height of the lamp, anywhere from "
    "{low} to {high} steps. At midnight the ferryman works out the {aggregate} height of all lamps, takes it "
    "{multiplier} times{shift} and steers for that height; a keeper whose lamp {win_by} it gets his purse. You are one "
    "of the keepers, and the height that you set is your number."
)

PARTS = {
    "rules_paraphrased": PARAPHRASED,
    "rules_as_story": STORY,
    "rules_as_fraction": RULES.replace("{target_rule}", "{fraction} times the {aggregate} of {all_numbers}{shift}"),
    "rules_as_decimal": RULES.replace("{target_rule}", "{decimal} times the {aggregate} of {all_numbers}{shift}"),
    "rules_as_percent": RULES.replace("{target_rule}", "{percent} of the {aggregate} of {all_numbers}{shift}"),
    "rules_in_words": RULES.replace("{target_rule}", "{words} of the {aggregate} of {all_numbers}{shift}"),
}
"""Tellings of the rules that prompts may be put together from, beside `{rules}`; all but that for individuals only."""

_RATIONAL = "All players reason perfectly, and everybody knows that they do."
_OTHERS = "Before you choose, consider which numbers the others are likely to pick, and why."
_CLASSIC_NAME = 'It is a variant of the well-known game "guess 2/3 of the average".'
_ROLE = "{background} Stay true to this character in all that you choose."

SYSTEM_PROMPTS: dict[str, str] = {
    "classic": "{rules}",
    "rational": "{rules} " + _RATIONAL,
    "think-of-others": "{rules} " + _OTHERS,
    "rational-think-of-others": "{rules} " + _RATIONAL + " " + _OTHERS,
    "named": "{rules} Economists know this game as a beauty contest, or guessing game.",
    "named-classic": "{rules} " + _CLASSIC_NAME,
    "named-classic-rational": "{rules} " + _CLASSIC_NAME + " " + _RATIONAL,
    "p-fraction": "{rules_as_fraction}",
    "p-decimal": "{rules_as_decimal}",
    "p-percent": "{rules_as_percent}",
    "p-words": "{rules_in_words}",
    "shifted": "{rules} Mind the last step: {shift_rule}, and the target that is announced includes it.",
    "median": "{rules} {median_rule}",
    "background": _ROLE + " {rules}",
    "background-composition": _ROLE + " {rules} This is who plays: {composition}.",
    "background-one-expert": _ROLE + " {rules} Exactly one of the {count} players is {only_one}. It may be you.",
    "composition": "{rules} This is who plays: {composition}.",
    "disguised": "{rules_as_story}",
    "paraphrased": "{rules_paraphrased}",
}
"""What the participant knows before the first round, by name."""

USER_PROMPTS: dict[str, str] = {
    "direct": "Reply with your number only.",
    "step-by-step": "Think it through in a few short sentences, then end with: My number: <number>",
}
"""How the participant is asked to answer, by name."""

ABOUT: dict[str, str] = {
    "classic": "the rules and nothing else",
    "rational": "the rules, and that all players are rational and know it",
    "think-of-others": "the rules, and to think about what the others will do",
    "rational-think-of-others": "both of these",
    "named": "the rules and the name of the game",
    "named-classic": 'the rules, and that "guess 2/3 of the average" is the model of it, whatever p is',
    "named-classic-rational": "the same, and that all players are rational",
    "p-fraction": "p as a fraction, as short as it can be",
    "p-decimal": "p as a decimal, where it has an exact one",
    "p-percent": "p in per cent, where that is exact",
    "p-words": "p in words, where it has them",
    "shifted": "a game with an offset, which is pointed out",
    "median": "a game of the median, which is explained",
    "background": "a background to play, and the rules",
    "background-composition": "a background, the rules and who takes part",
    "background-one-expert": "a background, the rules and that exactly one player is of a kind",
    "composition": "the rules and who takes part",
    "disguised": "contamination probe: the same game as another story",
    "paraphrased": "contamination probe: the same rules in other words",
    "direct": "the number only",
    "step-by-step": "a few sentences first",
}
"""What each prompt does. (The third contamination probe is no prompt, but an odd p: `game.multiplier: 0.6413`.)"""

ANNOUNCEMENTS: dict[str, str] = {
    "target": "The target was {target}.",
    "mean": "The average was {mean}.",
    "median": "The median was {median}.",
    "winning_guess": "The winning number was {winning_guess}.",
    "group_numbers": "The groups' numbers were: {group_numbers}.",
    "own_rank": "By nearness to the target, {own_number} ranked {own_rank}.",
}
"""How each quantity that a game can announce is put."""
NONE_OF: dict[str, str] = {
    "winning_guess": "Nobody was near enough to the target to win.",
    "own_rank": "In that round {own_number} did not count.",
}
"""How it is put that there is none of a quantity."""

FIRST_ROUND = "Round {round}. {request}"
NEXT_ROUND = "{before} Round {round}. {request}"
RETRY = "I cannot read a number from {low} to {high} in that. Reply with one number and nothing else."
EXTRACTION = (
    "A player in a number game was asked for a pick from {low} to {high} and said:\n\n{reply}\n\n"
    "Which number does this player pick? Reply with that number only, or with: none"
)


class Writing(NamedTuple):
    """How a model is asked to write the background of a participant, in one language."""

    request: str
    """With {attributes}: what is given."""
    again: str
    """After a reply that cannot be used."""
    pair: str
    """One attribute: {name} and {value}."""
    separator: str


WRITING: dict[str, Writing] = {
    "en": Writing(
        "Invent a person who has these traits: {attributes}. Describe the person in two to four plain sentences that "
        "begin with: You are",
        "That will not do. Write only the description, in two to four plain sentences that begin with: You are",
        "{name}: {value}",
        "; ",
    ),
    "zh": Writing(
        "请虚构一个人物,特征如下:{attributes}。用两到四句话直接描述这个人物,以\u201c你是\u201d开头。",
        "这样不行。请只写人物描述,两到四句话,以\u201c你是\u201d开头。",
        "{name}:{value}",
        ";",
    ),
}
"""By language, as ISO 639-1 codes."""


def placeholders(template: str) -> list[str]:
    """The placeholders of a template, in order; `{{` and `}}` stand for braces.

    Raises:
        ValueError: saying what is wrong with the template.
    """
    found = []
    for _, name, form, conversion in string.Formatter().parse(template):
        if name is None:
            continue
        if form or conversion or not name.isidentifier():
            raise ValueError(f"{{{name}}} is no placeholder; names only, and {{{{ and }}}} for braces themselves")
        found.append(name)
    return found


def needed(template: str, variables: Mapping[str, str]) -> list[str]:
    """The variables that a system prompt's template needs, with those of the rules that it names."""
    found = []
    for name in placeholders(template):
        part = _parts(variables).get(name)
        found += placeholders(part) if part else [name]
    return list(dict.fromkeys(found))


def system_message(name: str, variables: Mapping[str, str], own: Mapping[str, str] = MappingProxyType({})) -> str:
    """The system prompt `name` of the game, and the participant, that `variables` describes.

    Args:
        name: a key of `SYSTEM_PROMPTS`, or of `own`.
        variables: of the game and its population; and the participant's attributes and background, where it has them.
        own: an experiment's own system prompts.
    """
    text = {**SYSTEM_PROMPTS, **own}[name]
    parts = {
        name: _parts(variables)[name].format_map(variables) for name in placeholders(text) if name in _parts(variables)
    }
    return text.format_map({**variables, **parts})


def user_message(
    name: str,
    round_index: int,
    variables: Mapping[str, str],
    announced: Mapping[str, str],
    own: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The request of round `round_index` (from 0).

    Args:
        name: how an answer is asked for, a key of `USER_PROMPTS`, or of `own`.
        round_index: from 0.
        variables: of the game and its population.
        announced: quantities (keys of `ANNOUNCEMENTS`) of the round before and their text; empty in the first round,
            and in a game that announces nothing. An empty text stands for none.
        own: an experiment's own user prompts.
    """
    request = {**USER_PROMPTS, **own}[name].format_map(variables)
    if round_index == 0:
        return FIRST_ROUND.format(round=1, request=request)
    own_number = "your number" if variables.get("players") == "individuals" else "your group's number"
    sentences = [
        (ANNOUNCEMENTS if text else NONE_OF)[quantity].format_map({**announced, "own_number": own_number})
        for quantity, text in announced.items()
    ]
    before = " ".join([f"Round {round_index} is over.", *sentences])
    return NEXT_ROUND.format(before=before, round=round_index + 1, request=request)


def retry_message(variables: Mapping[str, str]) -> str:
    """What a participant is told whose reply held no readable number."""
    return RETRY.format_map(variables)


def extraction_message(reply: str, variables: Mapping[str, str]) -> str:
    """The question which number a reply names, put to a model that did not take part."""
    return EXTRACTION.format_map({**variables, "reply": reply})


def background_request(language: str, attributes: Mapping[str, str]) -> str:
    """What a model is asked that is to write a participant's background."""
    writing = WRITING[language]
    pairs = (writing.pair.format(name=name.replace("_", " "), value=value) for name, value in attributes.items())
    return writing.request.format(attributes=writing.separator.join(pairs))


def _parts(variables: Mapping[str, str]) -> dict[str, str]:
    return {**PARTS, "rules": RULES if variables.get("players") == "individuals" else TEAM_RULES}
