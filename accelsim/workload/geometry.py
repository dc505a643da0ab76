"""Sizes of one layer and of its operands, in the letters of docs/machine.md. Knows no hardware.

Every layer is a (grouped) convolution. A linear layer or a matmul M x Kdim x N' is a 1x1 convolution with
pixels = M, C = Kdim, K = N'; a batch of B matmuls is one with B groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import AccelsimError

if TYPE_CHECKING:
    Whole = int | np.integer[Any]


def _whole(value: object, least: int) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and int(value) >= least


def _pair(value: object) -> object:
    """One number for both axes, and two of them in a list, as the pair that is kept; all else as it is."""
    if isinstance(value, (int, np.integer)):
        return (value, value)
    return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True)
class Geometry:
    """Sizes of one layer, in the letters of docs/machine.md.

    C and K are totals over the groups. padding: (rows, columns) on both sides, or (top, left, bottom, right).
    stride, padding and dilation may also be given as one number for both axes or as a list, and every number
    as a NumPy integer: what is kept are plain ints and tuples of them, two where both sides are padded alike.
    Raises AccelsimError when the sizes do not fit together.
    """

    N: int
    C: int
    H: int
    W: int
    K: int
    R: int = 1
    S: int = 1
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] | tuple[int, int, int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    if TYPE_CHECKING:
        # The fields say what is kept; this, what may be given.
        def __init__(
            self,
            N: Whole,
            C: Whole,
            H: Whole,
            W: Whole,
            K: Whole,
            R: Whole = 1,
            S: Whole = 1,
            stride: Whole | Sequence[Whole] = (1, 1),
            padding: Whole | Sequence[Whole] = (0, 0),
            dilation: Whole | Sequence[Whole] = (1, 1),
            groups: Whole = 1,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in ("N", "C", "H", "W", "K", "R", "S", "groups"):
            size = getattr(self, name)
            if not _whole(size, 1):
                raise AccelsimError(f"geometry: {name} is {size!r}, expected a whole number from 1")
            object.__setattr__(self, name, int(size))
        for name, least in (("stride", 1), ("padding", 0), ("dilation", 1)):
            given = getattr(self, name)
            found = _pair(given)
            counts = (2, 4) if name == "padding" else (2,)
            if not (
                isinstance(found, tuple)
                and len(found) in counts
                and all(_whole(size, least) for size in found)
            ):
                more = ", two, or four" if len(counts) > 1 else ", or two"
                raise AccelsimError(
                    f"geometry: {name} is {given!r}, expected a whole number from {least}{more}"
                )
            sizes = tuple(map(int, found))
            object.__setattr__(self, name, sizes[:2] if sizes[2:] == sizes[:2] else sizes)
        if self.C % self.groups or self.K % self.groups:
            raise AccelsimError(
                f"geometry: groups is {self.groups}, expected a divisor of C = {self.C} and K = {self.K}"
            )
        if self.P < 1 or self.Q < 1:
            raise AccelsimError(
                f"geometry: the {self.R}x{self.S} kernel does not fit the {self.H}x{self.W} input "
                f"with padding {self.padding} and dilation {self.dilation}"
            )

    def _out(self, size: int, axis: int) -> int:
        free = size + self.padding[axis] + self.padding_after[axis] - self._reach(axis)
        return free // self.stride[axis] + 1

    @property
    def padding_after(self) -> tuple[int, int]:
        """(bottom, right); padding[:2] is (top, left)."""
        bottom, right = self.padding[-2:]
        return bottom, right

    @cached_property
    def P(self) -> int:
        return self._out(self.H, 0)

    @cached_property
    def Q(self) -> int:
        return self._out(self.W, 1)

    @cached_property
    def pixels(self) -> int:
        """Output pixels N*P*Q, numbered in raster order (n, p, q)."""
        return self.N * self.P * self.Q

    @property
    def channels_per_group(self) -> int:
        return self.C // self.groups

    @property
    def outputs_per_group(self) -> int:
        return self.K // self.groups

    @cached_property
    def macs(self) -> int:
        """N*P*Q*K*R*S*C/groups: taps in spatial padding counted, padding of C, K and vectors not."""
        return self.pixels * self.K * self.R * self.S * self.channels_per_group

    def packed_im2col(self, vector_size: int, fold: str = "auto") -> bool:
        """True when the reduction (r, s, c) is made contiguous before it is cut into vectors."""
        return fold == "auto" and self.channels_per_group < vector_size and self.R * self.S > 1

    def vectors(self, vector_size: int, fold: str = "auto") -> int:
        """G, the number of vectors along the reduction of one group."""
        if self.packed_im2col(vector_size, fold):
            return -(-self.R * self.S * self.channels_per_group // vector_size)
        return self.R * self.S * -(-self.channels_per_group // vector_size)

    def tap_positions(self, first: int = 0, stop: int | None = None) -> NDArray[np.int32]:
        """int32[pixels, R*S]: (n*H + h)*W + w of the input position under each tap, -1 in the padding.

        first, stop: of the pixels. Not where positions have larger numbers.
        """
        pixels = np.arange(first, self.pixels if stop is None else stop)[:, None]
        n, p, q = pixels // (self.P * self.Q), pixels // self.Q % self.P, pixels % self.Q
        r, s = np.meshgrid(np.arange(self.R), np.arange(self.S), indexing="ij")
        h = p * self.stride[0] - self.padding[0] + r.reshape(1, -1) * self.dilation[0]
        w = q * self.stride[1] - self.padding[1] + s.reshape(1, -1) * self.dilation[1]
        inside = (h >= 0) & (h < self.H) & (w >= 0) & (w < self.W)
        return np.where(inside, (n * self.H + h) * self.W + w, -1).astype(np.int32)

    def part(self, images: int, K: int, rows: range | None = None, columns: range | None = None) -> Geometry:
        """The same layer for so many images, K of its channels, and some of its output rows and columns.

        Raises AccelsimError where all that these see lies in the padding.
        """
        sizes, before, after = [self.H, self.W], list(self.padding[:2]), list(self.padding_after)
        for axis, outputs in enumerate((rows, columns)):
            if outputs is not None:
                seen, (first, stop) = self.inputs_of(axis, outputs), self._window(axis, outputs)
                sizes[axis], before[axis], after[axis] = len(seen), seen.start - first, stop - seen.stop
        padding = before[0], before[1], after[0], after[1]
        return replace(self, N=images, H=sizes[0], W=sizes[1], K=K, padding=padding)

    def inputs_of(self, axis: int, outputs: range) -> range:
        """Of rows (axis 0) or columns of the input those from the first to the last that such outputs see."""
        size, (first, stop) = (self.H, self.W)[axis], self._window(axis, outputs)
        return range(min(max(first, 0), size), min(max(stop, 0), size))

    def _window(self, axis: int, outputs: range) -> tuple[int, int]:
        """(first, stop) of what they see along an axis, which may lie in the padding."""
        first = outputs.start * self.stride[axis] - self.padding[axis]
        return first, first + (len(outputs) - 1) * self.stride[axis] + self._reach(axis)

    def _reach(self, axis: int) -> int:
        return self.dilation[axis] * ((self.R, self.S)[axis] - 1) + 1

    def taps_inside(self) -> int:
        """Taps of all pixels that are not in the padding."""
        return self.N * sum(self._inside(0)) * sum(self._inside(1))

    def first_taps_inside(self) -> int:
        """Pixels whose first tap is not in the padding."""
        return self.N * self._inside(0)[0] * self._inside(1)[0]

    def _inside(self, axis: int) -> list[int]:
        """Along rows or columns, of how many outputs each tap is inside of the input."""
        size, out, taps = ((self.H, self.P, self.R), (self.W, self.Q, self.S))[axis]
        counts = []
        for tap in range(taps):
            # Outputs o with 0 <= o * stride + start < size.
            start, stride = tap * self.dilation[axis] - self.padding[axis], self.stride[axis]
            first, stop = max(0, -(start // stride)), min(out, -((start - size) // stride))
            counts.append(max(0, stop - first))
        return counts
