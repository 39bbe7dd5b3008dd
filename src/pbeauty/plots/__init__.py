"""Figures: every one is a function that takes arrays and returns a matplotlib figure; `draw` makes those of a run.

`save` writes a figure as PDF and as PNG. All of them have the house style (`plots.style`).
"""

from pbeauty.plots.figures import Drawn, draw, draw_sweep, plot_all, plot_run
from pbeauty.plots.groups import beside_others, by_group
from pbeauty.plots.histogram import Bars, bars, histogram
from pbeauty.plots.rounds import ridgelines, shares
from pbeauty.plots.style import save, stamp
from pbeauty.plots.sweep import against, small_multiples
from pbeauty.plots.trajectory import people, trajectory
from pbeauty.plots.work import lengths, times

__all__ = [
    "Bars",
    "Drawn",
    "against",
    "bars",
    "beside_others",
    "by_group",
    "draw",
    "draw_sweep",
    "histogram",
    "lengths",
    "people",
    "plot_all",
    "plot_run",
    "ridgelines",
    "save",
    "shares",
    "small_multiples",
    "stamp",
    "times",
    "trajectory",
]
