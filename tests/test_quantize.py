"""Quantization against straightforward loops, on random and awkward layers."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.errors import AccelsimError
from accelsim.formats.element import integer_element
from accelsim.formats.operand import Operand
from accelsim.formats.scale import Scale
from accelsim.formats.scheme import Scheme
from accelsim.quantize.arrays import QuantizeOptions, integer_scales, quantize_tensor
from accelsim.quantize.layers import quantize_layer
from accelsim.quantize.ranges import entropy_ranges, find_ranges, mse_ranges, sample
from accelsim.quantize.reference import (
    apply_activation,
    convolve,
    dequantize_output,
    float_output,
    ppu_constants,
    sqnr_db,
)
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import FloatLayer, Layer, OutputFormat, QuantizedLayer

SHARED = Path(__file__).parents[2] / "shared"
PLAIN = QuantizeOptions(
    weight_calibration="max",
    elements="float_scale",
    scale_rounding="nearest",
    activation_scale_rounding="nearest",
)
SCHEMES = ("8/8/-/-", "4/4/4/4", "4/8/6/10", "4/8/-/10", "3/5/4/-", "2/2/1/1")
GEOMETRIES = {
    "packed im2col first layer": Geometry(2, 3, 7, 6, 5, 3, 3, (2, 2), (1, 1)),
    "C not a multiple of V": Geometry(1, 21, 4, 5, 3, 3, 2, (1, 2), (1, 0)),
    "groups": Geometry(2, 12, 4, 4, 6, 2, 2, (1, 1), (0, 1), (1, 1), 3),
    "depthwise": Geometry(1, 5, 5, 5, 5, 3, 3, (1, 1), (1, 1), (1, 1), 5),
    "dilation": Geometry(1, 9, 8, 7, 2, 3, 2, (2, 1), (2, 3), (2, 3)),
    "linear": Geometry(1, 20, 1, 6, 7),
}


def make_layer(geometry: Geometry, seed: int = 0, **changes: object) -> FloatLayer:
    rng = np.random.default_rng(seed)
    g = geometry
    weight = rng.standard_normal((g.K, g.channels_per_group, g.R, g.S)).astype(np.float32)
    inputs = rng.standard_normal((g.N, g.C, g.H, g.W)).astype(np.float32)
    bias = rng.standard_normal(g.K).astype(np.float32)
    layer = FloatLayer(Layer("layer", "conv", g), weight, inputs, bias)
    return changed(layer, **changes)


def changed(layer: FloatLayer, **changes: Any) -> FloatLayer:
    """The layer with other tensors, or with another value of what its `layer` says."""
    own = {key: value for key, value in changes.items() if key in Layer.__dataclass_fields__}
    rest = {key: value for key, value in changes.items() if key not in own}
    return replace(layer, layer=replace(layer.layer, **own), **rest)


def positive(layer: FloatLayer) -> FloatLayer:
    return changed(layer, input=np.abs(layer.input), input_signed=False)


# --- the straightforward definition -----------------------------------------------------------------------


def loop_reduction(g: Geometry, size: int, packed_im2col: bool) -> list[list[tuple[int, int, int] | None]]:
    """Per vector, its (r, s, c) entries, None for padding."""
    steps = [(r, s) for r in range(g.R) for s in range(g.S)]
    runs: list[list[tuple[int, int, int] | None]]
    if packed_im2col:
        runs = [[(r, s, c) for r, s in steps for c in range(g.channels_per_group)]]
    else:
        runs = [[(r, s, c) for c in range(g.channels_per_group)] for r, s in steps]
    vectors = []
    for run in runs:
        run += [None] * (-len(run) % size)
        vectors += [run[start : start + size] for start in range(0, len(run), size)]
    return vectors


def loop_codes(vector: list[float], divisor: float, low: int, qmax: int) -> list[int]:
    return [min(max(round(x / divisor), low), qmax) if divisor else 0 for x in vector]


def loop_vector(
    vector: list[float],
    gamma: float,
    low: int,
    qmax: int,
    scale_bits: int,
    options: QuantizeOptions,
    rounding: str,
) -> tuple[list[int], int]:
    s = max(abs(x) for x in vector) / qmax
    whole = math.ceil(s / gamma * (1 - 2**-20)) if rounding == "up" else round(s / gamma)
    code = min(max(whole, 0), 2**scale_bits - 1)
    if rounding in ("up_from_zero", "up") and s > 0:
        code = max(code, 1)
    divisor = s if options.elements == "float_scale" else code * gamma
    return loop_codes(vector, divisor, low, qmax), code


def loop_weights(layer: FloatLayer, scheme: Scheme, size: int, options: QuantizeOptions):
    g, qmax = layer.geometry, scheme.weight.qmax
    reduction = loop_reduction(g, size, g.packed_im2col(size, options.fold))
    words, scales, gammas = [], [], []
    for k in range(g.K):
        kernel = layer.weight[k]
        vectors = [[float(kernel[i[2], i[0], i[1]]) if i else 0.0 for i in vector] for vector in reduction]
        largest = [max(abs(x) for x in vector) / qmax for vector in vectors]
        if scheme.weight.scale.bits:
            gamma = max(largest) / (2**scheme.weight.scale.bits - 1) or 1.0
            limits = gamma, -qmax, qmax, scheme.weight.scale.bits
            pairs = [loop_vector(v, *limits, options, options.scale_rounding) for v in vectors]
            words.append([codes for codes, _ in pairs])
            scales.append([code for _, code in pairs])
        else:
            gamma = max(largest) or 1.0
            words.append([loop_codes(v, gamma, -qmax, qmax) for v in vectors])
        gammas.append(gamma)
    return np.array(words), np.array(scales), np.array(gammas)


def loop_inputs(
    layer: FloatLayer, scheme: Scheme, size: int, options: QuantizeOptions, gamma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Words for a given static gamma."""
    g = layer.geometry
    low, qmax = (
        scheme.activation.of_sign(layer.input_signed).qmin,
        scheme.activation.of_sign(layer.input_signed).qmax,
    )
    depth = g.channels_per_group
    vectors = []
    if g.packed_im2col(size, options.fold):
        for n, p, q in np.ndindex(g.N, g.P, g.Q):
            for group in range(g.groups):
                for vector in loop_reduction(g, size, True):
                    values = []
                    for entry in vector:
                        value = 0.0
                        if entry is not None:
                            r, s, c = entry
                            h = p * g.stride[0] - g.padding[0] + r * g.dilation[0]
                            w = q * g.stride[1] - g.padding[1] + s * g.dilation[1]
                            if 0 <= h < g.H and 0 <= w < g.W:
                                value = float(layer.input[n, group * depth + c, h, w])
                        values.append(value)
                    vectors.append(values)
    else:
        for n, h, w, group in np.ndindex(g.N, g.H, g.W, g.groups):
            channels = [float(x) for x in layer.input[n, group * depth : (group + 1) * depth, h, w]]
            channels += [0.0] * (-depth % size)
            vectors += [channels[start : start + size] for start in range(0, len(channels), size)]
    if not scheme.activation.scale.bits:
        return np.array([loop_codes(v, gamma, low, qmax) for v in vectors]), np.array([])
    rounding = options.activation_scale_rounding
    rounding = "up" if rounding == "auto" else rounding
    pairs = [
        loop_vector(v, gamma, low, qmax, scheme.activation.scale.bits, options, rounding) for v in vectors
    ]
    return np.array([codes for codes, _ in pairs]), np.array([code for _, code in pairs])


