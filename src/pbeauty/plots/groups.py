"""Groups, cases and published results beside each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from pbeauty.game.experiment import Game
from pbeauty.plots.rounds import combined
from pbeauty.plots.style import (
    BLACK,
    BLUE,
    GREY,
    PALE,
    SERIES,
    SKY,
    VERMILION,
    grid,
    headed,
    house_style,
    page,
    round_numbers,
    rule,
    tick_rounds,
)
from pbeauty.plots.style import shortened as short
from pbeauty.plots.trajectory import thin_lines

MOST_ROWS = 80
MOST_PANELS = 8
MOST_CASES = 40
_KINDS: dict[str, dict[str, Any]] = {
    "": {"color": BLUE, "marker": "o"},
    "this run": {"color": BLACK, "marker": "o"},
    "people": {"color": VERMILION, "marker": "D"},
    "language models": {"color": GREY, "marker": "s"},
}


@house_style
def by_group(
    game: Game,
    names: Sequence[str],
    mean: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    *,
    everybody: ArrayLike | None = None,
    title: str = "Means by group",
    subtitle: str = "bars are intervals of the means",
) -> Figure:
    """The mean of each group by round, with intervals.

    Args:
        names: of the groups; those after the eighth are left out, and the figure says so.
        mean: float64[group, round], NaN where a group has no valid guess.
        low: the lower ends of the intervals, likewise.
        high: the upper ends.
        everybody: float64[round], the mean of all participants, as a pale line.
        subtitle: what follows the rule of the target below it.
    """
    mean, low, high = (np.atleast_2d(np.asarray(values, float)) for values in (mean, low, high))
    most = len(SERIES)
    left_out = f"; {len(names) - most} of {len(names)} groups left out" if len(names) > most else ""
    figure, axes = page(title, f"{rule(game)}; {subtitle}{left_out}", (0.095, 0.145, 0.62, 0.655))
    count = mean.shape[1]
    rounds = np.arange(1, count + 1)
    if everybody is not None:
        axes.plot(rounds, everybody, color=PALE, linewidth=3, label="everybody", zorder=1.5, gid="everybody")
    shown = min(len(names), most)
    for index, name in enumerate(names[:most]):
        # Side by side, so that intervals of groups that guess alike do not hide each other.
        places = rounds + 0.035 * (index - (shown - 1) / 2)
        reach = np.nan_to_num([mean[index] - low[index], high[index] - mean[index]])
        axes.errorbar(
            places, mean[index], reach, **SERIES[index], linewidth=1.2, markersize=4, elinewidth=0.9, capsize=2,
            label=short(figure, name, 1.3, 8.5), zorder=3, gid=name,
        )  # fmt: skip
    axes.set(xlabel="round", ylabel="mean guess", xlim=(0.6, count + 0.4))
    tick_rounds(axes, count)
    figure.legend(loc="upper left", bbox_to_anchor=(0.725, 0.81), handlelength=2.6, labelspacing=0.8)
    return figure


@house_style
def group_histograms(
    game: Game,
    names: Sequence[str],
    edges: ArrayLike,
    counts: Mapping[str, ArrayLike],
    *,
    title: str,
    by: str = "group",
) -> Figure:
    """The distribution of guesses of each group, a row per group, a column per round.

    Args:
        names: of the groups; those after the eighth are left out, and the figure says so.
        edges: float64[bin + 1].
        counts: int64[group, bin], by heading of the column; shares are of the group.
        by: what groups are made by.
    """
    rows = min(len(names), MOST_PANELS)
    some = f"; {rows} of {len(names)} shown" if rows < len(names) else ""
    figure = headed(title, f"shares of the usable guesses of each {by} (%){some}", 1.25 + 0.82 * rows)
    places = grid(figure, rows, len(counts), (0.5, 0.58, 0.2, 0.8), hspace=0.5, wspace=0.1)
    edges = np.asarray(edges, float)
    unit = max(1, round((game.high - game.low) / 100 / (edges[2] - edges[1])))  # on [0, 100]: bins of a whole number
    for column, (heading, of_groups) in enumerate(counts.items()):
        shown, edges_shown = _occupied(game, edges, np.asarray(of_groups)[:rows], unit)
        for row, own in enumerate(shown):
            axes = figure.add_subplot(places[row, column])
            own_edges, own = combined(edges_shown, own, 100 if own.sum() > 250 else 50 if own.sum() > 60 else 20, unit)
            axes.stairs(100 * own / max(own.sum(), 1), own_edges, fill=True, color=SKY)
            axes.set(xlim=(edges_shown[0], edges_shown[-1]), ylim=(0, None))
            axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
            axes.xaxis.set_major_locator(round_numbers(6))
            name = short(figure, f"{names[row]} ({own.sum():,}), {heading}", 5.6 / len(counts), 7.5)
            axes.set_title(name, fontsize=7.5, loc="left", pad=2)
            axes.tick_params(labelbottom=row == rows - 1)
    figure.supxlabel("guess", fontsize=8.5, y=0.17 / figure.get_figheight())
    return figure


def _occupied(
    game: Game, edges: NDArray[np.float64], counts: NDArray[np.int64], unit: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The bins that any group has guesses in and their edges, if they are a small part of the game's range; or all."""
    bins = np.flatnonzero(counts.sum(axis=0))
    if not bins.size or edges[bins[-1] + 1] - edges[bins[0]] > 0.4 * (game.high - game.low):
        return counts, edges
    first, last = max(bins[0] - 2, 0) // unit * unit, bins[-1] + 3
    return counts[:, first:last], edges[first : last + 1]


