"""One step of a captured graph on the machine."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from accelsim.capture.calls import Floats, LayerCall, NodeCall, Operands
from accelsim.inference import between
from accelsim.inference.layer import HardwareLayer, TensorFormat, Words
from accelsim.machine.arch import Arch
from accelsim.quantize.reference import apply_activation
from accelsim.torch.calls import as_floats, shaped
from accelsim.torch.catalogue import shape_of
from accelsim.torch.integers import integer_node
from accelsim.torch.storage import is_view
from accelsim.torch.stored import Cut, Stored, by_element, cuts, floats_of, has_stored, view
from accelsim.torch.walk import Step
from accelsim.torch.whole import Formats, Whole
from accelsim.workload.layer import QuantizedLayer


@dataclass
class Coverage:
    """What happened, by step: `how` of its operands or its work, overflows of accumulators."""

    how: dict[str, str] = field(default_factory=dict)
    overflows: dict[str, int] = field(default_factory=dict)
    accumulations: dict[str, int] = field(default_factory=dict)


@dataclass
class Executor:
    """Computes steps. layers: by name; formats: of the tensors that are stored, none where every layer reads
    floats; arch: the machine; whole: operands whose codes are taken as they are; coverage: is added to."""

    layers: Mapping[str, HardwareLayer]
    formats: Mapping[str, Formats]
    arch: Arch
    whole: Whole = frozenset()
    coverage: Coverage = field(default_factory=Coverage)

    def __call__(self, step: Step) -> Any:
        if isinstance(step.call, LayerCall):
            return self.layer(step, step.call)
        if step.node.target is operator.getitem:
            return step.result()
        if is_view(step.node):
            return view(step)
        if isinstance(step.call, NodeCall):
            return self._node(step, step.call)
        return step.result(floats_of)

    def finished(self, outputs: Any) -> Any:
        """The model's outputs, in float32."""
        return pytree.tree_map(lambda value: value.floats() if isinstance(value, Stored) else value, outputs)

    def on_layer(self, call: LayerCall, operands: Operands) -> Floats:
        """For a model that is no graph: every layer on its floats."""
        layer = self.layers[call.name].of_size(call.layer)
        filled = layer.filled(layer.input_words(operands[0]))
        g = call.layer.geometry
        return self._floats(layer, filled).reshape(g.N, g.P, g.Q, g.K).transpose(0, 3, 1, 2)

    def _floats(self, layer: HardwareLayer, filled: QuantizedLayer) -> Floats:
        """float32[pixels, K], after the activation."""
        y, overflows = layer.output(filled)
        self._count(layer, filled, overflows)
        return apply_activation(y, filled.activation).astype(np.float32)

    def _count(self, layer: HardwareLayer, filled: QuantizedLayer, overflows: int) -> None:
        counts, steps = self.coverage.overflows, self.coverage.accumulations
        pixels = filled.geometry.pixels * filled.geometry.K
        vectors = (
            filled.spec.G if layer.fake_quantization else filled.spec.in_vectors(self.arch.vector_size).G
        )
        counts[filled.name] = counts.get(filled.name, 0) + overflows
        steps[filled.name] = steps.get(filled.name, 0) + pixels * vectors

    def layer(self, step: Step, call: LayerCall) -> Any:
        layer = self.layers[call.name].of_size(call.layer)
        filled = layer.filled(*self.operands(step, call, layer))
        shape, formats = shape_of(step.node), self.formats.get(call.name)
        if formats is None:
            return shaped(call, _image(self._floats(layer, filled), call), shape)
        psums, overflows = layer.accumulate(filled)
        self._count(layer, filled, overflows)

        def store(output: TensorFormat, wide: Stored | None) -> Stored:
            codes, scales = layer.written(filled, psums, output)
            g, size = call.layer.geometry, min(output.block, call.layer.geometry.outputs_per_group)
            spread = None
            if scales is not None:
                spread = _image(by_element(scales, g.groups, size, g.outputs_per_group), call)
            return Stored(
                shaped(call, _image(codes, call), shape),
                None if spread is None else shaped(call, spread, shape),
                output,
                wide,
            )

        own, waiting = formats
        return store(own, None if waiting is None else store(waiting, None))

    def operands(self, step: Step, call: LayerCall, layer: HardwareLayer) -> tuple[Words, Words | None]:
        """The layer's words: codes handed on where the vectors are whole, else quantized from values."""
        x, cut = step.args[0], cuts(call, layer.words.spec)
        if (step.node, "input") in self.whole:
            words, how = _handed_on(x, cut[0]), "codes"
        else:
            rows = np.ascontiguousarray(call.input_operand(as_floats(_values(x))))
            words, how = layer.input_words(rows), _source(x)
        weight_words = None
        if call.layer.weight_is_activation:
            weight = step.args[1]
            if (step.node, "weight") in self.whole:
                weight_words, side = _handed_on(weight, cut[1]), "codes"
            else:
                columns = call.weight_operand(as_floats(_values(weight)))
                weight_words, side = layer.weight_words(columns), _source(weight)
            how = f"{how}, weight operand {side}"
        self.coverage.how[call.name] = how
        return words, weight_words

    def _node(self, step: Step, call: NodeCall) -> Any:
        formats = self.formats.get(call.name)
        if formats is None:
            if has_stored(step.reads):
                self.coverage.how[call.name] = "float32"
            return step.result(floats_of)
        wanted = [output for output in formats if output is not None]
        aligned = [integer_node(step, call, output) for output in wanted]
        self.coverage.how[call.name] = "float32" if aligned[0] is None else "integers"
        rest: tuple[Any, ...] = ()
        if aligned[0] is None:
            result = step.result(floats_of)
            first, rest = (result, ()) if isinstance(result, torch.Tensor) else (result[0], result[1:])
            aligned = [
                torch.from_numpy(between.from_floats(first.numpy(), output, call.name)) for output in wanted
            ]
        own, *wide = (self._store(step, z, output) for z, output in zip(aligned, wanted, strict=True))
        if wide:
            own = replace(own, wide=wide[0])
        several = not isinstance(step.node.meta["val"], torch.Tensor)
        return (own, *rest) if several else own

    def _store(self, step: Step, z: torch.Tensor, output: TensorFormat) -> Stored:
        """z int64 of the tensor's shape, cut into blocks along its innermost channel axis."""
        axis = (step.node.meta["channels"] or (z.dim() - 1,))[-1] if z.dim() else None
        moved = z.reshape(1) if axis is None else z.movedim(axis, -1)
        width = moved.shape[-1]
        codes, scales = between.written(self.arch, moved.reshape(-1, width).numpy(), output)

        def back(values: NDArray[Any]) -> torch.Tensor:
            tensor = torch.from_numpy(values).reshape(moved.shape)
            return tensor.reshape(z.shape) if axis is None else tensor.movedim(-1, axis)

        size = min(output.block, width)
        return Stored(
            back(codes), None if scales is None else back(by_element(scales, 1, size, width)), output
        )


