"""How the guesses of a round are distributed: of everybody, and of each group."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike, NDArray

from pbeauty.game.experiment import Game
from pbeauty.game.records import Floats
from pbeauty.plots.style import (
    BLACK,
    DARK,
    GREY,
    LOOKS,
    SKY,
    evenly,
    house_style,
    page,
    round_numbers,
    rule,
    value_label,
)

FEWEST_BARS, MOST_BARS = 20, 120
"""120 bars are wide enough to print; on [0, 100] they are 1 wide, narrow enough to tell 33 from 35."""
MOST_TICKS = 500
"""Of sessions, above the bars; a PDF of 100,000 is neither light nor read."""
_BULK = 0.99
"""The share of the guesses that is shown at least; what is farther out is counted beside the bars."""
_FULL = 0.4
"""Guesses that cover more than this share of the game's range are shown in all of it."""
_COARSE = 4096
"""Bins in which guesses are counted to find where most of them are."""
_CLOSE, _MULTIPLE = 1e-9, 1e-6
"""How far from an edge, and from a multiple of a number, a guess may be that still is on it, in widths of bars."""


@dataclass(frozen=True)
class Bars:
    """How many guesses there are in each bar of a histogram."""

    edges: Floats
    """float64[bar + 1]"""
    counts: NDArray[np.int64]
    """int64[bar]"""
    below: int = 0
    """Guesses below the first bar."""
    above: int = 0
    """Guesses above the last one."""

    @property
    def total(self) -> int:
        """All guesses."""
        return int(self.counts.sum()) + self.below + self.above


def count_guesses(pieces: Floats | Callable[[], Iterable[Floats]], game: Game, marks: Sequence[float] = ()) -> Bars:
    """Counts guesses in bars, over the game's whole range or, where nearly all lie close together, over that part.

    Bars are 1, 2 or 5 times a power of ten wide, and the fewer the fewer guesses there are. Where most guesses are
    round numbers (people like integers), edges lie between them, so that no guess sits on an edge, and no bar is
    narrower than from one to the next; elsewhere edges are at multiples of the width, so that the bars at both ends of
    the range are whole.

    Args:
        pieces: float64[guess], all in [low, high]; or what gives such arrays one after the other, each time anew.
        marks: what should be in sight besides, such as the target; no matter where it is outside the range.

    Raises:
        ValueError: if there is no guess, or one outside the range (which would be left out without a trace).
    """
    again: Callable[[], Iterable[Floats]] = (lambda: [pieces]) if isinstance(pieces, np.ndarray) else pieces
    total, low, high = _range(again, game, [mark for mark in marks if game.low <= mark <= game.high])
    most = min(max(round(6 * math.sqrt(total)), FEWEST_BARS), MOST_BARS)
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    width = next(step * power for step in (1, 2, 5, 10) if (high - low) / (step * power) <= most * (1 + _CLOSE))
    some = next(piece for piece in again() if piece.size)  # those of the first million tell how round they are
    natural = 10.0 ** math.floor(math.log10((game.high - game.low) / MOST_BARS) + 1)  # on [0, 100]: whole numbers
    unit = next((unit for unit in (natural, natural / 10) if _mostly_multiples(some, unit)), 0.0)
    width = max(width, unit)  # narrower bars would stand apart
    # The tolerance keeps 0.3 / 0.1 = 2.9999999999999996 from opening a bar of its own.
    first, last = math.floor(low / width + _CLOSE), math.ceil(high / width - _CLOSE)
    if unit:
        edges = np.arange(first, last + 2) * width - unit / 2
        edges = edges[:-1] if edges[-2] + _CLOSE * width > high else edges  # the last bar would begin beyond the end
    else:
        edges = np.arange(first, last + 1) * width
    edges = np.round(edges, 12 - math.floor(math.log10(game.high - game.low)))
    counts = np.zeros(edges.size + 1, np.int64)
    for guesses in again():
        place = np.floor((guesses - edges[0]) / width + _CLOSE) + 1  # 0 is below the first bar
        counts += np.bincount(np.clip(place, 0, edges.size).astype(np.int64), minlength=counts.size)
    if edges[-1] >= game.high:  # the upper end of the range belongs to the last bar
        counts[-2:] = counts[-2] + counts[-1], 0
    return Bars(edges.astype(np.float64), counts[1:-1], below=int(counts[0]), above=int(counts[-1]))


