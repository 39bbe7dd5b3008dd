"""Synthetic conversations on which the demo participant is trained: the project's own prompts, played as people did.

Nothing here is a recording. Guesses are drawn from a mixture of level-k reasoners with noise that has published human
means (Nagel 1995), and replies are put in words around them. Numbers are announced far more widely than sensible play
would produce them, so that a model trained on them has to read the announcement rather than the round's number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pbeauty.demo import phrases
from pbeauty.game.experiment import Game
from pbeauty.game.prompt_variables import number_text, prompt_variables
from pbeauty.game.prompts import extraction_message, retry_message, system_message, user_message
from pbeauty.game.scoring import score
from pbeauty.game.theory import equilibrium, level_k_guess, reference_point

CLASSIC = ("2/3", "2/3", "1/2", "1/2", "4/3")
"""Multipliers of the games on [0, 100] that are played most."""
MULTIPLIERS = ("0.7", "3/5", "51/100", "67/100", "3/4", "0.5", "0.67", "0.9", "1/3", "4/5", "0.8", "1", "3/2", "1.1")
RANGES = ((0, 10), (0, 50), (1, 100), (20, 120), (0, 200), (0, 20), (0, 1), (-50, 50), (0, 1000))

FIRST_LEVELS = {"0": 0.07, "ceiling": 0.05, "1": 0.28, "2": 0.22, "3": 0.06, "end": 0.04}
"""Weights of the reasoned guesses of a first round: the middle of the range, the target if everybody took the high
end, one to three steps of reasoning from the middle, the equilibrium."""
FIRST_ANY = {1 / 2: 0.17, 2 / 3: 0.32, 4 / 3: 0.65}
"""Multiplier -> share of guesses that are drawn uniformly from the range: with it the mean of a first round is that of
Nagel 1995 (American Economic Review 85, 1313-1326), pooled over sessions: 27.05, 36.73, 60.12."""
LATER_LEVELS = {"1": 0.52, "2": 0.36, "3": 0.09, "end": 0.03}
"""Weights of the reasoned guesses of later rounds, from the aggregate of the round before."""
LATER_STAY = {1 / 2: 0.02, 2 / 3: 0.2}
"""Multiplier -> share of guesses near that aggregate: with it the mean of a round over that of the round before is the
geometric mean of the falls in Table 1 of the same paper, 0.375 and 0.635."""
LATER_ANY = 0.02


@dataclass(frozen=True)
class Turn:
    """One message; the model learns to write it if `learn`."""

    role: str
    content: str
    learn: bool = False


@dataclass(frozen=True)
class Choice:
    """A participant's guess and the reasoning that led to it."""

    text: str
    """The number, as it is written."""
    steps: tuple[float, ...] = ()
    """The aggregate from which the reasoning started, the best response to everybody choosing it, the best response to
    that, ...; empty where there was no reasoning."""


