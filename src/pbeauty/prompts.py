"""What language-model participants are told: rules, requests, announcements.

Every text is a template over the same facts of the game (`pbeauty.game.facts`), so a prompt cannot describe
one game while another is scored. Texts are plain; the chat template of each model wraps them.
"""

from __future__ import annotations

from collections.abc import Mapping

RULES = (
    "{count} players take part in a guessing game. In every round each player picks a number from {low} to {high}; "
    "decimals are allowed. The target is {target_rule}. "
    "Whoever is nearest to the target wins the round."
)

SYSTEM_PROMPTS: dict[str, str] = {
    "classic": "{rules}",
    "rational": "{rules} All players reason perfectly, and everybody knows that they do.",
    "think-of-others": "{rules} Before you choose, consider which numbers the others are likely to pick, and why.",
}
"""What the participant knows before the first round, by name."""

USER_PROMPTS: dict[str, str] = {
    "direct": "Reply with your number only.",
    "step-by-step": "Think it through in a few short sentences, then end with: My number: <number>",
}
"""How the participant is asked to answer, by name."""

ANNOUNCEMENTS: dict[str, str] = {
    "target": "The target was {target}.",
    "mean": "The average was {mean}.",
    "median": "The median was {median}.",
    "winning_guess": "The winning number was {winning_guess}.",
}
"""How each quantity that a game can announce is put."""

OPENING = "Round {round}. {request}"
NEXT_ROUND = "Round {last_round} is over. {announced} Round {round}. {request}"
RETRY = "I cannot read a number from {low} to {high} in that. Reply with one number and nothing else."
EXTRACTION = (
    "A player in a number game was asked for a pick from {low} to {high} and said:\n\n{reply}\n\n"
    "Which number does this player pick? Reply with that number only, or with: none"
)


def system_message(name: str, facts: Mapping[str, str]) -> str:
    """The system prompt `name` (a key of `SYSTEM_PROMPTS`) of the game that `facts` describes."""
    return SYSTEM_PROMPTS[name].format_map({**facts, "rules": RULES.format_map(facts)})


def user_message(name: str, round_index: int, facts: Mapping[str, str], announced: Mapping[str, str]) -> str:
    """The request of round `round_index` (from 0), in the style `name` (a key of `USER_PROMPTS`).

    `announced` maps quantities (keys of `ANNOUNCEMENTS`) of the round before to their text; it is empty in the
    first round, and stays so in a game that announces nothing.
    """
    request = USER_PROMPTS[name].format_map(facts)
    if round_index == 0:
        return OPENING.format(round=1, request=request)
    told = " ".join(ANNOUNCEMENTS[quantity].format_map(announced) for quantity in announced)
    text = NEXT_ROUND.format(last_round=round_index, announced=told, round=round_index + 1, request=request)
    return text.replace("  ", " ")


def retry_message(facts: Mapping[str, str]) -> str:
    """What a participant is told whose reply held no readable number."""
    return RETRY.format_map(facts)


def extraction_message(reply: str, facts: Mapping[str, str]) -> str:
    """The question which number a reply names, put to a model that did not take part."""
    return EXTRACTION.format_map({**facts, "reply": reply})
