"""The cycle-stepped model on graphs, counted by hand from docs/timing.md and counts.md: what nodes read and
write beside their layers, steps without a layer.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cycle_model import run
from cycle_model.machine import Machine
from cycle_model.placement import Moved, Placement
from cycle_model.program import refusal
from hand_graph import chans, layer, node, step
from hand_machine import ONE_TILE, hand_arch
from machines import random_run

from accelsim.workload.graph import Graph, Shape
from accelsim.workload.layer import QuantizedLayer

PIXELS3: Shape = (3, 4, 1, 1)


def hand_run(layers: list[QuantizedLayer], graph: Graph, **machine: object) -> Machine:
    m = Machine(hand_arch(**machine), layers, [ONE_TILE] * len(layers), graph)
    while m.current < len(layers):
        assert m.now < 1000
        m.cycle()
    return m


def test_a_residual_that_stays_by_hand():
    layers = [layer("a", 8, 4, 3), layer("b", 4, 4, 3)]
    steps = (step("a", "x"), step("b", "a"), node("sum", "add", "b", "a", shape=PIXELS3))
    graph = Graph((("x", chans(8, 3)),), steps, ("sum",))
    machine = hand_run(layers, graph)
    # As test_weights_of_later_layers_by_hand: a ends at 51, when its tile is in the buffer, and b's is there
    # at 74. The sum is written: 96 bits, DRAM 75 and 76, done 77. The global PE takes 12 elements: 74 .. 76.
    first, second = machine.results()
    assert (first.end, second.end) == (51, 77)
    assert machine.layers[1].placement == Placement("cached", "gb", (), (Moved("sum", 96),), 96)
    assert first.counts["dram.write_bit"] == first.counts["global_pe.element"] == 0
    counts = second.counts
    assert counts["dram.read_bit"] == 128 and counts["dram.write_bit"] == 96
    assert counts["global_pe.element"] == 12
    # Input 2 words, weights 2, the sum to DRAM 2; the node reads 24 elements of 8 bits, 3 words.
    assert counts["global_buffer.read"] == 2 + 2 + 2 + 3
    # Weights 2, output tile 2, the node's 12 elements 2.
    assert counts["global_buffer.write"] == 2 + 2 + 2


def test_a_residual_that_is_spilled_by_hand():
    steps = (step("a", "x"), node("sum", "add", "a", "y", shape=PIXELS3))
    graph = Graph((("x", chans(8, 3)), ("y", PIXELS3)), steps, ("sum",))
    machine = hand_run([layer("a", 8, 4, 3)], graph)
    # As test_one_block_by_hand: crossbar from 46, in the buffer at 51. 96 bits of y are requested at 46: DRAM
    # 47 and half of 48, in the buffer at 49 + 10. There at 59: write 60 and 61, done 62; elements 59 .. 61.
    (result,) = machine.results()
    assert result.end == 62
    assert result.stall_cycles[0].tolist() == [6, 0, 0, 31, 0, 12, 62 - 49]
    counts = result.counts
    assert counts["dram.read_bit"] == 192 + 256 + 96 and counts["dram.write_bit"] == 96
    assert counts["global_buffer.read"] == 3 + 4 + 2 + 3
    assert counts["global_buffer.write"] == 3 + 4 + 2 + 2 + 2


@pytest.mark.parametrize(("staging", "end", "left"), [(2, 62, 48), (1, 74, 61)])
def test_shares_of_two_output_tiles_by_hand(staging: int, end: int, left: int):
    """Tiles of 8 and 4 of 12 outputs; 40 bits of y and 32 bits of a pool: 26 and 14, 21 and 11."""
    arch = hand_arch(
        dataflows=("ws",),
        accumulation_collector_depth=2,
        accumulation_buffer_words=8,
        accumulator_bits=24,
        output_staging_tiles=staging,
    )
    steps = (step("a", "x"), node("pool", "max_pool", "a", "y", shape=(1, 4, 1, 1)))
    graph = Graph((("x", chans(8, 3)), ("y", (1, 5, 1, 1))), steps, ("pool",))
    (result,) = run(arch, [layer("a", 8, 4, 3)], [replace(ONE_TILE, dataflow="ws")], graph)
    # As test_ws_tile_of_two_pieces_by_hand: complete 44 and 45. Tile 0: crossbar 45-46, 26 bits of y in 46,
    # in the buffer at 47 + 10: there at 57, 21 bits to DRAM in 58, done 59. With room for two, tile 1: 47,
    # 14 bits in 48, there at 59, 11 bits in 60, done 61. With room for one it is asked for at 59: 60, 14 bits
    # in 61, there at 72, 11 bits in 73, done 74.
    # The pool takes time for the 12 + 5 elements it reads, 17 * 8 / 12 with tile 0: from 57, 5 cycles where
    # the rest is there in time, to 62; from 72, ceil(17 * 4 / 12 / 4) = 2 cycles, to 74.
    assert result.end == end
    assert result.stall_cycles[0].tolist() == [6, 0, 0, 31, 0, left - 37, end - left]
    counts = result.counts
    assert counts["dram.read_bit"] == 192 + 256 + 40 and counts["dram.write_bit"] == 32
    assert counts["global_pe.element"] == 17
    # Fetches 3 and 4, writes of 21 and 11 bits; the pool reads 17 elements, 136 bits.
    assert counts["global_buffer.read"] == 3 + 4 + 1 + 1 + 3
    # Reads 3, 4, 1 and 1, tiles of 64 and 32 bits, 4 elements of 8 bits.
    assert counts["global_buffer.write"] == 3 + 4 + 1 + 1 + 1 + 1 + 1


def test_a_share_of_no_bits_moves_nothing_by_hand():
    """8 bits of an operand and of a result in nine tiles of 4 of 36 outputs: 0, then 1 bit each."""
    arch = hand_arch(
        dataflows=("ws",),
        accumulation_collector_depth=1,
        accumulation_buffer_words=18,
        accumulator_bits=24,
        input_buffer_words=64,
    )
    steps = (step("a", "x"), node("max", "max_pool", "a", "y", shape=(1, 1, 1, 1)))
    graph = Graph((("x", chans(8, 9)), ("y", (1, 1, 1, 1))), steps, ("max",))
    (result,) = run(arch, [layer("a", 8, 4, 9)], [replace(ONE_TILE, dataflow="ws", tile_pixels=9)], graph)
    counts = result.counts
    assert counts["dram.read_bit"] == 576 + 256 + 8 and counts["dram.write_bit"] == 8
    # Fetches 9 and 4, eight writes; the pool reads 37 elements of 8 bits.
    assert counts["global_buffer.read"] == 9 + 4 + 8 + 5
    # Reads 9, 4 and eight of y, nine output tiles, the pool's element.
    assert counts["global_buffer.write"] == 9 + 4 + 8 + 9 + 1


def test_a_tensor_that_is_written_and_kept_by_hand():
    layers = [layer("a", 8, 4, 3), layer("b", 4, 4, 3)]
    graph = Graph((("x", chans(8, 3)),), (step("a", "x"), step("b", "a")), ("a", "b"))
    machine = hand_run(layers, graph)
    # a is in the buffer at 51 and in DRAM, 52 and 53, at 54. b reads it from the buffer: 26 cycles as layer 2
    # of test_weights_of_later_layers_by_hand.
    first, second = machine.results()
    assert (first.end, second.end) == (54, 54 + 26)
    assert machine.layers[1].placement.input == "gb"
    assert (first.counts["dram.write_bit"], second.counts["dram.write_bit"]) == (96, 96)
    assert second.counts["dram.read_bit"] == 128


def test_two_written_tensors_by_hand():
    steps = (step("a", "x"), node("gelu", "gelu", "a", shape=PIXELS3))
    graph = Graph((("x", chans(8, 3)),), steps, ("a", "gelu"))
    machine = hand_run([layer("a", 8, 4, 3)], graph)
    # There at 51. a: one and a half cycles of DRAM, 52 to the middle of 53, then the gelu to the end of 54.
    (result,) = machine.results()
    assert result.end == 55
    assert result.counts["dram.write_bit"] == 96 + 96


def test_query_key_value_by_hand():
    layers = [layer(name, 8, 4, 3) for name in ("query", "key", "value")]
    steps = (step("query", "x"), step("key", "x"), step("value", "x"))
    machine = hand_run(layers, Graph((("x", chans(8, 3)),), steps, ("query", "key", "value")))
    # query as test_one_block_by_hand, to 54. Weights of key and value: DRAM 8-11 and 12-15, buffer 22 and
    # 26; key's follow query's on the crossbar, 29-36. x, cached, stays: input 55-60, arrives 63, steps 63 ..
    # 68, last write 71, drain 72-74, complete 77, crossbar 78-80, in the buffer 83, DRAM 84 and 85, done 86.
    # value's weights are sent at 54, when key begins, and go after its input, 61-68. value as key, 32 later.
    results = machine.results()
    assert [result.end for result in results] == [54, 86, 118]
    assert [result.counts["dram.read_bit"] for result in results] == [192 + 256, 256, 256]
    assert [program.placement.input for program in machine.layers] == ["cached", "gb", "gb"]
    assert [program.placement.kept for program in machine.layers] == [192, 192, 192]


def test_weights_that_a_layer_made_by_hand():
    """b of 4 pixels x 4 channels is the weight operand of c."""
    layers = [layer("a", 8, 4, 3), layer("b", 4, 4, 4), layer("c", 4, 4, 3, made_weights=True)]
    steps = (step("a", "x"), step("b", "y"), step("c", "a", "b"))
    graph = Graph((("x", chans(8, 3)), ("y", chans(4, 4))), steps, ("c",))
    machine = Machine(hand_arch(), layers, [ONE_TILE] * 3, graph)
    fetch = machine.layers[2].streams["weight"][0][0]
    while machine.current < 2:
        machine.cycle()
    begin = machine.runs[1].end
    while machine.current < 3:
        machine.cycle()
    # No DRAM: asked and sent when c begins, with its input, 3 cycles of the crossbar, first; 4 cycles,
    # arrives 10 after the begin. Steps 10 .. 12, last write 15, drain 16-18, complete 21, crossbar 22-24, in
    # the buffer 27, DRAM 28 and 29, done 30.
    assert machine.layers[2].placement.weights == "gb" and not fetch.reads_dram
    assert fetch.asked == begin
    result = machine.results()[2]
    assert result.cycles == 30 and result.counts["dram.read_bit"] == 0


def test_steps_without_a_layer_by_hand():
    steps = (node("norm", "layer_norm", "x", shape=chans(8, 3)), step("a", "norm"))
    graph = Graph((("x", chans(8, 3)),), steps, ("a",))
    machine = hand_run([layer("a", 8, 4, 3)], graph)
    # 192 bits of x: DRAM 1-3, in the buffer at 14; 24 elements, 14 .. 19: the layer begins at 20. Its
    # weights, asked at 0, find DRAM idle at 4: 4-7, buffer 18, crossbar 19-26, arrive 29. The input, asked at
    # 20, waits for the in-port: 27-32, arrives 35. Steps 35 .. 40, last write 43, drain 44-46, complete 49,
    # crossbar 50-52, in the buffer 55, DRAM 56 and 57, done 58.
    (result,) = machine.results()
    assert machine.prologue.ends == [20]
    assert result.end == result.cycles == 58
    assert result.stall_cycles[0].tolist() == [6, 0, 0, 29, 35 - 29, 53 - 41, 58 - 53]
    counts = result.counts
    assert counts["dram.read_bit"] == 192 + 256 and counts["global_pe.element"] == 24
    assert counts["global_buffer.read"] == 3 + 4 + 2 + 3
    assert counts["global_buffer.write"] == 3 + 4 + 2 + 3

    # As an output of the graph it is also written, DRAM 21-23, and the step ends at 24. No later than 27.
    machine = hand_run([layer("a", 8, 4, 3)], replace(graph, outputs=("norm", "a")))
    (result,) = machine.results()
    assert machine.prologue.ends == [24]
    assert result.end == 58 and result.counts["dram.write_bit"] == 192 + 96

    # Two of them, of 12 cycles each; the second reads what is resident. Input 39-44: 12 cycles later.
    steps = (steps[0], node("gelu", "gelu", "norm", shape=chans(8, 3)), step("a", "gelu"))
    machine = hand_run([layer("a", 8, 4, 3)], replace(graph, steps=steps), global_pe_elements_per_cycle=2)
    (result,) = machine.results()
    assert machine.prologue.ends == [26, 38]
    assert result.end == 70


def test_reads_of_a_step_without_a_layer_by_hand():
    """Two whole tensors before the weights of the first layer, in the order of tensors."""
    steps = (node("sum", "add", "y", "x", shape=chans(8, 3)), step("a", "sum"))
    graph = Graph((("x", chans(8, 3)), ("y", chans(12, 3))), steps, ("a",))
    machine = hand_run([layer("a", 8, 4, 3)], graph)
    # 192 bits of x, 1-3, and 288 of y, 4 to the middle of 8: in the buffer at 19; 24 elements, 19 .. 24. The
    # weights, not before the port is idle at 9: 9-12, buffer 23, crossbar 24-31, arrive 34. Input 32-37,
    # arrives 40, 5 cycles later than above.
    (result,) = machine.results()
    assert machine.prologue.ends == [25]
    assert result.end == 58 + 5
    assert result.counts["global_buffer.read"] == 3 + 4 + 2 + 8  # the sum reads 60 elements
    assert result.counts["dram.read_bit"] == 192 + 288 + 256


def test_a_node_on_the_host_by_hand():
    layers = [layer("a", 8, 4, 3), layer("b", 4, 4, 3)]
    steps = (step("a", "x"), node("far", "gelu", "a", shape=PIXELS3, unit="none"), step("b", "far"))
    machine = hand_run(layers, Graph((("x", chans(8, 3)),), steps, ("b",)))
    # a is written for the host, to 54. b's input is read from DRAM: 55 and 56, in the buffer at 67, crossbar
    # 68-70, arrives 73, steps 73 .. 75, last write 78, drain 79-81, complete 84, crossbar 85-87, in the
    # buffer 90, DRAM 91 and 92, done 93.
    first, second = machine.results()
    assert (first.end, second.end) == (54, 93)
    assert first.counts["dram.write_bit"] == 96 and second.counts["dram.read_bit"] == 96 + 128
    assert first.counts["global_pe.element"] == second.counts["global_pe.element"] == 0


def test_rows_wait_for_everything_else_by_hand():
    """rms_norm is row work: a cycle, after the add of a spilled operand at 59 and the write, done at 62."""
    steps = (
        step("a", "x"),
        node("sum", "add", "a", "y", shape=PIXELS3),
        node("norm", "rms_norm", "sum", shape=PIXELS3),
    )
    graph = Graph((("x", chans(8, 3)), ("y", PIXELS3)), steps, ("norm",))
    (result,) = hand_run([layer("a", 8, 4, 3)], graph, global_pe_elements_per_cycle=12).results()
    assert result.end == 62 + 1


def test_shares_are_staged():
    """Of 49152 bits, two output tiles of 96 and what goes with all of a layer's outputs, with each."""
    arch, one = hand_arch(), layer("a", 8, 4, 3)
    y = 49152 // 2 - 96
    why = "staging exceeds the activation region"
    for operands, written, expected in (
        ((y,), (), None),
        ((y + 1,), (), why),
        ((), (10**6,), None),  # the first that is written has the room of the tile
        ((), (96, y), None),
        ((), (96, y + 1), why),
        ((y - 10,), (96, 10), None),
    ):
        placement = Placement(
            "cached",
            "gb",
            tuple(Moved("o", bits) for bits in operands),
            tuple(Moved("u", bits) for bits in written),
            0,
        )
        assert refusal(arch, one, ONE_TILE, placement) == expected


def test_the_outputs_of_all_tiles_are_numbered():
    for seed in range(30):
        machine = Machine(*random_run(seed, "graph"))
        for own, program in zip(machine.runs, machine.layers, strict=True):
            firsts = [first for pe in sorted(program.first_outputs) for first in program.first_outputs[pe]]
            sizes = np.diff([*firsts, own.outputs])
            assert (sizes > 0).all() and sizes.sum() == own.outputs
