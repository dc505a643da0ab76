"""The clock that each part of a machine reaches at its node and supply, and so the machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from accelsim.errors import AccelsimError
from accelsim.machine.arch import Arch
from accelsim.report.inventory import Part

if TYPE_CHECKING:
    import pandas as pd

# Parts whose delay must fit a clock period; the PPU and the macros quote their slowest stage.
_STAGES = (
    "dot_product",
    "scale_product",
    "scale_multiply",
    "accumulator",
    "ppu",
    "ppu_vector_scale",
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


def too_fast(arch: Arch, inventory: Sequence[Part]) -> str | None:
    """What is wrong with the arch's clock, None if every part meets it."""
    slow = [
        f"{name} {delay_ps:.0f} ps"
        for name, delay_ps in stage_delays(inventory).items()
        if not meets_clock(arch, delay_ps)
    ]
    if not slow:
        return None
    period_ps = _PS_PER_NS / arch.clock_ghz
    return (
        f"slower at {arch.node_nm:g} nm and {arch.voltage_v:g} V than the {period_ps:.0f} ps period: "
        f"{', '.join(slow)}; "
        f"the machine reaches {highest_clock_ghz(inventory):.3g} GHz"
    )


def meets_clock(arch: Arch, delay_ps: float) -> bool:
    return delay_ps <= _PS_PER_NS / arch.clock_ghz
