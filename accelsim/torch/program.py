"""Programs that torch.export.save wrote, read as data: nothing of them is unpickled but tensors."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from accelsim.errors import AccelsimError
from accelsim.torch.tracing import quiet


def load_program(path: Path) -> torch.export.ExportedProgram:
    """Raises AccelsimError for a file that is no such program, or that asks for more than tensors."""
    if not zipfile.is_zipfile(path):
        raise AccelsimError(f"program {path}: is not a .pt2 archive, expected one of torch.export.save")
    try:
        with quiet(), _weights_only():
            return torch.export.load(path)
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
        raise AccelsimError(f"program {path}: cannot be read ({type(error).__name__}: {reason})") from None


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
    names = list(program.graph_signature.user_inputs)
    if sorted(tensors) != sorted(map(str, names)):
        raise AccelsimError(f"inputs {inputs}: holds {sorted(tensors)}, expected {names}")
    return pytree.tree_unflatten([tensors[name] for name in names], program.call_spec.in_spec)
