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
    scales = ceil_div(per_group, operand.block or arch.vector_size) * operand.scale.bits
    return n * h * w * groups * (per_group * operand.bits + scales)


def block_of(layer: QuantizedLayer) -> int:
    """Codes that share a scale."""
    return layer.scheme.block or layer.vector_size


def words_of_block(layer: QuantizedLayer) -> int:
    return max(1, block_of(layer) // layer.vector_size)


def words_of_position(layer: QuantizedLayer) -> int:
    """Cv: of whole words and whole blocks."""
    larger = max(block_of(layer), layer.vector_size)
    return ceil_div(layer.geometry.channels_per_group, larger) * larger // layer.vector_size


def word_run_bits(layer: QuantizedLayer, operand: Operand, words: int) -> int:
    """Bits of so many words: their codes, and the scales of the blocks that they make up."""
    codes = words * layer.vector_size
    assert codes % block_of(layer) == 0
    return codes * operand.bits + codes // block_of(layer) * operand.scale.bits


def block_written(arch: Arch, formats: tuple[Operand, ...]) -> int:
    """Outputs that share a scale, 0 without scales."""
    return max((out.block or arch.vector_size) if out.scale.bits else 0 for out in formats)


def channels_of_a_unit(arch: Arch, formats: tuple[Operand, ...]) -> int:
    """One block where its outputs are more than an entry of the FIFO has."""
    block = block_written(arch, formats)
    return block if block > arch.lanes else max(arch.vector_size, arch.lanes)


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
        words = g.N * g.H * g.W * g.groups * words_of_position(layer)
        in_bits = word_run_bits(layer, scheme.activation, words)
    per_group = g.K // g.groups
    out_bits = per_group * out.operand.bits + ceil_div(per_group, block_of(layer)) * out.operand.scale.bits
    out_bits *= g.N * g.P * g.Q * g.groups
    w_bits = word_run_bits(layer, scheme.weight, g.K * layer.spec.G)
    return in_bits, out_bits, w_bits


def weights_are_heavy(arch: Arch, layer: QuantizedLayer) -> bool:
    """Neither the weight region nor all weight buffers together hold the weights of the layer."""
    scheme, w_bits = layer.scheme, layer_bits(layer)[2]
    words = arch.pes * arch.lanes * arch.weight_buffer_words
    buffers = word_run_bits(layer, scheme.weight, words // words_of_block(layer) * words_of_block(layer))
    return w_bits > region_bits(arch)[0] and w_bits > buffers


def every_position_is_read(layer: QuantizedLayer) -> bool:
    """Every input position is under a tap of some pixel."""
    g = layer.geometry
    return set(layer.spec.taps.ravel().tolist()) - {-1} == set(range(g.N * g.H * g.W))
