"""One layer on the machine: weights made into words once, inputs anew for every batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.compute.lanes import accumulate_layer, post_process
from accelsim.compute.operands import psum_shift
from accelsim.errors import AccelsimError
from accelsim.formats.operand import Operand
from accelsim.machine.arch import Arch
from accelsim.quantize.arrays import QuantizeOptions
from accelsim.quantize.layers import input_vectors, weight_vectors, words_at_gamma
from accelsim.quantize.reference import dequantize_output, dequantized_product
from accelsim.workload.layer import Layer, OutputFormat, QuantizedLayer


@dataclass(frozen=True)
class TensorFormat:
    """How a tensor is stored between steps: in blocks that the operand names.

    gamma: what a code, with scales code times scale, is worth; exponent: of formats without gamma, of the
    power of two in which what writes them counts (docs/numerics.md, Output).
    """

    operand: Operand
    gamma: float
    exponent: int = 0

    @property
    def block(self) -> int:
        """Values that share a scale."""
        assert self.operand.block is not None
        return self.operand.block

    @property
    def unit(self) -> float:
        """What 2^F of a writer's z are worth."""
        return math.ldexp(self.gamma, self.exponent)


@dataclass(frozen=True, eq=False)
class Words:
    """An operand as the lanes take it: codes [..., V], scales [...] or None, and its gamma."""

    codes: NDArray[Any]
    scales: NDArray[Any] | None
    gamma: float


@dataclass(frozen=True, eq=False)
class HardwareLayer:
    """A layer at a scheme on a machine.

    words: its weights, and of its input only the gamma counts; gain: by which what psums are worth is
    multiplied where the weight operand is computed at run time; fake_quantization: products are those of what
    the words are worth, in float64, so that schemes which no machine executes have outputs too. Reductions
    are not cut over PEs; that would change psums only where an accumulator overflows.
    """

    arch: Arch
    words: QuantizedLayer
    options: QuantizeOptions
    gain: float = 1.0
    fake_quantization: bool = False

    def of_size(self, layer: Layer) -> HardwareLayer:
        """The same weights on inputs of another size."""
        if layer == self.words.layer:
            return self
        return replace(self, words=replace(self.words, spec=replace(self.words.spec, layer=layer)))

    def input_words(self, x: NDArray[np.floating], gamma: float | None = None) -> Words:
        """Words of float[N, C, H, W], at the calibrated gamma or another. Raises AccelsimError for NaN."""
        words, spec = self.words, self.words.spec
        self._check_finite(x, "input")
        vectors = input_vectors(x, words.geometry, words.vector_size, spec.packed_im2col)
        gamma = words.input_gamma if gamma is None else gamma
        codes, scales = words_at_gamma(vectors, spec.input_operand, gamma, self.options)
        return Words(codes, scales, gamma)

    def weight_words(self, weight: NDArray[np.floating], gamma: float | None = None) -> Words:
        """Words of a weight operand float[K, C/groups, R, S] that is computed at run time."""
        words, spec = self.words, self.words.spec
        self._check_finite(weight, "weight operand")
        vectors = weight_vectors(weight, words.vector_size, spec.packed_im2col)
        gamma = float(words.weight_gamma[0]) if gamma is None else gamma
        codes, scales = words_at_gamma(vectors, spec.weight_operand, gamma, self.options)
        return Words(codes, scales, gamma)

    def _check_finite(self, values: NDArray[np.floating], side: str) -> None:
        if not np.isfinite(values).all():
            raise AccelsimError(
                f"layer {self.words.name}: {side} holds NaN or infinity, expected finite numbers"
            )

    def filled(self, inputs: Words, weights: Words | None = None) -> QuantizedLayer:
        """The layer with its operands in place. weights: where they are computed at run time."""
        layer = replace(
            self.words, input_words=inputs.codes, input_scales=inputs.scales, input_gamma=inputs.gamma
        )
        if weights is None:
            return layer
        gammas = np.full(layer.geometry.K, weights.gamma * self.gain)
        return replace(layer, weight_words=weights.codes, weight_scales=weights.scales, weight_gamma=gammas)

    def accumulate(self, layer: QuantizedLayer) -> tuple[NDArray[np.int64], int]:
        """(psums int64[pixels, K], accumulations that overflowed). Raises AccelsimError for the first with
        `overflow: error`."""
        psums, overflows = accumulate_layer(self.arch, layer.in_vectors(self.arch.vector_size))
        count = int(np.count_nonzero(overflows)) and int(overflows.sum())
        if count and self.arch.overflow == "error":
            raise AccelsimError(f"layer {layer.name}: {count} accumulations overflow (overflow: error)")
        return psums, count

    def output(self, layer: QuantizedLayer) -> tuple[NDArray[np.float64], int]:
        """(what the layer makes in real numbers, float64[pixels, K], with bias, BEFORE its activation;
        accumulations that overflowed). Raises as `accumulate` does."""
        if self.fake_quantization:
            return dequantized_product(layer), 0
        psums, overflows = self.accumulate(layer)
        return dequantize_output(psums, layer, psum_shift(self.arch, layer)), overflows

    def written(
        self, layer: QuantizedLayer, psums: NDArray[np.int64], output: TensorFormat
    ) -> tuple[NDArray[np.int16], NDArray[np.uint16] | None]:
        """The PPU's codes int16[pixels, K] and scales uint16[pixels, groups * ceil(K/groups/V)] or None."""
        spec = replace(layer.spec, output=OutputFormat(output.operand))
        return post_process(self.arch, replace(layer, spec=spec, output_gamma=output.gamma), psums)
