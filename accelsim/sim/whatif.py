"""The same arithmetic with another accumulator width, without the array: overflow counts for comparison."""

from __future__ import annotations

import numpy as np
from accelsim_kernels import SATURATE, accumulate, pack_weights

from accelsim.config import Arch
from accelsim.sim.layer_run import lane_spec
from accelsim.workload import QuantizedLayer

_PIXELS_AT_ONCE = 1024


def overflows_at(arch: Arch, layer: QuantizedLayer, accumulator_bits: int) -> int:
    """Accumulations of the whole layer that would not fit `accumulator_bits`, with saturation."""
    spec = lane_spec(arch, layer.scheme)._replace(accumulator_bits=accumulator_bits, overflow=SATURATE)
    per_group, total = layer.geometry.outputs_per_group, 0
    for group in range(layer.geometry.groups):
        k = np.s_[group * per_group : (group + 1) * per_group]
        scales = None if layer.weight_scales is None else layer.weight_scales[k]
        packed = pack_weights(layer.weight_words[k], scales, spec)
        for start in range(0, layer.geometry.pixels, _PIXELS_AT_ONCE):
            pixels = np.arange(start, min(start + _PIXELS_AT_ONCE, layer.geometry.pixels))
            gather = layer.gather(group, pixels)
            _, overflows = accumulate(packed, layer.input_words, layer.input_scales, gather, spec)
            total += int(overflows.sum())
    return total
