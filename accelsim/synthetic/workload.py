"""A workload whose tensors are drawn from a recipe, a layer at a time, instead of read from a file."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import AccelsimError, listed
from accelsim.formats.scheme import Scheme
from accelsim.quantize.arrays import QuantizeOptions
from accelsim.quantize.layers import keep_24_bits, output_format, quantize_layer, quantize_weight
from accelsim.quantize.workload import Tell
from accelsim.synthetic.distributions import Stream, generator
from accelsim.synthetic.parts import calibrated, is_large, quantized_parts
from accelsim.synthetic.recipe import Recipe, RecipeLayer, says_recipe
from accelsim.system.whole import whole_file
from accelsim.trace.find import has_manifest
from accelsim.trace.json_fields import show
from accelsim.trace.write import write_trace
from accelsim.workload.graph import Graph
from accelsim.workload.layer import FloatLayer, Layer, LayerSpec, QuantizedLayer
from accelsim.workload.wiring import Wiring, wire

SUFFIXES = (".json", ".csv")
MAX_STORED_VALUES = 1 << 28
MAX_DRAWN_VALUES = (1 << 31) - 1
"""Floats that `write_tensors` agrees to hold and write: 1 GiB."""


@dataclass(frozen=True, repr=False)
class SyntheticWorkload:
    """A workload that draws its layers from a recipe. There are no floats to compare with.

    where: the recipe's or the topology's file, or the name the network was asked for by.
    """

    recipe: Recipe
    where: Path

    def __repr__(self) -> str:
        return f"<SyntheticWorkload {self.name}: {len(self.layers)} layers of {self.model}>"

    @property
    def name(self) -> str:
        return self.where.stem if self.where.suffix in SUFFIXES else self.where.name

    @property
    def model(self) -> str:
        return self.recipe.model

    @property
    def synthetic(self) -> bool:
        return True

    @property
    def provenance(self) -> Mapping[str, Any]:
        return self.recipe.provenance

    @property
    def sha256(self) -> str:
        """Hex digest of the recipe, as a file and by name alike."""
        return self.recipe.sha256

    @property
    def size_bytes(self) -> int:
        return len(self.recipe.text.encode())

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(own.layer for own in self.recipe.layers)

    @property
    def graph(self) -> Graph:
        return self.recipe.graph

    @cached_property
    def _wiring(self) -> Wiring:
        return wire(self.graph, self.layers)

    def layer(self, name: str) -> Layer:
        """Raises AccelsimError for an unknown name."""
        return self._recipe_layer(name).layer

    def floats(self, name: str) -> None:
        """None: made-up tensors are no reference to measure errors against."""
        self.layer(name)

    def outline(
        self, name: str, scheme: Scheme, vector_size: int, options: QuantizeOptions | None = None
    ) -> LayerSpec:
        """Sizes and formats of the layer at a scheme; draws nothing."""
        layer, fold = self.layer(name), (options or QuantizeOptions()).fold
        spec = LayerSpec(
            layer=layer,
            scheme=scheme,
            vector_size=scheme.block or vector_size,
            fold=fold,
            output=output_format(layer, scheme),
            global_pe=self._wiring.work[name],
        )
        return spec.in_vectors(vector_size)

    def quantized_layer(
        self, name: str, scheme: Scheme, vector_size: int, options: QuantizeOptions | None = None
    ) -> QuantizedLayer:
        """Drawn and quantized, with `output_gamma` for its output; nothing of it is kept."""
        weight_words = input_gamma = None
        drawn, block = self.drawn_layer(name), scheme.block or vector_size
        if is_large(drawn.geometry):
            # As its parts are: of large samples the seen values depend on how these come.
            own = options or QuantizeOptions()
            known = calibrated(_Streams(self, name), scheme, block, own)
            packed, input_gamma = drawn.geometry.packed_im2col(block, own.fold), known.input_gamma
            weight_words = quantize_weight(drawn, scheme.weight, block, own, packed, known.weight_gamma)
        words = quantize_layer(
            drawn,
            scheme,
            vector_size,
            options,
            output_gamma=self.output_gamma(name, scheme),
            output_range=self._output_range(name),
            weight_words=weight_words,
            input_gamma=input_gamma,
        )
        words = words.in_vectors(vector_size)
        return replace(words, spec=self.outline(name, scheme, vector_size, options))

    def quantized_parts(
        self,
        name: str,
        scheme: Scheme,
        vector_size: int,
        options: QuantizeOptions | None = None,
        tell: Tell | None = None,
    ) -> Iterator[QuantizedLayer]:
        """A layer with a tensor that is too large is drawn and quantized a part at a time."""
        if not is_large(self.layer(name).geometry):
            yield self.quantized_layer(name, scheme, vector_size, options)
            return
        spec = self.outline(name, scheme, vector_size, options)
        parts = quantized_parts(
            _Streams(self, name),
            scheme,
            scheme.block or vector_size,
            options or QuantizeOptions(),
            self.output_gamma(name, scheme),
            self._output_range(name),
            tell,
        )
        for words in parts:
            yield replace(words.in_vectors(vector_size), spec=replace(spec, layer=words.layer))

    def tensors_of(self, name: str) -> str:
        return self._recipe_layer(name).tensors or name

    def output_gamma(self, name: str, scheme: Scheme) -> float:
        """Gamma of what the PPU writes, from the moments of the distributions; draws nothing.

        A static gamma is range / qmax, a per-vector one that over 2^as - 1.
        """
        operand = output_format(self.layer(name), scheme).operand
        if operand.scale.gamma == "none":
            return 1.0
        return keep_24_bits(self._output_range(name) / operand.largest)

    def _output_range(self, name: str) -> float:
        """Range of a layer's output: the standard deviation of the widest channel times sqrt(2 ln(2 pixels)),
        about where the largest of a channel's values would lie if they were Gaussian.
        """
        layer, own = self._recipe_layer(name), self.recipe.distributions
        g = layer.geometry
        fan_in = g.R * g.S * g.channels_per_group
        weight_square = own[layer.weight].mean_square(_weight_channels(layer)) * _weight_unit(layer) ** 2
        input_square = own[layer.input].mean_square(g.C, g.channels_per_group)
        variance = fan_in * weight_square * input_square
        if layer.bias is not None:
            variance += own[layer.bias].mean_square(g.K)
        # Channel scales that reach the output one by one are log-normal: take the widest of K.
        spread = 0.0 if layer.weight_is_activation else own[layer.weight].channel_spread
        if g.channels_per_group == 1:
            spread = math.hypot(spread, own[layer.input].channel_spread)
        widest = math.exp(spread * NormalDist().inv_cdf(g.K / (g.K + 1)) - spread**2)
        return math.sqrt(variance * 2 * math.log(2 * g.pixels)) * widest

    def drawn_layer(self, name: str) -> FloatLayer:
        """The layer's tensors, drawn now: the same ones whenever and wherever it is asked for."""
        layer = self._recipe_layer(name)
        if (most := max(_sizes(layer))) > MAX_DRAWN_VALUES:
            raise AccelsimError(
                f"layer {name}: has a tensor of {most} values, expected at most {MAX_DRAWN_VALUES} where "
                "it is held whole; a run that keeps no tensors computes it in parts"
            )
        g, streams = layer.geometry, _Streams(self, name)
        # Drawn channels last and seen channels first: the transposition back to vectors then copies nothing.
        weight = streams.weight().take(g.K)
        inputs = streams.input().take(g.N * g.H * g.W)
        return FloatLayer(
            layer.layer,
            weight=weight.transpose(0, 3, 1, 2),
            input=inputs.reshape(g.N, g.H, g.W, g.C).transpose(0, 3, 1, 2),
            bias=streams.bias,
        )

    def _recipe_layer(self, name: str) -> RecipeLayer:
        for own in self.recipe.layers:
            if own.name == name:
                return own
        names = listed((own.name for own in self.recipe.layers), name)
        raise AccelsimError(f"trace {self.where}: has no layer {show(name)}, expected one of {names}")


