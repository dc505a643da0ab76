"""What a model's layers and tensors are like on calibration inputs, recorded once for any scheme."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch.utils import _pytree as pytree

from accelsim.capture.calls import Floats, LayerCall
from accelsim.capture.record import CalibrationSampler
from accelsim.capture.write import Progress, split_tensors
from accelsim.errors import AccelsimError
from accelsim.torch.calls import operands_of
from accelsim.torch.capture import Captured, GraphRunner, capture
from accelsim.torch.storage import is_view
from accelsim.torch.tracing import arguments_of
from accelsim.torch.walk import Step, walk


class RowSampler:
    """Of each tensor at most `values` numbers, in rows of channels drawn evenly, and the row of the largest.

    A row is what vectors are cut from: the channels of one group of a layer's output at one pixel, or a
    node's result along its innermost channel axis.
    """

    def __init__(self, values: int, seed: int) -> None:
        self.values, self.seed = values, seed
        self.kept: dict[str, tuple[np.ndarray[Any, Any], Floats]] = {}
        self.largest: dict[str, Floats] = {}
        self.random: dict[str, np.random.Generator] = {}

    def add(self, name: str, rows: Floats) -> None:
        if name not in self.random:
            self.random[name] = np.random.default_rng([self.seed, zlib.crc32(name.encode()), 1])
        if name in self.kept:
            # Scores and probabilities are as wide as their input is long. Zeros at the end are what cutting
            # into vectors puts there too.
            draws, before = self.kept[name]
            width = max(rows.shape[1], before.shape[1])
            rows, before = _widened(rows, width), _widened(before, width)
            self.kept[name] = draws, before
            self.largest[name] = _widened(self.largest[name][None], width)[0]
        index = int(np.argmax(np.abs(rows).max(axis=1)))
        largest = self.largest.get(name)
        if largest is None or np.abs(rows[index]).max() > np.abs(largest).max():
            self.largest[name] = rows[index].copy()
        draws = self.random[name].random(len(rows))
        most = max(1, self.values // rows.shape[1])
        if name in self.kept:
            draws = np.concatenate([self.kept[name][0], draws])
            rows = np.concatenate([self.kept[name][1], rows])
        if len(draws) > most:
            chosen = np.sort(np.argpartition(draws, most - 1)[:most])
            draws, rows = draws[chosen], rows[chosen]
        self.kept[name] = draws, rows.copy()

    def rows(self, name: str) -> Floats:
        """float32[n, channels]."""
        return np.concatenate([self.kept[name][1], self.largest[name][None]])


def _widened(rows: Floats, width: int) -> Floats:
    return rows if rows.shape[1] == width else np.pad(rows, ((0, 0), (0, width - rows.shape[1])))


def rows_of(step: Step, result: Any) -> Floats | None:
    """A step's result as rows float32[n, channels of a vector's row]; None where it is no floats."""
    first = result if isinstance(result, torch.Tensor) else result[0]
    if not first.is_floating_point() or not first.numel():
        return None
    call = step.call
    if isinstance(call, LayerCall):
        g = call.layer.geometry
        if call.layer.op == "conv":
            rows = first.reshape(g.N, g.K, g.P * g.Q).transpose(1, 2)
        else:
            rows = first
        return np.ascontiguousarray(rows.reshape(-1, g.outputs_per_group).numpy(), np.float32)
    if not first.dim():
        return first.reshape(1, 1).numpy()
    axis = (step.node.meta["channels"] or (first.dim() - 1,))[-1]
    moved = first.movedim(axis, -1)
    return np.ascontiguousarray(moved.reshape(-1, moved.shape[-1]).numpy(), np.float32)


@dataclass
class Calibrated:
    """A model with what was recorded of it.

    given: False where that was on its example inputs alone; captures: of the model, by shapes of inputs;
    batches: the calibration inputs, each with the capture it fits; rewrites: what was done to each capture
    (accelsim.torch.prepare), and is to be done to new ones.
    """

    model: torch.nn.Module | torch.export.ExportedProgram
    unsupported: Literal["error", "float"]
    layers: CalibrationSampler
    tensors: RowSampler
    given: bool = True
    captures: list[tuple[Any, Captured]] = field(default_factory=list)
    batches: list[tuple[Captured, Any]] = field(default_factory=list)
    rewrites: tuple[Callable[[Captured], Captured], ...] = ()

    @property
    def first(self) -> Captured:
        return self.captures[0][1]

    @property
    def needs(self) -> tuple[str, ...]:
        """What a prepared model asks of the hardware beyond the model's own work, a sentence each."""
        return self.first.needs

    def rewritten(self, rewrite: Callable[[Captured], Captured]) -> Calibrated:
        """The same model with every capture rewritten, recorded anew on the same inputs."""
        new = Calibrated(
            self.model,
            self.unsupported,
            CalibrationSampler(self.layers.values, self.layers.seed),
            RowSampler(self.tensors.values, self.tensors.seed),
            self.given,
            [(shapes, rewrite(captured)) for shapes, captured in self.captures],
            rewrites=(*self.rewrites, rewrite),
        )
        for _, inputs in self.batches:
            new.record(inputs)
        return new

    def parts(self, inputs: Any) -> tuple[Captured, list[Any], int | None]:
        """A capture that these inputs fit, and the inputs in its batches: one as it is (None), or parts along
        axis 0, the last filled up with its own last row; then how many rows there are."""
        shapes = _shapes(inputs)
        for known, captured in self.captures:
            if known == shapes:
                return captured, [inputs], None
        for known, captured in self.captures:
            pieces = _pieces(inputs, shapes, known)
            if pieces is not None:
                return captured, pieces, shapes[0][0]
        return self.captured(inputs), [inputs], None

    def captured(self, inputs: Any) -> Captured:
        """The capture of inputs of these shapes. Raises AccelsimError for other layers than the first has."""
        shapes = _shapes(inputs)
        for known, captured in self.captures:
            if known == shapes:
                return captured
        captured = capture(self.model, inputs, self.unsupported)
        for rewrite in self.rewrites:
            captured = rewrite(captured)
        if self.captures:
            mine, own = ([call.name for call in c.layers] for c in (captured, self.first))
            if mine != own:
                raise AccelsimError(
                    "model: on inputs of another shape it has other layers, expected the same"
                )
        self.captures.append((shapes, captured))
        return captured

    def record(self, inputs: Any) -> None:
        """Add what the float model does on calibration inputs."""
        captured, pieces, rows = self.parts(inputs)
        if rows is not None and rows % _rows(self.captures, captured):
            pieces = list(split(inputs, pieces[0]))  # says what is wrong with its batch
        for piece in pieces:
            self.batches.append((captured, piece))
            if not isinstance(captured.runner, GraphRunner):
                captured.run(piece, on_layer=self.layers)
            else:
                walk([(captured.runner.traced, piece)], lambda steps: [self._recorded(s) for s in steps])

    def _recorded(self, step: Step) -> Any:
        call = step.call
        if isinstance(call, LayerCall):
            computed = step.args[1] if call.layer.weight_is_activation else None
            self.layers(call, operands_of(call, step.args[0], computed))
        result = step.result()
        if call is not None and not is_view(step.node):
            rows = rows_of(step, result)
            if rows is not None:
                self.tensors.add(call.name, rows)
        return result


