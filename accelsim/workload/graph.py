"""A network as a graph: which tensor each layer and each node between layers reads (docs/workloads.md).

A tensor bears the name of the layer or node that writes it, or of an input of the graph. Steps stand in the
order in which they run, and are never reordered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from accelsim.errors import AccelsimError
from accelsim.workload.layer import Layer

Shape = tuple[int, int, int, int]
"""N, C, H, W of a tensor, as a layer reads and writes it."""

Unit = Literal["global_pe", "none"]
UNITS: tuple[Unit, ...] = ("global_pe", "none")
POOLS = ("max_pool", "avg_pool")
"""Work that takes the global PE's time by what it reads; all other work does by what it writes."""


@dataclass(frozen=True)
class Node:
    """Elementwise work between layers: pooling, a residual add, softmax, a norm, GELU.

    reads: the tensors it takes; shape: of what it writes, under its own name; unit: what does it, the global
    PE or `none`, the host; elements: of work on the unit, by default what the op and the shapes say.
    """

    name: str
    op: str
    reads: tuple[str, ...]
    shape: Shape
    unit: Unit = "global_pe"
    elements: int | None = None


@dataclass(frozen=True)
class LayerStep:
    """A layer at its place in the order. reads: its input and, where that is computed, its weight operand."""

    layer: str
    reads: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.layer


@dataclass(frozen=True)
class Graph:
    """The tensors of a network. chain: only the order of the layers is known, and each is taken to read what
    the one before it wrote, whatever its size.
    """

    inputs: tuple[tuple[str, Shape], ...]
    steps: tuple[LayerStep | Node, ...]
    outputs: tuple[str, ...]
    is_chain: bool = False

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(step for step in self.steps if isinstance(step, Node))

    @classmethod
    def chain(
        cls, layers: Sequence[Layer], work: Mapping[str, Sequence[tuple[str, int]]] | None = None
    ) -> Graph:
        """Layers one after another. work: of a layer, (op, elements) of what follows it."""
        first = layers[0].geometry
        inputs: list[tuple[str, Shape]] = [("input", (first.N, first.C, first.H, first.W))]
        steps: list[LayerStep | Node] = []
        last, names = "input", {layer.name for layer in layers} | {"input"}

        def unused(name: str) -> str:
            while name in names:
                name += "_"
            names.add(name)
            return name

        for layer in layers:
            reads: tuple[str, ...] = (last,)
            if layer.weight_is_activation:
                weight = unused(f"{layer.name}.weight")
                g = layer.geometry
                inputs.append((weight, (g.K, g.channels_per_group, g.R, g.S)))
                reads = (last, weight)
            steps.append(LayerStep(layer.name, reads))
            last = layer.name
            for op, elements in (work or {}).get(layer.name, ()):
                node = unused(f"{layer.name}.{op}")
                steps.append(Node(node, op, (last,), output_shape(layer), elements=elements))
                last = node
        return cls(tuple(inputs), tuple(steps), (last,), is_chain=True)

    def hosts(self) -> dict[str, int]:
        """Of each tensor the layer, by number, that makes it or the last that its node needs; -1: none."""
        hosts, count = {name: -1 for name, _ in self.inputs}, 0
        for step in self.steps:
            if isinstance(step, Node):
                hosts[step.name] = max(hosts[name] for name in step.reads)
            else:
                hosts[step.name] = count
                count += 1
        return hosts

    def check(self, layers: Sequence[Layer]) -> None:
        """Raise AccelsimError, naming the step, where the graph does not fit these layers."""
        _Checker(self, layers).check()


def output_shape(layer: Layer) -> Shape:
    g = layer.geometry
    return g.N, g.K, g.P, g.Q


class _Checker:
    def __init__(self, graph: Graph, layers: Sequence[Layer]) -> None:
        self.graph, self.layers = graph, {layer.name: layer for layer in layers}
        self.shapes: dict[str, Shape] = {}

    def check(self) -> None:
        graph = self.graph
        for name, shape in graph.inputs:
            self._add(f"graph input {name}", name, shape)
        for step in graph.steps:
            where = f"node {step.name}" if isinstance(step, Node) else f"layer {step.name}"
            if not step.reads:
                raise AccelsimError(f"graph: {where} reads nothing, expected at least one tensor")
            for name in step.reads:
                if name not in self.shapes:
                    raise AccelsimError(
                        f"graph: {where} reads '{name}', expected an input of the graph or an earlier step"
                    )
            if isinstance(step, Node):
                if step.unit not in UNITS:
                    raise AccelsimError(
                        f"graph: {where} has unit '{step.unit}', expected {' or '.join(UNITS)}"
                    )
                self._add(where, step.name, step.shape)
            else:
                self._check_layer(where, step)
        ran = [step.name for step in graph.steps if isinstance(step, LayerStep)]
        if ran != list(self.layers):
            odd = next((a for a, b in zip(ran, self.layers, strict=False) if a != b), None)
            raise AccelsimError(
                f"graph: its layers are not those of the network in their order, "
                f"{f'first at {odd}' if odd else f'{len(ran)} of {len(self.layers)}'}"
            )
        self._check_hosts()
        if not graph.outputs or len(set(graph.outputs)) != len(graph.outputs):
            raise AccelsimError("graph: outputs are none or one twice, expected at least one, each once")
        for name in graph.outputs:
            if name not in self.shapes:
                raise AccelsimError(f"graph: output '{name}' is no tensor of it")
        read = {name for step in graph.steps for name in step.reads} | set(graph.outputs)
        for name in self.shapes:
            if name not in read:
                raise AccelsimError(
                    f"graph: tensor '{name}' is read by nobody, expected a reader or an output"
                )

    def _check_hosts(self) -> None:
        """What the host makes is there after a layer's step; a node which that layer hosts runs within it."""
        hosts = self.graph.hosts()
        on_host = {node.name for node in self.graph.nodes if node.unit == "none"}
        for node in self.graph.nodes:
            own = hosts[node.name]
            for name in node.reads:
                if node.unit != "none" and own >= 0 and name in on_host and hosts[name] == own:
                    raise AccelsimError(
                        f"graph: node {node.name} reads '{name}', which the host makes after layer "
                        f"{list(self.layers)[own]}, expected a layer between them, or unit none here too"
                    )

    def _add(self, where: str, name: str, shape: Shape) -> None:
        if name in self.shapes:
            raise AccelsimError(f"graph: {where} is named twice, expected unique names of inputs and steps")
        if len(shape) != 4 or not all(type(size) is int and size > 0 for size in shape):
            raise AccelsimError(f"graph: {where} has shape {list(shape)}, expected four sizes N, C, H, W")
        self.shapes[name] = shape

    def _check_layer(self, where: str, step: LayerStep) -> None:
        layer = self.layers.get(step.layer)
        if layer is None:
            raise AccelsimError(f"graph: {where} is not a layer of the network")
        wanted = 2 if layer.weight_is_activation else 1
        if len(step.reads) != wanted:
            raise AccelsimError(f"graph: {where} reads {len(step.reads)} tensors, expected {wanted}")
        g = layer.geometry
        sizes = [g.N * g.C * g.H * g.W, g.K * g.channels_per_group * g.R * g.S]
        for name, size, what in zip(step.reads, sizes, ("input", "weight operand"), strict=False):
            found = math.prod(self.shapes[name])
            if found != size and not self.graph.is_chain:
                raise AccelsimError(
                    f"graph: {where} takes '{name}' of {found} elements as its {what}, expected {size}"
                )
        self._add(where, step.layer, output_shape(layer))
