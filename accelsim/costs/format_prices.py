"""Prices of what block formats add to lanes and PPUs (docs/numerics.md, Block formats)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from accelsim.costs.block_prices import BlockPrices
from accelsim.costs.component import ComponentCost, require_count
from accelsim.costs.fast import SCALE_STAGES
from accelsim.costs.format_blocks import FORMATS, QUANTIZE_FAMILIES, scale_families
from accelsim.costs.netlists import AREA, FAST
from accelsim.costs.ppu import in_a_row
from accelsim.costs.ppu_prices import PpuPrices, is_fine
from accelsim.costs.tables import Row
from accelsim.errors import AccelsimError

# Of a layer, in a PE: what exponents are subtracted from, and the exponent of what the PPU writes.
LAYER_CONSTANT_BITS = 24


class FormatPrices(BlockPrices, PpuPrices):
    """values: the format, `mxint8`, `mxfp4` or `nvfp4`, on whose real data energies are measured."""

    def element_decode(self, elements: int, *, values: str) -> ComponentCost:
        """Codes of float elements to two's complement. Action op, all of them."""
        require_count("element_decode", "elements", elements, 1, 128)
        _require_format("element_decode", values, [own for own in FORMATS if own != "mxint8"])
        block = self._formats.decode(values).times(elements)
        return self._logic_cost("element_decode", block, self._formats.decode_rows(values), stimulus=values)

    def scale_sum(
        self, amount_bits: int, *, values: str, stages: int = 1, period_ps: float | None = None
    ) -> ComponentCost:
        """Both scales' exponents and the layer's constant to a shift amount of `amount_bits`, limited. In
        `stages` cycles, as the dot product beside it. Action op; with registers also idle."""
        require_count("scale_sum", "amount_bits", amount_bits, 2, 7)
        require_count("scale_sum", "stages", stages, 1, 4)
        _require_format("scale_sum", values)
        netlists = self._formats.scale_sum(values, amount_bits)
        return self._in_stages("scale_sum", netlists, amount_bits, stages, period_ps, (), values)

    def align(
        self,
        bits: int,
        accumulator_bits: int,
        *,
        values: str,
        stages: int = 1,
        period_ps: float | None = None,
    ) -> ComponentCost:
        """A product of `bits` shifted to the lsb of an accumulator, rounded and limited to two bits more than
        that has, in `stages` cycles. Action op; with registers also idle. Rounded to nearest: to floor takes
        an incrementer less, which has no price of its own."""
        require_count("align", "bits", bits, 4, 40)
        require_count("align", "accumulator_bits", accumulator_bits, 14, 62)
        require_count("align", "stages", stages, 1, max(SCALE_STAGES))
        _require_format("align", values)
        netlists = self._formats.align(values, bits, accumulator_bits)
        return self._in_stages("align", netlists, accumulator_bits + 2, stages, period_ps, (), values)

    def aligned_accumulator(self, bits: int, *, values: str, period_ps: float | None = None) -> ComponentCost:
        """One partial sum plus an aligned term of two bits more, saturated. Action add."""
        require_count("accumulator", "bits", bits, 14, 62)
        _require_format("accumulator", values)
        laws = {AREA: self._logic.accumulator, FAST: self._fast.accumulator}
        netlists = self._formats.accumulator(values, bits, laws)
        return self._in_stages("accumulator", netlists, bits, 1, period_ps, (), values)

    def ppu_block_scale(
        self,
        block_size: int,
        lanes: int,
        *,
        values: str,
        stages: str = "coarse",
        period_ps: float | None = None,
    ) -> ComponentCost:
        """The largest magnitude of a block's outputs, which pass `lanes` lanes, its scale, and what all of
        the block is quantized with. Action op = one block. Stages are pipelined, as of `ppu`; of e4m3 the
        scale takes two."""
        return self._ppu_block("ppu_block_scale", block_size, lanes, values, stages, period_ps)

    def ppu_block_quantize(
        self,
        block_size: int,
        lanes: int,
        *,
        values: str,
        stages: str = "coarse",
        period_ps: float | None = None,
    ) -> ComponentCost:
        """In each of `lanes` lanes the shift by the block's exponent and the choice of a code. Action op =
        one block, whose values all pass the lanes."""
        return self._ppu_block("ppu_block_quantize", block_size, lanes, values, stages, period_ps)

    def _ppu_block(
        self, component: str, block_size: int, lanes: int, values: str, stages: str, period_ps: float | None
    ) -> ComponentCost:
        require_count(component, "block_size", block_size, 1, 1024)
        require_count(component, "lanes", lanes, 1, block_size)
        _require_format(component, values)
        # Without registers in multiplies there is no clock that netlists are chosen by.
        clock = self._clock(period_ps if is_fine(component, stages) else None)
        of_scale = component == "ppu_block_scale"
        families: Sequence[str] = scale_families(values) if of_scale else QUANTIZE_FAMILIES
        stages_of = [self._formats.ppu_stage(family, values, clock) for family in families]
        rows: list[Row] = self._formats.rows(values, *families)
        slices, whole = block_size / lanes, in_a_row(stages_of)
        if of_scale:
            largest = self._ppu_stages.maximum(lanes, clock)
            rows += self._ppu_stages.rows("ppu_magnitude", "ppu_running_max")
            op_fj = slices * largest.energy_fj["op"] + whole.energy_fj["op"]
            whole = largest.then(whole, pipelined=True)
        else:
            op_fj = block_size * whole.energy_fj["op"]
            whole = whole.times(lanes)
        notes = (f"{lanes} lanes; a block takes them {slices:g} times",)
        return self._logic_cost(
            component, replace(whole, energy_fj={"op": op_fj}), rows, notes=notes, stimulus=values
        )


def _require_format(component: str, values: str, known: Sequence[str] = FORMATS) -> None:
    if values not in known:
        raise AccelsimError(f"cost of {component}: values is {values!r}, expected one of {', '.join(known)}")
