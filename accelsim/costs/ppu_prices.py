"""Prices of the post-processing unit."""

from __future__ import annotations

import math
from dataclasses import replace

from accelsim.costs.component import BlockCost, ComponentCost, require_count
from accelsim.costs.logic_prices import LogicPrices, require_positive
from accelsim.costs.ppu import Clock
from accelsim.errors import AccelsimError

REQUANT_BITS = 16


class PpuPrices(LogicPrices):
    def ppu(
        self,
        lanes: int,
        accumulator_bits: int,
        output_bits: int,
        *,
        stages: str = "coarse",
        period_ps: float | None = None,
    ) -> ComponentCost:
        """`lanes` post-processing lanes: requantizing multiply, variable shift, bias add, relu, rounding add
        and clip. Action op = one output value. Stages are pipelined: `delay_ps` is the slowest. `fine`
        ones have registers inside the multiply, and are mapped for a period: their delays have the registers'
        times in them."""
        require_count("ppu", "lanes", lanes, 1, 1024)
        require_count("ppu", "accumulator_bits", accumulator_bits, 2, 128)
        require_count("ppu", "output_bits", output_bits, 2, 16)
        value_bits = int(self._logic.single("ppu_relu")["width_bits"])
        if is_fine("ppu", stages):
            lane = self._ppu_stages.lane(accumulator_bits, output_bits, self._clock(period_ps))
            rows = self._ppu_stages.rows("ppu_partial", "ppu_sum", "ppu_scaled", "ppu_bias", "ppu_round")
            notes = (f"{lanes} lanes; each stage mapped for area, or for delay where the period wants it",)
            return self._logic_cost("ppu", _per_action(lane, lanes), rows, notes=notes)
        lane = self._logic.requantizer(accumulator_bits, value_bits)
        for stage in (
            self._logic.shifter(accumulator_bits + REQUANT_BITS, value_bits),
            self._logic.fixed("ppu_bias_add"),
            self._logic.fixed("ppu_relu"),
            self._logic.adder(value_bits),
            self._logic.clip(value_bits, output_bits),
        ):
            lane = lane.then(stage, pipelined=True)
        rows = self._logic.rows("ppu_requant", "ppu_shift", "ppu_bias_add", "ppu_relu", "ppu_clip", "acc_add")
        notes = (f"{lanes} lanes; widths by the multiplier and shifter laws from the 24-bit rows",)
        return self._logic_cost("ppu", _per_action(lane, lanes), rows, notes=notes)

    def _clock(self, period_ps: float | None) -> Clock:
        """The period at the table's node, and what registers take of it."""
        if period_ps is None:
            return Clock(None, self._fast.registers_ps)
        require_positive("ppu", "period_ps", period_ps, math.inf)
        delay = self._logic_scaling.factors(
            self.technology, self._datapath.node_nm, self._datapath.vdd_v
        )[3]  # fmt: skip
        return Clock(period_ps / delay, self._fast.registers_ps)

    def ppu_vector_scale(
        self,
        vector_size: int,
        lanes: int,
        output_bits: int,
        scale_bits: int,
        *,
        stages: str = "coarse",
        period_ps: float | None = None,
    ) -> ComponentCost:
        """What per-vector outputs add to the PPU, for vectors of vector_size / lanes slices: their largest
        magnitude, the vector's scale and its reciprocal (a table in logic), and in each of `lanes` lanes a
        multiply by it, shift, rounding and clip. Action op = one vector, whose values all pass the lanes,
        however many lanes there are. Stages are pipelined: `delay_ps` is the slowest; `fine` as in `ppu`."""
        require_count("ppu_vector_scale", "vector_size", vector_size, 1, 128)
        require_count("ppu_vector_scale", "lanes", lanes, 1, vector_size)
        require_count("ppu_vector_scale", "output_bits", output_bits, 2, 16)
        require_count("ppu_vector_scale", "scale_bits", scale_bits, 1, 10)
        logic, value_bits = self._logic, int(self._logic.single("ppu_relu")["width_bits"])
        if is_fine("ppu_vector_scale", stages):
            clock, fine = self._clock(period_ps), self._ppu_stages
            rescale, largest = fine.rescale(output_bits, clock), fine.maximum(lanes, clock)
            of_vector = fine.vector_scale(output_bits, scale_bits, clock)
            names = ("ppu_magnitude", "ppu_running_max", "ppu_scale_add", "ppu_quotient", "ppu_reciprocal")
            rows = fine.rows("ppu_partial", "ppu_sum", "ppu_scaled", "ppu_code", *names)
        else:
            code_bits = min(output_bits, logic.widest_output_bits())
            rescale = logic.requantizer(value_bits, code_bits).then(
                logic.shifter(value_bits + REQUANT_BITS, code_bits), pipelined=True
            )
            largest = logic.running_maximum(lanes)
            of_vector = logic.vector_scale(output_bits, scale_bits).then(
                logic.reciprocal(scale_bits), pipelined=True
            )
            rows = logic.rows(
                "ppu_requant", "ppu_shift", "ppu_magnitude", "ppu_running_max", "ppu_scale", "ppu_reciprocal"
            )  # fmt: skip
        of_slice = largest.then(rescale.times(lanes), pipelined=True)
        slices = vector_size / lanes
        block = of_slice.then(of_vector, pipelined=True)
        op_fj = slices * of_slice.energy_fj["op"] + of_vector.energy_fj["op"]
        notes = (f"{lanes} lanes; a vector takes them {slices:g} times",)
        return self._logic_cost(
            "ppu_vector_scale", replace(block, energy_fj={"op": op_fj}), rows, notes=notes
        )

    def ppu_select(self, ways: int, bits: int) -> ComponentCost:
        """Multiplexer that takes one of `ways` slices of `bits` from an entry of psums. Action op."""
        require_count("ppu_select", "ways", ways, 1, 256)
        require_count("ppu_select", "bits", bits, 1, 1 << 14)
        return self._logic_cost("ppu_select", self._logic.select(ways, bits), self._logic.rows("ppu_select"))


def is_fine(component: str, stages: str) -> bool:
    if stages not in ("coarse", "fine"):
        raise AccelsimError(f"cost of {component}: stages is '{stages}', expected coarse or fine")
    return stages == "fine"


def _per_action(lane: BlockCost, lanes: int) -> BlockCost:
    """`lanes` lanes whose actions are counted one lane at a time."""
    whole = lane.times(lanes)
    return BlockCost(whole.area_um2, whole.leakage_nw, lane.energy_fj, lane.delay_ps)
