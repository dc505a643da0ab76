"""What lanes compute on real data, as operands of any width: `steps.csv`, from benchmarks/measure_steps.py.

A row is one step of a lane on a bundled trace quantized at 8/8/10/10: its dot product (and that at 8/8/10/-),
both scale codes, and the psum before the product is added. Rows of a block are neighbouring pixels under one
weight vector, as os-lws computes them, so signs and sizes change from step to step as they do in the machine.
Narrower operands are these with low bits rounded away: what matters is the share of full scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TABLE = Path(__file__).with_name("steps.csv")
# Widths in the table: 8 + 9 + log2(16) bits of a dot product, 10 of a scale.
DOT_BITS, SCALE_BITS = 21, 10
NARROWEST_SCALE_BITS = 4

Values = NDArray[np.int64]


class Steps:
    """Columns of the table; every method gives int64[step], in the order of the steps."""

    @cached_property
    def _columns(self) -> dict[str, Values]:
        with TABLE.open(encoding="utf-8") as file:
            names = file.readline().strip().split(",")
            values = np.loadtxt(file, dtype=np.int64, delimiter=",", ndmin=2)
        return dict(zip(names, values.T, strict=True))

    @property
    def count(self) -> int:
        return len(self._columns["dot"])

    def dots(self, bits: int, *, held_scale: bool) -> Values:
        """Signed. held_scale: of the scheme with weight scales alone."""
        column = "weight_scaled_dot" if held_scale else "dot"
        return _narrowed(self._columns[column], DOT_BITS - bits)

    def weight_scales(self, bits: int, *, held: bool) -> Values:
        """Unsigned, never 0. held: for the steps of a block; otherwise of another block at every step."""
        scales = self._columns["weight_scale"]
        return _code(scales if held else scales[self._scattered], SCALE_BITS, bits)

    def activation_scales(self, bits: int) -> Values:
        return _code(self._columns["activation_scale"], SCALE_BITS, bits)

    def scales(self, bits: int, *, held_scale: bool) -> Values:
        """What multiplies the dot product: the weight scale alone, or the product of both scales.

        Of 8 bits and more it is the full product of scales half as wide each (10 of 4 and 6), of fewer that
        of two of 4 bits, rounded. A product of integers has more zeros at its low end than a number of as
        many bits.
        """
        if held_scale:
            return self.weight_scales(bits, held=True)
        weight_bits = max(NARROWEST_SCALE_BITS, bits // 4 * 2)
        activation_bits = max(NARROWEST_SCALE_BITS, bits - weight_bits)
        products = self.weight_scales(weight_bits, held=True) * self.activation_scales(activation_bits)
        return _code(products, weight_bits + activation_bits, bits)

    def products(self, bits: int) -> Values:
        """Signed; both scales and dot product."""
        return _narrowed(self._exact_products, DOT_BITS + 2 * SCALE_BITS - bits)

    def psums(self, product_bits: int) -> Values:
        """Signed; sums of products of so many bits, before that of the step is added."""
        return _narrowed(self._columns["psum"], DOT_BITS + 2 * SCALE_BITS - product_bits)

    @property
    def _exact_products(self) -> Values:
        columns = self._columns
        return columns["dot"] * columns["weight_scale"] * columns["activation_scale"]

    @property
    def _scattered(self) -> Values:
        """Steps in an order in which neighbours are of different blocks."""
        stride = 1 + self.count // 2
        while np.gcd(stride, self.count) != 1:
            stride += 1
        return np.arange(self.count) * stride % self.count


def _narrowed(values: Values, dropped: int) -> Values:
    """Values without their low bits, rounded half up; with so many more where `dropped` is negative."""
    if dropped <= 0:
        return values << -dropped
    return (values + (1 << (dropped - 1))) >> dropped


def _code(codes: Values, from_bits: int, to_bits: int) -> Values:
    """Unsigned codes in a narrower or wider full scale; never 0, as no such step switches anything."""
    largest = (1 << to_bits) - 1
    return np.clip(_narrowed(codes, from_bits - to_bits), 1, largest)


def apart(values: Values, blocks: int) -> list[Values]:
    """For each of so many blocks that are added in a step the same values, beginning where they are as far
    apart in the table as can be."""
    return [np.roll(values, -(block * len(values) // blocks)) for block in range(blocks)]


def carry_saved(words: Sequence[Values], bits: int) -> list[Values]:
    """Two words of the same sum modulo 2^bits, by rows of full adders as accelsim/rtl/carry_save.sv has."""
    mask = (1 << bits) - 1
    rows = [word & mask for word in words]
    while len(rows) > 2:
        whole = len(rows) // 3 * 3
        below = []
        for a, b, c in zip(rows[0:whole:3], rows[1:whole:3], rows[2:whole:3], strict=True):
            below += [a ^ b ^ c, (a & b | a & c | b & c) << 1 & mask]
        rows = below + rows[whole:]
    return rows


STEPS = Steps()
