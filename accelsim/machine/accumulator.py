"""Widths of accumulators: the values of `accumulator_bits`, and what `auto` comes to (docs/numerics.md)."""

from __future__ import annotations

from functools import cache
from typing import Literal

from accelsim.formats.scheme import Scheme

# The longest reduction of ResNet-50, 3*3*512 products: what `auto` is sized for.
LONGEST_REDUCTION = 4608
MIN_ACCUMULATOR_BITS, MAX_ACCUMULATOR_BITS = 24, 62
# Of block formats: fewer leave the PPU no multiplier.
ALIGNED_BITS = 14, 48
# Of block formats: float32's significand, a sign, and what partial sums may exceed the largest output by.
HEADROOM_BITS = 3
BLOCK_FORMAT_BITS = 24 + 1 + HEADROOM_BITS
# Values that a workload makes a number of (sizing.py).
SIZED_BY_WORKLOAD = ("weights", "data")
POLICIES = ("auto", *SIZED_BY_WORKLOAD)


def is_known(bits: int | str) -> bool:
    """True for a policy and for a width that lanes can have."""
    return 2 <= bits <= MAX_ACCUMULATOR_BITS if isinstance(bits, int) else bits in POLICIES


@cache
def width_of_sums(
    scheme: Scheme, activation_sign: Literal["both", "signed", "unsigned"], product_shift: int
) -> int:
    """Bits that hold LONGEST_REDUCTION worst-case products; the mapper asks for every candidate."""
    if not scheme.is_integer:
        return BLOCK_FORMAT_BITS
    signs = {"both": (True, False), "signed": (True,), "unsigned": (False,)}[activation_sign]
    qmax_a = max(scheme.activation.of_sign(signed).qmax for signed in signs)
    bound = LONGEST_REDUCTION * scheme.weight.qmax * qmax_a * scheme.max_scale_product
    return max(MIN_ACCUMULATOR_BITS, (bound >> product_shift).bit_length() + 1)
