"""What switches in the lanes on a layer's own operands: a sample of its steps (docs/counts.md, Activity)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
from accelsim_kernels import Runs, Toggles, toggles
from numpy.typing import NDArray

from accelsim.compute.computed import StepToggles
from accelsim.compute.lanes import lane_spec
from accelsim.compute.operands import code_values
from accelsim.machine.accumulator import MAX_ACCUMULATOR_BITS
from accelsim.machine.arch import Arch, Gating
from accelsim.machine.dataflows import DATAFLOWS
from accelsim.mapping.plan import StepOrder
from accelsim.workload.layer import QuantizedLayer

# Of one layer. Runs are of at most so many vectors, so that a sample sees many channels and places.
SAMPLED_STEPS = 1 << 16
RUN_VECTORS = 8
# Fractions of the golden and of the plastic ratio: multiples of them, modulo 1, spread evenly over a square
# (M. Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018). The third orders vectors.
_SPREAD = (0.7548776662466927, 0.5698402909980532, 0.6180339887498949)

# What block formats' steps are counted of; all else is priced on the data of the tables' rows.
_OF_BLOCK_FORMATS = ("dot_product", "weight_register", "input_register")


def mean_toggles(parts: Sequence[StepToggles]) -> StepToggles:
    """Of a layer whose parts were sampled one by one: their means, each by its lane steps."""
    of = sum(own.of for own in parts)
    return StepToggles(
        {part: sum(own.by_part[part] * own.of for own in parts) / of for part in parts[0].by_part},
        sum(own.weight_changes * own.of for own in parts) / of,
        sum(own.steps for own in parts),
        of,
    )


def sample_toggles(arch: Arch, layer: QuantizedLayer, order: StepOrder) -> StepToggles:
    """Replay a sample of a layer's steps, in their order, and count the bits that change.

    The sample is the same for the same layer and order; of a layer with fewer steps it may hold some twice.
    """
    held = DATAFLOWS[order.dataflow].weight_operand_held
    geometry = layer.geometry
    pixels = min(order.pixels, geometry.pixels)
    parts = layer.spec.parts(order.c_split)
    vectors = min(RUN_VECTORS, *(len(part) for part in parts))
    runs_of_group = _runs_of_group(layer, pixels, vectors, len(parts))
    found = np.zeros(len(Toggles._fields), np.int64)
    words, spec = _codes(layer), lane_spec(arch, layer.scheme)
    aligned, blocks = layer.scheme.is_aligned, layer.spec.blocks_per_word
    if aligned:
        # Decoded codes, with what is stored of scales: their products are no products of the lanes.
        weight, activation = layer.scheme.weight, layer.scheme.activation
        spec = spec._replace(
            weight_bits=weight.decoded_bits,
            activation_bits=activation.decoded_bits,
            accumulator_bits=MAX_ACCUMULATOR_BITS,
        )
    operand_bits, gating = arch.activation_operand_bits(layer.scheme), arch.gating(layer.scheme)
    groups = min(geometry.groups, runs_of_group.shape[0])
    for group in (np.arange(groups) * geometry.groups) // groups:
        for number, part in enumerate(parts):
            spread = runs_of_group[number :: len(parts)]
            channel = group * geometry.outputs_per_group + (spread[:, 0] * geometry.outputs_per_group)
            first_pixel = _tiles(spread[:, 1], geometry.pixels, pixels)
            places = (first_pixel[:, None] + np.arange(pixels)).reshape(-1)
            taps = layer.spec.gather(int(group), places)[:, part]
            runs = Runs(
                channel.astype(np.int64),
                part.astype(np.int64),
                (spread[:, 2] * (len(part) - vectors + 1)).astype(np.int64),
                np.ascontiguousarray(taps.reshape(len(spread), pixels, len(part))),
                vectors,
                held,
            )
            found += toggles(*words, runs, spec, operand_bits, get_args(Gating).index(gating), blocks)
    sums = _per_operation(Toggles(*(int(value) for value in found)), gates_dot=gating == "dot")
    sums = replace(sums, of=geometry.pixels * geometry.K * layer.spec.G)
    if not aligned:
        return sums
    return replace(sums, by_part={part: sums.by_part[part] for part in _OF_BLOCK_FORMATS})


def _codes(layer: QuantizedLayer) -> tuple[Any, Any, Any, Any]:
    """Words as the lanes multiply them, and the stored scales: of weights, then of inputs."""
    if not layer.scheme.is_aligned:
        return layer.weight_words, layer.weight_scales, layer.input_words, layer.input_scales
    found: list[Any] = []
    for words, scales, operand in (
        (layer.weight_words, layer.weight_scales, layer.spec.weight_operand),
        (layer.input_words, layer.input_scales, layer.spec.input_operand),
    ):
        assert scales is not None
        found += [code_values(words, operand.element), scales.astype(np.uint16)]
    return found[0], found[1], found[2], found[3]


def _runs_of_group(layer: QuantizedLayer, pixels: int, vectors: int, parts: int) -> NDArray[np.float64]:
    """float64[runs, 3] in [0, 1): where each run of a group lies among channels, tiles and vectors."""
    wanted = SAMPLED_STEPS // (pixels * vectors * min(layer.geometry.groups, SAMPLED_STEPS))
    count = max(parts, min(wanted, SAMPLED_STEPS))
    return (np.arange(1, count + 1)[:, None] * np.array(_SPREAD)) % 1.0


def _tiles(where: NDArray[np.float64], pixels: int, size: int) -> NDArray[np.int64]:
    """First pixel of the tile at each place in [0, 1): tiles of `size` one after another, the last shifted to
    end with the layer."""
    tiles = -(-pixels // size)
    return np.minimum((where * tiles).astype(np.int64) * size, pixels - size)


def _per_operation(sums: Toggles, *, gates_dot: bool) -> StepToggles:
    products = max(1, sums.products)
    dots = products if gates_dot else max(1, sums.live_steps)
    operand, loads = (
        ("operand_register", products) if gates_dot else ("input_register", max(1, sums.input_reads))
    )
    return StepToggles(
        {
            "dot_product": sums.dot_product / dots,
            "scale_product": sums.scale_product / (sums.steps if gates_dot else dots),
            "scale_multiply": sums.scale_multiply / products,
            "pipeline_register": sums.pipeline / products,
            "accumulator": sums.accumulator / max(1, sums.additions),
            "weight_register": sums.weight_register / max(1, sums.weight_loads),
            operand: sums.input_register / loads,
        },
        sums.weight_loads / sums.steps,
        sums.steps,
    )
