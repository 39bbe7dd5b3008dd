"""The conversations of the language models of a block, as token ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty.game import prompts
from pbeauty.game.announcement import Announcement
from pbeauty.game.experiment import Experiment, LLMGroup
from pbeauty.game.extraction import number_pattern
from pbeauty.game.personas import Personas
from pbeauty.game.population import Segment
from pbeauty.game.prompt_variables import number_text, population_variables
from pbeauty.game.randomness import seeds
from pbeauty.game.records import Ragged
from pbeauty.llm.context_size import check_room, extraction_sampling, longest_traits
from pbeauty.llm.engine import Engine
from pbeauty.storage.replies import read_answers
from pbeauty.storage.schema import StoredFile


class TokenCache:
    """Token ids that are made when they are first asked for, by number, as rows of a flat array."""

    def __init__(self, size: int) -> None:
        """Room for numbers below `size`."""
        self._tokens = Ragged(np.int32)
        self._row = np.full(size, -1, np.int64)
        self._latest: tuple[int, list[int]] = -1, []
        """What was asked for last: neighbours are often told the same."""

    def get(self, number: int, make: Callable[[], list[int]]) -> list[int]:
        """The token ids of `number`, not to be altered."""
        if number != self._latest[0]:
            if self._row[number] < 0:
                self._row[number] = self._tokens.append(make())
            self._latest = number, self._tokens[int(self._row[number])].tolist()
        return self._latest[1]


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests of a round. Participants who are told the same have the same one, whose token ids are made once."""

    announcement: Announcement
    number: NDArray[np.int64]
    """int64[slot]: equal where the request is."""
    turns: TokenCache
    """Token ids where a request follows a reply."""
    openings: TokenCache
    """Token ids where a conversation begins with a request, after the system prompt of its group."""


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """A group at this engine: its settings in the forms that every request needs."""

    group: LLMGroup
    system: str | None
    """None where participants have system prompts of their own."""
    params: Any
    """vLLM's sampling parameters."""
    room: int
    """Prompt tokens that leave room for a reply of `max_tokens` in the context."""