def check_against_loops(
    layer: FloatLayer, scheme: Scheme, size: int, options: QuantizeOptions
) -> QuantizedLayer:
    found = quantize_layer(layer, scheme, size, options)
    words, scales, gammas = loop_weights(layer, scheme, size, options)
    assert found.weight_words.dtype == np.int8
    assert np.array_equal(found.weight_words, words)
    assert np.array_equal(found.weight_gamma, gammas)
    if scheme.weight.scale.bits:
        assert found.weight_scales is not None and found.weight_scales.dtype == np.uint16
        assert np.array_equal(found.weight_scales, scales)
    else:
        assert found.weight_scales is None
    words, scales = loop_inputs(layer, scheme, size, options, found.input_gamma)
    assert found.input_words.dtype == (np.int8 if layer.input_signed else np.uint8)
    assert np.array_equal(found.input_words, words)
    if scheme.activation.scale.bits:
        assert found.input_scales is not None and found.input_scales.dtype == np.uint16
        assert np.array_equal(found.input_scales, scales)
    else:
        assert found.input_scales is None
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("shape", GEOMETRIES)
def test_layer_equals_loops(shape: str, scheme: str) -> None:
    layer = make_layer(GEOMETRIES[shape])
    options = replace(PLAIN, elements="integer_scale", scale_rounding="up_from_zero")
    check_against_loops(layer, Scheme.parse(scheme), 8, PLAIN)
    check_against_loops(positive(layer), Scheme.parse(scheme), 8, options)
    check_against_loops(layer, Scheme.parse(scheme), 8, replace(options, fold="never"))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_random_layers_equal_loops(data: st.DataObject) -> None:
    draw = data.draw
    groups = draw(st.integers(1, 3))
    small = st.integers(1, 4)
    try:
        geometry = Geometry(
            draw(st.integers(1, 2)),
            groups * draw(st.integers(1, 9)),
            draw(small),
            draw(small),
            groups * draw(st.integers(1, 2)),
            draw(st.integers(1, 3)),
            draw(st.integers(1, 3)),
            (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
            (draw(st.integers(0, 2)), draw(st.integers(0, 2))),
            (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
            groups,
        )
    except AccelsimError:
        return
    scheme = Scheme.integer(
        draw(st.integers(2, 8)),
        draw(st.integers(2, 8)),
        draw(st.sampled_from((0, 1, 4, 6))),
        draw(st.sampled_from((0, 1, 4, 6))),
    )
    options = replace(
        PLAIN,
        elements=draw(st.sampled_from(("float_scale", "integer_scale"))),
        scale_rounding=draw(st.sampled_from(("nearest", "up_from_zero", "up"))),
        activation_scale_rounding=draw(st.sampled_from(("auto", "nearest", "up_from_zero", "up"))),
        fold=draw(st.sampled_from(("auto", "never"))),
    )
    layer = make_layer(geometry, draw(st.integers(0, 1000)))
    # Halves and zeros make ties and empty vectors common.
    if draw(st.booleans()):
        layer = replace(layer, weight=np.rint(layer.weight * 2) / 2, input=np.rint(layer.input * 2) / 2)
    if draw(st.booleans()):
        layer = positive(layer)
    check_against_loops(layer, scheme, draw(st.sampled_from((2, 4, 5, 16))), options)


def test_static_gammas_of_max_calibration() -> None:
    layer = positive(make_layer(GEOMETRIES["C not a multiple of V"]))
    largest = float(layer.input.max())
    assert quantize_layer(layer, Scheme.parse("8/8/-/-"), 8, PLAIN).input_gamma == largest / 255
    assert quantize_layer(layer, Scheme.parse("4/4/4/4"), 8, PLAIN).input_gamma == largest / 15 / 15
    wider = replace(layer, calibration_input=np.concatenate([layer.input, 3 * layer.input]))
    found = quantize_layer(wider, Scheme.parse("4/4/4/4"), 8, PLAIN)
    assert found.input_gamma == float(wider.calibration_input.max()) / 15 / 15
    assert found.output_gamma > 2 * quantize_layer(layer, Scheme.parse("4/4/4/4"), 8, PLAIN).output_gamma


def test_half_to_even() -> None:
    g = Geometry(1, 4, 1, 1, 1)
    ties = np.array([0.5, 1.5, -2.5, 7.0], np.float32)
    layer = FloatLayer(Layer("t", "linear", g), ties.reshape(1, 4, 1, 1), ties.reshape(1, 4, 1, 1))
    found = quantize_layer(layer, Scheme.parse("4/4/-/-"), 4, PLAIN)
    assert found.weight_words.tolist() == [[[0, 2, -2, 7]]]
    assert found.input_words.tolist() == [[0, 2, -2, 7]]


# --- hard cases -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("options", [PLAIN, QuantizeOptions()], ids=["plain", "default"])
def test_all_zero_layer_has_unit_gammas(scheme: str, options: QuantizeOptions) -> None:
    g = GEOMETRIES["groups"]
    layer = make_layer(g)
    layer = changed(
        layer, weight=layer.weight * 0, input=np.abs(layer.input * 0), input_signed=False, bias=None
    )
    found = quantize_layer(layer, Scheme.parse(scheme), 8, options)
    assert not found.weight_words.any() and not found.input_words.any()
    assert (found.weight_gamma == 1).all() and found.input_gamma == 1 and found.output_gamma == 1
    for scales in (found.weight_scales, found.input_scales):
        assert scales is None or not scales.any()


@pytest.mark.parametrize("options", [PLAIN, QuantizeOptions()], ids=["plain", "default"])
def test_zero_vectors_and_channels_among_others(options: QuantizeOptions) -> None:
    layer = make_layer(Geometry(1, 16, 2, 2, 3, 2, 2))
    layer.weight[1] = 0
    layer.weight[2, :8, 0, 1] = 0
    layer.input[0, 8:, 1, 0] = 0
    found = quantize_layer(layer, Scheme.parse("4/4/4/4"), 8, options)
    assert found.weight_scales is not None and found.input_scales is not None
    assert found.weight_gamma[1] == 1 and not found.weight_scales[1].any() and not found.weight_words[1].any()
    assert found.weight_scales[2, 2] == 0 and not found.weight_words[2, 2].any()
    assert found.input_scales[5] == 0 and not found.input_words[5].any()
    assert (np.delete(found.input_scales, 5) > 0).all()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("factor", [1e-44, 1e-30, 1e30])
def test_tiny_and_huge_values(scheme: str, factor: float) -> None:
    layer = make_layer(GEOMETRIES["packed im2col first layer"], bias=None)
    layer = replace(
        layer,
        weight=(layer.weight * factor).astype(np.float32),
        input=(layer.input * factor).astype(np.float32),
    )
    for options in (PLAIN, QuantizeOptions()):
        found = quantize_layer(layer, Scheme.parse(scheme), 8, options)
        assert (found.weight_gamma > 0).all() and np.isfinite(found.weight_gamma).all()
        assert 0 < found.input_gamma < math.inf and 0 < found.output_gamma < math.inf
        assert np.abs(found.weight_words).max() == Scheme.parse(scheme).weight.qmax
        ppu_constants(found)


def test_up_from_zero_keeps_small_vectors() -> None:
    g = Geometry(1, 4, 1, 2, 1)
    inputs = np.array([[100, 1], [100, 1], [100, -1], [100, 0.5]], np.float32).reshape(1, 4, 1, 2)
    layer = FloatLayer(Layer("t", "linear", g), np.ones((1, 4, 1, 1), np.float32), inputs)
    options = replace(PLAIN, elements="integer_scale")
    nearest = quantize_layer(layer, Scheme.parse("4/4/4/4"), 4, options)
    assert nearest.input_scales is not None and nearest.input_scales.tolist() == [15, 0]
    assert not nearest.input_words[1].any()
    up = quantize_layer(
        layer,
        Scheme.parse("4/4/4/4"),
        4,
        replace(PLAIN, elements="integer_scale", activation_scale_rounding="up_from_zero"),
    )
    assert up.input_scales is not None and up.input_scales.tolist() == [15, 1]
    assert up.input_words[1].tolist() == [1, 1, -1, 1]


def test_rounding_up_spares_what_is_a_whole_scale_already() -> None:
    """Scales 1, 2 and 2.01 of gamma; float32 leaves the second a little above 2."""
    gamma, kind = 0.1, Scheme.parse("4/4/4/4").activation.scale
    scales = np.array([0, 0.01, 1, np.float64(np.nextafter(np.float32(2), np.float32(3))), 2.01, 16]) * gamma
    assert integer_scales(scales, gamma, kind, "up").tolist() == [0, 1, 1, 2, 3, 15]
    assert integer_scales(scales, gamma, kind, "nearest").tolist() == [0, 0, 1, 2, 2, 15]


def test_machine_decides_only_what_is_left_to_it() -> None:
    asked = QuantizeOptions(scale_rounding="nearest")
    assert asked.on_machine("auto", "up") == asked
    assert asked.run_time_scale_rounding == "up"
    nearest = asked.on_machine("never", "nearest")
    assert (nearest.fold, nearest.scale_rounding) == ("never", "nearest")
    assert nearest.run_time_scale_rounding == "up_from_zero"
    own = replace(asked, activation_scale_rounding="nearest")
    assert own.on_machine("auto", "nearest") == own


def test_weight_side_activation_has_one_static_gamma() -> None:
    g = Geometry(1, 24, 1, 5, 6, groups=3)
    rng = np.random.default_rng(3)
    layer = make_layer(
        g,
        op="matmul",
        bias=None,
        weight_is_activation=True,
        calibration_input=rng.standard_normal((2, 40, 1, 7)).astype(np.float32),
        calibration_weight=(4 * rng.standard_normal((10, 8, 1, 1))).astype(np.float32),
    )
    for scheme, divisor in (("4/4/4/4", 7 * 15), ("8/8/-/-", 127)):
        found = quantize_layer(layer, Scheme.parse(scheme), 16, PLAIN)
        assert (found.weight_gamma == np.abs(layer.calibration_weight).max() / np.float64(divisor)).all()
        assert found.weight_gamma.shape == (6,)
    own = quantize_layer(
        replace(layer, calibration_weight=None, calibration_input=None), Scheme.parse("8/8/-/-"), 16, PLAIN
    )
    assert (own.weight_gamma == np.abs(layer.weight).max() / np.float64(127)).all()


def test_percentile_gamma_ignores_zero_vectors() -> None:
    g = Geometry(1, 4, 1, 1000, 1)
    inputs = np.zeros((1, 4, 1, 1000), np.float32)
    inputs[0, :, 0, :5] = 3
    layer = FloatLayer(Layer("t", "linear", g, input_signed=False), np.ones((1, 4, 1, 1), np.float32), inputs)
    options = replace(PLAIN, gamma_calibration="percentile", gamma_percentile=50.0)
    assert quantize_layer(layer, Scheme.parse("4/4/4/4"), 4, options).input_gamma == 3 / 15 / 15


def test_each_percentile_is_of_its_own_calibration() -> None:
    """Weights, activations and gamma by percentile: each option moves what it names, and nothing else."""
    layer = make_layer(Geometry(1, 8, 6, 6, 4, 3, 3))
    every = replace(
        PLAIN,
        weight_calibration="percentile",
        activation_calibration="percentile",
        gamma_calibration="percentile",
    )

    def moved(scheme: str, **changes: float) -> tuple[bool, bool, bool]:
        a, b = (quantize_layer(layer, Scheme.parse(scheme), 8, o) for o in (every, replace(every, **changes)))
        return (
            not np.array_equal(a.weight_gamma, b.weight_gamma),
            a.input_gamma != b.input_gamma,
            a.output_gamma != b.output_gamma,
        )

    assert moved("8/8/-/-", weight_percentile=80.0) == (True, False, False)
    assert moved("8/8/-/-", activation_percentile=80.0) == (False, True, True)
    assert moved("8/8/-/-", gamma_percentile=80.0) == (False, False, False)
    assert moved("4/4/4/4", gamma_percentile=80.0) == (False, True, True)
    assert moved("4/4/4/4", weight_percentile=80.0, activation_percentile=80.0) == (False, False, False)


# --- what the words mean ----------------------------------------------------------------------------------


def loop_convolve(layer: FloatLayer) -> np.ndarray:
    g = layer.geometry
    y = np.zeros((g.N, g.P, g.Q, g.K))
    for n, p, q, k in np.ndindex(y.shape):
        group = k // g.outputs_per_group
        for c, r, s in np.ndindex(layer.weight.shape[1:]):
            h = p * g.stride[0] - g.padding[0] + r * g.dilation[0]
            w = q * g.stride[1] - g.padding[1] + s * g.dilation[1]
            if 0 <= h < g.H and 0 <= w < g.W:
                x = layer.input[n, group * g.channels_per_group + c, h, w]
                y[n, p, q, k] += float(x) * float(layer.weight[k, c, r, s])
        y[n, p, q, k] += 0 if layer.bias is None else layer.bias[k]
    return y.reshape(g.pixels, g.K)


def integer_psums(layer: QuantizedLayer) -> np.ndarray:
    """int64[pixels, K] without accumulator limits, sp unrounded."""
    g = layer.geometry
    inputs = layer.input_words.astype(np.int64)
    if layer.input_scales is not None:
        inputs = inputs * layer.input_scales[:, None]
    inputs = np.vstack([inputs, np.zeros((1, layer.vector_size), np.int64)])
    weights = layer.weight_words.astype(np.int64)
    if layer.weight_scales is not None:
        weights = weights * layer.weight_scales[:, :, None]
    psums = np.zeros((g.pixels, g.K), np.int64)
    for group in range(g.groups):
        outputs = slice(group * g.outputs_per_group, (group + 1) * g.outputs_per_group)
        words = inputs[layer.spec.gather(group, np.arange(g.pixels))].reshape(g.pixels, -1)
        # Exact in float64: every partial sum stays below 2^53.
        product = words.astype(np.float64) @ weights[outputs].reshape(g.outputs_per_group, -1).T
        psums[:, outputs] = product.astype(np.int64)
    return psums


@pytest.mark.parametrize("shape", GEOMETRIES)
def test_float_output_equals_loops(shape: str) -> None:
    layer = make_layer(GEOMETRIES[shape])
    expected = loop_convolve(layer)
    assert np.allclose(float_output(layer), expected, rtol=0, atol=1e-10)
    assert float_output(layer).dtype == np.float64
    assert np.array_equal(apply_activation(expected, "relu"), np.maximum(expected, 0))
    assert float_output(layer, layer.input[:1]).shape == (
        expected.shape[0] // layer.geometry.N,
        layer.geometry.K,
    )


@pytest.mark.parametrize("scheme", ["8/8/6/6", "8/8/-/-"])
@pytest.mark.parametrize("shape", GEOMETRIES)
def test_dequantized_output_is_close_to_float(shape: str, scheme: str) -> None:
    layer = make_layer(GEOMETRIES[shape])
    found = quantize_layer(layer, Scheme.parse(scheme), 8)
    y = dequantize_output(integer_psums(found), found)
    value = sqnr_db(float_output(layer), y)
    assert value is not None and value > 30


def test_dequantize_with_shifts() -> None:
    layer = make_layer(Geometry(1, 4, 1, 3, 2))
    found = quantize_layer(layer, Scheme.parse("4/4/4/4:sp5"), 4)
    psums = np.array([[5, -7], [0, 3], [2, 1]])
    y = dequantize_output(psums, found, 2)
    assert np.array_equal(y, psums * 2.0**5 * found.weight_gamma * found.input_gamma + layer.bias)


def test_output_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = make_layer(replace(GEOMETRIES["groups"], N=5))
    whole = float_output(layer)
    monkeypatch.setattr("accelsim.quantize.reference._CHUNK_ELEMENTS", 1)
    assert np.allclose(float_output(layer), whole, rtol=0, atol=1e-12)


# --- output format and PPU --------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["8/8/-/-", "4/4/4/4"])
@pytest.mark.parametrize("activation", ["none", "relu"])
def test_default_output_format(scheme: str, activation: str) -> None:
    layer = make_layer(Geometry(1, 8, 3, 3, 12), activation=activation)
    parsed = Scheme.parse(scheme)
    found = quantize_layer(layer, parsed, 8, PLAIN)
    output = found.output
    y = apply_activation(float_output(layer), activation)
    signed = activation == "none"
    operand = output.operand
    assert (operand.bits, operand.element.signed) == (parsed.activation.bits, signed)
    assert operand.scale == parsed.activation.scale
    levels = 2**parsed.activation.scale.bits - 1 or 1
    assert found.output_gamma == pytest.approx(
        np.abs(y).max() / parsed.activation.of_sign(signed).qmax / levels, rel=1e-7
    )


def test_output_vectors_stay_within_groups() -> None:
    """With V = 4, groups of 2 outputs give scales of 2 channels each: the 50th percentile sees both sizes."""
    g = Geometry(1, 4, 1, 1, 4, groups=2)
    weight = np.array([1, 1, 64, 64], np.float32).reshape(4, 1, 1, 1).repeat(2, axis=1)
    layer = FloatLayer(Layer("t", "linear", g), weight, np.ones((1, 4, 1, 1), np.float32))
    options = replace(PLAIN, gamma_calibration="percentile", gamma_percentile=50.0)
    found = quantize_layer(layer, Scheme.parse("4/4/4/4"), 4, options)
    assert found.output_gamma == pytest.approx((2 + 128) / 2 / 7 / 15, rel=1e-7)


def test_ppu_constants_follow_the_definition() -> None:
    layer = make_layer(GEOMETRIES["groups"])
    found = quantize_layer(layer, Scheme.parse("4/4/4/4:sp5"), 8)
    found = replace(found, weight_gamma=found.weight_gamma * np.array([1, 1e-3, 4e-9, 1e-20, 5.0, 2.0]))
    m, t, bias = ppu_constants(found, 2)
    fraction = found.output.fraction_bits
    for k in range(layer.geometry.K):
        product = found.weight_gamma[k] * found.input_gamma
        exact = Fraction(product) * 2 ** (3 + 2 + fraction) / Fraction(found.output_gamma)
        multiplier = float(exact)
        floor = math.frexp(multiplier)[1] - 1
        assert t[k] == min(max(15 - floor, 1), 63)
        assert abs(m[k] - multiplier * 2.0 ** int(t[k])) <= 0.51 and m[k] <= 65535
        assert bias[k] == round(float(layer.bias[k]) * 2**fraction / found.output_gamma)
    for array in (m, t, bias):
        assert array.dtype == np.int64


def test_ppu_bias_saturates_and_absent_bias_is_zero() -> None:
    layer = make_layer(Geometry(1, 4, 1, 3, 2))
    found = quantize_layer(layer, Scheme.parse("8/8/-/-"), 4)
    huge = replace(found, bias=np.array([1e30, -1e30], np.float32))
    assert ppu_constants(huge)[2].tolist() == [2**23 - 1, -(2**23 - 1)]
    assert ppu_constants(replace(found, bias=None))[2].tolist() == [0, 0]


def test_ppu_refuses_large_multipliers() -> None:
    found = quantize_layer(make_layer(Geometry(1, 4, 1, 3, 2)), Scheme.parse("8/8/-/-"), 4)
    unit = replace(found, weight_gamma=np.ones(2), input_gamma=1.0, output_gamma=256 / 32767.9)
    m, t, _ = ppu_constants(unit)
    assert m.tolist() == [65535, 65535] and t.tolist() == [1, 1]
    for gamma in (256 / 32768, 1e-300):
        with pytest.raises(
            AccelsimError, match=r"layer layer: PPU multiplier of output channel 0 is .* 32768"
        ):
            ppu_constants(replace(unit, output_gamma=gamma))


def test_output_format_without_fraction_bits_is_refused() -> None:
    layer = make_layer(Geometry(1, 4, 1, 3, 2))
    found = quantize_layer(layer, Scheme.parse("8/8/-/-"), 4)
    operand = Operand(integer_element("uint16", 16, False), Scale("uint", 10, "tensor"))
    wide = replace(found, spec=replace(found.spec, output=OutputFormat(operand)))
    with pytest.raises(AccelsimError, match=r"layer layer: output format of 16 bits .* -3 fraction bits"):
        ppu_constants(wide)


# --- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": np.full((2, 4, 1, 1), np.nan, np.float32)}, "layer layer: weight holds NaN or infinity"),
        ({"input": np.full((1, 4, 1, 3), np.inf, np.float32)}, "layer layer: input holds NaN or infinity"),
        ({"bias": np.full(2, -np.inf, np.float32)}, "layer layer: bias holds NaN or infinity"),
        ({"calibration_input": np.full((2, 4, 1, 9), np.nan, np.float32)}, "calibration_input holds NaN"),
        ({"input_signed": False}, r"layer layer: input holds -\S+, expected no negative value"),
        ({"weight": np.zeros((2, 5, 1, 1), np.float32)}, r"weight has shape \[2, 5, 1, 1\], expected \[2, 4"),
        ({"bias": np.zeros(3, np.float32)}, r"bias has shape \[3\], expected \[2\]"),
        ({"calibration_input": np.zeros((2, 3, 1, 1), np.float32)}, "input has 3 channels, expected 4"),
        ({"calibration_input": np.zeros((0, 4, 1, 1), np.float32)}, "expected four dimensions, none"),
        ({"calibration_weight": np.zeros((2, 4, 1, 1), np.float32)}, "weight is given, expected none"),
        ({"op": "pool"}, "op is 'pool', expected one of conv, linear, matmul"),
        ({"activation": "gelu"}, "activation is 'gelu', expected one of none, relu"),
    ],
)  # fmt: skip
def test_bad_layers(changes: dict[str, object], message: str) -> None:
    with pytest.raises(AccelsimError, match=message) as error:
        quantize_layer(make_layer(Geometry(1, 4, 1, 3, 2), **changes), Scheme.parse("4/4/4/4"), 4)
    assert "\n" not in str(error.value)


