"""How cost grows: whole jobs, started as anybody would start them, over participants, ranks and rounds.

Every job is `mpirun -n R pbeauty run FILE --out FOLDER` in a temporary folder; what it took is its own wall time and
what its ranks noted down (`usage.PhaseTimer`). A job of another kind times collectives and counts those of a round. The
cost model is fitted to the runs, but for some of other sizes, ranks and rounds that it has to predict. All take turns,
in another order each time: a machine whose speed drifts must not drift along a curve.
"""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pbeauty import __version__, cost
from pbeauty.config.loader import loads
from pbeauty.cost import Exchange, Measurement, Traffic, Work, work_of
from pbeauty.cost_file import Scaling
from pbeauty.cost_fit import fit
from pbeauty.errors import ConfigError
from pbeauty.game.experiment import Experiment
from pbeauty.job.usage import cores
from pbeauty.llm.placement import visible_gpus
from pbeauty.storage.run_reader import Run

SCRIPTED, LLM = "scripted", "llm"
_SMALLEST = 100
_ROUNDS = 3
_USUAL_RANKS = 3
_MANY = 10_000
"""Language models whose jobs take minutes: those are played in one turn alone, and smaller ones in all but one."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One job that is measured."""

    kind: str
    participants: int
    ranks: int
    rounds: int

    @property
    def experiment(self) -> Experiment:
        """What it plays."""
        group = {"name": "players", "count": self.participants, "kind": "uniform"}
        if self.kind == LLM:
            group |= {"kind": "llm", "model": "demo"}
        return loads(json.dumps({"name": "scaling", "seed": 1, "game": {"rounds": self.rounds}, "population": [group]}))

    def turns(self, repeats: int) -> int:
        """In how many turns it is played."""
        if self.kind == SCRIPTED:
            return repeats
        return 1 if self.participants > _MANY else max(1, repeats - 1)

    def __str__(self) -> str:
        return f"{self.kind} {self.participants:,} x {self.rounds} rounds on {self.ranks} rank(s)"


