"""How cost grows: measured jobs over participants, ranks and rounds, and how well a model predicts others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from pbeauty.cost import Measurement
from pbeauty.cost_file import Scaling
from pbeauty.plots.style import BLACK, BLUE, DARK, GREY, HOUSE_STYLE, PALE, SERIES, VERMILION, band, headed

_HEIGHT = 9.7
_COLUMNS, _ROWS = (0.5, 3.82), (0.9, 3.12, 5.34, 7.56)
"""Left and upper edges of the panels, in inches."""
_WIDTH, _TALL = 2.53, 1.5
_SIZE = 7.5
_APART = 0.1
"""Between the centres of two lines of text, as a share of a panel's height."""
_ROOM = 0.34
"""Of a panel's width, to the right of the lines, for their labels."""
_LABELS = 6
"""Powers of ten that a panel has room for."""
_WITHIN = 0.15
"""The error that predictions are to keep within."""
_GUIDE: dict[str, Any] = {"color": PALE, "linestyle": "-", "marker": ""}
_ENGINE: dict[str, Any] = {"color": VERMILION, "linestyle": "-", "marker": "^"}
_SCRIPTED: dict[str, Any] = {"color": BLUE, "linestyle": "-", "marker": "o"}
_REST: dict[str, Any] = {"color": BLACK, "linestyle": (0, (3.5, 1.5)), "marker": "s"}


