"""`pbeauty prompts`: the prompts there are, and one of them as participants of an experiment get it."""

from __future__ import annotations

import argparse
import json
from typing import NamedTuple, get_args

from pbeauty.cli.run import add_experiment
from pbeauty.config.loader import loads
from pbeauty.config.persona_files import load_personas
from pbeauty.config.sweep import load_cases
from pbeauty.errors import DONE, ConfigError, nearest
from pbeauty.game.experiment import Announced, Experiment, LLMGroup
from pbeauty.game.prompt_variables import number_text, population_variables
from pbeauty.game.prompts import (
    ABOUT,
    SYSTEM_PROMPTS,
    USER_PROMPTS,
    extraction_message,
    needed,
    placeholders,
    retry_message,
    system_message,
    user_message,
)

EXAMPLE = "name: example\npopulation: [{name: players, count: 100, kind: llm}]"
"""The game that prompts are shown with where no experiment is given."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `pbeauty prompts` takes."""
    add_experiment(parser, nargs="?")
    parser.add_argument("--show", metavar="NAME", help="show this prompt")
    parser.add_argument("--case", metavar="CASE", help="of a sweep: with this case's game, and not the first's")
    parser.add_argument("--json", action="store_true", help="print JSON")


def command(options: argparse.Namespace) -> int:
    """Prints the prompts, or one of them."""
    experiment = load_cases(options.config, options.set, options.case)[0] if options.config else None
    if options.show is not None:
        text = render(options.show, experiment)
        print(json.dumps({"name": options.show, "text": text}, ensure_ascii=False) if options.json else text)
        return DONE
    found = entries(experiment)
    if options.json:
        print(json.dumps([entry._asdict() for entry in found], indent=1))
        return DONE
    width = max(len(entry.name) for entry in found)
    for entry in found:
        needs = f" [needs {', '.join(entry.needs)}]" if entry.needs else ""
        print(f"{entry.kind:<10}  {entry.name:<{width}}  {entry.about}{needs}")
    return DONE


class Entry(NamedTuple):
    """One prompt."""

    name: str
    kind: str
    """system, user, or what participants are asked besides: retry or extraction."""
    about: str
    needs: list[str]
    """The placeholders that not every game has a value for."""


def entries(experiment: Experiment | None = None) -> list[Entry]:
    """All prompts of the library, and an experiment's own."""
    games = [population_variables(loads(EXAMPLE, [f"game.multiplier={p}"])).keys() for p in ("2/3", "1")]
    common = set.intersection(*map(set, games)) - {"only_one"} | {"group"}
    found = []
    for kind, texts in (("system", SYSTEM_PROMPTS), ("user", USER_PROMPTS)):
        own = getattr(experiment.prompts, kind) if experiment else {}
        for name, text in {**texts, **own}.items():
            wanted = needed(text, {"players": "individuals"}) if kind == "system" else placeholders(text)
            rare = [placeholder for placeholder in wanted if placeholder not in common]
            found.append(Entry(name, kind, ABOUT.get(name, "the experiment's own"), rare))
    return found + [Entry(name, name, ABOUT[name], []) for name in ("retry", "extraction")]


def render(name: str, experiment: Experiment | None = None) -> str:
    """A prompt as the first participant who has it gets it; of the first language model, where nobody has it.

    Of a user prompt the messages of the first round and of the second; where groups that have it are told different
    things, the second of the first group for each.

    Args:
        name: of a system or a user prompt, `retry` or `extraction`.
        experiment: whose game and population; without one, the classic game of 100.

    Raises:
        ConfigError: if there is no such prompt, or a placeholder has no value in this experiment.
    """
    experiment = experiment or loads(EXAMPLE)
    own = experiment.prompts
    variables = population_variables(experiment)
    questions = {
        "retry": retry_message(variables, own),
        "extraction": extraction_message("(the reply)", variables, own),
    }
    if name in questions:
        return questions[name]
    system, user = {**SYSTEM_PROMPTS, **own.system}, {**USER_PROMPTS, **own.user}
    if name in (*get_args(Announced), "first_round", "next_round"):
        raise ConfigError(
            f"{name!r} is a part of a message: `--show direct` shows those of an experiment, given as CONFIG"
        )
    if name not in system and name not in user:
        known = [*system, *user, *questions]
        raise ConfigError(f"no prompt {name!r}{nearest(name, known)}; known: {', '.join(known)}")
    variables |= _traits(name, experiment)
    wanted = needed(system[name], variables) if name in system else placeholders(user[name])
    if missing := [placeholder for placeholder in wanted if placeholder not in variables]:
        listed = ", ".join(f"{{{placeholder}}}" for placeholder in missing)
        raise ConfigError(
            f"{name!r} needs {listed}, which this experiment has no value for; give one that has, as CONFIG "
            f"(known: {', '.join(sorted(variables))})"
        )
    if name in system:
        return system_message(name, variables, own)
    example = number_text((experiment.game.low + experiment.game.high) / 3)
    other = {"own_rank": "2", "group_numbers": ", ".join(f"{group.name} {example}" for group in experiment.population)}
    texts = [user_message(name, 0, variables, {}, own)]
    talkers = [group for group in experiment.population if isinstance(group, LLMGroup)]
    groups = [group for group in talkers if group.user_prompt == name] or talkers[:1]
    ways: dict[tuple[str, ...], LLMGroup | None] = {} if groups else {experiment.game.announce: None}
    ways |= {experiment.announced_to(group): group for group in reversed(groups)}
    for quantities, group in reversed(ways.items()):
        announced = {str(quantity): other.get(quantity, example) for quantity in quantities}
        heading = f"({group.name})\n" if group and len(ways) > 1 else ""
        named = variables | ({"group": group.name} if group else {})
        texts.append(heading + user_message(name, 1, named, announced, own))
    return "\n\n".join(texts)


def _traits(name: str, experiment: Experiment) -> dict[str, str]:
    """Group, attributes and background of the first participant with the prompt, or else of the first model."""
    groups = experiment.population
    talkers = {index: group for index, group in enumerate(groups) if isinstance(group, LLMGroup)}
    if not talkers:
        return {}
    index, group = max(talkers.items(), key=lambda one: name in (one[1].system_prompt, one[1].user_prompt))
    personas = load_personas(experiment)
    traits = personas.traits(sum(group.count for group in groups[:index])) if personas else {}
    if group.personas and group.personas.write:
        traits["background"] = "(what the model will have written)"
    return traits | {"group": group.name}
