"""Figures from real arrays: what is drawn, where, and what ends up on disk."""

import os
import struct
import subprocess
import sys
import warnings

import matplotlib as mpl
import numpy as np
import pytest
import scipy
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given, settings
from hypothesis import strategies as st
from made import experiment, make
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import StepPatch
from matplotlib.text import Text
from PIL import Image

from pbeauty import plots
from pbeauty.analysis.references import human_means
from pbeauty.analysis.run_analysis import analyse
from pbeauty.game.experiment import Game
from pbeauty.plots import style
from pbeauty.plots.style import value_label
from pbeauty.storage.run_reader import Run

CLASSIC = Game()
SHIFTED = Game(multiplier="1/2", offset=5, low=20, high=120)


def focal_guesses(count=400):
    """Guesses as people make them: spikes at 50, 33 and 22 on a broad base of integers."""
    rng = np.random.default_rng(3)
    base = np.round(np.clip(rng.normal(37, 20, count), 0, 100))
    return np.where(rng.random(count) < 0.5, rng.choice([50.0, 33.0, 22.0, 33.33], count), base)


def draw(guesses, game=CLASSIC, **fields):
    guesses = np.asarray(guesses, float)
    mean = float(guesses.mean())
    counted = plots.count_guesses(guesses, game)
    return plots.histogram(counted, game, target=game.offset + game.p * mean, aggregate=mean, **fields)


def bars(figure):
    """Shares in percent by bar, and the edges."""
    (patch,) = [patch for patch in figure.axes[0].patches if isinstance(patch, StepPatch)]
    return patch.get_data().values, patch.get_data().edges


def share_at(figure, value):
    shares, edges = bars(figure)
    return shares[min(np.searchsorted(edges, value, side="right") - 1, shares.size - 1)]


def lines(figure):
    return {line.get_gid(): line for line in figure.axes[0].lines if line.get_gid()}


