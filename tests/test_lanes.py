"""Whole layers against the kernels' plain twins, group by group."""

import numpy as np
import pytest
from accelsim_kernels.reference import (
    accumulate_reference,
    gated_vectors_reference,
    ppu_vector_reference,
    zero_operand_macs_reference,
)

import accelsim
from accelsim.cli.terminal import summary_table
from accelsim.compute.lanes import compute_values, lane_spec
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
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


def test_a_run_says_how_many_scale_products_round_to_zero(capsys: pytest.CaptureFixture[str]) -> None:
    """Of all steps, in every table; counts of a machine that gates dot products on them differ by as many."""
    machine = ["gate_on_scale_product=dot", "clock_ghz=0.8"]
    result = accelsim.compare("digits", schemes=["8/8/-/-", "4/4/4/4:sp3"], overrides=machine)
    own = result["4/4/4/4:sp3"]
    plain = accelsim.run("digits", scheme="4/4/4/4:sp3").activities
    gated = [
        (a.counts["dot_product.gated"], b.counts["dot_product.gated"])
        for a, b in zip(own.activities, plain, strict=True)
    ]
    rounded = sum(mine - other for mine, other in gated)
    steps = sum(a.lane_steps for a in plain)
    assert rounded > 0 and own.summary["zero_product_fraction"] == pytest.approx(rounded / steps, rel=1e-12)
    by_layer = own.layers["zero_product_fraction"] * [a.lane_steps for a in plain]
    assert by_layer.sum() == pytest.approx(rounded, rel=1e-12)
    assert list(result.to_frame()["zero_product_fraction"]) == [0, own.summary["zero_product_fraction"]]
    summary_table(result.runs, result.table)
    line = next(line for line in capsys.readouterr().out.splitlines() if "rounded to 0" in line)
    assert line.split()[-2:] == ["-", f"{100 * rounded / steps:.5g}"]
    assumed = accelsim.run("digits", scheme="4/4/4/4:sp3", gated_fraction=0.0)
    assert (
        assumed.summary["zero_product_fraction"] is None
        and assumed.layers["zero_product_fraction"].isna().all()
    )
