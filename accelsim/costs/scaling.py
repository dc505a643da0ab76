"""From a table's node and supply to the chosen technology, one visible factor at a time.

Logic: Stillmaker & Baas, "Scaling equations for the accurate prediction of CMOS device performance from
180 nm to 7 nm", Integration 58 (2017) 74-81: area ratios, energy proportional to a2 V^2 + a1 V + a0 and delay
to d3 V^3 + d2 V^2 + d1 V + d0, coefficients per node. SRAM: see `SramScaling`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from accelsim.costs.component import BlockCost, ComponentCost
from accelsim.costs.tables import LOGIC_SCALING, Row
from accelsim.costs.technology import Technology
from accelsim.errors import AccelsimError

# Of a supply, to see which way the delay law goes.
_STEP_V = 0.01


def _interpolated(rows: Sequence[Row], node_nm: float, of: Callable[[Row], float]) -> float:
    """`of(row)` at a node: of the node's own row if there is one; else by the power law in the node between
    the rows beside it (22 nm lies between the 20 and 32 nm rows); beyond the table of its end row."""
    ordered = sorted(rows, key=lambda row: row["node_nm"])
    above = next((row for row in ordered if row["node_nm"] >= node_nm), ordered[-1])
    below = next((row for row in reversed(ordered) if row["node_nm"] <= node_nm), ordered[0])
    low, high = of(below), of(above)
    if above is below:
        return low
    near, far = below["node_nm"], above["node_nm"]
    if near == far or low <= 0 or high <= 0:
        raise AccelsimError(
            f"cost tables: rows give {low:g} at {near:g} nm and {high:g} at {far:g} nm, expected figures "
            "above 0, one of each node"
        )
    share = math.log(node_nm / below["node_nm"]) / math.log(above["node_nm"] / below["node_nm"])
    return low * (high / low) ** share


class LogicScaling:
    """Area, energy and delay of logic relative to another node and supply."""

    def __init__(self, rows: Sequence[Row], constants: Mapping[str, Row]) -> None:
        self._rows = rows
        self._smallest_nm = min(row["node_nm"] for row in rows)
        self._area_exponent = constants["area_exponent_below_7nm"]["value"]
        self._energy_exponent = constants["energy_exponent_below_7nm"]["value"]
        # The same for every part of a machine.
        self.factors = cache(self._factors)

    def relative_area(self, node_nm: float) -> float:
        """Logic area, in units of the table (7 nm = 1)."""
        below_table = min(1.0, node_nm / self._smallest_nm) ** self._area_exponent
        return _interpolated(self._rows, node_nm, lambda row: row["area_relative"]) * below_table

    def relative_energy(self, node_nm: float, voltage_v: float) -> float:
        """a2 V^2 + a1 V + a0, energy per operation up to a constant shared by all nodes."""

        def polynomial(row: Row) -> float:
            energy = row["energy_a2"] * voltage_v**2 + row["energy_a1"] * voltage_v + row["energy_a0"]
            if energy <= 0 or row["energy_a2"] == 0:
                raise AccelsimError(
                    f"cost table {LOGIC_SCALING.file} line {row.line}: the energy law gives {energy:g} at "
                    f"{voltage_v:g} V, expected a parabola above 0"
                )
            if 2 * row["energy_a2"] * voltage_v + row["energy_a1"] <= 0:
                lowest_v = -row["energy_a1"] / (2 * row["energy_a2"])
                raise AccelsimError(
                    f"technology voltage_v: {voltage_v} is below the range of the {row['node_nm']:g} nm "
                    f"energy law, expected above {lowest_v:.3f}"
                )
            return energy

        below_table = min(1.0, node_nm / self._smallest_nm) ** self._energy_exponent
        return _interpolated(self._rows, node_nm, polynomial) * below_table

    def relative_delay(self, node_nm: float, voltage_v: float) -> float:
        """d3 V^3 + d2 V^2 + d1 V + d0; nodes below the table keep the delay of its smallest."""

        def polynomial(row: Row) -> float:
            terms = (row["delay_d3"], row["delay_d2"], row["delay_d1"], row["delay_d0"])
            delay = sum(d * voltage_v**power for d, power in zip(terms, (3, 2, 1, 0), strict=True))
            if delay <= 0:
                raise AccelsimError(
                    f"technology voltage_v: {voltage_v} is outside the {row['node_nm']:g} nm delay law"
                )
            return delay

        return _interpolated(self._rows, node_nm, polynomial)

    def check_delay_range(self, node_nm: float, voltage_v: float) -> None:
        """Raise AccelsimError where the law has circuits slow down as the supply rises, and so has left the
        range that it was fitted in; below the energy law's range prices are refused anyway."""
        if self.relative_delay(node_nm, voltage_v + _STEP_V) >= self.relative_delay(node_nm, voltage_v):
            supplies = [step * _STEP_V for step in range(1, round(voltage_v / _STEP_V))]
            fastest_v = min(supplies, key=lambda supply_v: self.relative_delay(node_nm, supply_v))
            raise AccelsimError(
                f"technology voltage_v: {voltage_v} is above the range of the {node_nm:g} nm delay law, "
                f"expected at most {fastest_v:.2f}"
            )

    def _beside(self, node_nm: float) -> Row:
        """The row nearest to a node that is not its own."""
        if not any(row["node_nm"] != node_nm for row in self._rows):
            raise AccelsimError(
                f"cost table {LOGIC_SCALING.file}: all rows are of {node_nm:g} nm, expected more"
            )
        return min(
            (row for row in self._rows if row["node_nm"] != node_nm),
            key=lambda row: abs(math.log(row["node_nm"] / node_nm)),
        )

    def _factors(
        self, technology: Technology, from_nm: float, from_v: float
    ) -> tuple[float, float, float, float, tuple[str, ...]]:
        """(area, node energy, voltage energy, delay) factors from a table's point, and their log."""
        node_nm, voltage_v = technology.node_nm, technology.voltage_v
        area = self.relative_area(node_nm) / self.relative_area(from_nm)
        node = self.relative_energy(node_nm, from_v) / self.relative_energy(from_nm, from_v)
        voltage = self.relative_energy(node_nm, voltage_v) / self.relative_energy(node_nm, from_v)
        delay = self.relative_delay(node_nm, voltage_v) / self.relative_delay(from_nm, from_v)
        law = "Stillmaker & Baas 2017"
        beside = self._beside(node_nm)
        beside_v = beside["node_nm"], voltage_v
        energy_step = self.relative_energy(*beside_v) / self.relative_energy(node_nm, voltage_v)
        delay_step = self.relative_delay(*beside_v) / self.relative_delay(node_nm, voltage_v)
        if node_nm < self._smallest_nm:
            law += f", extrapolated below {self._smallest_nm:g} nm"
        log: tuple[str, ...] = (
            f"area x{area:.4g}: logic {from_nm:g} -> {node_nm:g} nm, {law}",
            f"energy x{node:.4g}: logic {from_nm:g} -> {node_nm:g} nm at {from_v:g} V, {law}",
            f"energy x{voltage:.4g}: supply {from_v:g} -> {voltage_v:g} V at {node_nm:g} nm, {law}",
            f"leakage x{node * voltage:.4g}: as energy (assumption, as in HWComponents)",
            f"delay x{delay:.4g}: {from_nm:g} nm {from_v:g} V -> {node_nm:g} nm {voltage_v:g} V, {law}",
        )
        if node_nm != from_nm:
            log += (
                f"uncertainty of the node: energy x{energy_step:.2f} and delay x{delay_step:.2f} "
                f"at the next row of the law, {beside['node_nm']:g} nm",
            )
        return area, node, voltage, delay, log

    def price(
        self, component: str, block: BlockCost, technology: Technology, from_nm: float, from_v: float,
        *, source: str, evidence: str, stimulus: str, notes: Sequence[str] = (),
    ) -> ComponentCost:  # fmt: skip
        """A logic block of a table, priced at the technology."""
        area, node, voltage, delay, log = self.factors(technology, from_nm, from_v)
        energy = node * voltage
        return ComponentCost(
            component,
            block.area_um2 * area,
            block.leakage_nw * energy / 1e3,
            {action: fj * energy / 1e3 for action, fj in block.energy_fj.items()},
            block.delay_ps * delay,
            source,
            evidence,
            (*log, *notes),
            stimulus,
        )


