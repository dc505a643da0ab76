"""Scales of blocks that are numbers of their own, and what the tiles multiply by in place of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim_kernels.jit import njit

FLOAT_EXPONENT = 96  # magnitude of the exponents that a product of two scales may have in float32
INTEGER_SHIFT = 27  # significands of four bits shifted so far are below 2^31


class Scales(NamedTuple):
    """significand * 2^exponent, int32 of any one shape; significands 0 to MAX_SIGNIFICAND."""

    significand: NDArray[np.int32]
    exponent: NDArray[np.int32]


class Ranges(NamedTuple):
    """Of blocks of codes, int[n, B], with scales: the largest magnitude of a code; of blocks that are not
    zeros and have a scale that is not 0 the largest significand, least and largest exponent (0 where there is
    none).

    A block of zeros may have any scale, such as the smallest there is, which would only widen the range.
    """

    largest: int
    significand: int
    low: int
    high: int


def find_ranges(words: NDArray, scales: Scales) -> tuple[Ranges, NDArray[np.int32]]:
    """And which blocks these are: int32[n], -1 where they are, else 0."""
    if not words.size:
        return Ranges(0, 0, 0, 0), np.zeros(len(words), np.int32)
    words = np.ascontiguousarray(words)
    largest = max(int(words.max()), -int(words.min()))
    live = np.empty(len(words), np.int32)
    eights = words.view(np.int64) if words.strides[0] % 8 == 0 else words
    return Ranges(largest, *_find_live(eights, *_flat(scales), live)), live


def integer_scales(scales: Scales, live: NDArray[np.int32], shift: int) -> NDArray[np.int32]:
    """significand * 2^(exponent + shift), int32[n], 0 of blocks that are not live; of others 0 <= exponent +
    shift <= INTEGER_SHIFT."""
    factors = np.empty(len(live), np.int32)
    _make_integers(*_flat(scales), live, shift, factors)
    return factors


def float_scales(scales: Scales, live: NDArray[np.int32], shift: int) -> NDArray[np.float32]:
    """significand * 2^(exponent + shift), float32[n], 0 of blocks that are not live; of others |exponent +
    shift| <= FLOAT_EXPONENT."""
    significands, exponents = _flat(scales)
    powers = np.empty(len(live), np.int32)
    _make_powers(exponents, live, shift, powers)
    return np.multiply(powers.view(np.float32), significands, dtype=np.float32, casting="unsafe")


def _flat(scales: Scales) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return np.ascontiguousarray(scales.significand).reshape(-1), np.ascontiguousarray(
        scales.exponent
    ).reshape(-1)


@njit(cache=True, nogil=True)
def _find_live(words, significands, exponents, live):
    if words.shape[1] == 2:  # the usual, for vector instructions
        for i in range(len(words)):
            live[i] = -np.int32(((words[i, 0] | words[i, 1]) != 0) & (significands[i] > 0))
    else:
        for i in range(len(words)):
            bits = words[i, 0]
            for j in range(1, words.shape[1]):
                bits |= words[i, j]
            live[i] = -np.int32((bits != 0) & (significands[i] > 0))
    # In 32 bits throughout, for the same reason.
    none = np.int32(1 << 30)
    significand, low, high = np.int32(0), none, -none
    for i in range(len(words)):
        alive = live[i] != 0
        significand = max(significand, significands[i] if alive else np.int32(0))
        low = min(low, exponents[i] if alive else none)
        high = max(high, exponents[i] if alive else -none)
    if low > high:
        low, high = np.int32(0), np.int32(0)
    return significand, low, high


@njit(cache=True, nogil=True)
def _make_integers(significands, exponents, live, shift, factors):
    most = np.int32(INTEGER_SHIFT)
    for i in range(len(live)):
        amount = min(max(exponents[i] + np.int32(shift), np.int32(0)), most)
        factors[i] = (significands[i] << amount) & live[i]


@njit(cache=True, nogil=True)
def _make_powers(exponents, live, shift, powers):
    """Bits of float32 2^(exponent + shift)."""
    most = np.int32(FLOAT_EXPONENT)
    for i in range(len(live)):
        power = min(max(exponents[i] + np.int32(shift), -most), most)
        powers[i] = ((power + np.int32(127)) << np.int32(23)) & live[i]