def _handed_on(value: Stored, cut: Cut) -> Words:
    """Words of a stored tensor as they are."""
    codes, scales = cut(value.codes), None
    if value.scales is not None:
        vectors = np.ascontiguousarray(cut(value.scales))
        shared = between.shared_scales(vectors.reshape(-1, vectors.shape[-1]))
        assert shared is not None
        scales = shared.reshape(vectors.shape[:-1])
    operand = value.format.operand
    signed = operand.element.signed and operand.element.is_integer  # codes of floats are patterns of bits
    if scales is not None and not operand.is_integer:
        scales = scales.astype(np.uint8)
    return Words(codes.astype(np.int8 if signed else np.uint8), scales, value.format.gamma)


def _source(value: Any) -> str:
    return "requantized" if isinstance(value, Stored) else "floats"


def _values(value: Any) -> torch.Tensor:
    """What a layer reads that cannot take the codes."""
    tensor = value.floats() if isinstance(value, Stored) else value
    assert isinstance(tensor, torch.Tensor)
    return tensor


def _image(values: NDArray[Any], call: LayerCall) -> torch.Tensor:
    """[pixels, K] as [N, K, P, Q], without a copy."""
    g = call.layer.geometry
    return torch.from_numpy(values).reshape(g.N, g.P, g.Q, g.K).permute(0, 3, 1, 2)
