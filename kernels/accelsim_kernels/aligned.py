"""Vector MACs of blocks whose scales are numbers of their own, aligned into a fixed-point accumulator.

docs/numerics.md (Block formats) defines every bit. Codes come decoded, as integers; a scale as significand
and exponent. Codes of 8 bits go through the tiles of `accumulate`: the dot product of a block is an exact
integer below 2^24, so that its product with scales kept in float32 is exact too. All else, wider codes and
scales too far apart for float32, goes through a plain loop in int64.
"""

from __future__ import annotations

from typing import NamedTuple

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
    scales are relative to; low, high: exponents of what these are, of scales that are not 0.
    """

    def __init__(self, codes: NDArray, scales: Scales, spec: AlignSpec, path: str, blocks: int) -> None:
        self.codes, self.scales, self.spec, self.blocks = codes, scales, spec, blocks
        self.outputs, self.vectors, self.vector_size = codes.shape
        self.largest = int(np.abs(codes.astype(np.int64)).max())
        # A block of zeros may have any scale, such as the smallest there is; 0 keeps it out of the range.
        significand = np.where(codes.any(axis=2), scales.significand, 0).astype(np.int32)
        self.low, self.high = _range(significand, scales.exponent)
        self.middle = (self.low + self.high) // 2
        self.packed: PackedWeights | None = None
        if codes.dtype == np.int8 and self.high - self.low <= _FLOAT_EXPONENT:
            factors = _float_scales(Scales(significand, scales.exponent), -self.middle)
            self.packed = PackedWeights(codes, factors, spec, path, blocks)


def _range(significand: NDArray[np.int32], exponent: NDArray[np.int32]) -> tuple[int, int]:
    """Least and largest exponent of the scales that are not 0; (0, 0) where all are."""
    used = exponent[significand > 0]
    return (int(used.min()), int(used.max())) if used.size else (0, 0)


def _float_scales(scales: Scales, shift: int) -> NDArray[np.float32]:
    exponent = np.where(scales.significand > 0, scales.exponent + shift, 0)
    return np.ldexp(scales.significand.astype(np.float32), exponent)


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
    initial: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Partial sums int64[P, K] after all blocks, and overflows int32[P, K] on the way.

    activation_codes: decoded, int8 or int32[n, B]; activation_scales: [n]; gather: int32[P, G], the block
    under each tap, -1 in padding; initial: int64[P, K] psums to continue from. An accumulation whose sum of
    terms does not fit saturates and counts as one overflow. Raises ValueError where products could exceed 62
    bits.
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
    largest = int(np.abs(activation_codes.astype(np.int64)).max(initial=0))
    dot = size * weights.largest * largest
    if dot * MAX_SIGNIFICAND**2 >= 1 << 61:
        raise ValueError(f"block of {size}: products could exceed 62 bits")
    live = np.where(activation_codes.any(axis=1), activation_scales.significand, 0).astype(np.int32)
    low, high = _range(live, activation_scales.exponent)
    significands = int(weights.scales.significand.max(initial=0)) * int(live.max(initial=0))
    # What a term of the tiles is multiplied by, besides significands: 2^exponent, of these the range.
    shift = weights.middle - spec.lsb + spec.nearest
    reach = max(abs(low + shift), abs(high + shift)) + weights.high - weights.low
    narrow = activation_codes.dtype == np.int8 and weights.packed is not None
    if not narrow or dot * significands >= _EXACT_FLOAT or reach > _FLOAT_EXPONENT:
        return _plain(weights, activation_codes, activation_scales, gather, initial)
    assert weights.packed is not None
    factors = _float_scales(Scales(live, activation_scales.exponent), shift)
    codes = np.ascontiguousarray(activation_codes)
    source = (factors.ctypes.data, len(codes))
    own = Activations(codes, packing.pack_factors, source, 8, False, _no_refusal)
    return run_tiles(weights.packed, own, gather, initial, 0, _plan(spec, weights.blocks))


def _no_refusal(bad: int) -> ValueError:
    raise AssertionError(bad)  # everything was checked before


def _plan(spec: AlignSpec, blocks: int) -> Plan:
    low, high = accumulator_range(spec)
    term = 1 << spec.accumulator_bits
    narrow = high + 1 + blocks * term <= (1 << 31) - 1
    nearest = int(spec.nearest)
    limits = (-128, low, high, 0, 0, 0, 0, nearest, nearest, term << nearest)
    return Plan(tiles.ALIGN32 if narrow else tiles.ALIGN64, limits)


def _plain(
    weights: AlignedWeights,
    codes: NDArray,
    scales: Scales,
    gather: NDArray[np.int32],
    initial: NDArray[np.int64] | None,
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The same in int64, for any codes and exponents."""
    spec, shape = weights.spec, (len(gather), weights.outputs)
    psums = np.zeros(shape, np.int64) if initial is None else initial.copy()
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
    return psums, overflows


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
