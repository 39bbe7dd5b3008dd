"""Groups beside each other, and runs beside what has been published."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from pbeauty.game.experiment import Game
from pbeauty.plots.style import BLACK, GREY, HOUSE_STYLE, PALE, SERIES, VERMILION, band, headed, rule, shortened


@HOUSE_STYLE
def by_group(
    game: Game,
    names: Sequence[str],
    mean: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    *,
    others: ArrayLike | None = None,
    others_name: str = "everybody",
    title: str = "Means by group",
) -> Figure:
    """The mean of each group by round, with intervals.

    Args:
        game: the rules.
        names: of the groups; those after the eighth are left out, and the figure says so.
        mean: float64[group, round], NaN where a group has no valid guess.
        low: the lower ends of the intervals, likewise.
        high: the upper ends.
        others: float64[round], what the groups are to be seen against, as a pale line: the mean of everybody.
        others_name: what that line is called.
        title: the headline.
    """
    mean, low, high = (np.atleast_2d(np.asarray(values, float)) for values in (mean, low, high))
    most = len(SERIES)
    left_out = f"; {len(names) - most} of {len(names)} groups left out" if len(names) > most else ""
    figure = headed(title, f"{rule(game)}; bars are intervals of the means{left_out}")
    axes = figure.add_axes((0.095, 0.12, 0.64, 0.68))
    count = mean.shape[1]
    rounds = np.arange(1, count + 1)
    if others is not None:
        axes.plot(
            rounds,
            others,
            color=PALE,
            linewidth=3,
            label=shortened(figure, others_name, 1.15, 8.5),
            zorder=1.5,
            gid="others",
        )
    shown = min(len(names), most)
    for index, name in enumerate(names[:most]):
        # Side by side, so that intervals of groups that guess alike do not hide each other.
        places = rounds + 0.035 * (index - (shown - 1) / 2)
        reach = np.nan_to_num([mean[index] - low[index], high[index] - mean[index]])
        axes.errorbar(
            places, mean[index], reach, **SERIES[index], linewidth=1.2, markersize=4, elinewidth=0.9, capsize=2,
            label=shortened(figure, name, 1.15, 8.5), zorder=3, gid=name,
        )  # fmt: skip
    axes.set(xlabel="round", ylabel="mean guess", xlim=(0.6, count + 0.4))
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    figure.legend(loc="upper left", bbox_to_anchor=(0.75, 0.81), handlelength=2.6, labelspacing=0.8)
    return figure


@HOUSE_STYLE
def beside_others(
    names: Sequence[str],
    mean: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    kinds: Sequence[str],
    *,
    title: str = "First-round means beside published ones",
    subtitle: str = "bars are intervals of the means, where the spread was published",
) -> Figure:
    """Means as dots on one axis, in order of size: ours among those of people and of language models.

    Args:
        names: of the rows.
        mean: float64[row].
        low: the lower ends of intervals, NaN where there are none.
        high: the upper ends.
        kinds: of the rows: `ours`, `people`, or anything else, for the published models.
        title: the headline.
        subtitle: the line below it.
    """
    mean, low, high = (np.asarray(values, float) for values in (mean, low, high))
    order = np.argsort(mean, kind="stable")
    height = 1.5 + 0.17 * len(names)
    figure = headed(title, subtitle, height)
    axes = figure.add_axes(band((3.05, 0.5, 0.2, 0.8), height))
    looks: dict[str, dict[str, Any]] = {
        "ours": {"color": BLACK, "marker": "o", "label": "this run"},
        "people": {"color": VERMILION, "marker": "D", "label": "people"},
    }
    other: dict[str, Any] = {"color": GREY, "marker": "s", "label": "language models"}
    seen = set()
    for row, index in enumerate(order):
        look = dict(looks.get(kinds[index], other))
        if look["label"] in seen:
            look["label"] = None
        seen.add(look["label"])
        if math.isfinite(low[index]) and math.isfinite(high[index]):
            axes.plot([low[index], high[index]], [row, row], color=look["color"], linewidth=1.2, zorder=2.5)
        axes.plot([mean[index]], [row], linestyle="none", markersize=5, zorder=3, **look)
        if kinds[index] == "ours":
            axes.axvline(mean[index], color=PALE, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1.5)
    axes.set_yticks(range(len(names)), [shortened(figure, names[index], 2.6, 7.5) for index in order])
    for text, index in zip(axes.get_yticklabels(), order, strict=True):
        text.set_fontweight("bold" if kinds[index] == "ours" else "normal")
    axes.set(xlabel="mean guess", ylim=(-0.7, len(names) - 0.3))
    axes.tick_params(axis="y", length=0, labelsize=7.5)
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    handles = axes.get_legend_handles_labels()
    figure.legend(*handles, loc="upper left", bbox_to_anchor=(0.465, 1 - 0.5 / height), ncols=3, handletextpad=0.2)
    return figure
