"""The cases of a sweep, round by round: a small panel per case."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pbeauty.plots.style import BLUE, band, headed, house_style, shortened
from pbeauty.plots.trajectory import thin_lines

MOST_PANELS = 40
_COLUMNS = 4


@house_style
def small_multiples(
    cases: Mapping[str, Sequence[Any]], *, title: str = "Means by round and case", subtitle: str = ""
) -> Figure:
    """A panel per case, all on the same axes: every session's means by round, and their mean.

    Args:
        cases: by label, the sessions of a case, float64[round] each, NaN where one has ended; they may differ in their
            numbers of rounds.
        title: the headline.
        subtitle: the line below it.
    """
    shown = dict(list(cases.items())[:MOST_PANELS])
    if len(shown) < len(cases):
        subtitle = f"{len(shown)} of {len(cases)} cases; {subtitle}".rstrip("; ")
    columns = min(_COLUMNS, math.ceil(math.sqrt(len(shown))))
    rows = math.ceil(len(shown) / columns)
    height = 1.35 + 1.45 * rows
    figure = headed(title, subtitle, height)
    left, bottom, width, tall = band((0.62, 0.58, 0.15, 0.85), height)
    grid = figure.add_gridspec(
        rows, columns, left=left, bottom=bottom, right=left + width, top=bottom + tall, hspace=0.5, wspace=0.12
    )
    tables = {name: np.array([*zip_longest(*sessions, fillvalue=np.nan)]).T for name, sessions in shown.items()}
    longest = max(table.shape[1] for table in tables.values())
    least, most = (end([end(table) for table in tables.values()]) for end in (np.nanmin, np.nanmax))
    room = 0.06 * max(most - least, 1e-9)
    for index, (name, table) in enumerate(tables.items()):
        axes = figure.add_subplot(grid[index // columns, index % columns])
        if len(table) > 1:
            thin_lines(axes, list(table))
        average = np.nanmean(table[:, ~np.isnan(table).all(axis=0)], axis=0)
        axes.plot(range(1, average.size + 1), average, color=BLUE, linewidth=1.8, marker="o", markersize=3.5, gid=name)
        axes.set(xlim=(0.7, longest + 0.3), ylim=(least - room, most + room))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_title(shortened(figure, name, 5.5 / columns, 7.5), fontsize=7.5, loc="left", pad=3)
        if index % columns:
            axes.tick_params(labelleft=False)
        if index + columns < len(shown):
            axes.tick_params(labelbottom=False)
    figure.supxlabel("round", fontsize=8.5, y=0.17 / height)
    figure.supylabel("mean guess", fontsize=8.5, x=0.012)
    return figure
