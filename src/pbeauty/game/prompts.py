"""The texts of all prompts: the rules, what participants are asked, announcements, and what models are asked besides.

Every text is a template over the same variables of the game and of its population (see `game/prompt_variables.py`), so
that a prompt cannot describe one game while another is scored: a placeholder that the game has no value for is an error
before anything starts. Each model's chat template is applied to the finished text.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import NamedTuple, get_args

from pbeauty.game.experiment import OwnPrompts, Writer

NO_OWN_PROMPTS = OwnPrompts()

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
    "There are {count} of you, each with one secret bid between {low} and {high} per turn (fractions are fine). The "
    "mark to hit is {multiplier} times the {aggregate} of all bids{shift}. Whoever's bid {win_by} the mark "
    "wins the turn."
)
STORY = (
    "In a valley there are {count} lighthouses. Every evening each keeper sets the height of the lamp, anywhere from "
    "{low} to {high} steps. At midnight the ferryman works out the {aggregate} height of all lamps and steers for "
    "{multiplier} times that height{shift}. A keeper whose lamp {win_by} the height that he steers for gets his purse. "
    "You are one of the keepers, and the height that you set is your number."
)

PARTS = {
    "rules_paraphrased": PARAPHRASED,
    "rules_as_story": STORY,
    "rules_as_fraction": RULES.replace("{target_rule}", "{fraction} times the {aggregate} of {all_numbers}{shift}"),
    "rules_as_decimal": RULES.replace("{target_rule}", "{decimal} times the {aggregate} of {all_numbers}{shift}"),
    "rules_as_percent": RULES.replace("{target_rule}", "{percent} of the {aggregate} of {all_numbers}{shift}"),
    "rules_in_words": RULES.replace("{target_rule}", "{words} of the {aggregate} of {all_numbers}{shift}"),
}
"""Other texts of the rules, which a system prompt can name as `{rules}` is named; for games of individuals only."""

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
    "background-one-expert": _ROLE + " {rules} There is exactly one player {only_one}, and it may be you.",
    "composition": "{rules} This is who plays: {composition}.",
    "disguised": "{rules_as_story}",
    "paraphrased": "{rules_paraphrased}",
}
"""System prompts by name."""

USER_PROMPTS: dict[str, str] = {
    "direct": "Reply with your number only.",
    "step-by-step": "Think it through in a few short sentences, then end with: My number: <number>",
}
"""The request that ends every user message, by name."""

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
    "retry": "asks again, after a reply that no number could be read from",
    "extraction": "asks a model which number a reply chooses",
}
"""One line about each prompt. (The third contamination probe is no prompt, but an odd p, `game.multiplier: 0.6413`.)"""

ANNOUNCEMENTS: dict[str, str] = {
    "target": "The target was {target}.",
    "mean": "The average was {mean}.",
    "median": "The median was {median}.",
    "winning_guess": "The winning number was {winning_guess}.",
    "group_numbers": "The groups' numbers were: {group_numbers}.",
    "own_rank": "By nearness to the target, {own_number} ranked {own_rank}.",
    "no_winning_guess": "Nobody was near enough to the target to win.",
    "no_own_rank": "In that round {own_number} did not count.",
}
"""The sentence that announces each quantity; with `no_`, the sentence where the round had no such quantity."""

FIRST_ROUND = "Round {round}. {request}"
NEXT_ROUND = "{before} Round {round}. {request}"
ROUND_OVER = "Round {round} is over."
"""Begins what stands for {before}; the announcements follow."""
RETRY = "I cannot read a number from {low} to {high} in that. Reply with one number and nothing else."
EXTRACTION = (
    "A player in a number game was asked for a pick from {low} to {high} and said:\n\n{reply}\n\n"
    "Which number does this player pick? Reply with that number only, or with: none"
)


class Writing(NamedTuple):
    """How a model is asked, in one language, to write the background of a participant."""

    request: str
    """The request, with the placeholder {attributes}."""
    again: str
    """What is added to it after a reply that cannot be used."""
    pair: str
    """One attribute in words, with the placeholders {name} and {value}."""
    separator: str
    """What stands between two attributes."""


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
"""The requests by language, an ISO 639-1 code."""
assert set(get_args(Writer.model_fields["language"].annotation)) == set(WRITING)

BESIDES: dict[str, tuple[str, ...]] = {
    **{quantity: (quantity, "two_decimals", "group") for quantity in ("target", "mean", "median", "winning_guess")},
    "group_numbers": ("group_numbers", "group"),
    "own_rank": ("own_rank", "own_number", "group"),
    "no_winning_guess": ("group",),
    "no_own_rank": ("own_number", "group"),
    "first_round": ("round", "request", "group"),
    "next_round": ("before", "announced", "round", "request", "group"),
    "retry": (),
    "extraction": ("reply",),
}
"""The placeholders that each announcement, opening and question has besides those of the game."""


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
    """The variables that a template of a system prompt needs, with those of the rules that it names."""
    found = []
    for name in placeholders(template):
        part = rules_texts(variables.get("players") == "individuals").get(name)
        found += placeholders(part) if part else [name]
    return list(dict.fromkeys(found))


class Texts(NamedTuple):
    """All texts of an experiment, under the names of `OwnPrompts`."""

    system: dict[str, str]
    user: dict[str, str]
    announcements: dict[str, str]
    first_round: str
    next_round: str
    retry: str
    extraction: str


def all_texts(own: OwnPrompts = NO_OWN_PROMPTS) -> Texts:
    """The texts of an experiment: its own, and the library's where it has none."""
    return Texts(
        system={**SYSTEM_PROMPTS, **own.system},
        user={**USER_PROMPTS, **own.user},
        announcements=ANNOUNCEMENTS | {str(name): text for name, text in own.announcements.items()},
        first_round=own.first_round or FIRST_ROUND,
        next_round=own.next_round or NEXT_ROUND,
        retry=own.retry or RETRY,
        extraction=own.extraction or EXTRACTION,
    )


