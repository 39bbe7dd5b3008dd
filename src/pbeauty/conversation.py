"""A model's chat template, seen as token ids that only ever grow.

A participant's prompt is the opening (system and first user message), then alternately the participant's own
reply, exactly as it was sampled, and the next turn. Every prompt is therefore an extension of the one before,
token for token, and the engine's prefix cache serves all but its end.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pbeauty.config import ConfigError

Message = dict[str, str]

_MARK = "\u2402reply\u2403"
"""Stands for a reply while a template is taken apart; no template alters such a word."""


class Conversation:
    """Renders the turns of one tokenizer's chat template; equal texts are rendered once."""

    def __init__(self, tokenizer: Any) -> None:
        """Takes the template apart and checks that conversations extend.

        Raises:
            ConfigError: if the tokenizer has no chat template, or one whose conversations do not extend.
        """
        self._tokenizer = tokenizer
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigError(
                f"the tokenizer in {tokenizer.name_or_path} has no chat template; use an instruction-tuned "
                "checkpoint, or add a chat_template.jinja to the folder"
            )
        self.folds_system = not self._keeps_system()
        """Whether the template has no system role, so that system prompts open the first user message."""
        self.opening = cache(self._opening)
        self.turn = cache(self._turn)
        if not self._extends():
            raise ConfigError(
                f"the chat template in {tokenizer.name_or_path} rewrites earlier turns when the conversation goes on, "
                "so histories cannot grow token by token; use a template that leaves them as they are"
            )

    def _opening(self, system: str, user: str) -> list[int]:
        """Token ids of the first prompt of a conversation."""
        return self._encode(self._render(self._first(system, user)))

    def _turn(self, user: str) -> list[int]:
        """Token ids that follow a reply: the end of the reply's turn, the next user message, the prompt to answer."""
        rendered = self._render([*self._first("system", "user"), _said(_MARK), _asked(user)])
        return self._encode(rendered.rpartition(_MARK)[2])

    def _first(self, system: str, user: str) -> list[Message]:
        if self.folds_system:
            return [_asked(f"{system}\n\n{user}")]
        return [{"role": "system", "content": system}, _asked(user)]

    def _keeps_system(self) -> bool:
        try:
            return _MARK in self._render([{"role": "system", "content": _MARK}, _asked("user")])
        except Exception:  # templates refuse roles with errors of their own making
            return False

    def _extends(self) -> bool:
        before = self._render(self._first("system", "user"))
        after = self._render([*self._first("system", "user"), _said(_MARK), _asked("user")])
        return after.startswith(before + _MARK)

    def _render(self, messages: list[Message]) -> str:
        return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _encode(self, text: str) -> list[int]:
        # The template has written every special token, the first included.
        return self._tokenizer.encode(text, add_special_tokens=False)


def _asked(text: str) -> Message:
    return {"role": "user", "content": text}


def _said(text: str) -> Message:
    return {"role": "assistant", "content": text}
