"""MX, NVFP4 and VS-Quant in any block on machines of any V: every psum and output against exact rationals.

What a code is worth comes from gfloat; what lanes and PPU make of it is written anew from docs/numerics.md.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import floor
from typing import Any

import gfloat
import gfloat.formats as known
import numpy as np
import pytest
from test_blocks import FP4, FP8, nearest, small_layers

from accelsim import api
from accelsim.compute.lanes import compute_values
from accelsim.compute.operands import psum_shift, scale_values
from accelsim.errors import AccelsimError
from accelsim.formats.catalogue import INT, SCHEMES
from accelsim.formats.operand import Operand
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.quantize.layers import quantize_layer
from accelsim.quantize.reference import (
    dequantize_output,
    dequantized_product,
    float_output,
    ppu_constants,
    sqnr_db,
)
from accelsim.report.inventory import build_inventory
from accelsim.report.library import library_of
from accelsim.workload.layer import QuantizedLayer

pytestmark = pytest.mark.kept

ELEMENTS = {"ocp_int8": known.format_info_ocp_int8, "e2m1": known.format_info_ocp_e2m1}
SCALES = {"e8m0": known.format_info_ocp_e8m0, "e4m3": known.format_info_ocp_e4m3}
ALIGNED = ["mxint8", "mxfp4", "nvfp4"]


def machine(vector_size: int, *changes: str) -> Arch:
    sizes = f"vector_size={vector_size}", "lanes=4", "ppu_lanes=4", "out_fifo_words=512"
    return load_arch("magnet16", [*sizes, *changes])


def words_on(arch: Arch, index: int, text: str) -> QuantizedLayer:
    return quantize_layer(small_layers()[index], Scheme.parse(text), 16).in_vectors(arch.vector_size)


def values_of(codes: np.ndarray, info: Any) -> list[Fraction]:
    bits = (1 << info.k) - 1
    return [Fraction(gfloat.decode_float(info, int(code) & bits).fval) for code in codes.reshape(-1)]


def blocks_of(
    words: np.ndarray, scales: np.ndarray, layer: QuantizedLayer
) -> list[list[tuple[Fraction, list[Fraction]]]]:
    """Of each word (scale, values) of its blocks."""
    scheme, count = layer.scheme, layer.spec.blocks_per_word
    element, scale = (ELEMENTS[str(scheme.weight.element)], SCALES[scheme.weight.scale.kind])
    found = []
    for word, own in zip(words, scales, strict=True):
        values, factors = values_of(word, element), values_of(np.reshape(own, count), scale)
        size = len(values) // count
        found.append([(f, values[b * size : (b + 1) * size]) for b, f in enumerate(factors)])
    return found


def exact_psum(weights: list, inputs: list, lsb: int, bits: int, rounds: bool) -> tuple[int, int]:
    """(psum, overflows) of one output: words of weights and inputs, None in padding, one a step."""
    psum = overflows = 0
    edge = 1 << (bits - 1)
    for weight, activation in zip(weights, inputs, strict=True):
        if activation is None:
            continue
        for (ws, w), (a_s, a) in zip(weight, activation, strict=True):
            term = ws * a_s * sum(x * y for x, y in zip(w, a, strict=True)) / Fraction(2) ** lsb
            psum += min(max(floor(term + (Fraction(1, 2) if rounds else 0)), -2 * edge), 2 * edge)
        if not -edge <= psum < edge:
            overflows += 1
            psum = min(max(psum, -edge), edge - 1)
    return psum, overflows


@pytest.mark.parametrize("name", ALIGNED)
@pytest.mark.parametrize(
    ("vector_size", "changes"),
    [
        (8, ()),
        (16, ("accumulator_bits=14",)),
        (32, ("alignment_rounding=floor", "accumulator_bits=16")),
        (64, ("accumulator_bits=34",)),
    ],
)
@pytest.mark.parametrize("index", range(4))
def test_psums(name: str, vector_size: int, changes: tuple[str, ...], index: int) -> None:
    """A packed im2col, an unsigned, a grouped layer and a matmul; a few outputs of each."""
    arch = machine(vector_size, *changes)
    layer = words_on(arch, index, name)
    bits = arch.accumulator_width(layer.scheme)
    assert bits == (int(changes[-1].partition("=")[2]) if changes else 28)
    found = compute_values(arch, layer)
    assert layer.sum_exponent is not None
    lsb = layer.sum_exponent + 4 - bits
    assert psum_shift(arch, layer) == lsb
    assert layer.input_scales is not None and layer.weight_scales is not None
    inputs = blocks_of(layer.input_words, layer.input_scales, layer)
    g, rng = layer.geometry, np.random.default_rng(index)
    for pixel, channel in zip(rng.integers(g.pixels, size=12), rng.integers(g.K, size=12), strict=True):
        taps = layer.spec.gather(int(channel) // g.outputs_per_group, np.array([pixel]))[0]
        met = [inputs[tap] if tap >= 0 else None for tap in taps]
        weights = blocks_of(layer.weight_words[channel], layer.weight_scales[channel], layer)
        rounds = arch.alignment_rounding == "nearest"
        psum, overflows = exact_psum(weights, met, lsb, bits, rounds)
        assert (found.psums[pixel, channel], found.overflow_map[pixel, channel]) == (psum, overflows)
    y = dequantize_output(found.psums, layer, lsb)
    exact = dequantized_product(layer)
    # Half an lsb at the most for each term, or a whole one where it is rounded down.
    lost = layer.spec.G * layer.spec.blocks_per_word * 2.0**lsb * layer.weight_gamma[0] * layer.input_gamma
    inside = found.overflow_map == 0
    assert np.abs(y - exact)[inside].max() <= lost and inside.mean() > 0.9


@pytest.mark.parametrize("bits", [4, 8])
def test_a_row_of_integers_with_an_unsigned_twin(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Integer codes with e4m3 scales: activations that are never negative have unsigned codes, of 8 bits
    beyond what the tiles take."""
    operand = Operand(INT[bits], SCHEMES["nvfp4"][0].scale, 16)
    monkeypatch.setitem(SCHEMES, f"int{bits}_e4m3", (operand, operand))
    arch = machine(16)
    layer = words_on(arch, 1, f"int{bits}_e4m3")
    assert layer.input_words.dtype == np.uint8 and layer.input_words.max() == 2**bits - 1
    found = compute_values(arch, layer)
    lsb = psum_shift(arch, layer)
    lost = layer.spec.G * 2.0 ** (lsb - 1) * layer.weight_gamma[0] * layer.input_gamma
    y = dequantize_output(found.psums, layer, lsb)
    assert np.abs(y - dequantized_product(layer)).max() <= lost and not found.overflow_map.any()