@dataclass(frozen=True)
class Curve:
    """One line of a panel."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    look: dict[str, Any]


@HOUSE_STYLE
def curves(scaling: Scaling) -> Figure:
    """Time, CPU time and peak memory of measured jobs, in eight panels on logarithmic axes.

    Args:
        scaling: what a bench has found; curves of fewer than two jobs are left out.
    """
    machine = scaling.machine
    subtitle = f"{machine.get('cpu', '?')}, {machine.get('cores', '?')} cores; medians; every point is a whole job"
    figure = headed("What a game costs, from one rank to many", subtitle, _HEIGHT)
    panels = [_panel(figure, column, row) for row in _ROWS for column in _COLUMNS]

    def line(label: str, look: dict[str, Any], series: str, x: Figures, y: Figures, *, llm: bool) -> Curve:
        runs = [m for m in scaling.measurements if series in m.series and bool(m.work.engines) == llm]
        runs.sort(key=x)
        return Curve(label, [x(m) for m in runs], [y(m) for m in runs], look)

    def both(series: str, x: Figures, y: Figures) -> list[Curve]:
        return [
            line("language\nmodels", _ENGINE, series, x, y, llm=True),
            line("scripted", _SCRIPTED, series, x, y, llm=False),
        ]

    for panel, kind, look, llm in (
        (0, "round of language models", _ENGINE, True),
        (1, "scripted round", _SCRIPTED, False),
    ):
        of_round = [
            line("engine" if llm else "guessing", look, "participants", _count, _per_round("playing"), llm=llm),
            line("all else", _REST, "participants", _count, _per_round("between"), llm=llm),
        ]
        _draw(panels[panel], f"A {kind}: time", "participants", "s", of_round, guide=True)
    whole = both("participants", _count, lambda m: m.memory / 1e9)
    _draw(panels[2], "A job: peak memory of all ranks", "participants", "GB", whole)
    whole = both("participants", _count, lambda m: m.cpu_seconds)
    _draw(panels[3], "A job: CPU time of all ranks", "participants", "s", whole)
    by_ranks = [
        line(f"{_size(scaling, 'ranks')}\nin all", _SCRIPTED, "ranks", _ranks, _round, llm=False),
        line(f"{_size(scaling, 'share')}\non each", _REST, "share", _ranks, _round, llm=False),
    ]
    _draw(panels[4], "A scripted round: time, by ranks", "ranks", "s", by_ranks, at_points=True)
    _draw(
        panels[5], "All rounds: time", "rounds", "s", both("rounds", lambda m: m.work.rounds, _rounds), at_points=True
    )
    exchanged = [
        Curve(f"{ranks} ranks", *_exchanged(scaling, ranks), look)
        for ranks, look in zip(sorted({e.ranks for e in scaling.exchanges}), SERIES, strict=False)
    ]
    _draw(panels[6], "A collective (Allreduce): time", "bytes", "ms", exchanged)
    _foretold(panels[7], scaling)
    return figure


Figures = Callable[[Measurement], float]


def _count(m: Measurement) -> float:
    return m.work.participants


def _ranks(m: Measurement) -> float:
    return m.work.ranks


def _round(m: Measurement) -> float:
    return _rounds(m) / m.work.rounds


def _rounds(m: Measurement) -> float:
    return m.seconds["playing"] + m.seconds["between"]


def _per_round(part: str) -> Callable[[Measurement], float]:
    return lambda m: m.seconds[part] / m.work.rounds


def _exchanged(scaling: Scaling, ranks: int) -> tuple[list[float], list[float]]:
    found = sorted((e.bytes, e.seconds) for e in scaling.exchanges if (e.operation, e.ranks) == ("allreduce", ranks))
    return [size for size, _ in found], [1e3 * seconds for _, seconds in found]


def _panel(figure: Figure, left: float, top: float) -> Axes:
    return figure.add_axes(band((left, _HEIGHT - top - _TALL, 6.5 - left - _WIDTH, top), _HEIGHT))


def _draw(
    axes: Axes,
    title: str,
    xlabel: str,
    unit: str,
    lines: Sequence[Curve],
    *,
    at_points: bool = False,
    guide: bool = False,
) -> None:
    """Curves on logarithmic axes, with their names at their ends.

    Args:
        axes: to draw on.
        title: of the panel.
        xlabel: of the x-axis.
        unit: of the y-axis.
        lines: the curves.
        at_points: whether ticks are at the points' x instead of powers of ten.
        guide: whether a pale line shows what linear growth looks like.
    """
    _titled(axes, title, xlabel, unit)
    shown = [line for line in lines if len(set(line.x)) > 1 and min(line.y) > 0]
    if not shown:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=GREY, fontsize=_SIZE)
        axes.set(xticks=[], yticks=[])
        return
    axes.set(xscale="log", yscale="log")
    x = np.array([value for line in shown for value in line.x], float)
    reach = np.log10(x.max() / x.min())
    low, high = _limits([value for line in shown for value in line.y])
    if guide:
        first = max(shown, key=lambda line: line.y[-1])
        end, height = first.x[-1], first.y[-1] / 3
        start = max(end / 10 ** (0.5 * reach), end * low / height)
        shown.append(Curve("linear", [start, end], [height * start / end, height], _GUIDE))
    axes.set_xlim(x.min() * 10 ** (-0.05 * reach), x.max() * 10 ** (_ROOM / (1 - _ROOM) * 1.05 * reach))
    axes.set_ylim(low, high)
    for line in shown:
        axes.plot(line.x, line.y, **line.look, linewidth=1.4, markersize=3.8, zorder=3, gid=line.label)
    _label_ends(axes, shown, low, high)
    _ticks(axes, x, low, high, at_points)


def _titled(axes: Axes, title: str, xlabel: str, unit: str) -> None:
    axes.set_title(title, loc="left", fontsize=8.5, fontweight="bold", pad=13)
    axes.set_xlabel(xlabel, fontsize=_SIZE, labelpad=2)
    axes.annotate(
        unit, (0, 1), (-3, 5), xycoords="axes fraction", textcoords="offset points", ha="right", fontsize=_SIZE
    )
    axes.tick_params(labelsize=_SIZE)
    axes.grid(axis="y")


def _limits(y: Any) -> tuple[float, float]:
    """Limits with some air, a decade apart at least."""
    low, high = float(np.min(y)), float(np.max(y))
    middle, half = np.sqrt(low * high), max(np.sqrt(high / low), 10**0.5)
    return float(middle / half / 1.25), float(middle * half * 1.25 * (half * half) ** 0.15)


def _label_ends(axes: Axes, lines: Sequence[Curve], low: float, high: float) -> None:
    """Names at the right of the last points, moved apart where they would lie over each other.

    Those of lines that end earlier stand above the ends, where no longer line runs through them.
    """
    last = max(line.x[-1] for line in lines)
    for line in lines:
        if line.x[-1] < last:
            axes.annotate(
                line.label.replace("\n", " "), (line.x[-1], line.y[-1]), (0, 6), textcoords="offset points",
                ha="center", color=line.look["color"], fontsize=_SIZE, fontweight="bold",
            )  # fmt: skip
    here = sorted((line for line in lines if line.x[-1] == last), key=lambda line: line.y[-1])
    wanted = [float(np.log(line.y[-1] / low) / np.log(high / low)) for line in here]
    for line, place in zip(here, _apart(wanted, [1 + line.label.count("\n") for line in here]), strict=True):
        guide = line.look is _GUIDE
        axes.annotate(
            line.label, (last, low * (high / low) ** place), (7, 0), textcoords="offset points", va="center",
            color=GREY if guide else line.look["color"], fontsize=_SIZE, fontweight="normal" if guide else "bold",
            linespacing=1.05,
        )  # fmt: skip


def _apart(wanted: Sequence[float], lines: Sequence[int]) -> list[float]:
    """Heights near the wanted ones, ascending, at which texts of so many lines do not touch."""
    places: list[float] = []
    for index, place in enumerate(wanted):
        room = _APART * (lines[index - 1] + lines[index]) / 2
        places.append(max(place, places[-1] + room) if places else max(place, _APART * lines[index] / 2))
    top = 1.02 - _APART * lines[-1] / 2
    for index in reversed(range(len(places))):
        places[index] = min(places[index], top)
        top = places[index] - _APART * (lines[index - 1] + lines[index]) / 2
    return places


def _ticks(axes: Axes, x: Any, low: float, high: float, at_points: bool) -> None:
    powers = 10.0 ** np.arange(np.ceil(np.log10(x.min())), np.log10(x.max()) + 0.01)
    if len(powers) > _LABELS:
        powers = powers[::2]
    axes.xaxis.set_major_locator(FixedLocator(sorted(set(x)) if at_points else powers.tolist()))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    steps = (1, 2, 5) if high / low < 130 else (1,)
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    places = [step * 10.0**decade for decade in decades for step in steps]
    axes.yaxis.set_major_locator(FixedLocator([place for place in places if low <= place <= high]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())


def _foretold(axes: Axes, scaling: Scaling) -> None:
    """Wall time of the jobs that were held out, and of the others, against what the model says."""
    _titled(axes, "A job: model against clock", "measured (s)", "predicted (s)")
    axes.texts[-1].set(ha="left", position=(2, 5))
    axes.set(xscale="log", yscale="log")
    groups = ((False, PALE, "o", "fitted"), (True, BLACK, "D", "held out of the fit"))
    every = [value for m in scaling.measurements for value in (m.wall_seconds, _predicted(scaling, m))]
    ends = np.array([min(every) / 1.4, max(every) * 1.4])
    axes.fill_between(
        ends, ends * (1 - _WITHIN), ends * (1 + _WITHIN), color="#e9eef3", linewidth=0, zorder=1, gid="within"
    )
    axes.plot(ends, ends, color=GREY, linewidth=0.8, zorder=1.5)
    for held_out, color, marker, label in groups:
        runs = [m for m in scaling.measurements if m.held_out == held_out]
        axes.plot(
            [m.wall_seconds for m in runs], [_predicted(scaling, m) for m in runs], linestyle="none", markersize=4.2,
            label=label, zorder=3 + held_out, gid=label, color=color, marker=marker,
        )  # fmt: skip
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, 1.03), fontsize=_SIZE, handletextpad=0.1, labelspacing=0.3)
    axes.annotate(
        f"grey: within {_WITHIN:.0%}", (0.99, 0.05), xycoords="axes fraction", ha="right", color=DARK, fontsize=_SIZE
    )
    axes.set(xlim=ends, ylim=ends)
    ticks = [value for value in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if ends[0] <= value <= ends[1]]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_locator(NullLocator())


def _predicted(scaling: Scaling, m: Measurement) -> float:
    return scaling.model.predict(m.work).wall_seconds


def _size(scaling: Scaling, series: str) -> str:
    """How many participants the jobs of a series have, in all or on each of their hosts."""
    runs = [m.work for m in scaling.measurements if series in m.series and not m.work.engines]
    if not runs:
        return ""
    return _short(runs[0].participants if series == "ranks" else runs[0].scripted_block)


def _short(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:g}"
