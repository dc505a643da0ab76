"""Where a run does the same layers over and over."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

# Repetitions that are run: one to settle, one to go by, and one whose end looks on to what comes after. Where
# something comes before them, after which the array may be settled, it is tried without the first.
_RUN = 3
_LEAST_RUN = 2


@dataclass(frozen=True)
class Repeat:
    """From layer `first` on, `period` layers come `times` times. Of the repetitions the first ones and the
    last are run, `run` in all, as the end of the last already looks on to what comes after.

    starts: first layers of the last two repetitions that are run; states at both must be equal.
    """

    first: int
    period: int
    times: int
    run: int = _RUN

    @property
    def starts(self) -> tuple[int, int]:
        last = self.first + (self.run - 1) * self.period
        return last - self.period, last

    @property
    def left_out(self) -> range:
        return range(self.first + (self.run - 1) * self.period, self.first + (self.times - 1) * self.period)


def find_repeats(signatures: Sequence[Hashable]) -> list[Repeat]:
    """Which repetitions to try, those of which least is run first."""
    repeat = find_repeat(signatures)
    if repeat is None:
        return []
    return [replace(repeat, run=run) for run in range(_LEAST_RUN if repeat.first else _RUN, _RUN + 1)]


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
