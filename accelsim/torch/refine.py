"""Better words for a captured model, without training: chosen layer by layer in the order in which they run.

The float model and the machine run side by side on calibration inputs. Each layer sees what the machine hands
it, errors of all layers before it included, and is fitted to the float model's output (docs/inference.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelsim.capture.calls import LayerCall
from accelsim.inference.layer import HardwareLayer, Words
from accelsim.quantize.blocks import dequantize_words
from accelsim.quantize.gptq import round_by_columns
from accelsim.quantize.layers import weight_vectors
from accelsim.quantize.reference import apply_activation, values_met
from accelsim.torch.execute import Executor
from accelsim.torch.walk import Step
from accelsim.workload.layer import Layer

_HELD_OUT = 4
"""Every fourth row of a fit is kept out of it, to decide whether it is better than none."""
_GAMMAS = tuple(2.0 ** (-step / 4) for step in range(9))


Inputs = list[tuple[Layer, Words, Words | None]]
"""Of every batch: the layer at its size, its input words, and its weight operand's where computed."""


@dataclass(frozen=True, kw_only=True)
class Methods:
    """What is fitted. None of it changes hardware or widths.

    gain_and_bias: of each channel, into weight gamma and bias; round_by_columns: GPTQ; refit: weights anew by
    least squares, as far as held-out rows gain; input_gamma: of each tensor, by the output error of a few;
    rows: most output pixels that a layer's fit looks at.
    """

    gain_and_bias: bool = True
    round_by_columns: bool = False
    refit: bool = False
    input_gamma: bool = False
    rows: int = 1 << 15


