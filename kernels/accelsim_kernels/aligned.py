"""Vector MACs of blocks whose scales are numbers of their own, aligned into a fixed-point accumulator.

docs/numerics.md (Block formats) defines every bit. Codes come decoded, as integers; a scale as significand
and exponent. Codes of 8 bits go through the tiles of `accumulate`: the dot product of a block is an exact
integer below 2^24, so that its product with scales kept in float32 is exact too. All else, wider codes and
scales too far apart for float32, goes through a plain loop in int64.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim_kernels import packing, tiles
from accelsim_kernels.accumulate import Activations, PackedWeights, Plan, path_of, run_tiles
from accelsim_kernels.jit import njit
from accelsim_kernels.spec import (
    AlignSpec,
    accumulator_range,
    check_array,
    check_blocks,
    check_initial,
    check_shape,
    psum_type,
)

MAX_ACCUMULATOR_BITS = 48
MAX_SIGNIFICAND = 15
"""Of a scale: e4m3's significands have four bits, e8m0's are 1."""

_MAX_EXPONENT = 1 << 12  # of a scale or lsb, so that sums of them stay far inside of int32
_EXACT_FLOAT = 1 << 24
_FLOAT_EXPONENT = 96  # magnitude of the exponents that a product of two scales may have in float32


class Scales(NamedTuple):
    """significand * 2^exponent, int32 of any one shape; significands 0 to MAX_SIGNIFICAND."""

    significand: NDArray[np.int32]
    exponent: NDArray[np.int32]


class AlignedWeights:
    """Weights of one tile. Opaque; made by `pack_aligned`.

    packed: as tiles take them, or None where only the plain loop serves; middle: exponent that the float32
    scales are relative to; heaviest: the largest sum of magnitudes of a block, times its float32 scale.
    """

    def __init__(self, codes: NDArray, scales: Scales, spec: AlignSpec, path: str, blocks: int) -> None:
        self.codes, self.scales, self.spec, self.blocks, self.path = codes, scales, spec, blocks, path
        self.outputs, self.vectors, self.vector_size = codes.shape
        words = codes.reshape(-1, self.vector_size)
        self.ranges = _ranges(words, scales)
        low, high = self.ranges.low, self.ranges.high
        self.middle = (low + high) // 2
        self.packed: PackedWeights | None = None
        if codes.dtype == np.int8 and high - low <= _FLOAT_EXPONENT:
            factors, _ = _float_scales(words, scales, -self.middle)
            # A term is at the most this times the largest code of activations with its scale.
            self.heaviest = float(
                (np.abs(words.astype(np.int64)).sum(axis=1) * factors.astype(np.float64)).max()
            )
            self.packed = PackedWeights(codes, factors.reshape(codes.shape[:2]), spec, path, blocks)


class _Ranges(NamedTuple):
    """Of blocks of codes, int[n, B], with scales: the largest magnitude of a code; of blocks that are not
    zeros and have a scale that is not 0 the largest significand, least and largest exponent (0 where there is
    none).

    A block of zeros may have any scale, such as the smallest there is, which would only widen the range.
    """

    largest: int
    significand: int
    low: int
    high: int


def _ranges(words: NDArray, scales: Scales) -> _Ranges:
    return _Ranges(*_find_ranges(words, *_flat(scales)))


def _float_scales(words: NDArray, scales: Scales, shift: int) -> tuple[NDArray[np.float32], float]:
    """significand * 2^(exponent + shift), float32[n], 0 of a block of zeros; and the largest magnitude of a
    code times its block's."""
    factors = np.empty(len(words), np.float32)
    return factors, _make_float_scales(words, *_flat(scales), shift, factors)


def _flat(scales: Scales) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return scales.significand.reshape(-1), scales.exponent.reshape(-1)


@njit(cache=True, nogil=True)
def _find_ranges(words, significands, exponents):
    largest, significand, low, high = np.int64(0), np.int64(0), np.int64(1 << 30), np.int64(-(1 << 30))
    for i in range(len(words)):
        most = np.int64(0)
        for j in range(words.shape[1]):
            most = max(most, abs(np.int64(words[i, j])))
        largest = max(largest, most)
        if most > 0 and significands[i] > 0:
            significand = max(significand, np.int64(significands[i]))
            low, high = min(low, np.int64(exponents[i])), max(high, np.int64(exponents[i]))
    if low > high:
        low, high = np.int64(0), np.int64(0)
    return largest, significand, low, high


