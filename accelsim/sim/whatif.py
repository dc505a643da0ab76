"""The same arithmetic with another accumulator width, without the array."""

from __future__ import annotations

import numpy as np
from accelsim_kernels import accumulate, pack_weights
from numpy.typing import NDArray

from accelsim.config import Arch
from accelsim.sim.layer_run import lane_spec
from accelsim.workload import QuantizedLayer

_PIXELS_AT_ONCE = 1024


def accumulate_at(arch: Arch, layer: QuantizedLayer, accumulator_bits: int) -> tuple[NDArray[np.int64], int]:
    """(psums int64[pixels, K], overflows) of a layer with another accumulator width.

    The machine's overflow mode holds, except that `error` is counted and limited like `saturate`.
    """
    spec = lane_spec(arch, layer.scheme)._replace(accumulator_bits=accumulator_bits)
    per_group, total = layer.geometry.outputs_per_group, 0
    psums = np.empty((layer.geometry.pixels, layer.geometry.K), dtype=np.int64)
    for group in range(layer.geometry.groups):
        k = np.s_[group * per_group : (group + 1) * per_group]
        scales = None if layer.weight_scales is None else layer.weight_scales[k]
        packed = pack_weights(layer.weight_words[k], scales, spec)
        for start in range(0, layer.geometry.pixels, _PIXELS_AT_ONCE):
            pixels = np.arange(start, min(start + _PIXELS_AT_ONCE, layer.geometry.pixels))
            gather = layer.gather(group, pixels)
            sums, overflows = accumulate(packed, layer.input_words, layer.input_scales, gather, spec)
            psums[pixels[0] : pixels[-1] + 1, k] = sums
            total += int(overflows.sum())
    return psums, total
