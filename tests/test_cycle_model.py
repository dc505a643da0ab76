"""The cycle-stepped model against blocks, chains and slots counted by hand from docs/machine.md."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
from cycle_model import STALL_REASONS, Deadlock, run
from cycle_model.dram import Dram, DramTransfer
from cycle_model.placement import placements_of
from cycle_model.ports import OutputTile
from cycle_model.program import refusal
from cycle_model.slots import slots_of
from hand_machine import ONE_TILE, hand_arch, hand_layer, node_work
from machines import DATAFLOWS

from accelsim.mapping.plan import LayerMapping


def test_one_block_by_hand():
    """Two vectors of 3 pixels on one PE, followed from DRAM to DRAM."""
    (result,) = run(hand_arch(), [hand_layer(m=3, c=8, k=4)], [ONE_TILE])
    # Asked at 0. Input: 3 pixels x 2 words x 32 bits = 192: DRAM 1-3, in the buffer at 14, crossbar from 15
    # for 6 cycles, arrives 15+6+2 = 23. Weights: 4 x 2 x 32 = 256: DRAM 4-7, buffer 18, in-port free at 21, 8
    # cycles, arrives 21+8+2 = 31. Issue 31 .. 36, last write 39, drain 40 .. 42, complete 45, crossbar from
    # 46 for 96/32 = 3 cycles, in the buffer at 51, DRAM 52 and 53, done 54.
    assert result.end == result.cycles == 54
    waits = dict(zip(STALL_REASONS, result.stall_cycles[0].tolist(), strict=True))
    assert waits == {
        "compute": 6,
        "bubble": 0,
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
            "ppu_constants.read": 3,
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
    work = (node_work("add", 9), node_work("softmax", 9), node_work("layer_norm", 1))
    arch = hand_arch(accumulate_latency=4)
    (result,) = run(arch, [hand_layer(m=1, c=8, k=4, global_pe=work)], [ONE_TILE])
    # Input 64 bits: DRAM 1, buffer 12, crossbar 13 and 14. Weights: DRAM 2-5, buffer 16, crossbar 17-24,
    # arrive 27. Steps at 27 and 31, last write 34, drain 35, complete 38, crossbar 39, in the buffer 42,
    # DRAM 43, done 44. The add takes 42 .. 44, the rows 3 + 1 cycles after it.
    assert result.end == 49
    assert result.stall_cycles[0].tolist() == [2, 6, 0, 27, 0, 40 - 35, 49 - 40]
    assert result.counts["global_pe.element"] == 19


def test_multicast_of_weights_by_hand():
    """Two PEs of one weight stream take one transfer; each has its own input stream."""
    mapping = LayerMapping(
        k_split=1, pixel_split=2, order="KP", tile_pixels=4, units_per_tile=1, chunk_vectors=2
    )
    (result,) = run(hand_arch(pes=2, gb_banks=5), [hand_layer(m=4, c=8, k=4)], [mapping])
    # Inputs 128 bits each: DRAM 1-2 and 3-4, buffer 13 and 15, banks 1 and 2, crossbar 14-17 and 16-19.
    # Weights: DRAM 5-8, buffer 19, wait for both in-ports: 20-27, arrive 30. Steps 30 .. 33, last write 36,
    # drains 37 and 38, complete 41, 64 bits each over the one output bank: 42-43, 44-45, in the buffer 46 and
    # 48, DRAM 47 and 49, done 50.
    assert result.end == 50
    assert result.stall_cycles.tolist() == [[4, 0, 0, 30, 0, 10, 6], [4, 0, 0, 30, 0, 12, 4]]
    assert result.counts["noc.bit_hop"] == 128 * 1 + 128 * 2 + 256 * 2 + 64 * 1 + 64 * 2
    assert result.counts["weight_buffer.write"] == 16


CHAIN = LayerMapping(
    k_split=1, pixel_split=1, order="KP", tile_pixels=4, units_per_tile=1, chunk_vectors=1, c_split=2
)


def test_chain_by_hand():
    """Each of two PEs sums one of two vectors; the first sends its psums to the second."""
    arch = hand_arch(pes=2, gb_banks=5, accumulator_bits=24)
    (result,) = run(arch, [hand_layer(m=3, c=8, k=4)], [CHAIN])
    # Inputs 96 bits each: one and a half cycles of DRAM, 1 to the middle of 2 and from there to 3, buffer 13
    # and 14, crossbar 14-16 and 15-17. Weights 128 bits each: DRAM 4-5 and 6-7, buffer 16 and 18, one
    # after the other from the one weight bank 17-20 and 21-24, arrive 23 and 27. Steps 23 .. 25 and 27 .. 29,
    # last writes 28 and 32: the psums are asked for at 33. 3 pixels x 4 lanes x 24 bits are 9 cycles, 34-42,
    # arrive 45. Drain 46 .. 48, complete 51, crossbar 52-54, in the buffer 57, DRAM 58 and 59, done 60.
    assert result.end == 60
    assert result.stall_cycles.tolist() == [
        [3, 0, 0, 23, 0, 43 - 26, 60 - 43],
        [3, 0, 0, 27, 0, 55 - 30, 60 - 55],
    ]
    counts = result.counts
    assert counts["psum_adder.add"] == 12
    # The last step's entry of both PEs, the transfer's and the drain's reads, and each arriving entry.
    assert counts["accumulation_collector.write"] == 3 + 3 + 3
    assert counts["accumulation_collector.read"] == 3 + 3 + 3
    assert counts["noc.bit_hop"] == 96 * (1 + 2) + 128 * (1 + 2) + 288 * 1 + 96 * 2
    assert counts["global_buffer.write"] == counts["global_buffer.read"] == (2 + 2) + (2 + 2) + 2
    assert (result.psums == 8).all() and result.overflows == 0


@pytest.mark.parametrize(
    ("psum_port_bits", "left", "end"), [(None, 50, 64), (32, 43, 57), (96, 37, 51), (512, 37, 51)]
)
def test_psum_ports_by_hand(psum_port_bits: int | None, left: int, end: int):
    """Psums wait for a weight tile of the layer to come, or have ports of their own."""
    arch = hand_arch(pes=2, gb_banks=5, accumulator_bits=24, psum_port_bits=psum_port_bits)
    layers = [hand_layer(m=3, c=8, k=4), hand_layer(m=3, c=16, k=4)]
    results = run(arch, layers, [CHAIN, CHAIN])
    # As the chain above, with DRAM to 7. Weights of layer 1, 256 bits each, at 8-11 and 12-15, buffer 22 and
    # 26, from the one weight bank at 25-32 and, into PE 1, 33-40. The psums, asked for at 33, follow at 41
    # to 49, arrive 52, drain 53 .. 55, complete 58, crossbar 59-61, in the buffer 64, where they stay.
    # A port of their own takes them at 34-42: all 7 cycles earlier. One of 96 bits takes an entry a cycle,
    # 34-36: 6 cycles earlier than that; a wider one no more.
    assert results[0].end == end
    assert results[0].stall_cycles[0].tolist() == [3, 0, 0, 23, 0, left - 26, end - left]
    assert (results[0].psums == 8).all() and (results[1].psums == 16).all()


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
    assert result.stall_cycles[0].tolist() == [6, 6, 0, 31, 0, 54 - 43, 59 - 54]
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
    # Input 288 bits: DRAM 1-5, buffer 16, crossbar 17-25. Weights 384 bits: DRAM 5-11, buffer 22, crossbar
    # 26-37, arrive 40. The first pass has 3 x 2 steps in slots 40 .. 51, the second 3 in 52 .. 57, the last
    # at 56, last write 59. Drain 60 .. 62, complete 65, crossbar 66-68, in the buffer 71, DRAM 72 and 73,
    # done 74.
    assert result.end == 74
    assert result.stall_cycles[0].tolist() == [9, 9, 0, 40, 0, 69 - 58, 74 - 69]
    counts = result.counts
    assert counts["weight_buffer.read"] == counts["weight_collector.write"] == 12
    assert counts["weight_collector.read"] == counts["weight_register.write"] == 36
    assert counts["accumulation_buffer.write"] == 3 + 3
    assert counts["accumulation_buffer.read"] == 3 + 3
    assert counts["local_accumulator.write"] == 9
    assert (result.psums == 12).all()

    arch = arch.model_copy(update={"accumulate_latency": 4, "local_accumulate_latency": 1})
    (result,) = run(arch, [hand_layer(m=1, c=12, k=4)], [mapping])
    # Input 96 bits: DRAM 1-2, buffer 13, crossbar 14-16. Weights: DRAM 2-8, buffer 19, crossbar 20-31, arrive
    # 34. Steps 34 and 35, pads until the psum of 35 may be added to at 39, the step there, pads to 42. Last
    # write 42, drain 43, complete 46, crossbar 47, in the buffer 50, DRAM 51, done 52.
    assert result.end == 52
    assert result.stall_cycles[0].tolist() == [3, 6, 0, 34, 0, 48 - 43, 52 - 48]
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
    assert result.stall_cycles[0].tolist() == [6, 0, 0, 31, 0, 48 - 37, 52 - 48]
    assert result.counts["accumulation_buffer.write"] == 6
    assert result.counts["accumulation_buffer.read"] == 3 + 3
    assert result.counts["global_buffer.write"] == (3 + 4) + (1 + 1)

    # With one output tile on its way to DRAM at a time the second is asked for at 51: crossbar 52, in the
    # buffer 55, DRAM 56, done 57.
    one = arch.model_copy(update={"output_staging_tiles": 1})
    (result,) = run(one, [hand_layer(m=3, c=8, k=4)], [mapping])
    assert result.end == 57
    assert result.stall_cycles[0].tolist() == [6, 0, 0, 31, 0, 53 - 37, 57 - 53]

    arch = arch.model_copy(update={"pes": 2, "gb_banks": 5})
    (result,) = run(arch, [hand_layer(m=3, c=8, k=4)], [replace(CHAIN, dataflow="ws")])
    # As the chain above up to 33, when both pieces are asked for: 192 bits 34-39, arrive 42, and 96 bits
    # 40-42, arrive 45. Drains 43-44 and 46, complete 47 and 49, crossbar 48-49 and 50, in the buffer 52 and
    # 53, DRAM 53 and 54, done 55.
    assert result.end == 55
    assert result.stall_cycles.tolist() == [
        [3, 0, 0, 23, 0, 43 - 26, 55 - 43],
        [3, 0, 0, 27, 0, 51 - 30, 55 - 51],
    ]
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
def test_refusals(machine: dict[str, object], mapping: LayerMapping, why: str | None):
    arch, layer = hand_arch(**({"pes": 2} | machine)), hand_layer(m=3, c=8, k=4)
    (placement,) = placements_of(arch, [layer])
    assert refusal(arch, layer, mapping, placement) == why


def test_only_weights_that_are_read_must_fit_the_weight_region():
    # One of 40 banks of 204 bits; the tile has 256.
    arch = hand_arch(global_buffer_kb=1, gb_banks=40, gb_weight_banks=1)
    layer = hand_layer(m=3, c=8, k=4)
    (placement,) = placements_of(arch, [layer])
    assert refusal(arch, layer, ONE_TILE, placement) == "weight tile exceeds the weight region"
    assert refusal(arch, layer, ONE_TILE, replace(placement, weights="gb")) is None


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


def test_dram_transfers_share_cycles_by_hand():
    """64 bits a cycle; the bits that each transfer takes, and the cycle in which the last of them passes."""
    item = OutputTile(layer=0, pe=0, index=0, values=1, bits=1, entries=1)
    expected = [
        (0, 96, 2),  # 64 .. 159
        (0, 16, 2),  # 160 .. 175
        (0, 0, 2),  # none, at 176
        (0, 16, 2),  # 176 .. 191, to the end of cycle 2
        (1, 0, 3),  # none, at 192: cycle 2 is full
        (1, 65, 4),  # 192 .. 256
        (5, 10, 6),  # 384 .. 393: not before the cycle after its request
        (6, 64, 7),  # 448 .. 511
        (6, 128, 9),  # 512 .. 639
        (8, 1, 10),  # 640
    ]
    dram = Dram(hand_arch())
    transfers = [
        DramTransfer("write", 0, (request, 1, 0, 0, i), bits, item)
        for i, (request, bits, _) in enumerate(expected)
    ]
    ends: dict[int, int] = {}
    free = []
    for now in range(12):
        for transfer in transfers:
            if transfer.key[0] == now:
                dram.request(transfer)
        ends |= {transfer.key[-1]: now for transfer in dram.pass_bits(now)}
        if dram.is_free():
            free.append(now)
    assert ends == {i: end for i, (_, _, end) in enumerate(expected)}
    # At the end of these cycles nothing has bits to go.
    assert free == [4, 10, 11]


def test_deadlock_says_who_waits():
    with pytest.raises(Deadlock, match=r"(?s)cycle 20: .*PE 0: next block 0 .*weights None"):
        run(hand_arch(), [hand_layer(m=3, c=8, k=4)], [ONE_TILE], max_cycles=20)