class _Streams:
    """The random numbers of one layer's tensors: the same ones whenever they are asked for."""

    def __init__(self, workload: SyntheticWorkload, name: str) -> None:
        self._own, recipe = workload._recipe_layer(name), workload.recipe
        self.layer, self._shapes = self._own.layer, recipe.distributions
        self._generator = partial(generator, recipe.seed, self._own.tensors or name)
        self.bias: NDArray[np.float32] | None = None
        if self._own.bias is not None:
            size = (self.layer.geometry.K,)
            self.bias = self._shapes[self._own.bias].draw(self._generator("bias"), size, 0)

    def weight(self) -> Stream:
        g, axis = self.layer.geometry, 3 if self.layer.weight_is_activation else 0
        shape = (g.K, g.R, g.S, g.channels_per_group)
        kind = self._shapes[self._own.weight]
        return Stream(kind, self._generator("weight"), shape, axis, _weight_unit(self._own))

    def input(self) -> Stream:
        g, kind = self.layer.geometry, self._shapes[self._own.input]
        shape: tuple[int, ...] = (g.N * g.H * g.W, g.C)
        if kind.kind == "softmax":  # rows of one group of one query each
            shape = (g.N * g.H * g.W, g.groups, g.channels_per_group)
        return Stream(kind, self._generator("input"), shape, len(shape) - 1)


