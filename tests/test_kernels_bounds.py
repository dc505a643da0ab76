"""Bounds by which kernels choose tiles of fewer bits or none of the limits: operands just on and beyond each.

Every case is small and exact; a bound that is weaker by a little gives another integer.
"""

import numpy as np
import pytest
from accelsim_kernels import SATURATE, WRAP, AlignSpec, LaneSpec, Scales, accumulate, pack_weights
from accelsim_kernels.reference import accumulate_reference
from test_kernels_accumulate import PATHS, assert_same
from test_kernels_aligned import check


def blocks_of(weights, exponents, codes, code_exponents, spec, initial=None, significands=(1, 1)):
    """A pixel and two outputs of opposite weights; weights [G][V] with exponents [G], codes alike."""
    weights = np.array([weights, np.negative(weights)], np.int8)
    codes = np.array(codes, np.int8)
    own = np.array([exponents, exponents], np.int32)
    theirs = np.array(code_exponents, np.int32)
    taps = np.arange(len(codes), dtype=np.int32)[None, :]
    if initial is not None:
        initial = np.array([initial], np.int64)
    return (
        weights, Scales(np.full_like(own, significands[0]), own), codes,
        Scales(np.full_like(theirs, significands[1]), theirs), taps, spec, initial,
    )  # fmt: skip


@pytest.mark.parametrize("low", [0, -1])
@pytest.mark.parametrize("nearest", [True, False])
def test_terms_of_one_bit_below_the_lsb_are_no_integers(low: int, nearest: bool) -> None:
    check(blocks_of([[3], [5]], [0, 3], [[1], [1]], [low, low], AlignSpec(24, 0, nearest)))


@pytest.mark.parametrize("shift", [27, 28])
@pytest.mark.parametrize("significand", [1, 15])
def test_scales_as_integers_of_the_most_bits(shift: int, significand: int) -> None:
    one = [[1], [1]]
    spec = AlignSpec(48, 0, True)
    check(blocks_of(one, [0, 0], one, [0, shift], spec, significands=(1, significand)))
    check(blocks_of(one, [0, shift], one, [0, 0], spec, significands=(significand, 1)))


@pytest.mark.parametrize("more", [2, 3, 4])
def test_a_term_on_and_beyond_what_saturates_before_terms_are_added(more: int) -> None:
    """2^8 and one or two more, then -254."""
    case = blocks_of([[127, 127, more]] * 2, [0, 0], [[1, 1, 1], [-1, -1, 0]], [0, 0], AlignSpec(8, 0, True))
    assert check(case, 2) == ([[2, -2]], [[0, 0]])


@pytest.mark.parametrize("first", [62, 63, 64])
@pytest.mark.parametrize("lsb", [0, 1])
def test_sums_on_and_beyond_the_accumulator(first: int, lsb: int) -> None:
    """Of integers, and of halves that are rounded."""
    case = blocks_of([[first], [64]], [0, 0], [[1], [1]], [0, 0], AlignSpec(8 - lsb, lsb, True))
    assert np.sum(check(case)[1]) == (first + lsb >= 64)
    weights = np.array([[[first], [64]]], np.int8)
    weights = np.concatenate([weights, -weights])
    codes, taps = np.ones((1, 1), np.int8), np.zeros((1, 2), np.int32)
    assert np.sum(
        assert_same((weights, None, codes, None, taps, LaneSpec(8, 2, 0, 0, 0, 0, 0, 8, 0), None))[1]
    ) == (first == 64)


@pytest.mark.parametrize("bits", [24, 31, 32, 33, 40, 48])
@pytest.mark.parametrize("lsb", [0, 1])
@pytest.mark.parametrize("end", [-1, 1])
def test_psums_on_the_edge_and_one_more(bits: int, lsb: int, end: int) -> None:
    """All first psums at one end of the accumulator or next to it; half a unit is rounded up, -half to 0."""
    edge = (1 << (bits - 1)) - 1 if end > 0 else -(1 << (bits - 1))
    for start in (edge, edge - end):
        case = blocks_of([[1], [1]], [0, 0], [[1], [1]], [0, 0], AlignSpec(bits, lsb, True), [start, start])
        check(case)
        check((*case[:5], AlignSpec(bits, lsb, False), case[6]))
        lane = LaneSpec(8, 2, 0, 0, 0, 0, 0, bits, 0)
        counts = assert_same((case[0], None, case[2], None, case[4], lane, case[6]))[1]
        assert np.sum(counts) == (2 if start == edge else 1)