def draw(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One of `options`, all equally likely."""
    return options[int(rng.integers(len(options)))]


def random_game(rng: np.random.Generator) -> Game:
    """A game: nearly half of the time a classic one, else any multiplier, offset, range and announcement."""
    if rng.random() < 0.45:
        return Game(multiplier=draw(rng, CLASSIC))
    below = int(rng.integers(2, 13))
    odd = f"{int(rng.integers(1, below + 3))}/{below}" if rng.random() < 0.5 else number_text(rng.uniform(0.2, 1.6))
    low, high = RANGES[int(rng.integers(len(RANGES)))] if rng.random() < 0.3 else (0, 100)
    offset = rng.integers(-6, 21) * (high - low) / 100 if rng.random() < 0.25 else 0
    announce = rng.permutation(["target", "mean", "median", "winning_guess"])[: int(rng.integers(5))]
    return Game.model_validate(
        {
            "multiplier": draw(rng, (*CLASSIC, *MULTIPLIERS)) if rng.random() < 0.75 else odd,
            "offset": float(offset),
            "low": low,
            "high": high,
            "aggregate": "mean" if rng.random() < 0.75 else "median",
            "announce": announce.tolist() if rng.random() < 0.4 else ["target"],
        }
    )


def choose(rng: np.random.Generator, game: Game, announced: Mapping[str, float]) -> Choice:
    """One participant's guess after an announcement (`announced` is empty before the first, or where none is made)."""
    reference, width = float(reference_point(game, announced)), game.high - game.low
    steps = tuple(float(level_k_guess(game, level, reference)) for level in (1, 2, 3))
    end = equilibrium(game)
    end = reference if np.isnan(end) else end
    ceiling = float(level_k_guess(game, 1, game.high))
    values = {"0": reference, "ceiling": ceiling, "1": steps[0], "2": steps[1], "3": steps[2], "end": end}
    weights, anything, stay, noisy = FIRST_LEVELS, _between(FIRST_ANY, game.p), 0.0, 0.5
    if announced:
        weights, anything, stay, noisy = LATER_LEVELS, LATER_ANY, _between(LATER_STAY, game.p), 0.7
        values["end"] = (steps[2] + end) / 2
    kind = rng.random()
    if kind < anything:
        return Choice(guess_text(rng, game, rng.uniform(game.low, game.high)))
    shares = np.array(list(weights.values()))
    level = "0" if kind < anything + stay else str(rng.choice(list(weights), p=shares / shares.sum()))
    guess = values[level]
    if rng.random() < noisy:
        spread = 0.14 * max(guess - game.low, 0.02 * width) if announced else 0.04 * width
        guess += rng.normal(0, spread)
    return Choice(guess_text(rng, game, guess), (reference, *steps)[: int(level) + 1] if level.isdigit() else ())


def _between(shares: Mapping[float, float], multiplier: float) -> float:
    return float(np.interp(multiplier, list(shares), list(shares.values())))


def guess_text(rng: np.random.Generator, game: Game, guess: float) -> str:
    """The guess as people write it: mostly an integer, finer where the range or the guess is small."""
    width, near = game.high - game.low, abs(guess - game.low)
    decimals = 0 if rng.random() < 0.86 else int(rng.integers(1, 3))
    if width < 5 or (near < 0.005 * width and rng.random() < 0.6):
        decimals = 2
    elif width < 40 or (near < 0.05 * width and rng.random() < 0.6):
        decimals = 1
    return number_text(float(np.clip(round(guess, decimals), game.low, game.high)))


def reasoning(rng: np.random.Generator, game: Game, announced: Mapping[str, float], choice: Choice) -> str:
    """A step-by-step reply: what was announced, the first two steps of reasoning, the choice, and `My number: X`."""
    decimals = 1 if game.high - game.low >= 40 else 2
    plus = f" {'plus' if game.offset > 0 else 'minus'} {number_text(abs(game.offset))}" if game.offset else ""
    numbers = [number_text(round(number, decimals)) for number in choice.steps[:3]]
    sentences = []
    if announced:
        quantity = draw(rng, list(announced))
        sentences.append(draw(rng, phrases.ANNOUNCED[quantity]).format(value=number_text(announced[quantity])))
        if "target" in announced and game.aggregate not in announced and len(numbers) > 1:
            numbers[:2] = [number_text(announced["target"])]  # which is the best response to the round before
    elif numbers:
        average = prompt_variables(game, 2)["aggregate"]
        sentences.append(draw(rng, phrases.START).format(average=average, at=numbers[0]))
    for before, step in pairwise(numbers):
        sentences.append(draw(rng, phrases.STEP).format(p=game.multiplier, before=before, plus=plus, step=step))
    return " ".join(
        [*sentences, draw(rng, phrases.CHOICE if numbers else phrases.NO_REASON), f"My number: {choice.text}"]
    )


def _next_centre(rng: np.random.Generator, game: Game, centre: float) -> float:
    """The aggregate of the next round: sensible play from `centre`, or, as often, anything at all."""
    if rng.random() < 0.5:
        sensible = game.offset + game.p * centre + rng.normal(0, 0.1) * (centre - game.low)
        return float(np.clip(sensible, game.low, game.high))
    share = rng.random() if rng.random() < 0.6 else 10 ** rng.uniform(-3, 0)
    return float(game.low + (game.high - game.low) * share)


def _announce(rng: np.random.Generator, game: Game, centre: float, *guesses: float) -> dict[str, float]:
    """What is announced after a round of `guesses`, and of some others that are spread around `centre`."""
    spread = rng.uniform(0.1, 0.7)
    above = (centre - game.low) * np.exp(rng.normal(0, spread, int(rng.integers(3, 12))) - spread**2 / 2)
    others = np.clip(game.low + above, game.low, game.high).round(int(rng.integers(0, 3)))
    everybody = np.append(others, guesses)
    outcome = score(game, everybody, np.zeros(everybody.size, np.uint8)).outcome
    return {quantity: float(getattr(outcome, quantity)[0]) for quantity in game.announce}


def _system(rng: np.random.Generator, variables: Mapping[str, str]) -> str:
    """A system prompt: one of the project's own, or other rules, sometimes with a persona before it."""
    if rng.random() < 0.8:
        text = system_message(draw(rng, ("classic", "rational", "think-of-others")), variables)
    else:
        text = draw(rng, phrases.RULES).format_map(variables)
    return f"{phrases.persona(rng)} {text}" if rng.random() < 0.3 else text


def game_conversation(
    rng: np.random.Generator, game: Game | None = None, style: str | None = None, rounds: int | None = None
) -> list[Turn]:
    """A participant's game: any game, style of reply and number of rounds (up to twelve), unless given."""
    game = game or random_game(rng)
    variables = prompt_variables(game, int(10 ** rng.uniform(0.4, 7)))
    style = style or ("direct" if rng.random() < 0.6 else "step-by-step")
    if rounds is None:
        rounds = int(rng.integers(8, 13)) if rng.random() < 0.04 else int(min(rng.geometric(0.45), 8))
    turns = [Turn("system", _system(rng, variables))] if rng.random() < 0.95 else []
    announced: dict[str, float] = {}
    centre = (game.low + game.high) / 2
    for round_index in range(rounds):
        texts = {quantity: number_text(value) for quantity, value in announced.items()}
        turns.append(Turn("user", user_message(style, round_index, variables, texts)))
        choice = choose(rng, game, announced)
        if rng.random() < 0.015:
            turns.append(Turn("assistant", draw(rng, phrases.UNREADABLE)))
            turns.append(Turn("user", retry_message(variables)))
            turns.append(Turn("assistant", choice.text, learn=True))
        else:
            reply = choice.text if style == "direct" else reasoning(rng, game, announced, choice)
            turns.append(Turn("assistant", reply, learn=True))
        centre = _next_centre(rng, game, centre)
        announced = _announce(rng, game, centre, float(choice.text))
    return turns


def extraction_conversation(rng: np.random.Generator) -> list[Turn]:
    """A request to read a number out of somebody's reply, answered with the number or `none`."""
    game = random_game(rng)
    announced = _announce(rng, game, rng.uniform(game.low, game.high)) if rng.random() < 0.5 else {}
    number, other = (number_text(round(rng.uniform(game.low, game.high), int(rng.integers(3)))) for _ in range(2))
    choice = choose(rng, game, announced)
    if rng.random() < 0.5:
        choice = Choice(number)
    reply = reasoning(rng, game, announced, choice)
    thoughts = reply.rpartition("My number:")[0] if rng.random() < 0.4 else ""
    kind, answer = rng.random(), choice.text
    if kind > 0.75:
        reply, answer = thoughts + draw(rng, phrases.UNREADABLE), "none"
    elif kind > 0.3:
        reply = thoughts + draw(rng, phrases.STATED).format(number=choice.text, other=other)
    asked = extraction_message(reply, prompt_variables(game, 2))
    return [Turn("user", asked), Turn("assistant", answer, learn=True)]


def conversation(rng: np.random.Generator, classic: float = 0.0) -> list[Turn]:
    """One conversation: an extraction in one case of six, else a game.

    The share `classic` of all is the beginning of a classic game instead. The end of training has many of them: what
    the multiplier means for a first guess is learned last, since so much else decides about a guess.
    """
    if rng.random() < classic:
        game = Game(multiplier=draw(rng, (*CLASSIC, "4/3")))
        style = draw(rng, ("direct", "step-by-step"))
        return game_conversation(rng, game, style, rounds=1 if rng.random() < 0.6 else 3)
    return extraction_conversation(rng) if rng.random() < 0.16 else game_conversation(rng)
