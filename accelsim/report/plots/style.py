"""How figures look: colours that colour-blind readers tell apart, hatches, labels, files."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from accelsim.arguments import shown
from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

# Okabe and Ito, Color Universal Design, 2008.
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE, BLACK = "#0072B2", "#D55E00", "#CC79A7", "#000000"
GREY, LIGHT = "#888888", "#D9D9D9"

SERIES = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, YELLOW, GREY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SMALL = 8  # font size of everything but titles
LEAST = 7
_MOST_CHARACTERS = 32  # of a name
_INCHES_A_CHARACTER = 0.6 / 72  # by font size, of the default font


class Look(NamedTuple):
    """A colour and a hatch, which together are of one thing alone."""

    color: str
    hatch: str = ""

    def bar(self) -> dict[str, Any]:
        """Arguments of a bar."""
        return {"facecolor": self.color, "hatch": self.hatch, "edgecolor": "white", "linewidth": 0.4}


def look_of(number: int) -> Look:
    """Of the number-th of things that have no look of their own."""
    return Look(SERIES[number % len(SERIES)], ("", "////", "\\\\\\\\", "xxxx")[number // len(SERIES) % 4])


def axes_for(ax: Axes | None, width: float, height: float) -> Axes:
    """The axes given, or those of a new figure of pyplot's, which a notebook shows; in inches. Raises
    AccelsimError for what are no axes."""
    from matplotlib.axes import Axes

    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots(figsize=(width, height), layout="constrained")[1]
    if not isinstance(ax, Axes):
        raise AccelsimError(f"plot: ax is {shown(ax)}, expected matplotlib axes, or None")
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=SMALL, which="both")
    ax.xaxis.label.set_fontsize(SMALL + 1)
    ax.yaxis.label.set_fontsize(SMALL + 1)
    return ax


def short(name: str) -> str:
    """A name from a user's file, cut where it is so long that nothing else would have room."""
    return name if len(name) <= _MOST_CHARACTERS else f"{name[: _MOST_CHARACTERS - 3]}..."


def panel_inches(ax: Axes) -> tuple[float, float]:
    """Width of the axes, before they are laid out, and of the figure that they are in."""
    whole = float(ax.figure.bbox.width / ax.figure.dpi)
    return float(ax.get_position().width) * whole, whole


def title(ax: Axes, text: str) -> None:
    """At the left, folded where it would leave the figure, or the panel where there are several. Names come
    from users' files: none is read as a formula."""
    panel, whole = panel_inches(ax)
    room = whole - 1.0 if panel > 0.6 * whole else panel
    folded = textwrap.fill(text, max(16, int(room / ((SMALL + 2) * _INCHES_A_CHARACTER))))
    ax.set_title(folded, fontsize=SMALL + 2, loc="left", parse_math=False)


def legend_beside(ax: Axes, *, reverse: bool = False, columns: int = 1, heading: str | None = None) -> None:
    """Right of the axes, where it covers nothing; reverse: as pieces of bars are stacked."""
    handles, labels = ax.get_legend_handles_labels()
    step = -1 if reverse else 1
    drawn = ax.legend(
        handles[::step], labels[::step], loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0,
        fontsize=SMALL, frameon=False, ncols=columns, title=heading, title_fontsize=SMALL, alignment="left",
    )  # fmt: skip
    for text in (*drawn.get_texts(), drawn.get_title()):
        text.set_parse_math(False)