@pytest.mark.parametrize("name", ALIGNED)
@pytest.mark.parametrize("index", range(4))
def test_outputs(name: str, index: int) -> None:
    """The PPU rounds its 24-bit values by the format's own rule, exactly."""
    arch = machine(16)
    layer = words_on(arch, index, name)
    found = compute_values(arch, layer)
    g, block = layer.geometry, layer.spec.written_block
    assert block == layer.scheme.block and layer.sum_exponent is not None
    m, t, bias = ppu_constants(layer, psum_shift(arch, layer))
    real = layer.weight_gamma * layer.input_gamma * 2.0 ** psum_shift(arch, layer)
    unit = 2.0 ** (layer.sum_exponent - 22) if name != "nvfp4" else layer.output_gamma * 2.0**-11
    assert np.allclose(m * 2.0 ** -t.astype(float), real / unit, rtol=2.0**-15)
    limit = (1 << 23) - 1
    z = (found.psums * m + (1 << (t - 1))) >> t
    z = np.clip(np.clip(z, -limit, limit) + bias, -limit, limit)
    if layer.activation == "relu":
        z = np.maximum(z, 0)
    scales = found.output_scales
    assert scales is not None
    step = Fraction(1) if name == "nvfp4" else Fraction(2) ** layer.sum_exponent
    step /= 2**11 if name == "nvfp4" else 2**22
    for pixel in range(0, g.pixels, max(1, g.pixels // 8)):
        first_scale = 0
        for group in range(g.groups):
            for start in range(0, g.outputs_per_group, block):
                k0 = group * g.outputs_per_group + start
                k1 = min(k0 + block, (group + 1) * g.outputs_per_group)
                values = [int(v) * step for v in z[pixel, k0:k1]]
                largest = max(map(abs, values))
                scale = int(scales[pixel, first_scale])
                first_scale += 1
                if name == "nvfp4":
                    assert scale == nearest(largest / 6, FP8)
                    factor = FP8[scale]
                else:
                    factor = Fraction(2) ** (scale - 127)
                    emax = 0 if name == "mxint8" else 2
                    assert (
                        scale == 0 if not largest else factor * 2**emax <= largest < factor * 2 ** (emax + 1)
                    )
                for value, code in zip(values, found.output[pixel, k0:k1].tolist(), strict=True):
                    ratio = abs(value) / factor if factor else Fraction(0)
                    if name == "mxint8":
                        assert abs(code) == min(127, round(ratio * 64)) and code * value >= 0
                    else:
                        assert code & 7 == nearest(ratio, FP4) and (code >= 8) == (value < 0)


def test_every_scale_code() -> None:
    codes = np.arange(127, dtype=np.uint8)
    for name, codes_there in (("nvfp4", codes), ("mxfp4", np.arange(255, dtype=np.uint8))):
        operand = Scheme.parse(name).weight
        found = scale_values(codes_there, operand)
        pairs = zip(found.significand.tolist(), found.exponent.tolist(), strict=True)
        decoded = values_of(codes_there, SCALES[operand.scale.kind])
        assert [m * Fraction(2) ** e for m, e in pairs] == decoded
        assert found.significand.max() == (15 if name == "nvfp4" else 1)


@pytest.mark.parametrize("text", ["4/4/4/4@8", "4/4/4/4@32", "4/8/-/6@64", "8/8/-/-@32"])
@pytest.mark.parametrize("index", range(4))
def test_integers_in_other_blocks_sum_to_what_their_words_are_worth(text: str, index: int) -> None:
    """Nothing is rounded and nothing overflows, so that psums are worth the product of dequantized words."""
    arch = machine(16)
    layer = words_on(arch, index, text)
    found = compute_values(arch, layer)
    assert found.overflows == 0
    y, wanted = dequantize_output(found.psums, layer), dequantized_product(layer)
    np.testing.assert_allclose(y, wanted, rtol=1e-9, atol=1e-9 * np.abs(wanted).max())
    other = words_on(machine(64), index, text)
    assert np.array_equal(compute_values(machine(64), other).psums, found.psums)


def test_chains_sum_in_parts() -> None:
    arch = machine(8)
    layer = words_on(arch, 1, "mxfp4")
    parts = layer.spec.pieces
    assert parts > 1 and layer.spec.words_per_block == 4
    assert all(len(part) % 4 == 0 for part in layer.spec.parts(parts))
    one, many = compute_values(arch, layer), compute_values(arch, layer, parts)
    assert np.array_equal(one.psums, many.psums)  # every term is rounded alike, and nothing overflows
    with pytest.raises(AccelsimError, match=f"c_split is {parts + 1}, expected at most {parts}, its blocks"):
        layer.spec.parts(parts + 1)


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("mxfp4", ["overflow=wrap"], "overflow is wrap, expected saturate or error with a block format"),
        ("mxfp4", ["product_shift=1"], "product_shift is 1, expected 0 with a block format"),
        ("nvfp4", ["residual=8/-"], "residual is 8/-, expected null with a block format"),
        ("nvfp4", ["accumulator_bits=data"], "accumulator_bits is data, expected auto or 14 to 48"),
        ("mxfp4", ["vector_size=12", "lanes=4"], "block is 32, expected to divide vector_size = 12"),
        ("4/4/4/4@32", ["residual=4/4"], "residual is 4/4, expected A/- where block is not vector_size"),
        ("4/4/4/4@64", [], "out_fifo_words is 32, expected at least 64"),
    ],
)
def test_refusals(text: str, changes: list[str], message: str) -> None:
    with pytest.raises(AccelsimError, match=f"^arch magnet16, scheme {text}: {message}"):
        load_arch("magnet16", changes).check_scheme(Scheme.parse(text))


