"""`pbeauty watch`: what the live status, the lock and the result of a run say, shown to a person or a script."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from pbeauty.cli.run import given_path
from pbeauty.errors import DONE, ConfigError, RunFileError
from pbeauty.files import LIVE_FILE, LOCK_FILE, RUN_FILE, aligned, printable
from pbeauty.job.live_status import RunStatus, latest_results, read_status
from pbeauty.storage.lock import FoundLock, read_lock

_SECONDS_BETWEEN_LOOKS = 1.0
_ROWS, _OTHER_LINES = 20, 12
"""Ranks, and rounds, that are shown at most, the slowest and the latest; other lines on a screen."""
_UNFINISHED = ("starting", "playing")
_WORDS = {
    "dead": "dead: its job is gone without having ended it; --resume goes on with it",
    "interrupted": "interrupted; --resume goes on with it",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `pbeauty watch` takes."""
    parser.add_argument("run", type=given_path, metavar="RUN", help="a run's folder or its run.h5, or a folder of runs")
    parser.add_argument("--once", action="store_true", help="print its status once instead of following it")
    parser.add_argument("--json", action="store_true", help="print its status once, as JSON")


def command(options: argparse.Namespace) -> int:
    """Shows the run."""
    watch(options.run, as_json=options.json, once=options.once)
    return DONE


def watch(path: Path, *, as_json: bool, once: bool) -> None:
    """Shows a run on standard output: live on a terminal until it ends, else once.

    Of a sweep that is being played the case that is; of any other folder of runs a line for each.

    Raises:
        ConfigError: if there is no run to be shown.
    """
    runs = _runs(path)
    statuses = [observe(run) if len(runs) == 1 else _observe_anyway(run) for run in runs]
    if as_json:
        documents = [asdict(status) for status in statuses]
        print(json.dumps(documents[0] if len(runs) == 1 else documents, indent=1), flush=True)
    elif len(runs) > 1:
        for run, status in zip(runs, statuses, strict=True):
            text = status.message if status.state == "unreadable" else headline(status)
            print(printable(f"{run}: {text}", 1000), flush=True)
    elif once or not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        print(show(statuses[0]), flush=True)
    else:
        _follow(runs[0], statuses[0])


def _runs(path: Path) -> list[Path]:
    """What `path` means: a run's folder or file, the case of a sweep that is being played, or all runs below it."""
    folder = path.parent if path.name in (RUN_FILE, LIVE_FILE) else path
    if not folder.is_dir():
        return [path]
    if case := (_sweep(folder) or {}).get("case"):
        return [folder / case]
    if _holds_run(folder):
        return [folder]
    from pbeauty.storage.run_folder import run_folders

    if found := run_folders(folder, _holds_run):
        return found
    raise ConfigError(f"there is no run in {folder}, nor in a folder below it")


