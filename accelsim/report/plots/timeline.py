"""What happens when: the port of DRAM, banks of the global buffer and PEs, over cycles."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.report.plots import style
from accelsim.report.plots.layers import STALLS
from accelsim.report.plots.style import Look, axes_for, legend_beside, panel_inches, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Slice = Mapping[str, Any]
"""name, begin, end in cycles, and its arguments."""

# A transfer has the colour of the wait for it, without the hatch.
_LOOKS: dict[str, Look] = {
    "layer": Look(style.GREY),
    "weight": Look(style.ORANGE),
    "input": Look(style.PURPLE),
    "output": Look(style.VERMILION),
    "psum": Look(style.YELLOW),
    "compute": STALLS["compute"],
    "weight wait": STALLS["weight_wait"],
    "input wait": STALLS["input_wait"],
    "output wait": STALLS["output_wait"],
    "drain": STALLS["drain"],
    "idle": STALLS["idle"],
}
_OPERANDS = ("weight", "input", "output", "psum")
_DARK = {"compute", "drain", "layer", "output"}  # white on these
# Of more slices than this each is no longer drawn: bins of time show the share of each kind, from below.
_MOST_SLICES = 4000
_MOST_LAYERS = 200  # which still are drawn, with their names
_BINS, _ROW_PIXELS = 1500, 24


class _Row(NamedTuple):
    """height: (from, to) within the row's 1, downwards; slices: (kind, text, begin, end)."""

    place: int
    height: tuple[float, float]
    slices: list[tuple[str, str, float, float]]


def draw_timeline(
    found: Mapping[tuple[str, str], Sequence[Slice]],
    heading: str,
    ax: Axes | None,
    cycles: tuple[float, float] | None,
    legend: bool,
) -> Axes:
    """found: (process, track) -> slices in order of time, as `Timeline.slices` has them."""
    whole = max(own["end"] for own in found["layers", "layer"])
    begin, end = (0, whole) if cycles is None else _window(cycles, whole)
    names, rows = _rows(found, begin, end)
    axes = axes_for(ax, 10.0, 1.1 + 0.24 * len(names))
    drawn = {kind for row in rows for kind, *_ in row.slices}
    if sum(len(row.slices) for row in rows) <= _MOST_SLICES:
        _draw_slices(axes, rows, end - begin)
        note = ""
    else:
        _draw_shares(axes, rows, len(names), begin, end)
        if len(rows[0].slices) <= _MOST_LAYERS:
            _draw_slices(axes, rows[:1], end - begin)
        note = f"; a column is {(end - begin) / _BINS:,.3g} cycles, its heights are shares of them"
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(begin, end)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"cycle{note}")
    title(axes, heading)
    if legend:
        for kind, look in _LOOKS.items():
            if kind in drawn:
                axes.bar([begin], [0], label=kind, **look.bar())
        legend_beside(axes)
    return axes


def _window(cycles: tuple[float, float], whole: float) -> tuple[float, float]:
    try:
        begin, end = (float(own) for own in cycles)
    except (TypeError, ValueError):
        begin = end = 0.0
    if not 0 <= begin < end or begin >= whole:
        raise AccelsimError(
            f"plot: cycles are {cycles!s:.60}, expected (first, last) within those of the run, "
            f"0 to {whole:,.0f}"
        )
    return begin, min(end, whole)


def _rows(
    found: Mapping[tuple[str, str], Sequence[Slice]], begin: float, end: float
) -> tuple[list[str], list[_Row]]:
    """Names of rows from above, and what is drawn in them."""
    names: list[str] = []
    rows: list[_Row] = []

    def add(name: str, *tracks: tuple[tuple[float, float], Sequence[Slice]]) -> None:
        for height, own in tracks:
            inside = [_shown(each, begin, end) for each in own if each["begin"] < end and each["end"] > begin]
            rows.append(_Row(len(names), height, [each for each in inside if each[0] in _LOOKS]))
        names.append(name)

    layers = found["layers", "layer"]
    if len(layers) > 1:
        add("layer", ((0.0, 1.0), layers))
    both = [*found.get(("DRAM", "reads"), ()), *found.get(("DRAM", "writes"), ())]
    add("DRAM", ((0.0, 1.0), sorted(both, key=lambda own: own["begin"])))
    for process, track in sorted(found, key=_in_order):
        if process == "global buffer":
            add(track, ((0.0, 1.0), found[process, track]))
    for process in sorted({process for process, _ in found if process.startswith("PE ")}, key=_number):
        stalls, compute = found.get((process, "stalls"), ()), found.get((process, "compute"), ())
        drains = found.get((process, "PPU drain"), ())
        at_work = sorted([*stalls, *compute], key=lambda own: own["begin"])
        add(process, ((0.0, 0.7), at_work), ((0.74, 1.0), drains))
    return names, rows


