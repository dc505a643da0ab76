"""Streaming work of the global PE in one layer: done tile by tile, as output tiles are in the global buffer.

Times are in parts of a cycle, `rate` of them in one, in which `rate` of work is done, so that all is whole
numbers. What a run of arrivals does is then `done = max(done + work, end)`, and so is what many such runs do
one after another, or one of them that comes again and again: what a long layer leaves out costs nothing
(docs/timing.md, Global PE and Long layers).
"""

from __future__ import annotations

from typing import NamedTuple


class Stretch(NamedTuple):
    """Arrivals in a row. work: all that they bring; end: when it is done, where nothing was left before."""

    work: int
    end: int

    def then(self, later: Stretch) -> Stretch:
        return Stretch(self.work + later.work, max(self.end + later.work, later.end))

    def repeated(self, times: int, apart: int) -> Stretch:
        """So many of it, each `apart` after the one before."""
        # The end is that of work after some repetition's end; the first or the last, as it is linear.
        last = times - 1
        return Stretch(self.work * times, max(self.end + last * self.work, self.end + last * apart))

    def later(self, by: int) -> Stretch:
        return Stretch(self.work, self.end + by)


class StreamingWork:
    """elements: of the whole layer; outputs: its outputs, with each of which comes an equal share."""

    def __init__(self, elements: int, outputs: int, elements_per_cycle: int) -> None:
        self._elements, self._rate = elements, elements_per_cycle * outputs
        self._arrivals: list[tuple[int, int]] = []  # not in `_stretches` yet
        self._stretches: list[Stretch] = []
        self._left_out_cycles = 0

    @property
    def works(self) -> bool:
        """Whether there is any."""
        return self._elements > 0

    def there(self, cycle: int, values: int) -> None:
        """So many outputs are in the global buffer at `cycle`."""
        if self._elements:
            self._arrivals.append((cycle, values))

    def look(self, now: int) -> tuple[int, list[tuple[int, int]]]:
        """(a mark at this cycle, arrivals from now on as far as they are known, cycles from now)."""
        self._take_in([own for own in self._arrivals if own[0] < now])
        self._arrivals = sorted(own for own in self._arrivals if own[0] >= now)
        return len(self._stretches), [(cycle - now, values) for cycle, values in self._arrivals]

    def repeat(self, marks: tuple[int, int], times: int, cycles: int, later: int) -> None:
        """What came between two marks comes so many times more, `cycles` apart, first `later` after it."""
        self._left_out_cycles += times * cycles
        between = self._stretches[slice(*marks)]
        if not between or not times:
            return
        one = between[0]
        for own in between[1:]:
            one = one.then(own)
        self._stretches.append(one.later(later * self._rate).repeated(times, cycles * self._rate))

    def done(self) -> int:
        """The cycle in which all of it is done, without those of what was left out; 0 where there is none."""
        self._take_in(self._arrivals)
        if not self._stretches:
            return 0
        end = self._stretches[0]
        for own in self._stretches[1:]:
            end = end.then(own)
        return max(0, -(-end.end // self._rate) - self._left_out_cycles)

    def _take_in(self, arrivals: list[tuple[int, int]]) -> None:
        if not arrivals:
            return
        done = brought = 0
        for cycle, values in sorted(arrivals):
            work = self._elements * values
            done = max(done, (cycle + self._left_out_cycles) * self._rate) + work
            brought += work
        self._stretches.append(Stretch(brought, done))
