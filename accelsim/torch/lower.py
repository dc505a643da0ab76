"""A rewritten fx graph as the steps of a trace: layers with their geometry, nodes, and what each reads."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from accelsim.errors import AccelsimError
from accelsim.torch import ops
from accelsim.torch.calls import LayerCall, NodeCall, as_array, as_floats, rows_and_images
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
from accelsim.workload.graph import Graph, LayerStep, Node, Unit
from accelsim.workload.layer import Layer

CALL = "accelsim"
"""Key of a node's meta under which its LayerCall or NodeCall stands."""

_LAYER_MODULES = ("Linear", "Conv1d", "Conv2d", "NonDynamicallyQuantizableLinear")
_CONTAINERS = (
    "Module", "Sequential", "ModuleList", "ModuleDict", "MultiheadAttention", "Transformer",
    "TransformerEncoder", "TransformerDecoder", "TransformerEncoderLayer", "TransformerDecoderLayer",
)  # fmt: skip


@dataclass
class Lowered:
    """Steps and graph; host: names of the nodes that are left to the host."""

    steps: tuple[LayerCall | NodeCall, ...]
    graph: Graph
    host: tuple[str, ...]


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


class Names:
    """Unique names: a second of the same becomes "name.2"."""

    def __init__(self) -> None:
        self.taken: set[str] = set()

    def unique(self, name: str) -> str:
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", name).strip(".-")[-110:].strip(".-") or "tensor"
        number, found = 2, name
        while found in self.taken:
            found = f"{name}.{number}"
            number += 1
        self.taken.add(found)
        return found


