"""One round at one engine: who is still to be asked, and what becomes of every reply as it comes in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from pbeauty import prompts
from pbeauty.engine import Reply
from pbeauty.extraction import Reading, read_extraction, read_guess
from pbeauty.game import Status
from pbeauty.journal import Journal, Record, Recorded
from pbeauty.llm import EXTRACTION_SAMPLING, LLMParticipants
from pbeauty.randomness import seeds
from pbeauty.records import Announcement, Progress, Purpose, Replies

QUEUE_DEPTH = 2
"""Requests in flight, as a multiple of those the engine runs at once: enough that its batch never thins out."""


def play(
    block: LLMParticipants,
    announcement: Announcement,
    rows: NDArray[np.void],
    replies: Replies,
    progress: Progress,
    tick: Callable[[Progress], bool],
    journal: Journal | None = None,
    recorded: Recorded | None = None,
) -> bool:
    """Plays one round: asks, reads, asks again, never waiting for more than the next finished reply.

    Args:
        block: who plays.
        announcement: what the participants are told.
        rows: PLAY[seat], filled in.
        replies: every reply is added to it.
        progress: kept up to date.
        tick: called after every step; False breaks the round off.
        journal: takes down every reply as it comes.
        recorded: replies of this round from before an interruption; those calls are not made again.

    Returns:
        Whether the round was played to its end.
    """
    block.tell(announcement)
    asking = _Asking(block, announcement.round_index, rows, replies, progress, recorded)
    while not asking.finished:
        asking.fill()
        for reply in asking.recall():
            asking.take(reply)
        if block.engine.in_flight and (finished := block.engine.step()):
            if journal:
                for reply in finished:
                    journal.append(asking.record(reply))
                journal.flush()
            for reply in finished:
                asking.take(reply)
        if not tick(progress):
            block.engine.abort()
            return False
    block.remember(replies.tokens, asking.last_reply)
    return True


def walk(seats: int, round_index: int) -> range:
    """The order in which seats are asked: forwards and backwards in turn.

    A least-recently-used cache that is scanned in the same direction every time never hits.
    """
    return range(seats) if round_index % 2 == 0 else range(seats - 1, -1, -1)


@dataclass(slots=True)
class _Call:
    """A request in flight."""

    seat: int
    purpose: Purpose
    number: int = 0
    """Which of the participant's calls of the round this is."""
    attempt: int = 0
    """How often the participant has been asked again."""
    unread: tuple[tuple[Sequence[int], str], ...] = ()
    """The exchanges of this round before it: a reply that could not be read, and what was asked then."""
    about: Sequence[int] = ()
    """Of an extraction: the token ids of the reply that it is about."""
    pattern: Status = Status.UNPARSABLE
    """Of an extraction: what the patterns made of that reply."""


