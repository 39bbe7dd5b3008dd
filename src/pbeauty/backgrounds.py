"""Backgrounds that models write before the first round: asked for like a round, checked, asked for again."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pbeauty.asking import QUEUE_DEPTH
from pbeauty.config import LLMGroup, Sampling, Writer
from pbeauty.engine import Reply
from pbeauty.journal import Journal, Record, Recorded
from pbeauty.llm import LLMParticipants
from pbeauty.prompts import WRITING, background_request
from pbeauty.randomness import seeds
from pbeauty.records import Progress, Purpose, Replies

_OTHER_SCRIPT = 0.1
"""Share of letters that may be of another script than the language's."""


def wanted(block: LLMParticipants) -> NDArray[np.int64]:
    """The seats whose background is to be written by the model, and has not been."""
    groups = block.experiment.population
    writing = [index for index, group in enumerate(groups) if writer(group) is not None]
    if block.cast is None:
        return np.empty(0, np.int64)
    return np.flatnonzero(np.isin(block.group_of, writing) & (block.cast.row < 0))


def writer(group: object) -> Writer | None:
    """How a group's backgrounds are to be written; None where they are not."""
    return group.personas.write if isinstance(group, LLMGroup) and group.personas else None


def write(
    block: LLMParticipants,
    seats: NDArray[np.int64],
    texts: Replies,
    progress: Progress,
    tick: Callable[[Progress], bool],
    journal: Journal | None = None,
    recorded: Recorded | None = None,
) -> bool:
    """Asks for each seat's background, and again, as often as its group allows, where a reply cannot be used.

    Args:
        block: whose.
        seats: int64[some], ascending.
        texts: gets one entry per seat, in their order: the background (`Purpose.ANSWER`), or, where no reply could be
            used, the attributes in words (`Purpose.RETRY`).
        progress: kept up to date; those without a usable reply are `unusable`.
        tick: called after every step; False breaks it off.
        journal: takes down every reply as it comes.
        recorded: replies from before an interruption; those calls are not made again.

    Returns:
        Whether it came to its end.
    """
    engine = block.engine
    progress.total = len(seats)
    params = {
        index: engine.sampling_params(Sampling(temperature=found.temperature, max_tokens=found.max_tokens))
        for index, group in enumerate(block.experiment.population)
        if (found := writer(group)) is not None
    }
    attempts = np.zeros(len(seats), np.int64)
    said: list[str | None] = [None] * len(seats)
    waiting = iter(range(len(seats)))
    flying: set[int] = set()
    recalled: list[Reply] = []

    def ask(key: int) -> None:
        seat, attempt = int(seats[key]), int(attempts[key])
        participant = int(block.ids[seat])
        flying.add(key)
        if recorded and (record := recorded.get(participant, attempt)):
            text = engine.decode([record.tokens])[0]
            tokens, prompt_tokens, cached = record.tokens, record.prompt_tokens, record.cached_tokens
            recalled.append(Reply(key, tokens, text, record.truncated, prompt_tokens, cached))
            return
        (seed,) = seeds(block.experiment.seed, f"background-{attempt}", 0, participant, participant + 1)
        by_request = block.experiment.seeding == "request"
        engine.submit(
            key, _prompt(block, seat, attempt), params[int(block.group_of[seat])], int(seed) if by_request else None
        )

    def take(reply: Reply) -> None:
        key = reply.key
        found = writer(block.seating(int(seats[key])).group)
        assert found is not None  # only such groups are asked
        flying.discard(key)
        progress.prompt_tokens += reply.prompt_tokens
        progress.output_tokens += len(reply.tokens)
        text = " ".join(reply.text.split())
        if not reply.truncated and usable(text, found):
            said[key] = text
        elif attempts[key] < found.retries:
            attempts[key] += 1
            ask(key)
            return
        else:
            progress.unusable += 1
        progress.done += 1

    while progress.done < len(seats):
        for key in islice(waiting, max(0, QUEUE_DEPTH * engine.max_num_seqs - len(flying))):
            ask(key)
        while recalled:
            take(recalled.pop())
        finished = engine.step() if engine.in_flight else []
        if journal and finished:
            for reply in finished:
                participant = int(block.ids[seats[reply.key]])
                journal.append(
                    Record(
                        participant,
                        int(attempts[reply.key]),
                        reply.truncated,
                        reply.prompt_tokens,
                        reply.cached_tokens,
                        reply.tokens,
                    )
                )
            journal.flush()
        for reply in finished:
            take(reply)
        if not tick(progress):
            engine.abort()
            return False
    for seat, text in zip(seats.tolist(), said, strict=True):
        purpose = Purpose.RETRY if text is None else Purpose.ANSWER
        texts.append(int(block.ids[seat]), purpose, in_words(block, seat) if text is None else text, [])
    return True


def usable(text: str, found: Writer) -> bool:
    """Whether a reply is a background: long enough, and in the script of its language."""
    letters = [character for character in text if character.isalpha()]
    if len(text) < found.min_chars or not letters:
        return False
    han = sum(unicodedata.name(character, "").startswith("CJK") for character in letters) / len(letters)
    return han >= 1 - 3 * _OTHER_SCRIPT if found.language == "zh" else han <= _OTHER_SCRIPT


def in_words(block: LLMParticipants, seat: int) -> str:
    """What stands in for a background that could not be written: the attributes."""
    found = writer(block.seating(seat).group)
    writing = WRITING[found.language if found else "en"]
    pairs: Sequence[tuple[str, str]] = list(block.cast.attributes(seat).items()) if block.cast else []
    return writing.separator.join(writing.pair.format(name=name.replace("_", " "), value=v) for name, v in pairs) + "."


def _prompt(block: LLMParticipants, seat: int, attempt: int) -> list[int]:
    found = writer(block.seating(seat).group)
    assert found is not None and block.cast is not None
    text = background_request(found.language, block.cast.attributes(seat))
    return block.conversation.question(f"{text} {WRITING[found.language].again}" if attempt else text)