def test_words_without_an_exponent_are_not_executed() -> None:
    from dataclasses import replace

    layer = replace(words_on(machine(16), 0, "mxfp4"), sum_exponent=None)
    with pytest.raises(
        AccelsimError, match="is stored at mxfp4 without sum_exponent, expected words quantized"
    ):
        compute_values(machine(16), layer)


# --- runs -------------------------------------------------------------------------------------------------


def test_a_run_without_prices(cli: Callable[..., Any], tmp_path: Any) -> None:
    said = cli(
        "compare", "digits", "--no-prices", "--out", "r",
        *("--scheme", "8/8/-/-"), *("--scheme", "mxfp4"), *("--scheme", "nvfp4"),
    )  # fmt: skip
    assert said.status == 0 and "Nothing is priced" in said.out and "uJ" not in said.out
    files = {path.name for path in (tmp_path / "r" / "mxfp4").iterdir()}
    assert files == {"summary.json", "layers.csv", "stalls.csv", "stalls.png", "stalls.svg"}
    assert not [path.name for path in (tmp_path / "r").glob("*.*") if path.name != "comparison.csv"]
    assert "energy" not in (tmp_path / "r" / "comparison.csv").read_text()
    run = api.run("digits", scheme="mxfp4", prices=False)
    assert run.summary["energy_pj"] is run.summary["area_um2"] is run.summary["energy_evidence"] is None
    assert not [name for name in run.layers if "_pj" in name or "fj" in name] and "-" in repr(run)
    assert run.summary["sqnr_db"] > 20 and run.summary["overflows"] == 0
    with pytest.raises(AccelsimError, match="the run has no prices"):
        run.explain()
    # The mapper breaks ties by energy, else nothing of time depends on prices.
    for flag in ("--explain",):
        said = cli("run", "digits", "--no-prices", flag)
        assert said.status == 2 and said.err == f"error: {flag} needs prices, which --no-prices leaves out\n"


