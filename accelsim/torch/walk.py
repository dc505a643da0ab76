"""Running rewritten graphs step by step, several batches side by side."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from accelsim.capture.calls import LayerCall, NodeCall
from accelsim.errors import AccelsimError
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


def walk(runs: Sequence[tuple[Traced, Any]], compute: Compute) -> list[Any]:
    """The outputs of each run, a graph with inputs, nested as the model nests them.

    Graphs are captures of one model on inputs of several sizes: step by step the same. A value is freed when
    its last reader has run. Raises AccelsimError for inputs of other shapes, and for graphs that differ.
    """
    graphs = [list(traced.module.graph.nodes) for traced, _ in runs]
    for nodes in graphs:
        if [(node.op, node.target) for node in nodes] != [(node.op, node.target) for node in graphs[0]]:
            raise AccelsimError(
                "model: on inputs of another size it takes other steps, expected the same steps for all"
            )
    last = _last_readers(graphs[0])
    flat = [iter(traced.flat(inputs)) for traced, inputs in runs]
    environments: list[dict[fx.Node, Any]] = [{} for _ in runs]
    outputs: list[Any] = []
    with torch.no_grad():
        for number, node in enumerate(graphs[0]):
            own = [nodes[number] for nodes in graphs]
            values: Sequence[Any]
            if node.op == "placeholder":
                values = [next(inputs) for inputs in flat]
            elif node.op == "get_attr":
                values = [
                    operator.attrgetter(mine.target)(traced.module)
                    for mine, (traced, _) in zip(own, runs, strict=True)
                ]
            elif node.op == "output":
                outputs = [
                    fx.map_arg(mine.args[0], environment.__getitem__)
                    for mine, environment in zip(own, environments, strict=True)
                ]
                break
            else:
                values = compute([_step(mine, env) for mine, env in zip(own, environments, strict=True)])
            for mine, environment, value in zip(own, environments, values, strict=True):
                environment[mine] = value
            del values
            for position in last.get(number, ()):
                for nodes, environment in zip(graphs, environments, strict=True):
                    del environment[nodes[position]]
    return [
        pytree.tree_unflatten(list(found), traced.out_spec)
        for found, (traced, _) in zip(outputs, runs, strict=True)
    ]


def _last_readers(nodes: list[fx.Node]) -> dict[int, list[int]]:
    """By the number of a node: the numbers of those it is the last to read."""
    place = {node: number for number, node in enumerate(nodes)}
    last: dict[int, list[int]] = {}
    seen: set[fx.Node] = set()
    for node in reversed(nodes):
        for read in node.all_input_nodes:
            if read not in seen:
                seen.add(read)
                last.setdefault(place[node], []).append(place[read])
    return last


def _step(node: fx.Node, environment: dict[fx.Node, Any]) -> Step:
    args, kwargs = fx.map_arg((node.args, node.kwargs), environment.__getitem__)
    reads = tuple(environment[read] for read in node.all_input_nodes if read.op != "get_attr")
    return Step(node, node.meta.get(CALL), args, kwargs, reads)
