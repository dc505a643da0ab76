"""What is done within a layer (bias, batch norm, ReLU), and nodes that a model writes out in several ops."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from accelsim.onnx.catalogue import axes_of, is_relu, quantizer_range
from accelsim.onnx.graph import Form, Op, Program, Value

Floats = NDArray[np.float64]


def fold(program: Program) -> None:
    """Into the layer before what follows it; batch norm that no layer precedes into the layer after it."""
    for op in program.ops:
        if op.form is not None:
            while _take_next(op.form):
                pass
    for op in program.ops:
        if op.kind == "BatchNormalization" and not op.part_of:
            _fold_after(op)
    for op in program.ops:
        relu = op.output.only_reader
        if op.kind == "Add" and not op.part_of and relu is not None and is_relu(relu) and not relu.part_of:
            op.node, relu.part_of = ("add_relu", op.given), True


def join_nodes(program: Program) -> None:
    """Layer norm, RMS norm, GELU and SiLU where a model writes them out: one node each."""
    for op in program.ops:
        if op.kind == "ReduceMean":
            _join_norm(op)
        elif op.kind == "Erf":
            _join_gelu(op)
        elif op.kind == "Sigmoid":
            last = op.output.only_reader
            if last is not None and last.kind == "Mul" and set(last.given) == {op.given[0], op.output}:
                _join([op], last, "silu", op.given[0])


# --- layers -------------------------------------------------------------------------------------------------


def _take_next(form: Form) -> bool:
    """Take what alone reads the layer's output into it, if that can be."""
    op = form.output.only_reader
    if op is None or form.activation != "none" or op.form is not None:
        return False
    if is_relu(op):
        form.activation = "relu"
    elif op.kind == "QuantizeLinear":
        # Codes do not go below the zero point: a quantizer whose lowest code is 0 is a ReLU too.
        known = quantizer_range(op)
        if known is not None and known[0] == known[2] and op.given[0] is form.output:
            form.activation = "relu"
        return False
    elif form.op == "matmul":
        return False
    elif op.kind == "Add" and form.bias is None and (bias := _bias(form, op)) is not None:
        form.bias = bias
    elif not (op.kind == "BatchNormalization" and _has_channels_at_1(form, form.output) and _norm(op, form)):
        return False
    op.part_of, form.output = True, op.output
    return True


def _bias(form: Form, op: Op) -> NDArray[np.float32] | None:
    """The other operand of an Add, where it is a stored number for each output channel."""
    other = next((value for value in op.given if value is not form.output), None)
    if other is None or other.constant is None or op.output.shape != form.output.shape:
        return None
    assert form.values is not None
    channel = 1 if form.op == "conv" else form.output.rank - 1
    wanted = [1] * form.output.rank
    wanted[channel] = len(form.values)
    shape = [1] * (form.output.rank - other.rank) + list(other.sizes)
    if shape != wanted or other.rank == 0:
        return None
    values: NDArray[np.float32] = other.constant.reshape(-1)
    return values


def _has_channels_at_1(form: Form, value: Value) -> bool:
    """True where axis 1 of `value`, which batch norm scales, is the channels of a layer's operand."""
    return form.op == "conv" or (form.op == "linear" and value.rank == 2)


def _scale_and_shift(op: Op) -> tuple[Floats, Floats] | None:
    """Batch norm as scale[c] * x + shift[c]."""
    stored = [value.constant for value in op.given[1:5]]
    if any(value is None for value in stored) or op.attribute("training_mode", 0):
        return None
    weight, bias, mean, variance = (np.asarray(value, np.float64) for value in stored)
    scale = weight / np.sqrt(variance + float(op.attribute("epsilon", 1e-5)))
    return scale, bias - mean * scale


def _norm(op: Op, form: Form) -> bool:
    known = _scale_and_shift(op)
    if known is None or form.values is None or op.given[0] is not form.output:
        return False
    scale, shift = known
    values = form.values.astype(np.float64) * scale.reshape(-1, *[1] * (form.values.ndim - 1))
    bias = np.zeros(len(scale)) if form.bias is None else form.bias.astype(np.float64)
    _rescale(form, values, bias * scale + shift)
    return True


def _rescale(form: Form, values: Floats, bias: Floats) -> None:
    form.values, form.bias, form.scaled = values.astype(np.float32), bias.astype(np.float32), True


