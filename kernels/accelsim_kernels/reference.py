"""Plain NumPy twins of every kernel: naive, slow, and meant to be read beside docs/numerics.md.

Everything is int64 unless a comment says otherwise: |dot| <= V * 127 * 255, a scale product has at most
20 bits and an accumulator at most 62, so no intermediate of a lane can leave int64 for V below 2^20.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim_kernels.scales import Scales
from accelsim_kernels.spec import WRAP, AlignSpec, LaneSpec, accumulator_range

_Z_MAX = (1 << 23) - 1


def _tap(array: NDArray, index: NDArray[np.int32], padding: int) -> NDArray[np.int64]:
    """array[index] with `padding` where index is -1."""
    values = array[np.maximum(index, 0)].astype(np.int64)
    values[index < 0] = padding
    return values


def scale_products(
    weight_scales: NDArray[np.int64], activation_scales: NDArray[np.int64], spec: LaneSpec
) -> NDArray[np.int64]:
    """int64[P, K] from activation_scales int64[P] and weight_scales int64[K], rounded to N bits by `:spN`."""
    product = activation_scales[:, None] * weight_scales[None, :]
    if spec.scale_product_shift:
        half = 1 << (spec.scale_product_shift - 1)
        largest = (1 << spec.scale_product_bits) - 1
        product = np.minimum((product + half) >> spec.scale_product_shift, largest)
    return product


def limit(total: NDArray[np.int64], spec: LaneSpec) -> NDArray[np.int64]:
    """What an accumulator of spec.accumulator_bits holds after the exact sum `total`."""
    low, high = accumulator_range(spec)
    if spec.overflow == WRAP:
        return (total - low) % (1 << spec.accumulator_bits) + low
    return np.clip(total, low, high)


def accumulate_reference(
    weight_words: NDArray[np.int8],
    weight_scales: NDArray[np.uint16] | None,
    activation_words: NDArray[np.int8] | NDArray[np.uint8],
    activation_scales: NDArray[np.uint16] | None,
    gather: NDArray[np.int32],
    spec: LaneSpec,
    initial: NDArray[np.int64] | None = None,
    blocks: int = 1,
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Twin of `accumulate` over all g: (psums int64[P, K], overflows int32[P, K])."""
    outputs, vectors, _ = weight_words.shape
    pixels = len(gather)
    psums = np.zeros((pixels, outputs), np.int64) if initial is None else initial.astype(np.int64)
    overflows = np.zeros((pixels, outputs), np.int32)
    total = psums
    for g in range(vectors):
        dot = _tap(activation_words, gather[:, g], 0) @ weight_words[:, g].astype(np.int64).T
        ws = np.ones(outputs, np.int64) if weight_scales is None else weight_scales[:, g].astype(np.int64)
        if activation_scales is None:
            scale_of_pixel = np.ones(pixels, np.int64)
        else:
            scale_of_pixel = _tap(activation_scales, gather[:, g], 0)
        product = dot * scale_products(ws, scale_of_pixel, spec)
        if spec.product_shift:
            product = (product + (1 << (spec.product_shift - 1))) >> spec.product_shift
        total = total + product
        if (g + 1) % blocks == 0:
            psums = limit(total, spec)
            overflows += psums != total
            total = psums
    return psums, overflows


def aligned_terms(
    dots: NDArray[np.int64],
    significands: NDArray[np.int64],
    exponents: NDArray[np.int64],
    spec: AlignSpec,
) -> NDArray[np.int64]:
    """Dot products times significand * 2^exponent in units of the accumulator's lsb; all of one shape.

    Rounded where they are below it, and limited to +-2^accumulator_bits, one bit more than psums have.
    """
    limit = np.int64(1) << spec.accumulator_bits
    x, shift = dots * significands, exponents - spec.lsb
    left = np.clip(shift, 0, spec.accumulator_bits)
    right = np.clip(-shift, 0, 62)
    raised = np.clip(x, -(limit >> left), limit >> left) << left
    below = x >> right
    if spec.nearest:
        below = np.where(right > 0, ((x >> np.maximum(right - 1, 0)) + 1) >> 1, x)
    return np.clip(np.where(shift >= 0, raised, below), -limit, limit)


