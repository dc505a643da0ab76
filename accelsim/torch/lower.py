"""A rewritten fx graph as the steps of a trace: layers with their geometry, nodes, and what each reads."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from accelsim.capture.builder import Lowered, StepBuilder, never_negative
from accelsim.capture.calls import LayerCall, rows_and_images
from accelsim.errors import AccelsimError
from accelsim.torch import ops
from accelsim.torch.calls import as_array, as_floats
from accelsim.torch.catalogue import (
    REDUCTIONS,
    TRANSPARENT,
    is_tensor,
    name_of,
    not_negative,
    op_of,
    shape_of,
    supported,
)
from accelsim.torch.edit import is_constant, module_of, tensor_of
from accelsim.torch.layout import elements, nchw
from accelsim.torch.rewrite import arguments
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import Layer

CALL = "accelsim"
"""Key of a node's meta under which its LayerCall or NodeCall stands."""

_LAYER_MODULES = ("Linear", "Conv1d", "Conv2d", "NonDynamicallyQuantizableLinear")
_CONTAINERS = (
    "Module", "Sequential", "ModuleList", "ModuleDict", "MultiheadAttention", "Transformer",
    "TransformerEncoder", "TransformerDecoder", "TransformerEncoderLayer", "TransformerDecoderLayer",
)  # fmt: skip


@dataclass
class Unsupported:
    """An operation that is neither layer nor node. place: the path of its module."""

    op: str
    place: str

    def __str__(self) -> str:
        return f"{self.op} in '{self.place}'" if self.place else f"{self.op} in the model itself"


def find_unsupported(module: fx.GraphModule) -> list[Unsupported]:
    """All that cannot be lowered, in order."""
    found = []
    for node in module.graph.nodes:
        if node.op in ("placeholder", "get_attr", "output"):
            continue
        if node.op != "call_function" or not supported(node.target):
            found.append(Unsupported(name_of(node.target), module_of(node)[0]))
    return found


