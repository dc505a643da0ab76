"""What is known of ATen's operations: which move no data, which are nodes and under what name."""

from __future__ import annotations

import operator
from typing import Any

import torch

from accelsim.torch import ops

TRANSPARENT = frozenset(
    """_to_copy _unsafe_view alias chunk clone contiguous detach dropout expand expand_as feature_dropout
    flatten getitem lift_fresh_copy mT movedim narrow numpy_T permute positive repeat
    repeat_interleave reshape reshape_as select slice split split_with_sizes squeeze swapaxes t
    tensor_split to transpose type_as unbind unflatten unsafe_chunk unsafe_split unsqueeze view
    view_as view_as_complex view_as_real""".split()
)
"""Other views of a tensor, or parts of it: who reads them reads the tensor below."""

ASSERTIONS = frozenset("_assert_async _assert_scalar _assert_tensor_metadata sym_constrain_range".split())

CREATED = frozenset(
    "arange empty eye full linspace logspace ones scalar_tensor tril_indices triu_indices zeros".split()
)
"""Constants that depend on nothing."""

FILLS = frozenset("empty_like full_like new_empty new_full new_ones new_zeros ones_like zeros_like".split())
"""Constants that take no more than the shape of what they are given."""

REDUCTIONS = frozenset(
    """all amax amin any argmax argmin linalg_vector_norm logsumexp max mean min norm prod std std_mean sum
    var var_mean""".split()
)
"""Nodes whose time goes by what they read."""

NAMES = {
    "_log_softmax": "log_softmax", "_softmax": "softmax", "adaptive_avg_pool1d": "avg_pool",
    "adaptive_avg_pool2d": "avg_pool", "_adaptive_avg_pool2d": "avg_pool", "adaptive_max_pool1d": "max_pool",
    "adaptive_max_pool2d": "max_pool", "avg_pool1d": "avg_pool", "avg_pool2d": "avg_pool", "cat": "concat",
    "concatenate": "concat", "constant_pad_nd": "pad", "div": "divide", "max_pool1d": "max_pool",
    "max_pool1d_with_indices": "max_pool", "max_pool2d": "max_pool", "max_pool2d_with_indices": "max_pool",
    "mul": "multiply", "native_group_norm": "group_norm", "native_layer_norm": "layer_norm", "neg": "negate",
    "_fused_rms_norm": "rms_norm", "rsub": "subtract", "softmax_of_scores": "softmax", "stack": "concat",
    "sub": "subtract", "_prelu_kernel": "prelu",
}  # fmt: skip

_OTHER_NODES = frozenset(
    """argsort bucketize celu channel_shuffle cosine_similarity cumprod cumsum elu embedding flip gather
    gelu glu group_norm hardshrink hardsigmoid hardswish hardtanh index index_add index_put
    index_select instance_norm layer_norm leaky_relu local_response_norm log_sigmoid log_softmax
    masked_fill mish one_hot pad pixel_shuffle pixel_unshuffle prelu reflection_pad1d
    reflection_pad2d relu relu6 replication_pad1d replication_pad2d rms_norm roll rrelu scatter
    scatter_add searchsorted select_scatter selu silu slice_scatter softmax softplus softshrink
    softsign sort tanhshrink threshold topk tril triu where""".split()
)

_NOT_NEGATIVE = frozenset(
    """_softmax abs add_relu bitwise_not exp hardsigmoid logical_not one_hot relu relu6 sigmoid softmax
    softmax_of_scores softplus sqrt square""".split()
)
_KEEPS_NOT_NEGATIVE = frozenset(
    """add amax amin avg_pool channel_shuffle concat cumsum divide flip max max_pool maximum mean min
    multiply pixel_shuffle pixel_unshuffle pow reflection_pad1d reflection_pad2d replication_pad1d
    replication_pad2d requantize roll sum upsample_bilinear2d upsample_nearest1d upsample_nearest2d""".split()
)
"""Of operands of which none is negative."""


def name_of(target: Any) -> str:
    """The name of what a node of an fx graph calls, without overload: "conv2d", "getitem"."""
    if target is operator.getitem:
        return "getitem"
    if isinstance(target, torch._ops.OpOverload):
        return str(target._schema.name.split("::")[-1])
    return str(getattr(target, "__name__", target))


def op_of(node: torch.fx.Node) -> str:
    """The op of a node as graphs call it."""
    name = name_of(node.target)
    if name in ("hardtanh", "clamp") and list(node.args[1:3]) == [0, 6]:
        return "relu6"
    if name == "mean" and spatial_mean(node):
        return "avg_pool"
    return NAMES.get(name, name)


def spatial_mean(node: torch.fx.Node) -> bool:
    """A mean over height and width of N, C, H, W."""
    axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    rank = len(shape_of(node.args[0]))
    return rank == 4 and isinstance(axes, (list, tuple)) and {axis % 4 for axis in axes} == {2, 3}


def shape_of(node: Any) -> tuple[int, ...]:
    """The shape of the tensor a node makes; of a list of tensors that of the first."""
    value = node.meta.get("val")
    while isinstance(value, (list, tuple)):
        value = value[0]
    return tuple(int(size) for size in value.shape)


def is_tensor(node: Any) -> bool:
    """True for a node that makes a tensor."""
    return isinstance(node, torch.fx.Node) and isinstance(node.meta.get("val"), torch.Tensor)


def supported(target: Any) -> bool:
    """True for what is a layer, a node or a view of a tensor."""
    if callable(target) and getattr(target, "__module__", None) == ops.__name__:
        return True
    if target is operator.getitem:
        return True
    if not isinstance(target, torch._ops.OpOverload) or target.namespace not in ("aten", "prims"):
        return False
    name = name_of(target)
    known = TRANSPARENT | REDUCTIONS | _OTHER_NODES | ASSERTIONS | FILLS | CREATED
    if name in known or name in NAMES or name.startswith("upsample_"):
        return True
    return torch.Tag.pointwise in target.tags and torch.Tag.nondeterministic_seeded not in target.tags


def computable(target: Any) -> bool:
    """True for what may be computed once, of constants: no chance in it, nothing changed by it."""
    if not isinstance(target, torch._ops.OpOverload) or target.namespace not in ("aten", "prims"):
        return supported(target)
    return torch.Tag.nondeterministic_seeded not in target.tags and not target._schema.is_mutable


def not_negative(node: torch.fx.Node, operands: list[bool]) -> bool:
    """True where the op cannot make a negative number. operands: the same of the tensors it reads, of
    constants too."""
    name, op = name_of(node.target), op_of(node)
    if name in _NOT_NEGATIVE or op in ("relu6", "softmax"):
        return True
    if node.target in ops.LAYERS:
        return bool(node.kwargs.get("activation") == "relu")
    if name == "clamp" and len(node.args) > 1 and isinstance(node.args[1], (int, float)):
        return node.args[1] >= 0
    if name == "pow":
        return node.args[1] == 2 or all(operands)
    if name in ("pad", "constant_pad_nd"):
        values = [a for a in (*node.args[2:], *node.kwargs.values()) if isinstance(a, (int, float))]
        return all(operands) and all(value >= 0 for value in values)
    if op == "multiply" and len(node.args) == 2 and node.args[0] is node.args[1]:
        return True
    if node.kwargs.get("alpha", 1) != 1:
        return False
    numbers = [a for a in node.args if isinstance(a, (int, float)) and op in ("add", "multiply", "divide")]
    keeps = name in _KEEPS_NOT_NEGATIVE or op in _KEEPS_NOT_NEGATIVE or name in TRANSPARENT
    return keeps and bool(operands) and all(operands) and all(number >= 0 for number in numbers)
