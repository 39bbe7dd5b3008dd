"""The words in which the demo participant's training conversations are put."""

from __future__ import annotations

import numpy as np

ANNOUNCED = {
    "target": ("The target was {value}.", "Last time the target was {value}."),
    "mean": ("The average was {value}.", "Last time the average was {value}."),
    "median": ("The median was {value}.", "Last time the median was {value}."),
    "winning_guess": ("The winner had {value}.", "The winning number was {value}."),
}
START = ("Without any plan the {average} would be about {at}.", "Random picks give {at}.")
STEP = (
    "If nobody learns, the target is {p} times {before}{plus}, so {step}.",
    "Many see that, so the target is {p} times {before}{plus}, that is {step}.",
)
CHOICE = ("I stay close to that.", "I take about that.")
NO_REASON = ("I just follow my feeling.", "It is only a guess.")

RULES = (
    "You are one of {count} people who each choose a number between {low} and {high}. The winner is whoever is closest "
    "to {multiplier} of the {aggregate}.",
    "Game: {count} players, numbers {low} to {high}, target = {target_rule}. The nearest pick wins a prize.",
    "You are a participant in a game.",
)
"""Other ways to put the rules than the project's own."""
UNREADABLE = (
    "I am not sure.", "Something low.", "I cannot decide.", "It depends on the others.", "Can you repeat the rules?",
    "?", "I pick the same as before.", "Let me think about", "My number:", "", "The others will go lower.",
)  # fmt: skip
STATED = (
    "I pick {number}.", "{number}", "**{number}**", "I would go with {number}", "My number is {number}.",
    "Answer: {number}", "My guess is {number}, since the others will be near {other}.", "I want {number}.",
    "I expect an average of {other}, so I say {number}.", "Not {other}, I take {number}.",
    "First I thought of {other}, but my pick is {number}.", "I am 45 years old and I choose {number}.",
)  # fmt: skip
"""Replies that state {number} in other words than asked for."""

PERSONAS = (
    "You are a {age} year old {job}.",
    "You are {name}, {age}, a {job} from {place}.",
    "Occupation: {job}. Age: {age}.",
)
WORDS = {
    "name": ("Ann", "Carlos", "Emeka", "Fatima", "Li Wei", "Maria"),
    "job": ("nurse", "teacher", "economist", "student", "athlete", "farmer"),
    "place": ("a small town", "Lima", "Nairobi", "Osaka"),
}


def persona(rng: np.random.Generator) -> str:
    """Who the participant is, in a sentence or two."""
    words = {name: str(rng.choice(values)) for name, values in WORDS.items()}
    return str(rng.choice(PERSONAS)).format(age=int(rng.integers(16, 91)), **words)
