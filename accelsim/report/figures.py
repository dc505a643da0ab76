"""A run in a few numbers, from its counts: as summary.json has them, without tables in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from accelsim.machine import actions
from accelsim.machine.arch import Arch
from accelsim.report.frequency import highest_clock_ghz
from accelsim.report.inventory import SCOPES, Part, action_prices_pj

NAMES = (
    "macs",
    "cycles",
    "latency_ms",
    "utilization",
    *(f"energy_{scope}_pj" for scope in SCOPES),
    *(f"area_{scope}_um2" for scope in SCOPES[:-1]),
    "fj_per_op_system",
    "tops_per_mm2",
    "dram_read_bits",
    "dram_write_bits",
    "highest_clock_ghz",
    "clock_margin",
)
"""Of figures that are numbers."""


def figures(
    arch: Arch, inventory: Sequence[Part], *, macs: int, cycles: int, counts: Mapping[str, int]
) -> dict[str, Any]:
    """Of a run with the energy of the tables' operands. Scopes contain those inside them (docs/sweep.md).

    macs, cycles, counts: of all layers. Raises AccelsimError where no part of the machine has a delay.
    """
    energy_pj, area_um2 = {}, {}
    for number, scope in enumerate(SCOPES):
        parts = [part for part in inventory if part.scope in SCOPES[: number + 1]]
        prices = action_prices_pj(parts, arch.clock_ghz)
        energy_pj[scope] = prices["cycle"] * cycles + sum(
            price * counts.get(name, 0) for name, price in prices.items() if name != "cycle"
        )
        placed = sum(part.instances * part.cost.area_um2 for part in parts) / arch.placement_utilization
        area_um2[scope] = placed if scope == "array" else placed / arch.pes
    highest_ghz = highest_clock_ghz(inventory)
    array_mm2 = area_um2["array"] / 1e6
    return {
        "macs": macs,
        "cycles": cycles,
        "latency_ms": cycles / (arch.clock_ghz * 1e6),
        "utilization": macs / (cycles * arch.pes * arch.lanes * arch.vector_size),
        **{f"energy_{scope}_pj": energy_pj[scope] for scope in SCOPES},
        **{f"area_{scope}_um2": area_um2[scope] for scope in SCOPES[:-1]},
        "fj_per_op_system": energy_pj["system"] / (2 * macs) * 1e3,
        "tops_per_mm2": 2 * macs / cycles * arch.clock_ghz * 1e9 / 1e12 / array_mm2,
        "dram_read_bits": counts.get(actions.DRAM_READ_BIT, 0),
        "dram_write_bits": counts.get(actions.DRAM_WRITE_BIT, 0),
        "highest_clock_ghz": highest_ghz,
        "clock_margin": highest_ghz / arch.clock_ghz - 1,
    }
