"""Bits that change in a lane from step to step, on chosen runs of its steps (docs/counts.md, Activity).

A partial product is the AND of a bit of either factor. Of two factors x, y that become x', y' so many of them
change: |x||y| + |x'||y'| - 2 |x & x'| |y & y'|, |x| the bits of x that are 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim_kernels.jit import njit
from accelsim_kernels.spec import (
    LaneSpec,
    accumulator_range,
    check_array,
    check_blocks,
    check_shape,
    check_spec,
)

_NO_SCALES = np.empty(0, np.uint16)
# Indices of the sums.
STEPS, LIVE, PRODUCTS, ADDITIONS, LOADS, READS = range(6)
DOT, SCALE, MULTIPLY, ACCUMULATOR, PIPELINE, WEIGHT, INPUT = range(6, 13)
SUMS = 13
# What a zero scale product holds (docs/counts.md, Gating).
NO_GATING, GATE_MULTIPLY, GATE_DOT = 0, 1, 2


class Toggles(NamedTuple):
    """Sums over the steps of all runs.

    steps; live_steps, whose vectors and scales are not 0; products, of them those that are multiplied by a
    scale; additions; weight_loads of the weight register, input_reads of the input buffer. Bits that change:
    dot_product, scale_product, scale_multiply partial products of the multipliers; accumulator in
    psum and product at the adder; pipeline in the registers behind the multipliers and that of the psum, of
    products; weight_register, input_register in the operand registers, gating dot products that of the lane.
    """

    steps: int
    live_steps: int
    products: int
    additions: int
    weight_loads: int
    input_reads: int
    dot_product: int
    scale_product: int
    scale_multiply: int
    accumulator: int
    pipeline: int
    weight_register: int
    input_register: int


class Runs(NamedTuple):
    """Runs of steps. channels: int64[n]; part: int64[Gp], the vectors that a PE sums, in order; first:
    int64[n], index in `part` of a run's first vector; taps: int32[n, d, Gp], input word of each pixel at each
    vector of the part, -1 in the padding; vectors: how many of them a run takes; held: weights stay while the
    pixels pass (os-lws, ws), or change at every step."""

    channels: NDArray[np.int64]
    part: NDArray[np.int64]
    first: NDArray[np.int64]
    taps: NDArray[np.int32]
    vectors: int
    held: bool


@njit(cache=True, nogil=True, inline="always")
def _ones(x, bits):
    """1s among the low bits of a two's complement number; at most 63 bits."""
    v = np.uint64(x) & ((np.uint64(1) << np.uint64(bits)) - np.uint64(1))
    v = v - ((v >> np.uint64(1)) & np.uint64(0x5555555555555555))
    v = (v & np.uint64(0x3333333333333333)) + ((v >> np.uint64(2)) & np.uint64(0x3333333333333333))
    v = (v + (v >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((v * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit(cache=True, nogil=True, inline="always")
def _products(x, x_new, x_bits, y, y_new, y_bits):
    """Partial products of x and y that change."""
    before, after = _ones(x, x_bits) * _ones(y, y_bits), _ones(x_new, x_bits) * _ones(y_new, y_bits)
    return before + after - 2 * _ones(x & x_new, x_bits) * _ones(y & y_new, y_bits)


@njit(cache=True, nogil=True)
def _scale(ws, a_s, sh, largest):
    product = ws * a_s
    if sh:
        product = min((product + (np.int64(1) << (sh - 1))) >> sh, largest)
    return product


@njit(cache=True, nogil=True)
def _term(dot, scale, shift):
    product = dot * scale
    if shift:
        product = (product + (np.int64(1) << (shift - 1))) >> shift
    return product


@njit(cache=True, nogil=True)
def _count(
    words,
    wscales,
    inputs,
    iscales,
    channels,
    part,
    first,
    taps,
    vectors,
    held,
    w,
    limits,
    blocks,
    gating,
    sums,
):
    """words: int8[K, G, V]; wscales: uint16[K * G * blocks] or empty; inputs: int16[n, V]; iscales:
    uint16[n * blocks] or empty; w: int64[10], what lane_widths gives; limits: int64[2] of the accumulator."""
    size = words.shape[2]
    codes = size // blocks
    all_vectors = words.shape[1]
    w_bits, a_bits, ws_bits, as_bits, d_bits, s_bits, p_bits, n_bits, sh, shift = w
    largest = (np.int64(1) << s_bits) - 1
    pixels = taps.shape[1]
    # Ones of codes of up to 9 bits, by their low bits.
    ones = np.empty(512, np.int64)
    for code in range(512):
        ones[code] = _ones(code, 9)
    w_mask, a_mask = (1 << w_bits) - 1, (1 << a_bits) - 1
    own_w = np.zeros(size, np.int64)
    own_a = np.zeros(size, np.int64)
    ws_own, as_own = np.zeros(blocks, np.int64), np.zeros(blocks, np.int64)
    ws_new, as_new = np.zeros(blocks, np.int64), np.zeros(blocks, np.int64)
    dot_own, dots = np.zeros(blocks, np.int64), np.zeros(blocks, np.int64)
    scale_own, scale = np.zeros(blocks, np.int64), np.zeros(blocks, np.int64)
    product_own, addend_own = np.zeros(blocks, np.int64), np.zeros(blocks, np.int64)
    psum = np.zeros(pixels, np.int64)
    for run in range(len(channels)):
        k, start = channels[run], first[run]
        for d in range(pixels):
            total = np.int64(0)
            for j in range(start):
                g, index = part[j], taps[run, d, j]
                if index < 0:
                    continue
                for b in range(blocks):
                    dot = np.int64(0)
                    for v in range(b * codes, (b + 1) * codes):
                        dot += np.int64(words[k, g, v]) * np.int64(inputs[index, v])
                    at_w, at_a = (k * all_vectors + g) * blocks + b, index * blocks + b
                    ws = np.int64(wscales[at_w]) if ws_bits else np.int64(1)
                    a_s = np.int64(iscales[at_a]) if as_bits else np.int64(1)
                    total += _term(dot, _scale(ws, a_s, sh, largest), shift)
            psum[d] = min(max(total, limits[0]), limits[1])
        own_w[:] = 0
        own_a[:] = 0
        ws_own[:] = 0
        as_own[:] = 0
        dot_own[:] = 0
        scale_own[:] = 0
        product_own[:] = 0
        addend_own[:] = 0
        psum_own = np.int64(0)
        weight_live = False
        # One step before the first, whose state is that before it: of the vector before at the last pixel.
        for step in range(-1, pixels * vectors):
            if step < 0:
                j, d = start - 1 if start else len(part) - 1, pixels - 1
            elif held:
                j, d = start + step // pixels, step % pixels
            else:
                j, d = start + step % vectors, step // vectors
            g, index = part[j], taps[run, d, j]
            load = not held or d == 0 or step < 0
            ws_new[:] = ws_own
            as_new[:] = as_own
            if load:
                weight_live = False
                for b in range(blocks):
                    ws_new[b] = np.int64(wscales[(k * all_vectors + g) * blocks + b]) if ws_bits else 1
                    if ws_new[b] > 0:
                        for v in range(b * codes, (b + 1) * codes):
                            weight_live |= bool(words[k, g, v] != 0)
                if not weight_live:
                    ws_new[:] = 0
            a_live = False
            if index >= 0:
                for b in range(blocks):
                    if not as_bits or iscales[index * blocks + b] > 0:
                        for v in range(b * codes, (b + 1) * codes):
                            a_live |= bool(inputs[index, v] != 0)
                if a_live or gating == GATE_DOT:  # then the scale product is made of what the buffer gives
                    for b in range(blocks):
                        as_new[b] = np.int64(iscales[index * blocks + b]) if as_bits else 1
            live = weight_live and a_live
            # A product of scales other than 0 is 0 only where it is rounded.
            some = not sh
            for b in range(blocks):
                scale[b] = _scale(ws_new[b], as_new[b], sh, largest) if live else np.int64(0)
                some |= bool(scale[b] != 0)
            moves = live and (gating == NO_GATING or some)
            takes = moves if gating == GATE_DOT else a_live
            changed = w_changed = a_changed = np.int64(0)
            dots[:] = 0
            for v in range(size):
                x = own_w[v]
                x_new = (np.int64(words[k, g, v]) if weight_live else np.int64(0)) if load else x
                y = own_a[v]
                y_new = np.int64(inputs[index, v]) if takes else y
                xm, ym, xn, yn = x & w_mask, y & a_mask, x_new & w_mask, y_new & a_mask
                changed += ones[xm] * ones[ym] + ones[xn] * ones[yn] - 2 * ones[xm & xn] * ones[ym & yn]
                w_changed += ones[xm ^ xn]
                a_changed += ones[ym ^ yn]
                dots[v // codes] += x_new * y_new
                own_w[v], own_a[v] = x_new, y_new
            scale_changed = np.int64(0)
            for b in range(blocks):
                if ws_bits:
                    w_changed += _ones(ws_own[b] ^ ws_new[b], ws_bits)
                if as_bits and gating != GATE_DOT:
                    a_changed += _ones(as_own[b] ^ as_new[b], as_bits)
                if ws_bits and as_bits:
                    scale_changed += _products(ws_own[b], ws_new[b], ws_bits, as_own[b], as_new[b], as_bits)
            ws_own[:] = ws_new
            as_own[:] = as_new
            multiplied = registers = added = addend = psum_changed = np.int64(0)
            adds = moves or gating == NO_GATING or j == 0
            for b in range(blocks):
                own = np.int64(0)
                if moves:
                    product = dots[b] * scale[b]
                    registers += _ones(dots[b] ^ dot_own[b], d_bits)
                    if s_bits:
                        multiplied += _products(dot_own[b], dots[b], d_bits, scale_own[b], scale[b], s_bits)
                        registers += _ones(scale[b] ^ scale_own[b], s_bits)
                        registers += _ones(product ^ product_own[b], p_bits + shift)
                    own = _term(dots[b], scale[b], shift)
                    dot_own[b], scale_own[b], product_own[b] = dots[b], scale[b], product
                if adds:
                    added += _ones(own ^ addend_own[b], p_bits)
                    addend_own[b] = own
                addend += own
            if adds:
                psum_changed = _ones(psum[d] ^ psum_own, n_bits)
                added += psum_changed
                psum_own = psum[d]
            if step < 0:
                continue
            psum[d] = min(max(psum[d] + addend, limits[0]), limits[1])
            sums[STEPS] += 1
            sums[LIVE] += live
            sums[PRODUCTS] += moves
            sums[ADDITIONS] += adds
            sums[LOADS] += load
            sums[READS] += index >= 0
            sums[DOT] += changed
            sums[SCALE] += scale_changed
            sums[MULTIPLY] += multiplied
            sums[ACCUMULATOR] += added
            sums[PIPELINE] += registers + (psum_changed if moves else 0)
            sums[WEIGHT] += w_changed
            sums[INPUT] += a_changed


def toggles(
    weight_words: NDArray[np.int8],
    weight_scales: NDArray[np.uint16] | None,
    activation_words: NDArray[np.int8] | NDArray[np.uint8],
    activation_scales: NDArray[np.uint16] | None,
    runs: Runs,
    spec: LaneSpec,
    operand_bits: int,
    gating: int = NO_GATING,
    blocks: int = 1,
) -> Toggles:
    """Bits that change in a lane over `runs`, with a saturating accumulator.

    weight_words: [K, G, V], weight_scales: [K, G]; activation_words: [n, V], activation_scales: [n]; where a
    word has several blocks, scales have one more dimension for them;
    operand_bits: of the multiplier's activation operand, activation_bits or one more; gating: what a scale
    product of 0 holds, and then whatever makes a product 0 holds the adder too, but for the part's first.
    """
    check_spec(spec)
    check_array("weight words", weight_words, (np.int8,), 3)
    check_array("activation words", activation_words, (np.int8, np.uint8), 2)
    outputs, vectors, size = weight_words.shape
    check_shape("activation words", activation_words, (len(activation_words), size))
    check_shape("taps", runs.taps, (len(runs.channels), runs.taps.shape[1], len(runs.part)))
    for name, values, end in (
        ("channels", runs.channels, outputs),
        ("part", runs.part, vectors),
        ("first", runs.first, len(runs.part) - runs.vectors + 1),
        ("taps", runs.taps + 1, len(activation_words) + 1),
    ):
        if values.size and (values.min() < 0 or values.max() >= end):
            raise ValueError(f"runs: {name} from {values.min()} to {values.max()}, expected 0 to {end - 1}")
    sums = np.zeros(SUMS, np.int64)
    check_blocks(blocks, size)
    for name, scales, shape in (
        ("weight scales", weight_scales, (outputs, vectors)),
        ("activation scales", activation_scales, (len(activation_words),)),
    ):
        if scales is not None:
            check_shape(name, scales, shape if blocks == 1 else (*shape, blocks))
    widths = lane_widths(spec, operand_bits, size // blocks)
    _count(
        weight_words,
        _NO_SCALES if weight_scales is None else np.ascontiguousarray(weight_scales).reshape(-1),
        activation_words.astype(np.int16),
        _NO_SCALES if activation_scales is None else np.ascontiguousarray(activation_scales).reshape(-1),
        *runs[:4],
        runs.vectors,
        runs.held,
        np.array(widths, np.int64),
        np.array(accumulator_range(spec), np.int64),
        blocks,
        gating,
        sums,
    )
    return Toggles(*(int(value) for value in sums))


def lane_widths(spec: LaneSpec, operand_bits: int, codes: int) -> tuple[int, ...]:
    """(weight, operand, weight scale, activation scale, dot, scale, addend, accumulator bits, shifts of scale
    product and product), of a dot product over so many codes; scale 0 without scales, an addend is a product
    after its shift."""
    dot = spec.weight_bits + operand_bits + (codes - 1).bit_length()
    scale = spec.scale_product_bits or spec.weight_scale_bits + spec.activation_scale_bits
    return (
        spec.weight_bits,
        operand_bits,
        spec.weight_scale_bits,
        spec.activation_scale_bits,
        dot,
        scale,
        max(1, dot + scale - spec.product_shift),
        spec.accumulator_bits,
        spec.scale_product_shift,
        spec.product_shift,
    )
