"""Codes and scales of a model with QuantizeLinear and DequantizeLinear as words at 8/8/-/-."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.capture.calls import LayerCall
from accelsim.formats.catalogue import integer_operand
from accelsim.formats.scheme import Scheme
from accelsim.onnx.catalogue import is_view, quantizer_range
from accelsim.onnx.graph import Form, Op, Value
from accelsim.onnx.lower import as_operand
from accelsim.quantize.arrays import QuantizeOptions
from accelsim.quantize.layers import calibrated_output_gamma, input_vectors, output_format, weight_vectors
from accelsim.workload.layer import FloatLayer, LayerSpec, OutputFormat, QuantizedLayer

SCHEME = Scheme.parse("8/8/-/-")
_UNCHANGED = ("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten")


class Misfit(Exception):
    """Why codes cannot be kept, in a few words."""


def words_of(
    calls: Sequence[LayerCall], forms: Sequence[Form], layers: Sequence[FloatLayer], vector_size: int
) -> tuple[list[QuantizedLayer], list[str]]:
    """(words of the layers whose codes fit the scheme, a sentence about each that has codes but does not)."""
    words, lost = [], []
    for call, form, layer in zip(calls, forms, layers, strict=True):
        if not _has_codes(form):
            continue
        try:
            words.append(_words(call, form, layer, vector_size))
        except Misfit as reason:
            lost.append(f"layer {call.name}: quantized in the model, exported as floats: {reason}")
    return words, lost


def _has_codes(form: Form) -> bool:
    return any(_quantizer(value) is not None for value in (form.x, form.weight))


def _words(call: LayerCall, form: Form, layer: FloatLayer, vector_size: int) -> QuantizedLayer:
    g, packed = call.layer.geometry, call.layer.geometry.packed_im2col(vector_size)
    if call.weight is None:
        weight: Any
        weight, scale = _activation(form.weight, layer.weight, signed=True, what="weight operand")
        gamma = np.full(g.K, scale)
    else:
        weight, gamma = _weight(call, form)
    codes: Any
    codes, scale = _activation(form.x, layer.input, signed=call.layer.input_signed, what="input")
    output, output_gamma = _output(form, layer, vector_size)
    spec = LayerSpec(layer=call.layer, scheme=SCHEME, vector_size=vector_size, fold="auto", output=output)
    words: Any = weight_vectors(weight, vector_size, packed)
    inputs: Any = input_vectors(codes, g, vector_size, packed)
    return QuantizedLayer(
        spec=spec,
        weight_words=words.astype(np.int8),
        weight_scales=None,
        weight_gamma=gamma.astype(np.float64),
        input_words=inputs.astype(np.int8 if call.layer.input_signed else np.uint8),
        input_scales=None,
        input_gamma=scale,
        output_gamma=output_gamma,
        bias=layer.bias,
    )


# --- weights ------------------------------------------------------------------------------------------------


def _weight(call: LayerCall, form: Form) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """(codes int16[K, C/groups, R, S], a scale for each k) of a stored weight."""
    if form.scaled:
        raise Misfit("the weights are scaled by a batch norm or a factor")
    op, views = _chain(form.weight, _UNCHANGED)
    if op is None:
        raise Misfit("the weights have no codes")
    stored, factor = op.given[0].constant, op.given[1].constant
    if stored is None or factor is None:
        raise Misfit("the weights' scale is computed")
    if op.attribute("block_size", 0):
        raise Misfit("the weights have a scale for each block")
    if stored.dtype.itemsize > 1 or not _whole(stored):
        raise Misfit(f"the weights are {stored.dtype}")
    zero = op.input(2)
    if zero is not None and zero.constant is None:
        raise Misfit("the weights' zero point is computed")
    codes = stored.astype(np.int16)
    scales, zeros = np.asarray(factor, np.float32), np.zeros((), np.int16)
    if zero is not None and zero.constant is not None:
        zeros = zero.constant.astype(np.int16)
    if scales.size > 1:
        shape = [1] * codes.ndim
        shape[int(op.attribute("axis", 1)) % codes.ndim] = scales.size
        scales, zeros = scales.reshape(shape), zeros.reshape(shape if zeros.size > 1 else ())
    else:
        scales, zeros = scales.reshape(()), zeros.reshape(())
    codes = codes - zeros
    spread = np.broadcast_to(scales, codes.shape)
    g = call.layer.geometry
    codes, spread = (_as_stored(values, views, form) for values in (codes, spread))
    codes, spread = as_operand(form, codes, g), as_operand(form, spread, g)
    gamma = spread.reshape(g.K, -1)
    if (gamma != gamma[:, :1]).any():
        raise Misfit("the weights have more than one scale for an output channel")
    _check(codes, gamma[:, 0], True, "weights")
    if (codes.astype(np.float32) * spread != call.weight).any():
        raise Misfit("the weights are not their codes times their scales")
    return codes, gamma[:, 0].astype(np.float64)


def _as_stored(values: NDArray[Any], views: Iterable[Op], form: Form) -> NDArray[Any]:
    """What was done to the weights between their codes and the layer, done to `values`."""
    for op in views:
        if op.kind == "Transpose":
            values = values.transpose(op.attribute("perm", range(values.ndim)[::-1]))
        else:
            values = values.reshape(op.output.sizes)
    return values.T if form.turned else values


def _whole(values: NDArray[Any]) -> bool:
    return str(values.dtype).startswith(("int", "uint"))


# --- activations --------------------------------------------------------------------------------------------


def _activation(
    value: Value, floats: NDArray[np.float32], *, signed: bool, what: str
) -> tuple[NDArray[np.int16], float]:
    """(codes of the shape of `floats`, their scale). The codes follow from what onnxruntime made of them."""
    op = _quantizer(value)
    if op is None:
        raise Misfit(f"the {what} has no codes")
    factor, known = op.given[1].constant, quantizer_range(op)
    if factor is None or factor.size != 1 or known is None:
        raise Misfit(f"the {what} has no one stored scale and zero point of 8 bits")
    low, high, zero = known
    if high - low > 255:
        raise Misfit(f"the {what} has 16 bits")
    if (low - zero < -128 or high - zero > 127) if signed else low != zero and high - zero > 255:
        raise Misfit(f"the {what} has zero point {zero} in {low} to {high}")
    scale = np.float32(factor.reshape(-1)[0])
    if not scale > 0:
        raise Misfit(f"the {what} has scale {scale:.6g}")
    codes = np.rint(floats / scale).astype(np.int16)
    if (codes * scale != floats).any():
        raise Misfit(f"the {what} is not its codes times their scale")
    _check(codes, np.array([scale]), signed, what)
    return codes, float(scale)


def _check(codes: NDArray[Any], scales: NDArray[Any], signed: bool, what: str) -> None:
    low, high = (-127, 127) if signed else (0, 255)
    least, most = int(codes.min()), int(codes.max())
    if least < low or most > high:
        raise Misfit(f"codes of the {what} run from {least} to {most}, the scheme's from {low} to {high}")
    if not (np.isfinite(scales) & (scales > 0)).all():
        raise Misfit(f"a scale of the {what} is not above 0")


def _quantizer(value: Value) -> Op | None:
    """The DequantizeLinear whose values, moved about, a tensor shows."""
    while value.maker is not None:
        op = value.maker
        if op.kind == "DequantizeLinear":
            return op
        if not (is_view(op) or op.kind == "MaxPool") or op.kind in ("Cast", "CastLike", "QuantizeLinear"):
            return None
        value = op.given[0]
    return None


def _chain(value: Value, kinds: Sequence[str]) -> tuple[Op | None, list[Op]]:
    """(the DequantizeLinear below a tensor, what was done to its output, in order)."""
    views: list[Op] = []
    while value.maker is not None:
        op = value.maker
        if op.kind == "DequantizeLinear":
            return op, views[::-1]
        if op.kind not in kinds:
            return None, []
        views.append(op)
        value = op.given[0]
    return None, []


def _output(form: Form, layer: FloatLayer, vector_size: int) -> tuple[OutputFormat, float]:
    """What the model quantizes the output to, where the PPU can write that; else as for floats."""
    usual = output_format(layer.layer, SCHEME)
    readers = list(dict.fromkeys(form.output.users))
    if len(readers) == 1 and readers[0].kind == "QuantizeLinear" and not form.output.is_output:
        factor, known = readers[0].given[1].constant, quantizer_range(readers[0])
        if factor is not None and factor.size == 1 and known is not None and factor.reshape(-1)[0] > 0:
            low, high, zero = known
            gamma = float(np.float32(factor.reshape(-1)[0]))
            if (low - zero, high - zero) == (0, 255) and layer.activation == "relu":
                return usual, gamma
            if (low - zero, high - zero) == (-128, 127):
                return OutputFormat(integer_operand(8, 0, signed=True)), gamma
    return usual, calibrated_output_gamma(layer, usual, vector_size, QuantizeOptions())