def write_recipe(trace: SyntheticWorkload, path: Path) -> Path:
    """Write the recipe as JSON, all or nothing. Raises AccelsimError; the target is then as it was."""
    _check_target(path)
    try:
        with whole_file(path) as new, new.open("x", encoding="utf-8", newline="\n") as file:
            file.write(trace.recipe.text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise AccelsimError(f"trace {path}: cannot be written ({error.strerror or error})") from None
    return path


def write_tensors(trace: SyntheticWorkload, path: Path) -> Path:
    """Write an ordinary trace of the drawn float tensors. Raises AccelsimError when they are too many."""
    _check_target(path)
    values = sum(_values(layer) for layer in trace.recipe.layers)
    if values > MAX_STORED_VALUES:
        raise AccelsimError(
            f"trace {path}: would hold {values:,} values, expected at most {MAX_STORED_VALUES:,}; "
            f"without --tensors the file is a recipe of a few KB"
        )
    layers = [trace.drawn_layer(layer.name) for layer in trace.layers]
    facts = {**trace.provenance, "recipe_sha256": trace.sha256}
    return write_trace(path, trace.model, layers, facts, graph=trace.graph, synthetic=True)


def _values(layer: RecipeLayer) -> int:
    weights, inputs, _ = _sizes(layer)
    return weights + inputs


def _sizes(layer: RecipeLayer) -> tuple[int, int, int]:
    """Values of weights, input and output."""
    g = layer.geometry
    return g.K * g.R * g.S * g.channels_per_group, g.N * g.H * g.W * g.C, g.pixels * g.K


def _weight_channels(layer: RecipeLayer) -> int:
    return layer.geometry.channels_per_group if layer.weight_is_activation else layer.geometry.K


def _weight_unit(layer: RecipeLayer) -> float:
    """What the weight's distribution is multiplied by: 1 / sqrt(fan-in) keeps a network's signal its size."""
    g = layer.geometry
    return 1.0 if layer.weight_is_activation else 1 / math.sqrt(g.R * g.S * g.channels_per_group)


def _check_target(path: Path) -> None:
    if path.is_file() and not says_recipe(path) and not has_manifest(path, if_damaged=False):
        raise AccelsimError(f"trace {path}: is a file but not a trace, expected a new file or an older trace")
