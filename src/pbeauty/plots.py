"""Figures of a run: how the guesses of each round are distributed, and where the game goes over its rounds.

Figures are built from arrays with matplotlib's object interface alone: no pyplot, no global settings, so that
they can be made in any process, beside anybody else's plots. The palette is Okabe & Ito's, which colour-blind
readers can tell apart; line styles and markers differ too, for prints in greyscale.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike, NDArray

from pbeauty.config import Game
from pbeauty.game import Status, equilibrium, number_text
from pbeauty.references import Trajectory, human_means
from pbeauty.results import Run

SIZE, DPI = (6.5, 4.0), 200
"""Inches: the text width of a page. Dots per inch of the PNG."""
BLACK, DARK, GREY, PALE = "#1a1a1a", "#4d4d4d", "#767676", "#b0b0b0"
BLUE, SKY, VERMILION = "#0072B2", "#56B4E9", "#D55E00"
LOOKS: dict[str, dict[str, Any]] = {
    "mean": {"color": BLACK, "linestyle": "-", "marker": "o"},
    "median": {"color": BLUE, "linestyle": (0, (6, 1.5, 1, 1.5)), "marker": "s"},
    "target": {"color": VERMILION, "linestyle": (0, (3.5, 1.5)), "marker": "^"},
    "equilibrium": {"color": DARK, "linestyle": (0, (1, 2)), "marker": ""},
}
"""One look per quantity, the same in every figure."""
HOUSE_STYLE = mpl.rc_context(fname=Path(__file__).with_name("data") / "figures.mplstyle")
"""For decoration. On top of matplotlib's own defaults, so that no user's matplotlibrc shows through."""
MOST_BARS = 120
"""Bars of [0, 100] are then 1 wide: wide enough to print, narrow enough to tell 33 from 35."""


# --- the distribution of one round ---------------------------------------------------------------------------


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
    figure, axes = _figure(title, f"{players}; {_rule(game)}", (0.095, 0.12, 0.885, 0.645))
    axes.stairs(shares, edges, fill=True, color=SKY, zorder=2)
    margin = 0.012 * (game.high - game.low)
    axes.set(xlim=(min(edges[0], game.low - margin), max(edges[-1], game.high + margin)), ylim=(0, 1.05 * shares.max()))
    axes.set(xlabel=f"guess (bars are {edges[1] - edges[0]:.6g} wide)", ylabel="share of the usable guesses (%)")
    axes.xaxis.set_major_locator(MaxNLocator(11, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    aggregate = {"mean": mean} if game.aggregate == "mean" or median is None else {"median": median}
    _mark(figure, axes, game, {"target": target, **aggregate})
    return figure


def _mark(figure: Figure, axes: Axes, game: Game, marks: Mapping[str, float]) -> None:
    """Draws two values as lines up to labels above the axes, where there is no data to collide with.

    A value outside the range has no line, only a label at that end of the axis with an arrow.
    """
    above = axes.get_xaxis_transform()
    items = sorted(marks.items(), key=lambda item: item[1])
    places = [float(np.clip(value, game.low, game.high)) for _, value in items]
    labels = [_label(name, value) for name, value in items]
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


# --- the way over the rounds ---------------------------------------------------------------------------------


def people(game: Game) -> Trajectory | None:
    """What people did in the same game, if it was ever published: target p times the mean, range [0, 100]."""
    same_rules = game.aggregate == "mean" and game.offset == 0 and (game.low, game.high) == (0, 100)
    return human_means(game.p) if same_rules else None


@HOUSE_STYLE
def trajectory(
    game: Game,
    *,
    mean: ArrayLike,
    median: ArrayLike,
    target: ArrayLike,
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    band: str = "middle half of guesses",
    title: str = "Guesses by round",
) -> Figure:
    """Mean, median and target by round, with the equilibrium and, in a game that people played, their means.

    Args:
        game: the rules.
        mean: float64[round], as are `median`, `target`, `lower` and `upper`; one round at least.
        median: by round.
        target: by round.
        lower: the lower end of a band around the guesses; without both ends, none is drawn.
        upper: its upper end.
        band: what the band shows.
        title: the headline.
    """
    series = {"mean": np.asarray(mean, float), "median": np.asarray(median, float), "target": np.asarray(target, float)}
    count = series["mean"].size
    rounds = np.arange(1, count + 1)
    pad = 0.04 * (count - 1) if count > 1 else 0.5
    played = f"{count} of {game.rounds} round{'s' * (game.rounds != 1)}"
    figure, axes = _figure(title, f"{played}; {_rule(game)}", (0.095, 0.12, 0.69, 0.67))
    if lower is not None and upper is not None:
        # A single round has no area to fill; its band is a bar.
        across = rounds if count > 1 else np.array([0.98, 1.02])
        bottom, top = (np.broadcast_to(np.asarray(end, float), across.shape) for end in (lower, upper))
        axes.fill_between(across, bottom, top, color=SKY, alpha=0.32, linewidth=0, label=band)
    if reference := people(game):
        _draw_people(axes, reference, count)
    size = 4.5 if count <= 12 else 2.5 if count <= 40 else 0
    for name, values in series.items():
        axes.plot(rounds, values, **LOOKS[name], markersize=size, clip_on=False, zorder=4, gid=name)
    last = {name: float(values[-1]) for name, values in series.items()}
    resting = equilibrium(game)
    if math.isfinite(resting):
        axes.plot([1 - pad, count], [resting] * 2, **LOOKS["equilibrium"], linewidth=1, gid="equilibrium")
        last["equilibrium"] = resting
    axes.set(xlim=(1 - pad, count + pad), ylim=_limits(axes, game), xlabel="round", ylabel="guess")
    step = next(step for step in (1, 5, 10, 20, 50, 100, count) if count <= 12 * step)
    axes.set_xticks([1, *range(step if step > 1 else 2, count + 1, step)])
    _label_ends(figure, axes, count, last)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="center left", bbox_to_anchor=(0.083, 0.84), ncols=3)
    return figure


def _draw_people(axes: Axes, reference: Trajectory, count: int) -> None:
    """The sessions and their mean, for as many rounds as both the run and the experiment have."""
    # Beside the points of a run of one round, which would hide them.
    periods = np.arange(1, min(count, len(reference.average)) + 1) - (0.06 if count == 1 else 0)
    name: str | None = f"people ({reference.source.short}): sessions"
    for session in reference.sessions:
        axes.plot(periods, session[: periods.size], color=PALE, linewidth=0.8, marker="o", markersize=3, label=name)
        name = None
    mean = axes.plot(periods, reference.average[: periods.size], color=GREY, linewidth=1.2, label="their mean")[0]
    mean.set(marker="D", markersize=4, markerfacecolor="white", markeredgewidth=1, zorder=3, gid="people")


def _limits(axes: Axes, game: Game) -> tuple[float, float]:
    """The span of what is drawn, with room, and down to the range's lower end where that is near."""
    low, high = float(axes.dataLim.y0), float(axes.dataLim.y1)
    height = max(high - low, 0.1 * (game.high - game.low))  # lines that hardly move should look like it
    if game.low <= low < game.low + 0.5 * height:
        low = game.low
    return low - (0.035 if low == game.low else 0.06) * height, max(high, low + height) + 0.06 * height


