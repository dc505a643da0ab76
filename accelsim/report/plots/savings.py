"""What schemes save against the first: area, energy and cycles, with published figures beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from accelsim.errors import AccelsimError
from accelsim.report.plots.style import axes_for, legend_beside, look_of, title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# Column of a comparison's table -> what stands below its bars.
_BARS = {
    "area_datapath_saved_percent": "area,\ndatapath",
    "area_pe_saved_percent": "area,\nPE",
    "area_array_saved_percent": "area,\narray",
    "energy_datapath_saved_percent": "energy,\ndatapath",
    "energy_pe_saved_percent": "energy,\nPE",
    "energy_array_saved_percent": "energy,\narray",
    "energy_system_saved_percent": "energy,\nsystem",
    "cycles_saved_percent": "cycles",
}
# Quantity -> the bars beside which its published savings stand.
_PUBLISHED = {"area": "area_pe_saved_percent", "energy": "energy_pe_saved_percent"}

Published = Mapping[str, Mapping[str, float]]
"""Scheme -> "area" or "energy" -> percent saved."""


def draw_savings(
    table: pd.DataFrame, heading: str, ax: Axes | None, published: Published | None, legend: bool
) -> Axes:
    others = table.iloc[1:]
    if others.empty:
        raise AccelsimError("plot: nothing to save against, expected a comparison of at least two schemes")
    columns = [column for column in _BARS if column in table]
    count = len(others)
    axes = axes_for(ax, max(7.5, min(10.0, 2.0 + 2.4 * count)), 3.8)
    width = 0.84 / count
    points: list[tuple[float, float]] = []
    heights = [0.0]
    for number, (_, row) in enumerate(others.iterrows()):
        places = [index + (number - (count - 1) / 2) * width for index in range(len(columns))]
        values = [float(row[column]) for column in columns]
        beside = {
            _PUBLISHED[quantity]: value
            for quantity, value in (published or {}).get(row["scheme"], {}).items()
            if _PUBLISHED.get(quantity) in columns
        }
        axes.bar(places, values, width=width, label=row["scheme"], **look_of(number).bar())
        for place, column, value in zip(places, columns, values, strict=True):
            # The figure stands at the bar's end, or at its foot where a published point may be at the end.
            at_end = column not in beside
            axes.annotate(
                f"{round(value):d}", (place, value if at_end else 0.0), (0, 2 if value >= 0 else -2),
                textcoords="offset points", ha="center", va="bottom" if value >= 0 else "top",
                fontsize=7 if count < 5 else 6, rotation=0 if count < 5 else 90,
                bbox=None if at_end else {"facecolor": "white", "linewidth": 0, "pad": 0.8, "alpha": 0.85},
            )  # fmt: skip
        points += [(places[columns.index(column)], value) for column, value in beside.items()]
        heights += values
    if points:
        heights += [value for _, value in points]
        axes.plot(
            *zip(*points, strict=True), "D", color="white", markeredgecolor="black", markeredgewidth=1.2,
            markersize=5.5, linestyle="none", label="published", zorder=4,
        )  # fmt: skip
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(columns)), [_BARS[column] for column in columns])
    reach = max(heights) - min(heights) or 1.0
    axes.set_ylim(min(heights) - 0.09 * reach * (min(heights) < 0), max(heights) + 0.09 * reach)
    axes.set_ylabel(f"saved against {table['scheme'].iloc[0]} (%)")
    title(axes, heading)
    if legend:
        legend_beside(axes)
    return axes
