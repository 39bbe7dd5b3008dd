"""What a game cost: time per round and where it went, tokens, and how long replies were."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from pbeauty.plots.style import BLACK, BLUE, GREY, HOUSE_STYLE, SKY, headed

_FILLS = (BLUE, SKY, "#E69F00", "#B0B0B0", "#FFFFFF")
_HATCHES = ("", "///", "", "...", "xx")


@HOUSE_STYLE
def times(parts: Mapping[str, ArrayLike], *, title: str = "Time per round", subtitle: str = "") -> Figure:
    """The wall time of each round, split into its parts.

    Args:
        parts: float64[round] in s, by name, from the bottom of the bars; five at most.
        title: the headline.
        subtitle: the line below it.
    """
    figure = headed(title, subtitle)
    axes = figure.add_axes((0.095, 0.12, 0.875, 0.65))
    bottom = np.zeros(len(np.asarray(next(iter(parts.values())))))
    rounds = np.arange(1, bottom.size + 1)
    for index, (name, seconds) in enumerate(parts.items()):
        seconds = np.asarray(seconds, float)
        axes.bar(
            rounds, seconds, 0.78 if rounds.size > 1 else 0.3, bottom, label=name, color=_FILLS[index],
            hatch=_HATCHES[index], edgecolor=GREY, linewidth=0.4, gid=name,
        )  # fmt: skip
        bottom += seconds
    axes.set(xlim=(0.4, rounds.size + 0.6), xlabel="round", ylabel="s")
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    figure.legend(loc="upper left", bbox_to_anchor=(0.083, 0.865), ncols=5)
    return figure


@HOUSE_STYLE
def lengths(quantiles: ArrayLike, *, limit: int | None = None, title: str = "Length of replies") -> Figure:
    """How many tokens participants' replies had, by round, as a box from quartile to quartile with whiskers.

    Args:
        quantiles: float64[round, 5]: the 5, 25, 50, 75 and 95 % quantiles.
        limit: `max_tokens` of the sampling, as a line, where all groups have the same.
        title: the headline.
    """
    quantiles = np.asarray(quantiles, float).reshape(-1, 5)
    rounds = np.arange(1, len(quantiles) + 1)
    figure = headed(title, "tokens sampled per participant, all calls; boxes hold the middle half, lines 90 %")
    axes = figure.add_axes((0.095, 0.12, 0.875, 0.68))
    width = 0.5 if rounds.size > 1 else 0.2
    axes.vlines(rounds, quantiles[:, 0], quantiles[:, 4], color=GREY, linewidth=1.2)
    axes.bar(rounds, quantiles[:, 3] - quantiles[:, 1], width, quantiles[:, 1], color=SKY, edgecolor=GREY, zorder=2)
    axes.hlines(quantiles[:, 2], rounds - width / 2, rounds + width / 2, color=BLACK, linewidth=1.6, zorder=3)
    top = float(quantiles[:, 4].max())
    if limit is not None and limit <= 2 * top:
        axes.axhline(limit, color=BLACK, linewidth=0.8, linestyle=(0, (1, 2)))
        axes.annotate(
            f"max_tokens {limit}", (1, limit), (-2, 3), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", fontsize=7.5,
        )  # fmt: skip
        top = max(top, limit)
    axes.set(xlim=(0.4, rounds.size + 0.6), ylim=(0, 1.1 * max(top, 1)), xlabel="round", ylabel="tokens")
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    return figure