def _sweep(folder: Path) -> dict[str, Any] | None:
    """The live status in a sweep's folder; None in any other."""
    try:
        status = json.loads((folder / LIVE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return status if isinstance(status, dict) and "sweep" in status else None


def _holds_run(folder: Path) -> bool:
    """Whether there is a run, or one that has just begun."""
    started = (folder / LOCK_FILE).exists() or ((folder / LIVE_FILE).exists() and _sweep(folder) is None)
    return started or os.path.lexists(folder / RUN_FILE)


def observe(run: Path) -> RunStatus:
    """The status of the run in a folder, or of a file; `dead` is that of a job that ended without writing it down.

    Of a run without a live status, as much of it as its result tells.

    Raises:
        ConfigError: if there is no run.
        RunFileError: if its result cannot be read.
    """
    if not run.exists():
        raise ConfigError(f"cannot read a run from {run}: there is no such file or folder")
    if not run.is_dir():
        return _from_result(run, None)
    status, lock = _read(run / LIVE_FILE), read_lock(run / LOCK_FILE)
    playing = lock if lock and not lock.stale else None
    if status is None:
        return _from_result(run / RUN_FILE, playing)
    if status.state in _UNFINISHED and not playing:
        again = _read(run / LIVE_FILE)  # it may have ended between the two looks
        return replace(status, state="dead") if again in (None, status) else observe(run)
    owner = playing.owner if playing else None
    if owner and status.state not in _UNFINISHED and (owner.pid, owner.host) != (status.pid, status.host):
        return replace(status, state="starting", message=None, pid=owner.pid, host=owner.host)
    return status


def _observe_anyway(run: Path) -> RunStatus:
    """The status of one run of many, which must not keep the others from being shown."""
    try:
        return observe(run)
    except (ConfigError, RunFileError) as error:
        return RunStatus(state="unreadable", message=str(error))


def _read(path: Path) -> RunStatus | None:
    try:
        return read_status(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}; delete it to go by the result") from None


def _from_result(path: Path, lock: FoundLock | None) -> RunStatus:
    owner = lock.owner if lock else None
    status = RunStatus(state="starting")
    if owner:
        status = replace(status, user=owner.user, host=owner.host, pid=owner.pid, started=owner.since)
    if path.exists():
        from pbeauty.storage.run_reader import Run

        with Run(path) as run:
            return replace(
                status,
                state="playing" if lock else "finished" if run.finished else "interrupted",
                name=run.experiment.name,
                rounds=run.experiment.game.rounds,
                rounds_finished=run.round_count,
                participants=run.experiment.count,
                sessions=run.experiment.sessions,
                results=latest_results(run),
            )
    if not lock:
        raise ConfigError(
            f"there is no run in {path.parent}: neither {LIVE_FILE} nor {path.name}, and no job plays there"
        )
    return status


# --- what a person sees ----------------------------------------------------------------------------------------


def _follow(run: Path, status: RunStatus) -> None:
    from rich.live import Live
    from rich.text import Text

    def shown() -> Text:
        rows = (shutil.get_terminal_size().lines - _OTHER_LINES) // 2
        return Text(show(status, max(1, min(rows, _ROWS))))

    try:
        with Live(shown(), auto_refresh=False) as screen:
            while status.state in _UNFINISHED:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                status = observe(run)
                screen.update(shown(), refresh=True)
    except KeyboardInterrupt:
        return


def show(status: RunStatus, most: int = _ROWS) -> str:
    """A status as lines, among them the latest rounds and the slowest ranks, at most so many of each."""
    lines = [headline(status), *(status.message or "").splitlines()[-most:]]
    if status.results:
        several = (status.sessions or 1) > 1
        rows = [("round", *["sessions"] * several, "mean", "median", "target", "winners", "valid", "seconds")]
        for one in status.results[-most:]:
            numbers = [f"{value:,.2f}" for value in (one.mean, one.median, one.target)]
            first = (str(one.round), *[f"{one.sessions:,}"] * several)
            rows.append((*first, *numbers, f"{one.n_winners:,}", f"{one.n_valid:,}", f"{one.seconds:,.2f}"))
        over = ["mean, median, target: means over sessions"] * several
        lines += ["", *over, *aligned(rows)]
    if status.loading_seconds is not None:
        ready = f"{status.engines_ready} of {status.engines}"
        lines += ["", f"loading engines: {ready}, {status.loading_seconds:.0f} s"]
    if status.round is not None and status.state in (*_UNFINISHED, "dead"):
        slowest = sorted(status.ranks, key=lambda rank: rank.done / max(rank.total, 1))[:most]
        rows = [("rank", "done", "of", "%", "participants/s", "tokens", "host")]
        for rank in sorted(slowest, key=lambda rank: rank.rank):
            counts = (f"{rank.done:,}", f"{rank.total:,}", f"{100 * rank.done / max(rank.total, 1):.0f}")
            speeds = (f"{rank.participants_per_second:,.0f}", f"{rank.output_tokens:,}")
            rows.append((str(rank.rank), *counts, *speeds, rank.host))
        lines += ["", _progress(status), *aligned(rows)]
        if len(status.ranks) > most:
            lines.append(f"the {most} ranks that are furthest behind, of {len(status.ranks):,}")
    return "\n".join(printable(line) for line in lines)


def headline(status: RunStatus) -> str:
    """A status in one line."""
    facts = [_WORDS.get(status.state, status.state)]
    if status.rounds is not None:
        sessions, participants = status.sessions or 1, status.participants or 0
        several = f"{sessions:,} sessions of {participants // sessions:,}"
        facts.append(f"{status.rounds_finished:,} of {status.rounds:,} rounds")
        facts.append(several if sessions > 1 else f"{participants:,} participants")
    if status.host is not None:
        job = f", Slurm job {status.slurm_job_id}" if status.slurm_job_id else ""
        facts.append(f"by {status.user} on {status.host} (pid {status.pid}{job})")
    if status.updated is not None:
        facts.append(f"as of {status.updated}")
    return f"{status.name or 'a run'}: {', '.join(facts)}"


def _progress(status: RunStatus) -> str:
    """How far the round is that is being played."""
    total, done, unusable, tokens = (
        sum(getattr(rank, name) for rank in status.ranks) for name in ("total", "done", "unusable", "output_tokens")
    )
    seconds = max(status.round_seconds, 1e-9)
    facts = [
        f"{done:,} of {total:,} ({100 * done / max(total, 1):.0f}%)",
        f"{done / seconds:,.0f} participants/s",
        f"{tokens / seconds:,.0f} tokens/s",
    ]
    facts += [f"{unusable:,} unusable"] if unusable else []
    facts.append(f"{timedelta(seconds=round(status.round_seconds))} so far")
    if status.seconds_left is not None:
        facts.append(f"{timedelta(seconds=round(status.seconds_left))} to the end")
    return f"{f'round {status.round:,}' if status.round else 'backgrounds'}: {', '.join(facts)}"
