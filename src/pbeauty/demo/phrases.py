"""The words in which the demo participant's training conversations are put: templates, personas and noise."""

from __future__ import annotations

import numpy as np

TOLD = {
    "target": ("The target was {told}.", "Last time the target was {told}.", "The last target was {told}."),
    "mean": ("The average was {told}.", "Last time the average was {told}."),
    "median": ("The median was {told}.", "Last time the median was {told}."),
    "winning_guess": ("The winner had {told}.", "The winning number was {told}."),
}
"""How a step-by-step reply refers to what was announced: {told}."""

START = (
    "Without any plan the {average} would be about {at}.",
    "If everybody guesses, the {average} is near {at}.",
    "Random picks give {at}.",
    "I start from {at}, the middle.",
)
"""Where the reasoning of a first round starts: {at} is the middle of the range."""

STEP = (
    "Then the target is {p} times {before}{plus}, so {step}.",
    "The target is {p} times {before}{plus}, that is {step}.",
    "If nobody learns, the target is {p} times {before}{plus}, or {step}.",
)
"""The first step of reasoning, worded like the rules."""

TARGET_AGAIN = (
    "So {step} was the best answer.",
    "If nobody learns, {step} is right.",
    "Many will now go for {step}.",
    "I start from {step}.",
)
"""The first step after a round whose target is known: the best answer to the same again."""

NEXT_STEP = (
    "Others see that too, so the target is {p} times {before}{plus}, that is {step}.",
    "One step further the target is {p} times {before}{plus}, so {step}.",
    "If many think so, the target is {p} times {before}{plus}, or {step}.",
)
"""A further step of reasoning."""

WITHOUT_STEPS = {
    "any": ("I just follow my feeling.", "I have no better idea, so I pick one.", "It is only a guess."),
    "mid": ("I stay in the middle.", "I take the middle and wait."),
    "ceiling": ("The target cannot be above that of the highest picks.", "I think many will go high."),
    "end": ("If all reason to the end, only one number is left.", "I go nearly all the way."),
    "0": ("I think they will not change, so I stay near {at}.", "The {average} may well be near {at} again."),
}
"""The reasoning of those who take no steps."""

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
    "This is an experiment with {count} persons. Everyone writes down a number, at least {low} and at most {high}. The "
    "target equals {target_rule}. The closest one wins.",
    "Welcome! Pick a number from {low} to {high}. We compute {target_rule}; the one who is nearest gets the prize. "
    "There are {count} of you.",
    "A newspaper asks its {count} readers for a number in [{low}, {high}]. The best guess of {target_rule} wins.",
    "You play against {count} others. Range: {low}-{high}. To win, be near {target_rule}.",
    "A shop has a jar, and {count} customers bid from {low} to {high}. The goal is {target_rule}.",
    "You are a participant in a game.",
)
"""Other tellings of the rules than the project's own."""

REQUESTS = {
    "direct": (
        "Answer with a single number.",
        "Only the number, please.",
        "Just give your number.",
        "What is your number? Write nothing else.",
        "Your guess (number only):",
        "Pick a number. Do not explain.",
    ),
    "step-by-step": (
        "Explain briefly how you choose, then finish with: My number: <number>",
        "Think step by step, then end with: My number: <number>",
        "Reason in a few sentences and close with a line such as: My number: <number>",
        "Give your thoughts first. End with: My number: <number>",
        "Let us think about it. Then write: My number: <number>",
    ),
}
"""Other wordings of the two styles of request."""

ROUNDS = ("This is round {round}.", "Round {round} begins.", "Now it is round {round}.", "Game {round}:", "", "Go!")
"""Other openings of a request."""

UNREADABLE = (
    "I am not sure.",
    "I do not know what to pick.",
    "Hmm, that is hard to say.",
    "I would rather wait for the others.",
    "Something low.",
    "It depends on the others.",
    "I think the target will fall again.",
    "The others will go lower, and so will I.",
    "Can you repeat the rules?",
    "No idea!",
    "I pick the same as before.",
    "I will not play.",
    "",
    "?",
    "Let me think about",
    "My number:",
    "I cannot decide.",
    "A good number.",
    "Somewhere in the middle.",
    "As an assistant I cannot take part in games.",
)
"""Replies without a readable number."""

