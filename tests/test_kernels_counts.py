"""`gated_vectors` and `zero_operand_macs` against loops over every lane step."""

import numpy as np
import pytest
from accelsim_kernels import (
    SATURATE,
    LaneSpec,
    activation_profile,
    gated_vectors,
    live_block_products,
    live_products,
    weight_profile,
    zero_operand_macs,
)
from accelsim_kernels.reference import (
    gated_vectors_reference,
    live_products_reference,
    zero_operand_macs_reference,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def test_words_of_several_blocks_one_step_at_a_time():
    rng, shift = np.random.default_rng(4), 5
    weights = rng.integers(-7, 8, (6, 4, 3, 2)) * (rng.random((6, 4, 3, 1)) < 0.5)
    words = rng.integers(0, 8, (9, 3, 2)) * (rng.random((9, 3, 1)) < 0.5)
    weight_scales, scales = (rng.integers(0, 16, shape).astype(np.uint16) for shape in ((6, 4, 3), (9, 3)))
    weights, words = weights * (weight_scales > 0)[..., None], words * (scales > 0)[..., None]
    gather = rng.integers(-1, 9, (20, 4)).astype(np.int32)
    found = live_block_products(
        weights.reshape(6, 4, 6).astype(np.int8), weight_scales, words.reshape(9, 6).astype(np.uint8), scales,
        gather, shift,
    )  # fmt: skip
    wanted = [
        sum(
            bool(at >= 0 and own.any() and words[at].any())
            and max((int(x) * int(y) + 16) >> shift for x, y in zip(factor, scales[at], strict=True)) > 0
            for own, factor in zip(weights[:, g], weight_scales[:, g], strict=True)
            for at in gather[:, g]
        )
        for g in range(4)
    ]
    assert found.tolist() == wanted and 0 < min(wanted)


def loops(weights, weight_scales, words, scales, gather, spec):
    """(gated lane steps, zero-operand MACs, at each g steps whose product may be other than zero), one step
    at a time in Python integers."""
    gated = zero_macs = 0
    live = [0] * weights.shape[1]
    outputs, vectors, size = weights.shape
    for k in range(outputs):
        for taps in gather.tolist():
            for g in range(vectors):
                a = [0] * size if taps[g] < 0 else words[taps[g]].tolist()
                w = weights[k, g].tolist()
                sp = 1 if weight_scales is None else int(weight_scales[k, g])
                sp *= 1 if scales is None else (0 if taps[g] < 0 else int(scales[taps[g]]))
                held = not any(w) or not any(a) or sp == 0 or taps[g] < 0
                gated += held
                rounded = (sp + (1 << spec.scale_product_shift >> 1)) >> spec.scale_product_shift
                live[g] += not held and rounded > 0
                zero_macs += sum(x == 0 or y == 0 for x, y in zip(w, a, strict=True))
    return gated, zero_macs, live


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10),
    st.integers(0, 10),
    st.integers(0, 19),
    st.booleans(),
    st.tuples(*[st.integers(1, 6)] * 5),
    st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    st.integers(0, 2**32 - 1),
)
def test_counts_equal_loops(ws, as_, sp, signed, shape, zeros, seed):
    rng = np.random.default_rng(seed)
    outputs, vectors, size, n, pixels = shape
    sp = sp if sp < ws + as_ else 0
    spec = LaneSpec(4, 4, ws, as_, ws + as_ - sp if sp else 0, sp, 0, 24, SATURATE)

    def thinned(array):
        return np.where(rng.random(array.shape) < zeros, 0, array).astype(array.dtype)

    weights = thinned(rng.integers(-7, 8, (outputs, vectors, size)).astype(np.int8))
    words = thinned(rng.integers(0, 8, (n, size)).astype(np.int8 if signed else np.uint8))
    weight_scales = rng.integers(0, 2**ws, (outputs, vectors)).astype(np.uint16) if ws else None
    scales = rng.integers(0, 2**as_, n).astype(np.uint16) if as_ else None
    gather = rng.integers(-1, n, (pixels, vectors)).astype(np.int32)
    case = (weights, weight_scales, words, scales, gather, spec)
    gated, zero_macs, live = loops(*case)
    profiles = weight_profile(weights, weight_scales), activation_profile(words, scales, gather)
    assert live_products(*profiles, spec.scale_product_shift).tolist() == live
    assert live_products_reference(*case).tolist() == live
    assert gated_vectors(*case) == gated_vectors_reference(*case) == gated
    assert (
        zero_operand_macs(weights, words, gather)
        == zero_operand_macs_reference(weights, words, gather)
        == zero_macs
    )


