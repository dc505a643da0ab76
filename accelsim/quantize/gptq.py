"""Weights rounded one column after another, each making up for the errors before it.

GPTQ (Frantar et al., ICLR 2023) for codes with integer scales by vector: the scale of a vector is chosen when
its first column is reached, at the channel's gamma, so that it fits the weights as they then are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accelsim.formats.operand import Operand
from accelsim.quantize.arrays import QuantizeOptions, encode, integer_scales, vector_scales
from accelsim.quantize.layers import Codes, Scales, static_weight_words

_DAMPING = 0.01
_SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)


def round_by_columns(
    vectors: NDArray[np.floating], gram: NDArray[np.float64], operand: Operand, options: QuantizeOptions
) -> tuple[Codes, Scales | None, NDArray[np.float64]]:
    """(codes int8[K, G, V], scales uint16[K, G] or None, gamma float64[K]) of weights float[K, G, V].

    gram: float64[G*V, G*V], the sum of x x^T over the inputs that the weights meet; columns that never are
    anything but 0 may be 0 in it. The damping is 1 % of its mean diagonal, and grows until the matrix can be
    factorized.
    """
    channels, groups, size = vectors.shape
    _, scales, gamma = static_weight_words(vectors, vectors.reshape(channels, -1), operand, options)
    scales = None if scales is None else scales.copy()
    weights = vectors.reshape(channels, -1).astype(np.float64)
    upper = _inverse_factor(gram)
    codes = np.zeros((channels, groups, size), np.int8)
    for g in range(groups):
        columns = slice(g * size, (g + 1) * size)
        block = weights[:, columns]
        if scales is None:
            steps = gamma
        else:
            scales[:, g], steps = _vector_scale(block, np.diag(gram)[columns], gamma, operand, options)
        errors = np.zeros_like(block)
        for j in range(size):
            column = block[:, j]
            code = encode(column[:, None], steps[:, None], operand.qmin, operand.qmax)[:, 0]
            codes[:, g, j] = code
            row = upper[columns.start + j]
            errors[:, j] = (column - code * steps) / row[columns.start + j]
            block[:, j + 1 :] -= errors[:, j : j + 1] * row[columns.start + j + 1 : columns.stop]
        weights[:, columns.stop :] -= errors @ upper[columns, columns.stop :]
    return codes, scales, gamma


def _vector_scale(
    block: NDArray[np.float64],
    importance: NDArray[np.float64],
    gamma: NDArray[np.float64],
    operand: Operand,
    options: QuantizeOptions,
) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """Scale and step of one vector float64[K, V], of a few clips the one with the least weighted error."""
    largest = vector_scales(block, operand.qmax)
    best = np.full(len(block), np.inf)
    chosen, steps = np.zeros(len(block), np.uint16), np.zeros(len(block))
    for shrink in _SHRINK:
        scale = integer_scales(largest * shrink, gamma, operand.scale, options.scale_rounding)
        step = scale * gamma
        codes = encode(block, step[:, None], operand.qmin, operand.qmax)
        error = np.square(block - codes * step[:, None]) @ (importance + 1e-30)
        better = error < best
        best = np.where(better, error, best)
        chosen, steps = np.where(better, scale, chosen), np.where(better, step, steps)
    return chosen, steps


def _inverse_factor(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """U with (gram + damping)^-1 = U^T U, upper triangular."""
    diagonal = np.diag(gram)
    mean = float(diagonal.mean()) or 1.0
    damping = _DAMPING
    while True:
        damped = gram + damping * mean * np.eye(len(gram))
        try:
            # The inverse's factor is that of the reversed matrix, inverted and reversed again.
            lower = np.linalg.cholesky(damped[::-1, ::-1])
            return np.linalg.inv(lower)[::-1, ::-1].copy()
        except np.linalg.LinAlgError:
            damping *= 10
