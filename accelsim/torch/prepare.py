"""Models made easier to quantize: the float function stays, ranges change (docs/inference.md).

A method looks at a calibrated model and says which constants change; every capture is rewritten so, and
recorded anew. Nothing here knows a scheme or a machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from accelsim.capture.calls import LayerCall
from accelsim.errors import AccelsimError
from accelsim.torch import ops
from accelsim.torch.calibrate import Calibrated
from accelsim.torch.capture import Captured
from accelsim.torch.catalogue import shape_of
from accelsim.torch.changes import (
    Channelwise,
    Constants,
    Edit,
    Ordered,
    Rotated,
    SecondNorm,
    edited,
    graph_of,
)
from accelsim.torch.edit import tensor_of
from accelsim.torch.lower import CALL
from accelsim.torch.tied import End, Read, Tied, find_tied, is_norm

Ranges = NDArray[np.float64]

_DEAD = 1e-6
"""Of the largest range of a tensor's channels; below it a channel has no range to speak of."""
_ROUNDS = 20
"""Equalization is repeated until ranges settle: a layer belongs to two groups."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Methods, applied in this order.

    equalize: cross-layer equalization (Nagel et al., ICCV 2019, section 4.1); smooth: migration strength
    alpha of SmoothQuant (Xiao et al., ICML 2023, section 4), 0 to 1, None for none; rotate: Hadamard matrices
    of this size, a power of two, or the largest that divides the channels, where they fold into the weights
    before and behind, 0 for none; rotate_inputs: also where hardware has to rotate a layer's input at run
    time; permute: channels of like magnitude beside each other. Raises AccelsimError.
    """

    equalize: bool = False
    smooth: float | None = None
    rotate: int = 0
    rotate_inputs: bool = False
    permute: bool = False

    def __post_init__(self) -> None:
        for name in ("equalize", "rotate_inputs", "permute"):
            if not isinstance(getattr(self, name), bool):
                raise AccelsimError(f"preparation: {name} is {getattr(self, name)!r}, expected True or False")
        smooth, rotate = self.smooth, self.rotate
        number = isinstance(smooth, (int, float)) and not isinstance(smooth, bool)
        if smooth is not None and not (number and 0 <= smooth <= 1):
            raise AccelsimError(f"preparation: smooth is {smooth!r}, expected 0 to 1, or None")
        whole = isinstance(rotate, int) and not isinstance(rotate, bool)
        if not whole or rotate == 1 or rotate < 0 or rotate & (rotate - 1):
            raise AccelsimError(f"preparation: rotate is {rotate!r}, expected 0 or a power of two from 2")
        if self.rotate_inputs and not rotate:
            raise AccelsimError("preparation: rotate_inputs needs a size, expected rotate from 2")


