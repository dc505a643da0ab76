"""Where one layer does the same over and over: what is seen of it, and what is left out of it counted.

A long layer is laid out with periods left out of both loops over tiles (mapping/layout/shorten.py). While it
runs, all that can still change what happens is written down whenever the first PE comes to a new tile: cycles
count from then, places in the program from that tile. Where the same is found again, and every iteration on
the way is like those left out, what happened in between would have happened again as often as periods are
left out, and is added so many times (docs/timing.md, Long layers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import lcm
from typing import Any

from accelsim.mapping.layout.iterations import Iterations, Place
from accelsim.mapping.layout.shorten import Kept, Loop
from accelsim.sim.array import Array
from accelsim.sim.drain import Drain, PsumTile
from accelsim.sim.layer_run import LayerRun
from accelsim.sim.transfers import OutputTransfer

_END: Place = (1 << 60, 0, 0)  # past the last
Of = tuple[list[Place], list[Place]]
"""All places that somebody comes to, and those of them that wait for something."""


# How many times as much of a loop is laid out, where it did not come to repeat itself.
_GROWTH = 3


class TooShort(Exception):
    """Too little of a long layer is laid out, or what is left out is no whole number of its periods."""


@dataclass(frozen=True)
class Seen:
    """places: where everybody is in the program, each with all that are there for it; others: all else that
    matters, in cycles from then."""

    o: int
    i: int
    cycle: int
    places: list[tuple[Of, Place]]
    others: object
    tally: dict[object, int]


class Periods:
    """Watches a long layer of an array, and adds to its counts what was left out."""

    def __init__(self, array: Array, run: LayerRun) -> None:
        short, iterations = run.program.short, run.program.iterations
        assert short is not None and iterations is not None
        self.array, self.run, self.short, self.iterations = array, run, short, iterations
        self.outer, self.inner = short.loops(run.program.mapping.order)
        self.steps = [1, 1]  # periods found in the outer and the inner loop, in iterations
        self.found_outer = not self.outer.left_out
        self.found_inner: set[int] = set()
        self._seen_outer: dict[object, list[Seen]] = {}
        self._seen_inner: dict[object, list[Seen]] = {}
        self._at = (-1, -1)
        self._first = 0
        self._stops_for_step = self.too_short = False
        self._parts: dict[tuple[int, int, int, int, bool], bool] = {}
        self._zones: dict[int, tuple[int, int]] = {}
        alike = iterations.alike
        self.outers = 1 + max(o for o, _ in alike)
        inners = [0] * self.outers
        for o, i in alike:
            inners[o] = max(inners[o], i + 1)
        self._rows = [[alike[o, i] for i in range(inners[o])] for o in range(self.outers)]
        self._outer_zone = _zone([tuple(row) for row in self._rows], self.outer.period)
        array.pes[0].watch[run.index] = self.block_is_next

    @property
    def longer(self) -> Kept | None:
        """What to keep instead, where what was left out does not follow from what was run, or None."""
        kept = self.short.kept
        inner = self.inner.left_out == 0 or len(self.found_inner) == self.outers
        # Without the inner ones periods of the outer loop cannot be told.
        found = self.found_outer or not inner, inner or self._stops_for_step
        rest = self.outer.left_out % self.steps[0], self.inner.left_out % self.steps[1]
        if self.found_outer and inner and not any(rest):
            return None
        periods, steps = [kept.unit_periods, kept.pixel_periods], [kept.unit_step, kept.pixel_step]
        if self.outer is not self.short.units:
            periods, steps = periods[::-1], steps[::-1]
        for level in (0, 1):
            periods[level] *= 1 if found[level] else _GROWTH
            steps[level] = lcm(steps[level], self.steps[level])
        if self.outer is not self.short.units:
            periods, steps = periods[::-1], steps[::-1]
        return Kept(kept.most_blocks, periods[1], periods[0], steps[1], steps[0])

    def block_is_next(self, block: int) -> None:
        """The first PE comes to a block of this layer."""
        at = self.iterations.begins[0].get(block)
        if at is None or not self.run.started.triggered:
            return
        seeks_inner = self.inner.left_out > 0 and at[0] not in self.found_inner
        if seeks_inner or (at[1] == 0 and not self.found_outer):
            self._at = at
            self.array.clock.after_cycle(partial(self._look, at))

    def _look(self, at: tuple[int, int]) -> None:
        if at != self._at or self.array.pes[0].layer != self.run.index:
            return  # another iteration has begun in the same cycle
        o, i = at
        if self.inner.left_out and any(before not in self.found_inner for before in range(self._first, o)):
            self.too_short = True
            raise TooShort
        self._first = o
        places, others = _state(self.array, self.run, self.iterations)
        seen = Seen(o, i, self.array.clock.cycle, places, others, self.run.tally())
        if self.inner.left_out and o not in self.found_inner:
            if self._seen_inner and next(iter(self._seen_inner.values()))[0].o != o:
                self._seen_inner = {}
            zone = self._zone_of(o)
            for before in self._seen_inner.get(others, []):
                if self._repeats(before, seen, self.inner, zone, 1, o):
                    self.found_inner.add(o)
                    self._count(before, seen, self.inner, 1, seen.i - before.i)
                    seen = Seen(o, i, seen.cycle, places, others, self.run.tally())
                    break
            self._seen_inner.setdefault(others, []).append(seen)
        if not self.found_outer and i == 0:
            for before in self._seen_outer.get(others, []):
                if self._repeats(before, seen, self.outer, self._outer_zone, 0, o):
                    self.found_outer = True
                    self._count(before, seen, self.outer, 0, seen.o - before.o)
                    break
            self._seen_outer.setdefault(others, []).append(seen)

    def _zone_of(self, o: int) -> tuple[int, int]:
        if o not in self._zones:
            self._zones[o] = _zone(self._rows[o], self.inner.period)
        return self._zones[o]

    def _repeats(self, a: Seen, b: Seen, loop: Loop, zone: tuple[int, int], level: int, o: int) -> bool:
        """Whether b is a, a whole number of periods later, all in iterations that are like those left out."""
        shift = (b.o - a.o, b.i - a.i)[level]
        if shift <= 0 or shift % loop.period:
            return False
        first, stop = zone
        for (of, was), (_, now) in zip(a.places, b.places, strict=True):
            if was == now:
                # Has not moved, and must not have to in what is left out.
                if self._takes_part(of, level, o, now == _END):
                    return False
                continue
            if now == _END or was[1 - level] != now[1 - level] or was[2] != now[2]:
                return False
            if level == 1 and was[0] != o:
                return False
            if now[level] - was[level] != shift or was[level] < first or now[level] >= stop:
                return False
        return True

    def _takes_part(self, of: Of, level: int, o: int, is_done: bool) -> bool:
        """Whether who has not moved would have to, were a part of a loop run that is left out.

        Who is done may have had fetches in it, all asked at once, if from there on DRAM is read for none.
        """
        key = id(of[0]), id(of[1]), level, o if level else -1, is_done
        if key not in self._parts:
            every, reads = of
            if level == 0:
                start = self._outer_zone[0], 0
                part = any(start[0] <= place[0] < self._outer_zone[1] for place in every)
            else:
                start = o, self._zone_of(o)[0]
                later = [place for place in every if place[0] == o or (is_done and place[0] > o)]
                zones = {n: self._zone_of(n) for n in {place[0] for place in later}}
                part = any(zones[n][0] <= i < zones[n][1] for n, i, _ in later)
            if is_done:
                part = part and any(place[:2] >= start for place in reads)
            self._parts[key] = part
        return self._parts[key]

    def _count(self, a: Seen, b: Seen, loop: Loop, level: int, shift: int) -> None:
        """Adds what is left out of a loop, in steps of `shift` iterations; the rest of it is missing yet."""
        self.steps[level] = lcm(self.steps[level], shift)
        times, rest = divmod(loop.left_out, shift)
        if rest:
            self._stops_for_step, self.too_short = level == 1, True
            raise TooShort
        before = a.tally
        period = {name: n - before.get(name, 0) for name, n in b.tally.items()}
        period = {name: n for name, n in period.items() if n}
        period["left_out_cycles"] = period.get("left_out_cycles", 0) + b.cycle - a.cycle
        self.run.add(period, times)


def _zone(row: list[Any], period: int) -> tuple[int, int]:
    """The longest stretch [first, stop) of iterations that are alike from period to period."""
    best, first = (0, 0), 0
    for n in range(len(row) + 1):
        if n == len(row) or (n - first >= period and row[n] != row[n - period]):
            if n - first > best[1] - best[0]:
                best = first, n
            first = max(first + 1, n - period + 1)
    return best


def _state(array: Array, run: LayerRun, iterations: Iterations) -> tuple[list[tuple[Of, Place]], object]:
    """Places in the program, and all else that can still change what happens, in cycles from now."""
    now, index, fabric = array.clock.cycle, run.index, array.fabric
    places: list[tuple[Of, Place]] = []
    others: list[object] = []

    def place(of: list[Place], number: int, reads: list[Place] | None = None) -> None:
        places.append(((of, of if reads is None else reads), of[number] if number < len(of) else _END))

    for pe, drain in zip(array.pes, _drains(array), strict=True):
        blocks = iterations.blocks[pe.index]
        if not blocks:
            continue
        number = pe.block if pe.layer == index else 0 if pe.layer < index else len(blocks)
        place(blocks, number)
        done = number >= len(blocks)
        floor = now if done else pe.issue_end
        tiles = iterations.tiles[pe.index]
        issued = pe.psum_tile if pe.layer == index else 0 if pe.layer < index else len(tiles)
        place(tiles, drain.next_tile(index))
        others.append(
            (
                0 if done else pe.issue_end - now,
                pe.weights.around(index, pe.weight_position, floor, now),
                pe.inputs.around(index, pe.input_position, floor, now),
                drain.state(run, issued, floor, now),
            )
        )
    streams = [*array.weight_streams[index], *array.input_streams[index]]
    number_of = {}
    for number, stream in enumerate(streams):
        fetches = iterations.fetches[number]
        number_of[stream.kind, stream.stream.leader] = fetches
        # What is not read from DRAM is asked at once, to the last.
        place(fetches, stream.asked, iterations.reads[number])
        place(fetches, stream.sent)
        others.append(stream.under_way(now))
    busy, space, waiting = fabric.dram.state(now)
    requests = []
    for key, bits in waiting:
        kind, leader, layer, number = key
        if layer == index and (kind, leader) in number_of:
            place(number_of[kind, leader], number)
            number = 0
        requests.append((kind, leader, layer, number, bits))
    others += [fabric.crossbar.state(now), busy, space, tuple(requests), fabric.dram.looks_in(now)]
    for later in array.weight_streams[index + 1 :]:
        others.append([stream.state(now) for stream in later])
        if not any(stream.asked for stream in later):
            break
    if index + 1 < len(array.runs):
        others.append([pe.weights.ahead(index + 1, now) for pe in array.pes])
    others += [max(0, run.last_write - now), run.weights_asked.triggered]
    due = [(cycles, priority, _what(action, now)) for cycles, priority, action in array.clock.pending()]
    others.append(sorted(due, key=repr))
    return places, repr(others)


def _drains(array: Array) -> list[Drain]:
    return [pe.drain for pe in array.pes]


def _what(action: Callable[[], None] | None, now: int) -> object:
    """What the clock is to do, by what it is done to."""
    if action is None:
        return None
    arguments: tuple[object, ...] = ()
    if isinstance(action, partial):
        arguments, action = action.args, action.func
    owner, name = getattr(action, "__self__", None), getattr(action, "__name__", "")
    if name == "send_psums":
        arguments = arguments[:-1]  # pieces of a PE go in order
    return name, *(_name(item, now) for item in (owner, *arguments))


def _name(item: object, now: int) -> object:
    if isinstance(item, Drain):
        return item.index
    if isinstance(item, OutputTransfer):
        return item.source.index, _size(item.tile), item.there - now, item.to_move
    if isinstance(item, PsumTile):
        return None  # the next that its PE sends
    if isinstance(item, int):
        return item
    return _size(item) if hasattr(item, "entries") else type(item).__name__


def _size(tile: Any) -> object:
    return tile.values, tile.bits, tile.entries, tile.spilled, tile.written