def rules_texts(individuals: bool) -> dict[str, str]:
    """The texts of the rules, by the names under which system prompts name them, of a game of individuals or groups."""
    return {**PARTS, "rules": RULES if individuals else TEAM_RULES}


def system_message(name: str, variables: Mapping[str, str], own: OwnPrompts = NO_OWN_PROMPTS) -> str:
    """The text of a system prompt.

    Args:
        name: a key of `SYSTEM_PROMPTS`, or of `own.system`.
        variables: those of the game and its population, and a participant's group, attributes and background.
        own: the experiment's own texts.
    """
    text = all_texts(own).system[name]
    rules = rules_texts(variables.get("players") == "individuals")
    named = {part: rules[part].format_map(variables) for part in placeholders(text) if part in rules}
    return text.format_map({**variables, **named})


def user_message(
    name: str,
    round_index: int,
    variables: Mapping[str, str],
    announced: Mapping[str, str],
    own: OwnPrompts = NO_OWN_PROMPTS,
) -> str:
    """The user message of a round: what is announced of the round before, and the request.

    Args:
        name: a key of `USER_PROMPTS`, or of `own.user`.
        round_index: the round, from 0.
        variables: those of the game and its population, and the group's name.
        announced: the text of each quantity (a key of `ANNOUNCEMENTS`) that the round before is announced with; an
            empty text where that round had none, such as a winning guess if nobody won.
        own: the experiment's own texts.
    """
    texts = all_texts(own)
    request = texts.user[name].format_map(variables)
    opening = {**variables, "round": str(round_index + 1), "request": request}
    if round_index == 0:
        return texts.first_round.format_map(opening)
    own_number = "your number" if variables.get("players") == "individuals" else "your group's number"
    sentences = [
        texts.announcements[quantity if text else f"no_{quantity}"].format_map(
            {**variables, "own_number": own_number, quantity: text, "two_decimals": _two_decimals(text)}
        )
        for quantity, text in announced.items()
    ]
    opening["announced"] = " ".join(sentences)
    opening["before"] = " ".join([ROUND_OVER.format(round=round_index), *sentences])
    return texts.next_round.format_map(opening)


def retry_message(variables: Mapping[str, str], own: OwnPrompts = NO_OWN_PROMPTS) -> str:
    """The request to a participant whose reply no number could be read from."""
    return (own.retry or RETRY).format_map(variables)


def extraction_message(reply: str, variables: Mapping[str, str], own: OwnPrompts = NO_OWN_PROMPTS) -> str:
    """The extraction question: which number a reply chooses."""
    return (own.extraction or EXTRACTION).format_map({**variables, "reply": reply})


def background_request(language: str, attributes: Mapping[str, str], *, again: bool = False) -> str:
    """The request that a model writes the background of a participant, at first or after an unusable reply."""
    request = WRITING[language].request.format(attributes=attributes_in_words(language, attributes))
    return f"{request} {WRITING[language].again}" if again else request


def attributes_in_words(language: str, attributes: Mapping[str, str]) -> str:
    """A participant's attributes in words, one after the other."""
    writing = WRITING[language]
    return writing.separator.join(
        writing.pair.format(name=name.replace("_", " "), value=value) for name, value in attributes.items()
    )


def _two_decimals(text: str) -> str:
    """A number as it is announced, such as `33.5`, with both decimals: `33.50`; what is no number stays as it is."""
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals:0<2}" if text[-1:].isdigit() else text
