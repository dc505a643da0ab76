"""Prices of a lane's arithmetic, by the clock that it must keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from accelsim.costs.component import BlockCost, Branch, ClockSinks, ComponentCost, require_count
from accelsim.costs.dot import CHANGING
from accelsim.costs.fast import DOT_STAGES, PRODUCT_STAGES, SCALE_STAGES
from accelsim.costs.logic import REGISTER_BITS
from accelsim.costs.logic_prices import LogicPrices, require_positive, stimulus_of
from accelsim.costs.netlists import AREA, FAST, Netlist, choose


class LanePrices(LogicPrices):
    """`period_ps`: the clock period at the technology. The netlist mapped for area is priced where it meets
    it or there is none, else the smallest that does, or the fastest where none does. Delays are those of the
    slowest stage, with the registers around it.
    """

    def dot_product(
        self,
        vector_size: int,
        weight_bits: int,
        activation_operand_bits: int,
        *,
        held_operand: bool,
        stages: int = 1,
        period_ps: float | None = None,
        values: str | None = None,
    ) -> ComponentCost:
        """Signed vector_size x weight_bits x activation_operand_bits in `stages` cycles. `held_operand`:
        weights stay for 16 operations. values: the block format whose decoded codes the operands are. Actions
        op and gated (operands do not change, nothing switches); with registers between stages also idle, in
        every cycle."""
        require_count("dot_product", "vector_size", vector_size, 1, 128)
        require_count("dot_product", "weight_bits", weight_bits, 2, 8)
        require_count("dot_product", "activation_operand_bits", activation_operand_bits, 2, 9)
        require_count("dot_product", "stages", stages, 1, max(DOT_STAGES))
        sizes = vector_size, weight_bits, activation_operand_bits
        bits = weight_bits + activation_operand_bits + (vector_size - 1).bit_length()
        netlists = [
            Netlist(
                AREA, 1, self._dots.cost(*sizes, held_operand=held_operand), self._dots.rows(held_operand)
            )
        ]
        for count in range(1, stages + 1):
            dots = self._fast.dots[count]
            fast = dots.cost(*sizes, held_operand=held_operand)
            netlists.append(Netlist(FAST, count, fast, dots.rows(stimulus_of(held_operand))))
        notes = ["widths not synthesized: by the partial-product law through the neighbouring rows"]
        if min(weight_bits, activation_operand_bits) == 2:
            notes.append("2-bit operands are mostly zero under this stimulus: energy close to nothing")
        cost = self._in_stages(
            "dot_product", netlists, bits, stages, period_ps, notes, stimulus_of(held_operand)
        )
        over = _changing_over_held(lambda held: self._dots.cost(*sizes, held_operand=held))
        law = self._activity.dot_product(*sizes, held=held_operand, changing_over_held=over, values=values)
        return replace(self._on("dot_product", cost, values, held_operand), activity={"op": law})

    def zero_detect(self, bits: int) -> ComponentCost:
        """All-zero detect of `bits` bits (an OR tree). Action op."""
        require_count("zero_detect", "bits", bits, 1, 4096)
        return self._logic_cost("zero_detect", self._logic.zero_detect(bits), self._logic.rows("zero_detect"))

    def scale_product(
        self,
        weight_scale_bits: int,
        activation_scale_bits: int,
        scale_product_bits: int,
        *,
        held: bool,
        stages: int = 1,
        period_ps: float | None = None,
        values: str | None = None,
    ) -> ComponentCost:
        """Product of the two scales (values: of the significands of this block format's), rounded to
        `scale_product_bits` (0 = full width). 0 bits = absent side; with one side alone only rounding costs
        anything (priced as an adder). In `stages` cycles, as the dot product beside it. held: weight scales
        stay for 16 operations. Action op; with registers also idle."""
        require_count("scale_product", "weight_scale_bits", weight_scale_bits, 0, 10)
        require_count("scale_product", "activation_scale_bits", activation_scale_bits, 0, 10)
        full = weight_scale_bits + activation_scale_bits
        require_count("scale_product", "scale_product_bits", scale_product_bits, 0, full)
        require_count("scale_product", "stages", stages, 1, max(DOT_STAGES))
        bits = weight_scale_bits, activation_scale_bits, scale_product_bits or full
        block = self._logic.scale_product(*bits, held=held)
        netlists = [Netlist(AREA, 1, block, self._logic.rows("scale_product"))]
        if weight_scale_bits and activation_scale_bits:
            for count in PRODUCT_STAGES[:stages]:
                fast = self._fast.scale_product(*bits, stages=count, held=held)
                netlists.append(Netlist(FAST, count, fast, self._fast.rows("scale_product", count)))
        # A weight's scale alone stays as long as it.
        data = "held" if held and not activation_scale_bits else "random"
        cost = self._in_stages(
            "scale_product", netlists, bits[2], stages, period_ps, (), stimulus_of(held), data
        )
        if not weight_scale_bits or not activation_scale_bits:
            return cost
        over = _changing_over_held(lambda held: self._logic.scale_product(*bits, held=held))
        law = self._activity.held_or_changing("scale_product", *bits[:2], held=held, changing_over_held=over)
        return replace(self._on("scale_product", cost, values, held), activity={"op": law})

    def scale_multiply(
        self,
        dot_bits: int,
        scale_bits: int,
        *,
        held: bool,
        stages: int = 1,
        period_ps: float | None = None,
        values: str | None = None,
    ) -> ComponentCost:
        """Signed dot product times unsigned scale (values: those of this block format), full product, in
        `stages` cycles. held: the scale stays for 16 operations, as that of weights alone does. Action op;
        with stage registers also idle."""
        require_count("scale_multiply", "dot_bits", dot_bits, 2, 32)
        require_count("scale_multiply", "scale_bits", scale_bits, 1, 20)
        require_count("scale_multiply", "stages", stages, 1, max(SCALE_STAGES))
        block = self._logic.scale_multiply(dot_bits, scale_bits, held=held)
        netlists = [Netlist(AREA, 1, block, self._logic.rows("scaling_mul"))]
        for count in range(1, stages + 1):
            fast = self._fast.scale_multiply(dot_bits, scale_bits, stages=count, held=held)
            netlists.append(Netlist(FAST, count, fast, self._fast.rows("scaling_mul", count)))
        cost = self._in_stages(
            "scale_multiply", netlists, dot_bits + scale_bits, stages, period_ps, (), stimulus_of(held)
        )
        bits = dot_bits, scale_bits
        over = _changing_over_held(lambda held: self._logic.scale_multiply(*bits, held=held))
        law = self._activity.held_or_changing("scale_multiply", *bits, held=held, changing_over_held=over)
        return replace(self._on("scale_multiply", cost, values, held), activity={"op": law})

    def accumulator(self, bits: int, product_bits: int, *, period_ps: float | None = None) -> ComponentCost:
        """One partial sum plus a product of `product_bits`, saturated. Action add."""
        require_count("accumulator", "bits", bits, 2, 128)
        require_count("accumulator", "product_bits", product_bits, 2, 128)
        netlists = [
            Netlist(AREA, 1, self._logic.accumulator(bits, product_bits), self._logic.rows("accumulator")),
            Netlist(FAST, 1, self._fast.accumulator(bits, product_bits), self._fast.rows("accumulator")),
        ]
        cost = self._in_stages("accumulator", netlists, bits, 1, period_ps, (), CHANGING)
        wider, narrower = max(bits, product_bits), min(bits, product_bits)
        return replace(cost, activity={"add": self._activity.accumulator(wider, narrower)})

    def _on(self, component: str, cost: ComponentCost, values: str | None, held: bool) -> ComponentCost:
        """With the energy of an operation on a block format's data."""
        if values is None:
            return cost
        factor = self._formats.over_usual(component, values, held=held)
        note = f"energy x {factor:.4g}: operands of {values} over {cost.stimulus}, of its row at V = 16"
        energy_pj = {**cost.energy_pj, "op": cost.energy_pj["op"] * factor}
        return replace(cost, energy_pj=energy_pj, stimulus=values, scaling=(*cost.scaling, note))

    def _in_stages(
        self,
        component: str,
        netlists: Sequence[Netlist],
        result_bits: int,
        stages: int,
        period_ps: float | None,
        notes: Sequence[str],
        stimulus: str,
        data: str = "random",
    ) -> ComponentCost:
        """The chosen one of `netlists` as a component of `stages` cycles."""
        if period_ps is not None:
            require_positive(component, "period_ps", period_ps, math.inf)
        delay = self._logic_scaling.factors(self.technology, self._datapath.node_nm, self._datapath.vdd_v)[3]
        whole = [
            own.in_stages(stages, self._logic.register(result_bits, data), self._fast.registers_ps)
            for own in netlists
        ]
        chosen = choose(whole, None if period_ps is None else period_ps / delay)
        said = (
            *notes,
            chosen.said(stages),
            f"registers around a stage: {self._fast.registers_ps * delay:.0f} ps",
        )
        cost = self._logic_cost(component, chosen.block, chosen.rows, notes=said, stimulus=stimulus)
        cost = replace(cost, netlist=(chosen.made, chosen.stages))
        idle_fj = chosen.block.energy_fj.get("idle", 0.0)
        if not idle_fj:
            return cost
        # As many gates as idle like those of a register, each taken for full.
        one = self._logic.register(REGISTER_BITS)
        gates = idle_fj / one.energy_fj["idle"]
        area = one.area_um2 * cost.area_um2 / chosen.block.area_um2
        branch = Branch(gates * REGISTER_BITS, area / REGISTER_BITS)
        return replace(cost, clock=ClockSinks(gates=gates, branch=branch, action="op"))


def _changing_over_held(block: Callable[[bool], BlockCost]) -> float:
    """Energy where the weight operand changes at every operation over that where it is held."""
    return block(False).energy_fj["op"] / block(True).energy_fj["op"]
