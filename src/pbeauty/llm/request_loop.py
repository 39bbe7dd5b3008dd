"""The loop that keeps an engine busy: requests in, replies out, each journalled and followed by another or by none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Protocol, TypeVar

from pbeauty.game.records import Progress
from pbeauty.llm.engine import Engine, Reply
from pbeauty.storage.journal import Journal, Record, ReplayedReplies

QUEUE_DEPTH = 2
"""Requests in flight, as a multiple of those the engine runs at once: enough that its batch never thins out."""


@dataclass(slots=True)
class Request:
    """One call to the engine for a participant."""

    participant: int
    """Id."""
    number: int
    """Which of the participant's calls of the round this is, from 0; with the id it names the call on record."""
    prompt: list[int]
    params: Any
    """vLLM's sampling parameters."""
    seed: int | None
    """None leaves the draw to the engine."""


R = TypeVar("R", bound=Request)


class RequestSource(Protocol[R]):
    """Who knows what is to be asked, and what to make of a reply."""

    def waiting(self) -> Iterator[R]:
        """Everybody's first request, made when there is room for it."""
        ...

    def take(self, request: R, reply: Reply) -> R | None:
        """Makes something of a reply; the request that follows from it, None where the participant is done."""
        ...


def drive(
    engine: Engine,
    asker: RequestSource[R],
    progress: Progress,
    tick: Callable[[Progress], bool],
    journal: Journal | None = None,
    recorded: ReplayedReplies | None = None,
) -> bool:
    """Asks until nobody waits any more, in one running batch, never waiting for more than the next finished reply.

    Args:
        engine: with nothing in flight.
        asker: whose requests these are.
        progress: of tokens, kept up to date; the asker counts who is done.
        tick: called after every step; False breaks it off.
        journal: takes down every reply as it comes, before anything is made of it.
        recorded: replies from before an interruption; the engine never sees those calls.

    Returns:
        Whether it came to its end.
    """
    waiting, keys = asker.waiting(), count()
    flying: dict[int, R] = {}
    on_record: list[tuple[int, Record]] = []

    def send(request: R) -> None:
        key = next(keys)
        flying[key] = request
        if recorded and (record := recorded.get(request.participant, request.number)):
            on_record.append((key, record))
        else:
            engine.submit(key, request.prompt, request.params, request.seed)

    def take(reply: Reply) -> None:
        request = flying.pop(reply.key)
        progress.prompt_tokens += reply.prompt_tokens
        progress.output_tokens += len(reply.tokens)
        if (following := asker.take(request, reply)) is not None:
            send(following)

    while True:
        for request in islice(waiting, max(0, QUEUE_DEPTH * engine.max_num_seqs - len(flying))):
            send(request)
        if not flying:
            return True
        recalled = _replies(engine, on_record)
        on_record.clear()
        for reply in recalled:
            take(reply)
        finished = engine.step() if engine.in_flight else []
        if journal and finished:
            for reply in finished:
                journal.append(_record(flying[reply.key], reply))
            journal.flush()
        for reply in finished:
            take(reply)
        if not tick(progress):
            engine.abort()
            return False


def _replies(engine: Engine, records: list[tuple[int, Record]]) -> list[Reply]:
    """What an engine would have answered, had it been asked again."""
    texts = engine.decode([record.tokens for _, record in records]) if records else []
    return [
        Reply(key, record.tokens, text, record.truncated, record.prompt_tokens, record.cached_tokens)
        for (key, record), text in zip(records, texts, strict=True)
    ]


def _record(request: Request, reply: Reply) -> Record:
    """What a journal keeps of a reply."""
    return Record(
        request.participant, request.number, reply.truncated, reply.prompt_tokens, reply.cached_tokens, reply.tokens
    )