def test_bad_calibration_pair() -> None:
    rng = np.random.default_rng(0)
    layer = make_layer(
        Geometry(1, 4, 1, 3, 2),
        weight_is_activation=True,
        calibration_input=rng.standard_normal((1, 5, 1, 3)).astype(np.float32),
        calibration_weight=rng.standard_normal((2, 4, 1, 1)).astype(np.float32),
    )
    with pytest.raises(AccelsimError, match="layer layer: an operand with 5 channels does not fit"):
        quantize_layer(layer, Scheme.parse("4/4/4/4"), 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"elements": "int"}, "elements is 'int', expected one of float_scale, integer_scale"),
        (
            {"gamma_calibration": "entropy"},
            "gamma_calibration is 'entropy', expected one of max",
        ),
        ({"weight_percentile": 0}, "weight_percentile is 0, expected more than 0 and at most 100"),
        (
            {"activation_percentile": 101},
            "activation_percentile is 101, expected more than 0 and at most 100",
        ),
        ({"gamma_percentile": float("nan")}, "gamma_percentile is nan"),
        (
            {"percentile": 99},
            "percentile is now weight_percentile, activation_percentile, gamma_percentile$",
        ),
        ({"rounding": "up"}, "unknown key 'rounding'"),
    ],
)
def test_bad_options(values: dict[str, object], message: str) -> None:
    with pytest.raises(AccelsimError, match=message):
        QuantizeOptions.from_dict(values)
    if "rounding" not in values:
        with pytest.raises(AccelsimError, match=message):
            QuantizeOptions(**values)  # type: ignore[arg-type]


