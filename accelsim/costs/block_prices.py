"""Prices of what adds the products of a word's blocks."""

from __future__ import annotations

from dataclasses import replace

from accelsim.costs.block_sums import ADDED_AT_ONCE, MOST_BLOCKS, summed_bits
from accelsim.costs.component import ComponentCost, require_count
from accelsim.costs.lane_prices import LanePrices


class BlockPrices(LanePrices):
    """values: the block format on whose data energies are, or None."""

    def block_accumulator(
        self,
        bits: int,
        product_bits: int,
        blocks: int,
        *,
        values: str | None = None,
        period_ps: float | None = None,
    ) -> ComponentCost:
        """One partial sum plus the products of `blocks` blocks of a word, saturated: two of them as they are,
        more as the two words that `block_sum` makes of them. Action add."""
        name = "block_accumulator"
        require_count(name, "bits", bits, 2, 128)
        require_count(name, "product_bits", product_bits, 2, 128)
        require_count(name, "blocks", blocks, 2, MOST_BLOCKS)
        netlists = self._block_sums.accumulator(bits, product_bits, blocks, values)
        cost = self._in_stages("accumulator", netlists, bits, 1, period_ps, (), values or "dnn")
        if values is not None:
            return cost
        law = self._activity.accumulator(max(bits, product_bits), min(bits, product_bits), blocks)
        return replace(cost, activity={"add": law})

    def block_sum(
        self,
        blocks: int,
        product_bits: int,
        bits: int,
        *,
        values: str | None = None,
        period_ps: float | None = None,
    ) -> ComponentCost:
        """The products of more than two blocks as two words as wide as their sum with a psum of `bits`,
        without the register behind. Action op."""
        require_count("block_sum", "blocks", blocks, ADDED_AT_ONCE + 1, MOST_BLOCKS)
        require_count("block_sum", "product_bits", product_bits, 2, 128)
        require_count("block_sum", "bits", bits, 2, 128)
        netlists = self._block_sums.block_sum(blocks, product_bits, values)
        width = summed_bits(blocks, product_bits, bits)
        return self._in_stages("block_sum", netlists, 2 * width, 1, period_ps, (), values or "dnn")
