"""The event model against the cycle-stepped model: small random runs must agree in every number.

The first tests hold the cycle-stepped model itself against cases counted by hand and against plain numpy.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from cycle_model import BUCKETS, Deadlock, LayerResult, run
from cycle_model.machine import Machine
from machines import Features, describe, random_run

from accelsim.config import Arch
from accelsim.mapping.plan import Mapping
from accelsim.scheme import Scheme
from accelsim.sim.run import simulate
from accelsim.workload import Geometry, GlobalPeWork, OutputFormat, QuantizedLayer

SEEDS = 360
BATCH = 20


def hand_arch(**changes: object) -> Arch:
    values: dict[str, object] = dict(
        name="hand",
        vector_size=4,
        lanes=4,
        pes=1,
        weight_buffer_words=8,
        input_buffer_words=32,
        accumulation_collector_depth=4,
        accumulate_latency=2,
        ppu_latency_cycles={"static": 3, "per_vector": 5},
        out_fifo_words=4,
        global_buffer_kb=8,
        gb_banks=4,
        gb_bank_bits=64,
        pe_port_bits=32,
        noc_latency_cycles=2,
        dram_bits_per_cycle=64,
        dram_efficiency=1.0,
        dram_latency_cycles=10,
        global_pe_elements_per_cycle=4,
        clock_ghz=1.0,
        voltage_v=0.8,
        node_nm=16.0,
        placement_utilization=0.7,
    )
    return Arch(**(values | changes))


def hand_layer(m: int, c: int, k: int, global_pe: tuple[GlobalPeWork, ...] = ()) -> QuantizedLayer:
    """An m x c x k matmul at 8/8/-/-, every code 1, in vectors of 4."""
    words = -(-c // 4)
    return QuantizedLayer(
        name="hand",
        op="matmul",
        geometry=Geometry(N=m, C=c, H=1, W=1, K=k),
        scheme=Scheme.parse("8/8/-/-"),
        vector_size=4,
        fold="auto",
        weight_words=np.ones((k, words, 4), np.int8),
        weight_scales=None,
        weight_gamma=np.full(k, 0.01),
        input_words=np.ones((m * words, 4), np.int8),
        input_scales=None,
        input_gamma=0.01,
        input_signed=True,
        bias=None,
        activation="none",
        output=OutputFormat(bits=8, signed=True, scale_bits=0, gamma=0.05),
        global_pe=global_pe,
    )


ONE_TILE = Mapping(k_split=1, pixel_split=1, order="KP", tile_pixels=4, units_per_tile=1, chunk_vectors=2)


def test_one_block_by_hand():
    """Two vectors of 3 pixels on one PE, followed from DRAM to DRAM."""
    (result,) = run(hand_arch(), [hand_layer(m=3, c=8, k=4)], [ONE_TILE])
    # Launch 0. Input: 3 pixels x 2 words x 32 bits = 192: DRAM 1-3, in the buffer at 14, crossbar from 15 for
    # 6 cycles, arrives 15+6+2 = 23. Weights: 4 x 2 x 32 = 256: DRAM 4-7, buffer 18, in-port free at 21, 8
    # cycles, arrives 21+8+2 = 31. Issue 31 .. 36, last write 39, drain 40 .. 42, complete 45, crossbar from
    # 46 for 96/32 = 3 cycles, in the buffer at 51, DRAM 52 and 53, done 54.
    assert result.end == result.cycles == 54
    waits = dict(zip(BUCKETS, result.buckets[0].tolist(), strict=True))
    assert waits == {
        "compute": 6,
        "accumulate_stall": 0,
        "output_wait": 0,
        "weight_wait": 31,
        "input_wait": 0,
        "drain": 12,
        "idle": 5,
    }
    assert result.counts == Counter(
        {
            "dot_product.op": 24,
            "pipeline_register.write": 24,
            "accumulator.add": 24,
            "weight_register.write": 8,
            "weight_buffer.read": 8,
            "weight_buffer.write": 8,
            "input_register.write": 6,
            "input_buffer.read": 6,
            "input_buffer.write": 6,
            "accumulation_collector.read": 3 + 3,
            "accumulation_collector.write": 6,
            "ppu.op": 12,
            "out_fifo.write": 3,
            "out_fifo.read": 3,
            "global_buffer.write": (3 + 4) + 2,
            "global_buffer.read": (3 + 4) + 2,
            "noc.bit_hop": 192 + 256 + 96,
            "dram.read_bit": 192 + 256,
            "dram.write_bit": 96,
            "control.cycle": 54,
        }
    )
    assert (result.psums == 8).all() and result.overflows == 0


def test_pad_slots_and_global_pe_by_hand():
    """One pixel needs accumulate_latency slots a vector; the global PE ends the layer."""
    work = (GlobalPeWork("add", 9), GlobalPeWork("softmax", 9), GlobalPeWork("layer_norm", 1))
    arch = hand_arch(accumulate_latency=4)
    (result,) = run(arch, [hand_layer(m=1, c=8, k=4, global_pe=work)], [ONE_TILE])
    # Input 64 bits: DRAM 1, buffer 12, crossbar 13 and 14. Weights: DRAM 2-5, buffer 16, crossbar 17-24,
    # arrive 27. Steps at 27 and 31, last write 34, drain 35, complete 38, crossbar 39, in the buffer 42,
    # DRAM 43, done 44. The add takes 42 .. 44, the rows 3 + 1 cycles after it.
    assert result.end == 49
    assert result.buckets[0].tolist() == [2, 6, 0, 27, 0, 40 - 35, 49 - 40]
    assert result.counts["global_pe.element"] == 19


def test_multicast_of_weights_by_hand():
    """Two PEs of one weight stream take one transfer; each has its own input stream."""
    mapping = Mapping(k_split=1, pixel_split=2, order="KP", tile_pixels=4, units_per_tile=1, chunk_vectors=2)
    (result,) = run(hand_arch(pes=2, gb_banks=5), [hand_layer(m=4, c=8, k=4)], [mapping])
    # Inputs 128 bits each: DRAM 1-2 and 3-4, buffer 13 and 15, banks 1 and 2, crossbar 14-17 and 16-19.
    # Weights: DRAM 5-8, buffer 19, wait for both in-ports: 20-27, arrive 30. Steps 30 .. 33, last write 36,
    # drains 37 and 38, complete 41, 64 bits each over the one output bank: 42-43, 44-45, in the buffer 46 and
    # 48, DRAM 47 and 49, done 50.
    assert result.end == 50
    assert result.buckets.tolist() == [[4, 0, 0, 30, 0, 10, 6], [4, 0, 0, 30, 0, 12, 4]]
    assert result.counts["noc.bit_hop"] == 128 * 1 + 128 * 2 + 256 * 2 + 64 * 1 + 64 * 2
    assert result.counts["weight_buffer.write"] == 16


def test_deadlock_says_who_waits():
    with pytest.raises(Deadlock, match=r"(?s)cycle 20: .*PE 0: next block 0 .*weights None"):
        run(hand_arch(), [hand_layer(m=3, c=8, k=4)], [ONE_TILE], max_cycles=20)


def parts_of_reduction(layer: QuantizedLayer, parts: int) -> list[list[int]]:
    """The vectors of each part: of the words of a position, or of a folded layer's vectors."""
    words = layer.G if layer.folded else layer.words_per_position
    part_of_word = np.concatenate(
        [np.full(len(a), i) for i, a in enumerate(np.array_split(range(words), parts))]
    )
    return [[g for g in range(layer.G) if part_of_word[g % words] == part] for part in range(parts)]


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
        gather = layer.gather(group, np.arange(geometry.pixels))
        product = codes[gather[:, g]] @ layer.weight_words[k, g].astype(np.int64).T
        scale = scales[gather[:, g]][:, None]
        if layer.weight_scales is not None:
            scale = scale * layer.weight_scales[k, g].astype(np.int64)
        if scheme.scale_product_bits:
            shift = scheme.scale_product_shift
            scale = (scale + (1 << (shift - 1))) >> shift
            scale = np.minimum(scale, (1 << scheme.scale_product_bits) - 1)
        products[:, k] = product * scale
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
    assert counts["accumulator.add"] == outputs * layer.G, text
    assert ops + counts["dot_product.gated"] == counts["accumulator.add"], text
    assert counts["dot_product.op" if follows else "dot_product.op_changing"] == 0, text
    assert counts["pipeline_register.write"] == ops, text
    assert counts["local_accumulator.write"] == (steps if follows else 0), text
    # Lane groups of all units times pixels: what one part of the reduction keeps.
    units = run_lengths(geometry.outputs_per_group, arch.unit_channels)
    entries = geometry.pixels * geometry.groups * sum(-(-channels // arch.lanes) for channels in units)
    assert steps == entries * layer.G, text
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
        chunk = mapping.chunk_vectors if mapping.units_per_tile == 0 else layer.G
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


@pytest.mark.parametrize("features", ["plain", "all"])
@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_event_model_agrees(first: int, features: Features):
    for seed in range(first, first + BATCH):
        found = differences(seed, features)
        assert not found, "\n".join(found)


def test_the_random_runs_reach_every_corner():
    """Agreement means little in corners that no seed visits."""
    seen: Counter[str] = Counter()
    for seed in range(SEEDS):
        arch, layers, mappings = random_run(seed)
        machine = Machine(arch, layers, mappings)
        seen[f"{len(layers)} layers"] += 1
        seen["fifo of one d-tile"] += arch.out_fifo_words == arch.accumulation_collector_depth
        seen["V > L"] += arch.vector_size > arch.lanes
        seen["V < L"] += arch.vector_size < arch.lanes
        seen["D = 1"] += arch.accumulation_collector_depth == 1
        seen[f"accumulate latency {arch.accumulate_latency}"] += 1
        for program in machine.layers:
            layer, mapping, place = program.layer, program.mapping, program.placement
            seen["groups"] += layer.geometry.groups > 1
            seen["folded"] += layer.folded
            rows = {work.op in ("softmax", "layer_norm") for work in layer.global_pe}
            seen["streaming and row work"] += len(rows) == 2
            seen[f"order {mapping.order}"] += 1
            chunked = mapping.units_per_tile == 0 and mapping.chunk_vectors < layer.G
            seen["chunked"] += chunked and not mapping.chunk_inputs
            seen["chunked with inputs"] += chunked and mapping.chunk_inputs
            seen["folded, chunked with inputs"] += chunked and mapping.chunk_inputs and layer.folded
            seen["several units a tile"] += mapping.units_per_tile > 1
            seen[f"weights {place.weights}"] += 1
            seen[f"input {place.input}"] += 1
            seen["output stays"] += not place.output_to_dram
            for operand, streams in program.streams.items():
                fetches = [fetch for stream in streams.values() for fetch in stream]
                seen[f"{operand} multicast"] += any(len(fetch.positions) > 1 for fetch in fetches)
                tiles = {fetch.tile.key for fetch in fetches}
                seen[f"{operand} sent again"] += len(fetches) > len(tiles)
                if operand == "input":
                    seen["input tile without words"] += any(fetch.tile.bits == 0 for fetch in fetches)
            blocks = [b for own in machine.program.blocks for b in own if b.layer == program.index]
            seen["staged"] += any(block.psum_tile.staged_away for block in blocks)
            seen["staged, partial unit"] += len({block.psum_tile.gathers for block in blocks}) > 2
            seen["PE without work"] += 0 in program.outputs.values()
    rare = {name: count for name, count in seen.items() if count < 4}
    assert not rare