def number(value: float) -> str:
    """Three figures, without powers of ten between 0.001 and a million."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    decimals = 2 - math.floor(math.log10(abs(float(f"{value:.3g}"))))
    return (
        f"{value:,.{decimals}f}"
        if 0 <= decimals <= 5
        else f"{value:,.0f}"
        if decimals > -5
        else f"{value:.3g}"
    )


_WORDS = {"pe": "PE", "dram": "DRAM", "gb": "GB", "tops": "TOPS", "fj": "fJ"}


def readable(name: str) -> str:
    """A name of the tables as text."""
    return " ".join(_WORDS.get(word, word) for word in name.replace("_", " ").split(" "))


def unit_for(largest: float, units: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """The largest of (size, unit) at which a value is at least 1, else the smallest."""
    return next((own for own in sorted(units, reverse=True) if largest >= own[0]), min(units))


ENERGY_UNITS = ((1.0, "pJ"), (1e3, "nJ"), (1e6, "uJ"), (1e9, "mJ"))  # in pJ
AREA_UNITS = ((1.0, "um2"), (1e6, "mm2"))  # in um2


def bars(
    ax: Axes,
    places: NDArray[np.float64],
    heights: NDArray[np.float64],
    bottom: NDArray[np.float64] | float = 0.0,
    *,
    label: str,
    look: Look,
) -> None:
    """A bar at each of many places, on axes whose limits are set: one artist, where `Axes.bar` makes one of
    each and takes four times as long to draw them."""
    from matplotlib.collections import PolyCollection

    left, right, top = places - 0.41, places + 0.41, bottom + heights
    corners = (left, bottom), (left, top), (right, top), (right, bottom)
    outlines = np.stack([np.stack(np.broadcast_arrays(*own), axis=-1) for own in corners], axis=1)
    ax.add_collection(PolyCollection(list(outlines), label=label, **look.bar()), autolim=False)


def whole_numbers(axis: Axis, largest: float) -> None:
    """Large ones with commas, and without a power of ten at the axis' end."""
    from matplotlib.ticker import FuncFormatter

    if largest >= 1000:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def name_ticks(ax: Axes, names: Sequence[str]) -> None:
    """Names below bars, slanted where they would touch."""
    room = panel_inches(ax)[0] / max(len(names), 1)
    longest = max(map(len, names), default=0) * SMALL * _INCHES_A_CHARACTER
    slanted: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(range(len(names)), names, parse_math=False, **(slanted if longest > 0.9 * room else {}))


def place_labels(
    ax: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str], clear_of: NDArray[np.float64]
) -> None:
    """Write beside each point where neither text written before stands nor what it is to be clear of; leave
    it out where there is no such place.

    points, clear_of: float[places, 2] in the data's units, on axes whose limits and scales are set.
    """
    from matplotlib.text import Text  # whose extent is without the line of an annotation

    figure = ax.figure.figure  # not a subfigure
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)  # so that places on the page are what they will be
    scale = 72 / figure.dpi
    spots = ax.transData.transform(np.asarray(points, float).reshape(-1, 2)) * scale
    (left, bottom), (right, top) = ax.bbox.p0 * scale, ax.bbox.p1 * scale
    taken = [(x - 3, y - 3, x + 3, y + 3) for x, y in ax.transData.transform(clear_of) * scale]
    for own in ax.texts:
        (x0, y0), (x1, y1) = Text.get_window_extent(own).get_points() * scale
        taken.append((x0, y0, x1, y1))
    for (x, y), text, point in zip(spots, texts, points, strict=True):
        width, height = 0.6 * LEAST * len(text), 1.2 * LEAST
        for dx, dy, align in _AROUND:
            x0 = x + dx - (width if align == "right" else 0)
            box = (x0, y + dy - height / 2, x0 + width, y + dy + height / 2)
            inside = box[0] >= left and box[2] <= right and box[1] >= bottom and box[3] <= top
            if inside and not any(_overlap(box, own) for own in taken):
                taken.append(box)
                ax.annotate(
                    text, point, (dx, dy), textcoords="offset points", ha=align, va="center",
                    fontsize=LEAST, parse_math=False,
                    arrowprops={"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
                )  # fmt: skip
                break


# Offsets of a label from its point, in points, nearest first.
_AROUND = tuple(
    (side * dx, dy, "left" if side > 0 else "right")
    for far in (8, 16, 24, 34, 46, 60, 80)
    for dx, dy in ((far, 0.0), (far, -far), (far, -far / 2), (far / 3, -far), (far, far), (far / 3, far))
    for side in (1, -1)
)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def figure_of(width: float, height: float) -> tuple[Figure, Axes]:
    """For files: a figure that no window and no notebook shows, and its axes; in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write stem.svg and stem.png, laid out alike; the same figure gives the same bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    svg, png = stem.with_suffix(".svg"), stem.with_suffix(".png")
    # print_svg and print_png draw a figure once; savefig would draw it a second time, to lay it out.
    # SVGs carry a date and random ids unless told otherwise; PNGs the library's version.
    dpi, figure.dpi = figure.dpi, 120
    FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
    figure.dpi = dpi
    # Laying out takes half as long as drawing. Letters are a little wider in pixels than as outlines, so that
    # what the PNG has room for the SVG has, too.
    figure.set_layout_engine("none")
    with matplotlib.rc_context({"svg.hashsalt": "accelsim"}):
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": None})
    return [svg, png]
