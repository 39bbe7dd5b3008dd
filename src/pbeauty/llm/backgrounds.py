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


def wanted(participants: LLMParticipants) -> NDArray[np.int64]:
    """The slots whose background is to be written by the model, and has not been."""
    writing = [index for index, group in enumerate(participants.experiment.population) if group.writer]
    if participants.personas is None:
        return np.empty(0, np.int64)
    return np.flatnonzero(np.isin(participants.group_of, writing) & (participants.personas.row < 0))


def write(participants: LLMParticipants, slots: NDArray[np.int64], loop: RequestLoop) -> Backgrounds | None:
    """Asks for each slot's background, and again, as often as its group allows, where a reply cannot be used.

    Args:
        participants: whose.
        slots: int64[some], ascending.
        loop: around the participants' engine; in its progress those without a usable reply are `unusable`.

    Returns:
        One for each slot, in their order: what the model wrote, or, where no reply could be used, the attributes in
        words. None where it did not come to its end.
    """
    loop.progress.total = len(slots)
    writing, made = _Writing(participants, slots, loop.progress), Backgrounds()
    if not loop.run(writing):
        return None
    for slot in slots.tolist():
        text, source = writing.texts.get(slot), Source.WRITTEN
        if text is None:
            writer, attributes = _asked_for(participants, slot)
            text, source = attributes_in_words(writer.language, attributes) + ".", Source.IN_WORDS
        made.participant.append(int(participants.ids[slot]))
        made.text.append(text.encode("utf-8", errors="replace"))
        made.source.append(source)
    return made


@dataclass(slots=True)
class _WritingCall(Request):
    """A request for a background; its number is how often it has been made before."""

    slot: int


class _Writing:
    """Everybody's background is asked for once, and again where the reply cannot be used."""

    def __init__(self, participants: LLMParticipants, slots: NDArray[np.int64], progress: Progress) -> None:
        self._participants, self._slots, self._progress = participants, slots, progress
        experiment, template = participants.experiment, participants.template
        self._params = {
            index: participants.engine.sampling_params(writing_sampling(experiment, template, group.writer))
            for index, group in enumerate(experiment.population)
            if group.writer
        }
        self.texts: dict[int, str] = {}
        """The usable backgrounds, by slot."""

    def first_requests(self) -> Iterator[_WritingCall]:
        """What everybody is asked first."""
        return (self._call(slot, attempt=0) for slot in self._slots.tolist())

    def on_reply(self, call: _WritingCall, reply: Reply) -> _WritingCall | None:
        """Keeps the background, or asks for it again, as often as the group allows."""
        writer, _ = _asked_for(self._participants, call.slot)
        text = " ".join(self._participants.template.reasoning.split(reply.tokens, reply.text).text.split())
        if not reply.truncated and usable(text, writer):
            self.texts[call.slot] = text
        elif call.number < writer.retries:
            return self._call(call.slot, call.number + 1)
        else:
            self._progress.unusable += 1
        self._progress.done += 1
        return None

    def _call(self, slot: int, attempt: int) -> _WritingCall:
        llm = self._participants
        writer, attributes = _asked_for(llm, slot)
        prompt = llm.template.question(background_request(writer.language, attributes, again=attempt > 0))
        params, seed = self._params[int(llm.group_of[slot])], llm.seed(f"background-{attempt}", 0, slot)
        return _WritingCall(int(llm.ids[slot]), attempt, prompt, params, seed, slot)


def usable(text: str, writer: Writer) -> bool:
    """Whether a reply is a background: long enough, and in the script of its language."""
    letters = [character for character in text if character.isalpha()]
    if len(text) < writer.min_chars or not letters:
        return False
    han = sum(unicodedata.name(character, "").startswith("CJK") for character in letters) / len(letters)
    return han >= 1 - 3 * _OTHER_SCRIPT if writer.language == "zh" else han <= _OTHER_SCRIPT


def _asked_for(participants: LLMParticipants, slot: int) -> tuple[Writer, dict[str, str]]:
    """How the background at a slot is to be written, and from which attributes."""
    writer = participants.group_settings(slot).group.writer
    assert writer is not None and participants.personas is not None  # only such groups are asked
    return writer, participants.personas.attributes(slot)
