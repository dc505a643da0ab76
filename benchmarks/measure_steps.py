"""Measures what lanes compute on the bundled traces: makes accelsim/characterise/steps.csv.

    python benchmarks/measure_steps.py [--out accelsim/characterise/steps.csv] [--seed 1]

A block is what a lane does with one weight vector: one channel and vector at up to 16 neighbouring pixels
(docs/machine.md, os-lws). Blocks are drawn from each trace in proportion to MACs, sorted by the size of their
products, and taken at even distances, so that few blocks stand for small and large values alike. Steps that
the zero detect gates are left out: nothing switches in them.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accelsim_kernels.reference import scale_products

from accelsim.compute.lanes import lane_spec
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.open import open_workload
from accelsim.quantize.workload import Workload
from accelsim.workload.layer import QuantizedLayer

TABLE = Path(__file__).resolve().parents[1] / "accelsim/characterise/steps.csv"
TRACES = ("digits", "text_direction", "minilm_layer0")
# The finest scheme with scales on both sides, and the same with weight scales alone.
SCHEMES = (Scheme.parse("8/8/10/10"), Scheme.parse("8/8/10/-"))
HOLD, CANDIDATES, BLOCKS = 16, 600, 14
COLUMNS = ("block", "dot", "weight_scaled_dot", "weight_scale", "activation_scale", "psum")


@dataclass(frozen=True, eq=False)
class Steps:
    """Steps of one block. weights: int64[V]; activations: int64[n, V]; scales: 1 where there are none;
    dots, products, psums: int64[n], psums before the products are added; live: bool[n], not gated."""

    weights: np.ndarray
    activations: np.ndarray
    weight_scale: int
    activation_scales: np.ndarray
    scale_products: np.ndarray
    dots: np.ndarray
    psums: np.ndarray
    live: np.ndarray

    @property
    def products(self) -> np.ndarray:
        return self.dots * self.scale_products


def steps_at(arch: Arch, layer: QuantizedLayer, channel: int, vector: int, pixels: np.ndarray) -> Steps:
    """What the lane of a channel does with one of its weight vectors at some pixels."""
    gather = layer.spec.gather(channel // layer.geometry.outputs_per_group, pixels)
    inside, tap = gather >= 0, np.maximum(gather, 0)
    weights = layer.weight_words[channel].astype(np.int64)
    activations = layer.input_words[tap].astype(np.int64) * inside[..., None]
    ones = np.ones(len(weights), np.int64)
    weight_scales = ones if layer.weight_scales is None else layer.weight_scales[channel].astype(np.int64)
    scales = inside.astype(np.int64)
    if layer.input_scales is not None:
        scales *= layer.input_scales[tap].astype(np.int64)
    spec = lane_spec(arch, layer.scheme)
    factors = np.stack(
        [scale_products(weight_scales[g : g + 1], scales[:, g], spec)[:, 0] for g in range(len(weights))], 1
    )
    dots = np.einsum("pgv,gv->pg", activations, weights)
    own = activations[:, vector]
    live = own.any(axis=1) & (scales[:, vector] > 0) & bool(weights[vector].any() and weight_scales[vector])
    return Steps(
        weights[vector],
        own,
        int(weight_scales[vector]),
        scales[:, vector],
        factors[:, vector],
        dots[:, vector],
        (dots * factors)[:, :vector].sum(axis=1),
        live,
    )


def blocks_of(
    arch: Arch, workload: Workload, schemes: Sequence[Scheme], candidates: int, blocks: int, seed: int
) -> list[tuple[Steps, ...]]:
    """`blocks` blocks of a trace, each at all schemes, steps that are gated at any scheme left out."""
    random = np.random.default_rng(seed)
    layers = [
        [workload.quantized_layer(layer.name, scheme, arch.vector_size) for scheme in schemes]
        for layer in workload.layers
    ]
    macs = np.array([float(same[0].geometry.macs) for same in layers])
    found = []
    for index in random.choice(len(layers), candidates, p=macs / macs.sum()):
        geometry, vectors = layers[index][0].geometry, layers[index][0].spec.G
        channel, vector = int(random.integers(geometry.K)), int(random.integers(vectors))
        first = int(random.integers(max(1, geometry.pixels - HOLD + 1)))
        pixels = np.arange(first, min(first + HOLD, geometry.pixels))
        steps = [steps_at(arch, layer, channel, vector, pixels) for layer in layers[index]]
        live = np.logical_and.reduce([own.live for own in steps])
        if live.any():
            found.append(tuple(_only(own, live) for own in steps))
    found.sort(key=lambda steps: float(np.mean(steps[0].products.astype(float) ** 2)))
    every = len(found) / blocks
    return [found[int((i + 0.5) * every)] for i in range(blocks)]


def _only(steps: Steps, taken: np.ndarray) -> Steps:
    return Steps(
        steps.weights,
        steps.activations[taken],
        steps.weight_scale,
        steps.activation_scales[taken],
        steps.scale_products[taken],
        steps.dots[taken],
        steps.psums[taken],
        steps.live[taken],
    )


def measure(seed: int) -> list[tuple[int, ...]]:
    """Rows of the table: blocks of all traces, in random order."""
    arch = load_arch("magnet16")
    found = [
        steps
        for trace in TRACES
        for steps in blocks_of(arch, open_workload(trace), SCHEMES, CANDIDATES, BLOCKS, seed)
    ]
    rows = []
    for number, index in enumerate(np.random.default_rng(seed).permutation(len(found))):
        both, weight_scaled = found[index]
        for i in range(len(both.dots)):
            values = (both.dots[i], weight_scaled.dots[i], both.weight_scale, both.activation_scales[i])
            rows.append((number, *(int(value) for value in values), int(both.psums[i])))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with arguments.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(measure(arguments.seed))


if __name__ == "__main__":
    main()
