"""Which tensors of a captured graph have channels in common, so that they can be changed together.

A change of channels is a scale for each, another order, or a rotation within blocks of them. What lies
between two layers lets it through, or does not: ReLU a scale and an order, GELU an order only, an add all
three where both operands are changed alike. Who writes such tensors and who reads them has weights that take
it up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import fx

from accelsim.capture.channels import permuted, regrouped, without_axis
from accelsim.torch import ops
from accelsim.torch.catalogue import TRANSPARENT, is_tensor, name_of, shape_of
from accelsim.torch.edit import is_constant
from accelsim.torch.rewrite import arguments

Change = Literal["scale", "order", "rotation"]
Axes = tuple[int, ...]
"""Of the channels, ascending and counted from the last axis: (-1,). A channel's number counts through them
with the last fastest: heads and the width of one are (-3, -1)."""

_LINEAR = frozenset("requantize neg avg_pool1d avg_pool2d adaptive_avg_pool1d adaptive_avg_pool2d".split())
_HOMOGENEOUS = frozenset("relu relu_ leaky_relu max_pool1d max_pool2d max_pool2d_with_indices".split())
"""Of degree one: f(s x) = s f(x) for s > 0."""
_SUMS = frozenset("add add_relu sub".split())
_COPIES = frozenset("_to_copy alias clone contiguous detach dropout lift_fresh_copy to".split())
_RESHAPES = frozenset("_unsafe_view flatten reshape squeeze unflatten unsqueeze view".split())


@dataclass(eq=False)
class Place:
    """A tensor of a group. inverse: it takes the inverse of the change, as keys do of what queries take."""

    tied: Tied
    axes: Axes
    inverse: bool = False


@dataclass(frozen=True, eq=False)
class End:
    """Constants of a node that take up a change: `output` or `input` of a layer, gain and bias of a `norm`,
    or the argument of this number, along its last axis."""

    node: fx.Node
    role: Literal["output", "input", "norm"] | int
    place: Place


@dataclass(frozen=True, eq=False)
class Read:
    """A tensor of a group, read by a node."""

    tensor: fx.Node
    reader: fx.Node
    place: Place


@dataclass(eq=False)
class Tied:
    """Tensors whose channels are changed together.

    block: a channel can change places within blocks of so many; outside: reads of a tensor by what neither
    lets the change through nor has weights to take it up; fixed: a tensor is written by such.
    """

    width: int
    block: int
    places: list[Place] = field(default_factory=list)
    writers: list[End] = field(default_factory=list)
    readers: list[End] = field(default_factory=list)
    outside: list[Read] = field(default_factory=list)
    fixed: bool = False

    @property
    def free(self) -> bool:
        return not self.fixed and not self.outside and bool(self.writers)


def find_tied(module: fx.GraphModule, change: Change) -> list[Tied]:
    """All groups of tensors, in the order in which they are first written."""
    return _Finder(change).run(module)


def is_norm(node: fx.Node) -> bool:
    """A norm over the last axis whose gain, and bias if it has one, are stored."""
    if node.op != "call_function":
        return False
    if node.target is ops.rms_norm:
        return is_constant(node.args[1])
    if name_of(node.target) not in ("layer_norm", "rms_norm"):
        return False
    given = arguments(node)
    bias = given.get("bias")
    return (
        len(given["normalized_shape"]) == 1
        and is_constant(given["weight"])
        and (bias is None or is_constant(bias))
    )


class _Finder:
    def __init__(self, change: Change) -> None:
        self.change = change
        self.places: dict[fx.Node, Place] = {}

    def run(self, module: fx.GraphModule) -> list[Tied]:
        for node in module.graph.nodes:
            if node.op == "output":
                for read in node.all_input_nodes:
                    self._outside(read, node)
            elif node.op == "placeholder" and is_tensor(node):
                self._fixed(node)
            elif node.op == "call_function" and node.meta.get("val") is not None:
                self._visit(node)
        return list(dict.fromkeys(place.tied for place in self.places.values()))

    def _visit(self, node: fx.Node) -> None:
        name = name_of(node.target)
        if node.target in (ops.conv, ops.linear):
            self._layer(node)
        elif node.target is ops.matmul:
            self._product(node)
        elif is_norm(node):
            self._norm(node)
        elif name == "embedding" and is_constant(node.args[0]):
            self._new(node, (-1,)).tied.writers.append(End(node, 0, self.places[node]))
        else:
            axes = self._kept(node, name)
            if axes is None:
                self._barrier(node)
            else:
                self._elementwise(node, axes)

    # What each kind of step does

    def _layer(self, node: fx.Node) -> None:
        x, weight = node.args[0], node.args[1]
        assert isinstance(x, fx.Node) and isinstance(weight, fx.Node)
        conv = node.target is ops.conv
        axis = 1 - len(shape_of(weight)) if conv else -1
        groups = int(node.args[6]) if conv else 1
        place = self.places.get(x)
        if place is not None and place.axes == (axis,):
            place.tied.block = math.gcd(place.tied.block, place.tied.width // groups)
            place.tied.readers.append(End(node, "input", place))
        else:
            self._outside(x, node)
        own = self._new(node, (axis,))
        own.tied.block //= groups
        own.tied.writers.append(End(node, "output", own))
        own.tied.fixed = self.change == "rotation" and node.kwargs.get("activation") == "relu"

    def _product(self, node: fx.Node) -> None:
        """Of two tensors: along the channels of both, which cancels inverse changes, or of the second's."""
        a, b = node.args[:2]
        assert isinstance(a, fx.Node) and isinstance(b, fx.Node)
        first, second = self.places.get(a), self.places.get(b)
        if first and second and second.axes[-1] == -2 and first.axes == (*second.axes[:-1], -1):
            self._tie(first, second, inverse=True)
            self._fixed(node)
        elif second and second.axes[-1] == -1 and -2 not in second.axes and self._passes_relu(node):
            self._outside(a, node)
            self._same(node, second, second.axes)
        else:
            self._barrier(node)

    def _norm(self, node: fx.Node) -> None:
        x = node.args[0]
        assert isinstance(x, fx.Node)
        place = self.places.get(x)
        if self.change == "order" and place is not None and place.axes == (-1,):
            own = self._same(node, place, place.axes)
        elif self.change == "scale":
            self._outside(x, node)
            own = self._new(node, (-1,))
        else:
            self._barrier(node)
            return
        own.tied.writers.append(End(node, "norm", own))

    def _elementwise(self, node: fx.Node, axes: Axes) -> None:
        """A step that makes of each channel the same channel, and of a tensor at these axes."""
        own: Place | None = None
        for read in node.all_input_nodes:
            if is_constant(read):
                continue
            place = self.places[read]
            if own is None:
                own = self._same(node, place, axes)
            else:
                self._tie(own, place, inverse=False)
        assert own is not None
        for number, read in enumerate(node.args):
            if is_constant(read) and axes == (-1,) and self._sizes(read, axes) == (own.tied.width,):
                own.tied.writers.append(End(node, number, own))

    def _barrier(self, node: fx.Node) -> None:
        for read in node.all_input_nodes:
            if not is_constant(read):
                self._outside(read, node)
        self._fixed(node)

    # Whether a step lets the change through

    def _kept(self, node: fx.Node, name: str) -> Axes | None:
        """The channel axes of what a step makes, None where it does not let the change through."""
        reads = [read for read in node.all_input_nodes if not is_constant(read)]
        places = [self.places.get(read) for read in reads]
        if not reads or any(place is None for place in places) or name_of(node.target) == "embedding":
            return None
        place = places[0]
        assert place is not None
        if name in TRANSPARENT or name == "getitem":
            return self._viewed(node, name, reads[0], place) if len(reads) == 1 else None
        if "pool" in name and place.axes[-1] >= (-2 if "1d" in name else -3) + 1:
            return None  # the channels are pooled
        if name == "mean":
            return self._averaged(node, reads[0], place)
        if self._lets_through(node, name) and self._aligned(node, places):
            return place.axes
        return None

    def _lets_through(self, node: fx.Node, name: str) -> bool:
        if name in _LINEAR:
            return True
        if name in _HOMOGENEOUS:
            return self.change != "rotation"
        if name in _SUMS:
            plain = len(node.args) == 2 and all(isinstance(arg, fx.Node) for arg in node.args)
            if self.change != "order":
                return plain and (name != "add_relu" or self.change == "scale")
            return True
        if name in ("mul", "div") and self.change != "order":
            return isinstance(node.args[0], fx.Node) and isinstance(node.args[1], (int, float))
        pointwise = isinstance(node.target, torch._ops.OpOverload) and torch.Tag.pointwise in node.target.tags
        return (
            self.change == "order" and pointwise and not any(is_tensor(arg) for arg in node.kwargs.values())
        )

    def _aligned(self, node: fx.Node, places: list[Place | None]) -> bool:
        """True where all operands have the channels of the first, at the same axes from the end."""
        first = places[0]
        assert first is not None
        sizes = self._sizes(node, first.axes)
        if len({place.tied.fixed for place in places if place is not None}) > 1:
            return False
        for read in node.all_input_nodes:
            if not is_constant(read):
                place = self.places[read]
                if place.axes != first.axes or self._sizes(read, first.axes) != sizes:
                    return False
            elif first.axes == (-1,) and self._sizes(read, first.axes) == sizes:
                continue  # a constant for every channel: changed with them
            elif self.change != "order" or any(
                len(shape_of(read)) >= -axis and shape_of(read)[axis] > 1 for axis in first.axes
            ):
                return False
        return True

    def _viewed(self, node: fx.Node, name: str, source: fx.Node, place: Place) -> Axes | None:
        if name == "getitem":
            return place.axes if node.args[1] == 0 and not is_tensor(source) else None
        if not is_tensor(node):
            return None
        old, new = shape_of(source), shape_of(node)
        axes = tuple(len(old) + axis for axis in place.axes)
        found: Axes | None = None
        if name in _COPIES:
            found = axes if old == new and node.meta["val"].is_floating_point() else None
        elif name in _RESHAPES:
            found = regrouped(old, new, axes)
        elif name == "expand":
            found = tuple(len(new) + axis for axis in place.axes)
        elif name in ("slice", "select"):
            given = arguments(node)
            axis = given["dim"] % len(old)
            if axis not in axes:
                found = axes if name == "slice" else without_axis(axis, axes)
        elif name in ("transpose", "permute"):
            given, order = arguments(node), list(range(len(old)))
            if name == "transpose":
                i, j = given["dim0"] % len(old), given["dim1"] % len(old)
                order[i], order[j] = order[j], order[i]
            else:
                order = [axis % len(old) for axis in given["dims"]]
            found = permuted(order, axes)
            if [order[axis] for axis in found] != list(axes):
                return None
        if not found or math.prod(new[axis] for axis in found) != place.tied.width:
            return None
        return tuple(axis - len(new) for axis in found)

    def _averaged(self, node: fx.Node, source: fx.Node, place: Place) -> Axes | None:
        """A mean over other axes."""
        given, rank = arguments(node), len(shape_of(source))
        gone = sorted(axis % rank for axis in given["dim"] or range(rank))
        axes = tuple(rank + axis for axis in place.axes)
        if set(gone) & set(axes):
            return None
        if not given["keepdim"]:
            for axis in reversed(gone):
                axes = without_axis(axis, axes)
        return tuple(axis - len(shape_of(node)) for axis in axes)

    def _passes_relu(self, node: fx.Node) -> bool:
        return self.change != "rotation" or node.kwargs.get("activation") != "relu"

    # Places and groups

    def _sizes(self, node: fx.Node, axes: Axes) -> tuple[int, ...]:
        shape = shape_of(node)
        return tuple(shape[axis] if len(shape) >= -axis else 1 for axis in axes)

    def _new(self, node: fx.Node, axes: Axes) -> Place:
        sizes = self._sizes(node, axes)
        tied = Tied(math.prod(sizes), sizes[-1])
        place = Place(tied, axes)
        tied.places.append(place)
        self.places[node] = place
        return place

    def _fixed(self, node: fx.Node) -> None:
        """A tensor whose channels stay as they are."""
        self._new(node, (-1,) if shape_of(node) else ()).tied.fixed = True

    def _same(self, node: fx.Node, source: Place, axes: Axes) -> Place:
        place = Place(source.tied, axes, source.inverse)
        place.tied.places.append(place)
        place.tied.block = math.gcd(place.tied.block, self._sizes(node, axes)[-1])
        self.places[node] = place
        return place

    def _outside(self, tensor: fx.Node, reader: fx.Node) -> None:
        place = self.places.get(tensor)
        if place is not None:
            place.tied.outside.append(Read(tensor, reader, place))

    def _tie(self, a: Place, b: Place, inverse: bool) -> None:
        one, other = a.tied, b.tied
        flip = (a.inverse != b.inverse) != inverse
        if one is other:
            one.fixed |= flip and self.change == "scale"
            return
        for place in other.places:
            place.tied = one
            place.inverse ^= flip
        one.block = math.gcd(one.block, other.block)
        one.fixed |= other.fixed or one.width != other.width
        one.places += other.places
        one.writers += other.writers
        one.readers += other.readers
        one.outside += other.outside