def test_bad_vector_size_and_granularity() -> None:
    with pytest.raises(AccelsimError, match="vector size is 0, expected at least 1"):
        quantize_layer(make_layer(Geometry(1, 4, 1, 3, 2)), Scheme.parse("4/4/4/4"), 0)
    with pytest.raises(AccelsimError, match="granularity 'row': expected one of tensor, channel, vector"):
        quantize_tensor(np.ones((1, 2)), 4, "row")


# --- plain arrays -----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 4),
    n=st.integers(1, 40),
    bits=st.integers(2, 8),
    granularity=st.sampled_from(("tensor", "channel", "vector", "two_level")),
    signed=st.booleans(),
    seed=st.integers(0, 99),
)
def test_quantize_tensor_error_is_half_a_step(
    rows: int, n: int, bits: int, granularity: str, signed: bool, seed: int
) -> None:
    values = np.random.default_rng(seed).standard_normal((rows, n))
    values = values if signed else np.abs(values)
    # With 10-bit scales and elements from the integer scale, only the rounding of s itself can clip.
    options = replace(PLAIN, elements="integer_scale", scale_rounding="up_from_zero")
    found = quantize_tensor(
        values, bits, granularity, signed=signed, vector_size=8, scale_bits=10, options=options
    )
    qmax = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    assert found.codes.shape == values.shape and found.codes.dtype == np.int16
    assert found.codes.max() <= qmax and found.codes.min() >= (-qmax if signed else 0)
    per_column = granularity in ("vector", "two_level")
    step = np.repeat(found.scales, 8, axis=1)[:, :n] if per_column else found.scales
    slack = 0.0 if found.gamma is None else qmax * found.gamma[:, None] / 2
    assert (np.abs(found.dequantize() - values) <= step / 2 * (1 + 1e-9) + slack).all()


