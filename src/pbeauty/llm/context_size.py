"""How many tokens of context a game needs: its longest conversation, before an engine is started."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pbeauty.errors import ConfigError
from pbeauty.game import prompts
from pbeauty.game.experiment import Experiment, LLMGroup, Sampling, Writer
from pbeauty.game.personas import Personas
from pbeauty.game.prompt_variables import number_text, population_variables
from pbeauty.llm.chat_template import ChatTemplate

EXTRACTION_TOKENS = 16
"""Of a reading of a reply, which is a number or `none`."""
_STEP = 512
"""Contexts are rounded up to a multiple: texts can come to a few tokens more in a place than by themselves."""
_SPARE = 32


LongestTraits = Mapping[str, str]
"""The attributes and the background of the member of a group with most to say about it."""


def longest_traits(
    experiment: Experiment, group_of: NDArray[np.uint16], personas: Personas | None
) -> dict[int, LongestTraits]:
    """By group with language models, the longest traits of its members.

    Args:
        experiment: the whole experiment.
        group_of: uint16[participant]: the groups of some participants; other groups are left out.
        personas: those of the same participants; None where nobody has any.
    """
    found: dict[int, LongestTraits] = {}
    for index in np.unique(group_of).tolist():
        group = experiment.population[index]
        if not isinstance(group, LLMGroup):
            continue
        if not group.personas or personas is None:
            found[index] = {}
            continue
        members = np.flatnonzero(group_of == index)
        if group.writer:
            found[index] = personas.attributes(int(members[0])) | {"background": ""}
            continue
        rows, longest = personas.row[members], int(members[0])
        if len(personas.texts):
            longest = int(members[np.argmax(np.where(rows < 0, 0, personas.texts.lengths()[rows]))])
        found[index] = personas.traits(longest)
    return found


def first_prompt_tokens(experiment: Experiment, index: int, template: ChatTemplate, longest: LongestTraits) -> int:
    """The tokens of the longest prompt that a conversation of a group can begin with: nothing of it can be left out."""
    group = experiment.population[index]
    assert isinstance(group, LLMGroup)
    variables = {**population_variables(experiment), "group": group.name, **longest}
    system = prompts.system_message(group.system_prompt, variables, experiment.prompts)
    written = len(template.opening(system, _longest_request(experiment, group)))
    return written + (writing_sampling(experiment, template, group.writer).max_tokens if group.writer else 0)


def game_context(experiment: Experiment, template: ChatTemplate, groups: Mapping[int, LongestTraits]) -> int:
    """The tokens that the longest conversation of these groups can come to, each reply at its longest, rounded up."""
    needed = 0
    variables = population_variables(experiment)
    for index, longest in groups.items():
        group = experiment.population[index]
        assert isinstance(group, LLMGroup)
        reply = group.sampling.max_tokens
        turn = len(template.uncached_turn(_longest_request(experiment, group))) + reply
        retry = len(template.turn(prompts.retry_message(variables, experiment.prompts))) + reply
        whole = first_prompt_tokens(experiment, index, template, longest) + reply
        whole += (experiment.game.rounds - 1) * turn + group.retries * retry
        question = template.question(prompts.extraction_message("", variables, experiment.prompts))
        reading = len(question) + reply + extraction_sampling(experiment, template).max_tokens
        writing = 0
        if write := group.writer:
            asked = prompts.background_request(write.language, longest, again=True)
            writing = len(template.question(asked)) + writing_sampling(experiment, template, write).max_tokens
        needed = max(needed, whole, reading, writing)
    return -(-(needed + _SPARE) // _STEP) * _STEP


def thought_tokens(experiment: Experiment, template: ChatTemplate) -> int:
    """The room for a thought before a short reply: as much as any reply may take; 0 where a model does not think."""
    groups = [group for group in experiment.population if isinstance(group, LLMGroup)]
    return max(group.sampling.max_tokens for group in groups) if template.reasoning.parser else 0


def extraction_sampling(experiment: Experiment, template: ChatTemplate) -> Sampling:
    """How a reading of a reply is sampled: the likeliest one, and a short one."""
    return Sampling(temperature=0.0, max_tokens=EXTRACTION_TOKENS + thought_tokens(experiment, template))


def writing_sampling(experiment: Experiment, template: ChatTemplate, write: Writer) -> Sampling:
    """How a background is sampled."""
    room = write.max_tokens + thought_tokens(experiment, template)
    return Sampling(temperature=write.temperature, max_tokens=room)


def check_room(
    experiment: Experiment, template: ChatTemplate, groups: Mapping[int, LongestTraits], context: int
) -> None:
    """Refuses prompts that leave no room for a reply.

    Raises:
        ConfigError: naming the group, its model, and the tokens it takes.
    """
    for index, longest in groups.items():
        group = experiment.population[index]
        assert isinstance(group, LLMGroup)
        needed = first_prompt_tokens(experiment, index, template, longest)
        if needed > context - group.sampling.max_tokens:
            raise ConfigError(
                f"group {group.name}: its prompt ({needed} tokens) and reply (max_tokens {group.sampling.max_tokens}) "
                f"do not fit the context of model {group.model} ({context} tokens); "
                "shorten one or raise max_model_len"
            )


def _longest_request(experiment: Experiment, group: LLMGroup) -> str:
    """The longest request to a group: each announced quantity at its longest, or missing, or in the first round."""
    game = experiment.game
    widest = _longest_number(game.low, game.high)
    numbers = ", ".join(f"{other.name} {widest}" for other in experiment.population)
    longest = {
        "target": _longest_number(game.offset + game.p * game.low, game.offset + game.p * game.high),
        "group_numbers": numbers,
        "own_rank": str(experiment.session_size),
    }
    quantities = {str(quantity): longest.get(quantity, widest) for quantity in experiment.announced_to(group)}
    variables = population_variables(experiment) | {"group": group.name}
    optional = [name for name in ("winning_guess", "own_rank") if name in quantities]
    missing = [names for many in range(len(optional) + 1) for names in combinations(optional, many)]
    rounds = [(0, {}), *((game.rounds, quantities | dict.fromkeys(names, "")) for names in missing)]
    own = experiment.prompts
    return max(
        (prompts.user_message(group.user_prompt, index, variables, announced, own) for index, announced in rounds),
        key=len,
    )


def _longest_number(*ends: float) -> str:
    """The longest text of a number between these, or of about their size."""
    return max((number_text(math.trunc(end) + math.copysign(0.99, end)) for end in ends), key=len)
