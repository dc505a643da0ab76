"""Tiles: what one transfer carries into a PE's buffer half (docs/machine.md section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from accelsim.workload.layer import LayerSpec


@dataclass(eq=False)
class WeightTile:
    """Whole units, or one lane group x one chunk: output channels [k0, k1) x vectors [g0, g1) of a part."""

    layer: LayerSpec
    k0: int
    k1: int
    g0: int
    g1: int
    half_words: int

    @property
    def macro_words(self) -> int:
        """Words over all lanes' macros: one per valid lane and vector."""
        return (self.k1 - self.k0) * (self.g1 - self.g0)

    @property
    def bits(self) -> int:
        return self.macro_words * self.layer.weight_operand.word_bits


@dataclass(eq=False)
class InputTile:
    """The distinct input words that pixels [p0, p1) of one group touch over vectors [g0, g1) of a part."""

    layer: LayerSpec
    group: int
    p0: int
    p1: int
    part: NDArray[np.int64]
    g0: int
    g1: int

    @cached_property
    def _gather(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        pixels = np.arange(self.p0, self.p1)
        gather = self.layer.gather(self.group, pixels)[:, self.part[self.g0 : self.g1]]
        word_index, local = np.unique(gather, return_inverse=True)
        local = local.reshape(gather.shape).astype(np.int32)
        if len(word_index) and word_index[0] < 0:
            word_index, local = word_index[1:], local - 1
        return word_index.astype(np.int64), np.ascontiguousarray(local)

    @property
    def word_index(self) -> NDArray[np.int64]:
        """int64[words]: which of the layer's input words the tile holds, ascending."""
        return self._gather[0]

    @property
    def local_gather(self) -> NDArray[np.int32]:
        """int32[pixels, vectors]: address in the buffer half of each pixel's word, -1 in the padding."""
        return self._gather[1]

    @property
    def macro_words(self) -> int:
        """Words the tile takes in the input buffer."""
        return len(self.word_index)

    @cached_property
    def reads(self) -> NDArray[np.int64]:
        """int64[pixels + 1]: buffer reads of the pixels before each one, one per tap that is not padding."""
        return np.concatenate([[0], np.cumsum((self.local_gather >= 0).sum(axis=1))])

    @cached_property
    def bits(self) -> int:
        return self.macro_words * self.layer.input_operand.word_bits

    @cached_property
    def dram_items(self) -> NDArray[np.int64]:
        """What DRAM stores of the tile: its words, or the positions of a folded layer, stored unexpanded."""
        layer = self.layer
        if not layer.folded:
            return self.word_index
        depth, size = layer.geometry.channels_per_group, layer.vector_size
        first, last = self.part[self.g0] * size // depth, -(-(self.part[self.g1 - 1] + 1) * size // depth)
        taps = layer.taps[self.p0 : self.p1, first:last]
        positions = np.unique(taps[taps >= 0]).astype(np.int64)
        return positions * layer.geometry.groups + self.group

    @property
    def dram_item_bits(self) -> int:
        layer, operand = self.layer, self.layer.input_operand
        return layer.geometry.channels_per_group * operand.bits if layer.folded else operand.word_bits

    @property
    def dram_bits(self) -> int:
        return len(self.dram_items) * self.dram_item_bits


@dataclass(slots=True, eq=False)
class Block:
    """d pixels x one lane group x one chunk of the PE's g: what a PE issues without a break.

    Not frozen: a network has many, and frozen ones take longer to make.
    """

    weight_tile: WeightTile
    input_tile: InputTile
    k0: int
    k1: int
    p0: int
    p1: int
    g0: int
    g1: int
    first: bool
    last: bool
    lane_group: int
    unit_k0: int
    unit_k1: int
    unit_lane_groups: int

    @property
    def pixels(self) -> int:
        return self.p1 - self.p0

    @property
    def lanes(self) -> int:
        return self.k1 - self.k0

    @property
    def last_of_unit(self) -> bool:
        return self.lane_group == self.unit_lane_groups - 1
