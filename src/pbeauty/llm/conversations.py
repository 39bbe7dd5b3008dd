"""The language models of a block: what each has heard and said, as token ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty.errors import ConfigError
from pbeauty.game import prompts
from pbeauty.game.announcement import Announcement
from pbeauty.game.experiment import Experiment, LLMGroup, Sampling
from pbeauty.game.extraction import number_pattern
from pbeauty.game.personas import Personas
from pbeauty.game.prompt_variables import number_text, population_variables
from pbeauty.game.randomness import seeds
from pbeauty.game.records import Ragged
from pbeauty.llm.chat_template import Conversation
from pbeauty.llm.engine import Engine
from pbeauty.mpi.partition import Segment
from pbeauty.storage.replies import AnswerPositions, PendingReplies, StoredReplies, stored_replies
from pbeauty.storage.schema import StoredFile

EXTRACTION_SAMPLING = Sampling(temperature=0.0, max_tokens=16)
"""Reading is not playing: the likeliest answer, and a short one."""


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
class Message:
    """What a group is told in one round; what its participants are told one by one is rendered when it is needed."""

    text: str
    """Of an announcement with own ranks: that of somebody whose guess was none."""
    opening: list[int]
    """Token ids where a conversation begins with it: the system prompt comes first. Empty where those differ."""
    turn: list[int]
    """Token ids where it follows a reply."""
    told: dict[str, str]
    """The text of each announced quantity."""
    turns: TokenCache | None
    """By own rank, where those are told."""


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """A group at this engine: its settings in the forms that every request needs."""

    group: LLMGroup
    system: str | None
    """None where every participant has one of its own."""
    params: Any
    """vLLM's sampling parameters."""
    room: int
    """Prompt tokens that leave room for a reply of `max_tokens` in the context."""


