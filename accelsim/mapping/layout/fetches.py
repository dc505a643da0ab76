# mypy: ignore-errors
# Compiled by Numba, whose types mypy does not know.
"""Positions of tiles in the PEs' buffers, and the fetches that bring them (docs/program.md)."""

from __future__ import annotations

import numpy as np

from accelsim.machine.timing import INPUT, WEIGHT
from accelsim.mapping.compiled import compiled, inlined
from accelsim.mapping.layout.records import CACHED, FETCH, GB, NO_READ, POSITION, STREAM, STREAMED

OPERANDS = 1 << 31  # number of the first share of a spilled operand: after all fetches
_NEVER = np.int64(1) << 62


@inlined
def request_order(kind, leader, number):
    """Class, leader or PE, and number in one integer: how requests of a cycle are ordered, of one layer."""
    return (np.int64(kind * 4096 + leader) << 32) + number


@inlined
def _stays(blocks, b0, b1, tiles, position_of, positions, count, pe):
    """Positions of one operand of one PE, from row `count` on, and which its blocks use; returns the end.

    A tile that is still in the other half is kept and not fetched.
    """
    start = count
    for b in range(b0, b1):
        tile = tiles[b]
        if count == start or positions[count - 1].tile != tile:
            position = positions[count]
            position.pe, position.number, position.tile, position.first = pe, count - start, tile, b
            position.fetched = count - start < 2 or positions[count - 2].tile != tile
            position.context = blocks[b].context
            count += 1
        positions[count - 1].last = b
        position_of[b] = count - 1
    return count


@compiled
def lay_positions(s, blocks, pes):
    """Rows of POSITION: weights PE by PE, then inputs; sets those of `pes` and of `blocks`."""
    positions = np.empty(2 * len(blocks), POSITION)
    count = 0
    for pe in range(s.pes + 1):
        pes[pe].weight_position = count
        if pe < s.pes:
            b0, b1 = pes[pe].block, pes[pe + 1].block
            count = _stays(blocks, b0, b1, blocks.weight_tile, blocks.weight_position, positions, count, pe)
    for pe in range(s.pes + 1):
        pes[pe].input_position = count
        if pe < s.pes:
            b0, b1 = pes[pe].block, pes[pe + 1].block
            count = _stays(blocks, b0, b1, blocks.input_tile, blocks.input_position, positions, count, pe)
    return positions[:count]


@inlined
def input_sharing(s, c):
    """PEs whose numbers differ by this share inputs; with several groups each has its own."""
    return c.c_split * c.pixel_split if s.groups == 1 else s.pes


@compiled
def lay_fetches(s, c, positions, pes):
    """(rows of STREAM, weights then inputs; of FETCH, theirs; destinations; streams and fetches of weights).

    Of a fetch all but `stream`, `first` and `stop` is left to `fill_fetches`.
    """
    weight_streams, input_streams = -(-s.pes // c.pixel_split), input_sharing(s, c)
    streams = np.empty(weight_streams + input_streams, STREAM)
    wanted = 0
    for i in range(len(positions)):
        wanted += positions[i].fetched
    destinations = np.empty(wanted, np.int64)
    fetches = np.empty(wanted, FETCH)
    # By PE: the next of its positions that needs a fetch, and the end of its positions.
    at, end = np.empty(s.pes, np.int64), np.empty(s.pes, np.int64)
    count, reached, weight_fetches = 0, 0, 0
    for row in range(len(streams)):
        weight = row < weight_streams
        stream = streams[row]
        stream.number = row if weight else row - weight_streams
        stream.first, stream.leader = count, -1
        first_pe, step = (stream.number * c.pixel_split, 1) if weight else (stream.number, input_streams)
        last_pe = min(s.pes, first_pe + c.pixel_split) if weight else s.pes
        for pe in range(first_pe, last_pe, step):
            at[pe] = pes[pe].weight_position if weight else pes[pe].input_position
            end[pe] = pes[pe + 1].weight_position if weight else pes[pe + 1].input_position
            if stream.leader < 0 and at[pe] < end[pe]:
                stream.leader = pe
        stream.bank = stream.number % s.weight_banks
        if not weight:
            stream.bank = s.weight_banks + stream.number % s.input_banks
        while True:
            context = _NEVER
            for pe in range(first_pe, last_pe, step):
                if at[pe] < end[pe]:
                    context = min(context, positions[at[pe]].context)
            if context == _NEVER:
                break
            fetches[count].stream, fetches[count].first = row, reached
            for pe in range(first_pe, last_pe, step):
                if at[pe] < end[pe] and positions[at[pe]].context == context:
                    destinations[reached] = at[pe]
                    reached += 1
                    at[pe] += 1
                    while at[pe] < end[pe] and not positions[at[pe]].fetched:
                        at[pe] += 1
            fetches[count].stop = reached
            count += 1
        stream.stop = count
        if weight:
            weight_fetches = count
    return streams, fetches[:count], destinations, weight_streams, weight_fetches


@inlined
def _multicast(side, deepest, positions, destinations, first, stop):
    """Links in the union of the XY paths to PEs: one into the grid, along row 0, then down each column."""
    for x in range(side):
        deepest[x] = -1
    for n in range(first, stop):
        pe = positions[destinations[n]].pe
        deepest[pe % side] = max(deepest[pe % side], pe // side)
    hops, widest = 1, 0
    for x in range(side):
        if deepest[x] >= 0:
            widest = x
            hops += deepest[x]
    return hops + widest


@compiled
def fill_fetches(s, weight_tiles, input_tiles, positions, destinations, streams, fetches, weight_fetches):
    """What each fetch carries, where from, and over how many links.

    Returns the bits of the largest tile of every weight stream, all together.
    """
    one_each = 0
    deepest = np.empty(s.side, np.int64)
    # By tile: one past the latest fetch of it.
    latest = np.zeros(max(len(weight_tiles), s.groups * len(input_tiles)), np.int64)
    for row in range(len(streams)):
        stream = streams[row]
        weight = stream.first < weight_fetches
        mode = s.weight_mode if weight else s.input_mode
        largest = 0
        for f in range(stream.first, stream.stop):
            fetch = fetches[f]
            tile = positions[destinations[fetch.first]].tile
            seen = latest[tile] > stream.first
            if weight:
                fetch.bits = dram = weight_tiles[tile].words // s.run * s.weight_bits
            else:
                held = input_tiles[tile % len(input_tiles)]
                fetch.bits = held.words // s.run * s.input_bits
                dram = held.new_bits if mode == CACHED else held.dram_bits
            largest = max(largest, fetch.bits)
            fetch.tile, fetch.space = tile, 0
            fetch.dram_bits = dram if mode == STREAMED or (mode == CACHED and not seen) else NO_READ
            if weight and mode != GB:
                # What is cached keeps its space until its last fetch.
                fetch.space = fetch.bits
                if mode == CACHED and seen:
                    fetches[latest[tile] - 1].space = 0
            latest[tile] = f + 1
            fetch.hops = _multicast(s.side, deepest, positions, destinations, fetch.first, fetch.stop)
            kind = WEIGHT if weight else INPUT
            fetch.order = request_order(kind, stream.leader, f - stream.first)
        one_each += largest if weight else 0
    return one_each
