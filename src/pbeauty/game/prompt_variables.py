"""The game and its population in words: the variables that prompts are filled in with."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from fractions import Fraction

import numpy as np

from pbeauty.game.experiment import Experiment, Game, LLMGroup
from pbeauty.game.randomness import quotas
from pbeauty.game.values import fraction

_CARDINALS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_ORDINALS = ("", "", "half", "third", "quarter", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


def prompt_variables(game: Game, count: int, groups: int = 1) -> dict[str, str]:
    """The variables of a game in which a session has `count` participants in so many population groups, for prompts.

    One that the game has no value for is missing: no prompt can then use it.
    """
    aggregate = "average" if game.aggregate == "mean" else "median"
    individuals = game.players == "individuals"
    all_numbers = "all numbers picked in that round" if individuals else "the numbers of all groups in that round"
    shift = f", {'plus' if game.offset > 0 else 'minus'} {_exact_text(abs(game.offset))}" if game.offset else ""
    win_by = "is nearest to" if game.tolerance is None else f"is within {_exact_text(game.tolerance)} of"
    variables = {
        "players": game.players,
        "count": str(count),
        "others": str(count - 1),
        "low": _exact_text(game.low),
        "high": _exact_text(game.high),
        "multiplier": game.multiplier,
        "offset": _exact_text(game.offset),
        "aggregate": aggregate,
        "target_rule": f"{game.multiplier} times the {aggregate} of {all_numbers}{shift}",
        "shift": shift,
        "win_rule": f"{'Whoever' if individuals else 'A group whose number'} {win_by} the target wins the round.",
    }
    if individuals:  # for the other texts of the rules, which are about individuals
        variables |= {"win_by": win_by, "all_numbers": all_numbers} | multiplier_forms(game.multiplier)
    else:
        variables["group_count"] = str(groups)
    if game.offset:
        added = "added" if game.offset > 0 else "taken away"
        variables["shift_rule"] = f"{_exact_text(abs(game.offset))} is {added} after multiplying"
    if game.aggregate == "median":
        variables["median_rule"] = "The median is the number in the middle when all are put in order, not the average."
    return variables


def population_variables(experiment: Experiment) -> dict[str, str]:
    """The game and its population in words, for prompts: `prompt_variables`, `composition`, and `only_one`.

    `composition` lists how many participants of a session have each value of each attribute, or are in each group where
    there are no attributes. `only_one` is the value or group of just one participant, if there is exactly one such.
    """
    variables = prompt_variables(experiment.game, experiment.session_size, len(experiment.population))
    kinds = {
        f"whose {name.replace('_', ' ')} is {value}": many
        for name, values in counts(experiment).items()
        for value, many in values.items()
        if many
    } or {f'in the group "{group.name}"': group.count for group in experiment.population}
    variables["composition"] = ", ".join(f"{many:,} {kind}" for kind, many in kinds.items())
    single = [kind for kind, many in kinds.items() if many == 1]
    if len(single) == 1:
        variables["only_one"] = single[0]
    return variables


def counts(experiment: Experiment) -> dict[str, Counter[str]]:
    """How many participants of a session have each value of each attribute that the experiment gives quotas of."""
    found: dict[str, Counter[str]] = {}
    for group in experiment.population:
        if not isinstance(group, LLMGroup) or not group.personas:
            continue
        for name, shares in group.personas.attributes.items():
            many = quotas(group.count, list(shares.values()), experiment.seed, f"{group.name}/{name}")
            found.setdefault(name, Counter()).update(dict(zip(shares, many, strict=True)))
        if group.personas.joint:
            many = quotas(group.count, group.personas.joint_shares, experiment.seed, f"{group.name}/joint")
            for row, number in zip(group.personas.joint, many, strict=True):
                for name, value in row.items():
                    found.setdefault(name, Counter())[value] += number
    return found


def multiplier_forms(multiplier: str) -> dict[str, str]:
    """A multiplier as fraction, decimal, percent and words, as far as it has that form exactly."""
    value = fraction(multiplier)
    forms = {"fraction": str(value)}
    decimal = Decimal(value.numerator) / Decimal(value.denominator)
    if Fraction(decimal) == value:
        forms["decimal"] = f"{decimal:f}"
        forms["percent"] = f"{(100 * decimal).normalize():f}%"
    if value.numerator < len(_CARDINALS) and 2 <= value.denominator < len(_ORDINALS):
        ending = "" if value.numerator == 1 else "s"
        ordinal = "halve" if ending and value.denominator == 2 else _ORDINALS[value.denominator]
        forms["words"] = f"{_CARDINALS[value.numerator]} {ordinal}{ending}"
    return forms


def number_text(value: float) -> str:
    """A number as people write it, with two decimals at most: `50`, `33.33`, `0.5`."""
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")


def _exact_text(value: float) -> str:
    """A number of the rules, with all its decimals, so that nobody is told other rules than those that score."""
    return np.format_float_positional(value + 0.0, trim="-")
