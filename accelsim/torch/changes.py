"""Changes to a captured graph that keep what it computes: constants scaled, put in another order or rotated,
and steps put in (docs/inference.md, Prepared models)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import fx

from accelsim.errors import AccelsimError
from accelsim.torch import ops
from accelsim.torch.capture import Captured, GraphRunner
from accelsim.torch.edit import call, constant, tensor_of
from accelsim.torch.lower import CALL, Lowerer
from accelsim.torch.rewrite import remove_dead

aten = torch.ops.aten

Channelwise = Callable[[torch.Tensor], torch.Tensor]
"""Of float64[..., channels] the same shape."""


@dataclass(frozen=True)
class Constants:
    """role: as of `tied.End`; change: of the constants' channels."""

    node: int
    role: Literal["output", "input", "norm"] | int
    change: Channelwise

    def apply(self, module: fx.GraphModule, nodes: list[fx.Node]) -> None:
        node = nodes[self.node]
        if self.role == "output":
            self._set(module, node, 1, lambda w: self.change(w.movedim(0, -1)).movedim(-1, 0))
            self._set(module, node, 2, self.change)
        elif self.role == "input":
            groups = int(node.args[6]) if node.target is ops.conv else 1
            self._set(module, node, 1, lambda w: _of_inputs(w, groups, self.change))
        elif self.role == "norm":
            for number in (1,) if node.target is ops.rms_norm else (2, 3):
                if number < len(node.args):
                    self._set(module, node, number, self.change)
        else:
            self._set(module, node, self.role, self.change)

    @staticmethod
    def _set(module: fx.GraphModule, node: fx.Node, number: int, change: Channelwise) -> None:
        old = node.args[number]
        if old is None:
            return
        assert isinstance(old, fx.Node)
        value = change(tensor_of(module, old).double()).float().contiguous()
        new = constant(module, node, value, old.meta.get("parameter"))
        new.meta.update({key: old.meta[key] for key in ("channels", "made")})
        node.update_arg(number, new)


@dataclass(frozen=True)
class SecondNorm:
    """The norm again for the linear layers that read it, so that their input can have a gain of its own."""

    node: int

    def apply(self, module: fx.GraphModule, nodes: list[fx.Node]) -> None:
        norm = nodes[self.node]
        readers = [user for user in norm.users if user.target is ops.linear]
        assert callable(norm.target)
        with norm.graph.inserting_after(norm):
            again = norm.graph.call_function(norm.target, norm.args, norm.kwargs)
        again.meta.update(norm.meta)
        for reader in readers:
            reader.replace_input_with(norm, again)


@dataclass(frozen=True)
class Rotated:
    """A step that rotates a tensor at run time, for those of its readers; their weights are changed apart."""

    node: int
    readers: tuple[int, ...]
    size: int
    axis: int

    def apply(self, module: fx.GraphModule, nodes: list[fx.Node]) -> None:
        source = nodes[self.node]
        new = _insert(nodes, self.readers, source, ops.rotate, source, self.size, self.axis)
        for reader in self.readers:
            nodes[reader].replace_input_with(source, new)


@dataclass(frozen=True)
class Ordered:
    """A step that brings the channels of a tensor back into the model's order, for those of its readers."""

    node: int
    readers: tuple[int, ...]
    axis: int
    order: torch.Tensor

    def apply(self, module: fx.GraphModule, nodes: list[fx.Node]) -> None:
        source = nodes[self.node]
        first = nodes[min(self.readers)]
        index = constant(module, first, self.order)
        index.meta.update(channels=(0,), made=False)
        new = _insert(nodes, self.readers, source, aten.index_select.default, source, self.axis, index)
        for reader in self.readers:
            nodes[reader].replace_input_with(source, new)


Edit = Constants | SecondNorm | Rotated | Ordered
"""Nodes are numbers, so that an edit fits every capture of a model: these take the same steps."""


def _insert(
    nodes: list[fx.Node], readers: Sequence[int], source: fx.Node, target: Callable[..., Any], *args: Any
) -> fx.Node:
    new = call(nodes[min(readers)], target, *args)
    new.meta.update(channels=source.meta["channels"], made=True)
    new.meta["nn_module_stack"] = source.meta.get("nn_module_stack", {})
    return new


def _of_inputs(weight: torch.Tensor, groups: int, change: Channelwise) -> torch.Tensor:
    """Weights [K, C/groups, ...] with their input channels changed."""
    outputs, depth = weight.shape[:2]
    apart = weight.reshape(groups, outputs // groups, depth, -1).permute(1, 3, 0, 2)
    changed = change(apart.reshape(*apart.shape[:2], groups * depth)).reshape(apart.shape)
    return changed.permute(2, 0, 3, 1).reshape(weight.shape)


def graph_of(captured: Captured) -> GraphRunner:
    """Raises AccelsimError for a model that was captured by hooks."""
    if not isinstance(captured.runner, GraphRunner):
        raise AccelsimError("prepare: torch.export cannot trace the model, expected a graph")
    return captured.runner


def edited(captured: Captured, edits: Sequence[Edit], needs: Sequence[str]) -> Captured:
    """A capture with these edits. The one given stays as it is, and shares what no edit changes.

    needs: added to those that it has. Raises AccelsimError for a model that is no graph."""
    runner = graph_of(captured)
    graph = fx.Graph()
    known: dict[fx.Node, fx.Node] = {}
    outputs = graph.graph_copy(runner.traced.module.graph, known)
    graph.output(outputs)
    module = fx.GraphModule(runner.traced.module, graph)
    nodes = list(graph.nodes)
    for edit in edits:
        edit.apply(module, nodes)
    remove_dead(module)
    for node in graph.nodes:
        node.meta.pop(CALL, None)  # which part of a tensor is a step depends on who reads it
    lowered = Lowerer(module).run()
    module.graph.lint()
    module.recompile()
    traced = replace(runner.traced, module=module)
    return replace(
        captured,
        module=module,
        steps=lowered.steps,
        graph=lowered.graph,
        needs=(*captured.needs, *needs),
        runner=GraphRunner(traced),
    )
