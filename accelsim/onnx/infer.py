"""The shapes of a graph on given inputs, and what of it is constant, computed once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from accelsim.errors import AccelsimError
from accelsim.onnx.graph import Op, Program, Value
from accelsim.onnx.load import MAX_VALUES, array_of
from accelsim.onnx.session import Session

_RANDOM = frozenset(
    "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike".split()
)
_DATA_LIMIT = 1 << 16
"""Values of a constant that shape inference may look at; those that say shapes are few."""


def feeds_of(program: Program, inputs: Any) -> dict[str, NDArray[Any]]:
    """Inputs by name: an array, a sequence in the model's order, or a mapping. Raises AccelsimError."""
    names = [value.name for value in program.inputs]
    if isinstance(inputs, Mapping):
        given = {str(name): value for name, value in inputs.items()}
    else:
        listed = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
        if len(listed) != len(names):
            raise AccelsimError(f"inputs: {len(listed)} are given, expected {len(names)}: {names}")
        given = dict(zip(names, listed, strict=True))
    if sorted(given) != sorted(names):
        raise AccelsimError(f"inputs: holds {sorted(given)}, expected {names}")
    arrays = {}
    for name in names:
        values = np.ascontiguousarray(given[name]).reshape(np.shape(given[name]))
        if not values.size:
            raise AccelsimError(f"inputs: {name} is {list(values.shape)}, expected no size of 0")
        arrays[name] = values
    return arrays


def fix_inputs(program: Program, feeds: Mapping[str, NDArray[Any]]) -> None:
    """Give the graph's inputs the types of `feeds`. Raises AccelsimError where the model wants others."""
    sizes: dict[str, int] = {}
    for value in program.inputs:
        declared = program.input_types[value.name]
        if not declared.HasField("tensor_type"):
            raise AccelsimError(f"input {value.name}: is no tensor, expected one")
        tensor, found = declared.tensor_type, feeds[value.name]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if found.dtype != dtype:
            raise AccelsimError(f"inputs: {value.name} is {found.dtype}, expected {dtype}")
        wanted: list[Any] = list(found.shape)
        if tensor.HasField("shape"):
            wanted = []
            for place, dim in enumerate(tensor.shape.dim):
                size: Any = int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value > 0 else None
                if size is None and dim.dim_param:
                    own = found.shape[place] if place < found.ndim else 0
                    size = sizes.setdefault(dim.dim_param, own)
                wanted.append(size if size is not None else "any")
            fits = len(wanted) == found.ndim and all(
                size in ("any", own) for size, own in zip(wanted, found.shape, strict=True)
            )
            if not fits:
                shown = ", ".join(map(str, wanted))
                raise AccelsimError(f"inputs: {value.name} is {list(found.shape)}, expected [{shown}]")
        value.dtype, value.shape = found.dtype, tuple(found.shape)


