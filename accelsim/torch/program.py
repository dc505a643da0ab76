"""Programs that torch.export.save wrote, read as data: of objects only tensors, no text that is evaluated."""

from __future__ import annotations

import contextlib
import json
import math
import operator
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from accelsim.errors import AccelsimError
from accelsim.torch.tracing import quiet

_ARITHMETIC = frozenset(
    [
        getattr(operator, name)
        for name in "add eq floordiv ge getitem gt le lt mod mul ne neg pow sub truediv".split()
    ]
    + [math.ceil, math.floor, math.trunc]
)
_OBJECTS = ("custom_obj", "opaque_obj")
"""How torch names files of pickled objects that are no tensors."""


def load_program(path: Path) -> torch.export.ExportedProgram:
    """Raises AccelsimError for a file that is no such program, or that asks for more than data."""
    try:
        _check_archive(path)
        with quiet(), _weights_only():
            program = torch.export.load(path)
        _check_targets(program)
    except AccelsimError as error:
        raise AccelsimError(f"program {path}: {error}") from None
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
        raise AccelsimError(f"program {path}: cannot be read ({type(error).__name__}: {reason})") from None
    return program


def _check_archive(path: Path) -> None:
    """Before torch reads anything: torch unpickles objects, and evaluates expressions of dynamic shapes."""
    if not zipfile.is_zipfile(path):
        raise AccelsimError("is not a .pt2 archive, expected one of torch.export.save")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(set(names)) != len(names):
            raise AccelsimError("holds a file twice, expected each once")
        for name in names:
            if any(prefix in name for prefix in _OBJECTS):
                raise AccelsimError(f"holds an object ({name}), expected tensors only")
            if name.endswith(".json"):
                _check_expressions(json.loads(archive.read(name)))


def _check_expressions(value: Any) -> None:
    if isinstance(value, dict):
        text = value.get("expr_str", "")
        if not re.fullmatch(r"-?\d*|[su]\d+", str(text)):
            raise AccelsimError("has dynamic shapes, expected sizes that are numbers")
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        _check_expressions(item)


def _check_targets(program: torch.export.ExportedProgram) -> None:
    """Before anything of it runs: it calls operations, not functions of Python."""
    known = (torch._ops.OpOverload, torch._ops.HigherOrderOperator)
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            if node.op == "call_function" and not isinstance(node.target, known):
                if node.target not in _ARITHMETIC:
                    raise AccelsimError(f"calls {node.target}, expected operations of torch.ops")
            elif node.op in ("call_method", "call_module"):
                raise AccelsimError(f"calls {node.target}, expected operations of torch.ops")


@contextlib.contextmanager
def _weights_only() -> Iterator[None]:
    """Let torch.load read tensors and plain values only, whatever it is asked for."""
    load = torch.load

    def load_weights(*args: Any, **kwargs: Any) -> Any:
        return load(*args, **{**kwargs, "weights_only": True})

    torch.load = load_weights
    try:
        yield
    finally:
        torch.load = load


def load_inputs(program: torch.export.ExportedProgram, source: Path, inputs: Path | None) -> Any:
    """(args, kwargs) of the program, its own examples or those of a safetensors file, which are by name.

    Raises AccelsimError where there are none, or others than the program takes.
    """
    if inputs is None:
        if program.example_inputs is None:
            raise AccelsimError(f"program {source}: holds no example inputs, expected --inputs")
        return program.example_inputs
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(inputs)
    except (OSError, SafetensorError) as error:
        raise AccelsimError(f"inputs {inputs}: cannot be read ({error})") from None
    names = [str(name) for name in program.graph_signature.user_inputs]
    if sorted(tensors) != sorted(names):
        raise AccelsimError(f"inputs {inputs}: holds {sorted(tensors)}, expected {names}")
    return pytree.tree_unflatten([tensors[name] for name in names], program.call_spec.in_spec)
