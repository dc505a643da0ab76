"""The event model against the cycle-stepped model: small random runs must agree in every number.

The cycle-stepped model itself is held against plain numpy in the same runs; test_cycle_model.py and its
neighbours hold it against cases counted by hand.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from corners import see_features, see_graph, see_layer, see_machine, see_residuals
from cycle_model import LayerResult
from cycle_model.machine import Machine
from cycle_model.placement import Placing, place_run, placements_of
from cycle_model.program import Program
from cycle_model.sizes import layer_bits
from graphs import placed_layers
from hand_graph import chans, layer, node, step
from hand_machine import ONE_TILE, hand_arch, hand_layer
from machines import (
    Runs,
    describe,
    placed_by_mapping,
    random_run,
    simulate,
    with_gating,
)
from pick import pick

from accelsim.compute.activity import LayerActivity
from accelsim.machine.arch import Arch
from accelsim.mapping.plan import LayerMapping
from accelsim.workload.graph import Graph
from accelsim.workload.layer import QuantizedLayer

SEEDS, QUICK_SEEDS = 360, 160
BATCH = 20
BATCHES = [
    *range(0, QUICK_SEEDS, BATCH),
    *(pytest.param(first, marks=pytest.mark.slow) for first in range(QUICK_SEEDS, SEEDS, BATCH)),
]


def parts_of_reduction(layer: QuantizedLayer, parts: int) -> list[list[int]]:
    """The vectors of each part: of the words of a position, or of a packed im2col layer's vectors."""
    words = layer.spec.G if layer.spec.packed_im2col else layer.spec.words_per_position
    together = layer.spec.words_per_block
    part_of_word = np.concatenate(
        [np.full(len(a) * together, i) for i, a in enumerate(np.array_split(range(words // together), parts))]
    )
    return [[g for g in range(layer.spec.G) if part_of_word[g % words] == part] for part in range(parts)]


def reference_psums(arch: Arch, layer: QuantizedLayer, parts: int = 1) -> tuple[np.ndarray, int]:
    """docs/numerics.md on whole arrays, one g of one part at a time."""
    geometry, scheme = layer.geometry, layer.scheme
    width = arch.accumulator_width(scheme)
    low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
    overflows = 0

    def accumulate(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        nonlocal overflows
        exact = a + b
        overflows += int(((exact < low) | (exact > high)).sum())
        if arch.overflow == "wrap":
            return (exact - low) % (1 << width) + low
        return np.clip(exact, low, high)

    chain = None
    for vectors in parts_of_reduction(layer, parts):
        part = np.zeros((geometry.pixels, geometry.K), np.int64)
        for g in vectors:
            part = accumulate(part, products_of(arch, layer, g))
        chain = part if chain is None else accumulate(chain, part)
    assert chain is not None
    return chain, overflows


def products_of(arch: Arch, layer: QuantizedLayer, g: int) -> np.ndarray:
    """int64[pixels, K]: what vector g brings to every psum."""
    geometry, scheme = layer.geometry, layer.scheme
    products = np.zeros((geometry.pixels, geometry.K), np.int64)
    # Words of several blocks have a scale for each.
    blocks = layer.spec.blocks_per_word
    codes = np.concatenate([layer.input_words.astype(np.int64), np.zeros((1, layer.vector_size), np.int64)])
    codes = codes.reshape(len(codes), blocks, -1)
    scales = np.ones((len(codes), blocks), np.int64)
    if layer.input_scales is not None:
        scales[:-1] = layer.input_scales.reshape(-1, blocks)
    for group in range(geometry.groups):
        k = slice(group * geometry.outputs_per_group, (group + 1) * geometry.outputs_per_group)
        gather = layer.spec.gather(group, np.arange(geometry.pixels))
        weights = layer.weight_words[k, g].astype(np.int64).reshape(-1, blocks, codes.shape[2])
        for b in range(blocks):
            dot = codes[gather[:, g], b] @ weights[:, b].T
            scale = scales[gather[:, g], b][:, None]
            if layer.weight_scales is not None:
                scale = scale * layer.weight_scales[k, g].astype(np.int64).reshape(-1, blocks)[:, b]
            if scheme.scale_product_bits:
                shift = scheme.scale_product_shift
                scale = (scale + (1 << (shift - 1))) >> shift
                scale = np.minimum(scale, (1 << scheme.scale_product_bits) - 1)
            product = dot * scale
            if arch.product_shift:
                product = (product + (1 << (arch.product_shift - 1))) >> arch.product_shift
            products[:, k] += product
    return products


def check_counts(
    arch: Arch, layer: QuantizedLayer, mapping: LayerMapping, result: LayerResult, formats: int
) -> None:
    """What the counts of docs/counts.md must be whatever the order of events."""
    geometry, counts, dataflow = layer.geometry, result.counts, mapping.dataflow
    outputs = geometry.pixels * geometry.K
    steps = int(result.stall_cycles[:, 0].sum())
    follows = dataflow in ("os", "ws-los")  # the steps of a psum follow each other
    ops = counts["dot_product.op"] + counts["dot_product.op_changing"]
    assert counts["accumulator.add"] == outputs * layer.spec.G
    assert ops + counts["dot_product.gated"] == counts["accumulator.add"]
    assert counts["dot_product.op" if follows else "dot_product.op_changing"] == 0
    assert counts["pipeline_register.write"] == ops
    assert counts["local_accumulator.write"] == (steps if follows else 0)
    # Lane groups of all units times pixels: what one part of the reduction keeps.
    units = run_lengths(geometry.outputs_per_group, arch.unit_channels(layer.spec.written_block))
    entries = geometry.pixels * geometry.groups * sum(-(-channels // arch.lanes) for channels in units)
    assert steps == entries * layer.spec.G
    moved = entries * (mapping.c_split - 1)
    used, unused = "accumulation_collector", "accumulation_buffer"
    if dataflow in ("ws-los", "ws"):
        used, unused = unused, used
    assert counts[f"{unused}.read"] == counts[f"{unused}.write"] == 0
    # Every accumulation that goes through the store reads and writes, but the first of each psum only
    # writes; each entry is read once to leave, and each that arrives is read and written.
    own_writes = counts[f"{used}.write"] - moved
    leaves = entries * mapping.c_split
    assert counts[f"{used}.read"] == own_writes - leaves + moved + leaves
    if not follows:
        assert own_writes == steps
    elif dataflow == "os":
        chunk = mapping.chunk_vectors if mapping.units_per_tile == 0 else layer.spec.G
        chunks = sum(len(run_lengths(len(p), chunk)) for p in parts_of_reduction(layer, mapping.c_split))
        assert own_writes == entries * chunks
    else:
        assert entries * mapping.c_split <= own_writes <= steps
    assert counts["psum_adder.add"] == outputs * (mapping.c_split - 1)
    collects = dataflow == "ws-los"
    assert counts["weight_collector.read"] == (counts["accumulator.add"] if collects else 0)
    assert counts["weight_collector.write"] == (counts["weight_buffer.read"] if collects else 0)
    lane_writes = counts["accumulator.add"] if follows else counts["weight_buffer.read"]
    assert counts["weight_register.write"] == lane_writes
    if dataflow == "os":
        assert counts["weight_buffer.read"] == counts["accumulator.add"]
    assert counts["ppu.op"] == outputs * formats
    assert counts["out_fifo.write"] == counts["out_fifo.read"]
    assert counts["ppu_staging.write"] == counts["ppu_staging.read"]


def check_moved(program: Program, i: int, result: LayerResult) -> None:
    """What goes to DRAM and comes from there, whatever shares it goes in, and the global PE's elements."""
    own = program.layers[i]
    fetches = [fetch for by_stream in own.streams.values() for one in by_stream.values() for fetch in one]
    read = sum(fetch.dram_bits for fetch in fetches if fetch.reads_dram)
    read += sum(moved.stored for moved in own.placement.spilled)
    written = sum(moved.stored for moved in own.placement.written)
    works = list(own.work)
    if i == 0:
        for step in program.placed.prologue:
            read += sum(moved.stored for moved in step.reads)
            written += sum(moved.stored for moved in step.written)
            works.append(step.work)
    assert result.counts["dram.read_bit"] == read
    assert result.counts["dram.write_bit"] == written
    elements = sum(work.elements + work.written * (len(work.written_bits) - 1) for work in works)
    assert result.counts["global_pe.element"] == elements


def run_lengths(n: int, size: int) -> list[int]:
    """n cut into runs of `size`, the last shorter."""
    return [min(size, n - start) for start in range(0, n, size)]


def check_against_numpy(machine: Machine, mappings: list[LayerMapping], results: list[LayerResult]) -> None:
    """What must hold whatever the order of events: values, step counts, and stall reasons that fill every
    cycle."""
    program = machine.program
    for i, (own, mapping, result) in enumerate(zip(program.layers, mappings, results, strict=True)):
        psums, overflows = reference_psums(machine.arch, own.layer, mapping.c_split)
        np.testing.assert_array_equal(result.psums, psums)
        assert result.overflows == overflows
        assert (result.stall_cycles.sum(axis=1) == result.cycles).all()
        check_counts(machine.arch, own.layer, mapping, result, len(own.formats))
        check_moved(program, i, result)
    assert sum(result.cycles for result in results) == results[-1].end


def differences(stepped: list[LayerResult], events: list[LayerActivity]) -> list[str]:
    found = []
    for i, (a, b) in enumerate(zip(stepped, events, strict=True)):
        for name in ("cycles", "end", "overflows"):
            if getattr(a, name) != getattr(b, name):
                found.append(f"layer {i} {name}: stepped {getattr(a, name)}, event {getattr(b, name)}")
        for pe, (own, other) in enumerate(zip(a.stall_cycles.tolist(), b.stall_cycles.tolist(), strict=True)):
            if own != other:
                found.append(f"layer {i} PE {pe} stall cycles: {own}, {other}")
        for name in sorted(a.counts | b.counts):
            if a.counts[name] != b.counts[name]:
                found.append(f"layer {i} {name}: stepped {a.counts[name]}, event {b.counts[name]}")
        if not np.array_equal(a.psums, b.psums):
            found.append(f"layer {i}: {int((a.psums != b.psums).sum())} psums differ")
    return found


def test_where_data_live_agrees():
    """Runs of matmuls that are only placed, in more ways than the random runs have."""
    seen: Counter[str] = Counter()
    for seed in range(2500):
        rng = np.random.default_rng(seed)
        arch = hand_arch(
            pes=int(rng.integers(1, 4)),
            global_buffer_kb=1,
            gb_banks=int(rng.integers(4, 17)),
            gb_weight_banks=1,
            output_staging_tiles=int(rng.integers(1, 9)),
        )
        widths = [int(rng.integers(*pick(rng, (1, 13), (20, 33)))) for _ in range(int(rng.integers(2, 8)))]
        pixels = int(rng.integers(20, 41))
        layers = [
            hand_layer(
                pixels, c, k, weight_is_activation=i > 0 and bool(rng.random() < 0.5), name=f"layer{i}"
            )
            for i, (c, k) in enumerate(pairwise(widths))
        ]
        placements = placements_of(arch, layers)
        found = [(p.weights, p.input, bool(p.written), p.kept) for p in placements]
        assert found == placed_by_mapping(arch, layers), seed
        placing = Placing(arch, layers, None)
        residents = placing.best()
        placing.heavy = [False] * len(layers)
        seen["twice decides"] += placing.best() != residents
        for placement in placements:
            seen[f"weights {placement.weights}"] += 1
            seen[f"input {placement.input}, output to DRAM {bool(placement.written)}"] += 1
    assert len(seen) == 9 and min(seen.values()) > 10, seen


def test_where_data_live_agrees_on_graphs():
    """Inputs of the graph have any number of channels, and the host reads the first of them."""
    only_host: Counter[str | None] = Counter()
    for seed in range(600):
        arch, layers, graph = placed_layers(seed)
        rng = np.random.default_rng([seed, 1])
        inputs = tuple((name, (n, int(rng.integers(1, 65)), h, w)) for name, (n, _, h, w) in graph.inputs)
        first, shape = inputs[0]
        steps = (*graph.steps, node("far", "gelu", first, shape=shape, unit="none"))
        graph = Graph(inputs, steps, (*graph.outputs, "far"))
        residual = pick(rng, None, None, "6/-", "4/4")
        arch = arch.model_copy(update={"residual": residual})
        placed = place_run(arch, layers, graph)
        found = [(p.weights, p.input, bool(p.written), p.kept) for p in placed.layers]
        assert found == placed_by_mapping(arch, layers, graph), seed
        if any(first in names for names in placed.residents):
            own, readers = placed.tensors[first], [s for s in placed.steps if s.reads(first)]
            taken = [layer_bits(layers[s.layer])[0] for s in readers if s.layer is not None]
            others = any(first in s.operands for s in readers)
            only_host[residual] += not others and own.size == own.stored > max(taken)
    assert len(only_host) == 3 and min(only_host.values()) > 1, only_host


def test_what_the_host_reads_counts_in_the_size_of_an_input():
    """x has 24 channels; a and b read 4. It stays for b where it takes the room of 4, not of 24."""
    layers = [layer("a", 4, 4), layer("b", 4, 4)]
    arch, mappings = hand_arch(global_buffer_kb=1), [ONE_TILE] * 2
    for far, later in (("a", 0), ("x", 32 * 4 * 8)):
        steps = (step("a", "x"), step("b", "x"), node("far", "gelu", far, shape=chans(4), unit="none"))
        graph = Graph((("x", chans(24)),), steps, ("b",))
        stepped = Machine(arch, layers, mappings, graph).run()
        assert [r.counts["dram.read_bit"] for r in stepped] == [32 * 4 * 8 + 128, later + 128]
        assert not differences(stepped, simulate(arch, layers, mappings, graph))


CORNERS: dict[tuple[int, Runs], Counter[str]] = {}  # that runs have been in


def see_corners(seed: int, features: Runs, machine: Machine) -> None:
    seen = CORNERS[seed, features] = Counter()
    see_machine(seen, machine)
    for program in machine.layers:
        see_layer(seen, machine, program)
        if features != "plain":
            see_features(seen, machine, program)
    if features == "graph":
        see_graph(seen, machine)
    if features == "residual":
        see_residuals(seen, machine)


@pytest.mark.parametrize("features", ["plain", "all", "graph", "residual"])
@pytest.mark.parametrize("first", BATCHES)
def test_numpy_the_cycle_model_and_the_event_model_agree(first: int, features: Runs):
    for seed in range(first, first + BATCH):
        arch, layers, mappings, graph = random_run(seed, features)
        machine = Machine(arch, layers, mappings, graph)
        see_corners(seed, features, machine)
        try:
            stepped = machine.run()
            check_against_numpy(machine, mappings, stepped)
            found = differences(stepped, simulate(arch, layers, mappings, graph))
            assert not found, "\n".join(found)
        except Exception as error:
            error.add_note(f"seed {seed} {features}\n{describe(arch, layers, mappings, graph)}")
            raise


@pytest.mark.parametrize(
    "first, count",
    [(0, 8), *(pytest.param(first, BATCH, marks=pytest.mark.slow) for first in range(0, 200, BATCH))],
)
def test_models_agree_on_blocks_that_are_no_words(first: int, count: int):
    """Blocks of several words, which share a scale, and words of several blocks."""
    seen: Counter[str] = Counter()
    for seed in range(first, first + count):
        arch, layers, mappings, _ = random_run(seed, "blocks")
        try:
            machine = Machine(arch, layers, mappings)
            stepped = machine.run()
            check_against_numpy(machine, mappings, stepped)
            found = differences(stepped, simulate(arch, layers, mappings))
            assert not found, "\n".join(found)
        except Exception as error:
            error.add_note(f"seed {seed}\n{describe(arch, layers, mappings)}")
            raise
        for own, mapping in zip([drawn.spec for drawn in layers], mappings, strict=True):
            seen["larger"] += own.words_per_block > 1
            seen["smaller"] += own.blocks_per_word > 1
            seen["staged"] += own.written_block > max(arch.lanes, arch.vector_size)
            seen["chains"] += mapping.c_split > 1 and own.words_per_block > 1
            seen["chunks"] += 0 < mapping.chunk_vectors < own.G and own.words_per_block > 1
    assert len(seen) == 5 and (count < BATCH or (seen["larger"] and seen["smaller"])), seen


@pytest.mark.parametrize("features", ["plain", "all"])
def test_gating_changes_counts_alone_and_both_models_agree_on_them(features: Runs):
    """Psums and cycles are those of the machine that gates nothing; what it does not count is gated."""
    seen: Counter[str] = Counter()
    for seed in range(120 if features == "plain" else SEEDS):
        arch, layers, mappings, _ = random_run(seed, features)
        gating = with_gating(arch, seed)
        if gating is None:
            continue
        try:
            stepped = Machine(gating, layers, mappings).run()
            events = simulate(gating, layers, mappings)
            found = differences(stepped, events)
            assert not found, "\n".join(found)
            plain = simulate(gating.model_copy(update={"gate_on_scale_product": "none"}), layers, mappings)
            for own, other, mapping in zip(events, plain, mappings, strict=True):
                assert own.cycles == other.cycles and np.array_equal(own.psums, other.psums)
                changed = {
                    name for name in own.counts | other.counts if own.counts[name] != other.counts[name]
                }
                seen.update(changed)
                seen["chains"] += mapping.c_split > 1
        except Exception as error:
            error.add_note(f"seed {seed} {features}\n{describe(gating, layers, mappings)}")
            raise
    assert set(seen) - {"chains"} == {
        "accumulation_collector.psum_read",
        "accumulation_collector.psum_write",
        "accumulation_collector.read",
        "accumulation_collector.write",
        "accumulator.add",
        "dot_product.gated",
        "dot_product.op",
        "operand_register.write",
        "pipeline_register.write",
        "scale_multiply.op",
        "scale_product.op",
    }
    assert features == "plain" or seen["chains"] > 10


@pytest.mark.slow
@pytest.mark.parametrize("features", ["plain", "all", "graph", "residual"])
def test_the_random_runs_reach_every_corner(features: Runs):
    """Agreement means little in corners that no seed visits."""
    seen: Counter[str] = Counter()
    for seed in range(SEEDS):
        if (seed, features) not in CORNERS:
            see_corners(seed, features, Machine(*random_run(seed, features)))
        seen += CORNERS[seed, features]
    rare = {name: count for name, count in seen.items() if count < 4}
    assert not rare
