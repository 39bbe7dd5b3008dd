"""Measures whole jobs, from the launcher's start to its end: a table of medians in Markdown.

    python results/measured/measure.py [--ranks 1,3] [--repeats 3] JOB...

A JOB is an experiment file, `scripted` (10,000 participants without a model) or `demo` (1,000 of the demo model), with
what to set in it after a colon: `scripted:population.0.count=1000000,game.rounds=3`. Jobs take turns, in another order
each time, so that whatever else the machine does meets all of them. `wall s` is a clock's, of the whole job; all other
columns are read from its run.h5.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py

FILES = {
    "scripted": "{name: scripted, population: [{name: crowd, count: 10000, kind: uniform, integers: true}]}",
    "demo": "{name: demo, population: [{name: players, count: 1000, kind: llm, model: demo}]}",
}
COLUMNS = ("wall s", "starting s", "engines s", "rounds s", "first round s", "CPU s", "peak MB")


def play(job: str, ranks: int, folder: Path) -> dict[str, float]:
    """Plays one job, and returns what it took by column."""
    config, _, settings = job.partition(":")
    if config in FILES:
        path = folder / f"{config}.yaml"
        path.write_text(FILES[config], encoding="utf-8")
    else:
        path = Path(config)
    bin_folder, run = Path(sys.executable).parent, Path(tempfile.mkdtemp(dir=folder)) / "run"
    command = [bin_folder / "mpirun", "-n", str(ranks), bin_folder / "pbeauty", "run", path, "--out", run]
    for setting in filter(None, settings.split(",")):
        command += ["--set", setting]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wall = time.monotonic() - started
    if done.returncode:
        sys.exit(f"{job} on {ranks} rank(s): {done.stderr.strip()}")
    with h5py.File(run / "run.h5") as file:
        taken = json.loads(file.attrs["provenance"])["actual"]
        rounds = file["rounds/seconds"][:].tolist()
    found = (wall, taken["starting_seconds"], taken["engines_seconds"], sum(rounds), rounds[0])
    return dict(zip(COLUMNS, (*found, sum(taken["cpu_seconds"]), sum(taken["peak_memory_bytes"]) / 1e6), strict=True))


def main() -> None:
    """Measures what the command line names, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", default=["scripted"], help="CONFIG or CONFIG:KEY=VALUE,...")
    parser.add_argument("--ranks", default="3", help="numbers of ranks, separated by commas (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="jobs of each kind (default %(default)s)")
    options = parser.parse_args()
    kinds = [(job, int(ranks)) for job in options.jobs for ranks in options.ranks.split(",")]
    taken: dict[tuple[str, int], list[dict[str, float]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.repeats):
            for kind in random.Random(turn).sample(kinds, k=len(kinds)):
                taken[kind].append(play(*kind, Path(folder)))
    print(f"| job | ranks | {' | '.join(COLUMNS)} |\n|---|{'---|' * (len(COLUMNS) + 1)}")
    for (job, ranks), found in taken.items():
        medians = [statistics.median(one[column] for one in found) for column in COLUMNS]
        print(f"| `{job}` | {ranks} | {' | '.join(f'{value:,.2f}' for value in medians)} |")


if __name__ == "__main__":
    main()
