"""The language models of a block: conversations as token ids, and the loop that keeps their engine busy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pbeauty import prompts
from pbeauty.config import ConfigError, Experiment, LLMGroup
from pbeauty.conversation import Conversation
from pbeauty.engine import Engine, Reply
from pbeauty.extraction import read_guess
from pbeauty.game import Status, facts, number_text
from pbeauty.partition import Segment
from pbeauty.ragged import Ragged
from pbeauty.randomness import seeds
from pbeauty.records import Announcement, Progress, Purpose, Replies

QUEUE_DEPTH = 2
"""Requests in flight, as a multiple of those the engine runs at once: enough that its batch never thins out."""

_ATTEMPTS = 16
"""Request keys count attempts below this; `retries` is at most 10."""


@dataclass(frozen=True, slots=True)
class _Message:
    """What a group is told in one round, as token ids."""

    opening: list[int]
    """Where a conversation begins with it: the system prompt comes first."""
    turn: list[int]
    """Where it follows a reply."""


class LLMParticipants:
    """The language models that one rank hosts, and what each has heard and said so far.

    A conversation is stored once: what the group was told as token ids per round and group, what the participant
    said as a row of a flat array.
    """

    def __init__(self, experiment: Experiment, segments: Sequence[Segment], engine: Engine) -> None:
        """Seats the participants of `segments`, all of one model, at `engine`.

        Raises:
            ConfigError: if a group's prompts leave no room for a reply in the model's context.
        """
        self.experiment = experiment
        self.engine = engine
        self.conversation = Conversation(engine.tokenizer)
        self.ids = np.concatenate([np.arange(s.start, s.stop) for s in segments])
        self.group_of = np.concatenate([np.full(len(s), s.group, np.uint16) for s in segments])
        self._segments = segments
        self._groups: dict[int, LLMGroup] = {s.group: experiment.population[s.group] for s in segments}  # type: ignore[misc]
        self._facts = facts(experiment.game, experiment.count)
        self._told: list[dict[int, _Message]] = []  # per round, by group
        self._said: list[tuple[Ragged, NDArray[np.int64]]] = []  # per finished round: tokens, row of each participant
        self._check_room()

    def play(
        self,
        announcement: Announcement,
        rows: NDArray[np.void],
        replies: Replies,
        progress: Progress,
        tick: Callable[[Progress], bool],
    ) -> bool:
        """Plays one round: asks, reads, asks again, never waiting for more than the next finished reply.

        Args:
            announcement: what the participants are told.
            rows: PLAY[participant], filled in.
            replies: every reply is added to it.
            progress: kept up to date.
            tick: called after every step; False breaks the round off.

        Returns:
            Whether the round was played to its end.
        """
        asking = _Asking(self, announcement, rows, replies, progress)
        while not asking.finished:
            asking.fill()
            for reply in self.engine.step():
                asking.take(reply)
            if not tick(progress):
                self.engine.abort()
                return False
        self._said.append((replies.tokens, asking.last_reply))
        return True

    def tell(self, announcement: Announcement) -> None:
        """Adds what each group is told in this round to the conversations."""
        told = {quantity: number_text(value) for quantity, value in announcement.quantities.items()}
        del self._told[announcement.round_index :]
        self._told.append(
            {index: self._message(group, announcement.round_index, told) for index, group in self._groups.items()}
        )

    def prompt(self, seat: int) -> tuple[list[int], int]:
        """The conversation of the participant at `seat` up to now: token ids, and how many rounds it lacks.

        Where the conversation has outgrown the model's context it lacks its oldest rounds: the rules stay, and
        it begins with a later round.
        """
        group = int(self.group_of[seat])
        room = self._room(self._groups[group])
        begin = len(self._told) - 1
        tail: list[int] = []
        while begin > 0:
            said, rows = self._said[begin - 1]
            longer = said[rows[seat]].tolist() + self._told[begin][group].turn + tail
            if len(self._told[begin - 1][group].opening) + len(longer) > room:
                break
            begin, tail = begin - 1, longer
        return self._told[begin][group].opening + tail, begin

    def _message(self, group: LLMGroup, round_index: int, told: dict[str, str]) -> _Message:
        system = prompts.system_message(group.system_prompt, self._facts)
        user = prompts.user_message(group.user_prompt, round_index, self._facts, told)
        return _Message(self.conversation.opening(system, user), self.conversation.turn(user))

    def _room(self, group: LLMGroup) -> int:
        return self.engine.max_model_len - group.sampling.max_tokens

    def _check_room(self) -> None:
        widest = number_text(self.experiment.game.high - 0.01)
        told = dict.fromkeys(self.experiment.game.announce, widest)
        for group in self._groups.values():
            needed = len(self._message(group, self.experiment.game.rounds, told).opening)
            if needed > self._room(group):
                raise ConfigError(
                    f"group {group.name}: its prompt ({needed} tokens) and reply (max_tokens "
                    f"{group.sampling.max_tokens}) do not fit the context of model {group.model} "
                    f"({self.engine.max_model_len} tokens); shorten one or raise max_model_len"
                )


class _Asking:
    """One round in progress: who is still to be asked, and what became of those who were."""

    def __init__(
        self,
        block: LLMParticipants,
        announcement: Announcement,
        rows: NDArray[np.void],
        replies: Replies,
        progress: Progress,
    ) -> None:
        block.tell(announcement)
        self._block = block
        self._game = block.experiment.game
        self._round = announcement.round_index
        self._rows, self._replies, self._progress = rows, replies, progress
        count = len(block.ids)
        # A least-recently-used cache that is scanned in the same direction every time never hits.
        self._queue = iter(range(count) if self._round % 2 == 0 else range(count - 1, -1, -1))
        self._open = count
        self._prompts: dict[int, list[int]] = {}  # of requests in flight, should they have to be repeated
        self._seeds = self._draw_seeds()
        self.last_reply = np.zeros(count, np.int64)
        """Row of `replies` that holds each participant's last word of the round."""
        self._again = block.conversation.turn(prompts.retry_message(facts(self._game, block.experiment.count)))

    @property
    def finished(self) -> bool:
        return self._open == 0

    def fill(self) -> None:
        """Submits waiting participants until enough requests are in flight."""
        engine = self._block.engine
        while engine.in_flight < QUEUE_DEPTH * engine.max_num_seqs:
            seat = next(self._queue, None)
            if seat is None:
                return
            prompt, forgotten = self._block.prompt(seat)
            self._rows["forgotten"][seat] = forgotten
            self._submit(seat, 0, prompt)

    def take(self, reply: Reply) -> None:
        """Reads one reply; asks again if it holds no guess and a retry is left."""
        seat, attempt = divmod(reply.key, _ATTEMPTS)
        prompt = self._prompts.pop(seat)
        group = self._group(seat)
        row = self._rows[seat]
        row["prompt_tokens"] += reply.prompt_tokens
        row["cached_tokens"] += reply.cached_tokens
        row["output_tokens"] += len(reply.tokens)
        self._progress.prompt_tokens += reply.prompt_tokens
        self._progress.output_tokens += len(reply.tokens)
        purpose = Purpose.RETRY if attempt else Purpose.ANSWER
        self.last_reply[seat] = self._replies.append(int(self._block.ids[seat]), purpose, reply.text, reply.tokens)
        reading = read_guess(reply.text, self._game.low, self._game.high, truncated=reply.truncated)
        if not reading.status.valid and attempt < group.retries:
            longer = prompt + reply.tokens + self._again
            fits = len(longer) + group.sampling.max_tokens <= self._block.engine.max_model_len
            self._submit(seat, attempt + 1, longer if fits else prompt)
            return
        row["guess"] = reading.guess
        row["status"] = Status.RETRIED if reading.status.valid and attempt else reading.status
        self._open -= 1
        self._progress.done += 1
        self._progress.unusable += not reading.status.valid

    def _submit(self, seat: int, attempt: int, prompt: list[int]) -> None:
        seed = self._seeds[seat]
        if attempt:
            participant = int(self._block.ids[seat])
            seed = seeds(self._block.experiment.seed, f"retry-{attempt}", self._round, participant, participant + 1)[0]
        self._prompts[seat] = prompt
        self._block.engine.submit(seat * _ATTEMPTS + attempt, prompt, self._group(seat).sampling, int(seed))

    def _group(self, seat: int) -> LLMGroup:
        return self._block.experiment.population[self._block.group_of[seat]]  # type: ignore[return-value]

    def _draw_seeds(self) -> NDArray[np.int64]:
        experiment = self._block.experiment
        return np.concatenate(
            [seeds(experiment.seed, "reply", self._round, s.start, s.stop) for s in self._block._segments]
        )
