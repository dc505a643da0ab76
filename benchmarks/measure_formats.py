"""Measures what lanes and PPUs of block formats compute on the bundled traces: makes
accelsim/characterise/format_steps.csv and format_outputs.csv.

    python benchmarks/measure_formats.py [--out accelsim/characterise] [--seed 1]

Steps are drawn as in measure_steps.py: blocks of one weight vector at up to 16 neighbouring pixels, from each
trace in proportion to MACs and at even distances by the size of their products; steps that the zero detect
gates are left out. Words are stored codes in hexadecimal, code 0 lowest. A shift amount is that of
`scale_sum` (docs/numerics.md, Block formats): right, of the product with as many zeros below as the
accumulator has bits. Outputs are blocks that PPUs write: values before they are quantized, of neighbouring
channels."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from accelsim_kernels import ppu_values
from accelsim_kernels.reference import accumulate_aligned_reference
from measure_steps import CANDIDATES, HOLD, TRACES

from accelsim.compute.lanes import accumulate_layer
from accelsim.compute.operands import align_spec, code_values, psum_shift, scale_values
from accelsim.formats.catalogue import SCHEMES
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.open import open_workload
from accelsim.quantize.reference import ppu_constants
from accelsim.workload.layer import QuantizedLayer

FOLDER = Path(__file__).resolve().parents[1] / "accelsim/characterise"
STEPS, OUTPUTS = "format_steps.csv", "format_outputs.csv"
STEP_COLUMNS = (
    "scheme",
    "block",
    "weights",
    "activations",
    "weight_scale",
    "activation_scale",
    "shift",
    "psum",
)
OUTPUT_COLUMNS = ("scheme", "block", "exponent", "value")
# Blocks of steps and of outputs, of each trace.
BLOCKS, OUTPUT_BLOCKS = 14, 18

Row = tuple[object, ...]


def word(codes: np.ndarray, bits: int) -> str:
    return f"{sum((int(code) & ((1 << bits) - 1)) << (i * bits) for i, code in enumerate(codes)):x}"


def steps_at(arch: Arch, layer: QuantizedLayer, channel: int, vector: int, pixels: np.ndarray) -> list[Row]:
    """Live steps of the lane of a channel with one of its weight vectors at some pixels: the columns of the
    table but for scheme and block, then the product of the codes' dot product and the scales."""
    gather = layer.spec.gather(channel // layer.geometry.outputs_per_group, pixels)[:, : vector + 1]
    weight_operand, input_operand = layer.spec.weight_operand, layer.spec.input_operand
    assert layer.weight_scales is not None and layer.input_scales is not None
    weight_codes = layer.weight_words[channel, : vector + 1]
    weights = code_values(weight_codes, weight_operand.element).astype(np.int64)[None]
    inputs = code_values(layer.input_words, input_operand.element)
    weight_scales = layer.weight_scales[channel, : vector + 1]
    own, theirs = (
        scale_values(weight_scales[None], weight_operand),
        scale_values(layer.input_scales, input_operand),
    )
    spec = align_spec(arch, layer)
    if vector:
        before = type(own)(own.significand[:, :vector], own.exponent[:, :vector])
        psums, _ = accumulate_aligned_reference(
            weights[:, :vector], before, inputs, theirs, gather[:, :vector], spec
        )
    else:
        psums = np.zeros((len(pixels), 1), np.int64)
    rows: list[Row] = []
    for i, tap in enumerate(gather[:, vector]):
        if tap < 0 or not inputs[tap].any() or not weights[0, vector].any():
            continue
        significand = int(own.significand[0, vector]) * int(theirs.significand[tap])
        exponent = int(own.exponent[0, vector]) + int(theirs.exponent[tap]) - spec.lsb
        if not significand:
            continue
        dot = int(inputs[tap].astype(np.int64) @ weights[0, vector])
        rows.append(
            (
                word(weight_codes[vector], weight_operand.bits),
                word(layer.input_words[tap], input_operand.bits),
                int(weight_scales[vector]),
                int(layer.input_scales[tap]),
                spec.accumulator_bits - exponent,
                int(psums[i, 0]),
                float(dot * significand) * 2.0**exponent,
            )
        )
    return rows


def steps_of(arch: Arch, layers: list[QuantizedLayer], seed: int) -> list[list[Row]]:
    """Blocks of steps of a trace."""
    random = np.random.default_rng(seed)
    macs = np.array([float(layer.geometry.macs) for layer in layers])
    found = []
    for index in random.choice(len(layers), CANDIDATES, p=macs / macs.sum()):
        geometry, vectors = layers[index].geometry, layers[index].spec.G
        channel, vector = int(random.integers(geometry.K)), int(random.integers(vectors))
        first = int(random.integers(max(1, geometry.pixels - HOLD + 1)))
        pixels = np.arange(first, min(first + HOLD, geometry.pixels))
        if rows := steps_at(arch, layers[index], channel, vector, pixels):
            found.append(rows)
    found.sort(key=lambda rows: float(np.mean([float(str(row[-1])) ** 2 for row in rows])))
    every = len(found) / BLOCKS
    return [[row[:-1] for row in found[int((i + 0.5) * every)]] for i in range(BLOCKS)]


def outputs_of(arch: Arch, layers: list[QuantizedLayer], seed: int) -> list[list[Row]]:
    """Blocks of PPU values of a trace: (exponent of the value's unit, value)."""
    random = np.random.default_rng(seed)
    found = []
    written = [layer for layer in layers if layer.output.operand.scale.kind in ("e8m0", "e4m3")]
    for index in random.choice(len(written), OUTPUT_BLOCKS):
        layer = written[index]
        psums, _ = accumulate_layer(arch, layer)
        constants = ppu_constants(layer, psum_shift(arch, layer))
        values = ppu_values(psums, *constants, layer.activation == "relu")
        block = min(layer.output.operand.block or arch.vector_size, layer.geometry.outputs_per_group)
        first = int(random.integers(layer.geometry.outputs_per_group // block)) * block
        own = values[int(random.integers(len(values))), first : first + block]
        exponent = -layer.output.fraction_bits
        if layer.output.operand.scale.kind == "e8m0":
            assert layer.sum_exponent is not None
            exponent += layer.sum_exponent
        found.append([(exponent, int(value)) for value in own])
    return found


def measure(seed: int) -> tuple[list[Row], list[Row]]:
    """Rows of both tables: blocks of all traces, in random order."""
    arch = load_arch("magnet16")
    tables: tuple[list[Row], list[Row]] = ([], [])
    for name in SCHEMES:
        scheme = Scheme.parse(name)
        steps, outputs = [], []
        for trace in TRACES:
            workload = open_workload(trace)
            layers = [workload.quantized_layer(own.name, scheme, arch.vector_size) for own in workload.layers]
            steps += steps_of(arch, layers, seed)
            outputs += outputs_of(arch, layers, seed)
        for rows, found in zip(tables, (steps, outputs), strict=True):
            order = np.random.default_rng(seed).permutation(len(found))
            rows += [(name, number, *row) for number, i in enumerate(order) for row in found[i]]
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for file, columns, rows in zip(
        (STEPS, OUTPUTS), (STEP_COLUMNS, OUTPUT_COLUMNS), measure(arguments.seed), strict=True
    ):
        with (arguments.out / file).open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(rows)


if __name__ == "__main__":
    main()
