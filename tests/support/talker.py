"""`pbeauty` with a stand-in engine that answers at once and at length: `python talker.py LENGTH run CONFIG ...`.

For tests of how much memory a block takes: nothing of it is the engine's.
"""

from __future__ import annotations

import sys

import parrot

import pbeauty.job.runner
from pbeauty.cli.main import main
from pbeauty.game.records import Reply


class Engine(parrot.Engine):
    """Replies are of one length, and end with a number that the seed alone decides."""

    max_num_seqs = 256
    length = 0

    def submit(self, key, prompt, params, seed):
        self._waiting[key] = len(prompt), seed

    def step(self):
        finished = {}
        for key in list(self._waiting)[: self.max_num_seqs]:
            asked, seed = self._waiting.pop(key)
            text = f"My number: {seed % 101}".rjust(self.length, ".")
            finished[key] = Reply(list(text.encode()), False, asked, asked // 2, text)
        return finished


if __name__ == "__main__":
    pbeauty.job.runner.Engine = Engine
    Engine.length = int(sys.argv.pop(1))
    sys.exit(main())
