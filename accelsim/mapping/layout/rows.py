"""Tiles, and the blocks that work on them: rows of a layout as objects (docs/program.md)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from accelsim.workload.layer import LayerSpec


@dataclass(eq=False)
class WeightTile:
    """Whole units, or one lane group x one chunk: output channels [k0, k1) x vectors [g0, g1) of a part.

    macro_words: words over all lanes' macros, one per valid lane and vector; half_words: in every macro.
    """

    k0: int
    k1: int
    g0: int
    g1: int
    macro_words: int
    half_words: int
    bits: int


@dataclass(eq=False)
class InputTile:
    """The distinct input words that pixels [p0, p1) of one group touch over vectors [g0, g1) of a part.

    part: int64, the layer's numbers of the part's vectors; macro_words: words in the input buffer.
    """

    layer: LayerSpec
    group: int
    part: NDArray[np.int64]
    p0: int
    p1: int
    g0: int
    g1: int
    macro_words: int
    bits: int

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


@dataclass(slots=True, eq=False)
class Block:
    """Pixels [p0, p1) x channels [k0, k1) of one lane group x vectors [g0, g1): issued without a break.

    first, last: of its psum tile. unit_k0: the unit's first channel. input_reads: of the input buffer, where
    taps in padding read nothing. Of the psum tile that the block ends: spacing: cycles from one entry's first
    read to the next's; after_read: cycles at the end of its drain in which only what is staged leaves;
    fifo_entries, values, output_bits: of the output, for each pixel, 0 where none is made.

    Not frozen: a network has many, and frozen ones take longer to make.
    """

    weight_tile: WeightTile
    input_tile: InputTile
    p0: int
    p1: int
    g0: int
    g1: int
    k0: int
    k1: int
    unit_k0: int
    lane_group: int
    first: bool
    last: bool
    spacing: int
    after_read: int
    fifo_entries: int
    values: int
    output_bits: int
    input_reads: int

    @property
    def pixels(self) -> int:
        return self.p1 - self.p0

    @property
    def lanes(self) -> int:
        return self.k1 - self.k0

    @property
    def makes_output(self) -> bool:
        """Its psum tile leaves the PPU; of staged lane groups only the last does, with all of the unit."""
        return self.fifo_entries > 0