@dataclass
class Lowerer:
    """Walks the graph once.

    base: of a node of fx the tensor of the graph that it shows, None of a constant; positive: True where it
    is never negative.
    """

    module: fx.GraphModule
    builder: StepBuilder = field(default_factory=StepBuilder)
    base: dict[fx.Node, str | None] = field(default_factory=dict)
    positive: dict[fx.Node, bool] = field(default_factory=dict)
    batch: int | None = None

    def run(self) -> Lowered:
        graph = self.module.graph
        tensors = [
            node for node in graph.nodes if node.op == "placeholder" and is_tensor(node) and node.users
        ]
        self.batch = next((shape_of(node)[0] for node in tensors if shape_of(node)), None)
        for node in graph.nodes:
            if node.op == "placeholder":
                self.base[node] = self.builder.add_input(node.name) if node in tensors else None
            elif node.op == "get_attr":
                self.base[node] = None
                value = tensor_of(self.module, node) if is_constant(node) else None
                self.positive[node] = value is not None and _never_negative(value)
            elif node.op == "call_function":
                self._call(node)
        shown = [self.base.get(node) for node in next(iter(reversed(graph.nodes))).all_input_nodes]
        outputs = list(dict.fromkeys(name for name in shown if name is not None))
        lowered = self.builder.finish({str(self.base[node]): nchw(node) for node in tensors}, outputs)
        for node in graph.nodes:
            if CALL in node.meta:
                node.meta[CALL] = lowered.steps[node.meta[CALL]]
        return lowered

    def _call(self, node: fx.Node) -> None:
        reads = [read for read in node.all_input_nodes if read in self.base]
        self.positive[node] = not_negative(node, [self.positive.get(read, False) for read in reads])
        tensors = list(dict.fromkeys(name for read in reads if (name := self.base[read]) is not None))
        if node.target in ops.LAYERS:
            node.meta[CALL] = len(self.builder.steps)
            self.base[node] = self.builder.add_layer(self._layer(node))
        elif not supported(node.target):
            self._add_node(node, name_of(node.target), tensors, on_host=True)
        elif name_of(node.target) not in TRANSPARENT:
            self._add_node(node, op_of(node), tensors)
        elif self._changes_size(node) and self._layer_reads(node) and tensors:
            op = "slice" if elements(node) < elements(_source(node)) else "expand"
            self._add_node(node, op, tensors, work=0)
        else:
            self.base[node] = tensors[0] if tensors else None

    def _changes_size(self, node: fx.Node) -> bool:
        """Part of a tensor, or copies of it; not a list of parts."""
        if not is_tensor(node):
            return False
        return elements(node) != elements(_source(node))

    def _layer_reads(self, node: fx.Node) -> bool:
        """True where a layer takes it as it is or by views of the same size."""
        for user in node.users:
            if user.target in ops.LAYERS:
                return True
            if user.op == "call_function" and name_of(user.target) in TRANSPARENT:
                if elements(user) == elements(node) and self._layer_reads(user):
                    return True
        return False

    def _add_node(
        self, node: fx.Node, op: str, reads: list[str], *, work: int | None = None, on_host: bool = False
    ) -> None:
        if not reads:
            raise AccelsimError(f"model: {op} in '{module_of(node)[0]}' depends on no input, expected one")
        if work is None and name_of(node.target) in REDUCTIONS and op != "avg_pool":
            work = sum(elements(read) for read in node.all_input_nodes if not is_constant(read))
        attributes, operands = self._attributes(node)
        node.meta[CALL] = len(self.builder.steps)
        self.base[node] = self.builder.add_node(
            self._node_name(node, op),
            op,
            reads,
            nchw(node),
            function=name_of(node.target),
            attributes=attributes,
            operands=operands,
            work=work,
            on_host=on_host,
        )

    def _attributes(self, node: fx.Node) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Arguments by name without run-time tensors, and the names of those tensors' arguments."""
        if isinstance(node.target, torch._ops.OpOverload):
            given = arguments(node)
        else:
            try:
                given = dict(inspect.signature(node.target).bind(*node.args, **node.kwargs).arguments)
            except (TypeError, ValueError):
                given = {f"argument_{i}": value for i, value in enumerate(node.args)} | dict(node.kwargs)
        operands: list[str] = []
        attributes: dict[str, Any] = {}
        for name, value in given.items():
            inside = value if isinstance(value, (list, tuple)) else [value]
            tensors = [item for item in inside if isinstance(item, fx.Node) and not is_constant(item)]
            operands += [name] * len(tensors)
            if not tensors:
                attributes[name] = fx.map_arg(value, self._value)
        return attributes, tuple(operands)

    def _value(self, node: fx.Node) -> Any:
        return as_array(tensor_of(self.module, node))

    def _layer(self, node: fx.Node) -> LayerCall:
        x, weight = node.args[0], node.args[1]
        assert isinstance(x, fx.Node) and isinstance(weight, fx.Node)
        bias = node.args[2] if node.target is not ops.matmul else None
        computed = not is_constant(weight)
        op = "conv" if node.target is ops.conv else "linear" if node.target is ops.linear else "matmul"
        layer = Layer(
            name=self._layer_name(node, weight, op),
            op=op,
            geometry=self._geometry(node, x, weight),
            activation=str(node.kwargs.get("activation", "none")),
            input_signed=not self.positive.get(x, False),
            weight_is_activation=computed,
        )
        stored = None
        if not computed:
            value = tensor_of(self.module, weight)
            g = layer.geometry
            value = value.transpose(-2, -1) if op == "matmul" else value
            stored = as_floats(value.reshape(g.K, g.channels_per_group, g.R, g.S))
        values = as_floats(tensor_of(self.module, bias)) if isinstance(bias, fx.Node) else None
        reads = [self.base[operand] for operand in ((x, weight) if computed else (x,))]
        if None in reads:
            raise AccelsimError(f"layer {layer.name}: its input is a constant, expected a computed one")
        return LayerCall(layer, stored, values, tuple(map(str, reads)))

    def _geometry(self, node: fx.Node, x: fx.Node, weight: fx.Node) -> Geometry:
        shape, kernel = shape_of(x), shape_of(weight)
        if node.target is ops.conv:
            _, _, _, stride, padding, dilation, groups = node.args[:7]
            n = shape[0] if len(shape) == len(kernel) else 1
            height, width = (1, *shape)[-2:] if len(kernel) == 4 else (1, shape[-1])
            r, s = (1, *kernel[2:])[-2:]

            def pair(sizes: Any, least: int) -> tuple[int, int]:
                first, second = (least, *sizes)[-2:]
                return int(first), int(second)

            return Geometry(
                N=n, C=kernel[1] * int(groups), H=height, W=width, K=kernel[0], R=r, S=s,
                stride=pair(stride, 1), padding=pair(padding, 0), dilation=pair(dilation, 1),
                groups=int(groups),
            )  # fmt: skip
        if node.target is ops.linear:
            n, width = rows_and_images(math.prod(shape[:-1]), len(shape), self.batch)
            return Geometry(N=n, C=kernel[1], H=1, W=width, K=kernel[0])
        groups = math.prod(shape[:-2])
        return Geometry(N=1, C=groups * shape[-1], H=1, W=shape[-2], K=groups * kernel[-1], groups=groups)

    def _layer_name(self, node: fx.Node, weight: fx.Node, op: str) -> str:
        path, kind = module_of(node)
        parameter = str(weight.meta.get("parameter") or "") if is_constant(weight) else ""
        if "part" in node.meta:
            name = f"{path}.{node.meta['part']}"
        elif path and _of_torch(kind) and kind.split(".")[-1] in _LAYER_MODULES:
            name = path
        elif parameter and not parameter.startswith(("_constant", "lifted")):
            name = re.sub(r"[._]weight$", "", parameter)
        else:
            name = f"{path}.{op}"
        return self.builder.names.unique(name)

    def _node_name(self, node: fx.Node, op: str) -> str:
        path, kind = module_of(node)
        if "part" in node.meta:
            return self.builder.names.unique(f"{path}.{node.meta['part']}")
        op = "add" if op == "add_relu" else op
        # Work beside a layer, such as its padding, does not take the layer's name.
        own = _of_torch(kind) and kind.split(".")[-1] not in (*_LAYER_MODULES, *_CONTAINERS)
        return self.builder.names.unique(path if own and path else f"{path}.{op}")


def _of_torch(kind: str) -> bool:
    """True for a class of torch.nn: named by its module, not by what it does there."""
    return kind.startswith("torch.nn.modules.")


def _source(node: fx.Node) -> fx.Node:
    """The tensor that a view shows, also as one part of a list."""
    source = node.all_input_nodes[0]
    while not is_tensor(source):
        source = source.all_input_nodes[0]
    return source


def _never_negative(value: torch.Tensor) -> bool:
    return not value.is_complex() and never_negative(as_array(value))
