"""Scales: what all codes of a block are multiplied by, and where the coarse factor gamma lives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import AccelsimError
from accelsim.formats.element import Element, float_element

Kind = Literal["none", "uint", "e8m0", "e4m3", "float"]
Gamma = Literal["none", "tensor", "channel"]

E8M0 = Element("e8m0", 8, False, -127, (*(1 << code for code in range(255)), 0), ((255, "nan"),))
"""Powers of two from 2^-127 to 2^127 (OCP MX v1.0, section 5.4.1)."""

E4M3 = float_element("e4m3", 4, 3, 7, {0x7F: "nan"})
"""OCP 8-bit floating point, E4M3: largest 448, no infinity. A scale uses its codes from 0 up."""

MAX_SCALE_BITS = 10
"""Of unsigned integer scales: what the lanes and the cost tables are made for."""

# kind -> (bits, None for any; where gamma may live)
_KINDS: dict[Kind, tuple[int | None, tuple[Gamma, ...]]] = {
    "none": (0, ("tensor", "channel")),
    "uint": (None, ("tensor", "channel")),
    "e8m0": (8, ("none",)),
    "e4m3": (8, ("none", "tensor")),
    "float": (32, ("none",)),
}


@dataclass(frozen=True)
class Scale:
    """One kind of scale of a block of codes.

    kind: none; uint, an unsigned integer of `bits` bits (VS-Quant); e8m0 (OCP MX); e4m3 (NVFP4); float, a
    float32. gamma: what block scales, or codes without scales, are multiplied by besides: none, one factor a
    tensor, or one an output channel. Its value belongs to a tensor and stands beside the operand.
    """

    kind: Kind
    bits: int
    gamma: Gamma

    def __post_init__(self) -> None:
        bits, gammas = _KINDS[self.kind]
        if self.bits != bits if bits is not None else not 1 <= self.bits <= MAX_SCALE_BITS:
            expected = f"1 to {MAX_SCALE_BITS}" if bits is None else bits
            raise AccelsimError(f"scale {self.kind}: bits is {self.bits}, expected {expected}")
        if self.gamma not in gammas:
            expected = " or ".join(gammas)
            raise AccelsimError(f"scale {self.kind}: gamma is {self.gamma}, expected {expected}")

    def __str__(self) -> str:
        return f"uint{self.bits}" if self.kind == "uint" else self.kind

    @property
    def max_code(self) -> int:
        """The largest code that is made or may be read; 0 where codes are none, or float32."""
        return {"uint": (1 << self.bits) - 1, "e8m0": 254, "e4m3": 126}.get(self.kind, 0)

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16] | type[np.float32]:
        """How scales are stored. Scales of kind none are not."""
        stored = {"uint": np.uint16, "e8m0": np.uint8, "e4m3": np.uint8, "float": np.float32}
        return stored[self.kind]  # type: ignore[return-value]

    def decode(self, codes: NDArray[np.generic]) -> NDArray[np.float64]:
        """float64 of any shape: what stored scales are worth, without gamma."""
        if self.kind in ("e8m0", "e4m3"):
            return {"e8m0": E8M0, "e4m3": E4M3}[self.kind].decode(codes)  # type: ignore[arg-type]
        return codes.astype(np.float64)

    @property
    def largest(self) -> float:
        """What the largest scale is worth; 1 without scales."""
        if self.kind == "none":
            return 1
        if self.kind == "float":
            return float(np.finfo(np.float32).max)
        return float(self.decode(np.array([self.max_code]))[0])
