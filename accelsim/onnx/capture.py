"""An ONNX model captured: its layers and nodes, and a way to run it and see what layers read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
from numpy.typing import NDArray

from accelsim.capture.calls import LayerCall, NodeCall, OnLayer
from accelsim.errors import LONG, AccelsimError
from accelsim.onnx.fold import fold, join_nodes
from accelsim.onnx.graph import Form, Program
from accelsim.onnx.infer import Inferrer, feeds_of, fix_inputs
from accelsim.onnx.layout import find_channels
from accelsim.onnx.load import first_line, load_model, opset_of
from accelsim.onnx.lower import Lowerer, find_unsupported
from accelsim.onnx.rewrite import Normalizer
from accelsim.onnx.run import RECORDED_BYTES, Runner, Tap
from accelsim.workload.graph import Graph

UNSUPPORTED = ("error", "float")
_SHOWN = 40


@dataclass(frozen=True, eq=False)
class Captured:
    """A model as layers and nodes.

    program: the model on the shapes of the inputs; steps: in the order in which they run; forms: of each
    layer what it is in the program; graph: what each reads; notes: what is not as in the model, a sentence
    each; feeds: the inputs by name.
    """

    program: Program
    steps: tuple[LayerCall | NodeCall, ...]
    forms: tuple[Form, ...]
    graph: Graph
    notes: tuple[str, ...]
    feeds: Mapping[str, NDArray[Any]]
    runner: Runner

    @property
    def layers(self) -> tuple[LayerCall, ...]:
        return tuple(step for step in self.steps if isinstance(step, LayerCall))

    def run(self, inputs: Any, on_layer: OnLayer | None = None) -> None:
        """Run on inputs of the captured shapes.

        on_layer(call, (input float32[N, C, H, W], weight float32[K, C/groups, R, S], bias or None)) sees each
        layer's operands. Raises AccelsimError for inputs of other shapes or types.
        """
        self.runner.run(feeds_of(self.program, inputs), on_layer)


def capture(
    model: str | Path | onnx.ModelProto,
    inputs: Any,
    unsupported: Literal["error", "float"] = "error",
    recorded_bytes: int = RECORDED_BYTES,
) -> Captured:
    """Capture a model on inputs of one shape.

    inputs: arrays by name, a sequence of them in the model's order, or one. unsupported: `error` raises
    AccelsimError that names every operation that is neither layer nor node; `float` leaves them to the host.
    recorded_bytes: of layers' operands, about as many are in memory at a time.
    """
    if unsupported not in UNSUPPORTED:
        raise AccelsimError(f"unsupported is {unsupported!r}, expected 'error' or 'float'")
    if not isinstance(model, (str, Path, onnx.ModelProto)):
        raise AccelsimError(f"model is a {type(model).__name__}, expected a path or an onnx.ModelProto")
    loaded, initializers = load_model(model)
    where = "model" if isinstance(model, onnx.ModelProto) else f"model {model}"
    program = Program(loaded, initializers, opset_of(loaded))
    feeds = feeds_of(program, inputs)
    fix_inputs(program, feeds)
    try:
        return _captured(program, feeds, unsupported, recorded_bytes)
    except AccelsimError as error:
        text = str(error)
        raise AccelsimError(text if text.startswith("inputs") else f"{where}: {text}", LONG) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # What onnx's checker lets through: names that are no text, attributes of other types.
        raise AccelsimError(f"{where}: is damaged ({type(error).__name__}: {first_line(error)})") from error


def _captured(
    program: Program, feeds: Mapping[str, NDArray[Any]], unsupported: str, recorded_bytes: int
) -> Captured:
    inferrer = Inferrer(program, feeds)
    inferrer.run()
    missing = find_unsupported(program)
    if missing and unsupported == "error":
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise AccelsimError(
            f"{len(missing)} operation(s) not supported: {'; '.join(missing[:_SHOWN])}{more}; expected those "
            "of docs/onnx.md, or unsupported='float', which leaves them to the host",
            LONG,
        )
    inferrer.probe()
    Normalizer(program, inferrer).run()
    fold(program)
    join_nodes(program)
    find_channels(inferrer)
    lowerer = Lowerer(program)
    lowered = lowerer.run()
    taps = [
        Tap(call, form.x, form.weight if form.values is None else None)
        for call, form in zip(lowered.layers, lowerer.forms, strict=True)
    ]
    notes = (f"left to the host, in float: {', '.join(lowered.host)}",) if lowered.host else ()
    for note in notes:
        warnings.warn(note, stacklevel=4)
    runner = Runner(program, taps, recorded_bytes)
    return Captured(program, lowered.steps, tuple(lowerer.forms), lowered.graph, notes, feeds, runner)
