"""Where the cycle-stepped model keeps data, counted by hand from docs/machine.md: tensors that stay, weights
fetched ahead, space in the weight region.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from cycle_model.machine import Machine
from cycle_model.placement import Placement, placements_of
from cycle_model.program import compile_run, refusal
from cycle_model.sizes import region_bits
from hand_machine import ONE_TILE, hand_arch, hand_layer


def test_regions_of_the_global_buffer():
    assert region_bits(hand_arch(global_buffer_kb=2)) == (4096, 12288)  # one of four banks
    assert region_bits(hand_arch(global_buffer_kb=2, gb_weight_kb=1)) == (8192, 8192)


UNIT = 256  # bits of 32 pixels of one channel, r of a layer and a 24th of the activation region


Placed = tuple[str, str, str, int]  # of weights, input and output; what is kept


def places(placements: list[Placement]) -> list[Placed]:
    """Of a chain."""
    assert not any(placement.spilled for placement in placements)
    return [(p.weights, p.input, "dram" if p.written else "stays", p.kept) for p in placements]


def channels(*layers: tuple[int, int]) -> list[Placed]:
    """Of layers of 32 pixels with these input and output channels; regions of 8 and 24 units."""
    return places(placements_of(hand_arch(global_buffer_kb=1), [hand_layer(32, c, k) for c, k in layers]))


def placed(weights: str, inputs: str, output: str, kept: int) -> Placed:
    return weights, inputs, output, kept * UNIT


# Weights take c * k / 32 units.
def test_tensors_that_all_fit_stay():
    assert channels((4, 8), (8, 8), (8, 4)) == [
        placed("cached", "cached", "stays", 4 + 8),
        placed("cached", "gb", "stays", 8 + 8),
        placed("cached", "gb", "dram", 8),
    ]


def test_of_two_tensors_that_do_not_fit_together_one_stays():
    # Layer 1 does not allow its output alone: 16 + 16 are more than 24 whether it caches its input or not.
    assert channels((4, 16), (16, 16), (16, 4)) == [
        placed("cached", "cached", "stays", 4 + 16),
        placed("cached", "gb", "dram", 16),
        placed("cached", "cached", "dram", 16),
    ]


def test_the_tensor_that_saves_more_stays():
    # Tensors 1 and 2 of 16 do not fit together. Tensor 1 saves 16 written and 8 read, tensor 2 12 and 16, and
    # layer 1 can cache its input beside it: 8 + 16 <= 24.
    assert channels((4, 16), (8, 12), (16, 4)) == [
        placed("cached", "cached", "dram", 4),
        placed("cached", "cached", "stays", 8 + 16),
        placed("cached", "gb", "dram", 16),
    ]


def test_of_equal_choices_the_first_tensor_stays():
    # Both save 24.
    assert channels((4, 16), (8, 8), (16, 4)) == [
        placed("cached", "cached", "stays", 4 + 16),
        placed("cached", "gb", "dram", 16),
        placed("cached", "cached", "dram", 16),
    ]


def test_an_output_stays_beside_a_streamed_input():
    # 20 + 8 > 24, but 2 * 8 <= 24.
    assert channels((20, 8), (8, 4)) == [
        placed("cached", "streamed", "stays", 8),
        placed("cached", "gb", "dram", 8),
    ]
    # 2 * 16 > 24: it goes to DRAM, and the input beside the room of 1 for it may be cached.
    assert channels((20, 16), (16, 4)) == [
        placed("streamed", "cached", "dram", 20),
        placed("cached", "cached", "dram", 16),
    ]


def test_an_input_streamed_beside_heavy_weights_counts_twice():
    # Regions of 4 and 28 units, weights of 6. If tensor 1 of 8 stays, the input of 24 is streamed, since 24 +
    # 8 > 28: that counts 48, more than the 24 + 8 + 8 of an input that is cached.
    arch = hand_arch(global_buffer_kb=1, gb_banks=8, gb_weight_banks=1)
    layers = [hand_layer(32, 24, 8), hand_layer(32, 8, 4)]
    assert places(placements_of(arch, layers)) == [
        placed("streamed", "cached", "dram", 24),
        placed("cached", "cached", "dram", 8),
    ]
    # One PE's weight buffers hold 4 units, two PEs' 8. (r is then 2.)
    assert places(placements_of(arch.model_copy(update={"pes": 2}), layers)) == [
        placed("streamed", "streamed", "stays", 8),
        placed("cached", "gb", "dram", 8),
    ]
    # A weight region of 8 takes them too; then the input of 24 is streamed in any case.
    arch = arch.model_copy(update={"gb_weight_banks": 2})
    assert places(placements_of(arch, layers)) == [
        placed("cached", "streamed", "stays", 8),
        placed("cached", "gb", "dram", 8),
    ]


def test_room_for_outputs_on_their_way_to_dram():
    # r is half a unit a tile: an input of 20 may be cached beside one of 4, not of 4.5.
    arch = hand_arch(global_buffer_kb=1, output_staging_tiles=8)
    assert places(placements_of(arch, [hand_layer(32, 20, 4)])) == [placed("cached", "cached", "dram", 20)]
    arch = hand_arch(global_buffer_kb=1, output_staging_tiles=9)
    assert places(placements_of(arch, [hand_layer(32, 20, 4)])) == [placed("cached", "streamed", "dram", 0)]


def test_a_layer_alone():
    assert channels((20, 4)) == [placed("cached", "cached", "dram", 20)]
    assert channels((24, 4)) == [placed("cached", "streamed", "dram", 0)]  # and 1 for the output


def test_weights_that_a_layer_made():
    arch, first = hand_arch(global_buffer_kb=1), hand_layer(32, 4, 8)

    def second(c: int, k: int) -> Placed:
        layer = hand_layer(32, c, k, weight_is_activation=True)
        return places(placements_of(arch, [first, layer]))[1]

    # In a chain they are an input of the graph, of 8 * 8 / 32 and 16 * 32 / 32, and come from DRAM.
    assert second(8, 8) == placed("cached", "gb", "dram", 8)
    assert second(16, 32) == placed("streamed", "gb", "dram", 16)


def test_staging_beside_what_is_kept():
    # 2048 of 6144 bits kept; a stream stages two tiles of 3 pixels x 5 words x 32 bits.
    arch = hand_arch(global_buffer_kb=1, pes=8, weight_buffer_words=16)
    layers = [hand_layer(32, 20, 8), hand_layer(32, 8, 4)]
    placement, _ = placements_of(arch, layers)
    assert places([placement]) == [placed("cached", "streamed", "stays", 8)]
    mapping = replace(ONE_TILE, tile_pixels=3, pixel_split=4)
    assert refusal(arch, layers[0], mapping, placement) is None  # 4 streams: 3840
    why = "staging exceeds the activation region"
    assert refusal(arch, layers[0], replace(mapping, pixel_split=5), placement) == why  # 4800


def fetch_times(machine: Machine) -> dict[str, tuple[int | None, int | None, int | None]]:
    """Of every fetch, by layer, operand, stream and index: when it was asked, in the global buffer, sent off.

    None for one that does not read DRAM, and for what has not happened.
    """
    fetches = {
        f"{program.index} {operand} {stream}.{fetch.index}": fetch
        for program in machine.layers
        for operand, streams in program.streams.items()
        for stream, own in streams.items()
        for fetch in own
    }
    in_buffer: dict[str, int] = {}
    ended: dict[str, int] = {}
    while machine.current < len(machine.layers):
        assert machine.now < 1000
        now = machine.now
        machine.cycle()
        for name, fetch in fetches.items():
            if fetch.in_buffer:
                in_buffer.setdefault(name, now)
            if fetch.ended:
                ended.setdefault(name, now + 1)  # found at the end of its last cycle
    return {name: (fetch.asked, in_buffer.get(name), ended.get(name)) for name, fetch in fetches.items()}


THREE_TILES = replace(ONE_TILE, tile_pixels=8)  # of weights, with 12 output channels


@pytest.mark.parametrize(
    ("small", "ahead", "third"),
    [
        ({}, None, (2, 31)),
        ({"global_buffer_kb": 1, "gb_banks": 16, "gb_weight_banks": 1}, 2, (44, 59)),
    ],
)
def test_weights_fetched_ahead_by_hand(small: dict[str, object], ahead: int | None, third: tuple[int, int]):
    """Three weight tiles of 256 bits: cached, or streamed with a weight region of just two."""
    arch = hand_arch(out_fifo_words=64, **small)
    machine = Machine(arch, [hand_layer(m=8, c=8, k=12)], [THREE_TILES])
    assert machine.layers[0].weight_prefetch_depth == ahead
    # A stream asks for one read a cycle. Input 512 bits: DRAM 1-8, buffer 19, crossbar 20-35, arrives 38.
    # Weights: DRAM 9-12 and 13-16, buffer 23 and 27, crossbar 36-43 and 44-51, arrive 46 and 54. If cached,
    # the third follows at once: asked at 2, DRAM 17-20, buffer 31. Otherwise it is asked when the first is
    # through the crossbar at 44: DRAM 45-48, buffer 59. The first has two blocks of 2 vectors x 4 pixels, 46
    # .. 53 and 54 .. 61, and is released at 59, after the first step of the last vector at 58: the third is
    # sent at 59, crossbar 60-67, arrives 70, before it is wanted at 78.
    assert fetch_times(machine) == {
        "0 input 0.0": (0, 19, 36),
        "0 weight 0.0": (0, 23, 44),
        "0 weight 0.1": (1, 27, 52),
        "0 weight 0.2": (*third, 68),
    }
    # The last block takes 86 .. 93: last write 96, drain 97-100, complete 103, 128 bits: crossbar 104-107, in
    # the buffer 110, DRAM 111 and 112, done 113.
    (result,) = machine.results()
    assert result.end == 113
    assert result.stall_cycles[0].tolist() == [48, 0, 0, 46, 0, 108 - 94, 113 - 108]


def test_weights_one_tile_ahead_by_hand():
    """The same with a weight region of 8192 / 17 = 481 bits, which holds one tile."""
    arch = hand_arch(out_fifo_words=64, global_buffer_kb=1, gb_banks=17, gb_weight_banks=1)
    machine = Machine(arch, [hand_layer(m=8, c=8, k=12)], [THREE_TILES])
    assert machine.layers[0].weight_prefetch_depth == 1
    # The second tile is asked when the first is through the crossbar at 44: DRAM 45-48, buffer 59, crossbar
    # 60-67, arrives 70, and its blocks take 70 .. 77 and 78 .. 85. The third likewise at 68: DRAM 69-72,
    # buffer 83, crossbar 84-91, arrives 94.
    assert fetch_times(machine) == {
        "0 input 0.0": (0, 19, 36),
        "0 weight 0.0": (0, 23, 44),
        "0 weight 0.1": (44, 59, 68),
        "0 weight 0.2": (68, 83, 92),
    }
    # Blocks 94 .. 101 and 102 .. 109, 16 cycles later than above.
    (result,) = machine.results()
    assert result.end == 113 + 16
    assert result.stall_cycles[0].tolist() == [48, 0, 0, 46 + 8 + 8, 0, 124 - 110, 129 - 124]


def test_an_input_passes_weights_that_wait_for_space_by_hand():
    """Two streams in a weight region of one tile: none ahead. Two weight tiles of 256 bits in each, and
    three input tiles of 4 pixels for both, 256 bits each.
    """
    arch = hand_arch(out_fifo_words=64, global_buffer_kb=1, gb_banks=17, gb_weight_banks=1, pes=2)
    mapping = replace(ONE_TILE, order="PK", k_split=2)
    machine = Machine(arch, [hand_layer(m=12, c=8, k=16)], [mapping])
    assert machine.layers[0].weight_prefetch_depth == 0
    # Nothing is released before a PE's third position: a stream asks at 0 and 1.
    # First input and weights of PE 0: DRAM 1-4 and 5-8, buffer 15 and 19, crossbar 16-23 and 24-31, arrive 26
    # and 34. The second input reads DRAM 9-12 while the weights of PE 1, asked before it, wait: buffer 23,
    # crossbar, when both in-ports are free, 32-39, arrives 42. The third, asked at 24, DRAM 25-28, buffer 39.
    # Weights of PE 1 have space at 32: DRAM 33-36, buffer 47, crossbar 48-55, arrive 58. Second weights of PE
    # 0 at 56: DRAM 57-60, buffer 71, crossbar 72-79, arrive 82. Of PE 1 at 80: DRAM 81-84, buffer 95,
    # crossbar 96-103, arrive 106.
    # Blocks of the first input take 34 .. 41 and 82 .. 89 in PE 0, 58 .. 65 and 106 .. 113 in PE 1. It is
    # released in both at 114, and the third is sent: 115-122, arrives 125.
    assert fetch_times(machine) == {
        "0 input 0.0": (0, 15, 24),
        "0 input 0.1": (1, 23, 40),
        "0 input 0.2": (24, 39, 123),
        "0 weight 0.0": (0, 19, 32),
        "0 weight 0.1": (1, 71, 80),
        "0 weight 1.0": (0, 47, 56),
        "0 weight 1.1": (1, 95, 104),
    }
    # PE 0 goes on with 90 .. 105, waits for the third input, 125 .. 140: last write 143, drain 144-147,
    # complete 150, crossbar 151-154. PE 1 with 114 .. 145, the same 5 cycles later: crossbar 156-159, in the
    # buffer 162, DRAM 163 and 164, done 165.
    (result,) = machine.results()
    assert result.end == 165
    assert result.stall_cycles.tolist() == [
        [48, 0, 0, 34 + 40, 125 - 106, 155 - 141, 165 - 155],
        [48, 0, 0, 58 + 40, 0, 160 - 146, 165 - 160],
    ]


def test_weights_of_later_layers_by_hand():
    """They are asked a cycle after those of the layer before, and kept until a half is released."""
    layers = [hand_layer(m=3, c=8, k=4), hand_layer(m=3, c=4, k=4), hand_layer(m=3, c=4, k=4)]
    machine = Machine(hand_arch(), layers, [ONE_TILE] * 3)
    # Layer 0 as above, and its output in the buffer, at 51, ends it. Weights of 128 bits, when DRAM has
    # nothing else to do: 8-9 and 10-11, buffer 20 and 22. Those of layer 1 follow on the crossbar at 29-32.
    # Layer 0's are released at 35, after the first step of its second vector, but those of layer 2 also wait
    # for layer 1 to begin, at 51: its input, requested in the same cycle, has the port first, 52-54, and then
    # they, 55-58. Inputs of 96 bits come from the buffer when the layer before has ended.
    times = fetch_times(machine)
    assert times == {
        "0 input 0.0": (0, 14, 21),
        "0 weight 0.0": (0, 18, 29),
        "1 input 0.0": (51, None, 55),
        "1 weight 0.0": (1, 20, 33),
        "2 input 0.0": (74, None, 78),
        "2 weight 0.0": (2, 22, 59),
    }
    # Layer 1: input 52-54, arrives 57, steps 57 .. 59, last write 62, drain 63-65, complete 68, crossbar
    # 69-71, in the buffer 74. Layer 2 the same 23 cycles later, and DRAM 98 and 99, done 100.
    results = machine.results()
    assert [result.end for result in results] == [51, 74, 100]
    assert results[0].stall_cycles[0].tolist() == [6, 0, 0, 31, 0, 49 - 37, 51 - 49]
    assert results[1].stall_cycles[0].tolist() == [3, 0, 0, 0, 57 - 51, 72 - 60, 74 - 72]
    assert results[2].stall_cycles[0].tolist() == [3, 0, 0, 0, 80 - 74, 95 - 83, 100 - 95]
    assert [result.counts["dram.read_bit"] for result in results] == [192 + 256, 128, 128]
    assert [result.counts["dram.write_bit"] for result in results] == [0, 0, 96]

    spec = layers[2].spec
    layer = replace(spec.layer, weight_is_activation=True)
    layers[2] = replace(layers[2], spec=replace(spec, layer=layer))
    machine = Machine(hand_arch(), layers, [ONE_TILE] * 3)
    # They are asked when layer 1 has ended: DRAM 75-76, buffer 87, crossbar 88-91, arrive 94 and not 80.
    assert fetch_times(machine) == times | {"2 weight 0.0": (74, 87, 92)}
    assert [result.end for result in machine.results()] == [51, 74, 100 + 14]


def test_weights_of_a_later_layer_use_an_idle_dram_by_hand():
    """Layer 0 has inputs of 3 x 256 bits, layer 1 weights of 3 x 1024 bits, all cached, and inputs of 768."""
    arch = hand_arch(weight_buffer_words=16, input_buffer_words=64)
    layers = [hand_layer(m=12, c=8, k=4), hand_layer(m=3, c=32, k=12)]
    machine = Machine(arch, layers, [ONE_TILE] * 2)
    # First input and weights of layer 0: DRAM 1-4 and 5-8, buffer 15 and 19, crossbar 16-23 and 24-31, arrive
    # 26 and 34. Second input, asked at 1: DRAM 9-12, buffer 23, crossbar 32-39, arrives 42.
    # Layer 1 asks at 1, 2 and 3. Its first weights find DRAM idle at 13: 13-28, buffer 39, crossbar 40-71,
    # arrive 74. The third input, asked at 24, comes next: DRAM 29-32, buffer 43, crossbar 72-79, arrives 82.
    # The other weights: 33-48, buffer 59, and 49-64, buffer 75; not sent before layer 0 ends.
    # Blocks of layer 0: 34 .. 41, 42 .. 49, 82 .. 89; last write 92, drain 93-96, complete 99, crossbar
    # 100-103, in the buffer, where it stays, 106. Then input, 107-130, arrives 133, before the second
    # weights, 131-162, arrive 165. The block of the first takes 133 .. 156, and they are released at 155,
    # after the first step of the last of 8 vectors: the third follow at 163-194, arrive 197.
    assert fetch_times(machine) == {
        "0 input 0.0": (0, 15, 24),
        "0 input 0.1": (1, 23, 40),
        "0 input 0.2": (24, 43, 80),
        "0 weight 0.0": (0, 19, 32),
        "1 input 0.0": (106, None, 131),
        "1 weight 0.0": (1, 39, 72),
        "1 weight 0.1": (2, 59, 163),
        "1 weight 0.2": (3, 75, 195),
    }
    # The last block takes 197 .. 220: last write 223, drain 224-226, complete 229, crossbar 230-232, in the
    # buffer 235, DRAM 236 and 237, done 238.
    results = machine.results()
    assert [result.end for result in results] == [106, 238]
    assert results[0].stall_cycles[0].tolist() == [24, 0, 0, 34, 82 - 50, 104 - 90, 106 - 104]
    assert results[1].stall_cycles[0].tolist() == [72, 0, 0, 8 + 8, 133 - 106, 233 - 221, 238 - 233]


@pytest.mark.parametrize(
    ("banks", "pes", "k", "ahead"),
    [
        (16, 1, 12, 2),  # 768 bits do not fit, 2 x 256 do
        (17, 1, 12, 1),
        (16, 2, 12, 1),  # two streams
        (17, 2, 12, 0),
        (8, 2, 20, 2),
        (9, 2, 20, 1),
        (5, 2, 28, 3),
        (9, 2, 12, None),  # 768 bits are cached
    ],
)
def test_how_many_weight_tiles_are_fetched_ahead(banks: int, pes: int, k: int, ahead: int | None):
    """Tiles of 256 bits, one bank of 1 kB for weights."""
    arch = hand_arch(global_buffer_kb=1, gb_banks=banks, gb_weight_banks=1, pes=pes)
    mapping = replace(THREE_TILES, k_split=pes)
    program = compile_run(arch, [hand_layer(m=8, c=8, k=k)], [mapping]).layers[0]
    assert program.weight_prefetch_depth == ahead
