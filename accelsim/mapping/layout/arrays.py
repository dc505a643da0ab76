# mypy: ignore-errors
# Compiled by Numba, whose types mypy does not know.
"""A layer's program as arrays, for the mapper's model: the same blocks, positions and fetches as
`program.build_program` makes (docs/machine.md section 4), in a form that compiled code can walk.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

FIRST, LAST, LAST_OF_UNIT = 1, 2, 4


class Shape(NamedTuple):
    """What the layout depends on, all integers. Bits are of one word; `item_bits` of what DRAM stores."""

    pes: int
    lanes: int
    unit: int
    depth: int  # most pixels of a d-tile
    weight_half: int
    input_half: int
    groups: int
    outputs: int  # per group
    pixels: int
    positions: int  # input positions N*H*W
    taps: int
    words: int  # Cv, or of a folded layer G
    folded: int
    channels: int  # per group
    vector: int
    weight_bits: int
    input_bits: int
    item_bits: int
    weight_mode: int  # 0 gb, 1 cached, 2 streamed
    input_mode: int


class Choice(NamedTuple):
    """A mapping in integers; `k_outer` is order KP; chunk_vectors holds for units_per_tile = 0."""

    k_split: int
    c_split: int
    pixel_split: int
    k_outer: int
    tile_pixels: int
    units_per_tile: int
    chunk_vectors: int
    chunk_inputs: int


@njit(cache=True, inline="always")
def _split(count, parts, index):
    """(first, one past the last) of block `index` of `count` things cut into `parts`."""
    base, extra = count // parts, count % parts
    start = index * base + min(index, extra)
    return start, start + base + (1 if index < extra else 0)


@njit(cache=True)
def _distinct(taps, p0, p1, t0, t1, stamp, mark):
    """Distinct input positions under taps [t0, t1) of pixels [p0, p1)."""
    count = 0
    for p in range(p0, p1):
        for t in range(t0, t1):
            at = taps[p, t]
            if at >= 0 and stamp[at] != mark:
                stamp[at] = mark
                count += 1
    return count


@njit(cache=True)
def _fresh(taps, p0, p1, t0, t1, known):
    """Those of them that are not in `known` yet; they are put there."""
    count = 0
    for p in range(p0, p1):
        for t in range(t0, t1):
            at = taps[p, t]
            if at >= 0 and not known[at]:
                known[at] = True
                count += 1
    return count


@njit(cache=True)
def input_tiles(s, c, taps, run_first, run_last, run_pp):
    """(words, DRAM bits at first sight, and otherwise) int64[parts, runs, chunks] of every input tile."""
    runs = len(run_first)
    most = 0
    for pc in range(c.c_split):
        start, stop = _split(s.words, c.c_split, pc)
        vectors = (stop - start) * (1 if s.folded else s.taps)
        most = max(most, -(-vectors // c.chunk_vectors) if c.chunk_inputs else 1)
    words = np.zeros((c.c_split, runs, most), np.int64)
    first = np.zeros((c.c_split, runs, most), np.int64)
    again = np.zeros((c.c_split, runs, most), np.int64)
    stamp = np.full(s.positions, -1, np.int64)
    mark = 0
    for pc in range(c.c_split):
        start, stop = _split(s.words, c.c_split, pc)
        own = stop - start
        vectors = own * (1 if s.folded else s.taps)
        chunk = c.chunk_vectors if c.chunk_inputs else vectors
        known = np.zeros((own if c.chunk_inputs and not s.folded else 1, s.positions), np.bool_)
        for run in range(runs):
            if run and run_pp[run] != run_pp[run - 1]:
                known[:] = False
            p0, p1 = run_first[run], run_last[run]
            for i in range(-(-vectors // chunk)):
                g0, g1 = i * chunk, min((i + 1) * chunk, vectors)
                if s.folded:
                    words[pc, run, i] = (p1 - p0) * (g1 - g0)
                    t0 = (start + g0) * s.vector // s.channels
                    t1 = min(s.taps, -(-(start + g1) * s.vector // s.channels))
                    mark += 1
                    again[pc, run, i] = _distinct(taps, p0, p1, t0, t1, stamp, mark) * s.item_bits
                    first[pc, run, i] = _fresh(taps, p0, p1, t0, t1, known[0]) * s.item_bits
                elif not c.chunk_inputs:
                    mark += 1
                    words[pc, run, i] = own * _distinct(taps, p0, p1, 0, s.taps, stamp, mark)
                    again[pc, run, i] = words[pc, run, i] * s.item_bits
                    if s.input_mode == 1:
                        first[pc, run, i] = own * _fresh(taps, p0, p1, 0, s.taps, known[0]) * s.item_bits
                else:
                    last_t0, last_t1, count = -1, -1, 0
                    for j in range(own):
                        t0, t1 = -(-(g0 - j) // own), -(-(g1 - j) // own)
                        if t0 != last_t0 or t1 != last_t1:
                            mark += 1
                            count = _distinct(taps, p0, p1, t0, t1, stamp, mark)
                            last_t0, last_t1 = t0, t1
                        words[pc, run, i] += count
                        if s.input_mode == 1:
                            first[pc, run, i] += _fresh(taps, p0, p1, t0, t1, known[j]) * s.item_bits
                    again[pc, run, i] = words[pc, run, i] * s.item_bits
    return words, first, again


@njit(cache=True)
def pixel_runs(s, c):
    """Runs of tile_pixels of every pp: first and last + 1 pixel, pp; and where each pp's runs start."""
    count = 0
    offsets = np.zeros(c.pixel_split + 1, np.int64)
    for pp in range(c.pixel_split):
        start, stop = _split(s.pixels, c.pixel_split, pp)
        count += -(-(stop - start) // c.tile_pixels)
        offsets[pp + 1] = count
    first, last, owner = np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count, np.int64)
    for pp in range(c.pixel_split):
        start, stop = _split(s.pixels, c.pixel_split, pp)
        for i in range(offsets[pp], offsets[pp + 1]):
            first[i] = start + (i - offsets[pp]) * c.tile_pixels
            last[i] = min(first[i] + c.tile_pixels, stop)
            owner[i] = pp
    return first, last, owner, offsets