class SramScaling:
    """SRAM does not shrink like logic. From CACTI's 22 nm to a node:

    area by the published 6T cell of the node over the cell CACTI assumes; access energy and leakage by a
    power of the node (exponents in system.csv), energy by (V / V_cacti)^2, leakage by V / V_cacti and, below
    22 nm, the FinFET factor. The cycle time stays at CACTI's node and follows the logic delay law in voltage.
    """

    def __init__(self, bitcells: Sequence[Row], constants: Mapping[str, Row], logic: LogicScaling) -> None:
        self._bitcells, self._constants, self._logic = bitcells, constants, logic
        self.factors = cache(self._factors)

    def _factors(
        self, technology: Technology, from_nm: float, from_v: float
    ) -> tuple[float, float, float, float, tuple[str, ...]]:
        """(area, energy, leakage, cycle time) factors and their log."""
        node_nm, voltage_v = technology.node_nm, technology.voltage_v
        value = {key: row["value"] for key, row in self._constants.items()}
        cell_um2 = self._cell_um2(node_nm)
        area = cell_um2 / value["cacti_cell_area"]
        node_energy = (node_nm / from_nm) ** value["sram_energy_node_exponent"]
        node_leakage = (node_nm / from_nm) ** value["sram_leakage_node_exponent"]
        finfet = value["sram_finfet_leakage"] if node_nm < from_nm else 1.0
        supply, factor = voltage_v / from_v, technology.sram_energy_factor
        own = () if factor == 1 else (f"energy x{factor:g}: sram_energy_factor, as chosen",)
        delay = self._logic.relative_delay(node_nm, voltage_v) / self._logic.relative_delay(node_nm, from_v)
        log = (
            f"area x{area:.4g}: 6T cell {cell_um2:.4g} um2 at {node_nm:g} nm over CACTI's "
            f"{value['cacti_cell_area']:.4g} um2 at {from_nm:g} nm",
            f"energy x{node_energy:.4g}: SRAM {from_nm:g} -> {node_nm:g} nm, "
            f"node^{value['sram_energy_node_exponent']:g} (secondary)",
            f"energy x{supply**2:.4g}: supply {from_v:g} -> {voltage_v:g} V, V^2",
            f"leakage x{node_leakage * finfet * supply:.4g}: node^{value['sram_leakage_node_exponent']:g}, "
            f"FinFET x{finfet:g}, V",
            *own,
            f"cycle time x{delay:.4g}: supply {from_v:g} -> {voltage_v:g} V, Stillmaker & Baas 2017; "
            f"not scaled from {from_nm:g} nm",
        )
        return area, node_energy * supply**2 * factor, node_leakage * finfet * supply, delay, log

    def _cell_um2(self, node_nm: float) -> float:
        largest = max(self._bitcells, key=lambda row: row["node_nm"])
        shrink = max(1.0, node_nm / largest["node_nm"]) ** 2
        return _interpolated(self._bitcells, node_nm, lambda row: row["area_um2"]) * shrink
