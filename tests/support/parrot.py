"""`pbeauty` with an engine that needs no model: `python tests/support/parrot.py run CONFIG ...`, under mpirun or not.

For tests of what surrounds an engine (journal, resume, conversations), hundreds of starts in a row. A parrot's
reply is a function of its prompt and its seed alone, takes a few steps, and is unreadable now and then. Token ids are
bytes.

Several commands are played one after another (`in_turn`). With PARROT_REPLIES=N in the environment the
parrot of each rank falls silent after N replies.
"""

from __future__ import annotations

import os
import random
import sys
import time
import zlib

from in_turn import play_first

import pbeauty.job.runner
from pbeauty.cli.main import main
from pbeauty.game.records import Reply
from pbeauty.llm.chat_template import ChatTemplate


class Tokenizer:
    """Bytes as token ids, and a chat template that extends."""

    name_or_path = "parrot"
    chat_template = "parrot"

    def apply_chat_template(self, messages, tokenize, add_generation_prompt, **variables):
        turns = "".join(f"<{m['role']}>{m['content']}</>" for m in messages)
        return turns + ("<assistant>" if add_generation_prompt else "")

    def get_added_vocab(self):
        return {}

    def encode(self, text, add_special_tokens):
        return list(text.encode())

    def batch_decode(self, replies, skip_special_tokens):
        return [bytes(tokens).decode(errors="replace") for tokens in replies]


class Engine:
    """The interface of `pbeauty.llm.engine.Engine`."""

    max_model_len = 100_000
    max_num_seqs = 8

    vocabulary = 256
    notes = ()

    def __init__(self, model, place, seed, needed_context=None):
        self.template = ChatTemplate(Tokenizer())
        self.gpus = []
        self.arguments, self.resolved = {"model": "parrot"}, {}
        self._waiting = {}
        self._left = int(os.environ.get("PARROT_REPLIES", sys.maxsize))

    @property
    def in_flight(self):
        return len(self._waiting)

    def sampling_params(self, sampling, guided=None):
        return sampling

    def submit(self, key, prompt, params, seed):
        draw = random.Random(f"{zlib.crc32(bytes(prompt))}/{seed}")
        text = draw.choice(["no idea", "oh, whatever", str(draw.randint(101, 999))])
        if draw.random() > 0.15:
            text = f"My number: {draw.randint(0, 100)}"
        asked = bytes(prompt).decode(errors="replace")
        if "Invent a person" in asked or "\u8bf7" in asked:
            text = self.background(draw, "\u8bf7" in asked)
        self._waiting[key] = [draw.randint(1, 5), prompt, text]

    def background(self, draw, chinese):
        """A background in the language that is asked for; too short, or in another one, now and then."""
        chosen = draw.random()
        if chosen < 0.2:
            return "You are."
        said = "\u4f60\u662f\u4e00\u4e2a\u4eba" if chinese == (chosen > 0.3) else "You are somebody "
        return f"{said * 3} {draw.randint(1, 99)}"

    def step(self):
        time.sleep(0.002)
        finished = {}
        for key, waiting in list(self._waiting.items())[: self.max_num_seqs]:
            waiting[0] -= 1
            if waiting[0] <= 0 and self._left:
                self._left -= 1
                _, prompt, text = self._waiting.pop(key)
                finished[key] = Reply(list(text.encode()), False, len(prompt), len(prompt) // 2, text)
        return finished

    def decode(self, replies):
        return self.template.reasoning.decode(replies)

    def fits(self, needed_context):
        return True

    def abort(self):
        self._waiting.clear()

    def forget(self):
        assert not self._waiting

    def close(self):
        self.abort()


if __name__ == "__main__":
    pbeauty.job.runner.Engine = Engine
    play_first()
    sys.exit(main())