# Rows of a block table; a column is a block, PE by PE.
PIXELS, VECTORS, LANES, FLAGS = 0, 1, 2, 3
LANE_GROUPS = 4  # of the unit
CHANNELS = 5  # of the unit, up to the end of the block's lane group
WEIGHT_TILE, INPUT_TILE = 6, 7  # which tile; equal numbers in a PE are one tile
WEIGHT_WORDS = 8  # of the weight tile, over all lanes
RUN, CHUNK = 9, 10  # of the input tile
CONTEXT = 11


@njit(cache=True)
def _unit(s, u):
    """(group, channels) of unit u."""
    per_group = -(-s.outputs // s.unit)
    within = u % per_group
    return u // per_group, min(s.unit, s.outputs - within * s.unit)


@njit(cache=True)
def _tile_end(s, c, u, stop):
    """One past the last unit of the weight tile that starts with unit u."""
    end = u + 1
    while end < stop and end - u < c.units_per_tile and _unit(s, end)[0] == _unit(s, u)[0]:
        end += 1
    return end


@njit(cache=True)
def blocks_of(s, c, run_first, run_last, run_offset):
    """Every block in issue order, or an empty layout where a weight tile does not fit its half."""
    units = s.groups * -(-s.outputs // s.unit)
    offset = np.zeros(s.pes + 1, np.int64)
    chunked = c.units_per_tile == 0
    # Radices of the context, the loop indices in nesting order.
    radix_d = -(-c.tile_pixels // s.depth)
    radix_lane = -(-s.unit // s.lanes)
    radix_unit = max(1, c.units_per_tile)
    radix_inner = -(-units // c.k_split)
    if c.k_outer:
        radix_inner = np.diff(run_offset).max()
    total = 0
    for sizing in (True, False):
        if not sizing:
            table = np.zeros((12, total), np.int64)
            total = 0
        for pe in range(s.pes):
            pp = pe % c.pixel_split
            pc = pe // c.pixel_split % c.c_split
            pk = pe // (c.pixel_split * c.c_split)
            offset[pe] = total
            if pk >= c.k_split:
                continue
            u0, u1 = _split(units, c.k_split, pk)
            start, stop = _split(s.words, c.c_split, pc)
            vectors = (stop - start) * (1 if s.folded else s.taps)
            chunk = c.chunk_vectors if chunked else vectors
            if min(chunk, vectors) > s.weight_half and chunked:
                return offset, np.zeros((12, 0), np.int64)
            chunks = -(-vectors // chunk)
            r0, r1 = run_offset[pp], run_offset[pp + 1]
            # Tiles of weights: starts of the PE's runs of units.
            starts = np.zeros(u1 - u0 + 1, np.int64)
            tiles, u = 0, u0
            while u < u1:
                starts[tiles] = u
                u = _tile_end(s, c, u, u1)
                tiles += 1
            starts[tiles] = u1
            outer, inner = (tiles, r1 - r0) if c.k_outer else (r1 - r0, tiles)
            for o in range(outer):
                for i in range(inner):
                    kt, run = (o, r0 + i) if c.k_outer else (i, r0 + o)
                    words, groups_of_lanes = 0, 0
                    for u in range(starts[kt], starts[kt + 1]):
                        words += _unit(s, u)[1] * vectors
                        groups_of_lanes += -(-_unit(s, u)[1] // s.lanes)
                    if not chunked and groups_of_lanes * vectors > s.weight_half:
                        return offset, np.zeros((12, 0), np.int64)
                    for u in range(starts[kt], starts[kt + 1]):
                        group, channels = _unit(s, u)
                        lane_groups = -(-channels // s.lanes)
                        for d in range(-(-(run_last[run] - run_first[run]) // s.depth)):
                            pixels = min(s.depth, run_last[run] - run_first[run] - d * s.depth)
                            for lane in range(lane_groups):
                                lanes = min(s.lanes, channels - lane * s.lanes)
                                for part in range(chunks):
                                    if not sizing:
                                        n = min(chunk, vectors - part * chunk)
                                        flags = FIRST * (part == 0) + LAST * (part == chunks - 1)
                                        flags += LAST_OF_UNIT * (lane == lane_groups - 1)
                                        context = (o * radix_inner + i) * radix_unit + u - starts[kt]
                                        context = (context * radix_d + d) * radix_lane + lane
                                        table[0, total] = pixels
                                        table[1, total] = n
                                        table[2, total] = lanes
                                        table[3, total] = flags
                                        table[4, total] = lane_groups
                                        table[5, total] = lane * s.lanes + lanes
                                        table[6, total] = (
                                            (u * radix_lane + lane) * chunks + part if chunked else starts[kt]
                                        )
                                        table[7, total] = (group * (r1 + 1) + run) * (chunks + 1) + (
                                            part if c.chunk_inputs else 0
                                        )
                                        table[8, total] = lanes * n if chunked else words
                                        table[9, total] = run
                                        table[10, total] = part if c.chunk_inputs else 0
                                        table[11, total] = context * chunks + part
                                    total += 1
        offset[s.pes] = total
    return offset, table


# Rows of a position table; a column is a stay of a tile in a buffer half, PE by PE.
POSITION_LAST, FETCHED, TILE, BLOCK = 0, 1, 2, 3  # last block, needs a fetch, tile, first block


@njit(cache=True)
def positions_of(offset, table, kind_row):
    """Positions of one operand, and of every block the one it uses."""
    pes, blocks = len(offset) - 1, table.shape[1]
    position_of = np.zeros(blocks, np.int64)
    positions = np.zeros((4, blocks), np.int64)
    starts = np.zeros(pes + 1, np.int64)
    count = 0
    for pe in range(pes):
        starts[pe] = count
        for b in range(offset[pe], offset[pe + 1]):
            tile = table[kind_row, b]
            if count == starts[pe] or positions[TILE, count - 1] != tile:
                kept = count - starts[pe] >= 2 and positions[TILE, count - 2] == tile
                positions[FETCHED, count] = not kept
                positions[TILE, count] = tile
                positions[BLOCK, count] = b
                count += 1
            positions[POSITION_LAST, count - 1] = b
            position_of[b] = count - 1
    starts[pes] = count
    return starts, positions[:, :count].copy(), position_of


@njit(cache=True)
def fetches_of(starts, positions, table, stream_of):
    """Fetches stream by stream, ascending contexts.

    Returns (streams: first fetch of each, and of the end; first destination of each fetch, and of the end;
    destination positions; PE of each position).
    """
    pes = len(starts) - 1
    streams = 0
    for pe in range(pes):
        streams = max(streams, stream_of[pe] + 1)
    owner = np.zeros(positions.shape[1], np.int64)
    for pe in range(pes):
        owner[starts[pe] : starts[pe + 1]] = pe
    wanted = np.flatnonzero(positions[FETCHED])
    span = 1
    for i in wanted:
        span = max(span, table[CONTEXT, positions[BLOCK, i]] + 1)
    keys = np.zeros(len(wanted), np.int64)
    for n, i in enumerate(wanted):
        keys[n] = stream_of[owner[i]] * span + table[CONTEXT, positions[BLOCK, i]]
    order = np.argsort(keys, kind="mergesort")
    destinations = wanted[order]
    first = np.zeros(len(wanted) + 1, np.int64)
    stream_first = np.zeros(streams + 1, np.int64)
    fetches, previous = 0, -1
    for n, at in enumerate(order):
        if keys[at] != previous:
            previous = keys[at]
            first[fetches] = n
            fetches += 1
        stream_first[keys[at] // span + 1] = fetches
    first[fetches] = len(wanted)
    for stream in range(streams):
        stream_first[stream + 1] = max(stream_first[stream + 1], stream_first[stream])
    return stream_first, first[: fetches + 1].copy(), destinations, owner
