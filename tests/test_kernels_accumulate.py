"""`accumulate` on every path against a Python-integer model written from docs/numerics.md."""

import importlib
import json
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from accelsim_kernels import ERROR, SATURATE, WRAP, LaneSpec, accumulate, add_psums, pack_weights, tiles
from accelsim_kernels.accumulate import plan
from accelsim_kernels.cpu import has_vnni
from accelsim_kernels.reference import accumulate_reference, limit
from hypothesis import given, settings
from hypothesis import strategies as st

PATHS = ["portable"] + (["vnni"] if has_vnni() else [])
MODULE = importlib.import_module("accelsim_kernels.accumulate")  # the package exports a function of this name


def spec_of(weight=4, activation=4, ws=0, as_=0, *, sp=0, p=0, bits=24, overflow=SATURATE):
    return LaneSpec(weight, activation, ws, as_, ws + as_ - sp if sp else 0, sp, p, bits, overflow)


def lane(weights, weight_scales, words, scales, taps, spec, start):
    """One output in Python integers: weights [G][V], taps [G] -> (psum, overflows)."""
    low, high = -(2 ** (spec.accumulator_bits - 1)), 2 ** (spec.accumulator_bits - 1) - 1
    psum, overflows = start, 0
    for g, tap in enumerate(taps):
        product = 0
        if tap != -1:
            dot = sum(w * a for w, a in zip(weights[g], words[tap], strict=True))
            sp = (weight_scales[g] if weight_scales else 1) * (scales[tap] if scales else 1)
            if spec.scale_product_bits:
                sh = spec.weight_scale_bits + spec.activation_scale_bits - spec.scale_product_bits
                sp = min((2 * sp + 2**sh) // 2 ** (sh + 1), 2**spec.scale_product_bits - 1)
            product = dot * sp
            if spec.product_shift:
                product = (2 * product + 2**spec.product_shift) // 2 ** (spec.product_shift + 1)
        psum += product
        if not low <= psum <= high:
            overflows += 1
            if spec.overflow == WRAP:
                psum = (psum - low) % (high - low + 1) + low
            else:
                psum = high if psum > high else low
    return psum, overflows


def integers(weights, weight_scales, words, scales, gather, spec, initial=None):
    """`lane` for every pixel and output channel: (psums, overflows) as lists [P][K]."""
    weight_scales = None if weight_scales is None else weight_scales.tolist()
    scales = None if scales is None else scales.tolist()
    weights, words = weights.tolist(), words.tolist()
    cells = [
        [
            lane(
                weights[k],
                weight_scales[k] if weight_scales else None,
                words,
                scales,
                taps,
                spec,
                int(initial[p, k]) if initial is not None else 0,
            )
            for k in range(len(weights))
        ]
        for p, taps in enumerate(gather.tolist())
    ]
    return [[psum for psum, _ in row] for row in cells], [[count for _, count in row] for row in cells]


def draw_codes(rng, style, low, high, shape, dtype):
    if style == "extreme":
        return np.where(rng.random(shape) < 0.5, low, high).astype(dtype)
    if style == "highest":
        return np.full(shape, high, dtype)
    if style == "runs":  # long runs of one sign: saturates high, then low
        codes = rng.integers(0, high, shape, endpoint=True)
        flip = np.where(np.arange(shape[-2]) // 3 % 2, 1 if low == 0 else -1, 1)
        return np.clip(codes * flip[:, None], low, high).astype(dtype)
    codes = rng.integers(low, high, shape, endpoint=True)
    return np.where(rng.random(shape) < 0.3, 0, codes).astype(dtype)


def draw_case(spec, signed, shape, style, seed, with_initial=False):
    outputs, vectors, size, words, pixels = shape
    rng = np.random.default_rng(seed)
    weight_max = 2 ** (spec.weight_bits - 1) - 1
    high = 2 ** (spec.activation_bits - signed) - 1
    low = -high if signed else 0
    weights = draw_codes(rng, style, -weight_max, weight_max, (outputs, vectors, size), np.int8)
    codes = draw_codes(
        rng,
        "extreme" if style == "runs" else style,
        low,
        high,
        (words, size),
        np.int8 if signed else np.uint8,
    )
    scales = []
    for bits, dims in ((spec.weight_scale_bits, (outputs, vectors)), (spec.activation_scale_bits, (words,))):
        least = 2**bits - 1 if style == "highest" else 0
        scales.append(rng.integers(least, 2**bits, dims).astype(np.uint16) if bits else None)
    gather = rng.integers(0 if style == "highest" else -1, words, (pixels, vectors)).astype(np.int32)
    initial = None
    if with_initial:
        edge = 2 ** (spec.accumulator_bits - 1)
        initial = rng.integers(-edge, edge - 1, (pixels, outputs), endpoint=True)
    return weights, scales[0], codes, scales[1], gather, spec, initial


def run(case, path):
    weights, weight_scales, codes, scales, gather, spec, initial = case
    return accumulate(
        pack_weights(weights, weight_scales, spec, path=path), codes, scales, gather, spec, initial
    )


def assert_same(case, expected=None):
    psums, overflows = accumulate_reference(*case) if expected is None else map(np.array, expected)
    for path in PATHS:
        result = run(case, path)
        assert result[0].dtype == (np.int32 if case[5].accumulator_bits <= 32 else np.int64)
        assert result[1].dtype == np.int32
        np.testing.assert_array_equal(result[0], psums, err_msg=f"{path} psums")
        np.testing.assert_array_equal(result[1], overflows, err_msg=f"{path} overflows")
    return psums, overflows


@st.composite
def specs(draw):
    ws, as_ = draw(st.integers(0, 10)), draw(st.integers(0, 10))
    sp = draw(st.integers(1, ws + as_ - 1)) if ws + as_ > 1 and draw(st.booleans()) else 0
    return spec_of(
        draw(st.integers(2, 8)),
        draw(st.integers(2, 8)),
        ws,
        as_,
        sp=sp,
        p=draw(st.sampled_from([0, 0, 1, 3, 9])),
        bits=draw(st.integers(2, 40) | st.sampled_from([24, 31, 32, 62])),
        overflow=draw(st.sampled_from([SATURATE, WRAP, ERROR])),
    )


@settings(max_examples=250, deadline=None)
@given(
    specs(),
    st.booleans(),
    st.tuples(
        st.integers(1, 18), st.integers(1, 9), st.integers(1, 20), st.integers(1, 12), st.integers(1, 10)
    ),
    st.sampled_from(["uniform", "extreme", "highest", "runs"]),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_all_paths_and_the_reference_equal_python_integers(spec, signed, shape, style, seed, with_initial):
    case = draw_case(spec, signed, shape, style, seed, with_initial)
    expected = integers(*case)
    reference = accumulate_reference(*case)
    assert (reference[0].tolist(), reference[1].tolist()) == expected
    assert_same(case, expected)


MODES = [
    (spec_of(8, 8, bits=24), True, tiles.PLAIN),
    (spec_of(4, 4, 4, 4, bits=18), True, tiles.SHORT),
    (spec_of(4, 8, 6, 10, bits=24), False, tiles.MULTIPLY),
    (spec_of(4, 4, 4, 4, p=3, bits=15), True, tiles.GENERAL),
    (spec_of(4, 4, 6, 6, sp=6, bits=15), False, tiles.GENERAL),
    (spec_of(4, 8, 6, 10, bits=33), True, tiles.MULTIPLY64),
    (spec_of(8, 8, 10, 10, bits=41), False, tiles.GENERAL64),
    (spec_of(8, 8, 10, 10, p=12, bits=24), True, tiles.GENERAL64),
    (spec_of(4, 4, 4, 4, bits=16, overflow=WRAP), True, tiles.WRAP32),
    (spec_of(8, 8, 10, 10, bits=40, overflow=WRAP), True, tiles.WRAP64),
]


@pytest.mark.parametrize(("spec", "signed", "mode"), MODES)
@pytest.mark.parametrize("style", ["uniform", "extreme", "runs", "highest"])
def test_every_mode_on_ragged_tiles(spec, signed, mode, style):
    assert plan(spec, 16, signed).mode == mode
    for seed in range(3):
        assert_same(draw_case(spec, signed, (37, 23, 16, 50, 29), style, seed, with_initial=seed == 1))
    counts = assert_same(draw_case(spec, signed, (16, 40, 16, 50, 24), "highest", 9))[1]
    assert counts.any(), "this case is meant to overflow"


@pytest.mark.parametrize("signed", [False, True])
def test_bounds_between_modes_are_safe(signed):
    """All-extreme operands just below and above each bound, from full accumulators of either sign."""
    for widths in ((4, 8), (8, 8), (5, 7), (2, 2)):
        for ws, as_ in ((0, 0), (5, 10), (6, 10), (4, 4), (10, 10), (0, 8)):
            for bits in (24, 30, 31, 32, 33):
                for size in (1, 4, 17, 18, 19, 64):
                    spec = spec_of(*widths, ws, as_, bits=bits)
                    case = draw_case(spec, signed, (2, 3, size, 2, 2), "highest", 0, with_initial=True)
                    edge = 2 ** (bits - 1)
                    case[-1][:] = [[edge - 1, edge - 1], [-edge, -edge]]
                    case[0][1] *= -1
                    assert_same(case)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("size", [*range(1, 34), 48, 63, 64, 511, 512, 513, 1100])
def test_every_vector_size(size, signed):
    for style in ("uniform", "highest"):
        assert_same(draw_case(spec_of(8, 8, bits=30), signed, (17, 2, size, 5, 9), style, size))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("widths", "mode"),
    [
        ((8, 8), tiles.FREE_PLAIN),
        ((4, 4, 4, 4), tiles.FREE_SHORT),
        ((6, 8, 4, 4), tiles.FREE_MULTIPLY),
        ((4, 8, 6, 10), tiles.FREE_MULTIPLY64),
    ],
)
@pytest.mark.parametrize("size", [5, 16, 600])
def test_tiles_without_limits_up_to_the_bound(widths, mode, size, signed, monkeypatch):
    """All-extreme operands whose sums just fit the accumulator, and in one bit less overflow; both run in
    every position of a tile, from zero and from psums."""
    seen = []
    monkeypatch.setattr(
        MODULE, "run_tiles", lambda *a, own=MODULE.run_tiles: seen.append(a[-1].mode) or own(*a)
    )
    spec = spec_of(*widths, bits=48)
    case = list(draw_case(spec, signed, (21, 7, size, 3, 13), "highest", 0))
    case[0][1::2] *= -1
    largest = int(np.abs(accumulate_reference(*case)[0]).max())
    enough = largest.bit_length() + 1
    for bits, start in ((enough, 0), (enough - 1, 0), (40, (1 << 39) - largest)):
        case[5] = spec._replace(accumulator_bits=bits)
        case[6] = np.full((13, 21), start) if start else None
        seen.clear()
        counts = assert_same(case)[1]
        assert counts.any() == (bits < enough or start > 0)
        if counts.any():
            assert max(seen) < tiles.FREE_PLAIN
        elif size == 16:
            assert set(seen) == {mode}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("widths", "bits", "largest"), [((8, 8, 4, 4), 18, (7, 7)), ((4, 8, 6, 10), 33, (7, 255))]
)
def test_few_tiles_overflow(widths, bits, largest, path):
    """One sum here and there, where a large weight meets a large code: other tiles go without limits."""
    spec = spec_of(*widths, bits=bits)
    weights, words = np.ones((70, 5, 16), np.int8), np.ones((9, 16), np.uint8)
    weights[[1, 40], 1:4], words[4] = largest
    own, scales = np.full((70, 5), 15 if bits == 18 else 63), np.full(9, 15 if bits == 18 else 1023)
    own, scales = own.astype(np.uint16), scales.astype(np.uint16)
    gather = np.random.default_rng(0).integers(0, 4, (90, 5)).astype(np.int32)
    gather[[17, 18, 60], 1:4] = 4
    counts = np.array(assert_same((weights, own, words, scales, gather, spec, None))[1])
    assert np.argwhere(counts).tolist() == [[p, k] for p in (17, 18, 60) for k in (1, 40)]
    found = accumulate(pack_weights(weights, own, spec, path=path), words, scales, gather[:17], spec)[1]
    assert not found.any() and not found.flags.writeable


def one_lane(products, spec, start=0):
    """One output, V = 1: weights of `products` against an activation of 1."""
    weights = np.array(products, np.int8).reshape(1, -1, 1)
    gather = np.zeros((1, len(products)), np.int32)
    initial = np.full((1, 1), start, np.int64)
    case = (weights, None, np.ones((1, 1), np.uint8), None, gather, spec, initial)
    psums, overflows = assert_same(case)
    return int(psums[0, 0]), int(overflows[0, 0])


def test_saturation_happens_in_order():
    spec = spec_of(8, 8, bits=8)
    assert one_lane([100, 100, -100], spec) == (27, 1)
    assert one_lane([100, -100, 100], spec) == (100, 0)
    assert one_lane([-100, -100, 100, 100, 100], spec) == (127, 2)
    assert one_lane([127, 1, 1, 1], spec) == (127, 3)
    assert one_lane([-127, -1, -1], spec) == (-128, 1)
    assert one_lane([1], spec, start=127) == (127, 1)


def test_wrap_is_twos_complement_and_error_limits_like_saturate():
    assert one_lane([100, 100], spec_of(8, 8, bits=8, overflow=WRAP)) == (-56, 1)
    assert one_lane([-100, -100], spec_of(8, 8, bits=8, overflow=WRAP)) == (56, 1)
    assert one_lane([100, 100, 100], spec_of(8, 8, bits=8, overflow=WRAP)) == (44, 1)
    assert one_lane([127, 127], spec_of(8, 8, bits=4, overflow=WRAP)) == (-2, 2)
    assert one_lane([100, 100, -1], spec_of(8, 8, bits=8, overflow=ERROR)) == (126, 1)


@pytest.mark.parametrize(
    ("ws_value", "as_value", "ws", "as_", "sp", "expected"),
    [
        (1, 8, 4, 4, 4, 1),  # half of 16 rounds up
        (1, 7, 4, 4, 4, 0),
        (3, 8, 4, 4, 4, 2),  # 24 / 16 = 1.5
        (15, 15, 4, 4, 4, 14),
        (1023, None, 10, 0, 9, 511),  # rounds to 512, limited to 9 bits
        (1023, 1023, 10, 10, 19, (1023 * 1023 + 1) // 2),
        (1, 1, 10, 10, 1, 0),
        (1023, 1023, 10, 10, 1, 1),
        (0, 1023, 10, 10, 10, 0),
    ],
)
def test_scale_product_rounds_half_up_and_is_limited(ws_value, as_value, ws, as_, sp, expected):
    case = (
        np.array([[[-3]]], np.int8),
        np.array([[ws_value]], np.uint16),
        np.array([[1]], np.int8),
        None if as_value is None else np.array([as_value], np.uint16),
        np.zeros((1, 1), np.int32),
        spec_of(4, 4, ws, as_, sp=sp),
        None,
    )
    assert assert_same(case)[0].tolist() == [[-3 * expected]]


def test_product_shift_rounds_half_up_on_negatives():
    assert [one_lane([x], spec_of(8, 8, p=2))[0] for x in (1, 2, 5, 6, -1, -2, -3, -5, -6, -7)] == [
        0, 1, 1, 2, 0, 0, -1, -1, -1, -2,
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(MODES), st.integers(1, 8), st.integers(0, 2**32 - 1), st.sampled_from(["extreme", "runs"])
)
def test_chunks_of_g_equal_the_whole(mode, chunk, seed, style):
    spec, signed, _ = mode
    weights, weight_scales, codes, scales, gather, _, _ = case = draw_case(
        spec, signed, (19, 11, 16, 30, 9), style, seed
    )
    for path in PATHS:
        whole = run(case, path)
        packed = pack_weights(weights, weight_scales, spec, path=path)
        psums, overflows = None, 0
        for first in range(0, 11, chunk):
            stop = min(first + chunk, 11)
            psums, counts = accumulate(
                packed, codes, scales, gather[:, first:stop], spec, psums, g_start=first, g_stop=stop
            )
            overflows = overflows + counts
        np.testing.assert_array_equal(psums, whole[0])
        np.testing.assert_array_equal(overflows, whole[1])


@pytest.mark.parametrize("overflow", [SATURATE, WRAP, ERROR])
@pytest.mark.parametrize(
    ("bits", "dtype"),
    [(2, np.int64), (2, np.int32), (8, np.int64), (24, np.int32), (32, np.int32), (62, np.int64)],
)
def test_psums_of_two_pes_add_up_within_the_accumulator(bits, dtype, overflow):
    spec = spec_of(bits=bits, overflow=overflow)
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    edges = np.array([low, low + 1, -1, 0, 1, high - 1, high], dtype)
    psums, others = np.meshgrid(edges, edges)
    overflows, other_overflows = np.full((7, 7), 3, np.int32), np.full((7, 7), 4, np.int32)
    exact = psums.astype(np.int64) + others
    add_psums(psums, overflows, others, other_overflows, spec)
    assert np.array_equal(psums, limit(exact, spec))
    assert np.array_equal(overflows, 7 + ((exact < low) | (exact > high)))


@pytest.mark.parametrize(("spec", "signed", "mode"), MODES)
def test_padding_taps_change_nothing(spec, signed, mode):
    case = draw_case(spec, signed, (17, 6, 16, 10, 11), "extreme", 4, with_initial=True)
    padded = (*case[:4], np.full_like(case[4], -1), spec, case[6])
    for path in PATHS:
        psums, overflows = run(padded, path)
        np.testing.assert_array_equal(psums, case[6])
        assert not overflows.any()


@pytest.mark.parametrize("path", PATHS)
def test_result_does_not_depend_on_threads_or_spans(path, monkeypatch):
    spec = spec_of(4, 4, 4, 4, bits=16)
    for shape in ((70, 9, 16, 300, 333), (70, 9, 16, 300, 3), (1, 9, 16, 300, 333)):
        case = draw_case(spec, True, shape, "extreme", 1, with_initial=True)
        expected = accumulate_reference(*case)
        monkeypatch.setattr(MODULE, "_MACS_PER_THREAD", 1)
        for threads in (1, 2, 3):
            for scratch in (1, 5000, 1 << 18):
                monkeypatch.setattr(MODULE.config, "NUMBA_NUM_THREADS", threads)
                monkeypatch.setattr(MODULE, "_SCRATCH_BYTES", scratch)
                result = run(case, path)
                np.testing.assert_array_equal(result[0], expected[0])
                np.testing.assert_array_equal(result[1], expected[1])


@pytest.mark.parametrize("path", PATHS)
def test_read_only_and_strided_arrays(path):
    spec = spec_of(4, 4, 4, 4, bits=16)
    case = draw_case(spec, True, (5, 6, 16, 20, 9), "extreme", 3, with_initial=True)
    expected = run(case, path)
    frozen = [x.copy() if isinstance(x, np.ndarray) else x for x in case]
    for array in frozen:
        if isinstance(array, np.ndarray):
            array.setflags(write=False)
    strided = [np.repeat(x, 2, axis=-1)[..., ::2] if isinstance(x, np.ndarray) else x for x in case]
    for same in (frozen, strided):
        result = run(same, path)
        np.testing.assert_array_equal(result[0], expected[0])
        np.testing.assert_array_equal(result[1], expected[1])
    assert case[6].base is None and not np.shares_memory(expected[0], case[6])


def replaced(position, value):
    case = list(draw_case(spec_of(4, 4, 4, 4), True, (3, 2, 8, 5, 4), "uniform", 0))
    case[position] = value(case[position]) if callable(value) else value
    return case


def with_entry(index, value):
    def change(array):
        array = array.copy()
        array[index] = value
        return array

    return change


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, with_entry((0, 0, 0), 8), r"weight words: codes from -\d to 8, expected -7 to 7 for 4 bits"),
        (0, with_entry((0, 0, 0), -8), "expected -7 to 7"),
        (0, lambda w: w.astype(np.int16), "weight words: got int16 with 3 dimensions, expected int8 with 3"),
        (0, lambda w: w[0], "expected int8 with 3"),
        (0, lambda w: w[:, :, :0], "no empty dimension"),
        (1, with_entry((1, 1), 16), "weight scales: largest is 16, expected below 16"),
        (1, None, "weight scales: missing"),
        (1, lambda s: s[:2], r"weight scales: got shape \(2, 2\), expected \(3, 2\)"),
        (2, with_entry((0, 3), 8), "activation words: a code is out of range, expected -7 to 7 for 4 bits"),
        (2, with_entry((4, 7), -8), "activation words: a code is out of range"),
        (2, lambda a: np.full(a.shape, 16, np.uint8), "expected 0 to 15"),
        (2, lambda a: a[:, :7], "activation words: got shape"),
        (3, with_entry(4, 16), "activation scales: a scale is not below 16"),
        (3, None, "activation scales: missing"),
        (4, with_entry((3, 1), 5), "gather: an index is out of range, expected -1 to 4"),
        (4, with_entry((0, 0), -2), "gather: an index is out of range"),
        (4, lambda g: g.astype(np.int64), "gather: got int64"),
        (4, lambda g: g[:, :1], r"gather: got shape \(4, 1\), expected \(4, 2\)"),
        (6, np.zeros((4, 2), np.int64), "initial psums: got shape"),
        (6, np.full((4, 3), 1 << 23), "initial psums: values from 8388608"),
    ],
)
def test_bad_operands_are_refused(position, value, message, path):
    case = replaced(position, value)
    case[4] = np.array([[0, 1], [2, 3], [4, -1], [0, 0]], np.int32) if position != 4 else case[4]
    with pytest.raises(ValueError, match=message):
        run(case, path)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("size", [3, 8, 16])
