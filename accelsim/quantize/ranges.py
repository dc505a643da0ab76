"""Choosing static ranges: the largest magnitude that a scale must represent, from observed values.

Four methods, those VS-Quant (MLSys 2021, section 5) compares: `max`, `percentile`, `mse` (least squared
error) and `entropy` (least Kullback-Leibler divergence). Quantization here is symmetric, so every function
works on magnitudes. All of them are deterministic.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from accelsim.quantize.loops import loop_floats, mse_exponents

RANGE_METHODS = ("max", "percentile", "mse", "entropy")
GAMMA_METHODS = ("max", "percentile", "mse")
SAMPLE_LIMIT = 1 << 20
"""Values kept per tensor for percentile, MSE and entropy; the maximum is always over all of them."""

HISTOGRAM_BINS = 2048
_ENTROPY_CANDIDATES = 128
# Exponents of the ranges MSE tries, in sixteenths: multiples of 1/4 first, then of 1/16 around the best.
_STEPS = (4, 1)
_COARSE = tuple(range(1, 21))
_FINE = (-3, -2, -1, 1, 2, 3)


def thin(chunks: Iterable[NDArray[np.floating]], limit: int) -> tuple[NDArray[np.float64], bool]:
    """Rows (first axis) of all chunks, thinned evenly to about `limit`; True when some were dropped.

    The stride is odd, so that it cannot stay on one channel of a layout whose rows have an even length;
    it grows with what has been seen, so that memory is bounded without knowing the total in advance.
    """
    kept: list[NDArray[np.float64]] = []
    seen, stride = 0, 1
    for chunk in chunks:
        seen += len(chunk)
        while seen // stride > limit:
            kept = [piece[::3] for piece in kept]
            stride *= 3
        kept.append(chunk[::stride].astype(np.float64))
    return (np.concatenate(kept) if kept else np.zeros(0)), stride > 1


def sample(chunks: Iterable[NDArray[np.floating]], limit: int = SAMPLE_LIMIT) -> NDArray[np.float64]:
    """Magnitudes of all chunks, thinned evenly to about `limit` values, with the overall maximum kept.

    Returns float64[n], n >= 1. Below `limit` nothing is dropped.
    """
    largest = 0.0

    def magnitudes() -> Iterable[NDArray[np.floating]]:
        nonlocal largest
        for chunk in chunks:
            flat = np.abs(chunk.reshape(-1))
            largest = max(largest, float(flat.max(initial=0.0)))
            yield flat

    kept, dropped = thin(magnitudes(), limit)
    return np.append(kept, largest) if dropped or not kept.size else kept


def find_ranges(
    magnitudes: NDArray[np.floating], method: str, qmax: int, percentile: float
) -> NDArray[np.float64]:
    """Range of every row. magnitudes: float[rows, n], all >= 0. Returns float64[rows], 0 for all-zero rows.

    A method that would return 0 for a row with non-zero values falls back on the row's maximum.
    """
    largest = magnitudes.max(axis=1).astype(np.float64)
    if method == "max":
        return largest
    if method == "percentile":
        ranges = np.percentile(magnitudes.astype(np.float64), percentile, axis=1)
    elif method == "mse":
        ranges = mse_ranges(magnitudes, qmax)
    elif method == "entropy":
        ranges = entropy_ranges(magnitudes.astype(np.float64), qmax)
    else:
        raise ValueError(f"calibration method {method!r}, expected one of {RANGE_METHODS}")
    return np.where(ranges > 0, ranges, largest)


def mse_ranges(magnitudes: NDArray[np.floating], qmax: int) -> NDArray[np.float64]:
    """Range of every row with the least squared quantization error, among fractions of the maximum.

    First in steps of 2^(-1/4) down to 1/32 of the maximum, then in steps of 2^(-1/16) around the best one;
    equal errors go to the wider range. Compiled loops decide every row whose errors differ clearly.
    """
    magnitudes = loop_floats(magnitudes)
    largest = magnitudes.max(axis=1).astype(np.float64)
    factors = np.exp2(-np.arange(_COARSE[-1] * _STEPS[0] + _FINE[-1] + 1) / 16)
    offsets = np.zeros((2, len(_COARSE)), np.int64)
    offsets[0], offsets[1, : len(_FINE)] = _COARSE, _FINE
    exponents, doubtful = mse_exponents(magnitudes, largest, float(qmax), factors, np.array(_STEPS), offsets)
    ranges: NDArray[np.float64] = largest * np.exp2(-exponents / 16)
    if doubtful.any():
        ranges[doubtful] = plain_mse_ranges(magnitudes[doubtful].astype(np.float64), qmax)
    return ranges


def plain_mse_ranges(magnitudes: NDArray[np.float64], qmax: int) -> NDArray[np.float64]:
    """mse_ranges in plain NumPy: the definition, and the judge of rows with nearly equal errors."""
    largest = magnitudes.max(axis=1)
    scratch = np.empty_like(magnitudes)

    def errors(exponents: NDArray[np.float64]) -> NDArray[np.float64]:
        scale = largest * np.exp2(-exponents) / qmax
        scale = np.where(scale > 0, scale, 1.0)[:, None]
        np.divide(magnitudes, scale, out=scratch)
        np.rint(scratch, out=scratch)
        np.minimum(scratch, qmax, out=scratch)
        np.multiply(scratch, scale, out=scratch)
        np.subtract(scratch, magnitudes, out=scratch)
        return np.einsum("ij,ij->i", scratch, scratch)

    best = np.zeros(len(magnitudes))
    least = errors(best)
    for step, offsets in zip(_STEPS, (_COARSE, _FINE), strict=True):
        centre = best.copy() if offsets is _FINE else np.zeros_like(best)
        for offset in offsets:
            exponents = np.maximum(centre + offset * step / 16, 0.0)
            error = errors(exponents)
            better = error < least
            best, least = np.where(better, exponents, best), np.where(better, error, least)
    return largest * np.exp2(-best)


def entropy_ranges(magnitudes: NDArray[np.float64], qmax: int) -> NDArray[np.float64]:
    """Range of every row with the least KL divergence between its histogram and the quantized histogram.

    The method of TensorRT and of NVIDIA's pytorch-quantization, which VS-Quant used: 2048 bins, the first bin
    replaced by the second (zeros say nothing about the range), candidate ranges of i bins with all outliers
    in bin i - 1, quantized to qmax + 1 levels. At most 128 candidates, evenly spaced; ties go to the wider.
    """
    rows, _ = magnitudes.shape
    largest = magnitudes.max(axis=1)
    width = np.where(largest > 0, largest, 1.0)[:, None]
    index = np.minimum((magnitudes / width * HISTOGRAM_BINS).astype(np.int64), HISTOGRAM_BINS - 1)
    index += np.arange(rows)[:, None] * HISTOGRAM_BINS
    counts = np.bincount(index.reshape(-1), minlength=rows * HISTOGRAM_BINS).astype(np.float64)
    counts = counts.reshape(rows, HISTOGRAM_BINS)
    counts[:, 0] = counts[:, 1]
    levels = qmax + 1
    stride = max(1, (HISTOGRAM_BINS - levels) // _ENTROPY_CANDIDATES)
    least = np.full(rows, np.inf)
    best = np.full(rows, HISTOGRAM_BINS)
    for bins in range(HISTOGRAM_BINS, levels - 1, -stride):
        divergence = _divergence(counts, bins, levels)
        better = divergence < least
        least, best = np.where(better, divergence, least), np.where(better, bins, best)
    return largest * best / HISTOGRAM_BINS


def _divergence(counts: NDArray[np.float64], bins: int, levels: int) -> NDArray[np.float64]:
    """KL(reference || quantized) of every row, the range being the first `bins` bins; inf where undefined."""
    inside = counts[:, :bins]
    reference = inside.copy()
    reference[:, -1] += counts[:, bins:].sum(axis=1)
    edges = (np.arange(levels) * bins + levels - 1) // levels
    occupied = (inside > 0).astype(np.float64)
    mass = np.add.reduceat(inside, edges, axis=1)
    share = mass / np.maximum(np.add.reduceat(occupied, edges, axis=1), 1.0)
    quantized = np.repeat(share, np.diff(np.append(edges, bins)), axis=1) * occupied
    total = quantized.sum(axis=1, keepdims=True)
    reference /= np.maximum(reference.sum(axis=1, keepdims=True), 1.0)
    quantized /= np.maximum(total, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(reference > 0, reference * np.log(reference / quantized), 0.0)
    result: NDArray[np.float64] = terms.sum(axis=1)
    return np.where(total[:, 0] > 0, result, np.inf)
