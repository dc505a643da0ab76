# mypy: ignore-errors
# Compiled by Numba, whose types mypy does not know.
"""Weight tiles, blocks and the psum tiles they make (docs/program.md, Units, Tiles, Blocks)."""

from __future__ import annotations

import numpy as np

from accelsim.mapping.compiled import compiled, inlined
from accelsim.mapping.layout.input_tiles import split, vectors_of, words_of
from accelsim.mapping.layout.records import BLOCK, PE, PSUM_TILE, WEIGHT_TILE


@inlined
def units_in(s):
    """Units of the layer."""
    return s.groups * -(-s.outputs // s.unit)


@inlined
def unit_of(s, u):
    """(group, first channel, channels) of unit u."""
    per_group = -(-s.outputs // s.unit)
    group, within = u // per_group, u % per_group
    return group, group * s.outputs + within * s.unit, min(s.unit, s.outputs - within * s.unit)


@inlined
def tile_end(s, c, u, stop):
    """One past the last unit of kt that starts with unit u: a run ends at a group boundary too."""
    end = u + 1
    while end < stop and end - u < c.units_per_tile and unit_of(s, end)[0] == unit_of(s, u)[0]:
        end += 1
    return end


@inlined
def lane_groups_of_unit(s):
    return -(-s.unit // s.lanes)


@inlined
def weight_chunks(s, c):
    """Chunks of weights in the longest part."""
    if c.units_per_tile:
        return 1
    most = 0
    for part in range(c.c_split):
        most = max(most, -(-vectors_of(s, c, part) // c.chunk_vectors))
    return most


@compiled
def weight_tiles(s, c):
    """Rows of WEIGHT_TILE at weight_row(): there are gaps, where no tile begins."""
    units, lane_groups, chunks = units_in(s), lane_groups_of_unit(s), weight_chunks(s, c)
    whole = c.units_per_tile > 0
    tiles = np.zeros(c.c_split * units * (1 if whole else lane_groups * chunks), WEIGHT_TILE)
    for part in range(c.c_split):
        vectors = vectors_of(s, c, part)
        for pk in range(c.k_split):
            u, stop = split(units, c.k_split, pk)
            while u < stop:
                end = tile_end(s, c, u, stop)
                _, k0, channels = unit_of(s, u)
                if whole:
                    # All units but the last are whole.
                    _, last_k0, last_channels = unit_of(s, end - 1)
                    tile = tiles[weight_row(s, c, chunks, part, u, 0, 0)]
                    tile.k0, tile.k1, tile.g1 = k0, last_k0 + last_channels, vectors
                    tile.words = (tile.k1 - k0) * vectors
                    tile.half_words = ((end - 1 - u) * lane_groups - -last_channels // s.lanes) * vectors
                else:
                    for lane in range(-(-channels // s.lanes)):
                        lanes = min(s.lanes, channels - lane * s.lanes)
                        for chunk in range(-(-vectors // c.chunk_vectors)):
                            tile = tiles[weight_row(s, c, chunks, part, u, lane, chunk)]
                            tile.k0 = k0 + lane * s.lanes
                            tile.k1 = tile.k0 + lanes
                            tile.g0 = chunk * c.chunk_vectors
                            tile.g1 = min(tile.g0 + c.chunk_vectors, vectors)
                            tile.half_words = tile.g1 - tile.g0
                            tile.words = lanes * tile.half_words
                u = end
    return tiles


@inlined
def weight_row(s, c, chunks, part, u, lane, chunk):
    """Row of the weight tile of a part that begins with unit u, or with chunks that of its lane group."""
    if c.units_per_tile:
        return part * units_in(s) + u
    return ((part * units_in(s) + u) * lane_groups_of_unit(s) + lane) * chunks + chunk


@inlined
def _count(s, c, runs, first_run, pes):
    """Sets where each PE's blocks, psum tiles and pieces begin."""
    units = units_in(s)
    blocks, tiles, pieces = 0, 0, 0
    for pe in range(s.pes + 1):
        pes[pe].block, pes[pe].psum_tile, pes[pe].piece = blocks, tiles, pieces
        pp = pe % c.pixel_split
        chain = pe // c.pixel_split
        pk, part = chain // c.c_split, chain % c.c_split
        if pe == s.pes or pk >= c.k_split:
            continue
        u0, u1 = split(units, c.k_split, pk)
        lane_groups, d_tiles, leaving = 0, 0, 0
        for u in range(u0, u1):
            lane_groups -= -unit_of(s, u)[2] // s.lanes
        for run in range(first_run[pp], first_run[pp + 1]):
            whole, rest = divmod(runs[run].p1 - runs[run].p0, s.depth)
            d_tiles += whole + (rest > 0)
            leaving += whole * -(-s.depth // s.piece) - -rest // s.piece
        vectors = vectors_of(s, c, part)
        blocks += lane_groups * d_tiles * (1 if c.units_per_tile else -(-vectors // c.chunk_vectors))
        tiles += lane_groups * d_tiles
        pieces += lane_groups * leaving


@inlined
def _inner(s, c, first_run):
    """The most iterations of the inner of the two loops over tiles."""
    if not c.k_outer:
        return -(-units_in(s) // c.k_split)
    most = 1
    for pp in range(c.pixel_split):
        most = max(most, first_run[pp + 1] - first_run[pp])
    return most


@compiled
def iterations(s, c, first_run):
    """(iterations of the inner loop at most, contexts of each), as of `Layout`."""
    digits_d, digits_lane = -(-c.tile_pixels // s.depth), lane_groups_of_unit(s)
    return _inner(s, c, first_run), max(1, c.units_per_tile) * digits_d * digits_lane * weight_chunks(s, c)


@compiled
def lay_blocks(s, c, runs, first_run, input_chunks):
    """(rows of BLOCK in issue order, PE by PE; of PSUM_TILE; of PE with where those begin)."""
    pes = np.zeros(s.pes + 1, PE)
    _count(s, c, runs, first_run, pes)
    blocks, tiles = np.empty(pes[s.pes].block, BLOCK), np.empty(pes[s.pes].psum_tile, PSUM_TILE)
    units, most_chunks = units_in(s), weight_chunks(s, c)
    # A context is the loop indices in nesting order, as the digits of one number, not much more than blocks.
    digits_d, digits_lane = -(-c.tile_pixels // s.depth), lane_groups_of_unit(s)
    digits_unit, digits_inner = max(1, c.units_per_tile), _inner(s, c, first_run)
    for pe in range(s.pes):
        if pes[pe].block == pes[pe + 1].block:
            continue
        pp, chain = pe % c.pixel_split, pe // c.pixel_split
        pk, part = chain // c.c_split, chain % c.c_split
        u0, u1 = split(units, c.k_split, pk)
        r0, r1 = first_run[pp], first_run[pp + 1]
        vectors = vectors_of(s, c, part)
        chunk = vectors if c.units_per_tile else c.chunk_vectors
        chunks = -(-vectors // chunk)
        # kt: the PE's runs of units, by their first.
        starts = np.empty(u1 - u0 + 1, np.int64)
        kts, u = 0, u0
        while u < u1:
            starts[kts] = u
            u = tile_end(s, c, u, u1)
            kts += 1
        starts[kts] = u1
        outer, inner = (kts, r1 - r0) if c.k_outer else (r1 - r0, kts)
        b, j, piece = pes[pe].block, pes[pe].psum_tile, 0
        for o in range(outer):
            for i in range(inner):
                kt, run = (o, r0 + i) if c.k_outer else (i, r0 + o)
                for u in range(starts[kt], starts[kt + 1]):
                    group, k0, channels = unit_of(s, u)
                    lane_groups = -(-channels // s.lanes)
                    for d in range(-(-(runs[run].p1 - runs[run].p0) // s.depth)):
                        p0 = runs[run].p0 + d * s.depth
                        pixels = min(s.depth, runs[run].p1 - p0)
                        for lane in range(lane_groups):
                            lanes = min(s.lanes, channels - lane * s.lanes)
                            context = (o * digits_inner + i) * digits_unit + u - starts[kt]
                            context = (context * digits_d + d) * digits_lane + lane
                            tile_of = (group * c.c_split + part) * len(runs) + run
                            for n in range(chunks):
                                block = blocks[b]
                                block.p0, block.pixels = p0, pixels
                                block.g0, block.vectors = n * chunk, min(chunk, vectors - n * chunk)
                                block.k0, block.lanes = k0 + lane * s.lanes, lanes
                                block.lane_group, block.lane_groups = lane, lane_groups
                                block.channels = lane * s.lanes + lanes
                                block.first, block.last = n == 0, n == chunks - 1
                                _leaving(s, block)
                                first = u if not c.units_per_tile else starts[kt]
                                block.weight_tile = weight_row(s, c, most_chunks, part, first, lane, n)
                                block.input_tile = tile_of * input_chunks + (n if c.chunk_inputs else 0)
                                block.context = context * most_chunks + n
                                b += 1
                            tiles[j].last, tiles[j].piece = b - 1, piece
                            j, piece = j + 1, piece - -pixels // s.piece
    return blocks, tiles, pes


@inlined
def _leaving(s, block):
    """What the psum tile that the block ends leaves as: a staged one waits for its unit's last lane group."""
    last_of_unit = block.lane_group == block.lane_groups - 1
    if s.staged and not last_of_unit:
        block.spacing, block.after_read = s.output_formats * s.slices, 0
        block.fifo_entries, block.values, block.output_bits = 0, 0, 0
        return
    channels = block.channels if s.staged else block.lanes
    lane_groups = block.lane_groups if s.staged else 1
    block.fifo_entries = s.output_formats * lane_groups
    block.spacing, block.after_read = block.fifo_entries * s.slices, (lane_groups - 1) * s.slices
    block.values = channels
    block.output_bits = channels * s.output_bits + s.output_scale_bits * -(-channels // s.output_block)


@compiled
def outputs_of(s, c, blocks, tiles, pes):
    """(output tiles over all PEs, bits of the largest, values of the one with the most)."""
    count, largest, most = 0, 0, 0
    for pe in range(s.pes):
        if pe // c.pixel_split % c.c_split < c.c_split - 1:
            continue  # its psums go on along the chain
        for j in range(pes[pe].psum_tile, pes[pe + 1].psum_tile):
            block = blocks[tiles[j].last]
            if block.fifo_entries:
                count -= -block.pixels // s.piece
                largest = max(largest, min(s.piece, block.pixels) * block.output_bits)
                most = max(most, min(s.piece, block.pixels) * block.values)
    return count, largest, most


@compiled
def input_reads(s, c, taps, blocks, input_tiles):
    """int64[blocks]: words that each block reads of the input buffer, one a step whose tap is not padding."""
    reads = np.empty(len(blocks), np.int64)
    # before[p, t]: pixels before p whose tap t is not padding.
    before = np.zeros((s.pixels + 1, s.taps), np.int64)
    for p in range(s.pixels):
        for t in range(s.taps):
            before[p + 1, t] = before[p, t] + (taps[p, t] >= 0)
    for b in range(len(blocks)):
        block = blocks[b]
        if s.packed_im2col:
            reads[b] = block.pixels * block.vectors
            continue
        start, stop = words_of(s, c, input_tiles[block.input_tile % len(input_tiles)].part)
        own, count = stop - start, 0
        for t in range(block.g0 // own, -(-(block.g0 + block.vectors) // own)):
            words = min((t + 1) * own, block.g0 + block.vectors) - max(t * own, block.g0)
            count += words * (before[block.p0 + block.pixels, t] - before[block.p0, t])
        reads[b] = count
    return reads
