"""A layer's float output, its integer output seen as real numbers, and the PPU's integer constants."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import AccelsimError
from accelsim.quantize.blocks import dequantize_words
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import FloatLayer, LayerSpec, QuantizedLayer

PPU_LIMIT = (1 << 23) - 1
"""Largest magnitude of the PPU's internal value z (docs/numerics.md, PPU)."""

_CHUNK_ELEMENTS = 1 << 23


def convolve(
    inputs: NDArray[np.floating], weight: NDArray[np.floating], geometry: Geometry
) -> NDArray[np.float64]:
    """Grouped convolution in float64, without bias.

    inputs: float[N, C, H, W]; weight: float[K, C/groups, R, S]; returns float64[N*P*Q, K], pixels in raster
    order. One matrix product per kernel tap, so that no im2col copy is made.
    """
    g = geometry
    groups, depth, outputs = g.groups, g.channels_per_group, g.outputs_per_group
    (pad_h, pad_w), (step_h, step_w), (far_h, far_w) = g.padding[:2], g.stride, g.dilation
    after_h, after_w = g.padding_after
    padded = np.zeros((groups, g.N, pad_h + g.H + after_h, pad_w + g.W + after_w, depth))
    by_group = inputs.reshape(g.N, groups, depth, g.H, g.W).transpose(1, 0, 3, 4, 2)
    padded[:, :, pad_h : pad_h + g.H, pad_w : pad_w + g.W] = by_group
    taps = weight.astype(np.float64).reshape(groups, outputs, depth, g.R, g.S).transpose(3, 4, 0, 2, 1)
    total = np.zeros((groups, g.pixels, outputs))
    for r in range(g.R):
        for s in range(g.S):
            rows = slice(r * far_h, r * far_h + (g.P - 1) * step_h + 1, step_h)
            cols = slice(s * far_w, s * far_w + (g.Q - 1) * step_w + 1, step_w)
            total += padded[:, :, rows, cols].reshape(groups, g.pixels, depth) @ taps[r, s]
    return total.transpose(1, 0, 2).reshape(g.pixels, g.K)


