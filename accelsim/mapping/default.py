"""A sound default mapping: a short list of candidates, ranked by a roofline estimate.

The estimate is the time to bring the first tiles plus the largest of compute, PE-port, bank, DRAM and fetch
round-trip cycles; ties go to the candidate that moves fewer bits. Anything pinned in the arch file is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from accelsim.config import Arch
from accelsim.errors import AccelsimError
from accelsim.mapping.plan import Mapping
from accelsim.mapping.program import LayerProgram, build_program
from accelsim.mapping.storage import Mode, Storage, output_bits
from accelsim.workload import Geometry, LayerSpec


def default_program(arch: Arch, layer: LayerSpec, storage: Storage) -> LayerProgram:
    """The layer laid out by the best-ranked candidate that fits the machine.

    Raises AccelsimError naming the buffer that is too small when none fits.
    """
    if arch.mapping.units_per_tile and arch.mapping.chunk_vectors:
        raise AccelsimError(
            f"layer {layer.name}: mapping pins units_per_tile {arch.mapping.units_per_tile} and "
            f"chunk_vectors {arch.mapping.chunk_vectors}, expected units_per_tile 0 with chunks"
        )
    refusal = None
    for candidates in (_candidates(arch, layer), _small_candidates(arch, layer)):
        ranking = {mapping: _estimate(arch, layer, storage, mapping) for mapping in candidates}
        for mapping in sorted(ranking, key=lambda mapping: ranking[mapping]):
            try:
                return build_program(arch, layer, mapping, storage)
            except AccelsimError as error:
                refusal = refusal or error
    raise refusal or AccelsimError(
        f"layer {layer.name}: no mapping keeps the pinned choices {arch.mapping} on {arch.pes} PEs"
    )


def _unit_count(arch: Arch, layer: LayerSpec) -> int:
    return layer.geometry.groups * -(-layer.geometry.outputs_per_group // arch.unit_channels)


def _candidates(arch: Arch, layer: LayerSpec) -> Iterator[Mapping]:
    pins = arch.mapping
    units, pixels = _unit_count(arch, layer), layer.geometry.pixels
    for k_split, pixel_split in _splits(arch, units, pixels):
        for units_per_tile, chunk_vectors in _weight_tilings(arch, layer, -(-units // k_split)):
            for chunk_inputs in (False, True) if units_per_tile == 0 else (False,):
                if pins.chunk_inputs is not None and pins.chunk_inputs != chunk_inputs:
                    continue
                span = chunk_vectors if chunk_inputs else layer.G
                most = pins.tile_pixels or _tile_pixels(arch, layer, pixel_split, span, chunk_inputs)
                least = pins.tile_pixels or min(most, arch.accumulation_collector_depth)
                for tile_pixels in sorted({least, most}):
                    for order in (pins.order,) if pins.order else ("KP", "PK"):
                        yield Mapping(
                            k_split,
                            pixel_split,
                            order,
                            tile_pixels,
                            units_per_tile,
                            chunk_vectors,
                            chunk_inputs,
                        )


def _small_candidates(arch: Arch, layer: LayerSpec) -> Iterator[Mapping]:
    """Chunks and pixel runs down to one vector of one pixel, for machines that the usual tiles do not fit."""
    pins, depth = arch.mapping, arch.accumulation_collector_depth
    if pins.units_per_tile:
        return
    half = arch.weight_buffer_words // 2
    chunks = [pins.chunk_vectors] if pins.chunk_vectors else _halvings(min(layer.G, half))
    runs = [pins.tile_pixels] if pins.tile_pixels else _halvings(depth)
    for k_split, pixel_split in _splits(arch, _unit_count(arch, layer), layer.geometry.pixels):
        for chunk in chunks:
            for tile_pixels in runs:
                for chunk_inputs in (True, False) if pins.chunk_inputs is None else (pins.chunk_inputs,):
                    for order in (pins.order,) if pins.order else ("KP", "PK"):
                        size = min(chunk, layer.G)
                        yield Mapping(k_split, pixel_split, order, tile_pixels, 0, size, chunk_inputs)


def _halvings(size: int) -> list[int]:
    """size, then halves of it rounded up, down to 1."""
    sizes = [size]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    return sizes


def _splits(arch: Arch, units: int, pixels: int) -> list[tuple[int, int]]:
    pins = arch.mapping
    wanted = {
        (pins.k_split or k, pins.pixel_split or max(1, arch.pes // (pins.k_split or k)))
        for k in range(1, arch.pes + 1)
    }
    # A split finer than the work leaves PEs idle; the coarser one is in the list too.
    useful = {(k, p) for k, p in wanted if (k <= units or pins.k_split) and (p <= pixels or pins.pixel_split)}
    return sorted(useful or {(min(k, units), min(p, pixels)) for k, p in wanted})


def _weight_tilings(arch: Arch, layer: LayerSpec, units: int) -> Iterator[tuple[int, int]]:
    """(units_per_tile, chunk_vectors) choices; 0 units where one unit does not fit a half."""
    pins, half = arch.mapping, arch.weight_buffer_words // 2
    unit_words = layer.G * -(-min(arch.unit_channels, layer.geometry.outputs_per_group) // arch.lanes)
    chunked = pins.units_per_tile == 0 or pins.chunk_vectors is not None or pins.chunk_inputs
    if unit_words <= half and not chunked:
        # A run of units ends at a group boundary.
        per_group = -(-layer.geometry.outputs_per_group // arch.unit_channels)
        fit = min(units, per_group, half // unit_words)
        # Small tiles start the array sooner and overlap better; large ones are sent less often.
        sizes = {fit, *(1 << power for power in range(fit.bit_length()) if 1 << power <= fit)}
        for size in [pins.units_per_tile] if pins.units_per_tile else sorted(sizes):
            yield size, layer.G
    elif pins.units_per_tile:
        yield pins.units_per_tile, pins.chunk_vectors or layer.G
    elif pins.chunk_vectors:
        yield 0, min(pins.chunk_vectors, layer.G)
    else:
        chunks = -(-layer.G // half)
        yield 0, -(-layer.G // chunks)
        # Small enough that a d-tile's input words of one chunk fit their half as well.
        by_input = max(1, arch.input_buffer_words // 2 // arch.accumulation_collector_depth)
        if by_input < half:
            yield 0, min(layer.G, by_input)


def _tile_pixels(arch: Arch, layer: LayerSpec, pixel_split: int, span: int, chunked: bool) -> int:
    """The most pixels, in whole d-tiles where possible, whose words over `span` vectors fit an input half."""
    depth, half = arch.accumulation_collector_depth, arch.input_buffer_words // 2
    most = -(-layer.geometry.pixels // pixel_split)
    if chunked:
        # One d-tile: a chunk of a longer run would be sent again for every d-tile of it.
        return min(depth, most, max(1, half // span))
    sizes = [*range(1, min(depth, most + 1)), *range(depth, most + depth, depth)]
    fits = [1]
    low, high = 0, len(sizes) - 1
    while low <= high:
        middle = (low + high) // 2
        words = _largest_tile(
            layer.geometry, layer.words_per_position, layer.folded, span, pixel_split, sizes[middle]
        )
        if words <= half:
            fits.append(sizes[middle])
            low = middle + 1
        else:
            high = middle - 1
    return max(fits)


@lru_cache(maxsize=4096)
def _largest_tile(
    geometry: Geometry, words_per_position: int, folded: bool, span: int, pixel_split: int, tile_pixels: int
) -> int:
    """Words of the largest input tile over all g when each PE's pixels are cut into runs of `tile_pixels`."""
    if folded:
        return tile_pixels * span
    taps = geometry.tap_positions()
    base, extra = divmod(geometry.pixels, pixel_split)
    largest = 0
    # Blocks of ceil and floor size are cut alike; looking at every block keeps image borders exact.
    for pp in range(pixel_split):
        start = pp * base + min(pp, extra)
        count = base + (pp < extra)
        for first in range(start, start + count, tile_pixels):
            own = taps[first : min(first + tile_pixels, start + count)]
            largest = max(largest, _distinct(own))
    return largest * words_per_position


