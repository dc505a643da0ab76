"""docs/machine.md sections 3 and 4: the regions of the global buffer and where the data of a layer live."""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.config import Arch
from accelsim.workload import QuantizedLayer


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


@dataclass
class Placement:
    resident: bool
    weights: str
    input: str
    output_to_dram: bool


def region_bits(arch: Arch) -> tuple[int, int]:
    """Bits of the (weight region, activation region) of the global buffer."""
    weights = arch.global_buffer_bits * arch.bank_groups[0] // arch.gb_banks
    return weights, arch.global_buffer_bits - weights


def layer_bits(layer: QuantizedLayer) -> tuple[int, int, int]:
    """in_bits, out_bits, w_bits."""
    g, scheme, out = layer.geometry, layer.scheme, layer.output
    if layer.folded:
        in_bits = g.N * g.H * g.W * g.C * scheme.activation_bits
    else:
        words = g.N * g.H * g.W * g.groups * ceil_div(g.C // g.groups, layer.vector_size)
        in_bits = words * (layer.vector_size * scheme.activation_bits + scheme.activation_scale_bits)
    per_group = g.K // g.groups
    out_bits = per_group * out.bits + ceil_div(per_group, layer.vector_size) * out.scale_bits
    out_bits *= g.N * g.P * g.Q * g.groups
    w_bits = g.K * layer.G * (layer.vector_size * scheme.weight_bits + scheme.weight_scale_bits)
    return in_bits, out_bits, w_bits


def placements_of(arch: Arch, layers: list[QuantizedLayer]) -> list[Placement]:
    weight_region, activation_region = region_bits(arch)
    placements: list[Placement] = []
    for i, layer in enumerate(layers):
        in_bits, out_bits, w_bits = layer_bits(layer)
        resident = in_bits + out_bits <= activation_region
        fits = in_bits + out_bits + w_bits <= activation_region
        if layer.weight_is_activation and i > 0 and resident and fits:
            weights = "gb"
        else:
            weights = "cached" if w_bits <= weight_region else "streamed"
        if not resident:
            inputs = "streamed"
        else:
            inputs = "gb" if i > 0 and placements[-1].resident else "cached"
        placements.append(Placement(resident, weights, inputs, not resident or i == len(layers) - 1))
    return placements
