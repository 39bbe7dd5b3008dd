"""The conversations of the language models of a block, as token ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty.game import prompts
from pbeauty.game.announcement import Announcement
from pbeauty.game.experiment import Experiment, LLMGroup
from pbeauty.game.extraction import number_pattern
from pbeauty.game.personas import Personas
from pbeauty.game.prompt_variables import number_text, population_variables
from pbeauty.game.randomness import seeds
from pbeauty.game.records import Ragged
from pbeauty.llm.context_size import check_room, extraction_sampling, longest_traits
from pbeauty.llm.engine import Engine
from pbeauty.mpi.partition import Segment, groups_of, ids
from pbeauty.storage.replies import AnswerPositions, PendingReplies, StoredReplies, stored_replies
from pbeauty.storage.schema import StoredFile


class TokenCache:
    """Token ids that are made when they are first asked for, by number, as rows of a flat array."""

    def __init__(self, size: int) -> None:
        """Room for numbers below `size`."""
        self._tokens = Ragged(np.int32)
        self._row = np.full(size, -1, np.int64)

    def get(self, number: int, make: Callable[[], list[int]]) -> list[int]:
        """The token ids of `number`."""
        if self._row[number] < 0:
            self._row[number] = self._tokens.append(np.array(made := make(), np.int32))
            return made
        return self._tokens[int(self._row[number])].tolist()


@dataclass(frozen=True, slots=True)
class UserTurn:
    """The request to a group in one round; what differs from participant to participant is rendered as needed."""

    text: str
    """Where own ranks are announced, that for a participant without one."""
    opening: list[int]
    """Token ids where a conversation begins with it, after the system prompt; empty where system prompts differ."""
    turn: list[int]
    """Token ids where it follows a reply."""
    quantities: dict[str, str]
    """The text of each announced quantity."""
    by_rank: TokenCache | None
    """Token ids where it follows a reply, by own rank; None where ranks are not announced."""


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

    A conversation is stored once: the requests to a group by round as token ids, a participant's replies in the files
    of stored replies, from which they are read again as needed. A slot is a participant's number among those of this
    object.
    """

    def __init__(
        self, experiment: Experiment, segments: Sequence[Segment], engine: Engine, personas: Personas | None = None
    ) -> None:
        """Begins the conversations of the participants of `segments`, all of one model.

        Args:
            experiment: the whole experiment.
            segments: in id order.
            engine: of their model.
            personas: their attributes and backgrounds, by slot; None where nobody has any.

        Raises:
            ConfigError: if a group's prompts leave no room for a reply in the model's context.
        """
        self.experiment = experiment
        self.engine = engine
        self.template = engine.template
        self.variables = population_variables(experiment)
        self._rank_range = (len(experiment.population) if experiment.game.players == "groups" else experiment.count) + 1
        self.extraction_sampling = extraction_sampling(experiment, engine.template)
        self.extraction_params = engine.sampling_params(self.extraction_sampling)
        self.ids = ids(segments)
        self.group_of = groups_of(segments)
        self._segments = segments
        self._group_settings = {s.group: self._settings_of(experiment.population[s.group]) for s in segments}
        self.set_personas(personas)
        self._user_turns: list[dict[int, UserTurn]] = []  # per round, by group
        self._ranks: list[NDArray[np.int32] | None] = []  # per round, by slot
        self._replies: list[PendingReplies | StoredReplies] = []  # per finished round
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
        round_index = announcement.round_index
        announced = {
            quantity: "" if np.isnan(value) else number_text(value)
            for quantity, value in announcement.quantities.items()
        }
        if announcement.group_numbers:
            announced["group_numbers"] = ", ".join(
                f"{name} {'none' if np.isnan(number) else number_text(number)}"
                for name, number in announcement.group_numbers.items()
            )
        if announcement.ranks is not None:
            announced["own_rank"] = ""
        order = [quantity for quantity in self.experiment.game.announce if quantity in announced]
        quantities = {quantity: announced[quantity] for quantity in dict.fromkeys([*order, *announced])}
        del self._user_turns[round_index:], self._ranks[round_index:]
        self._ranks.append(None if announcement.ranks is None else announcement.ranks[self.ids])
        self._user_turns.append(
            {i: self._user_turn(settings, round_index, quantities) for i, settings in self._group_settings.items()}
        )

    def add_reply(self, tokens: Ragged, rows: NDArray[np.int64]) -> None:
        """Adds everybody's reply to the latest request: row `rows[slot]` of `tokens`."""
        del self._replies[len(self._user_turns) - 1 :]
        self._replies.append(PendingReplies(tokens, rows))

    def attach_stored(self, positions: Sequence[AnswerPositions]) -> None:
        """Has the replies to the latest request read from the files where they are stored now."""
        self._replies[-1] = StoredReplies(positions, self.ids)

    def notes(self) -> list[str]:
        """What a person should know about the engine, and about how conversations are held with its model."""
        group = next(iter(self._group_settings.values())).group
        return [f"model {group.model}: {note}" for note in [*self.engine.notes, *self.template.notes()]]

    def restore(
        self, folder: Path, announcements: Sequence[Announcement], reply_files: Sequence[Sequence[StoredFile]]
    ) -> None:
        """Takes the conversations of finished rounds up again.

        Args:
            folder: the run's.
            announcements: of these rounds, and perhaps of the one that follows.
            reply_files: by round, its files of replies.

        Raises:
            RunFileError: if replies are missing or damaged.
        """
        for announcement, files in zip(announcements, reply_files, strict=False):
            self.add_user_turn(announcement)
            self._replies.append(stored_replies(folder, files, self.ids))

    def group_settings(self, slot: int) -> GroupSettings:
        """The settings of the participant at `slot`."""
        return self._group_settings[int(self.group_of[slot])]

    def seeds(self, round_index: int) -> NDArray[np.int64] | list[None]:
        """The seed of each slot's first call in a round, int64[slot]; None for all where the engine draws."""
        if self.experiment.seeding == "engine":
            return [None] * len(self.ids)
        seed = self.experiment.seed
        return np.concatenate([seeds(seed, "reply", round_index, s.start, s.stop) for s in self._segments])

    def prompt(
        self, slot: int, extra: Sequence[tuple[list[int], str]] = (), round_index: int | None = None
    ) -> tuple[list[int], int]:
        """The conversation of the participant at `slot`: token ids, and how many rounds it lacks.

        Where the conversation has outgrown the model's context it lacks its oldest rounds: the rules stay, and
        it begins with a later round.

        Args:
            slot: whose.
            extra: exchanges of the round that could not be read: the reply, and the request that followed.
            round_index: up to the request of this round; by default the latest.
        """
        turns = [by_group[int(self.group_of[slot])] for by_group in self._user_turns]
        turns = turns if round_index is None else turns[: round_index + 1]
        settings = self.group_settings(slot)
        if not self.template.is_append_only:
            return self._rendered(slot, settings, turns, extra)
        tail = [
            token
            for tokens, text in extra
            for token in [*self.template.reasoning.answer_tokens(tokens), *self.template.turn(text)]
        ]
        begin = len(turns) - 1
        while begin > 0:
            longer = self._answer(begin - 1, slot) + self._turn(begin, slot, turns[begin]) + tail
            if len(self._opening(begin - 1, slot, turns[begin - 1])) + len(longer) > settings.room:
                break
            begin, tail = begin - 1, longer
        return self._opening(begin, slot, turns[begin]) + tail, begin

    def messages(self, slot: int, round_index: int) -> list[dict[str, str]]:
        """The conversation of the participant at `slot` up to the request of a round, as chat messages."""
        group = int(self.group_of[slot])
        replies = self.engine.decode([self._answer(earlier, slot) for earlier in range(round_index)])
        requests = [self._text(r, slot, self._user_turns[r][group]) for r in range(round_index + 1)]
        messages = [{"role": "system", "content": self.system(slot)}]
        for user, text in zip(requests, replies, strict=False):
            messages += [{"role": "user", "content": user}, {"role": "assistant", "content": text}]
        return [*messages, {"role": "user", "content": requests[-1]}]

    def system(self, slot: int) -> str:
        """The system prompt of the participant at `slot`."""
        settings = self.group_settings(slot)
        if settings.system is not None:
            return settings.system
        traits = self.personas.traits(slot) if self.personas else {}
        return self._system_message(settings.group, traits)

    def _system_message(self, group: LLMGroup, traits: Mapping[str, str]) -> str:
        variables = {**self.variables, "group": group.name, **traits}
        return prompts.system_message(group.system_prompt, variables, self.experiment.prompts)

    def _text(self, round_index: int, slot: int, turn: UserTurn) -> str:
        """The request of a round to the participant at `slot`."""
        ranks = self._ranks[round_index]
        if ranks is None or not ranks[slot]:
            return turn.text
        quantities = turn.quantities | {"own_rank": str(ranks[slot])}
        return self._user_message(self.group_settings(slot).group, round_index, quantities)

    def _opening(self, round_index: int, slot: int, turn: UserTurn) -> list[int]:
        """Token ids of a conversation that begins with a round."""
        if turn.opening and self._ranks[round_index] is None:
            return turn.opening
        if round_index == 0:
            return self._openings.get(
                int(self._person[slot]), lambda: self.template.uncached_opening(self.system(slot), turn.text)
            )
        return self.template.uncached_opening(self.system(slot), self._text(round_index, slot, turn))

    def _turn(self, round_index: int, slot: int, turn: UserTurn) -> list[int]:
        """Token ids that follow the participant's reply to the round before."""
        ranks = self._ranks[round_index]
        if ranks is None or turn.by_rank is None:
            return turn.turn
        return turn.by_rank.get(
            int(ranks[slot]), lambda: self.template.uncached_turn(self._text(round_index, slot, turn))
        )

    def _rendered(
        self, slot: int, settings: GroupSettings, turns: list[UserTurn], extra: Sequence[tuple[list[int], str]]
    ) -> tuple[list[int], int]:
        """As `prompt`, for templates that rewrite earlier turns."""
        replies = [self._reply(round_index, slot) for round_index in range(len(turns) - 1)]
        replies += [tokens for tokens, _ in extra]
        requests = [self._text(earlier, slot, turn) for earlier, turn in enumerate(turns)]
        requests += [text for _, text in extra]
        system = self.system(slot)
        for begin in range(len(turns)):
            prompt = self.template.whole(system, requests[begin:], replies[begin:])
            if len(prompt) <= settings.room or begin == len(turns) - 1:
                return prompt, begin
        raise AssertionError("a conversation has at least one request")

    def _reply(self, round_index: int, slot: int) -> list[int]:
        return self._replies[round_index][slot].tolist()

    def _answer(self, round_index: int, slot: int) -> list[int]:
        """What of a reply the conversation goes on from."""
        return self.template.reasoning.answer_tokens(self._reply(round_index, slot))

    def _settings_of(self, group: Any) -> GroupSettings:
        game = self.experiment.game
        return GroupSettings(
            group=group,
            system=None if group.personas else self._system_message(group, {}),
            params=self.engine.sampling_params(
                group.sampling, number_pattern(game.low, game.high) if group.guided else None
            ),
            room=self.engine.max_model_len - group.sampling.max_tokens,
        )

    def _user_turn(self, settings: GroupSettings, round_index: int, quantities: dict[str, str]) -> UserTurn:
        text = self._user_message(settings.group, round_index, quantities)
        opening = [] if settings.system is None else self.template.opening(settings.system, text)
        by_rank = TokenCache(self._rank_range) if "own_rank" in quantities else None
        return UserTurn(text, opening, self.template.turn(text), quantities, by_rank)

    def _user_message(self, group: LLMGroup, round_index: int, quantities: Mapping[str, str]) -> str:
        variables = {**self.variables, "group": group.name}
        return prompts.user_message(group.user_prompt, round_index, variables, quantities, self.experiment.prompts)
