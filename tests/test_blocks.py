"""MX and NVFP4: blocks against gfloat and exact fractions, layers, traces, and the machine's refusal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import gfloat
import gfloat.formats as oracle
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from accelsim import api, network
from accelsim.errors import AccelsimError
from accelsim.formats.catalogue import ELEMENTS, INT, SCHEMES
from accelsim.formats.operand import Operand
from accelsim.formats.scale import Scale
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.open import open_workload
from accelsim.quantize.arrays import QuantizeOptions
from accelsim.quantize.blocks import block_gamma, block_scales, dequantize_words, quantize_blocks
from accelsim.quantize.layers import input_vectors, quantize_layer, weight_vectors
from accelsim.quantize.reference import float_output, operand_values, sqnr_db
from accelsim.synthetic.workload import SyntheticWorkload
from accelsim.trace.file import Trace
from accelsim.trace.write import quantize_trace, write_trace
from accelsim.workload.layer import QuantizedLayer
from tests.conftest import small_layers

NAMES = tuple(SCHEMES)
MX = Scale("e8m0", 8, "none")
MX_FORMATS = {
    "ocp_int8": oracle.format_info_mxint8,
    "e2m1": oracle.format_info_mxfp4_e2m1,
    "e2m3": oracle.format_info_mxfp6_e2m3,
    "e3m2": oracle.format_info_mxfp6_e3m2,
    "e4m3": oracle.format_info_mxfp8_e4m3,
    "e5m2": oracle.format_info_mxfp8_e5m2,
}


def draw(seed: int, blocks: int, size: int) -> np.ndarray:
    """float32[blocks, size]: magnitudes over 60 binades, ties, zeros, blocks of zeros, subnormals."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((blocks, size)) * np.exp2(rng.integers(-30, 30, (blocks, 1)))
    values *= np.exp2(rng.integers(-8, 1, (blocks, size)))
    ties = rng.integers(-64, 65, (blocks, size)) * np.exp2(rng.integers(-40, 40, (blocks, 1)))
    values = np.where(rng.random((blocks, 1)) < 0.3, ties, values)
    values[rng.random((blocks, size)) < 0.1] = 0
    values[0], values[1] = 0, 0
    values[1, 3] = 2.0**-149
    values[2] = np.ldexp(rng.integers(-9, 10, size), -149)
    values[3] = rng.choice([-1, 1], size) * np.finfo(np.float32).max
    return values.astype(np.float32)


# --- blocks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MX_FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_mx_blocks_against_gfloat(name: str, seed: int) -> None:
    """Scales, codes and values. gfloat is given float64, in which its log2 of a float32 is exact enough. It
    may make -128, which this quantization never does."""
    info, operand = MX_FORMATS[name], Operand(ELEMENTS[name], MX, 32)
    values = draw(seed, 200, 32)
    codes, scales = quantize_blocks(values, operand, 1.0)
    assert scales.dtype == np.uint8 and codes.dtype == operand.element.dtype
    for block, own, scale in zip(values.astype(np.float64), codes, scales, strict=True):
        factor = gfloat.compute_scale_amax(info.etype.emax, block)
        first, *rest = gfloat.encode_block(info, factor, block / factor)
        expected = np.array(rest).astype(own.dtype)
        if name == "ocp_int8":
            expected = np.maximum(np.array(rest, np.uint8).view(np.int8), -127)
        assert first == scale and np.array_equal(own, expected)
        decoded = np.array(list(gfloat.decode_block(info, [first, *(own.astype(np.int64) & 255).tolist()])))
        assert np.array_equal(dequantize_words(own, scale, 1.0, operand), decoded)


@pytest.mark.parametrize("name", MX_FORMATS)
def test_mx_blocks_against_microxcaling(name: str) -> None:
    """Every block whose largest float32 is not just below a power of two, where its log2 is off by one. Needs
    github.com/microsoft/microxcaling on the path, which is no package, and PyTorch."""
    reason = "microxcaling is not on the path"
    mx_ops = pytest.importorskip("mx.mx_ops", reason=reason)
    import torch

    known = {"ocp_int8": "int8", "e2m1": "fp4_e2m1", "e2m3": "fp6_e2m3", "e3m2": "fp6_e3m2"}
    other = known.get(name) or f"fp8_{name}"
    values, operand = draw(5, 500, 32), Operand(ELEMENTS[name], MX, 32)
    settings = {"shared_exp_method": "max", "axes": -1, "block_size": 32, "round": "even"}
    expected = mx_ops._quantize_mx(torch.tensor(values), 8, other, **settings).numpy()
    found = dequantize_words(*quantize_blocks(values, operand, 1.0), 1.0, operand)
    assert np.flatnonzero((found != expected).any(axis=1)).tolist() == [3]  # 2^128 less one bit


