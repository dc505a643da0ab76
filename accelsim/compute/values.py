"""Compute, the second stage of a run: a layer's integers, their error, and what was counted in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from accelsim.compute.computed import Computed, ZeroCounts
from accelsim.compute.lanes import accumulate_layer, compute_values
from accelsim.compute.operands import psum_shift
from accelsim.compute.toggles import mean_toggles, sample_toggles
from accelsim.compute.widths import PUBLISHED_ACCUMULATOR_BITS
from accelsim.machine.arch import Arch
from accelsim.mapping.plan import StepOrder
from accelsim.quantize.reference import apply_activation, dequantize_output, sqnr_db
from accelsim.workload.layer import QuantizedLayer


@dataclass(frozen=True, eq=False)
class ComputeRequest:
    """One layer to compute.

    order: in which lanes take their steps, or None for a reduction that is not cut, of which no toggles are
    counted; reference: float64[pixels, K] before the activation, what error is measured against, or None;
    keep_tensors: keep operands and values in the result; narrow: also accumulate at the published width;
    toggles: count the bits that change in the lanes.
    """

    arch: Arch
    layer: QuantizedLayer
    order: StepOrder | None = None
    reference: np.ndarray | None = None
    keep_tensors: bool = False
    narrow: bool = False
    toggles: bool = False

    @property
    def c_split(self) -> int:
        return 1 if self.order is None else self.order.c_split


def compute(request: ComputeRequest) -> Computed:
    """Run a layer through lanes and PPU. Raises AccelsimError when one overflows with `overflow: error`."""
    arch, layer, reference = request.arch, request.layer, request.reference
    values = compute_values(arch, layer, request.c_split)
    own_sqnr = ppu_sqnr = narrow_sqnr = None
    if reference is not None:
        y = dequantize_output(values.psums, layer, psum_shift(arch, layer))
        own_sqnr = sqnr_db(reference, y)
        output = layer.spec.output_operand
        codes = output.element.decode(values.output) * layer.output_gamma
        if values.output_scales is not None:
            codes *= output.scale.decode(_scales_by_channel(layer, values.output_scales))
        ppu_sqnr = sqnr_db(apply_activation(reference, layer.activation), codes)
    narrow_overflows = 0
    if request.narrow:
        psums, overflow_map = accumulate_layer(arch, layer, PUBLISHED_ACCUMULATOR_BITS, request.c_split)
        narrow_overflows = int(overflow_map.sum())
        if reference is not None:
            narrow_sqnr = sqnr_db(
                reference,
                dequantize_output(psums, layer, psum_shift(arch, layer, PUBLISHED_ACCUMULATOR_BITS)),
            )
    return Computed(
        values.zeros,
        values.overflows,
        own_sqnr,
        ppu_sqnr,
        narrow_overflows,
        narrow_sqnr,
        layer if request.keep_tensors else None,
        values if request.keep_tensors else None,
        sample_toggles(arch, layer, request.order) if request.order and request.toggles else None,
    )


def join_parts(parts: Sequence[Computed]) -> Computed:
    """A layer that was computed in parts: its counts are theirs together. None has a reference or tensors."""
    toggles = [own.toggles for own in parts if own.toggles is not None]
    return Computed(
        ZeroCounts(*(sum(counts) for counts in zip(*(own.zeros for own in parts), strict=True))),
        sum(own.overflows or 0 for own in parts),
        narrow_overflows=sum(own.narrow_overflows for own in parts),
        toggles=mean_toggles(toggles) if toggles else None,
    )


def _scales_by_channel(layer: QuantizedLayer, scales: np.ndarray) -> np.ndarray:
    """The output scale of each of the K channels, [pixels, K]; vectors of k do not mix groups."""
    geometry = layer.geometry
    by_group = scales.reshape(geometry.pixels, geometry.groups, -1)
    spread = np.repeat(by_group, layer.spec.written_block, axis=2)[:, :, : geometry.outputs_per_group]
    return spread.reshape(geometry.pixels, geometry.K)
