"""Elements: what each code of a small number format is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Element:
    """A number format of a few bits, code by code.

    values[code] * 2^lsb is what a code is worth; a code is its bits read as an unsigned number. `special`
    names the codes that stand for no number: "nan", "inf", "-inf", or "unused" for one that neither is made
    nor may be read; their entry in `values` is 0. `unsigned` is the twin of an integer element that serves
    tensors which are never negative; None where there is none. exponent_bits: of a code with an exponent;
    0 of integers.
    """

    name: str
    bits: int
    signed: bool
    lsb: int
    values: tuple[int, ...]
    special: tuple[tuple[int, str], ...] = ()
    unsigned: Element | None = None
    exponent_bits: int = 0

    def __post_init__(self) -> None:
        assert len(self.values) == 1 << self.bits, self.name

    def __hash__(self) -> int:
        return hash(self.name)  # hashing all values whenever a scheme is looked up would take long

    def __str__(self) -> str:
        return self.name

    @cached_property
    def is_integer(self) -> bool:
        """True where codes count in steps of 2^lsb, in two's complement if signed, and are stored as such."""
        special = {code for code, _ in self.special}
        counts = range(1 << self.bits)
        return all(self.values[c] == self._count(c) for c in counts if c not in special)

    def _count(self, code: int) -> int:
        return code - (1 << self.bits) if self.signed and code >> (self.bits - 1) else code

    @property
    def qmax(self) -> int:
        """The largest value there is, in units of 2^lsb."""
        return max(self.values)

    @property
    def qmin(self) -> int:
        """The smallest value that quantization makes, in units of 2^lsb: ranges are symmetric about 0."""
        return -self.qmax if self.signed else 0

    @property
    def largest(self) -> float:
        """The largest value there is."""
        return float(self.qmax) * 2.0**self.lsb

    @property
    def largest_exponent(self) -> int:
        """floor(log2) of the largest value: emax in OCP MX v1.0."""
        return self.qmax.bit_length() - 1 + self.lsb

    @property
    def dtype(self) -> type[np.int8] | type[np.uint8]:
        """How codes are stored: int8 for signed integers, else the bare bits in uint8."""
        return np.int8 if self.is_integer and self.signed else np.uint8

    @cached_property
    def stored_range(self) -> tuple[int, int]:
        """(lowest, highest) code that may be read, as stored; between them lie special codes, if any."""
        special = {code for code, _ in self.special}
        codes = [c for c in range(1 << self.bits) if c not in special]
        stored = [self._count(c) for c in codes] if self.dtype is np.int8 else codes
        return min(stored), max(stored)

    @cached_property
    def special_between(self) -> tuple[int, ...]:
        """Special codes inside of `stored_range`, as stored."""
        low, high = self.stored_range
        stored = (self._count(code) if self.dtype is np.int8 else code for code, _ in self.special)
        return tuple(sorted(code for code in stored if low < code < high))

    @cached_property
    def _table(self) -> NDArray[np.float64]:
        table = np.ldexp(np.array(self.values, np.float64), self.lsb)
        if self.signed and not self.is_integer:
            table[1 << (self.bits - 1)] = -0.0
        for code, name in self.special:
            table[code] = {"inf": np.inf, "-inf": -np.inf}.get(name, np.nan)
        return table

    def decode(self, codes: NDArray[np.integer]) -> NDArray[np.float64]:
        """float64 of any shape: what stored codes are worth, exactly. An unused code is not a number."""
        return self._table[codes.astype(np.int64) & ((1 << self.bits) - 1)]

    @cached_property
    def steps(self) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """(codes of the values from 0 up, ascending; the middle from each to the next, in units of 2^lsb)."""
        special = {code for code, _ in self.special}
        codes = [c for c in range(1 << self.bits) if c not in special and self.values[c] >= 0]
        # Of two zeros the first is the positive one.
        codes = sorted({self.values[c]: c for c in reversed(codes)}.values(), key=lambda c: self.values[c])
        values = np.array([self.values[c] for c in codes], np.float64)
        return np.array(codes, np.uint8), (values[:-1] + values[1:]) / 2

    def encode(self, values: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Codes of a float element nearest to finite `values`, ties to the even code, saturating.

        A negative value that rounds to 0 becomes the negative zero. The definition; `loops.encode_float_runs`
        is the same compiled.
        """
        codes, middles = self.steps
        scaled = np.ldexp(np.abs(values.astype(np.float64)), -self.lsb)
        below = np.searchsorted(middles, scaled, side="left")
        tie = np.searchsorted(middles, scaled, side="right") > below
        # Neighbours differ in their last bit, so of the two at a tie one is even.
        code = codes[below + (tie & (codes[below] % 2 == 1))]
        sign = np.uint8(1 << (self.bits - 1) if self.signed else 0)
        return np.where(np.signbit(values), code | sign, code)


def integer_element(
    name: str, bits: int, signed: bool, *, lsb: int = 0, lowest: bool = False, unsigned: Element | None = None
) -> Element:
    """Integers times 2^lsb; `lowest`: the code -2^(bits-1) is a number, else it is unused."""
    counts = range(1 << bits)
    half = 1 << (bits - 1)
    if not signed:
        return Element(name, bits, False, lsb, tuple(counts))
    values = tuple(c - (1 << bits) if c >= half else c for c in counts)
    if lowest:
        return Element(name, bits, True, lsb, values, (), unsigned)
    values = (*values[:half], 0, *values[half + 1 :])
    return Element(name, bits, True, lsb, values, ((half, "unused"),), unsigned)


def float_element(
    name: str, exponent_bits: int, fraction_bits: int, bias: int, special: Mapping[int, str] | None = None
) -> Element:
    """Sign, exponent and fraction, with subnormals; `special`: codes without their sign, for both signs."""
    magnitudes: list[int] = []
    for code in range(1 << (exponent_bits + fraction_bits)):
        exponent, fraction = code >> fraction_bits, code & ((1 << fraction_bits) - 1)
        normal = fraction + (1 << fraction_bits) << (exponent - 1) if exponent else fraction
        magnitudes.append(0 if special and code in special else normal)
    sign = len(magnitudes)
    named = {"nan": "nan", "inf": "-inf"}
    both = [*(special or {}).items(), *((sign + c, named[what]) for c, what in (special or {}).items())]
    return Element(
        name,
        1 + exponent_bits + fraction_bits,
        True,
        1 - bias - fraction_bits,
        (*magnitudes, *(-value for value in magnitudes)),
        tuple(both),
        exponent_bits=exponent_bits,
    )
