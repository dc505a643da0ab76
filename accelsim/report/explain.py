"""Where a run's energy comes from, and what a machine is priced at: every count, constant and source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from accelsim.costs.listing import COLUMNS
from accelsim.costs.technology import Technology
from accelsim.report.accelergy import Entry
from accelsim.report.inventory import Part
from accelsim.report.price import Report

if TYPE_CHECKING:
    import pandas as pd


def explain(report: Report) -> pd.DataFrame:
    """One row a (scope, component, action) over all layers: count x energy_per_action_pj = energy_pj, its
    share of the system's, and what the constant rests on (evidence, stimulus, scaling, source). Where energy
    follows the operands, the constant is the price times `activity`, both means over the layers.

    Of `leakage` a count is a cycle of the whole array.
    """
    components = report.components
    components = components.assign(
        priced_pj=components["count"] * components["price_pj"], follows=components["activity"] != 1
    )
    by = ["scope", "component", "action", "price_pj", "evidence"]
    rows = components.groupby(by, sort=False, as_index=False)[["count", "energy_pj", "priced_pj"]].sum()
    follows = components.groupby(by, sort=False)["follows"].any().to_numpy()
    activity = (rows["energy_pj"] / rows["priced_pj"]).where(follows, 1.0).fillna(1.0)
    rows["activity"] = activity
    rows["energy_per_action_pj"] = rows["price_pj"] * activity
    rows["share_percent"] = 100 * rows["energy_pj"] / rows["energy_pj"].sum()
    said = ["stimulus", "scaling", "source"]
    prices = report.area.set_index("component")[said]
    rows = rows.join(prices, on="component")
    first = ["scope", "component", "action", "count", "activity", "energy_per_action_pj", "energy_pj"]
    return rows[[*first, "share_percent", "evidence", *said]]


def price_list(inventory: Sequence[Part], technology: Technology) -> pd.DataFrame:
    """One row a figure of one instance of every part, in the columns of `accelsim costs --csv`; as a file it
    is a list of own prices (costs/own.py) that changes nothing."""
    import pandas as pd

    rows = []
    for part in inventory:
        cost = part.cost
        item = f"{part.instances} in the {part.scope}"
        figures = [(f"energy, {action}", pj, "pJ") for action, pj in cost.energy_pj.items()]
        figures += [("area", cost.area_um2, "um2"), ("leakage", cost.leakage_uw, "uW")]
        if cost.delay_ps is not None:
            figures.append(("delay", cost.delay_ps, "ps"))
        source = "; ".join([cost.source, *cost.scaling])
        at = technology.node_nm, technology.voltage_v
        rows += [
            (part.name, item, quantity, value, unit, *at, source, cost.evidence)
            for quantity, value, unit in figures
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def accelergy_entries(inventory: Sequence[Part], machine: str) -> list[Entry]:
    """Parts as components of Accelergy, `machine.scope.component`."""
    return [Entry(f"{machine}.{part.scope}.{part.name}", part.instances, part.cost) for part in inventory]
