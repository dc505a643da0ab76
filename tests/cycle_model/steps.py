"""docs/residency.md, Steps and tensors: which step of a run makes each tensor, and which steps read it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from accelsim.formats.catalogue import integer_operand
from accelsim.formats.operand import Operand
from accelsim.machine.arch import Arch
from accelsim.workload.graph import Graph, LayerStep, Node, Shape
from accelsim.workload.layer import QuantizedLayer
from cycle_model.sizes import elements_of, layer_bits, output_shape, stored_bits

POOLS = ("max_pool", "avg_pool")
ROW_WORK = ("softmax", "layer_norm", "rms_norm")
NO_LAYER = -1
START = -1  # before the first step
FOR_NODES = " for nodes"  # in the name of a copy in the format of residuals


@dataclass(frozen=True)
class Work:
    """A node on the global PE. elements: of its time; read, written: of the global buffer."""

    name: str
    op: str
    elements: int
    read: int
    written: int
    read_bits: int  # of a code, as nodes read it
    written_bits: tuple[int, ...]  # of a code, in each format of what it makes


@dataclass(frozen=True)
class Step:
    """One step of the run: a layer with the nodes that it hosts, or a node that needs no layer."""

    layer: int | None
    input: str | None
    weight: str | None  # the tensor that is its weight operand
    work: tuple[Work, ...]
    operands: tuple[str, ...]  # what the nodes read of earlier steps and DRAM, in the order of tensors
    makes: tuple[str, ...]  # in the order of tensors

    def reads(self, name: str) -> bool:
        return name in (self.input, self.weight, *self.operands)


@dataclass(frozen=True)
class Tensor:
    name: str
    stored: int
    size: int
    made_in: int | None  # the step; None for what no step makes
    there_after: int  # the step by whose end it is made or in DRAM
    goes_to_dram: bool  # as an output of the graph, or for the host
    readers: tuple[int, ...]  # steps, without the one that makes it


@dataclass(frozen=True)
class Run:
    steps: list[Step]
    tensors: dict[str, Tensor]  # in their order, also those that no step reads; each copy is one
    formats: list[tuple[Operand, ...]]  # of each layer's output


class UnbuildableGraph(Exception):
    """A node on the global PE reads what the host makes only after the node's step."""


def chain_of(layers: list[QuantizedLayer]) -> Graph:
    """The layers one after another, each before the work of its specification.

    Layers are named by their numbers, since names need not differ here.
    """
    return Graph.chain(
        [replace(layer.layer, name=str(i)) for i, layer in enumerate(layers)],
        {str(i): [(w.op, w.elements) for w in layer.spec.global_pe] for i, layer in enumerate(layers)},
    )


