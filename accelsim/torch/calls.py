"""Steps of a captured model: the layers and nodes of its graph, with what it takes to compute them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
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

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """What the layer reads as [N, C, H, W]."""
        g = self.layer.geometry
        if self.layer.op == "conv":
            return x.reshape(g.N, g.C, g.H, g.W)
        # Matrices of [pixels, channels of a group], one a group or an image.
        rows = x.reshape(g.N * g.groups, g.pixels // g.N, g.channels_per_group).transpose(1, 2)
        return rows.reshape(g.N, g.C, g.H, g.W)

    def columns(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight operand computed at run time as [K, C/groups, 1, 1]."""
        g = self.layer.geometry
        columns = weight.reshape(g.groups, g.channels_per_group, g.outputs_per_group).transpose(1, 2)
        return columns.reshape(g.K, g.channels_per_group, 1, 1)

    def operands(self, x: torch.Tensor, weight: torch.Tensor | None = None) -> Operands:
        """Of torch's tensors; weight is given where it is computed at run time."""
        stored = self.weight if weight is None else as_floats(self.columns(weight))
        assert stored is not None
        return as_floats(self.rows(x)), stored, self.bias

    def shaped(self, y: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        """y [N, K, P, Q] as torch's tensor of the given shape."""
        g = self.layer.geometry
        if self.layer.op != "conv":
            y = y.reshape(g.N * g.groups, g.outputs_per_group, g.P * g.Q).transpose(1, 2)
        return y.reshape(shape)

    def output(self, y: Floats, shape: tuple[int, ...]) -> torch.Tensor:
        """y float32[N, K, P, Q] as torch's tensor of the given shape."""
        return self.shaped(torch.from_numpy(np.ascontiguousarray(y, np.float32)), shape)


@dataclass(frozen=True, eq=False)
class NodeCall:
    """One node. function: what torch calls; attributes: its arguments by name, without the tensors computed
    at run time, constants as arrays; operands: of those tensors the names of their arguments, in order.
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


def as_floats(value: torch.Tensor) -> Floats:
    return np.ascontiguousarray(value.detach().cpu().to(torch.float32).numpy())


def as_array(value: torch.Tensor) -> NDArray[Any]:
    """A tensor's values; types that numpy does not have as float32."""
    value = value.detach().cpu()
    return value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()


def rows_and_images(rows: int, rank: int, batch: int | None) -> tuple[int, int]:
    """(N, W) of a linear layer: images where it has one row for each, else one image of all rows."""
    return (rows, 1) if rank == 2 and rows == batch else (1, rows)
