"""Tensors, steps and layers of the graphs that tests of the cycle-stepped model count by hand."""

from __future__ import annotations

from hand_machine import hand_layer

from accelsim.workload.graph import LayerStep, Node, Shape
from accelsim.workload.layer import QuantizedLayer


def chans(n: int, pixels: int = 32) -> Shape:
    return pixels, n, 1, 1


def step(name: str, *reads: str) -> LayerStep:
    return LayerStep(name, reads)


def node(name: str, op: str, *reads: str, shape: Shape, unit: str = "global_pe") -> Node:
    return Node(name, op, reads, shape, unit)  # type: ignore[arg-type]


def layer(name: str, c: int, k: int, pixels: int = 32, *, made_weights: bool = False) -> QuantizedLayer:
    return hand_layer(pixels, c, k, name=name, weight_is_activation=made_weights)
