"""Several operations as one: batch norm in a layer, ReLU in a layer or an add, RMS norm as one node."""

from __future__ import annotations

import torch
from torch import fx

from accelsim.torch import ops
from accelsim.torch.catalogue import name_of, shape_of
from accelsim.torch.edit import call, constant, is_constant, replace, tensor_of
from accelsim.torch.rewrite import remove_dead


def fold(module: fx.GraphModule) -> None:
    """Batch norms first: a ReLU may follow one."""
    for node in list(module.graph.nodes):
        if node.target is ops.batch_norm:
            _fold_before(module, node) or _fold_after(module, node)
    for node in list(module.graph.nodes):
        if node.op == "call_function" and name_of(node.target) in ("relu", "relu_"):
            _fuse_relu(node)
    remove_dead(module)


def join_rms_norms(module: fx.GraphModule) -> None:
    """x * rsqrt(mean(x^2) + eps), and a weight: one node where a model writes it out."""
    for node in list(module.graph.nodes):
        if node.op == "call_function" and name_of(node.target) == "rsqrt":
            _join_rms_norm(node)
    remove_dead(module)


def _join_rms_norm(root: fx.Node) -> None:
    add = _of(root.args[0], "add")
    mean = _of(add.args[0], "mean") if add and add.args else None
    square = _of(mean.args[0], "pow", "mul") if mean else None
    if add is None or mean is None or square is None or not isinstance(add.args[1], float):
        return
    if list(mean.args[1:3]) != [[-1], True] or square.args[1] not in (2, 2.0, square.args[0]):
        return
    x = square.args[0]
    scaled = next(iter(root.users))
    if not (_only_reader(root) and _of(scaled, "mul") and {*scaled.args} == {x, root}):
        return
    last, weight = scaled, None
    if _only_reader(scaled) and _of(user := next(iter(scaled.users)), "mul"):
        other = next((arg for arg in user.args if arg is not scaled), None)
        if is_constant(other) and shape_of(other) == shape_of(x)[-1:]:
            last, weight = user, other
    replace(last, call(last, ops.rms_norm, x, weight, add.args[1]))


def _of(node: object, *names: str) -> fx.Node | None:
    """The node, if it calls one of these operations."""
    known = isinstance(node, fx.Node) and node.op == "call_function" and name_of(node.target) in names
    return node if known else None


def _only_reader(node: fx.Node) -> bool:
    return len(node.users) == 1


def _scale_and_shift(module: fx.GraphModule, node: fx.Node) -> tuple[torch.Tensor, torch.Tensor]:
    """Batch norm as scale[c] * x + shift[c], float64."""
    weight, bias, mean, variance = [
        tensor_of(module, tensor).double() if isinstance(tensor, fx.Node) else None
        for tensor in node.args[1:5]
    ]
    assert mean is not None and variance is not None
    scale = (variance + float(node.args[5])).rsqrt()
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


def _has_channels_at(layer: fx.Node, axis: int, value: fx.Node) -> bool:
    """True where axis 1 of `value`, which batch norm scales, is the channels of a layer's operand."""
    rank = len(shape_of(value))
    if layer.target is ops.conv:
        return rank == len(shape_of(layer.args[1]))  # with a batch: N, C, ...
    return layer.target is ops.linear and rank == 2


def _replace_weights(
    module: fx.GraphModule, layer: fx.Node, weight: torch.Tensor, bias: torch.Tensor
) -> None:
    """Give one use of a layer weights of its own."""
    x, old_weight, _, *rest = layer.args
    parameter = old_weight.meta.get("parameter")
    new = [constant(module, layer, value.float().contiguous(), parameter) for value in (weight, bias)]
    layer.args = (x, *new, *rest)


def _weights(module: fx.GraphModule, layer: fx.Node) -> tuple[torch.Tensor, torch.Tensor]:
    weight = tensor_of(module, layer.args[1]).double()
    if layer.args[2] is None:
        return weight, torch.zeros(len(weight), dtype=torch.float64)
    return weight, tensor_of(module, layer.args[2]).double()


def _fold_before(module: fx.GraphModule, node: fx.Node) -> bool:
    """Into the layer whose output it alone reads."""
    layer = node.args[0]
    assert isinstance(layer, fx.Node)
    if layer.target not in (ops.conv, ops.linear) or not _only_reader(layer):
        return False
    if not _has_channels_at(layer, 1, layer):
        return False
    scale, shift = _scale_and_shift(module, node)
    weight, bias = _weights(module, layer)
    scaled = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
    _replace_weights(module, layer, scaled, bias * scale + shift)
    replace(node, layer)
    return True


def _fold_after(module: fx.GraphModule, node: fx.Node) -> bool:
    """Into the layer that alone reads it, where no zeros are put around it."""
    layer = next(iter(node.users), None)
    if layer is None or not _only_reader(node) or layer.target not in (ops.conv, ops.linear):
        return False
    if layer.args[0] is not node or not _has_channels_at(layer, 1, node):
        return False
    if layer.target is ops.conv and any(layer.args[4]):
        return False
    scale, shift = _scale_and_shift(module, node)
    weight, bias = _weights(module, layer)
    outputs, depth = weight.shape[:2]
    groups = layer.args[6] if layer.target is ops.conv else 1
    by_group = weight.reshape(groups, outputs // groups, depth, -1)
    shifted = torch.einsum("gkdt,gd->gk", by_group, shift.reshape(groups, depth)).reshape(-1)
    scaled = by_group * scale.reshape(groups, 1, depth, 1)
    _replace_weights(module, layer, scaled.reshape(weight.shape), bias + shifted)
    x = node.args[0]
    assert isinstance(x, fx.Node)
    replace(node, x)
    return True


def _fuse_relu(node: fx.Node) -> None:
    before = node.args[0]
    if not isinstance(before, fx.Node) or before.op != "call_function" or not _only_reader(before):
        return
    if before.target in ops.LAYERS:
        before.kwargs = {"activation": "relu"}
        replace(node, before)
    elif name_of(before.target) == "add" and not before.kwargs and len(before.args) == 2:
        a, b = before.args
        if isinstance(a, fx.Node) and isinstance(b, fx.Node):
            new = call(node, ops.add_relu, a, b)
            new.meta["nn_module_stack"] = before.meta.get("nn_module_stack", {})
            replace(node, new)
