"""Sizes of one layer and of its operands, in the letters of docs/machine.md. Knows no hardware.

Every layer is a (grouped) convolution. A linear layer or a matmul M x Kdim x N' is a 1x1 convolution with
pixels = M, C = Kdim, K = N'; a batch of B matmuls is one with B groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import AccelsimError


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


@dataclass(frozen=True)
class Geometry:
    """Sizes of one layer, in the letters of docs/machine.md.

    C and K are totals over the groups. Raises AccelsimError when the sizes do not fit together.
    """

    N: int
    C: int
    H: int
    W: int
    K: int
    R: int = 1
    S: int = 1
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def __post_init__(self) -> None:
        for name in ("N", "C", "H", "W", "K", "R", "S", "groups"):
            if not _whole(getattr(self, name), 1):
                raise AccelsimError(
                    f"geometry: {name} is {getattr(self, name)!r}, expected a whole number from 1"
                )
        for name, least in (("stride", 1), ("padding", 0), ("dilation", 1)):
            pair = getattr(self, name)
            if not isinstance(pair, tuple) or len(pair) != 2 or not all(_whole(size, least) for size in pair):
                raise AccelsimError(
                    f"geometry: {name} is {pair!r}, expected a tuple of two whole numbers from {least}"
                )
        if self.C % self.groups or self.K % self.groups:
            raise AccelsimError(
                f"geometry: groups is {self.groups}, expected a divisor of C = {self.C} and K = {self.K}"
            )
        if self.P < 1 or self.Q < 1:
            raise AccelsimError(
                f"geometry: the {self.R}x{self.S} kernel does not fit the {self.H}x{self.W} input "
                f"with padding {self.padding} and dilation {self.dilation}"
            )

    def _out(self, size: int, taps: int, axis: int) -> int:
        reach = self.dilation[axis] * (taps - 1) + 1
        return (size + 2 * self.padding[axis] - reach) // self.stride[axis] + 1

    @cached_property
    def P(self) -> int:
        return self._out(self.H, self.R, 0)

    @cached_property
    def Q(self) -> int:
        return self._out(self.W, self.S, 1)

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

    def tap_positions(self) -> NDArray[np.int32]:
        """int32[pixels, R*S]: (n*H + h)*W + w of the input position under each tap, -1 in the padding."""
        n, p, q = np.meshgrid(np.arange(self.N), np.arange(self.P), np.arange(self.Q), indexing="ij")
        r, s = np.meshgrid(np.arange(self.R), np.arange(self.S), indexing="ij")
        h = p.reshape(-1, 1) * self.stride[0] - self.padding[0] + r.reshape(1, -1) * self.dilation[0]
        w = q.reshape(-1, 1) * self.stride[1] - self.padding[1] + s.reshape(1, -1) * self.dilation[1]
        inside = (h >= 0) & (h < self.H) & (w >= 0) & (w < self.W)
        return np.where(inside, (n.reshape(-1, 1) * self.H + h) * self.W + w, -1).astype(np.int32)
