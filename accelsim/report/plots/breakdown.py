"""What takes energy and area: a bar a scheme, stacked by part, scope or evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from accelsim.errors import AccelsimError, listed
from accelsim.report.inventory import SCOPES
from accelsim.report.plots import parts, style
from accelsim.report.plots.style import (
    Look,
    axes_for,
    legend_beside,
    look_of,
    name_ticks,
    number,
    title,
    unit_for,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from accelsim.report.price import Report

BY = ("part", "scope", "evidence")


def energy_frame(reports: Sequence[Report], scope: str = "system", by: str = "part") -> pd.DataFrame:
    """Energy of the whole array in pJ: one row a scheme, one column a part from the lanes outwards.

    scope: leave out what is outside it; by: "part", "scope" or "evidence". Raises AccelsimError for other
    names, and where nothing is priced.
    """
    _check(reports, scope, SCOPES, by)
    return _frame({str(own.scheme): _grouped(own.components, "energy_pj", scope, by) for own in reports}, by)


def area_frame(reports: Sequence[Report], scope: str = "array", by: str = "part") -> pd.DataFrame:
    """Placed area in um2, as `energy_frame`; scopes datapath and pe are of one PE, array of all."""
    _check(reports, scope, SCOPES[:-1], by)
    each = {}
    for own in reports:
        shared = 1 if scope == "array" else own.arch.pes
        each[str(own.scheme)] = _grouped(own.area, "placed_area_um2", scope, by) / shared
    return _frame(each, by)


def draw_energy(
    reports: Sequence[Report], heading: str, ax: Axes | None, scope: str, by: str, legend: bool
) -> Axes:
    frame = energy_frame(reports, scope, by)
    size, unit = unit_for(float(frame.sum(axis=1).max()), style.ENERGY_UNITS)
    what = {"system": "array with DRAM", "array": "array", "pe": "all PEs", "datapath": "all datapaths"}[
        scope
    ]
    return _draw(frame / size, by, f"energy, {what} ({unit})", heading, ax, legend)


def draw_area(
    reports: Sequence[Report], heading: str, ax: Axes | None, scope: str, by: str, legend: bool
) -> Axes:
    frame = area_frame(reports, scope, by)
    size, unit = unit_for(10 * float(frame.sum(axis=1).max()), style.AREA_UNITS)
    what = {"array": "array", "pe": "one PE", "datapath": "one datapath"}[scope]
    return _draw(frame / size, by, f"placed area, {what} ({unit})", heading, ax, legend)


def _check(reports: Sequence[Report], scope: str, scopes: Sequence[str], by: str) -> None:
    if not all(own.priced for own in reports):
        raise AccelsimError("plot: the run has no prices, which this needs: expected one with prices")
    for value, names, what in ((scope, scopes, "scope"), (by, BY, "by")):
        if value not in names:
            raise AccelsimError(f"plot: {what} is {value!r:.40}, expected one of {listed(names, value)}")


def _grouped(frame: pd.DataFrame, column: str, scope: str, by: str) -> pd.Series:
    inside = frame[frame["scope"].isin(SCOPES[: SCOPES.index(scope) + 1])]
    if by == "part":
        keys = inside["component"].map(parts.group_of)
    elif by == "scope":
        keys = inside["scope"].map(lambda own: parts.SCOPES[own][1])
    else:
        keys = inside["evidence"]
    return inside.groupby(keys)[column].sum()


def _looks(by: str) -> dict[str, Look]:
    if by == "part":
        return {group: look for group, (look, _) in parts.GROUPS.items()}
    if by == "scope":
        return {name: look for look, name in parts.SCOPES.values()}
    return parts.EVIDENCE


def _frame(each: dict[str, pd.Series], by: str) -> pd.DataFrame:
    """Without parts that have nothing anywhere."""
    import pandas as pd

    frame = pd.DataFrame(each).T.fillna(0.0)
    known = list(_looks(by))
    order = [name for name in known if name in frame] + [name for name in frame if name not in known]
    frame = frame[order]
    return frame.loc[:, frame.max() > 0]


def _draw(frame: pd.DataFrame, by: str, label: str, heading: str, ax: Axes | None, legend: bool) -> Axes:
    axes = axes_for(ax, 4.2 + 0.8 * len(frame), 4.0)
    looks, places = _looks(by), range(len(frame))
    bottom = frame.iloc[:, 0] * 0.0
    for index, name in enumerate(frame.columns):
        look = looks.get(name) or look_of(index)
        axes.bar(places, frame[name], bottom=bottom, label=name, width=0.68, **look.bar())
        bottom = bottom + frame[name]
    for place, total in enumerate(bottom):
        axes.annotate(
            number(total),
            (place, total),
            (0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8,
        )
    name_ticks(axes, list(frame.index))
    axes.set_xlim(-0.6, len(frame) - 0.4)
    axes.set_ylim(0, 1.08 * float(bottom.max()))
    axes.set_ylabel(label)
    title(axes, heading)
    if legend:
        legend_beside(axes, reverse=True)
    return axes
