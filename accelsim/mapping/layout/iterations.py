"""Iterations of the two loops over tiles: where blocks and fetches lie in them, and which are alike.

An iteration (o, i) is one tile of weights by one run of pixels, in every PE at once: the o-th of the outer
loop, the i-th of the inner one (docs/program.md, Blocks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from accelsim.mapping.layout.records import NO_READ, Layout, Rows

Place = tuple[int, int, int]
"""(o, i, which of the iteration's)."""

_BLOCK = (
    "pixels", "vectors", "lanes", "first", "last", "spacing", "after_read", "fifo_entries", "values",
    "output_bits",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Iterations:
    """Places, in order, and which iterations are alike.

    blocks, tiles, weight_positions, input_positions: of each PE, of its blocks, psum tiles and stays of
    tiles, these where they begin; fetches: of each stream, weights first; reads:
    those of them for which DRAM is read; begins: the blocks of each PE that begin an iteration, with that;
    alike: equal numbers for iterations in which all PEs and streams do the same.
    """

    blocks: list[list[Place]]
    tiles: list[list[Place]]
    weight_positions: list[list[Place]]
    input_positions: list[list[Place]]
    fetches: list[list[Place]]
    reads: list[list[Place]]
    begins: list[dict[int, tuple[int, int]]]
    alike: dict[tuple[int, int], int]

    end: ClassVar[Place] = (1 << 60, 0, 0)
    """Past the last place of all."""


def find_iterations(layout: Layout, input_reads: NDArray[np.int64]) -> Iterations:
    """Of a layout; input_reads: int64[blocks], of each block."""
    content = _contents(layout, input_reads)
    parts: dict[tuple[int, int], list[tuple[int, bytes]]] = {}
    blocks, tiles, begins = [], [], []
    held: tuple[list[list[Place]], list[list[Place]]] = [], []
    begin, tile = (layout.pes[name].tolist() for name in ("block", "psum_tile"))
    for pe in range(len(begin) - 1):
        own = layout.blocks[begin[pe] : begin[pe + 1]]
        blocks.append(_places(own["context"], layout))
        last = layout.psum_tiles["last"][tile[pe] : tile[pe + 1]]
        tiles.append(_places(layout.blocks["context"][last], layout))
        for operand, places in zip(("weight_position", "input_position"), held, strict=True):
            first, stop = int(layout.pes[pe][operand]), int(layout.pes[pe + 1][operand])
            starts = layout.positions["first"][first:stop] - begin[pe]
            places.append([blocks[-1][n] for n in starts.tolist()])
        begins.append({n: place[:2] for n, place in enumerate(blocks[-1]) if place[2] == 0})
        _collect(parts, pe, blocks[-1], content[begin[pe] : begin[pe + 1]])
    fetches, reads = [], []
    pes = layout.positions["pe"][layout.destinations]
    for row, stream in enumerate(layout.streams):
        first, stop = int(stream["first"]), int(stream["stop"])
        if first == stop:
            continue
        own = layout.fetches[first:stop]
        fetches.append(_places(layout.positions["context"][layout.destinations[own["first"]]], layout))
        is_read = (own["dram_bits"] != NO_READ).tolist()
        reads.append([place for place, read in zip(fetches[-1], is_read, strict=True) if read])
        sent = _columns(own, ("bits", "dram_bits", "space", "hops"))
        _collect(parts, -1 - row, fetches[-1], sent, [pes[a:b].tobytes() for a, b in own[["first", "stop"]]])
    numbers: dict[object, int] = {}
    alike = {key: numbers.setdefault(tuple(part), len(numbers)) for key, part in parts.items()}
    return Iterations(blocks, tiles, *held, fetches, reads, begins, alike)


def _places(contexts: NDArray[np.int64], layout: Layout) -> list[Place]:
    iteration = contexts // layout.per_iteration
    new = np.ones(len(iteration), bool)
    new[1:] = iteration[1:] != iteration[:-1]
    first = np.maximum.accumulate(np.where(new, np.arange(len(new)), 0)) if len(new) else iteration
    within = np.arange(len(iteration)) - first
    return list(
        zip(
            (iteration // layout.inner).tolist(),
            (iteration % layout.inner).tolist(),
            within.tolist(),
            strict=True,
        )
    )


def _columns(rows: Rows, names: Sequence[str]) -> NDArray[np.int64]:
    return np.stack([rows[name] for name in names], axis=1)


def _contents(layout: Layout, input_reads: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[blocks, ...]: all of each block that timing and counts depend on."""
    stays = []
    for name in ("weight_position", "input_position"):
        at = layout.blocks[name]
        held, number = layout.positions[at], np.arange(len(at))
        stays += [(held["first"] == number) * (1 + held["fetched"]), held["last"] == number]
    return np.concatenate(
        [_columns(layout.blocks, _BLOCK), np.stack([input_reads, *stays], axis=1).astype(np.int64)], axis=1
    )


def _collect(
    parts: dict[tuple[int, int], list[tuple[int, bytes]]],
    who: int,
    places: list[Place],
    content: NDArray[np.int64],
    more: Sequence[bytes] = (),
) -> None:
    """Adds to every iteration what a PE or stream does in it. more: to `content`, row by row."""
    starts = [n for n, place in enumerate(places) if place[2] == 0]
    stops = [*starts[1:], len(places)] if starts else []
    for first, stop in zip(starts, stops, strict=True):
        held = content[first:stop].tobytes() + b"".join(more[first:stop])
        parts.setdefault(places[first][:2], []).append((who, held))
