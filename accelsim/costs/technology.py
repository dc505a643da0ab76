"""The process every price is quoted at."""

from __future__ import annotations

import math
from dataclasses import dataclass

from accelsim.errors import AccelsimError

SRAM_DEVICES = ("itrs-lstp", "itrs-lop", "itrs-hp")
MIN_NODE_NM, MAX_NODE_NM = 3, 130
MIN_VOLTAGE_V, MAX_VOLTAGE_V = 0.3, 1.3
MIN_SRAM_ENERGY_FACTOR, MAX_SRAM_ENERGY_FACTOR = 0.01, 100


@dataclass(frozen=True)
class Technology:
    """Node, supply and SRAM device type. sram_energy_factor: multiplies the read and write energies of SRAM,
    whose level is uncertain (accelsim/costs/tables/README.md, SRAM).

    `sram_device` is CACTI's transistor type for cells and periphery. The default is low standby power
    (itrs-lstp): its supply in CACTI is the 0.8 V of the default machine, so no voltage law is involved, and
    the planar leakage of the other two (4 and 7 mW for 64 KB, several hundred times more) would decide the
    energy of a machine by itself. Dynamic energies of the three lie within about 20 % at equal supply.
    """

    node_nm: float = 16
    voltage_v: float = 0.8
    sram_device: str = "itrs-lstp"
    sram_energy_factor: float = 1.0

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("node_nm", self.node_nm, MIN_NODE_NM, MAX_NODE_NM),
            ("voltage_v", self.voltage_v, MIN_VOLTAGE_V, MAX_VOLTAGE_V),
            ("sram_energy_factor", self.sram_energy_factor, MIN_SRAM_ENERGY_FACTOR, MAX_SRAM_ENERGY_FACTOR),
        ):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise AccelsimError(f"technology {name}: {value!r} is not a number")
            if not math.isfinite(value) or not low <= value <= high:
                raise AccelsimError(f"technology {name}: {value} is out of range, expected {low} to {high}")
        if self.sram_device not in SRAM_DEVICES:
            raise AccelsimError(
                f"technology sram_device: '{self.sram_device}' is unknown, expected one of "
                f"{', '.join(SRAM_DEVICES)}"
            )
