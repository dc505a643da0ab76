"""A program whose layers have their forms, as the steps of a trace: layers, nodes, and what each reads."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from accelsim.capture.builder import Lowered, StepBuilder, never_negative
from accelsim.capture.calls import Floats, LayerCall, rows_and_images
from accelsim.capture.channels import nchw
from accelsim.errors import AccelsimError
from accelsim.onnx.attention import expressible
from accelsim.onnx.catalogue import REDUCTIONS, is_view, not_negative, op_of, supported
from accelsim.onnx.einsum import letters_of
from accelsim.onnx.graph import Form, Op, Program, Value
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import Layer

_LAYER_MODULES = ("Linear", "Conv1d", "Conv2d", "NonDynamicallyQuantizableLinear")
_PARAMETER = re.compile(r"(?!onnx::|val_|_)\w[\w./]*[._/]weight(s|_quantized)?")
"""Names of weights that tell whose they are."""
_CONTAINERS = ("Module", "Sequential", "ModuleList", "ModuleDict")


def find_unsupported(program: Program) -> list[str]:
    """All that cannot be lowered, with its place, in order."""
    found = []
    for op in program.ops:
        if _is_supported(op):
            continue
        kind = op.kind
        if kind == "Conv":
            weight = op.given[1]
            kind = (
                f"Conv over {weight.rank - 2} axes" if weight.is_constant else "Conv with a computed weight"
            )
        found.append(f"{kind} in '{op.proto.name or op.output.name}'")
    return found


def _is_supported(op: Op) -> bool:
    if op.is_folded():
        return True
    if op.kind == "Dropout" and (training := op.input(2)) is not None:
        return training.constant is not None and not training.constant.any()
    if op.kind == "Attention":
        return expressible(op)
    if op.kind == "Einsum":
        return letters_of(op) is not None
    return supported(op)


@dataclass
class Lowerer:
    """Walks the program once.

    base: of a value the tensor of the graph that it shows; positive: True where it is never negative; forms:
    of the layers, in order; taken: what layers read.
    """

    program: Program
    builder: StepBuilder = field(default_factory=StepBuilder)
    base: dict[Value, str] = field(default_factory=dict)
    positive: dict[Value, bool] = field(default_factory=dict)
    forms: list[Form] = field(default_factory=list)
    taken: set[Value] = field(default_factory=set)
    batch: int | None = None

    def run(self) -> Lowered:
        inputs = [value for value in self.program.inputs if value.users]
        self.batch = next((value.sizes[0] for value in inputs if value.rank), None)
        for value in inputs:
            self.base[value] = self.builder.add_input(value.name)
        for value in self.program.values.values():
            if value.constant is not None:
                self.positive[value] = never_negative(value.constant)
        found = [op.form for op in self.program.ops if op.form is not None]
        self.taken = {value for form in found for value in (form.x, form.weight)}
        for op in self.program.ops:
            if not op.is_folded():
                self._call(op)
        shown = [self.base.get(value) for value in self.program.outputs]
        outputs = list(dict.fromkeys(name for name in shown if name is not None))
        return self.builder.finish(
            {self.base[value]: nchw(value.sizes, value.channels) for value in inputs}, outputs
        )

    def _call(self, op: Op) -> None:
        if not any(value.users or value.is_output or value in self.taken for value in op.made):
            return
        signs = [self.positive.get(value, False) for value in op.given]
        for value in op.made:
            self.positive[value] = not_negative(op, signs) and _is_supported(op)
        tensors = [value for value in op.given if value in self.base]
        if op.form is not None:
            self._show(op, self.builder.add_layer(self._layer(op, op.form)))
            self.forms.append(op.form)
        elif op.part_of:
            if tensors:
                self._show(op, self.base[tensors[0]])
        elif op.node is not None:
            name, reads = op.node
            self.positive[op.output] = name in ("add_relu", "softmax") or (
                name == "requantize" and self.positive.get(reads[0], False)
            )
            self._add_node(op, name, reads)
        elif not _is_supported(op) or op.kind in ("Attention", "Einsum"):
            self._add_node(op, op.kind, tensors, on_host=True)
        elif not is_view(op):
            self._add_node(op, op_of(op), tensors)
        elif tensors:
            self._view(op, tensors[0])

    def _show(self, op: Op, name: str) -> None:
        for value in op.made:
            self.base[value] = name

    def _view(self, op: Op, source: Value) -> None:
        """A part of a tensor, or copies of it, is a node without work where a layer reads it."""
        for value in op.made:
            size, whole = math.prod(value.sizes), math.prod(source.sizes)
            if size != whole and _layer_reads(value):
                self._add_node(op, "slice" if size < whole else "expand", [source], work=0, made=value)
            else:
                self.base[value] = self.base[source]

    def _add_node(
        self,
        op: Op,
        name: str,
        values: list[Value],
        *,
        work: int | None = None,
        on_host: bool = False,
        made: Value | None = None,
    ) -> None:
        reads = list(dict.fromkeys(self.base[value] for value in values if value in self.base))
        if not reads:
            raise AccelsimError(f"{op.place} depends on no input, expected one")
        if work is None and op.kind in REDUCTIONS and name != "avg_pool" and op.node is None:
            work = sum(math.prod(value.sizes) for value in values)
        value = made or op.output
        attributes, operands = _attributes(op)
        found = self.builder.add_node(
            self._node_name(op, name),
            name,
            reads,
            nchw(value.sizes, value.channels),
            function=op.kind,
            attributes=attributes,
            operands=operands,
            work=work,
            on_host=on_host,
        )
        if made is not None:
            self.base[made] = found
        else:
            self._show(op, found)

    # -- layers ----------------------------------------------------------------------------------------------

    def _layer(self, op: Op, form: Form) -> LayerCall:
        computed = form.values is None
        name = self._layer_name(op, form)
        try:
            geometry = self._geometry(form)
        except AccelsimError as error:
            raise AccelsimError(f"layer {name}: {error}") from None
        layer = Layer(
            name=name,
            op=form.op,
            geometry=geometry,
            activation=form.activation,
            input_signed=not self.positive.get(form.x, False),
            weight_is_activation=computed,
        )
        for value in (form.x, form.weight):
            if value.dtype != np.float32:
                raise AccelsimError(f"layer {layer.name}: {value.name} is {value.dtype}, expected float32")
        reads = [self.base.get(operand) for operand in ((form.x, form.weight) if computed else (form.x,))]
        if None in reads:
            raise AccelsimError(f"layer {layer.name}: its input is a constant, expected a computed one")
        bias = None if form.bias is None else np.ascontiguousarray(form.bias, np.float32)
        return LayerCall(layer, _stored(form, layer.geometry), bias, tuple(map(str, reads)))

    def _geometry(self, form: Form) -> Geometry:
        shape = form.x.sizes
        if form.op == "conv":
            kernel = form.weight.sizes

            def pair(sizes: tuple[int, ...], least: int) -> tuple[int, int]:
                first, second = (least, *sizes)[-2:]
                return int(first), int(second)

            height, width = (1, *shape[2:])[-2:]
            r, s = (1, *kernel[2:])[-2:]
            return Geometry(
                N=shape[0], C=shape[1], H=height, W=width, K=kernel[0], R=r, S=s, stride=pair(form.stride, 1),
                padding=pair(form.padding, 0), dilation=pair(form.dilation, 1), groups=form.groups,
            )  # fmt: skip
        if form.op == "linear":
            assert form.values is not None
            n, width = rows_and_images(math.prod(shape[:-1]), len(shape), self.batch)
            return Geometry(N=n, C=shape[-1], H=1, W=width, K=len(form.values))
        groups, outputs = math.prod(shape[:-2]), form.weight.sizes[-1]
        return Geometry(N=1, C=groups * shape[-1], H=1, W=shape[-2], K=groups * outputs, groups=groups)

    # -- names -----------------------------------------------------------------------------------------------

    def _layer_name(self, op: Op, form: Form) -> str:
        path, kind = _module_of(op)
        parameter = form.weight.parameter if form.weight.is_constant else None
        if op.part:
            name = f"{path}.{op.part}"
        elif path and _of_torch(kind) and kind.split(".")[-1] in _LAYER_MODULES:
            name = path
        elif parameter is not None and re.fullmatch(
            r"(?!onnx::|val_|_)\w[\w./]*[._/]weight(s|_quantized)?", parameter
        ):
            name = re.sub(r"[._/]weight(s|_quantized)?$", "", parameter)
        elif path and form.values is not None and not kind:
            name = path
        else:
            name = f"{path}.{form.op}" if path else op.proto.name or op.output.name
        return self.builder.names.unique(name)

    def _node_name(self, op: Op, name: str) -> str:
        source = op
        if op.part == "requantize" and op.given[0].maker is not None:
            source = op.given[0].maker
        path, kind = _module_of(source)
        if op.part and op.part != "requantize":
            return self.builder.names.unique(f"{path}.{op.part}")
        name = "add" if name == "add_relu" else name
        last = kind.split(".")[-1]
        own = _of_torch(kind) and last not in (*_LAYER_MODULES, *_CONTAINERS) and name != "requantize"
        # Without classes a path tells a module of its own by its last name: maxpool, gelu.
        own = own or (not kind and re.sub(r"[^a-z]", "", path.split(".")[-1]) == name.replace("_", ""))
        return self.builder.names.unique(path if own and path else f"{path}.{name}")


def _module_of(op: Op) -> tuple[str, str]:
    """(path, class) of the innermost module: as torch's exporter notes it, else as the op's name says."""
    paths, classes = op.scopes()
    if len(paths) > 1 and len(paths) == len(classes):
        return paths[-2], classes[-2]
    parts = [part for part in op.proto.name.split("/") if part]
    if not op.proto.name.startswith("/") or len(parts) < 2:
        return "", ""
    path: list[str] = []
    for part in parts[:-1]:
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(part)
    return ".".join(path), ""


def _of_torch(kind: str) -> bool:
    """True for a class of torch.nn: named by its module, not by what it does there."""
    return kind.startswith("torch.nn.modules.")


def _stored(form: Form, g: Geometry) -> Floats | None:
    """The weight as float32[K, C/groups, R, S]."""
    if form.values is None:
        return None
    return np.ascontiguousarray(as_operand(form, form.values, g), np.float32)


def as_operand(form: Form, values: NDArray[Any], g: Geometry) -> NDArray[Any]:
    """A layer's weight, or whatever belongs to it value by value, as [K, C/groups, R, S]."""
    if form.op == "matmul":
        values = np.broadcast_to(values, (*form.x.sizes[:-2], *values.shape[-2:])).swapaxes(-2, -1)
    return values.reshape(g.K, g.channels_per_group, g.R, g.S)


def _layer_reads(value: Value) -> bool:
    """True where a layer takes it as it is or by views of the same size."""
    for user in value.users:
        if user.form is not None and value in (user.form.x, user.form.weight):
            return True
        if user.part == "requantize":
            continue
        if is_view(user) and not user.is_folded():
            same = [out for out in user.made if math.prod(out.sizes) == math.prod(value.sizes)]
            if any(_layer_reads(out) for out in same):
                return True
    return False


def _attributes(op: Op) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Attributes and constant inputs by name, and the names of the inputs that are computed."""
    attributes: dict[str, Any] = {
        attribute.name: op.attribute(attribute.name)
        for attribute in op.proto.attribute
        if not attribute.HasField("g") and not attribute.graphs
    }
    try:
        schema = onnx.defs.get_schema(op.proto.op_type, op.proto.domain)
        names = [entry.name for entry in schema.inputs]
    except onnx.defs.SchemaError:
        names = []
    operands = []
    for place, value in enumerate(op.inputs):
        name = names[min(place, len(names) - 1)] if names else f"input_{place}"
        if value is not None and value.constant is not None:
            attributes[name] = value.constant
        elif value is not None:
            operands.append(name)
    return attributes, tuple(operands)