def test_finer_granularity_is_more_exact() -> None:
    values = np.random.default_rng(0).standard_normal((8, 256)) * np.exp(
        np.random.default_rng(1).standard_normal((8, 1))
    )
    results = [
        sqnr_db(values, quantize_tensor(values, 4, name, scale_bits=6, options=PLAIN).dequantize())
        for name in ("tensor", "channel", "vector")
    ]
    assert None not in results and results == sorted(results)  # type: ignore[type-var]
    two_level = sqnr_db(values, quantize_tensor(values, 4, "two_level", scale_bits=6).dequantize())
    assert two_level is not None and two_level > results[1]  # type: ignore[operator]


# --- calibration ------------------------------------------------------------------------------------------


def test_max_and_percentile_ranges() -> None:
    rows = np.abs(np.random.default_rng(0).standard_normal((3, 1000)))
    assert np.array_equal(find_ranges(rows, "max", 7, 99), rows.max(axis=1))
    assert np.array_equal(find_ranges(rows, "percentile", 7, 99), np.percentile(rows, 99, axis=1))
    mostly_zero = np.zeros((1, 1000))
    mostly_zero[0, 3] = 2.0
    assert find_ranges(mostly_zero, "percentile", 7, 99).tolist() == [2.0]
    for method in ("max", "percentile", "mse", "entropy"):
        assert find_ranges(np.zeros((2, 5)), method, 7, 99).tolist() == [0, 0]


