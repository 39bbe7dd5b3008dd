"""A model's chat template, seen as token ids that only ever grow.

A participant's prompt is the opening (system and first user message), then alternately the participant's own
reply, exactly as it was sampled, and the next turn. Every prompt is therefore an extension of the one before,
token for token, and the engine's prefix cache serves all but its end.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pbeauty.errors import ConfigError

Message = dict[str, str]

_MARK = "\u2402reply\u2403"
"""Stands for a reply while a template is taken apart; no template alters such a word."""


class Conversation:
    """Renders the turns of one tokenizer's chat template; equal texts are rendered once."""

    def __init__(self, tokenizer: Any) -> None:
        """Takes the template apart.

        Raises:
            ConfigError: if the tokenizer has no chat template.
        """
        self._tokenizer = tokenizer
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigError(
                f"the tokenizer in {tokenizer.name_or_path} has no chat template; use an instruction-tuned "
                "checkpoint, or add a chat_template.jinja to the folder"
            )
        try:
            self._render([_asked("user")])
        except Exception as error:  # templates are programs of their own, and fail in their own ways
            raise ConfigError(f"the chat template in {tokenizer.name_or_path} fails: {error}") from error
        self.merges_system_prompt = not self._keeps_system()
        """Whether the template has no system role, so that system prompts open the first user message."""
        self.is_append_only = self._extends()
        """Whether conversations grow token by token. Some templates rewrite earlier turns; theirs are rendered anew."""
        self.opening = cache(self._opening)
        self.turn = cache(self._turn)

    def notes(self) -> list[str]:
        """What a person should know about how this template is used, in sentences without a full stop."""
        notes = []
        if self.merges_system_prompt:
            notes.append("the chat template has no system role: the system prompt opens the first user message")
        if not self.is_append_only:
            notes.append("the chat template rewrites earlier turns: conversations are rendered anew every round")
        return notes

    def whole(self, system: str | None, asked: list[str], said: list[list[int]]) -> list[int]:
        """Token ids of a whole conversation, rendered by the template from its texts.

        Args:
            system: the system prompt.
            asked: user messages, one more than replies.
            said: token ids of the replies between them.
        """
        messages = self._first(system, asked[0])
        for tokens, user in zip(said, asked[1:], strict=True):
            messages += [_said(self._tokenizer.decode(tokens, skip_special_tokens=True)), _asked(user)]
        return self._encode(self._render(messages))

    def question(self, user: str) -> list[int]:
        """Token ids of a conversation of one message, without a system prompt; not kept, since each is another."""
        return self._opening(None, user)

    def opening_of_one(self, system: str, user: str) -> list[int]:
        """As `opening`, of texts that one participant alone is told; not kept."""
        return self._opening(system, user)

    def turn_of_one(self, user: str) -> list[int]:
        """As `turn`, of a text that one participant alone is told; not kept."""
        return self._turn(user)

    def _opening(self, system: str | None, user: str) -> list[int]:
        """Token ids of the first prompt of a conversation."""
        return self._encode(self._render(self._first(system, user)))

    def _turn(self, user: str) -> list[int]:
        """Token ids that follow a reply: the end of the reply's turn, the next user message, the prompt to answer."""
        rendered = self._render([*self._first("system", "user"), _said(_MARK), _asked(user)])
        return self._encode(rendered.rpartition(_MARK)[2])

    def _first(self, system: str | None, user: str) -> list[Message]:
        if system is None:
            return [_asked(user)]
        if self.merges_system_prompt:
            return [_asked(f"{system}\n\n{user}")]
        return [{"role": "system", "content": system}, _asked(user)]

    def _keeps_system(self) -> bool:
        try:
            return _MARK in self._render([{"role": "system", "content": _MARK}, _asked("user")])
        except Exception:  # templates refuse roles with errors of their own making
            return False

    def _extends(self) -> bool:
        before = self._render(self._first("system", "user"))
        for reply in (_MARK, f"<think>thought</think>{_MARK}"):
            after = self._render([*self._first("system", "user"), _said(reply), _asked("user")])
            if not after.startswith(before + reply):
                return False
        return True

    def _render(self, messages: list[Message]) -> str:
        return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _encode(self, text: str) -> list[int]:
        # The template has written every special token, the first included.
        return self._tokenizer.encode(text, add_special_tokens=False)


def _asked(text: str) -> Message:
    return {"role": "user", "content": text}


def _said(text: str) -> Message:
    return {"role": "assistant", "content": text}
