"""An ONNX graph of one shape, for rewriting: values that know who makes and who reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from accelsim.capture.channels import Axes


@dataclass(eq=False)
class Value:
    """One tensor. dtype, shape: None where not known (yet); constant: its values where they depend on no
    input; parameter: the initializer that they are of; maker: the op that makes it, also of a constant;
    users: the ops that read it, once a reading; channels, made: of accelsim.onnx.layout.
    """

    name: str
    dtype: np.dtype[Any] | None = None
    shape: tuple[int, ...] | None = None
    constant: NDArray[Any] | None = None
    parameter: str | None = None
    maker: Op | None = None
    users: list[Op] = field(default_factory=list)
    is_output: bool = False
    channels: Axes = ()
    made: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        assert self.shape is not None
        return self.shape

    @property
    def rank(self) -> int:
        return len(self.sizes)

    @property
    def is_constant(self) -> bool:
        return self.constant is not None

    @property
    def only_reader(self) -> Op | None:
        """The one op that reads it, where nobody else does."""
        return self.users[0] if len(self.users) == 1 and not self.is_output else None


@dataclass(eq=False)
class Form:
    """What an op is as a layer: x[...] times a weight, plus bias, activation; output: the last tensor of what
    is done within the layer. weight: a constant [K, C/groups, ...] of conv, [K, C] of linear; of matmul a
    value [..., Kdim, N'], computed or not. values: the weight as used, with batch norm in it if `scaled`.
    """

    op: str
    x: Value
    weight: Value
    output: Value
    values: NDArray[Any] | None = None
    bias: NDArray[Any] | None = None
    activation: str = "none"
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    turned: bool = False
    scaled: bool = False


@dataclass(eq=False)
class Op:
    """One operation. inputs, outputs: None where left out; form: what it is as a layer; part_of: True where
    it is done within another; node: (op, tensors read) of a node that stands for several operations, of which
    this is the last; part: its part in an operation that was taken apart.
    """

    proto: onnx.NodeProto
    inputs: list[Value | None]
    outputs: list[Value | None]
    form: Form | None = None
    part_of: bool = False
    node: tuple[str, list[Value]] | None = None
    part: str = ""

    @property
    def kind(self) -> str:
        """The op's name; with its domain where that is not ONNX's own."""
        domain = self.proto.domain
        kind = str(self.proto.op_type)
        return kind if domain in ("", "ai.onnx") else f"{domain}.{kind}"

    @property
    def place(self) -> str:
        """For messages: the op and its name, or the tensor that it makes."""
        return f"{self.kind} '{self.proto.name or self.output.name}'"

    @property
    def output(self) -> Value:
        """The first of its outputs."""
        return next(value for value in self.outputs if value is not None)

    @property
    def made(self) -> list[Value]:
        return [value for value in self.outputs if value is not None]

    @property
    def given(self) -> list[Value]:
        return [value for value in self.inputs if value is not None]

    def input(self, place: int) -> Value | None:
        return self.inputs[place] if place < len(self.inputs) else None

    def attribute(self, name: str, default: Any = None) -> Any:
        for attribute in self.proto.attribute:
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                return value.decode() if isinstance(value, bytes) else value
        return default

    @property
    def has_graphs(self) -> bool:
        return any(attribute.HasField("g") or attribute.graphs for attribute in self.proto.attribute)

    def captures(self, value: Value) -> bool:
        """True where a subgraph of it reads the value by its name."""
        return value in self.inputs[len(self.proto.input) :]

    def is_folded(self) -> bool:
        """True where all that it makes is known beforehand."""
        return all(value.is_constant for value in self.made)

    def scopes(self) -> tuple[list[str], list[str]]:
        """(paths, classes) of the modules around it, as torch's exporter notes them."""
        props = {prop.key: prop.value for prop in self.proto.metadata_props}
        return (
            _strings(props.get("pkg.torch.onnx.name_scopes", "")),
            _strings(props.get("pkg.torch.onnx.class_hierarchy", "")),
        )


def _strings(text: str) -> list[str]:
    """['a', 'b'] as written by Python, read without evaluating it."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return []
    return [part.strip().strip("'\"") for part in text[1:-1].split(", ")]


class Program:
    """Ops in the order in which they run, and the values between them."""

    def __init__(self, model: onnx.ModelProto, initializers: Mapping[str, NDArray[Any]], opset: int) -> None:
        self.opset, self.ir_version = opset, int(model.ir_version)
        self.opset_imports = list(model.opset_import)
        self.values: dict[str, Value] = {}
        self.ops: list[Op] = []
        self.inputs: list[Value] = []
        self.input_types: dict[str, onnx.TypeProto] = {}
        for info in model.graph.input:
            value = self.value(info.name)
            if info.name in initializers:
                array = initializers[info.name]
                value.constant, value.dtype, value.shape = array, array.dtype, tuple(array.shape)
                value.parameter = info.name
            else:
                self.inputs.append(value)
                self.input_types[info.name] = info.type
        for node in model.graph.node:
            self._append(node)
        self.outputs = [self.value(info.name) for info in model.graph.output]
        for value in self.outputs:
            value.is_output = True

    def value(self, name: str) -> Value:
        return self.values.setdefault(name, Value(name))

    def _append(self, node: onnx.NodeProto) -> None:
        inputs = [self.value(name) if name else None for name in node.input]
        outputs = [self.value(name) if name else None for name in node.output]
        op = Op(node, inputs, outputs)
        for value in outputs:
            if value is not None:
                value.maker = op
        for value in inputs:
            if value is not None:
                value.users.append(op)
        self.ops.append(op)
        for name in _captured(node):
            # What a subgraph reads of the graph around it counts as an input of its own.
            value = self.value(name)
            value.users.append(op)
            op.inputs.append(value)

    def unique(self, name: str) -> str:
        number, found = 2, name
        while found in self.values:
            found, number = f"{name}_{number}", number + 1
        return found

    def constant(self, name: str, array: NDArray[Any], parameter: str | None = None) -> Value:
        value = self.value(self.unique(name))
        value.constant, value.dtype, value.shape = array, array.dtype, tuple(array.shape)
        value.parameter = parameter
        return value

    def insert(
        self, before: Op, kind: str, inputs: Sequence[Value | None], *, part: str = "", **attributes: Any
    ) -> Op:
        """A new op before another, at its place in the model. Its output has no type yet."""
        output = self.value(self.unique(f"{before.output.name}_{part or kind}"))
        names = [value.name if value is not None else "" for value in inputs]
        proto = helper.make_node(
            kind, names, [output.name], name=f"{before.proto.name}_{part or kind}", **attributes
        )
        proto.metadata_props.extend(before.proto.metadata_props)
        op = Op(proto, list(inputs), [output], part=part or before.part)
        output.maker = op
        for value in op.given:
            value.users.append(op)
        self.ops.insert(self.ops.index(before), op)
        return op

    def set_input(self, op: Op, place: int, value: Value) -> None:
        old = op.inputs[place]
        if old is not None:
            old.users.remove(op)
        op.inputs[place] = value
        op.proto.input[place] = value.name
        value.users.append(op)

    def replace(self, op: Op, value: Value) -> None:
        """Let everybody who reads what `op` makes read `value`, and take `op` out."""
        old = op.output
        if any(user.captures(old) for user in old.users):
            # Subgraphs know it by its name, which a copy keeps.
            for source in op.given:
                source.users.remove(op)
            op.proto, op.inputs = helper.make_node("Identity", [value.name], [old.name]), [value]
            value.users.append(op)
            return
        for user in dict.fromkeys(old.users):
            for place, read in enumerate(user.inputs):
                if read is old:
                    self.set_input(user, place, value)
        if old.is_output:
            value.is_output = True
            self.outputs = [value if output is old else output for output in self.outputs]
        self.remove(op)

    def remove(self, op: Op) -> None:
        for value in op.given:
            value.users.remove(op)
        self.ops.remove(op)


def _captured(node: onnx.NodeProto) -> Iterable[str]:
    """Names that the subgraphs of a node read from outside of them."""
    found: dict[str, None] = {}
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
            for inner in graph.node:
                for name in (*inner.input, *_captured(inner)):
                    if name and name not in own:
                        found[name] = None
                own |= set(inner.output)
            for value in graph.output:
                if value.name not in own:
                    found[value.name] = None
    return found
