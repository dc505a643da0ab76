"""What a layer has to be cut into on a machine: the integers that candidates and their ranking work with."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from accelsim.machine import timing
from accelsim.machine.arch import Arch
from accelsim.machine.dataflows import DataflowName
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import LayerSpec

# Taps of a run of pixels that are looked at one by one.
_COUNTED_TAPS = 1 << 20


class Sizes:
    """units: of all groups, units_per_group of one; lane_groups: of a unit; parts: into how many the
    reduction can be cut; run: words of a block, which no cut parts; weight_bits, input_bits: of a run."""

    def __init__(self, arch: Arch, layer: LayerSpec) -> None:
        geometry = layer.geometry
        self.arch, self.layer, self.geometry = arch, layer, geometry
        self.pixels, self.groups, self.vectors = geometry.pixels, geometry.groups, layer.G
        self.run, self.unit_channels = layer.words_per_block, arch.unit_channels(layer.written_block)
        self.units_per_group = -(-geometry.outputs_per_group // self.unit_channels)
        self.units = self.groups * self.units_per_group
        self.lane_groups = -(-min(self.unit_channels, geometry.outputs_per_group) // arch.lanes)
        self.parts = layer.pieces if arch.psum_chain else 1
        self.weight_bits = layer.run_bits(layer.weight_operand, self.run)
        self.input_bits = layer.run_bits(layer.input_operand, self.run)
        self._staged = timing.is_staged(arch, layer.written_block)
        self._words: dict[tuple[int, int, int], int] = {}

    def part_vectors(self, c_split: int) -> int:
        """Vectors of the longest part."""
        words = self._part_words(c_split)
        return words if self.layer.packed_im2col else words * (self.vectors // self.layer.words_per_position)

    def _part_words(self, c_split: int) -> int:
        """Of what is cut over a chain."""
        return -(-self.layer.pieces // c_split) * self.run

    def whole_runs(self, vectors: int) -> int:
        """So many vectors or a few more."""
        return -(-vectors // self.run) * self.run

    def most_units(self, k_split: int) -> int:
        """Of a weight tile: a run of units ends at a group boundary."""
        return min(-(-self.units // k_split), self.units_per_group)

    def whole_step(self, dataflow: DataflowName, dtile_pixels: int = 0) -> int:
        """Pixels of which a d-tile leaves nothing idle, or as many as it is to have."""
        arch = self.arch
        room = arch.accumulation_collector_depth if self._staged else timing.psum_store_pixels(arch, dataflow)
        return min(room, dtile_pixels or room)

    def input_words(self, c_split: int, tile_pixels: int, vectors: int) -> int:
        """About how many words an input tile of so many pixels holds at most, or one chunk of `vectors`."""
        key = c_split, tile_pixels, vectors
        if key not in self._words:
            self._words[key] = self._input_words(*key)
        return self._words[key]

    def stored_share(self, tile_pixels: int) -> float:
        """Of the bits of an input tile those that DRAM has: not each position once for every tap."""
        if not self.layer.packed_im2col:
            return 1.0
        bits = self.layer.input_operand.bits * self.geometry.channels_per_group
        sent = self._input_words(1, tile_pixels, self.vectors) * self.input_bits / self.run
        return _positions(self.geometry, tile_pixels, self.geometry.R * self.geometry.S) * bits / sent

    def _input_words(self, c_split: int, tile_pixels: int, vectors: int) -> int:
        part = self.part_vectors(c_split)
        if self.layer.packed_im2col:
            return tile_pixels * min(vectors, part)
        geometry, words = self.geometry, self._part_words(c_split)
        if vectors >= part:
            return _positions(geometry, tile_pixels, geometry.R * geometry.S) * words
        under = -(-vectors // words)
        return _positions(geometry, tile_pixels, under) * -(-vectors // under)


@lru_cache(maxsize=1 << 14)
def _positions(geometry: Geometry, tile_pixels: int, taps: int) -> int:
    """Input positions under `taps` of the taps of a run of pixels: the most of a few runs."""
    pixels = min(tile_pixels, geometry.pixels)
    if pixels * taps <= _COUNTED_TAPS:
        return _counted(geometry, pixels, taps)
    # More than any buffer holds: the whole rows that such a run touches.
    g = geometry
    if g.R * g.S == 1:
        return pixels
    rows, columns = min(g.N * g.P, -(-pixels // g.Q) + 1), min(g.Q, pixels)
    seen_rows = min(rows * g.R, (rows - 1) * g.stride[0] + g.dilation[0] * (g.R - 1) + 1)
    seen_columns = min(columns * g.S, (columns - 1) * g.stride[1] + g.dilation[1] * (g.S - 1) + 1)
    return min(seen_rows * seen_columns, g.N * g.H * g.W)


def _counted(geometry: Geometry, pixels: int, taps: int) -> int:
    first_tap = (geometry.R * geometry.S - taps) // 2
    runs = -(-geometry.pixels // pixels)
    most = 0
    for run in {0, runs // 2, max(0, runs // 2 - 1)}:
        every = geometry.tap_positions(run * pixels, min((run + 1) * pixels, geometry.pixels))
        under = every[:, first_tap : first_tap + taps]
        first = int(under.min())
        seen = np.zeros(int(under.max()) - first + 1, bool)
        seen[under - first] = True
        most = max(most, int(seen.sum()) - (first < 0))
    return most