def _value(code: int, scale: int, operand: Operand, gamma: float) -> Fraction:
    value = Fraction(float(operand.element.decode(np.array(code))))
    return value * Fraction(float(operand.scale.decode(np.array(scale)))) * Fraction(gamma)


@pytest.mark.parametrize(
    ("name", "choice", "tried"),
    [
        ("nvfp4", "four_over_six", None),
        ("nvfp4", "mse", range(-8, 9)),
        ("mxfp4", "mse", range(-1, 2)),
        ("mxint8", "mse", range(-1, 2)),
    ],
)
def test_chosen_scales_have_the_least_error_of_those_tried(
    name: str, choice: str, tried: range | None
) -> None:
    """Exactly, by fractions, elements being the nearest at each scale; a tie keeps the format's scale."""
    operand, values = SCHEMES[name][0], np.random.default_rng(4).standard_t(3, (60, 16)).astype(np.float32)
    values[3], values[4, 1:] = 0, 0
    gamma = block_gamma([values], operand)
    plain, (codes, scales) = (quantize_blocks(values, operand, gamma, how) for how in ("format", choice))
    finite = [code for code in range(1 << operand.element.bits) if operand.element.bits < 8 or code != 128]
    worth = sorted(
        {
            Fraction(float(operand.element.decode(np.array(code, np.uint8).view(plain[0].dtype))))
            for code in finite
        }
    )
    moved = 0
    for block, own, scale, first in zip(values, codes, scales, plain[1], strict=True):
        if tried is None:
            four = Fraction(float(np.abs(block).max())) / (4 * Fraction(gamma))
            known = [Fraction(float(operand.scale.decode(np.array(c, np.uint8)))) for c in range(127)]
            nearest = min(range(127), key=lambda c: (abs(known[c] - four), c % 2))
            candidates = [int(first), nearest]
        else:
            most = 254 if operand.scale.kind == "e8m0" else 126
            candidates = [min(max(int(first) + step, 0), most) for step in sorted(tried, key=abs)]

        def error(code: int, block: np.ndarray = block) -> Fraction:
            factor = Fraction(float(operand.scale.decode(np.array(code, np.uint8)))) * Fraction(gamma)
            exact = [Fraction(float(x)) for x in block]
            return sum((min((x - v * factor) ** 2 for v in worth) for x in exact), Fraction(0))

        found = sum(
            (
                (_value(c, scale, operand, gamma) - Fraction(float(x))) ** 2
                for c, x in zip(own, block, strict=True)
            ),
            Fraction(0),
        )
        least = min(error(candidate) for candidate in candidates) if np.any(block) else error(int(first))
        assert float(found) == pytest.approx(float(least), rel=1e-12)
        if error(int(first)) == least:
            assert scale == first
        moved += int(scale != first)
    assert moved > 5 or name == "mxint8"  # whose codes reach the next power of two but for a step


def test_choosing_scales_leaves_operands_made_at_run_time_as_the_ppu_makes_them() -> None:
    layer = small_layers()[0]
    scheme = Scheme.parse("nvfp4")
    plain, chosen = (
        quantize_layer(layer, scheme, 16, QuantizeOptions(block_scales=how))
        for how in ("format", "four_over_six")
    )
    assert np.array_equal(plain.input_words, chosen.input_words)
    assert not np.array_equal(plain.weight_scales, chosen.weight_scales)
    with pytest.raises(
        AccelsimError, match="block_scales is 'best', expected one of format, four_over_six, mse"
    ):
        QuantizeOptions(block_scales="best")


def test_shared_exponent_just_below_a_power_of_two() -> None:
    """floor(log2) of the largest float32 below 2^k is k - 1, where a float log2 says k."""
    powers = np.exp2(np.arange(-126, 128)).astype(np.float32)
    below = np.nextafter(powers, np.float32(0)).astype(np.float64)
    operand = Operand(ELEMENTS["e2m1"], MX, 1)
    emax = 2  # 6.0 is 1.5 * 2^2
    exponents = np.arange(-126, 128) - emax
    assert np.array_equal(
        block_scales(powers.astype(np.float64), operand, 1.0), np.maximum(exponents, -127) + 127
    )
    assert np.array_equal(block_scales(below, operand, 1.0), np.maximum(exponents - 1, -127) + 127)
    assert block_scales(np.array([0.0, 2.0**-149, 1e300]), operand, 1.0).tolist() == [0, 0, 254]


