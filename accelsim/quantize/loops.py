"""Compiled loops behind arrays.py, blocks.py and ranges.py.

They give the bits of the NumPy expressions in their docstrings (tests/test_quantize_loops.py compares them);
NumPy makes several passes with float64 temporaries over tensors of tens of millions of values. The compiler
is loaded by the first that is called, as runs without values call none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim.formats.element import Element


def vector_maxima(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """np.abs(vectors).max(axis=-1), float32 or float64, for a last axis of at least 1.

    Without the sign bit, floats are in the order of their bits as integers, which vectorizes; NaN is largest.
    """
    from accelsim.quantize.compiled import bit_maxima

    vectors = loop_floats(vectors)
    width = np.int32 if vectors.dtype == np.float32 else np.int64
    bits = vectors.view(width).reshape(-1, vectors.shape[-1])
    maxima = np.empty(len(bits), width)
    bit_maxima(bits, np.iinfo(width).max, maxima)
    return maxima.view(vectors.dtype).reshape(vectors.shape[:-1])


def loop_floats(values: NDArray[np.generic]) -> NDArray[np.floating]:
    """The values, contiguous, as float32 or float64 in this machine's byte order, converted exactly."""
    return np.ascontiguousarray(values, None if values.dtype in (np.float32, np.float64) else np.float64)


def encode_runs(
    values: NDArray[np.floating],
    scales: NDArray[np.floating],
    low: int,
    qmax: int,
    codes: NDArray[np.int8] | NDArray[np.uint8],
) -> None:
    """codes[i] = clip(rint(values[i] / scale), low, qmax), scale inf where not above 0; all contiguous.

    values, codes: [n]; scales: [m], m a divisor of n: each scale serves a run of n / m values.
    """
    from accelsim.quantize import compiled

    compiled.encode_runs(values, scales, float(low), float(qmax), codes)


def encode_float_runs(
    values: NDArray[np.floating], steps: NDArray[np.floating], element: Element, codes: NDArray[np.uint8]
) -> None:
    """codes[i] = element.encode(values[i] / step * 2^lsb), step inf where not above 0; all contiguous.

    values, codes: [n]; steps: [m], m a divisor of n: what 2^lsb of the element is worth in a run of n / m.
    """
    from accelsim.quantize import compiled

    of_value, middles = element.steps
    compiled.encode_float_runs(values, steps, of_value, middles, np.uint8(1 << (element.bits - 1)), codes)


def mse_exponents(
    values: NDArray[np.floating],
    largest: NDArray[np.float64],
    qmax: float,
    factors: NDArray[np.float64],
    steps: NDArray[np.int64],
    offsets: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The exponent that ranges.mse_ranges chooses for every row of values, and which rows are in doubt.

    values: float[rows, n]; largest: float64[rows]; factors: 2^-exponent for exponents in steps of 1/16.
    """
    from accelsim.quantize import compiled

    rows, n = values.shape
    exponents, doubtful = np.zeros(rows, np.int64), np.zeros(rows, bool)
    scratch = np.empty(n, values.dtype)
    compiled.mse_exponents(values, largest, qmax, scratch, factors, steps, offsets, exponents, doubtful)
    return exponents, doubtful
