"""The event model against the cycle-stepped model: small random runs must agree in every number.

The first tests hold the cycle-stepped model itself against cases counted by hand and against plain numpy.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from cycle_model import BUCKETS, Deadlock, LayerResult, run
from cycle_model.machine import Machine
from cycle_model.program import LayerProgram, refusal
from cycle_model.slots import slots_of
from machines import DATAFLOWS, Features, describe, random_run

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


CHAIN = Mapping(
    k_split=1, pixel_split=1, order="KP", tile_pixels=4, units_per_tile=1, chunk_vectors=1, c_split=2
)


def test_chain_by_hand():
    """Each of two PEs sums one of two vectors; the first sends its psums to the second."""
    arch = hand_arch(pes=2, gb_banks=5, accumulator_bits=24)
    (result,) = run(arch, [hand_layer(m=3, c=8, k=4)], [CHAIN])
    # Inputs 96 bits each: DRAM 1-2 and 3-4, buffer 13 and 15, crossbar 14-16 and 16-18. Weights 128 bits
    # each: DRAM 5-6 and 7-8, buffer 17 and 19, one after the other from the one weight bank 18-21 and 22-25,
    # arrive 24 and 28. Steps 24 .. 26 and 28 .. 30, last writes 29 and 33: the psums are asked for at 34. 3
    # pixels x 4 lanes x 24 bits are 9 cycles, 35-43, arrive 46. Drain 47 .. 49, complete 52, crossbar 53-55,
    # in the buffer 58, DRAM 59 and 60, done 61.
    assert result.end == 61
    assert result.buckets.tolist() == [[3, 0, 0, 24, 0, 44 - 27, 61 - 44], [3, 0, 0, 28, 0, 56 - 31, 61 - 56]]
    counts = result.counts
    assert counts["psum_adder.add"] == 12
    # The last step's entry of both PEs, the transfer's and the drain's reads, and each arriving entry.
    assert counts["accumulation_collector.write"] == 3 + 3 + 3
    assert counts["accumulation_collector.read"] == 3 + 3 + 3
    assert counts["noc.bit_hop"] == 96 * (1 + 2) + 128 * (1 + 2) + 288 * 1 + 96 * 2
    assert counts["global_buffer.write"] == counts["global_buffer.read"] == (2 + 2) + (2 + 2) + 2
    assert (result.psums == 8).all() and result.overflows == 0


def test_chain_limits_and_counts_overflows_by_hand():
    """Sums of 4 and 4 in 4 bits: the parts fit, their sum does not."""
    arch = hand_arch(pes=2, gb_banks=5, accumulator_bits=4)
    (result,) = run(arch, [hand_layer(m=3, c=8, k=4)], [CHAIN])
    assert (result.psums == 7).all() and result.overflows == 12
    (result,) = run(arch.model_copy(update={"overflow": "wrap"}), [hand_layer(m=3, c=8, k=4)], [CHAIN])
    assert (result.psums == -8).all() and result.overflows == 12


def test_os_block_by_hand():
    """Two vectors of 3 pixels, pixel after pixel, each step two cycles after the one before."""
    arch = hand_arch(dataflows=("os",), local_accumulate_latency=2)
    (result,) = run(arch, [hand_layer(m=3, c=8, k=4)], [replace(ONE_TILE, dataflow="os")])
    # Weights arrive at 31 as above. Steps 31, 33 .. 41 in slots 31 .. 42, last write 44, drain 45 .. 47,
    # complete 50, crossbar 51-53, in the buffer 56, DRAM 57 and 58, done 59.
    assert result.end == 59
    assert result.buckets[0].tolist() == [6, 6, 0, 31, 0, 54 - 43, 59 - 54]
    counts = result.counts
    assert counts["dot_product.op_changing"] == counts["accumulator.add"] == 24
    assert counts["weight_buffer.read"] == counts["weight_register.write"] == 24
    assert counts["input_buffer.read"] == counts["local_accumulator.write"] == 6
    assert counts["accumulation_collector.write"] == counts["accumulation_collector.read"] == 3
    assert (result.psums == 8).all()


def test_ws_los_block_of_two_passes_by_hand():
    """Three vectors of 3 pixels through a weight collector of two."""
    arch = hand_arch(
        dataflows=("ws-los",),
        weight_collector_depth=2,
        accumulation_buffer_words=8,
        local_accumulate_latency=2,
    )
    mapping = replace(ONE_TILE, dataflow="ws-los")
    (result,) = run(arch, [hand_layer(m=3, c=12, k=4)], [mapping])
    # Input 288 bits: DRAM 1-5, buffer 16, crossbar 17-25. Weights 384 bits: DRAM 6-11, buffer 22, crossbar
    # 26-37, arrive 40. The first pass has 3 x 2 steps in slots 40 .. 51, the second 3 in 52 .. 57, the last
    # at 56, last write 59. Drain 60 .. 62, complete 65, crossbar 66-68, in the buffer 71, DRAM 72 and 73,
    # done 74.
    assert result.end == 74
    assert result.buckets[0].tolist() == [9, 9, 0, 40, 0, 69 - 58, 74 - 69]
    counts = result.counts
    assert counts["weight_buffer.read"] == counts["weight_collector.write"] == 12
    assert counts["weight_collector.read"] == counts["weight_register.write"] == 36
    assert counts["accumulation_buffer.write"] == 3 + 3
    assert counts["accumulation_buffer.read"] == 3 + 3
    assert counts["local_accumulator.write"] == 9
    assert (result.psums == 12).all()

    arch = arch.model_copy(update={"accumulate_latency": 4, "local_accumulate_latency": 1})
    (result,) = run(arch, [hand_layer(m=1, c=12, k=4)], [mapping])
    # Input 96 bits: DRAM 1-2, buffer 13, crossbar 14-16. Weights: DRAM 3-8, buffer 19, crossbar 20-31, arrive
    # 34. Steps 34 and 35, pads until the psum of 35 may be added to at 39, the step there, pads to 42. Last
    # write 42, drain 43, complete 46, crossbar 47, in the buffer 50, DRAM 51, done 52.
    assert result.end == 52
    assert result.buckets[0].tolist() == [3, 6, 0, 34, 0, 48 - 43, 52 - 48]
    assert (result.psums == 12).all()


def test_ws_tile_of_two_pieces_by_hand():
    """A tile of 3 pixels leaves in pieces of the collector depth, 2 and 1."""
    arch = hand_arch(
        dataflows=("ws",), accumulation_collector_depth=2, accumulation_buffer_words=8, accumulator_bits=24
    )
    mapping = replace(ONE_TILE, dataflow="ws")
    (result,) = run(arch, [hand_layer(m=3, c=8, k=4)], [mapping])
    # Weights arrive at 31 as above, steps 31 .. 36, last write 39. Drains 40-41 and 42, complete 44 and 45,
    # 64 and 32 bits: crossbar 45-46 and 47, in the buffer 49 and 50, DRAM 50 and 51, done 52.
    assert result.end == 52
    assert result.buckets[0].tolist() == [6, 0, 0, 31, 0, 48 - 37, 52 - 48]
    assert result.counts["accumulation_buffer.write"] == 6
    assert result.counts["accumulation_buffer.read"] == 3 + 3
    assert result.counts["global_buffer.write"] == (3 + 4) + (1 + 1)

    arch = arch.model_copy(update={"pes": 2, "gb_banks": 5})
    (result,) = run(arch, [hand_layer(m=3, c=8, k=4)], [replace(CHAIN, dataflow="ws")])
    # As the chain above up to 34, when both pieces are asked for: 192 bits 35-40, arrive 43, and 96 bits
    # 41-43, arrive 46. Drains 44-45 and 47, complete 48 and 50, crossbar 49-50 and 51, in the buffer 53 and
    # 54, DRAM 54 and 55, done 56.
    assert result.end == 56
    assert result.buckets.tolist() == [[3, 0, 0, 24, 0, 44 - 27, 56 - 44], [3, 0, 0, 28, 0, 52 - 31, 56 - 52]]
    assert (result.psums == 8).all()


@pytest.mark.parametrize(
    ("machine", "mapping", "why"),
    [
        ({}, replace(CHAIN, dataflow="os"), "the PEs cannot run the dataflow"),
        ({}, replace(CHAIN, pixel_split=2), "more parts than PEs"),
        ({"psum_chain": False}, CHAIN, "a chain on a machine without psum adders"),
        ({"pes": 3}, replace(CHAIN, c_split=3), "a part of the reduction is empty"),
        ({}, CHAIN, None),
        # 2 weight words in every macro, 1 in each PE of a chain.
        ({"weight_buffer_words": 2}, replace(CHAIN, c_split=1), "weight tile exceeds half the weight buffer"),
        ({"weight_buffer_words": 2}, CHAIN, None),
        # 6 input words, 3 in each PE of a chain.
        ({"input_buffer_words": 10}, replace(CHAIN, c_split=1), "input tile exceeds half the input buffer"),
        ({"input_buffer_words": 10}, CHAIN, None),
    ],
)
def test_refusals(machine: dict[str, object], mapping: Mapping, why: str | None):
    arch = hand_arch(**({"pes": 2} | machine))
    assert refusal(arch, hand_layer(m=3, c=8, k=4), mapping) == why


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_slots_keep_accumulations_of_a_psum_apart(dataflow: str):
    """al cycles between two that go through collector or buffer, lal between two beside the adder.

    A tile's blocks have as many vectors as the first, the last as few as one.
    """
    blocks = [(n, n, last) for n in range(1, 8) for last in range(1, n + 1)]
    for al, lal, depth, pixels in product(range(1, 5), range(1, 5), (1, 2, 3, 8), range(1, 6)):
        arch = hand_arch(accumulate_latency=al, local_accumulate_latency=lal, weight_collector_depth=depth)
        for vectors in blocks:
            before: dict[int, int] = {}
            taken = [[] for _ in range(pixels)]
            start = 0
            for block, n in enumerate(vectors):
                slots = slots_of(arch, dataflow, pixels, n)
                for now, step in enumerate(slots, start):
                    if step is not None:
                        apart = al if step.starts else lal
                        assert now - before.get(step.pixel, -apart) >= apart, (vectors, al, lal, depth)
                        before[step.pixel] = now
                        taken[step.pixel].append((block, step.vector))
                start += len(slots)
            assert all(order == [(b, g) for b, n in enumerate(vectors) for g in range(n)] for order in taken)


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
    seen["bank groups given"] += arch.gb_weight_banks is not None
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
        seen["chain, folded"] += layer.folded
        seen["chains beside each other"] += mapping.pixel_split > 1
        seen["chains of several units"] += mapping.k_split > 1
        seen["chain, output stays"] += not program.placement.output_to_dram
        seen["chain, order PK"] += mapping.order == "PK"
        seen["psum piece of several rounds of the port"] += any(
            len(tile.channels) * arch.accumulator_width(layer.scheme) > arch.pe_port_bits for tile in tiles
        )
        seen["several psum entries in a cycle"] += any(
            2 * len(tile.channels) * arch.accumulator_width(layer.scheme) <= arch.pe_port_bits
            for tile in tiles
        )
