"""Running a rewritten graph step by step, on several batches side by side."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from accelsim.torch.calls import LayerCall, NodeCall
from accelsim.torch.lower import CALL
from accelsim.torch.tracing import Traced


@dataclass(frozen=True, eq=False)
class Step:
    """One call of the graph on one batch.

    call: its layer or node, None of a view; reads: the values computed at run time, in the order of
    node.all_input_nodes.
    """

    node: fx.Node
    call: LayerCall | NodeCall | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    reads: tuple[Any, ...]

    def result(self, change: Callable[[Any], Any] = lambda value: value) -> Any:
        """What torch makes of the arguments. change: of every argument, however deeply it is nested."""
        args, kwargs = pytree.tree_map(change, (self.args, self.kwargs))
        assert callable(self.node.target)
        return self.node.target(*args, **kwargs)


Compute = Callable[[list[Step]], Sequence[Any]]
"""Of the same step on every batch: what it makes."""


def walk(traced: Traced, batches: Sequence[Any], compute: Compute) -> list[Any]:
    """The outputs of each batch of inputs, nested as the model nests them.

    A value is freed when its last reader has run. Raises AccelsimError for inputs of other shapes.
    """
    module = traced.module
    last: dict[fx.Node, list[fx.Node]] = {}
    seen: set[fx.Node] = set()
    for node in reversed(module.graph.nodes):
        for read in node.all_input_nodes:
            if read not in seen:
                seen.add(read)
                last.setdefault(node, []).append(read)
    flat = [traced.flat(batch) for batch in batches]
    environments: list[dict[fx.Node, Any]] = [{} for _ in batches]
    outputs: list[Any] = []
    placeholders = 0
    with torch.no_grad():
        for node in module.graph.nodes:
            if node.op == "placeholder":
                for environment, values in zip(environments, flat, strict=True):
                    environment[node] = values[placeholders]
                placeholders += 1
            elif node.op == "get_attr":
                value = operator.attrgetter(node.target)(module)
                for environment in environments:
                    environment[node] = value
            elif node.op == "output":
                outputs = [fx.map_arg(node.args[0], environment.__getitem__) for environment in environments]
            else:
                steps = [_step(node, environment) for environment in environments]
                for environment, value in zip(environments, compute(steps), strict=True):
                    environment[node] = value
                del steps
            for read in last.get(node, ()):
                for environment in environments:
                    del environment[read]
    return [pytree.tree_unflatten(list(values), traced.out_spec) for values in outputs]


def _step(node: fx.Node, environment: dict[fx.Node, Any]) -> Step:
    args, kwargs = fx.map_arg((node.args, node.kwargs), environment.__getitem__)
    reads = tuple(environment[read] for read in node.all_input_nodes if read.op != "get_attr")
    return Step(node, node.meta.get(CALL), args, kwargs, reads)
