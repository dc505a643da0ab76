"""The rows: every element, and every scheme that has a name. A new format is a row here.

An element row says what its codes are worth (formats/element.py); a scheme row which elements in blocks of
what size share which scale, and where its gamma lives. All else (word sizes, ranges, stored types, rules of
quantization, checks of a trace) follows. Sources: OCP Microscaling Formats (MX) v1.0; OCP 8-bit Floating
Point (OFP8) v1.0; NVFP4: "Pretraining Large Language Models with NVFP4", arXiv 2509.25149, section 2.
"""

from __future__ import annotations

from accelsim.errors import AccelsimError
from accelsim.formats.element import Element, float_element, integer_element
from accelsim.formats.operand import Operand
from accelsim.formats.scale import E4M3, E8M0, Gamma, Scale

UINT = {bits: integer_element(f"uint{bits}", bits, False) for bits in range(2, 9)}
INT = {bits: integer_element(f"int{bits}", bits, True, unsigned=UINT[bits]) for bits in range(2, 9)}
"""VS-Quant's: symmetric, so that -2^(bits-1) is no code."""

OCP_INT8 = integer_element("ocp_int8", 8, True, lsb=-6, lowest=True)
"""MXINT8's: steps of 2^-6. -128 (-2.0) is a number, but made of none: rounding is symmetric."""

E2M1 = float_element("e2m1", 2, 1, bias=1)
E2M3 = float_element("e2m3", 2, 3, bias=1)
E3M2 = float_element("e3m2", 3, 2, bias=3)
E5M2 = float_element("e5m2", 5, 2, bias=15, special={0x7C: "inf", 0x7D: "nan", 0x7E: "nan", 0x7F: "nan"})

ELEMENTS: dict[str, Element] = {
    element.name: element
    for element in (*INT.values(), *UINT.values(), OCP_INT8, E2M1, E2M3, E3M2, E4M3, E5M2, E8M0)
}

FLOAT_SCALE = Scale("float", 32, "none")
"""`fp` in the text of a scheme."""

_MX, _NV = Scale("e8m0", 8, "none"), Scale("e4m3", 8, "tensor")
SCHEMES: dict[str, tuple[Operand, Operand]] = {  # name -> (weight, activation)
    "mxint8": (Operand(OCP_INT8, _MX, 32), Operand(OCP_INT8, _MX, 32)),
    "mxfp4": (Operand(E2M1, _MX, 32), Operand(E2M1, _MX, 32)),
    "nvfp4": (Operand(E2M1, _NV, 16), Operand(E2M1, _NV, 16)),
}


def activation_name(operand: Operand) -> str:
    """The scheme of which it is the activation operand, or the unsigned twin of that. Raises AccelsimError
    where that has no name."""
    for name, (_, activation) in SCHEMES.items():
        if operand in (activation, activation.of_sign(False)):
            return name
    raise AccelsimError(f"operand {operand}: has no name in the catalogue, one of {', '.join(SCHEMES)}")


def integer_operand(
    bits: int, scale_bits: int = 0, *, signed: bool = True, gamma: Gamma = "tensor", block: int | None = None
) -> Operand:
    """VS-Quant's operand: integers of 2 to 8 bits, unsigned integer scales of `scale_bits`, 0 for none."""
    if bits not in INT:
        raise AccelsimError(f"operand of {bits} bits: expected integers of {min(INT)} to {max(INT)} bits")
    element = (INT if signed else UINT)[bits]
    return Operand(element, Scale("uint" if scale_bits else "none", scale_bits, gamma), block)
