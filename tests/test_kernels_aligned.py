"""`accumulate_aligned` on every path against exact rationals written from docs/numerics.md, Block formats."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from accelsim_kernels import (
    AlignSpec,
    LaneSpec,
    Scales,
    accumulate,
    accumulate_aligned,
    aligned,
    pack_aligned,
    pack_weights,
    tiles,
)
from accelsim_kernels.cpu import has_vnni
from accelsim_kernels.reference import accumulate_aligned_reference, accumulate_reference

PATHS = ["portable"] + (["vnni"] if has_vnni() else [])


def exact(weights, weight_scales, codes, scales, gather, spec, initial, blocks):
    """(psums, overflows) as lists [P][K], in Fractions: a psum is a multiple of 2^lsb."""
    edge = 2 ** (spec.accumulator_bits - 1)
    psums, overflows = [], []
    for p, taps in enumerate(gather.tolist()):
        row, counts = [], []
        for k in range(len(weights)):
            psum, count, total = int(initial[p, k]) if initial is not None else 0, 0, Fraction(0)
            for g, tap in enumerate(taps):
                if tap >= 0:
                    dot = sum(int(w) * int(a) for w, a in zip(weights[k, g], codes[tap], strict=True))
                    value = Fraction(
                        dot * int(weight_scales.significand[k, g]) * int(scales.significand[tap])
                    )
                    value *= Fraction(2) ** int(
                        weight_scales.exponent[k, g] + scales.exponent[tap] - spec.lsb
                    )
                    value = floor(value + (Fraction(1, 2) if spec.nearest else 0))
                    total += min(max(value, -2 * edge), 2 * edge)
                if (g + 1) % blocks == 0:
                    psum, total = psum + total, 0
                    if not -edge <= psum < edge:
                        count += 1
                        psum = min(max(psum, -edge), edge - 1)
            row.append(int(psum))
            counts.append(count)
        psums.append(row)
        overflows.append(counts)
    return psums, overflows


def scales_of(rng, shape, significands, spread):
    return Scales(
        rng.integers(0 if significands > 1 else 1, significands + 1, shape).astype(np.int32),
        rng.integers(-spread, spread + 1, shape).astype(np.int32),
    )


def draw(seed, spec, largest, *, size=16, significands=1, spread=6, shape=(19, 6, 7, 9), with_initial=False):
    """Codes in [-largest, largest], a third of them 0; shape: outputs, blocks, words, pixels."""
    rng = np.random.default_rng(seed)
    outputs, vectors, words, pixels = shape
    dtype = np.int8 if largest < 128 else np.int32
    weights = rng.integers(-largest, largest + 1, (outputs, vectors, size)).astype(dtype)
    codes = rng.integers(-largest, largest + 1, (words, size)).astype(dtype)
    weights[rng.random(weights.shape) < 0.3] = 0
    codes[rng.random(codes.shape) < 0.3] = 0
    weights[0, 0], codes[0] = 0, 0
    gather = rng.integers(-1, words, (pixels, vectors)).astype(np.int32)
    edge = 2 ** (spec.accumulator_bits - 1)
    initial = rng.integers(-edge, edge, (pixels, outputs)) if with_initial else None
    own = scales_of(rng, (outputs, vectors), significands, spread)
    return weights, own, codes, scales_of(rng, (words,), significands, spread), gather, spec, initial


def check(case, blocks=1, *, plain=False):
    weights, weight_scales, codes, scales, gather, spec, initial = case
    wanted = exact(*case, blocks)
    twin = accumulate_aligned_reference(*case, blocks)
    assert twin[0].tolist() == wanted[0] and twin[1].tolist() == wanted[1]
    for path in PATHS:
        packed = pack_aligned(weights, weight_scales, spec, path=path, blocks=blocks)
        found = accumulate_aligned(packed, codes, scales, gather, initial)
        assert found[0].tolist() == wanted[0], path
        assert found[1].tolist() == wanted[1], path
        if plain:
            found = aligned._plain(packed, codes, scales, gather, initial)
            assert found[0].tolist() == wanted[0] and found[1].tolist() == wanted[1]
    return wanted


@pytest.mark.parametrize("nearest", [True, False])
@pytest.mark.parametrize("bits", [8, 16, 24, 29, 30, 36, 48])
@pytest.mark.parametrize("largest, significands", [(12, 1), (12, 15), (60, 1), (127, 1), (127, 15)])
def test_against_rationals(bits: int, nearest: bool, largest: int, significands: int) -> None:
    """int8, e2m1 and e2m3 with e8m0 and e4m3 scales, in accumulators that saturate and that never do."""
    spec = AlignSpec(bits, -2, nearest)
    case = draw(bits, spec, largest, significands=significands, with_initial=bits % 16 == 0)
    _, overflows = check(case, plain=True)
    assert np.sum(overflows) > 0 or bits > 8


@pytest.mark.parametrize(
    ("bits", "lsb", "blocks", "mode"),
    [
        (30, -4, 1, tiles.FREE_MULTIPLY),  # no bits below the lsb, and nothing can overflow
        (48, -4, 3, tiles.FREE_MULTIPLY),
        (48, -12, 1, tiles.FREE_MULTIPLY64),  # sums of more than 32 bits
        (20, -4, 1, tiles.MULTIPLY),
        (24, -4, 2, tiles.MULTIPLY),
        (32, -11, 1, tiles.MULTIPLY64),
        (24, 2, 1, tiles.FREE_ALIGN),
        (40, 2, 6, tiles.FREE_ALIGN),
        (14, 2, 1, tiles.ALIGN),
        (14, 2, 3, tiles.ALIGN32),
        (10, -16, 2, tiles.ALIGN32),  # terms saturate before they are added
    ],
)
@pytest.mark.parametrize("highest", [False, True])
def test_every_tile(bits: int, lsb: int, blocks: int, mode: int, highest: bool, monkeypatch) -> None:
    """From zero, and from psums at both ends of the accumulator, where nothing goes without limits."""
    seen: list[int] = []
    own = aligned.run_tiles
    monkeypatch.setattr(aligned, "run_tiles", lambda *call: seen.append(call[-1].mode) or own(*call))
    spec = AlignSpec(bits, lsb, True)
    case = draw(bits + blocks, spec, 60, spread=2, significands=15 if highest else 1, shape=(19, 6, 7, 21))
    if highest:
        for codes, scales in (case[0:2], case[2:4]):
            codes[:] = 60
            scales.significand[:] = 1
            scales.exponent[:] = 2
        case[0][3:9, 3:] *= -1
    check(case, blocks)
    assert highest or set(seen) == {mode}
    edge = 2 ** (bits - 1)
    initial = np.where(np.arange(21 * 19).reshape(21, 19) % 3 > 0, -edge, edge - 1)
    seen.clear()
    _, overflows = check((*case[:-1], initial), blocks)
    assert np.sum(overflows) > 0 and max(seen) < tiles.FREE_PLAIN


@pytest.mark.parametrize("blocks", [2, 3, 6])
@pytest.mark.parametrize("bits", [16, 27, 29, 40])
def test_several_blocks_a_step(blocks: int, bits: int) -> None:
    check(draw(blocks, AlignSpec(bits, 3, True), 12, size=8, significands=15), blocks, plain=True)


@pytest.mark.parametrize("nearest", [True, False])
@pytest.mark.parametrize("lsb", range(-30, 2, 3))
def test_terms_about_the_range_of_an_accumulator_lane(lsb: int, nearest: bool) -> None:
    """From within 2^accumulator_bits over 32 bits to far beyond: one and the same saturation."""
    case = draw(lsb + 40, AlignSpec(26, lsb, nearest), 12, significands=15, with_initial=True)
    _, overflows = check(case)
    assert np.sum(overflows) > 0 or lsb > -20


@pytest.mark.parametrize("nearest", [True, False])
@pytest.mark.parametrize("bits", [28, 29, 30, 31, 32])
def test_terms_that_no_lane_of_32_bits_takes_twice(bits: int, nearest: bool) -> None:
    """Of either sign, from half of 2^accumulator_bits to four times, with a block that has bits below the
    lsb: limited terms are doubled on one path."""
    weights, own = np.full((2, 2, 1), 64, np.int8), np.ones((2, 2), np.int32)
    weights[1] *= -1
    codes = np.array([[64], [64], [64], [127], [1]], np.int8)
    exponents = np.array([bits - 13, bits - 12, bits - 11, bits - 11, -7], np.int32)
    scales = Scales(np.ones(5, np.int32), exponents)
    gather = np.array([[a, b] for a in range(5) for b in range(5)], np.int32)
    case = (weights, Scales(own, 0 * own), codes, scales, gather, AlignSpec(bits, 0, nearest), None)
    assert np.sum(check(case)[1]) > 0


def test_terms_saturate_before_they_are_added() -> None:
    """Two blocks of a step, one far beyond the accumulator and one that takes it back: not the exact sum."""
    spec = AlignSpec(8, 0, True)
    weights, one = np.ones((1, 2, 1), np.int8), np.ones((1, 2), np.int32)
    own = Scales(one, np.zeros((1, 2), np.int32))
    codes = np.array([[100], [-100]], np.int8)
    scales = Scales(np.ones(2, np.int32), np.array([4, 1], np.int32))
    gather = np.array([[0, 1]], np.int32)
    found = check((weights, own, codes, scales, gather, spec, None), 2, plain=True)
    assert found == ([[56]], [[0]])  # 256 - 200, where the exact sum is 1400


@pytest.mark.parametrize("nearest", [True, False])
def test_ties_and_what_falls_below(nearest: bool) -> None:
    """Every eighth from -3 to 3 against an lsb of 1: floor, and to nearest with ties up."""
    count = 49
    codes = np.arange(-24, 25, dtype=np.int8)[:, None]
    one = np.ones((1, 1), np.int32)
    case = (
        np.ones((1, 1, 1), np.int8), Scales(one, 0 * one), codes,
        Scales(np.ones(count, np.int32), np.full(count, -3, np.int32)),
        np.arange(count, dtype=np.int32)[:, None], AlignSpec(24, 0, nearest), None,
    )  # fmt: skip
    psums, _ = check(case, plain=True)
    assert psums == [[(c + (4 if nearest else 0)) >> 3] for c in range(-24, 25)]


@pytest.mark.parametrize("lsb", [-150, -40, 40, 254])
def test_far_exponents(lsb: int) -> None:
    """Scales over all of e8m0, which leave float32's range: the plain loop serves."""
    check(draw(3, AlignSpec(24, lsb, True), 127, spread=127, shape=(5, 6, 7, 5)))


