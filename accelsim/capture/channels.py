"""Which axes of a tensor are its channels, so that N, C, H, W and the vectors of a tensor are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

from accelsim.workload.graph import Shape

Axes = tuple[int, ...]


def usual_channels(rank: int) -> Axes:
    """N, C, H, W where there are four axes; the last of three, as of tokens; axis 1 of two."""
    return {0: (), 1: (0,), 2: (1,), 3: (2,)}.get(rank, (1,))


def nchw(shape: tuple[int, ...], channels: Axes, parts: int = 1) -> Shape:
    """Of a tensor: its own sizes where axis 1 is the channels, else one row of pixels. parts: real numbers in
    one of its."""
    if channels == (1,) and len(shape) >= 2:
        height, width = (1, *shape[2:])[:-1] if len(shape) > 2 else (), shape[-1] if len(shape) > 2 else 1
        return _sizes(shape[0], shape[1], math.prod(height), width * parts)
    inside = math.prod(shape[axis] for axis in channels)
    return _sizes(1, inside, 1, math.prod(shape) * parts // max(1, inside))


def _sizes(*sizes: int) -> Shape:
    n, c, h, w = (max(1, size) for size in sizes)
    return n, c, h, w


def permuted(order: Sequence[int], channels: Axes) -> Axes:
    """The channels after axes were put in another order: axis i was axis order[i]."""
    return tuple(place for place, axis in enumerate(order) if axis in channels)


def without_axis(gone: int, channels: Axes) -> Axes:
    """The channels after one index was taken along an axis."""
    return tuple(axis - (axis > gone) for axis in channels if axis != gone)


def reduces_channels(shape: tuple[int, ...], channels: Axes, axis: int) -> bool:
    """True where a product that sums over `axis` (negative) runs along the vectors of its operand."""
    return shape[axis] == 1 or len(shape) + axis in channels


def regrouped(old: tuple[int, ...], new: tuple[int, ...], channels: Axes) -> Axes:
    """The channels after a view, which cuts and joins axes.

    Axes that were joined are channels where all of them were; of axes cut from joined ones the innermost,
    where the innermost was.
    """
    found: list[int] = []
    i = j = 0
    while i < len(old) or j < len(new):
        first_old, first_new = i, j
        left, right = 1, 1
        while True:
            if left <= right and i < len(old) and (left < right or i == first_old):
                left *= old[i]
                i += 1
            elif j < len(new) and (right < left or j == first_new):
                right *= new[j]
                j += 1
            elif left == right:
                break
            else:
                return usual_channels(len(new))
        before = [axis for axis in range(first_old, i) if old[axis] > 1]
        after = [axis for axis in range(first_new, j) if new[axis] > 1]
        if before and all(axis in channels for axis in before):
            found += after
        elif before and before[-1] in channels and after:
            found.append(after[-1])
    return tuple(found)