def float_output(layer: FloatLayer, inputs: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
    """y float64[pixels, K] of the layer, bias included, BEFORE its activation.

    inputs: float[n, C, h, w] in place of layer.input; pixels then count its own n, h and w.
    """
    if inputs is None:
        return np.concatenate(list(output_chunks(layer, layer.input, layer.weight)))
    return np.concatenate(list(output_chunks(layer, inputs, layer.weight)))


def output_chunks(
    layer: FloatLayer, inputs: NDArray[np.floating], weight: NDArray[np.floating]
) -> Iterator[NDArray[np.float64]]:
    """The float output a few images at a time, so that calibration sets need little memory.

    The channel, kernel and group counts follow the operands: a calibration pair of a matmul may hold more
    heads or sequences than the layer. Yields float64[some pixels, K]. Raises AccelsimError when the operands
    do not fit together.
    """
    outputs, depth, taps_h, taps_w = weight.shape
    images, channels, height, width = inputs.shape
    groups = channels // depth
    if groups * depth != channels or not groups or outputs % groups:
        raise AccelsimError(
            f"layer {layer.name}: an operand with {channels} channels does not fit a weight operand of shape "
            f"{list(weight.shape)}"
        )
    geometry = replace(
        layer.geometry,
        N=1, C=channels, H=height, W=width, K=outputs, R=taps_h, S=taps_w, groups=groups,
    )  # fmt: skip
    per_image = max(channels * height * width, geometry.pixels * outputs)
    step = max(1, _CHUNK_ELEMENTS // per_image)
    for start in range(0, images, step):
        block = inputs[start : start + step]
        y = convolve(block, weight, replace(geometry, N=len(block)))
        if layer.bias is not None and outputs == len(layer.bias):
            y += layer.bias
        yield y


def apply_activation(y: NDArray[np.float64], activation: str) -> NDArray[np.float64]:
    """y after the layer's activation ("none" or "relu")."""
    return np.maximum(y, 0.0) if activation == "relu" else y


def dequantize_output(
    psums: NDArray[np.int64], layer: QuantizedLayer, psum_shift: int = 0
) -> NDArray[np.float64]:
    """y = psum * 2^(sh+psum_shift) * gamma_w[k] * gamma_a + bias[k], before the activation (numerics.md).

    psums: int64[pixels, K] (or any leading shape); psum_shift: p, of block formats q; returns float64 of the
    same shape.
    """
    factor = layer.weight_gamma * layer.input_gamma
    factor = np.ldexp(factor, layer.scheme.scale_product_shift + psum_shift)
    y: NDArray[np.float64] = psums * factor
    return y if layer.bias is None else y + layer.bias.astype(np.float64)


def operand_values(layer: QuantizedLayer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the words of a layer are worth: (weights float64[K, G, V], inputs float64[words, V])."""
    gamma, weight, inputs = layer.weight_gamma, layer.spec.weight_operand, layer.spec.input_operand
    found = []
    for words, scales, own, operand in (
        (layer.weight_words, layer.weight_scales, gamma[:, None, None], weight),
        (layer.input_words, layer.input_scales, layer.input_gamma, inputs),
    ):
        blocks = layer.spec.blocks_per_word
        by_block = words.reshape(*words.shape[:-1], blocks, -1)
        if scales is not None:
            scales = scales.reshape(by_block.shape[:-1])
        found.append(dequantize_words(by_block, scales, own, operand).reshape(words.shape))
    return found[0], found[1]


def values_met(
    spec: LayerSpec, inputs: NDArray[np.float64], group: int, pixels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """What the weights of a group meet at each pixel, float64[len(pixels), G*V], zeros in the padding.

    inputs: float64[words, V], what the layer's input words are worth.
    """
    gather = spec.gather(group, pixels)
    met = inputs[gather]
    met[gather < 0] = 0
    return met.reshape(len(pixels), -1)


def dequantized_product(layer: QuantizedLayer) -> NDArray[np.float64]:
    """y float64[pixels, K] of what the words of any scheme are worth, bias included, BEFORE the activation.

    Scale products are not rounded and nothing saturates: fake quantization, where `dequantize_output` takes
    the psums of a machine.
    """
    weights, inputs = operand_values(layer)
    g, columns = layer.geometry, layer.spec.G * layer.vector_size
    y = np.empty((g.pixels, g.K))
    step = max(1, _CHUNK_ELEMENTS // columns)
    for start in range(0, g.pixels, step):
        pixels = np.arange(start, min(start + step, g.pixels))
        for group in range(g.groups):
            k = slice(group * g.outputs_per_group, (group + 1) * g.outputs_per_group)
            met = values_met(layer.spec, inputs, group, pixels)
            y[start : start + step, k] = met @ weights[k].reshape(-1, columns).T
    return y if layer.bias is None else y + layer.bias.astype(np.float64)


def ppu_constants(
    layer: QuantizedLayer, psum_shift: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(multiplier m, shift t, bias_q), int64[K] each, of the PPU (docs/numerics.md, PPU).

    0 <= m <= 65535, 1 <= t <= 63, |bias_q| <= 2^23 - 1. Raises AccelsimError when the output format leaves
    no room for fraction bits, or when a multiplier reaches 2^15.
    """
    output = layer.output
    fraction = output.fraction_bits
    if fraction < 0:
        raise AccelsimError(
            f"layer {layer.name}: output format of {output.operand.bits} bits with "
            f"{output.operand.scale.bits}-bit scales leaves the PPU {fraction} fraction bits, expected "
            f"at least 0"
        )
    shift = layer.scheme.scale_product_shift + psum_shift + fraction
    output_gamma = layer.output_gamma
    if output.operand.scale.kind == "e8m0":
        assert layer.sum_exponent is not None
        output_gamma = math.ldexp(1.0, layer.sum_exponent)  # the PPU's grid; the format has no gamma
    with np.errstate(over="ignore"):
        multiplier = np.ldexp(layer.weight_gamma * layer.input_gamma, shift) / output_gamma
    if not (multiplier < 2**15).all():
        k = int(np.argmax(~(multiplier < 2**15)))
        raise AccelsimError(
            f"layer {layer.name}: PPU multiplier of output channel {k} is {multiplier[k]:.6g}, expected less "
            f"than 32768: the output gamma {output_gamma:.6g} is too small for the operand scales"
        )
    # frexp: M = f * 2^e with 1/2 <= f < 1, so floor(log2 M) = e - 1, exactly.
    t = np.clip(16 - np.frexp(multiplier)[1].astype(np.int64), 1, 63)
    m = np.minimum(65535, np.rint(np.ldexp(multiplier, t))).astype(np.int64)
    bias = np.zeros(layer.geometry.K) if layer.bias is None else layer.bias.astype(np.float64)
    with np.errstate(over="ignore"):
        bias_q = np.clip(np.rint(np.ldexp(bias, fraction) / output_gamma), -PPU_LIMIT, PPU_LIMIT)
    return m, t, bias_q.astype(np.int64)


def sqnr_db(reference: NDArray[np.floating], approximation: NDArray[np.floating]) -> float | None:
    """10 log10(sum y^2 / sum (y - y')^2) with y the reference and y' the approximation.

    None where the ratio has no finite logarithm: no error at all, or y zero everywhere. (Infinity is not
    JSON; None becomes null.) Raises ValueError when the shapes differ.
    """
    if reference.shape != approximation.shape:
        raise ValueError(f"sqnr_db: shapes {reference.shape} and {approximation.shape} differ")
    y = reference.astype(np.float64)
    signal = float(np.sum(np.square(y)))
    noise = float(np.sum(np.square(y - approximation)))
    if signal == 0 or noise == 0:
        return None
    return float(10 * (np.log10(signal) - np.log10(noise)))
