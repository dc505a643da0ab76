"""What passes through the lanes of a PE: exact running sums, their extremes, and the bits that values take.

`accumulate` keeps what an accumulator of one width would hold; here the accumulator is wide enough for
everything, and every value on the way is looked at.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
from numba import config
from numpy.typing import NDArray

from accelsim_kernels.jit import njit
from accelsim_kernels.spec import (
    LaneSpec,
    activation_max,
    check_array,
    check_scales,
    check_shape,
    check_weights,
    max_scale_product,
    weight_max,
)
from accelsim_kernels.threads import run_threads
from accelsim_kernels.tiles import SLICE

BINS = 64
"""Bins of a histogram of magnitudes: bin b counts those of b bits, 2^(b-1) to 2^b - 1, and bin 0 zeros."""

_PIXELS_AT_ONCE, _OUTPUTS_AT_ONCE = 128, 64
_STEPS_PER_THREAD = 1 << 20  # below this much work a second thread costs more than it saves


class Scan(NamedTuple):
    """Of all steps (k, pixel, g) whose tap is not padding.

    psums: int64[P, K], the exact sums; least, largest: int64[P, K], extremes of 0 and all running sums;
    dots, products: (least, largest) of 0 and all dot products, and of those times their scale products;
    dot_bits, scale_product_bits, sum_bits: int64[BINS] counts of |dot product|, of the scale product after
    `:spN`, and of |running sum| after each step; rounded_to_zero: scale products that are 0 without a scale
    of 0.
    """

    psums: NDArray[np.int64]
    least: NDArray[np.int64]
    largest: NDArray[np.int64]
    dots: tuple[int, int]
    products: tuple[int, int]
    dot_bits: NDArray[np.int64]
    scale_product_bits: NDArray[np.int64]
    sum_bits: NDArray[np.int64]
    rounded_to_zero: int


@njit(cache=True, nogil=True)
def _scan(operands, span, shifts, results, bins, extremes):
    """Pixels span[0] .. span[1]-1, outputs span[2] .. span[3]-1, at most _OUTPUTS_AT_ONCE at a time.

    operands: (weights float32[G, V, K], their scales int64[G, K], activation words float32[n, V], their
    scales int64[n], gather int32[P, G]); shifts: (half, shift, largest) of the scale product, (half, shift)
    of the product; results: psums, least, largest int64[P, K]; bins: int64[4, BINS], the last row's first
    cell counts products rounded to zero; extremes: int64[4, _OUTPUTS_AT_ONCE].
    """
    weights, weight_scales, words, scales, gather = operands
    scale_half, scale_shift, scale_max, half, shift = shifts
    vectors, size = weights.shape[0], weights.shape[1]
    part, dots = np.empty(_OUTPUTS_AT_ONCE, np.float32), np.empty(_OUTPUTS_AT_ONCE, np.int64)
    factors = np.empty(_OUTPUTS_AT_ONCE, np.int64)
    dot_low, dot_high, product_low, product_high = extremes[0], extremes[1], extremes[2], extremes[3]
    # The exponent of a magnitude as a float64 tells its bits; y & ~(y >> 1) keeps the first bit and clears
    # the second, so that rounding to 53 bits cannot reach the next power of two.
    floats = np.empty((3, _OUTPUTS_AT_ONCE), np.float64)
    exponents = floats.view(np.int64)
    dot_float, factor_float, sum_float = floats[0], floats[1], floats[2]
    for start in range(span[2], span[3], _OUTPUTS_AT_ONCE):
        stop = min(start + _OUTPUTS_AT_ONCE, span[3])
        count = stop - start
        for p in range(span[0], span[1]):
            sums = results[0][p, start:stop]
            low, high = results[1][p, start:stop], results[2][p, start:stop]
            sums[:] = 0
            low[:] = 0
            high[:] = 0
            for g in range(vectors):
                index = gather[p, g]
                if index < 0:
                    continue
                dots[:] = 0
                for first in range(0, size, SLICE):
                    part[:] = 0
                    for v in range(first, min(first + SLICE, size)):
                        code = words[index, v]
                        if code != 0:
                            row = weights[g, v, start:stop]
                            for k in range(count):
                                part[k] += code * row[k]
                    for k in range(count):
                        dots[k] += np.int64(part[k])
                scale, row_scales = scales[index], weight_scales[g, start:stop]
                for k in range(count):
                    factors[k] = min((row_scales[k] * scale + scale_half) >> scale_shift, scale_max)
                for k in range(count):
                    product = (dots[k] * factors[k] + half) >> shift
                    dot_low[k] = min(dot_low[k], dots[k])
                    dot_high[k] = max(dot_high[k], dots[k])
                    product_low[k] = min(product_low[k], product)
                    product_high[k] = max(product_high[k], product)
                    total = sums[k] + product
                    sums[k] = total
                    low[k] = min(low[k], total)
                    high[k] = max(high[k], total)
                for k in range(count):
                    dot, total, factor = abs(dots[k]), abs(sums[k]), factors[k]
                    dot_float[k] = dot & ~(dot >> 1)
                    factor_float[k] = factor & ~(factor >> 1)
                    sum_float[k] = total & ~(total >> 1)
                for k in range(count):
                    bins[0, max(0, (exponents[0, k] >> 52) - 1022)] += 1
                    bins[1, max(0, (exponents[1, k] >> 52) - 1022)] += 1
                    bins[2, max(0, (exponents[2, k] >> 52) - 1022)] += 1
                if scale_shift > 0 and scale > 0:
                    for k in range(count):
                        bins[3, 0] += factors[k] == 0 and row_scales[k] > 0


def scan(
    weight_words: NDArray[np.int8],
    weight_scales: NDArray[np.uint16] | None,
    activation_words: NDArray[np.int8] | NDArray[np.uint8],
    activation_scales: NDArray[np.uint16] | None,
    gather: NDArray[np.int32],
    spec: LaneSpec,
) -> Scan:
    """Exact sums over all g, ascending, and what was seen on the way; spec.accumulator_bits limits nothing.

    Shapes, dtypes and checks as in `pack_weights` and `accumulate`. Uses up to NUMBA_NUM_THREADS threads; the
    result does not depend on it. Raises ValueError on bad input, and where sums could exceed 62 bits.
    """
    check_weights(weight_words, weight_scales, spec)
    outputs, vectors, size = weight_words.shape
    check_array("activation words", activation_words, (np.int8, np.uint8), 2)
    check_shape("activation words", activation_words, (len(activation_words), size))
    check_scales("activation", activation_scales, (len(activation_words),), spec.activation_scale_bits)
    check_array("gather", gather, (np.int32,), 2)
    check_shape("gather", gather, (len(gather), vectors))
    signed = activation_words.dtype == np.int8
    _check_values(activation_words, activation_scales, gather, spec, signed)
    bound = vectors * size * weight_max(spec) * activation_max(spec, signed) * max_scale_product(spec)
    if bound + vectors > 1 << 61:
        raise ValueError(f"vector size {size}: {vectors} products could exceed 62 bits")

    operands = (
        np.array(weight_words.transpose(1, 2, 0), np.float32, order="C"),
        _factors(weight_scales, (outputs, vectors)).T.copy(),
        activation_words.astype(np.float32, order="C"),
        _factors(activation_scales, (len(activation_words),)),
        np.array(gather, np.int32, order="C"),  # a copy: the compiled loop takes writable arrays only
    )
    shifts = (
        1 << spec.scale_product_shift >> 1,
        spec.scale_product_shift,
        max_scale_product(spec),
        1 << spec.product_shift >> 1,
        spec.product_shift,
    )
    pixels = len(gather)
    psums, least, largest = (np.empty((pixels, outputs), np.int64) for _ in range(3))
    steps = pixels * outputs * vectors
    threads = max(1, min(config.NUMBA_NUM_THREADS, steps // _STEPS_PER_THREAD))  # type: ignore[attr-defined]
    parts = min(threads, outputs) if pixels < 2 * threads * _PIXELS_AT_ONCE else 1
    work = deque(
        (first, min(first + _PIXELS_AT_ONCE, pixels), outputs * part // parts, outputs * (part + 1) // parts)
        for first in range(0, pixels, _PIXELS_AT_ONCE)
        for part in range(parts)
    )
    seen: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []

    def worker() -> None:
        bins, extremes = np.zeros((4, BINS), np.int64), np.zeros((4, _OUTPUTS_AT_ONCE), np.int64)
        seen.append((bins, extremes))
        while work:
            try:
                span = work.popleft()
            except IndexError:  # the other thread took the last one
                return
            _scan(operands, span, shifts, (psums, least, largest), bins, extremes)

    run_threads(worker, threads)
    bins = sum((own for own, _ in seen), np.zeros((4, BINS), np.int64))
    extremes = np.concatenate([own for _, own in seen], axis=1)
    low, high = extremes.min(axis=1), extremes.max(axis=1)
    return Scan(
        psums,
        least,
        largest,
        (int(low[0]), int(high[1])),
        (int(low[2]), int(high[3])),
        bins[0],
        bins[1],
        bins[2],
        int(bins[3, 0]),
    )


def _factors(scales: NDArray[np.uint16] | None, shape: tuple[int, ...]) -> NDArray[np.int64]:
    return np.ones(shape, np.int64) if scales is None else scales.astype(np.int64)


def _check_values(
    words: NDArray, scales: NDArray | None, gather: NDArray, spec: LaneSpec, signed: bool
) -> None:
    """Indices, codes and scales in their ranges, or ValueError."""
    last = len(words) - 1
    if gather.size and (gather.min() < -1 or gather.max() > last):
        raise ValueError(f"gather: indices from {gather.min()} to {gather.max()}, expected -1 to {last}")
    high = activation_max(spec, signed)
    low = -high if signed else 0
    if words.size and not low <= int(words.min()) <= int(words.max()) <= high:
        raise ValueError(
            f"activation words: codes from {words.min()} to {words.max()}, expected {low} to {high} "
            f"for {spec.activation_bits} bits"
        )
    if scales is not None and scales.size and int(scales.max()) >> spec.activation_scale_bits:
        raise ValueError(
            f"activation scales: largest is {scales.max()}, expected below {1 << spec.activation_scale_bits}"
        )
