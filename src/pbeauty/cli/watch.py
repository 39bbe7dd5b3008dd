"""Watching a run from outside: what its live state, its lock and its result say, shown to a person or a script.

Reads only, and trusts none of it: sizes are bounded, and no text from a file reaches a terminal unchecked.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console, Group, RenderableType
from rich.live import Live as Screen
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pbeauty.errors import DONE, ConfigError
from pbeauty.files import printable, read_bounded
from pbeauty.job.live_status import LIVE_FILE, LiveState, RankState, RoundState, SweepState, finished_rounds
from pbeauty.storage import lock
from pbeauty.storage.run_reader import Run
from pbeauty.storage.schema import RUN_FILE

_LARGEST = 1 << 25
"""Bytes; the live state of 100,000 ranks takes about as much."""
_REFRESH = 1.0
_ROWS = 20
"""Ranks, and rounds, that fit a screen; of more, the slowest and the latest are shown."""
_UNFINISHED = ("starting", "playing")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or its run.h5")
    parser.add_argument("--once", action="store_true", help="print its state once instead of following it")
    parser.add_argument("--json", action="store_true", help="print its state once, as JSON")


def command(options: argparse.Namespace) -> int:
    """Shows the run."""
    watch(options.run, as_json=options.json, once=options.once)
    return DONE


def watch(run: Path, *, as_json: bool, once: bool) -> None:
    """Shows a run on standard output: live on a terminal until it ends, else once; of a sweep, the case that is played.

    Raises:
        ConfigError: if there is no run to be shown.
    """
    folder = run if run.is_dir() else run.parent
    if not run.is_dir() and run.name not in (RUN_FILE, LIVE_FILE):
        raise ConfigError(f"{run} is no run: give its folder, or its {RUN_FILE}")
    sweep = _sweep(folder)
    if sweep and not sweep.case:
        told = f"sweep {printable(sweep.sweep)}: {sweep.state}; its cases are folders of {folder}"
        print(sweep.model_dump_json(indent=1) if as_json else told, flush=True)
        return
    folder = folder / sweep.case if sweep else folder
    state = observe(folder)
    if as_json:
        print(json.dumps(state, indent=1), flush=True)
    elif once or not sys.stdout.isatty():
        console = Console(file=sys.stdout, width=120, color_system=None, force_terminal=False, legacy_windows=False)
        console.print(show(state), soft_wrap=True)
    else:
        _follow(folder, state)


def observe(folder: Path) -> dict[str, Any]:
    """The live state of a run as JSON values, and in `state` also `dead`: a job that ended without saying so.

    Of a run that has no live state, as much of it as its result tells.

    Raises:
        ConfigError: if the folder holds no run.
    """
    path = folder / LIVE_FILE
    while True:
        state, seen = _read(path), _stamp(path)
        held = lock.look(folder / lock.LOCK_FILE)
        playing = held is not None and not held.stale
        if state is None or playing or state.state not in _UNFINISHED:
            break
        if _stamp(path) == seen:  # else it ended, or another job began, between the two looks
            return state.model_dump() | {"state": "dead"}
    if state is None:
        return _from_result(folder, held if playing else None)
    newcomer = held.owner if held and playing else None
    if newcomer and (newcomer.pid, newcomer.host) != (state.pid, state.host) and state.state not in _UNFINISHED:
        return state.model_dump() | {"state": "starting", "message": None, "pid": newcomer.pid, "host": newcomer.host}
    return state.model_dump()


def _sweep(folder: Path) -> SweepState | None:
    """How far a sweep is; None where the folder is not that of a sweep."""
    try:
        return SweepState.model_validate_json(read_bounded(folder / LIVE_FILE, _LARGEST)[0])
    except (OSError, ValueError):  # no live file, or that of a run
        return None


def _read(path: Path) -> LiveState | None:
    try:
        data, _ = read_bounded(path, _LARGEST)
        return LiveState.model_validate_json(data)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "(file)"
        reason = f"{printable(where)}: {printable(fault['msg'])}"
        raise ConfigError(f"{path} is not the live state of a run ({reason}); delete it to go by the result") from None
    except ValueError as error:
        raise ConfigError(f"{error}: it is not the live state of a run") from None


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _from_result(folder: Path, held: lock.Found | None) -> dict[str, Any]:
    owner = held.owner if held else None
    about: dict[str, Any] = {"state": "starting", "results": []}
    if (folder / RUN_FILE).exists():
        with Run(folder) as run:
            finished = "finished" if run.finished else "interrupted"
            about |= {
                "state": "playing" if held else finished,
                "name": run.experiment.name,
                "rounds": run.experiment.game.rounds,
                "rounds_finished": run.round_count,
                "participants": run.experiment.count,
                "results": [result.model_dump() for result in finished_rounds(run)],
            }
    elif not held:
        raise ConfigError(f"{folder} is no run: it holds neither {LIVE_FILE} nor {RUN_FILE}, and no job plays there")
    unknown = dict.fromkeys(LiveState.model_fields) | {"schema_version": 1, "ranks": []}
    if owner:
        unknown |= owner.model_dump(include={"user", "host", "pid", "slurm_job_id"}) | {"started": owner.since}
    return unknown | about


# --- what a person sees ----------------------------------------------------------------------------------------


def _follow(folder: Path, state: dict[str, Any]) -> None:
    console = Console(markup=False, highlight=False, emoji=False)
    try:
        with Screen(show(state), console=console, auto_refresh=False) as screen:
            while state["state"] in _UNFINISHED:
                time.sleep(_REFRESH)
                state = observe(folder)
                screen.update(show(state), refresh=True)
    except KeyboardInterrupt:
        return


def show(state: dict[str, Any]) -> RenderableType:
    """A state as `observe` gives it, for a screen of any width."""
    parts: list[RenderableType] = [_headline(state)]
    if state["message"]:
        parts += [Text(printable(line, 500)) for line in state["message"].splitlines()[-_ROWS:]]
    if state["results"]:
        parts += [Text(), _rounds([RoundState.model_validate(result) for result in state["results"]])]
    if state["state"] in (*_UNFINISHED, "dead") and state["round"]:
        parts += [Text(), *_round(state)]
    return Group(*parts)


def _headline(state: dict[str, Any]) -> Text:
    told = {
        "dead": "dead: its job is gone without having ended it; --resume goes on with it",
        "interrupted": "interrupted; --resume goes on with it",
    }
    facts = [told.get(state["state"], state["state"])]
    if state["rounds"] is not None:
        facts += [f"{state['rounds_finished']:,} of {state['rounds']:,} rounds"]
        facts += [f"{state['participants']:,} participants"]
    if state["host"] is not None:
        job = f", Slurm job {printable(state['slurm_job_id'])}" if state["slurm_job_id"] else ""
        facts += [f"by {printable(state['user'])} on {printable(state['host'])} (pid {state['pid']}{job})"]
    if state["updated"] is not None:
        facts += [f"as of {printable(state['updated'])}"]
    return Text(f"{printable(state['name'] or 'a run')}: {', '.join(facts)}")


def _rounds(results: list[RoundState]) -> RenderableType:
    table = Table(box=None, pad_edge=False)
    for heading in ("round", "mean", "median", "target", "winners", "valid", "seconds"):
        table.add_column(heading, justify="right")
    for result in results[-_ROWS:]:
        figures = [_figure(value) for value in (result.mean, result.median, result.target)]
        counts = [f"{result.n_winners:,}", f"{result.n_valid:,}", _figure(result.seconds)]
        table.add_row(*map(Text, (f"{result.round:,}", *figures, *counts)))
    return table


def _round(state: dict[str, Any]) -> list[RenderableType]:
    left = f", {_time(state['round_seconds_left'])} left" if state["round_seconds_left"] is not None else ""
    whole = f", {_time(state['run_seconds_left'])} to the end" if state["run_seconds_left"] is not None else ""
    unusable = f", {state['unusable']:,} unusable" if state["unusable"] else ""
    share = 100 * state["done"] / max(state["participants"], 1)
    parts: list[RenderableType] = [
        Text(
            f"round {state['round']:,}: {state['done']:,} of {state['participants']:,} ({share:.0f}%), "
            f"{_figure(state['participants_per_second'], 0)} participants/s, "
            f"{_figure(state['tokens_per_second'], 0)} tokens/s{unusable}, "
            f"{_time(state['round_seconds'])} so far{left}{whole}"
        ),
    ]
    ranks = [RankState.model_validate(rank) for rank in state["ranks"]]
    slowest = sorted(ranks, key=lambda rank: rank.done / max(rank.total, 1))[:_ROWS]
    if slowest:
        table = Table(box=None, pad_edge=False)
        for heading in ("rank", "done", "of", "participants/s", "tokens"):
            table.add_column(heading, justify="right")
        table.add_column("host")
        table.add_column("", width=20)
        for rank in sorted(slowest, key=lambda rank: rank.rank):
            table.add_row(
                *map(Text, (f"{rank.rank:,}", f"{rank.done:,}", f"{rank.total:,}")),
                *map(Text, (_figure(rank.participants_per_second, 0), f"{rank.output_tokens:,}", printable(rank.host))),
                ProgressBar(max(rank.total, 1), rank.done, width=20),
            )
        parts.append(table)
    if len(ranks) > _ROWS:
        parts.append(Text(f"the {_ROWS} ranks that are furthest behind, of {len(ranks):,}"))
    return parts


def _figure(value: float, digits: int = 2) -> str:
    return f"{value:,.{digits}f}" if abs(value) < 1e9 else f"{value:.3g}"


def _time(seconds: float) -> str:
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours >= 1_000_000:
        return "for ever"
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {whole % 60:02} s" if minutes else f"{whole} s"