@pytest.mark.parametrize("bits", range(2, 9))
def test_every_code_is_accepted_or_refused_by_its_range(bits, size, signed):
    high = 2 ** (bits - signed) - 1
    low = -high if signed else 0
    spec = spec_of(2, bits)
    packed = [pack_weights(np.ones((1, 1, size), np.int8), None, spec, path=path) for path in PATHS]
    for code in range(-128 if signed else 0, 128 if signed else 256):
        words = np.zeros((1, size), np.int8 if signed else np.uint8)
        words[0, code % size] = code
        for weights in packed:
            if low <= code <= high:
                assert accumulate(weights, words, None, np.zeros((1, 1), np.int32), spec)[0] == code
            else:
                with pytest.raises(ValueError, match="a code is out of range"):
                    accumulate(weights, words, None, np.zeros((1, 1), np.int32), spec)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_bits": 9}, "weight_bits is 9, expected 2 to 8"),
        ({"accumulator_bits": 63}, "accumulator_bits is 63, expected 2 to 62"),
        ({"overflow": 3}, "overflow is 3"),
        ({"scale_product_bits": 4}, "scale_product_shift 0 and scale_product_bits 4 must add up to the 8"),
    ],
)
def test_bad_specs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        pack_weights(np.ones((1, 1, 1), np.int8), None, spec_of(4, 4, 4, 4)._replace(**change))