def calibrate(
    model: torch.nn.Module | torch.export.ExportedProgram,
    inputs: Any,
    calibration: Iterable[Any] | None = None,
    *,
    unsupported: Literal["error", "float"] = "error",
    values: int = 1 << 20,
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibrated:
    """Capture a model and record it on calibration inputs, by default on `inputs`.

    inputs: as of `export`; calibration: more of the same, of any number; of each layer's input and of each
    tensor at most `values` numbers are kept, drawn with `seed`, and the largest. Raises AccelsimError.
    """
    captured = capture(model, inputs, unsupported)
    return record(
        model,
        captured,
        inputs,
        calibration,
        unsupported=unsupported,
        values=values,
        seed=seed,
        progress=progress,
    )


def record(
    model: torch.nn.Module | torch.export.ExportedProgram,
    captured: Captured,
    inputs: Any,
    calibration: Iterable[Any] | None,
    *,
    unsupported: Literal["error", "float"],
    values: int,
    seed: int,
    progress: Progress | None,
) -> Calibrated:
    """As `calibrate`, of a model that is captured on `inputs` already."""
    report = progress or (lambda what, done, of: None)
    calibrated = Calibrated(
        model,
        unsupported,
        CalibrationSampler(values, seed),
        RowSampler(values, seed),
        calibration is not None,
    )
    calibrated.captures.append((_shapes(inputs), captured))
    total = len(calibration) if isinstance(calibration, Sized) else 0
    for done, item in enumerate([inputs] if calibration is None else calibration):
        report("calibration", done, total)
        calibrated.record(item)
    if not calibrated.batches:
        raise AccelsimError("calibration is empty, expected at least one of the inputs, or None")
    return calibrated


def split(item: Any, inputs: Any) -> Iterator[Any]:
    """A calibration item as runs of the captured batch: itself, or its parts along axis 0.

    Raises AccelsimError where its batch is no multiple of the captured one.
    """
    mine, spec = pytree.tree_flatten(arguments_of(item))
    for part in split_tensors(mine, pytree.tree_leaves(arguments_of(inputs))):
        yield pytree.tree_unflatten(part, spec)


def _shapes(inputs: Any) -> list[tuple[int, ...]]:
    return [
        tuple(leaf.shape)
        for leaf in pytree.tree_leaves(arguments_of(inputs))
        if isinstance(leaf, torch.Tensor)
    ]


def _rows(captures: list[tuple[Any, Captured]], captured: Captured) -> int:
    return next(int(shapes[0][0]) for shapes, known in captures if known is captured)


def _pieces(inputs: Any, shapes: list[tuple[int, ...]], known: list[tuple[int, ...]]) -> list[Any] | None:
    """The inputs in batches of known shapes, or None where they differ in more than axis 0."""
    if len(shapes) != len(known) or any(
        len(a) != len(b) or a[1:] != b[1:] for a, b in zip(shapes, known, strict=True)
    ):
        return None
    if not shapes or not all(shapes) or len({a[0] for a in shapes}) != 1 or len({b[0] for b in known}) != 1:
        return None
    rows, batch = shapes[0][0], known[0][0]
    if not rows:
        return None
    leaves, spec = pytree.tree_flatten(arguments_of(inputs))

    def part(start: int) -> Any:
        def cut(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            piece = leaf[start : start + batch]
            missing = batch - len(piece)
            return torch.cat([piece, piece[-1:].expand(missing, *piece.shape[1:])]) if missing else piece

        return pytree.tree_unflatten([cut(leaf) for leaf in leaves], spec)

    return [part(start) for start in range(0, rows, batch)]
