"""Values that a PE has to have, step by step and entry by entry, from the plain kernels.

docs/numerics.md; the kernels are accelsim_kernels.reference. Idle lanes have words and constants of zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from accelsim_kernels import activation_profile, live_block_products, live_products, weight_profile
from accelsim_kernels.reference import (
    accumulate_aligned_reference,
    accumulate_reference,
    ppu_static_reference,
    ppu_vector_reference,
    scale_and_bias_reference,
)
from numpy.typing import NDArray

from accelsim.compute.lanes import lane_spec
from accelsim.compute.operands import align_spec, code_values, live_codes, scale_values
from accelsim.errors import AccelsimError
from accelsim.machine.arch import Arch
from accelsim.mapping.layout.rows import Block
from accelsim.quantize.arrays import cut_vectors
from accelsim.quantize.blocks import quantize_blocks
from accelsim.workload.layer import QuantizedLayer

_CONSTANT_BITS = 12


def layer_constants(arch: Arch, layer: QuantizedLayer) -> tuple[int, int]:
    """What the registers `align_constant` and `out_exponent` hold in a layer; 0 where nothing reads them.

    Raises AccelsimError where one does not fit.
    """
    if not layer.scheme.is_aligned:
        return 0, 0
    spec, output = align_spec(arch, layer), layer.spec.output_operand
    align = spec.accumulator_bits + spec.lsb + (254 if layer.scheme.weight.scale.kind == "e8m0" else 20)
    exponent = 0
    if output.scale.kind == "e8m0":
        assert layer.sum_exponent is not None
        exponent = layer.sum_exponent - layer.output.fraction_bits - output.element.largest_exponent + 127
    limit = 1 << (_CONSTANT_BITS - 1)
    if not all(-limit <= constant < limit for constant in (align, exponent)):
        raise AccelsimError(
            f"layer {layer.name}: sum_exponent is {layer.sum_exponent}, expected one whose constants fit "
            f"{_CONSTANT_BITS} bits"
        )
    return align, exponent


class Step:
    """Steps of the lanes of one layer. zero_words: of those so far, steps whose input word is padding, or can
    contribute nothing."""

    def __init__(self, arch: Arch, layer: QuantizedLayer) -> None:
        self.layer, self.lanes, self.blocks = layer, arch.lanes, layer.spec.blocks_per_word
        self.zero_words = 0
        aligned = layer.scheme.is_aligned
        self.spec: Any = align_spec(arch, layer) if aligned else lane_spec(arch, layer.scheme)

    def after(
        self, block: Block, g: int, psums: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
        """Psums and overflow flags [pixels, lanes] after word g, and products that may be other than 0."""
        layer, lanes, blocks = self.layer, self.lanes, self.blocks
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
            self.zero_words += gather.size
            return psums, np.zeros(psums.shape, np.int32), 0
        scales = None if layer.input_scales is None else layer.input_scales[tile.word_index]
        words = layer.input_words[tile.word_index]
        weight_operand, input_operand = layer.spec.weight_operand, layer.spec.input_operand
        live_inputs, live_scales = live_codes(words, scales, input_operand, blocks)
        contributes: NDArray[np.bool_] = np.any(live_inputs, axis=1)
        if live_scales is not None:
            contributes &= live_scales > 0
        self.zero_words += int((~contributes[gather] | (gather < 0)).sum())
        live = 0
        if layer.scheme.is_integer:  # no other lanes gate
            shift = layer.scheme.scale_product_shift
            profiles = (
                weight_profile(*live_codes(weights, weight_scales, weight_operand, blocks)),
                activation_profile(live_inputs, live_scales, gather),
            )
            live = int(live_products(*profiles, 0 if blocks > 1 else shift).sum())
            if blocks > 1 and shift:
                assert weight_scales is not None and scales is not None
                codes = live_codes(weights, weight_scales, weight_operand, blocks)[0]
                live = int(
                    live_block_products(codes, weight_scales, live_inputs, scales, gather, shift).sum()
                )
        # A block is to the kernels what a word is here.
        codes = code_values(weights, weight_operand.element).reshape(lanes, blocks, -1)
        inputs = code_values(words, input_operand.element).reshape(len(words) * blocks, -1)
        own_gather = np.where(gather < 0, -1, gather * blocks + np.arange(blocks, dtype=np.int32))
        weight_scales = None if weight_scales is None else weight_scales.reshape(lanes, blocks)
        scales = None if scales is None else scales.reshape(-1)
        if layer.scheme.is_integer:
            own_scales: Any = weight_scales, scales
            accumulate: Any = accumulate_reference
        else:
            own_scales = scale_values(weight_scales, weight_operand), scale_values(scales, input_operand)
            accumulate = accumulate_aligned_reference
        found = accumulate(codes, own_scales[0], inputs, own_scales[1], own_gather, self.spec, psums, blocks)
        return *found, live


def outputs(
    arch: Arch,
    layer: QuantizedLayer,
    psums: NDArray[np.int64],
    constants: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
    """Codes [pixels, lanes] of psums of whole lane groups, and the scales [pixels, blocks] of a format with
    any. constants: m, t, bias int64[lanes]."""
    output, relu = layer.spec.output_operand, layer.activation == "relu"
    fraction = layer.output.fraction_bits
    m, t, bias = constants
    if not output.scale.bits:
        codes = ppu_static_reference(psums, m, t, bias, relu, fraction, output.qmin, output.qmax)
        return codes, np.zeros((len(codes), 0), np.uint16)
    if output.scale.kind == "uint":
        how = output.scale.bits, layer.spec.written_block, arch.scale_rounding == "up"
        return ppu_vector_reference(psums, m, t, bias, relu, fraction, output.qmin, output.qmax, *how)
    # The rule of quantization on the exact values.
    z = scale_and_bias_reference(psums, m, t, bias, relu).astype(np.float64)
    exponent = layer.sum_exponent if output.scale.kind == "e8m0" else 0
    assert exponent is not None
    blocks = cut_vectors(np.ldexp(z, exponent - fraction), layer.spec.written_block)
    block_codes, scales = quantize_blocks(blocks, output, 1.0)
    block_codes = block_codes.reshape(len(z), -1)[:, : z.shape[1]]
    return block_codes.astype(np.int16), scales.reshape(len(z), -1).astype(np.uint16)