def nearest(x: Fraction, values: list[Fraction]) -> int:
    """Index of the nearest of ascending `values`, whose codes are their indices; ties to even, saturating."""
    if x >= values[-1]:
        return len(values) - 1
    for i, (low, high) in enumerate(pairwise(values)):
        if low <= x < high:
            middle = (low + high) / 2
            return i if x < middle or (x == middle and i % 2 == 0) else i + 1
    raise AssertionError(x)


FP4 = [Fraction(v) for v in ("0", "1/2", "1", "3/2", "2", "3", "4", "6")]
FP8 = sorted(Fraction(m, 8) * Fraction(2) ** (e - 7) for e in range(1, 16) for m in range(8, 16))[:-1]
FP8 = [*(Fraction(m, 8) * Fraction(2) ** -6 for m in range(8)), *FP8]


@pytest.mark.parametrize("seed", range(3))
def test_nvfp4_blocks_against_fractions(seed: int) -> None:
    assert len(FP8) == 127 and FP8[-1] == 448
    operand = SCHEMES["nvfp4"][0]
    values = draw(seed, 120, 16)[4:]
    if seed:  # magnitudes near each other, as tensors have them: the first seed sends most scales to 0
        values = np.random.default_rng(seed).standard_normal(values.shape).astype(np.float32) * values.max()
    gamma = block_gamma([values[:50], values[50:]], operand)
    exact = Fraction(float(np.abs(values).max())) / (6 * 448)
    assert gamma == np.float32(gamma) and abs(Fraction(gamma) / exact - 1) <= Fraction(1, 2**24)
    codes, scales = quantize_blocks(values, operand, gamma)
    decoded = dequantize_words(codes, scales, gamma, operand)
    for block, own, scale, real in zip(values, codes, scales, decoded, strict=True):
        wanted = nearest(Fraction(float(np.abs(block).max())) / (6 * Fraction(gamma)), FP8)
        assert scale == wanted
        for x, code, y in zip(block, own, real, strict=True):
            step = FP8[wanted] * Fraction(gamma)
            magnitude = nearest(abs(Fraction(float(x))) / step, FP4) if step else 0
            assert code == magnitude | (8 if np.signbit(x) else 0)
            assert Fraction(y) == (-1 if code & 8 else 1) * FP4[magnitude] * step
    assert scales.max() == 126


def test_nvfp4_gamma_of_extreme_tensors() -> None:
    operand = SCHEMES["nvfp4"][0]
    zero = np.zeros((2, 16), np.float32)
    assert block_gamma([zero], operand) == block_gamma([], operand) == 1.0
    assert quantize_blocks(zero, operand, 1.0)[1].tolist() == [0, 0]
    tiny = zero.copy()
    tiny[1, 0] = 2.0**-149
    assert block_gamma([tiny], operand) == 2.0**-149
    codes, scales = quantize_blocks(tiny, operand, 2.0**-149)
    assert np.abs(dequantize_words(codes, scales, 2.0**-149, operand) / 2.0**-149 - (tiny > 0)).max() < 0.04
    assert block_gamma([zero + np.finfo(np.float32).max], operand) == np.float32(
        np.finfo(np.float32).max / 2688
    )


def test_a_static_gamma_that_is_too_small_saturates() -> None:
    operand = SCHEMES["nvfp4"][0]
    codes, scales = quantize_blocks(np.full((1, 16), -1e6, np.float32), operand, 1.0)
    assert scales.tolist() == [126] and (codes == 15).all()


def test_float32_scales_of_blocks() -> None:
    """Of integers in blocks with float32 scales: the format of most published 4-bit weights."""
    operand = Operand(INT[4], Scale("float", 32, "none"), 32)
    values = draw(5, 100, 32)[4:]
    codes, scales = quantize_blocks(values, operand, 1.0)
    assert scales.dtype == np.float32 and codes.dtype == np.int8 and np.abs(codes).max() == 7
    assert np.array_equal(scales, (np.abs(values).max(axis=1).astype(np.float64) / 7).astype(np.float32))
    error = np.abs(dequantize_words(codes, scales, 1.0, operand) - values)
    assert (error <= scales[:, None].astype(np.float64) * 0.500001).all()
    assert quantize_blocks(np.zeros((1, 32), np.float32), operand, 1.0)[1].tolist() == [1.0]
    assert operand.word_bits == 32 * 4 + 32