@pytest.mark.parametrize("largest", [448, 229376])
def test_wide_codes(largest: int) -> None:
    """e3m2 and e4m3 in units of their least step."""
    check(draw(4, AlignSpec(40, 10, True), largest, size=32, shape=(5, 4, 7, 5)))


def test_zero_blocks_may_have_any_scale() -> None:
    spec = AlignSpec(24, 0, True)
    weights, own, codes, scales, gather, *_ = draw(5, spec, 12)
    own.exponent[0, 0], scales.exponent[0] = -254, -254
    packed = pack_aligned(weights, own, spec)
    assert packed.floats is not None and packed.ranges.low >= -6
    check((weights, own, codes, scales, gather, spec, None))


def test_integer_steps_of_several_blocks() -> None:
    """VS-Quant with blocks below the vector: the scaled products of a step are added, then accumulated."""
    rng = np.random.default_rng(0)
    for bits in (10, 24, 40):
        spec = LaneSpec(4, 4, 4, 4, 0, 0, 2, bits, 0)
        weights = rng.integers(-7, 8, (5, 6, 8)).astype(np.int8)
        codes = rng.integers(-7, 8, (9, 8)).astype(np.int8)
        own, scales = (rng.integers(0, 16, shape).astype(np.uint16) for shape in ((5, 6), (9,)))
        gather = rng.integers(-1, 9, (7, 6)).astype(np.int32)
        wanted = accumulate_reference(weights, own, codes, scales, gather, spec, blocks=3)
        for path in PATHS:
            packed = pack_weights(weights, own, spec, path=path, blocks=3)
            for found, one in zip(accumulate(packed, codes, scales, gather, spec), wanted, strict=True):
                assert np.array_equal(found, one)
    with pytest.raises(ValueError, match="g range: got 1 to 6, expected multiples of 3 blocks"):
        accumulate(packed, codes, scales, gather[:, 1:], spec, g_start=1)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"spec": AlignSpec(49, 0, True)}, "align spec: accumulator_bits is 49, expected 2 to 48"),
        ({"significand": 16}, "weight significands: values from 16 to 16, expected 0 to 15"),
        ({"blocks": 4}, "blocks: got 4, expected a divisor of the 6 vectors"),
        ({"gather": 7}, "gather: an index is out of range, expected -1 to 6"),
        ({"dtype": np.int16}, "activation codes: got int16 with 2 dimensions, expected int8 or int32 with 2"),
    ],
)
def test_refusals(change: dict, message: str) -> None:
    weights, own, codes, scales, gather, spec, _ = draw(0, AlignSpec(24, 0, True), 12)
    if "significand" in change:
        own.significand[:] = change["significand"]
    with pytest.raises(ValueError, match=message):
        packed = pack_aligned(weights, own, change.get("spec", spec), blocks=change.get("blocks", 1))
        gather[0, 0] = change.get("gather", 0)
        accumulate_aligned(packed, codes.astype(change.get("dtype", np.int8)), scales, gather)