@dataclass
class Lowerer:
    """Walks the graph once.

    base: of a node of fx the tensor of the graph that it shows, None of a constant; positive: True where it
    is never negative; hosted: as Graph.hosts; on_host: op of the nodes that the host does.
    """

    module: fx.GraphModule
    names: Names = field(default_factory=Names)
    base: dict[fx.Node, str | None] = field(default_factory=dict)
    positive: dict[fx.Node, bool] = field(default_factory=dict)
    steps: list[LayerCall | NodeCall] = field(default_factory=list)
    layers: int = 0
    batch: int | None = None
    hosted: dict[str, int] = field(default_factory=dict)
    on_host: dict[str, str] = field(default_factory=dict)

    def run(self) -> Lowered:
        graph = self.module.graph
        tensors = [
            node for node in graph.nodes if node.op == "placeholder" and is_tensor(node) and node.users
        ]
        self.batch = next((shape_of(node)[0] for node in tensors if shape_of(node)), None)
        # Names of inputs give way to those of layers and nodes, which come of the model's modules.
        for node in graph.nodes:
            if node.op == "placeholder":
                self.base[node] = f"<{node.name}>" if node in tensors else None
                self.hosted[f"<{node.name}>"] = -1
            elif node.op == "get_attr":
                self.base[node] = None
                value = tensor_of(self.module, node) if is_constant(node) else None
                self.positive[node] = value is not None and _never_negative(value)
            elif node.op == "call_function":
                self._call(node)
        outputs: list[str] = []
        for node in next(iter(reversed(graph.nodes))).all_input_nodes:
            name = self.base.get(node)
            if name is not None and name not in outputs:
                outputs.append(name)
        return self._finished(tensors, outputs)

    def _finished(self, tensors: list[fx.Node], outputs: list[str]) -> Lowered:
        if not any(isinstance(step, LayerCall) for step in self.steps):
            raise AccelsimError(
                "model: has no convolution, linear layer or matrix product, expected at least one"
            )
        read = {name for step in self.steps for name in step.reads} | set(outputs)
        renamed = {f"<{node.name}>": self.names.unique(node.name) for node in tensors}
        steps = tuple(_renamed(step, renamed) for step in self.steps)
        for node in self.module.graph.nodes:
            if CALL in node.meta:
                node.meta[CALL] = steps[node.meta[CALL]]
        inputs = tuple((renamed[f"<{n.name}>"], nchw(n)) for n in tensors if f"<{n.name}>" in read)
        listed = tuple(
            LayerStep(step.name, step.reads) if isinstance(step, LayerCall) else step.node for step in steps
        )
        graph = Graph(inputs, listed, tuple(renamed.get(name, name) for name in outputs))
        graph.check([step.layer for step in steps if isinstance(step, LayerCall)])
        return Lowered(steps, graph, tuple(f"{name} ({op})" for name, op in self.on_host.items()))

    def _call(self, node: fx.Node) -> None:
        reads = [read for read in node.all_input_nodes if read in self.base]
        self.positive[node] = not_negative(node, [self.positive.get(read, False) for read in reads])
        tensors = list(dict.fromkeys(name for read in reads if (name := self.base[read]) is not None))
        if node.target in ops.LAYERS:
            self._add(node, self._layer(node))
        elif not supported(node.target):
            self._add(node, self._node(node, name_of(node.target), tensors, on_host=True))
        elif name_of(node.target) not in TRANSPARENT:
            self._add(node, self._node(node, op_of(node), tensors))
        elif self._changes_size(node) and self._layer_reads(node) and tensors:
            op = "slice" if elements(node) < elements(_source(node)) else "expand"
            self._add(node, self._node(node, op, tensors, work=0))
        else:
            self.base[node] = tensors[0] if tensors else None

    def _add(self, node: fx.Node, step: LayerCall | NodeCall) -> None:
        node.meta[CALL] = len(self.steps)
        self.steps.append(step)
        self.base[node] = step.name
        if isinstance(step, LayerCall):
            self.hosted[step.name] = self.layers
            self.layers += 1
        else:
            self.hosted[step.name] = max(self.hosted[read] for read in step.reads)

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

    def _node(
        self, node: fx.Node, op: str, reads: list[str], *, work: int | None = None, on_host: bool = False
    ) -> NodeCall:
        if not reads:
            raise AccelsimError(f"model: {op} in '{module_of(node)[0]}' depends on no input, expected one")
        if work is None and name_of(node.target) in REDUCTIONS and op != "avg_pool":
            work = sum(elements(read) for read in node.all_input_nodes if not is_constant(read))
        name = self._node_name(node, op)
        # The global PE cannot take up, within a step, what the host makes after it.
        own = max(self.hosted[read] for read in reads)
        follows = any(read in self.on_host and self.hosted[read] == own for read in reads)
        if on_host or (follows and own >= 0):
            self.on_host[name] = op
        unit: Unit = "none" if name in self.on_host else "global_pe"
        graph_node = Node(name, op, tuple(reads), nchw(node), unit, work)
        attributes, operands = self._attributes(node)
        return NodeCall(graph_node, name_of(node.target), attributes, operands)

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
        return self.names.unique(name)

    def _node_name(self, node: fx.Node, op: str) -> str:
        path, kind = module_of(node)
        if "part" in node.meta:
            return self.names.unique(f"{path}.{node.meta['part']}")
        op = "add" if op == "add_relu" else op
        # Work beside a layer, such as its padding, does not take the layer's name.
        own = _of_torch(kind) and kind.split(".")[-1] not in (*_LAYER_MODULES, *_CONTAINERS)
        return self.names.unique(path if own and path else f"{path}.{op}")


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
    return not value.is_complex() and value.numel() > 0 and bool((value >= 0).all())


def _renamed(step: LayerCall | NodeCall, names: dict[str, str]) -> LayerCall | NodeCall:
    reads = tuple(names.get(name, name) for name in step.reads)
    if isinstance(step, LayerCall):
        return LayerCall(step.layer, step.weight, step.bias, reads)
    node = step.node
    renamed = Node(node.name, node.op, reads, node.shape, node.unit, node.elements)
    return NodeCall(renamed, step.function, step.attributes, step.operands)
