"""Where the cycle-stepped model keeps data, counted by hand from docs/machine.md: tensors that stay, weights
fetched ahead, space in the weight region.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from cycle_model.machine import Machine
from cycle_model.placement import Placement, placements_of, region_bits
from cycle_model.program import compile_run, refusal
from hand_machine import ONE_TILE, hand_arch, hand_layer


def test_regions_of_the_global_buffer():
    assert region_bits(hand_arch(global_buffer_kb=2)) == (4096, 12288)  # one of four banks
    assert region_bits(hand_arch(global_buffer_kb=2, gb_weight_kb=1)) == (8192, 8192)


UNIT = 256  # bits of 32 pixels of one channel, r of a layer and a 24th of the activation region


def channels(*layers: tuple[int, int]) -> list[Placement]:
    """Of layers of 32 pixels with these input and output channels; regions of 8 and 24 units."""
    return placements_of(hand_arch(global_buffer_kb=1), [hand_layer(32, c, k) for c, k in layers])


def placed(weights: str, inputs: str, output: str, kept: int) -> Placement:
    return Placement(weights, inputs, output == "dram", kept * UNIT)


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


def test_a_layer_alone():
    assert channels((20, 4)) == [placed("cached", "cached", "dram", 20)]
    assert channels((24, 4)) == [placed("cached", "streamed", "dram", 0)]  # and 1 for the output


def test_weights_that_a_layer_made():
    arch, first = hand_arch(global_buffer_kb=1), hand_layer(32, 4, 8)

    def second(c: int, k: int) -> Placement:
        layer = replace(hand_layer(32, c, k), weight_is_activation=True)
        return placements_of(arch, [first, layer])[1]

    # 8 kept, weights of 8 * 8 / 32, and 1 for the output.
    assert second(8, 8) == placed("gb", "gb", "dram", 8 + 2)
    # 16 kept, weights of 16 * 32 / 32.
    assert second(16, 32) == placed("streamed", "gb", "dram", 16)


def test_staging_beside_what_is_kept():
    # 2048 of 6144 bits kept; a stream stages two tiles of 3 pixels x 5 words x 32 bits.
    arch = hand_arch(global_buffer_kb=1, pes=8, weight_buffer_words=16)
    layers = [hand_layer(32, 20, 8), hand_layer(32, 8, 4)]
    placement, _ = placements_of(arch, layers)
    assert placement == placed("cached", "streamed", "stays", 8)
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


@pytest.mark.parametrize("small", [{}, {"global_buffer_kb": 1, "gb_banks": 16, "gb_weight_banks": 1}])
def test_weights_fetched_ahead_by_hand(small: dict[str, object]):
    """Three weight tiles of 256 bits: cached, or streamed with a weight region of just two."""
    arch = hand_arch(out_fifo_words=64, **small)
    machine = Machine(arch, [hand_layer(m=8, c=8, k=12)], [THREE_TILES])
    assert machine.layers[0].ahead
    # Input 512 bits: DRAM 1-8, buffer 19, crossbar 20-35, arrives 38. Weights: DRAM 9-12 and 13-16, buffer 23
    # and 27, crossbar 36-43 and 44-51, arrive 46 and 54. The third is asked when the first is through the
    # crossbar at 44: DRAM 45-48, buffer 59. The first has two blocks of 2 vectors x 4 pixels, 46 .. 53 and
    # 54 .. 61, and is released at 59, after the first step of the last vector at 58: the third is sent at 59,
    # crossbar 60-67, arrives 70, before it is wanted at 78.
    assert fetch_times(machine) == {
        "0 input 0.0": (0, 19, 36),
        "0 weight 0.0": (0, 23, 44),
        "0 weight 0.1": (0, 27, 52),
        "0 weight 0.2": (44, 59, 68),
    }
    # The last block takes 86 .. 93: last write 96, drain 97-100, complete 103, 128 bits: crossbar 104-107, in
    # the buffer 110, DRAM 111 and 112, done 113.
    (result,) = machine.results()
    assert result.end == 113
    assert result.buckets[0].tolist() == [48, 0, 0, 46, 0, 108 - 94, 113 - 108]


def test_weights_not_fetched_ahead_by_hand():
    """The same with a weight region of 8192 / 17 = 481 bits, which holds one tile."""
    arch = hand_arch(out_fifo_words=64, global_buffer_kb=1, gb_banks=17, gb_weight_banks=1)
    machine = Machine(arch, [hand_layer(m=8, c=8, k=12)], [THREE_TILES])
    assert not machine.layers[0].ahead
    # The second tile has space when the first is through the crossbar at 44: DRAM 45-48, buffer 59, crossbar
    # 60-67, arrives 70, and its blocks take 70 .. 77 and 78 .. 85. The third is asked when the first is
    # released at 59, and has space at 68: DRAM 69-72, buffer 83, crossbar 84-91, arrives 94.
    assert fetch_times(machine) == {
        "0 input 0.0": (0, 19, 36),
        "0 weight 0.0": (0, 23, 44),
        "0 weight 0.1": (0, 59, 68),
        "0 weight 0.2": (59, 83, 92),
    }
    # Blocks 94 .. 101 and 102 .. 109, 16 cycles later than above.
    (result,) = machine.results()
    assert result.end == 113 + 16
    assert result.buckets[0].tolist() == [48, 0, 0, 46 + 8 + 8, 0, 124 - 110, 129 - 124]


def test_an_input_passes_weights_that_wait_for_space_by_hand():
    """Two weight tiles in a weight region of one, and three input tiles of 4 pixels, 256 bits each."""
    arch = hand_arch(out_fifo_words=64, global_buffer_kb=1, gb_banks=17, gb_weight_banks=1)
    mapping = replace(ONE_TILE, order="PK")
    machine = Machine(arch, [hand_layer(m=12, c=8, k=8)], [mapping])
    # Inputs: DRAM 1-4 and 5-8, buffer 15 and 19, crossbar 16-23 and 24-31, arrive 26 and 34. Weights: DRAM
    # 9-12, buffer 23, crossbar 32-39, arrive 42; the second has space at 40: DRAM 41-44, buffer 55, crossbar
    # 56-63, arrives 66. Asked at 24, the third input reads DRAM 25-28 meanwhile, buffer 39. Blocks 42 .. 49,
    # 66 .. 73: the first input is released at 74, the third is sent, 75-82.
    assert fetch_times(machine) == {
        "0 input 0.0": (0, 15, 24),
        "0 input 0.1": (0, 19, 32),
        "0 input 0.2": (24, 39, 83),
        "0 weight 0.0": (0, 23, 40),
        "0 weight 0.1": (0, 55, 64),
    }
    # The other blocks take 74 .. 105: last write 108, drain 109-112, complete 115, crossbar 116-119, in the
    # buffer 122, DRAM 123 and 124, done 125.
    (result,) = machine.results()
    assert result.end == 125
    assert result.buckets[0].tolist() == [48, 0, 0, 42 + 16, 0, 120 - 106, 125 - 120]


def test_weights_of_later_layers_by_hand():
    """They are asked a cycle after those of the layer before, and kept until a half is released."""
    layers = [hand_layer(m=3, c=8, k=4), hand_layer(m=3, c=4, k=4), hand_layer(m=3, c=4, k=4)]
    machine = Machine(hand_arch(), layers, [ONE_TILE] * 3)
    # Layer 0 as above, and its output in the buffer, at 51, ends it. Weights of 128 bits: DRAM 8-9 and 10-11,
    # buffer 20 and 22. Those of layer 1 follow on the crossbar at 29-32. Those of layer 2 wait until layer
    # 0's are released at 35, after the first step of its second vector: 36-39. Inputs of 96 bits come from
    # the buffer when the layer before has ended.
    times = fetch_times(machine)
    assert times == {
        "0 input 0.0": (0, 14, 21),
        "0 weight 0.0": (0, 18, 29),
        "1 input 0.0": (51, None, 55),
        "1 weight 0.0": (1, 20, 33),
        "2 input 0.0": (74, None, 78),
        "2 weight 0.0": (2, 22, 40),
    }
    # Layer 1: input 52-54, arrives 57, steps 57 .. 59, last write 62, drain 63-65, complete 68, crossbar
    # 69-71, in the buffer 74. Layer 2 the same 23 cycles later, and DRAM 98 and 99, done 100.
    results = machine.results()
    assert [result.end for result in results] == [51, 74, 100]
    assert results[0].buckets[0].tolist() == [6, 0, 0, 31, 0, 49 - 37, 51 - 49]
    assert results[1].buckets[0].tolist() == [3, 0, 0, 0, 57 - 51, 72 - 60, 74 - 72]
    assert results[2].buckets[0].tolist() == [3, 0, 0, 0, 80 - 74, 95 - 83, 100 - 95]
    assert [result.counts["dram.read_bit"] for result in results] == [192 + 256, 128, 128]
    assert [result.counts["dram.write_bit"] for result in results] == [0, 0, 96]

    layers[2] = replace(layers[2], weight_is_activation=True)
    machine = Machine(hand_arch(), layers, [ONE_TILE] * 3)
    # They are in the buffer, but not before layer 1 has ended: after the input, 78-81, arrive 84.
    assert fetch_times(machine) == times | {"2 weight 0.0": (74, None, 82)}
    assert [result.end for result in machine.results()] == [51, 74, 104]


@pytest.mark.parametrize(
    ("banks", "pes", "k", "ahead"),
    [
        (16, 1, 12, True),  # 768 bits do not fit, 2 x 256 do
        (17, 1, 12, False),
        (16, 2, 12, False),  # two streams
        (8, 2, 20, True),
        (9, 2, 20, False),
        (9, 2, 12, True),  # 768 bits are cached
    ],
)
def test_which_weights_are_fetched_ahead(banks: int, pes: int, k: int, ahead: bool):
    """Tiles of 256 bits, one bank of 1 kB for weights."""
    arch = hand_arch(global_buffer_kb=1, gb_banks=banks, gb_weight_banks=1, pes=pes)
    mapping = replace(THREE_TILES, k_split=pes)
    assert compile_run(arch, [hand_layer(m=8, c=8, k=k)], [mapping]).layers[0].ahead == ahead
