"""Lanes with several blocks a word: each block has its own dot product, scale path and registers, and what
adds their products is in no other lane. Modes of a machine have vectors of one block, so that none of them is
such a lane.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from accelsim.costs import ComponentCost, CostLibrary
from accelsim.costs.block_sums import ADDED_AT_ONCE, summed_bits
from accelsim.machine.actions import charged_to
from accelsim.report.modes import Mode
from accelsim.report.part import Part, period_ps, register_part

Price = Callable[..., ComponentCost]


def blocks_of(mode: Mode) -> int:
    """That a lane works on in a step."""
    return mode.arch.blocks_per_word(mode.scheme)


def for_blocks(mode: Mode, price: Price) -> Price:
    """The price of as many of a component, side by side, as a lane has blocks: they act together."""
    blocks = blocks_of(mode)
    if blocks == 1:
        return price

    def priced(*sizes: int) -> ComponentCost:
        return price(*sizes).times(blocks, f"{blocks} side by side, one for each block of a word")

    return priced


def block_accumulator(
    mode: Mode, product_bits: int, values: str | None, library: CostLibrary
) -> ComponentCost:
    bits = mode.arch.accumulator_width(mode.scheme)
    clock: dict[str, Any] = {"values": values, "period_ps": period_ps(mode.arch)}
    return library.block_accumulator(bits, product_bits, blocks_of(mode), **clock)


def block_sum_parts(mode: Mode, product_bits: int, values: str | None, library: CostLibrary) -> list[Part]:
    """What makes two words of the products of more than two blocks, and the register that holds them. That is
    priced at random data: the words of a carry-save tree change more than its products do."""
    arch, blocks = mode.arch, blocks_of(mode)
    if blocks <= ADDED_AT_ONCE:
        return []
    bits, lanes = arch.accumulator_width(mode.scheme), arch.lanes * arch.pes
    price = partial(library.block_sum, values=values, period_ps=period_ps(arch))
    words = 2 * summed_bits(blocks, product_bits, bits)
    return [
        Part("block_sum", "datapath", lanes, price(blocks, product_bits, bits), charged_to("block_sum")),
        register_part("block_sum_register", "datapath", lanes, [words], library),
    ]
