"""Points of a sweep in two of their figures, and those that no other point is better than."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from accelsim.errors import AccelsimError, listed
from accelsim.report.plots.style import (
    AREA_UNITS,
    BLACK,
    ENERGY_UNITS,
    MARKERS,
    SERIES,
    axes_for,
    legend_beside,
    place_labels,
    readable,
    title,
    unit_for,
    whole_numbers,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

# Of a point's figures, those of which more is better.
MORE_IS_BETTER = ("utilization", "tops_per_mm2", "highest_clock_ghz", "clock_margin")
_MOST_NUMBERS = 5
_MOST_TICKS = 8
_MOST_NAMES = 24  # values of a colour that get one each, by colour and marker
_SCALED = {"pj": ENERGY_UNITS, "um2": AREA_UNITS}
_UNITS = {"ms": "ms", "ghz": "GHz", "bits": "bits", "db": "dB", "kb": "KB", "nm": "nm"}


@dataclass(frozen=True, repr=False)
class SweepPlots:
    """Figures of a sweep or a search; accuracy: columns of what was measured, of which more is better;
    front: bool[points] of values of which less is better."""

    frame: pd.DataFrame
    accuracy: Sequence[str]
    front: Callable[[NDArray[np.float64]], NDArray[np.bool_]]

    def __repr__(self) -> str:
        return "<Plots of a sweep: lines, pareto>"

    def pareto(
        self,
        x: str,
        y: str,
        colour: str = "scheme",
        ax: Axes | None = None,
        *,
        more_is_better: Sequence[str] | None = None,
        names: str | None = None,
        legend: bool = True,
    ) -> Axes:
        """A point a point, on axes `x` and `y`, by `colour`; the line joins the front: those that no other is
        better than in one and as good in both. Points that failed or miss their clock are left out; those
        whose `colour` is blank, as accuracy is where nothing was measured, are hollow.

        x, y, colour: columns of `to_frame()`; more_is_better: columns of which more is, by default
        utilization, TOPS/mm2, clocks and measured accuracy; names: a column by which points of the front are
        called, where there is room. Raises AccelsimError for other columns, and where no point has both.
        """
        frame, values = self._points(x, y, colour, names)
        more = (*MORE_IS_BETTER, *self.accuracy) if more_is_better is None else tuple(more_is_better)
        best = self.front(values * [-1.0 if name in more else 1.0 for name in (x, y)])
        axes = axes_for(ax, 7.0, 4.4)
        labels = []
        for column, name in enumerate((x, y)):
            size, label = label_of(name, float(values[:, column].max()))
            values[:, column] /= size
            labels.append(f"{label}, {'more' if name in more else 'less'} is better")
        on = np.unique(values[best], axis=0)
        axes.plot(on[:, 0], on[:, 1], color=BLACK, linewidth=1.0, zorder=1, label="front")
        _scatter(axes, values, frame[colour], best, legend)
        axes.set_xlabel(labels[0], parse_math=False)
        axes.set_ylabel(labels[1], parse_math=False)
        whole_numbers(axes.xaxis, values[:, 0].max())
        whole_numbers(axes.yaxis, values[:, 1].max())
        axes.margins(0.06)
        title(axes, f"{len(frame):,} points, {int(best.sum()):,} of them on the front")
        if names is not None:
            place_labels(axes, values[best].tolist(), list(frame[names][best].astype(str)), values)
        if legend and axes.get_legend_handles_labels()[0][1:]:
            legend_beside(axes, heading=readable(colour), columns=1 + (frame[colour].nunique() > 14))
        return axes

    def lines(
        self, x: str, y: str, colour: str = "scheme", ax: Axes | None = None, *, legend: bool = True
    ) -> Axes:
        """`y` over `x`, a line for each value of `colour`, in the order in which these come. Points that
        failed or miss their clock are left out. Raises AccelsimError as `pareto` does."""
        frame, values = self._points(x, y, colour)
        axes = axes_for(ax, 6.0, 4.0)
        names = frame[colour].astype(str).to_numpy()
        kinds = _kinds(names, colour)
        labels = []
        for column, name in enumerate((x, y)):
            size, label = label_of(name, float(values[:, column].max()))
            values[:, column] /= size
            labels.append(label)
        for kind, look in kinds.items():
            own = values[names == kind]
            own = own[np.argsort(own[:, 0], kind="stable")]
            axes.plot(own[:, 0], own[:, 1], label=kind, linewidth=1.2, markersize=5, **look)
        ticks = np.unique(values[:, 0])
        if len(ticks) <= _MOST_TICKS:
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_ylim(bottom=0)
        axes.set_xlabel(labels[0], parse_math=False)
        axes.set_ylabel(labels[1], parse_math=False)
        whole_numbers(axes.yaxis, values[:, 1].max())
        if legend:
            legend_beside(axes, heading=readable(colour))
        return axes

    def _points(self, x: str, y: str, *others: str | None) -> tuple[pd.DataFrame, NDArray[np.float64]]:
        """Those that did not fail, keep their clock and have both figures, and float[points, 2] of these."""
        whole = self.frame
        for name in (x, y, *others):
            if name is not None and name not in whole:
                raise AccelsimError(
                    f"plot: no column {str(name)!r:.60}, expected one of {listed(whole, name)}"
                )
        frame = whole[whole["error"] == ""] if "error" in whole else whole
        if "clock_margin" in frame:
            frame = frame[frame["clock_margin"].astype(float) >= 0]
        try:
            values = frame[[x, y]].astype(float).to_numpy()
        except (TypeError, ValueError):
            raise AccelsimError(f"plot: x is {x}, y is {y}, expected columns of numbers") from None
        known = np.isfinite(values).all(axis=1)
        if not known.any():
            raise AccelsimError(f"plot: no point has both {x} and {y}")
        return frame[known], values[known]


def _scatter(axes: Axes, values: np.ndarray, colour: pd.Series, best: np.ndarray, legend: bool) -> None:
    """Values of a colour that are many numbers by a colour bar, others each by colour and marker."""
    import pandas as pd

    look: dict[str, Any] = {"linewidths": 0.9, "zorder": 2}
    blank = colour.isna().to_numpy()
    if blank.any():
        size = np.where(best[blank], 52.0, 26.0)
        axes.scatter(
            values[blank, 0],
            values[blank, 1],
            s=size,
            facecolors="none",
            edgecolors=BLACK,
            label="none",
            **look,
        )
        values, colour, best = values[~blank], colour[~blank], best[~blank]
    if colour.empty:
        return
    x, y = values.T
    size, edge = np.where(best, 52.0, 26.0), np.where(best, BLACK, "none")
    if colour.nunique() > _MOST_NUMBERS and pd.api.types.is_numeric_dtype(colour):
        each, label = label_of(str(colour.name), float(colour.max()))
        drawn = axes.scatter(
            x, y, s=size, c=colour.astype(float) / each, cmap="cividis", edgecolors=list(edge), **look
        )
        if legend:
            bar = axes.figure.colorbar(drawn, ax=axes, pad=0.02)
            bar.set_label(label, fontsize=9, parse_math=False)
            bar.ax.tick_params(labelsize=8)
            whole_numbers(bar.ax.yaxis, float(colour.max()) / each)
        return
    names = colour.astype(str).to_numpy()
    for kind, own_look in _kinds(names, str(colour.name)).items():
        own = names == kind
        axes.scatter(x[own], y[own], s=size[own], edgecolors=list(edge[own]), label=kind, **look, **own_look)


def _kinds(names: NDArray[Any], column: str) -> dict[str, dict[str, Any]]:
    """Each name once, with the colour and marker that are its own. Raises AccelsimError for too many."""
    kinds = list(dict.fromkeys(names))
    if len(kinds) > _MOST_NAMES:
        raise AccelsimError(f"plot: {column} has {len(kinds)} values, expected {_MOST_NAMES} or fewer names")
    return {
        kind: {
            "color": SERIES[number % len(SERIES)],
            "marker": MARKERS[(number + number // len(SERIES)) % len(MARKERS)],
        }
        for number, kind in enumerate(kinds)
    }


def label_of(column: str, largest: float) -> tuple[float, str]:
    """(what its values are divided by, its name as text with the unit in brackets)"""
    name, _, last = column.rpartition("_")
    if last in _SCALED:
        size, unit = unit_for(largest, _SCALED[last])
    else:
        size, unit = 1.0, _UNITS.get(last, "") if name else ""
    text = readable(name if unit else column).replace(" per mm2", "/mm2")
    return size, f"{text} ({unit})" if unit else text