def _distinct(taps: np.ndarray) -> int:
    low, high = int(taps.min()), int(taps.max())
    seen = np.zeros(high - low + 1, dtype=bool)
    seen[taps.ravel() - low] = True
    return int(seen.sum()) - (low < 0 and bool(seen[0]))


@dataclass(frozen=True)
class _Traffic:
    """Bits of one operand: into the busiest PE, out of the banks, out of DRAM."""

    pe: float
    banks: float
    dram: float


def _estimate(arch: Arch, layer: LayerSpec, storage: Storage, mapping: Mapping) -> tuple[float, float]:
    """(cycles, bits moved) of a mapping by roofline: a ranking, not a prediction."""
    geometry, scheme, depth = layer.geometry, layer.scheme, arch.accumulation_collector_depth
    pixels = -(-geometry.pixels // mapping.pixel_split)
    units = -(-_unit_count(arch, layer) // mapping.k_split)
    lane_groups = -(-min(arch.unit_channels, geometry.outputs_per_group) // arch.lanes)
    tiles, rest = divmod(pixels, mapping.tile_pixels)
    d_tiles = tiles * -(-mapping.tile_pixels // depth) + -(-rest // depth)
    pixel_tiles = tiles + (rest > 0)
    issue = sum(
        count * max(size, arch.accumulate_latency)
        for count, size in _d_tile_sizes(tiles, mapping.tile_pixels, rest, depth)
    )
    compute = units * lane_groups * layer.G * issue
    unit_tiles = -(-units // max(1, mapping.units_per_tile))
    chunks = lane_groups * -(-layer.G // mapping.chunk_vectors) if not mapping.units_per_tile else 1

    weights_sent = 1
    if chunks > 2:
        weights_sent = d_tiles
    elif mapping.order == "PK" and unit_tiles * chunks > 2:
        weights_sent = pixel_tiles
    inputs_sent = 1
    if mapping.chunk_inputs and chunks > 2:
        inputs_sent = units * lane_groups
    elif mapping.order == "KP" and pixel_tiles > 2:
        inputs_sent = unit_tiles

    weight_word = layer.vector_size * scheme.weight_bits + scheme.weight_scale_bits
    input_word = layer.vector_size * scheme.activation_bits + scheme.activation_scale_bits
    one_group = min(units * arch.unit_channels, geometry.K) * layer.G * weight_word
    weights = _traffic(one_group, weights_sent, mapping.k_split, storage.weights)
    words = pixels * layer.G
    if not layer.folded and not mapping.chunk_inputs:
        words = min(words, pixel_tiles * _tile_words(layer, mapping))
    groups = 1 if geometry.groups == 1 else -(-geometry.groups // mapping.k_split)
    input_streams = mapping.pixel_split * (1 if geometry.groups == 1 else mapping.k_split)
    inputs = _traffic(words * groups * input_word, inputs_sent, input_streams, storage.input)
    written = output_bits(layer)

    weight_banks, input_banks, output_banks = arch.bank_groups
    width = arch.crossbar_bits
    lanes = min(arch.lanes * lane_groups, geometry.outputs_per_group)
    weight_tile = lanes * max(1, mapping.units_per_tile) * mapping.chunk_vectors * weight_word
    input_tile = words * input_word / pixel_tiles
    fill = (
        (storage.weights != "gb") * weight_tile * mapping.k_split / arch.dram_bits
        + (storage.input != "gb") * input_tile * input_streams / arch.dram_bits
        + max(
            (weight_tile + input_tile) / width,
            weight_tile / width * -(-mapping.k_split // weight_banks),
            input_tile / width * -(-input_streams // input_banks),
        )
    )
    weight_tiles = weights_sent * -(-units // max(1, mapping.units_per_tile)) * chunks
    input_tiles = inputs_sent * pixel_tiles * groups
    weights_crossbar = weights.banks / width / min(weight_banks, mapping.k_split)
    inputs_crossbar = inputs.banks / width / min(input_banks, input_streams)
    # A shared input and a multicast weight tile meet in one PE's port: they cannot move at the same time.
    together = weights_crossbar + inputs_crossbar if geometry.groups == 1 else 0
    cycles = fill + max(
        compute,
        (weights.pe + inputs.pe) / width,
        together,
        weights_crossbar,
        inputs_crossbar,
        written / width / output_banks,
        (weights.dram + inputs.dram + (written if storage.output_to_dram else 0)) / arch.dram_bits,
        weight_tiles * _round_trip(arch, weight_tile, storage.weights) / 2,
        input_tiles * _round_trip(arch, input_tile, storage.input) / 2,
    )
    return cycles, weights.banks + inputs.banks + 8 * (weights.dram + inputs.dram)


def _round_trip(arch: Arch, tile_bits: float, mode: Mode) -> float:
    """Cycles from the launch of a fetch to the tile's arrival; a stream has two fetches under way."""
    crossbar = tile_bits / arch.crossbar_bits + arch.noc_latency_cycles
    return crossbar + (0 if mode == "gb" else tile_bits / arch.dram_bits + arch.dram_latency_cycles)


def _tile_words(layer: LayerSpec, mapping: Mapping) -> int:
    return _largest_tile(
        layer.geometry, layer.words_per_position, False, layer.G, mapping.pixel_split, mapping.tile_pixels
    )


def _traffic(bits: float, sent: int, streams: int, mode: Mode) -> _Traffic:
    dram = {"gb": 0, "cached": bits * streams, "streamed": bits * streams * sent}[mode]
    return _Traffic(bits * sent, bits * sent * streams, dram)


def _d_tile_sizes(tiles: int, tile_pixels: int, rest: int, depth: int) -> list[tuple[int, int]]:
    sizes = []
    for count, pixels in ((tiles, tile_pixels), (1, rest)):
        whole, part = divmod(pixels, depth)
        sizes += [(count * whole, depth), (count * (part > 0), part)]
    return sizes
