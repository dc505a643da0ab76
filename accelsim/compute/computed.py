"""What is known of a layer's values, computed or assumed. Knows no kernel, so that runs without values load
none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim.workload.layer import LayerSpec, QuantizedLayer


class ZeroCounts(NamedTuple):
    """What a layer's zeros let a machine gate (docs/counts.md, Gating).

    gated_steps: lane steps (k, pixel, g) with an all-zero operand vector, a zero scale or a padding tap;
    zero_operand_macs: element MACs with a zero operand, padding of vectors and images included;
    rounded_steps: lane steps, of the others, whose scale product only `:spN` makes 0; held_steps: of both
    those that add zero to a psum, not the first of a part of the reduction, which writes it.
    """

    gated_steps: int
    zero_operand_macs: int
    rounded_steps: int
    held_steps: int


@dataclass(frozen=True, eq=False)
class LayerValues:
    """Integers of one layer.

    psums: int64[pixels, K]; overflow_map: int32[pixels, K], accumulations that overflowed; output: int16
    [pixels, K] PPU codes; output_scales: uint16[pixels, groups * ceil(K/groups/V)] or None; zeros: what can
    be gated.
    """

    psums: NDArray[np.int64]
    overflow_map: NDArray[np.int32]
    output: NDArray[np.int16]
    output_scales: NDArray[np.uint16] | None
    zeros: ZeroCounts

    @property
    def overflows(self) -> int:
        return int(self.overflow_map.sum())


@dataclass(frozen=True)
class StepToggles:
    """Of a layer. by_part: bits that change, for each operation of a part of the lanes (one count of the
    action that it is charged for); weight_changes: share of the steps at which the weight operand changes;
    steps: how many were looked at, out of the lane steps `of`."""

    by_part: Mapping[str, float]
    weight_changes: float
    steps: int
    of: int = 0


@dataclass(frozen=True, eq=False)
class Computed:
    """What is known of a layer once it is computed.

    zeros: what can be gated, assumed where no values were computed, and then overflows is None; sqnr_db,
    ppu_sqnr_db: of psums and of PPU outputs, None without a reference; narrow_*: at the published accumulator
    width; operands, values: where kept; toggles: where counted.
    """

    zeros: ZeroCounts
    overflows: int | None = None
    sqnr_db: float | None = None
    ppu_sqnr_db: float | None = None
    narrow_overflows: int = 0
    narrow_sqnr_db: float | None = None
    operands: QuantizedLayer | None = None
    values: LayerValues | None = None
    toggles: StepToggles | None = None

    def of(self, layer: LayerSpec) -> Computed:
        """The same of a layer with the same tensors."""
        if self.operands is None or self.operands.name == layer.name:
            return self
        spec = replace(self.operands.spec, layer=layer.layer, global_pe=layer.global_pe)
        return replace(self, operands=replace(self.operands, spec=spec))


def assume(layer: LayerSpec, gated_fraction: float, c_split: int = 1) -> Computed:
    """In place of values: taps in the image's padding are gated, and of the other steps a share, at every g
    alike. No scale product is taken for rounded to 0. c_split: PEs over which the reduction is cut."""
    geometry = layer.geometry
    steps = geometry.pixels * geometry.K * layer.G
    firsts = geometry.pixels * geometry.K * c_split
    padded = padded_firsts = 0
    if not layer.packed_im2col:
        outside = geometry.pixels * geometry.R * geometry.S - geometry.taps_inside()
        padded = outside * layer.words_per_position * geometry.K
        padded_firsts = (geometry.pixels - geometry.first_taps_inside()) * geometry.K * c_split
    gated = padded + round(gated_fraction * (steps - padded))
    held = padded - padded_firsts
    held += round(gated_fraction * (steps - firsts - held))
    return Computed(ZeroCounts(gated, gated * layer.vector_size, 0, held))
