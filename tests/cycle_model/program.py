"""docs/machine.md section 4: blocks, tiles, positions, fetches and where data lives, spelled out as lists."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from accelsim.config import Arch
from accelsim.mapping.plan import Mapping
from accelsim.workload import QuantizedLayer


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def split(n: int, parts: int, part: int) -> range:
    """Block `part` of n things cut into contiguous blocks, the first n mod parts one longer."""
    sizes = [n // parts + (i < n % parts) for i in range(parts)]
    start = sum(sizes[:part])
    return range(start, start + sizes[part])


def runs(things: list, length: int) -> list[list]:
    return [things[i : i + length] for i in range(0, len(things), length)]


@dataclass(frozen=True)
class Unit:
    group: int
    lane_groups: tuple[tuple[int, ...], ...]  # the output channels k of each lane group


@dataclass(frozen=True)
class WeightTile:
    key: tuple
    lane_groups: tuple[tuple[int, ...], ...]
    g_range: range
    bits: int

    @property
    def words(self) -> list[tuple[int, int]]:
        return [(k, g) for channels in self.lane_groups for k in channels for g in self.g_range]

    @property
    def macro_words(self) -> int:
        """Words it takes in every macro of the half, a partial lane group as many as a full one."""
        return len(self.lane_groups) * len(self.g_range)


@dataclass(frozen=True)
class InputTile:
    key: tuple
    words: tuple[int, ...]
    bits: int
    stored: frozenset[int]  # words, or positions of a folded layer, that DRAM holds of it
    stored_bits: int  # bits of one of them


@dataclass(eq=False)
class PsumTile:
    """The psums of one (d-tile, lane group) tile, and what happens to them."""

    layer: int
    number: int  # j, over the whole run of the PE
    pixels: list[int]
    channels: tuple[int, ...]
    staged_away: bool  # kept in the PPU until the last lane group of its unit comes
    pieces: int  # n of a staged last lane group, 1 otherwise
    output_channels: int
    last_write: int | None = None
    drain_start: int | None = None

    @property
    def last_read(self) -> int:
        return self.drain_start + (len(self.pixels) - 1) * self.pieces


@dataclass(eq=False)
class Block:
    layer: int
    context: tuple[int, ...]
    psum_tile: PsumTile
    group: int
    g_range: range
    first_chunk: bool
    last_chunk: bool
    weight_tile: WeightTile
    input_tile: InputTile
    weight_position: int = -1
    input_position: int = -1
    releases_weight: bool = False
    releases_input: bool = False


@dataclass(eq=False)
class Fetch:
    layer: int
    operand: str
    stream: int
    leader: int
    index: int
    tile: WeightTile | InputTile
    positions: dict[int, int]  # destination PE -> its position
    reads_dram: bool
    dram_bits: int
    last_of_tile: bool


@dataclass
class Placement:
    resident: bool
    weights: str
    input: str
    output_to_dram: bool


@dataclass
class LayerProgram:
    index: int
    layer: QuantizedLayer
    mapping: Mapping
    placement: Placement
    streams: dict[str, dict[int, list[Fetch]]] = field(default_factory=dict)  # those not launched yet
    last_weight_launch: int | None = None
    outputs: dict[int, int] = field(default_factory=dict)  # output tiles of each PE


@dataclass
class Program:
    layers: list[LayerProgram]
    blocks: list[list[Block]]  # of each PE, over all layers


def region_bits(arch: Arch) -> tuple[int, int]:
    """Bits of the (weight region, activation region) of the global buffer."""
    weights = arch.global_buffer_bits * arch.bank_groups[0] // arch.gb_banks
    return weights, arch.global_buffer_bits - weights


def layer_bits(layer: QuantizedLayer) -> tuple[int, int, int]:
    """in_bits, out_bits, w_bits."""
    g, scheme, out = layer.geometry, layer.scheme, layer.output
    if layer.folded:
        in_bits = g.N * g.H * g.W * g.C * scheme.activation_bits
    else:
        words = g.N * g.H * g.W * g.groups * ceil_div(g.C // g.groups, layer.vector_size)
        in_bits = words * (layer.vector_size * scheme.activation_bits + scheme.activation_scale_bits)
    per_group = g.K // g.groups
    out_bits = per_group * out.bits + ceil_div(per_group, layer.vector_size) * out.scale_bits
    out_bits *= g.N * g.P * g.Q * g.groups
    w_bits = g.K * layer.G * (layer.vector_size * scheme.weight_bits + scheme.weight_scale_bits)
    return in_bits, out_bits, w_bits


def place(arch: Arch, layers: list[QuantizedLayer]) -> list[Placement]:
    weight_region, activation_region = region_bits(arch)
    placements: list[Placement] = []
    for i, layer in enumerate(layers):
        in_bits, out_bits, w_bits = layer_bits(layer)
        resident = in_bits + out_bits <= activation_region
        fits = in_bits + out_bits + w_bits <= activation_region
        if layer.weight_is_activation and i > 0 and resident and fits:
            weights = "gb"
        else:
            weights = "cached" if w_bits <= weight_region else "streamed"
        if not resident:
            inputs = "streamed"
        else:
            inputs = "gb" if i > 0 and placements[-1].resident else "cached"
        placements.append(Placement(resident, weights, inputs, not resident or i == len(layers) - 1))
    return placements


def units_of(arch: Arch, layer: QuantizedLayer) -> list[Unit]:
    per_group = layer.geometry.outputs_per_group
    units = []
    for group in range(layer.geometry.groups):
        channels = list(range(group * per_group, (group + 1) * per_group))
        for unit in runs(channels, arch.unit_channels):
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
    layer: QuantizedLayer, key: tuple, group: int, pixels: list[int], g_range: range
) -> InputTile:
    geometry, scheme = layer.geometry, layer.scheme
    touched = layer.gather(group, np.array(pixels))[:, g_range.start : g_range.stop]
    words = tuple(sorted(set(touched.ravel().tolist()) - {-1}))
    bits = len(words) * (layer.vector_size * scheme.activation_bits + scheme.activation_scale_bits)
    stored, stored_bits = frozenset(words), bits // len(words) if words else 0
    if layer.folded:
        # The taps that the g range covers, also in part.
        c = geometry.channels_per_group
        first, end = g_range.start * layer.vector_size, g_range.stop * layer.vector_size
        taps = [t for t in range(geometry.R * geometry.S) if t * c < end and (t + 1) * c > first]
        stored = frozenset(layer.taps[pixels][:, taps].ravel().tolist()) - {-1}
        stored_bits = c * scheme.activation_bits
    return InputTile(key, words, bits, stored, stored_bits)


def blocks_of(
    arch: Arch, index: int, layer: QuantizedLayer, mapping: Mapping, pe: int, first_j: int
) -> list[Block]:
    """The blocks of one PE in one layer, in issue order; positions are filled in by the caller."""
    if pe >= mapping.k_split * mapping.pixel_split:
        return []
    pk, pp = divmod(pe, mapping.pixel_split)
    all_units = units_of(arch, layer)
    units = [all_units[u] for u in split(len(all_units), mapping.k_split, pk)]
    pixels = list(split(layer.geometry.pixels, mapping.pixel_split, pp))
    if not units or not pixels:
        return []
    kts = weight_tiles_of_units(units, mapping.units_per_tile)
    pts = runs(pixels, mapping.tile_pixels)
    chunked = mapping.units_per_tile == 0
    everything = list(range(layer.G))
    chunks = [range(c[0], c[-1] + 1) for c in runs(everything, mapping.chunk_vectors if chunked else layer.G)]
    word_bits = layer.vector_size * layer.scheme.weight_bits + layer.scheme.weight_scale_bits
    staged = layer.output.scale_bits > 0 and arch.vector_size > arch.lanes
    input_stream = pp if layer.geometry.groups == 1 else pe
    weight_tiles: dict[tuple, WeightTile] = {}
    input_tiles: dict[tuple, InputTile] = {}

    if mapping.order == "KP":
        outer = [(ikt, ipt) for ikt in range(len(kts)) for ipt in range(len(pts))]
    else:
        outer = [(ikt, ipt) for ipt in range(len(pts)) for ikt in range(len(kts))]
    blocks = []
    j = first_j
    for ikt, ipt in outer:
        kt, pt = kts[ikt], pts[ipt]
        outer_context = (ikt, ipt) if mapping.order == "KP" else (ipt, ikt)
        for iu, unit in enumerate(kt):
            for idt, d_tile in enumerate(runs(pt, arch.accumulation_collector_depth)):
                for il, channels in enumerate(unit.lane_groups):
                    last_lane_group = il == len(unit.lane_groups) - 1
                    psum_tile = PsumTile(
                        layer=index,
                        number=j,
                        pixels=d_tile,
                        channels=channels,
                        staged_away=staged and not last_lane_group,
                        pieces=len(unit.lane_groups) if staged and last_lane_group else 1,
                        output_channels=sum(map(len, unit.lane_groups)) if staged else len(channels),
                    )
                    j += 1
                    for ic, chunk in enumerate(chunks):
                        if chunked:
                            wkey = (index, pk, ikt, il, ic)
                            lane_groups = (channels,)
                        else:
                            wkey = (index, pk, ikt)
                            lane_groups = tuple(lanes for u in kt for lanes in u.lane_groups)
                        if wkey not in weight_tiles:
                            words = sum(map(len, lane_groups)) * len(chunk)
                            weight_tiles[wkey] = WeightTile(wkey, lane_groups, chunk, words * word_bits)
                        in_chunk = mapping.chunk_inputs and chunked
                        ikey = (index, input_stream, unit.group, ipt, ic if in_chunk else None)
                        if ikey not in input_tiles:
                            g_range = chunk if in_chunk else range(layer.G)
                            input_tiles[ikey] = make_input_tile(layer, ikey, unit.group, pt, g_range)
                        blocks.append(
                            Block(
                                layer=index,
                                context=(*outer_context, iu, idt, il, ic),
                                psum_tile=psum_tile,
                                group=unit.group,
                                g_range=chunk,
                                first_chunk=ic == 0,
                                last_chunk=ic == len(chunks) - 1,
                                weight_tile=weight_tiles[wkey],
                                input_tile=input_tiles[ikey],
                            )
                        )
    return blocks


@dataclass
class _Need:
    """A position that something must be sent for."""

    layer: int
    pe: int
    position: int
    context: tuple[int, ...]
    tile: WeightTile | InputTile


def _positions(pe: int, blocks: list[Block], operand: str) -> list[_Need]:
    """Number the positions of one operand of one PE; return those that need a fetch."""
    tiles: list = []
    needs = []
    previous: Block | None = None
    for block in blocks:
        tile = getattr(block, f"{operand}_tile")
        if not tiles or tiles[-1].key != tile.key:
            if previous is not None:
                setattr(previous, f"releases_{operand}", True)
            tiles.append(tile)
            i = len(tiles) - 1
            if i < 2 or tiles[i - 2].key != tile.key:
                needs.append(_Need(block.layer, pe, i, block.context, tile))
        setattr(block, f"{operand}_position", len(tiles) - 1)
        previous = block
    if previous is not None:
        setattr(previous, f"releases_{operand}", True)
    return needs


def _streams(program: LayerProgram, operand: str, needs: list[_Need]) -> dict[int, list[Fetch]]:
    mapping = program.mapping
    by_stream: dict[int, dict[tuple, list[_Need]]] = {}
    for need in needs:
        pk, pp = divmod(need.pe, mapping.pixel_split)
        if operand == "weight":
            stream = pk
        else:
            stream = pp if program.layer.geometry.groups == 1 else need.pe
        by_stream.setdefault(stream, {}).setdefault(need.context, []).append(need)
    kind = program.placement.weights if operand == "weight" else program.placement.input
    result = {}
    for stream, contexts in sorted(by_stream.items()):
        leader = min(need.pe for found in contexts.values() for need in found)
        fetches: list[Fetch] = []
        last: dict[tuple, Fetch] = {}
        brought: set[tuple[int, int]] = set()
        for context in sorted(contexts):
            tile = contexts[context][0].tile
            assert all(need.tile.key == tile.key for need in contexts[context])
            dram_bits = tile.bits
            if isinstance(tile, InputTile):
                wanted = {(tile.key[2], item) for item in tile.stored}
                if kind == "cached":
                    wanted -= brought
                    brought |= wanted
                dram_bits = len(wanted) * tile.stored_bits
            fetch = Fetch(
                layer=program.index,
                operand=operand,
                stream=stream,
                leader=leader,
                index=len(fetches),
                tile=tile,
                positions={need.pe: need.position for need in contexts[context]},
                reads_dram=kind == "streamed" or (kind == "cached" and tile.key not in last),
                dram_bits=dram_bits,
                last_of_tile=False,
            )
            fetches.append(fetch)
            last[tile.key] = fetch
        for fetch in last.values():
            fetch.last_of_tile = True
        result[stream] = fetches
    return result


def compile_run(arch: Arch, layers: list[QuantizedLayer], mappings: list[Mapping]) -> Program:
    placements = place(arch, layers)
    programs = [
        LayerProgram(i, layer, mapping, placement)
        for i, (layer, mapping, placement) in enumerate(zip(layers, mappings, placements, strict=True))
    ]
    all_blocks = []
    needs: dict[str, list[_Need]] = {"weight": [], "input": []}
    for pe in range(arch.pes):
        blocks: list[Block] = []
        for program in programs:
            first_j = blocks[-1].psum_tile.number + 1 if blocks else 0
            mine = blocks_of(arch, program.index, program.layer, program.mapping, pe, first_j)
            tiles = [block.psum_tile for block in mine if block.last_chunk]
            program.outputs[pe] = sum(not tile.staged_away for tile in tiles)
            blocks += mine
        for operand, found in needs.items():
            found += _positions(pe, blocks, operand)
        all_blocks.append(blocks)
    for program in programs:
        for operand, found in needs.items():
            mine = [need for need in found if need.layer == program.index]
            program.streams[operand] = _streams(program, operand, mine)
    return Program(programs, all_blocks)


def output_tile_bits(layer: QuantizedLayer, tile: PsumTile) -> int:
    k, out = tile.output_channels, layer.output
    return len(tile.pixels) * (k * out.bits + out.scale_bits * ceil_div(k, layer.vector_size))


def refusal(arch: Arch, layer: QuantizedLayer, mapping: Mapping) -> str | None:
    """Why this mapping is refused, taking the layer for the last of the run; None when it is not."""
    weight_region, activation_region = region_bits(arch)
    in_bits, out_bits, _ = layer_bits(layer)
    largest_input = largest_output = 0
    for pe in range(arch.pes):
        for block in blocks_of(arch, 0, layer, mapping, pe, 0):
            if block.weight_tile.bits > weight_region:
                return "weight tile exceeds the weight region"
            if block.weight_tile.macro_words > arch.weight_buffer_words // 2:
                return "weight tile exceeds half the weight buffer"
            if len(block.input_tile.words) > arch.input_buffer_words // 2:
                return "input tile exceeds half the input buffer"
            largest_input = max(largest_input, block.input_tile.bits)
            if not block.psum_tile.staged_away:
                largest_output = max(largest_output, output_tile_bits(layer, block.psum_tile))
    streams = mapping.pixel_split if layer.geometry.groups == 1 else mapping.k_split * mapping.pixel_split
    staging = 2 * arch.pes * largest_output
    if in_bits + out_bits > activation_region:
        staging += 2 * streams * largest_input
    return "staging exceeds the activation region" if staging > activation_region else None