def _number(name: str) -> int:
    found = re.search(r"\d+", name)
    return int(found.group()) if found else -1


def _in_order(key: tuple[str, str]) -> tuple[str, int]:
    return key[0], _number(key[1])


def _shown(own: Slice, begin: float, end: float) -> tuple[str, str, float, float]:
    if "operand" in own:
        kind, text = own["operand"], f"{own['operand']} {own['index']}"
    elif "fifo_entries" in own:
        kind, text = "drain", ""
    elif "steps" in own:
        kind, text = "compute", f"{own['steps']:,} steps"
    elif own["name"] in _LOOKS and "layer" in own:
        kind, text = own["name"], own["name"]
    else:
        kind, text = "layer", own["name"]
    return kind, text, max(begin, own["begin"]), min(end, own["end"])


def _draw_slices(axes: Axes, rows: Sequence[_Row], cycles: float) -> None:
    inches = panel_inches(axes)[0] / cycles
    for row in rows:
        top, bottom = (row.place - 0.45 + 0.9 * own for own in row.height)
        for kind in dict.fromkeys(kind for kind, *_ in row.slices):
            spans = [(begin, end - begin) for own, _, begin, end in row.slices if own == kind]
            axes.broken_barh(spans, (top, bottom - top), **_LOOKS[kind].bar())
        for kind, text, begin, end in row.slices:
            room = (end - begin) * inches / 0.058  # characters
            if len(text) > room and kind in _OPERANDS:
                text = text.partition(" ")[2]  # its number alone
            if text and len(text) < room:
                back = {"facecolor": "white", "linewidth": 0, "pad": 0.6, "alpha": 0.9}
                plain = not _LOOKS[kind].hatch
                axes.text(
                    (begin + end) / 2, (top + bottom) / 2, text, ha="center", va="center", fontsize=6.5,
                    color="white" if kind in _DARK else "black", clip_on=True, parse_math=False,
                    bbox=None if plain else back,
                )  # fmt: skip


def _draw_shares(axes: Axes, rows: Sequence[_Row], places: int, begin: float, end: float) -> None:
    """An image whose columns are bins of time; in each a kind's height is its share."""
    from matplotlib.colors import to_rgb

    image = np.ones((places * _ROW_PIXELS, _BINS, 3))
    edges = np.linspace(begin, end, _BINS + 1)
    margin = 1  # pixels between rows
    for row in rows:
        first, last = (
            row.place * _ROW_PIXELS + margin + round(own * (_ROW_PIXELS - 2 * margin)) for own in row.height
        )
        filled = np.zeros(_BINS)
        pixel = np.arange(last - first)[:, None]
        for kind in _LOOKS:
            spans = np.array([own[2:] for own in row.slices if own[0] == kind], float)
            if not len(spans):
                continue
            busy = np.concatenate([[0.0], np.cumsum(spans[:, 1] - spans[:, 0])])
            knots = np.stack([busy[:-1], busy[1:]], axis=1).ravel()
            share = np.diff(np.interp(edges, spans.ravel(), knots)) / np.diff(edges)
            low, high = (np.rint(own * (last - first)) for own in (filled, filled + share))
            image[first:last][::-1][(pixel >= low) & (pixel < high)] = to_rgb(_LOOKS[kind].color)
            filled += share
    extent = (begin, end, places - 0.5, -0.5)
    axes.imshow(image, aspect="auto", extent=extent, interpolation="nearest")
