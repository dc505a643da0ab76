"""`scan` against its NumPy twin, against `accumulate`, and against loops in Python integers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from accelsim_kernels import SATURATE, WRAP, LaneSpec, accumulate, pack_weights, scan
from accelsim_kernels.reference import scan_reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import config


@dataclasses.dataclass
class Case:
    spec: LaneSpec
    weights: np.ndarray
    weight_scales: np.ndarray | None
    words: np.ndarray
    scales: np.ndarray | None
    gather: np.ndarray

    @property
    def operands(self) -> tuple[Any, ...]:
        return self.weights, self.weight_scales, self.words, self.scales, self.gather, self.spec


def draw(
    rng: np.random.Generator, shape: tuple[int, ...], bits: tuple[int, ...], shift: int, signed: bool
) -> Case:
    outputs, vectors, size, words, pixels = shape
    w, a, ws, as_, sp = bits
    spec = LaneSpec(w, a, ws, as_, ws + as_ - sp if sp else 0, sp, shift, 24, SATURATE)
    high = (1 << (a - signed)) - 1

    def thinned(array: np.ndarray) -> np.ndarray:
        return array * (rng.random(array.shape) < 0.8)

    limit = (1 << (w - 1)) - 1
    weights = thinned(rng.integers(-limit, limit + 1, (outputs, vectors, size))).astype(np.int8)
    codes = thinned(rng.integers(-high if signed else 0, high + 1, (words, size)))
    return Case(
        spec,
        weights,
        rng.integers(0, 1 << ws, (outputs, vectors)).astype(np.uint16) if ws else None,
        codes.astype(np.int8 if signed else np.uint8),
        rng.integers(0, 1 << as_, words).astype(np.uint16) if as_ else None,
        rng.integers(-1, words, (pixels, vectors)).astype(np.int32),
    )


def check(case: Case) -> None:
    found, expected = scan(*case.operands), scan_reference(*case.operands)
    names = ("psums", "least", "largest", "dots", "products", "dot_bits", "scale_product_bits", "sum_bits")
    for name, value in zip(names, expected[:-1], strict=True):
        assert np.array_equal(getattr(found, name), value), name
    assert found.rounded_to_zero == expected[-1][0]
    steps = int((case.gather >= 0).sum()) * len(case.weights)
    assert all(counts.sum() == steps for counts in found[5:8])


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.integers(2, 8), st.integers(2, 8), st.integers(0, 10), st.integers(0, 10)),
    st.integers(0, 19),
    st.integers(0, 12),
    st.booleans(),
    st.tuples(st.integers(1, 70), *[st.integers(1, 9)] * 4),
    st.integers(0, 2**32 - 1),
)
def test_scan_equals_its_twin(
    bits: tuple[int, ...], sp: int, shift: int, signed: bool, shape: tuple[int, ...], seed: int
) -> None:
    full = bits[2] + bits[3]
    sp = sp if bits[2] and bits[3] and sp < full else 0
    check(draw(np.random.default_rng(seed), shape, (*bits, sp), shift, signed))


def test_long_vectors_are_exact() -> None:
    """Sums of float32 are exact below 2^24, which 8-bit codes pass after 518 of the largest."""
    case = draw(np.random.default_rng(0), (3, 2, 1200, 4, 5), (8, 8, 10, 10, 0), 0, False)
    case.weights[:], case.words[:] = 127, 255
    case.weights[1] = -127
    assert case.weight_scales is not None and case.scales is not None
    case.weight_scales[:], case.scales[:] = 1023, 1023
    case.gather[:] = 2
    check(case)
    assert scan(*case.operands).dots == (-1200 * 127 * 255, 1200 * 127 * 255)


def test_a_sum_of_more_bits_than_a_float_has() -> None:
    """2^54 - 1 is 399 * 657 times a dot product of two million elements."""
    dot, rest = divmod(2**54 - 1, 399 * 657)
    assert rest == 0
    whole, left = divmod(dot, 127 * 255)
    codes = np.array([*[(127, 255)] * whole, (left // 255, 255), (1, left % 255)])
    found = scan(
        codes[:, 0].astype(np.int8).reshape(1, 1, -1),
        np.array([[399]], np.uint16),
        codes[:, 1].astype(np.uint8).reshape(1, -1),
        np.array([657], np.uint16),
        np.zeros((1, 1), np.int32),
        LaneSpec(8, 8, 10, 10, 0, 0, 0, 24, SATURATE),
    )
    assert found.psums[0, 0] == 2**54 - 1 and found.sum_bits[54] == 1


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(config, "NUMBA_NUM_THREADS", threads)
    check(draw(np.random.default_rng(1), (130, 40, 8, 50, 700), (4, 4, 4, 4, 6), 1, True))  # 3.6 M steps
    check(draw(np.random.default_rng(2), (700, 40, 8, 50, 100), (4, 4, 4, 4, 0), 0, False))


def test_a_hand_computed_lane() -> None:
    """Two vectors of two codes, one pixel: 3 * (2*1 + 0) = 6, then 1 * (-3*4 + -2*1) = -14."""
    spec = LaneSpec(3, 3, 2, 2, 0, 0, 0, 24, SATURATE)
    found = scan(
        np.array([[[2, -1], [-3, -2]]], np.int8),
        np.array([[3, 1]], np.uint16),
        np.array([[1, 0], [4, 1]], np.uint8),
        np.array([1, 1], np.uint16),
        np.array([[0, 1]], np.int32),
        spec,
    )
    assert (found.psums[0, 0], found.least[0, 0], found.largest[0, 0]) == (-8, -8, 6)
    assert (found.dots, found.products) == ((-14, 2), (-14, 6))
    assert {b: int(n) for b, n in enumerate(found.dot_bits) if n} == {2: 1, 4: 1}  # 2 and 14
    assert {b: int(n) for b, n in enumerate(found.scale_product_bits) if n} == {1: 1, 2: 1}  # 1 and 3
    assert {b: int(n) for b, n in enumerate(found.sum_bits) if n} == {3: 1, 4: 1}  # 6 and 8


@pytest.mark.parametrize("overflow", [SATURATE, WRAP])
def test_extremes_say_which_outputs_overflow(overflow: int) -> None:
    case = draw(np.random.default_rng(3), (20, 12, 16, 30, 25), (4, 4, 4, 4, 0), 0, True)
    found = scan(*case.operands)
    for bits in range(10, 25):
        spec = case.spec._replace(accumulator_bits=bits, overflow=overflow)
        packed = pack_weights(case.weights, case.weight_scales, spec)
        _, overflows = accumulate(packed, case.words, case.scales, case.gather, spec)
        end = 1 << (bits - 1)
        assert np.array_equal(overflows > 0, (found.least < -end) | (found.largest >= end)), bits


def test_bad_operands_are_refused() -> None:
    case = draw(np.random.default_rng(4), (3, 4, 8, 5, 6), (4, 4, 4, 4, 0), 0, True)

    def refused(text: str, **changes: Any) -> None:
        with pytest.raises(ValueError, match=text):
            scan(*dataclasses.replace(case, **changes).operands)

    refused("gather: indices from 9 to 9, expected -1 to 4", gather=np.full_like(case.gather, 9))
    refused("activation words: codes from .* expected -7 to 7", words=np.full_like(case.words, 8))
    refused("activation scales: largest is 16", scales=np.full(5, 16, np.uint16))
    refused("activation scales: missing", scales=None)
    refused("weight words: codes from", weights=np.full_like(case.weights, 8))
    refused("gather: got shape", gather=case.gather[:, :3].copy())
