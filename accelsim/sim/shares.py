"""Shares of tensors that go with output tiles, where they are no whole number of bits.

A tensor is spread evenly over a layer's outputs, so that where an output brings a fraction of a bit a tile's
share is at times a bit more than at others (docs/residency.md). What part of a bit the next share begins
with moves on by the same amount in every equal step of a long layer, and decides nothing but the shares.
Whether they are those of a step before, and for how many steps in a row, follows from it (docs/timing.md,
Long layers).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

UNLIMITED = 1 << 60
Made = tuple[int, ...]
"""Of each PE, outputs that come before those of its next output tile."""


class StepShares:
    """Of one step. stored: bits of tensors that `outputs` do not divide; made: at its begin; tiles: of each
    PE, outputs in and before each of its output tiles in the step."""

    def __init__(
        self, stored: Sequence[int], outputs: int, made: Made, tiles: Sequence[Sequence[int]]
    ) -> None:
        self._outputs = outputs
        # (PE, bits, from which parts of a bit on one more end of a share is a bit later, how many are, moves)
        self._rows: list[tuple[int, int, list[int], int, int]] = []
        for pe, (first, ends) in enumerate(zip(made, tiles, strict=True)):
            for bits in stored if ends else ():
                cuts = sorted({outputs - (end - first) * bits % outputs for end in ends})
                moves = (ends[-1] - first) * bits % outputs
                if 2 * moves > outputs:
                    moves -= outputs
                self._rows.append((pe, bits, cuts, bisect_right(cuts, first * bits % outputs), moves))

    def times(self, made: Made) -> int:
        """In how many such steps in a row, begun at `made`, all shares are those of this one."""
        least, outputs = UNLIMITED, self._outputs
        for pe, bits, cuts, later, moves in self._rows:
            part = made[pe] * bits % outputs
            if bisect_right(cuts, part) != later:
                return 0
            if moves > 0:
                stop = cuts[later] if later < len(cuts) else outputs
                least = min(least, (stop - 1 - part) // moves + 1)
            elif moves < 0:
                first = cuts[later - 1] if later else 0
                least = min(least, (part - first) // -moves + 1)
        return least


def parts_of_bits(stored: Sequence[int], outputs: int, made: Made) -> list[int]:
    """With what part of a bit the next shares begin, in 1 / `outputs`."""
    return [own * bits % outputs for bits in stored for own in made]