def test_psums_that_do_not_belong_together_are_refused():
    psums, counts = np.zeros((2, 3), np.int64), np.zeros((2, 3), np.int32)
    with pytest.raises(ValueError, match="other psums: got int16 with 2 dimensions, expected int32 or int64"):
        add_psums(psums, counts, counts.astype(np.int16), counts, spec_of())
    with pytest.raises(ValueError, match="other psums: got int32"):
        add_psums(psums, counts, counts, counts, spec_of(bits=33))
    with pytest.raises(ValueError, match=r"other overflows: got shape \(2, 2\), expected \(2, 3\)"):
        add_psums(psums, counts, psums, counts[:, :2], spec_of())


def test_bad_calls_are_refused():
    spec = spec_of(4, 4)
    weights, words, gather = np.ones((1, 2, 1), np.int8), np.ones((1, 1), np.int8), np.zeros((1, 2), np.int32)
    packed = pack_weights(weights, None, spec)
    with pytest.raises(ValueError, match="weights were packed for"):
        accumulate(packed, words, None, gather, spec._replace(accumulator_bits=20))
    with pytest.raises(ValueError, match="g range: got 1 to 3, expected within 0 to 2"):
        accumulate(packed, words, None, gather, spec, g_start=1, g_stop=3)
    with pytest.raises(ValueError, match="path: got 'avx', expected one of vnni, portable"):
        pack_weights(weights, None, spec, path="avx")


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names an x86 CPU")
def test_an_older_cpu_takes_the_portable_path_and_gives_the_same_bits():
    """VNNI instructions on a CPU without them abort the process, so the choice is made from the target."""
    script = f"""
import json, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import test_kernels_accumulate as t
spec, signed, _ = t.MODES[1]
case = t.draw_case(spec, signed, (37, 23, 16, 50, 29), "extreme", 5)
packed = t.pack_weights(case[0], case[1], spec)
psums, overflows = t.run(case, None)
print(json.dumps([packed.path, psums.tolist(), overflows.tolist()]))
"""
    env = {**os.environ, "NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+sse4.2,+avx,+avx2,+fma"}
    out = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    path, psums, overflows = json.loads(out.stdout)
    spec, signed, _ = MODES[1]
    expected = run(draw_case(spec, signed, (37, 23, 16, 50, 29), "extreme", 5), None)
    assert path == "portable"
    assert psums == expected[0].tolist() and overflows == expected[1].tolist()


@pytest.mark.skipif(has_vnni(), reason="this CPU has AVX-512 VNNI")
def test_vnni_is_refused_where_it_is_missing():
    with pytest.raises(ValueError, match="needs AVX-512 VNNI"):
        pack_weights(np.ones((1, 1, 1), np.int8), None, spec_of(4, 4), path="vnni")
