"""Operands of a captured model's layers, kept on disk; of calibration a bounded, seeded sample."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np

from accelsim.capture.calls import Floats, LayerCall, Operands
from accelsim.errors import AccelsimError
from accelsim.workload.layer import Layer

Item = tuple[float, Floats, Floats | None]
"""What was drawn by, the values, and the weight operand of a matmul between activations."""


class Folder:
    """Arrays in files of a folder, mapped into memory: the system may drop what is not being read."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0

    def keep(self, values: Floats) -> Floats:
        file = self.path / f"{self.count}.f32"
        self.count += 1
        np.ascontiguousarray(values, np.float32).tofile(file)
        return np.memmap(file, np.float32, mode="r", shape=values.shape)


class Recorder:
    """on_layer of a run: keeps each layer's operands (inputs: float32[N, C, H, W]; weights: those computed
    at run time)."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.inputs: dict[str, Floats] = {}
        self.weights: dict[str, Floats] = {}

    def __call__(self, call: LayerCall, operands: Operands) -> None:
        self.inputs[call.name] = self.folder.keep(operands[0])
        if call.layer.weight_is_activation:
            self.weights[call.name] = self.folder.keep(operands[1])


class CalibrationSampler:
    """Calibration inputs of layers in bounded memory: of each layer at most `values` numbers, drawn evenly.

    `add` what a layer reads, batch by batch; `sample` is then its calibration_input and calibration_weight.
    Called, it is the on_layer of a captured model's runs.

    What is drawn is an image of a convolution, a row of a linear layer, a whole group of a matmul between
    activations (float32[C/groups, rows] with its weight operand); one at least. Every item has the same
    chance, whatever run it comes from, and the same seed draws the same. Those with the largest
    magnitudes are always among them, so that ranges by maximum are those of all that was seen.
    """

    def __init__(self, values: int = 1 << 20, seed: int = 0) -> None:
        if type(values) is not int or values < 1:
            raise AccelsimError(f"calibration sampler: values is {values!r}, expected a whole number from 1")
        self.values, self.seed = values, seed
        self.items: dict[str, list[Item]] = {}
        self.random: dict[str, np.random.Generator] = {}
        self.most: dict[str, int] = {}
        self.largest: dict[tuple[str, str], tuple[float, Item]] = {}

    def __call__(self, call: LayerCall, operands: Operands) -> None:
        self.add(call.layer, operands[0], operands[1] if call.layer.weight_is_activation else None)

    def add(self, layer: Layer, x: Floats, weight: Floats | None = None) -> None:
        """x: float32[n, C, H, W] of any n, H and W that the layer reads; of a matmul with
        weight_is_activation float32[1, groups * depth, 1, rows] of any number of groups, with its weight
        operand float32[groups * outputs, depth, 1, 1]. Raises AccelsimError for other shapes.
        """
        _check(layer, x, weight)
        name, kept = layer.name, self.items.setdefault(layer.name, [])
        if name not in self.random:
            self.random[name] = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        items, weights = _items(layer, x, weight)
        size = math.prod(items.shape[1:]) + (0 if weights is None else math.prod(weights.shape[1:]))
        most = max(1, self.values // size)
        self.most[name] = most
        draws = self.random[name].random(len(items))

        def item(index: int) -> Item:
            own = None if weights is None else weights[index].copy()
            return float(draws[index]), items[index].copy(), own

        kept += [item(index) for index in np.argsort(draws, kind="stable")[:most]]
        kept.sort(key=lambda item: item[0])
        del kept[most:]
        for side, values in (("input", items), ("weight", weights)):
            if values is None:
                continue
            peaks = np.abs(values.reshape(len(values), -1)).max(axis=1)
            index = int(np.argmax(peaks))
            if peaks[index] > self.largest.get((name, side), (-1.0,))[0]:
                self.largest[name, side] = (float(peaks[index]), item(index))

    def _with_largest(self, name: str) -> list[Item]:
        """What is kept, the last drawn giving way to the items of the largest magnitudes."""
        largest: dict[float, Item] = {}
        for side in ("input", "weight"):
            if (name, side) in self.largest:
                item = self.largest[name, side][1]
                largest.setdefault(item[0], item)
        most = self.most[name]
        others = [item for item in self.items[name] if item[0] not in largest]
        return [*others[: max(0, most - len(largest))], *list(largest.values())[:most]]

    def sample(self, layer: Layer) -> tuple[Floats, Floats | None]:
        """(calibration_input, calibration_weight) as FloatLayer has them. Raises AccelsimError for a layer of
        which nothing was added."""
        if layer.name not in self.items:
            raise AccelsimError(f"layer {layer.name}: no calibration input was added, expected at least one")
        kept = self._with_largest(layer.name)
        items = _stacked([item for _, item, _ in kept])
        if layer.op == "conv":
            return items, None
        if layer.weight_is_activation:
            weights = _stacked([weight for _, _, weight in kept if weight is not None])
            columns = weights.reshape(-1, weights.shape[-1])
            return items.reshape(1, -1, 1, items.shape[-1]), columns[:, :, None, None]
        return np.ascontiguousarray(items.T)[None, :, None, :], None


def _stacked(items: list[Floats]) -> Floats:
    """Items of inputs of several sizes with zeros behind the smaller, which belong to no vector's range."""
    shape = tuple(max(sizes) for sizes in zip(*(item.shape for item in items), strict=True))
    return np.stack(
        [
            item
            if item.shape == shape
            else np.pad(item, [(0, most - own) for most, own in zip(shape, item.shape, strict=True)])
            for item in items
        ]
    )


def _items(layer: Layer, x: Floats, weight: Floats | None) -> tuple[Floats, Floats | None]:
    """What can be drawn, along axis 0: images; rows float32[C]; or groups with their weight operands."""
    if layer.op == "conv":
        return x, None
    if weight is not None:
        depth = weight.shape[1]
        groups = x.shape[1] // depth
        return x.reshape(groups, depth, -1), weight.reshape(groups, -1, depth)
    return x.transpose(0, 2, 3, 1).reshape(-1, x.shape[1]), None


def _check(layer: Layer, x: Floats, weight: Floats | None) -> None:
    """Raise AccelsimError unless `add` can take these operands."""

    def fail(found: str, expected: str) -> None:
        raise AccelsimError(f"layer {layer.name}: calibration {found}, expected {expected}")

    for name, values in (("input", x), ("weight", weight)):
        if values is not None and (not isinstance(values, np.ndarray) or values.ndim != 4 or not values.size):
            shape = list(getattr(values, "shape", ())) or type(values).__name__
            fail(f"{name} is {shape}", "an array of four dimensions, none of them 0")
        if values is not None and not np.isfinite(values).all():
            fail(f"{name} holds NaN or infinity", "finite numbers")
    if layer.weight_is_activation != (weight is not None):
        fail(
            "has no weight" if weight is None else "has a weight",
            "one, which is computed at run time" if weight is None else "none, because it is stored",
        )
    if weight is None and x.shape[1] != layer.geometry.C:
        fail(f"input has {x.shape[1]} channels", str(layer.geometry.C))
    if weight is not None and (
        (x.shape[0], x.shape[2]) != (1, 1)
        or x.shape[1] % weight.shape[1]
        or len(weight) % (x.shape[1] // weight.shape[1])
    ):
        fail(
            f"input is {list(x.shape)} with a weight of {list(weight.shape)}",
            "[1, groups * depth, 1, rows] and [groups * outputs, depth, 1, 1]",
        )
