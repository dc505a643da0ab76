"""From ATen calls to those of a trace: constants folded, layers in their terms, attention in its parts."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from accelsim.torch import ops
from accelsim.torch.catalogue import ASSERTIONS, FILLS, computable, is_tensor, name_of, shape_of
from accelsim.torch.edit import call, constant, is_constant, replace, tensor_of

aten = torch.ops.aten

_COPIES = frozenset(
    "alias clone contiguous detach dropout feature_dropout lift_fresh_copy to _to_copy".split()
)


def arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of an ATen call by name, defaults included; of other calls its keywords."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return dict(node.kwargs)
    names = [argument.name for argument in schema.arguments]
    defaults = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    return {**defaults, **dict(zip(names, node.args, strict=False)), **node.kwargs}


def remove_dead(module: fx.GraphModule) -> None:
    """Drop assertions, and what nobody reads."""
    for node in reversed(module.graph.nodes):
        if node.op == "call_function" and not node.users:
            if name_of(node.target) in ASSERTIONS or not getattr(node, "is_impure", lambda: False)():
                module.graph.erase_node(node)
        elif node.op == "get_attr" and not node.users:
            module.graph.erase_node(node)


def remove_copies(module: fx.GraphModule) -> None:
    """Drop copies that change neither type nor shape: what is left of dropout. Views become reshapes, which
    ask nothing of the strides of what they read."""
    for node in list(module.graph.nodes):
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default
        if node.op != "call_function" or name_of(node.target) not in _COPIES:
            continue
        source = node.args[0]
        if is_tensor(node) and is_tensor(source) and node.meta["val"].dtype == source.meta["val"].dtype:
            if shape_of(node) == shape_of(source):
                replace(node, source)
    remove_dead(module)


def fold_constants(module: fx.GraphModule) -> None:
    """Compute once what depends on no input: position numbers, masks, transposed weights."""
    values: dict[fx.Node, Any] = {}
    parameters: dict[fx.Node, str | None] = {}
    for node in list(module.graph.nodes):
        if is_constant(node):
            values[node], parameters[node] = tensor_of(module, node), node.meta.get("parameter")
        if node.op != "call_function" or not computable(node.target):
            continue
        reads = node.all_input_nodes
        fill = name_of(node.target) in FILLS and is_tensor(node)
        if not fill and not all(read in values for read in reads):
            continue
        known = {read: values.get(read) for read in reads}
        if fill:
            known |= {
                read: torch.empty(shape_of(read), dtype=read.meta["val"].dtype)
                for read in reads
                if read not in values
            }
        with torch.no_grad():
            value = node.target(*fx.map_arg(node.args, known.get), **fx.map_arg(node.kwargs, known.get))
        values[node], parameters[node] = value, next((parameters.get(read) for read in reads), None)
    for node in values:
        if node.op == "get_attr" or not isinstance(values[node], torch.Tensor):
            continue
        if any(user not in values for user in node.users):
            replace(node, constant(module, node, values[node], parameters[node]))
    remove_dead(module)


class Normalizer:
    """Rewrites convolutions, linear layers, matrix products, attention and batch norm, each in `ops` terms.

    What it cannot express stays as it is, and is then found to be unsupported.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.rules: dict[str, Callable[[fx.Node, dict[str, Any]], fx.Node | None]] = {
            "conv1d": self.conv, "conv2d": self.conv, "convolution": self.conv,
            "linear": self.linear, "addmm": self.addmm, "mm": self.product, "bmm": self.product,
            "matmul": self.product, "scaled_dot_product_attention": self.attention,
            "batch_norm": self.batch_norm, "_native_batch_norm_legit_no_training": self.batch_norm,
        }  # fmt: skip

    def run(self) -> None:
        for node in list(self.module.graph.nodes):
            rule = self.rules.get(name_of(node.target)) if node.op == "call_function" else None
            if rule is None or node.target in ops.LAYERS:
                continue
            new = rule(node, arguments(node))
            if new is not None:
                replace(node, new)
        remove_dead(self.module)

    def conv(self, node: fx.Node, given: dict[str, Any]) -> fx.Node | None:
        x, weight = given["input"], given["weight"]
        axes = len(shape_of(weight)) - 2
        if axes > 2 or given.get("transposed") or not is_constant(weight):
            return None

        def each(name: str) -> tuple[int, ...]:
            value = given[name]
            value = [value] if isinstance(value, int) else list(value)
            return tuple(value * axes if len(value) == 1 else value)

        dilation = each("dilation")
        if isinstance(given["padding"], str):
            sides = [(0, 0)] * axes
            if given["padding"] == "same":
                totals = [d * (k - 1) for d, k in zip(dilation, shape_of(weight)[2:], strict=True)]
                sides = [(total // 2, total - total // 2) for total in totals]
        else:
            sides = [(size, size) for size in each("padding")]
        before = self._zero_padding(x, axes)
        if before is not None and all(low == high for low, high in before):
            x = x.args[0]
            sides = [(a + c, b + d) for (a, b), (c, d) in zip(sides, before, strict=True)]
        padding = tuple(min(pair) for pair in sides)
        extra = [(low - size, high - size) for (low, high), size in zip(sides, padding, strict=True)]
        if any(map(any, extra)):
            # A layer pads both sides alike; the rest is put on before it.
            x = call(
                node, aten.constant_pad_nd.default, x, [size for pair in reversed(extra) for size in pair]
            )
        bias, groups = given["bias"], given["groups"]
        return call(node, ops.conv, x, weight, bias, each("stride"), padding, dilation, groups)

    def _zero_padding(self, x: fx.Node, axes: int) -> list[tuple[int, int]] | None:
        """(low, high) of the last axes, where x is zeros put around something that nobody else reads."""
        if not isinstance(x, fx.Node) or len(x.users) != 1:
            return None
        if name_of(x.target) not in ("constant_pad_nd", "pad"):
            return None
        given = arguments(x)
        sizes = list(given["pad"])
        if given.get("mode", "constant") != "constant" or given.get("value") not in (0, None):
            return None
        if len(sizes) > 2 * axes or any(type(size) is not int or size < 0 for size in sizes):
            return None
        sizes += [0] * (2 * axes - len(sizes))
        return [(sizes[2 * i], sizes[2 * i + 1]) for i in reversed(range(axes))]

    def linear(self, node: fx.Node, given: dict[str, Any]) -> fx.Node:
        x, weight, bias = given["input"], given["weight"], given["bias"]
        if is_constant(weight) and len(shape_of(weight)) == 2 and (bias is None or is_constant(bias)):
            return call(node, ops.linear, x, weight, bias)
        if len(shape_of(weight)) == 1:
            return self._plus(node, self._product(node, x, weight), bias)
        turned = call(node, aten.transpose.int, weight, -2, -1)
        return self._plus(node, self._product(node, x, turned), bias)

    def addmm(self, node: fx.Node, given: dict[str, Any]) -> fx.Node | None:
        bias, x, weight = given["self"], given["mat1"], given["mat2"]
        if given["beta"] != 1 or given["alpha"] != 1:
            return None
        columns = shape_of(weight)[1]
        if is_constant(bias) and is_constant(weight) and shape_of(bias) in ((columns,), (1, columns)):
            weight, bias = self._turned(node, weight), self._reshaped(node, bias, columns)
            return call(node, ops.linear, x, weight, bias)
        return self._plus(node, self._product(node, x, weight), bias)

    def product(self, node: fx.Node, given: dict[str, Any]) -> fx.Node:
        return self._product(node, given["self"], given.get("mat2") or given.get("other"))

    def _turned(self, like: fx.Node, weight: fx.Node) -> fx.Node:
        value = tensor_of(self.module, weight).transpose(-2, -1)
        return constant(self.module, like, value, weight.meta.get("parameter"))

    def _reshaped(self, like: fx.Node, bias: fx.Node, *shape: int) -> fx.Node:
        value = tensor_of(self.module, bias).reshape(shape)
        return constant(self.module, like, value, bias.meta.get("parameter"))

    def _plus(self, like: fx.Node, y: fx.Node, bias: Any) -> fx.Node:
        return y if bias is None else call(like, aten.add.Tensor, y, bias)

    def _product(self, like: fx.Node, a: fx.Node, b: fx.Node) -> fx.Node:
        """a @ b in the cases of torch.matmul, with a layer in the middle."""
        if len(shape_of(b)) == 1:
            b = self._viewed(like, b, aten.unsqueeze.default, -1)
            return call(like, aten.squeeze.dim, self._product(like, a, b), -1)
        if len(shape_of(a)) == 1:
            a = self._viewed(like, a, aten.unsqueeze.default, 0)
            return call(like, aten.squeeze.dim, self._product(like, a, b), -2)
        if is_constant(a):
            # The stored operand is the weight: (a b)^T = b^T a^T.
            turned = call(like, aten.transpose.int, b, -2, -1)
            return call(like, aten.transpose.int, self._product(like, turned, self._turned(like, a)), -2, -1)
        if len(shape_of(b)) == 2:
            if is_constant(b):
                return call(like, ops.linear, a, self._turned(like, b), None)
            *lead, rows, depth = shape_of(a)
            flat = call(like, aten.reshape.default, a, [math.prod(lead) * rows, depth]) if lead else a
            y = call(like, ops.matmul, flat, b)
            return call(like, aten.reshape.default, y, [*lead, rows, shape_of(b)[1]]) if lead else y
        lead = torch.broadcast_shapes(shape_of(a)[:-2], shape_of(b)[:-2])
        a, b = self._expanded(like, a, lead), self._expanded(like, b, lead)
        return call(like, ops.matmul, a, b)

    def _viewed(self, like: fx.Node, node: fx.Node, view: Callable[..., Any], *args: Any) -> fx.Node:
        if not is_constant(node):
            return call(like, view, node, *args)
        return constant(
            self.module, like, view(tensor_of(self.module, node), *args), node.meta.get("parameter")
        )

    def _expanded(self, like: fx.Node, node: fx.Node, lead: tuple[int, ...]) -> fx.Node:
        shape = [*lead, *shape_of(node)[-2:]]
        if list(shape_of(node)) == shape:
            return node
        return self._viewed(like, node, aten.expand.default, shape)

    def attention(self, node: fx.Node, given: dict[str, Any]) -> fx.Node:
        query, key, value = given["query"], given["key"], given["value"]
        scale = given["scale"]
        scale = 1 / math.sqrt(shape_of(query)[-1]) if scale is None else float(scale)
        if given["enable_gqa"]:
            key, value = self._shared(node, key, query), self._shared(node, value, query)
        turned = call(node, aten.transpose.int, key, -2, -1)
        scores = self._product(node, query, turned)
        probabilities = call(
            node, ops.softmax_of_scores, scores, given["attn_mask"], scale, bool(given["is_causal"])
        )
        context = self._product(node, probabilities, value)
        for part, name in ((scores, "scores"), (probabilities, "softmax"), (context, "context")):
            part.meta["part"] = name
        return context

    def _shared(self, like: fx.Node, node: fx.Node, query: fx.Node) -> fx.Node:
        """Key or value heads, each repeated for the query heads that share it."""
        times = shape_of(query)[-3] // shape_of(node)[-3]
        return node if times == 1 else call(like, aten.repeat_interleave.self_int, node, times, -3)

    def batch_norm(self, node: fx.Node, given: dict[str, Any]) -> fx.Node | None:
        names = ("weight", "bias", "running_mean", "running_var")
        tensors = [given[name] for name in names]
        if not all(tensor is None or is_constant(tensor) for tensor in tensors) or None in tensors[2:]:
            return None
        if given.get("training"):
            return None
        new = call(node, ops.batch_norm, given["input"], *tensors, given["eps"])
        if name_of(node.target) == "batch_norm":
            return new
        for user in list(node.users):
            if user.target is operator.getitem and user.args[1] == 0:
                replace(user, new)
        return None
