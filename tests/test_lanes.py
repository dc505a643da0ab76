"""Whole layers against the kernels' plain twins, group by group."""

import numpy as np
import pytest
from accelsim_kernels.reference import (
    accumulate_reference,
    gated_vectors_reference,
    ppu_vector_reference,
    zero_operand_macs_reference,
)

from accelsim.compute.lanes import compute_values, lane_spec
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import load_arch
from accelsim.quantize.layers import quantize_layer
from accelsim.quantize.reference import ppu_constants
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import FloatLayer, Layer, QuantizedLayer


def grouped_layer(channels: int, outputs: int, groups: int, seed: int) -> QuantizedLayer:
    """Of so many channels and outputs a group, with zeros among its operands."""
    rng = np.random.default_rng(seed)
    g = Geometry(2, channels * groups, 4, 3, outputs * groups, 3, 2, (1, 1), (1, 0), groups=groups)
    weight = rng.standard_normal((g.K, channels, g.R, g.S)).astype(np.float32)
    inputs = rng.standard_normal((g.N, g.C, g.H, g.W)).astype(np.float32)
    weight[rng.random(weight.shape) < 0.5] = 0
    inputs[rng.random(inputs.shape) < 0.5] = 0
    bias = rng.standard_normal(g.K).astype(np.float32)
    return quantize_layer(
        FloatLayer(Layer("own", "conv", g), weight, inputs, bias), Scheme.parse("4/4/4/4"), 16
    )


# Depthwise; groups of less than a vector, of whole vectors and of a vector and a half; one group of either.
@pytest.mark.parametrize(
    ("channels", "outputs", "groups"),
    [(1, 1, 7), (2, 3, 3), (16, 32, 2), (20, 24, 3), (20, 24, 1), (32, 32, 1)],
)
@pytest.mark.parametrize("rounding", ["nearest", "up"])
def test_layers_equal_their_groups(channels: int, outputs: int, groups: int, rounding: str) -> None:
    arch = load_arch("magnet16", [f"scale_rounding={rounding}"])
    layer = grouped_layer(channels, outputs, groups, seed=channels + outputs)
    spec, output = lane_spec(arch, layer.scheme), layer.output
    assert layer.weight_scales is not None
    values = compute_values(arch, layer)
    multiplier, shift, bias = ppu_constants(layer, arch.product_shift)
    own = output.operand
    limits = (
        False,
        output.fraction_bits,
        own.qmin,
        own.qmax,
        own.scale.bits,
        layer.vector_size,
        rounding == "up",
    )
    gated = zeros = 0
    scales = []
    for group in range(groups):
        k = slice(group * outputs, (group + 1) * outputs)
        gather = layer.spec.gather(group, np.arange(layer.geometry.pixels))
        inputs = layer.input_words, layer.input_scales, gather, spec
        psums, overflows = accumulate_reference(layer.weight_words[k], layer.weight_scales[k], *inputs)
        assert np.array_equal(values.psums[:, k], psums)
        assert np.array_equal(values.overflow_map[:, k], overflows)
        codes, own = ppu_vector_reference(psums, multiplier[k], shift[k], bias[k], *limits)
        assert np.array_equal(values.output[:, k], codes)
        scales.append(own)
        gated += gated_vectors_reference(layer.weight_words[k], layer.weight_scales[k], *inputs)
        zeros += zero_operand_macs_reference(layer.weight_words[k], layer.input_words, gather)
    assert np.array_equal(values.output_scales, np.concatenate(scales, axis=1))
    assert values.zeros[:2] == (gated, zeros)


def test_a_chain_of_wide_accumulators_sums_to_what_one_sums_to() -> None:
    arch, layer = load_arch("magnet16"), grouped_layer(70, 5, 2, seed=1)
    one, chain = compute_values(arch, layer), compute_values(arch, layer, c_split=3)
    assert not one.overflows and not chain.overflows
    assert np.array_equal(one.psums, chain.psums)
    assert one.zeros[:3] == chain.zeros[:3]
