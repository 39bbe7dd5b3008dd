"""A model's chat template, seen as token ids that only ever grow.

A participant's prompt is the opening (system and first user message), then alternately the participant's own
reply, exactly as it was sampled, and the next turn. Every prompt is therefore an extension of the one before,
token for token, and the engine's prefix cache serves all but its end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from pbeauty.errors import ConfigError
from pbeauty.llm.reasoning import Reasoning

ChatMessage = dict[str, str]

_MARK = "\u2402reply\u2403"
"""Stands for a reply while a template is taken apart; no template alters such a word."""


class ChatTemplate:
    """Renders the turns of one tokenizer's chat template; `turn` remembers those of equal texts."""

    def __init__(
        self,
        tokenizer: Any,
        arguments: Mapping[str, Any] | None = None,
        reasoning_parser: str | None = None,
        date: datetime | None = None,
    ) -> None:
        """Takes the template of a model's tokenizer apart.

        Args:
            arguments: of the template itself, such as `enable_thinking`.
            reasoning_parser: vLLM's name of what splits replies; None to find it.
            date: what the template takes for today; None for the day it is.

        Raises:
            ConfigError: if the tokenizer has no chat template, or the template fails.
        """
        self.tokenizer, self._arguments, self._reasoning_parser = tokenizer, dict(arguments or {}), reasoning_parser
        # A variable hides the function of the same name that templates otherwise ask for the date.
        self._variables = self._arguments | ({"strftime_now": date.strftime} if date else {})
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigError(
                f"the tokenizer in {tokenizer.name_or_path} has no chat template; use an instruction-tuned "
                "checkpoint, or add a chat_template.jinja to the folder"
            )
        try:
            prompt = self._render([_user("user")])
        except Exception as error:  # templates are programs of their own, and fail in their own ways
            raise ConfigError(f"the chat template in {tokenizer.name_or_path} fails: {error}") from error
        without = self._render([_user("user")], add_generation_prompt=False)
        self.reasoning = Reasoning(tokenizer, prompt.removeprefix(without), reasoning_parser)
        """How replies are split into thought and answer."""
        self.merges_system_prompt = not self._keeps_system()
        """Whether the template has no system role, so that system prompts open the first user message."""
        self.is_append_only = self._is_append_only()
        """Whether conversations grow token by token. Some templates rewrite earlier turns; theirs are rendered anew."""
        self.turn = cache(self.uncached_turn)

    def dated(self, date: datetime) -> ChatTemplate:
        """The same template on another day."""
        return ChatTemplate(self.tokenizer, self._arguments, self._reasoning_parser, date)

    def notes(self) -> list[str]:
        """What a person should know about how this template is used, in sentences without a full stop."""
        notes = self.reasoning.notes()
        if self.merges_system_prompt:
            notes.append("the chat template has no system role: the system prompt opens the first user message")
        if not self.is_append_only:
            notes.append("the chat template rewrites earlier turns: conversations are rendered anew every round")
        return notes

    def end_of_turn(self) -> list[int]:
        """The token that ends a reply in the template's own rendering; empty where no token of its own does."""
        rendered = self._render([*self._first("system", "user"), _assistant(_MARK)], add_generation_prompt=False)
        special = set(self.tokenizer.get_added_vocab().values())
        return [token for token in self._encode(rendered.rpartition(_MARK)[2]) if token in special][:1]

    def whole(self, system: str | None, user_texts: Sequence[str], replies: Sequence[list[int]]) -> list[int]:
        """Token ids of a whole conversation, rendered by the template: one user message more than replies."""
        messages = self._first(system, user_texts[0])
        for tokens, user in zip(replies, user_texts[1:], strict=True):
            text = self.reasoning.decode([tokens])[0]
            answer = self.reasoning.split(tokens, text)
            reply = _assistant(answer.text, answer.thought) if self.reasoning.parser else _assistant(text)
            messages += [reply, _user(user)]
        return self._encode(self._render(messages))

    def question(self, user: str) -> list[int]:
        """Token ids of a conversation of one message, without a system prompt."""
        return self.opening(None, user)

    def opening(self, system: str | None, user: str) -> list[int]:
        """Token ids of the first prompt of a conversation."""
        return self._encode(self._render(self._first(system, user)))

    def uncached_turn(self, user: str) -> list[int]:
        """Token ids that follow a reply: the end of the reply's turn, the next user message, the prompt to answer."""
        rendered = self._render([*self._first("system", "user"), _assistant(_MARK), _user(user)])
        return self._encode(rendered.rpartition(_MARK)[2])

    def _first(self, system: str | None, user: str) -> list[ChatMessage]:
        if system is None:
            return [_user(user)]
        if self.merges_system_prompt:
            return [_user(f"{system}\n\n{user}")]
        return [{"role": "system", "content": system}, _user(user)]

    def _keeps_system(self) -> bool:
        try:
            return _MARK in self._render([{"role": "system", "content": _MARK}, _user("user")])
        except Exception:  # templates refuse roles with errors of their own making
            return False

    def _is_append_only(self) -> bool:
        first = self._first("system", "user")
        thoughts = ("", "thought") if self.reasoning.parser else ("",)
        longer = (self._render([*first, _assistant(_MARK, thought), _user("user")]) for thought in thoughts)
        return all(rendered.startswith(self._render(first) + _MARK) for rendered in longer)

    def _render(self, messages: list[ChatMessage], add_generation_prompt: bool = True) -> str:
        return self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt, **self._variables
        )

    def _encode(self, text: str) -> list[int]:
        # The template has written every special token, the first included.
        return self.tokenizer.encode(text, add_special_tokens=False)


def _user(text: str) -> ChatMessage:
    return {"role": "user", "content": text}


def _assistant(text: str, thought: str = "") -> ChatMessage:
    """A reply; its thought under the names that templates know it by, to keep or to drop."""
    thoughts = {"reasoning_content": thought, "thinking": thought} if thought else {}
    return {"role": "assistant", "content": text, **thoughts}