@pytest.mark.parametrize("qmax", [1, 7, 15, 127, 255])
def test_mse_range_is_near_the_best_of_a_fine_grid(qmax: int) -> None:
    rng = np.random.default_rng(qmax)
    rows = np.abs(np.stack([rng.standard_normal(2000), rng.standard_t(3, 2000), rng.uniform(size=2000)]))

    def error(row: np.ndarray, limit: float) -> float:
        return float(np.square(np.minimum(np.rint(row / limit * qmax), qmax) * limit / qmax - row).sum())

    for row, found in zip(rows, mse_ranges(rows, qmax), strict=True):
        grid = [error(row, row.max() * fraction) for fraction in np.linspace(0.02, 1, 500)]
        assert error(row, found) <= 1.06 * min(grid)
        assert error(row, found) <= error(row, row.max())


def test_mse_range_keeps_exact_values() -> None:
    """No clipping where the codes are exact already."""
    assert mse_ranges(np.arange(8.0)[None], 7).tolist() == [7.0]


def loop_entropy(row: np.ndarray, qmax: int) -> float:
    """pytorch-quantization's HistogramCalibrator with entropy, written out with plain loops."""
    bins, levels = 2048, qmax + 1
    counts = [0.0] * bins
    for value in row:
        counts[min(int(value / row.max() * bins), bins - 1)] += 1
    counts[0] = counts[1]
    best, least = bins, math.inf
    stride = max(1, (bins - levels) // 128)
    for width in range(bins, levels - 1, -stride):
        level = [b * levels // width for b in range(width)]
        mass, occupied = [0.0] * levels, [0] * levels
        for b in range(width):
            mass[level[b]] += counts[b]
            occupied[level[b]] += counts[b] > 0
        q = [mass[level[b]] / occupied[level[b]] if counts[b] > 0 else 0.0 for b in range(width)]
        p = counts[:width]
        p[-1] += sum(counts[width:])
        total_p, total_q = sum(p), sum(q)
        if total_q == 0:
            continue
        divergence = 0.0
        for a, b in zip(p, q, strict=True):
            if a > 0:
                divergence += a / total_p * math.log(a / total_p / (b / total_q)) if b > 0 else math.inf
        if divergence < least - 1e-12:
            best, least = width, divergence
    return float(row.max()) * best / bins


@pytest.mark.parametrize("qmax", [7, 127])
def test_entropy_range_equals_loops(qmax: int) -> None:
    rng = np.random.default_rng(2)
    relu = np.maximum(rng.standard_normal(20000) - 1, 0)
    rows = np.abs(np.stack([rng.standard_normal(20000), rng.standard_t(4, 20000), relu]))
    expected = [loop_entropy(row, qmax) for row in rows]
    assert np.allclose(entropy_ranges(rows, qmax), expected, rtol=1e-12)
    assert (entropy_ranges(rows, qmax) < rows.max(axis=1)).any()


def test_sample_is_bounded_and_keeps_the_maximum() -> None:
    rng = np.random.default_rng(0)
    chunks = [rng.standard_normal((100, 10)) for _ in range(30)]
    found = sample(iter(chunks), 1000)
    assert 300 < found.size <= 1200
    assert found.max() == max(np.abs(chunk).max() for chunk in chunks)
    assert np.array_equal(sample(iter(chunks)), np.abs(np.concatenate(chunks).reshape(-1)))
    assert sample([]).tolist() == [0.0]


def test_sqnr() -> None:
    reference = np.array([3.0, 4.0])
    assert sqnr_db(reference, np.array([3.0, 5.0])) == pytest.approx(10 * math.log10(25))
    assert sqnr_db(reference, np.zeros(2)) == pytest.approx(0)
    assert sqnr_db(reference, reference) is None
    assert sqnr_db(np.zeros(2), reference) is None
    with pytest.raises(ValueError, match="differ"):
        sqnr_db(reference, np.zeros(3))


# --- the defaults -----------------------------------------------------------------------------------------


def layer_sqnr(layer: FloatLayer, scheme: str, options: QuantizeOptions) -> float:
    found = quantize_layer(layer, Scheme.parse(scheme), 16, options)
    value = sqnr_db(float_output(layer), dequantize_output(integer_psums(found), found))
    assert value is not None
    return value


def test_defaults_rescue_small_vectors() -> None:
    """docs/quantization.md: outlier channels set the static gamma, and most vectors would go to zero."""
    rng = np.random.default_rng(1)
    g = Geometry(1, 768, 1, 64, 64)
    inputs = rng.standard_t(4, (1, 768, 1, 64))
    inputs[:, ::97] *= 15
    weight = rng.laplace(size=(64, 768, 1, 1))
    layer = FloatLayer(Layer("t", "linear", g), weight.astype(np.float32), inputs.astype(np.float32))
    assert layer_sqnr(layer, "4/4/4/4", QuantizeOptions()) > 4 + layer_sqnr(layer, "4/4/4/4", PLAIN)


@pytest.mark.parametrize("name", ["ffn_up", "ffn_down"])
def test_defaults_on_a_transformer_layer(name: str) -> None:
    """Clipping the few large activations of a transformer costs more than it gains."""
    from accelsim.trace.file import Trace

    path = Path(__file__).parents[1] / "traces" / "minilm" / "minilm_layer0.safetensors"
    if not path.exists():
        pytest.skip(f"needs the bundled trace {path}")
    layer = Trace.open(path).float_layer(name)
    found = layer_sqnr(layer, "4/4/4/4", QuantizeOptions())
    assert found > 5 + layer_sqnr(layer, "4/4/4/4", PLAIN)
    if name == "ffn_down":
        assert found > 8 + layer_sqnr(layer, "4/4/4/4", QuantizeOptions(gamma_calibration="mse"))
        clipped = QuantizeOptions(activation_calibration="mse")
        assert layer_sqnr(layer, "8/8/-/-", QuantizeOptions()) > 8 + layer_sqnr(layer, "8/8/-/-", clipped)


@pytest.mark.parametrize(("scheme", "gain"), [("4/4/4/4", 0.5), ("4/8/6/10", -0.2), ("4/8/-/10", 0.5)])
def test_defaults_on_a_trained_layer(scheme: str, gain: float) -> None:
    path = SHARED / "data" / "cifar10_resnet" / "resnet20.safetensors"
    if not path.exists():
        pytest.skip(f"needs the trained ResNet-20 weights at {path}")
    from safetensors.numpy import load_file

    weight = load_file(path)["layer2.1.conv1.weight"]
    inputs = np.maximum(np.random.default_rng(0).standard_normal((1, 32, 16, 16)), 0).astype(np.float32)
    g = Geometry(1, 32, 16, 16, 32, 3, 3, (1, 1), (1, 1))
    layer = FloatLayer(Layer("layer2.1.conv1", "conv", g, input_signed=False), weight, inputs)
    assert layer_sqnr(layer, scheme, QuantizeOptions()) > gain + layer_sqnr(layer, scheme, PLAIN)


def test_convolve_reads_float_weights() -> None:
    g = Geometry(1, 1, 1, 1, 1)
    assert convolve(np.ones((1, 1, 1, 1)), np.full((1, 1, 1, 1), 0.25), g).tolist() == [[0.25]]
