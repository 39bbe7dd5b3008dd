"""Synthetic conversations on which the demo participant is trained: the project's own prompts, played as people did.

Nothing here is a recording. Guesses are drawn from a mixture of level-k reasoners with noise whose means are solved
from published human means (Nagel 1995), for whatever game and announcement the conversation is about; replies are
then put in words around them. Announced numbers are drawn far wider than sensible play would produce them, so that
a model trained on them has to read the announcement rather than the round's number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pbeauty.demo import phrases as phrases
from pbeauty.game.announcement import announced
from pbeauty.game.experiment import Game
from pbeauty.game.prompt_variables import number_text, prompt_variables
from pbeauty.game.prompts import EXTRACTION, USER_PROMPTS, retry_message, system_message, user_message
from pbeauty.game.scoring import play_out
from pbeauty.game.theory import equilibrium, reference_point

ROUND_ONE_MEANS = {1 / 2: 27.05, 2 / 3: 36.73, 4 / 3: 60.12}
"""Multiplier -> pooled mean of the first round on [0, 100] (Nagel 1995, AER 85:1313-1326)."""

FALLS = {1 / 2: 0.375, 2 / 3: 0.635}
"""Multiplier -> mean over the mean of the round before: geometric mean of the falls between the means of session
means of Table 1 of the same paper, 27.0, 11.1, 3.8 and 36.7, 23.9, 15.9, 9.2. The last step at 1/2, a rise from 3.8
to 7.2 that a few high guesses made, is left out here; `STRAY` brings such guesses."""

STRAY = 0.02
"""Share of guesses after the first round that are drawn uniformly from the range, whatever was announced."""

ROUND_ONE_LEVELS = {"mid": 0.07, "ceiling": 0.05, "1": 0.28, "2": 0.22, "3": 0.06, "end": 0.04}
"""Weights of the reasoned guesses of a first round: the middle of the range, the target if everybody took the high
end, one to three steps of reasoning from the middle, the equilibrium. The familiar spikes at 2/3 (50, 67, 33, 22,
15, 0) are theirs; unreasoned guesses take the share that brings the mean to the published one."""

LATER_LEVELS = {"1": 0.52, "2": 0.36, "3": 0.09, "end": 0.03}
"""Weights of the reasoned guesses of later rounds; level 0, who stay near the reference point, take the share that
gives the published fall."""


@dataclass(frozen=True)
class Turn:
    """One message; the model learns to write it if `learn`."""

    role: str
    content: str
    learn: bool = False


@dataclass(frozen=True)
class Pick:
    """A participant's guess in the making: the text of the number, and the reasoning that led to it."""

    text: str
    level: str
    reference: float
    steps: tuple[float, ...]


def draw(rng: np.random.Generator, options: Sequence[str]) -> str:
    """One of `options`, all equally likely."""
    return options[int(rng.integers(len(options)))]


def _weighted(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    names = list(weights)
    cumulative = np.cumsum([weights[name] for name in names])
    return names[int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))]


# --- games and announcements -------------------------------------------------------------------------------


CLASSIC = ("2/3", "2/3", "1/2", "1/2", "4/3")
"""Multipliers of the games on [0, 100] that are played most."""

RANGES = {"0 10": 4, "0 50": 3, "1 100": 3, "20 120": 3, "0 200": 3, "0 20": 2, "0 1": 1, "-50 50": 1, "0 1000": 1}
"""Other ranges, with their weights."""


def random_game(rng: np.random.Generator) -> Game:
    """A game: nearly half of the time a classic one, else any multiplier, offset, range and announcement."""
    if rng.random() < 0.45:
        return Game(multiplier=draw(rng, CLASSIC))
    low, high = map(float, (_weighted(rng, RANGES) if rng.random() < 0.3 else "0 100").split())
    offset = 0.0
    if rng.random() < 0.25:
        offset = float(rng.integers(1, 21)) * (high - low) / 100 * (1 if rng.random() < 0.7 else -1)
    announce: tuple[str, ...] = ("target",)
    if rng.random() < 0.4:
        known = ["target", "mean", "median", "winning_guess"]
        rng.shuffle(known)
        announce = tuple(known[: int(_weighted(rng, {"0": 0.15, "1": 0.35, "2": 0.25, "3": 0.15, "4": 0.1}))])
    return Game.model_validate(
        {
            "multiplier": _multiplier(rng),
            "offset": offset,
            "low": low,
            "high": high,
            "aggregate": "mean" if rng.random() < 0.75 else "median",
            "announce": announce,
        }
    )


