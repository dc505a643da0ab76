"""What is best in several ways at once: Pareto fronts, and how much they cover."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def front(values: ArrayLike) -> NDArray[np.bool_]:
    """bool[points]: those that no other is better than in one way and at least as good in all. Of points that
    are equal all are. values: float[points, objectives], less is better."""
    own = np.asarray(values, float)
    best = np.ones(len(own), bool)
    for index, point in enumerate(own):
        if best[index]:
            worse = (own >= point).all(axis=1) & (own > point).any(axis=1)
            best &= ~worse
    return best


def hypervolume(values: ArrayLike, reference: ArrayLike) -> float:
    """Volume of what is worse than some point and better than the reference. values: float[points,
    objectives], less is better; those that are not better than the reference in all ways count nothing.

    By slices along the last objective (Fonseca, Paquete, Lopez-Ibanez, CEC 2006, without its speed-ups).
    """
    own, corner = np.asarray(values, float), np.asarray(reference, float)
    own = own[(own < corner).all(axis=1)]
    if not len(own):
        return 0.0
    own = np.unique(own[front(own)], axis=0)
    if own.shape[1] == 1:
        return float(corner[0] - own.min())
    own = own[np.argsort(own[:, -1], kind="stable")]
    ends = np.append(own[1:, -1], corner[-1])
    return sum(
        float(end - point[-1]) * hypervolume(own[: index + 1, :-1], corner[:-1])
        for index, (point, end) in enumerate(zip(own, ends, strict=True))
        if end > point[-1]
    )
