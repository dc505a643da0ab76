"""Which axes of a tensor are its channels, and where a matmul needs what it reads cut into vectors anew."""

from __future__ import annotations

import math

from accelsim.capture.channels import (
    Axes,
    permuted,
    reduces_channels,
    regrouped,
    usual_channels,
    without_axis,
)
from accelsim.onnx.catalogue import is_view
from accelsim.onnx.graph import Form, Op, Value
from accelsim.onnx.infer import Inferrer


def find_channels(inferrer: Inferrer) -> None:
    """Write channels and made of every value, and put a `requantize` before matmuls whose operand needs it.

    A layer makes vectors along its channels. A matmul that reduces along another axis reads what has to be
    cut into vectors anew: the values of attention, made along their width, read along the tokens.
    """
    program = inferrer.program
    for value in program.values.values():
        if value.shape is not None and (value.is_constant or value.maker is None):
            value.channels, value.made = usual_channels(value.rank), False
    turned: dict[Value, Value] = {}
    for op in list(program.ops):
        if op.is_folded():
            continue
        if op.form is not None and op.form.op == "matmul":
            for place, axis in (("x", -1), ("weight", -2)):
                operand: Value = getattr(op.form, place)
                if operand.made and not reduces_channels(operand.sizes, operand.channels, axis):
                    if operand not in turned:
                        turned[operand] = _requantized(inferrer, op, operand, axis)
                    setattr(op.form, place, turned[operand])
        for value in op.made:
            if value.shape is None:
                continue
            value.channels = _channels(op, value)
            reads = [read for read in op.given if not read.is_constant]
            value.made = not is_view(op) or any(read.made for read in reads)


def _requantized(inferrer: Inferrer, before: Op, operand: Value, axis: int) -> Value:
    op = inferrer.program.insert(before, "Identity", [operand], part="requantize")
    inferrer.infer(op)
    op.node = ("requantize", [operand])
    op.output.channels, op.output.made = (operand.rank + axis,), True
    return op.output


def _channels(op: Op, value: Value) -> Axes:
    if op.form is not None:
        return _form_channels(op.form, value)
    if op.kind == "Gather" and op.given[0].is_constant:
        return (value.rank - 1,)
    reads = [read for read in op.given if not read.is_constant] or op.given
    if is_view(op) and reads:
        return _view_channels(op, reads[0], value)
    for read in reads:
        if read.shape == value.shape:
            return read.channels
    for read in reads:
        if read.rank == value.rank:
            return read.channels
    return usual_channels(value.rank)


def _form_channels(form: Form, value: Value) -> Axes:
    rank = value.rank
    if form.op == "conv":
        return (1,)
    if form.op == "linear":
        return (rank - 1,)
    return (*range(rank - 2), rank - 1)


def _view_channels(op: Op, source: Value, value: Value) -> Axes:
    old, new, channels = source.sizes, value.sizes, source.channels
    if op.kind == "Transpose":
        return permuted(list(op.attribute("perm", range(len(old))[::-1])), channels)
    if op.kind == "Gather":
        return without_axis(int(op.attribute("axis", 0)) % len(old), channels)
    if op.kind in ("Split", "Slice") or math.prod(old) != math.prod(new):
        added = len(new) - len(old)
        return tuple(axis + added for axis in channels) if added >= 0 else usual_channels(len(new))
    return regrouped(old, new, channels)