def _multiplier(rng: np.random.Generator) -> str:
    if rng.random() < 0.75:
        usual = (
            "2/3",
            "2/3",
            "1/2",
            "1/2",
            "4/3",
            "4/3",
            "0.7",
            "3/5",
            "51/100",
            "67/100",
            "3/4",
            "0.5",
            "0.67",
            "0.9",
        )
        return draw(rng, (*usual, "1/3", "4/5", "0.8", "1", "3/2", "1.1"))
    if rng.random() < 0.5:
        return number_text(rng.uniform(0.2, 1.6))
    below = int(rng.integers(2, 13))
    return f"{int(rng.integers(1, below + 3))}/{below}"


def random_count(rng: np.random.Generator) -> int:
    """How many take part, from 2 to ten million, half of the time a round number."""
    count = int(10 ** rng.uniform(0.3, 7))
    if rng.random() < 0.5:
        digits = 10 ** max(len(str(count)) - 1, 0)
        count = count // digits * digits
    return max(count, 2)


def level_map(game: Game) -> Callable[[float], float]:
    """The best response to everybody picking x, kept in the range."""
    return lambda x: float(np.clip(game.offset + game.p * x, game.low, game.high))


def _others(rng: np.random.Generator, game: Game, centre: float) -> np.ndarray:
    """float64[some]: what the others may have picked, spread around `centre`."""
    spread = rng.uniform(0.1, 0.7)
    above = (centre - game.low) * np.exp(rng.normal(0, spread, int(rng.integers(3, 12))) - spread**2 / 2)
    return np.clip(game.low + above, game.low, game.high).round(int(rng.integers(0, 3)))


def _next_centre(rng: np.random.Generator, game: Game, centre: float) -> float:
    """The aggregate of a round that was not seen: sensible play from `centre`, or, as often, anything at all."""
    width = game.high - game.low
    kind = rng.random()
    if kind < 0.5:
        step = game.offset + (game.p - 0.03) * centre + rng.normal(0, 0.1) * (centre - game.low)
        return float(np.clip(step, game.low, game.high))
    if kind < 0.8:
        return float(rng.uniform(game.low, game.high))
    return game.low + float(width * 10 ** rng.uniform(-3, 0))


# --- guesses -----------------------------------------------------------------------------------------------


def _share(levels: dict[str, float], values: dict[str, float], other: float, mean: float) -> float:
    """The share of guesses with mean `other` that brings the mixture with `levels` to `mean`, within [0, 0.7]."""
    weight = sum(levels.values())
    reasoned = sum(levels[name] * values[name] for name in levels) / weight
    return float(np.clip((mean - reasoned) / (other - reasoned), 0, 0.7)) if abs(other - reasoned) > 1e-9 else 0.0


def first_pick(rng: np.random.Generator, game: Game) -> tuple[str, float, tuple[float, ...]]:
    """Level, guess and steps of reasoning before anything is known."""
    best, width, middle = level_map(game), game.high - game.low, (game.low + game.high) / 2
    steps = (best(middle), best(best(middle)), best(best(best(middle))))
    fixed_point = equilibrium(game)
    plain = Game(multiplier=game.multiplier)
    human = float(np.interp(game.p, list(ROUND_ONE_MEANS), list(ROUND_ONE_MEANS.values())))
    human = human * (game.p * 2 if game.p < 1 / 2 else 1)
    scale = level_map(plain)
    means = {"mid": 50.0, "ceiling": scale(100), "1": scale(50), "2": scale(scale(50)), "end": equilibrium(plain)}
    means = {**means, "3": scale(scale(scale(50))), "end": 50.0 if game.p == 1 else means["end"]}
    anything = _share(ROUND_ONE_LEVELS, means, 50.0, human)
    if rng.random() < anything:
        return "any", float(rng.uniform(game.low, game.high)), ()
    level = _weighted(rng, ROUND_ONE_LEVELS)
    values = {"mid": middle, "ceiling": best(game.high), "end": middle if np.isnan(fixed_point) else fixed_point}
    values |= {"1": steps[0], "2": steps[1], "3": steps[2]}
    noise = 0.0 if rng.random() < 0.5 else rng.normal(0, 0.04) * width
    return level, values[level] + noise, steps[: int(level)] if level.isdigit() else ()


