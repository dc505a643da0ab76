"""Where a run does the same layers over and over."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

# Repetitions that are run: one to settle, one to go by, and one whose end looks on to what comes after.
_RUN = 3


@dataclass(frozen=True)
class Repeat:
    """From layer `first` on, `period` layers come `times` times; all but the first two and the last are left
    out, as the end of the last already looks on to what comes after.

    starts: first layers of the second and third repetition that is run; states at both must be equal.
    """

    first: int
    period: int
    times: int

    @property
    def starts(self) -> tuple[int, int]:
        return self.first + self.period, self.first + 2 * self.period

    @property
    def left_out(self) -> range:
        return range(self.first + (_RUN - 1) * self.period, self.first + (self.times - 1) * self.period)


def find_repeat(signatures: Sequence[Hashable]) -> Repeat | None:
    """The repetition that leaves most layers out, or None where none leaves any."""
    numbers = {signature: number for number, signature in enumerate(dict.fromkeys(signatures))}
    layers = [numbers[signature] for signature in signatures]
    best: Repeat | None = None
    for period in range(1, len(layers) // (_RUN + 1) + 1):
        first = 0
        while first + (_RUN + 1) * period <= len(layers):
            same, rest = 0, len(layers) - first - period
            while same < rest and layers[first + same] == layers[first + period + same]:
                same += 1
            found = Repeat(first, period, same // period + 1)
            if len(found.left_out) > (len(best.left_out) if best else 0):
                best = found
            first += same + 1
    return best
