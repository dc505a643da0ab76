"""Nodes that the global PE computes in integers: adds, pools and moves of values (docs/inference.md)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.utils import _pytree as pytree

from accelsim.capture.calls import NodeCall
from accelsim.inference import between
from accelsim.inference.layer import TensorFormat
from accelsim.torch.catalogue import name_of
from accelsim.torch.stored import Stored
from accelsim.torch.walk import Step

_MOVES = frozenset("concat pad relu max_pool requantize channel_shuffle pixel_shuffle flip roll".split())
"""Ops that choose among the aligned operands, or put a zero."""

_SUMS = frozenset("add add_relu subtract".split())


def integer_node(step: Step, call: NodeCall, output: TensorFormat) -> torch.Tensor | None:
    """z int64 of the node's result, in units of 2^-F of the output's gamma; None where it takes floats."""
    operands = [
        v for v in pytree.tree_leaves((step.args, step.kwargs)) if isinstance(v, (Stored, torch.Tensor))
    ]
    if not operands or not output.operand.is_integer:
        return None
    if not all(isinstance(own, Stored) and own.for_nodes().format.operand.is_integer for own in operands):
        return None
    op = call.node.op

    def align(value: Any) -> Any:
        if not isinstance(value, Stored):
            return value
        stored = value.for_nodes()
        z = between.aligned(stored.integers().to(torch.int64).numpy(), stored.format.gamma, output)
        return torch.from_numpy(z)

    if op in _SUMS:
        if len(operands) != 2 or call.attributes.get("alpha", 1) != 1:
            return None
        first, second = (align(operand) for operand in operands)
        z = first - second if op == "subtract" else first + second
        z = torch.from_numpy(between.saturated(z.numpy()))
        return z.clamp(min=0) if op == "add_relu" else z
    if op in _MOVES:
        if op == "pad" and call.attributes.get("value") not in (None, 0, 0.0):
            return None
        # 24-bit integers are exact in float32, for which torch has all of these.
        result = step.result(
            lambda value: align(value).to(torch.float32) if isinstance(value, Stored) else value
        )
        first = result if isinstance(result, torch.Tensor) else result[0]
        return first.to(torch.int64)
    if op == "avg_pool":
        return _average(step, call, output)
    return None


def _average(step: Step, call: NodeCall, output: TensorFormat) -> torch.Tensor | None:
    """The window's sum, with the division in the multiplier; None where windows differ in size."""
    stored = next(
        v for v in pytree.tree_leaves((step.args, step.kwargs)) if isinstance(v, Stored)
    ).for_nodes()
    count = window(name_of(step.node.target), call.attributes, tuple(stored.codes.shape))
    if count is None:
        return None
    values = stored.integers().to(torch.float64)
    averages = step.result(lambda value: values if isinstance(value, Stored) else value)
    sums = torch.round(averages * count).to(torch.int64)
    z = between.aligned(sums.numpy(), stored.format.gamma / count, output)
    return torch.from_numpy(z)


def window(function: str, attributes: Any, shape: tuple[int, ...]) -> int | None:
    """Values in every window of an average pool; None where they are not equally many."""
    if function == "mean":
        return math.prod(shape[-2:])
    if "adaptive" in function:
        sizes = [int(size) for size in attributes["output_size"]]
        inside = shape[-len(sizes) :]
        if any(whole % part for whole, part in zip(inside, sizes, strict=True)):
            return None
        return math.prod(whole // part for whole, part in zip(inside, sizes, strict=True))
    kernel = [int(size) for size in attributes["kernel_size"]]
    padded = any(attributes.get("padding") or ()) and not attributes.get("count_include_pad", True)
    if attributes.get("ceil_mode") or padded or attributes.get("divisor_override"):
        return None
    rank = 1 if function.endswith("1d") else 2
    return math.prod(kernel * rank if len(kernel) == 1 else kernel)