# --- layers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("index", range(4))
def test_layers(name: str, index: int) -> None:
    """A packed im2col, an unsigned, a grouped layer and a matmul: words are those of the layer's vectors."""
    layer, scheme = small_layers()[index], Scheme.parse(name)
    block = scheme.block
    found = quantize_layer(layer, scheme, 16)
    g = layer.geometry
    packed_im2col = g.channels_per_group < block and g.R * g.S > 1
    assert (found.vector_size, found.spec.packed_im2col) == (block, packed_im2col)
    weights = weight_vectors(layer.weight, block, packed_im2col)
    inputs = input_vectors(layer.input, layer.geometry, block, packed_im2col)
    read = scheme.activation.of_sign(layer.input_signed)
    gamma = block_gamma([layer.weight], scheme.weight), block_gamma([layer.input], read)
    assert (found.weight_gamma == gamma[0]).all() and found.input_gamma == gamma[1]
    for own, wanted in (
        ((found.weight_words, found.weight_scales), quantize_blocks(weights, scheme.weight, gamma[0])),
        ((found.input_words, found.input_scales), quantize_blocks(inputs, read, gamma[1])),
    ):
        assert all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(own, wanted, strict=True))
    real = operand_values(found)
    for value, vectors in zip(real, (weights, inputs), strict=True):
        assert sqnr_db(vectors, value) > {"mxint8": 38, "mxfp4": 16, "nvfp4": 18}[name]
    assert found.output.operand == scheme.activation.of_sign(layer.activation != "relu")
    if scheme.activation.scale.kind == "e4m3":
        y = np.maximum(float_output(layer), 0) if layer.activation == "relu" else float_output(layer)
        assert found.output_gamma == np.float32(np.abs(y).max() / found.output.operand.largest)
    else:
        assert found.output_gamma == 1.0


def test_mxint8_is_symmetric() -> None:
    operand = SCHEMES["mxint8"][0]
    codes, scales = quantize_blocks(np.full((1, 32), -1.999, np.float32), operand, 1.0)
    assert (codes == -127).all() and scales.tolist() == [127]
    assert dequantize_words(np.array([[-128]], np.int8), scales, 1.0, operand).tolist() == [[-2.0]]


def test_calibration_operands_decide_static_factors() -> None:
    """NVFP4's factor of a tensor is static: from the calibration set; a block's scale is the block's own."""
    *_, matmul = small_layers()
    layer = type(matmul)(
        **{**vars(matmul), "calibration_input": matmul.input * 2, "calibration_weight": matmul.weight * 3}
    )
    plain, own = (quantize_layer(item, Scheme.parse("nvfp4"), 16) for item in (matmul, layer))
    assert own.input_gamma == 2 * plain.input_gamma
    assert own.weight_gamma[0] == np.float32(float(np.abs(matmul.weight * 3).max()) / 2688)
    mx = quantize_layer(layer, Scheme.parse("mxfp4"), 16)
    assert mx.input_gamma == 1.0 and (mx.weight_gamma == 1).all()


def test_float_elements_without_block_scales_have_no_rule() -> None:
    operand = Operand(ELEMENTS["e4m3"], Scale("none", 0, "tensor"))
    with pytest.raises(AccelsimError, match="layer first: no rule quantizes e4m3, expected block scales"):
        quantize_layer(small_layers()[0], Scheme(operand, operand), 16)


def test_one_gamma_a_tensor_for_integer_weights() -> None:
    scheme = Scheme.parse("4/4/4/4")
    scheme = Scheme(Operand(scheme.weight.element, Scale("uint", 4, "tensor")), scheme.activation)
    layer = small_layers()[1]
    found = quantize_layer(layer, scheme, 16)
    largest = np.abs(layer.weight).max().astype(np.float64)
    assert (found.weight_gamma == largest / 7 / 15).all()


