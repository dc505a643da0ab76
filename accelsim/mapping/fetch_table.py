# mypy: ignore-errors
# Compiled by Numba, whose types mypy does not know.
"""What the fetches of a layer carry and where from, for the mapper's model."""

from __future__ import annotations

import numpy as np
from numba import njit

from accelsim.mapping.arrays import BLOCK, CHUNK, RUN, TILE, WEIGHT_WORDS

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
