"""All rounds of a game in one figure: guesses as ridgelines, shares of levels and statuses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from pbeauty.game.experiment import Game
from pbeauty.plots.style import (
    BLACK,
    DARK,
    GREY,
    LOOKS,
    SKY,
    evenly,
    grid,
    headed,
    house_style,
    page,
    round_numbers,
    rule,
    tick_rounds,
)

MOST_RIDGES = 20
_FILLS = ("#0B3C5D", "#0072B2", "#56B4E9", "#B5DDF3", "#F3E3C3", "#E69F00", "#D55E00", "#FFFFFF")
_HATCHES = ("", "///", "", "...", "", "\\\\\\", "", "xx")


@house_style
def ridgelines(
    game: Game,
    edges: ArrayLike,
    counts: ArrayLike,
    *,
    mean: ArrayLike,
    target: ArrayLike,
    title: str = "Guesses by round",
    subtitle: str = "",
) -> Figure:
    """The distribution of every round, one above the other, the first on top.

    Args:
        edges: float64[bin + 1], ascending.
        counts: int64[round, bin]; drawn as shares of the round, all rounds on the same scale.
        mean: float64[round], drawn as dots.
        target: float64[round], drawn as triangles.
        subtitle: what follows the rule of the target below it.
    """
    counts = np.asarray(counts)
    total = len(counts)
    shown = evenly(total, MOST_RIDGES)
    edges, counts = combined(edges, counts[shown], 100)
    parts = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # The square root keeps rounds readable beside one in which nearly all guess the same.
    heights = 1.7 * np.sqrt(parts / max(parts.max(), 1e-300))
    height = min(8.0, 1.7 + 0.42 * shown.size)
    some = f"; {shown.size} of {total} rounds" if shown.size < total else ""
    about = f"{rule(game)}; heights are square roots of shares{'; ' * bool(subtitle)}{subtitle}{some}"
    figure = headed(title, about, height)
    axes = figure.add_subplot(grid(figure, 1, 1, (0.75, 0.58, 0.2, 0.82))[0])
    for row, ridge in enumerate(heights):
        base = shown.size - 1 - row
        axes.stairs(base + ridge, edges, baseline=base, fill=True, color=SKY, alpha=0.85, zorder=2 + 2 * row)
        axes.stairs(base + ridge, edges, baseline=None, color=DARK, linewidth=0.5, zorder=2.1 + 2 * row)
    places = np.arange(shown.size)[::-1]
    for name, values in (("mean", mean), ("target", target)):
        points = np.asarray(values, float)[shown]
        inside = (points >= game.low) & (points <= game.high)
        look = {key: LOOKS[name][key] for key in ("color", "marker")}
        axes.plot(
            points[inside], places[inside], **look, linestyle="none", markersize=5, markeredgewidth=0.7,
            markeredgecolor="white", zorder=2 + 2 * shown.size, label=name, clip_on=False, gid=name,
        )  # fmt: skip
    axes.set(xlim=(game.low, game.high), ylim=(-0.15, shown.size - 1 + max(1.0, 1.05 * float(heights[0].max()))))
    axes.set_xlabel("guess")
    axes.set_yticks(places, [f"round {index + 1}" for index in shown])
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(round_numbers(11))
    figure.legend(loc="upper left", bbox_to_anchor=(0.1, 1 - 0.52 / height), ncols=2)
    return figure


def combined(
    edges: ArrayLike, counts: ArrayLike, most: int, unit: int = 1
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Bins joined until there are hardly more than `most`, around multiples of their common width.

    Where most guesses are in every `unit`-th bin, that is a unit at least, so that no bars stand apart.

    Args:
        edges: float64[bin + 1].
        counts: int64[..., bin].
        most: how many bins.
        unit: bins from one round number to the next.
    """
    edges, counts = np.asarray(edges, float), np.asarray(counts)
    bins = counts.shape[-1]
    step = max(1, bins // most)
    step = max(step, unit) if 2 * counts[..., ::unit].sum() > counts.sum() else step
    starts = np.unique(np.append(0, np.arange((step + 1) // 2, bins, step)))
    return np.append(edges[starts], edges[-1]), np.add.reduceat(counts, starts, axis=-1)


@house_style
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
        values: float64[round, kind], in [0, 1]; a round of NaN is left empty, and a kind of zeros left out.
        ylabel: of the axis.
    """
    percent = 100 * np.nan_to_num(np.asarray(values, float).reshape(-1, len(names)))
    if len(names) > len(_FILLS):
        raise ValueError(f"{len(names)} kinds; {len(_FILLS)} can be told apart")
    figure, axes = page(title, subtitle, (0.095, 0.145, 0.665, 0.655))
    rounds, bottom = np.arange(1, len(percent) + 1), np.zeros(len(percent))
    width = 0.78 if rounds.size > 1 else 0.3
    for name, heights, fill, hatch in zip(names, percent.T, _FILLS, _HATCHES, strict=False):
        if not heights.any():  # a kind looks the same whichever others there are
            continue
        axes.bar(
            rounds, heights, width, bottom, label=name, color=fill, hatch=hatch, edgecolor=GREY, linewidth=0.4,
            gid=name,
        )  # fmt: skip
        bottom += heights
    tick_rounds(axes, rounds.size)
    axes.set(xlim=(0.4, rounds.size + 0.6), xlabel="round", ylim=(0, 100), ylabel=ylabel)
    axes.grid(False)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(0.775, 0.81), labelcolor=BLACK,
        handlelength=1.4, handleheight=1.2, labelspacing=0.7,
    )  # fmt: skip
    return figure
