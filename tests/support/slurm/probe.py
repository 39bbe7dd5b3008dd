"""`pbeauty` with parrots for engines, which take GPUs as real ones do: `PBEAUTY="python .../slurm/probe.py"`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import parrot

import pbeauty.job.runner
from pbeauty.cli.main import main
from pbeauty.llm.placement import take_gpus, visible_gpus


class Engine(parrot.Engine):
    """A parrot with GPUs."""

    def __init__(self, model, place, *others):
        super().__init__(model, place, *others)
        self.gpus = take_gpus(place, model.tensor_parallel_size, visible_gpus())


if __name__ == "__main__":
    pbeauty.job.runner.Engine = Engine
    sys.exit(main())
