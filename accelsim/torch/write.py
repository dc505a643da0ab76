"""`accelsim.torch.export`: a PyTorch model as a trace file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils import _pytree as pytree

from accelsim.capture.write import Progress, Settings, split_tensors, write_captured
from accelsim.torch.capture import capture
from accelsim.torch.tracing import arguments_of


def export(
    model: torch.nn.Module | torch.export.ExportedProgram,
    inputs: Any,
    path: str | Path,
    *,
    calibration: Iterable[Any] | None = None,
    name: str | None = None,
    unsupported: Literal["error", "float"] = "error",
    calibration_values: int = 1 << 20,
    seed: int = 0,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a trace of a model in inference, and return its path.

    inputs: a tensor, a tuple of inputs or a dict of keyword inputs; their batch is the trace's, and what
    layers read on them is stored. calibration: more of the same, any number, each of the same shapes or a
    multiple of their batch, one in memory at a time; of each layer at most `calibration_values` numbers are
    kept, drawn with `seed`. name: of the model, by default its class. unsupported: `error`, or `float` to
    leave what is neither layer nor node to the host. provenance: JSON for the trace, to which `exported` is
    added. Raises AccelsimError, with nothing written.
    """
    settings = Settings(Path(path), calibration_values, seed, provenance, progress)
    captured = capture(model, inputs, unsupported)
    exported = {"by": "accelsim.torch.export", "torch": torch.__version__, "method": captured.method}
    return write_captured(
        settings,
        name or type(model).__name__,
        captured,
        inputs,
        calibration,
        lambda item: split(item, inputs),
        exported,
    )


def split(item: Any, inputs: Any) -> Iterator[Any]:
    """A calibration item as runs of the captured batch: itself, or its parts along axis 0.

    Raises AccelsimError where its batch is no multiple of the captured one.
    """
    mine, spec = pytree.tree_flatten(arguments_of(item))
    for part in split_tensors(mine, pytree.tree_leaves(arguments_of(inputs))):
        yield pytree.tree_unflatten(part, spec)