class _Asking:
    """The step loop's state: every participant is asked once, and each reply leads to a guess or to another call.

    A reply that patterns cannot read goes straight back as an extraction request (where the group wants that), then
    as a repeated request, in the same running batch: nobody waits for anybody.
    """

    def __init__(
        self,
        block: LLMParticipants,
        round_index: int,
        rows: NDArray[np.void],
        replies: Replies,
        progress: Progress,
        recorded: Recorded | None,
    ) -> None:
        self._block = block
        self._round = round_index
        self._replies, self._progress = replies, progress
        # Fields of a structured array are views; fetching one costs more than using it.
        self._column = {name: rows[name] for name in rows.dtype.names or ()}
        seats = len(block.ids)
        self._queue = iter(walk(seats, round_index))
        self._open = seats
        self._recorded = recorded
        self._recalled: list[tuple[int, Record]] = []
        self._calls: dict[int, _Call] = {}
        self._keys = count()
        self._seeds = block.seeds(round_index)
        self._depth = QUEUE_DEPTH * block.engine.max_num_seqs
        self.last_reply = np.zeros(seats, np.int64)
        """int64[seat]: the row of `replies` that each participant's conversation goes on from."""

    @property
    def finished(self) -> bool:
        """Whether everybody has answered."""
        return self._open == 0

    def fill(self) -> None:
        """Submits waiting participants until enough requests are in flight."""
        while len(self._calls) < self._depth:
            seat = next(self._queue, None)
            if seat is None:
                return
            prompt, self._column["forgotten"][seat] = self._block.prompt(seat)
            seed = self._seeds[seat]
            self._submit(_Call(seat, Purpose.ANSWER), prompt, None if seed is None else int(seed))

    def recall(self) -> list[Reply]:
        """Replies to the calls just made that were on record; the engine never saw these calls."""
        recalled, self._recalled = self._recalled, []
        texts = self._block.engine.decode([record.tokens for _, record in recalled]) if recalled else []
        return [
            Reply(key, record.tokens, text, record.truncated, record.prompt_tokens, record.cached_tokens)
            for (key, record), text in zip(recalled, texts, strict=True)
        ]

    def record(self, reply: Reply) -> Record:
        """What a journal keeps of a reply that is about to be taken."""
        call = self._calls[reply.key]
        participant = int(self._block.ids[call.seat])
        return Record(participant, call.number, reply.truncated, reply.prompt_tokens, reply.cached_tokens, reply.tokens)

    def take(self, reply: Reply) -> None:
        """Reads one reply: the guess is settled, or the participant's next call submitted."""
        call = self._calls.pop(reply.key)
        self._account(call.seat, reply)
        row = self._replies.append(int(self._block.ids[call.seat]), call.purpose, reply.text, reply.tokens)
        game = self._block.experiment.game
        if call.purpose == Purpose.EXTRACTION:
            reading = read_extraction(reply.text, game.low, game.high)
            if reading.status.valid:
                self._settle(call, reading.guess, Status.EXTRACTED)
            else:
                # Where patterns saw a number but the model, whose word counts, saw none, there is none.
                self._give_up(call, Status.UNPARSABLE if call.pattern.valid else call.pattern, call.about)
            return
        self.last_reply[call.seat] = row
        group = self._block.seating(call.seat).group
        reading = read_guess(reply.text, game.low, game.high, truncated=reply.truncated)
        unclear = reading.status in (Status.UNPARSABLE, Status.TRUNCATED)
        if (group.extraction == "model" or (group.extraction == "pattern-then-model" and unclear)) and self._extract(
            call, reply, reading
        ):
            return
        if reading.status.valid:
            self._settle(call, reading.guess, Status.RETRIED if call.attempt else Status.OK)
        else:
            self._give_up(call, reading.status, reply.tokens)

    def _extract(self, call: _Call, reply: Reply, reading: Reading) -> bool:
        """Asks the model which number the reply names; False where the question would not fit its context."""
        block = self._block
        text = prompts.extraction_message(reply.text, block.facts)
        prompt = block.conversation.question(text)
        if len(prompt) + EXTRACTION_SAMPLING.max_tokens > block.engine.max_model_len:
            return False
        question = _Call(
            call.seat, Purpose.EXTRACTION, call.number + 1, call.attempt, call.unread, reply.tokens, reading.status
        )
        self._submit(question, prompt, None)
        return True

    def _give_up(self, call: _Call, status: Status, tokens: Sequence[int]) -> None:
        """What follows a reply without a guess: the request again, or the end of the round for the participant."""
        block = self._block
        if call.attempt >= block.seating(call.seat).group.retries:
            self._settle(call, float("nan"), status)
            return
        unread = (*call.unread, (tokens, prompts.retry_message(block.facts)))
        prompt, _ = block.prompt(call.seat, unread)
        if len(prompt) > block.seating(call.seat).room:
            unread = ()
            prompt, _ = block.prompt(call.seat)
        attempt = call.attempt + 1
        seed = None
        if block.experiment.seeding == "request":
            participant = int(block.ids[call.seat])
            seed = int(seeds(block.experiment.seed, f"retry-{attempt}", self._round, participant, participant + 1)[0])
        self._submit(_Call(call.seat, Purpose.RETRY, call.number + 1, attempt, unread), prompt, seed)

    def _submit(self, call: _Call, prompt: list[int], seed: int | None) -> None:
        key = next(self._keys)
        self._calls[key] = call
        if self._recorded and (record := self._recorded.get(int(self._block.ids[call.seat]), call.number)):
            self._recalled.append((key, record))
            return
        extracting = call.purpose == Purpose.EXTRACTION
        params = self._block.extraction_params if extracting else self._block.seating(call.seat).params
        self._block.engine.submit(key, prompt, params, seed)

    def _account(self, seat: int, reply: Reply) -> None:
        self._column["prompt_tokens"][seat] += reply.prompt_tokens
        self._column["cached_tokens"][seat] += reply.cached_tokens
        self._column["output_tokens"][seat] += len(reply.tokens)
        self._progress.prompt_tokens += reply.prompt_tokens
        self._progress.output_tokens += len(reply.tokens)

    def _settle(self, call: _Call, guess: float, status: Status) -> None:
        self._column["guess"][call.seat] = guess
        self._column["status"][call.seat] = status
        self._open -= 1
        self._progress.done += 1
        self._progress.unusable += not status.valid
