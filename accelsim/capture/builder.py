"""Steps and graph of a captured model, put together one step at a time by whoever walks the model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from accelsim.capture.calls import LayerCall, NodeCall
from accelsim.errors import AccelsimError
from accelsim.workload.graph import Graph, LayerStep, Node, Shape, Unit

Step = LayerCall | NodeCall


@dataclass(frozen=True, eq=False)
class Lowered:
    """Steps and graph; host: names and ops of the nodes that are left to the host."""

    steps: tuple[Step, ...]
    graph: Graph
    host: tuple[str, ...]

    @property
    def layers(self) -> tuple[LayerCall, ...]:
        return tuple(step for step in self.steps if isinstance(step, LayerCall))


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
class StepBuilder:
    """Takes steps in the order in which they run.

    hosted: as Graph.hosts; on_host: op of the nodes that the host does. Inputs are named provisionally, since
    their names give way to those of layers and nodes, which come of the model's parts.
    """

    names: Names = field(default_factory=Names)
    steps: list[Step] = field(default_factory=list)
    inputs: dict[str, str] = field(default_factory=dict)
    hosted: dict[str, int] = field(default_factory=dict)
    on_host: dict[str, str] = field(default_factory=dict)
    layers: int = 0

    def add_input(self, name: str) -> str:
        """The provisional name of an input of the model."""
        provisional = f"<{name}>"
        self.inputs[provisional] = name
        self.hosted[provisional] = -1
        return provisional

    def add_layer(self, call: LayerCall) -> str:
        self.steps.append(call)
        self.hosted[call.name] = self.layers
        self.layers += 1
        return call.name

    def add_node(
        self,
        name: str,
        op: str,
        reads: Sequence[str],
        shape: Shape,
        *,
        function: str,
        attributes: Mapping[str, Any],
        operands: tuple[str, ...],
        work: int | None = None,
        on_host: bool = False,
    ) -> str:
        """name: from `names`. work: elements of its time, where op and shapes do not say it."""
        # The global PE cannot take up, within a step, what the host makes after it.
        own = max(self.hosted[read] for read in reads)
        follows = any(read in self.on_host and self.hosted[read] == own for read in reads)
        if on_host or (follows and own >= 0):
            self.on_host[name] = op
        unit: Unit = "none" if name in self.on_host else "global_pe"
        self.steps.append(
            NodeCall(Node(name, op, tuple(reads), shape, unit, work), function, attributes, operands)
        )
        self.hosted[name] = own
        return name

    def finish(self, inputs: Mapping[str, Shape], outputs: Sequence[str]) -> Lowered:
        """inputs: shapes by provisional name; outputs: names, each once. Raises AccelsimError."""
        if not self.layers:
            raise AccelsimError(
                "model: has no convolution, linear layer or matrix product, expected at least one"
            )
        read = {name for step in self.steps for name in step.reads} | set(outputs)
        renamed = {provisional: self.names.unique(self.inputs[provisional]) for provisional in inputs}
        steps = tuple(_renamed(step, renamed) for step in self.steps)
        listed = tuple(
            LayerStep(step.name, step.reads) if isinstance(step, LayerCall) else step.node for step in steps
        )
        taken = tuple((renamed[name], shape) for name, shape in inputs.items() if name in read)
        graph = Graph(taken, listed, tuple(renamed.get(name, name) for name in outputs))
        graph.check([step.layer for step in steps if isinstance(step, LayerCall)])
        return Lowered(steps, graph, tuple(f"{name} ({op})" for name, op in self.on_host.items()))


def never_negative(value: Any) -> bool:
    """True for an array of numbers of which none is below 0."""
    return bool(value.dtype.kind in "biuf" and value.size and (value >= 0).all())


def _renamed(step: Step, names: Mapping[str, str]) -> Step:
    reads = tuple(names.get(name, name) for name in step.reads)
    if isinstance(step, LayerCall):
        return LayerCall(step.layer, step.weight, step.bias, reads)
    node = step.node
    renamed = Node(node.name, node.op, reads, node.shape, node.unit, node.elements)
    return NodeCall(renamed, step.function, step.attributes, step.operands)