class _Walk:
    def __init__(self, arch: Arch, layers: list[QuantizedLayer], graph: Graph) -> None:
        self.arch, self.layers, self.graph = arch, layers, graph
        ran = [step for step in graph.steps if isinstance(step, LayerStep)]
        assert len(ran) == len(layers)
        self.layer_steps = {step.name: (i, step) for i, step in enumerate(ran)}
        self.shapes: dict[str, Shape] = dict(graph.inputs)
        self.host: dict[str, int] = {name: NO_LAYER for name, _ in graph.inputs}  # or the layer itself
        for step in graph.steps:
            if isinstance(step, LayerStep):
                index = self.layer_steps[step.name][0]
                self.host[step.name], self.shapes[step.name] = index, output_shape(layers[index])
            else:
                self.host[step.name] = max(self.host[name] for name in step.reads)
                self.shapes[step.name] = step.shape
        on_pe = [node for node in graph.nodes if node.unit == "global_pe"]
        self.alone = [node for node in on_pe if self.host[node.name] == NO_LAYER]
        self.hosted = [
            [node for node in on_pe if self.host[node.name] == index] for index in range(len(layers))
        ]
        self.order = [name for name, _ in graph.inputs] + [step.name for step in graph.steps]
        # The step that makes a tensor, and the one after which it can be read.
        self.made_in: dict[str, int] = {node.name: i for i, node in enumerate(self.alone)}
        for index, name in enumerate(self.layer_steps):
            for made in (name, *(node.name for node in self.hosted[index])):
                self.made_in[made] = len(self.alone) + index
        self.there_after: dict[str, int] = {name: START for name, _ in graph.inputs} | self.made_in
        for node in graph.nodes:
            if node.unit == "none":
                self.there_after[node.name] = max(self.there_after[name] for name in node.reads)

    def run(self) -> Run:
        steps = [self._step(i, None, [node]) for i, node in enumerate(self.alone)]
        for index, nodes in enumerate(self.hosted):
            steps.append(self._step(len(self.alone) + index, index, nodes))
        tensors = [self._tensor(name, copy, steps) for name in self.order for copy in self._copies(name)]
        formats = [tuple(self._copies(name).values()) for name in self.layer_steps]
        return Run(steps, {tensor.name: tensor for tensor in tensors}, formats)

    def _copies(self, name: str) -> dict[str, Operand]:
        """Formats: of the copies of a tensor, that for layers first, by their names."""
        host = self.host[name]
        own = self.layers[0].scheme.activation if host == NO_LAYER else self.layers[host].output.operand
        for_layers = any(isinstance(step, LayerStep) and name in step.reads for step in self.graph.steps)
        for_nodes = any(node.unit != "none" and name in node.reads for node in self.graph.nodes)
        if self.arch.residual is None or not for_nodes:
            return {name: own}
        bits, scale_bits = (0 if part == "-" else int(part) for part in self.arch.residual.split("/"))
        if (own.bits, own.scale.bits) == (bits, scale_bits):
            return {name: own}
        own_copy = {name: own} if for_layers else {}
        return own_copy | {name + FOR_NODES: integer_operand(bits, scale_bits)}

    def _as_nodes_read(self, name: str) -> str:
        return list(self._copies(name))[-1]

    def _step(self, number: int, layer: int | None, nodes: list[Node]) -> Step:
        read = {name for node in nodes for name in node.reads if self.made_in.get(name) != number}
        for name in read:
            # ASSUMPTION: what the page leaves open is refused. The host's result is in DRAM only from the
            # end of the step in which the node that reads it, by the rule of hosts, would have to run.
            if self.there_after[name] >= number:
                raise UnbuildableGraph(f"a node of step {number} reads {name}, which the host makes after it")
        source = weight = None
        if layer is not None:
            reads = list(self.layer_steps.values())[layer][1].reads
            source, weight = reads if len(reads) == 2 else (reads[0], None)
            assert (weight is not None) == self.layers[layer].weight_is_activation
        return Step(
            layer=layer,
            input=source,
            weight=weight,
            work=tuple(self._work(node) for node in nodes),
            operands=tuple(self._as_nodes_read(name) for name in self.order if name in read),
            makes=tuple(
                copy for name in self.order if self.made_in.get(name) == number for copy in self._copies(name)
            ),
        )

    def _work(self, node: Node) -> Work:
        read = sum(elements_of(self.shapes[name]) for name in node.reads)
        written = elements_of(node.shape)
        elements = node.elements
        if elements is None:
            elements = read if node.op in POOLS else written
        if self.graph.is_chain:
            read = written = elements
        booked = self.layers[max(self.host[node.name], 0)].scheme.activation.bits
        residual = None if self.arch.residual is None else int(self.arch.residual.split("/")[0])
        formats = [
            operand.bits if copy.endswith(FOR_NODES) else booked
            for copy, operand in self._copies(node.name).items()
        ]
        read_bits = booked if residual is None else residual
        return Work(node.name, node.op, elements, read, written, read_bits, tuple(formats))

    def _tensor(self, name: str, copy: str, steps: list[Step]) -> Tensor:
        copies = self._copies(name)
        stored, is_first = self._stored(name, copies[copy]), copy == next(iter(copies))
        # Of nodes the host's read a copy for layers beside one for nodes.
        by_host_only = is_first and len(copies) > 1
        made_in = self.made_in.get(name)
        sizes = []
        # ASSUMPTION: "a node reads it" also where the node is on the host.
        if made_in is not None or any(
            name in node.reads and (node.unit == "none" or not by_host_only) for node in self.graph.nodes
        ):
            sizes.append(stored)
        for step in steps:
            if step.layer is not None:
                in_bits, _, w_bits = layer_bits(self.layers[step.layer])
                sizes += [in_bits] * (copy == step.input) + [w_bits] * (copy == step.weight)
        for_host = any(name in node.reads for node in self.graph.nodes if node.unit == "none")
        return Tensor(
            name=copy,
            stored=stored,
            size=max(sizes, default=stored),
            made_in=made_in,
            there_after=self.there_after[name],
            goes_to_dram=made_in is not None and is_first and (name in self.graph.outputs or for_host),
            readers=tuple(i for i, step in enumerate(steps) if step.reads(copy)),
        )

    def _stored(self, name: str, operand: Operand) -> int:
        shape, host = self.shapes[name], self.host[name]
        if host == NO_LAYER:
            # ASSUMPTION: "the scheme" is the first layer's, where layers have several.
            return stored_bits(self.arch, shape, operand, 1)
        layer = self.layers[host]
        groups = layer.geometry.groups if shape[1] == layer.geometry.K else 1
        return stored_bits(self.arch, shape, operand, groups)


def walk(arch: Arch, layers: list[QuantizedLayer], graph: Graph | None) -> Run:
    """Raises UnbuildableGraph."""
    return _Walk(arch, layers, chain_of(layers) if graph is None else graph).run()