def _label_ends(figure: Figure, axes: Axes, count: int, last: Mapping[str, float]) -> None:
    """Names the lines to the right of their last round, moved apart where they end together, with leaders."""
    names = sorted(last, key=lambda name: last[name], reverse=True)[::-1]  # equal ones from the top, as given
    points = 72 / figure.dpi
    ends = [float(axes.transData.transform((count, last[name]))[1]) * points for name in names]
    heights = _spread(ends, 12.5, axes.bbox.y0 * points + 2, axes.bbox.y1 * points)
    for name, end, height in zip(names, ends, heights, strict=True):
        colour = LOOKS[name]["color"]
        leader = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 2, "shrinkB": 5, "relpos": (0, 0.5)}
        axes.annotate(
            _label(name, last[name]), (count, last[name]), (17, height - end), textcoords="offset points",
            color=colour, va="center", arrowprops=leader, annotation_clip=False,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6}, zorder=2.2,
        )  # fmt: skip


def _spread(ideal: Sequence[float], gap: float, bottom: float, top: float) -> list[float]:
    """Ascending positions, moved up, and at the top down, until they are a gap apart within the bounds."""
    raised: list[float] = []
    for position in ideal:
        raised.append(max(position, raised[-1] + gap if raised else bottom))
    return [min(height, top - (len(raised) - 1 - index) * gap) for index, height in enumerate(raised)]


