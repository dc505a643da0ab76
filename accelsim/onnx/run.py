"""Runs a program by onnxruntime in parts, so that no more than one part's tensors are in memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.capture.calls import LayerCall, OnLayer
from accelsim.errors import AccelsimError
from accelsim.onnx.graph import Op, Program, Value
from accelsim.onnx.session import Session

RECORDED_BYTES = 1 << 27
WEIGHT_BYTES = 1 << 26
"""Of what is recorded of a part, and of its constants: where more come, the next part begins. One tensor
alone may be more."""


@dataclass(frozen=True, eq=False)
class Tap:
    """A layer and the values that it reads; weight: None where it is stored."""

    call: LayerCall
    x: Value
    weight: Value | None

    @property
    def reads(self) -> list[Value]:
        return [self.x] if self.weight is None else [self.x, self.weight]


class Runner:
    """recorded_bytes: see RECORDED_BYTES. Raises AccelsimError where onnxruntime lacks an operation."""

    def __init__(self, program: Program, taps: Sequence[Tap], recorded_bytes: int = RECORDED_BYTES) -> None:
        self.taps, self.inputs = list(taps), list(program.inputs)
        self.recorded = {value for tap in taps for value in tap.reads}
        parts = _parts(_needed(program, self.recorded), self.recorded, recorded_bytes)
        last: dict[Value, int] = {}
        for number, part in enumerate(parts):
            last |= dict.fromkeys((value for op in part for value in op.given), number)
        # Of a recorded value the part in which its last layer can be shown.
        self.ready: list[list[Tap]] = [[] for _ in range(len(parts) + 1)]
        made = {value: number + 1 for number, part in enumerate(parts) for op in part for value in op.made}
        for tap in taps:
            number = max(made.get(value, 0) for value in tap.reads)
            self.ready[number].append(tap)
            for value in tap.reads:
                last[value] = max(last.get(value, 0), number)
        self.last = last
        self.sessions = []
        for number, part in enumerate(parts):
            own = {value for op in part for value in op.made}
            reads = {
                value: None for op in part for value in op.given if not value.is_constant and value not in own
            }
            makes = [
                value
                for op in part
                for value in op.made
                if value in self.recorded or self.last.get(value, 0) > number
            ]
            self.sessions.append(Session(program, part, list(reads), makes))

    def run(self, feeds: Mapping[str, NDArray[Any]], on_layer: OnLayer | None = None) -> None:
        """Show each layer's operands. feeds: of the captured shapes. Raises AccelsimError for others."""
        for value in self.inputs:
            found = feeds[value.name]
            if found.shape != value.shape or found.dtype != value.dtype:
                raise AccelsimError(
                    f"inputs: {value.name} is {found.dtype} {list(found.shape)}, expected {value.dtype} "
                    f"{list(value.sizes)}, as captured"
                )
        held: dict[str, NDArray[Any]] = {value.name: feeds[value.name] for value in self.inputs}
        names = {value.name: number for value, number in self.last.items()}
        self._show(0, held, on_layer)
        for number, session in enumerate(self.sessions):
            made = session.run(held)
            held.update(zip((value.name for value in session.makes), made, strict=True))
            self._show(number + 1, held, on_layer)
            held = {name: value for name, value in held.items() if names.get(name, -1) > number}

    def _show(self, number: int, held: Mapping[str, NDArray[Any]], on_layer: OnLayer | None) -> None:
        for tap in self.ready[number]:
            if on_layer is not None:
                weight = None if tap.weight is None else held[tap.weight.name]
                operands = tap.call.operands(held[tap.x.name], weight)
                for values in operands[:2]:
                    if not np.isfinite(values).all():
                        raise AccelsimError(
                            f"layer {tap.call.name}: reads NaN or infinity, expected finite numbers"
                        )
                on_layer(tap.call, operands)


def _needed(program: Program, wanted: set[Value]) -> list[Op]:
    """The ops that the wanted values depend on, in order."""
    values, ops = set(wanted), []
    for op in reversed(program.ops):
        if not op.is_folded() and any(value in values for value in op.made):
            ops.append(op)
            values |= set(op.given)
    return ops[::-1]


def _parts(ops: Sequence[Op], recorded: set[Value], recorded_bytes: int) -> list[list[Op]]:
    parts: list[list[Op]] = []
    kept = weights = 0
    for op in ops:
        own = sum(_bytes(value) for value in op.made if value in recorded)
        stored = sum(_bytes(value) for value in op.given if value.is_constant)
        if not parts or kept + own > recorded_bytes or weights + stored > WEIGHT_BYTES:
            parts.append([])
            kept = weights = 0
        parts[-1].append(op)
        kept, weights = kept + own, weights + stored
    return parts


def _bytes(value: Value) -> int:
    return math.prod(value.sizes) * (value.dtype.itemsize if value.dtype is not None else 0)