@dataclass(frozen=True)
class _Model:
    """What methods look at: one capture's graph, and what was recorded of it."""

    calibrated: Calibrated
    module: fx.GraphModule
    number: dict[fx.Node, int]

    @staticmethod
    def of(calibrated: Calibrated) -> _Model:
        module = graph_of(calibrated.first).traced.module
        return _Model(calibrated, module, {node: number for number, node in enumerate(module.graph.nodes)})

    def input_range(self, node: fx.Node) -> Ranges:
        """Largest magnitude of each channel of a layer's input."""
        seen, _ = self.calibrated.layers.sample(node.meta[CALL].layer)
        found: Ranges = np.abs(seen).max(axis=(0, 2, 3)).astype(np.float64)
        return found

    def output_range(self, node: fx.Node) -> Ranges | None:
        """Of each channel of a layer's output; None where rows were recorded by groups."""
        call = node.meta[CALL]
        if not isinstance(call, LayerCall) or call.layer.geometry.groups > 1:
            return None
        found: Ranges = np.abs(self.calibrated.tensors.rows(call.name)).max(axis=0).astype(np.float64)
        return found

    def magnitudes(self, node: fx.Node) -> Ranges:
        """Of a layer's weights, the largest over its taps: float64[groups, K / groups, C / groups]."""
        weight = tensor_of(self.module, node.args[1]).abs().double()
        groups = int(node.args[6]) if node.target is ops.conv else 1
        apart = weight.reshape(groups, len(weight) // groups, weight.shape[1], -1)
        found: Ranges = apart.amax(3).numpy()
        return found

    def constants(self, end: End, change: Channelwise) -> Constants:
        return Constants(self.number[end.node], end.role, change)


def prepare(calibrated: Calibrated, preparation: Preparation) -> Calibrated:
    """A calibrated model prepared, recorded anew on its calibration inputs; give it to `simulate`.

    Outputs in float are the model's, up to rounding. What the hardware has to do for it beyond the model's
    own work is in `needs`. Raises AccelsimError for a model that torch.export cannot trace.
    """
    methods: list[Callable[[_Model], tuple[list[Edit], list[str]]]] = []
    if preparation.equalize:
        methods.append(_equalized)
    if preparation.smooth is not None:
        alpha = float(preparation.smooth)
        methods += [_second_norms, lambda model: _smoothed(model, alpha)]
    if preparation.rotate:
        methods.append(lambda model: _rotated(model, preparation.rotate))
    if preparation.rotate_inputs:
        methods.append(lambda model: _rotated_inputs(model, preparation.rotate))
    if preparation.permute:
        methods.append(_ordered)
    _Model.of(calibrated)
    for method in methods:
        edits, needs = method(_Model.of(calibrated))
        if edits:
            calibrated = _rewritten(calibrated, edits, needs)
    return calibrated


def _rewritten(calibrated: Calibrated, edits: Sequence[Edit], needs: Sequence[str]) -> Calibrated:
    def steps(captured: Captured) -> list[tuple[str, object]]:
        return [(node.op, node.target) for node in graph_of(captured).traced.module.graph.nodes]

    expected = steps(calibrated.first)

    def rewrite(captured: Captured) -> Captured:
        if steps(captured) != expected:
            raise AccelsimError(
                "prepare: on inputs of another size the model takes other steps, expected the same for all"
            )
        return edited(captured, edits, needs)

    return calibrated.rewritten(rewrite)


def _reaches_layers(tied: Tied) -> bool:
    """True where layers read the group, or multiply two tensors of it."""
    return bool(tied.readers) or any(place.inverse for place in tied.places)


def _both(tied: Tied) -> tuple[list[End], list[End]]:
    """Ends whose weights shrink where a channel's scale is large, and those whose weights grow."""
    shrink = [end for end in tied.writers if not end.place.inverse]
    shrink += [end for end in tied.readers if end.place.inverse]
    return shrink, [end for end in (*tied.writers, *tied.readers) if end not in shrink]


def _scaled(model: _Model, tied: Tied, scale: Ranges) -> list[Edit]:
    """Tensors of the group divided by their channels' scales."""
    factor = torch.from_numpy(scale)
    shrink, grow = _both(tied)
    edits: list[Edit] = [model.constants(end, lambda values: values / factor) for end in shrink]
    return edits + [model.constants(end, lambda values: values * factor) for end in grow]


def _balanced(one: Ranges, other: Ranges, power: float) -> Ranges:
    """one^power / other^(1 - power), of mean 1. Dead channels, one of their ranges next to 0, keep 1."""
    live = (one > _DEAD * one.max()) & (other > _DEAD * other.max())
    scale = np.ones_like(one)
    if live.any():
        logs = power * np.log(one[live]) - (1 - power) * np.log(other[live])
        scale[live] = np.exp(logs - logs.mean())
    return scale


def _largest(ranges: Iterable[Ranges]) -> Ranges:
    return np.max(list(ranges), axis=0)


def _weight_range(magnitudes: Ranges, role: object) -> Ranges:
    """Of each channel of a layer's output or input."""
    return magnitudes.max(axis=2 if role == "output" else 1).reshape(-1)


# Cross-layer equalization


def _equalized(model: _Model) -> tuple[list[Edit], list[str]]:
    """Weights before a tensor and behind it get the same range for each of its channels."""
    groups = []
    for tied in find_tied(model.module, "scale"):
        shrink, grow = _both(tied)
        if tied.free and shrink and grow and all(end.role in ("output", "input") for end in shrink + grow):
            groups.append((tied, shrink, grow, np.ones(tied.width)))
    weights = {
        end.node: model.magnitudes(end.node) for _, shrink, grow, _ in groups for end in (*shrink, *grow)
    }
    for _ in range(_ROUNDS):
        for _, shrink, grow, scale in groups:
            factor = _balanced(
                _largest(_weight_range(weights[end.node], end.role) for end in shrink),
                _largest(_weight_range(weights[end.node], end.role) for end in grow),
                0.5,
            )
            scale *= factor
            for ends, by in ((shrink, 1 / factor), (grow, factor)):
                for end in ends:
                    own = weights[end.node]
                    shape = (len(own), -1, 1) if end.role == "output" else (len(own), 1, -1)
                    own *= by.reshape(shape)
    return [edit for tied, _, _, scale in groups for edit in _scaled(model, tied, scale)], []


# SmoothQuant


def _second_norms(model: _Model) -> tuple[list[Edit], list[str]]:
    """A norm that others read beside layers is computed for the layers apart."""
    edits: list[Edit] = []
    needs = []
    for node in model.module.graph.nodes:
        if is_norm(node):
            layers = [user for user in node.users if user.target is ops.linear]
            if layers and len(layers) < len(node.users):
                edits.append(SecondNorm(model.number[node]))
                name = node.meta[CALL].name
                needs.append(f"{name}: written twice, with a gain and bias of its own for the layers")
    return edits, needs


def _smoothed(model: _Model, alpha: float) -> tuple[list[Edit], list[str]]:
    edits: list[Edit] = []
    for tied in find_tied(model.module, "scale"):
        if not tied.free:
            continue
        inputs = [end for end in tied.readers if not end.place.inverse]
        turned = [end for end in tied.writers if end.place.inverse]
        if inputs and not turned:
            activations = _largest(model.input_range(end.node) for end in inputs)
            weights = _largest(_weight_range(model.magnitudes(end.node), end.role) for end in inputs)
        elif turned and not tied.readers and len(tied.writers) == 2:
            # Queries and keys: the weight operand of the product is a tensor too.
            mine = [model.output_range(end.node) for end in tied.writers if not end.place.inverse]
            other = [model.output_range(end.node) for end in turned]
            if not mine or mine[0] is None or other[0] is None:
                continue
            activations, weights = mine[0], other[0]
        else:
            continue
        edits += _scaled(model, tied, _balanced(activations, weights, alpha))
    return edits, []


# Hadamard matrices


def _size(wanted: int, block: int) -> int:
    """The largest power of two up to the one wanted that divides the channels."""
    while block % wanted:
        wanted //= 2
    return wanted


def _turn(size: int) -> Channelwise:
    return lambda values: ops.rotate(values, size, -1)


def _rotated(model: _Model, wanted: int) -> tuple[list[Edit], list[str]]:
    """What lies between linear steps: both sides' weights take the matrix, which is its own inverse."""
    edits: list[Edit] = []
    for tied in find_tied(model.module, "rotation"):
        size = _size(wanted, tied.block)
        if tied.free and size > 1 and _reaches_layers(tied):
            edits += [model.constants(end, _turn(size)) for end in (*tied.writers, *tied.readers)]
    return edits, []


def _rotated_inputs(model: _Model, wanted: int) -> tuple[list[Edit], list[str]]:
    """Other inputs of layers, by a step at run time. Inputs that are never negative stay: their codes would
    need a sign."""
    edits: list[Edit] = []
    needs = []
    for tied in find_tied(model.module, "rotation"):
        if tied.free:
            continue
        tensors: dict[fx.Node, list[End]] = {}
        for end in tied.readers:
            if end.node.meta[CALL].layer.input_signed:
                tensors.setdefault(end.node.args[0], []).append(end)
        for source, ends in tensors.items():
            blocks = [end.node.meta[CALL].layer.geometry.channels_per_group for end in ends]
            size = _size(wanted, math.gcd(*blocks))
            if size < 2:
                continue
            edits += [model.constants(end, _turn(size)) for end in ends]
            axis = len(shape_of(source)) + ends[0].place.axes[-1]
            readers = tuple(model.number[end.node] for end in ends)
            edits.append(Rotated(model.number[source], readers, size, axis))
            names = ", ".join(end.node.meta[CALL].name for end in ends)
            adds = size.bit_length() - 1
            needs.append(f"{names}: input rotated at run time, {adds} adds a value (Hadamard of {size})")
    return edits, needs


# Order of channels


def _ordered(model: _Model) -> tuple[list[Edit], list[str]]:
    """The largest first. What comes after the last layer is brought back into the model's order."""
    edits: list[Edit] = []
    needs = []
    before_layers = _before_layers(model.module)
    for tied in find_tied(model.module, "order"):
        if tied.fixed or tied.block < 2 or not _reaches_layers(tied) or not _last(tied, before_layers):
            continue
        ranges = [model.input_range(end.node) for end in tied.readers]
        if not ranges:
            ranges = [
                found
                for end in tied.writers
                if end.role == "output" and (found := model.output_range(end.node)) is not None
            ]
        if not ranges:
            continue
        # Each tensor counts alike, whatever its unit.
        key = np.sum([found / (found.mean() or 1.0) for found in ranges], axis=0).reshape(-1, tied.block)
        within = np.argsort(-key, axis=1, kind="stable")
        order = torch.from_numpy((within + tied.block * np.arange(len(key))[:, None]).reshape(-1))
        if torch.equal(order, torch.arange(tied.width)):
            continue
        ends = (*tied.writers, *tied.readers)
        edits += [model.constants(end, _picked(order)) for end in ends]
        late: dict[fx.Node, list[Read]] = {}
        for read in tied.outside:
            late.setdefault(read.tensor, []).append(read)
        for tensor, reads in late.items():
            axis = len(shape_of(tensor)) + reads[0].place.axes[0]
            readers = tuple(model.number[read.reader] for read in reads)
            edits.append(Ordered(model.number[tensor], readers, axis, torch.argsort(order)))
            name = tensor.meta[CALL].name if CALL in tensor.meta else tensor.name
            needs.append(f"{name}: channels put back into the model's order, after the last layer")
    return edits, needs


def _picked(order: torch.Tensor) -> Channelwise:
    return lambda values: values[..., order]


def _last(tied: Tied, before_layers: set[fx.Node]) -> bool:
    """True where the group is read by others than layers only after the last layer."""
    return all(read.reader not in before_layers and len(read.place.axes) == 1 for read in tied.outside)


def _before_layers(module: fx.GraphModule) -> set[fx.Node]:
    """Layers, and all that leads to one."""
    found: set[fx.Node] = set()
    for node in reversed(module.graph.nodes):
        if node.target in ops.LAYERS or any(user in found for user in node.users):
            found.add(node)
    return found
