"""`accelsim.torch.simulate`: a PyTorch model whose layers run on the array's integers (docs/inference.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from accelsim.capture.calls import LayerCall
from accelsim.capture.write import Progress
from accelsim.errors import AccelsimError, listed
from accelsim.formats.operand import Operand
from accelsim.formats.scheme import Scheme, parse_residual
from accelsim.inference.layer import HardwareLayer, TensorFormat
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.quantize.arrays import (
    PRESETS,
    Preset,
    QuantizeOptions,
    cut_vectors,
    tensor_gamma,
    tensor_scale,
)
from accelsim.quantize.blocks import block_gamma
from accelsim.quantize.layers import keep_24_bits, quantize_layer
from accelsim.torch.calibrate import Calibrated, calibrate
from accelsim.torch.capture import Captured, GraphRunner
from accelsim.torch.execute import Coverage, Executor
from accelsim.torch.refine import Methods, Refiner
from accelsim.torch.storage import find_readers, storage_of
from accelsim.torch.walk import walk
from accelsim.torch.whole import Formats, Whole, find_whole
from accelsim.workload.layer import FloatLayer

METHODS: dict[Preset, Methods | None] = {
    "plain": None,
    "default": Methods(),
    "best": Methods(round_by_columns=True, refit=True, input_gamma=True),
}


@dataclass(frozen=True, kw_only=True)
class Design:
    """What a model is run on. layer_schemes: of layers that have one of their own, by name; chained: integers
    go from step to step, instead of floats; fake_quantization: products are of what words are worth, in
    float64."""

    scheme: Scheme
    layer_schemes: Mapping[str, Scheme]
    arch: Arch
    options: QuantizeOptions
    chained: bool
    fake_quantization: bool = False

    def scheme_of(self, layer: str) -> Scheme:
        return self.layer_schemes.get(layer, self.scheme)


class Simulated(torch.nn.Module):
    """A model on the machine: called as the model is, with any batch.

    layers: HardwareLayer by name; coverage: what ran how, since it was last cleared; after a call without
    chaining everything between layers was float32.
    """

    def __init__(self, calibrated: Calibrated, design: Design) -> None:
        super().__init__()
        self.calibrated, self.design = calibrated, design
        if design.chained and not isinstance(calibrated.first.runner, GraphRunner):
            raise AccelsimError(
                "model: torch.export cannot trace it, so that it is no graph to be chained; expected "
                "chained=False"
            )
        self.layers = prepare_layers(calibrated, design)
        self.formats = prepare_formats(calibrated, design) if design.chained else {}
        self.coverage = Coverage()
        self._whole: dict[int, Whole] = {}

    @property
    def needs(self) -> tuple[str, ...]:
        """What a prepared model asks of the hardware beyond the model's own work, a sentence each."""
        return self.calibrated.needs

    def executor(self, *runs: tuple[Captured, Any]) -> Executor:
        """What computes the steps of these captures, with inputs of their shapes."""
        for captured, inputs in runs:
            known = id(captured) in self._whole or not self.formats
            if not known and isinstance(captured.runner, GraphRunner):
                self._whole[id(captured)] = find_whole(
                    captured.runner.traced, inputs, self.layers, self.formats
                )
        whole = frozenset().union(*(self._whole.get(id(captured), frozenset()) for captured, _ in runs))
        return Executor(self.layers, self.formats, self.design.arch, whole, self.coverage)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        captured, pieces, rows = self.calibrated.parts((args, kwargs))
        results = [self.run(captured, piece) for piece in pieces]
        return results[0] if rows is None else _joined(results, rows)

    def refine(self, methods: Methods) -> None:
        """Fit weights, gains and gammas on the calibration inputs, in place of those made by rule."""
        if not self.calibrated.given:
            raise AccelsimError("model: was not calibrated, expected calibration inputs to refine it on")
        runs = []
        for captured, inputs in self.calibrated.batches:
            if not isinstance(captured.runner, GraphRunner):
                raise AccelsimError("model: torch.export cannot trace it, expected a graph to be refined on")
            runs.append((captured.runner.traced, inputs))
        executor = self.executor(*self.calibrated.batches)
        walk(runs * 2, Refiner(executor, self.layers, methods))
        self.coverage = Coverage()

    def run(self, captured: Captured, inputs: Any) -> Any:
        """The outputs of a capture on inputs of its shapes, nested as `capture` takes them."""
        executor = self.executor((captured, inputs))
        if isinstance(captured.runner, GraphRunner):
            outputs = walk([(captured.runner.traced, inputs)], lambda steps: [executor(s) for s in steps])
            return executor.finished(outputs[0])
        return captured.run(inputs, on_layer=executor.on_layer)


