"""Energy of a run by component, as published breakdowns give it."""

from __future__ import annotations

from accelsim.report.inventory import CLOCK_TREES, SCOPES
from accelsim.report.price import Report


def energy_by_component(report: Report, scope: str) -> dict[str, float]:
    """pJ of each component of `scope` and of the scopes inside it. The clock tree of a scope is spread over
    its components by their dynamic energy: breakdowns by component have it there."""
    rows = report.components
    rows = rows[rows["scope"].isin(SCOPES[: SCOPES.index(scope) + 1])]
    clock = rows["component"].isin(CLOCK_TREES.values())
    dynamic = rows[~clock & (rows["action"] != "leakage")].groupby(["scope", "component"])["energy_pj"].sum()
    share = dynamic / dynamic.groupby("scope").transform("sum")
    total = rows[~clock].groupby(["scope", "component"])["energy_pj"].sum()
    spread = share * rows[clock].groupby("scope")["energy_pj"].sum()
    found = total.add(spread, fill_value=0.0)
    names = found.index.get_level_values("component")
    return dict(zip(map(str, names), map(float, found), strict=True))