@njit(cache=True, nogil=True)
def _make_float_scales(words, significands, exponents, shift, factors):
    largest = 0.0
    for i in range(len(words)):
        most = np.int64(0)
        for j in range(words.shape[1]):
            most = max(most, abs(np.int64(words[i, j])))
        factors[i] = 0
        if most > 0 and significands[i] > 0:
            factors[i] = math.ldexp(np.float64(significands[i]), exponents[i] + shift)
            largest = max(largest, most * np.float64(factors[i]))
    return largest


def _check_scales(side: str, scales: Scales, shape: tuple[int, ...]) -> None:
    for name, array, least, most in (
        (f"{side} significands", scales.significand, 0, MAX_SIGNIFICAND),
        (f"{side} exponents", scales.exponent, -_MAX_EXPONENT, _MAX_EXPONENT),
    ):
        check_array(name, array, (np.int32,), len(shape))
        check_shape(name, array, shape)
        if array.size and not least <= int(array.min()) <= int(array.max()) <= most:
            raise ValueError(
                f"{name}: values from {array.min()} to {array.max()}, expected {least} to {most}"
            )


def _check_spec(spec: AlignSpec) -> None:
    for name, least, most in (
        ("accumulator_bits", 2, MAX_ACCUMULATOR_BITS),
        ("lsb", -_MAX_EXPONENT, _MAX_EXPONENT),
    ):
        value = getattr(spec, name)
        if not least <= value <= most:
            raise ValueError(f"align spec: {name} is {value}, expected {least} to {most}")


def pack_aligned(
    weight_codes: NDArray[np.int8] | NDArray[np.int32],
    weight_scales: Scales,
    spec: AlignSpec,
    *,
    path: str | None = None,
    blocks: int = 1,
) -> AlignedWeights:
    """Check and pack the weights of one tile, to be used by many calls of `accumulate_aligned`.

    weight_codes: decoded, int8 or int32[K, G, B]; weight_scales: [K, G]; path as in `pack_weights`; blocks:
    so many consecutive blocks are added before they are accumulated, a divisor of G.
    """
    _check_spec(spec)
    check_array("weight codes", weight_codes, (np.int8, np.int32), 3)
    if 0 in weight_codes.shape:
        raise ValueError(f"weight codes: got shape {weight_codes.shape}, expected no empty dimension")
    _check_scales("weight", weight_scales, weight_codes.shape[:2])
    check_blocks(blocks, weight_codes.shape[1])
    return AlignedWeights(weight_codes, weight_scales, spec, path_of(path), blocks)


