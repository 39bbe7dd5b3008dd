"""The house style of all figures, and how they are written.

Figures are built from arrays with matplotlib's object interface alone: no pyplot, no global settings, so that
they can be made in any process, beside anybody else's plots. The palette is Okabe & Ito's, which colour-blind
readers can tell apart; line styles and markers differ too, for prints in greyscale.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from pbeauty.files import replaced
from pbeauty.game.experiment import Game
from pbeauty.game.prompt_variables import number_text

SIZE, DPI = (6.5, 4.0), 200
"""Inches: the text width of a page. Dots per inch of the PNG."""
BLACK, DARK, GREY, PALE = "#1a1a1a", "#4d4d4d", "#767676", "#b0b0b0"
BLUE, SKY, LIGHT, VERMILION = "#0072B2", "#56B4E9", "#A9D6F2", "#D55E00"
LOOKS: dict[str, dict[str, Any]] = {
    "mean": {"color": BLACK, "linestyle": "-", "marker": "o"},
    "median": {"color": BLUE, "linestyle": (0, (6, 1.5, 1, 1.5)), "marker": "s"},
    "target": {"color": VERMILION, "linestyle": (0, (3.5, 1.5)), "marker": "^"},
    "equilibrium": {"color": DARK, "linestyle": (0, (1, 2)), "marker": ""},
}
"""One look per quantity, the same in every figure."""
SERIES: Sequence[dict[str, Any]] = (
    {"color": BLACK, "linestyle": "-", "marker": "o"},
    {"color": BLUE, "linestyle": (0, (6, 1.5, 1, 1.5)), "marker": "s"},
    {"color": VERMILION, "linestyle": (0, (3.5, 1.5)), "marker": "^"},
    {"color": "#009E73", "linestyle": (0, (8, 1.5)), "marker": "D"},
    {"color": "#CC79A7", "linestyle": (0, (1, 1)), "marker": "v"},
    {"color": "#E69F00", "linestyle": (0, (4, 1, 1, 1, 1, 1)), "marker": "P"},
    {"color": SKY, "linestyle": "-", "marker": "X"},
    {"color": GREY, "linestyle": (0, (2, 1)), "marker": "<"},
)
"""Looks of groups, in order: no two share a colour, nor a line style with a marker."""
_STYLE = dict(mpl.rc_params_from_file(Path(__file__).with_name("figures.mplstyle")))
del _STYLE["backend"]  # the process's own
_NO_GLYPH = "\N{WHITE SQUARE}"

F = TypeVar("F", bound=Callable[..., Any])

for _file in sorted(Path(__file__).with_name("fonts").glob("*.ttf")):
    font_manager.fontManager.addfont(_file)


def house_style(function: F) -> F:
    """Decorates what draws or writes figures: on top of matplotlib's defaults, so that no user's settings show through.

    Within another such function, the style is there already.
    """

    @wraps(function)
    def styled(*args: Any, **kwargs: Any) -> Any:
        if mpl.rcParams["font.family"][:1] == _STYLE["font.family"]:
            return function(*args, **kwargs)
        with mpl.rc_context(_STYLE):
            return function(*args, **kwargs)

    return styled  # type: ignore[return-value]


# --- pages and their text --------------------------------------------------------------------------------------


def page(title: str, subtitle: str, box: tuple[float, float, float, float]) -> tuple[Figure, Axes]:
    """A page-wide figure with a headline over one set of axes at `box` (left, bottom, width, height in shares)."""
    figure = headed(title, subtitle)
    return figure, figure.add_axes(box)


def headed(title: str, subtitle: str, height: float = SIZE[1]) -> Figure:
    """A page-wide figure, `height` inches high, with a headline; its top half inch is taken."""
    figure = Figure(figsize=(SIZE[0], height), dpi=DPI)
    FigureCanvasAgg(figure)  # measures texts, for the PNG, and once
    scale = SIZE[1] / height
    headline = figure.text(0.015, 1 - 0.028 * scale, show(title), va="top", fontsize=11, fontweight="bold")
    for text in (headline, figure.text(0.015, 1 - 0.088 * scale, show(subtitle), va="top", color=DARK)):
        fit(figure, text, 0.99)
    return figure


def fit(figure: Figure, text: Text, right: float) -> None:
    """Shortens a text until it ends before `right`, a share of the figure's width."""
    whole, limit = text.get_text(), right * figure.bbox.x1
    fits, longer = 1, len(whole)  # so many characters fit; so many and more do not
    if text.get_window_extent().x1 <= limit:
        return
    while longer - fits > 1:
        middle = (fits + longer) // 2
        text.set_text(f"{whole[:middle].rstrip()}…")
        fits, longer = (middle, longer) if text.get_window_extent().x1 <= limit else (fits, middle)
    text.set_text(f"{whole[:fits].rstrip()}…")


