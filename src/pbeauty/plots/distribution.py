"""How the guesses of one round are distributed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from pbeauty.config import Game
from pbeauty.plots.style import DARK, GREY, HOUSE_STYLE, LOOKS, SKY, page, rule, value_label

MOST_BARS = 120
"""Bars of [0, 100] are then 1 wide: wide enough to print, narrow enough to tell 33 from 35."""


def bin_edges(guesses: NDArray[np.float64], game: Game) -> NDArray[np.float64]:
    """The edges of a histogram's bars, float64[bar + 1]; they cover [low, high], both ends included.

    Bars are 1, 2 or 5 times a power of ten wide. Where most guesses are multiples of the width (people like
    integers), bars are centred on the multiples, so that each holds one of them and none sits on an edge;
    elsewhere the multiples are the edges, so that the bars at both ends of the range are whole.
    """
    span = game.high - game.low
    power = 10.0 ** math.floor(math.log10(span / MOST_BARS))
    width = next(step * power for step in (1, 2, 5, 10) if span / (step * power) <= MOST_BARS)
    multiples = guesses / width
    centred = np.mean(np.abs(multiples - np.round(multiples)) < 1e-6) > 0.5
    shift = 0.5 if centred else 0.0
    # The tolerance keeps 0.3 / 0.1 = 2.9999999999999996 from opening a bar of its own.
    first, last = math.floor(game.low / width + shift + 1e-9), math.ceil(game.high / width + shift - 1e-9)
    return np.round((np.arange(first, last + 1) - shift) * width, 12 - math.floor(math.log10(span)))


@HOUSE_STYLE
def histogram(
    guesses: NDArray[np.float64],
    game: Game,
    *,
    target: float,
    mean: float,
    median: float | None = None,
    n_unusable: int = 0,
    levels: Sequence[float] = (),
    title: str = "Guesses",
) -> Figure:
    """The distribution of one round's guesses over the game's whole range, with the target and the aggregate.

    Args:
        guesses: float64[guess], the valid ones, in [low, high].
        game: the rules; its range is the axis.
        target: the number to be nearest to; may lie outside the range.
        mean: the mean of the guesses.
        median: their median, marked instead of the mean where the target is made from it.
        n_unusable: how many replies gave no valid guess.
        levels: the guesses of level-k reasoners of levels 0, 1, ... (`pbeauty.levels.marks`).
        title: the headline.

    Raises:
        ValueError: if there is no guess, or one outside the range (which would be left out without a trace).
    """
    if not guesses.size or not np.all((guesses >= game.low) & (guesses <= game.high)):
        raise ValueError(f"a histogram needs guesses, all of them in [{game.low}, {game.high}]")
    edges = bin_edges(guesses, game)
    shares = 100 * np.histogram(guesses, edges)[0] / guesses.size
    count = guesses.size + n_unusable
    players = f"{count:,} participant{'s' * (count != 1)}, {n_unusable:,} without a usable guess"
    figure, axes = page(title, f"{players}; {rule(game)}", (0.095, 0.12, 0.885, 0.645))
    axes.stairs(shares, edges, fill=True, color=SKY, zorder=2)
    margin = 0.012 * (game.high - game.low)
    top = (1.16 if levels else 1.05) * shares.max()
    axes.set(xlim=(min(edges[0], game.low - margin), max(edges[-1], game.high + margin)), ylim=(0, top))
    axes.set(xlabel=f"guess (bars are {edges[1] - edges[0]:.6g} wide)", ylabel="share of the usable guesses (%)")
    axes.xaxis.set_major_locator(MaxNLocator(11, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    aggregate = {"mean": mean} if game.aggregate == "mean" or median is None else {"median": median}
    _mark(figure, axes, game, {"target": target, **aggregate})
    _mark_levels(axes, game, levels)
    return figure


def _mark_levels(axes: Axes, game: Game, levels: Sequence[float]) -> None:
    """Draws where level-k reasoners would guess, as far as the labels keep apart."""
    placed: list[float] = []
    for level, place in enumerate(levels):
        if not game.low <= place <= game.high:
            continue
        line = axes.plot([place, place], [0, 0.925], color=GREY, linestyle=(0, (1, 1.5)), linewidth=0.8, zorder=2.5)[0]
        line.set(transform=axes.get_xaxis_transform(), gid=f"level {level}")
        if all(abs(place - other) > 0.035 * (game.high - game.low) for other in placed):
            axes.text(
                place, 0.99, f"L{level}", color=DARK, fontsize=7.5, ha="center", va="top", zorder=3.5,
                transform=axes.get_xaxis_transform(), bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip
            placed.append(place)


def _mark(figure: Figure, axes: Axes, game: Game, marks: Mapping[str, float]) -> None:
    """Draws two values as lines up to labels above the axes, where there is no data to collide with.

    A value outside the range has no line, only a label at that end of the axis with an arrow.
    """
    above = axes.get_xaxis_transform()
    items = sorted(marks.items(), key=lambda item: item[1])
    places = [float(np.clip(value, game.low, game.high)) for _, value in items]
    labels = [value_label(name, value) for name, value in items]
    if items[0][1] < game.low:
        labels[0] = f"← {labels[0]}"
    if items[-1][1] > game.high:
        labels[-1] = f"{labels[-1]} →"
    texts = [axes.text(0, 0, label, color=LOOKS[name]["color"]) for label, (name, _) in zip(labels, items, strict=True)]
    pixels = [float(axes.transData.transform((place, 0))[0]) for place in places]
    widths = [text.get_window_extent().width + 8 / 72 * figure.dpi for text in texts]
    arranged = _arrange(pixels, widths, axes.bbox.x0, axes.bbox.x1)
    for (name, value), text, place, (side, row) in zip(items, texts, places, arranged, strict=True):
        height = 1.045 + 0.07 * row
        away = ScaledTranslation((4 if side == "left" else -4) / 72, 0, figure.dpi_scale_trans)
        text.set(x=place, y=height, horizontalalignment=side, verticalalignment="center", transform=above + away)
        if place == value:
            line = axes.plot([place, place], [0, height + 0.025], **LOOKS[name], zorder=3)[0]
            line.set(marker="", linewidth=1.3, transform=above, clip_on=False, gid=name)


def _arrange(places: Sequence[float], widths: Sequence[float], left: float, right: float) -> list[tuple[str, int]]:
    """Side and row of the labels of two lines, in ascending places: none touches the other or the other's line.

    A `left`-aligned label stands to the right of its line. In pixels; widths include the room around a label.
    """
    (low, high), (low_width, high_width) = places, widths
    fits_before, fits_after = low - low_width >= left, high + high_width <= right
    if fits_before and fits_after:
        return [("right", 0), ("left", 0)]
    if fits_after:
        return [("left", int(low + low_width > high)), ("left", 0)]
    if fits_before:
        return [("right", 0), ("right", int(high - high_width < low))]
    return [("left", 0), ("right", int(low + low_width > high - high_width))]
