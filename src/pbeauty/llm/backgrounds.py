"""Backgrounds that models write before the first round: asked for like a round, checked, asked for again."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pbeauty.game.experiment import Writer
from pbeauty.game.personas import Source
from pbeauty.game.prompts import attributes_in_words, background_request
from pbeauty.game.randomness import seeds
from pbeauty.game.records import Progress, Ragged, Reply
from pbeauty.llm.context_size import writing_sampling
from pbeauty.llm.conversations import LLMParticipants
from pbeauty.llm.request_loop import Request, RequestLoop

_OTHER_SCRIPT = 0.1
"""Share of letters that may be of another script than the language's."""


@dataclass
class Backgrounds:
    """What came of asking models for backgrounds, participant by participant."""

    participant: list[int] = field(default_factory=list)
    """Ids."""
    text: Ragged = field(default_factory=lambda: Ragged(np.uint8))
    """UTF-8."""
    source: list[int] = field(default_factory=list)
    """`Source.WRITTEN` or `Source.IN_WORDS`."""

    def __len__(self) -> int:
        return len(self.participant)


def wanted(block: LLMParticipants) -> NDArray[np.int64]:
    """The slots whose background is to be written by the model, and has not been."""
    writing = [index for index, group in enumerate(block.experiment.population) if group.writer]
    if block.personas is None:
        return np.empty(0, np.int64)
    return np.flatnonzero(np.isin(block.group_of, writing) & (block.personas.row < 0))


def write(block: LLMParticipants, slots: NDArray[np.int64], loop: RequestLoop) -> Backgrounds | None:
    """Asks for each slot's background, and again, as often as its group allows, where a reply cannot be used.

    Args:
        block: whose.
        slots: int64[some], ascending.
        loop: around the participants' engine; in its progress those without a usable reply are `unusable`.

    Returns:
        One for each slot, in their order: what the model wrote, or, where no reply could be used, the attributes in
        words. None where it did not come to its end.
    """
    loop.progress.total = len(slots)
    writing, made = _Writing(block, slots, loop.progress), Backgrounds()
    if not loop.run(writing):
        return None
    for slot in slots.tolist():
        text = writing.texts.get(slot)
        made.participant.append(int(block.ids[slot]))
        made.text.append((in_words(block, slot) if text is None else text).encode("utf-8", errors="replace"))
        made.source.append(Source.IN_WORDS if text is None else Source.WRITTEN)
    return made


@dataclass(slots=True)
class _WritingCall(Request):
    """A request for a background; its number is how often it has been made before."""

    slot: int


class _Writing:
    """Everybody's background is asked for once, and again where the reply cannot be used."""

    def __init__(self, block: LLMParticipants, slots: NDArray[np.int64], progress: Progress) -> None:
        self._block, self._slots, self._progress = block, slots, progress
        self._params = {
            index: block.engine.sampling_params(writing_sampling(block.experiment, block.template, group.writer))
            for index, group in enumerate(block.experiment.population)
            if group.writer
        }
        self.texts: dict[int, str] = {}
        """The usable backgrounds, by slot."""

    def first_requests(self) -> Iterator[_WritingCall]:
        """What everybody is asked first."""
        for slot in self._slots.tolist():
            yield self._call(slot, attempt=0)

    def on_reply(self, call: _WritingCall, reply: Reply) -> _WritingCall | None:
        """Keeps the background, or asks for it again, as often as the group allows."""
        found, _ = _asked_for(self._block, call.slot)
        text = " ".join(self._block.template.reasoning.split(reply.tokens, reply.text).text.split())
        if not reply.truncated and usable(text, found):
            self.texts[call.slot] = text
        elif call.number < found.retries:
            return self._call(call.slot, call.number + 1)
        else:
            self._progress.unusable += 1
        self._progress.done += 1
        return None

    def _call(self, slot: int, attempt: int) -> _WritingCall:
        block = self._block
        participant = int(block.ids[slot])
        seed = None
        if block.experiment.seeding == "request":
            stream = f"background-{attempt}"
            seed = int(seeds(block.experiment.seed, stream, 0, block.ids[slot : slot + 1])[0])
        params = self._params[int(block.group_of[slot])]
        writer, attributes = _asked_for(block, slot)
        prompt = block.template.question(background_request(writer.language, attributes, again=attempt > 0))
        return _WritingCall(participant, attempt, prompt, params, seed, slot)


def usable(text: str, found: Writer) -> bool:
    """Whether a reply is a background: long enough, and in the script of its language."""
    letters = [character for character in text if character.isalpha()]
    if len(text) < found.min_chars or not letters:
        return False
    han = sum(unicodedata.name(character, "").startswith("CJK") for character in letters) / len(letters)
    return han >= 1 - 3 * _OTHER_SCRIPT if found.language == "zh" else han <= _OTHER_SCRIPT


def in_words(block: LLMParticipants, slot: int) -> str:
    """What stands in for a background that could not be written: the attributes."""
    writer, attributes = _asked_for(block, slot)
    return attributes_in_words(writer.language, attributes) + "."


def _asked_for(block: LLMParticipants, slot: int) -> tuple[Writer, dict[str, str]]:
    """How the background at a slot is to be written, and from which attributes."""
    writer = block.group_settings(slot).group.writer
    assert writer is not None and block.personas is not None  # only such groups are asked
    return writer, block.personas.attributes(slot)