def assert_readable(figure):
    """No text that the figure itself places lies over other text or is cut off at the figure's edge."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    axes = figure.axes[0]
    placed = [*figure.texts, *axes.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    others = [axes.xaxis.label, axes.yaxis.label]
    for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        others += [label for place, label in ticks if limits[0] <= place <= limits[1]]
    # Text's own method: that of an annotation takes in its leader as well.
    boxes = [(text.get_text(), Text.get_window_extent(text, renderer)) for text in placed + others]
    for number, (text, box) in enumerate(boxes):
        assert box.x0 >= 0, f"{text!r} is cut off"
        assert box.y0 >= 0, f"{text!r} is cut off"
        assert box.x1 <= figure.bbox.x1, f"{text!r} is cut off"
        assert box.y1 <= figure.bbox.y1, f"{text!r} is cut off"
        for other, other_box in boxes[number + 1 :] if number < len(placed) else ():
            assert not box.overlaps(other_box), f"{text!r} lies over {other!r}"


# --- bars ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guesses", "game"),
    [
        (focal_guesses(), CLASSIC),
        (np.array([0.0, 0.0, 100.0]), CLASSIC),
        (np.array([0.0, 0.123, 99.877, 100.0]), CLASSIC),
        (np.array([20.0, 120.0, 33.3]), SHIFTED),
        (np.round(np.linspace(0, 1, 101), 2), Game(high=1)),
        (np.linspace(0.3, 0.7, 41), Game(low=0.3, high=0.7)),
        (np.arange(0.0, 1001.0), Game(high=1000)),
        (np.linspace(-1e6, 1e6, 999), Game(low=-1e6, high=1e6)),
        (np.array([0.5, 99.5, 17.0]), Game(low=0.5, high=99.5)),
    ],
)
def test_every_guess_is_in_a_bar(guesses, game):
    figure = draw(guesses, game)
    shares, edges = bars(figure)
    assert shares.sum() == pytest.approx(100)
    assert np.histogram(guesses, edges)[0].sum() == guesses.size
    low, high = figure.axes[0].get_xlim()
    assert low <= guesses.min()
    assert high >= guesses.max()
    if np.ptp(guesses) > 0.4 * (game.high - game.low):
        assert edges[0] <= game.low
        assert edges[-1] >= game.high


def test_guesses_are_not_cut_to_integers():
    many = np.tile([0.4, 0.6, 5.0, 5.0, 5.0, 70.0], 100)
    assert share_at(draw(many), 0.0) == pytest.approx(100 / 6)
    assert share_at(draw(many), 1.0) == pytest.approx(100 / 6)
    fractions = draw(np.tile([0.4, 0.6, 61.5], 200))
    assert share_at(fractions, 0.5) == pytest.approx(200 / 3)


@settings(max_examples=60, deadline=None)
@given(
    guesses=st.lists(st.floats(0, 1), min_size=1, max_size=400),
    low=st.floats(-1e6, 1e6),
    span=st.floats(1e-3, 1e6),
    power=st.floats(0, 8),
)
def test_every_guess_is_counted_once(guesses, low, span, power):
    game = Game(low=low, high=low + span)
    guesses = np.clip(game.low + np.array(guesses) ** power * (game.high - game.low), game.low, game.high)
    counted = plots.count_guesses(guesses, game)
    assert counted.total == guesses.size
    assert counted.counts.sum() >= 0.98 * guesses.size
    assert counted.below <= np.count_nonzero(guesses < counted.edges[0] + 1e-6 * span)
    assert counted.above <= np.count_nonzero(guesses > counted.edges[-1] - 1e-6 * span)
    assert 1 <= counted.counts.size <= 122
    pieces = plots.count_guesses(lambda: np.array_split(guesses, 3), game)
    assert pieces.counts.tolist() == counted.counts.tolist()


def test_late_rounds_are_shown_as_far_as_guesses_reach():
    late = np.append(np.random.default_rng(1).uniform(0, 2.9, 999), 100.0)
    counted = plots.count_guesses(late, CLASSIC, [1.0])
    assert counted.edges[0] == 0
    assert counted.edges[-1] <= 5
    assert (counted.below, counted.above) == (0, 1)
    figure = plots.histogram(counted, CLASSIC, target=1.0, aggregate=1.5)
    assert f"1 above {counted.edges[-1]:g} → (0.1 %)" in [text.get_text() for text in figure.axes[0].texts]
    assert "the range of the game is 0 to 100" in figure.axes[0].get_xlabel()
    assert_readable(figure)
    assert plots.count_guesses(late, CLASSIC, [80.0]).edges[-1] >= 80, "the target is in sight"
    assert plots.count_guesses(late[-12:], CLASSIC).above == 0, "one of twelve is no outlier"


@pytest.mark.parametrize(("count", "bars_of_all"), [(12, 20), (300, 100), (1_000_000, 100)])
def test_bars_fit_the_number_of_guesses(count, bars_of_all):
    guesses = np.random.default_rng(5).uniform(0, 100, count)
    guesses[:2] = 0, 100
    assert plots.count_guesses(guesses, CLASSIC).counts.size == bars_of_all


def test_integers_get_a_bar_each():
    shares, edges = bars(draw(np.tile(np.arange(0.0, 101.0), 10)))
    assert shares == pytest.approx(np.full(101, 100 / 101))
    assert (edges[:-1] + edges[1:]) / 2 == pytest.approx(np.arange(0, 101))


@pytest.mark.parametrize("unit", [1, 0.1])
def test_no_bars_stand_apart_where_guesses_are_round(unit):
    late = unit * np.random.default_rng(8).integers(0, 38, 400)
    shares, edges = bars(draw(late))
    assert np.diff(edges) == pytest.approx(np.full(edges.size - 1, unit))
    assert np.count_nonzero(shares) == 38


def test_hundredths_get_a_bar_each():
    shares, _ = bars(draw(np.tile(np.arange(0, 101) / 100, 10), Game(high=1)))
    assert shares == pytest.approx(np.full(101, 100 / 101))


def test_continuous_guesses_have_whole_bars_at_the_ends():
    shares, edges = bars(draw((np.arange(10_000) + 0.5) / 100))
    assert shares == pytest.approx(np.full(100, 1.0))
    assert (edges[0], edges[-1]) == (0, 100)


def test_a_million_guesses_are_one_object():
    guesses = np.random.default_rng(0).uniform(0, 100, 1_000_000)
    figure = draw(guesses)
    assert len(figure.axes[0].patches) == 1
    assert bars(figure)[0].sum() == pytest.approx(100)


@pytest.mark.parametrize("guesses", [[], [50.0, 101.0], [np.nan, 3.0]])
def test_what_cannot_be_shown_is_refused(guesses):
    with pytest.raises(ValueError, match="needs guesses"):
        plots.count_guesses(np.array(guesses), CLASSIC)


# --- marks and labels ----------------------------------------------------------------------------------------


def test_lines_stand_at_target_and_mean():
    guesses = focal_guesses()
    marked = lines(draw(guesses))
    assert marked["mean"].get_xdata() == pytest.approx([guesses.mean()] * 2)
    assert marked["target"].get_xdata() == pytest.approx([guesses.mean() * 2 / 3] * 2)


def test_counts_are_stated():
    texts = [text.get_text() for text in draw(focal_guesses(400), n_unusable=12).texts]
    assert "412 participants, 12 without a usable guess; target = 2/3 × mean" in texts
    texts = [text.get_text() for text in draw([60.0], SHIFTED).texts]
    assert "1 participant, 0 without a usable guess; target = 1/2 × mean + 5" in texts


def test_target_outside_the_range_has_an_arrow_and_no_line():
    figure = draw(np.full(50, 90.0), Game(multiplier="4/3"))
    assert set(lines(figure)) == {"mean"}
    assert "target 120 →" in [text.get_text() for text in figure.axes[0].texts]
    assert figure.axes[0].get_xlim()[1] < 105
    below = draw(np.full(50, 9.0), Game(offset=-20))
    assert "← target −14" in [text.get_text() for text in below.axes[0].texts]


def test_median_is_marked_where_the_target_is_made_from_it():
    game = Game(aggregate="median")
    figure = plots.histogram(
        plots.count_guesses(np.array([10.0, 20.0, 90.0]), game), game, target=13.33, aggregate=20.0
    )
    assert set(lines(figure)) == {"target", "median"}


@pytest.mark.parametrize(("middle", "spread"), [(1.0, 3), (30.0, 3), (97.0, 3), (50.0, 40)])
@pytest.mark.parametrize("multiplier", ["1/2", "99/100", "3"])
@pytest.mark.parametrize("aggregate", ["mean", "median"])
def test_targets_of_sessions_are_ticks_above_the_axes(middle, spread, multiplier, aggregate):
    game = Game(multiplier=multiplier, aggregate=aggregate)
    generator = np.random.default_rng(4)
    means = np.clip(generator.normal(middle, spread, 20), 0, 100)
    guesses = np.clip(generator.normal(middle, 20, 360), 0, 100)
    targets = game.p * means
    figure = plots.histogram(plots.count_guesses(guesses, game), game, target=targets, aggregate=means, title="Guesses")
    low, high = figure.axes[0].get_xlim()
    ticks = {c.get_gid(): [path.vertices[0, 0] for path in c.get_paths()] for c in figure.axes[0].collections}
    assert ticks == {
        aggregate: pytest.approx(np.sort(means)),
        "target": pytest.approx([value for value in np.sort(targets) if low <= value <= min(high, 100)]),
    }
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert value_label("targets", targets.min()) + value_label(" to", targets.max()) in labels
    assert figure.texts[1].get_text().startswith("20 sessions, 360 participants, 0 without a usable guess")
    assert not lines(figure)
    assert_readable(figure)


@pytest.mark.parametrize("level", [0.0, 0.9, 12.5, 50.0, 74.9, 92.0, 100.0])
@pytest.mark.parametrize("multiplier", ["1/2", "99/100", "1", "4/3", "3"])
def test_labels_never_overlap(level, multiplier):
    assert_readable(draw(np.full(7, level), Game(multiplier=multiplier), n_unusable=1_000_000))


def test_labels_at_opposite_ends():
    figure = plots.histogram(plots.count_guesses(np.array([1.0, 99.0]), CLASSIC), CLASSIC, target=0.01, aggregate=99.99)
    assert_readable(figure)


def test_long_names_are_shortened_not_cut_off():
    figure = draw(focal_guesses(), title="benchmark-" * 10)
    assert_readable(figure)
    assert figure.texts[0].get_text().endswith("…")


# --- trajectories --------------------------------------------------------------------------------------------


def path(means, game=CLASSIC, **fields):
    means = np.asarray(means, float)
    return plots.trajectory(game, mean=means, median=means * 0.9, target=game.offset + game.p * means, **fields)


def test_trajectory_shows_what_it_was_given():
    figure = path([40, 25, 13, 8])
    drawn = lines(figure)
    assert list(drawn["mean"].get_xdata()) == [1, 2, 3, 4]
    assert list(drawn["mean"].get_ydata()) == [40, 25, 13, 8]
    assert drawn["median"].get_ydata() == pytest.approx([36, 22.5, 11.7, 7.2])
    assert drawn["target"].get_ydata() == pytest.approx([80 / 3, 50 / 3, 26 / 3, 16 / 3])
    assert list(drawn["equilibrium"].get_ydata()) == [0, 0]
    assert list(figure.axes[0].get_xticks()) == [1, 2, 3, 4]


def test_people_are_drawn_and_cited_where_the_game_is_theirs():
    figure = path([40, 25, 13, 8], people=human_means(2 / 3))
    assert lines(figure)["people"].get_ydata() == pytest.approx([36.7, 23.9, 15.9, 9.2], abs=0.05)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["sessions of people (Nagel 1995)", "their mean"]
    assert list(lines(path([40, 25], people=human_means(2 / 3)))["people"].get_xdata()) == [1, 2]


@pytest.mark.parametrize(
    "rules",
    [{"offset": 5}, {"aggregate": "median"}, {"high": 10}, {"low": 1}, {"multiplier": "4/3"}],
)
def test_no_people_in_another_game(tmp_path, rules):
    make(tmp_path / "same", [[40.0, 50.0], [30.0, 20.0]], experiment(2, rounds=2))
    make(tmp_path / "other", [[4.0, 5.0], [3.0, 2.0]], experiment(2, rounds=2, **rules))
    for name, shown in (("same", True), ("other", False)):
        with Run(tmp_path / name) as run:
            (drawing,) = [d for d in plots.run_drawings(run, analyse(run)) if d.kind == "trajectory"]
            assert ("people" in lines(drawing.draw())) == shown


def test_band_is_drawn_between_its_ends():
    figure = path([40, 25], quartiles=[[30, 20], [60, 30]])
    (band,) = figure.axes[0].collections
    assert (band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()) == (20, 60)
    assert figure.legends[0].get_texts()[0].get_text() == "quartiles of the guesses"


@pytest.mark.parametrize(
    ("means", "game"),
    [
        ([38], CLASSIC),
        ([0], CLASSIC),
        ([0, 0, 0], CLASSIC),
        ([100, 100, 100], CLASSIC),
        ([34, 20, 11, 6, 3, 1], Game(multiplier="1/2")),
        (45 * 0.8 ** np.arange(23), Game(rounds=30)),
        (45 * 0.97 ** np.arange(300), Game(multiplier="0.9", rounds=300)),
        ([60, 35, 22, 16], SHIFTED),
        ([55, 75, 93], Game(multiplier="4/3")),
        ([400, 350, 340], Game(offset=100.1, multiplier="0.7", high=1000)),
        ([50, 50], Game(multiplier="1")),
    ],
)
def test_trajectories_are_readable(means, game):
    means = np.asarray(means, float)
    figure = path(means, game, quartiles=[means * 0.7, means * 1.2])
    assert_readable(figure)
    ticks = figure.axes[0].get_xticks()
    assert ticks[0] == 1
    assert len(ticks) <= 14
    assert all(tick == int(tick) for tick in ticks)
    low, high = figure.axes[0].get_ylim()
    for line in lines(figure).values():
        assert low <= np.min(line.get_ydata())
        assert np.max(line.get_ydata()) <= high


@pytest.mark.parametrize("people", [None, human_means(2 / 3)])
@pytest.mark.parametrize(("sessions", "drawn"), [(2, 2), (20, 20), (1000, 100)])
def test_sessions_are_thin_lines_and_their_mean_has_an_interval(sessions, drawn, people):
    means = np.random.default_rng(3).normal([[38], [25], [14]], 5, (3, sessions))
    means[2, 0] = np.nan  # a session that has ended
    figure = path(means, people=people)
    thin = [line for line in figure.axes[0].lines if line.get_gid() == "session"][:drawn]
    assert len(thin) == drawn
    np.testing.assert_array_equal(thin[0].get_ydata(), means[:, 0])
    np.testing.assert_array_equal(thin[-1].get_ydata(), means[:, -1])
    assert lines(figure)["mean"].get_ydata() == pytest.approx(np.nanmean(means, axis=1))
    (band,) = figure.axes[0].collections
    ends = scipy.stats.t.interval(0.95, sessions - 1, means[0].mean(), scipy.stats.sem(means[0]))
    first = [y for x, y in band.get_paths()[0].vertices if x == 1]
    assert (min(first), max(first)) == pytest.approx(ends)
    label = "means of sessions" if drawn == sessions else "means of sessions (100 of 1,000)"
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    theirs = {"sessions of people (Nagel 1995)", "their mean"} if people else set()
    assert legend == {label, "95 % interval of their mean"} | theirs
    assert_readable(figure)


def test_no_equilibrium_where_every_guess_is_one():
    assert "equilibrium" not in lines(path([50, 50], Game(multiplier="1")))


# --- files ---------------------------------------------------------------------------------------------------


def png_size(content):
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


def test_saved_files_are_whole_and_repeatable(tmp_path):
    first = plots.save(draw(focal_guesses()), tmp_path / "a" / "round.1")
    second = plots.save(draw(focal_guesses()), tmp_path / "b" / "round.1")
    assert [file.name for file in first] == ["round.1.pdf", "round.1.png"]
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == ["round.1.pdf", "round.1.png"]
    pdf, png = (file.read_bytes() for file in first)
    assert pdf.startswith(b"%PDF-")
    assert pdf.rstrip().endswith(b"%%EOF")
    assert b"/FontFile2" in pdf
    assert b"CreationDate" not in pdf
    assert png_size(png) == (1300, 800)
    assert Image.open(first[1]).convert("RGB").getpixel((1299, 0)) == (255, 255, 255)
    assert [pdf, png] == [file.read_bytes() for file in second]


def test_settings_of_the_process_neither_matter_nor_change(tmp_path):
    plain = plots.save(draw(focal_guesses()), tmp_path / "plain")[1].read_bytes()
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "red", "savefig.bbox": "tight"}):
        before = dict(mpl.rcParams)
        odd = plots.save(draw(focal_guesses()), tmp_path / "odd")[1].read_bytes()
        assert dict(mpl.rcParams) == before
    assert odd == plain


def write_run(path, rounds, game=CLASSIC):
    """A run as the package stores it, of these rounds of guesses (NaN where none)."""
    rounds = np.array(rounds, float)
    rules = game.model_dump(mode="json")
    make(path.parent, rounds, experiment(rounds.shape[1], name="quickstart", **rules))
    return path


def test_a_run_is_drawn_round_by_round(tmp_path):
    run = write_run(tmp_path / "run.h5", [focal_guesses(60), focal_guesses(60) / 2])
    written = plots.plot_run(run)
    names = ["round-0001-histogram", "round-0002-histogram", "trajectory"]
    assert [file.relative_to(tmp_path / "plots").as_posix() for file in written] == [
        f"{name}.{kind}" for name in names for kind in ("pdf", "png")
    ]
    assert sorted(file.name for file in (tmp_path / "plots").iterdir()) == sorted(file.name for file in written)
    assert all(file.stat().st_size > 5000 for file in written)


def test_a_folder_stands_for_its_run(tmp_path):
    write_run(tmp_path / "run.h5", [[50.0, 20.0]])
    assert {file.parent for file in plots.plot_run(tmp_path)} == {tmp_path / "plots"}


def test_unusable_replies_are_counted_and_not_drawn(tmp_path):
    path = write_run(tmp_path / "run.h5", [[np.nan, np.nan, 42.0, np.nan]])
    with Run(path) as run:
        (drawing,) = [d for d in plots.run_drawings(run, analyse(run)) if d.kind == "rounds"]
        figure = drawing.draw()
    assert bars(figure)[0].sum() == pytest.approx(100)
    assert share_at(figure, 42.0) == pytest.approx(100)
    assert figure.texts[0].get_text() == "quickstart: round 1 of 4"
    assert figure.texts[1].get_text().startswith("4 participants, 3 without a usable guess")
    assert lines(figure)["mean"].get_xdata() == pytest.approx([42, 42])


def test_all_but_one_without_a_guess(tmp_path):
    nobody = [np.nan] * 9
    written = plots.plot_run(write_run(tmp_path / "run.h5", [[42.0, *nobody], [*nobody, 0.0]]))
    assert len(written) == 6


def test_ranks_draw_a_run_in_shares(tmp_path):
    run = write_run(tmp_path / "run.h5", [focal_guesses(60)] * 3)
    written = [set(plots.plot_run(run, share=(index, 2))) for index in range(2)]
    assert not written[0] & written[1]
    assert len(written[0] | written[1]) == 8


def test_a_single_round_has_no_trajectory(tmp_path):
    written = plots.plot_run(write_run(tmp_path / "run.h5", [focal_guesses(60)]))
    assert [file.name for file in written] == ["round-0001-histogram.pdf", "round-0001-histogram.png"]


def test_the_demo_model_is_no_evidence(tmp_path):
    talkers = [{"name": "talkers", "count": 3, "kind": "llm"}]
    make(tmp_path, [[40.0, 50.0, 60.0], [30.0, 20.0, 30.0]], experiment(3, population=talkers, rounds=2))
    with Run(tmp_path) as run:
        analysis = analyse(run)
        for drawing in plots.run_drawings(run, analysis):
            figure = drawing.draw()
            marked = [text.get_text() for text in figure.texts if text.get_gid() == "stamp"]
            assert marked == ["demo model: trained to play like people; no evidence"], drawing.stem
            assert drawing.kind != "trajectory" or "people" not in lines(figure)


# --- fonts ---------------------------------------------------------------------------------------------------


def test_labels_in_another_script_get_a_font_that_has_it(tmp_path, capsys):
    """A font made for the occasion has the one character, which neither the house's nor matplotlib's has."""
    builder = FontBuilder(1000, isTTF=True)
    pen = TTGlyphPen(None)
    for point in ((0, 0), (0, 800), (800, 800), (800, 0)):
        (pen.lineTo if pen.points else pen.moveTo)(point)
    pen.closePath()
    builder.setupGlyphOrder([".notdef", "han"])
    builder.setupCharacterMap({ord("群"): "han"})
    builder.setupGlyf({".notdef": pen.glyph(), "han": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "han": (1000, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "One Han Glyph", "styleName": "Regular", "psName": "OneHanGlyph"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "han.ttf")
    before = list(font_manager.fontManager.ttflist)
    font_manager.fontManager.ttflist[:] = [
        font for font in before if font.name in ("DejaVu Sans", "pbeauty Sans") or "Last Resort" in font.name
    ]
    try:
        style._family_with.cache_clear()
        style._warn_of_missing_glyphs.cache_clear()
        figure = plots.forest(["群 1", "群 2", "plain"], {"": [[1.0, 2.0, 3.0]] * 3}, title="群")
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["□ 1", "□ 2", "plain"]
        assert capsys.readouterr().err.count("no installed font") == 1
        font_manager.fontManager.addfont(tmp_path / "han.ttf")
        style._family_with.cache_clear()
        figure = plots.forest(["群 1", "群 2", "plain"], {"": [[1.0, 2.0, 3.0]] * 3}, title="群")
        assert figure.axes[0].get_yticklabels()[0].get_text() == "群 1"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            written = plots.save(figure, tmp_path / "forest")
        assert b"OneHanGlyph" in written[0].read_bytes()
        assert capsys.readouterr().err == ""
    finally:
        font_manager.fontManager.ttflist[:] = before
        style._family_with.cache_clear()


@pytest.mark.parametrize("home", [None, "/proc/nowhere"])
def test_figures_need_no_home(tmp_path, home):
    run = write_run(tmp_path / "run.h5", [[50.0, 20.0]])
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HOME", "XDG_", "MPLCONFIG"))}
    command = [sys.executable, "-m", "pbeauty", "plot", "--only", "rounds", str(run)]
    environment = clean | ({"HOME": home} if home else {})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 2
    assert "Traceback" not in done.stderr


def test_a_run_without_a_finished_round_has_no_figures(tmp_path):
    make(tmp_path, np.empty((0, 5)), experiment(5, rounds=1))
    assert plots.plot_run(tmp_path) == []
