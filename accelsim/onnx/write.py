"""`accelsim.onnx.export`: an ONNX model as a trace file."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import onnx
import onnxruntime
from numpy.typing import NDArray

from accelsim.capture.write import Progress, Settings, sample_calibration, split_tensors, write_captured
from accelsim.errors import AccelsimError
from accelsim.onnx.capture import Captured, capture
from accelsim.onnx.infer import feeds_of
from accelsim.onnx.quantized import words_of
from accelsim.trace.manifest import MAX_VECTOR_SIZE
from accelsim.workload.layer import FloatLayer, QuantizedLayer


def export(
    model: str | Path | onnx.ModelProto,
    inputs: Any,
    path: str | Path,
    *,
    calibration: Iterable[Any] | None = None,
    name: str | None = None,
    unsupported: Literal["error", "float"] = "error",
    calibration_values: int = 1 << 20,
    seed: int = 0,
    vector_size: int = 16,
    provenance: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a trace of an ONNX model, and return its path.

    inputs: arrays by name, a sequence of them in the model's order, or one; their sizes fix those that the
    model leaves open, and what layers read on them is stored. calibration: more of the same, any number, each
    of the same shapes or a multiple of their batch, one in memory at a time; of each layer at most
    `calibration_values` numbers are kept, drawn with `seed`. name: of the model, by default its file's or its
    graph's. unsupported: `error`, or `float` to leave what is neither layer nor node to the host.
    vector_size: of the words in which the codes of a quantized model are kept. provenance: JSON for the
    trace, to which `exported` is added. Raises AccelsimError, with nothing written.
    """
    settings = Settings(Path(path), calibration_values, seed, provenance, progress)
    if type(vector_size) is not int or not 1 <= vector_size <= MAX_VECTOR_SIZE:
        raise AccelsimError(f"vector_size is {vector_size!r}, expected 1 to {MAX_VECTOR_SIZE}")
    captured = capture(model, inputs, unsupported)
    exported = {
        "by": "accelsim.onnx.export",
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "opset": captured.program.opset,
    }
    sampled = None
    if calibration is not None:
        sampled = sample_calibration(settings, captured, calibration, lambda item: _split(item, captured))
    return write_captured(
        settings,
        name or _name(model),
        captured,
        captured.feeds,
        sampled,
        exported,
        lambda layers: _words(captured, layers, vector_size),
    )


def _name(model: str | Path | onnx.ModelProto) -> str:
    return (model.graph.name or "model") if isinstance(model, onnx.ModelProto) else Path(model).stem


def _split(item: Any, captured: Captured) -> Iterator[dict[str, NDArray[Any]]]:
    own = feeds_of(captured.program, item)
    for part in split_tensors(list(own.values()), list(captured.feeds.values())):
        yield dict(zip(own, part, strict=True))


def _words(
    captured: Captured, layers: list[FloatLayer], vector_size: int
) -> tuple[Sequence[QuantizedLayer], Sequence[str]]:
    words, lost = words_of(captured.layers, captured.forms, layers, vector_size)
    for note in lost:
        warnings.warn(note, stacklevel=5)
    return words, lost
