"""Tensors as they wait in the global buffer, while torch moves them about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from accelsim.capture.calls import LayerCall
from accelsim.inference.layer import TensorFormat
from accelsim.quantize.layers import input_vectors, weight_vectors
from accelsim.torch.catalogue import name_of
from accelsim.torch.walk import Step
from accelsim.workload.layer import LayerSpec

_CASTS = ("_to_copy", "to", "type_as")
_REINTERPRETED = ("view_as_complex", "view_as_real")


@dataclass(frozen=True, eq=False)
class Stored:
    """codes: int16, of the tensor's shape; scales: int32, of every element that of its block, or None of a
    format without; wide: the same tensor in the format for residuals, where it is stored in both.

    Views act on codes and scales alike, so that whoever reads can see which vectors are still whole.
    """

    codes: torch.Tensor
    scales: torch.Tensor | None
    format: TensorFormat
    wide: Stored | None = None

    def integers(self) -> torch.Tensor:
        """int32: codes times scales, in units of gamma, of a format of integers."""
        codes = self.codes.to(torch.int32)
        return codes if self.scales is None else codes * self.scales

    def floats(self) -> torch.Tensor:
        """float32. Integers have at most 24 bits and so has gamma: one rounding, that of the product."""
        operand = self.format.operand
        if not operand.is_integer:
            assert self.scales is not None
            values = operand.element.decode(self.codes.numpy()) * operand.scale.decode(self.scales.numpy())
            return torch.from_numpy((values * self.format.gamma).astype(np.float32))
        return self.integers().to(torch.float32) * float(self.format.gamma)

    def for_nodes(self) -> Stored:
        return self if self.wide is None else self.wide

    def viewed(self, function: Callable[[torch.Tensor], Any]) -> Any:
        """The tensor, or list of tensors, that a view of torch makes of it."""
        codes, spec = pytree.tree_flatten(function(self.codes))
        scales = [None] * len(codes) if self.scales is None else pytree.tree_leaves(function(self.scales))
        wides = [None] * len(codes) if self.wide is None else pytree.tree_leaves(self.wide.viewed(function))
        parts = [
            Stored(code, scale, self.format, wide)
            for code, scale, wide in zip(codes, scales, wides, strict=True)
        ]
        return pytree.tree_unflatten(parts, spec)


def floats_of(value: Any) -> Any:
    """A stored tensor as nodes read it, in float32; anything else as it is."""
    return value.for_nodes().floats() if isinstance(value, Stored) else value


def has_stored(values: Any) -> bool:
    return any(isinstance(value, Stored) for value in pytree.tree_leaves(values))


def by_element(scales: NDArray[np.integer], groups: int, size: int, width: int) -> NDArray[np.int32]:
    """Scales [rows, groups * ceil(width/size)] of vectors as int32[rows, groups * width] of elements."""
    rows = len(scales)
    spread = np.repeat(scales.astype(np.int32).reshape(rows, groups, -1), size, axis=2)
    return spread[:, :, :width].reshape(rows, groups * width)


Cut = Callable[[torch.Tensor], NDArray[Any]]
"""Of an operand's codes or scales: its vectors [..., V], as the layer takes them."""


def cuts(call: LayerCall, spec: LayerSpec) -> tuple[Cut, Cut]:
    """How a layer cuts its input and its weight operand."""

    def inputs(values: torch.Tensor) -> NDArray[Any]:
        rows = call.input_operand(values.numpy())
        return input_vectors(rows, call.layer.geometry, spec.vector_size, spec.packed_im2col)

    def weights(values: torch.Tensor) -> NDArray[Any]:
        return weight_vectors(call.weight_operand(values.numpy()), spec.vector_size, spec.packed_im2col)

    return inputs, weights


def view(step: Step) -> Any:
    """A step that only moves tensors about."""
    found = [value for value in pytree.tree_leaves(step.reads) if isinstance(value, Stored)]
    name = name_of(step.node.target)
    if not found or name in _REINTERPRETED:
        return step.result(floats_of)
    if name in _CASTS:
        return found[0] if step.node.meta["val"].dtype.is_floating_point else step.result(floats_of)

    def moved(tensor: torch.Tensor) -> Any:
        return step.result(lambda argument: tensor if isinstance(argument, Stored) else argument)

    return found[0].viewed(moved)