def test_drawn_layers_state_their_output() -> None:
    trace, name, nvfp4 = open_workload("mobilenet_v2"), "features.2.conv.0.0", Scheme.parse("nvfp4")
    assert isinstance(trace, SyntheticWorkload)
    spec, found = trace.outline(name, nvfp4, 8), trace.quantized_layer(name, nvfp4, 8)
    assert (spec.vector_size, spec.block, spec.words_per_block) == (8, 16, 2) and spec == found.spec
    gamma, eight = trace.output_gamma(name, nvfp4), Scheme.parse("8/8/-/-")
    assert gamma == np.float32(gamma) == found.output_gamma
    assert trace.outline(name, eight, 8).output.operand.qmax == 255
    assert gamma * 2688 == pytest.approx(trace.output_gamma(name, eight) * 255, rel=1e-6)
    assert trace.output_gamma(name, Scheme.parse("mxfp4")) == 1.0


# --- traces -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blocks") / "floats.safetensors"
    write_trace(path, "small model", small_layers(), {})
    schemes = [Scheme.parse(name) for name in (*NAMES, "4/4/4/4@32")]
    return quantize_trace(path, path.with_name("stored.safetensors"), schemes, 16)


def test_traces_store_and_read_them(stored: Path, tmp_path: Path) -> None:
    trace = Trace.open(stored)
    keys = ("4/4/4/4@32", "mxfp4@32", "mxint8@32", "nvfp4@16")
    assert trace.variants == keys
    for layer in small_layers():
        for key in keys:
            scheme = Scheme.parse(key if key.startswith("4") else key.partition("@")[0])
            size = scheme.block
            found, made = trace.quantized_layer(layer.name, scheme, size), quantize_layer(layer, scheme, 16)
            outline = trace.outline(layer.name, scheme, size)
            for item in ("weight_words", "weight_scales", "weight_gamma", "input_words", "input_scales"):
                a, b = getattr(found, item), getattr(made, item)
                assert a.dtype == b.dtype and np.array_equal(a, b), (layer.name, key, item)
            assert found.input_gamma == made.input_gamma and found.output_gamma == made.output_gamma
            assert found.sum_exponent == made.sum_exponent and (made.sum_exponent is None) == (key[0] == "4")
            operands = ("weight_operand", "input_operand", "output_operand", "vector_size", "packed_im2col")
            for item in operands:
                assert getattr(found.spec, item) == getattr(made.spec, item) == getattr(outline, item), (
                    key,
                    item,
                )
    with safe_open(stored, "np") as file:
        entry = json.loads(file.metadata()["accelsim"])["layers"][0]["quantized"]["mxfp4@32"]
        assert (entry["scheme"], entry["vector_size"], entry["output"]) == (
            "mxfp4", 32, {"scheme": "mxfp4", "gamma": 1.0},
        )  # fmt: skip
        assert file.get_slice("first/mxfp4@32/weight_words").get_dtype() == "U8"
        assert file.get_slice("first/mxint8@32/weight_words").get_dtype() == "I8"
        assert file.get_slice("first/nvfp4@16/input_scales").get_dtype() == "U8"
    again = quantize_trace(stored, tmp_path / "again.safetensors", [Scheme.parse("mxfp4")], 64)
    assert again.read_bytes() == stored.read_bytes()


def test_command_line_quantizes(stored: Path, cli: Callable[..., Any], tmp_path: Path) -> None:
    words = "words.safetensors"
    said = cli("trace", "quantize", "digits", "--scheme", "mxfp4", "--out", words, "--drop-floats")
    assert (said.status, said.out) == (0, f"wrote {words}\n")
    trace = Trace.open(tmp_path / words)
    assert trace.variants == ("mxfp4@32",) and not trace.has_floats
    assert isinstance(trace.quantized_layer("conv2", Scheme.parse("mxfp4"), 16), QuantizedLayer)
    assert "mxfp4@32" in cli("trace", "info", words).out
    said = cli("run", words, "--scheme", "mxfp4", "--set", "vector_size=64")
    assert said.status == 0 and "energy, pe (uJ)" in said.out
    said = cli("run", words, "--scheme", "mxfp4", "--no-prices")
    assert said.status == 0 and "Nothing is priced" in said.out


Edit = Callable[[dict[str, Any], dict[str, np.ndarray]], None]