def _fold_after(op: Op) -> None:
    """Into the layer that alone reads it, where no zeros are put around it."""
    layer, known = op.output.only_reader, _scale_and_shift(op)
    form = layer.form if layer is not None else None
    if form is None or known is None or form.x is not op.output or form.values is None:
        return
    if form.op == "matmul" or not _has_channels_at_1(form, op.output) or any(form.padding):
        return
    scale, shift = known
    weight = form.values.astype(np.float64)
    outputs, depth = weight.shape[:2]
    by_group = weight.reshape(form.groups, outputs // form.groups, depth, -1)
    shifted = np.einsum("gkdt,gd->gk", by_group, shift.reshape(form.groups, depth)).reshape(-1)
    scaled = (by_group * scale.reshape(form.groups, 1, depth, 1)).reshape(weight.shape)
    bias = np.zeros(outputs) if form.bias is None else form.bias.astype(np.float64)
    _rescale(form, scaled, bias + shifted)
    form.x, op.part_of = op.given[0], True


# --- nodes --------------------------------------------------------------------------------------------------


def _join(ops: list[Op], last: Op, name: str, x: Value) -> None:
    for op in ops:
        op.part_of = True
    last.node = (name, [x])


def _next(op: Op | None, *kinds: str) -> Op | None:
    """What alone reads an op's output, if it is one of these kinds."""
    reader = op.output.only_reader if op is not None else None
    return reader if reader is not None and reader.kind in kinds else None


def _other(op: Op, value: Value) -> Value | None:
    """The other of two operands."""
    return next((given for given in op.given if given is not value), None)


def _number(value: Value | None) -> float:
    """A constant of one value; NaN for what is none."""
    if value is None or value.constant is None or value.constant.size != 1:
        return math.nan
    return float(value.constant.reshape(-1)[0])


def _stored_rows(op: Op, value: Value, width: int) -> bool:
    """True where an op scales or shifts the last axis by stored numbers."""
    other = _other(op, value)
    return other is not None and other.is_constant and other.sizes[-1:] == (width,) and other.rank == 1


def _join_norm(mean: Op) -> None:
    """(x - mean) / sqrt(mean of squares + eps) and x / sqrt(mean of squares + eps), with weight and bias."""
    if axes_of(mean) != [mean.given[0].rank - 1] or not mean.attribute("keepdims", 1):
        return
    square = mean.given[0].maker
    if square is None or not _squares(square) or square.output.only_reader is not mean or square.part_of:
        return
    x = square.given[0]
    ops = [square, mean]
    for kind in ("Add", "Sqrt"):
        found = _next(ops[-1], kind)
        if found is None:
            return
        ops.append(found)
    if math.isnan(_number(_other(ops[2], mean.output))):
        return
    root = ops[-1]
    inverse = _next(root, "Reciprocal", "Div")
    if inverse is not None and (inverse.kind == "Reciprocal" or _number(inverse.given[0]) == 1):
        ops.append(inverse)
        last = _next(inverse, "Mul")
    else:
        last = inverse if inverse is not None and inverse.given[1] is root.output else None
    if last is None or set(last.given) != {x, ops[-1].output}:
        return
    name, source = "rms_norm", x
    centred = x.maker
    if centred is not None and centred.kind == "Sub" and _centres(centred) and _all_within(x, [*ops, last]):
        inner = centred.given[1].maker
        assert inner is not None
        name, source, ops = "layer_norm", centred.given[0], [inner, centred, *ops]
    for kind in ("Mul", "Add"):
        more = _next(last, kind)
        if more is not None and _stored_rows(more, last.output, x.sizes[-1]):
            if kind == "Mul" or name == "layer_norm":
                ops.append(last)
                last = more
    _join(ops, last, name, source)


def _squares(op: Op) -> bool:
    if op.kind == "Mul":
        return len(op.given) == 2 and op.given[0] is op.given[1]
    return op.kind == "Pow" and _number(op.given[1]) == 2


def _centres(op: Op) -> bool:
    """x - mean(x) over the last axis."""
    mean = op.given[1].maker
    if mean is None or mean.kind != "ReduceMean" or op.given[1].only_reader is not op:
        return False
    return mean.given[0] is op.given[0] and axes_of(mean) == [op.given[0].rank - 1]


def _all_within(value: Value, ops: list[Op]) -> bool:
    return not value.is_output and all(user in ops for user in value.users)


def _join_gelu(erf: Op) -> None:
    """x * 0.5 * (1 + erf(x / sqrt(2))), the factors in any order."""
    scaled = erf.given[0].maker
    if scaled is None or scaled.kind not in ("Div", "Mul") or scaled.output.only_reader is not erf:
        return
    x = next((value for value in scaled.given if not value.is_constant), None)
    factor = _number(_other(scaled, x)) if x is not None else math.nan
    wanted = math.sqrt(2) if scaled.kind == "Div" else math.sqrt(0.5)
    add = _next(erf, "Add")
    if x is None or add is None or abs(factor - wanted) > 1e-3 or _number(_other(add, erf.output)) != 1:
        return
    ops, left = [scaled, erf, add], {"x", "half"}
    while left:
        product = _next(ops[-1], "Mul")
        other = _other(product, ops[-1].output) if product is not None else None
        if product is None or other is None:
            return
        if other is x and "x" in left:
            left.remove("x")
        elif _number(other) == 0.5 and "half" in left:
            left.remove("half")
        elif left == {"x", "half"} and (half := other.maker) is not None and half.kind == "Mul":
            if _other(half, x) is None or _number(_other(half, x)) != 0.5 or x not in half.given:
                return
            if other.only_reader is not product:
                return
            ops.insert(0, half)
            left = set()
        else:
            return
        ops.append(product)
    _join(ops[:-1], ops[-1], "gelu", x)
