"""What a clock tree consists of: an H-tree of wire over a placed area, and the buffers that drive it.

An H-tree that brings the clock to the middles of n equal squares of an area A has
1.5 sqrt(A) (sqrt(n) - 1) of wire: one H of 1.5 sqrt(A), in each of its quarters one half as large, and so on
to n = 4^k leaves; other n are taken between them. Jackson, Srinivasan and Kuh, "Clock routing for
high-performance ICs", DAC 1990, find the same 3/2 sqrt(n A) for trees of equal path lengths to many pins.
Every buffer drives the load that its row is of; buffers are loads of each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from accelsim.costs.component import BlockCost, Branch, ClockSinks
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