def craft(stored: Path, target: Path, edit: Edit) -> Path:
    """A copy after `edit(variants of layer "first", tensors)`, hashes made right again."""
    with safe_open(stored, "np") as file:
        manifest = json.loads(file.metadata()["accelsim"])
    tensors = {name: values.copy() for name, values in load_file(stored).items()}
    variants = manifest["layers"][0]["quantized"]
    edit(variants, tensors)
    for key, variant in variants.items():
        for name in variant["tensors"]:
            data = tensors[f"first/{key}/{name}"].tobytes()
            variant["tensors"][name] = hashlib.sha256(data).hexdigest()
    save_file(tensors, target, metadata={"accelsim": json.dumps(manifest)})
    return target


def poke(name: str, index: tuple[int, ...], value: float) -> Edit:
    def edit(_: dict[str, Any], tensors: dict[str, np.ndarray]) -> None:
        tensors[f"first/{name}"][index] = value

    return edit


def put(key: str, *path: str, value: object) -> Edit:
    def edit(variants: dict[str, Any], _: dict[str, np.ndarray]) -> None:
        place = variants[key]
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return edit


BAD = [
    (poke("mxfp4@32/weight_words", (0, 0, 0), 16), "mxfp4@32/weight_words holds 16, expected 0 to 15"),
    (poke("mxfp4@32/weight_words", (0, 0, 31), 1), "weight_words holds 1 in the padding of a vector"),
    (poke("mxfp4@32/input_scales", (0,), 255), "mxfp4@32/input_scales holds 255, expected 0 to 254"),
    (poke("nvfp4@16/weight_scales", (0, 0), 127), "nvfp4@16/weight_scales holds 127, expected 0 to 126"),
    (poke("nvfp4@16/weight_scales", (0, 0), 129), "holds 129, expected 0 to 126"),
    (poke("nvfp4@16/weight_gamma", (3,), 0.5), "nvfp4@16/weight_gamma holds 0.5, expected .* of all"),
    (poke("mxint8@32/weight_gamma", (0,), 2), "mxint8@32/weight_gamma holds 2, expected 1 of all channels"),
    (put("mxfp4@32", "input_gamma", value=2.0), "input_gamma is 2, expected 1: mxfp4 has none"),
    (put("mxfp4@32", "output", "gamma", value=2.0), "output: gamma is 2, expected 1: mxfp4 has none"),
    (put("mxfp4@32", "output", "signed", value=False), "signed is false, expected true: mxfp4 has no"),
    (put("mxfp4@32", "output", "scheme", value="mxfp5"), "output: scheme is 'mxfp5', expected one of mxint8"),
    (put("mxfp4@32", "output", "bits", value=4), "output: unknown key 'bits', expected scheme, signed, "),
    (put("mxfp4@32", "vector_size", value=16), "holds scheme 'mxfp4' at vector size 16, expected the key"),
    (put("mxfp4@32", "scheme", value="nvfp4"), "holds scheme 'nvfp4' at vector size 32, expected the key"),
    (put("4/4/4/4@32", "sum_exponent", value=1), "has a sum_exponent, expected none: 4/4/4/4 aligns nothing"),
    (put("mxfp4@32", "sum_exponent", value=1.5), "sum_exponent is 1.5, expected an integer"),
    (put("4/4/4/4@32", "scheme", value="4/4/4/4@32"), "holds scheme '4/4/4/4@32' at vector size 32"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), BAD)
def test_bad_traces(stored: Path, tmp_path: Path, edit: Edit, message: str) -> None:
    path = craft(stored, tmp_path / "bad.safetensors", edit)
    with pytest.raises(AccelsimError, match=f"^trace {path}: layer first: .*{message}"):
        Trace.open(path)


def test_mxint8_may_hold_its_lowest_code(stored: Path, tmp_path: Path) -> None:
    path = craft(stored, tmp_path / "low.safetensors", poke("mxint8@32/weight_words", (1, 0, 2), -128))
    found = Trace.open(path).quantized_layer("first", Scheme.parse("mxint8"), 32)
    scale = float(found.weight_scales[1, 0]) - 127
    assert operand_values(found)[0][1, 0, 2] == -2 * 2.0**scale


# --- a new format is a row --------------------------------------------------------------------------------


