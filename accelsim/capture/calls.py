"""Steps of a captured model: the layers and nodes of its graph, with what it takes to compute them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.workload.graph import Node
from accelsim.workload.layer import Layer

Floats = NDArray[np.float32]
Operands = tuple[Floats, Floats, Floats | None]
"""input float32[N, C, H, W], weight float32[K, C/groups, R, S], bias float32[K] or None."""


@dataclass(frozen=True, eq=False)
class LayerCall:
    """One use of a layer. weight: float32[K, C/groups, R, S], None where it is computed at run time; bias:
    float32[K] or None; reads: names of the tensors of the graph that it takes.
    """

    layer: Layer
    weight: Floats | None
    bias: Floats | None
    reads: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.layer.name

    def operands(self, x: NDArray[Any], weight: NDArray[Any] | None = None) -> Operands:
        """Of tensors as the model has them; weight is given where it is computed at run time."""
        stored = self.weight if weight is None else self.weight_operand(weight)
        assert stored is not None
        return np.ascontiguousarray(self.input_operand(x), np.float32), stored, self.bias

    def input_operand(self, x: NDArray[Any]) -> NDArray[Any]:
        """[N, C, H, W] of any type."""
        g = self.layer.geometry
        x = np.asarray(x)
        if self.layer.op == "conv":
            return x.reshape(g.N, g.C, g.H, g.W)
        # Matrices of [pixels, channels of a group], one a group or an image.
        rows = x.reshape(g.N * g.groups, g.pixels // g.N, g.channels_per_group).swapaxes(1, 2)
        return rows.reshape(g.N, g.C, g.H, g.W)

    def weight_operand(self, weight: NDArray[Any]) -> NDArray[Any]:
        """[K, C/groups, 1, 1] of the second matrices of a matmul, [channels, outputs] of each group."""
        g = self.layer.geometry
        columns = np.asarray(weight).reshape(g.groups, g.channels_per_group, g.outputs_per_group)
        return np.ascontiguousarray(columns.swapaxes(1, 2).reshape(g.K, g.channels_per_group, 1, 1))

    def output(self, y: Floats, shape: tuple[int, ...]) -> Floats:
        """y float32[N, K, P, Q] as the model has it, in the given shape."""
        return np.ascontiguousarray(self.shaped(y, shape), np.float32)

    def shaped(self, y: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """y [N, K, P, Q] of any type in the given shape."""
        g = self.layer.geometry
        if self.layer.op != "conv":
            y = y.reshape(g.N * g.groups, g.outputs_per_group, g.P * g.Q).swapaxes(1, 2)
        return y.reshape(shape)


@dataclass(frozen=True, eq=False)
class NodeCall:
    """One node. function: what the framework calls; attributes: its arguments by name, without the tensors
    computed at run time, constants as arrays; operands: of those tensors the names of their arguments, in
    order.
    """

    node: Node
    function: str
    attributes: Mapping[str, Any]
    operands: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def reads(self) -> tuple[str, ...]:
        return self.node.reads


OnLayer = Callable[[LayerCall, Operands], Floats | None]
OnNode = Callable[[NodeCall, list[NDArray[Any]], NDArray[Any]], NDArray[Any] | None]


def rows_and_images(rows: int, rank: int, batch: int | None) -> tuple[int, int]:
    """(N, W) of a linear layer: images where it has one row for each, else one image of all rows."""
    return (rows, 1) if rank == 2 and rows == batch else (1, rows)
