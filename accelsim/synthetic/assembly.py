"""Putting a network together: layers and nodes in the order in which they run, with what each reads."""

from __future__ import annotations

import math
from dataclasses import replace

from accelsim.synthetic.recipe import RecipeLayer
from accelsim.workload.geometry import Geometry
from accelsim.workload.graph import Graph, LayerStep, Node, Shape, output_shape
from accelsim.workload.layer import Layer


class Assembly:
    """A network as far as it is put together. Methods return the name of the tensor that they make."""

    def __init__(self) -> None:
        self.layers: list[RecipeLayer] = []
        self.shapes: dict[str, Shape] = {}
        self._inputs: list[tuple[str, Shape]] = []
        self._steps: list[LayerStep | Node] = []
        self._outputs: list[str] = []

    def input(self, name: str, shape: Shape) -> str:
        self._inputs.append((name, shape))
        self.shapes[name] = shape
        return name

    def output(self, name: str) -> None:
        """It has to go to DRAM, as what the last step makes."""
        self._outputs.append(name)

    def layer(self, layer: Layer, reads: tuple[str, ...], weight: str, input: str, bias: str | None) -> str:
        """weight, input, bias: distributions, see RecipeLayer."""
        self.layers.append(RecipeLayer(layer, weight, input, bias))
        self._steps.append(LayerStep(layer.name, reads))
        self.shapes[layer.name] = output_shape(layer)
        return layer.name

    def share_tensors(self, first: int, of: str, own: str) -> None:
        """Layers from the `first` on, named with the prefix `own`, have the tensors of those named with
        `of`."""
        for index in range(first, len(self.layers)):
            layer = self.layers[index]
            self.layers[index] = replace(layer, tensors=of + layer.name.removeprefix(own))

    def node(self, name: str, op: str, *reads: str, shape: Shape | None = None) -> str:
        """shape: by default that of the first tensor that is read."""
        self.shapes[name] = shape or self.shapes[reads[0]]
        self._steps.append(Node(name, op, reads, self.shapes[name]))
        return name

    def conv(
        self,
        name: str,
        source: str,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        groups: int = 1,
        activation: str = "relu",
        input: str = "relu",
    ) -> str:
        """A convolution padded by kernel // 2, as torchvision pads it."""
        batch, channels, height, width = self.shapes[source]
        padding = kernel // 2
        geometry = Geometry(
            N=batch, C=channels, H=height, W=width, K=outputs, R=kernel, S=kernel,
            stride=(stride, stride), padding=(padding, padding), groups=groups,
        )  # fmt: skip
        return self.layer(Layer(name, "conv", geometry, activation), (source,), "weight", input, "bias")

    def linear(
        self,
        name: str,
        source: str,
        outputs: int,
        input: str,
        *,
        images: int = 1,
        rows: int = 1,
        bias: str | None = "bias",
    ) -> str:
        """A matrix product on `rows` rows of each image, among which the source's elements are shared."""
        channels = math.prod(self.shapes[source]) // (images * rows)
        geometry = Geometry(N=images, C=channels, H=1, W=rows, K=outputs)
        return self.layer(Layer(name, "linear", geometry), (source,), "weight", input, bias)

    def graph(self) -> Graph:
        """What the last step makes is an output too."""
        return Graph(tuple(self._inputs), tuple(self._steps), (*self._outputs, self._steps[-1].name))