def later_pick(rng: np.random.Generator, game: Game, reference: float) -> tuple[str, float, tuple[float, ...]]:
    """Level, guess and steps of reasoning after a round whose aggregate was `reference`, as far as it is known."""
    best = level_map(game)
    steps = (best(reference), best(best(reference)), best(best(best(reference))))
    if rng.random() < STRAY:
        return "any", float(rng.uniform(game.low, game.high)), ()
    powers = {"1": game.p, "2": game.p**2, "3": game.p**3, "end": game.p**3}
    fall = float(np.interp(game.p, list(FALLS), list(FALLS.values())))
    stay = _share(LATER_LEVELS, powers, 1.0, fall) if game.p < 1 else 0.15
    level = "0" if rng.random() < stay else _weighted(rng, LATER_LEVELS)
    fixed_point = equilibrium(game)
    values = {"0": reference, "1": steps[0], "2": steps[1], "3": steps[2]}
    values["end"] = reference if np.isnan(fixed_point) else (steps[2] + fixed_point) / 2
    guess = values[level]
    if rng.random() < 0.7:
        guess += rng.normal(0, 0.14) * max(guess - game.low, 0.02 * (game.high - game.low))
    return level, guess, steps[: int(level)] if level.isdigit() else ()


def guess_text(rng: np.random.Generator, game: Game, guess: float) -> str:
    """The guess as people write it: mostly an integer, finer where the range or the guess is small."""
    width, near = game.high - game.low, abs(guess - game.low)
    guess = float(np.clip(guess, game.low, game.high))
    if width < 5 or (width < 40 and rng.random() < 0.5) or (near < 0.005 * width and rng.random() < 0.6):
        decimals = 2
    elif width < 40 or (near < 0.05 * width and rng.random() < 0.6):
        decimals = 1
    else:
        decimals = int(_weighted(rng, {"0": 0.86, "1": 0.09, "2": 0.05}))
    rounded = float(np.clip(round(guess, decimals), game.low, game.high))
    return number_text(rounded)


def choose(rng: np.random.Generator, game: Game, told: dict[str, float]) -> Pick:
    """One participant's guess after an announcement (`told` is empty before the first, or where none is made)."""
    reference = reference_point(game, told)
    level, guess, steps = later_pick(rng, game, reference) if told else first_pick(rng, game)
    return Pick(guess_text(rng, game, guess), level, reference, steps)


# --- replies -----------------------------------------------------------------------------------------------


def reasoning(rng: np.random.Generator, game: Game, told: dict[str, float], pick: Pick) -> str:
    """A step-by-step reply: what was told, the steps of reasoning, the choice, and `My number: X`."""
    decimals = 1 if game.high - game.low >= 40 else 2
    plus = f" {'plus' if game.offset > 0 else 'minus'} {number_text(abs(game.offset))}" if game.offset else ""
    words = {"p": game.multiplier, "plus": plus, "average": prompt_variables(game, 2)["aggregate"]}
    said = []
    at = number_text(round(pick.reference, decimals))
    if told:
        quantity = draw(rng, list(told))
        said.append(draw(rng, phrases.TOLD[quantity]).format(told=number_text(told[quantity])))
    elif pick.level in ("1", "2", "3", "mid"):
        said.append(draw(rng, phrases.START).format(at=at, **words))
    if pick.level in phrases.WITHOUT_STEPS:
        said.append(draw(rng, phrases.WITHOUT_STEPS[pick.level]).format(at=at, **words))
    said += _steps(rng, game, told, pick, decimals, words)
    if pick.steps:
        gap = float(pick.text) - pick.steps[min(len(pick.steps), 2) - 1]
        side = "near" if abs(gap) < 0.03 * (game.high - game.low) else "lower" if gap < 0 else "higher"
        if len(said) < 3 or side != "near":
            said.append(draw(rng, phrases.CHOICE[side]))
    return " ".join([*said, f"My number: {pick.text}"])


def _steps(
    rng: np.random.Generator, game: Game, told: dict[str, float], pick: Pick, decimals: int, words: dict[str, str]
) -> list[str]:
    """The sentences of the first two steps of reasoning; where the target was told, it is the first step itself."""
    known = "target" in told and game.aggregate not in told
    numbers = [pick.reference, *pick.steps[:2]]
    texts = [
        number_text(round(number, 2 if known and index == 1 else decimals)) for index, number in enumerate(numbers)
    ]
    said = []
    for index, (before, step) in enumerate(pairwise(texts)):
        templates = phrases.NEXT_STEP if index else phrases.TARGET_AGAIN if known else phrases.STEP
        said.append(draw(rng, templates).format(before=before, step=step, **words))
    return said


def _system(rng: np.random.Generator, told: dict[str, str]) -> str:
    kind = rng.random()
    if kind < 0.8:
        text = system_message(draw(rng, ("classic", "rational", "think-of-others")), told)
    else:
        text = draw(rng, phrases.RULES).format_map(told)
    if rng.random() < 0.3:
        extra = phrases.persona(rng) if rng.random() < 0.7 else phrases.noise(rng)
        text = f"{extra} {text}" if rng.random() < 0.6 else f"{text} {extra}"
    return text


