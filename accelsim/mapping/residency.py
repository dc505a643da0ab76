"""Where a layer's operands live before it runs: global buffer or DRAM (docs/machine.md section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from accelsim.machine.arch import Arch
from accelsim.workload.layer import LayerSpec

Mode = Literal["gb", "cached", "streamed"]


@dataclass(frozen=True)
class Storage:
    """gb: already there; cached: read from DRAM once; streamed: read from DRAM at every fetch.

    kept_bits: of the activation region, by operands and output that stay there for the whole layer.
    """

    weights: Mode
    input: Mode
    output_to_dram: bool
    kept_bits: int = 0


def input_bits(layer: LayerSpec) -> int:
    geometry, operand = layer.geometry, layer.input_operand
    positions = geometry.N * geometry.H * geometry.W
    if layer.folded:
        return positions * geometry.C * operand.bits
    return positions * geometry.groups * layer.words_per_position * operand.word_bits


def output_bits(layer: LayerSpec) -> int:
    geometry = layer.geometry
    per_group = layer.output_operand.bits_of(geometry.outputs_per_group)
    return geometry.pixels * geometry.groups * per_group


def weight_bits(layer: LayerSpec) -> int:
    return layer.geometry.K * layer.G * layer.weight_operand.word_bits


def output_staging_bits(arch: Arch, layer: LayerSpec, tile_pixels: int | None = None) -> int:
    """Room in the global buffer for output tiles on their way to DRAM; tile_pixels: of a tile, at most D."""
    pixel = layer.output_operand.bits_of(arch.unit_channels)
    depth = arch.accumulation_collector_depth
    pixels = depth if tile_pixels is None else min(depth, tile_pixels)
    return arch.output_staging_tiles * arch.pes * pixels * pixel


def decide_storage(arch: Arch, layers: Sequence[LayerSpec]) -> list[Storage]:
    """Storage of each layer of a run: what is between two layers stays in the global buffer or goes to DRAM.

    Of all choices that fit, the one that moves the fewest bits of activations through DRAM, where an input
    that is streamed counts twice if the weights too have to be fetched more than once.
    """
    needs = [_Needs.of(arch, layer) for layer in layers]
    # between[i]: bits of tensor i in the global buffer, read by layer i and written by the one before.
    between = [0, *(max(need.input, before.output) for before, need in pairwise(needs)), 0]
    region, stays = arch.activation_region_bits, _stays(arch, needs, between)
    storages = []
    for i, (layer, need) in enumerate(zip(layers, needs, strict=True)):
        output = between[i + 1] if stays[i + 1] else need.staging
        kept = between[i + 1] if stays[i + 1] else 0
        source: Mode = "streamed"
        if stays[i]:
            source = "gb"
            kept += between[i]
        elif need.input + output <= region:
            source = "cached"
            kept += need.input
        weights: Mode = "cached" if need.weights <= arch.weight_region_bits else "streamed"
        staging = 0 if stays[i + 1] else need.staging
        fit = kept + need.weights + staging <= region
        if layer.weight_is_activation and i > 0 and source != "streamed" and fit:
            weights = "gb"
            kept += need.weights
        storages.append(Storage(weights, source, not stays[i + 1], kept))
    return storages


@dataclass(frozen=True)
class _Needs:
    """Bits of one layer's whole operands and output, and of the staging of an output that goes to DRAM.

    streamed_passes: how often an input that is streamed is read, at the least.
    """

    input: int
    output: int
    weights: int
    staging: int
    streamed_passes: int

    @classmethod
    def of(cls, arch: Arch, layer: LayerSpec) -> _Needs:
        weights = weight_bits(layer)
        buffers = arch.pes * arch.lanes * arch.weight_buffer_words * layer.weight_operand.word_bits
        held = max(arch.weight_region_bits, buffers)
        staging = output_staging_bits(arch, layer)
        return cls(input_bits(layer), output_bits(layer), weights, staging, 1 if weights <= held else 2)

    def allow(self, region: int, before: int | None, after: int | None) -> bool:
        """Whether the layer can run with its tensors in the global buffer taking so much; None: not there."""
        if before is not None:
            return before + (self.staging if after is None else after) <= region
        if after is not None:
            # An input that does not fit whole beside it is streamed through what is left.
            return self.input + after <= region or 2 * after <= region
        return True


def _stays(arch: Arch, needs: Sequence[_Needs], between: Sequence[int]) -> list[bool]:
    """For each tensor whether it stays in the global buffer: the shortest path from the first to the last."""
    region, impossible = arch.activation_region_bits, float("inf")
    # costs[i][there]: DRAM bits from layer i on, given where tensor i is.
    costs = [[0.0, impossible]]

    def cost(i: int, before: bool, after: bool) -> float:
        need = needs[i]
        if not need.allow(region, between[i] if before else None, between[i + 1] if after else None):
            return impossible
        read = 0 if before else need.input
        if need.input + (between[i + 1] if after else need.staging) > region:
            read *= need.streamed_passes
        return costs[0][after] + read + (0 if after else need.output)

    steps: list[list[bool]] = []  # from where tensor i is to where tensor i + 1 best is
    for i in reversed(range(len(needs))):
        own = [[cost(i, before, after) for after in (False, True)] for before in (False, True)]
        steps.insert(0, [there <= away and there < impossible for away, there in own])
        costs.insert(0, [min(row) for row in own])
    stays = [False]
    for step in steps:
        stays.append(step[stays[-1]])
    return stays