def simulate(
    model: torch.nn.Module | torch.export.ExportedProgram | Calibrated,
    inputs: Any = None,
    scheme: str | Scheme = "4/4/4/4",
    arch: str | Path | Arch = "magnet16",
    *,
    calibration: Iterable[Any] | None = None,
    layer_schemes: Mapping[str, str | Scheme] | None = None,
    options: QuantizeOptions | None = None,
    chained: bool = False,
    residual: str | None = None,
    quantize: Preset | None = None,
    fake_quantization: bool = False,
    overrides: Sequence[str] = (),
    unsupported: Literal["error", "float"] = "error",
    seed: int = 0,
    progress: Progress | None = None,
) -> Simulated:
    """A module that computes what the machine would, integer for integer.

    model, inputs, calibration: as of `export`; or what `calibrate` returned, for many schemes of one model.
    layer_schemes: of layers, by name, that are to have another scheme, each as a machine of its own scheme
    computes it. chained: False quantizes the input of every layer from floats (VS-Quant's setting, section
    5); True hands the PPU's integers on, and adds and pools in integers. residual: with chained, the format
    `A/as` or `A/-` of tensors as nodes read them, in place of the arch's. quantize: how words are chosen
    (docs/inference.md); by default `default` where calibration is given, else `plain`. fake_quantization: not
    the machine but float64 products of dequantized words, layer by layer, for schemes that no machine
    executes, as a reference. Raises AccelsimError.
    """
    check_preset(quantize)
    scheme = parsed(scheme)
    own = {name: parsed(given) for name, given in (layer_schemes or {}).items()}
    machine = arch if isinstance(arch, Arch) else load_arch(arch, list(overrides))
    if residual is not None:
        parse_residual(residual)
        machine = machine.model_copy(update={"residual": residual})
    if not fake_quantization:
        machine = machine.in_mode(scheme)
        for each in (scheme, *own.values()):
            machine.check_scheme(each)
            if chained and (each.is_aligned or scheme.is_aligned) and each != scheme:
                raise AccelsimError(
                    f"simulate: {each} beside {scheme} with chained=True, expected one block format for all "
                    "layers, schemes of integers alone, or chained=False"
                )
            if each.is_aligned and quantize not in (None, "plain"):
                raise AccelsimError(f"simulate: quantize is {quantize!r}, expected plain at {each}")
    elif chained:
        raise AccelsimError("simulate: fake_quantization hands floats on, expected chained=False")
    if not isinstance(model, Calibrated):
        if inputs is None:
            raise AccelsimError("simulate: no inputs, expected an example batch of the model's inputs")
        model = calibrate(model, inputs, calibration, unsupported=unsupported, seed=seed, progress=progress)
    layers = [call.name for call in model.first.layers]
    for name in own:
        if name not in layers:
            known = listed(layers, name)
            raise AccelsimError(f"simulate: layer_schemes has '{name}', expected one of {known}")
    design = Design(
        scheme=scheme,
        layer_schemes=own,
        arch=machine,
        options=(options or QuantizeOptions()).on_machine(machine.fold, machine.scale_rounding),
        chained=chained,
        fake_quantization=fake_quantization,
    )
    if fake_quantization and quantize not in (None, "plain"):
        raise AccelsimError(f"simulate: quantize is {quantize!r}, expected plain with fake_quantization")
    simulated = Simulated(model, design)
    by_rule = fake_quantization or any(each.is_aligned for each in (scheme, *own.values()))
    usual: Preset = "plain" if by_rule else usual_preset(model.first, model.given)
    methods = METHODS[quantize or usual]
    if methods is not None:
        simulated.refine(methods)
    return simulated


