"""What a machine's lanes take of a layer: code values, and scales block by block (docs/numerics.md).

A step of the lanes is one word. A larger block is so many words with the same scale; in a larger word there
are several blocks, which the kernels see as so many vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from accelsim_kernels import (
    AlignSpec,
    LaneSpec,
    Scales,
    accumulate,
    accumulate_aligned,
    pack_aligned,
    pack_weights,
)
from numpy.typing import NDArray

from accelsim.errors import AccelsimError
from accelsim.formats.element import Element
from accelsim.formats.operand import Operand
from accelsim.formats.scale import E4M3
from accelsim.machine.accumulator import HEADROOM_BITS
from accelsim.machine.arch import Arch
from accelsim.workload.layer import QuantizedLayer

Sums = tuple[NDArray[np.int64], NDArray[np.int32]]


def psum_shift(arch: Arch, layer: QuantizedLayer, accumulator_bits: int | None = None) -> int:
    """Exponent of what a psum is worth, but for gammas and `:spN`: p, or of block formats q."""
    if layer.scheme.is_integer:
        return arch.product_shift
    if layer.sum_exponent is None:
        raise AccelsimError(
            f"layer {layer.name}: is stored at {layer.scheme} without sum_exponent, expected words quantized "
            "anew"
        )
    bits = accumulator_bits or arch.accumulator_width(layer.scheme)
    return layer.sum_exponent + HEADROOM_BITS + 1 - bits


def align_spec(arch: Arch, layer: QuantizedLayer, accumulator_bits: int | None = None) -> AlignSpec:
    """The accumulators of a layer whose scales are numbers of their own."""
    lsb = psum_shift(arch, layer, accumulator_bits)
    lsb -= layer.spec.weight_operand.element.lsb + layer.spec.input_operand.element.lsb
    bits = accumulator_bits or arch.accumulator_width(layer.scheme)
    return AlignSpec(bits, lsb, arch.alignment_rounding == "nearest")


def code_values(codes: NDArray[Any], element: Element) -> NDArray[Any]:
    """What stored codes are worth in units of the element's 2^lsb: int8 where all of them fit, else int32.

    Unsigned codes of integers stay uint8.
    """
    if element.is_integer:
        return codes
    narrow = -128 <= min(element.values) and element.qmax <= 127
    table = np.array(element.values, np.int8 if narrow else np.int32)
    return table[codes]


def scale_values(scales: Any, operand: Operand) -> Scales:
    """significand * 2^exponent of stored e8m0 or e4m3 scales; that of a subnormal e4m3 is below 8."""
    codes = scales.astype(np.int32)
    if operand.scale.kind == "e8m0":
        return Scales(np.ones_like(codes), codes - 127)
    exponent, fraction = codes >> 3, codes & 7
    significand = np.where(exponent > 0, fraction | 8, fraction)
    return Scales(significand, np.maximum(exponent, 1) - 1 + E4M3.lsb)


class LaneOperands:
    """A layer's operands, ready for one of the kernels. spec: of its lanes."""

    def __init__(self, layer: QuantizedLayer, spec: LaneSpec | AlignSpec) -> None:
        self.layer, self.spec = layer, spec
        self.blocks = layer.spec.blocks_per_word
        self._size = layer.vector_size // self.blocks
        inputs, scales = layer.input_words, layer.input_scales
        self._inputs = code_values(inputs.reshape(-1, self._size), layer.spec.input_operand.element)
        if isinstance(spec, AlignSpec) and self._inputs.dtype == np.uint8:
            largest = layer.spec.input_operand.element.qmax
            self._inputs = self._inputs.astype(np.int8 if largest <= 127 else np.int32)
        self._scales: Any = None if scales is None else scales.reshape(-1)
        if isinstance(spec, AlignSpec):
            self._scales = scale_values(self._scales, layer.spec.input_operand)

    def packed(self, k: slice, g: slice | NDArray[np.int64]) -> Any:
        """Weights of channels k and words g, to be summed by `accumulate`."""
        layer = self.layer
        words = np.ascontiguousarray(layer.weight_words[k][:, g])
        words = code_values(words.reshape(len(words), -1, self._size), layer.spec.weight_operand.element)
        scales: Any = None
        if layer.weight_scales is not None:
            scales = np.ascontiguousarray(layer.weight_scales[k][:, g]).reshape(len(words), -1)
        if isinstance(self.spec, LaneSpec):
            return pack_weights(words, scales, self.spec, blocks=self.blocks)
        scales = scale_values(scales, layer.spec.weight_operand)
        return pack_aligned(words, scales, self.spec, blocks=self.blocks)

    def accumulate(self, packed: Any, gather: NDArray[np.int32]) -> Sums:
        """(psums int64[P, K], overflows int32[P, K]). gather: int32[P, words], the input word of each tap."""
        if self.blocks > 1:
            own = gather[:, :, None] * self.blocks + np.arange(self.blocks, dtype=np.int32)
            gather = np.where(gather[:, :, None] < 0, np.int32(-1), own).reshape(len(gather), -1)
        if isinstance(self.spec, LaneSpec):
            return accumulate(packed, self._inputs, self._scales, gather, self.spec)
        return accumulate_aligned(packed, self._inputs, self._scales, gather)


def live_codes(
    words: NDArray[Any], scales: NDArray[Any] | None, operand: Operand, blocks: int
) -> tuple[NDArray[Any], NDArray[np.uint16] | None]:
    """(code values [..., V], one scale a word or None) for counting zeros: a code whose scale is 0 is 0.

    e8m0 has no 0. A word of one block keeps its scale.
    """
    values = code_values(words, operand.element)
    if scales is None or operand.scale.kind == "e8m0":
        return values, None
    if blocks == 1:
        return values, scales.astype(np.uint16)
    live = scales > 0
    by_block: NDArray[Any] = values.reshape(*scales.shape, -1) * live[..., None].astype(values.dtype)
    some: NDArray[np.uint16] = np.any(live, axis=-1).astype(np.uint16)
    return by_block.reshape(values.shape), some
