"""All figures of a run, and of several: from what is on disk and its analysis to figures and files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pbeauty.analysis import levels
from pbeauty.analysis.comparison import Comparison, compare
from pbeauty.analysis.group_stats import EVERYBODY, GroupStats
from pbeauty.analysis.references import human_means, load
from pbeauty.analysis.run_analysis import Analysis, analyse
from pbeauty.analysis.variation import Variation, settings, vary
from pbeauty.errors import ConfigError
from pbeauty.game.experiment import LLMGroup
from pbeauty.game.rules import Status
from pbeauty.plots.groups import beside_others, by_group
from pbeauty.plots.histogram import histogram
from pbeauty.plots.rounds import ridgelines, shares
from pbeauty.plots.style import save, stamp
from pbeauty.plots.sweep import against, small_multiples
from pbeauty.plots.trajectory import trajectory
from pbeauty.plots.work import lengths, times
from pbeauty.storage.run_folder import find_runs
from pbeauty.storage.run_reader import Run
from pbeauty.storage.schema import TIME_PARTS

_MOST_KEYS = 8
"""More keys than this vary between runs that are no sweep, and nothing is to be seen along any of them."""


@dataclass(frozen=True)
class Drawn:
    """A figure, the file name that it gets, and what it shows in words."""

    stem: str
    caption: str
    figure: Figure


# --- one run -------------------------------------------------------------------------------------------------


def plot_run(path: Path, out: Path | None = None, share: tuple[int, int] = (0, 1)) -> list[Path]:
    """Draws every finished round of a run and its trajectory, as PDF and as PNG.

    Args:
        path: a `run.h5`, or the folder that holds one.
        out: the folder to write to; `plots` beside `run.h5` unless given.
        share: (i, n): of every n figures in turn, only the i-th, from 0; n processes draw them all.

    Returns:
        The files, rounds first; empty if no round is finished.

    Raises:
        ConfigError: if `path` is not a run that can be read.
    """
    written = []
    index, of = share
    with Run(path) as run:
        out = run.path.parent / "plots" if out is None else out
        for round_index in range(index, run.round_count, of):  # one at a time: a round may hold millions of guesses
            written += save(draw_round(run, round_index), out / f"round-{round_index + 1:04d}-histogram")
        if run.round_count and run.round_count % of == index:
            written += save(_trajectory(run), out / "trajectory")
    return written


def _trajectory(run: Run) -> Figure:
    outcomes = [run.outcome(index) for index in range(run.round_count)]
    target, mean, median, lower, upper = (
        np.array([getattr(outcome, name) for outcome in outcomes])
        for name in ("target", "mean", "median", "lower_quartile", "upper_quartile")
    )
    figure = trajectory(
        run.experiment.game,
        mean=mean,
        median=median,
        target=target,
        lower=lower,
        upper=upper,
        title=run.experiment.name,
    )
    return stamp(figure, unfinished(run))


def draw_round(run: Run, index: int) -> Figure:
    """The histogram of a round, from 0, with level-k marks, target and aggregate."""
    game, outcome = run.experiment.game, run.outcome(index)
    figure = histogram(
        (guesses[status <= Status.RETRIED] for guesses, status in run.pieces(index)),
        game,
        target=outcome.target,
        mean=outcome.mean,
        median=outcome.median,
        n_unusable=run.guesses.shape[1] - outcome.n_valid,
        levels=levels.marks(game, levels.reference(run, index)),
        title=f"{run.experiment.name}: round {index + 1}",
    )
    return stamp(figure, unfinished(run))


def unfinished(run: Run) -> str | None:
    """What a figure of an unfinished run is marked with; None for a finished one."""
    if run.finished:
        return None
    return f"UNFINISHED RUN: {run.round_count} of {run.experiment.game.rounds} rounds"


def draw(run: Run, analysis: Analysis, comparisons: Sequence[Comparison] = ()) -> Iterator[Drawn]:
    """All figures of a run but the histograms of its rounds; those for which there are no data are left out.

    Args:
        run: open.
        analysis: of the same run.
        comparisons: with what has been published.
    """
    for drawn in _draw(run, analysis, comparisons):
        stamp(drawn.figure, analysis.unfinished)
        yield drawn


def _draw(run: Run, analysis: Analysis, comparisons: Sequence[Comparison]) -> Iterator[Drawn]:
    name, game = analysis.name, analysis.game
    cells = [cell for cell in analysis.of() if cell.n_valid]
    if not cells:
        return
    mean, low, high = (cells_mean(cells, end) for end in ("value", "low", "high"))
    target = [cell.target for cell in cells]
    yield Drawn(
        "trajectory-intervals",
        "Mean with its interval, median and target by round; the band holds the middle half of the guesses.",
        trajectory(
            game, mean=mean, median=[c.median for c in cells], target=target, intervals=(low, high),
            lower=[c.lower_quartile for c in cells], upper=[c.upper_quartile for c in cells],
            title=f"{name}: guesses by round",
        ),
    )  # fmt: skip
    counted = [cell.counted for cell in cells if cell.counted]
    yield Drawn(
        "ridgelines",
        "The distribution of guesses in every round, with mean and target.",
        ridgelines(
            game, counted[0].edges, [bins.counts for bins in counted], mean=mean, target=target,
            title=f"{name}: all rounds",
        ),
    )  # fmt: skip
    if all(cell.levels for cell in cells):
        values = [[cell.levels[label].value for label in levels.LABELS] for cell in cells]
        subtitle = "windows of a quarter step around the guesses of level-k reasoners (Nagel 1995)"
        yield Drawn(
            "levels",
            "Shares of guesses by level of reasoning.",
            shares(levels.LABELS, values, title=f"{name}: levels", subtitle=subtitle, ylabel="share of guesses (%)"),
        )
    for by in dict.fromkeys(cell.by for cell in analysis.cells if cell.by != EVERYBODY):
        yield _by(analysis, by, mean)
    if comparisons:
        yield _published(analysis, comparisons)
        if len(cells) > 1 and any(c.what == "language model" for c in comparisons):
            yield _published_rounds(analysis, cells)
    yield from _work(run, analysis)


def _by(analysis: Analysis, by: str, everybody: NDArray[np.float64]) -> Drawn:
    cells = analysis.of(by)
    names = list(dict.fromkeys(cell.label for cell in cells))
    of = {(cell.label, cell.round): cell.mean for cell in cells}
    values, lows, highs = (
        [[getattr(of[name, index + 1], end) for index in range(everybody.size)] for name in names]
        for end in ("value", "low", "high")
    )
    figure = by_group(
        analysis.game, names, values, lows, highs, others=everybody, title=f"{analysis.name}: means by {by}"
    )
    return Drawn(f"by-{by}", f"Mean guess by {by} and round, with intervals; the pale line is everybody.", figure)


def _published(analysis: Analysis, comparisons: Sequence[Comparison]) -> Drawn:
    ours = analysis.of()[0]
    rows = [("this run", ours.mean, "ours")]
    shown = [c for c in comparisons if c.round == 1 and c.what != "people by round"]
    rows += [(f"{c.reference} ({c.source})", c.theirs, c.what) for c in shown]
    names, means, kinds = zip(*rows, strict=True)
    values, lows, highs = ([getattr(mean, end) for mean in means] for end in ("value", "low", "high"))
    figure = beside_others(names, values, lows, highs, kinds, title=f"{analysis.name}: round 1 beside published means")
    return Drawn("published", "The first round's mean among the published ones of people and language models.", figure)


def _published_rounds(analysis: Analysis, cells: Sequence[GroupStats]) -> Drawn:
    """The published rounds of language models, as many as the run has, and people behind them."""
    count = len(cells)
    names, rows = ["this run"], [cells_mean(cells, end) for end in ("value", "low", "high")]
    means, lows, highs = ([row] for row in rows)
    nothing = np.full(count, np.nan)
    for path in load().llm_trajectories:
        row = nothing.copy()
        for number, mean in zip(path.rounds, path.means, strict=True):
            if number <= count:
                row[number - 1] = mean
        names.append(path.model)
        means.append(row)
        lows.append(nothing)
        highs.append(nothing)
    human = human_means(analysis.game.p)
    people = nothing.copy()
    if human:
        people[: len(human.average)] = human.average[:count]
    sources = "; ".join(dict.fromkeys(path.source.short for path in load().llm_trajectories))
    figure = by_group(
        analysis.game, names, means, lows, highs, others=people,
        others_name=f"people ({human.source.short})" if human else "people",
        title=f"{analysis.name}: rounds beside published ones",
    )  # fmt: skip
    return Drawn("published-rounds", f"Means by round beside published language models ({sources}).", figure)


def cells_mean(cells: Sequence[GroupStats], end: str) -> NDArray[np.float64]:
    """One end, or the value, of the means of cells, float64[cell]."""
    return np.array([getattr(cell.mean, end) for cell in cells])


def _work(run: Run, analysis: Analysis) -> Iterator[Drawn]:
    name, cells = analysis.name, analysis.of()
    statuses = list(cells[0].statuses)
    if any(cell.n_valid < cell.n or cell.statuses["ok"].value < 1 for cell in cells):
        yield Drawn(
            "statuses",
            "What became of the replies, by round.",
            shares(
                statuses, [[cell.statuses[status].value for status in statuses] for cell in cells],
                title=f"{name}: statuses of replies", subtitle="up to `retried`, the guess counts",
                ylabel="share of participants (%)",
            ),
        )  # fmt: skip
    rounds = run.file["rounds"]
    if "output_tokens" in rounds:
        limits = {group.sampling.max_tokens for group in run.experiment.population if isinstance(group, LLMGroup)}
        said = [tokens[tokens > 0] for tokens in (run.read("output_tokens", index) for index in range(run.round_count))]
        if all(tokens.size for tokens in said):
            quantiles = [np.percentile(tokens, [5, 25, 50, 75, 95]) for tokens in said]
            limit = limits.pop() if len(limits) == 1 else None
            figure = lengths(quantiles, limit=limit, title=f"{name}: length of replies")
            yield Drawn("lengths", "Tokens sampled per participant, by round.", figure)
    if "seconds" in rounds:
        split = all(part in rounds for part in TIME_PARTS)
        parts = {what: run.read(part) for part, what in TIME_PARTS.items()} if split else {}
        if not split or any(np.isnan(seconds).any() for seconds in parts.values()):
            parts = {"whole round": run.seconds}
        rate = analysis.participants * run.round_count / max(float(run.seconds.sum()), 1e-9)
        figure = times(parts, title=f"{name}: time per round", subtitle=f"{rate:,.0f} participants/s over all rounds")
        yield Drawn("times", "Wall time of each round.", figure)


# --- several runs --------------------------------------------------------------------------------------------


def draw_sweep(variation: Variation) -> Iterator[Drawn]:
    """What compares the cases of several runs: small multiples, and last and first means against each varied key."""
    partly = [a for case in variation.cases for a in case.analyses if not a.finished]
    mark = f"UNFINISHED: {len(partly)} of the runs" if partly else None
    played: dict[str, list[list[float]]] = {}
    for case in variation.cases:
        found = [[cell.mean.value for cell in a.of() if cell.n_valid] for a in case.analyses]
        if any(found):
            played[case.short] = [run for run in found if run]
    if not played:
        return
    names = " · ".join(key.rpartition(".")[2] for key in variation.varied)
    panels = f"panels: {names}; thin lines are runs, thick ones their mean" if names else ""
    figure = small_multiples(played, title="Means by round and case", subtitle=panels)
    yield Drawn("sweep-rounds", "Means by round, a panel per case.", stamp(figure, mark))
    for key in variation.varied[:_MOST_KEYS]:
        rows = [
            (case.settings[key], cell.mean.value)
            for case in variation.cases
            for a in case.analyses
            for cell in a.of()
            if cell.n_valid and cell.round == 1
        ]
        values, means = [value for value, _ in rows], [mean for _, mean in rows]
        figure = against(values, means, name=key, title=f"First-round means against {key}")
        yield Drawn(f"sweep-{key}", f"First-round mean of every run against {key}.", stamp(figure, mark))


def plot_all(paths: Sequence[Path]) -> Iterator[Path]:
    """Draws and saves everything about the runs that the paths mean.

    Args:
        paths: runs, or folders with runs below. The figures of a run are in `plots` beside it, those that compare
            runs in `plots` in the folder that holds them all.

    Yields:
        The files, as they are written.

    Raises:
        ConfigError: if one of them cannot be read.
    """
    found, analysed = find_runs(paths), []
    for path in found:
        yield from plot_run(path)
        with Run(path) as run:
            analysis = analyse(run)
            for drawn in draw(run, analysis, compare(analysis)):
                yield from save(drawn.figure, run.path.parent / "plots" / drawn.stem)
            analysed.append((settings(run.experiment), analysis))
    if len(found) > 1:
        try:
            common = Path(os.path.commonpath([path.resolve().parent for path in found]))
        except ValueError:
            raise ConfigError("the runs have no folder in common to put the figures that compare them") from None
        for drawn in draw_sweep(vary(analysed)):
            yield from save(drawn.figure, common / "plots" / drawn.stem)
