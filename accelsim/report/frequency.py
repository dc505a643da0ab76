"""The clock that each part of a machine reaches at its node and supply, and so the machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from accelsim.costs import CostLibrary
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import MOST_DOT_STAGES, MOST_SCALE_STAGES, Arch
from accelsim.report.inventory import Part, build_inventory

if TYPE_CHECKING:
    import pandas as pd

# Parts whose delay must fit a clock period; the PPU and the macros quote their slowest stage.
_STAGES = (
    "dot_product",
    "scale_product",
    "scale_multiply",
    "scale_sum",
    "align",
    "block_sum",
    "accumulator",
    "ppu",
    "ppu_vector_scale",
    "ppu_block_scale",
    "ppu_block_quantize",
    "weight_buffer",
    "input_buffer",
    "global_buffer",
)
_PS_PER_NS = 1e3


def stage_delays(inventory: Sequence[Part]) -> dict[str, float]:
    """ps of every part that has to do its work between two edges of the clock."""
    by_name = {part.name: part.cost.delay_ps or 0.0 for part in inventory}
    delays = {name: delay_ps for name, delay_ps in by_name.items() if name in _STAGES and delay_ps > 0}
    if "operand_register" in by_name:
        # Gating dot products, a word from its buffer, its scale product and the detector share a cycle.
        read_ps = max(by_name["weight_buffer"], by_name["input_buffer"])
        delays["scale gate"] = read_ps + by_name["scale_product"] + by_name["scale_zero_detect"]
    return delays


def frequencies(arch: Arch, inventory: Sequence[Part]) -> pd.DataFrame:
    """One row a part, the slowest first: delay_ps, highest_clock_ghz, and whether it meets the arch's clock.

    The first row's clock is the machine's: every part has a register before and after it.
    """
    import pandas as pd

    delays = sorted(stage_delays(inventory).items(), key=lambda item: -item[1])
    rows = [
        {
            "component": name,
            "delay_ps": delay_ps,
            "highest_clock_ghz": _PS_PER_NS / delay_ps,
            "clock_ghz": arch.clock_ghz,
            "meets": meets_clock(arch, delay_ps),
        }
        for name, delay_ps in delays
    ]
    return pd.DataFrame(rows)


def highest_clock_ghz(inventory: Sequence[Part]) -> float:
    """Of the machine. Raises AccelsimError where no part has a delay."""
    delays = stage_delays(inventory)
    if not delays:
        raise AccelsimError("frequency: no part of the machine has a delay, expected one at least")
    return _PS_PER_NS / max(delays.values())


def check_clock(arch: Arch, scheme: Scheme, inventory: Sequence[Part], library: CostLibrary) -> None:
    """Raise AccelsimError where a part of the machine takes longer than the arch's clock period: which, by
    how much, the highest clock there is, and what would help."""
    slow = {name: ps for name, ps in stage_delays(inventory).items() if not meets_clock(arch, ps)}
    if not slow:
        return
    name = max(slow, key=lambda part: slow[part])
    others = f", {len(slow) - 1} more miss it" if len(slow) > 1 else ""
    period_ps = _PS_PER_NS / arch.clock_ghz
    highest_ghz = _reached_ghz(arch, scheme, inventory, library)
    changes = [*_stages_for(arch, name), "a smaller node_nm", "a higher voltage_v"]
    raise AccelsimError(
        f"clock_ghz is {arch.clock_ghz:g}, which leaves {period_ps:.0f} ps, and {name} takes "
        f"{slow[name]:.0f} ps{others}, at {scheme}, {arch.node_nm:g} nm and {arch.voltage_v:g} V; "
        f"expected at most clock_ghz={highest_ghz:g}, or {' or '.join(changes)}"
    )


def _reached_ghz(arch: Arch, scheme: Scheme, inventory: Sequence[Part], library: CostLibrary) -> float:
    """The highest clock, rounded down. Parts that share a cycle may be slower in turn at a lower one."""
    offered = math.floor(highest_clock_ghz(inventory) * 1e3) / 1e3
    while offered > 0:
        there = build_inventory(arch.model_copy(update={"clock_ghz": offered}), scheme, library)
        reached = highest_clock_ghz(there)
        if reached >= offered:
            return offered
        offered = math.floor(reached * 1e3) / 1e3
    return offered


def _stages_for(arch: Arch, name: str) -> list[str]:
    """What would cut a part into more stages, or choose quicker ones."""
    if name in ("dot_product", "scale_product", "scale_sum") and arch.dot_stages < MOST_DOT_STAGES:
        return ["more dot_stages"]
    if name in ("scale_multiply", "align") and arch.scale_stages < MOST_SCALE_STAGES:
        return ["more scale_stages"]
    if name.startswith("ppu") and arch.ppu_stages == "coarse":
        return ["ppu_stages=fine"]
    if name == "scale gate":
        return ["another gate_on_scale_product"]
    return []


def meets_clock(arch: Arch, delay_ps: float) -> bool:
    return delay_ps <= _PS_PER_NS / arch.clock_ghz
