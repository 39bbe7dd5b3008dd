"""All cases of a sweep as one job, on engines that stay loaded from case to case, and the table that comes of it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shlex
import sys
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING

from pbeauty.config.differences import varied_settings
from pbeauty.config.sweep import Case, Sweep, load_sweep
from pbeauty.errors import BAD_REQUEST, DONE, FAILED, INTERRUPTED, ConfigError, JobError, RunFileError
from pbeauty.files import CASES_FILE, LIVE_FILE, PLOTS, RUN_FILE, aligned, csv_cell, replace_text
from pbeauty.job.checkpoint import RunRequest, read_checkpoint, refuse_other_writers
from pbeauty.job.display import print_line
from pbeauty.job.live_status import round_result
from pbeauty.job.runner import EngineCache, draw_figures, play
from pbeauty.job.stop_requests import Interrupt
from pbeauty.llm.engine_arguments import check_models
from pbeauty.mpi.collectives import run_on_root
from pbeauty.storage.hdf5 import write_errors
from pbeauty.storage.run_reader import Run

if TYPE_CHECKING:
    from mpi4py.MPI import Comm

STATES = {DONE: "finished", FAILED: "failed", BAD_REQUEST: "failed", INTERRUPTED: "interrupted"}
_FIGURES = ("rounds", "mean_first", "mean_last", "median_last", "target_last", "valid_share", "seconds")


@dataclass(frozen=True)
class Row:
    """What became of a case."""

    case: Case
    folder: Path
    state: str
    """finished, failed, interrupted, or not played."""
    reason: str = ""
    """Why a case failed."""


def prepare_sweep(request: RunRequest) -> tuple[Sweep, set[str]]:
    """A sweep whose cases can all be played, and the names of those that earlier jobs have finished.

    Raises:
        ConfigError: saying everything that is wrong.
    """
    sweep = load_sweep(request.config, request.overrides)
    if request.out:
        sweep = replace(sweep, folder=request.out)
    faults: dict[str, None] = {}
    finished = set()
    for case in sweep.cases:
        try:
            check_models(case.experiment, request.config.parent)
            if read_checkpoint(sweep.folder / case.name, case.experiment)[0].complete:
                finished.add(case.name)
        except (ConfigError, RunFileError) as error:
            faults[str(error)] = None
    if faults:
        raise ConfigError("\n".join(faults))
    return sweep, finished


def run_sweep(comm: Comm, request: RunRequest) -> int:
    """Plays all cases that are not finished; returns the exit code, the same on every rank.

    A case fails by itself where all ranks know of it: a round without a valid guess, a prompt that does not fit, an
    engine that does not start. Whatever only one rank notices (an engine that breaks in the middle of a round, a full
    disk) ends the job, as it ends a single run; the same command goes on.
    """
    interrupt, engines = Interrupt(), EngineCache()
    sweep, finished = run_on_root(comm, lambda: _begin(request))
    rows = [
        Row(case, sweep.folder / case.name, "finished" if case.name in finished else "not played")
        for case in sweep.cases
    ]
    if comm.rank == 0:
        for row in rows:
            if row.state == "finished":
                print_line(f"results: {row.folder} (finished already)")
    code = DONE
    unfinished = [number for number, row in enumerate(rows) if row.state != "finished"]
    for number in sorted(unfinished, key=lambda number: _models(rows[number].case)):
        row = rows[number]
        if comm.bcast(interrupt.requested()):
            code = INTERRUPTED
            break
        if comm.rank == 0:
            _write_status(sweep, "playing", row.case.name)
            print_line(f"case {number + 1}/{len(rows)}: {row.case.name}", sys.stderr)
        case_code, reason = _play_case(comm, row, interrupt, engines)
        rows[number] = replace(row, state=STATES[case_code], reason=reason)
        if case_code == INTERRUPTED:
            code = INTERRUPTED
            break
        code = FAILED if case_code else code
    if comm.rank == 0:
        report(sweep, rows)
        _write_status(sweep, STATES[code], "")
    if code != INTERRUPTED:  # at the end, so that no engine waits for a figure
        draw_figures(comm, run_on_root(comm, lambda: [row.folder for row in rows if _lacks_figures(row)]))
    if comm.rank == 0 and code == DONE:
        print_line(f"next: pbeauty report {shlex.quote(str(sweep.folder))}", sys.stderr)
    return code


def _begin(request: RunRequest) -> tuple[Sweep, set[str]]:
    """As `prepare_sweep`, with the sweep's folder made."""
    sweep, finished = prepare_sweep(request)
    refuse_other_writers(case.experiment for case in sweep.cases)
    try:
        sweep.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot create the result folder {sweep.folder}: {error.strerror}") from None
    return sweep, finished


