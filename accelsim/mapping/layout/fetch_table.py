# mypy: ignore-errors
# Compiled by Numba, whose types mypy does not know.
"""What the fetches of a layer carry and where from, for the mapper's model."""

from __future__ import annotations

import numpy as np
from numba import njit

from accelsim.mapping.layout.arrays import (
    BLOCK,
    CHUNK,
    INPUT_TILE,
    RUN,
    TILE,
    WEIGHT_TILE,
    WEIGHT_WORDS,
    blocks_of,
    fetches_of,
    input_tiles,
    pixel_runs,
    positions_of,
)

# Why a mapping has no layout.
UNFIT_WEIGHTS, UNFIT_INPUTS, UNFIT_REGION = -1, -2, -3

# Rows of a fetch table; a column is a fetch, weights before inputs, stream by stream.
BITS = 0
DRAM_BITS = 1  # -1 where no DRAM is read
SPACE = 2  # of the weight region, given back by it
BANK, RANK, HOPS = 3, 4, 5  # RANK: class, leader and number, which order requests of a cycle


@njit(cache=True)
def _multicast(side, deepest, destinations, owner):
    """Links in the union of the XY paths to the destinations' PEs."""
    deepest[:] = -1
    for at in destinations:
        x, y = owner[at] % side, owner[at] // side
        deepest[x] = max(deepest[x], y)
    hops, widest = 1, 0
    for x in range(side):
        if deepest[x] >= 0:
            widest = x
            hops += deepest[x]
    return hops + widest


@njit(cache=True)
def fetch_table(s, c, m, table, words, dram_first, dram_again, weight_side, input_side, bounds):
    """(whether weight tiles fit their region, table, bits of the largest input tile, input streams in use).

    weight_side, input_side: (streams, first destinations, destinations, owners, positions) as of
    `arrays.fetches_of`; bounds: int64[2, streams], filled with the fetches each stream starts and ends with.
    """
    w_stream, w_fetch, w_dest, w_owner, w_pos = weight_side
    i_stream, i_fetch, i_dest, i_owner, i_pos = input_side
    pes, pp_count = s.pes, c.pixel_split
    weight_streams, weight_fetches = len(w_stream) - 1, len(w_fetch) - 1
    streams = weight_streams + len(i_stream) - 1
    fetches = weight_fetches + len(i_fetch) - 1
    out = np.zeros((6, fetches), np.int64)
    bits, dram, space, bank, rank, hops = out[0], out[1], out[2], out[3], out[4], out[5]
    dram[:] = -1
    side = 1
    while side * side < pes:
        side += 1
    deepest = np.zeros(side, np.int64)
    active_inputs, largest_input = 0, 0
    for stream in range(streams):
        weight = stream < weight_streams
        number = stream if weight else stream - weight_streams
        own = w_stream if weight else i_stream
        f0, f1 = own[number], own[number + 1]
        first_of, dest, owner = (w_fetch, w_dest, w_owner) if weight else (i_fetch, i_dest, i_owner)
        pos, mode = (w_pos, s.weight_mode) if weight else (i_pos, s.input_mode)
        base = 0 if weight else weight_fetches
        bounds[0, stream], bounds[1, stream] = base + f0, base + f1
        if f0 == f1:
            continue
        active_inputs += not weight
        leader = pes
        highest = 0
        for f in range(f0, f1):
            highest = max(highest, pos[TILE, dest[first_of[f]]])
            for n in range(first_of[f], first_of[f + 1]):
                leader = min(leader, owner[dest[n]])
        latest = np.full(highest + 1 if mode == 1 else 1, -1)
        for f in range(f0, f1):
            at = dest[first_of[f]]
            b, i = pos[BLOCK, at], base + f
            part = owner[at] // pp_count % c.c_split
            if weight:
                bits[i] = table[WEIGHT_WORDS, b] * s.weight_bits
                bank[i] = number % m.weight_banks
                if mode and bits[i] > m.weight_region:
                    return False, out, largest_input, active_inputs
            else:
                bits[i] = words[part, table[RUN, b], table[CHUNK, b]] * s.input_bits
                bank[i] = m.weight_banks + number % m.input_banks
                largest_input = max(largest_input, bits[i])
            rank[i] = (((3 if weight else 2) * 4096 + leader) << 32) + f - f0
            hops[i] = _multicast(side, deepest, dest[first_of[f] : first_of[f + 1]], owner)
            tile = pos[TILE, at]
            seen = mode == 1 and latest[tile] >= 0
            if mode == 2 or (mode == 1 and not seen):
                if weight:
                    dram[i] = bits[i]
                elif mode == 1:
                    dram[i] = dram_first[part, table[RUN, b], table[CHUNK, b]]
                else:
                    dram[i] = dram_again[part, table[RUN, b], table[CHUNK, b]]
            if weight and mode:
                space[i] = bits[i]
                if seen:
                    space[latest[tile]] = 0
            if mode == 1:
                latest[tile] = i
    return True, out, largest_input, active_inputs


@njit(cache=True)
def halves_free(fetch, first_of, dest, owner, start, release, at_first):
    """Cycle from which the halves that a fetch of one operand fills are free; at_first: of the first two."""
    free_at = np.int64(0)
    for n in range(first_of[fetch], first_of[fetch + 1]):
        at = dest[n]
        number = at - start[owner[at]]
        free_at = max(free_at, release[at - 2] if number >= 2 else at_first[number])
    return free_at


@njit(cache=True)
def input_sharing(s, c):
    """PEs whose numbers differ by this share inputs; with several groups each has its own."""
    return c.c_split * c.pixel_split if s.groups == 1 else s.pes


@njit(cache=True)
def operands(s, c, m, taps):
    """Blocks, and what brings their operands: the layout of one layer at one mapping.

    Returns (0, or which of UNFIT_* it is; blocks as of `arrays.blocks_of`; for weights and inputs positions
    as of `arrays.positions_of` with streams and fetches as of `arrays.fetches_of`; the fetch table; the first
    and last fetch of each stream; bits of two of the largest input tile for every stream in use).
    """
    run_first, run_last, run_pp, run_offset = pixel_runs(s, c)
    words, dram_first, dram_again = input_tiles(s, c, taps, run_first, run_last, run_pp)
    offset, table = blocks_of(s, c, run_first, run_last, run_offset)
    refused = UNFIT_INPUTS if words.max() > s.input_half else 0
    if table.shape[1] == 0:
        refused = UNFIT_WEIGHTS
    pes = np.arange(s.pes)
    w_start, w_pos, w_of = positions_of(offset, table, WEIGHT_TILE)
    i_start, i_pos, i_of = positions_of(offset, table, INPUT_TILE)
    w_stream, w_fetch, w_dest, w_owner = fetches_of(w_start, w_pos, table, pes // c.pixel_split)
    i_stream, i_fetch, i_dest, i_owner = fetches_of(i_start, i_pos, table, pes % input_sharing(s, c))
    bounds = np.zeros((2, len(w_stream) + len(i_stream) - 2), np.int64)
    fits, facts, largest, active = fetch_table(
        s,
        c,
        m,
        table,
        words,
        dram_first,
        dram_again,
        (w_stream, w_fetch, w_dest, w_owner, w_pos),
        (i_stream, i_fetch, i_dest, i_owner, i_pos),
        bounds,
    )
    if refused == 0 and not fits:
        refused = UNFIT_REGION
    weights = w_start, w_pos, w_of, w_stream, w_fetch, w_dest, w_owner
    inputs = i_start, i_pos, i_of, i_stream, i_fetch, i_dest, i_owner
    return refused, offset, table, weights, inputs, facts, bounds, 2 * active * largest
