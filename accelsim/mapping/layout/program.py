"""A layer's program: its layout as objects, for the event model, the timeline and the RTL's vectors."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import AccelsimError
from accelsim.machine.arch import Arch
from accelsim.mapping.layout.iterations import Iterations, find_iterations
from accelsim.mapping.layout.lazy import made_late
from accelsim.mapping.layout.records import NO_READ, Layout, Rows, Shape
from accelsim.mapping.layout.rows import Block, InputTile, WeightTile
from accelsim.mapping.layout.shape import shape_of, taps_of, tiling_of
from accelsim.mapping.layout.shorten import Kept, Short, shorten
from accelsim.mapping.plan import LayerMapping, check_mapping
from accelsim.mapping.residency import Residency
from accelsim.workload.layer import LayerSpec

if TYPE_CHECKING:
    from accelsim.mapping.layout.build import Refused

# What is compiled is imported by what uses it: runs whose timing is kept lay nothing out.

Tile = WeightTile | InputTile


@dataclass(eq=False)
class Position:
    """One stay of a tile in a buffer half of one PE; blocks[first] .. blocks[last] use it."""

    tile: Tile
    first: int
    last: int
    fetched: bool


@dataclass(eq=False)
class Fetch:
    """One multicast: a tile to every (PE, position) that needs it at the same context.

    space: bits of the weight region that it gives back; hops: links of the multicast.
    """

    tile: Tile
    destinations: list[tuple[int, int]]
    reads_dram: bool
    dram_bits: int
    space: int
    hops: int


@dataclass(eq=False)
class Stream:
    """The fetches of PEs that share an operand, in order, all from one bank."""

    number: int
    leader: int
    bank: int
    fetches: Sequence[Fetch]


@dataclass(eq=False)
class PeProgram:
    """tile_ends, tile_outputs: of each psum tile the block that ends it, and the output tiles it leaves as;
    weights_fetched, inputs_fetched: bool[positions], where the tile is not kept in its half."""

    blocks: Sequence[Block]
    weight_positions: Sequence[Position]
    input_positions: Sequence[Position]
    tile_ends: NDArray[np.int64]
    tile_outputs: NDArray[np.int64]
    weights_fetched: NDArray[np.bool_]
    inputs_fetched: NDArray[np.bool_]


@dataclass(eq=False)
class LayerProgram:
    """Everything the array needs to run one layer. output_tiles: over all PEs; pixel_outputs: how many
    outputs of a pixel they have, each number that there is.

    short, iterations: of a long layer, which is laid out with periods left out; all but `layer`, `mapping`
    and `residency` is then of `short.layer`.
    """

    layer: LayerSpec
    mapping: LayerMapping
    residency: Residency
    piece_pixels: int
    unit: int  # output channels
    pes: list[PeProgram]
    weight_streams: list[Stream]
    input_streams: list[Stream]
    weight_prefetch_depth: int  # tiles of a stream that may wait in the global buffer for room in the PEs
    output_tiles: int
    pixel_outputs: list[int]
    short: Short | None = None
    iterations: Iterations | None = None

    @property
    def signature(self) -> Hashable:
        """Equal for layers that are laid out alike, whatever their names and numbers."""
        layer = self.layer
        kind = layer.weight_is_activation, layer.global_pe, layer.fold, layer.vector_size
        kept = self.short and self.short.kept
        return layer.geometry, layer.scheme, layer.written_bits, kind, self.mapping, self.residency, kept

    def whole(self, arch: Arch) -> LayerProgram:
        """With nothing left out."""
        if self.short is None:
            return self
        return build_program(arch, self.layer, self.mapping, self.residency)

    def outputs_of(self, pe: int) -> int:
        """Outputs of the whole layer that a PE sums, alone or with its chain."""
        from accelsim.mapping.layout.input_tiles import split

        geometry, splits = self.layer.geometry, self.mapping
        pk = pe // (splits.pixel_split * splits.c_split)
        if pk >= splits.k_split:
            return 0
        first, stop = split(geometry.pixels, splits.pixel_split, pe % splits.pixel_split)
        outputs = geometry.outputs_per_group
        per_group = -(-outputs // self.unit)
        units = split(geometry.groups * per_group, splits.k_split, pk)
        k0, k1 = (u // per_group * outputs + min(u % per_group * self.unit, outputs) for u in units)
        return int((stop - first) * (k1 - k0))

    def pieces(self, block: Block) -> list[int]:
        """Pixels of the pieces in which the psum tile of a last block leaves, in order."""
        whole, rest = divmod(block.pixels, self.piece_pixels)
        return [self.piece_pixels] * whole + [rest] * (rest > 0)

    def part_of(self, pe: int) -> int:
        """pc, the part of the reduction that a PE sums."""
        return pe // self.mapping.pixel_split % self.mapping.c_split

    def sends_psums(self, pe: int) -> bool:
        """True where another PE of the chain comes after this one."""
        return self.part_of(pe) < self.mapping.c_split - 1


def build_program(
    arch: Arch,
    layer: LayerSpec,
    mapping: LayerMapping,
    residency: Residency,
    kept: Kept | None = None,
) -> LayerProgram:
    """Lay a layer on the array. Raises AccelsimError naming a buffer too small, and by how much.

    kept: what to keep of a long one; None: all of it, however long it is.
    """
    from accelsim.mapping.layout.blocks import input_reads
    from accelsim.mapping.layout.build import Refused, lay_out

    check_mapping(arch, layer, mapping)
    short = None if kept is None else shorten(arch, layer, mapping, kept)
    laid_out = layer if short is None else short.layer
    shape, tiling = shape_of(arch, laid_out, mapping, residency, layer), tiling_of(laid_out, mapping)
    taps = taps_of(laid_out.geometry)
    layout = lay_out(shape, tiling, taps, residency.beside_bits)
    if isinstance(layout, Refused):
        raise AccelsimError(f"layer {layer.name}: {_reason(layout, shape)}")
    weights, inputs = _weight_tiles(shape, layout), _input_tiles(laid_out, mapping, shape, layout)
    reads = input_reads(shape, tiling, taps, layout.blocks, layout.input_tiles)
    return LayerProgram(
        layer,
        mapping,
        residency,
        shape.piece,
        shape.unit,
        _pe_programs(shape, layout, weights, inputs, reads),
        *_streams(layout, weights, inputs),
        weight_prefetch_depth=layout.weight_prefetch_depth,
        output_tiles=layout.outputs,
        pixel_outputs=np.unique(layout.blocks["values"]).tolist(),
        short=short,
        iterations=None if short is None else find_iterations(layout, reads),
    )


def _weight_tiles(shape: Shape, layout: Layout) -> Sequence[WeightTile]:
    def make(first: int, stop: int) -> list[WeightTile]:
        return [
            WeightTile(k0, k1, g0, g1, words, half_words, words // shape.run * shape.weight_bits)
            for k0, k1, g0, g1, words, half_words in layout.weight_tiles[first:stop].tolist()
        ]

    return made_late(len(layout.weight_tiles), make)


def _input_tiles(
    layer: LayerSpec, mapping: LayerMapping, shape: Shape, layout: Layout
) -> Sequence[InputTile]:
    """Of all groups, in the order of a block's `input_tile`."""
    parts, rows = layer.parts(mapping.c_split), layout.input_tiles

    def make(first: int, stop: int) -> list[InputTile]:
        numbers = np.arange(first, stop)
        groups, own = numbers // len(rows), rows[numbers % len(rows)]
        return [
            InputTile(layer, group, parts[part], p0, p1, g0, g1, words, words // shape.run * shape.input_bits)
            for group, (part, p0, p1, g0, g1, words, *_) in zip(groups.tolist(), own.tolist(), strict=True)
        ]

    return made_late(shape.groups * len(rows), make)


def _columns(rows: Rows, *names: str) -> list[list[int]]:
    return [rows[name].tolist() for name in names]


def _pe_programs(
    shape: Shape,
    layout: Layout,
    weights: Sequence[WeightTile],
    inputs: Sequence[InputTile],
    reads: NDArray[np.int64],
) -> list[PeProgram]:
    def blocks(begin: int, first: int, stop: int) -> list[Block]:
        b = layout.blocks[begin + first : begin + stop]
        return [
            Block(weights[weight_tile], inputs[input_tile], *numbers)
            for weight_tile, input_tile, *numbers in zip(
                *_columns(b, "weight_tile", "input_tile", "p0"),
                (b["p0"] + b["pixels"]).tolist(),
                *_columns(b, "g0"),
                (b["g0"] + b["vectors"]).tolist(),
                *_columns(b, "k0"),
                (b["k0"] + b["lanes"]).tolist(),
                (b["k0"] + b["lanes"] - b["channels"]).tolist(),
                *_columns(b, "lane_group"),
                (b["first"] > 0).tolist(),
                (b["last"] > 0).tolist(),
                *_columns(b, "spacing", "after_read", "fifo_entries", "values", "output_bits"),
                reads[begin + first : begin + stop].tolist(),
                strict=True,
            )
        ]

    def positions(
        tiles: Sequence[WeightTile] | Sequence[InputTile], begin: int, first_block: int, first: int, stop: int
    ) -> list[Position]:
        own = layout.positions[begin + first : begin + stop]
        return [
            Position(tiles[tile], first, last, fetched)
            for tile, first, last, fetched in zip(
                *_columns(own, "tile"),
                (own["first"] - first_block).tolist(),
                (own["last"] - first_block).tolist(),
                (own["fetched"] > 0).tolist(),
                strict=True,
            )
        ]

    programs = []
    for own, after in pairwise(layout.pes):
        begin, count = int(own["block"]), int(after["block"] - own["block"])
        held, fetched = [], []
        for operand, tiles in (("weight_position", weights), ("input_position", inputs)):
            first, stop = int(own[operand]), int(after[operand])
            held.append(made_late(stop - first, partial(positions, tiles, first, begin)))
            fetched.append(layout.positions["fetched"][first:stop] > 0)
        ends = layout.psum_tiles["last"][own["psum_tile"] : after["psum_tile"]]
        outputs = -(-layout.blocks["pixels"][ends] // shape.piece) * (layout.blocks["fifo_entries"][ends] > 0)
        programs.append(
            PeProgram(
                made_late(count, partial(blocks, begin)),
                weight_positions=held[0],
                input_positions=held[1],
                tile_ends=ends - begin,
                tile_outputs=outputs,
                weights_fetched=fetched[0],
                inputs_fetched=fetched[1],
            )
        )
    return programs


def _streams(
    layout: Layout, weights: Sequence[WeightTile], inputs: Sequence[InputTile]
) -> tuple[list[Stream], list[Stream]]:
    """Those of weights and of inputs that have a fetch."""

    def fetches(
        tiles: Sequence[WeightTile] | Sequence[InputTile], begin: int, first: int, stop: int
    ) -> list[Fetch]:
        rows = layout.fetches[begin + first : begin + stop]
        at, end = int(rows[0]["first"]), int(rows[-1]["stop"])
        held = layout.positions[layout.destinations[at:end]]
        to = list(zip(*_columns(held, "pe", "number"), strict=True))
        return [
            Fetch(tiles[tile], to[own - at : last - at], dram_bits != NO_READ, max(dram_bits, 0), space, hops)
            for tile, dram_bits, space, hops, own, last in zip(
                *_columns(rows, "tile", "dram_bits", "space", "hops", "first", "stop"), strict=True
            )
        ]

    found: tuple[list[Stream], list[Stream]] = [], []
    for row, (number, leader, bank, first, stop) in enumerate(layout.streams.tolist()):
        if first < stop:
            of_inputs = row >= layout.weight_streams
            own = made_late(stop - first, partial(fetches, inputs if of_inputs else weights, first))
            found[of_inputs].append(Stream(number, leader, bank, own))
    return found


def _reason(refused: Refused, shape: Shape) -> str:
    needed = refused.needed
    return {
        "weight half": f"a weight tile takes {needed} words, "
        f"expected at most {shape.weight_half} (half of weight_buffer_words)",
        "weight region": f"a weight tile takes {needed} bits, expected at most the global "
        f"buffer's weight region of {shape.weight_region} bits (see global_buffer_kb)",
        "input half": f"an input tile takes {needed} words, "
        f"expected at most {shape.input_half} (half of input_buffer_words)",
        "activation region": "what it keeps in the global buffer and streams through it needs "
        f"{needed} bits, expected at most {shape.activation_region} (its activation region; see "
        "global_buffer_kb, gb_weight_kb, output_staging_tiles)",
    }[refused.what]
