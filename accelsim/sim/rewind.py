"""A run taken back in its program: the same work comes once more.

Where the iterations of a loop are alike, and everybody who works on them is at one of them, it makes no
difference which ones these are: all go back by the same whole number of periods, and with them what is known of
tiles and fetches that are not over. So a loop of any length runs on a few iterations that are laid out
(docs/timing.md, Long layers).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from accelsim.mapping.layout.iterations import Iterations, Place
from accelsim.sim.array import Array
from accelsim.sim.fetch import StreamRun
from accelsim.sim.layer_run import LayerRun
from accelsim.sim.pe import Pe


@dataclass(frozen=True)
class Window:
    """Iterations [first, stop) of one loop that are alike from period to period; in the inner one (level 1) of
    outer iteration o."""

    level: int
    o: int
    first: int
    stop: int
    period: int

    def bound(self, iteration: int) -> Place:
        return (self.o, iteration, 0) if self.level else (iteration, 0, 0)

    def part(self, places: list[Place]) -> tuple[int, int]:
        """Of somebody's places those in it: [first, stop)."""
        first = bisect_left(places, self.bound(self.first))
        return first, bisect_left(places, self.bound(self.stop), first)

    def works_on(self, places: list[Place], reads: list[Place], at: Place) -> bool:
        """Whether somebody who stays at a place would have to move if more of this were run.

        reads: of their places those that take time; at others they stay for none.
        """
        first, stop = self.part(places)
        if first == stop:
            return False
        if at < self.bound(self.stop):
            return True
        return bisect_left(reads, self.bound(self.first)) < bisect_left(reads, at)


def rewind(
    array: Array, run: LayerRun, iterations: Iterations, window: Window, least: int, most: int
) -> int:
    """Go back as many iterations as possible, or none where that is less than `least`; returns how many."""
    going = _Going(array, run, iterations, window)
    back = min(going.back, most) // window.period * window.period
    if back < least:
        return 0
    going.go(back)
    return back


class _Going:
    """Who goes back. back: how many iterations they can at most; what is not over yet stays in the window."""

    def __init__(self, array: Array, run: LayerRun, iterations: Iterations, window: Window) -> None:
        self.run, self.window, self.now = run, window, array.clock.cycle
        self.back = window.stop - window.first
        self._pes: list[tuple[Pe, tuple[list[Place], ...]]] = []
        self._streams: list[tuple[StreamRun, list[Place], bool]] = []
        layer = run.index
        for pe in array.pes:
            places = iterations.blocks[pe.index]
            if not self._is_part(places):
                continue
            if pe.layer != layer:
                self.back = 0
                return
            tiles, drain = iterations.tiles[pe.index], pe.drain
            held = iterations.weight_positions[pe.index], iterations.input_positions[pe.index]
            self._at(places, pe.block, pe.block)
            # Two banks take turns; a piece on its way along a chain says of which tile it is.
            at = drain.next_tile(layer)
            self._at(tiles, at, drain.oldest_under_way(layer, min(at, pe.psum_tile - 2)))
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
                self._at(places, stream.asked, stream.asked)
            self._at(places, stream.sent, stream.first_under_way(self.now))
            self._streams.append((stream, places, asks))

    def _is_part(self, places: list[Place]) -> bool:
        first, stop = self.window.part(places)
        return first < stop

    def _at(self, places: list[Place], at: int, needed: int) -> None:
        """Somebody is at one of their places, and what is there from `needed` on has to stay."""
        first, stop = self.window.part(places)
        if first <= at <= stop and at < len(places):
            self._needs(places, needed)
        else:
            self.back = 0

    def _needs(self, places: list[Place], needed: int) -> None:
        first, stop = self.window.part(places)
        if first == stop:
            return
        if needed < first:
            self.back = 0
        elif needed < stop:
            self.back = min(self.back, places[needed][self.window.level] - self.window.first)

    def _span(self, places: list[Place], back: int) -> tuple[int, int, int]:
        """(first, stop, how many of somebody's places are in so many iterations) of the window."""
        first, stop = self.window.part(places)
        return first, stop, bisect_left(places, self.window.bound(self.window.first + back), first) - first

    def go(self, back: int) -> None:
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
