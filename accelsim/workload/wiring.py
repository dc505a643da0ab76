"""A graph with its layers as the steps of a run: which tensors cross them, which layer hosts which work."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from accelsim.workload.graph import POOLS, Graph, LayerStep, Node, Shape, output_shape
from accelsim.workload.layer import Layer, NodeWork
from accelsim.workload.storage import Use


@dataclass(frozen=True)
class Tensor:
    """What is made in one step of a run and read in later ones, or comes from or goes to the outside.

    made_in: a step of `Wiring`, -1 before the run; groups: of the channels, which its vectors do not mix;
    in_dram: it is in DRAM from the start, or put there by the host; for_host: a node on the host reads it;
    output: it has to go to DRAM; input_of, weights_of, operand_of: steps in which it is a layer's input, its
    weight operand, or read by a node that does not belong to the step that makes it; use: who reads it, in
    whatever step.
    """

    name: str
    shape: Shape
    made_in: int
    groups: int
    in_dram: bool
    for_host: bool
    output: bool
    input_of: tuple[int, ...]
    weights_of: tuple[int, ...]
    operand_of: tuple[int, ...]
    use: Use

    @cached_property
    def readers(self) -> tuple[int, ...]:
        """Steps that read it, ascending."""
        return tuple(sorted({*self.input_of, *self.weights_of, *self.operand_of}))

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Wiring:
    """A graph with its layers, as steps: nodes that need no layer first, one a step, then a step a layer.

    prologue: those nodes; work: of each layer, what the nodes it hosts ask of the global PE, in order;
    tensors: those that cross steps, inputs of the graph first, then in the order in which they are made;
    uses: of every tensor, also of those that do not.
    """

    prologue: tuple[NodeWork, ...]
    work: Mapping[str, tuple[NodeWork, ...]]
    tensors: tuple[Tensor, ...]
    uses: Mapping[str, Use]


def wire(graph: Graph, layers: Sequence[Layer]) -> Wiring:
    """Who makes and who reads what, step by step. The graph has been checked against the layers."""
    return _Wirer(graph, layers).wired()


class _Wirer:
    """Walks a checked graph once."""

    def __init__(self, graph: Graph, layers: Sequence[Layer]) -> None:
        self.graph = graph
        self.layers = {layer.name: layer for layer in layers}
        self.hosts = graph.hosts()
        prologue = [node for node in graph.nodes if self.hosts[node.name] < 0 and node.unit != "none"]
        numbers = {layer.name: len(prologue) + i for i, layer in enumerate(layers)}
        self.first_layer, self.prologue = len(prologue), prologue
        # Of every tensor the step that makes it; what needs no layer and no unit is there from the start.
        self.made_in = {name: -1 for name, _ in graph.inputs} | numbers
        self.made_in |= {node.name: len(prologue) + self.hosts[node.name] for node in graph.nodes}
        self.made_in |= {node.name: -1 for node in graph.nodes if self.hosts[node.name] < 0}
        self.made_in |= {node.name: i for i, node in enumerate(prologue)}
        self.shapes = dict(graph.inputs) | {layer.name: output_shape(layer) for layer in layers}
        self.shapes |= {node.name: node.shape for node in graph.nodes}
        for_layers = {name for step in graph.steps if isinstance(step, LayerStep) for name in step.reads}
        for_nodes = {name for node in graph.nodes if node.unit != "none" for name in node.reads}
        self.uses = {name: Use(name in for_layers, name in for_nodes) for name in self.shapes}

    def wired(self) -> Wiring:
        names = list(self.layers)
        work: dict[str, list[NodeWork]] = {name: [] for name in names}
        for node in self.graph.nodes:
            if node.unit != "none" and self.hosts[node.name] >= 0:
                work[names[self.hosts[node.name]]].append(self._work(node))
        return Wiring(
            tuple(self._work(node) for node in self.prologue),
            {name: tuple(items) for name, items in work.items()},
            tuple(self._tensors()),
            self.uses,
        )

    def _work(self, node: Node) -> NodeWork:
        written = math.prod(node.shape)
        read = [math.prod(self.shapes[name]) for name in node.reads]
        elements = sum(read) if node.op in POOLS else written
        if node.elements is not None:
            elements = node.elements
            read, written = ([elements], elements) if self.graph.is_chain else (read, written)
        return NodeWork(node.op, elements, sum(read), written, self.uses[node.name])

    def _tensors(self) -> Iterable[Tensor]:
        input_of, weights_of, operand_of = self._readers()
        on_host = {node.name for node in self.graph.nodes if node.unit == "none"}
        to_host = {name for node in self.graph.nodes if node.unit == "none" for name in node.reads}
        inputs = [name for name, _ in self.graph.inputs]
        for name in [*inputs, *(step.name for step in self.graph.steps)]:
            in_dram = self.made_in[name] < 0 or name in on_host
            output = name in self.graph.outputs or name in to_host
            own = Tensor(
                name,
                self.shapes[name],
                self.made_in[name],
                self._groups(name),
                in_dram,
                name in to_host,
                output and not in_dram,
                tuple(input_of[name]),
                tuple(weights_of[name]),
                tuple(operand_of[name]),
                self.uses[name],
            )
            if own.readers or own.output:
                yield own

    def _readers(self) -> tuple[dict[str, list[int]], dict[str, list[int]], dict[str, list[int]]]:
        """Of each tensor the steps, ascending, that take it as input, as weight operand, and in a node."""
        input_of: dict[str, list[int]] = {name: [] for name in self.made_in}
        weights_of: dict[str, list[int]] = {name: [] for name in self.made_in}
        operand_of: dict[str, list[int]] = {name: [] for name in self.made_in}
        for step in self.graph.steps:
            number = self.made_in[step.name]
            if isinstance(step, LayerStep):
                for name, roles in zip(step.reads, (input_of, weights_of), strict=False):
                    roles[name].append(number)
            elif step.unit != "none":
                for name in step.reads:
                    # What the layer and the nodes it hosts hand to each other does not leave the step.
                    if self.made_in[name] != number and number not in operand_of[name]:
                        operand_of[name].append(number)
        for steps in operand_of.values():
            steps.sort()
        return input_of, weights_of, operand_of

    def _groups(self, name: str) -> int:
        """A node that keeps its host's channels keeps its groups."""
        host = self.hosts[name]
        if host < 0:
            return 1
        geometry = list(self.layers.values())[host].geometry
        return geometry.groups if self.shapes[name][1] == geometry.K else 1
