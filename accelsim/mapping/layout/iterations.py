"""Iterations of the two loops over tiles: where blocks and fetches lie in them, and which are alike.

An iteration (o, i) is one tile of weights by one run of pixels, in every PE at once: the o-th of the outer
loop, the i-th of the inner one (docs/program.md, Blocks).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from accelsim.mapping.layout.numbers import Numbers, of_groups, of_rows
from accelsim.mapping.layout.records import NO_READ, Layout

Place = tuple[int, int, int]
"""(o, i, which of the iteration's)."""

_BLOCK = (
    "pixels", "vectors", "lanes", "first", "last", "spacing", "after_read", "fifo_entries", "values",
    "output_bits",
)  # fmt: skip


class Places:
    """Places of somebody, in order. iteration: int64[places], o * inner + i; within: which of it each is."""

    def __init__(self, iteration: Numbers, within: Numbers, inner: int) -> None:
        self._inner, self._each = inner, int(within.max(initial=0)) + 1
        self._at = iteration * self._each + within

    def __len__(self) -> int:
        return len(self._at)

    def __getitem__(self, number: int) -> Place:
        iteration, within = divmod(int(self._at[number]), self._each)
        o, i = divmod(iteration, self._inner)
        return o, i, within

    def first_from(self, place: Place) -> int:
        """The first of them that is at a place or after it."""
        o, i, within = place
        at = (o * self._inner + min(i, self._inner)) * self._each + min(within, self._each)
        if not len(self._at) or at > int(self._at[-1]):
            return len(self._at)
        return int(self._at.searchsorted(at))

    def of(self, numbers: Numbers | NDArray[np.bool_]) -> Places:
        """Some of them."""
        own = self._at[numbers]
        return Places(own // self._each, own % self._each, self._inner)


@dataclass(frozen=True, eq=False)
class Iterations:
    """Places, in order, and which iterations are alike.

    blocks, tiles, weight_positions, input_positions: of each PE, of its blocks, psum tiles and stays of
    tiles, these where they begin; fetches: of each stream, weights first; reads: those of them for which DRAM
    is read; begins: the blocks of the first PE that begin an iteration, with that; rows: for each outer
    iteration numbers of its inner ones, equal where all PEs and streams do the same.
    """

    blocks: list[Places]
    tiles: list[Places]
    weight_positions: list[Places]
    input_positions: list[Places]
    fetches: list[Places]
    reads: list[Places]
    begins: dict[int, tuple[int, int]]
    rows: list[list[int]]

    end: ClassVar[Place] = (1 << 60, 0, 0)
    """Past the last place of all."""


class _Alike:
    """Which iterations are alike in all that was told of them: equal `number`; there: of which any was."""

    def __init__(self, iterations: int) -> None:
        self.number: Numbers = np.zeros(iterations, np.int64)
        self.there = np.zeros(iterations, np.bool_)

    def tell(self, iteration: Numbers, done: Numbers) -> None:
        """What one PE or stream does in order, equal numbers for the same, and in which iterations."""
        begins = np.flatnonzero(_is_new(iteration))
        own = np.zeros(len(self.number), np.int64)
        own[iteration[begins]] = 1 + of_groups(begins, done)
        self.there |= own > 0
        self.number = of_rows([self.number, own])


def find_iterations(layout: Layout, input_reads: Numbers) -> Iterations:
    """Of a layout; input_reads: int64[blocks], of each block."""
    inner = layout.inner
    iteration = layout.blocks["context"] // layout.per_iteration
    done = _done(layout, input_reads)
    alike = _Alike(int(iteration.max(initial=0)) // inner * inner + inner)
    blocks, tiles = [], []
    held: tuple[list[Places], list[Places]] = [], []
    begin, tile = (layout.pes[name].tolist() for name in ("block", "psum_tile"))
    for pe in range(len(begin) - 1):
        own = iteration[begin[pe] : begin[pe + 1]]
        blocks.append(Places(own, _within(own), inner))
        ends = iteration[layout.psum_tiles["last"][tile[pe] : tile[pe + 1]]]
        tiles.append(Places(ends, _within(ends), inner))
        for operand, places in zip(("weight_position", "input_position"), held, strict=True):
            first, stop = int(layout.pes[pe][operand]), int(layout.pes[pe + 1][operand])
            places.append(blocks[-1].of(layout.positions["first"][first:stop] - begin[pe]))
        alike.tell(own, done[begin[pe] : begin[pe + 1]])
    fetches, reads = [], []
    to = layout.positions["pe"][layout.destinations]
    asked = layout.positions["context"][layout.destinations[layout.fetches["first"]]] // layout.per_iteration
    names = "bits", "dram_bits", "space", "hops"
    sent = of_rows([of_groups(layout.fetches["first"], to), *(layout.fetches[name] for name in names)])
    for stream in layout.streams:
        first, stop = int(stream["first"]), int(stream["stop"])
        if first == stop:
            continue
        own = asked[first:stop]
        fetches.append(Places(own, _within(own), inner))
        reads.append(fetches[-1].of(layout.fetches["dram_bits"][first:stop] != NO_READ))
        alike.tell(own, sent[first:stop])
    return Iterations(
        blocks,
        tiles,
        *held,
        fetches,
        reads,
        _begins(iteration[: begin[1]], inner),
        _rows(alike, inner),
    )


def _begins(iteration: Numbers, inner: int) -> dict[int, tuple[int, int]]:
    begins = np.flatnonzero(_is_new(iteration))
    at = iteration[begins]
    return dict(
        zip(begins.tolist(), zip((at // inner).tolist(), (at % inner).tolist(), strict=True), strict=True)
    )


def _rows(alike: _Alike, inner: int) -> list[list[int]]:
    rows, there = alike.number.reshape(-1, inner), alike.there.reshape(-1, inner)
    counts = there.sum(axis=1)  # they are the first of them
    return [row[:count].tolist() for row, count in zip(rows, counts.tolist(), strict=True)]


def _is_new(iteration: Numbers) -> NDArray[np.bool_]:
    new = np.ones(len(iteration), np.bool_)
    new[1:] = iteration[1:] != iteration[:-1]
    return new


def _within(iteration: Numbers) -> Numbers:
    """Which each is of its iteration."""
    number = np.arange(len(iteration))
    return number - np.maximum.accumulate(np.where(_is_new(iteration), number, 0))


def _done(layout: Layout, input_reads: Numbers) -> Numbers:
    """int64[blocks]: equal for blocks that are equal in all that timing and counts depend on."""
    columns = [layout.blocks[name] for name in _BLOCK] + [input_reads]
    number = np.arange(len(layout.blocks))
    for name in ("weight_position", "input_position"):
        at = layout.blocks[name]
        first, last, fetched = (layout.positions[field][at] for field in ("first", "last", "fetched"))
        columns += [(first == number) * (1 + fetched), last == number]
    return of_rows(columns)
