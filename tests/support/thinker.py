"""`pbeauty` whose participants think for an hour from one round on: `THINK_FROM=2 python thinker.py run CONFIG ...`.

For jobs that are to be interrupted in that round, however long it takes until they are. A job that Slurm has started
again thinks no longer than its experiment says.
"""

from __future__ import annotations

import os
import sys

from pbeauty.cli.main import main
from pbeauty.job.participants import Participants

_first = int(os.environ["THINK_FROM"]) if os.environ.get("SLURM_RESTART_COUNT", "0") == "0" else sys.maxsize
_compute = Participants._compute_guesses


def _compute_guesses(self, announcement, answers):
    """Fills in guesses; the seconds that the slowest participant thinks."""
    seconds = _compute(self, announcement, answers)
    return 3600.0 if announcement.round_index + 1 >= _first else seconds


if __name__ == "__main__":
    Participants._compute_guesses = _compute_guesses
    sys.exit(main())
