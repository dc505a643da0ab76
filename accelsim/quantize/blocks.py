"""Blocks of codes whose scale is a number of its own: OCP MX, NVFP4, and float32 scales.

The rules are fixed by the formats (docs/quantization.md); nothing is calibrated but NVFP4's factor of a whole
tensor. Weights known in advance may have their scales chosen among a few by squared error. Of float32 values
every code is exact: dividends have 24 significant bits and divisors at most 28, so a quotient in float64 lies
on the same side of a tie as the true one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from accelsim.formats.catalogue import E2M1
from accelsim.formats.element import Element
from accelsim.formats.operand import Operand
from accelsim.formats.scale import E4M3
from accelsim.quantize.arrays import encode
from accelsim.quantize.loops import encode_float_runs, loop_floats, vector_maxima

_E8M0_BIAS = 127
_SMALLEST_FLOAT32 = 2.0**-149
# Kind -> what is added to the code of the format's scale: a power of two either way; e4m3, whose codes have
# eight to the octave, an octave either way.
_SEARCHED = {"e8m0": (-1, 1), "e4m3": (-8, 8)}
_HIGHEST_CODE = {"e8m0": 254, "e4m3": 126}


def block_gamma(chunks: Iterable[NDArray[np.floating]], operand: Operand) -> float:
    """What all scales of a tensor are multiplied by: 1 where the format has no such factor.

    NVFP4: float32(max|x| / (largest element * largest scale)), so that the block of the largest value has
    the largest scale; 1 for an all-zero tensor.
    """
    if operand.scale.gamma == "none":
        return 1.0
    largest = max((float(vector_maxima(chunk.reshape(1, -1))[0]) for chunk in chunks), default=0.0)
    gamma = float(np.float32(largest / operand.largest))
    return max(gamma, _SMALLEST_FLOAT32) if largest > 0 else 1.0


def quantize_blocks(
    vectors: NDArray[np.floating], operand: Operand, gamma: float, choice: str = "format"
) -> tuple[NDArray[np.int8] | NDArray[np.uint8], NDArray[np.uint8] | NDArray[np.float32]]:
    """(codes, scales) of float[..., block]: stored codes of the same shape, stored scales [...].

    choice: `QuantizeOptions.block_scales`; a block keeps the format's scale unless another has a smaller
    squared error.
    """
    largest = vector_maxima(vectors).astype(np.float64)
    scales = block_scales(largest, operand, gamma)
    codes = encode_elements(vectors, operand.scale.decode(scales) * gamma, operand.element)
    others = list(_other_scales(scales, largest, operand, gamma, choice))
    if others:
        least = _square_errors(vectors, codes, scales, operand, gamma)
    for tried in others:
        found = encode_elements(vectors, operand.scale.decode(tried) * gamma, operand.element)
        error = _square_errors(vectors, found, tried, operand, gamma)
        better = error < least
        codes = np.where(better[..., None], found, codes)
        scales, least = np.where(better, tried, scales), np.where(better, error, least)
    return codes, scales


def _other_scales(
    scales: NDArray[np.generic], largest: NDArray[np.float64], operand: Operand, gamma: float, choice: str
) -> Iterator[NDArray[np.uint8]]:
    """Stored scales that blocks may have besides those of the format."""
    kind, codes = operand.scale.kind, scales.astype(np.int64)
    if choice == "four_over_six" and kind == "e4m3" and operand.element is E2M1:
        yield E4M3.encode(largest / (4 * gamma))
    if choice == "mse" and kind in _SEARCHED:
        least, most = _SEARCHED[kind]
        for step in (step for step in range(least, most + 1) if step):
            tried = np.clip(codes + step, 0, _HIGHEST_CODE[kind])
            yield np.where(largest > 0, tried, codes).astype(np.uint8)


def _square_errors(
    vectors: NDArray[np.floating],
    codes: NDArray[np.integer],
    scales: NDArray[np.generic],
    operand: Operand,
    gamma: float,
) -> NDArray[np.float64]:
    """Of every block, float64[...]; a difference too large for float64 counts as infinite."""
    with np.errstate(over="ignore"):
        return np.square(dequantize_words(codes, scales, gamma, operand) - vectors).sum(axis=-1)


def block_scales(
    largest: NDArray[np.float64], operand: Operand, gamma: float
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Stored scales of blocks by the largest magnitude in each, float64 of any shape.

    e8m0: the exponent floor(log2 max) - emax of the element, within -127 to 127; a block of zeros has the
    smallest (OCP MX v1.0, section 6.3). e4m3: max / (largest element * gamma), to the nearest, at most 448.
    float: max / largest element in float32; a block of zeros has 1.
    """
    element = operand.element
    if operand.scale.kind == "e8m0":
        # frexp: x = f * 2^e with 1/2 <= f < 1, so that floor(log2 x) = e - 1 exactly, which log2 is not.
        exponents = np.frexp(largest)[1] - 1 - element.largest_exponent
        exponents = np.where(largest > 0, exponents, -_E8M0_BIAS)
        return (np.clip(exponents, -_E8M0_BIAS, _E8M0_BIAS) + _E8M0_BIAS).astype(np.uint8)
    quotients = largest / (element.largest * gamma)
    if operand.scale.kind == "e4m3":
        return E4M3.encode(quotients)
    scales = quotients.astype(np.float32)
    return np.where(scales > 0, scales, np.float32(1))


def encode_elements(
    values: NDArray[np.floating], scales: NDArray[np.float64], element: Element
) -> NDArray[np.int8] | NDArray[np.uint8]:
    """Codes of float[..., block] divided by scales float64[...]: nearest, ties to even, saturating.

    Where a scale is 0 all codes are.
    """
    steps = np.ldexp(scales, element.lsb)
    if element.is_integer:
        return encode(values, steps[..., None], element.qmin, element.qmax)
    codes = np.empty(values.shape, np.uint8)
    encode_float_runs(
        loop_floats(values).reshape(-1), loop_floats(steps).reshape(-1), element, codes.reshape(-1)
    )
    return codes


def dequantize_words(
    words: NDArray[np.integer],
    scales: NDArray[np.generic] | None,
    gamma: NDArray[np.float64] | float,
    operand: Operand,
) -> NDArray[np.float64]:
    """What words of any operand are worth, float64[..., block]: element * 2^lsb * scale * gamma.

    words: stored codes [..., block]; scales: stored scales [...] or None; gamma: broadcasts against [...].
    """
    factor = np.asarray(gamma, np.float64)
    if scales is not None:
        factor = operand.scale.decode(scales) * factor
    return operand.element.decode(words) * factor[..., None]
