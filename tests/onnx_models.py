"""ONNX models made op by op for the tests of accelsim.onnx, and how what is captured of them is checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from accelsim.onnx.capture import Captured, capture
from accelsim.quantize.reference import apply_activation, float_output
from accelsim.workload.layer import FloatLayer

Arrays = dict[str, np.ndarray]
_TYPES = {np.dtype(t): e for t, e in ((np.float32, 1), (np.int64, 7), (np.bool_, 9), (np.uint8, 2))}


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """Names of tensors parted by blanks, `-` for one left out."""
    names = [["" if name == "-" else name for name in text.split()] for text in (inputs, outputs)]
    return helper.make_node(kind, *names, name=f"{kind}_{names[1][0]}", **attributes)


def model(
    nodes: list[onnx.NodeProto],
    inputs: Arrays,
    stored: Arrays | None = None,
    outputs: str = "y",
    opset: int = 20,
    dims: dict[str, list[Any]] | None = None,
    domains: tuple[str, ...] = (),
) -> onnx.ModelProto:
    """dims: of an input, sizes or names of sizes, by default those of its array."""
    graph = helper.make_graph(
        nodes,
        "made",
        [
            helper.make_tensor_value_info(name, _TYPES[x.dtype], (dims or {}).get(name, list(x.shape)))
            for name, x in inputs.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs.split()],
        [numpy_helper.from_array(value, name) for name, value in (stored or {}).items()],
    )
    for value in graph.output:
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def small_model() -> tuple[Any, dict[str, np.ndarray]]:
    x = {"x": floats(2, 3, 9, 9)}
    stored = {
        "conv.weight": floats(8, 3, 3, 3), "conv.bias": floats(8), "q.weight": floats(8, 8),
        "k.weight": floats(8, 8, seed=1), "head.weight": floats(5, 8), "head.bias": floats(5),
        "to": np.array([2, 8, 16]), "first": np.array(0),
    }  # fmt: skip
    steps = [
        node("Conv", "x conv.weight conv.bias", "c", pads=[1] * 4), node("Relu", "c", "r"),
        node("MaxPool", "r", "m", kernel_shape=[2, 2], strides=[2, 2]), node("Reshape", "m to", "f"),
        node("Transpose", "f", "t", perm=[0, 2, 1]), node("MatMul", "t q.weight", "q"),
        node("MatMul", "t k.weight", "k"), node("Transpose", "k", "kt", perm=[0, 2, 1]),
        node("MatMul", "q kt", "s"), node("Softmax", "s", "p"), node("MatMul", "p t", "o"),
        node("Gather", "o first", "g", axis=1), node("Gemm", "g head.weight head.bias", "y", transB=1),
    ]  # fmt: skip
    return model(steps, x, stored, dims={"x": ["batch", 3, 9, 9]}), x


def run(made: onnx.ModelProto, inputs: Arrays, names: list[str] | None = None) -> list[np.ndarray]:
    """onnxruntime's own outputs, or others of the model's tensors."""
    changed = onnx.ModelProto()
    changed.CopyFrom(made)
    if names is not None:
        del changed.graph.output[:]
        changed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        changed.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(names, inputs)


def check(
    made: onnx.ModelProto, inputs: Arrays, layers: int = 1, unsupported: Any = "error", **settings: Any
) -> Captured:
    """Each layer, computed in float64 from its operands, is the tensor of the model that it stands for."""
    captured = capture(made, inputs, unsupported, **settings)
    seen: dict[str, Any] = {}
    captured.run(inputs, on_layer=lambda call, operands: seen.update({call.name: (call, operands)}))
    assert [call.name for call in captured.layers] == list(seen) and len(seen) == layers
    captured.graph.check([call.layer for call in captured.layers])
    # Tensors that a rewriting made have no counterpart in the model itself; there the outputs are compared.
    known = {name for op in made.graph.node for name in op.output}
    for (call, operands), form in zip(seen.values(), captured.forms, strict=True):
        x, weight, bias = operands
        g = call.layer.geometry
        assert x.shape == (g.N, g.C, g.H, g.W) and x.dtype == weight.dtype == np.float32
        assert call.layer.input_signed or x.min() >= 0
        y = apply_activation(float_output(FloatLayer(call.layer, weight, x, bias)), call.layer.activation)
        y = y.reshape(g.N, g.P, g.Q, g.K).transpose(0, 3, 1, 2).astype(np.float32)
        if form.output.name in known:
            (wanted,) = run(made, inputs, [form.output.name])
            if call.layer.activation == "relu":  # which may be that of a quantizer, still to come
                wanted = np.maximum(wanted, 0)
            np.testing.assert_allclose(call.output(y, wanted.shape), wanted, rtol=1e-4, atol=2e-5)
        else:
            assert any(op.output is form.output for op in captured.program.ops)
            wanted = captured_output(captured, inputs, form.output)
            np.testing.assert_allclose(call.output(y, wanted.shape), wanted, rtol=1e-4, atol=2e-5)
    rewritten = [captured_output(captured, inputs, value) for value in captured.program.outputs]
    for found, wanted in zip(rewritten, run(made, inputs), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=2e-5)
    return captured


def captured_output(captured: Captured, inputs: Arrays, value: Any) -> np.ndarray:
    """A tensor of the rewritten program."""
    from accelsim.onnx.run import _needed
    from accelsim.onnx.session import Session

    if value.constant is not None:
        return value.constant
    program = captured.program
    ops = _needed(program, {value})
    session = Session(program, ops, [v for v in program.inputs if any(v in op.given for op in ops)], [value])
    return session.run(inputs)[0]


def nodes_of(captured: Captured) -> list[str]:
    return [step.op for step in captured.graph.nodes]
