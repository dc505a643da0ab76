"""Schemes: the operands of weights and of activations, and their texts.

>>> Scheme.parse("4/8/6/10").weight.scale.bits
6
>>> str(Scheme.parse("4/4/4/4@32:sp4"))
'4/4/4/4@32:sp4'
>>> Scheme.parse("mxfp4").activation.word_bits
136
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property

from accelsim.arguments import expect
from accelsim.errors import AccelsimError
from accelsim.formats.catalogue import FLOAT_SCALE, INT, SCHEMES, integer_operand
from accelsim.formats.operand import MAX_BLOCK, Operand
from accelsim.formats.scale import MAX_SCALE_BITS, Scale

_PATTERN = re.compile(
    r"([0-9]{1,3})/([0-9]{1,3})/([0-9]{1,3}|-|fp)/([0-9]{1,3}|-|fp)(?:@([0-9]{1,4}))?(?::sp([0-9]{1,3}))?"
)
_ACTIVATION_PATTERN = re.compile(r"[0-9]{1,3}/([0-9]{1,3}|-)")
_NO_SCALE = Scale("none", 0, "tensor")


def parse_residual(text: str) -> Operand:
    """`A/as` or `A/-` as the operand of a signed tensor. Raises AccelsimError."""
    try:
        if _ACTIVATION_PATTERN.fullmatch(text):
            bits, _, scale_bits = text.partition("/")
            return Scheme.parse(f"8/{bits}/-/{scale_bits}").activation
    except AccelsimError:
        pass
    raise AccelsimError(f"residual is {text!r}, expected A/as or A/-, such as 8/-")


@dataclass(frozen=True)
class Scheme:
    """What weights and activations are made of. `activation` is the operand of a signed tensor.

    scale_product_bits (`:spN`): the product of two unsigned integer scales is rounded to so many bits; 0, as
    which any width from the full product's on is kept: its full width. Both operands have the same block, or
    None, for which the machine's vector_size stands in. Raises AccelsimError for operands that do not belong
    together.
    """

    weight: Operand
    activation: Operand
    scale_product_bits: int = 0

    def __post_init__(self) -> None:
        if self.activation.scale.gamma == "channel":
            raise AccelsimError(f"scheme {self}: activations have gammas by channel, expected one a tensor")
        for side, operand in (("weight", self.weight), ("activation", self.activation)):
            if not operand.element.signed:
                raise AccelsimError(f"scheme {self}: {side} element is {operand.element}, expected signed")
        if self.weight.block != self.activation.block:
            raise AccelsimError(f"scheme {self}: expected one block for weights and activations")
        if not self.scale_product_bits:
            return
        if (self.weight.scale.kind, self.activation.scale.kind) != ("uint", "uint"):
            raise AccelsimError(f"scheme {self}: :spN needs integer scales on both sides")
        if self.scale_product_bits < 0:
            raise AccelsimError(
                f"scheme {self}: scale-product bits is {self.scale_product_bits}, expected 0 or more"
            )
        if self.scale_product_bits >= self.full_scale_product_bits:
            object.__setattr__(self, "scale_product_bits", 0)

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """Read `W/A/ws/as[@block][:spN]` or a name of the catalogue. Raises AccelsimError for other texts.

        A scale written `fp` is a float32 a vector (VS-Quant's single-level scales): no machine executes it.
        """
        expect(text, str, "scheme", "a text such as 4/4/4/4")
        text = text.strip()
        if text in SCHEMES:
            return cls(*SCHEMES[text])
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise AccelsimError(
                f"scheme '{text[:60]}': expected W/A/ws/as[@block][:spN] such as 8/8/-/-, 4/4/4/4 or "
                f"4/8/6/10:sp8, or one of {', '.join(SCHEMES)}"
            )
        weight, activation, weight_scale, activation_scale, block, product = match.groups()
        for part, name in (
            (weight_scale, "weight-scale bits"),
            (activation_scale, "activation-scale bits"),
            (product, "scale-product bits"),
        ):
            if part is not None and part.isdigit() and int(part) == 0:
                raise AccelsimError(f"scheme '{text}': {name} is 0, write '-' for no scale")
        scheme = cls.integer(
            int(weight),
            int(activation),
            int(weight_scale) if weight_scale.isdigit() else 0,
            int(activation_scale) if activation_scale.isdigit() else 0,
            block=None if block is None else int(block),
        )
        return cls(
            replace(scheme.weight, scale=FLOAT_SCALE) if weight_scale == "fp" else scheme.weight,
            replace(scheme.activation, scale=FLOAT_SCALE) if activation_scale == "fp" else scheme.activation,
            int(product) if product else 0,
        )

    @classmethod
    def integer(
        cls,
        weight_bits: int,
        activation_bits: int,
        weight_scale_bits: int = 0,
        activation_scale_bits: int = 0,
        scale_product_bits: int = 0,
        block: int | None = None,
    ) -> Scheme:
        """VS-Quant's `W/A/ws/as[@block][:spN]` (Dai et al., MLSys 2021, section 6); 0 bits: no scale."""
        text = _integer_text(weight_bits, activation_bits, weight_scale_bits, activation_scale_bits)
        for side, bits in (("weight", weight_bits), ("activation", activation_bits)):
            if bits not in INT:
                raise AccelsimError(
                    f"scheme {text}: {side} bits is {bits}, expected {min(INT)} to {max(INT)}"
                )
        for side, bits in (("weight", weight_scale_bits), ("activation", activation_scale_bits)):
            if not 0 <= bits <= MAX_SCALE_BITS:
                raise AccelsimError(
                    f"scheme {text}: {side}-scale bits is {bits}, expected '-' or 1 to {MAX_SCALE_BITS}"
                )
        if block is not None and not 1 <= block <= MAX_BLOCK:
            raise AccelsimError(f"scheme {text}@{block}: block is {block}, expected 1 to {MAX_BLOCK}")
        return cls(
            integer_operand(weight_bits, weight_scale_bits, gamma="channel", block=block),
            integer_operand(activation_bits, activation_scale_bits, block=block),
            scale_product_bits,
        )

    def __str__(self) -> str:
        block = "" if self._named or self.block is None else f"@{self.block}"
        return self.words_text + block + (f":sp{self.scale_product_bits}" if self.scale_product_bits else "")

    @cached_property
    def _named(self) -> str:
        """Its name in the catalogue, or ""."""
        own = self.weight, self.activation
        return next((name for name, operands in SCHEMES.items() if operands == own), "")

    @cached_property
    def words_text(self) -> str:
        """The text without `:spN`, which changes no word, and without the block, unless a name implies it."""
        weight, activation = replace(self.weight, block=None), replace(self.activation, block=None)
        if self._named or not all(
            replace(own, scale=_NO_SCALE).is_integer and own.scale.kind in ("none", "uint", "float")
            for own in (weight, activation)
        ):
            return self._named or f"{weight}/{activation}"
        scales = "/".join(
            "fp" if own.scale.kind == "float" else str(own.scale.bits or "-") for own in (weight, activation)
        )
        return f"{weight.bits}/{activation.bits}/{scales}"

    @property
    def words_scheme(self) -> Scheme:
        """The scheme that `words_text` names."""
        if self._named:
            return self
        return Scheme(replace(self.weight, block=None), replace(self.activation, block=None))

    @property
    def folder_name(self) -> str:
        """The scheme as a file name: '/' and ':' become '_'."""
        return str(self).replace("/", "_").replace(":", "_")

    @property
    def block(self) -> int | None:
        """Codes a word; None: as many as the machine's vector_size."""
        return self.weight.block

    @property
    def is_integer(self) -> bool:
        """True where codes and scales of both sides are plain integers (VS-Quant); else a block format."""
        return self.weight.is_integer and self.activation.is_integer

    @property
    def is_aligned(self) -> bool:
        """True where the scales of both sides are numbers with an exponent (OCP MX, NVFP4): a lane aligns
        what it adds to its accumulator."""
        return all(own.scale.kind in ("e8m0", "e4m3") for own in (self.weight, self.activation))

    @property
    def has_scales(self) -> bool:
        """True when either side carries a per-vector scale, so that the multiply stage exists."""
        return bool(self.weight.scale.bits or self.activation.scale.bits)

    @property
    def full_scale_product_bits(self) -> int:
        """Width of ws * as before rounding; a missing side takes 0 bits."""
        return self.weight.scale.bits + self.activation.scale.bits

    @property
    def scale_product_shift(self) -> int:
        """Bits dropped by `:spN` (sh in docs/numerics.md); 0 without it."""
        return self.full_scale_product_bits - self.scale_product_bits if self.scale_product_bits else 0

    @property
    def scale_bits(self) -> int:
        """Width of the scale that multiplies the dot product; 0 without scales."""
        return self.scale_product_bits or self.full_scale_product_bits

    @property
    def largest_full_product(self) -> int:
        """Largest ws * as, a missing side being the factor 1."""
        return (self.weight.scale.max_code or 1) * (self.activation.scale.max_code or 1)

    @property
    def max_scale_product(self) -> int:
        """Largest value of the (rounded) scale product; 1 without scales."""
        full, shift = self.largest_full_product, self.scale_product_shift
        if not shift:
            return full
        return min((full + (1 << (shift - 1))) >> shift, (1 << self.scale_product_bits) - 1)


def _integer_text(weight: int, activation: int, weight_scale: int, activation_scale: int) -> str:
    return f"{weight}/{activation}/{weight_scale or '-'}/{activation_scale or '-'}"
