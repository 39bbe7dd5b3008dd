"""One round at one engine: who is still to be asked, and what becomes of every reply as it comes in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from pbeauty.game import prompts
from pbeauty.game.announcement import Announcement
from pbeauty.game.extraction import read_extraction, read_guess
from pbeauty.game.randomness import seeds
from pbeauty.game.records import Progress, Purpose, ReadingRule, Replies, Reply, Rows, Status
from pbeauty.llm.conversations import LLMParticipants
from pbeauty.llm.reasoning import Answer
from pbeauty.llm.request_loop import Request, RequestLoop


def play(
    participants: LLMParticipants,
    announcement: Announcement,
    rows: Rows,
    replies: Replies,
    loop: RequestLoop,
) -> bool:
    """Plays one round: asks, reads, asks again, never waiting for more than the next finished reply.

    Args:
        participants: who is asked.
        announcement: with which the round begins.
        rows: of the participants, by slot; filled in.
        replies: every reply is added to it.
        loop: around the participants' engine.

    Returns:
        Whether the round was played to its end.
    """
    participants.add_user_turn(announcement)
    answers = _Round(participants, announcement.round_index, rows, replies, loop.progress)
    complete = loop.run(answers)
    if complete:
        participants.add_reply(replies.tokens, answers.last_reply)
    return complete


def walk(slots: int, round_index: int) -> range:
    """The order in which slots are asked: forwards and backwards in turn.

    A least-recently-used cache that is scanned in the same direction every time never hits.
    """
    return range(slots) if round_index % 2 == 0 else range(slots - 1, -1, -1)


@dataclass(slots=True)
class _Call(Request):
    """A request of the round."""

    slot: int
    purpose: Purpose
    attempt: int = 0
    """How often the participant has been asked again."""
    unread: tuple[tuple[list[int], str], ...] = ()
    """The exchanges of this round before it: a reply that could not be read, and what was asked then."""
    about: list[int] = field(default_factory=list)
    """Of an extraction: the token ids of the reply that it is about."""
    pattern: Status = Status.UNPARSABLE
    """Of an extraction: what the patterns made of that reply."""


class _Round:
    """Every participant is asked once, and each reply leads to a guess or to another call.

    A reply that patterns cannot read goes straight back as an extraction request (where the group wants that), then
    as a repeated request, in the same running batch: nobody waits for anybody.
    """

    def __init__(
        self,
        block: LLMParticipants,
        round_index: int,
        rows: Rows,
        replies: Replies,
        progress: Progress,
    ) -> None:
        self._block = block
        self._round = round_index
        self._replies, self._progress = replies, progress
        self._rows = rows
        self._seeds = block.seeds(round_index)
        self.last_reply = np.zeros(len(block.ids), np.int64)
        """int64[slot]: the row of `replies` that each participant's conversation goes on from."""

    def first_requests(self) -> Iterator[_Call]:
        """What everybody is asked first."""
        block, asked = self._block, self._rows["status"] != Status.NOT_ASKED
        for slot in walk(len(block.ids), self._round):
            if not asked[slot]:
                continue
            prompt, forgotten = block.prompt(slot)
            if forgotten:
                self._rows["forgotten"][slot] = forgotten
            given = self._seeds[slot]
            seed = None if given is None else int(given)
            yield _Call(int(block.ids[slot]), 0, prompt, block.group_settings(slot).params, seed, slot, Purpose.ANSWER)

    def on_reply(self, call: _Call, reply: Reply) -> _Call | None:
        """Reads one reply: the guess is settled, or the participant's next call returned."""
        self._account(call.slot, reply)
        row = self._replies.append(call.participant, call.purpose, reply.text, reply.tokens)
        game = self._block.experiment.game
        answer = self._block.template.reasoning.split(reply.tokens, reply.text)
        if call.purpose == Purpose.EXTRACTION:
            reading = read_extraction(answer.text, game.low, game.high, reply.truncated)
            if reading.status.valid:
                self._record_guess(call, reading.guess, Status.EXTRACTED, ReadingRule.EXTRACTION)
                return None
            # Where patterns saw a number but the model, whose word counts, saw none, there is none.
            return self._give_up(call, Status.UNPARSABLE if call.pattern.valid else call.pattern, call.about)
        self.last_reply[call.slot] = row
        group = self._block.group_settings(call.slot).group
        reading = read_guess(answer.text, game.low, game.high, truncated=reply.truncated)
        unclear = reading.status in (Status.UNPARSABLE, Status.TRUNCATED)
        doubtful = group.extraction == "model" or (group.extraction == "pattern-then-model" and unclear)
        if doubtful and (question := self._extraction(call, reply, answer, reading.status)):
            return question
        if reading.status.valid:
            self._record_guess(call, reading.guess, Status.RETRIED if call.attempt else Status.OK, reading.rule)
            return None
        return self._give_up(call, reading.status, reply.tokens)

    def _extraction(self, call: _Call, reply: Reply, answer: Answer, pattern: Status) -> _Call | None:
        """Asks the model which number the answer names; None where there is none, or the question does not fit."""
        block = self._block
        prompt = block.template.question(
            prompts.extraction_message(answer.text, block.variables, block.experiment.prompts)
        )
        too_long = len(prompt) + block.extraction_sampling.max_tokens > block.engine.max_model_len
        if too_long or not answer.text:
            return None
        return _Call(
            call.participant,
            call.number + 1,
            prompt,
            block.extraction_params,
            None,
            call.slot,
            Purpose.EXTRACTION,
            call.attempt,
            call.unread,
            about=reply.tokens,
            pattern=pattern,
        )

    def _give_up(self, call: _Call, status: Status, tokens: list[int]) -> _Call | None:
        """What follows a reply without a guess: the request again, or the end of the round for the participant."""
        block = self._block
        settings = block.group_settings(call.slot)
        if call.attempt >= settings.group.retries:
            self._record_guess(call, float("nan"), status)
            return None
        unread = (*call.unread, (tokens, prompts.retry_message(block.variables, block.experiment.prompts)))
        prompt, _ = block.prompt(call.slot, unread)
        if len(prompt) > settings.room:
            unread = ()
            prompt, _ = block.prompt(call.slot)
        attempt = call.attempt + 1
        seed = None
        if block.experiment.seeding == "request":
            own = block.ids[call.slot : call.slot + 1]
            seed = int(seeds(block.experiment.seed, f"retry-{attempt}", self._round, own)[0])
        return _Call(
            call.participant,
            call.number + 1,
            prompt,
            settings.params,
            seed,
            call.slot,
            Purpose.RETRY,
            attempt,
            unread,
        )

    def _account(self, slot: int, reply: Reply) -> None:
        self._rows["prompt_tokens"][slot] += reply.prompt_tokens
        self._rows["cached_tokens"][slot] += reply.cached_tokens
        self._rows["output_tokens"][slot] += len(reply.tokens)

    def _record_guess(self, call: _Call, guess: float, status: Status, rule: ReadingRule = ReadingRule.NONE) -> None:
        self._rows["guess"][call.slot] = guess
        self._rows["status"][call.slot] = status
        self._rows["reading"][call.slot] = rule
        self._progress.done += 1
        self._progress.unusable += not status.valid
