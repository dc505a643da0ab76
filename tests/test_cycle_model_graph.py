"""The cycle-stepped model on graphs, counted by hand from docs/residency.md, timing.md and counts.md: where
tensors live, what nodes read and write, steps without a layer.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from cycle_model import run
from cycle_model.machine import Machine
from cycle_model.placement import Moved, Placement, Placing, place_run, placements_of
from cycle_model.program import refusal
from cycle_model.steps import UnbuildableGraph, walk
from graphs import random_graph
from hand_machine import ONE_TILE, hand_arch, hand_layer
from machines import random_run
from pick import pick

from accelsim.machine.arch import Arch
from accelsim.workload.geometry import Geometry
from accelsim.workload.graph import Graph, LayerStep, Node, Shape
from accelsim.workload.layer import QuantizedLayer

UNIT = 256  # bits of 32 pixels of one channel; the activation region of `small` has 24


def small() -> dict[str, object]:
    return {"global_buffer_kb": 1}


def chans(n: int, pixels: int = 32) -> Shape:
    return pixels, n, 1, 1


def step(name: str, *reads: str) -> LayerStep:
    return LayerStep(name, reads)


def node(name: str, op: str, *reads: str, shape: Shape, unit: str = "global_pe") -> Node:
    return Node(name, op, reads, shape, unit)  # type: ignore[arg-type]


def layer(name: str, c: int, k: int, pixels: int = 32, *, made_weights: bool = False) -> QuantizedLayer:
    return hand_layer(pixels, c, k, name=name, weight_is_activation=made_weights)


def residents(layers: list[QuantizedLayer], graph: Graph, **machine: object) -> list[set[str]]:
    """After each step."""
    return [set(names) for names in place_run(hand_arch(**(small() | machine)), layers, graph).residents]


# ------------------------------------------------------------------------------------- hosts, steps and sizes


def test_hosts_and_steps():
    """Each node goes with the layer that makes the last of what it reads, also through other nodes."""
    layers = [layer("a", 4, 8), layer("b", 8, 4)]
    graph = Graph(
        inputs=(("x", chans(4)), ("y", chans(8))),
        steps=(
            node("first", "layer_norm", "x", shape=chans(4)),
            step("a", "first"),
            node("far", "gelu", "a", shape=chans(8)),
            step("b", "a"),
            node("late", "add", "far", "y", shape=chans(8)),
            node("sum", "add", "b", "late", shape=chans(4)),
            node("out", "gelu", "sum", shape=chans(4), unit="none"),
        ),
        outputs=("out",),
    )
    found = walk(hand_arch(), layers, graph)
    alone, a, b = found.steps
    assert alone.layer is None and [work.name for work in alone.work] == ["first"]
    # `late` stands after b but reads nothing of it.
    assert [work.name for work in a.work] == ["far", "late"] and a.operands == ("y",)
    assert a.makes == ("a", "far", "late")
    assert [work.name for work in b.work] == ["sum"] and b.operands == ("late",)
    tensors = found.tensors
    assert list(tensors) == ["x", "y", "first", "a", "far", "b", "late", "sum", "out"]
    assert tensors["x"].readers == (0,) and tensors["first"].readers == (1,)
    assert tensors["a"].readers == (2,) and tensors["far"].readers == () and tensors["late"].readers == (2,)
    assert [name for name in tensors if tensors[name].goes_to_dram] == ["sum"]
    assert tensors["out"].made_in is None and tensors["out"].there_after == 2


def test_what_the_host_makes_is_not_there_for_its_own_step():
    graph = Graph(
        inputs=(("x", chans(4)),),
        steps=(
            step("a", "x"),
            node("far", "gelu", "a", shape=chans(8), unit="none"),
            node("back", "gelu", "far", shape=chans(8)),
        ),
        outputs=("back",),
    )
    with pytest.raises(UnbuildableGraph, match="far"):
        walk(hand_arch(), [layer("a", 4, 8)], graph)


def test_sizes():
    """4 pixels of 6 channels are 4 * 6 * 8 bits as stored, and 4 * 2 words of 32 as a layer's input."""
    layers = [layer("a", 4, 6, 4), layer("b", 6, 4, 4), layer("c", 4, 4, 4, made_weights=True)]
    graph = Graph(
        inputs=(("x", chans(6, 4)), ("y", chans(6, 4))),
        steps=(
            step("a", "x"),
            step("b", "a"),
            node("sum", "add", "b", "y", shape=chans(4, 4)),
            node("pool", "max_pool", "sum", shape=chans(4, 1)),
            step("c", "y", "pool"),
        ),
        outputs=("c",),
    )
    tensors = walk(hand_arch(), layers, graph).tensors
    assert {name: tensor.stored for name, tensor in tensors.items()} == {
        "x": 192,
        "y": 192,
        "a": 192,
        "b": 128,
        "sum": 128,
        "pool": 32,
        "c": 128,
    }
    # x is only layer a's input of 4 words; a is read in words; y is stored for a node; pool is c's weights.
    sizes = {name: tensor.size for name, tensor in tensors.items()}
    assert sizes == {"x": 128, "y": 192, "a": 256, "b": 128, "sum": 128, "pool": 128, "c": 128}


