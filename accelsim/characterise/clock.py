"""Cells of a clock tree as Liberty has them: what a tree's buffers cost, and what its pins load them with."""

from __future__ import annotations

import numpy as np

from accelsim.characterise.cells import ENERGY_TABLES, Cell
from accelsim.characterise.roles import BRANCH_BITS, Roles
from accelsim.characterise.table import Process


def clock_rows(roles: Roles, process: Process, library: str) -> list[dict[str, object]]:
    """A buffer that drives as many latch enables as one of an array does, with the energy that it takes
    itself in a cycle of both edges, and the clock pin of a clock gate (of the latch that stands for one).

    library: name, for the source."""
    latch = roles.latch_high or roles.latch_low
    gate, buffer = roles.clock_gate, roles.clock_buffer
    enable_ff = _clock_pin_ff(latch) if latch else roles.inverter.capacitances_ff[0]
    load_ff = BRANCH_BITS * enable_ff
    # A gate of plain logic is a latch and an AND gate.
    gate_ff = _clock_pin_ff(gate) if gate else enable_ff + roles.inverter.capacitances_ff[0]
    figures = {
        "load_ff": f"{load_ff:.4g}",
        "energy_fj": f"{_cycle_fj(buffer, load_ff):.4g}",
        "area_um2": f"{buffer.area_um2:.5g}",
        "leakage_nw": f"{buffer.leakage_nw:.4g}",
        "delay_ps": f"{buffer.delay_ps(load_ff):.4g}",
    }
    source = f"Liberty tables of the cell: {library}"
    shared = {"node_nm": f"{process.node_nm:g}", "vdd_v": f"{process.vdd_v:g}", "source": source}
    return [
        {
            "role": "clock_buffer",
            "cell": buffer.name,
            "pin_ff": f"{buffer.capacitances_ff[0]:.4g}",
            **figures,
            **shared,
        },
        {
            "role": "clock_gate",
            "cell": gate.name if gate else "latch and AND gate",
            "pin_ff": f"{gate_ff:.4g}",
            **dict.fromkeys(figures, ""),
            **shared,
        },
    ]


def _clock_pin_ff(cell: Cell) -> float:
    return cell.capacitances_ff[cell.clock_pin]


def _cycle_fj(buffer: Cell, load_ff: float) -> float:
    """Internal energy of a rising and a falling edge at the grid's typical slew."""
    tables = next(iter(buffer.arcs.values()))[-len(ENERGY_TABLES) :, buffer.grid.typical]
    return float(sum(np.interp(load_ff, buffer.grid.loads_ff, table) for table in tables))