@house_style
def forest(
    names: Sequence[str],
    panels: Mapping[str, Sequence[ArrayLike]],
    *,
    kinds: Sequence[str] = (),
    title: str,
    subtitle: str = "",
) -> Figure:
    """Means as dots with intervals, a row each, from the top in the order given; several panels share the rows.

    Args:
        names: of the rows; those after the eightieth are left out, and the figure says so.
        panels: by heading, means and the lower and upper ends of their intervals, float64[row] each; NaN for none.
        kinds: of the rows, where they differ: `this run`, `people`, `language models`; named in a legend.
    """
    rows = min(len(names), MOST_ROWS)
    some = f"{rows} of {len(names)} shown; " if rows < len(names) else ""
    legend = 0.22 if kinds else 0
    height = 1.4 + legend + 0.17 * max(rows, 4)
    figure = headed(title, some + subtitle, height)
    label_width = 3.6 if len(panels) == 1 else 2.6
    texts = [short(figure, name, label_width - 0.15, 7.5) for name in names[:rows]]
    label_width = min(label_width, 0.4 + 0.062 * max(map(len, texts)))
    spaces = grid(figure, 1, len(panels), (label_width, 0.58, 0.2, 0.78 + legend), wspace=0.08)
    places = np.arange(rows)[::-1]
    for column, (heading, values) in enumerate(panels.items()):
        axes = figure.add_subplot(spaces[0, column], sharex=figure.axes[0] if column else None)
        mean, low, high = (np.asarray(value, float)[:rows] for value in values)
        axes.hlines(places, low, high, color=GREY, linewidth=1.2, zorder=2.5, gid="intervals")
        for kind in dict.fromkeys(kinds or [""]):
            of_kind = np.array([kind == other for other in kinds[:rows]] or [True] * rows)
            axes.plot(
                mean[of_kind], places[of_kind], **_KINDS[kind], linestyle="none", markersize=5, zorder=3, gid="means",
                label=kind if column == 0 else None,
            )  # fmt: skip
        for place, kind in zip(places, kinds, strict=False):
            if kind == "this run":
                axes.axvline(mean[rows - 1 - place], color=PALE, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1.5)
        axes.set_title(heading, fontsize=8.5, loc="left", pad=4)
        axes.set(xlabel="mean guess", ylim=(-0.7, rows - 0.3))
        axes.set_yticks(places, texts if column == 0 else [""] * rows)
        axes.tick_params(axis="y", length=0, labelsize=7.5)
        axes.xaxis.set_major_locator(round_numbers(10 // len(panels)))
        axes.grid(axis="x")
        axes.grid(axis="y", color="#f0f0f0")
        axes.spines["left"].set_visible(False)
        for text, kind in zip(axes.get_yticklabels(), kinds, strict=False):
            text.set_fontweight("bold" if kind == "this run" else "normal")
        if rows == 1 and not math.isfinite(float(low[0])):
            axes.margins(x=0.5)
    if kinds:
        figure.legend(loc="upper left", bbox_to_anchor=(0.005, 1 - 0.5 / height), ncols=3, handletextpad=0.2)
    return figure


@house_style
def small_multiples(
    cases: Mapping[str, Sequence[Any]], *, title: str = "Means by round and case", subtitle: str = ""
) -> Figure:
    """A panel per case, all on the same axes: every session's means by round, and their mean.

    Args:
        cases: by label, the sessions of a case, float64[round] each, NaN where one has ended; they may differ in their
            numbers of rounds.
    """
    shown = dict(list(cases.items())[:MOST_CASES])
    if len(shown) < len(cases):
        subtitle = f"{len(shown)} of {len(cases)} cases; {subtitle}".rstrip("; ")
    columns = min(4, math.ceil(math.sqrt(len(shown))))
    rows = math.ceil(len(shown) / columns)
    figure = headed(title, subtitle, 1.35 + 1.45 * rows)
    places = grid(figure, rows, columns, (0.62, 0.58, 0.15, 0.85), hspace=0.5, wspace=0.12)
    tables = {name: np.array([*zip_longest(*sessions, fillvalue=np.nan)]).T for name, sessions in shown.items()}
    longest = max(table.shape[1] for table in tables.values())
    least, most = (end([end(table) for table in tables.values()]) for end in (np.nanmin, np.nanmax))
    room = 0.06 * max(most - least, 1e-9)
    for index, (name, table) in enumerate(tables.items()):
        axes = figure.add_subplot(places[index // columns, index % columns])
        if len(table) > 1:
            thin_lines(axes, list(table))
        average = np.nanmean(table[:, ~np.isnan(table).all(axis=0)], axis=0)
        axes.plot(range(1, average.size + 1), average, color=BLUE, linewidth=1.8, marker="o", markersize=3.5, gid=name)
        axes.set(xlim=(0.7, longest + 0.3), ylim=(least - room, most + room))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_title(short(figure, name, 5.5 / columns, 7.5), fontsize=7.5, loc="left", pad=3)
        axes.tick_params(labelleft=index % columns == 0, labelbottom=index + columns >= len(shown))
    figure.supxlabel("round", fontsize=8.5, y=0.17 / figure.get_figheight())
    figure.supylabel("mean guess", fontsize=8.5, x=0.012)
    return figure
