"""How alike two sets of outputs are, and how sure a difference in accuracy is."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accelsim.errors import AccelsimError

_Z_95 = 1.959963984540054  # the 0.975 quantile of the standard normal distribution


def agreement(reference: ArrayLike, outputs: ArrayLike, *, argmax: bool = True) -> dict[str, float]:
    """How near `outputs` are to those of a reference; both float[examples, ...].

    Keys: `same_argmax`, in percent, the share of equal argmaxes along axis 1 (classes, or the tokens of
    [examples, tokens, 2]; argmax=False leaves it out, as for embeddings); `sqnr_db`,
    10 log10(sum r^2 / sum (r - y)^2) over everything, inf where nothing differs; `cosine`, the mean over
    examples of the cosine between the two outputs, flattened (1 for two of zeros, 0 for one). Both of these
    are computed in float64. Raises AccelsimError for different shapes or no examples.
    """
    wanted, found = np.asarray(reference), np.asarray(outputs)
    if wanted.shape != found.shape or wanted.ndim < 2 or not wanted.size:
        raise AccelsimError(
            f"agreement: reference is {list(wanted.shape)}, outputs {list(found.shape)}, expected one shape "
            "[examples, ...] for both"
        )
    r = wanted.reshape(len(wanted), -1).astype(np.float64)
    y = found.reshape(len(found), -1).astype(np.float64)
    signal, noise = float(np.sum(r * r)), float(np.sum((r - y) ** 2))
    report: dict[str, float] = {}
    if argmax:
        report["same_argmax"] = 100.0 * float(np.mean(np.argmax(wanted, axis=1) == np.argmax(found, axis=1)))
    with np.errstate(divide="ignore"):
        report["sqnr_db"] = 10 * float(np.log10(signal / noise)) if noise else math.inf
    lengths = np.linalg.norm(r, axis=1) * np.linalg.norm(y, axis=1)
    cosine = np.where(r.any(axis=1) | y.any(axis=1), 0.0, 1.0)
    np.divide(np.sum(r * y, axis=1), lengths, out=cosine, where=lengths > 0)
    report["cosine"] = float(np.mean(cosine))
    return report


def paired_interval(correct_a: ArrayLike, correct_b: ArrayLike) -> tuple[float, float]:
    """95 % confidence interval of accuracy a minus accuracy b, in percentage points, on the same examples.

    correct_a, correct_b: bool[n], one entry an example. The adjusted Wald interval for paired proportions of
    D. G. Bonett and R. M. Price (Journal of Educational and Behavioral Statistics 37(4), 2012, 479-488):
    with n10 examples that only a has right and n01 that only b has, p = (n10 + 1) / (n + 2),
    q = (n01 + 1) / (n + 2), the interval is p - q +- z sqrt((p + q - (p - q)^2) / (n + 2)), cut at
    +-100 points. Raises AccelsimError for other dtypes or shapes.
    """
    a, b = _booleans(correct_a, "correct_a"), _booleans(correct_b, "correct_b")
    if a.shape != b.shape:
        raise AccelsimError(
            f"paired_interval: {len(a)} and {len(b)} examples, expected the same examples for both"
        )
    n = len(a) + 2
    p, q = (int(np.sum(a & ~b)) + 1) / n, (int(np.sum(b & ~a)) + 1) / n
    half = _Z_95 * math.sqrt((p + q - (p - q) ** 2) / n)
    return 100 * max(-1.0, p - q - half), 100 * min(1.0, p - q + half)


def _booleans(values: ArrayLike, name: str) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.dtype != np.bool_ or array.ndim != 1 or not array.size:
        raise AccelsimError(
            f"paired_interval: {name} is {array.dtype}{list(array.shape)}, expected bool[n], n from 1"
        )
    return array
