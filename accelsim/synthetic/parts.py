"""A layer whose tensors are drawn, quantized and computed a part at a time, so that memory is bounded.

A part is a layer of its own: some images, output rows or columns, and some output channels. All parts
together hold the same integers as the whole layer: tensors are one stream of random numbers each, scales
and gammas those of the whole tensor, for which it is drawn once before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.quantize.arrays import QuantizeOptions, cut_vectors
from accelsim.quantize.layers import (
    calibrated_weight_gamma,
    has_tensor_gamma,
    input_gamma_of,
    input_vectors,
    quantize_layer,
    quantize_weight,
)
from accelsim.quantize.workload import Tell
from accelsim.synthetic.distributions import Stream
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import FloatLayer, Layer, QuantizedLayer

T = TypeVar("T")

# A layer with a tensor of more values is computed in parts, which have about so many of each at most.
WHOLE_VALUES = 1 << 27
PART_WEIGHTS, PART_VALUES = 1 << 26, 1 << 25
_WHOLE_CHANNELS = 64


class Drawn(Protocol):
    """The streams of one layer's tensors, each from its start."""

    layer: Layer
    bias: NDArray[np.float32] | None

    def weight(self) -> Stream:
        """float32[K, R, S, C/groups], some K at a time."""
        ...

    def input(self) -> Stream:
        """float32[N*H*W, ...]: some positions at a time, with all their channels."""
        ...


@dataclass(frozen=True)
class Known:
    """What is found over a whole tensor: gammas, those of weights None where each channel has its own."""

    weight_gamma: float | None
    input_gamma: float


@dataclass(frozen=True)
class _Window:
    """geometry: of all K output channels, or some; first, stop: input positions, in raster order."""

    geometry: Geometry
    first: int
    stop: int


def is_large(g: Geometry) -> bool:
    return max(g.K * g.R * g.S * g.channels_per_group, g.N * g.H * g.W * g.C, g.pixels * g.K) > WHOLE_VALUES


