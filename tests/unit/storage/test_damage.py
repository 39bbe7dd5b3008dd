"""Runs that the disk has damaged: told, harmless, never silent, never a reader that hangs."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made import make

from pbeauty.errors import PbeautyError
from pbeauty.game.records import Purpose
from pbeauty.storage.replies import read_answers
from pbeauty.storage.run_reader import Run

DAMAGES = 60
"""Of a run that is being played, and as many of a finished one."""
SECONDS = 900
"""After which a reader hangs; it needs some 15."""
TALKERS = range(12)
POPULATION = [
    {"name": "talkers", "count": len(TALKERS), "kind": "llm", "user_prompt": "step-by-step"},
    {"name": "crowd", "count": 340 - len(TALKERS), "kind": "uniform"},
]
GUESSES = np.random.default_rng(5).uniform(0, 100, (3, 340))
SAID = [
    [(who, Purpose.ANSWER, f"I think of {GUESSES[index, who]:.2f} in round {index + 1}. " * 9) for who in TALKERS]
    for index in range(3)
]


def everything(folder):
    """Whatever a run tells its reader, as one comparable value."""
    with Run(folder) as run:
        run.check_rounds()
        found = [run.experiment.model_dump_json(), dict(run.provenance), run.attributes, run.complete]
        found += [run.codes(name).tolist() for name in run.attributes]
        found += [run.read(name).tobytes() for name in run.file["rounds"]]
        for index in range(run.round_count):
            answers = read_answers(folder, run.reply_files(index), np.array(TALKERS))
            found += [answers[slot].tolist() for slot in TALKERS]
            found += [run.replies(index + 1, who) for who in TALKERS]
    return found


def damage(data, draw):
    """A file's content with one bit flipped, cut off, or with 512 bytes zeroed."""
    kind, at = draw.choice(["bit", "cut", "zeros"]), draw.randrange(len(data))
    if kind == "bit":
        return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :], f"bit at {at}"
    if kind == "cut":
        return data[:at], f"cut off at {at}"
    return data[:at] + bytes(min(512, len(data) - at)) + data[at + 512 :], f"512 zeros from {at}"


def read_damaged(folder):
    """Damages the run in `folder` again and again, and prints after each what a reader is told."""
    draw, whole = random.Random(7), everything(folder)
    files = sorted(path for path in folder.rglob("*.h5"))
    for _ in range(DAMAGES):
        path = draw.choice(files)
        before = path.read_bytes()
        after = before
        while after == before:  # zeros over zeros are no damage
            after, what = damage(before, draw)
        print(f"{path.name} {what}: ", end="", flush=True)
        path.write_bytes(after)
        try:
            verdict = "harmless" if everything(folder) == whole else "SILENTLY WRONG"
        except PbeautyError as error:
            verdict = "told" if path.name in str(error) else f"MISLEADING {error}"
        except Exception as error:
            verdict = f"TRACEBACK {error!r}"
        print(verdict, flush=True)
        path.write_bytes(before)
    assert everything(folder) == whole


@pytest.mark.parametrize("finished", [False, True])
def test_random_damage_is_told_or_harmless(tmp_path, finished):
    make(tmp_path, GUESSES, said=SAID, finished=finished, population=POPULATION)
    code = f"import pathlib, test_damage\ntest_damage.read_damaged(pathlib.Path({str(tmp_path)!r}))"
    here = str(Path(__file__).parent)
    support = str(Path(__file__).parents[2] / "support")
    reader = [sys.executable, "-c", f"import sys\nsys.path[:0] = [{here!r}, {support!r}]\n{code}"]
    done = subprocess.run(reader, capture_output=True, text=True, timeout=SECONDS, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert len(lines) == DAMAGES
    assert not [line for line in lines if not line.endswith((": told", ": harmless"))]
    assert not [line for line in lines if line.endswith(": harmless")], "no byte of a file is without its digest"
