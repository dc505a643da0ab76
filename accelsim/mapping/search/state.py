# mypy: ignore-errors
# Compiled by Numba, whose types mypy does not know.
"""What changes while the mapper's model runs a layer; cycles are NEVER until they are known."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim.mapping.compiled import block_slots, compiled, inlined
from accelsim.mapping.layout.records import Rows, Shape, Tiling, row_type
from accelsim.mapping.search.events import EVENT, NEVER
from accelsim.mapping.search.parameters import COUNTS, Machine

# resident: of the tile; release: from when on the half may be filled anew.
POSITION_STATE = row_type("resident", "release")
# ready: in the global buffer; left: end of the crossbar transfer.
FETCH_STATE = row_type("ready", "left")
# The next fetches to be asked and sent; the cycle of the latest asking that reads DRAM.
STREAM_STATE = row_type("next_ask", "next_send", "asked_at")
# written: its own last write; start, last_read: of the drain or transfer of its last piece.
TILE_STATE = row_type("written", "start", "last_read")
# tile: it is of; summed: the psums of the chain's PE before are in it.
PIECE_STATE = row_type("tile", "summed")
# An output tile, a row for every piece of its PE, in the order of their drains. before: outputs of the layer
# in the tiles before it; there: in the global buffer with its operands; to_move: shares that DRAM has yet to
# move.
OUTPUT_TILE = row_type("pe", "entries", "bits", "values", "before", "there", "to_move")
# block, tile: next to issue. drained_tile, drained_piece (of the tile), piece (of the layer): next to drain.
# made: psum pieces sent on. fifo: free entries. staging: output tiles that may yet be on their way to DRAM.
# drained, whole, requested, sent: ends of the rows of outputs that are drained, whole in the FIFO, and so on.
# issue_looks_at, drain_looks_at: of events that are on the heap, which need not be there twice.
PE_STATE = row_type(
    "block", "tile", "issue_end", "slots_left", "drained_tile", "drained_piece", "piece", "drain_end", "made",
    "fifo", "staging", "drained", "whole", "requested", "sent", "issue_looks_at", "drain_looks_at",
)  # fmt: skip
# dram_used: bits of the port's time; space: free bits of the weight region, for which `waiting` wait from
# waiting_from to waiting_to; idle_look: cycle for which an event waits for an idle DRAM port. written: output
# tiles, at last_write the latest. streamed, streamed_part: when the global PE is done, of global_pe_step.
# asked: the latest asking of a weight.
ARRAY_STATE = row_type(
    "dram_used", "space", "waiting_from", "waiting_to", "idle_look", "written", "last_write", "streamed",
    "streamed_part", "asked",
)  # fmt: skip


class Run(NamedTuple):
    """One layer on its way: of the Layout what events look at, and what changes.

    Rows of state are each for the layout's row in its place, outputs in the order of a PE's drains.
    """

    m: Machine
    s: Shape
    c: Tiling
    blocks: Rows
    positions: Rows
    destinations: NDArray[np.int64]
    streams: Rows
    fetches: Rows
    psum_tiles: Rows
    pes: Rows
    weight_streams: int
    weight_fetches: int
    weight_prefetch_depth: int
    position_state: Rows
    fetch_state: Rows
    stream_state: Rows
    tile_state: Rows
    piece_state: Rows
    outputs: Rows
    pe_state: Rows
    array: Rows  # one
    ports: NDArray[np.int64]  # cycle from which each is free, by `port_of`
    waiting: NDArray[np.int64]  # fetches that wait for space
    spilled: NDArray[np.int64]  # bits of the tensors that nodes read from DRAM
    written: NDArray[np.int64]  # and of those that go there
    counts: NDArray[np.int64]  # in the places of `parameters.count_names`
    heap: Rows  # of events
    size: NDArray[np.int64]  # events on it; 1 if it was too small


IN, OUT, PSUM_IN, PSUM_OUT = 0, 1, 2, 3


@inlined
def banks_in(s, m):
    return s.weight_banks + s.input_banks + m.output_banks


@inlined
def port_of(s, m, way, pe):
    """Number of a PE's port; a bank's has the bank's number. Psums use ports of their own, or the others."""
    if way >= PSUM_IN and not m.psum_ports:
        way -= PSUM_IN
    return banks_in(s, m) + way * s.pes + pe


@compiled
def begin(m, s, c, layout, spilled, written, events):
    """The Run before its first event, with room for so many at once. spilled, written: as of Run."""
    positions = np.empty(len(layout.positions), POSITION_STATE)
    for i in range(len(positions)):
        positions[i].resident = positions[i].release = NEVER
    fetches = np.empty(len(layout.fetches), FETCH_STATE)
    for i in range(len(fetches)):
        fetches[i].ready = fetches[i].left = NEVER
    streams = np.empty(len(layout.streams), STREAM_STATE)
    for i in range(len(streams)):
        streams[i].next_ask = streams[i].next_send = layout.streams[i].first
        streams[i].asked_at = -1
    tiles = np.empty(len(layout.psum_tiles), TILE_STATE)
    for i in range(len(tiles)):
        tiles[i].written = tiles[i].start = NEVER
        tiles[i].last_read = 0
    count = layout.pes[s.pes].piece
    pieces, outputs = np.empty(count, PIECE_STATE), np.empty(count, OUTPUT_TILE)
    for i in range(count):
        pieces[i].summed = NEVER
        outputs[i].to_move = 0
    before = 0
    for pe in range(s.pes):
        if pe // c.pixel_split % c.c_split < c.c_split - 1:
            continue  # its psums go on along the chain
        row = layout.pes[pe].piece
        for j in range(layout.pes[pe].psum_tile, layout.pes[pe + 1].psum_tile):
            block = layout.blocks[layout.psum_tiles[j].last]
            if block.fifo_entries:
                for p0 in range(0, block.pixels, s.piece):
                    outputs[row].before = before
                    before += min(s.piece, block.pixels - p0) * block.values
                    row += 1
    pes = np.empty(s.pes, PE_STATE)
    for i in range(s.pes):
        pe, own = pes[i], layout.pes[i]
        pe.block, pe.tile, pe.issue_end = own.block, own.psum_tile, m.start
        pe.drained_tile, pe.drained_piece, pe.piece, pe.drain_end = own.psum_tile, 0, own.piece, -1
        pe.made, pe.fifo, pe.staging = 0, m.fifo, s.staging_tiles
        pe.drained = pe.whole = pe.requested = pe.sent = own.piece
        pe.issue_looks_at = pe.drain_looks_at = -1
        pe.slots_left = 0
        for b in range(own.block, layout.pes[i + 1].block):
            block = layout.blocks[b]
            pe.slots_left += block_slots(m.passes, block.pixels, block.vectors).slots
    array = np.zeros(1, ARRAY_STATE)
    array[0].space, array[0].idle_look = s.weight_region, -1
    ports = np.zeros(banks_in(s, m) + 4 * s.pes, np.int64)
    waiting = np.empty(layout.weight_fetches, np.int64)
    counts, heap, size = np.zeros(COUNTS, np.int64), np.empty(events, EVENT), np.zeros(2, np.int64)
    return Run(
        m,
        s,
        c,
        layout.blocks,
        layout.positions,
        layout.destinations,
        layout.streams,
        layout.fetches,
        layout.psum_tiles,
        layout.pes,
        layout.weight_streams,
        layout.weight_fetches,
        layout.weight_prefetch_depth,
        positions,
        fetches,
        streams,
        tiles,
        pieces,
        outputs,
        pes,
        array,
        ports,
        waiting,
        spilled,
        written,
        counts,
        heap,
        size,
    )
