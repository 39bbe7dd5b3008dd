"""Telling a reply's answer from the thought before it.

Models that think mark their thought with tags, which may be tokens of their own that a decoder leaves out. Which tags a
family of models uses is known to vLLM's reasoning parsers; the family is named in the experiment
(`models.*.reasoning_parser`) or found by the tags in the chat template and the tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from pbeauty.errors import ConfigError, nearest

USUAL_FAMILIES = {
    "openai_gptoss": ("<|channel|>", "<|channel|>final<|message|>"),
    "gemma4": ("<|channel>", "<channel|>"),
    "mistral": ("[THINK]", "[/THINK]"),
    "seed_oss": ("<seed:think>", "</seed:think>"),
    "cohere_command3": ("<|START_THINKING|>", "<|END_THINKING|>"),
    "deepseek_r1": ("<think>", "</think>"),
}
"""By vLLM's name of the reasoning parser: the tags before a thought, and before the answer that follows it."""
_ANY_START, _ANY_END = (rf"<{slash}(?:think|thinking|thought|reasoning)>" for slash in ("", "/"))
"""What a model of no known family may write all the same."""


class Answer(NamedTuple):
    """The part of a reply that is not thought."""

    tokens: list[int]
    text: str
    thought: str = ""
    complete: bool = True
    """False where the reply ends inside a thought, so that there is no answer."""


class Reasoning:
    """How one model marks its thoughts."""

    def __init__(self, tokenizer: Any, generation_prompt: str, parser: str | None = None) -> None:
        """Finds the tags: those of vLLM's reasoning parser, or by the tokenizer and its chat template.

        Every prompt ends with `generation_prompt`; a reply may begin inside a thought.

        Raises:
            ConfigError: if vLLM has no parser of this name, or the parser does not go with this tokenizer.
        """
        self._tokenizer = tokenizer
        self._reader: Any = None  # vLLM's parser, where it names no tags and reads texts
        marks = [str(tokenizer.chat_template), *tokenizer.get_added_vocab()]
        found = (name for name, tags in USUAL_FAMILIES.items() if any(tag in mark for tag in tags for mark in marks))
        self.parser = parser or next(found, None)
        """vLLM's name of the parser for the model's family; None where the model is not known to think."""
        tags = self._tags_of(parser) if parser else USUAL_FAMILIES.get(self.parser or "")
        self._start = re.compile(re.escape(tags[0]) if tags else _ANY_START)
        self._end = re.compile(re.escape(tags[1]) if tags else _ANY_END)
        start_ids, self._end_ids = (self._isolated(tag) for tag in tags or ("", ""))
        self._tag_ids = {start_ids[0], self._end_ids[0]} if start_ids and self._end_ids else set()
        self._begins_inside = False
        self._begins_inside = bool(tags) and not self.split([], generation_prompt).complete

    def notes(self) -> list[str]:
        """What a person should know about how replies are split."""
        known = f"replies are split into thought and answer by the tags of vLLM's reasoning parser {self.parser}"
        return [known] if self.parser else []

    def decode(self, replies: Sequence[Sequence[int]]) -> list[str]:
        """The texts of replies; of a model that thinks with its special tokens, since tags may be among them."""
        return self._tokenizer.batch_decode(replies, skip_special_tokens=not self.parser)

    def split(self, tokens: list[int], text: str) -> Answer:
        """Splits a reply, of which `text` is what `decode` gives."""
        if self._reader:
            thought, answer = (part or "" for part in self._reader.extract_reasoning(text, None))
            tokens = tokens if answer == text else self._encode(answer := answer.strip())
            return Answer(tokens, answer, thought, complete=bool(answer))
        ends = list(self._end.finditer(text))
        before, after = (text[: ends[-1].start()], text[ends[-1].end() :].strip()) if ends else ("", text)
        if self._start.search(after) or (self._begins_inside and not ends):
            return Answer([], "", text, complete=False)
        if not ends:
            return Answer(tokens, text)
        thought = self._start.sub("", before).strip()
        if not self.parser:
            return Answer(tokens, after, thought)  # a template that knows no thoughts keeps replies as they are
        return Answer(self._after_end(tokens) or self._encode(after), after, thought)

    def answer_tokens(self, tokens: list[int]) -> list[int]:
        """The token ids of a reply's answer, which conversations go on from."""
        if not self.parser or (self._tag_ids and not self._begins_inside and self._tag_ids.isdisjoint(tokens)):
            return tokens
        return self._after_end(tokens) or self.split(tokens, self.decode([tokens])[0]).tokens

    def _after_end(self, tokens: list[int]) -> list[int]:
        """What follows the last end of a thought; empty where none is found among the token ids."""
        size = len(self._end_ids)
        for begin in range(len(tokens), size - 1, -1) if size else ():
            if tokens[begin - size : begin] == self._end_ids:
                return tokens[begin:]
        return []

    def _isolated(self, tag: str) -> list[int]:
        """The token ids of a tag that text around it cannot become one token with; empty where it could."""
        ids, own = self._encode(tag), set(self._tokenizer.get_added_vocab().values())
        return ids if ids and {ids[0], ids[-1]} <= own else []

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _tags_of(self, parser: str) -> tuple[str, str] | None:
        """The tags that vLLM's parser of this name goes by; None where it reads whole texts."""
        if parser in USUAL_FAMILIES:
            return USUAL_FAMILIES[parser]
        from vllm.reasoning import ReasoningParserManager

        check_parser(parser)
        try:
            made = ReasoningParserManager.get_reasoning_parser(parser)(self._tokenizer)
        except Exception as error:  # each parser has its own way to refuse a tokenizer
            raise ConfigError(f"reasoning_parser {parser}: it does not go with this tokenizer: {error}") from error
        if made.reasoning_start_str and made.reasoning_end_str:
            return made.reasoning_start_str, made.reasoning_end_str
        self._reader = made
        return None


def check_parser(parser: str) -> None:
    """Refuses (ConfigError) a reasoning parser that vLLM does not have."""
    from vllm.reasoning import ReasoningParserManager

    known = ReasoningParserManager.list_registered()
    if parser not in known:
        raise ConfigError(f"reasoning_parser: vLLM has none of the name {parser!r}{nearest(parser, known)}")
