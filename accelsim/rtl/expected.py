"""Values that a PE has to have, step by step and entry by entry, from the plain kernels.

docs/numerics.md; the kernels are accelsim_kernels.reference. Idle lanes have words and constants of zeros.
"""

from __future__ import annotations

import numpy as np
from accelsim_kernels import LaneSpec, activation_profile, live_products, weight_profile
from accelsim_kernels.reference import accumulate_reference, ppu_static_reference, ppu_vector_reference
from numpy.typing import NDArray

from accelsim.compute.operands import code_values, live_codes
from accelsim.machine.arch import Arch
from accelsim.mapping.layout.rows import Block
from accelsim.workload.layer import QuantizedLayer


def step(
    layer: QuantizedLayer, spec: LaneSpec, lanes: int, block: Block, g: int, psums: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
    """Psums and overflow flags [pixels, lanes] after word g, and products that may be other than 0."""
    blocks = layer.spec.blocks_per_word
    weights = np.zeros((lanes, 1, layer.vector_size), layer.weight_words.dtype)
    weights[: block.lanes, 0] = layer.weight_words[block.k0 : block.k1, g]
    weight_scales = None
    if layer.weight_scales is not None:
        own = layer.weight_scales[block.k0 : block.k1, g]
        weight_scales = np.zeros((lanes, 1, *own.shape[1:]), np.uint16)
        weight_scales[: block.lanes, 0] = own
    tile = block.input_tile
    rows = slice(block.p0 - tile.p0, block.p1 - tile.p0)
    gather = tile.local_gather[rows, g - tile.g0 : g - tile.g0 + 1]
    if not len(tile.word_index):
        return psums, np.zeros(psums.shape, np.int32), 0
    scales = None if layer.input_scales is None else layer.input_scales[tile.word_index]
    words = layer.input_words[tile.word_index]
    weight_operand, input_operand = layer.spec.weight_operand, layer.spec.input_operand
    profiles = (
        weight_profile(*live_codes(weights, weight_scales, weight_operand, blocks)),
        activation_profile(*live_codes(words, scales, input_operand, blocks), gather),
    )
    live = int(live_products(*profiles, layer.scheme.scale_product_shift).sum())
    # A block is to the kernels what a word is here.
    codes = code_values(weights, weight_operand.element).reshape(lanes, blocks, -1)
    inputs = code_values(words, input_operand.element).reshape(len(words) * blocks, -1)
    own_gather = np.where(gather < 0, -1, gather * blocks + np.arange(blocks, dtype=np.int32))
    weight_scales = None if weight_scales is None else weight_scales.reshape(lanes, blocks)
    scales = None if scales is None else scales.reshape(-1)
    operands = codes, weight_scales, inputs, scales, own_gather, spec
    return *accumulate_reference(*operands, psums, blocks), live


def outputs(
    arch: Arch, layer: QuantizedLayer, psums: NDArray[np.int64], constants: list[NDArray[np.int64]]
) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    """Codes [pixels, lanes] of psums of whole lane groups, and the scales [pixels, blocks] of a format with
    any. constants: m, t, bias int64[lanes]."""
    output = layer.spec.output_operand
    common = (psums, *constants, layer.activation == "relu", layer.output.fraction_bits)
    if not output.scale.bits:
        codes = ppu_static_reference(*common, output.qmin, output.qmax)
        return codes, np.zeros((len(codes), 0), np.uint16)
    how = output.scale.bits, layer.spec.written_block, arch.scale_rounding == "up"
    return ppu_vector_reference(*common, output.qmin, output.qmax, *how)
