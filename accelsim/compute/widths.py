"""Accumulator widths: which there are, which are asked for, and what sized a machine's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from accelsim.arguments import expect
from accelsim.errors import AccelsimError

DEFAULT_WIDTHS = tuple(range(16, 33))
LEAST_WIDTH, MOST_WIDTH = 2, 62
"""Accumulator widths that the lanes know."""

# Published per-vector PEs accumulate in 24 bits; every comparison shows what that would mean here.
PUBLISHED_ACCUMULATOR_BITS = 24


@dataclass(frozen=True)
class AccumulatorWidth:
    """What `accumulator_bits` came to: its policy, the width, and how many accumulations of the run would
    overflow with one bit less, None where that was not counted."""

    policy: str
    bits: int
    overflows_one_bit_less: int | None = None


def check_widths(widths: Iterable[int]) -> tuple[int, ...]:
    """The widths, ascending, each once. Raises AccelsimError for one that no accumulator has."""
    expect(widths, Iterable, "widths", "a list of whole numbers")
    known = tuple(widths)
    for bits in known:
        if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)):
            raise AccelsimError(f"accumulator width is {bits!r}, expected a whole number")
        if not LEAST_WIDTH <= bits <= MOST_WIDTH:
            raise AccelsimError(f"accumulator width is {bits}, expected {LEAST_WIDTH} to {MOST_WIDTH}")
    return tuple(sorted({int(bits) for bits in known}))
