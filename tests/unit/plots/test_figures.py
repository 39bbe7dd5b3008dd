"""The figures of levels, rounds, groups, published results, sweeps, replies and time: what is drawn, and legibly."""

import os

import numpy as np
import pytest
from made import experiment, make
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from pbeauty import plots
from pbeauty.analysis.group_stats import binned
from pbeauty.analysis.run_analysis import analyse
from pbeauty.cli.main import main
from pbeauty.game.experiment import Game
from pbeauty.game.records import Purpose
from pbeauty.storage.run_reader import Run

CLASSIC = Game()
GENERATOR = np.random.default_rng(2)
GUESSES = np.clip(GENERATOR.normal(37, 18, (4, 60)), 0, 100) * np.array([[1.0], [0.7], [0.5], [0.4]])
EDGES = np.linspace(0, 100, 101)


def assert_readable(figure):
    """No text is cut off at the figure's edge, and none of the figure's own lies over another."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    own = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    ticks = []
    for axes in figure.axes:
        own += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        own.append(getattr(axes, "_left_title", axes.title))
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            places = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)  # an inner panel has no labels
            ticks += [label for place, label in places if min(limits) <= place <= max(limits)]
    boxes = {}
    for text in own + ticks:
        if text.get_text() and text.get_visible():
            boxes[id(text)] = (text.get_text(), Text.get_window_extent(text, renderer))
    boxes = list(boxes.values())
    for number, (text, box) in enumerate(boxes):
        assert box.x0 >= -0.5, f"{text!r} is cut off"
        assert box.y0 >= -0.5, f"{text!r} is cut off"
        assert box.x1 <= figure.bbox.x1 + 0.5, f"{text!r} is cut off"
        assert box.y1 <= figure.bbox.y1 + 0.5, f"{text!r} is cut off"
        for other, other_box in boxes[number + 1 :]:
            assert not box.overlaps(other_box), f"{text!r} lies over {other!r}"


def counts(rounds):
    return [np.histogram(row, EDGES)[0] for row in rounds]


def test_level_marks_stand_at_the_levels():
    marks = [50, 100 / 3, 200 / 9, 400 / 27]
    figure = plots.histogram(
        plots.count_guesses(GUESSES[0], CLASSIC), CLASSIC, target=24.0, aggregate=36.0, levels=marks
    )
    drawn = {line.get_gid(): line.get_xdata()[0] for line in figure.axes[0].lines if line.get_gid()}
    assert [drawn[f"level {level}"] for level in range(4)] == pytest.approx(marks)
    assert {"L0", "L1", "L2", "L3"} <= {text.get_text() for text in figure.axes[0].texts}
    close = plots.histogram(
        plots.count_guesses(GUESSES[0], CLASSIC), CLASSIC, target=24.0, aggregate=36.0, levels=[2.0, 1.5, 1.1, 0.9]
    )
    assert [text.get_text() for text in close.axes[0].texts if text.get_text().startswith("L")] == ["L0"]
    assert_readable(close)


@pytest.mark.parametrize("rounds", [1, 4, 60])
def test_ridgelines(rounds):
    drawn = np.resize(GUESSES, (rounds, 60))
    means = drawn.mean(axis=1)
    figure = plots.ridgelines(CLASSIC, EDGES, counts(drawn), mean=means, target=means * 2 / 3)
    assert_readable(figure)
    (dots,) = [line for line in figure.axes[0].lines if line.get_gid() == "mean"]
    assert len(dots.get_xdata()) == min(rounds, 20)
    assert (f"20 of {rounds} rounds" in figure.texts[1].get_text()) == (rounds > 20)


def test_ridges_are_shares_on_one_scale():
    even, spike = np.full(100, 10), np.zeros(100, int)
    spike[30] = 1000
    figure = plots.ridgelines(CLASSIC, EDGES, [even, spike], mean=[50, 30], target=[33, 20])
    heights = [p.get_data().values - p.get_data().baseline for p in figure.axes[0].patches if p.get_fill()]
    assert heights[0].max() / heights[1].max() == pytest.approx(np.sqrt(0.01))


def test_shares_stack_up_to_one():
    values = [[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]]
    figure = plots.shares(["a", "b", "c", "d"], values, title="t")
    tops = [sum(bar[index].get_height() for bar in figure.axes[0].containers) for index in range(2)]
    assert tops == pytest.approx([100, 100])
    assert_readable(figure)
    few = plots.shares(["a", "b", "c", "d"], [[0.1, 0, 0, 0.9]], title="t").axes[0].containers
    assert [bars.get_label() for bars in few] == ["a", "d"]
    assert few[1][0].get_facecolor() == figure.axes[0].containers[3][0].get_facecolor(), "whichever others there are"
    with pytest.raises(ValueError, match="9 kinds"):
        plots.shares([*"abcdefghi"], np.full((1, 9), 1 / 9), title="t")


def test_groups_have_looks_of_their_own_and_intervals():
    names = [f"a group with a rather long name {number}" for number in range(11)]
    mean = np.linspace(20, 60, 11)[:, None] * [[1, 0.6]]
    figure = plots.by_group(CLASSIC, names, mean, mean - 2, mean + 2, everybody=[40, 24])
    looks = [
        (line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines if line.get_linestyle() != "None"
    ]
    assert len(looks) == len(set(map(str, looks)))
    assert "3 of 11 groups left out" in figure.texts[1].get_text()
    assert_readable(figure)


def test_a_forest_keeps_the_order_and_names_every_row():
    names = ["this run", "people of " + "a very long description " * 5, "a model"]
    means = ([40.0, 37.0, 55.0], [38.0, 30.0, np.nan], [42.0, 44.0, np.nan])
    figure = plots.forest(names, {"": means}, kinds=["this run", "people", "language models"], title="t")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[0] == "this run"
    assert labels[1].endswith("…")
    assert labels[2] == "a model"
    heights = figure.axes[0].get_yticks()
    assert list(heights) == sorted(heights, reverse=True), "the first row is not on top"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["this run", "people", "language models"]
    assert_readable(figure)


@pytest.mark.parametrize("rows", [1, 9, 200])
def test_rows_of_a_forest_do_not_collide(rows):
    mean = np.linspace(20, 60, rows)
    names = [f"user_prompt=step-by-step · case {row}" for row in range(rows)]
    panels = {"round 1": (mean, mean - 3, mean + 3), "round 4": (mean / 2, mean / 2 - 1, mean / 2 + 1)}
    figure = plots.forest(names, panels, title="t", subtitle="bars: intervals")
    assert_readable(figure)
    assert ("80 of 200 shown" in figure.texts[1].get_text()) == (rows > 80)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["round 1", "round 4"]


@pytest.mark.parametrize("groups", [1, 2, 11])
def test_histograms_of_groups(groups):
    names = [f"a group with a rather long name {number}" for number in range(groups)]
    rows = [np.histogram(GUESSES[number % 4], EDGES)[0] for number in range(groups)]
    late = [np.histogram(GUESSES[number % 4] / 10, EDGES)[0] for number in range(groups)]
    figure = plots.group_histograms(CLASSIC, names, EDGES, {"round 1": rows, "round 4": late}, title="t")
    assert figure.axes[0].get_xlim() == (0, 100)
    assert figure.axes[-1].get_xlim()[1] < 20, "a late round is shown as far as guesses reach"
    assert len(figure.axes) == 2 * min(groups, 8)
    for axes in figure.axes:
        (steps,) = axes.patches
        assert steps.get_data().values.sum() == pytest.approx(100)
    assert ("8 of 11 shown" in figure.texts[1].get_text()) == (groups > 8)
    assert_readable(figure)


def test_whole_numbers_of_a_group_have_bars_without_gaps():
    guesses = np.sort(np.random.default_rng(6).integers(5, 30, 300)).astype(float)
    bins = binned(guesses, CLASSIC)
    figure = plots.group_histograms(CLASSIC, ["a"], bins.edges, {"round 4": [bins.counts]}, title="t")
    (steps,) = figure.axes[0].patches
    assert np.diff(steps.get_data().edges)[1:-1] == pytest.approx(np.ones(steps.get_data().edges.size - 3))
    assert np.count_nonzero(steps.get_data().values) == np.unique(guesses).size


@pytest.mark.parametrize("cases", [1, 3, 9, 50])
def test_small_multiples(cases):
    played = {f"case number {number} · direct": [[40, 25, 12 + number % 5], [38, 22, 11]] for number in range(cases)}
    figure = plots.small_multiples(played)
    assert len(figure.axes) == min(cases, 40)
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    assert ("40 of 50 cases" in figure.texts[1].get_text()) == (cases > 40)
    assert_readable(figure)


def test_sessions_in_a_panel_may_end_early_and_runs_be_unfinished():
    figure = plots.small_multiples({"a": [[40, 30, np.nan], [20, np.nan, np.nan], [30, 20]], "b": [[10, 5, 2]]})
    (line,) = [line for line in figure.axes[0].lines if line.get_gid() == "a"]
    assert list(line.get_ydata()) == [30, 25]
    assert len([line for line in figure.axes[0].lines if line.get_gid() == "session"]) == 3
    assert figure.axes[0].get_ylim()[1] > 40


@pytest.mark.parametrize("sessions", [1, 3])
def test_all_figures_of_a_run(tmp_path, sessions):
    population = [{"name": "talkers", "count": 30, "kind": "llm"}, {"name": "noise", "count": 30, "kind": "uniform"}]
    guesses = np.tile(GUESSES, sessions)
    guesses[0, 3] = np.nan
    if sessions > 1:
        guesses[1:, 60:120] = np.nan  # its second session ends with the second round
    said = [[(participant, Purpose.ANSWER, "so be it") for participant in range(30)] for _ in range(4)]
    about = experiment(60, sessions=sessions, population=population, rounds=5)
    with Run(make(tmp_path, guesses, about, said=said)) as run:
        analysis = analyse(run)
        drawings = list(plots.run_drawings(run, analysis))
        assert [d.stem for d in drawings if d.kind == "rounds"] == [f"round-{n:04d}-histogram" for n in range(1, 5)]
        rest = {d.stem for d in drawings if d.kind != "rounds"}
        for drawing in drawings:
            assert drawing.kind in plots.KINDS
            figure = drawing.draw()
            assert_readable(figure)
            assert figure.texts[0].get_text().startswith("made, 3 sessions of 60: " if sessions > 1 else "made: ")
            (stamp,) = [text.get_text() for text in figure.texts if text.get_gid() == "stamp"]
            assert ("UNFINISHED RUN: 4 of 5 rounds" in stamp) == (drawing.kind != "rounds")
        if sessions > 1:
            texts = [[text.get_text() for text in plots.round_histogram(run, n).texts] for n in range(3)]
            counts = ["3 sessions, 180 participants, 1", "3 sessions, 180 participants, 60",
                      "2 sessions (1 had ended), 120 participants, 0"]  # fmt: skip
            for found, count in zip(texts, counts, strict=True):
                assert found[1].startswith(f"{count} without a usable guess")
            texts = [text.get_text() for text in plots.round_histogram(run, 0, 1).texts]
            assert texts[0] == "made, 3 sessions of 60, session 2: round 1 of 5"
            assert texts[1].startswith("60 participants, 0 without")
    assert rest == {
        "trajectory", "ridgelines", "levels", "by-group", "by-group-histograms", "statuses",
    }  # fmt: skip


def test_plots_of_a_folder_of_runs(tmp_path):
    for seed in range(2):
        described = experiment(60, seed=seed, rounds=2, multiplier=["1/2", "2/3"][seed])
        make(tmp_path / str(seed), GUESSES[:2], described)
    written = [path.relative_to(tmp_path).as_posix() for path in plots.plot_all([tmp_path])]
    assert written[:4] == [
        f"plots/{stem}.{kind}" for stem in ("sweep-means", "sweep-rounds") for kind in ("pdf", "png")
    ]
    assert {"0/plots/ridgelines.pdf", "1/plots/trajectory.png", "1/plots/round-0002-histogram.pdf"} <= set(written)
    assert len(written) == len(set(written))
    assert all((tmp_path / name).stat().st_size > 3000 for name in written)


def test_whoever_wants_no_more_figures_does_not_wait_for_the_rest(tmp_path, monkeypatch):
    """As Ctrl-C, or `| head`: on two cores, what they are at is drawn to its end, and no more."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    for name in "abcdefgh":
        make(tmp_path / name, [[20.0, 30.0]])
    figures = plots.plot_all([tmp_path])
    next(figures)
    figures.close()
    assert len(list(tmp_path.glob("?/plots"))) < 8


def test_only_what_is_asked_for_is_drawn(tmp_path, capsys):
    for seed in range(2):
        make(tmp_path / str(seed), GUESSES[:1], experiment(60, seed=seed, rounds=1, multiplier=["1/2", "2/3"][seed]))
    assert main(["plot", "--only", "sweep", "--only", "levels", str(tmp_path)]) == 0
    printed = sorted(line.removeprefix(f"{tmp_path}/") for line in capsys.readouterr().out.split())
    stems = ["0/plots/levels", "1/plots/levels", "plots/sweep-means"]  # one round: nothing by round
    assert printed == [f"{stem}.{kind}" for stem in stems for kind in ("pdf", "png")]
    with pytest.raises(SystemExit):
        main(["plot", "--only", "everything", str(tmp_path)])
    assert "trajectory" in capsys.readouterr().err
