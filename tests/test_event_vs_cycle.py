"""The event model against the cycle-stepped model: small random runs must agree in every number.

The first tests hold the cycle-stepped model itself against plain numpy; test_cycle_model.py and
test_cycle_model_storage.py hold it against cases counted by hand.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from cycle_model import LayerResult, run
from cycle_model.machine import Machine
from cycle_model.placement import Placement, RunSizes, placements_of, region_bits
from cycle_model.program import LayerProgram
from hand_machine import hand_arch, hand_layer
from machines import Features, describe, pick, random_run, simulate

from accelsim.machine.arch import Arch
from accelsim.mapping.plan import Mapping
from accelsim.mapping.residency import decide_storage
from accelsim.workload.layer import QuantizedLayer

SEEDS = 360
BATCH = 20


def parts_of_reduction(layer: QuantizedLayer, parts: int) -> list[list[int]]:
    """The vectors of each part: of the words of a position, or of a folded layer's vectors."""
    words = layer.spec.G if layer.spec.folded else layer.spec.words_per_position
    part_of_word = np.concatenate(
        [np.full(len(a), i) for i, a in enumerate(np.array_split(range(words), parts))]
    )
    return [[g for g in range(layer.spec.G) if part_of_word[g % words] == part] for part in range(parts)]


def reference_psums(arch: Arch, layer: QuantizedLayer, parts: int = 1) -> tuple[np.ndarray, int]:
    """Section 2 of docs/machine.md on whole arrays, one g of one part at a time."""
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
    codes = np.concatenate([layer.input_words.astype(np.int64), np.zeros((1, layer.vector_size), np.int64)])
    scales = np.ones(len(codes), np.int64)
    if layer.input_scales is not None:
        scales[:-1] = layer.input_scales
    for group in range(geometry.groups):
        k = slice(group * geometry.outputs_per_group, (group + 1) * geometry.outputs_per_group)
        gather = layer.spec.gather(group, np.arange(geometry.pixels))
        dot = codes[gather[:, g]] @ layer.weight_words[k, g].astype(np.int64).T
        scale = scales[gather[:, g]][:, None]
        if layer.weight_scales is not None:
            scale = scale * layer.weight_scales[k, g].astype(np.int64)
        if scheme.scale_product_bits:
            shift = scheme.scale_product_shift
            scale = (scale + (1 << (shift - 1))) >> shift
            scale = np.minimum(scale, (1 << scheme.scale_product_bits) - 1)
        products[:, k] = dot * scale
    if arch.product_shift:
        products = (products + (1 << (arch.product_shift - 1))) >> arch.product_shift
    return products


