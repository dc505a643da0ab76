"""docs/program.md: units, tiles, pieces and blocks, spelled out as lists."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from accelsim.formats.operand import Operand
from accelsim.machine.arch import Arch
from accelsim.mapping.plan import LayerMapping
from accelsim.workload.layer import QuantizedLayer
from cycle_model.sizes import (
    block_written,
    ceil_div,
    channels_of_a_unit,
    word_run_bits,
    words_of_block,
    words_of_position,
)


def split(n: int, parts: int, part: int) -> range:
    """Block `part` of n things cut into contiguous blocks, the first n mod parts one longer."""
    sizes = [n // parts + (i < n % parts) for i in range(parts)]
    start = sum(sizes[:part])
    return range(start, start + sizes[part])


def runs(things: list, length: int) -> list[list]:
    return [things[i : i + length] for i in range(0, len(things), length)]


@dataclass(frozen=True)
class Place:
    """Where a PE stands in the splits of a layer."""

    pk: int
    pc: int
    pp: int


def place_of(mapping: LayerMapping, pe: int) -> Place | None:
    """None for a PE beyond Pk * Pc * Pp."""
    if pe >= mapping.k_split * mapping.c_split * mapping.pixel_split:
        return None
    stream, pp = divmod(pe, mapping.pixel_split)
    pk, pc = divmod(stream, mapping.c_split)
    return Place(pk, pc, pp)


def weight_stream(mapping: LayerMapping, place: Place) -> int:
    return place.pk * mapping.c_split + place.pc


def input_stream(layer: QuantizedLayer, mapping: LayerMapping, place: Place, pe: int) -> int:
    return place.pc * mapping.pixel_split + place.pp if layer.geometry.groups == 1 else pe


def vectors_of_part(layer: QuantizedLayer, parts: int, part: int) -> list[int]:
    """The vectors of one part of the reduction, as the layer numbers them; the PE numbers them from 0."""
    together = words_of_block(layer)
    words = layer.spec.G if layer.spec.packed_im2col else words_of_position(layer)
    own = [b * together + word for b in split(words // together, parts, part) for word in range(together)]
    if layer.spec.packed_im2col:
        return own
    taps = range(layer.geometry.R * layer.geometry.S)
    return [tap * words + word for tap in taps for word in own]


@dataclass(frozen=True)
class Unit:
    group: int
    lane_groups: tuple[tuple[int, ...], ...]  # the output channels k of each lane group


@dataclass(frozen=True)
class WeightTile:
    key: tuple
    lane_groups: tuple[tuple[int, ...], ...]
    vectors: tuple[int, ...]
    bits: int

    @property
    def words(self) -> list[tuple[int, int]]:
        return [(k, g) for channels in self.lane_groups for k in channels for g in self.vectors]

    @property
    def macro_words(self) -> int:
        """Words it takes in every macro of the half, a partial lane group as many as a full one."""
        return len(self.lane_groups) * len(self.vectors)


@dataclass(frozen=True)
class InputTile:
    key: tuple
    words: tuple[int, ...]
    bits: int
    stored: frozenset[int]  # words, or positions of a packed im2col layer, that DRAM holds of it
    stored_bits: int  # bits of one of them


@dataclass(eq=False)
class PsumTile:
    """The psums of one (d-tile, lane group) tile in one PE, and what happens to them."""

    layer: int
    pe: int
    number: int  # j, over the whole run of the PE
    pixels: list[int]
    channels: tuple[int, ...]
    staged_away: bool  # kept in the PPU until the last lane group of its unit comes
    gathers: int  # n of a staged last lane group, 1 otherwise
    formats: int  # that the PPU writes, one after the other
    output_channels: int
    pieces: list[Piece] = field(default_factory=list)
    last_write: int | None = None

    @property
    def fifo_entries(self) -> int:
        """Of each pixel."""
        return 0 if self.staged_away else self.gathers * self.formats


@dataclass(eq=False)
class Piece:
    """What leaves of a psum tile at once: into the PPU, or to the next PE of the chain."""

    tile: PsumTile
    index: int  # of the PE's pieces within the layer
    first_entry: int
    pixels: list[int]
    before: Piece | None = None  # the same piece in the chain's PE before
    after: Piece | None = None
    arrived: int | None = None  # the cycle at which the psums of the PE before were all there
    sent: int = 0  # entries that went to the next PE
    drain_start: int | None = None
    last_read: int | None = None

    @property
    def summed(self) -> int | None:
        return self.tile.last_write if self.before is None else self.arrived


@dataclass(eq=False)
class Block:
    layer: int
    context: tuple[int, ...]
    psum_tile: PsumTile
    group: int
    vectors: tuple[int, ...]
    first_chunk: bool
    last_chunk: bool
    weight_tile: WeightTile
    input_tile: InputTile
    weight_position: int = -1
    input_position: int = -1
    releases_weight: bool = False
    releases_input: bool = False


def units_of(arch: Arch, layer: QuantizedLayer, formats: Formats) -> list[Unit]:
    per_group = layer.geometry.outputs_per_group
    units = []
    for group in range(layer.geometry.groups):
        channels = list(range(group * per_group, (group + 1) * per_group))
        for unit in runs(channels, channels_of_a_unit(arch, formats)):
            units.append(Unit(group, tuple(tuple(lanes) for lanes in runs(unit, arch.lanes))))
    return units


def weight_tiles_of_units(units: list[Unit], units_per_tile: int) -> list[list[Unit]]:
    """kt: runs of units_per_tile units (1 for chunked weights) that do not cross a group."""
    tiles: list[list[Unit]] = []
    for unit in units:
        if not tiles or len(tiles[-1]) >= max(units_per_tile, 1) or tiles[-1][0].group != unit.group:
            tiles.append([])
        tiles[-1].append(unit)
    return tiles


def make_input_tile(
    layer: QuantizedLayer, key: tuple, group: int, pixels: list[int], vectors: tuple[int, ...]
) -> InputTile:
    geometry, scheme = layer.geometry, layer.scheme
    touched = layer.spec.gather(group, np.array(pixels))[:, list(vectors)]
    words = tuple(sorted(set(touched.ravel().tolist()) - {-1}))
    bits = word_run_bits(layer, scheme.activation, len(words))
    together = words_of_block(layer)
    stored = frozenset(word // together for word in words)
    stored_bits = word_run_bits(layer, scheme.activation, together)
    if layer.spec.packed_im2col:
        # The taps that the vectors cover, also in part.
        c, v = geometry.channels_per_group, layer.vector_size
        covered = {i // c for g in vectors for i in range(g * v, (g + 1) * v)}
        taps = [tap for tap in range(geometry.R * geometry.S) if tap in covered]
        stored = frozenset(layer.spec.taps[pixels][:, taps].ravel().tolist()) - {-1}
        stored_bits = c * scheme.activation.bits
    return InputTile(key, words, bits, stored, stored_bits)


Formats = tuple[Operand, ...]


def is_staged(arch: Arch, formats: Formats) -> bool:
    return block_written(arch, formats) > arch.lanes


def d_tile_pixels(arch: Arch, formats: Formats, mapping: LayerMapping) -> int:
    """Dt: the most pixels of a psum tile."""
    depth = arch.accumulation_collector_depth
    most = [mapping.dtile_pixels] if mapping.dtile_pixels else []
    if mapping.dataflow in ("os-lws", "os"):
        return min([depth, *most])
    half = arch.accumulation_buffer_words // 2
    return min([half, *([depth] if is_staged(arch, formats) else []), *most])


def chunks_of(layer: QuantizedLayer, mapping: LayerMapping, pc: int) -> list[tuple[int, ...]]:
    """The chunks of part pc that hold something; every part is cut at the same places."""
    vectors = vectors_of_part(layer, mapping.c_split, pc)
    if mapping.units_per_tile >= 1:
        return [tuple(vectors)]
    return [tuple(chunk) for chunk in runs(vectors, mapping.chunk_vectors)]


def blocks_of(
    arch: Arch,
    index: int,
    layer: QuantizedLayer,
    mapping: LayerMapping,
    pe: int,
    first_j: int,
    formats: Formats,
) -> list[Block]:
    """The blocks of one PE in one layer, in issue order; positions and chains are filled in by the caller."""
    place = place_of(mapping, pe)
    if place is None:
        return []
    all_units = units_of(arch, layer, formats)
    units = [all_units[u] for u in split(len(all_units), mapping.k_split, place.pk)]
    pixels = list(split(layer.geometry.pixels, mapping.pixel_split, place.pp))
    if not units or not pixels:
        return []
    kts = weight_tiles_of_units(units, mapping.units_per_tile)
    pts = runs(pixels, mapping.tile_pixels)
    chunked = mapping.units_per_tile == 0
    chunks = chunks_of(layer, mapping, place.pc)
    everything = tuple(vectors_of_part(layer, mapping.c_split, place.pc))
    staged = is_staged(arch, formats)
    w_stream = weight_stream(mapping, place)
    i_stream = input_stream(layer, mapping, place, pe)
    weight_tiles: dict[tuple, WeightTile] = {}
    input_tiles: dict[tuple, InputTile] = {}

    if mapping.order == "KP":
        outer = [(ikt, ipt) for ikt in range(len(kts)) for ipt in range(len(pts))]
    else:
        outer = [(ikt, ipt) for ipt in range(len(pts)) for ikt in range(len(kts))]
    blocks = []
    j = first_j
    pieces_made = 0
    for ikt, ipt in outer:
        kt, pt = kts[ikt], pts[ipt]
        outer_context = (ikt, ipt) if mapping.order == "KP" else (ipt, ikt)
        for iu, unit in enumerate(kt):
            for idt, d_tile in enumerate(runs(pt, d_tile_pixels(arch, formats, mapping))):
                for il, channels in enumerate(unit.lane_groups):
                    last_lane_group = il == len(unit.lane_groups) - 1
                    psum_tile = PsumTile(
                        layer=index,
                        pe=pe,
                        number=j,
                        pixels=d_tile,
                        channels=channels,
                        staged_away=staged and not last_lane_group,
                        gathers=len(unit.lane_groups) if staged and last_lane_group else 1,
                        formats=len(formats),
                        output_channels=sum(map(len, unit.lane_groups)) if staged else len(channels),
                    )
                    j += 1
                    for piece_pixels in runs(d_tile, arch.accumulation_collector_depth):
                        first_entry = d_tile.index(piece_pixels[0])
                        psum_tile.pieces.append(Piece(psum_tile, pieces_made, first_entry, piece_pixels))
                        pieces_made += 1
                    for ic, chunk in enumerate(chunks):
                        if chunked:
                            wkey = (index, w_stream, ikt, il, ic)
                            lane_groups = (channels,)
                        else:
                            wkey = (index, w_stream, ikt)
                            lane_groups = tuple(lanes for u in kt for lanes in u.lane_groups)
                        if wkey not in weight_tiles:
                            words = sum(map(len, lane_groups)) * len(chunk)
                            bits = word_run_bits(layer, layer.scheme.weight, words)
                            weight_tiles[wkey] = WeightTile(wkey, lane_groups, chunk, bits)
                        in_chunk = mapping.chunk_inputs and chunked
                        ikey = (index, i_stream, unit.group, ipt, ic if in_chunk else None)
                        if ikey not in input_tiles:
                            vectors = chunk if in_chunk else everything
                            input_tiles[ikey] = make_input_tile(layer, ikey, unit.group, pt, vectors)
                        blocks.append(
                            Block(
                                layer=index,
                                context=(*outer_context, iu, idt, il, ic),
                                psum_tile=psum_tile,
                                group=unit.group,
                                vectors=chunk,
                                first_chunk=ic == 0,
                                last_chunk=ic == len(chunks) - 1,
                                weight_tile=weight_tiles[wkey],
                                input_tile=input_tiles[ikey],
                            )
                        )
    return blocks


def output_tile_bits(arch: Arch, formats: Formats, piece: Piece) -> int:
    k = piece.tile.output_channels
    blocks = ceil_div(k, block_written(arch, formats) or k)
    return len(piece.pixels) * sum(k * out.bits + blocks * out.scale.bits for out in formats)