@pytest.mark.parametrize("least", [None, 0, -1])
@pytest.mark.parametrize("dots", [(2048, 2047), (2048, 2048), (4096,), (2049, 2048), (4097,)])
@pytest.mark.parametrize("bits", [31, 32, 33, 48])
def test_terms_and_sums_on_and_beyond_32_bits(bits: int, dots: tuple[int, ...], least: int | None) -> None:
    """Multiples of 2^18 and 2^19 up to 2^31 and beyond, from zero and from both ends of the accumulator;
    alone, with a 1 and with a half."""
    high = (1 << (bits - 1)) - 1
    weights = [[127] * (dot // 127) + [dot % 127] + [0] * (32 - dot // 127) for dot in dots]
    weights += [[1] + [0] * 32] * (least is not None)
    for exponent in (18, 19):
        for initial in (None, [high, -high - 1], [-high - 1, high]):
            exponents = [exponent] * len(dots) + ([] if least is None else [least])
            codes = [[1] * 33] * len(weights)
            check(blocks_of(weights, [0] * len(weights), codes, exponents, AlignSpec(bits, 0, True), initial))


@pytest.mark.parametrize("least", [0, -1])
@pytest.mark.parametrize("blocks", [3, 4])
def test_terms_of_a_step_on_and_beyond_32_bits(blocks: int, least: int) -> None:
    """Four times almost 2^29."""
    weights = [[127] * 32 + [31]] * blocks
    initial = [(1 << 28) - 1, -(1 << 28)]
    case = blocks_of(weights + [[1] + [0] * 32] * blocks, [0] * 2 * blocks, [[1] * 33] * 2 * blocks,
                     [17] * blocks + [least] * blocks, AlignSpec(29, 0, True), initial)  # fmt: skip
    assert np.sum(check(case, blocks)[1]) >= 2


def test_products_beyond_the_significand_of_float32() -> None:
    """15 * 127 * 127 * 5 * 15 = 18145125, of which a half is a tie."""
    case = blocks_of([[127] * 15], [0], [[127] * 15], [0], AlignSpec(30, 1, True), significands=(5, 15))
    assert check(case)[0] == [[9072563, -9072562]]


@pytest.mark.parametrize("exponent", [40, 47, 48, 90])
def test_zeros_times_scales_that_float32_does_not_have(exponent: int) -> None:
    """Operands that are not zeros whose dot product is."""
    exponents = [48, -48]
    for sign in (1, -1):
        codes = [[1, 1], [1, 1]]
        case = blocks_of([[1, -1], [1, -1]], exponents, codes, [sign * exponent] * 2, AlignSpec(24, 0, True))
        assert check(case)[0] == [[0, 0]]


@pytest.mark.parametrize("vectors", [3, 4, 5, 6])
@pytest.mark.parametrize("nearest", [True, False])
def test_what_is_rounded_down_adds_up(vectors: int, nearest: bool) -> None:
    """Vectors of almost nothing, each -1 when it is rounded down."""
    many = [[1]] * vectors
    case = blocks_of(many, [0] * vectors, many, [-9] * vectors, AlignSpec(3, 0, nearest))
    assert check(case) == (
        [[0, 0 if nearest else max(-vectors, -4)]],
        [[0, 0 if nearest else max(vectors - 4, 0)]],
    )


@pytest.mark.parametrize("size", [668, 669, 2052])
@pytest.mark.parametrize("overflow", [SATURATE, WRAP])
@pytest.mark.parametrize(
    "widths",
    [
        (4, 4, 4, 4, 0),  # 49 * 669 is the first dot product of more than 16 bits
        (2, 2, 6, 10, 0),  # 63 * 1023 is a factor of as many
        (2, 2, 10, 10, 13),  # 1023 * 1023 * 2052 is just within 32 bits, with half a unit too
        (2, 2, 10, 10, 14),  # and here no more
    ],
)
@pytest.mark.parametrize("bits", [20, 28])
def test_products_on_and_beyond_16_and_32_bits(bits: int, widths, overflow: int, size: int) -> None:
    *codes, ws, as_, shift = widths
    spec = LaneSpec(*codes, ws, as_, 0, 0, shift, bits, overflow)
    weights = np.full((2, 3, size), (1 << (codes[0] - 1)) - 1, np.int8)
    weights[1] *= -1
    words = np.full((1, size), (1 << (codes[1] - 1)) - 1, np.int8)
    scales = np.full((2, 3), (1 << ws) - 1, np.uint16), np.full(1, (1 << as_) - 1, np.uint16)
    assert_same((weights, scales[0], words, scales[1], np.zeros((1, 3), np.int32), spec, None))


@pytest.mark.parametrize("blocks", [3, 4, 5])
@pytest.mark.parametrize("overflow", [SATURATE, WRAP])
@pytest.mark.parametrize("shift", [0, 1])
def test_products_of_a_step_on_and_beyond_32_bits(shift: int, overflow: int, blocks: int) -> None:
    """Four times almost 2^29, and twice that before they are shifted."""
    size = 16 << shift
    spec = LaneSpec(8, 8, 10, 0, 0, 0, shift, 28, overflow)
    weights = np.full((2, 2 * blocks, size), 127, np.int8)
    weights[1] *= -1
    own, words = np.full((2, 2 * blocks), 1023, np.uint16), np.full((1, size), 255, np.uint8)
    taps = np.zeros((1, 2 * blocks), np.int32)
    initial = np.array([[(1 << 27) - 1, -(1 << 27)]], np.int64)
    wanted = accumulate_reference(weights, own, words, None, taps, spec, initial, blocks)
    for path in PATHS:
        packed = pack_weights(weights, own, spec, path=path, blocks=blocks)
        for found, one in zip(accumulate(packed, words, None, taps, spec, initial), wanted, strict=True):
            assert np.array_equal(found, one), path
