"""The words in which the demo participant's training conversations are put: templates, personas and noise."""

from __future__ import annotations

import numpy as np

ANNOUNCED = {
    "target": ("The target was {value}.", "Last time the target was {value}.", "The last target was {value}."),
    "mean": ("The average was {value}.", "Last time the average was {value}."),
    "median": ("The median was {value}.", "Last time the median was {value}."),
    "winning_guess": ("The winner had {value}.", "The winning number was {value}."),
}
START = (
    "Without any plan the {average} would be about {at}.",
    "Random picks give {at}.",
    "I start from the middle, {at}.",
)
STEP = (
    "Then the target is {p} times {before}{plus}, so {step}.",
    "If nobody learns, the target is {p} times {before}{plus}, or {step}.",
)
TARGET_AGAIN = ("So {step} was the best answer.", "If nobody learns, {step} is right.", "Many will now go for {step}.")
"""The first step after a round whose target is known: the best answer to the same again."""
NEXT_STEP = (
    "Others see that too, so the target is {p} times {before}{plus}, that is {step}.",
    "One step further the target is {p} times {before}{plus}, so {step}.",
)
WITHOUT_STEPS = {
    "any": ("I just follow my feeling.", "I have no better idea, so I pick one.", "It is only a guess."),
    "middle": ("I stay in the middle.", "I take the middle and wait."),
    "ceiling": ("The target cannot be above that of the highest picks.", "I think many will go high."),
    "end": ("If all reason to the end, only one number is left.", "I go nearly all the way."),
    "0": ("I think they will not change, so I stay near {at}.", "The {average} may well be near {at} again."),
}
"""The reasoning of those who take no steps, by level."""
CHOICE = {
    "near": ("So I stay close to that.", "I take about that.", "I round it."),
    "lower": ("I go a bit lower.", "I would rather be below that."),
    "higher": ("I go a bit higher.", "Some will be slower, so I add a little."),
}
"""How the number that is chosen lies to the last step."""

RULES = (
    "You are one of {count} people who each choose a number between {low} and {high}. The winner is whoever is closest "
    "to {multiplier} of the {aggregate}.",
    "Game: {count} players, numbers {low} to {high}, target = {target_rule}. The nearest pick wins a prize.",
    "Welcome! Pick a number from {low} to {high}. We compute {target_rule}; the one who is nearest gets the prize. "
    "There are {count} of you.",
    "You play against {count} others. Range: {low}-{high}. To win, be near {target_rule}.",
    "You are a participant in a game.",
)
"""Other ways to put the rules than the project's own."""
REQUESTS = {
    "direct": ("Answer with a single number.", "Just give your number.", "Your guess (number only):"),
    "step-by-step": (
        "Explain briefly how you choose, then finish with: My number: <number>",
        "Think step by step, then end with: My number: <number>",
        "Let us think about it. Then write: My number: <number>",
    ),
}
UNREADABLE = (
    "I am not sure.", "I do not know what to pick.", "Hmm, that is hard to say.", "Something low.", "I cannot decide.",
    "It depends on the others.", "I think the target will fall again.", "Can you repeat the rules?", "No idea!", "?",
    "I pick the same as before.", "I will not play.", "Let me think about", "My number:", "In the middle.", "",
    "Who knows?", "As an assistant I cannot take part in games.", "The others will go lower, and so will I.",
)  # fmt: skip
STATED = (
    "I pick {number}.", "{number}", "{number}.", "**{number}**", "I would go with {number}", "My number is {number}.",
    "Answer: {number}", "I choose {number} this time.", "My guess is {number}, since the others will be near {other}.",
    "I expect an average of {other}, so I say {number}.", "Not {other}, I take {number}.", "I want {number}.",
    "First I thought of {other}, but my pick is {number}.", "{other} seems too high. I go for {number}!",
    "Final answer: {number}", "I am 45 years old and I choose {number}.", "I would say {number} is best.",
)  # fmt: skip
"""Replies that state {number} in other words than asked for."""

WORDS = {
    "name": ("Ann", "Bo", "Carlos", "Dina", "Emeka", "Fatima", "Hana", "Ivo", "Kofi", "Li Wei", "Maria"),
    "job": ("nurse", "teacher", "economist", "professor of game theory", "student", "athlete", "writer", "farmer"),
    "trait": ("careful", "bold", "curious", "patient", "friendly", "stubborn", "clever", "tired"),
    "place": ("a small town", "Paris", "Lima", "Nairobi", "a village by the sea", "Osaka"),
    "school": ("primary school", "high school", "college", "a master's degree", "no formal education"),
}
PERSONAS = (
    "You are a {age} year old {job}.",
    "You are {name}, a {trait} {job} from {place}.",
    "You are {age} years old, live in {place} and finished {school}.",
    "{name} is a {trait} person who likes to play.",
    "Occupation: {job}. Age: {age}. Education: {school}.",
)
SENTENCES = (
    "There is a prize of 20 euros.",
    "Play to win.",
    "Remember that people are not always rational.",
    "Do your best!",
)
SCRIPTS = ((0x20, 0x7F), (0xA1, 0x180), (0x391, 0x3CA), (0x410, 0x450), (0x3041, 0x3097), (0x4E00, 0x4F00))
"""Ranges of code points."""


def persona(rng: np.random.Generator) -> str:
    """Who the participant is, in a sentence or two."""
    words = {name: str(rng.choice(values)) for name, values in WORDS.items()}
    return str(rng.choice(PERSONAS)).format(age=int(rng.integers(16, 91)), **words)


def noise(rng: np.random.Generator) -> str:
    """Text that has nothing to do with the rules: a sentence, made-up words, or characters of any script."""
    kind = rng.random()
    if kind < 0.4:
        return str(rng.choice(SENTENCES))
    if kind < 0.8:
        lengths = rng.integers(2, 9, size=rng.integers(3, 12))
        words = ("".join(rng.choice(list("aaabcdeeefghiiijklmnooopqrstuuvwxyz"), size=length)) for length in lengths)
        return " ".join(words).capitalize() + "."
    low, high = SCRIPTS[int(rng.integers(len(SCRIPTS)))]
    return "".join(map(chr, rng.integers(low, high, size=rng.integers(4, 20))))