class Inferrer:
    """Types of what ops make, and constants folded. feeds: what an op is run on where ONNX has no rule."""

    def __init__(self, program: Program, feeds: Mapping[str, NDArray[Any]]) -> None:
        self.program, self.feeds = program, feeds
        self.opsets = [
            helper.make_opsetid("" if entry.domain == "ai.onnx" else entry.domain, entry.version)
            for entry in program.opset_imports
        ]

    def run(self) -> None:
        for op in self.program.ops:
            self.infer(op)

    def add(self, before: Op, kind: str, inputs: Sequence[Value | None], **attributes: Any) -> Value:
        """The output of a new op before another."""
        op = self.program.insert(before, kind, inputs, **attributes)
        self.infer(op)
        return op.output

    def infer(self, op: Op) -> None:
        """Write dtype, shape and perhaps constant of what op makes; leaves None what cannot be known."""
        if op.kind == "Constant":
            value = _constant_of(op)
            if value is not None:
                self._fold(op, [value])
            return
        if op.kind in ("Shape", "Size") and (x := op.given[0]).shape is not None:
            shape = np.array(x.shape, np.int64)
            if op.kind == "Shape":
                self._fold(op, [shape[op.attribute("start", 0) : op.attribute("end")]])
            else:
                self._fold(op, [np.array(math.prod(x.sizes), np.int64)])
            return
        self._infer_types(op)
        known = op.kind not in _RANDOM and not op.has_graphs and "." not in op.kind
        known = known and all(value.is_constant for value in op.given)
        if known and all(value.shape is not None for value in op.made):
            self._fold(op, Session(self.program, [op], [], op.made).run({}))
            for made in op.made:
                made.parameter = next((read.parameter for read in op.given if read.parameter), None)

    def _fold(self, op: Op, arrays: Sequence[Any]) -> None:
        for value, found in zip(op.made, arrays, strict=True):
            value.constant = np.asarray(found)
            value.dtype, value.shape = value.constant.dtype, tuple(value.constant.shape)

    def _infer_types(self, op: Op) -> None:
        if any(value.dtype is None or value.shape is None for value in op.given):
            return
        domain = "" if op.proto.domain == "ai.onnx" else op.proto.domain
        version = next((entry.version for entry in self.opsets if entry.domain == domain), 0)
        try:
            schema = onnx.defs.get_schema(op.proto.op_type, version, domain)
        except onnx.defs.SchemaError:
            return
        if op.has_graphs:
            return
        types = {value.name: _type(value) for value in op.given}
        data = {
            value.name: numpy_helper.from_array(value.constant, value.name)
            for value in op.given
            if value.constant is not None and value.constant.size <= _DATA_LIMIT
        }
        try:
            found = onnx.shape_inference.infer_node_outputs(
                schema, op.proto, types, data, opset_imports=self.opsets, ir_version=self.program.ir_version
            )
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise AccelsimError(f"{op.place}: its inputs do not fit ({reason})") from None
        for value in op.made:
            if value.name in found and found[value.name].HasField("tensor_type"):
                tensor = found[value.name].tensor_type
                if tensor.elem_type:
                    value.dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
                dims = list(tensor.shape.dim) if tensor.HasField("shape") else None
                if dims is not None and all(dim.HasField("dim_value") for dim in dims):
                    value.shape = tuple(int(dim.dim_value) for dim in dims)
                    if math.prod(value.shape) > MAX_VALUES:
                        raise AccelsimError(
                            f"{op.place} makes {list(value.shape)}, expected at most {MAX_VALUES} values"
                        )

    def probe(self) -> None:
        """Where ONNX gives no shape, run the graph up to there on the inputs. Raises AccelsimError."""
        for op in self.program.ops:
            missing = [value for value in op.made if value.shape is None and (value.users or value.is_output)]
            if not missing:
                continue
            try:
                self.infer(op)
            except AccelsimError:
                pass
            missing = [value for value in missing if value.shape is None]
            if missing:
                self._run_to(op, missing)

    def _run_to(self, op: Op, missing: list[Value]) -> None:
        needed, ops = {op}, []
        for other in reversed(self.program.ops):
            if other in needed and not other.is_folded():
                ops.append(other)
                needed |= {value.maker for value in other.given if value.maker is not None}
        reads = [value for value in self.program.inputs if any(value in other.given for other in ops)]
        place = op.place
        try:
            found = Session(self.program, ops[::-1], reads, missing).run(self.feeds)
        except AccelsimError as error:
            raise AccelsimError(f"{place} has no shape that can be found: {error}") from None
        for value, result in zip(missing, found, strict=True):
            if not isinstance(result, np.ndarray):
                raise AccelsimError(f"{place} makes a {type(result).__name__}, expected tensors")
            value.dtype, value.shape = result.dtype, tuple(result.shape)


def _constant_of(op: Op) -> NDArray[Any] | None:
    for attribute in op.proto.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.name == "value":
            return array_of(value)
        if attribute.name in ("value_float", "value_floats"):
            return np.array(value, np.float32)
        if attribute.name in ("value_int", "value_ints"):
            return np.array(value, np.int64)
    return None


def _type(value: Value) -> onnx.TypeProto:
    assert value.dtype is not None
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
