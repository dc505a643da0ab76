"""A model as a flat fx graph of ATen calls, by torch.export."""

from __future__ import annotations

import contextlib
import logging
import operator
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from accelsim.errors import AccelsimError

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def arguments_of(inputs: Any) -> Arguments:
    """(args, kwargs) of a model's call: a tensor, a tuple or list of inputs, or a dict of keyword inputs; a
    tuple and a dict of keywords are both."""
    if isinstance(inputs, tuple) and [type(part) for part in inputs] == [tuple, dict]:
        return inputs
    if isinstance(inputs, dict):
        return (), dict(inputs)
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), {}
    return (inputs,), {}


_DECOMPOSED = frozenset("addbmm addmv baddbmm dot einsum inner mv outer tensordot vdot".split())
"""Forms of matrix products that are left to torch to write as others."""


@dataclass(frozen=True)
class Traced:
    """A model as traced. in_spec, out_spec: how its inputs and outputs are nested."""

    module: torch.fx.GraphModule
    in_spec: Any
    out_spec: Any

    def flat(self, inputs: Any) -> list[Any]:
        """Inputs in the order of the graph's placeholders. Raises AccelsimError where they are nested
        otherwise, or of another shape."""
        args, kwargs = arguments_of(inputs)
        names = list(self.in_spec.children()[1].context or ())
        if set(kwargs) == set(names):
            kwargs = {name: kwargs[name] for name in names}
        flat, spec = pytree.tree_flatten((args, kwargs))
        if spec != self.in_spec:
            raise AccelsimError(
                f"inputs: {len(args)} positional and keywords {sorted(kwargs)}, expected "
                f"{self.in_spec.children()[0].num_children} and {sorted(names)}, as in the captured call"
            )
        placeholders = [node for node in self.module.graph.nodes if node.op == "placeholder"]
        for node, value in zip(placeholders, flat, strict=True):
            wanted = node.meta.get("val")
            if isinstance(wanted, torch.Tensor):
                found = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
                if found != list(wanted.shape):
                    raise AccelsimError(
                        f"inputs: {node.name} is {found}, expected {list(wanted.shape)}, as captured"
                    )
        return flat


class NotTraceable(Exception):
    """torch.export cannot follow the model; the message is its reason in one line."""


def trace(model: torch.nn.Module | torch.export.ExportedProgram, inputs: Any) -> Traced:
    """The graph of a model in inference. Raises NotTraceable."""
    if isinstance(model, torch.export.ExportedProgram):
        return flattened(model)
    args, kwargs = arguments_of(inputs)
    reasons = []
    for strict in (False, True):
        try:
            with inference(model), quiet():
                program = torch.export.export(model, args, kwargs, strict=strict)
                return flattened(program)
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reasons.append(f"{type(error).__name__}: {lines[0] if lines else 'no message'}")
    raise NotTraceable(reasons[0])


def flattened(program: torch.export.ExportedProgram) -> Traced:
    """A program with its parameters as attributes, without in-place operations."""
    with quiet():
        table = torch.export.default_decompositions()
        chosen = {op: table[op] for op in table if _to_decompose(op)}
        program = program.run_decompositions(chosen)
        module = program.module(check_guards=False)
    graph = module.graph
    signature = program.call_spec
    for node in graph.nodes:
        if node.op == "get_attr":
            value = operator.attrgetter(node.target)(module)
            if isinstance(value, torch.Tensor):
                node.meta["val"] = value.detach()
                node.meta["parameter"] = node.target
    return Traced(module, signature.in_spec, signature.out_spec)


def _to_decompose(op: Any) -> bool:
    return isinstance(op, torch._ops.OpOverload) and op._schema.name.split("::")[-1] in _DECOMPOSED


@contextlib.contextmanager
def inference(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            model.eval()
            yield
    finally:
        for module, training in modes:
            module.training = training


_LOGGERS = (
    "torch.export", "torch._export", "torch._dynamo", "torch.fx", "torch._subclasses.fake_tensor",
)  # fmt: skip


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without torch's own warnings and logs, which speak of its insides."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