@pytest.mark.parametrize(("ws", "as_", "gated"), [(1, 7, 0), (1, 1, 0), (0, 15, 1), (15, 0, 1), (8, 1, 0)])
def test_only_a_zero_scale_gates_not_a_product_that_rounds_to_zero(ws, as_, gated):
    """4 + 4 bits rounded to 4: products below 8 become 0, too late to hold the dot product."""
    spec = LaneSpec(4, 4, 4, 4, 4, 4, 0, 24, SATURATE)
    ones = np.ones((1, 1, 2), np.int8)
    scales = np.array([[ws]], np.uint16), np.array([as_], np.uint16)
    gather = np.zeros((1, 1), np.int32)
    assert gated_vectors(ones, scales[0], ones[0], scales[1], gather, spec) == gated


def test_counts_do_not_overflow_32_bits():
    weights, words = np.ones((2048, 1, 2), np.int8), np.zeros((1, 2), np.int8)
    gather = np.zeros((1 << 21, 1), np.int32)
    spec = LaneSpec(4, 4, 0, 0, 0, 0, 0, 24, SATURATE)
    assert gated_vectors(weights, None, words, None, gather, spec) == 1 << 32
    assert zero_operand_macs(weights, words, gather) == 1 << 33
    assert zero_operand_macs(weights, words + np.int8(1), gather) == 0


def test_bad_operands_are_refused():
    spec = LaneSpec(4, 4, 0, 0, 0, 0, 0, 24, SATURATE)
    weights, words = np.ones((1, 1, 2), np.int8), np.ones((3, 2), np.int8)
    with pytest.raises(ValueError, match="gather: indices from 3 to 3, expected -1 to 2"):
        gated_vectors(weights, None, words, None, np.full((1, 1), 3, np.int32), spec)
    with pytest.raises(ValueError, match="gather: got int64"):
        zero_operand_macs(weights, words, np.zeros((1, 1), np.int64))
    with pytest.raises(ValueError, match=r"activation words: got shape \(3, 1\), expected \(3, 2\)"):
        zero_operand_macs(weights, words[:, :1], np.zeros((1, 1), np.int32))
    with pytest.raises(ValueError, match="weight scales: given, but the lane spec has 0 bits"):
        gated_vectors(weights, np.ones((1, 1), np.uint16), words, None, np.zeros((1, 1), np.int32), spec)
    with pytest.raises(ValueError, match=r"weight scales: got shape \(1, 2\), expected \(1, 1\)"):
        weight_profile(weights, np.ones((1, 2), np.uint16))
    with pytest.raises(ValueError, match=r"activation scales: got shape \(2,\), expected \(3,\)"):
        activation_profile(words, np.ones(2, np.uint16), np.zeros((1, 1), np.int32))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_profiles_multiply_to_the_counts_of_pairs(seed):
    """Without :spN the gated steps and zero MACs of a tile pair follow from one profile an operand."""
    rng = np.random.default_rng(seed)
    k, g, v, n, p = (int(size) for size in rng.integers(1, 6, 5))
    weights = rng.integers(-1, 2, (k, g, v)).astype(np.int8)
    words = rng.integers(0, 2, (n, v)).astype(np.uint8)
    weight_scales = rng.integers(0, 3, (k, g)).astype(np.uint16)
    scales = rng.integers(0, 3, n).astype(np.uint16)
    gather = rng.integers(-1, n, (p, g)).astype(np.int32)
    spec = LaneSpec(2, 2, 2, 2, 0, 0, 0, 24, SATURATE)
    own, other = weight_profile(weights, weight_scales), activation_profile(words, scales, gather)
    steps = k * p * g
    gated = gated_vectors_reference(weights, weight_scales, words, scales, gather, spec)
    assert steps - own.live @ other.live == gated
    zeros = zero_operand_macs_reference(weights, words, gather)
    assert steps * v - (own.nonzero * other.nonzero).sum() == zeros