def _mostly_multiples(guesses: Floats, unit: float) -> bool:
    units = guesses / unit
    return 2 * int(np.count_nonzero(np.abs(units - np.rint(units)) < _MULTIPLE)) > guesses.size


def _range(pieces: Callable[[], Iterable[Floats]], game: Game, marks: Sequence[float]) -> tuple[int, float, float]:
    """The number of guesses, and from where to where they are to be shown."""
    span, total = game.high - game.low, 0
    counts, least, greatest = np.zeros(_COARSE, np.int64), math.inf, -math.inf
    for guesses in pieces():
        if not np.all((guesses >= game.low) & (guesses <= game.high)):
            raise ValueError(f"a histogram needs guesses in [{game.low}, {game.high}]; there are others")
        if guesses.size:
            place = ((guesses - game.low) / span * _COARSE).astype(np.int64)
            counts += np.bincount(np.minimum(place, _COARSE - 1), minlength=_COARSE)
            least, greatest = min(least, float(guesses.min())), max(greatest, float(guesses.max()))
            total += guesses.size
    if not total:
        raise ValueError("a histogram needs guesses; there are none")
    edges, below = np.linspace(game.low, game.high, _COARSE + 1), np.cumsum(counts)
    out = int((1 - _BULK) / 2 * total)  # at either end
    low = max(least, float(edges[np.searchsorted(below, out, side="right")]))
    high = min(greatest, float(edges[np.searchsorted(below, total - out) + 1]))
    low, high = min(low, *marks, high), max(high, *marks, low)
    if high - low > _FULL * span:
        return total, game.low, game.high
    room = 0.15 * (high - low) or 0.05 * span
    low, high = low - room, high + room
    near = 1.5 * (high - low)
    return total, game.low if low - game.low < near else low, game.high if game.high - high < near / 3 else high


@house_style
def histogram(
    bars: Bars,
    game: Game,
    *,
    target: ArrayLike,
    aggregate: ArrayLike,
    n_unusable: int = 0,
    n_ended: int = 0,
    levels: Sequence[float] = (),
    title: str = "Guesses",
) -> Figure:
    """The distribution of one round's guesses, with the target and the aggregate.

    Args:
        bars: the valid guesses, as `count_guesses` counts them; they are the axis.
        target: the number to be nearest to, of each session that plays, float64[session], as is the next, NaN
            where it has no valid guess: a line, and of several sessions ticks above the axes; may be out of the range.
        aggregate: the mean or median of the guesses, from which the target is made.
        n_unusable: how many replies gave no valid guess.
        n_ended: how many sessions had ended before.
        levels: the guesses of level-k reasoners of levels 0, 1, ... (`pbeauty.analysis.levels.marks`).
    """
    shares, edges = 100 * bars.counts / bars.total, bars.edges
    count = bars.total + n_unusable
    players = f"{count:,} participant{'s' * (count != 1)}, {n_unusable:,} without a usable guess"
    if (sessions := np.size(target)) + n_ended > 1:
        ended = f" ({n_ended:,} had ended)" if n_ended else ""
        players = f"{sessions:,} session{'s' * (sessions != 1)}{ended}, {players}"
    figure, axes = page(title, f"{players}; {rule(game)}", (0.095, 0.145, 0.885, 0.62))
    axes.stairs(shares, edges, fill=True, color=SKY, zorder=2)
    ends = max(edges[0], game.low), min(edges[-1], game.high)
    margin = 0.012 * (ends[1] - ends[0])
    axes.set(xlim=(min(edges[0], ends[0] - margin), max(edges[-1], ends[1] + margin)))
    axes.set_ylim(0, (1.16 if levels else 1.05) * shares.max())
    part = "" if ends == (game.low, game.high) else f"; the range of the game is {game.low:g} to {game.high:g}"
    axes.set(xlabel=f"guess (bars are {edges[1] - edges[0]:.6g} wide{part})", ylabel="share of the usable guesses (%)")
    axes.xaxis.set_major_locator(round_numbers(11))
    axes.yaxis.set_major_locator(round_numbers(6))
    given = {game.aggregate: np.ravel(np.asarray(aggregate, float)), "target": np.ravel(np.asarray(target, float))}
    marks = {name: values[~np.isnan(values)] for name, values in given.items()}
    if marks["target"].size > 1:
        _mark_sessions(figure, axes, ends, marks)
    else:
        _mark(figure, axes, ends, {name: values.item() for name, values in marks.items()})
    _mark_levels(axes, ends, levels)
    _note_outside(axes, bars)
    return figure