def _lacks_figures(row: Row) -> bool:
    """Whether a case that has come to its end has no figures yet, or not of all rounds."""
    drawn = len(list((row.folder / PLOTS).glob("round-*.png")))
    wanted = row.case.experiment.plots and row.state in ("finished", "failed")
    return wanted and (row.folder / RUN_FILE).exists() and drawn < row.case.experiment.game.rounds


def _play_case(comm: Comm, row: Row, interrupt: Interrupt, engines: EngineCache) -> tuple[int, str]:
    """The exit code of a case, and why it failed, if it did."""
    request = RunRequest(Path(), out=row.folder, resume=True)
    try:
        code = play(comm, lambda: (row.case.experiment, request), interrupt, engines, alone=False)
    except JobError as error:
        if comm.rank == 0:
            print_line(f"pbeauty: case {row.case.name}: {error}", sys.stderr)
        return error.code, str(error).splitlines()[-1].strip()
    return code, "a round had no valid guess" if code == FAILED else ""


def _models(case: Case) -> str:
    """Cases that sort together can be played on the same engines."""
    models = case.experiment.used_models.values()
    return json.dumps(sorted(model.model_dump_json(exclude={"weight"}) for model in models))


def _write_status(sweep: Sweep, state: str, case: str) -> None:
    """How far the sweep is, in the same place and under the same key as the status of a run; `case` is being played."""
    status = {"state": state, "sweep": sweep.name, "case": case}
    with write_errors(sweep.folder / LIVE_FILE):
        replace_text(sweep.folder / LIVE_FILE, json.dumps(status, indent=1), durable=False)


# --- the table ---------------------------------------------------------------------------------------------


def report(sweep: Sweep, rows: list[Row]) -> None:
    """Prints the table of all cases, and leaves it as cases.csv in the sweep's folder.

    Raises:
        RunFileError: if that cannot be written.
    """
    settings = varied_settings(row.case.experiment for row in rows)
    table: list[list[object]] = [["case", *settings[0], "state", *_FIGURES, "reason"]]
    shown = [["case", "state", *(name.replace("_", " ") for name in _FIGURES)]]
    for row, varied in zip(rows, settings, strict=True):
        figures = _figures(row.folder)
        table.append([row.case.name, *varied.values(), row.state, *figures, row.reason])
        numbers = (f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" for value in figures)
        shown.append([row.case.name, row.state, *numbers])
    for line in aligned(shown, left=2):
        print_line(line)
    finished = sum(row.state == "finished" for row in rows)
    path, text = sweep.folder / CASES_FILE, io.StringIO()
    csv.writer(text).writerows(map(csv_cell, line) for line in table)
    with write_errors(path):
        replace_text(path, text.getvalue(), durable=False)
    print_line(f"{finished} of {len(rows)} cases finished; table: {path}")


def _figures(folder: Path) -> tuple[float, ...]:
    """What the table tells of a case, in the order of `_FIGURES`; NaN where no round has been finished."""
    figures: tuple[float, ...] = (0, *[nan] * (len(_FIGURES) - 1))
    with contextlib.suppress(ConfigError, RunFileError), Run(folder) as run:
        if count := run.round_count:
            first, last = (round_result(index, run.outcome(index), 0.0) for index in (0, count - 1))
            valid = run.read("n_valid").sum() / (count * run.experiment.count)
            seconds = run.read("seconds").sum()
            figures = (count, first.mean, last.mean, last.median, last.target, float(valid), float(seconds))
    return figures