def _user(rng: np.random.Generator, style: str, round_index: int, game: Game, count: int, told: dict[str, str]) -> str:
    text = user_message(style, round_index, prompt_variables(game, count), told)
    if rng.random() < 0.88:
        return text
    text = text.replace(
        USER_PROMPTS[style].format_map(prompt_variables(game, count)), draw(rng, phrases.REQUESTS[style])
    )
    if rng.random() < 0.5:
        text = text.replace(f"Round {round_index + 1}.", draw(rng, phrases.ROUNDS).format(round=round_index + 1))
    return f"{text} {phrases.noise(rng)}" if rng.random() < 0.15 else text


def game_conversation(
    rng: np.random.Generator, game: Game | None = None, style: str | None = None, rounds: int | None = None
) -> list[Turn]:
    """A participant's game: any game, style of reply and number of rounds (up to twelve), unless given."""
    game, count = game or random_game(rng), random_count(rng)
    style = style or ("direct" if rng.random() < 0.65 else "step-by-step")
    unsure = 0.03 if rng.random() < 0.5 else 0.0
    turns = []
    opening = ""
    if rng.random() < 0.95:
        turns.append(Turn("system", _system(rng, prompt_variables(game, count))))
    elif rng.random() < 0.7:
        opening = system_message("classic", prompt_variables(game, count)) + " "
    told: dict[str, float] = {}
    centre = (game.low + game.high) / 2
    if rounds is None:
        rounds = int(rng.integers(8, 13)) if rng.random() < 0.04 else int(min(rng.geometric(0.4), 8))
        if style == "direct" and rng.random() < 0.4:
            rounds = 1
    for round_index in range(rounds):
        texts = {quantity: number_text(value) for quantity, value in told.items()}
        turns.append(Turn("user", opening + _user(rng, style, round_index, game, count, texts)))
        opening = ""
        pick = choose(rng, game, told)
        if rng.random() < unsure:
            turns.append(Turn("assistant", draw(rng, phrases.UNREADABLE)))
            turns.append(Turn("user", retry_message(prompt_variables(game, count))))
            turns.append(Turn("assistant", pick.text, learn=True))
        else:
            reply = pick.text if style == "direct" else reasoning(rng, game, told, pick)
            turns.append(Turn("assistant", reply, learn=True))
        centre = _next_centre(rng, game, centre)
        guesses = np.append(_others(rng, game, centre), float(pick.text))
        told = announced(game, play_out(game, guesses, np.zeros(guesses.size, np.uint8)))
    return turns


def extraction_conversation(rng: np.random.Generator) -> list[Turn]:
    """A request to read a number out of somebody's reply, answered with the number or `none`."""
    game = random_game(rng)
    told: dict[str, float] = {}
    if rng.random() < 0.5:
        guesses = _others(rng, game, float(rng.uniform(game.low, game.high)))
        told = announced(game, play_out(game, guesses, np.zeros(guesses.size, np.uint8)))
    pick = choose(rng, game, told)
    if rng.random() < 0.5:
        wide = number_text(round(float(rng.uniform(game.low, game.high)), int(rng.integers(3))))
        pick = Pick(wide, "any", pick.reference, ())
    thought, _, _ = reasoning(rng, game, told, pick).rpartition("My number:")
    kind, answer = rng.random(), pick.text
    if kind < 0.3:
        reply = f"{thought}My number: {pick.text}"
    elif kind < 0.75:
        other = number_text(round(float(rng.uniform(game.low, game.high)), int(rng.integers(2))))
        told_so = draw(rng, phrases.STATED).format(number=pick.text, other=other)
        reply = (thought if rng.random() < 0.4 else "") + told_so
    else:
        reply, answer = (thought if rng.random() < 0.3 else "") + draw(rng, phrases.UNREADABLE), "none"
    if rng.random() < 0.1:
        reply = f"{phrases.noise(rng)} {reply}"
    told_range = prompt_variables(game, 2)
    text = EXTRACTION.format(low=told_range["low"], high=told_range["high"], reply=reply)
    return [Turn("user", text), Turn("assistant", answer, learn=True)]


def drill(rng: np.random.Generator) -> list[Turn]:
    """One conversation of the last part of training: in two cases of three the beginning of a classic game.

    What the multiplier means to a first guess is learned last, since so much else decides about a guess.
    """
    if rng.random() > 0.67:
        return conversation(rng)
    game = Game(multiplier=draw(rng, (*CLASSIC, "4/3")))
    return game_conversation(rng, game, draw(rng, ("direct", "step-by-step")), rounds=1 if rng.random() < 0.6 else 3)


def conversation(rng: np.random.Generator) -> list[Turn]:
    """One conversation: a game, or in one case of six an extraction."""
    return extraction_conversation(rng) if rng.random() < 0.16 else game_conversation(rng)