def _note_outside(axes: Axes, bars: Bars) -> None:
    """How many guesses lie beyond either end of the axis."""
    for guesses, x, side, text in (
        (bars.below, 0.005, "left", f"← {bars.below:,} below {bars.edges[0]:g}"),
        (bars.above, 0.995, "right", f"{bars.above:,} above {bars.edges[-1]:g} →"),
    ):
        if guesses:
            text = f"{text} ({100 * guesses / bars.total:.2g} %)"
            axes.text(
                x, 0.5, text, ha=side, color=BLACK, fontsize=7.5, transform=axes.transAxes, zorder=4, gid="outside",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )  # fmt: skip


def _mark_levels(axes: Axes, ends: tuple[float, float], levels: Sequence[float]) -> None:
    """Draws where level-k reasoners would guess, as far as the labels keep apart."""
    placed: list[float] = []
    for level, place in enumerate(levels):
        if not ends[0] <= place <= ends[1]:
            continue
        line = axes.plot([place, place], [0, 0.925], color=GREY, linestyle=(0, (1, 1.5)), linewidth=0.8, zorder=2.5)[0]
        line.set(transform=axes.get_xaxis_transform(), gid=f"level {level}")
        if all(abs(place - other) > 0.035 * (ends[1] - ends[0]) for other in placed):
            axes.text(
                place, 0.99, f"L{level}", color=DARK, fontsize=7.5, ha="center", va="top", zorder=3.5,
                transform=axes.get_xaxis_transform(), bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip
            placed.append(place)


def _mark_sessions(figure: Figure, axes: Axes, ends: tuple[float, float], marks: Mapping[str, Floats]) -> None:
    """Draws the values of all sessions, float64[session] each, as ticks above the axes, a row each with its label."""
    above = axes.get_xaxis_transform()
    for row, (name, values) in enumerate(marks.items()):
        height, color = 1.045 + 0.07 * row, LOOKS[name]["color"]
        inside = np.sort(values[(values >= ends[0]) & (values <= ends[1])])
        inside = inside[evenly(inside.size, MOST_TICKS)]
        ticks = axes.vlines(inside, height - 0.022, height + 0.022, color=color, linewidth=0.6, gid=name)
        ticks.set(transform=above, clip_on=False)
        label = value_label(f"{name}s", float(values.min())) + value_label(" to", float(values.max()))
        text = axes.text(0, height, label, color=color, va="center", transform=above, zorder=4)
        room, width = 6 / 72 * figure.dpi, text.get_window_extent().width
        left, right = (axes.transData.transform((np.clip(end(values), *ends), 0))[0] for end in (np.min, np.max))
        if right + room + width <= axes.bbox.x1:
            place = right + room
        elif left - room - width >= axes.bbox.x0:
            place = left - room - width
        else:  # over the ticks, which are everywhere
            place = (axes.bbox.x0 + axes.bbox.x1 - width) / 2
            text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
        text.set_x(axes.transData.inverted().transform((place, 0))[0])


def _mark(figure: Figure, axes: Axes, ends: tuple[float, float], marks: Mapping[str, float]) -> None:
    """Draws two values as lines up to labels above the axes, where there is no data to collide with.

    A value outside the axis has no line, only a label at that end of the axis with an arrow.
    """
    above = axes.get_xaxis_transform()
    items = sorted(marks.items(), key=lambda item: item[1])
    places = [float(np.clip(value, *ends)) for _, value in items]
    labels = [value_label(name, value) for name, value in items]
    if items[0][1] < ends[0]:
        labels[0] = f"← {labels[0]}"
    if items[-1][1] > ends[1]:
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
