"""The rows that a layout is made of, and what it is made from; all integers (docs/program.md).

Rows are NumPy records, so that compiled code and Python read the same fields by name.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.void]


def row_type(*fields: str) -> np.dtype[np.void]:
    """Rows of these fields, int64."""
    return np.dtype([(field, np.int64) for field in fields], align=True)


class Shape(NamedTuple):
    """What the layout of a layer depends on, but for its mapping."""

    pes: int
    side: int  # of the grid of PEs
    lanes: int
    slices: int  # in which the PPU takes an entry of psums
    unit: int  # KU
    depth: int  # Dt, most pixels of a d-tile
    piece: int  # D, most pixels of a piece of a psum tile
    weight_half: int  # words of half a buffer
    input_half: int
    weight_banks: int
    input_banks: int
    weight_region: int  # bits
    activation_region: int
    kept: int  # of it, by the layer's own tensors
    groups: int
    outputs: int  # per group
    pixels: int
    values: int  # outputs of the whole layer, where this one is laid out short
    positions: int  # input positions N*H*W
    taps: int
    words: int  # Cv, or of a packed im2col layer G: what is cut over a chain
    run: int  # words that share a scale and are not cut; bits are of so many
    packed_im2col: int
    channels: int  # per group
    vector: int
    weight_bits: int
    input_bits: int
    item_bits: int  # of what DRAM stores of an input: words, or a position of a packed im2col layer
    weight_mode: int  # GB, CACHED or STREAMED
    input_mode: int
    output_formats: int  # that the PPU writes
    output_bits: int  # of a code, and of a vector's scale, in all of them
    output_scale_bits: int
    output_block: int  # outputs that share a scale
    staged: int
    stages: int  # whether output tiles wait for DRAM
    staging_tiles: int  # output tiles of a PE that may


GB, CACHED, STREAMED = 0, 1, 2


class Tiling(NamedTuple):
    """A mapping in integers; k_outer: order KP; chunk_vectors holds for units_per_tile = 0."""

    k_split: int
    c_split: int
    pixel_split: int
    k_outer: int
    tile_pixels: int
    units_per_tile: int
    chunk_vectors: int
    chunk_inputs: int


# pt: pixels [p0, p1) of the PEs with this pp.
RUN = row_type("p0", "p1", "pp")

# Output channels [k0, k1) x vectors [g0, g1) of a part; words over all lanes, and in every macro of the half.
WEIGHT_TILE = row_type("k0", "k1", "g0", "g1", "words", "half_words")

# Pixels [p0, p1) x vectors [g0, g1) of a part. dram_bits: of what DRAM stores of it; new_bits: of that, what
# no earlier tile of its stream has.
INPUT_TILE = row_type("part", "p0", "p1", "g0", "g1", "words", "dram_bits", "new_bits")

# Pixels from p0, vectors of the part from g0, channels from k0. lane_group: which of the unit's lane_groups;
# channels: of the unit, up to the end of the lane group. What its psum tile leaves as, if it is the last:
# spacing: cycles from one entry's first read to the next's; after_read: cycles at the end in which only what
# is staged leaves; fifo_entries, values, output_bits: of the output for each pixel, all 0 where none is made.
# weight_position, input_position: rows of `positions`.
BLOCK = row_type(
    "p0", "pixels", "g0", "vectors", "k0", "lanes", "lane_group", "lane_groups", "channels",
    "first", "last", "spacing", "after_read", "fifo_entries", "values", "output_bits",
    "weight_tile", "input_tile", "weight_position", "input_position", "context",
)  # fmt: skip

# A stay of a tile in half of a buffer: the PE's `number`-th of its operand; blocks first to last use it.
POSITION = row_type("pe", "number", "tile", "first", "last", "fetched", "context")

# Destinations [first, stop). dram_bits: NO_READ where none is made; space: of the weight region, given back
# by it; hops: links of the multicast; order: class, leader and number, which order the requests of a cycle.
FETCH = row_type("stream", "tile", "bits", "dram_bits", "space", "hops", "order", "first", "stop")
NO_READ = -1

# Fetches [first, stop), from one bank; number: of its operand.
STREAM = row_type("number", "leader", "bank", "first", "stop")

# last: the block that ends it; piece: its first, counted in the PE.
PSUM_TILE = row_type("last", "piece")

# Where a PE's rows begin; they end where the next PE's begin. pieces are counted over all PEs.
PE = row_type("block", "weight_position", "input_position", "psum_tile", "piece")


class Layout(NamedTuple):
    """A layer on the PEs by a mapping. Positions, streams and fetches: those of weights, then of inputs.

    input_tiles are of one group: row `tile` mod their number. destinations: rows of `positions`. pes: one
    more than PEs. outputs: output tiles over all PEs. Contexts of one iteration of both loops over tiles, o
    and i, have (o * inner + i) in common, when divided by per_iteration.
    """

    weight_tiles: Rows
    input_tiles: Rows
    blocks: Rows
    positions: Rows
    destinations: NDArray[np.int64]
    streams: Rows
    fetches: Rows
    psum_tiles: Rows
    pes: Rows
    weight_streams: int
    weight_fetches: int
    weight_prefetch_depth: int  # tiles of a weight stream between asking and the end of the crossbar transfer
    outputs: int
    inner: int
    per_iteration: int