def test_a_new_row_is_quantized_stored_checked_and_executed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    operand = Operand(ELEMENTS["e4m3"], MX, 32)
    monkeypatch.setitem(SCHEMES, "mxfp8", (operand, operand))
    scheme = Scheme.parse("mxfp8")
    floats = write_trace(tmp_path / "floats.safetensors", "m", small_layers(), {})
    path = quantize_trace(floats, tmp_path / "mxfp8.safetensors", [scheme], 16)
    found = Trace.open(path).quantized_layer("middle", scheme, 32)
    exact = input_vectors(small_layers()[1].input, found.geometry, 32, found.spec.packed_im2col)
    assert sqnr_db(exact, operand_values(found)[1]) > 28
    for code in (127, 255):
        bad = craft(path, tmp_path / "nan.safetensors", poke("mxfp8@32/weight_words", (0, 0, 0), code))
        message = f"holds code {code}, which is no number" if code == 127 else "holds 255, expected 0 to 254"
        with pytest.raises(AccelsimError, match=message):
            Trace.open(bad)
    load_arch("magnet16").check_scheme(scheme)
    operand = Operand(ELEMENTS["e5m2"], MX, 32)
    with pytest.raises(AccelsimError, match="one product of e5m2 takes 64 bits; not executed"):
        load_arch("magnet16").check_scheme(Scheme(operand, operand))


def test_integers_with_scales_of_e4m3_are_stored_with_their_sign(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is never negative, read or made, has unsigned codes in the file as well."""
    operand = Operand(INT[4], SCHEMES["nvfp4"][0].scale, 16)
    monkeypatch.setitem(SCHEMES, "nvint4", (operand, operand))
    scheme = Scheme.parse("nvint4")
    floats = write_trace(tmp_path / "floats.safetensors", "m", small_layers(), {})
    trace = Trace.open(quantize_trace(floats, tmp_path / "nvint4.safetensors", [scheme], 16))
    signs = set()
    for layer in small_layers():
        found, made = trace.quantized_layer(layer.name, scheme, 16), quantize_layer(layer, scheme, 16)
        assert found.spec.input_operand == operand.of_sign(layer.input_signed)
        assert found.output == made.output and found.output.operand == operand.of_sign(
            layer.activation != "relu"
        )
        assert np.array_equal(found.input_words, made.input_words)
        signs.add(found.output.operand.element.name)
    assert signs == {"int4", "uint4"}


# --- machines ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["4/4/4/4@2", "4/4/fp/fp"])
def test_what_cannot_be_priced_or_executed_is_refused_before_anything_is_done(
    text: str, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convolved(*_: object) -> None:
        raise AssertionError("refused too late")

    monkeypatch.setattr(network, "float_output", convolved)
    out = tmp_path / "out"
    rtl = (
        lambda: api.emit_rtl(out, scheme=text, trace=trace),
        lambda: api.synthesise_rtl(out, scheme=text),
    )
    wide = ["vector_size=64"]  # 32 blocks of 2
    for call in (
        lambda: api.run(trace, scheme=text, overrides=wide),
        lambda: api.run(trace, scheme=text, gated_fraction=0.0, overrides=wide),
        lambda: api.compare(trace, schemes=["8/8/-/-", text], overrides=wide),
        lambda: api.explain_mapping(trace, "middle", scheme=text, overrides=wide),
        *(rtl if "fp/" in text else ()),
    ):
        with pytest.raises(AccelsimError) as error:
            call()
        message = str(error.value)
        assert message.startswith(f"arch magnet16, scheme {text}: ") and "\n" not in message
        assert ("not executed" if "fp/" in text else "no price for") in message
    assert not out.exists()


def test_a_given_block_of_the_machine_changes_nothing(trace: Path) -> None:
    free, given = (
        api.run(trace, scheme=text, overrides=["vector_size=32"]) for text in ("4/4/4/4", "4/4/4/4@32")
    )
    assert free.report.layers.equals(given.report.layers) and free.report.area.equals(given.report.area)
    different = {key for key, value in free.summary.items() if value != given.summary[key]}
    assert different <= {"scheme", "wall_s"} and given.summary["scheme"] == "4/4/4/4@32"


def test_blocks_of_a_layer_follow_the_scheme() -> None:
    """A block of 32 on words of 16: as if the machine had vectors of 32."""
    layer = small_layers()[2]
    given, free = (
        quantize_layer(layer, Scheme.parse("4/4/4/4@32"), 16),
        quantize_layer(layer, Scheme.parse("4/4/4/4"), 32),
    )
    assert given.vector_size == free.vector_size == 32
    assert np.array_equal(given.weight_words, free.weight_words)
    assert np.array_equal(given.input_scales, free.input_scales)