def calibrated(
    drawn: Drawn, scheme: Scheme, vector_size: int, options: QuantizeOptions, tell: Tell | None = None
) -> Known:
    """Draws both tensors once, a part at a time. vector_size: codes that share a scale."""
    g = drawn.layer.geometry
    packed = g.packed_im2col(vector_size, options.fold)
    weight, activation = scheme.weight, scheme.activation.of_sign(drawn.layer.input_signed)
    gamma = None
    if has_tensor_gamma(drawn.layer, weight):
        seen = (own for _, own in _weights(drawn))
        gamma = calibrated_weight_gamma(seen, weight, vector_size, options, packed)
    chunks: Iterable[NDArray[np.floating]]
    if packed and activation.scale.kind == "uint":
        windows = list(_windows(g, g.K))
        found = _told(_inputs(drawn, windows), len(windows), f"scales of {drawn.layer.name}", tell)
        chunks = (input_vectors(own, part.geometry, vector_size, packed) for part, own in found)
    else:
        most = max(1, PART_VALUES // g.C)
        count = -(-g.N * g.H * g.W // most)
        chunks = _told(_positions(drawn, most), count, f"scales of {drawn.layer.name}", tell)
        if activation.scale.kind == "uint":
            shape = -1, g.groups, g.channels_per_group
            vectors = (cut_vectors(own.reshape(shape), vector_size) for own in chunks)
            chunks = (own.reshape(-1, vector_size) for own in vectors)
    return Known(gamma, input_gamma_of(chunks, activation, options))


def _told(parts: Iterable[T], count: int, what: str, tell: Tell | None) -> Iterator[T]:
    """The same parts; when the next is asked for one is done."""
    for number, part in enumerate(parts, 1):
        yield part
        if tell is not None:
            tell(what, number, count)


def quantized_parts(
    drawn: Drawn,
    scheme: Scheme,
    vector_size: int,
    options: QuantizeOptions,
    output_gamma: float,
    output_range: float,
    tell: Tell | None = None,
) -> Iterator[QuantizedLayer]:
    """All parts. vector_size: codes that share a scale.

    Raises AccelsimError for one range over all weights where these come in parts.
    """
    layer, g = drawn.layer, drawn.layer.geometry
    packed = g.packed_im2col(vector_size, options.fold)
    if options.weight_granularity == "tensor" and _channels_at_once(g) < g.K:
        raise AccelsimError(
            f"layer {layer.name}: has {g.K * g.R * g.S * g.channels_per_group} weights, expected at most "
            f"{WHOLE_VALUES} with weight_granularity tensor"
        )
    known = calibrated(drawn, scheme, vector_size, options, tell)

    def parts() -> Iterator[QuantizedLayer]:
        for channels, weight in _weights(drawn):
            bias = None if drawn.bias is None else drawn.bias[channels.start : channels.stop]
            words = None
            for window, inputs in _inputs(drawn, list(_windows(g, len(channels)))):
                part = FloatLayer(replace(layer, geometry=window.geometry), weight, inputs, bias)
                if words is None:
                    own = scheme.weight, vector_size, options, packed
                    words = quantize_weight(part, *own, gamma=known.weight_gamma)
                yield quantize_layer(
                    part,
                    scheme,
                    vector_size,
                    options,
                    output_gamma=output_gamma,
                    output_range=output_range,
                    weight_words=words,
                    input_gamma=known.input_gamma,
                )

    count = sum(len(list(_windows(g, len(own)))) for own in _channels(g))
    return _told(parts(), count, f"values of {layer.name}", tell)


def _channels_at_once(g: Geometry) -> int:
    """Output channels of a part. Those of a layer with groups, which see different inputs, stay together."""
    each = g.R * g.S * g.channels_per_group
    if g.groups > 1 or g.K * each <= WHOLE_VALUES:
        return g.K
    most = max(1, PART_WEIGHTS // each)
    return most - most % _WHOLE_CHANNELS if most > _WHOLE_CHANNELS else most


def _channels(g: Geometry) -> list[range]:
    most = _channels_at_once(g)
    return [range(first, min(first + most, g.K)) for first in range(0, g.K, most)]


def _weights(drawn: Drawn) -> Iterator[tuple[range, NDArray[np.float32]]]:
    """(output channels, float32[channels, C/groups, R, S])."""
    stream = drawn.weight()
    for channels in _channels(drawn.layer.geometry):
        yield channels, stream.take(len(channels)).transpose(0, 3, 1, 2)


def _positions(drawn: Drawn, most: int) -> Iterator[NDArray[np.float32]]:
    """All of the input, also what no output sees, at most so many positions at a time."""
    g, stream = drawn.layer.geometry, drawn.input()
    positions = g.N * g.H * g.W
    for first in range(0, positions, most):
        yield stream.take(min(most, positions - first))


def _inputs(drawn: Drawn, windows: list[_Window]) -> Iterator[tuple[_Window, NDArray[np.float32]]]:
    """(window, float32[N', C, H', W']); what two windows see is drawn once."""
    stream, start, stop = drawn.input(), 0, 0  # of what is held
    held: NDArray[np.float32] | None = None
    for window in windows:
        if window.first > stop or held is None:
            stream.skip(window.first - stop)
            held, start, stop = stream.take(window.stop - window.first), window.first, window.stop
        else:
            held, start = held[window.first - start :], window.first
            if window.stop > stop:
                held, stop = np.concatenate([held, stream.take(window.stop - stop)]), window.stop
        own, g = held[: window.stop - start], window.geometry
        yield window, own.reshape(g.N, g.H, g.W, g.C).transpose(0, 3, 1, 2)


def _windows(g: Geometry, K: int) -> Iterator[_Window]:
    """Parts of the pixels of a layer with so many output channels, in order.

    Whole images where they are small, else rows of one, at least one; of a single row of pixels that see
    one position each, as those of a product of matrices, some.
    """
    image = max(g.H * g.W * g.C, g.P * g.Q * K)
    if image <= PART_VALUES:
        most = PART_VALUES // image
        for first in range(0, g.N, most):
            images = min(most, g.N - first)
            yield _Window(g.part(images, K), first * g.H * g.W, (first + images) * g.H * g.W)
        return
    by_columns = g.H == g.R == g.S == 1 and not any(g.padding)
    for n in range(g.N):
        if by_columns:
            for columns in _runs(g, 1, max(g.stride[1] * g.C, K)):
                seen = g.inputs_of(1, columns)
                yield _Window(g.part(1, K, columns=columns), n * g.W + seen.start, n * g.W + seen.stop)
            continue
        for rows in _runs(g, 0, max(g.stride[0] * g.W * g.C, g.Q * K)):
            seen = g.inputs_of(0, rows)
            first = n * g.H + seen.start
            yield _Window(g.part(1, K, rows), first * g.W, (n * g.H + seen.stop) * g.W)


def _runs(g: Geometry, axis: int, values: int) -> Iterator[range]:
    """Output rows or columns, each of so many values, in runs none of which sees nothing but padding."""
    out, most, first = (g.P, g.Q)[axis], max(1, PART_VALUES // values), 0
    while first < out:
        stop = min(first + most, out)
        while stop < out and not (
            g.inputs_of(axis, range(first, stop)) and g.inputs_of(axis, range(stop, out))
        ):
            stop += 1
        yield range(first, stop)
        first = stop
