"""A run taken back in its program, where the same work comes once more, or on, where it does not come.

Where the iterations of a loop are alike, and everybody who works on them is at one of them, it makes no
difference which ones these are: all go back or on by the same whole number of periods, and with them what is
known of tiles and fetches that are not over. So a loop of any length runs on a few iterations that are laid
out, and those of them that need not be run are not (docs/timing.md, Long layers).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from accelsim.mapping.layout.iterations import Iterations, Place, Places
from accelsim.sim.array import Array
from accelsim.sim.fetch import StreamRun
from accelsim.sim.layer_run import LayerRun
from accelsim.sim.pe import Pe


@dataclass(frozen=True)
class Window:
    """Iterations [first, stop) of one loop that are alike from period to period; in the inner one (level 1)
    of outer iteration o."""

    level: int
    o: int
    first: int
    stop: int
    period: int
    # By whose places; they stay as long as the layer's iterations do.
    _parts: dict[int, tuple[int, int]] = field(default_factory=dict, compare=False, repr=False)

    def bound(self, iteration: int) -> Place:
        return (self.o, iteration, 0) if self.level else (iteration, 0, 0)

    def part(self, places: Places) -> tuple[int, int]:
        """Of somebody's places those in it: [first, stop)."""
        found = self._parts.get(id(places))
        if found is None:
            first = places.first_from(self.bound(self.first))
            found = self._parts[id(places)] = first, places.first_from(self.bound(self.stop))
        return found

    def works_on(self, places: Places, reads: Places, at: Place) -> bool:
        """Whether somebody who stays at a place would have to move if more of this were run.

        reads: of their places those that take time; at others they stay for none.
        """
        first, stop = self.part(places)
        if first == stop:
            return False
        if at < self.bound(self.stop):
            return True
        return reads.first_from(self.bound(self.first)) < reads.first_from(at)


class Going:
    """Who goes back or on in a window.

    back, on: how many iterations they can at most; what is not over yet, and what has begun, stays in the
    window.
    """

    def __init__(self, array: Array, run: LayerRun, iterations: Iterations, window: Window) -> None:
        self.run, self.window = run, window
        self.back = self.on = window.stop - window.first
        self._pes: list[tuple[Pe, tuple[Places, ...]]] = []
        self._streams: list[tuple[StreamRun, Places, bool]] = []
        layer, now = run.index, array.clock.cycle
        for pe in array.pes:
            places = iterations.blocks[pe.index]
            if not self._is_part(places):
                continue
            if pe.layer != layer:
                self.back = self.on = 0
                return
            tiles, drain = iterations.tiles[pe.index], pe.drain
            held = iterations.weight_positions[pe.index], iterations.input_positions[pe.index]
            self._is_at(places, pe.block, pe.block)
            # Two banks take turns; a piece on its way along a chain says of which tile it is.
            at = drain.next_tile(layer)
            self._is_at(tiles, at, drain.oldest_under_way(layer, min(at, pe.psum_tile - 2)))
            # Before the position of the next block one may be in use, and one in the other half.
            self._needs(held[0], pe.weight_position - 3)
            self._needs(held[1], pe.input_position - 3)
            self._pes.append((pe, (places, tiles, *held)))
        for number, stream in enumerate([*array.weight_streams[layer], *array.input_streams[layer]]):
            places, reads = iterations.fetches[number], iterations.reads[number]
            if not self._is_part(places):
                continue
            # What DRAM is not read for is asked at once, also far beyond.
            to = places[stream.asked] if stream.asked < len(places) else iterations.end
            asks = to < window.bound(window.stop) or window.works_on(places, reads, to)
            if asks:
                self._is_at(places, stream.asked, stream.asked)
            self._is_at(places, stream.sent, stream.first_under_way(now))
            self._streams.append((stream, places, asks))

    def most(self, on: bool) -> int:
        """Iterations, whole periods."""
        return (self.on if on else self.back) // self.window.period * self.window.period

    def _is_part(self, places: Places) -> bool:
        first, stop = self.window.part(places)
        return first < stop

    def _is_at(self, places: Places, at: int, needed: int) -> None:
        """Somebody is at one of their places, and what is there from `needed` on has to stay."""
        first, stop = self.window.part(places)
        if not first <= at <= stop or at == len(places):
            self.back = self.on = 0
            return
        self._needs(places, needed)
        # Whoever goes on still has something to do in the window: what it waits for is of the same kind.
        self.on = min(self.on, self.window.stop - 1 - places[at][self.window.level] if at < stop else 0)

    def _needs(self, places: Places, needed: int) -> None:
        first, stop = self.window.part(places)
        if first == stop:
            return
        if needed < first:
            self.back = self.on = 0
        elif needed < stop:
            self.back = min(self.back, places[needed][self.window.level] - self.window.first)

    def _span(self, places: Places, back: int) -> tuple[int, int, int]:
        """(first, stop, how many of somebody's places are in so many iterations) of the window."""
        first, stop = self.window.part(places)
        count = places.first_from(self.window.bound(self.window.first + abs(back))) - first
        return first, stop, count if back > 0 else -count

    def go(self, back: int) -> None:
        """Back by so many iterations, or on where that is below 0."""
        layer = self.run.index
        for pe, (blocks, tiles, weights, inputs) in self._pes:
            pe.block -= self._span(blocks, back)[2]
            pe.drain.go_back(self.run, *self._span(tiles, back))
            pe.psum_tile -= self._span(tiles, back)[2]
            pe.weights.go_back(layer, *self._span(weights, back))
            pe.weight_position -= self._span(weights, back)[2]
            pe.inputs.go_back(layer, *self._span(inputs, back))
            pe.input_position -= self._span(inputs, back)[2]
        for stream, places, asks in self._streams:
            stream.go_back(*self._span(places, back), asks)
