"""docs/program.md: positions, fetches and chains of a whole run, spelled out as lists."""

from __future__ import annotations

from dataclasses import dataclass, field

from accelsim.machine.arch import Arch
from accelsim.mapping.plan import LayerMapping
from accelsim.workload.graph import Graph
from accelsim.workload.layer import QuantizedLayer
from cycle_model.placement import Placement, RunPlacement, place_run, share
from cycle_model.sizes import (
    block_written,
    ceil_div,
    outputs_of,
    region_bits,
    words_of_block,
    words_of_position,
)
from cycle_model.steps import Work
from cycle_model.tiles import (
    Block,
    Formats,
    InputTile,
    Piece,
    WeightTile,
    blocks_of,
    input_stream,
    is_staged,
    output_tile_bits,
    place_of,
    weight_stream,
)


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
    asked: int | None = None  # the cycle
    in_buffer: bool = False  # what it reads of DRAM is in the global buffer
    ended: bool = False  # its crossbar transfer


@dataclass
class LayerProgram:
    index: int
    layer: QuantizedLayer
    mapping: LayerMapping
    placement: Placement
    work: tuple[Work, ...]
    streams: dict[str, dict[int, list[Fetch]]] = field(default_factory=dict)
    # Tiles of a weight stream between asking and the end of the crossbar transfer; None: any number.
    weight_prefetch_depth: int | None = 0
    outputs: dict[int, int] = field(default_factory=dict)  # output tiles of each PE
    leaving: dict[int, int] = field(default_factory=dict)  # output tiles and psum pieces of each PE
    # Of each output tile of each PE, the number of its first output.
    first_outputs: dict[int, list[int]] = field(default_factory=dict)

    @property
    def formats(self) -> Formats:
        return formats_of(self.layer, self.placement)


def formats_of(layer: QuantizedLayer, placement: Placement) -> Formats:
    """What the PPU writes; a placement by hand leaves it to the layer."""
    return placement.formats or (layer.output.operand,)


@dataclass
class Program:
    placed: RunPlacement
    layers: list[LayerProgram]
    blocks: list[list[Block]]  # of each PE, over all layers


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
    layer, mapping = program.layer, program.mapping
    by_stream: dict[int, dict[tuple, list[_Need]]] = {}
    for need in needs:
        place = place_of(mapping, need.pe)
        assert place is not None
        if operand == "weight":
            stream = weight_stream(mapping, place)
        else:
            stream = input_stream(layer, mapping, place, need.pe)
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


def _link_chain(mapping: LayerMapping, pieces: dict[int, list[Piece]]) -> None:
    """Tie the pieces of each PE of one layer to the same pieces in the next PE of its chain."""
    for pe, mine in pieces.items():
        place = place_of(mapping, pe)
        if place is None or place.pc == mapping.c_split - 1:
            continue
        for piece, after in zip(mine, pieces[pe + mapping.pixel_split], strict=True):
            assert piece.pixels == after.pixels and piece.tile.channels == after.tile.channels
            piece.after, after.before = after, piece


def _weight_prefetch_depth(arch: Arch, program: LayerProgram) -> int | None:
    if program.placement.weights == "cached":
        return None
    largest = [max(fetch.tile.bits for fetch in own) for own in program.streams["weight"].values()]
    return region_bits(arch)[0] // sum(largest)


