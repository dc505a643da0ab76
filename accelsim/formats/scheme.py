"""Precision schemes `W/A/ws/as[:spN]` (VS-Quant, MLSys 2021, section 6).

>>> Scheme.parse("4/8/6/10").weight_scale_bits
6
>>> str(Scheme.parse("4/4/4/4:sp4"))
'4/4/4/4:sp4'
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from accelsim.errors import AccelsimError

MIN_OPERAND_BITS, MAX_OPERAND_BITS = 2, 8
MIN_SCALE_BITS, MAX_SCALE_BITS = 1, 10
_PATTERN = re.compile(r"([0-9]{1,3})/([0-9]{1,3})/([0-9]{1,3}|-)/([0-9]{1,3}|-)(?::sp([0-9]{1,3}))?")


@dataclass(frozen=True, order=True)
class Scheme:
    """Bit widths of weights, activations and their per-vector scales.

    A scale width of 0 means that side carries no per-vector scale ('-' in text); `scale_product_bits`
    of 0 means the scale product keeps its full width.
    """

    weight_bits: int
    activation_bits: int
    weight_scale_bits: int = 0
    activation_scale_bits: int = 0
    scale_product_bits: int = 0

    def __post_init__(self) -> None:
        for side, bits in (("weight", self.weight_bits), ("activation", self.activation_bits)):
            if not MIN_OPERAND_BITS <= bits <= MAX_OPERAND_BITS:
                raise AccelsimError(
                    f"scheme {self}: {side} bits is {bits}, expected {MIN_OPERAND_BITS} to {MAX_OPERAND_BITS}"
                )
        for side, bits in (("weight", self.weight_scale_bits), ("activation", self.activation_scale_bits)):
            if bits and not MIN_SCALE_BITS <= bits <= MAX_SCALE_BITS:
                raise AccelsimError(
                    f"scheme {self}: {side}-scale bits is {bits}, expected '-' or "
                    f"{MIN_SCALE_BITS} to {MAX_SCALE_BITS}"
                )
        if self.scale_product_bits < 0 or (self.scale_product_bits and self.scale_product_shift < 1):
            raise AccelsimError(
                f"scheme {self}: a scale product rounded to {self.scale_product_bits} bits must be narrower "
                f"than the full product of {self.full_scale_product_bits} bits"
            )

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """Read `W/A/ws/as[:spN]`. Raises AccelsimError for anything else."""
        match = _PATTERN.fullmatch(text.strip())
        if match is None:
            raise AccelsimError(
                f"scheme '{text[:60]}': expected W/A/ws/as[:spN] such as 8/8/-/-, 4/4/4/4 or 4/8/6/10:sp8"
            )
        weight, activation, weight_scale, activation_scale, product = match.groups()
        for part, name in (
            (weight_scale, "weight-scale"),
            (activation_scale, "activation-scale"),
            (product, "scale-product"),
        ):
            if part is not None and part != "-" and int(part) == 0:
                raise AccelsimError(f"scheme '{text}': {name} bits is 0, write '-' for no scale")
        return cls(
            int(weight),
            int(activation),
            0 if weight_scale == "-" else int(weight_scale),
            0 if activation_scale == "-" else int(activation_scale),
            int(product) if product else 0,
        )

    def __str__(self) -> str:
        def dash(bits: int) -> str:
            return str(bits) if bits else "-"

        base = (
            f"{self.weight_bits}/{self.activation_bits}/"
            f"{dash(self.weight_scale_bits)}/{dash(self.activation_scale_bits)}"
        )
        return f"{base}:sp{self.scale_product_bits}" if self.scale_product_bits else base

    @property
    def folder_name(self) -> str:
        """The scheme as a file name: '/' and ':' become '_'."""
        return str(self).replace("/", "_").replace(":", "_")

    @property
    def has_scales(self) -> bool:
        """True when either side carries a per-vector scale, so that the multiply stage exists."""
        return bool(self.weight_scale_bits or self.activation_scale_bits)

    @property
    def full_scale_product_bits(self) -> int:
        """Width of ws * as before rounding; a missing side takes 0 bits."""
        return self.weight_scale_bits + self.activation_scale_bits

    @property
    def scale_product_shift(self) -> int:
        """Bits dropped by `:spN` (sh in docs/machine.md); 0 without it."""
        return self.full_scale_product_bits - self.scale_product_bits if self.scale_product_bits else 0

    @property
    def scale_bits(self) -> int:
        """Width of the scale that multiplies the dot product; 0 without scales."""
        return self.scale_product_bits or self.full_scale_product_bits

    @property
    def max_scale_product(self) -> int:
        """Largest value of the (rounded) scale product; 1 without scales."""
        if self.scale_product_bits:
            full = self.largest_full_product
            shift = self.scale_product_shift
            return min((full + (1 << (shift - 1))) >> shift, (1 << self.scale_product_bits) - 1)
        return self.largest_full_product

    @property
    def largest_full_product(self) -> int:
        def largest(bits: int) -> int:
            return (1 << bits) - 1 if bits else 1

        return largest(self.weight_scale_bits) * largest(self.activation_scale_bits)

    @property
    def weight_max(self) -> int:
        """qmax of the weights: 2^(W-1) - 1; weight codes lie in [-weight_max, weight_max]."""
        return (1 << (self.weight_bits - 1)) - 1

    def activation_max(self, signed: bool) -> int:
        """qmax of the activations, 2^(A-1) - 1 signed or 2^A - 1 unsigned."""
        return (1 << (self.activation_bits - 1)) - 1 if signed else (1 << self.activation_bits) - 1

    def activation_min(self, signed: bool) -> int:
        """Smallest activation code: -qmax signed, 0 unsigned."""
        return -self.activation_max(True) if signed else 0
