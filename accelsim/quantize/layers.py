"""Turning float layers into hardware words.

docs/quantization.md says which choices the defaults make, and by how much they are better.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import AccelsimError
from accelsim.formats.operand import Operand
from accelsim.formats.scheme import Scheme
from accelsim.quantize.arrays import (
    QuantizeOptions,
    channel_gamma,
    cut_vectors,
    element_scales,
    encode,
    integer_scales,
    tensor_gamma,
    tensor_scale,
    vector_scales,
)
from accelsim.quantize.blocks import block_gamma, quantize_blocks
from accelsim.quantize.ranges import find_ranges
from accelsim.quantize.reference import (
    apply_activation,
    output_chunks,
)
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import (
    ACTIVATIONS,
    OPS,
    FloatLayer,
    Layer,
    LayerSpec,
    OutputFormat,
    QuantizedLayer,
)

Codes = NDArray[np.int8] | NDArray[np.uint8]
Scales = NDArray[np.uint16] | NDArray[np.uint8] | NDArray[np.float32]
WeightWords = tuple[Codes, Scales | None, NDArray[np.float64]]
"""(weight_words, weight_scales, weight_gamma) of workload.QuantizedLayer."""


def weight_vectors(
    weight: NDArray[np.floating], vector_size: int, packed_im2col: bool
) -> NDArray[np.floating]:
    """float[K, C/groups, R, S] as float[K, G, V], g in the order r, s, c // V.

    packed_im2col: (r, s, c) // V instead.
    """
    ordered = weight.transpose(0, 2, 3, 1)
    if packed_im2col:
        return cut_vectors(ordered.reshape(len(weight), -1), vector_size)
    return cut_vectors(ordered, vector_size).reshape(len(weight), -1, vector_size)


def input_vectors(
    inputs: NDArray[np.floating], geometry: Geometry, vector_size: int, packed_im2col: bool
) -> NDArray[np.floating]:
    """float[N, C, H, W] as float[words, V] in the word order of workload.QuantizedLayer.

    N, C, H, W and the groups follow `geometry`. Folded: the im2col words, zeros under padded taps.
    """
    g = geometry
    positions = inputs.transpose(0, 2, 3, 1).reshape(-1, g.groups, g.channels_per_group)
    if not packed_im2col:
        return cut_vectors(positions, vector_size).reshape(-1, vector_size)
    taps = g.tap_positions()
    patches = positions[taps]
    patches[taps < 0] = 0
    rows = patches.transpose(0, 2, 1, 3).reshape(g.pixels, g.groups, -1)
    return cut_vectors(rows, vector_size).reshape(-1, vector_size)


def check_float_layer(layer: FloatLayer) -> None:
    """Raise AccelsimError unless op, shapes, values and signs of the layer are what FloatLayer promises."""

    def fail(tensor: str, found: object, expected: object) -> None:
        raise AccelsimError(f"layer {layer.name}: {tensor} {found}, expected {expected}")

    g = layer.geometry
    if layer.op not in OPS:
        fail("op", f"is '{layer.op}'", f"one of {', '.join(OPS)}")
    if layer.activation not in ACTIVATIONS:
        fail("activation", f"is '{layer.activation}'", f"one of {', '.join(ACTIVATIONS)}")
    exact = {
        "weight": (g.K, g.channels_per_group, g.R, g.S),
        "input": (g.N, g.C, g.H, g.W),
        "bias": (g.K,),
    }
    for name in ("weight", "input", "bias", "calibration_input", "calibration_weight"):
        values = getattr(layer, name)
        if values is None:
            continue
        if name in exact and values.shape != exact[name]:
            fail(name, f"has shape {list(values.shape)}", list(exact[name]))
        if name not in exact and (values.ndim != 4 or not values.size):
            fail(name, f"has shape {list(values.shape)}", "four dimensions, none of them 0")
        if not np.isfinite(values).all():
            fail(name, "holds NaN or infinity", "finite numbers")
        if name in ("input", "calibration_input") and not layer.input_signed and values.min() < 0:
            fail(name, f"holds {values.min():.6g}", "no negative value because input_signed is false")
    if layer.calibration_weight is not None and not layer.weight_is_activation:
        fail("calibration_weight", "is given", "none because the weight is not an activation")
    if layer.calibration_weight is None and layer.calibration_input is not None:
        if layer.calibration_input.shape[1] != g.C and not layer.weight_is_activation:
            fail("calibration_input", f"has {layer.calibration_input.shape[1]} channels", g.C)


def quantize_layer(
    layer: FloatLayer,
    scheme: Scheme,
    vector_size: int,
    options: QuantizeOptions | None = None,
    *,
    output_gamma: float | None = None,
    output_range: float | None = None,
    weight_words: WeightWords | None = None,
    input_gamma: float | None = None,
) -> QuantizedLayer:
    """Hardware words of one layer. output_gamma: None calibrates it on the layer's float output, and with it
    output_range, the largest magnitude before the activation, with and without bias. weight_words: what
    `quantize_weight` made of its weight; input_gamma: None calibrates it.

    Raises AccelsimError, naming layer and tensor, for values or shapes that do not fit, and for an output
    format that leaves the PPU no fraction bits.
    """
    options = options or QuantizeOptions()
    for operand in (scheme.weight, scheme.activation):
        if operand.scale.kind in ("none", "uint") and not operand.is_integer:
            raise AccelsimError(f"layer {layer.name}: no rule quantizes {operand}, expected block scales")
    if vector_size < 1:
        raise AccelsimError(f"layer {layer.name}: vector size is {vector_size}, expected at least 1")
    vector_size = scheme.block or vector_size
    check_float_layer(layer)
    packed_im2col = layer.geometry.packed_im2col(vector_size, options.fold)
    output = output_format(layer.layer, scheme)
    if output.operand.is_integer and output.fraction_bits < 0:
        raise AccelsimError(
            f"layer {layer.name}: output format of {output.operand.bits} bits with "
            f"{output.operand.scale.bits}-bit scales "
            f"leaves the PPU {output.fraction_bits} fraction bits, expected at least 0"
        )
    if scheme.is_aligned and output_range is None:
        gamma, output_range = _calibrated_output(layer, output)
        output_gamma = output_gamma or gamma
    elif output_gamma is None:
        output_gamma = calibrated_output_gamma(layer, output, vector_size, options)
    weight, activation = scheme.weight, scheme.activation.of_sign(layer.input_signed)
    if weight_words is None:
        weight_words = quantize_weight(layer, weight, vector_size, options, packed_im2col)
    if input_gamma is None:
        input_gamma = calibrated_input_gamma(layer, activation, vector_size, options, packed_im2col)
    codes, weight_scales, weight_gamma = weight_words
    vectors = input_vectors(layer.input, layer.geometry, vector_size, packed_im2col)
    input_words, input_scales = words_at_gamma(vectors, activation, input_gamma, options)
    spec = LayerSpec(
        layer=layer.layer, scheme=scheme, vector_size=vector_size, fold=options.fold, output=output
    )
    sum_exponent = None
    if scheme.is_aligned:
        assert output_range is not None
        # frexp: x = f * 2^e with 1/2 <= f < 1, so that x < 2^e.
        sum_exponent = int(np.frexp(output_range / (float(weight_gamma.max()) * input_gamma))[1])
    return QuantizedLayer(
        spec=spec,
        weight_words=codes,
        weight_scales=weight_scales,
        weight_gamma=weight_gamma,
        input_words=input_words,
        input_scales=input_scales,
        input_gamma=input_gamma,
        output_gamma=output_gamma,
        bias=layer.bias,
        sum_exponent=sum_exponent,
        provenance={"options": asdict(options)},
    )


def quantize_weight(
    layer: FloatLayer,
    operand: Operand,
    vector_size: int,
    options: QuantizeOptions,
    packed_im2col: bool,
    gamma: float | None = None,
) -> WeightWords:
    """(weight_words, weight_scales, weight_gamma) of workload.QuantizedLayer.

    A weight-side activation exists only at run time: one static scale or gamma for the whole tensor, as some
    formats have of all weights. gamma: that of a tensor of which the layer has a part; None calibrates it.
    """
    vectors = weight_vectors(layer.weight, vector_size, packed_im2col)
    if not has_tensor_gamma(layer.layer, operand):
        return static_weight_words(vectors, layer.weight, operand, options)
    if gamma is None:
        seen = layer.weight if layer.calibration_weight is None else layer.calibration_weight
        gamma = calibrated_weight_gamma([seen], operand, vector_size, options, packed_im2col)
    if not (operand.is_integer or layer.weight_is_activation):
        chosen = quantize_blocks(vectors, operand, gamma, options.block_scales)
        return *chosen, np.full(layer.geometry.K, gamma)
    codes, scales = words_at_gamma(vectors, operand, gamma, options)
    return codes, scales, np.full(layer.geometry.K, gamma)


def has_tensor_gamma(layer: Layer, operand: Operand) -> bool:
    """Whether the weights have one static scale or gamma for all, and not what their channels ask for."""
    return layer.weight_is_activation or not operand.is_integer or operand.scale.gamma == "tensor"


def calibrated_weight_gamma(
    chunks: Iterable[NDArray[np.floating]],
    operand: Operand,
    vector_size: int,
    options: QuantizeOptions,
    packed_im2col: bool,
) -> float:
    """Static scale or gamma of a weight with one for all, seen some channels float[K', C/groups, R, S] at a
    time."""
    if not operand.is_integer:
        return block_gamma(chunks, operand)
    if operand.scale.kind == "none":
        return tensor_scale(chunks, operand, options)
    vectors = (weight_vectors(seen, vector_size, packed_im2col).reshape(-1, vector_size) for seen in chunks)
    return tensor_gamma(vectors, operand, options)


def static_weight_words(
    vectors: NDArray[np.floating], weight: NDArray[np.floating], operand: Operand, options: QuantizeOptions
) -> tuple[Codes, Scales | None, NDArray[np.float64]]:
    """(codes int8[K, G, V], scales uint16[K, G] or None, gamma float64[K]) of weights known in advance.

    vectors: float[K, G, V], the same weights as `weight` float[K, ...] cut into vectors.
    """
    low, qmax, channels = operand.qmin, operand.qmax, len(weight)
    rows = channels if options.weight_granularity == "channel" else 1  # of one range or gamma each
    if operand.scale.kind == "none":
        magnitudes = np.abs(weight.reshape(rows, -1))
        ranges = find_ranges(magnitudes, options.weight_calibration, qmax, options.weight_percentile)
        gamma = np.broadcast_to(np.where(ranges > 0, ranges / qmax, 1.0), (channels,)).copy()
        return encode(vectors, gamma[:, None, None], low, qmax), None, gamma
    s = vector_scales(vectors, qmax)
    gamma = np.broadcast_to(channel_gamma(s.reshape(rows, -1), operand.scale), (channels,)).copy()
    scales = integer_scales(s, gamma[:, None], operand.scale, options.scale_rounding)
    divisors = element_scales(s, scales, gamma[:, None], options)
    return encode(vectors, divisors[..., None], low, qmax), scales, gamma


def words_at_gamma(
    vectors: NDArray[np.floating], operand: Operand, gamma: float, options: QuantizeOptions
) -> tuple[Codes, Scales | None]:
    """Codes and scales of run-time vectors float[..., V] at a gamma known in advance.

    codes: int8 or uint8[..., V]; scales: uint16[...] (of other formats as their kind is stored) or None.
    """
    if not operand.is_integer:
        return quantize_blocks(vectors, operand, gamma)
    low, qmax = operand.qmin, operand.qmax
    if operand.scale.kind == "none":
        return encode(vectors, np.full((1,) * vectors.ndim, gamma), low, qmax), None
    s = vector_scales(vectors, qmax)
    scales = integer_scales(s, gamma, operand.scale, options.run_time_scale_rounding)
    return encode(vectors, element_scales(s, scales, gamma, options)[..., None], low, qmax), scales


def calibrated_input_gamma(
    layer: FloatLayer, operand: Operand, vector_size: int, options: QuantizeOptions, packed_im2col: bool
) -> float:
    """Static scale or gamma of a layer's input, from its calibration input where it has one."""
    seen = layer.input if layer.calibration_input is None else layer.calibration_input
    if not operand.is_integer or operand.scale.kind == "none":
        return input_gamma_of(iter(seen), operand, options)
    return input_gamma_of(_vector_chunks(layer, seen, vector_size, packed_im2col), operand, options)


def input_gamma_of(
    chunks: Iterable[NDArray[np.floating]], operand: Operand, options: QuantizeOptions
) -> float:
    """Static scale or gamma of an input seen in chunks; where it has per-vector scales they are vectors."""
    if not operand.is_integer:
        return block_gamma(chunks, operand)
    if operand.scale.kind == "none":
        return tensor_scale(chunks, operand, options)
    return tensor_gamma(chunks, operand, options)


def _vector_chunks(
    layer: FloatLayer, inputs: NDArray[np.float32], vector_size: int, packed_im2col: bool
) -> Iterator[NDArray[np.floating]]:
    """Input vectors of a calibration set, one image at a time: im2col of a whole set would not fit."""
    _, channels, height, width = inputs.shape
    weight = layer.weight if layer.calibration_weight is None else layer.calibration_weight
    depth = weight.shape[1] if channels % weight.shape[1] == 0 else layer.geometry.channels_per_group
    groups = channels // depth
    geometry = replace(layer.geometry, N=1, C=channels, H=height, W=width, K=groups, groups=groups)
    for image in inputs:
        yield input_vectors(image[None], geometry, vector_size, packed_im2col)


def output_format(layer: Layer, scheme: Scheme) -> OutputFormat:
    """{A, signed unless relu, as}: what the PPU writes where nothing else is asked for."""
    return OutputFormat(scheme.activation.of_sign(layer.activation != "relu"))


def with_output(layer: QuantizedLayer, operand: Operand) -> QuantizedLayer:
    """The layer with its output in another format for the same range: the largest value stays what it is."""
    own = layer.output.operand
    if operand.in_blocks(layer.vector_size) == own.in_blocks(layer.vector_size):
        return layer
    gamma = keep_24_bits(layer.output_gamma * own.largest / operand.largest)
    return replace(layer, spec=replace(layer.spec, output=OutputFormat(operand)), output_gamma=gamma)


def calibrated_output_gamma(
    layer: FloatLayer, output: OutputFormat, vector_size: int, options: QuantizeOptions
) -> float:
    """gamma of an output format, calibrated on the float output after the activation.

    Calibration operands are used where the layer has them; vectors run over V consecutive k of one pixel and
    group. gamma keeps 24 significant bits: float sums differ in their last bits from one BLAS to another, and
    a trace should not.
    """
    operand = output.operand
    if operand.scale.gamma == "none":
        return 1.0
    inputs, weight = _calibration_operands(layer)
    groups = inputs.shape[1] // weight.shape[1]
    chunks = (apply_activation(y, layer.activation) for y in output_chunks(layer, inputs, weight))
    if not operand.is_integer:
        return keep_24_bits(block_gamma(chunks, operand))
    if operand.scale.kind == "uint":
        by_group = (y.reshape(len(y), groups, -1) for y in chunks)
        vectors = (cut_vectors(y, vector_size).reshape(-1, vector_size) for y in by_group)
        return keep_24_bits(tensor_gamma(vectors, operand, options))
    return keep_24_bits(tensor_scale(chunks, operand, options))


def _calibration_operands(layer: FloatLayer) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """(inputs, weight) that tell what outputs are like: the calibration operands where the layer has them."""
    if layer.calibration_input is not None:
        if not layer.weight_is_activation:
            return layer.calibration_input, layer.weight
        if layer.calibration_weight is not None:
            return layer.calibration_input, layer.calibration_weight
    return layer.input, layer.weight


def _calibrated_output(layer: FloatLayer, output: OutputFormat) -> tuple[float, float]:
    """(gamma of a block format's output, largest magnitude before the activation, with and without bias)."""
    largest = outside = 0.0
    for y in output_chunks(layer, *_calibration_operands(layer)):
        outside = max(outside, float(np.abs(y).max()))
        if layer.bias is not None and y.shape[1] == len(layer.bias):
            outside = max(outside, float(np.abs(y - layer.bias).max()))
        largest = max(largest, float(np.abs(apply_activation(y, layer.activation)).max()))
    return keep_24_bits(block_gamma([np.array([largest])], output.operand)), outside


def keep_24_bits(gamma: float) -> float:
    """gamma > 0 rounded to 24 significant bits."""
    fraction, exponent = math.frexp(gamma)
    return math.ldexp(round(math.ldexp(fraction, 24)), exponent - 24)