@dataclass
class Refiner:
    """Computes a walk over the calibration batches twice: first half float, second half on the machine."""

    executor: Executor
    layers: dict[str, HardwareLayer]
    methods: Methods

    def __call__(self, steps: list[Step]) -> list[Any]:
        half = len(steps) // 2
        floats, machine = steps[:half], steps[half:]
        exact = [step.result() for step in floats]
        if isinstance(machine[0].call, LayerCall):
            self._fit(floats, machine)
        return exact + [self.executor(step) for step in machine]

    def _fit(self, floats: list[Step], machine: list[Step]) -> None:
        call = _layer_of(machine[0])
        wanted = np.concatenate([_before_activation(step) for step in floats])
        chosen = _evenly(len(wanted), self.methods.rows)
        wanted = wanted[chosen]
        layer = self.layers[call.name]
        if self.methods.input_gamma and (machine[0].node, "input") not in self.executor.whole:
            layer = self._best_input_gamma(layer, machine, wanted, chosen)
        inputs = self._inputs(layer, machine)
        if call.weight is not None and (self.methods.round_by_columns or self.methods.refit):
            layer = self._rounded(layer, call.weight, inputs, wanted, chosen)
        if self.methods.gain_and_bias:
            layer = self._corrected(layer, inputs, wanted, chosen)
        self.layers[call.name] = layer

    def _inputs(self, layer: HardwareLayer, machine: list[Step]) -> Inputs:
        found = []
        for step in machine:
            call = _layer_of(step)
            found.append((call.layer, *self.executor.operands(step, call, layer.of_size(call.layer))))
        return found

    def _outputs(
        self, layer: HardwareLayer, inputs: Inputs, chosen: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """What the machine makes before the activation, float64[rows, K / groups of a run-time operand]."""
        found = []
        for own, words, weights in inputs:
            sized = layer.of_size(own)
            filled = sized.filled(words, weights)
            found.append(_by_weights(sized.output(filled)[0], own))
        return np.concatenate(found)[chosen]

    def _best_input_gamma(
        self,
        layer: HardwareLayer,
        machine: list[Step],
        wanted: NDArray[np.float64],
        chosen: NDArray[np.int64],
    ) -> HardwareLayer:
        """Of a layer that quantizes floats itself."""
        activation = layer.words.activation

        def tried(factor: float) -> HardwareLayer:
            return replace(layer, words=replace(layer.words, input_gamma=layer.words.input_gamma * factor))

        def error(factor: float) -> float:
            new = tried(factor)
            return _error(self._outputs(new, self._inputs(new, machine), chosen), wanted, activation)

        return tried(min(_GAMMAS, key=error))

    def _rounded(
        self,
        layer: HardwareLayer,
        weight: NDArray[np.float32],
        inputs: Inputs,
        wanted: NDArray[np.float64],
        chosen: NDArray[np.int64],
    ) -> HardwareLayer:
        words, g = layer.words, layer.words.geometry
        vectors = weight_vectors(weight, words.vector_size, words.spec.packed_im2col).astype(np.float64)
        codes, scales = words.weight_words.copy(), words.weight_scales
        scales = None if scales is None else scales.copy()
        gamma = words.weight_gamma.copy()
        for group in range(g.groups):
            k = slice(group * g.outputs_per_group, (group + 1) * g.outputs_per_group)
            rows = _rows(layer, inputs, group, chosen)
            own = vectors[k]
            if self.methods.refit:
                own = _refitted(own, rows, wanted[:, k])
            gram = rows.T @ rows
            new = round_by_columns(own, gram, words.spec.weight_operand, layer.options)
            codes[k], gamma[k] = new[0], new[2]
            if scales is not None:
                scales[k] = new[1]
        return replace(
            layer, words=replace(words, weight_words=codes, weight_scales=scales, weight_gamma=gamma)
        )

    def _corrected(
        self,
        layer: HardwareLayer,
        inputs: Inputs,
        wanted: NDArray[np.float64],
        chosen: NDArray[np.int64],
    ) -> HardwareLayer:
        """Gain and bias of every channel by least squares; of a run-time weight operand one gain."""
        words = layer.words
        plain = replace(layer, words=replace(words, bias=None))
        found = self._outputs(plain, inputs, chosen)
        if words.layer.weight_is_activation:
            total = float(np.sum(found * found))
            shared = float(np.sum(found * wanted)) / total if total > 0 else 1.0
            return replace(layer, gain=float(np.clip(shared, 0.5, 2.0)))
        mean_found, mean_wanted = found.mean(axis=0), wanted.mean(axis=0)
        centred = found - mean_found
        power = np.square(centred).sum(axis=0)
        covariance = (centred * (wanted - mean_wanted)).sum(axis=0)
        gain = np.where(power > 0, covariance / np.where(power > 0, power, 1.0), 1.0)
        gain = np.clip(gain, 0.5, 2.0)
        bias = (mean_wanted - gain * mean_found).astype(np.float32)
        return replace(layer, words=replace(words, weight_gamma=words.weight_gamma * gain, bias=bias))


def _layer_of(step: Step) -> LayerCall:
    assert isinstance(step.call, LayerCall)
    return step.call


def _before_activation(step: Step) -> NDArray[np.float64]:
    """The float layer's output before its activation, rows as of _by_weights."""
    y = replace(step, kwargs={**step.kwargs, "activation": "none"}).result()
    call = _layer_of(step)
    g = call.layer.geometry
    if call.layer.op == "conv":
        y = y.reshape(g.N, g.K, g.P * g.Q).transpose(1, 2)
    rows: NDArray[np.float64] = y.reshape(-1, 1 if call.weight is None else g.K).double().numpy()
    return rows


def _by_weights(y: NDArray[np.float64], layer: Layer) -> NDArray[np.float64]:
    """float64[pixels, K] of static weights as it is. Of a run-time weight operand, which has one gain and
    groups whose number and size go by the inputs, one column."""
    if not layer.weight_is_activation:
        return y
    g = layer.geometry
    return y.reshape(g.pixels, g.groups, -1).transpose(1, 0, 2).reshape(-1, 1)


def _evenly(rows: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` of so many rows."""
    return np.unique(np.linspace(0, rows - 1, min(rows, limit)).astype(np.int64))


def _rows(layer: HardwareLayer, inputs: Inputs, group: int, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """Values of the inputs that the chosen pixels meet, float64[rows, G*V], zeros in the padding."""
    parts, start = [], 0
    for own, words, _ in inputs:
        spec = layer.of_size(own).words.spec
        pixels = own.geometry.pixels
        rows = chosen[(chosen >= start) & (chosen < start + pixels)] - start
        start += pixels
        values = dequantize_words(words.codes, words.scales, words.gamma, spec.input_operand)
        parts.append(values_met(spec, values, group, rows))
    return np.concatenate(parts)


def _refitted(
    vectors: NDArray[np.float64],
    rows: NDArray[np.float64],
    wanted: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Weights float64[K, G, V] by least squares on these inputs, damped as suits the held-out rows best."""
    weights = vectors.reshape(len(vectors), -1)
    missing = wanted - rows @ weights.T  # the mean, bias included, is not the weights' to make up for
    missing -= missing.mean(axis=0)
    centred = rows - rows.mean(axis=0)
    held = np.arange(len(rows)) // max(1, len(rows) // (8 * _HELD_OUT)) % _HELD_OUT == _HELD_OUT - 1
    fit, test = ~held, held
    gram = centred[fit].T @ centred[fit]
    side = centred[fit].T @ missing[fit]
    scale = float(np.diag(gram).mean()) or 1.0
    used = np.diag(gram) > 0
    best, least = np.zeros_like(weights), float(np.square(missing[test]).sum())
    values, basis = np.linalg.eigh(gram)
    turned = basis.T @ side
    for damping in (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01):
        change = (basis @ (turned / (np.maximum(values, 0) + damping * scale)[:, None])).T * used
        error = float(np.square(missing[test] - centred[test] @ change.T).sum())
        if error < least:
            best, least = change, error
    return (weights + best).reshape(vectors.shape)


def _error(found: NDArray[np.float64], wanted: NDArray[np.float64], activation: str) -> float:
    return float(np.square(apply_activation(found, activation) - apply_activation(wanted, activation)).sum())