class LLMParticipants:
    """The language models that one rank hosts, all at one engine.

    A conversation is stored once: what a group was told per round as token ids, what a participant said in the files
    of stored replies, from which it is read again as it is needed. A slot is a participant's number among those of
    this object.
    """

    def __init__(
        self, experiment: Experiment, segments: Sequence[Segment], engine: Engine, personas: Personas | None = None
    ) -> None:
        """Seats the participants of `segments`, all of one model, at `engine`.

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
        self.conversation = Conversation(engine.tokenizer)
        self.variables = population_variables(experiment)
        self._rank_range = (len(experiment.population) if experiment.game.players == "groups" else experiment.count) + 1
        self.extraction_params = engine.sampling_params(EXTRACTION_SAMPLING)
        self.ids = np.concatenate([np.arange(s.start, s.stop) for s in segments])
        self.group_of = np.concatenate([np.full(len(s), s.group, np.uint16) for s in segments])
        self._segments = segments
        self._group_settings = {s.group: self._settings_of(experiment.population[s.group]) for s in segments}
        self.set_personas(personas)
        self._told: list[dict[int, Message]] = []  # per round, by group
        self._ranks: list[NDArray[np.int32] | None] = []  # per round, by slot
        self._said: list[PendingReplies | StoredReplies] = []  # per finished round
        self._check_room()

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
        """Adds what each group is told in this round to the conversations."""
        round_index = announcement.round_index
        told = {
            quantity: "" if np.isnan(value) else number_text(value)
            for quantity, value in announcement.quantities.items()
        }
        if announcement.group_numbers:
            told["group_numbers"] = ", ".join(
                f"{name} {'none' if np.isnan(number) else number_text(number)}"
                for name, number in announcement.group_numbers.items()
            )
        if announcement.ranks is not None:
            told["own_rank"] = ""
        order = [quantity for quantity in self.experiment.game.announce if quantity in told]
        told = {quantity: told[quantity] for quantity in dict.fromkeys([*order, *told])}
        del self._told[round_index:], self._ranks[round_index:]
        self._ranks.append(None if announcement.ranks is None else announcement.ranks[self.ids])
        self._told.append(
            {index: self._message(settings, round_index, told) for index, settings in self._group_settings.items()}
        )

    def add_reply(self, tokens: Ragged, rows: NDArray[np.int64]) -> None:
        """Adds what everybody said in the round that was last told: row `rows[slot]` of `tokens`."""
        del self._said[len(self._told) - 1 :]
        self._said.append(PendingReplies(tokens, rows))

    def attach_stored(self, positions: Sequence[AnswerPositions]) -> None:
        """What was said in the round that was last told lies in files now, and is read from there."""
        self._said[-1] = StoredReplies(positions, self.ids)

    def notes(self) -> list[str]:
        """What a person should know about how conversations are held with this model."""
        group = next(iter(self._group_settings.values())).group
        return [f"model {group.model}: {note}" for note in self.conversation.notes()]

    def restore(
        self, folder: Path, announcements: Sequence[Announcement], reply_files: Sequence[Sequence[StoredFile]]
    ) -> None:
        """Takes the conversations of finished rounds up again.

        Args:
            folder: the run's.
            announcements: of these rounds, and perhaps of the one that follows.
            reply_files: by round, its files of replies.

        Raises:
            ConfigError: if replies are missing or damaged.
        """
        for told, files in zip(announcements, reply_files, strict=False):
            self.add_user_turn(told)
            self._said.append(stored_replies(folder, files, self.ids))

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
        self, slot: int, extra: Sequence[tuple[Sequence[int], str]] = (), round_index: int | None = None
    ) -> tuple[list[int], int]:
        """The conversation of the participant at `slot`: token ids, and how many rounds it lacks.

        Where the conversation has outgrown the model's context it lacks its oldest rounds: the rules stay, and
        it begins with a later round.

        Args:
            slot: whose.
            extra: exchanges of the round that could not be read: the reply, and what was asked then.
            round_index: up to the request of this round; by default the last that was told.
        """
        group = int(self.group_of[slot])
        told = [messages[group] for messages in self._told[: None if round_index is None else round_index + 1]]
        settings = self.group_settings(slot)
        if not self.conversation.is_append_only:
            return self._rendered(slot, settings, told, extra)
        tail = [token for tokens, text in extra for token in [*tokens, *self.conversation.turn(text)]]
        begin = len(told) - 1
        while begin > 0:
            longer = self._reply(begin - 1, slot) + self._turn(begin, slot, told[begin]) + tail
            if len(self._opening(begin - 1, slot, told[begin - 1])) + len(longer) > settings.room:
                break
            begin, tail = begin - 1, longer
        return self._opening(begin, slot, told[begin]) + tail, begin

    def messages(self, slot: int, round_index: int) -> list[dict[str, str]]:
        """The conversation of the participant at `slot` up to the request of a round, as chat messages."""
        group = int(self.group_of[slot])
        said = self.engine.decode([self._reply(earlier, slot) for earlier in range(round_index)])
        asked = [self._text(earlier, slot, self._told[earlier][group]) for earlier in range(round_index + 1)]
        messages = [{"role": "system", "content": self.system(slot)}]
        for user, text in zip(asked, said, strict=False):
            messages += [{"role": "user", "content": user}, {"role": "assistant", "content": text}]
        return [*messages, {"role": "user", "content": asked[-1]}]

    def system(self, slot: int) -> str:
        """The system prompt of the participant at `slot`."""
        settings = self.group_settings(slot)
        if settings.system is not None:
            return settings.system
        traits = self.personas.traits(slot) if self.personas else {}
        return self._system_message(settings.group, traits)

    def _system_message(self, group: LLMGroup, traits: Mapping[str, str]) -> str:
        own = self.experiment.prompts.system
        return prompts.system_message(group.system_prompt, {**self.variables, **traits}, own)

    def _text(self, round_index: int, slot: int, message: Message) -> str:
        """What the participant at `slot` is told in a round."""
        places = self._ranks[round_index]
        if places is None or not places[slot]:
            return message.text
        told = message.told | {"own_rank": str(places[slot])}
        return self._user(self.group_settings(slot).group, round_index, told)

    def _opening(self, round_index: int, slot: int, message: Message) -> list[int]:
        """Token ids of a conversation that begins with a round."""
        if message.opening and self._ranks[round_index] is None:
            return message.opening
        if round_index == 0:
            return self._openings.get(
                int(self._person[slot]), lambda: self.conversation.opening_of_one(self.system(slot), message.text)
            )
        return self.conversation.opening_of_one(self.system(slot), self._text(round_index, slot, message))

    def _turn(self, round_index: int, slot: int, message: Message) -> list[int]:
        """Token ids that follow the participant's reply to the round before."""
        places = self._ranks[round_index]
        if places is None or message.turns is None:
            return message.turn
        return message.turns.get(
            int(places[slot]), lambda: self.conversation.turn_of_one(self._text(round_index, slot, message))
        )

    def _rendered(
        self, slot: int, settings: GroupSettings, told: list[Message], extra: Sequence[tuple[Sequence[int], str]]
    ) -> tuple[list[int], int]:
        """As `prompt`, for templates whose conversations do not extend."""
        said = [self._reply(round_index, slot) for round_index in range(len(told) - 1)]
        said += [list(tokens) for tokens, _ in extra]
        asked = [self._text(earlier, slot, message) for earlier, message in enumerate(told)]
        asked += [text for _, text in extra]
        system = self.system(slot)
        for begin in range(len(told)):
            prompt = self.conversation.whole(system, asked[begin:], said[begin:])
            if len(prompt) <= settings.room or begin == len(told) - 1:
                return prompt, begin
        raise AssertionError("a round is always told something")

    def _reply(self, round_index: int, slot: int) -> list[int]:
        return self._said[round_index][slot].tolist()

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

    def _message(self, settings: GroupSettings, round_index: int, told: dict[str, str]) -> Message:
        user = self._user(settings.group, round_index, told)
        opening = [] if settings.system is None else self.conversation.opening(settings.system, user)
        turns = TokenCache(self._rank_range) if "own_rank" in told else None
        return Message(user, opening, self.conversation.turn(user), told, turns)

    def _user(self, group: LLMGroup, round_index: int, told: Mapping[str, str]) -> str:
        own = self.experiment.prompts.user
        return prompts.user_message(group.user_prompt, round_index, self.variables, told, own)

    def _check_room(self) -> None:
        """Refuses prompts that leave no room for a reply, as far as they are known: at their longest."""
        widest = number_text(self.experiment.game.high - 0.01)
        names = [f"{group.name} {widest}" for group in self.experiment.population]
        longest = {"group_numbers": ", ".join(names), "own_rank": str(self.experiment.count)}
        told = {str(quantity): longest.get(quantity, widest) for quantity in self.experiment.game.announce}
        for index, settings in self._group_settings.items():
            user = self._user(settings.group, self.experiment.game.rounds, told)
            system, more = settings.system, 0
            if system is None:
                traits, more = self._longest_traits(index, settings.group)
                system = self._system_message(settings.group, traits)
            needed = len(self.conversation.opening_of_one(system, user)) + more
            if needed > settings.room:
                raise ConfigError(
                    f"group {settings.group.name}: its prompt ({needed} tokens) and reply (max_tokens "
                    f"{settings.group.sampling.max_tokens}) do not fit the context of model {settings.group.model} "
                    f"({self.engine.max_model_len} tokens); shorten one or raise max_model_len"
                )

    def _longest_traits(self, index: int, group: LLMGroup) -> tuple[dict[str, str], int]:
        """The traits of the member with most to say about it, and the tokens that a model may still write."""
        members = np.flatnonzero(self.group_of == index)
        personas = self.personas
        assert personas is not None  # this group has some
        if group.personas and group.personas.write:
            return personas.attributes(int(members[0])) | {"background": ""}, group.personas.write.max_tokens
        rows = personas.row[members]
        longest = (
            members[int(np.argmax(np.where(rows < 0, 0, personas.texts.lengths()[rows])))] if len(personas.texts) else 0
        )
        return personas.traits(int(longest if len(personas.texts) else members[0])), 0
