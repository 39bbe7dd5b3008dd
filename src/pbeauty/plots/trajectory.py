"""Where the game goes over its rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from pbeauty.analysis import intervals
from pbeauty.analysis.references import Trajectory
from pbeauty.game.experiment import Game
from pbeauty.game.theory import equilibrium
from pbeauty.plots.style import GREY, LIGHT, LOOKS, PALE, SKY, evenly, house_style, page, rule, tick_rounds, value_label

MOST_LINES = 100
"""Sessions that are drawn as lines of their own."""


@house_style
def trajectory(
    game: Game,
    *,
    mean: ArrayLike,
    median: ArrayLike,
    target: ArrayLike,
    quartiles: Sequence[ArrayLike] | None = None,
    people: Trajectory | None = None,
    title: str = "Guesses by round",
) -> Figure:
    """Mean, median and target by round, with the equilibrium.

    Of several sessions the lines are means over those that have a value, with thin lines for the means of sessions and
    a band for the interval of their mean (Student's t).

    Args:
        mean: float64[round] or float64[round, session], as are `median` and `target`; one round at least.
        median: by round.
        target: by round.
        quartiles: of the guesses of one session, the lower and the upper ones: a band.
        people: what people did in the same game.
    """
    given = {"mean": mean, "median": median, "target": target}
    tables = {name: np.asarray(values, float).reshape(len(np.asarray(values)), -1) for name, values in given.items()}
    count, sessions = tables["mean"].shape
    series = {name: np.nanmean(table, axis=1) for name, table in tables.items()}
    rounds = np.arange(1, count + 1)
    pad = 0.04 * (count - 1) if count > 1 else 0.5
    played = f"{count} of {game.rounds} round{'s' * (game.rounds != 1)}"
    over = "; means over sessions" if sessions > 1 else ""
    two_rows = sessions > 1 and people is not None  # of the legend
    box = (0.095, 0.145, 0.69, 0.605 if two_rows else 0.645)
    figure, axes = page(title, f"{played}; {rule(game)}{over}", box)
    if quartiles is not None:
        lower, upper = (np.ravel(ends) for ends in quartiles)
        axes.fill_between(rounds, lower, upper, color=SKY, alpha=0.32, linewidth=0, label="quartiles of the guesses")
    if sessions > 1:
        _draw_sessions(axes, tables["mean"])
    if people:
        _draw_people(axes, people, count)
    size = 4.5 if count <= 12 else 2.5 if count <= 40 else 0
    for name, values in series.items():
        axes.plot(rounds, values, **LOOKS[name], markersize=size, clip_on=False, zorder=4, gid=name)
    last = {name: float(values[-1]) for name, values in series.items()}
    resting = equilibrium(game)
    if math.isfinite(resting):
        axes.plot([1 - pad, count], [resting] * 2, **LOOKS["equilibrium"], linewidth=1, gid="equilibrium")
        last["equilibrium"] = resting
    axes.set(xlim=(1 - pad, count + pad), ylim=_limits(axes, game), xlabel="round", ylabel="guess")
    tick_rounds(axes, count)
    _label_ends(figure, axes, count, last)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="center left", bbox_to_anchor=(0.083, 0.82 if two_rows else 0.84), ncols=2 if two_rows else 3)
    return figure


def thin_lines(axes: Axes, sessions: Sequence[ArrayLike], name: str = "sessions", color: str = PALE) -> None:
    """A thin line for each of several sessions, float64[round] each, behind what stands for all of them.

    Of many an even sample is drawn, and their label says so.
    """
    drawn = evenly(len(sessions), MOST_LINES)
    label = f"{name} ({len(drawn)} of {len(sessions):,})" if len(drawn) < len(sessions) else name
    width, size = (0.8, 3) if len(drawn) <= 12 else (0.4, 1.5)
    for index, session in ((index, np.asarray(sessions[index])) for index in drawn):
        axes.plot(
            range(1, len(session) + 1), session, color=color, linewidth=width, marker="o", markersize=size, zorder=1.8,
            label=label if not index else None, gid="session",
        )  # fmt: skip


def _draw_sessions(axes: Axes, means: NDArray[np.float64]) -> None:
    """The means of sessions, float64[round, session], and the interval of their mean."""
    thin_lines(axes, list(means.T), "means of sessions", LIGHT)
    found = [intervals.moments(row[~np.isnan(row)]).interval() for row in means]
    ends = [one.low for one in found], [one.high for one in found]
    label = f"{100 * intervals.CONFIDENCE:g} % interval of their mean"
    axes.fill_between(range(1, len(found) + 1), *ends, color=GREY, alpha=0.45, linewidth=0, label=label, zorder=3)


def _draw_people(axes: Axes, reference: Trajectory, count: int) -> None:
    """The sessions and their mean, for as many rounds as both the run and the experiment have."""
    thin_lines(
        axes, [session[:count] for session in reference.sessions], f"sessions of people ({reference.source.short})"
    )
    average = reference.average[:count]
    mean = axes.plot(range(1, len(average) + 1), average, color=GREY, linewidth=1.2, label="their mean")[0]
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
            value_label(name, last[name]), (count, last[name]), (17, height - end), textcoords="offset points",
            color=colour, va="center", arrowprops=leader, annotation_clip=False,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6}, zorder=2.2,
        )  # fmt: skip


def _spread(ideal: Sequence[float], gap: float, bottom: float, top: float) -> list[float]:
    """Ascending positions, moved up, and at the top down, until they are a gap apart within the bounds."""
    raised: list[float] = []
    for position in ideal:
        raised.append(max(position, raised[-1] + gap if raised else bottom))
    return [min(height, top - (len(raised) - 1 - index) * gap) for index, height in enumerate(raised)]