STATED = (
    "I pick {number}.",
    "{number}",
    "{number}.",
    "**{number}**",
    "I would go with {number}",
    "My number is {number}.",
    "Answer: {number}",
    "I choose {number} this time.",
    "My guess is {number}, since the others will be near {other}.",
    "I expect an average of {other}, so I say {number}.",
    "Not {other}, I take {number}.",
    "First I thought of {other}, but my pick is {number}.",
    "{other} seems too high. I go for {number}!",
    "Final answer: {number}",
    "Let me say {number} then.",
    "I am 45 years old and I choose {number}.",
    "My pick: {number}. Good luck to all!",
    "Most will say {other}. I say {number}.",
    "number = {number}",
    "The number I pick is {number} because {other} is what the rest will do.",
)
"""Replies that state {number} in other words than asked for."""

JOBS = (
    "nurse", "teacher", "economist", "professor of game theory", "student", "athlete", "writer", "artist", "farmer",
    "psychologist", "engineer", "driver", "lawyer", "cook", "retired clerk", "programmer", "mathematician", "plumber",
)  # fmt: skip
TRAITS = (
    "careful", "bold", "curious", "patient", "impatient", "friendly", "stubborn", "clever", "tired", "cheerful",
)  # fmt: skip
PLACES = ("a small town", "Paris", "Lima", "Nairobi", "a village by the sea", "Osaka", "Berlin", "Ohio", "the north")
SCHOOLS = ("primary school", "high school", "college", "a master's degree", "a doctorate", "no formal education")
PERSONAS = (
    "You are a {age} year old {job}.",
    "You are {name}, a {trait} {job} from {place}.",
    "You are {age} years old, live in {place} and finished {school}.",
    "Your education: {school}. You work as a {job}.",
    "{name} is a {trait} person who likes to play.",
    "You are a {trait} {job} with {school}; you grew up in {place} with {kids} brothers.",
    "Occupation: {job}. Age: {age}. Education: {school}.",
)
NAMES = ("Ann", "Bo", "Carlos", "Dina", "Emeka", "Fatima", "Goran", "Hana", "Ivo", "June", "Kofi", "Li Wei", "Maria")
SENTENCES = (
    "The weather is fine today.",
    "Please be polite.",
    "There is a prize of 20 euros.",
    "Nobody can see what the others write.",
    "You cannot talk to each other.",
    "Play to win.",
    "Take your time.",
    "It is your first time.",
    "Remember that people are not always rational.",
    "The game is well known and was played in newspapers.",
    "Keep your answers short.",
    "You have a good memory and play as a group.",
    "Do your best!",
)
"""Sentences that say nothing about the rules."""


def persona(rng: np.random.Generator) -> str:
    """Who the participant is, in a sentence or two."""
    lists = {"job": JOBS, "trait": TRAITS, "place": PLACES, "school": SCHOOLS, "name": NAMES}
    words = {key: values[int(rng.integers(len(values)))] for key, values in lists.items()}
    template = PERSONAS[int(rng.integers(len(PERSONAS)))]
    return template.format(age=int(rng.integers(16, 91)), kids=int(rng.integers(2, 6)), **words)


def noise(rng: np.random.Generator) -> str:
    """Text that has nothing to do with the game: a sentence, made-up words, or characters of any script."""
    kind = rng.random()
    if kind < 0.5:
        return SENTENCES[int(rng.integers(len(SENTENCES)))]
    if kind < 0.85:
        letters = "aaabcdeeefghiiijklmnooopqrstuuvwxyz"
        words = [
            "".join(letters[i] for i in rng.integers(len(letters), size=rng.integers(2, 9)))
            for _ in range(rng.integers(3, 12))
        ]
        return " ".join(words).capitalize() + "."
    blocks = ((0x20, 0x7F), (0xA1, 0x180), (0x391, 0x3CA), (0x410, 0x450), (0x3041, 0x3097), (0x4E00, 0x4F00))
    low, high = blocks[int(rng.integers(len(blocks)))]
    return "".join(chr(int(code)) for code in rng.integers(low, high, size=rng.integers(4, 20)))