def parsed(scheme: str | Scheme) -> Scheme:
    return Scheme.parse(scheme) if isinstance(scheme, str) else scheme


def check_preset(quantize: str | None) -> None:
    """Raise AccelsimError for a name that is none."""
    if quantize is not None and quantize not in PRESETS:
        raise AccelsimError(f"quantize is {quantize!r}, expected one of {', '.join(PRESETS)}")


def usual_preset(captured: Captured, calibrated: bool) -> Preset:
    """What is done where nothing is asked for: what can be done without being slow."""
    return "default" if calibrated and isinstance(captured.runner, GraphRunner) else "plain"


def prepare_layers(calibrated: Calibrated, design: Design) -> dict[str, HardwareLayer]:
    """Every layer's weights as words, and the static scale or gamma of its input."""
    found = {}
    for call in calibrated.first.layers:
        seen, seen_weight = calibrated.layers.sample(call.layer)
        g = call.layer.geometry
        words = quantize_layer(
            FloatLayer(
                call.layer,
                weight=_weight(call),
                input=np.zeros((g.N, g.C, g.H, g.W), np.float32),
                bias=call.bias,
                calibration_input=seen,
                calibration_weight=seen_weight,
            ),
            design.scheme_of(call.name),
            design.arch.vector_size,
            design.options,
            output_gamma=1.0,
        )
        found[call.name] = HardwareLayer(
            design.arch, words, design.options, fake_quantization=design.fake_quantization
        )
    return found


def _weight(call: LayerCall) -> np.ndarray[Any, Any]:
    """Stored weights; zeros where they are computed at run time."""
    if call.weight is not None:
        return call.weight
    g = call.layer.geometry
    return np.zeros((g.K, g.channels_per_group, g.R, g.S), np.float32)


def prepare_formats(calibrated: Calibrated, design: Design) -> dict[str, Formats]:
    """The formats of the tensors that are stored between steps, with their gammas."""
    runner = calibrated.first.runner
    assert isinstance(runner, GraphRunner)
    found: dict[str, Formats] = {}
    for name, readers in find_readers(runner.traced.module).items():
        operands = storage_of(readers, design.scheme, design.scheme_of, design.arch.residual_operand)
        if not operands or name not in calibrated.tensors.kept:
            continue
        rows = calibrated.tensors.rows(name)
        own, *wide = (calibrated_format(rows, operand, design) for operand in operands)
        found[name] = own, wide[0] if wide else None
    return found


def calibrated_format(rows: NDArray[np.float32], operand: Operand, design: Design) -> TensorFormat:
    """A format with the gamma that options choose for rows float32[n, channels] of the tensor."""
    operand = operand.in_blocks(design.arch.vector_size)
    assert operand.block is not None
    exponent = 0
    if not operand.is_integer:
        gamma = block_gamma([rows], operand)
        if operand.scale.gamma == "none":
            # frexp: x = f * 2^e with 1/2 <= f < 1, so that x < 2^e.
            exponent = int(np.frexp(np.abs(rows).max(initial=0.0))[1])
    elif operand.scale.bits:
        vectors = cut_vectors(rows, min(operand.block, rows.shape[1]))
        gamma = tensor_gamma([vectors.reshape(-1, vectors.shape[-1])], operand, design.options)
    else:
        gamma = tensor_scale([rows], operand, design.options)
    return TensorFormat(operand, keep_24_bits(gamma), exponent)


def _joined(results: list[Any], rows: int) -> Any:
    """Outputs of batches as those of one, without the rows that filled up the last."""
    leaves = [pytree.tree_flatten(result) for result in results]
    joined = []
    for parts in zip(*(flat for flat, _ in leaves), strict=True):
        if isinstance(parts[0], torch.Tensor) and parts[0].dim():
            joined.append(torch.cat(parts)[:rows])
        else:
            raise AccelsimError("model: an output has no batch, expected inputs of the captured size")
    return pytree.tree_unflatten(joined, leaves[0][1])