# -------------------------------------------------------------------------------------------------- placement


def test_a_tensor_goes_before_its_last_reader():
    layers = [layer("a", 4, 8), layer("b", 8, 4), layer("c", 4, 16), layer("d", 16, 4), layer("e", 8, 4)]
    graph = Graph(
        inputs=(("x", chans(4)),),
        steps=(step("a", "x"), step("b", "a"), step("c", "b"), step("d", "c"), step("e", "a")),
        outputs=("d", "e"),
    )
    # In step c, 4 of b and 16 of c leave no room for 8 of a: dropped, a is written and read, 16 in all;
    # without c it were 32. b could go instead, but beside 24 there is no room to read its 4.
    assert residents(layers, graph) == [{"a"}, {"b"}, {"c"}, set(), set()]
    placements = placements_of(hand_arch(**small()), layers, graph)
    assert [p.input for p in placements] == ["cached", "gb", "gb", "gb", "cached"]
    assert [[moved.name for moved in p.written] for p in placements] == [["a"], [], [], ["d"], ["e"]]
    assert [p.kept // UNIT for p in placements] == [4 + 8, 8 + 4, 4 + 16, 16, 8]


def test_of_equal_placements_the_first_tensor_stays():
    layers = [layer("a", 12, 8), layer("b", 8, 4), layer("c", 8, 4)]
    steps = (
        step("a", "x"),
        node("gelu", "gelu", "a", shape=chans(8)),
        step("b", "gelu"),
        step("c", "a"),
    )
    graph = Graph((("x", chans(12)),), steps, ("b", "c"))
    # Beside an input of 12, cached, there is room for one of 8: a or its gelu. a comes first.
    assert residents(layers, graph) == [{"a"}, {"a"}, set()]
    # The first tensor does not depend on who reads first, only on the order.
    steps = (steps[0], steps[1], step("b", "a"), step("c", "gelu"))
    assert residents(layers, Graph((("x", chans(12)),), steps, ("b", "c"))) == [{"a"}, set(), set()]


def test_of_equal_placements_the_first_step_decides():
    """x of 4 stays for b. a and b of 12 do not fit together, nor beside the output of c."""
    layers = [layer("a", 4, 12), layer("b", 4, 12), layer("c", 12, 4), layer("d", 12, 4)]
    graph = Graph(
        (("x", chans(4)),), (step("a", "x"), step("b", "x"), step("c", "a"), step("d", "b")), ("c", "d")
    )
    assert residents(layers, graph) == [{"x", "a"}, {"a"}, set(), set()]
    placements = placements_of(hand_arch(**small()), layers, graph)
    assert [p.input for p in placements] == ["cached", "gb", "gb", "cached"]


def test_only_an_input_that_has_come_whole_stays():
    def strided(stride: int) -> QuantizedLayer:
        one = layer("a", 4, 4)
        geometry = Geometry(N=1, C=4, H=3, W=3, K=4, R=1, S=1, stride=(stride, stride))
        return replace(one, spec=replace(one.spec, layer=replace(one.spec.layer, geometry=geometry)))

    graph = Graph((("x", (1, 4, 3, 3)),), (step("a", "x"), step("b", "x")), ("a", "b"))
    for stride, expected in ((1, {"x"}), (2, set())):
        layers = [strided(stride), replace(strided(1), spec=layer("b", 4, 4, 9).spec)]
        assert residents(layers, graph)[0] == expected


def test_an_input_that_stays_has_its_whole_size():
    """x is 4 of what a reads, 8 of what b reads."""
    layers = [layer("a", 4, 4), layer("b", 8, 4)]
    graph = Graph((("x", chans(4)),), (step("a", "x"), step("b", "x")), ("a", "b"))
    assert residents(layers, graph) == [{"x"}, set()]
    assert [p.kept // UNIT for p in placements_of(hand_arch(**small()), layers, graph)] == [8, 8]


@pytest.mark.parametrize(
    ("c", "expected", "inputs"),
    [
        (24, [{"a"}, set(), set()], ["cached", "streamed", "streamed"]),
        (20, [set(), {"x"}, set()], ["cached", "cached", "gb"]),
        (16, [{"a"}, {"x"}, set()], ["cached", "cached", "gb"]),
    ],
)
def test_a_streamed_input_does_not_stay(c: int, expected: list[set[str]], inputs: list[str]):
    """x is read by b and by c; a of 4 by b's node, whose output takes a room of 1, or 2 with shares of a."""
    layers = [layer("a", 4, 4), layer("b", c, 4), layer("c", c, 4)]
    steps = (step("a", "y"), step("b", "x"), node("sum", "add", "b", "a", shape=chans(4)), step("c", "x"))
    graph = Graph((("x", chans(c)), ("y", chans(4))), steps, ("sum", "c"))
    # 24 never fit beside any output, and 2 * (4 + 1) do. Of 20 + 4 + 1 and 20 + 2 the second fits: writing
    # and reading a, 8, is less than reading x again. 16 + 4 + 1 fit.
    assert residents(layers, graph) == expected
    assert [p.input for p in placements_of(hand_arch(**small()), layers, graph)] == inputs


def test_what_a_node_reads_again_counts_again():
    """The input x of 8 is read by the layer and by its node, whether it is cached or not."""
    layers = [layer("a", 8, 8)]
    steps = (step("a", "x"), node("sum", "add", "a", "x", shape=chans(8)))
    graph = Graph((("x", chans(8)),), steps, ("sum",))
    placing = Placing(hand_arch(**small()), layers, graph)
    assert placing.dram_bits([frozenset()]) == (8 + 8 + 8) * UNIT
    (placement,) = placements_of(hand_arch(**small()), layers, graph)
    # R: two tiles of 4 pixels x 4 channels, each with as many bits of x: 512 bits.
    assert placement == Placement(
        "cached", "cached", (Moved("x", 8 * UNIT),), (Moved("sum", 8 * UNIT),), 8 * UNIT
    )


@pytest.mark.parametrize(("elements", "where"), [(670, "cached"), (671, "streamed")])
def test_room_for_the_shares_of_an_operand(elements: int, where: str):
    """Of 10 pixels: in_bits 1600, two output tiles of 128, with each 16 / 40 of y, 8 bits an element."""
    layers = [layer("a", 20, 4, 10)]
    # 6144 - 1600 - 256 are 2 * 2144, 16 / 40 of 5360 bits; of 5368 they are 2147.2.
    graph = Graph(
        (("x", chans(20, 10)), ("y", (1, elements, 1, 1))),
        (step("a", "x"), node("sum", "add", "a", "y", shape=chans(4, 10))),
        ("sum",),
    )
    (placement,) = placements_of(hand_arch(**small()), layers, graph)
    assert placement.input == where


def test_eight_tensors_at_most_are_resident():
    """a and seven of nine small nodes; all are read next by b."""
    nodes = [node(f"n{i}", "gelu", "a", shape=(1, 1, 1, 1)) for i in range(9)]
    sums = node("sum", "add", "b", *(one.name for one in nodes), shape=chans(4))
    layers = [layer("a", 4, 4), layer("b", 4, 4)]
    graph = Graph((("x", chans(4)),), (step("a", "x"), *nodes, step("b", "a"), sums), ("sum",))
    placed = place_run(hand_arch(), layers, graph)
    assert placed.residents[0] == {"a", *(f"n{i}" for i in range(7))}
    assert [moved.name for moved in placed.layers[0].written] == ["n7", "n8"]
    assert [moved.name for moved in placed.layers[1].spilled] == ["n7", "n8"]


def test_weights_that_are_resident():
    layers = [layer("a", 4, 8), layer("b", 4, 4, 8), layer("c", 8, 8, made_weights=True)]
    graph = Graph(
        (("x", chans(4)), ("y", chans(4, 8))), (step("a", "x"), step("b", "y"), step("c", "a", "b")), ("c",)
    )
    # b of 8 pixels x 4 channels is 1 unit as stored; as weights it has 8 x 2 words of 32 bits, 2 units.
    placements = placements_of(hand_arch(**small()), layers, graph)
    assert [p.weights for p in placements] == ["cached", "cached", "gb"]
    assert [p.kept // UNIT for p in placements] == [4 + 8, 8 + 1 + 2, 8 + 2]


def placed_layers(seed: int) -> tuple[Arch, list[QuantizedLayer], Graph]:
    """Layers of all sizes that are only placed, and a graph on them."""
    rng = np.random.default_rng(seed)
    arch = hand_arch(
        pes=int(rng.integers(1, 4)),
        global_buffer_kb=1,
        gb_banks=int(rng.integers(4, 17)),
        gb_weight_banks=1,
        output_staging_tiles=int(rng.integers(1, 9)),
    )
    layers = []
    for i in range(int(rng.integers(2, 6))):
        pixels, c, k = (int(rng.integers(*pick(rng, (1, 13), (12, 33)))) for _ in range(3))
        layers.append(layer(f"layer{i}", c, k, pixels, made_weights=bool(rng.random() < 0.3)))
    return arch, layers, random_graph(rng, layers)


@pytest.mark.parametrize("first", [0, 1000, *(pytest.param(i, marks=pytest.mark.slow) for i in (2000, 3000))])
def test_nothing_is_left_out_that_could_be_better(first: int):
    """The pruned search against every placement that the rules allow."""
    several = compared = 0
    for seed in range(first, first + 1000):
        placing = Placing(*placed_layers(seed))
        tried = list(islice(placing.all(), 501))
        if len(tried) > 500:
            continue
        bits = [(placing.dram_bits(after), i, after) for i, after in enumerate(tried)]
        allowed = [(cost, i, after) for cost, i, after in bits if cost is not None]
        assert placing.best() == min(allowed, key=lambda found: found[:2])[2], seed
        compared += 1
        several += len({cost for cost, _, _ in allowed}) > 1
    assert compared > 800 and several > 400, (compared, several)


# ----------------------------------------------------------------------------------------------------- cycles

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
