"""Activity times prices: the tables of a run. Simulation counts, costs price, this module multiplies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from accelsim.compute.activity import LayerActivity
from accelsim.costs import CostLibrary
from accelsim.formats.scheme import Scheme
from accelsim.machine import actions
from accelsim.machine.arch import Arch
from accelsim.mapping.bounds import RunLayer, run_bounds
from accelsim.mapping.global_pe import global_pe_load
from accelsim.report.frequency import check_clock
from accelsim.report.inventory import SCOPES, Part, build_inventory
from accelsim.sim.layer_run import STALL_REASONS

if TYPE_CHECKING:
    import pandas as pd

_PJ_PER_UW_NS = 1e-3
# What changes in a part is counted at another one.
_SWITCHES_WITH = {"operand_wires": "input_register"}


@dataclass(frozen=True, repr=False)
class Report:
    """Tables of one run on one machine and scheme.

    layers: one row a layer; components: one row a (layer, component, action) with its energy; area: one row a
    component; stalls: one row a (layer, pe, stall reason). Energies are of the whole array, in pJ. Where
    nothing is priced, components and area are empty and layers have no energies.
    """

    arch: Arch
    scheme: Scheme
    layers: pd.DataFrame
    components: pd.DataFrame
    area: pd.DataFrame
    stalls: pd.DataFrame
    priced: bool = True

    def __repr__(self) -> str:
        return f"<Report of {len(self.layers)} layers at {self.scheme} on {self.arch.name}>"

    def energy_pj(self, scope: str) -> float:
        """Energy of `scope` with the scopes inside it, pJ."""
        inside = SCOPES[: SCOPES.index(scope) + 1]
        return float(self.components.loc[self.components["scope"].isin(inside), "energy_pj"].sum())

    def area_um2(self, scope: str) -> float:
        """Placed area of one datapath, one PE, or the array, um2."""
        inside = SCOPES[: SCOPES.index(scope) + 1]
        total = float(self.area.loc[self.area["scope"].isin(inside), "placed_area_um2"].sum())
        return total if scope == "array" else total / self.arch.pes

    def evidence_share(self) -> dict[str, float]:
        """Share of the system energy by the evidence its prices rest on: synthesis, cacti, assumption, ..."""
        by_evidence = self.components.groupby("evidence")["energy_pj"].sum()
        return {str(k): float(v) for k, v in (by_evidence / by_evidence.sum()).items()}


@dataclass(frozen=True, eq=False)
class PriceRequest:
    """What was counted, on what, and the prices; library: None for none."""

    arch: Arch
    scheme: Scheme
    activities: Sequence[LayerActivity]
    library: CostLibrary | None


def price(request: PriceRequest) -> Report:
    """Price, the last stage of a run. Raises AccelsimError where the tables have no price for a component, or
    one of them is too slow for the clock."""
    import pandas as pd

    arch, scheme, activities, library = (
        request.arch,
        request.scheme,
        request.activities,
        request.library,
    )
    if library is None:
        layers = _layer_frame(arch, activities, None)
        return Report(
            arch, scheme, layers, pd.DataFrame(), pd.DataFrame(), _stall_frame(activities), priced=False
        )
    inventory = build_inventory(arch, scheme, library)
    check_clock(arch, scheme, inventory, library)
    components = pd.DataFrame(
        [row for activity in activities for row in _component_rows(arch, inventory, activity)]
    )
    return Report(
        arch,
        scheme,
        _layer_frame(arch, activities, components),
        components,
        pd.DataFrame([_area_row(arch, part) for part in inventory]),
        _stall_frame(activities),
    )


def area_um2_at(arch: Arch, scheme: Scheme, library: CostLibrary, scope: str) -> float:
    """Placed area of one datapath, one PE or the array, without running anything."""
    inside = SCOPES[: SCOPES.index(scope) + 1]
    parts = [part for part in build_inventory(arch, scheme, library) if part.scope in inside]
    total = sum(part.instances * part.cost.area_um2 for part in parts) / arch.placement_utilization
    return total if scope == "array" else total / arch.pes


def _component_rows(
    arch: Arch, inventory: Sequence[Part], activity: LayerActivity
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    period_ns = 1 / arch.clock_ghz

    def add(
        scope: str, component: str, action: str, count: float, price_pj: float, evidence: str, own: float = 1
    ) -> None:
        each_pj = price_pj * own
        rows.append(
            {
                "layer": activity.layer.name,
                "scope": scope,
                "component": component,
                "action": action,
                "count": count,
                "price_pj": price_pj,
                "activity": own,
                "energy_per_action_pj": each_pj,
                "energy_pj": count * each_pj,
                "evidence": evidence,
            }
        )

    for part in inventory:
        cost = part.cost
        for action, counted in part.actions.items():
            count = sum(activity.counts[name] for name in counted)
            own = _switching(part, action, activity)
            add(part.scope, part.name, action, count, cost.energy_pj[action], cost.evidence, own)
        if part.cycle_action:
            count = part.instances * activity.cycles
            each = cost.energy_pj[part.cycle_action]
            add(part.scope, part.name, part.cycle_action, count, each, cost.evidence)
        if cost.leakage_uw:
            each = part.instances * cost.leakage_uw * period_ns * _PJ_PER_UW_NS
            add(part.scope, part.name, "leakage", activity.cycles, each, cost.evidence)
    return rows


def _switching(part: Part, action: str, activity: LayerActivity) -> float:
    """Energy of an action over its price: by the bits that change in the layer, where they were counted."""
    law, toggles = part.cost.activity.get(action), activity.computed.toggles
    name = _SWITCHES_WITH.get(part.name, part.name)
    if law is None or toggles is None or name not in toggles.by_part:
        return 1.0
    return law(toggles.by_part[name], toggles.weight_changes)


def _layer_frame(
    arch: Arch, activities: Sequence[LayerActivity], components: pd.DataFrame | None
) -> pd.DataFrame:
    import pandas as pd

    by_scope = (
        {} if components is None else components.groupby(["layer", "scope"])["energy_pj"].sum().to_dict()
    )
    peak = arch.pes * arch.lanes * arch.vector_size
    rows = []
    bounds = run_bounds(arch, [RunLayer(own.layer, own.residency, own.cycles) for own in activities])
    for activity, bound in zip(activities, bounds, strict=True):
        layer, macs = activity.layer, activity.layer.geometry.macs
        steps = activity.lane_steps
        total = 0.0
        energy = {}
        for scope in SCOPES:
            total += by_scope.get((layer.name, scope), 0.0)
            energy[f"energy_{scope}_pj"] = total
        energy["fj_per_op"] = total / (2 * macs) * 1e3
        rows.append(
            {
                "layer": layer.name,
                "op": layer.op,
                "macs": macs,
                "cycles": activity.cycles,
                "utilization": macs / (activity.cycles * peak),
                "bound_cycles": bound.cycles,
                "bound_by": bound.by,
                "dataflow": activity.mapping.dataflow,
                "k_split": activity.mapping.k_split,
                "c_split": activity.mapping.c_split,
                "pixel_split": activity.mapping.pixel_split,
                "order": activity.mapping.order,
                "tile_pixels": activity.mapping.tile_pixels,
                "dtile_pixels": activity.mapping.dtile_pixels,
                "units_per_tile": activity.mapping.units_per_tile,
                "chunk_vectors": activity.mapping.chunk_vectors,
                "chunk_inputs": activity.mapping.chunk_inputs,
                "weights_from": activity.residency.weights,
                "input_from": activity.residency.input,
                "output_to": "dram" if activity.residency.output_to_dram else "gb",
                "row_work_cycles": global_pe_load(arch, layer).row_cycles,
                "gated_fraction": activity.counts[actions.DOT_PRODUCT_GATED] / steps,
                "zero_product_fraction": activity.zero_product_fraction,
                "zero_operand_fraction": activity.computed.zeros.zero_operand_macs
                / (steps * layer.vector_size),
                "overflows": activity.overflows,
                "dram_read_bits": activity.counts[actions.DRAM_READ_BIT],
                "dram_write_bits": activity.counts[actions.DRAM_WRITE_BIT],
                **{
                    f"{name}_share": float(share)
                    for name, share in zip(
                        STALL_REASONS,
                        activity.stall_cycles.sum(axis=0) / activity.stall_cycles.sum(),
                        strict=True,
                    )
                },
                **({} if components is None else energy),
            }
        )
    errors = {
        name: np.array([getattr(activity.computed, name) for activity in activities], dtype=float)
        for name in ("sqnr_db", "ppu_sqnr_db")
    }
    return pd.DataFrame(rows).assign(**errors)


def _area_row(arch: Arch, part: Part) -> dict[str, object]:
    area = part.instances * part.cost.area_um2
    return {
        "scope": part.scope,
        "component": part.name,
        "instances": part.instances,
        "area_each_um2": part.cost.area_um2,
        "area_um2": area,
        "placed_area_um2": area / arch.placement_utilization,
        "leakage_uw": part.instances * part.cost.leakage_uw,
        "delay_ps": part.cost.delay_ps,
        "evidence": part.cost.evidence,
        "stimulus": part.cost.stimulus,
        "scaling": "; ".join(part.cost.scaling),
        "source": part.cost.source,
    }


def _stall_frame(activities: Sequence[LayerActivity]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        [
            {"layer": activity.layer.name, "pe": pe, "stall_reason": reason, "cycles": int(cycles)}
            for activity in activities
            for pe, row in enumerate(activity.stall_cycles)
            for reason, cycles in zip(STALL_REASONS, row, strict=True)
        ]
    )