class LLMParticipants:
    """The language models that one rank hosts, all at one engine.

    A conversation is kept once, as token ids: the requests of a round by what is told, and every participant's reply. A
    slot is a participant's number among those of this object.
    """

    def __init__(
        self, experiment: Experiment, segment: Segment, engine: Engine, personas: Personas | None = None
    ) -> None:
        """Begins the conversations of the participants of `segment`, all of the engine's model.

        Their attributes and backgrounds are `personas`, by slot; None where nobody has any.

        Raises:
            ConfigError: if a group's prompts leave no room for a reply in the model's context.
        """
        self.experiment = experiment
        self.engine = engine
        self.template = engine.template
        self.variables = population_variables(experiment)
        self.extraction_sampling = extraction_sampling(experiment, engine.template)
        self.extraction_params = engine.sampling_params(self.extraction_sampling)
        self.ids = segment.ids()
        self.group_of = segment.group_of()
        self.session_of = self.ids // experiment.session_size
        self._group_settings = {
            index: self._settings_of(experiment.population[index]) for index in np.unique(self.group_of).tolist()
        }
        self.set_personas(personas)
        self._requests: list[Requests] = []  # per round
        self._replies: list[Ragged] = []  # per finished round, by slot: what `_kept` leaves of a reply
        longest = longest_traits(experiment, self.group_of, personas)
        check_room(experiment, engine.template, longest, engine.max_model_len)

    def set_personas(self, personas: Personas | None) -> None:
        """Who the participants are, before any round: `personas` by slot."""
        self.personas = personas
        self._person = np.zeros(len(self.ids), np.int64)
        if personas is not None:
            pairs = np.column_stack([self.group_of, personas.kinds()])
            self._person = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
        self._openings = TokenCache(int(self._person.max(initial=0)) + 1)

    def set_backgrounds(self, participants: Sequence[int], texts: Ragged, sources: Sequence[int]) -> None:
        """Gives participants backgrounds of their own: to the r-th of these ids row r of `texts`."""
        if self.personas:
            self.personas.set_backgrounds(np.searchsorted(self.ids, participants), texts, sources)
            self.set_personas(self.personas)

    def add_user_turn(self, announcement: Announcement) -> None:
        """Adds the request of a round, with what is announced, to the conversations."""
        del self._requests[announcement.round_index :]
        told = self.group_of.astype(np.int64)  # a number for all that differs in what they are told
        if announcement.round_index:
            told += self.session_of * len(self.experiment.population)
        if announcement.ranks is not None:
            groups = self.experiment.population
            with_rank = ["own_rank" in self.experiment.announced_to(group) for group in groups]
            ranks = np.where(np.array(with_rank)[self.group_of], announcement.ranks[self.ids], 0).astype(np.int64)
            told = told * (int(ranks.max(initial=0)) + 1) + ranks
        different, number = np.unique(told, return_inverse=True)
        caches = TokenCache(len(different)), TokenCache(len(different))
        self._requests.append(Requests(announcement, number, *caches))

    def add_reply(self, tokens: Ragged, rows: NDArray[np.int64]) -> None:
        """Adds everybody's reply to the latest request: row `rows[slot]` of `tokens`."""
        del self._replies[len(self._requests) - 1 :]
        self._replies.append(self._kept(Ragged.of(*tokens.take(rows))))

    def notes(self) -> list[str]:
        """What a person should know about the engine, and about how conversations are held with its model."""
        group = next(iter(self._group_settings.values())).group
        return [f"model {group.model}: {note}" for note in [*self.engine.notes, *self.template.notes()]]

    def restore(
        self, folder: Path, announcements: Sequence[Announcement], reply_files: Sequence[Sequence[StoredFile]]
    ) -> None:
        """Takes the conversations of finished rounds up again: what was announced in them, and their files of replies.

        Raises:
            RunFileError: if replies are missing or damaged.
        """
        for announcement, files in zip(announcements, reply_files, strict=False):
            self.add_user_turn(announcement)
            replies = read_answers(folder, files, self.ids, announcement.plays(self.session_of))
            self._replies.append(self._kept(replies))

    def group_settings(self, slot: int) -> GroupSettings:
        """The settings of the participant at `slot`."""
        return self._group_settings[int(self.group_of[slot])]

    def seeds(self, round_index: int) -> list[int] | list[None]:
        """The seed of each slot's first call in a round; None for all where the engine draws."""
        if self.experiment.seeding == "engine":
            return [None] * len(self.ids)
        return seeds(self.experiment.seed, "reply", round_index, self.ids).tolist()

    def seed(self, stream: str, round_index: int, slot: int) -> int | None:
        """The seed of another call; None where the engine draws."""
        if self.experiment.seeding == "engine":
            return None
        return int(seeds(self.experiment.seed, stream, round_index, self.ids[slot : slot + 1])[0])

    def prompt(
        self, slot: int, extra: Sequence[tuple[list[int], str]] = (), round_index: int | None = None
    ) -> tuple[list[int], int]:
        """The conversation of the participant at `slot`: token ids, and how many rounds it lacks.

        Where the conversation has outgrown the model's context it lacks its oldest rounds: the rules stay, and
        it begins with a later round.

        Args:
            slot: whose.
            extra: exchanges of the round that could not be read: the reply's token ids, and the request that followed.
            round_index: up to the request of this round; by default the latest.
        """
        begin = len(self._requests) - 1 if round_index is None else round_index
        room = self.group_settings(slot).room
        if not self.template.is_append_only:
            return self._rendered(slot, begin, room, extra)
        pieces = [  # the conversation's end first
            token_ids
            for tokens, text in reversed(extra)
            for token_ids in (self.template.turn(text), self.template.reasoning.answer_tokens(tokens))
        ]
        room -= sum(map(len, pieces))
        first = self._opening(0, slot)
        while begin > 0:
            exchange = self._turn(begin, slot), self._reply(begin - 1, slot)
            room -= len(exchange[0]) + len(exchange[1])
            # To begin with a later round takes less than the first opening and that round's turn together. Both are
            # there already, where the opening would have to be made, for one session after the other.
            most = len(first) + (len(self._turn(begin - 1, slot)) if begin > 1 else 0)
            if most > room and len(self._opening(begin - 1, slot)) > room:
                break
            pieces += exchange
            begin -= 1
        opening = self._opening(begin, slot) if begin else first
        return list(chain(opening, *reversed(pieces))), begin

    def messages(self, slot: int, round_index: int) -> list[dict[str, str]]:
        """The conversation of the participant at `slot` up to the request of a round, as chat messages."""
        replies = self.engine.decode([self._reply(earlier, slot) for earlier in range(round_index)])
        requests = [self._text(r, slot) for r in range(round_index + 1)]
        messages = [{"role": "system", "content": self.system(slot)}]
        for user, text in zip(requests, replies, strict=False):
            messages += [{"role": "user", "content": user}, {"role": "assistant", "content": text}]
        return [*messages, {"role": "user", "content": requests[-1]}]

    def system(self, slot: int) -> str:
        """The system prompt of the participant at `slot`."""
        settings = self.group_settings(slot)
        if settings.system is not None:
            return settings.system
        return self._system_message(settings.group, self.personas.traits(slot) if self.personas else {})

    def _system_message(self, group: LLMGroup, traits: Mapping[str, str]) -> str:
        variables = {**self.variables, "group": group.name, **traits}
        return prompts.system_message(group.system_prompt, variables, self.experiment.prompts)

    def _text(self, round_index: int, slot: int) -> str:
        """The request of a round to the participant at `slot`."""
        group = self.group_settings(slot).group
        variables = {**self.variables, "group": group.name}
        announced = self._announced(round_index, slot)
        return prompts.user_message(group.user_prompt, round_index, variables, announced, self.experiment.prompts)

    def _announced(self, round_index: int, slot: int) -> dict[str, str]:
        """What the participant at `slot` is told of the round before, in words; empty where there is no such number."""
        announcement, session = self._requests[round_index].announcement, int(self.session_of[slot])
        told: dict[str, str] = {}
        for name in self.experiment.announced_to(self.group_settings(slot).group) if round_index else ():
            if name == "own_rank" and announcement.ranks is not None:
                told[name] = str(announcement.ranks[self.ids[slot]] or "")
            elif name == "group_numbers" and announcement.group_numbers is not None:
                numbers = zip(self.experiment.population, announcement.group_numbers[session].tolist(), strict=True)
                told[name] = ", ".join(f"{group.name} {_number_text(number) or 'none'}" for group, number in numbers)
            elif name in announcement.quantities:
                told[name] = _number_text(float(announcement.quantities[name][session]))
        return told

    def _opening(self, round_index: int, slot: int) -> list[int]:
        """Token ids of a conversation that begins with a round."""
        requests = self._requests[round_index]

        def make() -> list[int]:
            return self.template.opening(self.system(slot), self._text(round_index, slot))

        if self.group_settings(slot).system is not None:
            return requests.openings.get(int(requests.number[slot]), make)
        return make() if round_index else self._openings.get(int(self._person[slot]), make)

    def _turn(self, round_index: int, slot: int) -> list[int]:
        """Token ids that follow the participant's reply to the round before."""
        requests = self._requests[round_index]
        return requests.turns.get(
            int(requests.number[slot]), lambda: self.template.uncached_turn(self._text(round_index, slot))
        )

    def _rendered(
        self, slot: int, last: int, room: int, extra: Sequence[tuple[list[int], str]]
    ) -> tuple[list[int], int]:
        """As `prompt`, up to the request of round `last`, for templates that rewrite earlier turns."""
        replies = [self._reply(round_index, slot) for round_index in range(last)]
        replies += [tokens for tokens, _ in extra]
        requests = [self._text(earlier, slot) for earlier in range(last + 1)]
        requests += [text for _, text in extra]
        system = self.system(slot)
        begin, prompt = 0, self.template.whole(system, requests, replies)
        while len(prompt) > room and begin < last:
            begin += 1
            prompt = self.template.whole(system, requests[begin:], replies[begin:])
        return prompt, begin

    def _reply(self, round_index: int, slot: int) -> list[int]:
        return self._replies[round_index][slot].tolist()

    def _kept(self, replies: Ragged) -> Ragged:
        """What conversations go on from: answers without thoughts, but whole replies where templates render them."""
        reasoning = self.template.reasoning
        if not (reasoning.parser and self.template.is_append_only):
            return replies
        answers = Ragged(np.int32)
        for slot in range(len(replies)):
            answers.append(reasoning.answer_tokens(replies[slot].tolist()))
        return answers

    def _settings_of(self, group: Any) -> GroupSettings:
        system = None if group.personas else self._system_message(group, {})
        game = self.experiment.game
        guided = number_pattern(game.low, game.high) if group.guided else None
        params = self.engine.sampling_params(group.sampling, guided)
        return GroupSettings(group, system, params, self.engine.max_model_len - group.sampling.max_tokens)


def _number_text(value: float) -> str:
    """A number as it is announced; empty for NaN."""
    return "" if np.isnan(value) else number_text(value)
