"""docs/residency.md, Sizes: bits of regions, layers and tensors."""

from __future__ import annotations

import math

from accelsim.formats.operand import Operand
from accelsim.machine.arch import Arch
from accelsim.workload.graph import Shape
from accelsim.workload.layer import QuantizedLayer


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def elements_of(shape: Shape) -> int:
    return math.prod(shape)


def region_bits(arch: Arch) -> tuple[int, int]:
    """Bits of the (weight region, activation region) of the global buffer."""
    if arch.gb_weight_kb is None:
        weights = arch.global_buffer_bits * arch.bank_groups[0] // arch.gb_banks
    else:
        weights = arch.gb_weight_kb * 1024 * 8
    return weights, arch.global_buffer_bits - weights


def stored_bits(arch: Arch, shape: Shape, operand: Operand, groups: int) -> int:
    n, c, h, w = shape
    per_group = c // groups
    scales = ceil_div(per_group, arch.vector_size) * operand.scale.bits
    return n * h * w * groups * (per_group * operand.bits + scales)


def input_shape(layer: QuantizedLayer) -> Shape:
    g = layer.geometry
    return g.N, g.C, g.H, g.W


def output_shape(layer: QuantizedLayer) -> Shape:
    g = layer.geometry
    return g.N, g.K, g.P, g.Q


def outputs_of(layer: QuantizedLayer) -> int:
    """T"""
    return elements_of(output_shape(layer))


def layer_bits(layer: QuantizedLayer) -> tuple[int, int, int]:
    """in_bits, stored bits of the output, w_bits."""
    g, scheme, out = layer.geometry, layer.scheme, layer.output
    if layer.spec.packed_im2col:
        in_bits = g.N * g.H * g.W * g.C * scheme.activation.bits
    else:
        words = g.N * g.H * g.W * g.groups * ceil_div(g.C // g.groups, layer.vector_size)
        in_bits = words * (layer.vector_size * scheme.activation.bits + scheme.activation.scale.bits)
    per_group = g.K // g.groups
    out_bits = per_group * out.operand.bits + ceil_div(per_group, layer.vector_size) * out.operand.scale.bits
    out_bits *= g.N * g.P * g.Q * g.groups
    w_bits = g.K * layer.spec.G * (layer.vector_size * scheme.weight.bits + scheme.weight.scale.bits)
    return in_bits, out_bits, w_bits


def weights_are_heavy(arch: Arch, layer: QuantizedLayer) -> bool:
    """Neither the weight region nor all weight buffers together hold the weights of the layer."""
    scheme, w_bits = layer.scheme, layer_bits(layer)[2]
    word = arch.vector_size * scheme.weight.bits + scheme.weight.scale.bits
    buffers = arch.pes * arch.lanes * arch.weight_buffer_words * word
    return w_bits > region_bits(arch)[0] and w_bits > buffers


def every_position_is_read(layer: QuantizedLayer) -> bool:
    """Every input position is under a tap of some pixel."""
    g = layer.geometry
    return set(layer.spec.taps.ravel().tolist()) - {-1} == set(range(g.N * g.H * g.W))