def test_a_larger_block_is_priced_as_the_same_lanes() -> None:
    """A word of 16 codes has the scale of its block: of the PE only what makes output scales is other."""
    arch = machine(16, "lanes=16", "ppu_lanes=16")
    library = library_of(arch, None)
    own, other = (
        {part.name: part for part in build_inventory(arch, Scheme.parse(text), library)}
        for text in ("4/4/4/4", "4/4/4/4@32")
    )
    differ = {
        name
        for name in own.keys() | other.keys()
        if (name in own) != (name in other) or own[name].cost.energy_pj != other[name].cost.energy_pj
    }
    trees = {name for name in differ if name.endswith("clock_tree")}
    assert differ - trees == {"ppu_vector_scale", "ppu_staging", "ppu_staging_max", "noc"}
    dram = {}
    for text in ("4/4/4/8", "4/4/4/8@32"):
        run = api.run("minilm_layer0", scheme=text, gated_fraction=0.0, overrides=["out_fifo_words=64"])
        dram[text] = run.layers["dram_read_bits"].sum()
    # 16 codes of 4 bits with 4 and 8 bits of scale, against half of those: weights and inputs are read.
    assert 66 / 68 - 0.03 < dram["4/4/4/8@32"] / dram["4/4/4/8"] < 1


def test_the_float_model_is_met() -> None:
    """End to end on a trained network: SQNR of psums is that of the dequantized words."""
    layer = small_layers()[1]
    for name, least in (("mxint8", 35), ("mxfp4", 12), ("nvfp4", 15)):
        arch = machine(16)
        words = quantize_layer(layer, Scheme.parse(name), 16)
        found = compute_values(arch, words.in_vectors(16))
        y = dequantize_output(found.psums, words, psum_shift(arch, words))
        fake = sqnr_db(float_output(layer), dequantized_product(words))
        own = sqnr_db(float_output(layer), y)
        assert own is not None and fake is not None and own > least and abs(own - fake) < 0.01, name
