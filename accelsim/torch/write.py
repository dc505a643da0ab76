"""`accelsim.torch.export`: a PyTorch model as a trace file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils import _pytree as pytree

from accelsim.errors import AccelsimError
from accelsim.torch.calls import LayerCall
from accelsim.torch.capture import Captured, capture
from accelsim.torch.record import Folder, Recorder, Sampler
from accelsim.torch.tracing import arguments_of
from accelsim.trace.manifest import check_provenance
from accelsim.trace.write import write_trace
from accelsim.workload.layer import FloatLayer

Progress = Callable[[str, int, int], None]


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
    target = Path(path)
    _check(target, calibration_values, provenance)
    captured = capture(model, inputs, unsupported)
    report = progress or (lambda what, done, of: None)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
        layers, batches = _layers(
            captured, inputs, calibration, Folder(Path(scratch)), Sampler(calibration_values, seed), report
        )
        exported = {
            "by": "accelsim.torch.export",
            "torch": torch.__version__,
            "method": captured.method,
            "calibration_batches": batches,
            "calibration_values": calibration_values,
            "seed": seed,
            "notes": list(captured.notes),
        }
        return write_trace(
            target,
            name or type(model).__name__,
            layers,
            {**(provenance or {}), "exported": exported},
            graph=captured.graph,
        )


def _check(target: Path, calibration_values: int, provenance: Mapping[str, Any] | None) -> None:
    """What can be refused before any work."""
    if type(calibration_values) is not int or calibration_values < 1:
        raise AccelsimError(f"calibration_values is {calibration_values!r}, expected a whole number from 1")
    if not target.parent.is_dir():
        raise AccelsimError(f"trace {target}: there is no folder {target.parent}, expected one to write to")
    check_provenance(provenance or {})
    if "exported" in (provenance or {}):
        raise AccelsimError("provenance has a key 'exported', expected none: export writes it")


def _layers(
    captured: Captured,
    inputs: Any,
    calibration: Iterable[Any] | None,
    folder: Folder,
    sampler: Sampler,
    progress: Progress,
) -> tuple[list[FloatLayer], int]:
    """The layers with their operands, and how many calibration runs there were."""
    recorder = Recorder(folder)
    progress("run", 0, 1)
    captured.run(inputs, on_layer=recorder)
    progress("run", 1, 1)
    batches = 0
    items = len(calibration) if isinstance(calibration, Sized) else 0
    for done, item in enumerate(calibration if calibration is not None else ()):
        progress("calibration", done, items)
        for batch in split(item, inputs):
            captured.run(batch, on_layer=sampler)
            batches += 1
    if calibration is not None and not batches:
        raise AccelsimError("calibration is empty, expected at least one of the inputs, or None")
    return [_layer(call, recorder, sampler, folder, batches) for call in captured.layers], batches


def _layer(call: LayerCall, recorder: Recorder, sampler: Sampler, folder: Folder, batches: int) -> FloatLayer:
    seen, seen_weight = sampler.sample(call) if batches else (None, None)
    sampler.items.pop(call.name, None)
    weight = recorder.weights[call.name] if call.weight is None else call.weight
    return FloatLayer(
        call.layer,
        weight=weight,
        input=recorder.inputs[call.name],
        bias=call.bias,
        calibration_input=None if seen is None else folder.keep(seen),
        calibration_weight=None if seen_weight is None else folder.keep(seen_weight),
    )


def split(item: Any, inputs: Any) -> Iterator[Any]:
    """A calibration item as runs of the captured batch: itself, or its parts along axis 0.

    Raises AccelsimError where its batch is no multiple of the captured one.
    """
    mine, spec = pytree.tree_flatten(arguments_of(item))
    captured = pytree.tree_leaves(arguments_of(inputs))
    pairs = [
        (own, wanted)
        for own, wanted in zip(mine, captured, strict=False)
        if isinstance(own, torch.Tensor) and isinstance(wanted, torch.Tensor) and own.dim() and wanted.dim()
    ]
    times = {len(own) / len(wanted) for own, wanted in pairs if own.shape != wanted.shape and len(wanted)}
    if not times:
        yield item
        return
    sizes = [list(own.shape) for own, _ in pairs]
    expected = [list(wanted.shape) for _, wanted in pairs]
    same = all(own.shape[1:] == wanted.shape[1:] for own, wanted in pairs)
    if len(times) != 1 or not same or next(iter(times)) % 1 or min(times) < 1:
        raise AccelsimError(
            f"calibration: a batch is {sizes}, expected {expected}, or a multiple along axis 0"
        )
    for part in range(int(min(times))):
        args, kwargs = pytree.tree_unflatten(
            [
                own[part * len(wanted) : (part + 1) * len(wanted)]
                if isinstance(own, torch.Tensor)
                and isinstance(wanted, torch.Tensor)
                and own.shape != wanted.shape
                else own
                for own, wanted in zip(mine, captured, strict=True)
            ],
            spec,
        )
        yield args, kwargs
