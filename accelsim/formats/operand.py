"""Operands: one side of a product as words of codes with their scale, and all that follows from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from accelsim.errors import AccelsimError
from accelsim.formats.element import Element
from accelsim.formats.scale import Scale

MAX_BLOCK = 1024


@dataclass(frozen=True)
class Operand:
    """Codes of one element in blocks of `block`, which share a scale; a block is a word of the hardware.

    block: None where it is not yet known: the machine's vector_size then takes its place (`in_blocks`).
    """

    element: Element
    scale: Scale
    block: int | None = None

    def __post_init__(self) -> None:
        if self.block is not None and not 1 <= self.block <= MAX_BLOCK:
            raise AccelsimError(f"operand {self}: block is {self.block}, expected 1 to {MAX_BLOCK}")

    def __str__(self) -> str:
        scaled = "" if self.scale.kind == "none" else f"*{self.scale}"
        return f"{self.element}{scaled}" + (f"@{self.block}" if self.block else "")

    def in_blocks(self, size: int) -> Operand:
        """The operand in blocks of `size`, unless it says itself how large they are."""
        return self if self.block else replace(self, block=size)

    def of_sign(self, signed: bool) -> Operand:
        """The operand of a tensor: the unsigned twin where it is never negative and the element has one."""
        twin = None if signed else self.element.unsigned
        return self if twin is None else replace(self, element=twin)

    @property
    def bits(self) -> int:
        """Of one code."""
        return self.element.bits

    @property
    def decoded_bits(self) -> int:
        """Of a code as a lane multiplies it, in two's complement or unsigned: a float's decoded."""
        element = self.element
        if element.is_integer:
            return element.bits
        return max(element.qmax.bit_length() + 1, (-element.qmin).bit_length() + 1)

    @property
    def qmax(self) -> int:
        """The largest code value, in units of the element's 2^lsb."""
        return self.element.qmax

    @property
    def qmin(self) -> int:
        """The smallest that quantization makes, in the same units: -qmax signed, 0 unsigned."""
        return self.element.qmin

    @property
    def is_integer(self) -> bool:
        """True where codes and scales are plain integers, so that products can be summed as such."""
        return self.element.is_integer and self.element.lsb == 0 and self.scale.kind in ("none", "uint")

    @property
    def largest(self) -> float:
        """The largest magnitude there is for gamma = 1: that of the codes times that of the scales."""
        return self.element.largest * self.scale.largest

    @cached_property
    def word_bits(self) -> int:
        """Bits of a word: a block of codes and its scale."""
        if self.block is None:
            raise ValueError(f"operand {self} has no block yet")
        return self.bits_of(self.block)

    def bits_of(self, values: int) -> int:
        """Bits of so many values that follow each other: their codes, and a scale for each block begun."""
        if not self.scale.bits:
            return values * self.bits
        if self.block is None:
            raise ValueError(f"operand {self} has no block yet")
        return values * self.bits + -(-values // self.block) * self.scale.bits
