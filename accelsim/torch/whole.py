"""Which operands reach a layer in whole vectors, so that their codes can be taken as they are.

That goes by the graph and not by values: of a capture it is found out once, with numbers of vectors in place
of scales.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.utils import _pytree as pytree

from accelsim.capture.calls import LayerCall
from accelsim.formats.operand import Operand
from accelsim.inference import between
from accelsim.inference.layer import HardwareLayer, TensorFormat
from accelsim.torch.calls import shaped
from accelsim.torch.storage import is_view
from accelsim.torch.stored import Cut, Stored, by_element, cuts, view
from accelsim.torch.tracing import Traced
from accelsim.torch.walk import Step, walk

Formats = tuple[TensorFormat, TensorFormat | None]
"""Of a stored tensor, and of its second copy for nodes."""

Whole = frozenset[tuple[fx.Node, str]]
"""Calls of layers with the operand, `input` or `weight`, that comes in their own format and vectors."""


def find_whole(
    traced: Traced,
    inputs: Any,
    layers: Mapping[str, HardwareLayer],
    formats: Mapping[str, Formats],
) -> Whole:
    """Of a capture, on any inputs of its shapes: nothing of their values counts, and nothing is computed."""
    found: set[tuple[fx.Node, str]] = set()

    def numbered(step: Step) -> Any:
        formats_of = formats.get(step.call.name) if step.call is not None else None
        value = step.node.meta["val"]
        if step.node.target is operator.getitem:
            return step.result()
        if is_view(step.node):
            return view(step)
        if isinstance(step.call, LayerCall):
            spec = layers[step.call.name].of_size(step.call.layer).words.spec
            sides = [("input", spec.input_operand), ("weight", spec.weight_operand)]
            for (side, operand), argument, cut in zip(sides, step.args, cuts(step.call, spec), strict=False):
                if _is_whole(argument, operand, cut):
                    found.add((step.node, side))
        if formats_of is None:
            return pytree.tree_map(_nothing, value)
        own = _numbered(step, formats_of[0])
        return own if isinstance(value, torch.Tensor) else (own, *pytree.tree_map(_nothing, value[1:]))

    walk([(traced, inputs)], lambda steps: [numbered(step) for step in steps])
    return frozenset(found)


def _nothing(value: Any) -> Any:
    return torch.zeros(value.shape, dtype=value.dtype) if isinstance(value, torch.Tensor) else value


def _is_whole(value: Any, operand: Operand, cut: Cut) -> bool:
    if not isinstance(value, Stored):
        return False
    own = value.format.operand
    formats = [(each.element, each.scale.kind, each.scale.bits) for each in (own, operand)]
    if formats[0] != formats[1]:
        return False
    if value.scales is None:
        return True
    numbers = cut(value.scales)
    return between.shared_scales(np.ascontiguousarray(numbers).reshape(-1, numbers.shape[-1])) is not None


def _numbered(step: Step, output: TensorFormat) -> Stored:
    """A tensor of zeros, each block of which bears its own number as scale."""
    shape = step.node.meta["val"]
    shape = tuple((shape if isinstance(shape, torch.Tensor) else shape[0]).shape)
    codes = torch.zeros((), dtype=torch.int16).expand(shape)
    if not output.operand.scale.bits:
        return Stored(codes, None, output)
    if isinstance(step.call, LayerCall):
        g = step.call.layer.geometry
        size = min(output.block, g.outputs_per_group)
        count = g.groups * -(-g.outputs_per_group // size)
        numbers = np.arange(1, g.pixels * count + 1, dtype=np.int32).reshape(g.pixels, count)
        spread = torch.from_numpy(by_element(numbers, g.groups, size, g.outputs_per_group))
        image = spread.reshape(g.N, g.P, g.Q, g.K).permute(0, 3, 1, 2)
        return Stored(codes, shaped(step.call, image, shape), output)
    axis = (step.node.meta["channels"] or (len(shape) - 1,))[-1]
    moved = torch.zeros(shape).movedim(axis, -1).shape
    width, size = moved[-1], min(output.block, moved[-1])
    rows, count = int(np.prod(moved[:-1])), -(-width // size)
    numbers = np.arange(1, rows * count + 1, dtype=np.int32).reshape(rows, count)
    spread = torch.from_numpy(by_element(numbers, 1, size, width)).reshape(moved)
    return Stored(codes, spread.movedim(-1, axis), output)
