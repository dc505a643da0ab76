"""Random graphs on layers: branches, residuals, row operations, nodes everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field

import hand_graph
import numpy as np
from cycle_model.sizes import input_shape, output_shape
from hand_machine import hand_arch
from numpy.random import Generator
from pick import pick

from accelsim.machine.arch import Arch
from accelsim.workload.graph import Graph, LayerStep, Node, Shape, Unit
from accelsim.workload.layer import QuantizedLayer

STREAMING = ("add", "gelu", "relu", "multiply")
ROWS = ("softmax", "layer_norm", "rms_norm")
MOST_TENSORS = 13


@dataclass
class _Drawing:
    """A graph as far as it is drawn."""

    rng: Generator
    layers: list[QuantizedLayer]
    inputs: list[tuple[str, Shape]] = field(default_factory=list)
    steps: list[LayerStep | Node] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    host: dict[str, int] = field(default_factory=dict)  # the layer that makes it or hosts its node; -1: none
    by_host: set[str] = field(default_factory=set)  # made by nodes on the host
    unread: list[str] = field(default_factory=list)

    def graph(self) -> Graph:
        for i, layer in enumerate(self.layers):
            if i == 0:
                self._before_layers()
            self._layer(i, layer)
            for _ in range(pick(self.rng, 0, 1, 1, 1, 2, 3)):
                if len(self.shapes) < MOST_TENSORS - 2 * (len(self.layers) - 1 - i):
                    self._node(i)
        others = [step.name for step in self.steps if step.name not in self.unread]
        more = [name for name in others if self.rng.random() < 0.12]
        # What nobody reads is an output, but for inputs of the graph, which it may as well have.
        return Graph(tuple(self.inputs), tuple(self.steps), tuple([*self.unread, *more]))

    def _add_input(self, shape: Shape) -> str:
        name = f"input{len(self.inputs)}"
        self.inputs.append((name, shape))
        self.shapes[name], self.host[name] = shape, -1
        return name

    def _add(self, step: LayerStep | Node, shape: Shape, host: int) -> None:
        self.steps.append(step)
        self.shapes[step.name], self.host[step.name] = shape, host
        self.unread = [name for name in self.unread if name not in step.reads] + [step.name]

    def _before_layers(self) -> None:
        """One input or two, and nodes that need no layer."""
        self._add_input(input_shape(self.layers[0]))
        if self.rng.random() < 0.3:
            self._add_input(pick(self.rng, input_shape(self.layers[-1]), (1, 5, 2, 3)))
        for _ in range(pick(self.rng, 0, 0, 0, 1, 1, 2)):
            reads = self._some(list(self.shapes), pick(self.rng, 1, 1, 2))
            self._add_node(pick(self.rng, *STREAMING, *ROWS), reads, self.shapes[reads[0]])

    def _some(self, names: list[str], number: int) -> tuple[str, ...]:
        """Of these, rather the last."""
        found: list[str] = []
        for _ in range(min(number, len(names))):
            left = [name for name in names if name not in found]
            latest = self.rng.random() < 0.4
            found.append(left[-1] if latest else left[int(self.rng.integers(len(left)))])
        return tuple(found)

    def _source(self, shape: Shape) -> str:
        """What a layer reads; what nobody has read yet and what others read before."""
        chance = self.rng.random()
        if chance < 0.06:
            return self._add_input(shape)
        read = [name for name in self.shapes if name not in self.unread]
        names = self.unread if chance < 0.35 else read if chance < 0.75 else list(self.shapes)
        return self._some(names or list(self.shapes), 1)[0]

    def _layer(self, i: int, layer: QuantizedLayer) -> None:
        reads = [self._source(input_shape(layer))]
        if i and self.rng.random() < 0.25:
            # What the layer before read: query, key and value.
            reads = [next(s for s in reversed(self.steps) if isinstance(s, LayerStep)).reads[0]]
        if layer.weight_is_activation:
            g = layer.geometry
            operands = [self._source((g.K, g.channels_per_group, g.R, g.S)) for _ in range(3)]
            reads.append(next((name for name in operands if name != reads[0]), reads[0]))
        self._add(LayerStep(layer.name, tuple(reads)), output_shape(layer), i)

    def _node(self, i: int) -> None:
        """A node after layer i, which need not be its host."""
        last = self.steps[-1].name
        step = next(s for s in reversed(self.steps) if isinstance(s, LayerStep))
        n, c, h, w = shape = self.shapes[last]
        kind = pick(
            self.rng, "one", "rows", "pool", "residual", "residual", "input again", "any", "host", "shape"
        )
        others = [name for name in self.shapes if name != last]
        if kind == "one":
            self._add_node(pick(self.rng, *STREAMING), (last,), shape)
        elif kind == "rows":
            self._add_node(pick(self.rng, *ROWS), (last,), shape)
        elif kind == "pool":
            pooled = (n, c, -(-h // 2), -(-w // 2)) if self.rng.random() < 0.7 else (n, c, 1, 1)
            self._add_node(pick(self.rng, "max_pool", "avg_pool"), (last,), pooled)
        elif kind == "residual":
            reads = (last, *self._some(others, pick(self.rng, 1, 1, 2)))
            self._add_node(pick(self.rng, "add", "multiply", "add_relu", "layer_norm"), reads, shape)
        elif kind == "input again":
            self._add_node("add", (last, *(name for name in step.reads[:1] if name != last)), shape)
        elif kind == "host":
            unit: Unit = "none"
            self._add_node("gelu", self._some(list(self.shapes), pick(self.rng, 1, 1, 2)), shape, unit)
        else:
            reads = self._some(list(self.shapes), pick(self.rng, 1, 2, 3))
            size = (int(m) for m in self.rng.integers(1, 7, size=3))
            other = (next(size), int(self.rng.integers(1, 12)), next(size), next(size))
            self._add_node(pick(self.rng, *STREAMING, *ROWS), reads, other if kind == "shape" else shape)

    def _add_node(self, op: str, reads: tuple[str, ...], shape: Shape, unit: Unit = "global_pe") -> None:
        host = max(self.host[name] for name in reads)
        if unit == "global_pe" and host >= 0:
            # Its host would have to wait for the host.
            reads = tuple(name for name in reads if name not in self.by_host or self.host[name] < host)
            if not reads or max(self.host[name] for name in reads) < host:
                return
        name = f"node{len(self.steps)}"
        self._add(Node(name, op, reads, shape, unit), shape, host)
        if unit == "none":
            self.by_host.add(name)


def random_graph(rng: Generator, layers: list[QuantizedLayer]) -> Graph:
    """A graph on these layers, whose sizes need not fit each other: branches, residuals, nodes everywhere."""
    return _Drawing(rng, layers).graph()


def placed_layers(seed: int) -> tuple[Arch, list[QuantizedLayer], Graph]:
    """Layers of all sizes that are only placed, and a graph on them."""
    rng = np.random.default_rng(seed)
    arch = hand_arch(
        pes=int(rng.integers(1, 4)),
        global_buffer_kb=1,
        gb_banks=int(rng.integers(4, 17)),
        gb_weight_banks=1,
        output_staging_tiles=int(rng.integers(1, 9)),
    )
    layers = []
    for i in range(int(rng.integers(2, 6))):
        pixels, c, k = (int(rng.integers(*pick(rng, (1, 13), (12, 33)))) for _ in range(3))
        layers.append(hand_graph.layer(f"layer{i}", c, k, pixels, made_weights=bool(rng.random() < 0.3)))
    return arch, layers, random_graph(rng, layers)
