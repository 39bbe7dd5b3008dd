"""The loop that keeps an engine busy: requests in, replies out, each journalled and followed by another or by none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Protocol, TypeVar

from pbeauty.game.records import Progress, Reply
from pbeauty.llm.engine import Engine
from pbeauty.storage.journal import Journal, ReplayedReplies

QUEUE_DEPTH = 2
"""Requests in flight, as a multiple of those the engine runs at once: enough that its batch never thins out."""


@dataclass(slots=True)
class Request:
    """One call to the engine for a participant."""

    participant: int
    """Id."""
    number: int
    """Which of the participant's calls of the round this is, from 0; a journal names a call by this and the id."""
    prompt: list[int]
    params: Any
    """vLLM's sampling parameters."""
    seed: int | None
    """None leaves the draw to the engine."""


R = TypeVar("R", bound=Request)


class RequestSource(Protocol[R]):
    """Knows which requests are to be made, and what to make of a reply."""

    def first_requests(self) -> Iterator[R]:
        """The first request of every participant, made when there is room for it."""
        ...

    def on_reply(self, request: R, reply: Reply) -> R | None:
        """Reads a reply; returns the request that follows from it, None where the participant is done."""
        ...


@dataclass
class RequestLoop:
    """One engine, and everything that a round of requests to it needs."""

    engine: Engine
    """With nothing in flight."""
    progress: Progress
    """Its token counts are kept up to date here; the request source counts who is done."""
    go_on: Callable[[], bool]
    """Called after every step of the engine; False breaks the round off."""
    journal: Journal | None = None
    """Takes down every reply as it comes, before anything is made of it."""
    replayed: ReplayedReplies | None = None
    """Replies from before an interruption; the engine is not asked for them again."""

    def run(self, source: RequestSource[R]) -> bool:
        """Makes all requests of `source` in one running batch, never waiting for more than the next finished reply.

        Returns:
            Whether it came to its end; False where `go_on` broke it off.
        """
        waiting, keys = source.first_requests(), count()
        in_flight: dict[int, R] = {}
        on_record: list[tuple[R, Reply]] = []

        def send(request: R) -> None:
            if self.replayed and (reply := self.replayed.get(request.participant, request.number)):
                on_record.append((request, reply))
                return
            in_flight[key := next(keys)] = request
            self.engine.submit(key, request.prompt, request.params, request.seed)

        def receive(request: R, reply: Reply) -> None:
            self.progress.prompt_tokens += reply.prompt_tokens
            self.progress.output_tokens += len(reply.tokens)
            if (following := source.on_reply(request, reply)) is not None:
                send(following)

        while True:
            room = QUEUE_DEPTH * self.engine.max_num_seqs - len(in_flight) - len(on_record)
            for request in islice(waiting, max(0, room)):
                send(request)
            if not in_flight and not on_record:
                return True
            recalled, on_record = on_record, []
            texts = self.engine.decode([reply.tokens for _, reply in recalled]) if recalled else []
            for (request, reply), text in zip(recalled, texts, strict=True):
                receive(request, reply._replace(text=text))
            step = self.engine.step() if in_flight else {}
            finished = [(in_flight.pop(key), reply) for key, reply in step.items()]
            if self.journal and finished:
                for request, reply in finished:
                    self.journal.append(request.participant, request.number, reply)
                self.journal.flush()
            for request, reply in finished:
                receive(request, reply)
            if not self.go_on():
                self.engine.abort()
                return False