def check_counts(arch: Arch, layer: QuantizedLayer, mapping: Mapping, result: LayerResult, text: str) -> None:
    """What the counts of section 6 must be whatever the order of events."""
    geometry, counts, dataflow = layer.geometry, result.counts, mapping.dataflow
    outputs = geometry.pixels * geometry.K
    steps = int(result.buckets[:, 0].sum())
    follows = dataflow in ("os", "ws-los")  # the steps of a psum follow each other
    ops = counts["dot_product.op"] + counts["dot_product.op_changing"]
    assert counts["accumulator.add"] == outputs * layer.spec.G, text
    assert ops + counts["dot_product.gated"] == counts["accumulator.add"], text
    assert counts["dot_product.op" if follows else "dot_product.op_changing"] == 0, text
    assert counts["pipeline_register.write"] == ops, text
    assert counts["local_accumulator.write"] == (steps if follows else 0), text
    # Lane groups of all units times pixels: what one part of the reduction keeps.
    units = run_lengths(geometry.outputs_per_group, arch.unit_channels)
    entries = geometry.pixels * geometry.groups * sum(-(-channels // arch.lanes) for channels in units)
    assert steps == entries * layer.spec.G, text
    moved = entries * (mapping.c_split - 1)
    used, unused = "accumulation_collector", "accumulation_buffer"
    if dataflow in ("ws-los", "ws"):
        used, unused = unused, used
    assert counts[f"{unused}.read"] == counts[f"{unused}.write"] == 0, text
    # Every accumulation that goes through the storage reads and writes, but the first of each psum only
    # writes; each entry is read once to leave, and each that arrives is read and written.
    own_writes = counts[f"{used}.write"] - moved
    leaves = entries * mapping.c_split
    assert counts[f"{used}.read"] == own_writes - leaves + moved + leaves, text
    if not follows:
        assert own_writes == steps, text
    elif dataflow == "os":
        chunk = mapping.chunk_vectors if mapping.units_per_tile == 0 else layer.spec.G
        chunks = sum(len(run_lengths(len(p), chunk)) for p in parts_of_reduction(layer, mapping.c_split))
        assert own_writes == entries * chunks, text
    else:
        assert entries * mapping.c_split <= own_writes <= steps, text
    assert counts["psum_adder.add"] == outputs * (mapping.c_split - 1), text
    collects = dataflow == "ws-los"
    assert counts["weight_collector.read"] == (counts["accumulator.add"] if collects else 0), text
    assert counts["weight_collector.write"] == (counts["weight_buffer.read"] if collects else 0), text
    lane_writes = counts["accumulator.add"] if follows else counts["weight_buffer.read"]
    assert counts["weight_register.write"] == lane_writes, text
    if dataflow == "os":
        assert counts["weight_buffer.read"] == counts["accumulator.add"], text
    assert counts["ppu.op"] == outputs, text
    assert counts["out_fifo.write"] == counts["out_fifo.read"], text
    assert counts["ppu_staging.write"] == counts["ppu_staging.read"], text


def run_lengths(n: int, size: int) -> list[int]:
    """n cut into runs of `size`, the last shorter."""
    return [min(size, n - start) for start in range(0, n, size)]


@pytest.mark.parametrize("features", ["plain", "all"])
@pytest.mark.parametrize("first", range(1000, 1060, BATCH))
def test_cycle_model_against_numpy(first: int, features: Features):
    """What must hold whatever the order of events: values, step counts, and buckets that fill every cycle."""
    for seed in range(first, first + (BATCH if features == "plain" else 3 * BATCH)):
        arch, layers, mappings = random_run(seed, features)
        results = run(arch, layers, mappings)
        for layer, mapping, result in zip(layers, mappings, results, strict=True):
            text = f"seed {seed}\n{describe(arch, layers, mappings)}"
            psums, overflows = reference_psums(arch, layer, mapping.c_split)
            np.testing.assert_array_equal(result.psums, psums, err_msg=text)
            assert result.overflows == overflows, text
            assert (result.buckets.sum(axis=1) == result.cycles).all(), text
            check_counts(arch, layer, mapping, result, text)
        assert sum(result.cycles for result in results) == results[-1].end


def differences(seed: int, features: Features) -> list[str]:
    arch, layers, mappings = random_run(seed, features)
    stepped, events = run(arch, layers, mappings), simulate(arch, layers, mappings)
    found = []
    for i, (a, b) in enumerate(zip(stepped, events, strict=True)):
        for name in ("cycles", "end", "overflows"):
            if getattr(a, name) != getattr(b, name):
                found.append(f"layer {i} {name}: stepped {getattr(a, name)}, event {getattr(b, name)}")
        for pe in range(arch.pes):
            if a.buckets[pe].tolist() != b.buckets[pe].tolist():
                found.append(f"layer {i} PE {pe} buckets: {a.buckets[pe].tolist()}, {b.buckets[pe].tolist()}")
        for name in sorted(a.counts | b.counts):
            if a.counts[name] != b.counts[name]:
                found.append(f"layer {i} {name}: stepped {a.counts[name]}, event {b.counts[name]}")
        if not np.array_equal(a.psums, b.psums):
            found.append(f"layer {i}: {int((a.psums != b.psums).sum())} psums differ")
    if found:
        found = [f"seed {seed} {features}", *found, describe(arch, layers, mappings)]
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
            hand_layer(pixels, c, k, weight_is_activation=i > 0 and bool(rng.random() < 0.5))
            for i, (c, k) in enumerate(pairwise(widths))
        ]
        placements = placements_of(arch, layers)
        storages = decide_storage(arch, [layer.spec for layer in layers])
        found = [Placement(s.weights, s.input, s.output_to_dram, s.kept_bits) for s in storages]
        assert placements == found, seed
        places = RunSizes(arch, layers)
        stays = places.stays()
        places.heavy = [False] * len(layers)
        seen["twice decides"] += places.stays() != stays
        for placement in placements:
            seen[f"weights {placement.weights}"] += 1
            seen[f"input {placement.input}, output to DRAM {placement.output_to_dram}"] += 1
    assert len(seen) == 10 and min(seen.values()) > 10, seen


@pytest.mark.parametrize("features", ["plain", "all"])
@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_event_model_agrees(first: int, features: Features):
    for seed in range(first, first + BATCH):
        found = differences(seed, features)
        assert not found, "\n".join(found)


@pytest.mark.parametrize("features", ["plain", "all"])
def test_the_random_runs_reach_every_corner(features: Features):
    """Agreement means little in corners that no seed visits."""
    seen: Counter[str] = Counter()
    for seed in range(SEEDS):
        arch, layers, mappings = random_run(seed, features)
        machine = Machine(arch, layers, mappings)
        seen[f"{len(layers)} layers"] += 1
        seen["fifo of one d-tile"] += arch.out_fifo_words == arch.accumulation_collector_depth
        seen["V > L"] += arch.vector_size > arch.lanes
        seen["V < L"] += arch.vector_size < arch.lanes
        seen["D = 1"] += arch.accumulation_collector_depth == 1
        seen[f"accumulate latency {arch.accumulate_latency}"] += 1
        for program in machine.layers:
            see_layer(seen, machine, program)
            if features == "all":
                see_features(seen, machine, program)
    rare = {name: count for name, count in seen.items() if count < 4}
    assert not rare


def see_layer(seen: Counter[str], machine: Machine, program: LayerProgram) -> None:
    layer, mapping, place = program.layer, program.mapping, program.placement
    seen["groups"] += layer.geometry.groups > 1
    seen["folded"] += layer.spec.folded
    rows = {work.op in ("softmax", "layer_norm") for work in layer.spec.global_pe}
    seen["streaming and row work"] += len(rows) == 2
    seen[f"order {mapping.order}"] += 1
    chunked = mapping.units_per_tile == 0 and mapping.chunk_vectors < layer.spec.G
    seen["chunked"] += chunked and not mapping.chunk_inputs
    seen["chunked with inputs"] += chunked and mapping.chunk_inputs
    seen["folded, chunked with inputs"] += chunked and mapping.chunk_inputs and layer.spec.folded
    seen["several units a tile"] += mapping.units_per_tile > 1
    ahead = ""
    if place.weights == "streamed":
        assert program.weights_ahead is not None
        ahead = ", 3 or more ahead" if program.weights_ahead > 2 else f", {program.weights_ahead} ahead"
    seen[f"weights {place.weights}{ahead}"] += 1
    seen[f"{machine.arch.output_staging_tiles} staging tiles"] += place.output_to_dram
    after = "goes to DRAM" if place.output_to_dram else "stays"
    seen[f"input {place.input}, output {after}"] += 1
    seen["a tensor between layers in DRAM"] += program.index > 0 and place.input != "gb"
    seen["weights of a later layer from DRAM"] += program.index > 0 and place.weights != "gb"
    for operand, streams in program.streams.items():
        fetches = [fetch for stream in streams.values() for fetch in stream]
        seen[f"{operand} multicast"] += any(len(fetch.positions) > 1 for fetch in fetches)
        if operand == "weight" and place.weights != "gb":
            longest, limit = max(map(len, streams.values())), program.weights_ahead
            seen[f"weights {place.weights}{ahead}, a stream of more"] += limit is None or longest > limit
        tiles = {fetch.tile.key for fetch in fetches}
        seen[f"{operand} sent again"] += len(fetches) > len(tiles)
        if operand == "input":
            seen["input tile without words"] += any(fetch.tile.bits == 0 for fetch in fetches)
    blocks = [b for own in machine.program.blocks for b in own if b.layer == program.index]
    seen["staged"] += any(block.psum_tile.staged_away for block in blocks)
    seen["staged, partial unit"] += len({block.psum_tile.gathers for block in blocks}) > 2
    seen["PE without work"] += 0 in program.leaving.values()


def see_features(seen: Counter[str], machine: Machine, program: LayerProgram) -> None:
    """The corners of chains, dataflows and bank groups."""
    arch, layer, mapping = machine.arch, program.layer, program.mapping
    dataflow, parts = mapping.dataflow, mapping.c_split
    own = [[b for b in blocks if b.layer == program.index] for blocks in machine.program.blocks]
    blocks = [block for mine in own for block in mine]
    tiles = {block.psum_tile for block in blocks}
    chunks = max(block.context[-1] for block in blocks) + 1
    staged = any(tile.staged_away for tile in tiles)
    pieces = max(len(tile.pieces) for tile in tiles)
    seen[dataflow] += 1
    seen[f"{dataflow}, chunked"] += chunks > 1
    seen[f"{dataflow}, staged"] += staged
    seen[f"{dataflow}, multicast of weights"] += any(
        len(fetch.positions) > 1 for fetches in program.streams["weight"].values() for fetch in fetches
    )
    if program.index:
        before = machine.layers[program.index - 1].mapping
        seen["dataflow changes"] += before.dataflow != dataflow
        seen["chain after none"] += parts > 1 == before.c_split
        seen["none after chain"] += before.c_split > 1 == parts
    if program.placement.weights == "gb":
        largest = max(block.weight_tile.bits for block in blocks)
        seen["weights gb, a tile beyond the weight region"] += largest > region_bits(arch)[0]
    seen["bank groups given"] += arch.gb_weight_banks is not None
    seen["weight region given"] += arch.gb_weight_kb is not None
    if dataflow in ("os", "ws-los"):
        seen[f"{dataflow}, local latency {arch.local_accumulate_latency}"] += 1
        short = {len(block.psum_tile.pixels) * arch.local_accumulate_latency for block in blocks}
        seen[f"{dataflow}, pads after a pass"] += min(short) < arch.accumulate_latency
        seen[f"{dataflow}, a last chunk is shorter"] += len({len(block.vectors) for block in blocks}) > 1
    if dataflow in ("ws-los", "ws"):
        depth, half = arch.accumulation_collector_depth, arch.accumulation_buffer_words // 2
        seen[f"{dataflow}, several pieces"] += pieces > 1
        seen[f"{dataflow}, a last piece is shorter"] += any(
            len(tile.pieces[-1].pixels) < len(tile.pieces[0].pixels) for tile in tiles
        )
        seen[f"{dataflow}, half buffer below D"] += half < depth
    if dataflow == "ws-los":
        seen["several passes"] += any(len(block.vectors) > arch.weight_collector_depth for block in blocks)
        seen["last pass shorter"] += any(
            len(block.vectors) > arch.weight_collector_depth
            and len(block.vectors) % arch.weight_collector_depth > 0
            for block in blocks
        )
    if parts > 1:
        sizes = {len({g for block in mine for g in block.vectors}) for mine in own if mine}
        seen[f"{dataflow}, chain"] += 1
        seen["chain of 2"] += parts == 2
        seen["chain of 3 or more"] += parts >= 3
        seen["parts of unequal length"] += len(sizes) > 1
        seen["chain, chunked"] += chunks > 1
        seen["chain, chunked with inputs"] += chunks > 1 and mapping.chunk_inputs
        seen["chain, a PE lacks the last chunk"] += len({mine[-1].context[-1] for mine in own if mine}) > 1
        seen["chain, staged"] += staged
        seen["chain, several pieces"] += pieces > 1
        seen["chain, groups"] += layer.geometry.groups > 1
        seen["chain, folded"] += layer.spec.folded
        seen["chains beside each other"] += mapping.pixel_split > 1
        seen["chains of several units"] += mapping.k_split > 1
        seen["chain, output stays"] += not program.placement.output_to_dram
        seen["chain, order PK"] += mapping.order == "PK"
        ports = "" if arch.psum_port_bits is None else " of its own"
        width = arch.psum_port_bits or arch.pe_port_bits
        entry_bits = [len(tile.channels) * arch.accumulator_width(layer.scheme) for tile in tiles]
        seen[f"psum entry of several rounds of a port{ports}"] += any(bits > width for bits in entry_bits)
        seen[f"several psum entries in a cycle{ports}"] += any(2 * bits <= width for bits in entry_bits)
