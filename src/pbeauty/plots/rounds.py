"""All rounds of a game in one figure: ridgelines, and what share of guesses each level has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from pbeauty.game.experiment import Game
from pbeauty.plots.style import BLACK, DARK, GREY, HOUSE_STYLE, LOOKS, PALE, SKY, band, headed, rule

MOST_RIDGES = 20
_FILLS = ("#0B3C5D", "#0072B2", "#56B4E9", "#B5DDF3", "#F3E3C3", "#E69F00", "#D55E00", "#FFFFFF")
_HATCHES = ("", "///", "", "...", "", "\\\\\\", "", "xx")


@HOUSE_STYLE
def ridgelines(
    game: Game,
    edges: ArrayLike,
    counts: ArrayLike,
    *,
    mean: ArrayLike | None = None,
    target: ArrayLike | None = None,
    title: str = "Guesses by round",
) -> Figure:
    """The distribution of every round, one above the other, the first on top.

    Args:
        game: the rules.
        edges: float64[bin + 1], ascending.
        counts: int64[round, bin]; drawn as shares of the round, all rounds on the same scale.
        mean: float64[round], drawn as dots.
        target: float64[round], drawn as triangles.
        title: the headline.
    """
    edges, counts = np.asarray(edges, float), np.asarray(counts, float)
    total = counts.shape[0]
    shown = np.unique(np.linspace(0, total - 1, min(total, MOST_RIDGES)).round().astype(int))
    step = max(1, counts.shape[1] // 100)  # bins finer than a hundredth of the range are combined, around multiples
    starts = np.unique(np.append(0, np.arange((step + 1) // 2, counts.shape[1], step)))
    edges, counts = np.append(edges[starts], edges[-1]), np.add.reduceat(counts[shown], starts, axis=1)
    parts = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # The square root keeps rounds readable beside one in which nearly all guess the same.
    heights = 1.7 * np.sqrt(parts / max(parts.max(), 1e-300))
    height = min(8.0, 1.7 + 0.42 * shown.size)
    some = f"; {shown.size} of {total} rounds" if shown.size < total else ""
    figure = headed(title, f"{rule(game)}; heights are square roots of shares{some}", height)
    axes = figure.add_axes(band((0.75, 0.5, 0.2, 0.82), height))
    for row, ridge in enumerate(heights):
        base = shown.size - 1 - row
        axes.stairs(base + ridge, edges, baseline=base, fill=True, color=SKY, alpha=0.85, zorder=2 + 2 * row)
        axes.stairs(base + ridge, edges, baseline=None, color=DARK, linewidth=0.5, zorder=2.1 + 2 * row)
    places = np.arange(shown.size)[::-1]
    top = 2 + 2 * shown.size
    for name, values in (("mean", mean), ("target", target)):
        if values is not None:
            points = np.asarray(values, float)[shown]
            inside = (points >= game.low) & (points <= game.high)
            look = {key: LOOKS[name][key] for key in ("color", "marker")}
            axes.plot(
                points[inside], places[inside], **look, linestyle="none", markersize=5, markeredgewidth=0.7,
                markeredgecolor="white", zorder=top, label=name, clip_on=False, gid=name,
            )  # fmt: skip
    axes.set(xlim=(game.low, game.high), ylim=(-0.15, shown.size - 1 + max(1.0, 1.05 * float(heights[0].max()))))
    axes.set_xlabel("guess")
    axes.set_yticks(places, [f"round {index + 1}" for index in shown])
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(11, steps=[1, 2, 2.5, 5, 10]))
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="upper left", bbox_to_anchor=(0.1, 1 - 0.52 / height), ncols=2)
    return figure


@HOUSE_STYLE
def shares(
    names: Sequence[str],
    values: ArrayLike,
    *,
    title: str,
    subtitle: str = "",
    ylabel: str = "share (%)",
) -> Figure:
    """What share each of a few kinds has in each round, as stacked bars: levels of guesses, statuses of replies.

    Args:
        names: of the kinds, from the bottom of the bars; eight at most.
        values: float64[round, kind], in [0, 1]; a round of NaN is left empty.
        title: the headline.
        subtitle: the line below it.
        ylabel: of the axis.
    """
    percent = 100 * np.nan_to_num(np.asarray(values, float).reshape(-1, len(names)))
    if len(names) > len(_FILLS):
        raise ValueError(f"{len(names)} kinds; {len(_FILLS)} can be told apart")
    rounds = np.arange(1, len(percent) + 1)
    figure = headed(title, subtitle)
    axes = figure.add_axes((0.095, 0.12, 0.665, 0.68))
    bottom = np.zeros(len(percent))
    width = 0.78 if len(rounds) > 1 else 0.3
    for index, name in enumerate(names):
        axes.bar(
            rounds, percent[:, index], width, bottom, label=name, color=_FILLS[index], hatch=_HATCHES[index],
            edgecolor=GREY if index < len(names) - 1 else PALE, linewidth=0.4, gid=name,
        )  # fmt: skip
        bottom += percent[:, index]
    axes.set(xlim=(0.4, len(rounds) + 0.6), ylim=(0, 100), xlabel="round", ylabel=ylabel)
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axes.grid(False)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(0.775, 0.81), labelcolor=BLACK,
        handlelength=1.4, handleheight=1.2, labelspacing=0.7,
    )  # fmt: skip
    return figure
