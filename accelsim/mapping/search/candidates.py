"""Mappings of a layer that the search starts from: a coarse grid of splits, tiles and orders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from accelsim.errors import AccelsimError
from accelsim.machine import timing
from accelsim.machine.dataflows import DataflowName
from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.residency import Residency, output_staging_bits
from accelsim.mapping.search.sizes import Sizes

Split = tuple[int, int, int]  # k_split, c_split, pixel_split


def candidates(sizes: Sizes, residency: Residency) -> Iterator[LayerMapping]:
    """What is pinned is kept.

    Left out, for the search to come to: splits that leave half of the PEs idle where a finer one exists,
    most sizes of tiles between powers of two, most chunks of weights where whole units fit.
    """
    arch, layer = sizes.arch, sizes.layer
    pins = arch.mapping
    if pins.units_per_tile and pins.chunk_vectors:
        raise AccelsimError(
            f"layer {layer.name}: mapping pins units_per_tile {pins.units_per_tile} and chunk_vectors "
            f"{pins.chunk_vectors}, expected units_per_tile 0 with chunks"
        )
    if pins.units_per_tile and pins.chunk_inputs:
        raise AccelsimError(
            f"layer {layer.name}: mapping pins units_per_tile {pins.units_per_tile} and chunk_inputs=True, "
            "expected units_per_tile 0 with chunks"
        )
    tiles = PixelTiles(sizes, residency)
    for dataflow in arch.dataflows if pins.dataflow is None else (pins.dataflow,):
        for k_split, c_split, pixel_split in tiles.with_fewer_streams(splits(sizes)):
            streams = streams_of(sizes, k_split, c_split, pixel_split)
            for units, chunk, chunk_inputs in _weight_tiles(sizes, k_split, c_split):
                vectors = min(chunk, sizes.part_vectors(c_split)) if chunk_inputs else None
                for tile_pixels in tiles.of(dataflow, c_split, pixel_split, streams, vectors):
                    mapping = LayerMapping(
                        k_split=k_split,
                        pixel_split=pixel_split,
                        order=pins.order or "KP",
                        tile_pixels=tile_pixels,
                        units_per_tile=units,
                        chunk_vectors=chunk,
                        chunk_inputs=chunk_inputs,
                        c_split=c_split,
                        dataflow=dataflow,
                        dtile_pixels=pins.dtile_pixels or 0,
                    )
                    yield mapping
                    if not pins.order and not one_order(sizes, mapping):
                        yield replace(mapping, order="PK")


def least(sizes: Sizes) -> Iterator[LayerMapping]:
    """Of every dataflow and split the one that asks for the least room; what is pinned is kept."""
    arch = sizes.arch
    pins = arch.mapping
    for dataflow in arch.dataflows if pins.dataflow is None else (pins.dataflow,):
        for k_split, c_split, pixel_split in _all_splits(sizes):
            yield LayerMapping(
                k_split=k_split,
                pixel_split=pixel_split,
                order=pins.order or "KP",
                tile_pixels=pins.tile_pixels or 1,
                units_per_tile=pins.units_per_tile or 0,
                chunk_vectors=sizes.vectors if pins.units_per_tile else pins.chunk_vectors or sizes.run,
                chunk_inputs=not pins.units_per_tile and pins.chunk_inputs is not False,
                c_split=c_split,
                dataflow=dataflow,
                dtile_pixels=pins.dtile_pixels or 0,
            )


def splits(sizes: Sizes) -> list[Split]:
    """Those that use as many PEs as the layer allows, at least half of them."""
    pes, pins = sizes.arch.pes, sizes.arch.mapping
    found = []
    for k in [pins.k_split] if pins.k_split else range(1, min(pes, sizes.units) + 1):
        for c in [pins.c_split] if pins.c_split else range(1, max(1, min(pes // k, sizes.parts)) + 1):
            most = max(1, min(pes // (k * c), sizes.pixels))
            found.append((k, c, pins.pixel_split or most))
    fit = [split for split in found if split[0] * split[1] * split[2] <= pes]
    busiest = max((k * c * p for k, c, p in fit), default=0)
    # Where pins leave nothing that fits, the least of it is kept: what is laid out next says why it does not.
    return sorted({split for split in fit if 2 * split[0] * split[1] * split[2] > busiest}) or found[:1]


def _all_splits(sizes: Sizes) -> Iterator[Split]:
    """All that fit the PEs, the finest first."""
    pes, pins = sizes.arch.pes, sizes.arch.mapping
    found = []
    for k in [pins.k_split] if pins.k_split else range(1, min(pes, sizes.units) + 1):
        for c in [pins.c_split] if pins.c_split else range(1, min(pes // k, sizes.parts) + 1):
            most = min(pes // (k * c), sizes.pixels)
            for p in [pins.pixel_split] if pins.pixel_split else range(1, most + 1):
                found.append((k, c, p))
    fit = [split for split in found if split[0] * split[1] * split[2] <= pes]
    yield from sorted(fit, key=lambda split: (-split[0] * split[1] * split[2], split))


def _weight_tiles(sizes: Sizes, k_split: int, c_split: int) -> Iterator[tuple[int, int, bool]]:
    """(units_per_tile, chunk_vectors, chunk_inputs); 0 units: chunked weights."""
    arch, vectors, lane_groups = sizes.arch, sizes.part_vectors(c_split), sizes.lane_groups
    pins = arch.mapping
    # A tile has to fit its half, and the global buffer's weight region.
    run, bits = sizes.run, min(arch.lanes, sizes.geometry.outputs_per_group) * sizes.weight_bits
    half = max(1, min(arch.weight_buffer_words // 2, arch.weight_region_bits // bits * run))
    chunk_inputs = (False, True) if pins.chunk_inputs is None else (pins.chunk_inputs,)
    chunked = pins.units_per_tile == 0 or pins.chunk_vectors is not None or pins.chunk_inputs
    if pins.units_per_tile or (vectors * lane_groups <= half and not chunked):
        fit = max(1, min(sizes.most_units(k_split), half // (vectors * lane_groups)))
        runs = {fit, *(1 << power for power in range(fit.bit_length()))}
        for size in [pins.units_per_tile] if pins.units_per_tile else sorted(runs):
            yield size, sizes.vectors, False
        # Where not even the inputs of a pixel fit their half, only chunks of them will.
        if pins.units_per_tile:
            return
        if pins.chunk_inputs is False or vectors <= arch.input_buffer_words // 2:
            # A PE's only unit comes sooner in halves than whole.
            if sizes.units <= k_split and vectors > run:
                yield 0, sizes.whole_runs(-(-vectors // 2)), False
            return
        chunk_inputs = (True,)
    chunks = {-(-vectors // parts) for parts in (-(-vectors // half), 2 * -(-vectors // half))}
    # Small enough that a d-tile's input words of one chunk fit their half as well, and for tight machines.
    for pixels in (arch.accumulation_collector_depth, 4, 1):
        chunks.add(max(1, min(vectors, half, arch.input_buffer_words // 2 // pixels)))
    # Of whole blocks: up where parts are counted, which then still fit, but for a half too small for a block.
    chunks = {max(1, size // run) * run for size in chunks} | {
        size for size in map(sizes.whole_runs, chunks) if size <= half
    }
    for size in [pins.chunk_vectors] if pins.chunk_vectors else sorted(chunks):
        for inputs in chunk_inputs:
            yield 0, size, inputs


def streams_of(sizes: Sizes, k_split: int, c_split: int, pixel_split: int) -> int:
    """Of inputs."""
    return c_split * pixel_split * (1 if sizes.groups == 1 else k_split)


class PixelTiles:
    """Sizes of runs of pixels; what is streamed also has to find its staging in the global buffer."""

    def __init__(self, sizes: Sizes, residency: Residency) -> None:
        arch = sizes.arch
        self._sizes, self._residency = sizes, residency
        self._half = arch.input_buffer_words // 2
        self._room = arch.activation_region_bits - residency.kept_bits
        self._found: dict[tuple[int, int, int, int, int | None], list[int]] = {}
        self._output_staging: dict[int, int] = {}

    def with_fewer_streams(self, found: list[Split]) -> list[Split]:
        """Where staging leaves shorter runs than input buffers would hold, also over fewer runs of pixels:
        fewer PEs, whose longer runs send less of their input again."""
        pins = self._sizes.arch.mapping
        if self._residency.input != "streamed" or pins.pixel_split or pins.tile_pixels:
            return found
        fewer = []
        for k, c, p in found:
            run = -(-self._sizes.pixels // p)
            while run > 1 and not self._fits_half(run, c, None):
                run = -(-run // 2)
            if not self.fit(run, c, streams_of(self._sizes, k, c, p), None):
                fewer += [(k, c, n) for n in (-(-3 * p // 4), -(-p // 2), -(-p // 4), 1)]
        return list(dict.fromkeys(found + fewer))

    def of(
        self, dataflow: DataflowName, c_split: int, pixel_split: int, streams: int, vectors: int | None
    ) -> list[int]:
        """Runs of whole d-tiles in powers of two up to what an input half holds; or parts of a d-tile.

        streams: of inputs; vectors: of a chunk of inputs, None without chunks.
        """
        pins = self._sizes.arch.mapping
        if pins.tile_pixels:
            return [pins.tile_pixels]
        key = self._sizes.whole_step(dataflow, pins.dtile_pixels or 0), c_split, pixel_split, streams, vectors
        if key not in self._found:
            self._found[key] = self._runs(*key)
        return self._found[key]

    def _runs(
        self, depth: int, c_split: int, pixel_split: int, streams: int, vectors: int | None
    ) -> list[int]:
        own = -(-self._sizes.pixels // pixel_split)
        runs = {min(own, depth << power) for power in range(max(1, (-(-own // depth)).bit_length() + 1))}
        if vectors is not None:
            # A chunk of a longer run would be sent again for every d-tile of it.
            runs = {min(own, depth)}
        runs |= {-(-size // 2) for size in runs} | {-(-size // 3) for size in runs}
        fits = [size for size in runs if self.fit(size, c_split, streams, vectors)]
        small = min(runs)
        while not fits and small > 1:
            small = -(-small // 2)
            fits = [small] if self.fit(small, c_split, streams, vectors) else []
        return sorted(fits)[-4:] or [1]

    def _fits_half(self, size: int, c_split: int, vectors: int | None) -> bool:
        words = self._sizes.input_words(c_split, size, vectors or self._sizes.vectors)
        return words <= 1.1 * self._half

    def fit(self, size: int, c_split: int, streams: int, vectors: int | None, dtile_pixels: int = 0) -> bool:
        """About. The other arguments: as of `of`."""
        if not self._fits_half(size, c_split, vectors):
            return False
        sizes, staging = self._sizes, 0
        words = sizes.input_words(c_split, size, vectors or sizes.vectors)
        if self._residency.input == "streamed":
            staging += timing.INPUT_PREFETCH_DEPTH * streams * words * sizes.input_bits // sizes.run
        if self._residency.stages_outputs:
            pixels = min(size, dtile_pixels or size)
            if pixels not in self._output_staging:
                self._output_staging[pixels] = output_staging_bits(
                    sizes.arch, sizes.layer, self._residency, pixels
                )
            staging += self._output_staging[pixels]
        return staging <= self._room


def one_order(sizes: Sizes, mapping: LayerMapping) -> bool:
    """True where both loop orders are the same: one tile of weights, or one run of pixels."""
    return (
        -(-sizes.units // mapping.k_split) <= max(1, mapping.units_per_tile)
        or -(-sizes.pixels // mapping.pixel_split) <= mapping.tile_pixels
    )
