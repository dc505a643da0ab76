"""Which mappings of a layer are worth a look: every split, tile and order of use, ranked by a roofline."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from accelsim.errors import AccelsimError
from accelsim.machine import timing
from accelsim.machine.arch import Arch
from accelsim.machine.dataflows import block_slots
from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.residency import Residency, output_bits, output_staging_bits
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import LayerSpec


def candidates(arch: Arch, layer: LayerSpec, residency: Residency) -> Iterator[LayerMapping]:
    """All of them but for those another one surely beats; what is pinned is kept.

    Left out: splits that leave half of the PEs idle where a finer one exists, most sizes of tiles between
    powers of two, chunks of weights where whole units fit.
    """
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
    for dataflow in arch.dataflows if pins.dataflow is None else (pins.dataflow,):
        for k_split, c_split, pixel_split in splits(arch, layer):
            for units, chunk, chunk_inputs in _weight_tiles(arch, layer, k_split, c_split):
                vectors = min(chunk, _part_vectors(layer, c_split)) if chunk_inputs else None
                for tile_pixels in _pixel_tiles(
                    arch, layer, residency, dataflow, c_split, pixel_split, vectors
                ):
                    one_order = _one_order(arch, layer, k_split, pixel_split, units, tile_pixels)
                    for order in (pins.order,) if pins.order else ("KP",) if one_order else ("KP", "PK"):
                        yield LayerMapping(
                            k_split=k_split,
                            pixel_split=pixel_split,
                            order=order,
                            tile_pixels=tile_pixels,
                            units_per_tile=units,
                            chunk_vectors=chunk,
                            chunk_inputs=chunk_inputs,
                            c_split=c_split,
                            dataflow=dataflow,
                        )


def unit_count(arch: Arch, layer: LayerSpec) -> int:
    channels = arch.unit_channels(layer.written_block)
    return layer.geometry.groups * -(-layer.geometry.outputs_per_group // channels)


def splits(arch: Arch, layer: LayerSpec) -> list[tuple[int, int, int]]:
    """(k_split, c_split, pixel_split) that use as many PEs as the layer allows, at least half of them."""
    pins, pixels = arch.mapping, layer.geometry.pixels
    units = unit_count(arch, layer)
    parts = layer.pieces if arch.psum_chain else 1
    found = []
    for k in [pins.k_split] if pins.k_split else range(1, min(arch.pes, units) + 1):
        for c in [pins.c_split] if pins.c_split else range(1, max(1, min(arch.pes // k, parts)) + 1):
            most = max(1, min(arch.pes // (k * c), pixels))
            for p in [pins.pixel_split] if pins.pixel_split else [most]:
                found.append((k, c, p))
    fit = [split for split in found if split[0] * split[1] * split[2] <= arch.pes]
    busiest = max((k * c * p for k, c, p in fit), default=0)
    # Where pins leave nothing that fits, the least of it is kept: what is laid out next says why it does not.
    return sorted({split for split in fit if 2 * split[0] * split[1] * split[2] > busiest}) or found[:1]


def _part_vectors(layer: LayerSpec, c_split: int) -> int:
    """Vectors of the longest part."""
    words = -(-layer.pieces // c_split) * layer.words_per_block
    return words if layer.packed_im2col else words * (layer.G // layer.words_per_position)


def _weight_tiles(
    arch: Arch, layer: LayerSpec, k_split: int, c_split: int
) -> Iterator[tuple[int, int, bool]]:
    """(units_per_tile, chunk_vectors, chunk_inputs); 0 units: chunked weights."""
    pins, vectors = arch.mapping, _part_vectors(layer, c_split)
    # A tile has to fit its half, and the global buffer's weight region.
    run, channels = layer.words_per_block, arch.unit_channels(layer.written_block)
    bits = min(arch.lanes, layer.geometry.outputs_per_group) * layer.run_bits(layer.weight_operand, run)
    half = max(1, min(arch.weight_buffer_words // 2, arch.weight_region_bits // bits * run))
    lane_groups = -(-min(channels, layer.geometry.outputs_per_group) // arch.lanes)
    own_units = -(-unit_count(arch, layer) // k_split)
    chunk_inputs = (False, True) if pins.chunk_inputs is None else (pins.chunk_inputs,)
    chunked = pins.units_per_tile == 0 or pins.chunk_vectors is not None or pins.chunk_inputs
    if pins.units_per_tile or (vectors * lane_groups <= half and not chunked):
        # A run of units ends at a group boundary.
        per_group = -(-layer.geometry.outputs_per_group // channels)
        fit = max(1, min(own_units, per_group, half // (vectors * lane_groups)))
        sizes = {fit, *(1 << power for power in range(fit.bit_length()))}
        for size in [pins.units_per_tile] if pins.units_per_tile else sorted(sizes):
            yield size, layer.G, False
        # Where not even the inputs of a pixel fit their half, only chunks of them will.
        if pins.units_per_tile:
            return
        if pins.chunk_inputs is False or vectors <= arch.input_buffer_words // 2:
            # A PE's only unit comes sooner in halves than whole.
            if own_units == 1 and vectors > run:
                yield 0, -(-vectors // (2 * run)) * run, False
            return
        chunk_inputs = (True,)
    sizes = {-(-vectors // parts) for parts in (-(-vectors // half), 2 * -(-vectors // half))}
    # Small enough that a d-tile's input words of one chunk fit their half as well, and for tight machines.
    for pixels in (arch.accumulation_collector_depth, 4, 1):
        sizes.add(max(1, min(vectors, half, arch.input_buffer_words // 2 // pixels)))
    # Of whole blocks: up where parts are counted, which then still fit, but for a half too small for a block.
    sizes = {max(1, size // run) * run for size in sizes} | {
        size for size in (-(-size // run) * run for size in sizes) if size <= half
    }
    for size in [pins.chunk_vectors] if pins.chunk_vectors else sorted(sizes):
        for inputs in chunk_inputs:
            yield 0, size, inputs


def _pixel_tiles(
    arch: Arch,
    layer: LayerSpec,
    residency: Residency,
    dataflow: str,
    c_split: int,
    pixel_split: int,
    vectors: int | None,
) -> list[int]:
    """Runs of whole d-tiles in powers of two up to what an input half holds; or parts of a d-tile.

    What is streamed also has to find its staging in the global buffer.
    """
    if arch.mapping.tile_pixels:
        return [arch.mapping.tile_pixels]
    depth = arch.accumulation_collector_depth
    if not timing.is_staged(arch, layer.written_block):
        depth = timing.psum_store_pixels(arch, dataflow)
    half = arch.input_buffer_words // 2
    own = -(-layer.geometry.pixels // pixel_split)
    run, bits = layer.words_per_block, layer.run_bits(layer.input_operand, layer.words_per_block)
    streams = c_split * pixel_split if layer.geometry.groups == 1 else arch.pes
    room = arch.activation_region_bits - residency.kept_bits

    def fit(size: int) -> bool:
        words, staging = input_words(layer, c_split, size, vectors), 0
        if residency.input == "streamed":
            staging += timing.INPUT_PREFETCH_DEPTH * streams * words * bits // run
        if residency.stages_outputs:
            staging += output_staging_bits(arch, layer, residency, size)
        return words <= 1.1 * half and staging <= room

    sizes = {min(own, depth << power) for power in range(max(1, (-(-own // depth)).bit_length() + 1))}
    if vectors is not None:
        # A chunk of a longer run would be sent again for every d-tile of it.
        sizes = {min(own, depth)}
    sizes |= {-(-size // 2) for size in sizes} | {-(-size // 3) for size in sizes}
    fits = [size for size in sizes if fit(size)]
    small = min(sizes)
    while not fits and small > 1:
        small = -(-small // 2)
        fits = [small] if fit(small) else []
    return sorted(fits)[-4:] or [1]


def input_words(layer: LayerSpec, c_split: int, tile_pixels: int, vectors: int | None) -> int:
    """About how many words an input tile of so many pixels holds at most, or one chunk of `vectors` of it."""
    part = _part_vectors(layer, c_split)
    if layer.packed_im2col:
        return tile_pixels * (vectors or part)
    geometry, words = layer.geometry, -(-layer.pieces // c_split) * layer.words_per_block
    taps = geometry.R * geometry.S
    if vectors is None or vectors >= part:
        return _positions(geometry, tile_pixels, taps) * words
    under = -(-vectors // words)
    return _positions(geometry, tile_pixels, under) * -(-vectors // under)


@lru_cache(maxsize=1 << 14)
def _positions(geometry: Geometry, tile_pixels: int, taps: int) -> int:
    """Input positions under `taps` of the taps of a run of pixels: the most of a few runs."""
    pixels = min(tile_pixels, geometry.pixels)
    first_tap = (geometry.R * geometry.S - taps) // 2
    runs = -(-geometry.pixels // pixels)
    most = 0
    for run in {0, runs // 2, max(0, runs // 2 - 1)}:
        every = geometry.tap_positions(run * pixels, min((run + 1) * pixels, geometry.pixels))
        under = every[:, first_tap : first_tap + taps]
        most = max(most, len(np.unique(under[under >= 0])))
    return most


def _one_order(
    arch: Arch, layer: LayerSpec, k_split: int, pixel_split: int, units: int, tile_pixels: int
) -> bool:
    """True where both loop orders are the same: one tile of weights, or one run of pixels."""
    own_units = -(-unit_count(arch, layer) // k_split)
    own_pixels = -(-layer.geometry.pixels // pixel_split)
    return own_units <= max(1, units) or own_pixels <= tile_pixels


def roofline(arch: Arch, layer: LayerSpec, residency: Residency, mapping: LayerMapping) -> float:
    """Cycles by the busiest resource, a ranking: what the model is run on first."""
    geometry = layer.geometry
    passes, depth = timing.passes(arch, mapping.dataflow), timing.psum_store_pixels(arch, mapping.dataflow)
    pixels = -(-geometry.pixels // mapping.pixel_split)
    units = -(-unit_count(arch, layer) // mapping.k_split)
    channels, run = arch.unit_channels(layer.written_block), layer.words_per_block
    lane_groups = -(-min(channels, geometry.outputs_per_group) // arch.lanes)
    vectors = _part_vectors(layer, mapping.c_split)
    chunk = min(mapping.chunk_vectors, vectors) if not mapping.units_per_tile else vectors
    chunks = -(-vectors // chunk)
    tiles, rest = divmod(pixels, mapping.tile_pixels)
    slots = 0
    for count, size in ((tiles, mapping.tile_pixels), (1, rest)):
        whole, part = divmod(size, depth)
        if whole:
            slots += count * whole * chunks * block_slots(passes, depth, chunk).slots
        if part:
            slots += count * chunks * block_slots(passes, part, chunk).slots
    compute = units * lane_groups * slots
    pixel_tiles = tiles + (rest > 0)
    d_tiles = -(-pixels // min(depth, mapping.tile_pixels))
    unit_tiles = -(-units // max(1, mapping.units_per_tile))
    weight_tiles = lane_groups * chunks if not mapping.units_per_tile else 1
    weights_sent = inputs_sent = 1
    if weight_tiles > 2:
        weights_sent = d_tiles
    elif mapping.order == "PK" and unit_tiles * weight_tiles > 2:
        weights_sent = pixel_tiles
    if mapping.chunk_inputs and chunks > 2:
        inputs_sent = units * lane_groups
    elif mapping.order == "KP" and pixel_tiles > 2:
        inputs_sent = unit_tiles
    word_w, word_i = (
        layer.run_bits(operand, run) / run for operand in (layer.weight_operand, layer.input_operand)
    )
    weights = min(units * channels, geometry.K) * vectors * word_w * weights_sent
    span = chunk if mapping.chunk_inputs else None
    tile = input_words(layer, mapping.c_split, min(mapping.tile_pixels, pixels), span) * word_i
    groups = 1 if geometry.groups == 1 else -(-geometry.groups // mapping.k_split)
    inputs = tile * pixel_tiles * (chunks if mapping.chunk_inputs else 1) * inputs_sent * groups
    width = arch.crossbar_bits
    weight_banks, input_banks, output_banks = arch.bank_groups
    weight_streams = mapping.k_split * mapping.c_split
    input_streams = mapping.c_split * mapping.pixel_split * (1 if geometry.groups == 1 else mapping.k_split)
    per_weight_bank = -(-weight_streams // min(weight_banks, weight_streams))
    per_input_bank = -(-input_streams // min(input_banks, input_streams))
    dram = 0.0
    if residency.weights != "gb":
        dram += weights * weight_streams / (1 if residency.weights == "streamed" else weights_sent)
    if residency.input != "gb":
        dram += inputs * input_streams / (1 if residency.input == "streamed" else inputs_sent)
    dram += sum(residency.written_bits) + sum(residency.spilled_bits)
    psums = 0.0
    if mapping.c_split > 1:
        psums = (
            units * lane_groups * pixels * arch.lanes * arch.accumulator_width(layer.scheme) / arch.psum_bits
        )
    busiest = max(
        compute,
        (weights + inputs) / width + (psums if arch.psum_port_bits is None else 0.0),
        psums,
        weights * per_weight_bank / width,
        inputs * per_input_bank / width,
        output_bits(layer) / width / output_banks,
        dram / arch.dram_bits,
    )
    # A first tile has to come before anything starts, and a last one to leave.
    weight_tile = weights / (weights_sent * unit_tiles * weight_tiles)
    return busiest + (weight_tile * per_weight_bank + tile * per_input_bank) / width
