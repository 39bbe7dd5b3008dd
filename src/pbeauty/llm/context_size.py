"""How many tokens of context a game needs: its longest conversation, before an engine is started."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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

LongestTraits = tuple[LLMGroup, Mapping[str, str]]
"""A group, and the attributes and the background of the member with most to say about it."""


def longest_traits(
    experiment: Experiment, group_of: NDArray[np.uint16], personas: Personas | None
) -> list[LongestTraits]:
    """The longest traits in each group of language models that some participants are of.

    Args:
        experiment: the whole experiment.
        group_of: uint16[participant], the groups of these participants.
        personas: those of the same participants; None where nobody has any.
    """
    found: list[LongestTraits] = []
    for index in np.unique(group_of).tolist():
        group = experiment.population[index]
        if not isinstance(group, LLMGroup):
            continue
        traits: dict[str, str] = {}
        if group.personas and personas is not None:
            members = np.flatnonzero(group_of == index)
            if group.writer:
                traits = personas.attributes(int(members[0])) | {"background": ""}
            else:
                lengths = np.append(personas.texts.lengths(), 0)[personas.row[members]]  # the last where the row is -1
                traits = personas.traits(int(members[np.argmax(lengths)]))
        found.append((group, traits))
    return found


def first_prompt_tokens(experiment: Experiment, template: ChatTemplate, longest: LongestTraits) -> int:
    """The tokens of the longest prompt that a conversation of a group can begin with: nothing of it can be left out."""
    group, traits = longest
    variables = {**population_variables(experiment), "group": group.name, **traits}
    system = prompts.system_message(group.system_prompt, variables, experiment.prompts)
    written = writing_sampling(experiment, template, group.writer).max_tokens if group.writer else 0
    return len(template.opening(system, _longest_request(experiment, group))) + written


def game_context(experiment: Experiment, template: ChatTemplate, groups: Sequence[LongestTraits]) -> int:
    """The tokens that the longest conversation of these groups can come to, each reply at its longest, rounded up."""
    needed = 0
    variables, own = population_variables(experiment), experiment.prompts
    question = len(template.question(prompts.extraction_message("", variables, own)))
    question += extraction_sampling(experiment, template).max_tokens
    for group, traits in groups:
        reply = group.sampling.max_tokens
        turn = len(template.uncached_turn(_longest_request(experiment, group))) + reply
        retry = len(template.turn(prompts.retry_message(variables, own))) + reply
        whole = first_prompt_tokens(experiment, template, (group, traits)) + reply
        whole += (experiment.game.rounds - 1) * turn + group.retries * retry
        needed = max(needed, whole, question + reply)
        if write := group.writer:
            asked = template.question(prompts.background_request(write.language, traits, again=True))
            needed = max(needed, len(asked) + writing_sampling(experiment, template, write).max_tokens)
    return -(-(needed + _SPARE) // _STEP) * _STEP


def extraction_sampling(experiment: Experiment, template: ChatTemplate) -> Sampling:
    """How a reading of a reply is sampled: the likeliest one, and a short one."""
    return Sampling(temperature=0.0, max_tokens=EXTRACTION_TOKENS + _thought_tokens(experiment, template))


def writing_sampling(experiment: Experiment, template: ChatTemplate, write: Writer) -> Sampling:
    """How a background is sampled."""
    room = write.max_tokens + _thought_tokens(experiment, template)
    return Sampling(temperature=write.temperature, max_tokens=room)


def _thought_tokens(experiment: Experiment, template: ChatTemplate) -> int:
    """The room for a thought before a short reply: as much as any reply may take; 0 where a model does not think."""
    groups = [group for group in experiment.population if isinstance(group, LLMGroup)]
    return max(group.sampling.max_tokens for group in groups) if template.reasoning.parser else 0


def check_room(experiment: Experiment, template: ChatTemplate, groups: Sequence[LongestTraits], context: int) -> None:
    """Refuses prompts that leave no room for a reply in a context of so many tokens.

    Raises:
        ConfigError: naming the group, its model, and the tokens it takes.
    """
    for longest in groups:
        group, needed = longest[0], first_prompt_tokens(experiment, template, longest)
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
    longest = {
        "target": _longest_number(game.offset + game.p * game.low, game.offset + game.p * game.high),
        "group_numbers": ", ".join(f"{other.name} {widest}" for other in experiment.population),
        "own_rank": str(experiment.session_size),
    }
    quantities = {str(quantity): longest.get(quantity, widest) for quantity in experiment.announced_to(group)}
    optional = [name for name in ("winning_guess", "own_rank") if name in quantities]
    missing = [names for many in range(len(optional) + 1) for names in combinations(optional, many)]
    rounds = [(0, {}), *((game.rounds, quantities | dict.fromkeys(names, "")) for names in missing)]
    variables = population_variables(experiment) | {"group": group.name}
    own = experiment.prompts
    return max(
        (prompts.user_message(group.user_prompt, index, variables, announced, own) for index, announced in rounds),
        key=len,
    )


def _longest_number(*ends: float) -> str:
    """The longest text of a number between these, or of about their size."""
    return max((number_text(math.trunc(end) + math.copysign(0.99, end)) for end in ends), key=len)
