"""A finer grid than the one that the search begins with: shorter tiles of both operands, on the splits that
the roofline likes most. It is looked at where the search has ended far from what a layer takes at least:
between two mappings that fit, or are good, may lie more choices than one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.residency import Residency
from accelsim.mapping.search.candidates import PixelTiles, one_order, streams_of
from accelsim.mapping.search.neighbours import admitted
from accelsim.mapping.search.sizes import Sizes

# Weights in chunks of so many parts of a PE's vectors, and of as few vectors as can be.
_CHUNKS = (1, 2, 3, 4)


def finer(sizes: Sizes, residency: Residency, starts: Iterable[LayerMapping]) -> list[LayerMapping]:
    """starts: one of each split to look at. What does not fit by its sizes alone is left out."""
    tiles = PixelTiles(sizes, residency)
    return admitted(sizes, (own for start in starts for own in _on_split(sizes, tiles, start)))


def _on_split(sizes: Sizes, tiles: PixelTiles, start: LayerMapping) -> Iterator[LayerMapping]:
    split = start.k_split, start.c_split, start.pixel_split
    own_pixels = -(-sizes.pixels // start.pixel_split)
    streams = streams_of(sizes, *split)
    runs = {min(own_pixels, 1 << power) for power in range(own_pixels.bit_length() + 1)}
    runs |= {min(own_pixels, 3), -(-own_pixels // 2), -(-own_pixels // 3)}
    pins = sizes.arch.mapping
    # Outputs of a d-tile of one pixel leave the most room to stage others.
    d_tiles = (0, 1) if pins.dtile_pixels is None else (pins.dtile_pixels,)
    for units, chunk, cut in _weight_tiles(sizes, start):
        vectors = chunk if cut else None
        for pixels in sorted(runs):
            fits = (n for n in d_tiles if tiles.fit(pixels, start.c_split, streams, vectors, n))
            if (d_tile := next(fits, None)) is None:
                continue
            own = LayerMapping(
                *(start.k_split, start.pixel_split, pins.order or "KP", pixels, units, chunk, cut),
                *(start.c_split, start.dataflow, d_tile),
            )
            yield own
            if not pins.order and not one_order(sizes, own):
                yield replace(own, order="PK")


def _weight_tiles(sizes: Sizes, start: LayerMapping) -> Iterator[tuple[int, int, bool]]:
    """(units_per_tile, chunk_vectors, chunk_inputs) of those that fit half of the buffer."""
    vectors, half = sizes.part_vectors(start.c_split), sizes.arch.weight_buffer_words // 2
    fit = min(sizes.most_units(start.k_split), half // (vectors * sizes.lane_groups))
    for units in sorted({1, fit}):
        if units <= fit:
            yield units, sizes.vectors, False
    for chunk in sorted({sizes.whole_runs(-(-vectors // n)) for n in (*_CHUNKS, vectors)}):
        if chunk <= half:
            yield 0, chunk, False
            if chunk < vectors:
                yield 0, chunk, True
