"""What a clock tree consists of: an H-tree of wire over a placed area, and the buffers that drive it.

An H-tree that brings the clock to the middles of n equal squares of an area A has
1.5 sqrt(A) (sqrt(n) - 1) of wire: one H of 1.5 sqrt(A), in each of its quarters one half as large, and so on
to n = 4^k leaves; other n are taken between them. Jackson, Srinivasan and Kuh, "Clock routing for
high-performance ICs", DAC 1990, find the same 3/2 sqrt(n A) for trees of equal path lengths to many pins.
Every buffer drives the load that its row is of; buffers are loads of each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from accelsim.costs.component import BlockCost, Branch, ClockSinks, ComponentCost
from accelsim.costs.logic import REGISTER_BITS
from accelsim.costs.tables import CLOCK_CELLS, Row
from accelsim.errors import AccelsimError

_UM_PER_MM = 1e3


def h_tree_mm(leaves: float, area_um2: float) -> float:
    """Wire of an H-tree over `area_um2`, mm."""
    return 1.5 * math.sqrt(area_um2) * (math.sqrt(max(1.0, leaves)) - 1) / _UM_PER_MM


def branch_mm(branch: Branch, utilization: float) -> float:
    """Wire from clock gates to the bits behind them, over the bits' placed area, mm."""
    banks = math.ceil(branch.bits / REGISTER_BITS)
    bits = branch.bits / banks
    return banks * h_tree_mm(bits, bits * branch.bit_area_um2 / utilization)


@dataclass(frozen=True)
class ClockWire:
    """Wires of clocks: `row` is their capacitance in pF/mm; cells are placed with `utilization`."""

    row: Row
    supply_v: float
    utilization: float

    @property
    def pj_per_mm(self) -> float:
        """Of a cycle, up and down."""
        return self.row["value"] * self.supply_v**2


class ClockCells:
    """The cells of a clock tree at the node and supply of their table."""

    def __init__(self, rows: Sequence[Row]) -> None:
        by_role: Mapping[str, Row] = {row.text["role"]: row for row in rows}
        for role in ("clock_buffer", "clock_gate"):
            if role not in by_role:
                raise AccelsimError(f"cost table {CLOCK_CELLS.file}: no row of role '{role}', expected one")
        self.rows = tuple(rows)
        self.buffer, self.gate = by_role["clock_buffer"], by_role["clock_gate"]

    def buffered(self, sinks: ClockSinks, wire_ff: float) -> tuple[float, BlockCost]:
        """(buffers, their price with that of memories' pins; action cycle) of a tree to `sinks` with wires of
        `wire_ff`, in capacitance at the table's node."""
        buffer, pin_ff = self.buffer, self.gate["pin_ff"]
        load_ff = (sinks.gates + sinks.macros) * pin_ff + wire_ff
        # Of all buffers but the first, whose pin the tree above drives, the pins are loads here.
        spare_ff = buffer["load_ff"] - buffer["pin_ff"]
        count = max(1.0, (load_ff - buffer["pin_ff"]) / spare_ff)
        cycle_fj_per_ff = buffer["vdd_v"] ** 2
        each_fj = buffer["energy_fj"] + buffer["pin_ff"] * cycle_fj_per_ff
        energy_fj = {"cycle": count * each_fj + sinks.macros * pin_ff * cycle_fj_per_ff}
        return count, BlockCost(count * buffer["area_um2"], count * buffer["leakage_nw"], energy_fj)

    def tree(
        self,
        sinks: ClockSinks,
        branches: Mapping[str, Branch],
        area_um2: float,
        wire: ClockWire,
        node: float,
        priced: Callable[[BlockCost], ComponentCost],
    ) -> ComponentCost:
        """A tree over cells and macros of `area_um2`. node: energy of the table's cells at the chosen node,
        over that at their own; priced: cells at the chosen technology."""
        length_mm = h_tree_mm(sinks.gates + sinks.macros, area_um2 / wire.utilization)
        # Cells are larger at another node, wires are not: seen from the table's cells they are so much less.
        buffers, block = self.buffered(sinks, length_mm * wire.row["value"] * 1e3 / node)
        cells, wires_pj = priced(block), wire.pj_per_mm * length_mm
        energy_pj = {"cycle": cells.energy_pj["cycle"] + wires_pj}
        energy_pj |= {
            name: wire.pj_per_mm * branch_mm(one, wire.utilization) for name, one in branches.items()
        }
        log = (
            f"{sinks.gates:.4g} clock gates and {sinks.macros:.4g} macros, {buffers:.4g} buffers: "
            f"{cells.energy_pj['cycle']:.4g} pJ a cycle",
            f"H-tree of {length_mm:.4g} mm over {area_um2:.5g} um2 / {wire.utilization:g}: "
            f"{wires_pj:.4g} pJ a cycle",
            f"wire {wire.pj_per_mm:.4g} pJ/mm = {wire.row['value']:g} pF/mm * ({wire.supply_v:g} V)^2, "
            "same at every node",
        )
        return replace(
            cells,
            energy_pj=energy_pj,
            delay_ps=None,
            source=f"{cells.source}; {wire.row.text['source']}",
            evidence="derived",
            scaling=(*log, *cells.scaling),
        )
