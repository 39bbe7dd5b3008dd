"""All figures of a run, and of several: from what is on disk and its analysis to figures and files."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pbeauty.analysis import levels
from pbeauty.analysis.comparison import Comparison, compare
from pbeauty.analysis.group_stats import GroupStats
from pbeauty.analysis.intervals import NONE, Estimate
from pbeauty.analysis.references import human_means, published_rules
from pbeauty.analysis.run_analysis import DEMO, Analysis, analyse, is_demo, run_name
from pbeauty.analysis.variation import Case, Variation, vary
from pbeauty.errors import ConfigError
from pbeauty.files import PLOTS
from pbeauty.game.experiment import Experiment
from pbeauty.game.population import in_words
from pbeauty.game.records import Status
from pbeauty.plots.groups import by_group, forest, group_histograms, small_multiples
from pbeauty.plots.histogram import count_guesses, histogram
from pbeauty.plots.rounds import ridgelines, shares
from pbeauty.plots.style import house_style, save, stamp
from pbeauty.plots.trajectory import trajectory
from pbeauty.storage.run_folder import find_runs
from pbeauty.storage.run_reader import Run

KINDS = ("sweep", "rounds", "trajectory", "ridgelines", "levels", "groups", "published", "replies")
"""Kinds of figures, which can be asked for by name; `sweep` are those that compare runs."""


@dataclass(frozen=True)
class Drawing:
    """A figure that can be drawn."""

    kind: str
    """One of `KINDS`."""
    stem: str
    """Of its files."""
    caption: str
    """What it shows, in words."""
    plot: Callable[[], Figure]
    notes: Sequence[str] = ()
    """What is marked on it."""

    def draw(self) -> Figure:
        """The figure."""
        return stamp(self.plot(), *self.notes)


# --- one run, without its analysis ---------------------------------------------------------------------------


def plot_run(path: Path, share: tuple[int, int] = (0, 1)) -> list[Path]:
    """Draws the histogram of every finished round of a run, and its trajectory, as PDF and as PNG into its `plots`.

    Args:
        path: a `run.h5`, or the folder that holds one.
        share: (i, n): of every n figures in turn, only the i-th, from 0; n processes draw them all.

    Returns:
        The files, rounds first; empty if no round is finished.

    Raises:
        ConfigError: if `path` is not a run that can be read.
    """
    return _draw_share(path, None, KINDS, share)


def round_drawings(run: Run) -> Iterator[Drawing]:
    """The histogram of each finished round, with level-k marks, target and aggregate; one round is read at a time."""
    rounds, marks = run.experiment.game.rounds, [DEMO] * is_demo(run.experiment)
    for index in range(run.round_count):
        caption = f"The distribution of guesses in round {index + 1} of {rounds}."
        plot = partial(round_histogram, run, index)
        yield Drawing("rounds", f"round-{index + 1:04d}-histogram", caption, plot, marks)


def round_histogram(run: Run, index: int, session: int | None = None) -> Figure:
    """The distribution of guesses in a round, from 0, of all sessions together or of one, from 0."""
    game, size, outcome = run.experiment.game, run.experiment.session_size, run.outcome(index)
    (references, _), name = levels.references(run, index), _title(run)
    if session is not None and run.experiment.sessions > 1:
        outcome, references, name = outcome.of(session), references[:, [session]], f"{name}, session {session + 1}"
    asked = ~np.isnan(references[0])  # the sessions that had not ended
    references, target, aggregate = references[:, asked], outcome.target, getattr(outcome, game.aggregate)
    marks = levels.marks(game, references.flat[0])
    bars = count_guesses(
        lambda: (guesses[status <= Status.RETRIED] for guesses, status in run.pieces(index, session)),
        game,
        [end(values) for values in (target, aggregate) for end in (np.nanmin, np.nanmax)],
    )
    return histogram(
        bars,
        game,
        target=target[asked],
        aggregate=aggregate[asked],
        n_unusable=size * references.shape[1] - bars.total,
        n_ended=int(np.count_nonzero(~asked)),
        levels=marks[~np.isnan(marks)].tolist() if np.ptp(references) == 0 else (),  # or else each has its own
        title=f"{name}: round {index + 1} of {game.rounds}",
    )


def _trajectory(run: Run) -> Iterator[Drawing]:
    """Means, medians and targets by round; nothing of a single round."""
    if run.round_count < 2:
        return
    experiment, game, demo = run.experiment, run.experiment.game, is_demo(run.experiment)
    played = published_rules(game) and (game.offset, game.low, game.high) == (0, 0, 100)

    def plot() -> Figure:
        return trajectory(
            game,
            **{name: run.read(name) for name in ("mean", "median", "target")},
            quartiles=None if experiment.sessions > 1 else [run.read(f"{end}_quartile") for end in ("lower", "upper")],
            people=human_means(game.p) if played and not demo else None,
            title=f"{_title(run)}: guesses by round",
        )

    caption = "Mean, median and target by round, and the quartiles of the guesses."
    if experiment.sessions > 1:
        caption = "Mean, median and target by round, averaged over sessions; thin lines are the means of sessions."
    yield Drawing("trajectory", "trajectory", caption, plot, notes(experiment, run.round_count))


def _title(run: Run) -> str:
    """The name of a run, and how many sessions it has if there are several."""
    about = run.experiment
    return f"{run_name(run)}, {in_words(about.sessions, about.session_size)}" if about.sessions > 1 else run_name(run)


def notes(experiment: Experiment, rounds: int) -> list[str]:
    """What the figures of a run of so many finished rounds are marked with."""
    whole = experiment.game.rounds
    unfinished = [f"UNFINISHED RUN: {rounds} of {whole} rounds"] if rounds < whole else []
    return unfinished + [DEMO] * is_demo(experiment)


# --- one run, with its analysis ------------------------------------------------------------------------------


def run_drawings(run: Run, analysis: Analysis | None) -> Iterator[Drawing]:
    """All figures of a run for which there are data.

    Args:
        run: open, for as long as figures are drawn.
        analysis: of the same run; without it, the histograms of the rounds and the trajectory alone.
    """
    yield from round_drawings(run)
    yield from _trajectory(run)
    if not analysis or not (cells := [cell for cell in analysis.of() if cell.n_valid]):
        return
    marks, named = notes(run.experiment, analysis.rounds), replace(analysis, name=_title(run))
    for drawing in chain(_guesses(named, cells), *(_by(named, by) for by in analysis.ways)):
        yield replace(drawing, notes=marks)
    if comparisons := compare(analysis):
        caption = "The first round's mean among the published ones of people and language models."
        yield Drawing("published", "published", caption, lambda: _published(named, comparisons), marks)
    if any(cell.n_valid < cell.n or cell.statuses["ok"].value < 1 for cell in analysis.of()):
        caption = "What became of the replies, by round."
        yield Drawing("replies", "statuses", caption, lambda: _statuses(named), marks)


def _guesses(analysis: Analysis, cells: Sequence[GroupStats]) -> Iterator[Drawing]:
    """How everybody guessed, over all rounds with a valid guess."""
    name, several = analysis.name, analysis.sessions > 1
    counted = [cell.counted for cell in cells if cell.counted]
    if len(counted) > 1:
        yield Drawing(
            "ridgelines", "ridgelines", "The distribution of guesses in every round, with mean and target.",
            lambda: ridgelines(
                analysis.game, counted[0].edges, [bins.counts for bins in counted],
                mean=[cell.mean.value for cell in cells], target=[cell.target for cell in cells],
                title=f"{name}: all rounds", subtitle="means over sessions" if several else "",
            ),
        )  # fmt: skip
    if all(cell.levels for cell in cells):
        values = [[cell.levels[label].value for label in levels.LABELS] for cell in cells]
        own = "; from each session's own reference" if several else ""
        subtitle = f"classes around the guesses of level-k participants (Nagel 1995){own}"
        yield Drawing(
            "levels", "levels", "Shares of guesses by level of reasoning.",
            lambda: shares(levels.LABELS, values, title=f"{name}: levels", subtitle=subtitle,
                           ylabel="share of guesses (%)"),
        )  # fmt: skip


def _statuses(analysis: Analysis) -> Figure:
    cells = analysis.of()
    names = list(cells[0].statuses)
    return shares(
        names, [[cell.statuses[name].value for name in names] for cell in cells],
        title=f"{analysis.name}: statuses of replies", ylabel="share of participants (%)",
        subtitle="ok, extracted and retried have a guess that counts",
    )  # fmt: skip


def _by(analysis: Analysis, by: str) -> Iterator[Drawing]:
    """How the groups of one kind guessed, beside each other."""
    cells, everybody = analysis.of(by), [cell.mean.value for cell in analysis.of() if cell.n_valid]
    names, count = list(dict.fromkeys(cell.label for cell in cells)), len(everybody)
    of = {(cell.label, cell.round): cell for cell in cells}
    title = f"{analysis.name}: means by {by}"
    bars = f"bars are intervals of the means{' over sessions' if analysis.sessions > 1 else ''}"

    def plot() -> Figure:
        if count == 1:
            rows = {"round 1": _with_intervals(of[name, 1].mean for name in names)}
            return forest(names, rows, title=title, subtitle=bars)
        lines = [_with_intervals(of[name, index + 1].mean for index in range(count)) for name in names]
        return by_group(
            analysis.game, names, *zip(*lines, strict=True), everybody=everybody, title=title, subtitle=bars
        )

    yield Drawing("groups", f"by-{by}", f"Mean guess by {by} and round, with intervals.", plot)
    counted = {f"round {number}": [of[name, number].counted for name in names] for number in sorted({1, count})}
    heard = [bins for rows in counted.values() for bins in rows if bins]
    if len(heard) == len(counted) * len(names):
        counts = {heading: [bins.counts for bins in rows if bins] for heading, rows in counted.items()}
        title_of_guesses = f"{analysis.name}: guesses by {by}"
        yield Drawing(
            "groups", f"by-{by}-histograms", f"The distribution of guesses by {by}, in the first and the last round.",
            lambda: group_histograms(analysis.game, names, heard[0].edges, counts, title=title_of_guesses, by=by),
        )  # fmt: skip


def _published(analysis: Analysis, comparisons: Sequence[Comparison]) -> Figure:
    kinds = {"people": "people", "language model": "language models"}
    shown = [c for c in comparisons if c.round == 1 and c.what in kinds]
    rows = [("this run", analysis.of()[0].mean, "this run"), *((c.reference, c.theirs, kinds[c.what]) for c in shown)]
    rows.sort(key=lambda row: -row[1].value)
    names, means, kind = zip(*rows, strict=True)
    title = f"{analysis.name}: round 1 beside published means"
    subtitle = f"intervals; {'; '.join(dict.fromkeys(c.source.marked for c in shown))}"
    return forest(names, {"": _with_intervals(means)}, kinds=kind, title=title, subtitle=subtitle)


def _with_intervals(means: Iterable[Estimate]) -> list[list[float]]:
    """Means, and the lower and the upper ends of their intervals, [3][mean]."""
    return [list(row) for row in zip(*((mean.value, mean.low, mean.high) for mean in means), strict=True)]


# --- several runs --------------------------------------------------------------------------------------------


def sweep_drawings(variation: Variation) -> Iterator[Drawing]:
    """What compares the cases of several runs: their means in the first and the last round, and round by round."""
    analyses = [analysis for case in variation.cases for analysis in case.analyses]
    partly = sum(not analysis.finished for analysis in analyses)
    marks = [f"UNFINISHED: {partly} of the runs"] if partly else []
    marks += [DEMO] * any(is_demo(analysis.experiment) for analysis in analyses)
    last = max((one.round for one in variation.stats), default=0)
    if not last:
        return
    of = {(one.case, one.round): one.mean for one in variation.stats}
    cases = [case for case in variation.cases if (case.label, 1) in of]
    panels = {
        f"round {number}": _with_intervals(of.get((case.label, number), NONE) for case in cases)
        for number in sorted({1, last})
    }
    names = [case.short for case in cases]
    over = "bars: intervals over sessions; over participants where there is one, in round 1 only"
    yield Drawing(
        "sweep", "sweep-means", "The mean guess of every case, with intervals.",
        lambda: forest(names, panels, title=f"Mean guess by {variation.keys}", subtitle=over), marks,
    )  # fmt: skip
    if last > 1:
        played, subtitle = {case.short: _sessions(case) for case in cases}, f"panels: {variation.keys}"
        if any(len(sessions) > 1 for sessions in played.values()):
            subtitle += "; thin lines are sessions (100 at most), thick ones their mean"
        yield Drawing(
            "sweep", "sweep-rounds", "Means by round, a panel per case.",
            lambda: small_multiples(played, title="Means by round and case", subtitle=subtitle), marks,
        )  # fmt: skip


def _sessions(case: Case) -> list[NDArray[np.float64]]:
    """The means by round of each session of a case, float64[round] each."""
    played = ([cell.means for cell in analysis.of() if cell.n_valid] for analysis in case.analyses)
    return [session for means in played if means for session in np.stack(means, axis=1)]


def plot_all(paths: Sequence[Path], only: Collection[str] = ()) -> Iterator[Path]:
    """Draws and saves figures about the runs that the paths mean, on all cores.

    Args:
        paths: runs, or folders with runs below. The figures of a run are in `plots` beside it, those that compare
            runs in `plots` in the folder that holds them all.
        only: the kinds to draw; all of them unless given.

    Yields:
        The files, as they are written, those that compare runs first.

    Raises:
        ConfigError: if one of them cannot be read.
    """
    found, kinds = find_runs(paths), set(only or KINDS)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # What is loaded by now stays: no process needs to look through it for garbage, of which figures make much.
    with contextlib.ExitStack() as at_end:
        pool = ProcessPoolExecutor(min(cores, 4 * len(found)), initializer=gc.freeze)
        at_end.callback(pool.shutdown, cancel_futures=True)  # whoever wants no more does not wait for the rest
        needed = kinds - {"rounds", "trajectory"} - ({"sweep"} if len(found) == 1 else set())
        analysed: list[Any] = list(pool.map(_analysed, found)) if needed else [None] * len(found)
        parts = max(3, -(-cores // len(found)))  # so that no process draws a whole run while the others are done
        written = [
            pool.submit(_draw_share, path, one, kinds, (part, parts))
            for path, one in zip(found, analysed, strict=True)
            for part in range(parts if kinds - {"sweep"} else 0)
        ]
        if len(found) > 1 and "sweep" in kinds:
            yield from _compare(found, analysed)
        for future in written:
            yield from future.result()


def _analysed(path: Path) -> Analysis:
    with Run(path) as run:
        return analyse(run)


@house_style
def _draw_share(path: Path, analysis: Analysis | None, kinds: Collection[str], share: tuple[int, int]) -> list[Path]:
    with Run(path) as run:
        wanted = (drawing for drawing in run_drawings(run, analysis) if drawing.kind in kinds)
        drawings = islice(wanted, share[0], None, share[1])
        return [file for one in drawings for file in save(one.draw(), run.path.parent / PLOTS / one.stem)]


def _compare(found: Sequence[Path], analysed: Sequence[Analysis]) -> Iterator[Path]:
    try:
        common = Path(os.path.commonpath([path.resolve().parent for path in found]))
    except ValueError:
        raise ConfigError("the runs have no folder in common to put the figures that compare them") from None
    for drawing in sweep_drawings(vary(analysed)):
        yield from save(drawing.draw(), common / PLOTS / drawing.stem)