# --- common to both ------------------------------------------------------------------------------------------


def _figure(title: str, subtitle: str, box: tuple[float, float, float, float]) -> tuple[Figure, Axes]:
    """A page-wide figure with a headline over one set of axes at `box` (left, bottom, width, height in shares)."""
    figure = Figure(figsize=SIZE)
    headline = figure.text(0.015, 0.972, title, va="top", fontsize=11, fontweight="bold")
    for text in (headline, figure.text(0.015, 0.912, subtitle, va="top", color=DARK)):
        while text.get_window_extent().x1 > 0.99 * figure.bbox.x1:
            text.set_text(text.get_text().rstrip("…")[:-1] + "…")
    return figure, figure.add_axes(box)


def _label(name: str, value: float) -> str:
    return f"{name} {number_text(value)}".replace("-", "−")


def _rule(game: Game) -> str:
    offset = f" {'+' if game.offset > 0 else '−'} {number_text(abs(game.offset))}" if game.offset else ""
    return f"target = {game.multiplier} × {game.aggregate}{offset}"


@HOUSE_STYLE
def save(figure: Figure, stem: Path) -> list[Path]:
    """Writes `<stem>.pdf` and `<stem>.png`, each replaced as a whole; the same figure gives the same bytes."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in ("pdf", "png"):
        path, partial = (stem.parent / name for name in (f"{stem.name}.{kind}", f".{stem.name}.{os.getpid()}.{kind}"))
        try:
            figure.savefig(partial, format=kind, dpi=DPI, metadata={"CreationDate": None})
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        written.append(path)
    return written


# --- a whole run ---------------------------------------------------------------------------------------------


def plot_run(path: Path, out: Path | None = None) -> list[Path]:
    """Draws every finished round of a run and its trajectory, as PDF and as PNG.

    Args:
        path: a `run.h5`, or the folder that holds one.
        out: the folder to write to; `plots` beside `run.h5` unless given.

    Returns:
        The files, rounds first; empty if no round is finished.

    Raises:
        ConfigError: if `path` is not a run that can be read.
    """
    written, table = [], []
    with Run(path) as run:
        out = run.path.parent / "plots" if out is None else out
        name, game = run.experiment.name, run.experiment.game
        for index in range(run.round_count):  # one at a time, since a round alone may hold millions of guesses
            guesses, outcome = run.guesses[index], run.outcome(index)
            valid = guesses[run.status[index] <= Status.RETRIED]
            values = {"target": outcome.target, "mean": outcome.mean, "median": outcome.median}
            title = f"{name}: round {index + 1}"
            figure = histogram(valid, game, **values, n_unusable=guesses.size - valid.size, title=title)
            written += save(figure, out / f"round-{index + 1:04d}-histogram")
            table.append([*values.values(), *np.percentile(valid, [25, 75])])
    if written:
        target, mean, median, lower, upper = np.array(table).T
        figure = trajectory(game, mean=mean, median=median, target=target, lower=lower, upper=upper, title=name)
        written += save(figure, out / "trajectory")
    return written
