"""A captured model as a trace file: run on its inputs and on calibration inputs, operands kept, written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from accelsim.capture.calls import LayerCall, OnLayer
from accelsim.capture.record import CalibrationSampler, Folder, Recorder
from accelsim.errors import AccelsimError
from accelsim.system.whole import scratch_folder
from accelsim.trace.manifest import check_provenance
from accelsim.trace.write import write_trace
from accelsim.workload.graph import Graph
from accelsim.workload.layer import FloatLayer, QuantizedLayer

Progress = Callable[[str, int, int], None]


class Model(Protocol):
    """A captured model, which runs on inputs nested as its framework nests them."""

    @property
    def layers(self) -> tuple[LayerCall, ...]: ...

    @property
    def graph(self) -> Graph: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    def run(self, inputs: Any, on_layer: OnLayer | None = None) -> Any: ...


@dataclass(frozen=True)
class Settings:
    """What an export is asked for, whatever the model is written in.

    path: of the trace; calibration_values: of each layer at most as many numbers are kept, drawn with `seed`;
    provenance: JSON for the trace. Raises AccelsimError for what can be refused before any work.
    """

    path: Path
    calibration_values: int
    seed: int
    provenance: Mapping[str, Any] | None
    progress: Progress | None

    def __post_init__(self) -> None:
        values = self.calibration_values
        if type(values) is not int or values < 1:
            raise AccelsimError(f"calibration_values is {values!r}, expected a whole number from 1")
        if not self.path.parent.is_dir():
            raise AccelsimError(
                f"trace {self.path}: there is no folder {self.path.parent}, expected one to write to"
            )
        check_provenance(self.provenance or {})
        if "exported" in (self.provenance or {}):
            raise AccelsimError("provenance has a key 'exported', expected none: export writes it")

    def report(self, what: str, done: int, of: int) -> None:
        if self.progress is not None:
            self.progress(what, done, of)


Quantized = Callable[[list[FloatLayer]], tuple[Sequence[QuantizedLayer], Sequence[str]]]
"""Words that a model itself has, of the recorded layers, and notes on what could not be kept of them."""


@dataclass(frozen=True)
class Sampled:
    """What layers read on calibration inputs, and in how many runs of the model."""

    sampler: CalibrationSampler
    batches: int


def sample_calibration(
    settings: Settings, model: Model, items: Iterable[Any], split: Callable[[Any], Iterator[Any]]
) -> Sampled:
    """Run the model on calibration items. split: an item as runs of the captured batch. Raises AccelsimError
    where there are none."""
    sampler = CalibrationSampler(settings.calibration_values, settings.seed)
    total, batches = len(items) if isinstance(items, Sized) else 0, 0
    for done, item in enumerate(items):
        settings.report("calibration", done, total)
        for batch in split(item):
            model.run(batch, on_layer=sampler)
            batches += 1
    if not batches:
        raise AccelsimError("calibration is empty, expected at least one of the inputs, or None")
    return Sampled(sampler, batches)


def write_captured(
    settings: Settings,
    name: str,
    model: Model,
    inputs: Any,
    sampled: Sampled | None,
    exported: Mapping[str, Any],
    quantized: Quantized | None = None,
) -> Path:
    """Run, keep and write. name: of the model; sampled: what is known of its calibration; exported: what
    provenance says of the export; quantized: see Quantized. Raises AccelsimError, with nothing written.
    """
    target = settings.path
    with scratch_folder(target) as scratch:
        folder = Folder(scratch)
        recorder = Recorder(folder)
        settings.report("run", 0, 1)
        model.run(inputs, on_layer=recorder)
        settings.report("run", 1, 1)
        layers = [_layer(call, recorder, sampled, folder) for call in model.layers]
        words, lost = quantized(layers) if quantized is not None else ((), ())
        said = {
            **exported,
            "calibration_batches": 0 if sampled is None else sampled.batches,
            "calibration_values": settings.calibration_values,
            "seed": settings.seed,
            "notes": [*model.notes, *lost],
        }
        provenance = {**(settings.provenance or {}), "exported": said}
        return write_trace(target, name, layers, provenance, graph=model.graph, quantized=words)


def _layer(call: LayerCall, recorder: Recorder, sampled: Sampled | None, folder: Folder) -> FloatLayer:
    seen, seen_weight = (None, None) if sampled is None else sampled.sampler.sample(call.layer)
    weight = recorder.weights[call.name] if call.weight is None else call.weight
    return FloatLayer(
        call.layer,
        weight=weight,
        input=recorder.inputs[call.name],
        bias=call.bias,
        calibration_input=None if seen is None else folder.keep(seen),
        calibration_weight=None if seen_weight is None else folder.keep(seen_weight),
    )


def split_tensors(mine: Sequence[Any], captured: Sequence[Any]) -> Iterator[list[Any]]:
    """Tensors of a calibration item as runs of the captured batch: themselves, or their parts along axis 0.

    What has no shape is handed on. Raises AccelsimError where the batch is no multiple of the captured one.
    """
    pairs = [
        (own, wanted)
        for own, wanted in zip(mine, captured, strict=False)
        if len(getattr(own, "shape", ())) and len(getattr(wanted, "shape", ()))
    ]
    times = {len(own) / len(wanted) for own, wanted in pairs if own.shape != wanted.shape and len(wanted)}
    if not times:
        yield list(mine)
        return
    sizes = [list(own.shape) for own, _ in pairs]
    expected = [list(wanted.shape) for _, wanted in pairs]
    same = all(own.shape[1:] == wanted.shape[1:] for own, wanted in pairs)
    if len(times) != 1 or not same or next(iter(times)) % 1 or min(times) < 1:
        raise AccelsimError(
            f"calibration: a batch is {sizes}, expected {expected}, or a multiple along axis 0"
        )
    for part in range(int(min(times))):
        yield [
            own[part * len(wanted) : (part + 1) * len(wanted)]
            if hasattr(own, "shape") and hasattr(wanted, "shape") and own.shape != wanted.shape
            else own
            for own, wanted in zip(mine, captured, strict=True)
        ]