def compile_run(
    arch: Arch, layers: list[QuantizedLayer], mappings: list[LayerMapping], graph: Graph | None = None
) -> Program:
    placed = place_run(arch, layers, graph)
    programs = [
        LayerProgram(i, layer, mapping, placement, work)
        for i, (layer, mapping, placement, work) in enumerate(
            zip(layers, mappings, placed.layers, placed.work, strict=True)
        )
    ]
    all_blocks: list[list[Block]] = [[] for _ in range(arch.pes)]
    for program in programs:
        pieces = {}
        for pe, blocks in enumerate(all_blocks):
            first_j = blocks[-1].psum_tile.number + 1 if blocks else 0
            mine = blocks_of(
                arch, program.index, program.layer, program.mapping, pe, first_j, program.formats
            )
            pieces[pe] = [piece for b in mine if b.last_chunk for piece in b.psum_tile.pieces]
            blocks += mine
        _link_chain(program.mapping, pieces)
        outputs = 0
        for pe, own in pieces.items():
            into_ppu = [piece for piece in own if piece.after is None]
            leaving = [piece for piece in into_ppu if not piece.tile.staged_away]
            program.outputs[pe] = len(leaving)
            program.leaving[pe] = len(leaving) + len(own) - len(into_ppu)
            program.first_outputs[pe] = []
            for piece in leaving:
                program.first_outputs[pe].append(outputs)
                outputs += len(piece.pixels) * piece.tile.output_channels
        assert outputs == outputs_of(program.layer)
    for operand in ("weight", "input"):
        found = [need for pe, blocks in enumerate(all_blocks) for need in _positions(pe, blocks, operand)]
        for program in programs:
            of_layer = [need for need in found if need.layer == program.index]
            program.streams[operand] = _streams(program, operand, of_layer)
    for program in programs:
        program.weight_prefetch_depth = _weight_prefetch_depth(arch, program)
    return Program(placed, programs, all_blocks)


def refusal(arch: Arch, layer: QuantizedLayer, mapping: LayerMapping, placement: Placement) -> str | None:
    """Why this mapping of a layer of a run is refused; None when it is not."""
    if mapping.dataflow not in arch.dataflows:
        return "the PEs cannot run the dataflow"
    if mapping.k_split * mapping.c_split * mapping.pixel_split > arch.pes:
        return "more parts than PEs"
    if mapping.c_split > 1 and not arch.psum_chain:
        return "a chain on a machine without psum adders"
    words = layer.spec.G if layer.spec.packed_im2col else words_of_position(layer)
    if mapping.units_per_tile == 0 and mapping.chunk_vectors % words_of_block(layer):
        return "a chunk cuts a block"
    if mapping.c_split > words // words_of_block(layer):
        return "a part of the reduction is empty"
    formats = formats_of(layer, placement)
    groups = ceil_div(block_written(arch, formats), arch.lanes) if is_staged(arch, formats) else 1
    if arch.accumulation_collector_depth * groups * len(formats) > arch.out_fifo_words:
        return "a drain does not fit the FIFO"
    weight_region, activation_region = region_bits(arch)
    largest_input = largest_output = most_outputs = 0
    streams = set()
    for pe in range(arch.pes):
        for block in blocks_of(arch, 0, layer, mapping, pe, 0, formats):
            if placement.weights != "gb" and block.weight_tile.bits > weight_region:
                return "weight tile exceeds the weight region"
            if block.weight_tile.macro_words > arch.weight_buffer_words // 2:
                return "weight tile exceeds half the weight buffer"
            if len(block.input_tile.words) > arch.input_buffer_words // 2:
                return "input tile exceeds half the input buffer"
            largest_input = max(largest_input, block.input_tile.bits)
            if not block.psum_tile.staged_away:
                piece = block.psum_tile.pieces[0]
                largest_output = max(largest_output, output_tile_bits(arch, formats, piece))
                most_outputs = max(most_outputs, len(piece.pixels) * piece.tile.output_channels)
            place = place_of(mapping, pe)
            assert place is not None
            # The tiles of a layer are not those of the layer before: every PE with work needs a fetch.
            streams.add(input_stream(layer, mapping, place, pe))
    staging = 0
    if placement.input == "streamed":
        staging += 2 * len(streams) * largest_input
    if placement.staged:
        beside = sum(share(stored, most_outputs, outputs_of(layer)) for stored in placement.beside_output)
        staging += arch.output_staging_tiles * arch.pes * (largest_output + beside)
    return "staging exceeds the activation region" if placement.kept + staging > activation_region else None
