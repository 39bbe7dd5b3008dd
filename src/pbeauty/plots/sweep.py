"""Runs of a sweep beside each other: one small panel per case, and means against what was varied."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pbeauty.plots.style import BLACK, BLUE, HOUSE_STYLE, PALE, band, headed, shortened

MOST_PANELS = 24
_COLUMNS = 4


@HOUSE_STYLE
def small_multiples(
    cases: Mapping[str, Sequence[Sequence[float]]], *, title: str = "Means by round and case", subtitle: str = ""
) -> Figure:
    """A panel per case, all on the same axes: every run's means by round, and their mean.

    Args:
        cases: by label, the runs of a case, float64[round] each; runs may differ in their numbers of rounds.
        title: the headline.
        subtitle: the line below it.
    """
    shown = dict(list(cases.items())[:MOST_PANELS])
    if len(shown) < len(cases):
        subtitle = f"{len(shown)} of {len(cases)} cases; {subtitle}".rstrip("; ")
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    height = 1.25 + 1.45 * rows
    figure = headed(title, subtitle or "thin lines are runs, the thick one is their mean", height)
    left, bottom, width, tall = band((0.62, 0.5, 0.15, 0.85), height)
    grid = figure.add_gridspec(
        rows, columns, left=left, bottom=bottom, right=left + width, top=bottom + tall, hspace=0.5, wspace=0.12
    )
    longest = max(len(run) for runs in shown.values() for run in runs)
    highest = max(max(run) for runs in shown.values() for run in runs if len(run))
    lowest = min(min(run) for runs in shown.values() for run in runs if len(run))
    room = 0.06 * max(highest - lowest, 1e-9)
    for index, (name, runs) in enumerate(shown.items()):
        axes = figure.add_subplot(grid[index // columns, index % columns])
        for run in runs:
            axes.plot(range(1, len(run) + 1), run, color=PALE, linewidth=0.9, marker="o", markersize=2)
        common = min(len(run) for run in runs)
        average = np.mean([run[:common] for run in runs], axis=0)
        axes.plot(range(1, common + 1), average, color=BLUE, linewidth=1.8, marker="o", markersize=3.5, gid=name)
        axes.set(xlim=(0.7, longest + 0.3), ylim=(lowest - room, highest + room))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_title(shortened(figure, name, 5.5 / columns, 7.5), fontsize=7.5, loc="left", pad=3)
        if index % columns:
            axes.tick_params(labelleft=False)
        if index + columns < len(shown):
            axes.tick_params(labelbottom=False)
    figure.supxlabel("round", fontsize=8.5, y=0.08 / height)
    figure.supylabel("mean guess", fontsize=8.5, x=0.012)
    return figure


@HOUSE_STYLE
def against(values: Sequence[str], means: Sequence[float], *, name: str, title: str, subtitle: str = "") -> Figure:
    """Each run's mean against the value that its case has of one swept key, with the mean per value.

    Args:
        values: of each run, as text; they are an axis of numbers where all are numbers or fractions.
        means: float64[run].
        name: of the key.
        title: the headline.
        subtitle: the line below it.
    """
    figure = headed(title, subtitle or "small dots are runs, large ones their means")
    axes = figure.add_axes((0.095, 0.17, 0.875, 0.64))
    numbers = [_number(value) for value in values]
    kinds = list(dict.fromkeys(values))
    numeric = all(number is not None for number in numbers)
    if numeric:
        kinds.sort(key=lambda value: _number(value) or 0.0)
        places = {value: _number(value) or 0.0 for value in kinds}
    else:
        places = {value: float(index) for index, value in enumerate(kinds)}
    x, y = np.array([places[value] for value in values], float), np.array(means, float)
    centres = [float(y[x == places[value]].mean()) for value in kinds]
    axes.plot(x, y, linestyle="none", marker="o", markersize=4, color=BLUE, alpha=0.6, label="runs", gid="runs")
    axes.plot(
        [places[value] for value in kinds], centres, linestyle="-" if numeric else "none", linewidth=1,
        color=BLACK, marker="D", markersize=6, zorder=3, label="mean of runs", gid="means",
    )  # fmt: skip
    if not numeric or len(kinds) <= 8:
        names = [shortened(figure, value, 5 / len(kinds), 8.5) for value in kinds]
        axes.set_xticks([places[value] for value in kinds], names)
    spread = (max(places.values()) - min(places.values())) or 1.0
    room = 0.08 * spread if numeric else 0.5
    axes.set_xlim(min(places.values()) - room, max(places.values()) + room)
    axes.set(xlabel=name, ylabel="mean guess")
    return figure


def _number(text: str) -> float | None:
    above, _, below = text.partition("/")
    try:
        value = float(above) / (float(below) if below else 1.0)
    except (ValueError, ZeroDivisionError):
        return None
    return value if math.isfinite(value) else None
