"""A model captured: its layers and nodes, and a way to run it with any of them replaced."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch.utils import _pytree as pytree

from accelsim.capture.calls import LayerCall, NodeCall, OnLayer, OnNode
from accelsim.errors import LONG, AccelsimError
from accelsim.torch.calls import as_array, operands_of, output_of
from accelsim.torch.catalogue import shape_of
from accelsim.torch.fold import fold, join_rms_norms
from accelsim.torch.hooks import HookRunner
from accelsim.torch.layout import find_channels
from accelsim.torch.lower import Lowerer, find_unsupported
from accelsim.torch.rewrite import Normalizer, fold_constants, remove_copies, remove_dead
from accelsim.torch.tracing import NotTraceable, Traced, trace
from accelsim.torch.walk import Step, walk
from accelsim.workload.graph import Graph

UNSUPPORTED = ("error", "float")


class Runner(Protocol):
    def run(self, inputs: Any, on_layer: OnLayer | None, on_node: OnNode | None) -> Any: ...


@dataclass(frozen=True, eq=False)
class Captured:
    """A model as layers and nodes.

    module: float, batch norm folded, runs on inputs of the captured shapes; steps: in the order in which
    they run; graph: what each reads; method: `torch.export`, or `hooks` where that cannot trace the model;
    notes: what is not as in the model, a sentence each; needs: what the hardware has to do for a prepared
    model beyond its own work, a sentence each.
    """

    module: torch.nn.Module
    steps: tuple[LayerCall | NodeCall, ...]
    graph: Graph
    method: str
    notes: tuple[str, ...]
    runner: Runner
    needs: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[LayerCall, ...]:
        return tuple(step for step in self.steps if isinstance(step, LayerCall))

    def run(self, inputs: Any, on_layer: OnLayer | None = None, on_node: OnNode | None = None) -> Any:
        """The model's outputs, nested as the model nests them. inputs: of the captured shapes.

        on_layer(call, (input float32[N, C, H, W], weight float32[K, C/groups, R, S], bias or None)) returns
        y float32[N, K, P, Q], after bias and activation, in place of what torch computes, or None.
        on_node(call, tensors read, result) returns an array in place of the result, or None. A tensor is
        freed when its last reader has run. Raises AccelsimError for inputs of other shapes.
        """
        return self.runner.run(inputs, on_layer, on_node)


def capture(
    model: torch.nn.Module | torch.export.ExportedProgram,
    inputs: Any,
    unsupported: Literal["error", "float"] = "error",
) -> Captured:
    """Capture a model in inference on inputs of one shape.

    inputs: a tensor, a tuple of inputs, or a dict of keyword inputs. unsupported: `error` raises
    AccelsimError that names every operation that is neither layer nor node; `float` leaves them to the host.
    A model that torch.export cannot trace is run once with hooks on its layers; a warning says what is lost.
    """
    if unsupported not in UNSUPPORTED:
        raise AccelsimError(f"unsupported is {unsupported!r}, expected 'error' or 'float'")
    _check_types(model)
    try:
        traced = trace(model, inputs)
    except NotTraceable as reason:
        assert isinstance(model, torch.nn.Module)
        hooked = _hooked(model, inputs, unsupported)
        note = (
            f"torch.export cannot trace the model ({reason}): layers were found by hooks, the graph is a "
            "chain of them, and all work between them is left out"
        )
        notes = (note, *hooked.notes)
        _warn(notes)
        return Captured(model, hooked.steps, hooked.graph, "hooks", notes, hooked)
    module = traced.module
    fold_constants(module)
    remove_copies(module)
    Normalizer(module).run()
    fold(module)
    join_rms_norms(module)
    missing = find_unsupported(module)
    if missing and unsupported == "error":
        listed = "; ".join(map(str, missing))
        raise AccelsimError(
            f"model {_name(model)}: {len(missing)} operation(s) not supported: {listed}; expected those of "
            "docs/export.md, or unsupported='float', which leaves them to the host",
            LONG,
        )
    remove_dead(module)
    find_channels(module)
    lowered = Lowerer(module).run()
    module.graph.lint()
    module.recompile()
    notes = (f"left to the host, in float: {', '.join(lowered.host)}",) if lowered.host else ()
    _warn(notes)
    return Captured(module, lowered.steps, lowered.graph, "torch.export", notes, GraphRunner(traced))


def _hooked(model: torch.nn.Module, inputs: Any, unsupported: str) -> HookRunner:
    """Of a model that runs on these inputs, though torch.export cannot trace it."""
    try:
        return HookRunner(model, inputs, leave_to_host=unsupported == "float")
    except AccelsimError:
        raise
    except Exception as error:  # whatever the model's own code raises
        shapes = [list(x.shape) for x in pytree.tree_leaves(inputs) if isinstance(x, torch.Tensor)]
        said = " ".join(str(error).split())[:200]
        raise AccelsimError(
            f"model {_name(model)}: does not run on inputs of {shapes}: {type(error).__name__}: {said}"
        ) from None


def _check_types(model: torch.nn.Module | torch.export.ExportedProgram) -> None:
    if not isinstance(model, (torch.nn.Module, torch.export.ExportedProgram)):
        raise AccelsimError(f"model is a {type(model).__name__}, expected a torch.nn.Module")
    if isinstance(model, torch.export.ExportedProgram):
        if model.range_constraints:
            raise AccelsimError("model: the program has dynamic shapes, expected sizes that are numbers")
        tensors = dict(model.state_dict)
    else:
        tensors = model.state_dict()
    for name, value in tensors.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dtype != torch.float32:
            raise AccelsimError(
                f"model {_name(model)}: {name} is {value.dtype}, expected torch.float32 (model.float())"
            )


def _name(model: object) -> str:
    return type(model).__name__


def _warn(notes: tuple[str, ...]) -> None:
    for note in notes:
        warnings.warn(note, stacklevel=3)


@dataclass(frozen=True)
class GraphRunner:
    """Runs a rewritten fx graph."""

    traced: Traced

    def run(self, inputs: Any, on_layer: OnLayer | None, on_node: OnNode | None) -> Any:
        def compute(step: Step) -> Any:
            call = step.call
            if isinstance(call, LayerCall) and on_layer is not None:
                computed = step.args[1] if call.layer.weight_is_activation else None
                y = on_layer(call, operands_of(call, step.args[0], computed))
                if y is not None:
                    return output_of(call, y, shape_of(step.node))
            result = step.result()
            if isinstance(call, NodeCall) and on_node is not None:
                return _replaced(step, call, result, on_node)
            return result

        return walk([(self.traced, inputs)], lambda steps: [compute(step) for step in steps])[0]


def _replaced(step: Step, call: NodeCall, result: Any, on_node: OnNode) -> Any:
    tensors = [as_array(value) for value in step.reads if isinstance(value, torch.Tensor)]
    first = result if isinstance(result, torch.Tensor) else result[0]
    values = on_node(call, tensors, as_array(first))
    if values is None:
        return result
    new = torch.from_numpy(np.ascontiguousarray(values)).to(first.dtype).reshape(first.shape)
    return new if isinstance(result, torch.Tensor) else (new, *result[1:])
