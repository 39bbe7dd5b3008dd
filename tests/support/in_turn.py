"""Several commands of `pbeauty` in one job, `run ... then run ...`, which saves the start of all ranks."""

from __future__ import annotations

import sys

from pbeauty.cli.main import main


def play_first() -> None:
    """Plays all commands that this process is given but the last one, which stays."""
    while "then" in sys.argv:
        end = sys.argv.index("then")
        assert main(sys.argv[1:end]) == 0
        del sys.argv[1 : end + 1]
