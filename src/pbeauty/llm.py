"""The language models of a block: what each has heard and said, as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pbeauty import prompts
from pbeauty.config import ConfigError, Experiment, LLMGroup, Sampling
from pbeauty.conversation import Conversation
from pbeauty.engine import Engine
from pbeauty.game import announced, facts, number_text
from pbeauty.partition import Segment
from pbeauty.ragged import Ragged
from pbeauty.randomness import seeds
from pbeauty.records import Announcement
from pbeauty.results import Run

EXTRACTION_SAMPLING = Sampling(temperature=0.0, max_tokens=16)
"""Reading is not playing: the likeliest answer, and a short one."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a group is told in one round."""

    text: str
    opening: list[int]
    """Token ids where a conversation begins with it: the system prompt comes first."""
    turn: list[int]
    """Token ids where it follows a reply."""


@dataclass(frozen=True, slots=True)
class Seating:
    """A group at this engine: its settings in the forms that every request needs."""

    group: LLMGroup
    system: str
    params: Any
    """vLLM's sampling parameters."""
    room: int
    """Prompt tokens that leave room for a reply of `max_tokens` in the context."""


class LLMParticipants:
    """The language models that one rank hosts, all at one engine.

    A conversation is stored once: what a group was told per round as token ids, what a participant said as a row
    of a flat array. A seat is a participant's number among those of this object.
    """

    def __init__(self, experiment: Experiment, segments: Sequence[Segment], engine: Engine) -> None:
        """Seats the participants of `segments`, all of one model, at `engine`.

        Raises:
            ConfigError: if a group's prompts leave no room for a reply in the model's context.
        """
        self.experiment = experiment
        self.engine = engine
        self.conversation = Conversation(engine.tokenizer)
        self.facts = facts(experiment.game, experiment.count)
        self.extraction_params = engine.sampling_params(EXTRACTION_SAMPLING)
        self.ids = np.concatenate([np.arange(s.start, s.stop) for s in segments])
        self._group_of = np.concatenate([np.full(len(s), s.group, np.uint16) for s in segments])
        self._segments = segments
        self._seatings = {s.group: self._seat(experiment.population[s.group]) for s in segments}
        self._told: list[dict[int, Message]] = []  # per round, by group
        self._said: list[tuple[Ragged, NDArray[np.int64]]] = []  # per finished round: tokens, row of each seat
        self._check_room()

    def tell(self, announcement: Announcement) -> None:
        """Adds what each group is told in this round to the conversations."""
        told = {quantity: number_text(value) for quantity, value in announcement.quantities.items()}
        del self._told[announcement.round_index :]
        self._told.append(
            {index: self._message(seating, announcement.round_index, told) for index, seating in self._seatings.items()}
        )

    def remember(self, tokens: Ragged, rows: NDArray[np.int64]) -> None:
        """Adds what everybody said in the round that was last told: row `rows[seat]` of `tokens`."""
        del self._said[len(self._told) - 1 :]
        self._said.append((tokens, rows))

    def notes(self) -> list[str]:
        """What a person should know about how conversations are held with this model."""
        group = next(iter(self._seatings.values())).group
        return [f"model {group.model}: {note}" for note in self.conversation.notes()]

    def restore(self, run: Run) -> None:
        """Takes the conversations of a run's finished rounds up again."""
        last = None
        for round_index in range(run.round_count):
            self.tell(Announcement(round_index, announced(self.experiment.game, last)))
            self.remember(*run.said(round_index, self.ids))
            last = run.outcome(round_index)

    def seating(self, seat: int) -> Seating:
        """The settings of the participant at `seat`."""
        return self._seatings[int(self._group_of[seat])]

    def seeds(self, round_index: int) -> NDArray[np.int64] | list[None]:
        """The seed of each seat's first call in a round, int64[seat]; None for all where the engine draws."""
        if self.experiment.seeding == "engine":
            return [None] * len(self.ids)
        seed = self.experiment.seed
        return np.concatenate([seeds(seed, "reply", round_index, s.start, s.stop) for s in self._segments])

    def prompt(
        self, seat: int, extra: Sequence[tuple[Sequence[int], str]] = (), round_index: int | None = None
    ) -> tuple[list[int], int]:
        """The conversation of the participant at `seat`: token ids, and how many rounds it lacks.

        Where the conversation has outgrown the model's context it lacks its oldest rounds: the rules stay, and
        it begins with a later round.

        Args:
            seat: whose.
            extra: exchanges of the round that could not be read: the reply, and what was asked then.
            round_index: up to the request of this round; by default the last that was told.
        """
        group = int(self._group_of[seat])
        told = [messages[group] for messages in self._told[: None if round_index is None else round_index + 1]]
        seating = self.seating(seat)
        if not self.conversation.extends:
            return self._rendered(seat, seating, told, extra)
        tail = [token for tokens, text in extra for token in [*tokens, *self.conversation.turn(text)]]
        begin = len(told) - 1
        while begin > 0:
            longer = self._reply(begin - 1, seat) + told[begin].turn + tail
            if len(told[begin - 1].opening) + len(longer) > seating.room:
                break
            begin, tail = begin - 1, longer
        return told[begin].opening + tail, begin

    def messages(self, seat: int, round_index: int) -> list[dict[str, str]]:
        """The conversation of the participant at `seat` up to the request of a round, as chat messages."""
        group = int(self._group_of[seat])
        said = self.engine.decode([self._reply(earlier, seat) for earlier in range(round_index)])
        messages = [{"role": "system", "content": self._seatings[group].system}]
        for earlier, text in enumerate(said):
            messages.append({"role": "user", "content": self._told[earlier][group].text})
            messages.append({"role": "assistant", "content": text})
        return [*messages, {"role": "user", "content": self._told[round_index][group].text}]

    def _rendered(
        self, seat: int, seating: Seating, told: list[Message], extra: Sequence[tuple[Sequence[int], str]]
    ) -> tuple[list[int], int]:
        """As `prompt`, for templates whose conversations do not extend."""
        said = [self._reply(round_index, seat) for round_index in range(len(told) - 1)]
        said += [list(tokens) for tokens, _ in extra]
        asked = [message.text for message in told] + [text for _, text in extra]
        for begin in range(len(told)):
            prompt = self.conversation.whole(seating.system, asked[begin:], said[begin:])
            if len(prompt) <= seating.room or begin == len(told) - 1:
                return prompt, begin
        raise AssertionError("a round is always told something")

    def _reply(self, round_index: int, seat: int) -> list[int]:
        tokens, rows = self._said[round_index]
        return tokens[rows[seat]].tolist()

    def _seat(self, group: Any) -> Seating:
        game = self.experiment.game
        return Seating(
            group=group,
            system=prompts.system_message(group.system_prompt, self.facts),
            params=self.engine.sampling_params(
                group.sampling, _number_pattern(game.low, game.high) if group.guided else None
            ),
            room=self.engine.max_model_len - group.sampling.max_tokens,
        )

    def _message(self, seating: Seating, round_index: int, told: dict[str, str]) -> Message:
        user = prompts.user_message(seating.group.user_prompt, round_index, self.facts, told)
        return Message(user, self.conversation.opening(seating.system, user), self.conversation.turn(user))

    def _check_room(self) -> None:
        widest = number_text(self.experiment.game.high - 0.01)
        told = {str(quantity): widest for quantity in self.experiment.game.announce}
        for seating in self._seatings.values():
            needed = len(self._message(seating, self.experiment.game.rounds, told).opening)
            if needed > seating.room:
                raise ConfigError(
                    f"group {seating.group.name}: its prompt ({needed} tokens) and reply (max_tokens "
                    f"{seating.group.sampling.max_tokens}) do not fit the context of model {seating.group.model} "
                    f"({self.engine.max_model_len} tokens); shorten one or raise max_model_len"
                )


def _number_pattern(low: float, high: float) -> str:
    """What `guided: number` lets the engine sample: a number of the range's size, with two decimals at most."""
    digits = len(str(int(max(abs(low), abs(high)))))
    return rf"{'-?' if low < 0 else ''}[0-9]{{1,{digits}}}(\.[0-9]{{1,2}})?"
