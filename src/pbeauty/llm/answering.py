"""One round at one engine: who is still to be asked, and what becomes of every reply as it comes in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from pbeauty.game import prompts
from pbeauty.game.announcement import Announcement
from pbeauty.game.extraction import read_extraction, read_guess
from pbeauty.game.records import Progress, Purpose, ReadingRule, Replies, Reply, Rows, Status
from pbeauty.llm.conversations import LLMParticipants
from pbeauty.llm.request_loop import Request, RequestLoop


def play(
    participants: LLMParticipants, announcement: Announcement, rows: Rows, replies: Replies, loop: RequestLoop
) -> None:
    """Plays one round: asks, reads, asks again, never waiting for more than the next finished reply.

    Args:
        participants: who is asked.
        announcement: with which the round begins.
        rows: of the participants, by slot; filled in.
        replies: every reply is added to it.
        loop: around the participants' engine; it may break the round off.
    """
    participants.add_user_turn(announcement)
    answers = _Round(participants, announcement.round_index, rows, replies, loop.progress)
    if loop.run(answers):
        participants.add_reply(replies.tokens, answers.last_reply)


def walk(slots: int, round_index: int) -> range:
    """The order in which slots are asked: forwards and backwards in turn.

    A least-recently-used cache that is scanned in the same direction every time never hits.
    """
    return range(slots) if round_index % 2 == 0 else range(slots - 1, -1, -1)


@dataclass(slots=True)
class _Call(Request):
    """A request of the round."""

    slot: int
    purpose: Purpose = Purpose.ANSWER
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
        self, participants: LLMParticipants, round_index: int, rows: Rows, replies: Replies, progress: Progress
    ) -> None:
        self._participants, self._round = participants, round_index
        self._rows, self._replies, self._progress = rows, replies, progress
        self.last_reply = np.zeros(len(participants.ids), np.int64)
        """int64[slot]: the row of `replies` that each participant's conversation goes on from."""

    def first_requests(self) -> Iterator[_Call]:
        """What everybody is asked first."""
        llm, asked = self._participants, self._rows["status"] != Status.NOT_ASKED
        seeds = llm.seeds(self._round)
        for slot in walk(len(llm.ids), self._round):
            if asked[slot]:
                prompt, forgotten = llm.prompt(slot)
                if forgotten:
                    self._rows["forgotten"][slot] = forgotten
                yield _Call(int(llm.ids[slot]), 0, prompt, llm.group_settings(slot).params, seeds[slot], slot)

    def on_reply(self, call: _Call, reply: Reply) -> _Call | None:
        """Reads one reply: the guess is settled, or the participant's next call returned."""
        llm, rows, slot = self._participants, self._rows, call.slot
        rows["prompt_tokens"][slot] += reply.prompt_tokens
        rows["cached_tokens"][slot] += reply.cached_tokens
        rows["output_tokens"][slot] += len(reply.tokens)
        row = self._replies.append(call.participant, call.purpose, reply.text, reply.tokens)
        game = llm.experiment.game
        answer = llm.template.reasoning.split(reply.tokens, reply.text).text
        if call.purpose == Purpose.EXTRACTION:
            reading = read_extraction(answer, game.low, game.high, reply.truncated)
            if reading.status.valid:
                self._record_guess(call, reading.guess, Status.EXTRACTED, ReadingRule.EXTRACTION)
                return None
            # Where patterns saw a number but the model, whose word counts, saw none, there is none.
            return self._give_up(call, Status.UNPARSABLE if call.pattern.valid else call.pattern, call.about)
        self.last_reply[slot] = row
        extraction = llm.group_settings(slot).group.extraction
        reading = read_guess(answer, game.low, game.high, truncated=reply.truncated)
        unclear = reading.status in (Status.UNPARSABLE, Status.TRUNCATED)
        doubtful = extraction == "model" or (extraction == "pattern-then-model" and unclear)
        if doubtful and answer and (question := self._extraction(call, reply, answer, reading.status)):
            return question
        if not reading.status.valid:
            return self._give_up(call, reading.status, reply.tokens)
        self._record_guess(call, reading.guess, Status.RETRIED if call.attempt else Status.OK, reading.rule)
        return None

    def _extraction(self, call: _Call, reply: Reply, answer: str, pattern: Status) -> _Call | None:
        """Asks the model which number the answer names; None where the question does not fit its context."""
        llm = self._participants
        prompt = llm.template.question(prompts.extraction_message(answer, llm.variables, llm.experiment.prompts))
        if len(prompt) + llm.extraction_sampling.max_tokens > llm.engine.max_model_len:
            return None
        question = replace(call, number=call.number + 1, prompt=prompt, params=llm.extraction_params, seed=None)
        question.purpose, question.about, question.pattern = Purpose.EXTRACTION, reply.tokens, pattern
        return question

    def _give_up(self, call: _Call, status: Status, tokens: list[int]) -> _Call | None:
        """What follows a reply without a guess: the request again, or the end of the round for the participant."""
        llm, settings = self._participants, self._participants.group_settings(call.slot)
        if call.attempt >= settings.group.retries:
            self._record_guess(call, float("nan"), status, ReadingRule.NONE)
            return None
        unread = (*call.unread, (tokens, prompts.retry_message(llm.variables, llm.experiment.prompts)))
        prompt, _ = llm.prompt(call.slot, unread)
        if len(prompt) > settings.room:
            unread = ()
            prompt, _ = llm.prompt(call.slot)
        attempt = call.attempt + 1
        seed = llm.seed(f"retry-{attempt}", self._round, call.slot)
        again = replace(call, number=call.number + 1, prompt=prompt, params=settings.params, seed=seed)
        again.purpose, again.attempt, again.unread = Purpose.RETRY, attempt, unread
        return again

    def _record_guess(self, call: _Call, guess: float, status: Status, rule: ReadingRule) -> None:
        self._rows["guess"][call.slot] = guess
        self._rows["status"][call.slot] = status
        self._rows["reading"][call.slot] = rule
        self._progress.done += 1
        self._progress.unusable += not status.valid
