"""Editing an fx graph: calls put in with their shapes and their places in the model, constants replaced."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from accelsim.torch.catalogue import is_tensor


def tensor_of(module: fx.GraphModule, node: fx.Node) -> torch.Tensor:
    """The value of a get_attr node."""
    value: torch.Tensor = operator.attrgetter(node.target)(module)
    return value.detach()


def is_constant(node: Any) -> bool:
    return isinstance(node, fx.Node) and node.op == "get_attr" and is_tensor(node)


def call(like: fx.Node, target: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
    """A call before node `like`, at its place in the model, with the shape of what it makes."""
    graph = like.graph
    with graph.inserting_before(like):
        node = graph.call_function(target, args, kwargs)
    node.meta.update(place(like))
    node.meta["val"] = evaluate_shape(target, args, kwargs)
    return node


def evaluate_shape(target: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """A tensor on device meta, as target would make it."""

    def empty(node: fx.Node) -> Any:
        value = node.meta.get("val")
        return torch.empty(value.shape, dtype=value.dtype, device="meta") if is_tensor(node) else value

    with torch.no_grad():
        return target(*fx.map_arg(args, empty), **fx.map_arg(kwargs, empty))


def constant(
    module: fx.GraphModule, like: fx.Node, value: torch.Tensor, parameter: str | None = None
) -> fx.Node:
    """A new constant before node `like`. parameter: the model's tensor it was made of."""
    number = 0
    while hasattr(module, f"_constant_{number}"):
        number += 1
    name = f"_constant_{number}"
    module.register_buffer(name, value.detach(), persistent=False)
    with like.graph.inserting_before(like):
        node = like.graph.get_attr(name)
    node.meta.update(place(like))
    node.meta["val"] = value.detach()
    node.meta["parameter"] = parameter
    return node


def replace(node: fx.Node, new: fx.Node) -> None:
    """Let everybody who reads `node` read `new`, and take `node` out."""
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)


def place(node: fx.Node) -> dict[str, Any]:
    return {key: node.meta[key] for key in ("nn_module_stack",) if key in node.meta}


def module_of(node: fx.Node) -> tuple[str, str]:
    """(path, qualified class name) of the innermost module of a node; the model itself has no path."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    if not stack:
        return "", ""
    path, kind = stack[-1]
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return clean_path(str(path)), kind


def clean_path(path: str) -> str:
    """A module's path without what torch adds of its own: "L['self'].", "@1" of a second call."""
    path = re.sub(r"@\d+", "", path)
    path = re.sub(r"^L\['self'\]\.?", "", path)
    return re.sub(r"\[['\"]?(\w+)['\"]?\]", r".\1", path).removeprefix("_modules.").replace("._modules.", ".")
