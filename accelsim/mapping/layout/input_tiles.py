# mypy: ignore-errors
# Compiled by Numba, whose types mypy does not know.
"""Runs of pixels, and what the input tiles of each hold (docs/program.md, Tiles)."""

from __future__ import annotations

import numpy as np

from accelsim.mapping.compiled import compiled, inlined
from accelsim.mapping.layout.records import CACHED, INPUT_TILE, RUN


@inlined
def split(count, parts, index):
    """(first, one past the last) of block `index` of `count` things cut into `parts`."""
    base, extra = count // parts, count % parts
    start = index * base + min(index, extra)
    return start, start + base + (1 if index < extra else 0)


@inlined
def words_of(s, c, part):
    """(first, one past the last) of a part of what is cut over a chain; what shares a scale is not torn."""
    start, stop = split(s.words // s.run, c.c_split, part)
    return start * s.run, stop * s.run


@inlined
def vectors_of(s, c, part):
    """Vectors of a part of the reduction."""
    start, stop = words_of(s, c, part)
    return (stop - start) * (1 if s.packed_im2col else s.taps)


@compiled
def pixel_runs(s, c):
    """(rows of RUN, pp by pp; the first of each pp and one past the last)."""
    first_of = np.zeros(c.pixel_split + 1, np.int64)
    for pp in range(c.pixel_split):
        start, stop = split(s.pixels, c.pixel_split, pp)
        first_of[pp + 1] = first_of[pp] - -(stop - start) // c.tile_pixels
    runs = np.empty(first_of[c.pixel_split], RUN)
    for pp in range(c.pixel_split):
        start, stop = split(s.pixels, c.pixel_split, pp)
        for i in range(first_of[pp], first_of[pp + 1]):
            runs[i].p0 = start + (i - first_of[pp]) * c.tile_pixels
            runs[i].p1 = min(runs[i].p0 + c.tile_pixels, stop)
            runs[i].pp = pp
    return runs, first_of


@inlined
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


@inlined
def _fresh(taps, p0, p1, t0, t1, known, row):
    """Those of them that are not in known[row] yet; they are put there."""
    count = 0
    for p in range(p0, p1):
        for t in range(t0, t1):
            at = taps[p, t]
            if at >= 0 and not known[row, at]:
                known[row, at] = True
                count += 1
    return count


@compiled
def input_tiles(s, c, taps, runs):
    """Rows of INPUT_TILE, all chunks of all runs of a part, part by part; and the chunks of a run.

    taps: int32[pixels, taps], the input position under each. Parts of fewer chunks have empty rows.
    """
    chunks = 1
    if c.chunk_inputs:
        for part in range(c.c_split):
            chunks = max(chunks, -(-vectors_of(s, c, part) // c.chunk_vectors))
    tiles = np.zeros(c.c_split * len(runs) * chunks, INPUT_TILE)
    stamp, mark = np.zeros(s.positions, np.int64), 0
    for part in range(c.c_split):
        start, stop = words_of(s, c, part)
        own, vectors = stop - start, vectors_of(s, c, part)
        chunk = c.chunk_vectors if c.chunk_inputs else vectors
        # Positions in the global buffer already; with chunks a tap's channels come one by one.
        known = np.zeros((own if c.chunk_inputs and not s.packed_im2col else 1, s.positions), np.bool_)
        for run in range(len(runs)):
            if run and runs[run].pp != runs[run - 1].pp:
                known[:] = False
            p0, p1 = runs[run].p0, runs[run].p1
            for i in range(-(-vectors // chunk)):
                tile = tiles[(part * len(runs) + run) * chunks + i]
                g0, g1 = i * chunk, min((i + 1) * chunk, vectors)
                words, items, fresh = 0, 0, 0
                if s.packed_im2col:
                    # DRAM holds the positions under the taps that the vectors cover, also in part.
                    t0 = (start + g0) * s.vector // s.channels
                    t1 = min(s.taps, -(-(start + g1) * s.vector // s.channels))
                    words, mark = (p1 - p0) * (g1 - g0), mark + 1
                    items = _distinct(taps, p0, p1, t0, t1, stamp, mark)
                    if s.input_mode == CACHED:
                        fresh = _fresh(taps, p0, p1, t0, t1, known, 0)
                elif not c.chunk_inputs:
                    mark += 1
                    items = words = own * _distinct(taps, p0, p1, 0, s.taps, stamp, mark)
                    if s.input_mode == CACHED:
                        fresh = own * _fresh(taps, p0, p1, 0, s.taps, known, 0)
                else:
                    last_t0, last_t1, count = -1, -1, 0
                    for j in range(own):
                        # The taps whose j-th vector is in the chunk.
                        t0, t1 = -(-(g0 - j) // own), -(-(g1 - j) // own)
                        if t0 != last_t0 or t1 != last_t1:
                            mark += 1
                            count = _distinct(taps, p0, p1, t0, t1, stamp, mark)
                            last_t0, last_t1 = t0, t1
                        words += count
                        if s.input_mode == CACHED:
                            fresh += _fresh(taps, p0, p1, t0, t1, known, j)
                    items = words
                tile.part, tile.p0, tile.p1, tile.g0, tile.g1 = part, p0, p1, g0, g1
                tile.words = words
                of_items = 1 if s.packed_im2col else s.run
                tile.dram_bits = items // of_items * s.item_bits
                tile.new_bits = fresh // of_items * s.item_bits
    return tiles, chunks
