"""How wide accumulators must be by what is known of a layer: its weights, or all of its data.

The widest of a run's layers sizes the machine (sizing.py, docs/numerics.md Widths).
"""

from __future__ import annotations

import numpy as np
from accelsim_kernels.reference import scale_products
from numpy.typing import NDArray

from accelsim.compute.bits import scan_layer
from accelsim.compute.lanes import accumulate_layer, lane_spec
from accelsim.compute.widths import LEAST_WIDTH
from accelsim.machine.arch import Arch
from accelsim.workload.layer import QuantizedLayer

_OUTPUTS_AT_ONCE = 256  # bounds the weights that are int64 for a moment


def bits_for_weights(arch: Arch, layer: QuantizedLayer) -> int:
    """The least width that no input of the layer can overflow, at any step, in parts of a chain or whole.

    The input that strains it most has codes at the end of their range, of the sign of each weight, and the
    largest scales. Weights that are activations are other ones in the next run: any may come.
    """
    spec = lane_spec(arch, layer.scheme)
    largest = layer.spec.input_operand.qmax
    least = -largest if layer.input_signed else 0
    input_scale = np.array([layer.scheme.activation.scale.max_code or 1], np.int64)
    half = 1 << spec.product_shift >> 1
    highest = lowest = 0
    for start in range(0, layer.geometry.K, _OUTPUTS_AT_ONCE):
        rising, falling, scales = _weight_sums(layer, slice(start, start + _OUTPUTS_AT_ONCE))
        factors = scale_products(scales.reshape(-1), input_scale, spec).reshape(scales.shape)
        high, low = rising * largest + falling * least, falling * largest + rising * least
        # Each product can be at least 0 or at most 0, so that no partial sum leaves the two full sums.
        highs = ((high * factors + half) >> spec.product_shift).sum(axis=1)
        lows = ((low * factors + half) >> spec.product_shift).sum(axis=1)
        highest, lowest = max(highest, int(highs.max())), min(lowest, int(lows.min()))
    return max(LEAST_WIDTH, max(highest, ~lowest).bit_length() + 1)


def _weight_sums(
    layer: QuantizedLayer, k: slice
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """int64[k, G] each: sums of a vector's positive and of its negative weights, its scale (1 without); of
    words with several blocks of each block.

    Of weights that are activations two channels stand for all: one of the largest, one of the least.
    """
    blocks = layer.spec.blocks_per_word
    size = layer.vector_size // blocks
    if layer.weight_is_activation:
        # Words are cut at every position; the last of each may be filled up with zeros.
        per_position = layer.spec.words_per_position
        per_position *= blocks
        filled = layer.geometry.channels_per_group - np.arange(per_position) * size
        codes = np.clip(filled, 0, size)[np.arange(layer.spec.G * blocks) % per_position]
        most = codes * layer.scheme.weight.qmax
        none, scale = np.zeros_like(most), np.full_like(most, layer.scheme.weight.scale.max_code or 1)
        return np.stack([most, none]), np.stack([none, -most]), np.stack([scale, scale])
    words = layer.weight_words[k].astype(np.int64).reshape(-1, layer.spec.G * blocks, size)
    scales = np.ones(words.shape[:2], np.int64)
    if layer.weight_scales is not None:
        scales = layer.weight_scales[k].astype(np.int64).reshape(scales.shape)
    return np.maximum(words, 0).sum(axis=2), np.minimum(words, 0).sum(axis=2), scales


def bits_for_data(arch: Arch, c_split: int, layer: QuantizedLayer) -> int:
    """The least width that holds every partial sum of the layer, cut over chains of `c_split` PEs."""
    return max(LEAST_WIDTH, int(scan_layer(arch, layer, c_split).needed.max()))


def overflows_at(arch: Arch, layer: QuantizedLayer, bits: int, c_split: int) -> int:
    """Accumulations of the layer that overflow in accumulators of `bits`."""
    return int(accumulate_layer(arch, layer, bits, c_split)[1].sum())
