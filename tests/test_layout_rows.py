"""The layout, row by row, against the cycle-stepped model's own, which is made of lists."""

from __future__ import annotations

import numpy as np
import pytest
from cycle_model.hops import hops_into
from cycle_model.pe import ppu_steps
from cycle_model.program import Fetch, LayerProgram, compile_run
from cycle_model.tiles import Block, output_tile_bits, vectors_of_part
from machines import Runs, describe, random_run, specs_of

from accelsim.machine.arch import Arch
from accelsim.mapping.layout.blocks import input_reads
from accelsim.mapping.layout.build import Refused, lay_out
from accelsim.mapping.layout.program import build_program
from accelsim.mapping.layout.records import NO_READ, Layout, Shape, Tiling
from accelsim.mapping.layout.shape import shape_of, taps_of, tiling_of
from accelsim.mapping.plan import LayerMapping
from accelsim.mapping.residency import Residency, decide_run
from accelsim.workload.graph import Graph
from accelsim.workload.layer import LayerSpec, QuantizedLayer

BATCH = 30


def rows_of(
    arch: Arch, layer: LayerSpec, mapping: LayerMapping, residency: Residency
) -> tuple[Layout | Refused, Shape, Tiling]:
    shape, tiling = shape_of(arch, layer, mapping, residency), tiling_of(layer, mapping)
    return lay_out(shape, tiling, taps_of(layer.geometry)), shape, tiling


class Numbers:
    """Which key of one model goes with which number of the other: one to one."""

    def __init__(self) -> None:
        self.number: dict[tuple, int] = {}
        self.key: dict[int, tuple] = {}

    def check(self, key: tuple, number: int) -> None:
        assert self.number.setdefault(key, number) == number
        assert self.key.setdefault(number, key) == key


def check_blocks(
    arch: Arch, program: LayerProgram, blocks: list[list[Block]], layout: Layout, shape: Shape, tiling: Tiling
) -> None:
    """Every block of every PE, with its tiles, its positions and what its psum tile leaves as."""
    layer, mapping = program.layer, program.mapping
    reads = input_reads(shape, tiling, taps_of(layer.geometry), layout.blocks, layout.input_tiles)
    weight_tiles = Numbers()
    for pe, own in enumerate(blocks):
        # With several groups each PE has a stream of its own, and tiles of one group are one row in all.
        input_tiles = Numbers()
        at, end = layout.pes[pe]["block"], layout.pes[pe + 1]["block"]
        assert end - at == len(own)
        if not own:
            continue
        part = pe // mapping.pixel_split % mapping.c_split
        vectors = vectors_of_part(layer, mapping.c_split, part)
        first_tile, piece = own[0].psum_tile.number, 0
        sends = part < mapping.c_split - 1
        for number, (block, row) in enumerate(zip(own, layout.blocks[at:end], strict=True)):
            tile = block.psum_tile
            assert list(range(row["p0"], row["p0"] + row["pixels"])) == tile.pixels
            assert tuple(range(row["k0"], row["k0"] + row["lanes"])) == tile.channels
            assert tuple(vectors[row["g0"] : row["g0"] + row["vectors"]]) == block.vectors
            assert (row["first"], row["last"]) == (block.first_chunk, block.last_chunk)
            gathered = layer.spec.gather(block.group, np.array(tile.pixels))[:, list(block.vectors)]
            assert reads[at + number] == (gathered >= 0).sum()
            check_tiles(block, row, layout, shape, weight_tiles, input_tiles)
            check_positions(pe, own, number, row, at, layout)
            if block.last_chunk:
                j = layout.pes[pe]["psum_tile"] + tile.number - first_tile
                assert tuple(layout.psum_tiles[j]) == (at + number, piece)
                piece += len(tile.pieces)
                if not sends:
                    made = 0 if tile.staged_away else tile.output_channels
                    assert (row["fifo_entries"], row["values"]) == (tile.fifo_entries, made)
                    steps = ppu_steps(arch, tile.pieces[0])
                    assert row["spacing"] * len(tile.pieces[0].pixels) == len(steps)
                    last_read = max(i for i, step in enumerate(steps) if step.takes_psums)
                    assert row["after_read"] == len(steps) - 1 - last_read
                    for leaves in tile.pieces:
                        bits = output_tile_bits(arch, program.formats, leaves) if made else 0
                        assert row["output_bits"] * len(leaves.pixels) == bits
        assert layout.pes[pe + 1]["psum_tile"] - layout.pes[pe]["psum_tile"] == tile.number - first_tile + 1
        assert layout.pes[pe + 1]["piece"] - layout.pes[pe]["piece"] == piece
    assert layout.outputs == sum(program.outputs.values())


