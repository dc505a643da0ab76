"""The compiled code behind loops.py, whose functions say what it does."""

from __future__ import annotations

import numpy as np
from accelsim_kernels.jit import njit

# Adding and subtracting 1.5 * 2^52 rounds a float64 of magnitude below 2^51 to an integer, half to even.
_ROUND = 6755399441055744.0
_BLOCK = 256


@njit(cache=True, nogil=True)
def bit_maxima(bits, mask, maxima):
    width = bits.shape[1]
    if width == 16:  # the usual vector size, with a constant bound for the compiler to unroll
        for i in range(len(bits)):
            largest = bits[i, 0] & mask
            for j in range(1, 16):
                largest = max(largest, bits[i, j] & mask)
            maxima[i] = largest
        return
    for i in range(len(bits)):
        largest = bits[i, 0] & mask
        for j in range(1, width):
            largest = max(largest, bits[i, j] & mask)
        maxima[i] = largest


@njit(cache=True, nogil=True)
def encode_runs(values, scales, low, qmax, codes):
    run = len(values) // max(1, len(scales))
    for i in range(len(scales)):
        scale = scales[i] if scales[i] > 0 else np.inf
        for j in range(i * run, (i + 1) * run):
            # Limits that are integers commute with rounding, and keep the value in the trick's range.
            limited = min(max(values[j] / scale, low), qmax)
            codes[j] = (limited + _ROUND) - _ROUND


@njit(cache=True, nogil=True)
def encode_float_runs(values, steps, of_value, middles, sign, codes):
    run = len(values) // max(1, len(steps))
    for i in range(len(steps)):
        step = steps[i] if steps[i] > 0 else np.inf
        for j in range(i * run, (i + 1) * run):
            x = abs(np.float64(values[j])) / step
            low, high = 0, len(middles)  # the first middle that is not below x
            while low < high:
                centre = (low + high) // 2
                if middles[centre] < x:
                    low = centre + 1
                else:
                    high = centre
            code = of_value[low]
            if code % 2 == 1 and low < len(middles) and middles[low] == x:
                code = of_value[low + 1]
            codes[j] = code | sign if np.signbit(values[j]) else code


@njit(cache=True, nogil=True)
def square_error(magnitudes, start, stop, scale, qmax):
    total, inverse = 0.0, 1 / scale
    for j in range(start, stop):
        x = np.float64(magnitudes[j])
        code = (min(x * inverse, qmax) + _ROUND) - _ROUND
        error = code * scale - x
        total += error * error
    return total


@njit(cache=True, nogil=True)
def mse_exponents(values, largest, qmax, scratch, factors, steps, offsets, exponents, doubtful):
    """Sums of squares here and in NumPy differ in their last bits, so a comparison of errors closer than
    `slack` is not decided: the row is doubtful. All terms are positive, so that a candidate is given up as
    soon as a part of its error is too large: the largest value alone is enough for most ranges that clip.
    """
    n = values.shape[1]
    for row in range(len(values)):
        top = largest[row]
        exponents[row] = 0
        doubtful[row] = False
        if top == 0.0:
            continue
        if not 1e-100 < top < 1e100:  # squares may overflow or vanish
            doubtful[row] = True
            continue
        for j in range(n):
            scratch[j] = abs(values[row, j])
        tiny = 1e-20 * n * top * top
        least = square_error(scratch, 0, n, top / qmax, qmax)
        best = 0
        for stage in range(len(steps)):
            centre = best if stage else 0
            for offset in offsets[stage]:
                if offset == 0:
                    continue
                exponent = max(centre + offset * steps[stage], 0)
                if exponent == best:
                    continue
                scale = top * factors[exponent] / qmax
                slack = (1e-9 + 4e-16 * n) * least + tiny
                clipped = top - scale * qmax
                if clipped * clipped > least + slack:
                    continue
                error = 0.0
                for start in range(0, n, _BLOCK):
                    error += square_error(scratch, start, min(start + _BLOCK, n), scale, qmax)
                    if error > least + slack:
                        break
                if error > least + slack:
                    continue
                if error >= least - slack:
                    doubtful[row] = True
                    break
                least = error
                best = exponent
            if doubtful[row]:
                break
        exponents[row] = best
