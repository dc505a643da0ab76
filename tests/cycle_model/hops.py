"""docs/counts.md: the links of the grid that a transfer passes."""

from __future__ import annotations

import math

from accelsim.machine.arch import Arch


def _side(arch: Arch) -> int:
    return math.isqrt(arch.pes - 1) + 1


def hops_into(arch: Arch, pes: list[int]) -> int:
    """From the global buffer to all these PEs, or from one of them back."""
    side = _side(arch)
    links = {"into the grid"}
    for pe in pes:
        links |= {f"row 0 to column {x}" for x in range(1, pe % side + 1)}
        links |= {f"column {pe % side} to row {y}" for y in range(1, pe // side + 1)}
    return len(links)


def hops_between(arch: Arch, source: int, destination: int) -> int:
    side = _side(arch)
    return abs(source % side - destination % side) + abs(source // side - destination // side)