def check_tiles(
    block: Block, row: np.void, layout: Layout, shape: Shape, weight_tiles: Numbers, input_tiles: Numbers
) -> None:
    weight_tiles.check(block.weight_tile.key, row["weight_tile"])
    input_tiles.check(block.input_tile.key, row["input_tile"])
    weights = layout.weight_tiles[row["weight_tile"]]
    assert weights["words"] == len(block.weight_tile.words)
    assert weights["words"] // shape.run * shape.weight_bits == block.weight_tile.bits
    assert weights["half_words"] == block.weight_tile.macro_words
    channels = [k for lanes in block.weight_tile.lane_groups for k in lanes]
    assert list(range(weights["k0"], weights["k1"])) == channels
    assert weights["g1"] - weights["g0"] == len(block.weight_tile.vectors)
    inputs = layout.input_tiles[row["input_tile"] % len(layout.input_tiles)]
    assert row["input_tile"] // len(layout.input_tiles) == block.group
    assert inputs["words"] == len(block.input_tile.words)
    assert inputs["words"] // shape.run * shape.input_bits == block.input_tile.bits
    assert inputs["dram_bits"] == len(block.input_tile.stored) * block.input_tile.stored_bits


def check_positions(
    pe: int, own: list[Block], number: int, row: np.void, first_block: int, layout: Layout
) -> None:
    for operand in ("weight", "input"):
        position = layout.positions[row[f"{operand}_position"]]
        at = row[f"{operand}_position"] - layout.pes[pe][f"{operand}_position"]
        assert position["pe"] == pe and position["number"] == at
        # The cycle-stepped model numbers the positions of a whole run.
        assert at == getattr(own[number], f"{operand}_position") - getattr(own[0], f"{operand}_position")
        assert position["tile"] == row[f"{operand}_tile"]
        assert position["first"] <= first_block + number <= position["last"]
        last = position["last"] == first_block + number
        assert last == getattr(own[number], f"releases_{operand}")


def check_fetches(arch: Arch, program: LayerProgram, blocks: list[list[Block]], layout: Layout) -> None:
    """Every fetch of every stream: its destinations, its bits, where they come from and how far they go."""
    weight_banks, input_banks, _ = arch.bank_groups
    first = {
        operand: [getattr(own[0], f"{operand}_position") if own else 0 for own in blocks]
        for operand in ("weight", "input")
    }
    found: dict[str, dict[int, list[Fetch]]] = {"weight": {}, "input": {}}
    for row, stream in enumerate(layout.streams):
        operand = "weight" if row < layout.weight_streams else "input"
        if stream["first"] == stream["stop"]:
            continue
        fetches = program.streams[operand][int(stream["number"])]
        found[operand][int(stream["number"])] = fetches
        assert stream["leader"] == fetches[0].leader
        base, banks = (0, weight_banks) if operand == "weight" else (weight_banks, input_banks)
        assert stream["bank"] == base + stream["number"] % banks
        mode = program.placement.weights if operand == "weight" else program.placement.input
        own = layout.fetches[stream["first"] : stream["stop"]]
        for index, (fetch, held) in enumerate(zip(fetches, own, strict=True)):
            assert held["stream"] == row and held["order"] & 0xFFFFFFFF == index
            places = layout.positions[layout.destinations[held["first"] : held["stop"]]]
            to = {int(place["pe"]): int(place["number"]) for place in places}
            assert to == {pe: at - first[operand][pe] for pe, at in fetch.positions.items()}
            assert held["bits"] == fetch.tile.bits
            assert (places["tile"] == held["tile"]).all() and (places["fetched"] == 1).all()
            assert held["dram_bits"] == (fetch.dram_bits if fetch.reads_dram else NO_READ)
            assert held["hops"] == hops_into(arch, list(fetch.positions))
            gives_back = mode == "streamed" or (mode == "cached" and fetch.last_of_tile)
            assert held["space"] == (fetch.tile.bits if operand == "weight" and gives_back else 0)
    assert found == program.streams
    assert layout.positions["fetched"].sum() == len(layout.destinations)
    if program.weight_prefetch_depth is not None:
        assert layout.weight_prefetch_depth == program.weight_prefetch_depth
    else:
        assert layout.weight_prefetch_depth >= max(map(len, program.streams["weight"].values()))


