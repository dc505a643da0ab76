"""Vector MACs of blocks whose scales are numbers of their own, aligned into a fixed-point accumulator.

docs/numerics.md (Block formats) defines every bit. Codes come decoded, as integers; a scale as significand
and exponent. Codes of 8 bits go through the tiles of `accumulate`, in one of two ways. Where no term has bits
below the lsb, scales are integers in units of it and everything is exact, as in VS-Quant. Else scales are
kept in float32: the dot product of a block is an integer below 2^24, so that the product with them is exact
too, and is rounded. All else, wider codes and scales too far apart for float32, goes through a plain loop in
int64.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim_kernels import packing, tiles
from accelsim_kernels.accumulate import Activations, PackedWeights, Plan, path_of, run_tiles
from accelsim_kernels.jit import njit
from accelsim_kernels.scales import (
    FLOAT_EXPONENT,
    INTEGER_SHIFT,
    Ranges,
    Scales,
    find_ranges,
    float_scales,
    integer_scales,
)
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
_EXACT_FLOAT, _INT32 = 1 << 24, (1 << 31) - 1


class AlignedWeights:
    """Weights of one tile. Opaque; made by `pack_aligned`.

    middle: exponent that float32 scales are relative to; integer ones are to the least of `ranges`.
    """

    def __init__(self, codes: NDArray, scales: Scales, spec: AlignSpec, path: str, blocks: int) -> None:
        self.codes, self.scales, self.spec, self.blocks, self.path = codes, scales, spec, blocks, path
        self.outputs, self.vectors, self.vector_size = codes.shape
        self.ranges, self._live = find_ranges(codes.reshape(-1, self.vector_size), scales)
        self.middle = (self.ranges.low + self.ranges.high) // 2

    @cached_property
    def integers(self) -> PackedWeights | None:
        """As tiles take them, with scales in units of the least; None where these have too many bits."""
        if self.codes.dtype != np.int8 or self.ranges.high - self.ranges.low > INTEGER_SHIFT:
            return None
        scales = integer_scales(self.scales, self._live, -self.ranges.low)
        return self._packed(scales.reshape(self.codes.shape[:2]))

    @cached_property
    def floats(self) -> PackedWeights | None:
        """As tiles take them, with scales in float32; None where these could leave its range."""
        if self.codes.dtype != np.int8 or self.ranges.high - self.ranges.low > FLOAT_EXPONENT:
            return None
        scales = float_scales(self.scales, self._live, -self.middle)
        return self._packed(scales.reshape(self.codes.shape[:2]))

    def _packed(self, scales: NDArray) -> PackedWeights:
        return PackedWeights(self.codes, scales, self.spec, self.path, self.blocks)


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
    (own, live), theirs = find_ranges(activation_codes, activation_scales), weights.ranges
    if size * theirs.largest * own.largest * MAX_SIGNIFICAND**2 >= 1 << 61:
        raise ValueError(f"block of {size}: products could exceed 62 bits")
    started = 0 if initial is None or not initial.size else max(-int(initial.min()), int(initial.max()))
    if activation_codes.dtype == np.int8:
        activations = _Activations(activation_codes, activation_scales, own, live)
        way = _in_integers(weights, activations, started) or _in_floats(weights, activations, started)
        if way:
            packed, factors, planned = way
            words = len(activation_codes)

            def refused(bad: int) -> ValueError:
                return _bad_gather(words)

            codes, source = np.ascontiguousarray(activation_codes), (factors.ctypes.data, words)
            taken = Activations(codes, packing.pack_factors, source, 8, False, refused)
            return run_tiles(packed, taken, gather, initial, 0, planned)
    if gather.size and (gather.min() < -1 or gather.max() >= len(activation_codes)):
        raise _bad_gather(len(activation_codes))
    return _plain(weights, activation_codes, activation_scales, gather, initial)


def _bad_gather(words: int) -> ValueError:
    return ValueError(f"gather: an index is out of range, expected -1 to {words - 1}")


class _Activations(NamedTuple):
    codes: NDArray
    scales: Scales
    ranges: Ranges
    live: NDArray[np.int32]


_Way = tuple[PackedWeights, NDArray, Plan]  # weights, a factor of every word of activations, the tile


def _in_integers(weights: AlignedWeights, own: _Activations, started: int) -> _Way | None:
    """Where no term has bits below the lsb and none is beyond 32 bits. started: magnitude of first psums.

    A product is dot * factor, all in 32 bits. The factor alone may leave them, but only where the dot product
    is 0.
    """
    spec, shift = weights.spec, weights.ranges.low - weights.spec.lsb
    least = own.ranges.low + shift
    packed = weights.integers
    if packed is None or least < 0 or own.ranges.high + shift > INTEGER_SHIFT:
        return None
    factors = integer_scales(own.scales, own.live, shift)
    largest = own.ranges.largest * float(factors.max(initial=0))
    term, total = packed.heaviest_term * largest, packed.heaviest * largest + started
    high = accumulator_range(spec)[1]
    several = weights.blocks > 1 and term > 1 << spec.accumulator_bits  # terms saturate before they are added
    if total <= min(high, _INT32):
        mode = tiles.FREE_MULTIPLY
    elif term > _INT32 or several:
        return None
    elif total <= high:
        mode = tiles.FREE_MULTIPLY64
    else:
        narrow = high + 1 + weights.blocks * term <= _INT32
        mode = tiles.MULTIPLY if narrow else tiles.MULTIPLY64
    return packed, factors, _plan(spec, mode, 0)


def _in_floats(weights: AlignedWeights, own: _Activations, started: int) -> _Way | None:
    """Where every product is exact in float32. It is rounded, or doubled, then rounded down."""
    spec, theirs, shift = weights.spec, weights.ranges, weights.middle - weights.spec.lsb
    # What a term is multiplied by, besides significands: 2^exponent, of these the range.
    reach = max(abs(own.ranges.low + shift), abs(own.ranges.high + shift + 1)) + theirs.high - theirs.low
    dot = weights.vector_size * theirs.largest * own.ranges.largest
    packed = weights.floats
    exact = dot * theirs.significand * own.ranges.significand < _EXACT_FLOAT
    if packed is None or not exact or reach > FLOAT_EXPONENT:
        return None
    factors = float_scales(own.scales, own.live, shift)
    largest = own.ranges.largest * float(factors.max(initial=0))
    term, total = packed.heaviest_term * largest, packed.heaviest * largest + weights.vectors + started
    clip_doubles = spec.nearest and not tiles.rounds_down(tiles.ALIGN32, weights.path == "vnni")
    mode = _mode(spec, weights.blocks, 2 * term, 2 * total, clip_doubles)
    doubled = int(spec.nearest and not tiles.rounds_down(mode, weights.path == "vnni"))
    if doubled:
        factors *= 2
    return packed, factors, _plan(spec, mode, doubled)


def _mode(spec: AlignSpec, blocks: int, term: float, total: float, clip_doubles: bool) -> int:
    """The fastest tile for terms of at most half this magnitude, and sums of half of `total`, of terms that
    are rounded up. A tile may double either.

    Added one by one, terms beyond 2^accumulator_bits saturate an accumulator whether they are limited or not.
    clip_doubles: terms are doubled before they are limited, and twice 2^accumulator_bits has to fit a lane.
    """
    _, high = accumulator_range(spec)
    if total <= min(2 * high, _INT32):
        return tiles.FREE_ALIGN
    if blocks == 1 and high + 1 + term + 1 <= _INT32:
        return tiles.ALIGN
    narrow = high + 1 + (max(blocks, 1 + clip_doubles) << spec.accumulator_bits) <= _INT32
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