def accumulate_aligned(
    weights: AlignedWeights,
    activation_codes: NDArray[np.int8] | NDArray[np.int32],
    activation_scales: Scales,
    gather: NDArray[np.int32],
    initial: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Partial sums [P, K] after all blocks, and overflows int32[P, K] on the way, as `accumulate` has them.

    activation_codes: decoded, int8 or int32[n, B]; activation_scales: [n]; gather: int32[P, G], the block
    under each tap, -1 in padding; initial: [P, K] psums, int32 or int64, to continue from. An accumulation
    whose sum of terms does not fit saturates and counts as one overflow. Raises ValueError where products
    could exceed 62 bits.
    """
    spec, size = weights.spec, weights.vector_size
    check_array("activation codes", activation_codes, (np.int8, np.int32), 2)
    check_shape("activation codes", activation_codes, (len(activation_codes), size))
    _check_scales("activation", activation_scales, (len(activation_codes),))
    check_array("gather", gather, (np.int32,), 2)
    check_shape("gather", gather, (len(gather), weights.vectors))
    check_initial(initial, (len(gather), weights.outputs), spec)
    if gather.size and (gather.min() < -1 or gather.max() >= len(activation_codes)):
        raise ValueError(f"gather: an index is out of range, expected -1 to {len(activation_codes) - 1}")
    own, theirs = _ranges(activation_codes, activation_scales), weights.ranges
    dot = size * theirs.largest * own.largest
    if dot * MAX_SIGNIFICAND**2 >= 1 << 61:
        raise ValueError(f"block of {size}: products could exceed 62 bits")
    # What a term of the tiles is multiplied by, besides significands: 2^exponent, of these the range.
    shift = weights.middle - spec.lsb
    reach = max(abs(own.low + shift), abs(own.high + shift + 1)) + theirs.high - theirs.low
    exact = dot * theirs.significand * own.significand < _EXACT_FLOAT
    narrow = activation_codes.dtype == np.int8 and weights.packed is not None
    if not narrow or not exact or reach > _FLOAT_EXPONENT:
        return _plain(weights, activation_codes, activation_scales, gather, initial)
    assert weights.packed is not None
    factors, largest = _float_scales(activation_codes, activation_scales, shift)
    mode = _mode(spec, weights.blocks, 2 * weights.heaviest * largest)
    doubled = int(spec.nearest and not tiles.rounds_down(mode, weights.path == "vnni"))
    if doubled:
        factors *= 2
    codes = np.ascontiguousarray(activation_codes)
    source = (factors.ctypes.data, len(codes))
    activations = Activations(codes, packing.pack_factors, source, 8, False, _no_refusal)
    return run_tiles(weights.packed, activations, gather, initial, 0, _plan(spec, mode, doubled))


def _no_refusal(bad: int) -> ValueError:
    raise AssertionError(bad)  # everything was checked before


def _mode(spec: AlignSpec, blocks: int, term: float) -> int:
    """The fastest tile for terms of at most half this magnitude, which a tile may double.

    Added one by one, terms beyond 2^accumulator_bits saturate an accumulator whether they are limited or not.
    """
    _, high = accumulator_range(spec)
    if blocks == 1 and high + 1 + term + 1 < 1 << 31:
        return tiles.ALIGN
    narrow = high + 1 + (blocks << spec.accumulator_bits) <= (1 << 31) - 1
    return tiles.ALIGN32 if narrow else tiles.ALIGN64


def _plan(spec: AlignSpec, mode: int, doubled: int) -> Plan:
    low, high = accumulator_range(spec)
    nearest, limit = int(spec.nearest), 1 << spec.accumulator_bits + doubled
    return Plan(mode, (-128, low, high, 0, 0, 0, 0, nearest, nearest, limit))


def _plain(
    weights: AlignedWeights,
    codes: NDArray,
    scales: Scales,
    gather: NDArray[np.int32],
    initial: NDArray[Any] | None,
) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """The same in int64, for any codes and exponents."""
    spec, shape = weights.spec, (len(gather), weights.outputs)
    psums = np.zeros(shape, np.int64) if initial is None else initial.astype(np.int64)
    overflows = np.zeros(shape, np.int32)
    # Outputs last, so that the inner loop runs along them.
    operands = (
        np.array(weights.codes.transpose(1, 2, 0), np.int64, order="C"),
        np.array(weights.scales.significand.T, np.int64, order="C"),
        np.array(weights.scales.exponent.T, np.int64, order="C"),
        np.array(codes, np.int64, order="C"),
        np.array(scales.significand, np.int64),
        np.array(scales.exponent, np.int64),
        np.array(gather, np.int32, order="C"),
    )
    low, high = accumulator_range(spec)
    how = spec.accumulator_bits, spec.lsb, spec.nearest, weights.blocks
    _sum_blocks(operands, psums, overflows, low, high, how)
    return psums.astype(psum_type(spec), copy=False), overflows


@njit(cache=True, nogil=True)
def _sum_blocks(operands, psums, overflows, low, high, how):
    weights, weight_significands, weight_exponents, codes, significands, exponents, gather = operands
    bits, lsb, nearest, blocks = how
    vectors, size, outputs = weights.shape
    term_limit = np.int64(1) << bits
    dots, totals = np.empty(outputs, np.int64), np.empty(outputs, np.int64)
    for p in range(len(gather)):
        totals[:] = psums[p]
        for g in range(vectors):
            index = gather[p, g]
            if index >= 0:
                dots[:] = 0
                for v in range(size):
                    code = codes[index, v]
                    if code != 0:
                        for k in range(outputs):
                            dots[k] += code * weights[g, v, k]
                for k in range(outputs):
                    x = dots[k] * (weight_significands[g, k] * significands[index])
                    s = weight_exponents[g, k] + exponents[index] - lsb
                    if s >= 0:
                        s = min(s, bits)
                        largest = term_limit >> s
                        x = min(max(x, -largest), largest) << s
                    else:
                        s = min(-s, 62)  # |x| < 2^61
                        if nearest:
                            x = ((x >> (s - 1)) + 1) >> 1
                        else:
                            x = x >> s
                    totals[k] += min(max(x, -term_limit), term_limit)
            if (g + 1) % blocks == 0:
                for k in range(outputs):
                    limited = min(max(totals[k], low), high)
                    overflows[p, k] += limited != totals[k]
                    totals[k] = limited
        psums[p] = totals
