# mypy: ignore-errors
# Compiled by Numba, whose types mypy does not know.
"""The psum tiles that the blocks of a layer make, and what leaves the PEs, for the mapper's model."""

from __future__ import annotations

import numpy as np
from numba import njit

from accelsim.mapping.layout.arrays import CHANNELS, FLAGS, LANES, LAST, LAST_OF_UNIT, PIXELS, VECTORS
from accelsim.mapping.search.steps import block_slots


@njit(cache=True)
def output_pixel_bits(s, m, table, b):
    """Bits of one pixel of the output tile that block b ends."""
    channels = table[CHANNELS, b] if m.scale_bits else table[LANES, b]
    return channels * m.code_bits + m.scale_bits * -(-channels // s.vector)


@njit(cache=True)
def psum_tiles(s, c, m, offset, table):
    """Psum tiles PE by PE in order, and their pieces.

    Returns (first tile and first piece of each PE, and of the end; last block of each tile; its first piece,
    counted in its PE; output tiles in all; bits of the largest).
    """
    pes = s.pes
    tile_first, piece_first = np.zeros(pes + 1, np.int64), np.zeros(pes + 1, np.int64)
    tile_block = np.zeros(table.shape[1], np.int64)
    tile_piece = np.zeros(table.shape[1], np.int64)
    outputs, largest = 0, 0
    for pe in range(pes):
        tiles, pieces = tile_first[pe], piece_first[pe]
        sends = pe // c.pixel_split % c.c_split < c.c_split - 1
        for b in range(offset[pe], offset[pe + 1]):
            if table[FLAGS, b] & LAST:
                tile_block[tiles], tile_piece[tiles] = b, pieces - piece_first[pe]
                tiles += 1
                n = -(-table[PIXELS, b] // m.piece)
                pieces += n
                if not sends and (table[FLAGS, b] & LAST_OF_UNIT or not m.staged):
                    outputs += n
                    most = min(m.piece, table[PIXELS, b]) * output_pixel_bits(s, m, table, b)
                    largest = max(largest, most)
        tile_first[pe + 1], piece_first[pe + 1] = tiles, pieces
    return tile_first, piece_first, tile_block, tile_piece, outputs, largest


@njit(cache=True)
def slots_to_issue(m, offset, table):
    """Slots of all blocks of each PE."""
    slots = np.zeros(len(offset) - 1, np.int64)
    for pe in range(len(slots)):
        for b in range(offset[pe], offset[pe + 1]):
            slots[pe] += block_slots(m.passes, table[PIXELS, b], table[VECTORS, b]).slots
    return slots


@njit(cache=True)
def global_pe_done(s, m, arrivals, last_write):
    """Cycle in which the global PE is done with the outputs: int64[outputs, (arrival, values)]."""
    by_time = np.argsort(arrivals[:, 0])
    total = s.pixels * s.outputs * s.groups
    end, behind = last_write, 0
    for n in range(len(by_time) - 1, -1, -1):
        at, values = arrivals[by_time[n], 0], arrivals[by_time[n], 1]
        behind += values
        end = max(end, at + -(-m.streaming_elements * behind // (total * m.global_pe_rate)))
    return end + m.row_cycles
