"""`accelsim.torch.export`: a PyTorch model as a trace file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from accelsim.capture.write import Progress, Sampled, Settings, sample_calibration, write_captured
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.quantize.arrays import Preset, QuantizeOptions
from accelsim.torch.calibrate import Calibrated, record, split
from accelsim.torch.capture import capture
from accelsim.torch.simulate import check_preset, usual_preset
from accelsim.torch.variants import variants_of
from accelsim.workload.layer import FloatLayer, QuantizedLayer


def export(
    model: torch.nn.Module | torch.export.ExportedProgram | Calibrated,
    inputs: Any,
    path: str | Path,
    *,
    calibration: Iterable[Any] | None = None,
    schemes: Sequence[str | Scheme] = (),
    quantize: Preset | None = None,
    arch: str | Path | Arch = "magnet16",
    overrides: Sequence[str] = (),
    options: QuantizeOptions | None = None,
    name: str | None = None,
    unsupported: Literal["error", "float"] = "error",
    calibration_values: int = 1 << 20,
    seed: int = 0,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a trace of a model in inference, and return its path.

    model: also what `calibrate` or `prepare` returned, with what was recorded of it in place of calibration.
    inputs: a tensor, a tuple of inputs or a dict of keyword inputs; their batch is the trace's, and what
    layers read on them is stored. calibration: more of the same, any number, each of the same shapes or a
    multiple of their batch, one in memory at a time; of each layer at most `calibration_values` numbers are
    kept, drawn with `seed`. schemes: of words that are stored beside the floats; quantize: how they are
    chosen (docs/inference.md), by default as `simulate` does; for words of arch with its overrides, by rule
    as options say; fitted words keep all of calibration in memory. name: of the model, by default its class.
    unsupported: `error`, or `float` to leave what is neither layer nor node to the host. provenance: JSON for
    the trace, to which `exported` is added. Raises AccelsimError, with nothing written.
    """
    if isinstance(model, Calibrated):
        if calibration is not None:
            raise AccelsimError("export: the model is calibrated already, expected no calibration")
        calibration_values, seed = model.layers.values, model.layers.seed
    settings = Settings(Path(path), calibration_values, seed, provenance, progress)
    check_preset(quantize)
    if isinstance(schemes, str):
        raise AccelsimError(f"export: schemes is '{schemes}', expected a list such as ['4/4/4/4']")
    if not schemes and (quantize is not None or options is not None):
        raise AccelsimError("export: quantize or options are given without schemes to store, expected both")
    if isinstance(model, Calibrated):
        calibrated, captured, given = model, model.captured(inputs), model.given
        model = calibrated.model
    else:
        calibrated, captured, given = None, capture(model, inputs, unsupported), calibration is not None
    exported = {"by": "accelsim.torch.export", "torch": torch.__version__, "method": captured.method}
    if captured.needs:
        exported["needs"] = list(captured.needs)
    variants = None
    if schemes:
        variants = variants_of(schemes, quantize or usual_preset(captured, given), arch, overrides, options)
        exported["quantized"] = variants.described()
    if calibrated is None and variants is not None and variants.fitted:
        calibrated = record(
            model,
            captured,
            inputs,
            calibration,
            unsupported=unsupported,
            values=calibration_values,
            seed=seed,
            progress=progress,
        )
    sampled = None
    if calibrated is not None and given:
        sampled = Sampled(calibrated.layers, len(calibrated.batches))
    elif calibration is not None:
        sampled = sample_calibration(settings, captured, calibration, lambda item: split(item, inputs))

    def words(layers: list[FloatLayer]) -> tuple[list[QuantizedLayer], list[str]]:
        if variants is None:
            return [], []
        if not variants.fitted:
            return variants.by_rule(layers), []
        assert calibrated is not None
        return variants.fitted_to(calibrated, layers, progress), []

    return write_captured(settings, name or type(model).__name__, captured, inputs, sampled, exported, words)
