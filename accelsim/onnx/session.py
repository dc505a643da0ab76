"""onnxruntime, asked for no more than it must do: the given operations, one thread, no libraries of users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from accelsim.errors import AccelsimError
from accelsim.onnx.graph import Op, Program, Value
from accelsim.onnx.load import first_line


class Session:
    """Operations of a program as a model of their own. reads: values fed at each run; makes: those asked for.

    Graph optimisations are off, so that a tensor is what the model says it is, and one thread keeps sums in
    one order. Raises AccelsimError where onnxruntime cannot do it.
    """

    def __init__(
        self, program: Program, ops: Sequence[Op], reads: Sequence[Value], makes: Sequence[Value]
    ) -> None:
        fed = {value.name for value in reads}
        stored = {
            value.name: value
            for op in ops
            for value in op.given
            if value.is_constant and value.name not in fed
        }
        graph = helper.make_graph(
            [op.proto for op in ops],
            "part",
            [type_of(value) for value in reads],
            [_untyped(value) for value in makes],
            [numpy_helper.from_array(array(value), name) for name, value in stored.items()],
        )
        for number, node in enumerate(graph.node):
            node.name = str(number)  # onnxruntime wants each name once, where ONNX does not
        model = helper.make_model(graph, opset_imports=program.opset_imports, ir_version=program.ir_version)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.disable_prepacking", "1")  # a second copy of weights
        options.log_severity_level = 4
        self.reads, self.makes = list(reads), list(makes)
        self.names = ", ".join(sorted({op.kind for op in ops})[:5])
        try:
            self.session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise AccelsimError(f"onnxruntime cannot run {self.names}: {first_line(error)}") from None

    def run(self, values: Mapping[str, NDArray[Any]]) -> list[Any]:
        """values: of `reads`, by name. Returns those of `makes`."""
        feeds = {value.name: values[value.name] for value in self.reads}
        try:
            found: list[Any] = self.session.run([value.name for value in self.makes], feeds)
        except Exception as error:
            raise AccelsimError(f"onnxruntime cannot run {self.names}: {first_line(error)}") from None
        return found


def array(value: Value) -> NDArray[Any]:
    assert value.constant is not None
    return np.ascontiguousarray(value.constant).reshape(value.constant.shape)


def type_of(value: Value) -> onnx.ValueInfoProto:
    assert value.dtype is not None
    return helper.make_tensor_value_info(
        value.name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
    )


def _untyped(value: Value) -> onnx.ValueInfoProto:
    """onnxruntime finds the type itself."""
    return onnx.ValueInfoProto(name=value.name)
