"""How the guesses of one round are distributed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from pbeauty.game.experiment import Game
from pbeauty.plots.style import DARK, GREY, HOUSE_STYLE, LOOKS, SKY, page, rule, value_label

MOST_BARS = 120
"""Bars of [0, 100] are then 1 wide: wide enough to print, narrow enough to tell 33 from 35."""
_CLOSE, _MULTIPLE = 1e-9, 1e-6
"""How far from an edge, and from a multiple of the width, a guess may be that still is on it, in widths."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bars:
    """How many guesses there are in each bar of a histogram."""

    edges: Floats
    """float64[bar + 1]; they cover [low, high], both ends included."""
    counts: NDArray[np.int64]
    """int64[bar]."""


def bars(pieces: Iterable[Floats], game: Game) -> Bars:
    """Counts guesses in bars.

    Bars are 1, 2 or 5 times a power of ten wide. Where most guesses are multiples of the width (people like
    integers), bars are centred on the multiples, so that each holds one of them and none sits on an edge;
    elsewhere the multiples are the edges, so that the bars at both ends of the range are whole.

    Args:
        pieces: float64[guess] each, all in [low, high].
        game: the rules.

    Raises:
        ValueError: if there is no guess, or one outside the range (which would be left out without a trace).
    """
    span = game.high - game.low
    power = 10.0 ** math.floor(math.log10(span / MOST_BARS))
    width = next(step * power for step in (1, 2, 5, 10) if span / (step * power) <= MOST_BARS)
    # The tolerance keeps 0.3 / 0.1 = 2.9999999999999996 from opening a bar of its own.
    first, last = math.floor(game.low / width + _CLOSE), math.ceil(game.high / width - _CLOSE)
    # Halves of bars, from one below the first to one above the last, serve both ways to lay them.
    halves = np.zeros(2 * (last - first) + 3, np.int64)
    multiples = total = 0
    for guesses in pieces:
        if not np.all((guesses >= game.low) & (guesses <= game.high)):
            raise ValueError(f"a histogram needs guesses in [{game.low}, {game.high}]; there are others")
        place = guesses / width
        multiples += int(np.count_nonzero(np.abs(place - np.rint(place)) < _MULTIPLE))
        half = np.floor(2 * place + _CLOSE).astype(np.int64) - (2 * first - 1)
        halves += np.bincount(half, minlength=halves.size)
        total += guesses.size
    if not total:
        raise ValueError("a histogram needs guesses; there are none")
    decimals = 12 - math.floor(math.log10(span))
    if multiples > total / 2:
        begin, end = math.floor(game.low / width + 0.5 + _CLOSE), math.ceil(game.high / width + 0.5 - _CLOSE)
        counts = halves[:-1].reshape(-1, 2).sum(axis=1)[begin - first : end - first]
        return Bars(np.round((np.arange(begin, end + 1) - 0.5) * width, decimals), counts)
    counts = halves[1:-2].reshape(-1, 2).sum(axis=1)
    counts[-1] += halves[-2]  # the upper end belongs to the last bar
    return Bars(np.round(np.arange(first, last + 1) * width, decimals), counts)


@HOUSE_STYLE
def histogram(
    guesses: Floats | Iterable[Floats],
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
        guesses: float64[guess], the valid ones, in [low, high]; or such arrays, one after the other.
        game: the rules; its range is the axis.
        target: the number to be nearest to; may lie outside the range.
        mean: the mean of the guesses.
        median: their median, marked instead of the mean where the target is made from it.
        n_unusable: how many replies gave no valid guess.
        levels: the guesses of level-k reasoners of levels 0, 1, ... (`pbeauty.analysis.levels.marks`).
        title: the headline.

    Raises:
        ValueError: if there is no guess, or one outside the range (which would be left out without a trace).
    """
    counted = bars([guesses] if isinstance(guesses, np.ndarray) else guesses, game)
    edges, n_usable = counted.edges, int(counted.counts.sum())
    shares = 100 * counted.counts / n_usable
    count = n_usable + n_unusable
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