def accumulate_aligned_reference(
    weight_codes: NDArray[np.integer],
    weight_scales: Scales,
    activation_codes: NDArray[np.integer],
    activation_scales: Scales,
    gather: NDArray[np.int32],
    spec: AlignSpec,
    initial: NDArray[np.int64] | None = None,
    blocks: int = 1,
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Twin of `accumulate_aligned`: (psums int64[P, K], overflows int32[P, K])."""
    outputs, vectors, _ = weight_codes.shape
    pixels = len(gather)
    psums = np.zeros((pixels, outputs), np.int64) if initial is None else initial.astype(np.int64)
    overflows = np.zeros((pixels, outputs), np.int32)
    low, high = accumulator_range(spec)
    total = psums
    for g in range(vectors):
        dots = _tap(activation_codes, gather[:, g], 0) @ weight_codes[:, g].astype(np.int64).T
        significand, exponent = (
            _tap(own, gather[:, g], 0)[:, None]
            for own in (activation_scales.significand, activation_scales.exponent)
        )
        significand = significand * weight_scales.significand[:, g].astype(np.int64)
        exponent = exponent + weight_scales.exponent[:, g].astype(np.int64)
        total = total + aligned_terms(dots, significand, exponent, spec)
        if (g + 1) % blocks == 0:
            psums = np.clip(total, low, high)
            overflows += psums != total
            total = psums
    return psums, overflows


def bit_lengths(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[64]: how many of |values| have 0, 1, ... bits, by Python's own int.bit_length."""
    lengths = [abs(value).bit_length() for value in values.reshape(-1).tolist()]
    return np.bincount(np.array(lengths, np.int64), minlength=64)


def scan_reference(
    weight_words: NDArray[np.int8],
    weight_scales: NDArray[np.uint16] | None,
    activation_words: NDArray[np.int8] | NDArray[np.uint8],
    activation_scales: NDArray[np.uint16] | None,
    gather: NDArray[np.int32],
    spec: LaneSpec,
) -> tuple[NDArray[np.int64], ...]:
    """Twin of `scan`, a tuple of arrays.

    psums, least, largest; dots and products as (least, largest); counts of bits of dots, scale products and
    sums; [scale products that rounding makes 0].
    """
    outputs, vectors, _ = weight_words.shape
    pixels = len(gather)
    sums = np.zeros((pixels, outputs), np.int64)
    least, largest = sums.copy(), sums.copy()
    dots, products = np.zeros(2, np.int64), np.zeros(2, np.int64)
    counts = [np.zeros(64, np.int64) for _ in range(3)]
    rounded = np.zeros(1, np.int64)
    for g in range(vectors):
        inside = gather[:, g] >= 0
        dot = _tap(activation_words, gather[:, g], 0) @ weight_words[:, g].astype(np.int64).T
        ws = np.ones(outputs, np.int64) if weight_scales is None else weight_scales[:, g].astype(np.int64)
        if activation_scales is None:
            scale_of_pixel = np.ones(pixels, np.int64)
        else:
            scale_of_pixel = _tap(activation_scales, gather[:, g], 0)
        factor = scale_products(ws, scale_of_pixel, spec)
        product = dot * factor
        if spec.product_shift:
            product = (product + (1 << (spec.product_shift - 1))) >> spec.product_shift
        sums += product
        least, largest = np.minimum(least, sums), np.maximum(largest, sums)
        for extremes, values in ((dots, dot), (products, product)):
            extremes[:] = min(extremes[0], values.min(initial=0)), max(extremes[1], values.max(initial=0))
        for count, values in zip(counts, (dot, factor, sums), strict=True):
            count += bit_lengths(values[inside])
        rounded += np.count_nonzero((factor == 0) & (scale_of_pixel[:, None] * ws > 0))
    return sums, least, largest, dots, products, *counts, rounded


def gated_vectors_reference(
    weight_words: NDArray[np.int8],
    weight_scales: NDArray[np.uint16] | None,
    activation_words: NDArray[np.int8] | NDArray[np.uint8],
    activation_scales: NDArray[np.uint16] | None,
    gather: NDArray[np.int32],
    spec: LaneSpec,
) -> int:
    """Twin of `gated_vectors`."""
    outputs, vectors, _ = weight_words.shape
    pixels = len(gather)
    gated = 0
    for g in range(vectors):
        ws = np.ones(outputs, np.int64) if weight_scales is None else weight_scales[:, g].astype(np.int64)
        if activation_scales is None:
            scale_of_pixel = np.ones(pixels, np.int64)
        else:
            scale_of_pixel = _tap(activation_scales, gather[:, g], 0)
        zero_weight = np.all(weight_words[:, g] == 0, axis=1)
        zero_activation = np.all(_tap(activation_words, gather[:, g], 0) == 0, axis=1)
        zero_scale = (ws[None, :] == 0) | (scale_of_pixel[:, None] == 0)
        gated += int((zero_scale | zero_weight[None, :] | zero_activation[:, None]).sum())
    return gated


def live_products_reference(
    weight_words: NDArray[np.int8],
    weight_scales: NDArray[np.uint16] | None,
    activation_words: NDArray[np.int8] | NDArray[np.uint8],
    activation_scales: NDArray[np.uint16] | None,
    gather: NDArray[np.int32],
    spec: LaneSpec,
) -> NDArray[np.int64]:
    """Twin of `live_products`, from the operands themselves."""
    outputs, vectors, _ = weight_words.shape
    live = np.zeros(vectors, np.int64)
    for g in range(vectors):
        ws = np.ones(outputs, np.int64) if weight_scales is None else weight_scales[:, g].astype(np.int64)
        if activation_scales is None:
            scale_of_pixel = np.ones(len(gather), np.int64)
        else:
            scale_of_pixel = _tap(activation_scales, gather[:, g], 0)
        some_weight = np.any(weight_words[:, g] != 0, axis=1)
        some_activation = np.any(_tap(activation_words, gather[:, g], 0) != 0, axis=1)
        factor = scale_products(ws, scale_of_pixel, spec)
        live[g] = ((factor > 0) & some_weight[None, :] & some_activation[:, None]).sum()
    return live


def zero_operand_macs_reference(
    weight_words: NDArray[np.int8],
    activation_words: NDArray[np.int8] | NDArray[np.uint8],
    gather: NDArray[np.int32],
) -> int:
    """Twin of `zero_operand_macs`."""
    count = 0
    for g in range(weight_words.shape[1]):
        zero_weight = weight_words[:, g] == 0
        zero_activation = _tap(activation_words, gather[:, g], 0) == 0
        count += int((zero_weight[None, :, :] | zero_activation[:, None, :]).sum())
    return count


def scale_and_bias_reference(
    psums: NDArray[np.int64],
    multiplier: NDArray[np.int64],
    shift: NDArray[np.int64],
    bias: NDArray[np.int64],
    relu: bool,
) -> NDArray[np.int64]:
    """z int64[P, K] of the PPU before it is quantized. Python ints: psum * m may have 78 bits."""
    z = np.zeros(psums.shape, np.int64)
    for p in range(psums.shape[0]):
        for k in range(psums.shape[1]):
            m, t = int(multiplier[k]), int(shift[k])
            value = (int(psums[p, k]) * m + (1 << (t - 1))) >> t
            value = max(-_Z_MAX, min(_Z_MAX, value)) + int(bias[k])
            value = max(-_Z_MAX, min(_Z_MAX, value))
            z[p, k] = max(value, 0) if relu else value
    return z


def ppu_static_reference(
    psums: NDArray[np.int64],
    multiplier: NDArray[np.int64],
    shift: NDArray[np.int64],
    bias: NDArray[np.int64],
    relu: bool,
    fraction_bits: int,
    qmin: int,
    qmax: int,
) -> NDArray[np.int16]:
    """Twin of `ppu_static`."""
    z = scale_and_bias_reference(psums, multiplier, shift, bias, relu)
    if fraction_bits:
        z = (z + (1 << (fraction_bits - 1))) >> fraction_bits
    return np.clip(z, qmin, qmax).astype(np.int16)


def ppu_vector_reference(
    psums: NDArray[np.int64],
    multiplier: NDArray[np.int64],
    shift: NDArray[np.int64],
    bias: NDArray[np.int64],
    relu: bool,
    fraction_bits: int,
    qmin: int,
    qmax: int,
    scale_bits: int,
    vector_size: int,
    scales_up: bool,
) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    """Twin of `ppu_vector`."""
    z = scale_and_bias_reference(psums, multiplier, shift, bias, relu)
    pixels, outputs = z.shape
    codes = np.zeros((pixels, outputs), np.int16)
    scales = np.zeros((pixels, -(-outputs // vector_size)), np.uint16)
    for p in range(pixels):
        for vector, start in enumerate(range(0, outputs, vector_size)):
            chunk = z[p, start : start + vector_size]
            unit = qmax << fraction_bits
            largest = int(np.abs(chunk).max())
            s = -(-largest // unit) if scales_up else (largest + unit // 2) // unit
            s = min(max(s, 1), (1 << scale_bits) - 1)
            e = (s - 1).bit_length()  # ceil(log2 s)
            reciprocal = ((1 << (15 + e)) + s // 2) // s
            scaled = (chunk * reciprocal + (1 << (14 + e + fraction_bits))) >> (15 + e + fraction_bits)
            codes[p, start : start + vector_size] = np.clip(scaled, qmin, qmax)
            scales[p, vector] = s
    return codes, scales
