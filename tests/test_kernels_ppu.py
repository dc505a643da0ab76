"""The PPU against exact rational arithmetic in Python, at the extremes of every field."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from accelsim_kernels import ppu_static, ppu_vector
from accelsim_kernels.reference import ppu_static_reference, ppu_vector_reference
from hypothesis import given, settings
from hypothesis import strategies as st

Z_MAX = 2**23 - 1


def half_up(value):
    return math.floor(value + Fraction(1, 2))


def clip(value, low, high):
    return max(low, min(high, value))


def z_of(psum, m, t, bias, relu):
    z = clip(half_up(Fraction(psum * m, 2**t)), -Z_MAX, Z_MAX)
    z = clip(z + bias, -Z_MAX, Z_MAX)
    return max(z, 0) if relu else z


def static_code(z, fraction_bits, qmin, qmax):
    return clip(half_up(Fraction(z, 2**fraction_bits)) if fraction_bits else z, qmin, qmax)


def vector_codes(zs, fraction_bits, qmin, qmax, scale_bits, up):
    exact = Fraction(max(abs(z) for z in zs), qmax * 2**fraction_bits)
    s = clip(math.ceil(exact) if up else half_up(exact), 1, 2**scale_bits - 1)
    e = next(e for e in range(11) if 2**e >= s)
    reciprocal = half_up(Fraction(2 ** (15 + e), s)) if s % 2 == 0 else round(Fraction(2 ** (15 + e), s))
    assert reciprocal < 2**16
    return [clip(half_up(Fraction(z * reciprocal, 2 ** (15 + e + fraction_bits))), qmin, qmax) for z in zs], s


edge_psums = st.sampled_from([0, 1, -1, 2**23 - 1, -(2**23), 2**31, -(2**31) - 1, 2**61 - 1, -(2**61)])
psum_values = edge_psums | st.integers(-(2**61), 2**61 - 1) | st.integers(-(2**25), 2**25)
multipliers = st.sampled_from([0, 1, 32768, 65535]) | st.integers(0, 65535)
shifts = st.sampled_from([1, 2, 15, 30, 31, 32, 62, 63]) | st.integers(1, 63)
biases = st.sampled_from([0, Z_MAX, -Z_MAX]) | st.integers(-Z_MAX, Z_MAX)
channels = st.lists(st.tuples(psum_values, multipliers, shifts, biases), min_size=1, max_size=40)
formats = st.sampled_from([(-7, 7), (0, 15), (-127, 127), (0, 255), (-1, 1), (0, 3)])


def arrays(rows):
    psums, m, t, bias = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return np.stack([psums, psums[::-1]]), m, t, bias


@settings(max_examples=300, deadline=None)
@given(channels, st.booleans(), st.integers(0, 8), formats)
def test_static_output_is_exact(rows, relu, fraction_bits, limits):
    operands = arrays(rows)
    psums, m, t, bias = (x.tolist() for x in operands)
    expected = [
        [static_code(z_of(*cell, relu), fraction_bits, *limits) for cell in zip(row, m, t, bias, strict=True)]
        for row in psums
    ]
    codes = ppu_static(*operands, relu, fraction_bits, *limits)
    assert codes.dtype == np.int16
    assert codes.tolist() == expected
    assert ppu_static_reference(*operands, relu, fraction_bits, *limits).tolist() == expected


@settings(max_examples=300, deadline=None)
@given(
    channels, st.booleans(), st.integers(0, 8), formats, st.integers(1, 10), st.integers(1, 20), st.booleans()
)
def test_vector_output_is_exact(rows, relu, fraction_bits, limits, scale_bits, size, up):
    operands = arrays(rows)
    psums, m, t, bias = (x.tolist() for x in operands)
    expected_codes, expected_scales = [], []
    for row in psums:
        zs = [z_of(*cell, relu) for cell in zip(row, m, t, bias, strict=True)]
        vectors = [
            vector_codes(zs[i : i + size], fraction_bits, *limits, scale_bits, up)
            for i in range(0, len(zs), size)
        ]
        expected_codes.append([code for codes, _ in vectors for code in codes])
        expected_scales.append([s for _, s in vectors])
    arguments = (*operands, relu, fraction_bits, *limits, scale_bits, size, up)
    for function in (ppu_vector, ppu_vector_reference):
        codes, scales = function(*arguments)
        assert codes.dtype == np.int16 and scales.dtype == np.uint16
        assert codes.tolist() == expected_codes
        assert scales.tolist() == expected_scales


def column(*values):
    return np.array(values, np.int64)


@pytest.mark.parametrize("shift", range(1, 64))
def test_rounding_and_saturation_at_every_shift(shift):
    """psums around ties, around the 24-bit limit and at the ends of a 62-bit accumulator."""
    for m in (1, 3, 32768, 65535):
        centre = [0, (1 << shift) // (2 * m), (Z_MAX << shift) // m, ((2 * Z_MAX + 1) << shift) // (2 * m)]
        near = [sign * c + d for c in centre for sign in (1, -1) for d in (-2, -1, 0, 1, 2)]
        psums = [x for x in [*near, 2**61 - 1, -(2**61)] if -(2**61) <= x < 2**61]
        count = len(psums)
        codes = ppu_vector(
            np.array([psums]), column(*[m] * count), column(*[shift] * count), column(*[0] * count),
            False, 8, -127, 127, 10, 1, True,
        )  # fmt: skip
        for i, psum in enumerate(psums):
            expected = vector_codes([z_of(psum, m, shift, 0, False)], 8, -127, 127, 10, True)
            assert ([int(codes[0][0, i])], int(codes[1][0, i])) == expected, (psum, m, shift)


def test_rounding_is_half_up_on_negatives():
    psums = np.array([[-3, -2, -1, 0, 1, 2, 3]])
    one, zero = np.ones(7, np.int64), np.zeros(7, np.int64)
    assert ppu_static(psums, one, one, zero, False, 0, -7, 7).tolist() == [[-1, -1, 0, 0, 1, 1, 2]]
    # M = 1 (m = 2^15, t = 15), F = 1: the same ties one stage later
    same = ppu_static(psums, one * 32768, one * 15, zero, False, 1, -7, 7)
    assert same.tolist() == [[-1, -1, 0, 0, 1, 1, 2]]


def test_relu_comes_after_the_bias_and_saturation_before():
    m, t = column(32768, 32768), column(15, 15)
    codes = ppu_static(np.array([[-5, 5]]), m, t, column(7, -7), True, 0, 0, 15)
    assert codes.tolist() == [[2, 0]]
    codes = ppu_static(np.array([[2**40, -(2**40)]]), m, t, column(-Z_MAX, Z_MAX), False, 0, -7, 7)
    assert codes.tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("largest", "up", "nearest"),
    [
        (0, 1, 1),
        (1, 1, 1),
        (7 * 256, 1, 1),
        (7 * 256 + 1, 2, 1),
        (7 * 384 - 1, 2, 1),
        (7 * 384, 2, 2),
        (14 * 256, 2, 2),
        (14 * 256 + 1, 3, 2),
        (7 * 640, 3, 3),
        (101 * 256, 15, 14),
        (102 * 256, 15, 15),
        (105 * 256, 15, 15),
        (Z_MAX, 15, 15),
    ],
)
def test_vector_scale_within_its_bits(largest, up, nearest):
    """qmax = 7, F = 8, 4 scale bits; the sign of the largest element does not matter. Rounded to nearest, a
    scale may be too small for its largest element, whose code then is qmax."""
    for sign, (scales_up, scale) in itertools.product((1, -1), ((True, up), (False, nearest))):
        codes, scales = ppu_vector(
            np.array([[sign * largest, 0]]), column(32768, 32768), column(15, 15), column(0, 0),
            False, 8, -7, 7, 4, 2, scales_up,
        )  # fmt: skip
        assert scales.tolist() == [[scale]]
        assert codes[0, 1] == 0
        if largest > 7 * 256 * scale:
            assert (scale == 15 or not scales_up) and codes[0, 0] == sign * 7
        else:
            assert abs(codes[0, 0] * scale - sign * largest / 256) <= scale / 2 + 1e-3 * 7


def test_the_last_vector_may_be_short():
    codes, scales = ppu_vector(
        np.array([[256 * 70, 0, 256 * 7]]), column(*[32768] * 3), column(*[15] * 3), column(0, 0, 0),
        False, 8, -7, 7, 4, 2, False,
    )  # fmt: skip
    assert codes.tolist() == [[7, 0, 7]]
    assert scales.tolist() == [[10, 1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"psums": np.zeros((1, 1), np.int32)}, "psums: got int32 with 2 dimensions, expected int64 with 2"),
        ({"psums": np.full((1, 1), 1 << 62)}, r"psums: expected magnitudes below 2\^62"),
        ({"multiplier": column(65536)}, "PPU multiplier: values from 65536 to 65536, expected 0 to 65535"),
        ({"multiplier": column(1, 1)}, r"PPU multiplier: got shape \(2,\), expected \(1,\)"),
        ({"shift": column(0)}, "PPU shift: values from 0 to 0, expected 1 to 63"),
        ({"shift": column(64)}, "expected 1 to 63"),
        ({"bias": column(Z_MAX + 1)}, "PPU bias"),
        ({"fraction_bits": 9}, "fraction bits: got 9, expected 0 to 8"),
        ({"qmin": -8}, "code range: got -8 to 7"),
        ({"qmin": 0, "qmax": 256}, "code range"),
        ({"scale_bits": 0}, "scale bits: got 0, expected 1 to 10"),
        ({"vector_size": 0}, "vector size: got 0"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    arguments = {
        "psums": np.zeros((1, 1), np.int64), "multiplier": column(1), "shift": column(1), "bias": column(0),
        "relu": False, "fraction_bits": 8, "qmin": -7, "qmax": 7, "scale_bits": 4, "vector_size": 16,
        "scales_up": False,
    } | change  # fmt: skip
    with pytest.raises(ValueError, match=message):
        ppu_vector(**arguments)