def shortened(figure: Figure, name: str, inches: float, size: float) -> str:
    """A name that is no wider than this when it is set at `size` points."""
    text = figure.text(0, 0, show(name), fontsize=size)
    fit(figure, text, inches / SIZE[0])
    text.remove()
    return text.get_text()


def show(text: str) -> str:
    """A text as the figure that is being drawn can show it, in a font of the machine's where the house's lacks a glyph.

    A character that no installed font has is shown as a square, and standard error says so, once.
    """
    for character in dict.fromkeys(text):
        if not character.isascii() and character != _NO_GLYPH:
            family = _family_with(character)
            if family is None:
                _warn_of_missing_glyphs()
                text = text.replace(character, _NO_GLYPH)
            elif family not in mpl.rcParams["font.family"]:
                mpl.rcParams["font.family"] = [*mpl.rcParams["font.family"], family]  # until the style ends
    return text


@cache
def _family_with(character: str) -> str | None:
    """The first family of fonts that has a character: the house's, matplotlib's own, then those of the machine."""
    first = (*mpl.rcParams["font.family"], "DejaVu Sans")
    for font in sorted(font_manager.fontManager.ttflist, key=lambda font: (font.name not in first, font.name)):
        if font.name.startswith("Last Resort"):  # has a box for every character
            continue
        try:
            if font_manager.get_font(font.fname).get_char_index(ord(character)):
                return font.name
        except (OSError, RuntimeError):  # uninstalled since matplotlib listed it, or a kind that it cannot read
            continue
    return None


@cache
def _warn_of_missing_glyphs() -> None:
    print(
        "pbeauty: no installed font has all characters of the figures' labels; squares stand for those that are "
        "missing (Noto Sans CJK has Chinese, Japanese and Korean)",
        file=sys.stderr,
    )


@house_style
def stamp(figure: Figure, *notes: str) -> Figure:
    """Marks a figure in its lower left corner, for instance as one of an unfinished run."""
    if text := "; ".join(notes):
        figure.text(
            0.015, 0.03 / figure.get_figheight(), text, va="bottom", color=VERMILION, fontsize=7, fontweight="bold",
            gid="stamp",
        )  # fmt: skip
    return figure


def grid(
    figure: Figure, rows: int, columns: int, margins: tuple[float, float, float, float], **spaces: float
) -> GridSpec:
    """Places for panels, within margins in inches (left, bottom, right, top)."""
    (left, bottom, right, top), (width, height) = margins, figure.get_size_inches()
    ends = {"left": left / width, "bottom": bottom / height, "right": 1 - right / width, "top": 1 - top / height}
    return figure.add_gridspec(rows, columns, **ends, **spaces)


def evenly(count: int, most: int) -> NDArray[np.int64]:
    """Which of so many things in a row are shown where `most` have room: the first, the last, and some between."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def round_numbers(most: int, **settings: Any) -> MaxNLocator:
    """Ticks at round numbers, about so many at most."""
    return MaxNLocator(most, steps=[1, 2, 2.5, 5, 10], **settings)


def tick_rounds(axes: Axes, count: int) -> None:
    """Ticks at rounds 1 to `count`, at most a dozen of them."""
    step = next(step for step in (1, 5, 10, 20, 50, 100, count) if count <= 12 * step)
    axes.set_xticks([1, *range(step if step > 1 else 2, count + 1, step)])


def value_label(name: str, value: float) -> str:
    """A name and its value with two decimals at most, with a true minus sign."""
    return f"{name} {number_text(value)}".replace("-", "−")


def rule(game: Game) -> str:
    """The rule of the target, in a line."""
    offset = f" {'+' if game.offset > 0 else '−'} {number_text(abs(game.offset))}" if game.offset else ""
    return f"target = {game.multiplier} × {game.aggregate}{offset}"


# --- files -----------------------------------------------------------------------------------------------------


@house_style
def save(figure: Figure, stem: Path) -> list[Path]:
    """Writes `<stem>.pdf` and `<stem>.png`, each replaced as a whole; the same figure gives the same bytes."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, content in (("pdf", pdf(figure)), ("png", png(figure))):
        path = stem.with_name(f"{stem.name}.{kind}")
        with replaced(path, durable=False) as file:
            file.write(content)
        written.append(path)
    return written


@house_style
def pdf(figure: Figure) -> bytes:
    """A figure as a PDF, the same for the same figure."""
    content = io.BytesIO()
    FigureCanvasPdf(figure).print_figure(content, format="pdf", metadata={"CreationDate": None})
    return content.getvalue()


@house_style
def png(figure: Figure) -> bytes:
    """A figure as a PNG of 256 colours, which takes a third of the room and time of one of all colours."""
    canvas, content = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()
    pixels = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")
    indexed = pixels.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    indexed.putpalette([255 if value >= 252 else value for value in indexed.getpalette() or ()])  # white stays white
    indexed.save(content, "PNG", dpi=(DPI, DPI))
    return content.getvalue()
