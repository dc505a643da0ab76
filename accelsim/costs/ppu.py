"""Prices of a PPU whose multipliers have registers inside, stage by stage, at the table's node.

Every stage was mapped twice, for area and for delay; some have a structure of their own for a short clock.
A machine takes the smallest one that ends within its clock period, and the fastest one where none does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from accelsim.costs.component import BlockCost
from accelsim.costs.dot import CHANGING
from accelsim.costs.fast import Quantity
from accelsim.costs.laws import Terms, fit_law, power_between
from accelsim.costs.logic import LINEAR_TERMS, QUANTITIES, VECTOR_SCALE_TERMS
from accelsim.costs.tables import Datapath, Row

QUICK, FAST = "quick_", "fast_"
MAPPINGS = ("", QUICK, FAST)
# What has a structure for a short clock.
FAST_FAMILIES = ("ppu_partial", "ppu_sum", "ppu_reciprocal")
VALUE_BITS = 24

SHIFT_TERMS: Terms = {
    "n": lambda bits, out: bits, "out": lambda bits, out: out, "1": lambda bits, out: 1.0,
}  # fmt: skip
# Family -> its sizes and the terms of its laws; a family without sizes has one row.
FAMILIES: dict[str, tuple[tuple[str, ...], Terms]] = {
    "ppu_partial": (("accumulator_bits",), LINEAR_TERMS),
    "ppu_sum": (("accumulator_bits",), LINEAR_TERMS),
    "ppu_scaled": (("accumulator_bits", "output_bits"), SHIFT_TERMS),
    "ppu_round": (("output_bits",), LINEAR_TERMS),
    "ppu_code": (("output_bits",), LINEAR_TERMS),
    "ppu_quotient": (("output_bits", "activation_scale_bits"), VECTOR_SCALE_TERMS),
}


@dataclass(frozen=True)
class Clock:
    """What a stage has, at the table's node: period_ps, or None for no limit; the registers around it take
    overhead_ps of it, clock to output and setup."""

    period_ps: float | None
    overhead_ps: float


class PpuStages:
    """The stages of `ppu` and `ppu_vector_scale` in accelsim/rtl/ppu.sv (FINE), without registers."""

    def __init__(self, datapath: Datapath) -> None:
        self._datapath = datapath
        self._quantities: dict[tuple[str, str], Quantity] = {}
        for family, (columns, terms) in FAMILIES.items():
            for mapping in _mappings(family):
                rows = datapath.find(mapping + family, CHANGING)
                points = [tuple(row[column] for column in columns) for row in rows]
                for quantity in QUANTITIES:
                    values = [row[quantity] for row in rows]
                    law = fit_law(f"{mapping}{family}", quantity, terms, points, values)
                    exact = _between_rows(points, values) if quantity == "delay_ps" else {}
                    self._quantities[mapping + family, quantity] = Quantity(law, exact)

    def laws(self) -> list[dict[str, object]]:
        return [quantity.law.describe() for quantity in self._quantities.values()]

    def rows(self, *families: str) -> list[Row]:
        return [
            row
            for family in families
            for mapping in _mappings(family)
            for row in self._datapath.find(mapping + family, CHANGING)
        ]

    def lane(self, accumulator_bits: int, output_bits: int, clock: Clock) -> BlockCost:
        """Multiply, shift, bias and static code of one lane."""
        return in_a_row(
            [
                *self._product(accumulator_bits, clock),
                self._stage("ppu_scaled", clock, accumulator_bits, VALUE_BITS),
                self._stage("ppu_bias", clock),
                self._stage("ppu_round", clock, output_bits),
            ]
        )

    def rescale(self, output_bits: int, clock: Clock) -> BlockCost:
        """Multiply by a reciprocal, shift and clip, of one lane."""
        return in_a_row(
            [
                *self._product(VALUE_BITS, clock),
                self._stage("ppu_scaled", clock, VALUE_BITS, output_bits + 2),
                self._stage("ppu_code", clock, output_bits),
            ]
        )

    def maximum(self, values: int, clock: Clock) -> BlockCost:
        """Magnitudes, and the maximum of them and of what came before: a comparison for each value. The
        first of log2(values) levels follows the magnitudes in their stage, the others have the next one, and
        what came before the one after it."""
        options = []
        for mapping in _mappings("ppu_magnitude"):
            (magnitude,), (compare,) = (
                self._datapath.find(mapping + "ppu_magnitude", CHANGING),
                self._datapath.find(mapping + "ppu_running_max", CHANGING, vector_size=1),
            )
            both = _block([magnitude[quantity] + compare[quantity] for quantity in QUANTITIES], clock)
            levels = math.ceil(math.log2(values))
            longest = max(magnitude["delay_ps"] + compare["delay_ps"], (levels - 1) * compare["delay_ps"])
            options.append(replace(both.times(values), delay_ps=longest + clock.overhead_ps))
        return choose_stage(options, clock)

    def vector_scale(self, output_bits: int, scale_bits: int, clock: Clock) -> BlockCost:
        """Scale from the largest magnitude, and its reciprocal."""
        stages = [
            self._stage("ppu_scale_add", clock),
            self._stage("ppu_quotient", clock, output_bits, scale_bits),
        ]
        if scale_bits > 1:
            stages.append(self._reciprocal(scale_bits, clock))
        return in_a_row(stages)

    def _product(self, bits: int, clock: Clock) -> list[BlockCost]:
        return [self._stage("ppu_partial", clock, bits).times(2), self._stage("ppu_sum", clock, bits)]

    def _stage(self, family: str, clock: Clock, *point: float) -> BlockCost:
        if family not in FAMILIES:
            return self._chosen(family, clock)

        def value(mapping: str, quantity: str) -> float:
            return self._quantities[mapping + family, quantity](*point)

        blocks = [
            _block([value(mapping, quantity) for quantity in QUANTITIES], clock)
            for mapping in _mappings(family)
        ]
        return choose_stage(blocks, clock)

    def _chosen(self, family: str, clock: Clock, **columns: int) -> BlockCost:
        """Of a family with one row of these sizes."""
        found = [
            self._datapath.find(mapping + family, CHANGING, **columns)[0] for mapping in _mappings(family)
        ]
        return choose_stage(
            [_block([row[quantity] for quantity in QUANTITIES], clock) for row in found], clock
        )

    def _reciprocal(self, scale_bits: int, clock: Clock) -> BlockCost:
        """Rows as they are, and the power law through its neighbours between them."""
        options = []
        for mapping in _mappings("ppu_reciprocal"):
            rows = {
                int(row["activation_scale_bits"]): row
                for row in self._datapath.find(mapping + "ppu_reciprocal", CHANGING)
            }
            if not min(rows) <= scale_bits <= max(rows):
                continue
            low = max(bits for bits in rows if bits <= scale_bits)
            high = min(bits for bits in rows if bits >= scale_bits)
            values = [
                rows[low][quantity]
                if low == high
                else power_between(rows[low][quantity], rows[high][quantity], low, high, scale_bits)
                for quantity in QUANTITIES
            ]
            options.append(_block(values, clock))
        return choose_stage(options, clock)


def _mappings(family: str) -> tuple[str, ...]:
    return MAPPINGS if family in FAST_FAMILIES else MAPPINGS[:2]


def _between_rows(
    points: Sequence[tuple[float, ...]], values: Sequence[float]
) -> dict[tuple[float, ...], float]:
    """Values of the rows, and of first sizes between those of two rows by the power law through them: delays
    of netlists do not grow evenly, and whether a clock is met is a matter of percents."""
    found = dict(zip(points, values, strict=True))
    ordered = sorted(found, key=lambda point: (point[1:], point[0]))
    for low, high in itertools.pairwise(ordered):
        if low[1:] == high[1:]:
            for size in range(int(low[0]) + 1, int(high[0])):
                value = power_between(found[low], found[high], low[0], high[0], size)
                found[size, *low[1:]] = value
    return found


def _block(values: Sequence[float], clock: Clock) -> BlockCost:
    area_um2, leakage_nw, delay_ps, energy_fj = values
    return BlockCost(area_um2, leakage_nw, {"op": energy_fj}, delay_ps + clock.overhead_ps)


def choose_stage(options: Sequence[BlockCost], clock: Clock) -> BlockCost:
    if clock.period_ps is None:
        return min(options, key=lambda block: block.area_um2)
    limit = clock.period_ps
    fitting = [block for block in options if block.delay_ps <= limit]
    if fitting:
        return min(fitting, key=lambda block: block.area_um2)
    return min(options, key=lambda block: block.delay_ps)


def in_a_row(stages: Sequence[BlockCost]) -> BlockCost:
    first, *others = stages
    for other in others:
        first = first.then(other, pipelined=True)
    return first
