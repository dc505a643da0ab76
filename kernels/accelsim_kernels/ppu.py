"""Post-processing unit: partial sums to activation codes, in integers only (docs/numerics.md, PPU).

Per-vector output scales follow VS-Quant section 5.3 and Keller section III: the largest magnitude of a
vector sets an integer scale, its reciprocal comes from a 16-bit table.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim_kernels.jit import njit
from accelsim_kernels.spec import check_array, check_shape

_Z_MAX = (1 << 23) - 1


@njit(cache=True, nogil=True)
def _scaled(psum, multiplier, shift):
    """sat24((psum * m + 2^(t-1)) >> t), exact for |psum| < 2^62, 0 <= m < 2^16, 1 <= t <= 63.

    The product has up to 78 bits, so psum = high * 2^31 + low with 0 <= low < 2^31 and
    total = a * 2^31 + rest with a = high * m, rest = low * m + 2^(t-1), 0 <= rest < 2^47 + 2^62.
    """
    a = (psum >> 31) * multiplier
    rest = (psum & 0x7FFFFFFF) * multiplier + (np.int64(1) << (shift - 1))
    if shift >= 31:  # floors nest: first by 2^31, then by 2^(t-31)
        z = (a + (rest >> 31)) >> (shift - 31)
    else:
        # rest >> t < 2^(47-t) + 1, so from |a| = 2^24 on the sum exceeds 24 bits with the sign of a:
        # clamping a there changes nothing after saturation and keeps a * 2^(31-t) below 2^55.
        a = min(max(a, -(np.int64(1) << 24)), np.int64(1) << 24)
        z = (a << (31 - shift)) + (rest >> shift)
    return min(max(z, -_Z_MAX), _Z_MAX)


@njit(cache=True, nogil=True)
def _biased(psum, multiplier, shift, bias, relu):
    z = _scaled(psum, multiplier, shift) + bias
    z = min(max(z, -_Z_MAX), _Z_MAX)
    return max(z, 0) if relu else z


@njit(cache=True, nogil=True)
def _static(psums, multiplier, shift, bias, relu, fraction_bits, qmin, qmax, codes):
    half = (1 << fraction_bits) >> 1
    for p in range(psums.shape[0]):
        for k in range(psums.shape[1]):
            z = _biased(psums[p, k], multiplier[k], shift[k], bias[k], relu)
            codes[p, k] = min(max((z + half) >> fraction_bits, qmin), qmax)


@njit(cache=True, nogil=True)
def _values(psums, multiplier, shift, bias, relu, z):
    for p in range(psums.shape[0]):
        for k in range(psums.shape[1]):
            z[p, k] = _biased(psums[p, k], multiplier[k], shift[k], bias[k], relu)


@njit(cache=True, nogil=True)
def _vector(
    psums,
    multiplier,
    shift,
    bias,
    relu,
    fraction_bits,
    qmin,
    qmax,
    scale_bits,
    vector_size,
    scales_up,
    codes,
    scales,
):
    z = np.empty(vector_size, np.int64)
    unit = qmax << fraction_bits
    added = unit - 1 if scales_up else unit >> 1
    for p in range(psums.shape[0]):
        for vector in range(scales.shape[1]):
            start = vector * vector_size
            size = min(vector_size, psums.shape[1] - start)
            largest = np.int64(0)
            for i in range(size):
                k = start + i
                z[i] = _biased(psums[p, k], multiplier[k], shift[k], bias[k], relu)
                largest = max(largest, abs(z[i]))
            s = min(max((largest + added) // unit, 1), (1 << scale_bits) - 1)
            e = 0
            while (1 << e) < s:
                e += 1
            reciprocal = ((1 << (15 + e)) + s // 2) // s
            half = np.int64(1) << (14 + e + fraction_bits)
            for i in range(size):
                code = (z[i] * reciprocal + half) >> (15 + e + fraction_bits)
                codes[p, start + i] = min(max(code, qmin), qmax)
            scales[p, vector] = s


def _check(
    psums: NDArray[np.int64],
    multiplier: NDArray[np.int64],
    shift: NDArray[np.int64],
    bias: NDArray[np.int64],
    fraction_bits: int,
    qmin: int,
    qmax: int,
) -> None:
    check_array("psums", psums, (np.int64,), 2)
    for name, array, least, most in (
        ("multiplier", multiplier, 0, 65535),
        ("shift", shift, 1, 63),
        ("bias", bias, -_Z_MAX, _Z_MAX),
    ):
        check_array(f"PPU {name}", array, (np.int64,), 1)
        check_shape(f"PPU {name}", array, (psums.shape[1],))
        if array.size and not least <= int(array.min()) <= int(array.max()) <= most:
            raise ValueError(
                f"PPU {name}: values from {array.min()} to {array.max()}, expected {least} to {most}"
            )
    if not 0 <= fraction_bits <= 8:
        raise ValueError(f"PPU fraction bits: got {fraction_bits}, expected 0 to 8")
    if not (1 <= qmax <= 255 and -qmax <= qmin <= 0):
        raise ValueError(f"PPU code range: got {qmin} to {qmax}, expected -qmax or 0 to qmax <= 255")
    if psums.size and (psums.max() >= 1 << 62 or psums.min() < -(1 << 62)):
        raise ValueError("psums: expected magnitudes below 2^62")


def ppu_values(
    psums: NDArray[np.int64],
    multiplier: NDArray[np.int64],
    shift: NDArray[np.int64],
    bias: NDArray[np.int64],
    relu: bool,
) -> NDArray[np.int64]:
    """z int64[P, K] before it is quantized, |z| < 2^23; arguments as of `ppu_static`."""
    _check(psums, multiplier, shift, bias, 0, 0, 1)
    z = np.empty(psums.shape, np.int64)
    _values(psums, multiplier, shift, bias, bool(relu), z)
    return z


def ppu_static(
    psums: NDArray[np.int64],
    multiplier: NDArray[np.int64],
    shift: NDArray[np.int64],
    bias: NDArray[np.int64],
    relu: bool,
    fraction_bits: int,
    qmin: int,
    qmax: int,
) -> NDArray[np.int16]:
    """Codes int16[P, K] in [qmin, qmax] of a tensor with one static scale.

    psums int64[P, K]; multiplier (0..65535), shift (1..63), bias (24-bit, in units of 2^-F codes) int64[K].
    """
    _check(psums, multiplier, shift, bias, fraction_bits, qmin, qmax)
    codes = np.empty(psums.shape, np.int16)
    _static(psums, multiplier, shift, bias, bool(relu), int(fraction_bits), int(qmin), int(qmax), codes)
    return codes


def ppu_vector(
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
    """Codes int16[P, K] and scales uint16[P, ceil(K / V)] of a tensor with per-vector scales.

    A vector is V consecutive k of one pixel, counted from the first k given; the last may be short.
    scales_up: scales are rounded up, so that no code saturates unless the scale does; else to nearest.
    """
    _check(psums, multiplier, shift, bias, fraction_bits, qmin, qmax)
    if not 1 <= scale_bits <= 10:
        raise ValueError(f"PPU scale bits: got {scale_bits}, expected 1 to 10")
    if vector_size < 1:
        raise ValueError(f"PPU vector size: got {vector_size}, expected at least 1")
    pixels, outputs = psums.shape
    codes = np.empty((pixels, outputs), np.int16)
    scales = np.empty((pixels, -(-outputs // vector_size)), np.uint16)
    _vector(
        psums,
        multiplier,
        shift,
        bias,
        bool(relu),
        int(fraction_bits),
        int(qmin),
        int(qmax),
        int(scale_bits),
        int(vector_size),
        bool(scales_up),
        codes,
        scales,
    )
    return codes, scales
