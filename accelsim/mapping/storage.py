"""Where a layer's operands live before it runs: global buffer or DRAM (docs/machine.md section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from accelsim.config import Arch
from accelsim.workload import LayerSpec

Mode = Literal["gb", "cached", "streamed"]


@dataclass(frozen=True)
class Storage:
    """gb: already there; cached: read from DRAM once; streamed: read from DRAM at every fetch."""

    weights: Mode
    input: Mode
    output_to_dram: bool


def weight_region_bits(arch: Arch) -> int:
    return arch.global_buffer_bits * arch.bank_groups[0] // arch.gb_banks


def activation_region_bits(arch: Arch) -> int:
    return arch.global_buffer_bits - weight_region_bits(arch)


def input_bits(layer: LayerSpec) -> int:
    geometry, scheme = layer.geometry, layer.scheme
    positions = geometry.N * geometry.H * geometry.W
    if layer.folded:
        return positions * geometry.C * scheme.activation_bits
    word = layer.vector_size * scheme.activation_bits + scheme.activation_scale_bits
    return positions * geometry.groups * layer.words_per_position * word


def output_bits(layer: LayerSpec) -> int:
    geometry, output = layer.geometry, layer.output
    vectors = -(-geometry.outputs_per_group // layer.vector_size)
    per_group = geometry.outputs_per_group * output.bits + vectors * output.scale_bits
    return geometry.pixels * geometry.groups * per_group


def weight_bits(layer: LayerSpec) -> int:
    word = layer.vector_size * layer.scheme.weight_bits + layer.scheme.weight_scale_bits
    return layer.geometry.K * layer.G * word


class Placement:
    """Decides the storage of a run's layers one by one, in order."""

    def __init__(self, arch: Arch) -> None:
        self._arch = arch
        self._first, self._previous_resident = True, False

    def place(self, layer: LayerSpec, *, last: bool) -> Storage:
        """Storage of the next layer; the run's first reads and its last writes DRAM."""
        activation_region = activation_region_bits(self._arch)
        activations = input_bits(layer) + output_bits(layer)
        resident = activations <= activation_region
        weights: Mode = "cached" if weight_bits(layer) <= weight_region_bits(self._arch) else "streamed"
        fit = activations + weight_bits(layer) <= activation_region
        if layer.weight_is_activation and not self._first and resident and fit:
            weights = "gb"
        source: Mode = "streamed"
        if resident:
            source = "gb" if self._previous_resident else "cached"
        self._first, self._previous_resident = False, resident
        return Storage(weights, source, not resident or last)


def decide_storage(arch: Arch, layers: Sequence[LayerSpec]) -> list[Storage]:
    """Storage of each layer of a run, in order."""
    placement = Placement(arch)
    return [placement.place(layer, last=i == len(layers) - 1) for i, layer in enumerate(layers)]