def plan(
    most: int, llm_most: int, ranks: Sequence[int], rounds: Sequence[int]
) -> tuple[dict[Job, tuple[str, ...]], list[Job]]:
    """The jobs that the model is fitted to, with the curves that each belongs to, and those that it has to predict.

    Args:
        most: scripted participants of the largest job.
        llm_most: the same of language models; 0 for none.
        ranks: numbers of ranks.
        rounds: numbers of rounds of scripted participants.

    Raises:
        ConfigError: if there are too few participants for curves.
    """
    if most < _SMALLEST or (llm_most and llm_most < _SMALLEST):
        raise ConfigError(f"--most and --llm-most: expected at least {_SMALLEST} participants (--llm-most 0 for none)")
    usual = min(ranks, key=lambda count: (abs(count - _USUAL_RANKS), count))
    jobs: dict[Job, tuple[str, ...]] = {}

    def add(series: str, *job: Any) -> None:
        jobs[Job(*job)] = (*jobs.get(Job(*job), ()), series)

    for count in sorted({*_powers(most), max(_SMALLEST, 3 * most // 10)}):
        add("participants", SCRIPTED, count, usual, _ROUNDS)
    fixed, share = min(most, 1_000_000), max(1, min(most, 1_000_000) // 8)
    for size in ranks:
        add("ranks", SCRIPTED, fixed, size, _ROUNDS)
        add("share", SCRIPTED, share * max(1, size - 1), size, _ROUNDS)
    for number in sorted({_ROUNDS, *rounds}):
        add("rounds", SCRIPTED, min(most, 100_000), usual, number)
    predicted = [
        Job(SCRIPTED, max(1, 2 * most // 10), usual, 2),
        Job(SCRIPTED, max(1, 6 * most // 10), usual, 2),
        Job(SCRIPTED, max(1, fixed // 5), usual + 1, max(1, max(rounds) // 5)),
        Job(SCRIPTED, max(1, fixed // 2), max(ranks) - 1 or 1, 2),
        Job(SCRIPTED, max(1, fixed // 30), usual, max(1, 2 * max(rounds) // 3)),
    ]
    if llm_most:
        room = len(visible_gpus()) or cores()
        engines = [size for size in ranks if 1 < size <= 1 + room] or [usual]
        most_engines = max(engines)
        for count in _powers(llm_most):
            add("participants", LLM, count, most_engines, _ROUNDS)
        middle = max(_SMALLEST, min(llm_most, 50_000) // 10)
        for size in engines:
            add("ranks", LLM, middle, size, _ROUNDS)
        for number in (_ROUNDS, 2 * _ROUNDS):
            add("rounds", LLM, middle, most_engines, number)
        predicted += [
            Job(LLM, 3 * llm_most // 10, most_engines, _ROUNDS - 1),
            Job(LLM, 2 * middle, min(engines), _ROUNDS + 1),
        ]
    return jobs, [job for job in dict.fromkeys(predicted) if job not in jobs]


def bench_scaling(
    most: int, llm_most: int, ranks: Sequence[int], rounds: Sequence[int], repeats: int, say: Say
) -> Scaling:
    """Measures all jobs of `plan`, and fits the model.

    Args:
        most: scripted participants of the largest job.
        llm_most: the same of language models.
        ranks: numbers of ranks.
        rounds: numbers of rounds of scripted participants.
        repeats: turns, of which the medians count; the large jobs of language models are played in one of them.
        say: is told of progress.

    Raises:
        ConfigError: if there is no launcher, or a job fails.
    """
    if repeats < 1:
        raise ConfigError("--repeats: expected 1 or more")
    jobs, predicted = plan(most, llm_most, ranks, rounds)
    launcher = _launcher()
    began = time.monotonic()

    def told(line: str) -> None:
        say(f"[{time.monotonic() - began:4.0f} s] {line}")

    found = [_exchanged(launcher, size, told) for size in sorted(set(ranks))]
    exchanges = tuple(Exchange(**entry) for document in found for entry in document["exchanges"])
    traffic = _traffic([count for document in found for count in document["counts"]])
    everything = [*jobs, *predicted]
    taken: dict[Job, list[dict[str, float]]] = {job: [] for job in everything}
    shuffled = random.Random(_ROUNDS)
    for turn in range(repeats):
        for job in shuffled.sample(everything, len(everything)):
            if turn < job.turns(repeats):
                taken[job].append(one := _play(launcher, job))
                told(f"turn {turn + 1}: {job}: {one['wall_seconds']:.2f} s, {one['memory'] / 1e6:,.0f} MB")
    measurements = [_medians(job, taken[job], jobs.get(job, ()), held_out=job not in jobs) for job in everything]
    model = fit(measurements, exchanges, traffic)
    return Scaling(_machine(found[0]["mpi"]), tuple(measurements), exchanges, model)


def _medians(job: Job, taken: Sequence[dict[str, float]], series: Sequence[str], *, held_out: bool) -> Measurement:
    """A job as it counts, from what it took each time."""
    median = {name: statistics.median(one[name] for one in taken) for name in taken[0]}
    seconds = {part: median[part] for part in cost.PARTS}
    rest = {name: value for name, value in median.items() if name not in cost.PARTS}
    work = work_of(job.experiment, job.ranks, 1, cores())
    return Measurement(work, seconds, **rest, series=tuple(series), held_out=held_out, repeats=len(taken))


def _play(launcher: str, job: Job) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="pbeauty-scaling-") as name:
        config, out = Path(name) / "job.yaml", Path(name) / "run"
        config.write_text(job.experiment.dump(), encoding="utf-8")
        began = time.monotonic()
        _launch(launcher, job.ranks, "-m", "pbeauty", "run", str(config), "--out", str(out))
        wall = time.monotonic() - began
        with Run(out) as run:
            took = run.provenance["actual"]
            playing = float(run.read("seconds_playing").sum() + run.read("seconds_waiting").sum())
    inside, game, engines = took["wall_seconds"], took["game_seconds"], took["engines_seconds"]
    moderator, *hosts = took["peak_memory_bytes"]
    return {
        "start": wall - inside + took["starting_seconds"],
        "engines": engines,
        "playing": playing,
        "between": game - playing,
        "figures": inside - took["starting_seconds"] - engines - game,
        "wall_seconds": wall,
        "cpu_seconds": sum(took["cpu_seconds"]),
        "moderator_memory": moderator,
        "host_memory": max(hosts, default=0),
        "memory": moderator + sum(hosts),
    }


def _exchanged(launcher: str, ranks: int, say: Say) -> dict[str, Any]:
    found = json.loads(_launch(launcher, ranks, "-m", "pbeauty.bench_collectives", str(cores())).splitlines()[-1])
    say(f"collectives of {ranks} rank(s) timed and counted")
    return found


def _traffic(counts: Sequence[dict[str, float]]) -> Traffic:
    """What a round's collectives depend on, from what was counted among several ranks."""
    among = [count for count in counts if count["ranks"] > 1]
    if not among:
        return Traffic()
    # What ranks share has one size on all of them: more or less of it, as the search for the quartiles goes.
    columns = np.array([[1.0, count["ranks"], count["participants"]] for count in among])
    target = np.array([count["collected_bytes"] for count in among], float)
    fixed, per_rank, per_participant = (float(max(0.0, x)) for x in np.linalg.lstsq(columns, target, rcond=None)[0])
    meetings, collectives, shared = (
        statistics.fmean(count[name] for count in among) for name in ("meetings", "collectives", "shared_bytes")
    )
    return Traffic(meetings, collectives, fixed + shared, per_rank, per_participant)


def _launch(launcher: str, ranks: int, *arguments: str) -> str:
    """Runs Python on so many ranks; its standard output.

    Raises:
        ConfigError: if it fails, with its last words.
    """
    done = subprocess.run(
        [launcher, "-n", str(ranks), sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = " | ".join(done.stderr.strip().splitlines()[-3:])
        raise ConfigError(f"a job of {ranks} rank(s) failed with exit code {done.returncode}: {said or 'no message'}")
    return done.stdout


def _launcher() -> str:
    """The `mpirun` beside this Python, which fits its MPI library, or else the one on PATH."""
    beside = Path(sys.executable).with_name("mpirun")
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if not found:
        raise ConfigError("no mpirun on PATH: load your site's MPI module, or pip install 'pbeauty[mpi]'")
    return found


def _powers(most: int) -> Iterator[int]:
    count = _SMALLEST
    while count < most:
        yield count
        count *= 10
    yield most


def _machine(mpi: str) -> dict[str, Any]:
    """Where the figures are from."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "memory_bytes": memory,
        "system": platform.platform(),
        "python": platform.python_version(),
        "pbeauty": __version__,
        "mpi": mpi,
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


# --- for people ------------------------------------------------------------------------------------------------


def table(scaling: Scaling) -> str:
    """What was measured, what the model makes of it, and how well it predicts."""
    machine, model = scaling.machine, scaling.model
    lines = [
        f"{machine['cores']} cores, {machine['cpu']}, {machine['memory_bytes'] / (1 << 30):.0f} GiB, {machine['mpi']}",
        "",
        "measured (medians)          ranks rounds   wall s  start engines playing between figures   CPU s  memory MB",
    ]
    lines += [_row(m) for m in scaling.measurements if not m.held_out]
    lines += ["", "held out of the fit         ranks rounds   wall s  predicted  error   memory MB  predicted  error"]
    lines += [_checked(m, model) for m in scaling.measurements if m.held_out]
    traffic = model.traffic
    lines += [
        "",
        f"a round has {traffic.meetings:g} meetings of the ranks and {traffic.collectives:g} other collectives, with "
        f"{traffic.bytes:,.0f} bytes + {traffic.bytes_per_rank:,.0f} per rank + {traffic.bytes_per_participant:,.1f} "
        "per participant through the busiest rank",
        "",
    ]
    for name, (unit, about) in cost.MEANING.items():
        value = model.coefficients[name]
        told = (
            "not determined by these runs" if value is None else f"{_quantity(value, unit)}" if value else "none seen"
        )
        lines.append(f"  {name:<18} {told:>12}  {about}")
    return "\n".join(lines)


def _row(m: Measurement) -> str:
    parts = " ".join(f"{m.seconds[part]:>{width}.2f}" for part, width in zip(cost.PARTS, (6, 7, 7, 7, 7), strict=True))
    return f"{_named(m.work)} {m.wall_seconds:>8.2f} {parts} {m.cpu_seconds:>7.1f} {m.memory / 1e6:>10,.0f}"


def _checked(m: Measurement, model: cost.CostModel) -> str:
    p = model.predict(m.work)
    time_error, memory_error = p.wall_seconds / m.wall_seconds - 1, p.memory / m.memory - 1
    return (
        f"{_named(m.work)} {m.wall_seconds:>8.2f} {p.wall_seconds:>10.2f} {time_error:>+6.1%} "
        f"{m.memory / 1e6:>11,.0f} {p.memory / 1e6:>10,.0f} {memory_error:>+6.1%}"
    )


def _named(work: Work) -> str:
    kind = LLM if work.engines else SCRIPTED
    return f"{kind:<9} {work.participants:>14,} {work.ranks:>8} {work.rounds:>6}"


def _quantity(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 1e6:,.1f} MB" if value >= 1e5 else f"{value:,.1f} B"
    for factor, name in ((1, "s"), (1e-3, "ms"), (1e-6, "us")):
        if value >= factor:
            return f"{value / factor:.3g} {name}"
    return f"{value / 1e-9:.3g} ns"


def draw(scaling: Scaling, folder: Path) -> list[Path]:
    """Writes the figure and all figures behind it: `scaling.pdf`, `scaling.png`, `scaling.json`; their paths."""
    from pbeauty.plots.scaling import curves
    from pbeauty.plots.style import save

    written = save(curves(scaling), folder / "scaling")
    document = folder / "scaling.json"
    document.write_text(scaling.dump(), encoding="utf-8")
    return [*written, document]
