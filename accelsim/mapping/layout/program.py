"""From a layer and its mapping to what every PE does: blocks, buffer positions, fetches and streams.

The definitions are docs/machine.md section 4; names here are its names.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field

from accelsim.errors import AccelsimError
from accelsim.machine import timing
from accelsim.machine.arch import Arch
from accelsim.mapping.layout.tiles import Block, InputTile, WeightTile
from accelsim.mapping.plan import Mapping, check_mapping
from accelsim.mapping.residency import Mode, Storage
from accelsim.workload.layer import LayerSpec

Tile = WeightTile | InputTile
Context = tuple[int, ...]


@dataclass(eq=False)
class Position:
    """One stay of a tile in a buffer half of one PE; blocks[first] .. blocks[last] use it."""

    tile: Tile
    context: Context
    first: int
    last: int
    fetched: bool


@dataclass(eq=False)
class Fetch:
    """One multicast: a tile to every (PE, position) that needs it at the same context."""

    tile: Tile
    destinations: list[tuple[int, int]]
    reads_dram: bool = False
    dram_bits: int = 0
    last_of_tile: bool = False


@dataclass(eq=False)
class Stream:
    """The fetches of PEs that share an operand, in order."""

    number: int
    leader: int
    fetches: list[Fetch]


@dataclass(eq=False)
class PeProgram:
    blocks: list[Block] = field(default_factory=list)
    weight_positions: list[Position] = field(default_factory=list)
    input_positions: list[Position] = field(default_factory=list)


@dataclass(eq=False)
class LayerProgram:
    """Everything the array needs to run one layer."""

    layer: LayerSpec
    mapping: Mapping
    storage: Storage
    piece_pixels: int
    pes: list[PeProgram]
    weight_streams: list[Stream]
    input_streams: list[Stream]
    weights_ahead: int  # tiles of a stream that may wait in the global buffer for room in the PEs

    @property
    def signature(self) -> Hashable:
        """Equal for layers that are laid out alike, whatever their names and numbers."""
        layer = self.layer
        output = layer.output_operand.bits, layer.output_operand.scale.bits
        kind = layer.weight_is_activation, layer.global_pe, layer.fold, layer.vector_size
        return layer.geometry, layer.scheme, output, kind, self.mapping, self.storage

    @property
    def output_tiles(self) -> int:
        """Output tiles over all PEs: what must be written before the layer ends."""
        return sum(
            len(self.pieces(block))
            for index, pe in enumerate(self.pes)
            if not self.sends_psums(index)
            for block in pe.blocks
            if block.last and _makes_output(self.layer, block)
        )

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


def is_staged(arch: Arch, layer: LayerSpec) -> bool:
    """Per-vector output scales with V > L: lane groups are gathered before the scale is known."""
    return layer.output_operand.scale.bits > 0 and arch.vector_size > arch.lanes


def _makes_output(layer: LayerSpec, block: Block) -> bool:
    # With V <= L a unit is one lane group, so this also holds there.
    return block.last_of_unit or layer.output_operand.scale.bits == 0


def split(count: int, parts: int, index: int) -> range:
    """Block `index` of `count` things cut into `parts` contiguous blocks, the first ones larger by one."""
    base, extra = divmod(count, parts)
    start = index * base + min(index, extra)
    return range(start, start + base + (index < extra))


def units_of(arch: Arch, layer: LayerSpec) -> list[tuple[int, int, int]]:
    """(group, k0, k1) of every unit, group by group."""
    per_group, size = layer.geometry.outputs_per_group, arch.unit_channels
    return [
        (group, group * per_group + k, group * per_group + min(k + size, per_group))
        for group in range(layer.geometry.groups)
        for k in range(0, per_group, size)
    ]


def build_program(arch: Arch, layer: LayerSpec, mapping: Mapping, storage: Storage) -> LayerProgram:
    """Lay a layer on the array. Raises AccelsimError naming a buffer too small, and by how much."""
    check_mapping(arch, layer, mapping)
    builder = _Builder(arch, layer, mapping)
    pes = [builder.pe_program(index) for index in range(arch.pes)]
    weight_streams = _streams(
        [pe.weight_positions for pe in pes], lambda index: index // mapping.pixel_split, storage.weights
    )
    sharing = mapping.c_split * mapping.pixel_split if layer.geometry.groups == 1 else arch.pes
    input_streams = _streams([pe.input_positions for pe in pes], lambda index: index % sharing, storage.input)
    depth = arch.accumulation_collector_depth
    program = LayerProgram(
        layer,
        mapping,
        storage,
        depth,
        pes,
        weight_streams,
        input_streams,
        _tiles_ahead(arch, storage, weight_streams),
    )
    _check_tiles(arch, program)
    return program


class _Builder:
    def __init__(self, arch: Arch, layer: LayerSpec, mapping: Mapping) -> None:
        self.arch, self.layer, self.mapping = arch, layer, mapping
        self.units = units_of(arch, layer)
        self.parts = layer.parts(mapping.c_split)
        self.depth = tile_depth(arch, layer, mapping)
        self.weight_tiles: dict[tuple[int, int, int, int], WeightTile] = {}
        self.input_tiles: dict[tuple[int, int, int, int], InputTile] = {}

    def pe_program(self, index: int) -> PeProgram:
        mapping = self.mapping
        chain, pp = divmod(index, mapping.pixel_split)
        pk, pc = divmod(chain, mapping.c_split)
        if pk >= mapping.k_split:
            return PeProgram()
        units = split(len(self.units), mapping.k_split, pk)
        pixels = split(self.layer.geometry.pixels, mapping.pixel_split, pp)
        program = PeProgram()
        contexts: list[Context] = []
        for block, context in self._blocks(units, pixels, pc):
            program.blocks.append(block)
            contexts.append(context)
        program.weight_positions = _positions([b.weight_tile for b in program.blocks], contexts)
        program.input_positions = _positions([b.input_tile for b in program.blocks], contexts)
        return program

    def _blocks(self, units: range, pixels: range, pc: int) -> Iterator[tuple[Block, Context]]:
        size = self.mapping.tile_pixels
        unit_runs = self._unit_runs(units)
        pixel_runs = [range(p, min(p + size, pixels.stop)) for p in range(pixels.start, pixels.stop, size)]
        if self.mapping.order == "KP":
            nest = [(a, b, kt, pt) for a, kt in enumerate(unit_runs) for b, pt in enumerate(pixel_runs)]
        else:
            nest = [(b, a, kt, pt) for b, pt in enumerate(pixel_runs) for a, kt in enumerate(unit_runs)]
        for outer, inner, kt, pt in nest:
            for block, context in self._tile_blocks(kt, pt, pc):
                yield block, (outer, inner, *context)

    def _unit_runs(self, units: range) -> list[range]:
        length = max(1, self.mapping.units_per_tile)
        runs: list[range] = []
        for unit in units:
            open_run = runs[-1] if runs else range(0)
            if (
                len(open_run)
                and len(open_run) < length
                and self.units[open_run.start][0] == self.units[unit][0]
            ):
                runs[-1] = range(open_run.start, unit + 1)
            else:
                runs.append(range(unit, unit + 1))
        return runs

    def _chunks(self, pc: int) -> list[tuple[int, int]]:
        vectors = len(self.parts[pc])
        step = vectors if self.mapping.units_per_tile else self.mapping.chunk_vectors
        return [(g, min(g + step, vectors)) for g in range(0, vectors, step)]

    def _tile_blocks(self, kt: range, pt: range, pc: int) -> Iterator[tuple[Block, Context]]:
        depth, lanes, chunks = self.depth, self.arch.lanes, self._chunks(pc)
        whole = bool(self.mapping.units_per_tile)
        for u, unit in enumerate(kt):
            group, unit_k0, unit_k1 = self.units[unit]
            inputs = [self._input_tile(group, pt, pc, g0, g1) for g0, g1 in chunks]
            weights = [self._weight_tile(kt, unit_k0, unit_k1, pc, *chunks[0])] if whole else []
            lane_starts = range(unit_k0, unit_k1, lanes)
            for d, p0 in enumerate(range(pt.start, pt.stop, depth)):
                for lane_group, k0 in enumerate(lane_starts):
                    k1 = min(k0 + lanes, unit_k1)
                    for chunk, (g0, g1) in enumerate(chunks):
                        yield (
                            Block(
                                weight_tile=weights[0]
                                if whole
                                else self._weight_tile(kt, k0, k1, pc, g0, g1),
                                input_tile=inputs[chunk],
                                k0=k0,
                                k1=k1,
                                p0=p0,
                                p1=min(p0 + depth, pt.stop),
                                g0=g0,
                                g1=g1,
                                first=chunk == 0,
                                last=chunk == len(chunks) - 1,
                                lane_group=lane_group,
                                unit_k0=unit_k0,
                                unit_k1=unit_k1,
                                unit_lane_groups=len(lane_starts),
                            ),
                            (u, d, lane_group, chunk),
                        )

    def _weight_tile(self, kt: range, k0: int, k1: int, pc: int, g0: int, g1: int) -> WeightTile:
        half_words = g1 - g0
        if self.mapping.units_per_tile:
            k0, k1 = self.units[kt.start][1], self.units[kt.stop - 1][2]
            lane_groups = sum(-(-(b - a) // self.arch.lanes) for _, a, b in self.units[kt.start : kt.stop])
            half_words *= lane_groups
        key = (k0, k1, pc, g0)
        if key not in self.weight_tiles:
            self.weight_tiles[key] = WeightTile(self.layer, k0, k1, g0, g1, half_words)
        return self.weight_tiles[key]

    def _input_tile(self, group: int, pt: range, pc: int, g0: int, g1: int) -> InputTile:
        if not self.mapping.chunk_inputs:
            g0, g1 = 0, len(self.parts[pc])
        key = (group, pt.start, pc, g0)
        if key not in self.input_tiles:
            self.input_tiles[key] = InputTile(self.layer, group, pt.start, pt.stop, self.parts[pc], g0, g1)
        return self.input_tiles[key]


def _positions(tiles: list[Tile], contexts: list[Context]) -> list[Position]:
    """Merge equal neighbours; a tile still in the other half is kept and not fetched."""
    positions: list[Position] = []
    for index, (tile, context) in enumerate(zip(tiles, contexts, strict=True)):
        if positions and positions[-1].tile is tile:
            positions[-1].last = index
            continue
        fetched = len(positions) < 2 or positions[-2].tile is not tile
        positions.append(Position(tile, context, index, index, fetched))
    return positions


def _streams(positions: list[list[Position]], stream_of: Callable[[int], int], mode: Mode) -> list[Stream]:
    members: dict[int, list[int]] = {}
    for pe, own in enumerate(positions):
        if own:
            members.setdefault(stream_of(pe), []).append(pe)
    streams = []
    for number, pes in sorted(members.items()):
        wanted: dict[Context, Fetch] = {}
        for pe in pes:
            for index, position in enumerate(positions[pe]):
                if position.fetched:
                    fetch = wanted.setdefault(position.context, Fetch(position.tile, []))
                    fetch.destinations.append((pe, index))
        fetches = [wanted[context] for context in sorted(wanted)]
        _mark_dram_reads(fetches, mode)
        streams.append(Stream(number, pes[0], fetches))
    return streams


def _tiles_ahead(arch: Arch, storage: Storage, streams: list[Stream]) -> int:
    """How many tiles every weight stream can have in the global buffer, so that none waits for another."""
    if storage.weights == "cached":
        return sum(len(stream.fetches) for stream in streams)
    tiles = sum(max(fetch.tile.bits for fetch in stream.fetches) for stream in streams)
    return arch.weight_region_bits // tiles


def _mark_dram_reads(fetches: list[Fetch], mode: Mode) -> None:
    last: dict[int, Fetch] = {}
    known: set[int] = set()  # what of a cached input is in the global buffer already
    for fetch in fetches:
        tile = fetch.tile
        fetch.reads_dram = mode == "streamed" or (mode == "cached" and id(tile) not in last)
        last[id(tile)] = fetch
        if fetch.reads_dram:
            fetch.dram_bits = tile.bits if isinstance(tile, WeightTile) else tile.dram_bits
        if fetch.reads_dram and mode == "cached" and isinstance(tile, InputTile):
            fresh = set(tile.dram_items.tolist()) - known
            known |= fresh
            fetch.dram_bits = len(fresh) * tile.dram_item_bits
    for fetch in fetches:
        fetch.last_of_tile = mode == "streamed" or last[id(fetch.tile)] is fetch


def _check_tiles(arch: Arch, program: LayerProgram) -> None:
    name = program.layer.name
    weight_half, input_half = arch.weight_buffer_words // 2, arch.input_buffer_words // 2
    largest_input = largest_output = 0
    for stream in program.weight_streams:
        for fetch in stream.fetches:
            tile = fetch.tile
            assert isinstance(tile, WeightTile)
            if tile.half_words > weight_half:
                raise AccelsimError(
                    f"layer {name}: a weight tile takes {tile.half_words} words, "
                    f"expected at most {weight_half} (half of weight_buffer_words)"
                )
            if program.storage.weights != "gb" and tile.bits > arch.weight_region_bits:
                raise AccelsimError(
                    f"layer {name}: a weight tile takes {tile.bits} bits, expected at most the global "
                    f"buffer's weight region of {arch.weight_region_bits} bits (see global_buffer_kb)"
                )
    for stream in program.input_streams:
        for fetch in stream.fetches:
            tile = fetch.tile
            assert isinstance(tile, InputTile)
            if tile.macro_words > input_half:
                raise AccelsimError(
                    f"layer {name}: an input tile takes {tile.macro_words} words, "
                    f"expected at most {input_half} (half of input_buffer_words)"
                )
            largest_input = max(largest_input, tile.bits)
    staging = program.storage.kept_bits
    if program.storage.input == "streamed":
        staging += 2 * len(program.input_streams) * largest_input
    if program.storage.output_to_dram:
        for index, pe in enumerate(program.pes):
            for block in pe.blocks:
                if block.last and _makes_output(program.layer, block) and not program.sends_psums(index):
                    pixels = program.pieces(block)[0]
                    largest_output = max(largest_output, output_tile_bits(program.layer, block, pixels))
        staging += arch.output_staging_tiles * arch.pes * largest_output
    if staging > arch.activation_region_bits:
        raise AccelsimError(
            f"layer {name}: what it keeps in the global buffer and streams through it needs {staging} bits, "
            f"expected at most {arch.activation_region_bits} (its activation region; see global_buffer_kb, "
            "gb_weight_kb, output_staging_tiles)"
        )


def tile_depth(arch: Arch, layer: LayerSpec, mapping: Mapping) -> int:
    """Most pixels of a d-tile."""
    depth = timing.psum_store_pixels(arch, mapping.dataflow)
    return min(depth, arch.accumulation_collector_depth) if is_staged(arch, layer) else depth


def output_tile_bits(layer: LayerSpec, block: Block, pixels: int) -> int:
    """Bits of an output tile of so many pixels whose last block is `block`."""
    operand = layer.output_operand
    k0 = block.unit_k0 if operand.scale.bits else block.k0
    return pixels * operand.bits_of(block.k1 - k0)