def check_program(
    arch: Arch, layer: LayerSpec, mapping: LayerMapping, residency: Residency, layout: Layout
) -> None:
    """The objects that the event model walks are those rows."""
    program = build_program(arch, layer, mapping, residency)
    blocks = [block for pe in program.pes for block in pe.blocks]
    for block, row in zip(blocks, layout.blocks, strict=True):
        assert (block.p0, block.p1) == (row["p0"], row["p0"] + row["pixels"])
        assert (block.g0, block.g1) == (row["g0"], row["g0"] + row["vectors"])
        assert (block.k0, block.k1, block.lanes) == (row["k0"], row["k0"] + row["lanes"], row["lanes"])
        assert (block.first, block.last, block.lane_group) == (row["first"], row["last"], row["lane_group"])
        assert block.unit_k0 == row["k0"] + row["lanes"] - row["channels"]
        leaves = block.spacing, block.after_read, block.fifo_entries, block.values, block.output_bits
        names = ["spacing", "after_read", "fifo_entries", "values", "output_bits"]
        assert leaves == tuple(row[names])
        inputs = layout.input_tiles[row["input_tile"] % len(layout.input_tiles)]
        assert len(block.input_tile.word_index) == inputs["words"] == block.input_tile.macro_words
    for operand in ("weight", "input"):
        positions = [p for pe in program.pes for p in getattr(pe, f"{operand}_positions")]
        begin, end = (layout.pes[pe][f"{operand}_position"] for pe in (0, -1))
        for position, row in zip(positions, layout.positions[begin:end], strict=True):
            before = layout.pes[row["pe"]]["block"]
            own = program.pes[row["pe"]].blocks[position.first]
            assert (position.first, position.last) == (row["first"] - before, row["last"] - before)
            assert position.fetched == row["fetched"] and position.tile is getattr(own, f"{operand}_tile")
    streams = [*program.weight_streams, *program.input_streams]
    used = layout.streams[layout.streams["first"] < layout.streams["stop"]]
    assert [(s.number, s.leader, s.bank) for s in streams] == used[["number", "leader", "bank"]].tolist()
    fetches = [fetch for stream in streams for fetch in stream.fetches]
    for fetch, row in zip(fetches, layout.fetches, strict=True):
        assert (fetch.space, fetch.hops, fetch.tile.bits) == (row["space"], row["hops"], row["bits"])
        assert fetch.reads_dram == (row["dram_bits"] != NO_READ)
        assert fetch.dram_bits == max(0, row["dram_bits"])
        to = layout.positions[layout.destinations[row["first"] : row["stop"]]]
        assert fetch.destinations == to[["pe", "number"]].tolist()


def check_run(
    arch: Arch, layers: list[QuantizedLayer], mappings: list[LayerMapping], graph: Graph | None
) -> None:
    run = compile_run(arch, layers, mappings, graph)
    specs, wiring = specs_of(arch, layers, graph)
    for program, residency in zip(run.layers, decide_run(arch, specs, wiring).layers, strict=True):
        blocks = [[block for block in own if block.layer == program.index] for own in run.blocks]
        layout, shape, tiling = rows_of(arch, program.layer.spec, program.mapping, residency)
        assert isinstance(layout, Layout)
        check_blocks(arch, program, blocks, layout, shape, tiling)
        check_fetches(arch, program, blocks, layout)
        check_program(arch, program.layer.spec, program.mapping, residency, layout)


@pytest.mark.parametrize("features", ["plain", "all", "graph"])
@pytest.mark.parametrize("first", range(0, 120, BATCH))
def test_rows_are_the_lists_of_the_cycle_stepped_model(first: int, features: Runs) -> None:
    for seed in range(first, first + BATCH):
        arch, layers, mappings, graph = random_run(seed, features)
        try:
            check_run(arch, layers, mappings, graph)
        except AssertionError as error:
            raise AssertionError(
                f"seed {seed} {features}\n{describe(arch, layers, mappings, graph)}"
            ) from error
