"""Figures: every one is a function that takes arrays and returns a matplotlib figure.

`plot_run` draws a run's rounds, `plot_all` everything about runs; `save` writes a figure as PDF and as PNG. All of them
have the house style (`plots.style`).
"""

from pbeauty.plots.figures import KINDS, Drawing, plot_all, plot_run, round_histogram, run_drawings, sweep_drawings
from pbeauty.plots.groups import by_group, forest, group_histograms, small_multiples
from pbeauty.plots.histogram import Bars, count_guesses, histogram
from pbeauty.plots.rounds import ridgelines, shares
from pbeauty.plots.style import pdf, png, save, stamp
from pbeauty.plots.trajectory import trajectory

__all__ = [
    "KINDS", "Bars", "Drawing", "by_group", "count_guesses", "forest", "group_histograms", "histogram",
    "pdf", "plot_all", "plot_run", "png", "ridgelines", "round_histogram", "run_drawings", "save", "shares",
    "small_multiples", "stamp", "sweep_drawings", "trajectory",
]  # fmt: skip
