"""Which axes of a tensor are its channels, so that N, C, H, W and the vectors of a tensor are known."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from accelsim.capture.channels import (
    Axes,
    permuted,
    reduces_channels,
    regrouped,
    usual_channels,
    without_axis,
)
from accelsim.capture.channels import nchw as sizes_of
from accelsim.torch import ops
from accelsim.torch.catalogue import TRANSPARENT, is_tensor, name_of, shape_of
from accelsim.torch.edit import call, is_constant
from accelsim.torch.rewrite import arguments
from accelsim.workload.graph import Shape


def nchw(node: fx.Node) -> Shape:
    """Of the tensor a node makes: its own where axis 1 is the channels, else one row of pixels."""
    value = node.meta["val"]
    parts = 2 if isinstance(value, torch.Tensor) and value.is_complex() else 1
    return sizes_of(shape_of(node), node.meta["channels"], parts)


def elements(node: fx.Node) -> int:
    """Real numbers in the tensor a node makes."""
    value = node.meta["val"]
    return math.prod(shape_of(node)) * (2 if isinstance(value, torch.Tensor) and value.is_complex() else 1)


def find_channels(module: fx.GraphModule) -> None:
    """Write node.meta["channels"], and put a `requantize` before matmuls whose operand needs it.

    A layer makes vectors along its channels. A matmul that reduces along another axis reads what has to be
    cut into vectors anew: the values of attention, made along their width, read along the tokens.
    """
    turned: dict[fx.Node, fx.Node] = {}
    for node in list(module.graph.nodes):
        if node.op in ("placeholder", "get_attr"):
            if is_tensor(node):
                node.meta["channels"], node.meta["made"] = usual_channels(len(shape_of(node))), False
            continue
        if node.op != "call_function" or node.meta.get("val") is None:
            continue
        if node.target is ops.matmul:
            for place, axis in ((0, -1), (1, -2)):
                operand = node.args[place]
                assert isinstance(operand, fx.Node)
                if operand.meta["made"] and not reduces_channels(
                    shape_of(operand), operand.meta["channels"], axis
                ):
                    if operand not in turned:
                        turned[operand] = new = call(node, ops.requantize, operand)
                        new.meta["channels"], new.meta["made"] = (len(shape_of(operand)) + axis,), True
                        new.meta["nn_module_stack"] = operand.meta.get("nn_module_stack", {})
                    node.update_arg(place, turned[operand])
        node.meta["channels"] = _channels(node)
        reads = [read for read in node.all_input_nodes if not is_constant(read)]
        view = name_of(node.target) in TRANSPARENT
        node.meta["made"] = not view or any(read.meta.get("made", False) for read in reads)


def _channels(node: fx.Node) -> Axes:
    shape = shape_of(node)
    rank = len(shape)
    if node.target is ops.conv:
        return (rank - len(shape_of(node.args[1])) + 1,)
    if node.target is ops.linear:
        return (rank - 1,)
    if node.target is ops.matmul:
        return (*range(rank - 2), rank - 1)
    name = name_of(node.target)
    if name == "embedding":
        return (rank - 1,)
    reads = [read for read in node.all_input_nodes if is_tensor(read) and not is_constant(read)]
    reads = reads or [read for read in node.all_input_nodes if "channels" in read.meta]
    if name in TRANSPARENT and reads:
        return _view_channels(node, name, reads[0])
    for same in (lambda read: shape_of(read) == shape, lambda read: len(shape_of(read)) == rank):
        for read in reads:
            if same(read):
                channels: Axes = read.meta["channels"]
                return channels
    return usual_channels(rank)


def _view_channels(node: fx.Node, name: str, source: fx.Node) -> Axes:
    old, new = shape_of(source), shape_of(node)
    channels: Axes = source.meta["channels"]
    given = arguments(node)
    order: list[Any] | None = None
    if name in ("transpose", "swapaxes"):
        order = list(range(len(old)))
        a, b = (given[key] % len(old) for key in ("dim0", "dim1"))
        order[a], order[b] = order[b], order[a]
    elif name in ("t", "mT", "numpy_T"):
        order = list(range(len(old)))
        order[-2:] = order[:-3:-1]
    elif name == "permute":
        order = [axis % len(old) for axis in given["dims"]]
    if order is not None:
        return permuted(order, channels)
    if name in ("select", "unbind"):
        return without_axis(given["dim"] % len(old), channels)
    if math.prod(old) != math.prod(new) or name == "getitem":
        added = len(new) - len(old)
        return tuple(axis + added for axis in channels) if added >= 0 else usual_channels(len(new))
    return regrouped(old, new, channels)
