"""The bits of values: a lane by hand, every layer against int64 NumPy, widths against `accumulate_layer`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from accelsim_kernels.reference import bit_lengths
from conftest import Said, contents
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim
from accelsim.compute.bits import LayerBits, bits_of, measure_bits
from accelsim.compute.lanes import accumulate_layer, compute_values
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.quantize.arrays import QuantizeOptions
from accelsim.quantize.layers import quantize_layer
from accelsim.quantize.reference import dequantize_output, float_output, sqnr_db
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import FloatLayer, Layer, QuantizedLayer

pytestmark = pytest.mark.kept

Cli = Callable[..., Said]


def drawn_layer(
    g: Geometry, scheme: str, seed: int, *, signed: bool = True, fold: str = "auto"
) -> QuantizedLayer:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((g.K, g.channels_per_group, g.R, g.S)).astype(np.float32)
    inputs = rng.standard_normal((g.N, g.C, g.H, g.W)).astype(np.float32)
    weight[rng.random(weight.shape) < 0.4] = 0
    inputs[rng.random(inputs.shape) < 0.4] = 0
    if not signed:
        inputs = np.abs(inputs)
    layer = Layer("own", "conv", g, input_signed=signed)
    options = QuantizeOptions(fold=fold)
    return quantize_layer(FloatLayer(layer, weight, inputs), Scheme.parse(scheme), 16, options)


def counted(counts: np.ndarray) -> dict[int, int]:
    return {at: int(count) for at, count in enumerate(counts) if count}


# --- by hand ------------------------------------------------------------------------------------------------


def by_hand(
    arch_changes: list[str] | None = None, c_split: int = 1, widths: tuple[int, ...] = ()
) -> LayerBits:
    """One output of 32 channels, in two vectors of 16 of which two codes are not 0.

    g = 0: dot = 7 * 7 + 1 * 7 = 56, scales 3 * 5 = 15, product 840, sum 840.
    g = 1: dot = -7 * 7 - 2 * 4 = -57, scales 15 * 1 = 15, product -855, sum -15.
    """
    arch = load_arch("magnet16", arch_changes or [])
    layer = drawn_layer(Geometry(1, 32, 1, 1, 1), "4/4/4/4", 0)
    weights, inputs = np.zeros((1, 2, 16), np.int8), np.zeros((2, 16), np.int8)
    weights[0, 0, :2], inputs[0, :2] = (7, 1), (7, 7)
    weights[0, 1, :3], inputs[1, :3] = (-7, -2, 3), (7, 4, 0)
    layer = replace(
        layer,
        weight_words=weights,
        input_words=inputs,
        weight_scales=np.array([[3, 15]], np.uint16),
        input_scales=np.array([5, 1], np.uint16),
        weight_gamma=np.ones(1),
        input_gamma=1.0,
    )
    return measure_bits(arch, layer, c_split, widths, reference=np.array([[-16.0]]))


def test_a_lane_by_hand() -> None:
    own = by_hand(widths=(10, 11))
    assert (own.steps, own.outputs) == (2, 1)
    assert (own.partial_sum_bits, own.psum_bits) == (11, 5)  # 840 needs 11 bits, -15 needs 5
    assert (own.dot_product_bits, own.scale_product_bits, own.product_bits) == (7, 4, 11)
    assert counted(own.histograms["dot_product"]) == {6: 2}
    assert counted(own.histograms["scale_product"]) == {4: 2}
    assert counted(own.histograms["partial_sum"]) == {4: 1, 10: 1}
    assert counted(own.histograms["psum"]) == {4: 1}
    assert counted(own.histograms["output_bits"]) == {11: 1}
    assert counted(own.codes["weight"]) == {0: 27, 1: 1, 2: 1, 3: 1, 7: 2}
    assert counted(own.codes["activation"]) == {0: 28, 4: 1, 7: 3}
    assert own.zeros.weight_codes == 27 / 32 and own.zeros.activation_codes == 28 / 32
    assert own.zeros.operand_macs == 28 / 32 and own.zeros.gated_steps == 0
    narrow, wide = own.widths
    # 840 saturates at 511, then 511 - 855 = -344.
    assert (narrow.accumulator_bits, narrow.overflows, narrow.overflowing_outputs) == (10, 1, 1)
    assert narrow.sqnr_wide_db == pytest.approx(20 * np.log10(15 / (344 - 15)))
    assert narrow.sqnr_float_db == pytest.approx(20 * np.log10(16 / (344 - 16)))
    assert (wide.overflows, wide.sqnr_wide_db) == (0, None)
    assert wide.sqnr_float_db == pytest.approx(20 * np.log10(16))
    assert own.lossless_bits == 11


def test_modulo_sums_need_only_the_last_to_fit() -> None:
    own = by_hand(["overflow=wrap"], widths=(4, 5, 10))
    assert own.lossless_bits == 5
    assert [at.sqnr_wide_db is None for at in own.widths] == [False, True, True]
    assert [at.overflows for at in own.widths] == [2, 2, 2]  # at 10 bits 840 is -184, then -1039 is -15
    assert by_hand(["overflow=error"]).lossless_bits == 11


def test_each_pe_of_a_chain_sums_from_zero() -> None:
    """840 in the first, -855 in the second, then -15 in the first."""
    own = by_hand(c_split=2)
    assert counted(own.histograms["partial_sum"]) == {4: 1, 10: 2}
    assert (own.partial_sum_bits, own.psum_bits) == (11, 5)


def test_saturation_at_both_ends_may_lose_nothing() -> None:
    """At 3 bits 3 + 3 saturates, and down at -4 so does what is 3 too low: the last psum is exact again."""
    arch = load_arch("magnet16")
    layer = drawn_layer(Geometry(1, 64, 1, 1, 1), "4/4/-/-", 0)
    weights, inputs = np.zeros((1, 4, 16), np.int8), np.zeros((4, 16), np.int8)
    weights[0, :, 0], inputs[:, 0] = (3, 3, -5, -5), 1
    layer = replace(layer, weight_words=weights, input_words=inputs)
    assert compute_values(arch, layer).psums[0, 0] == -4
    own = measure_bits(arch, layer, widths=(3,))
    assert (own.partial_sum_bits, own.psum_bits, own.lossless_bits) == (4, 3, 3)
    assert (own.widths[0].overflows, own.widths[0].sqnr_wide_db) == (2, None)
    assert own.scale_product_bits is None and "scale_product" not in own.histograms


# --- against int64 NumPy ------------------------------------------------------------------------------------

_GEOMETRIES = (
    Geometry(1, 3, 5, 4, 5, 3, 3, (1, 2), (1, 0)),  # packed im2col
    Geometry(2, 20, 4, 4, 18, 3, 2, (2, 1), (1, 1), (1, 2)),  # a vector and a part, padding, dilation
    Geometry(1, 36, 3, 3, 8, 3, 3, (1, 1), (1, 1), groups=2),
    Geometry(1, 7, 4, 4, 7, 3, 3, 1, 1, groups=7),  # depthwise
    Geometry(1, 100, 1, 6, 70),
)


def steps_of(layer: QuantizedLayer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(dots, scale products, inside) int64 or bool [pixels, K, G], one group after the other."""
    g, sh = layer.geometry, layer.scheme.scale_product_shift
    dots, factors, inside = [], [], []
    for group in range(g.groups):
        k = slice(group * g.outputs_per_group, (group + 1) * g.outputs_per_group)
        taps = layer.spec.gather(group, np.arange(g.pixels))
        codes = layer.input_words.astype(np.int64)[taps] * (taps >= 0)[:, :, None]
        dots.append(np.einsum("pgv,kgv->pkg", codes, layer.weight_words[k].astype(np.int64)))
        factor = np.ones(dots[-1].shape, np.int64)
        if layer.weight_scales is not None:
            factor = factor * layer.weight_scales[k].astype(np.int64)
        if layer.input_scales is not None:
            factor = factor * layer.input_scales.astype(np.int64)[taps][:, None, :]
        if sh:
            factor = np.minimum((factor + (1 << (sh - 1))) >> sh, (1 << layer.scheme.scale_product_bits) - 1)
        factors.append(factor)
        inside.append(np.broadcast_to((taps >= 0)[:, None, :], factor.shape))
    return tuple(np.concatenate(parts, axis=1) for parts in (dots, factors, inside))  # type: ignore[return-value]


def width_of(values: np.ndarray) -> int:
    """By trial: the least two's complement width that holds all values."""
    return next(b for b in range(1, 64) if values.min() >= -(1 << (b - 1)) and values.max() < 1 << (b - 1))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(_GEOMETRIES),
    st.sampled_from(["4/4/4/4", "8/8/-/-", "4/8/6/10:sp8", "3/5/2/-", "4/4/4/4:sp2"]),
    st.sampled_from(["saturate", "wrap", "error"]),
    st.integers(0, 3),
    st.integers(1, 2),
    st.booleans(),
    st.integers(0, 1000),
)
def test_bits_equal_int64_numpy(
    g: Geometry, scheme: str, overflow: str, shift: int, c_split: int, signed: bool, seed: int
) -> None:
    arch = load_arch("magnet16", [f"overflow={overflow}", f"product_shift={shift}"])
    layer = drawn_layer(g, scheme, seed, signed=signed)
    c_split = min(c_split, layer.spec.G if layer.spec.packed_im2col else layer.spec.words_per_position)
    dots, factors, inside = steps_of(layer)
    products = (dots * factors + (1 << shift >> 1)) >> shift
    parts = layer.spec.parts(c_split)
    running = [np.cumsum(products[:, :, part], axis=2) for part in parts]
    chain = np.cumsum([own[:, :, -1] for own in running], axis=0)
    psums = products.sum(axis=2)
    # What stands in an accumulator: each part's sums, then the totals of the chain.
    every = np.concatenate([*running, np.moveaxis(chain[1:], 0, 2)], axis=2)

    own = measure_bits(arch, layer, c_split, widths=())
    assert (own.steps, own.outputs) == (products.size, psums.size)
    assert own.partial_sum_bits == max(2, width_of(every)) and own.psum_bits == max(2, width_of(psums))
    assert own.dot_product_bits == width_of(dots) and own.product_bits == width_of(products)
    assert np.array_equal(own.histograms["dot_product"], bit_lengths(dots[inside]))
    seen = [sums[inside[:, :, part]] for sums, part in zip(running, parts, strict=True)]
    seen.append(chain[1:].reshape(-1))
    assert np.array_equal(own.histograms["partial_sum"], bit_lengths(np.concatenate(seen)))
    assert np.array_equal(own.histograms["psum"], bit_lengths(psums))
    needed = np.array([width_of(sums) for sums in every.reshape(-1, every.shape[2])])
    assert np.array_equal(own.histograms["output_bits"], np.bincount(needed, minlength=64))
    if layer.scheme.has_scales:
        assert np.array_equal(own.histograms["scale_product"], bit_lengths(factors[inside]))
        assert own.zeros.scale_products == np.mean(factors[inside] == 0)
        assert own.scale_product_bits == int(factors[inside].max()).bit_length()
    assert own.zeros.padding_steps == pytest.approx(1 - inside.mean())


def test_bits_of_values_beside_powers_of_two() -> None:
    """A float64 has 53 bits: 2^54 - 1 must not be taken for 2^54."""
    values = [own for b in range(62) for own in ((1 << b) - 1, 1 << b, -(1 << b), 1 - (1 << b))]
    assert bits_of(np.array(values)).tolist() == [own.bit_length() for own in values]


@pytest.mark.parametrize("overflow", ["saturate", "wrap", "error"])
@pytest.mark.parametrize("c_split", [1, 2])
def test_widths_equal_those_of_the_lanes(overflow: str, c_split: int) -> None:
    arch = load_arch("magnet16", [f"overflow={overflow}"])
    g = _GEOMETRIES[1]
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((g.K, g.C, g.R, g.S)).astype(np.float32)
    inputs = rng.standard_normal((g.N, g.C, g.H, g.W)).astype(np.float32)
    floats = FloatLayer(Layer("own", "conv", g), weight, inputs, rng.standard_normal(g.K).astype(np.float32))
    layer, reference = quantize_layer(floats, Scheme.parse("4/4/4/4"), 16), float_output(floats)
    own = measure_bits(arch, layer, c_split, range(2, 27), reference)
    exact, _ = accumulate_layer(arch, layer, 40, c_split)
    losing = []
    for at in own.widths:
        psums, overflows = accumulate_layer(arch, layer, at.accumulator_bits, c_split)
        assert (at.overflows, at.overflowing_outputs) == (overflows.sum(), np.count_nonzero(overflows))
        y = dequantize_output(psums, layer)
        assert at.sqnr_wide_db == sqnr_db(dequantize_output(exact, layer), y)
        assert at.sqnr_float_db == sqnr_db(reference, y)
        needed = own.histograms["output_bits"][at.accumulator_bits + 1 :].sum()
        assert at.overflowing_outputs == needed
        if overflows.any() if overflow == "error" else (psums != exact).any():
            losing.append(at.accumulator_bits)
    assert own.lossless_bits == losing[-1] + 1
    assert own.own.overflows == accumulate_layer(arch, layer, c_split=c_split)[1].sum() == 0


def test_rounded_scale_products() -> None:
    layer = drawn_layer(_GEOMETRIES[4], "4/4/4/4:sp2", 1)
    own = measure_bits(load_arch("magnet16"), layer).zeros
    assert layer.weight_scales is not None and layer.input_scales is not None
    both = layer.weight_scales.astype(int)[None] * layer.input_scales.astype(int).reshape(6, 1, -1)
    assert own.rounded_scale_products == np.mean((both > 0) & (both < 32)) > 0  # 4 + 4 - 2 = 6 bits go
    assert own.scale_products == np.mean(both < 32)
    assert own.weight_scales == np.mean(layer.weight_scales == 0)
    assert own.activation_scales == np.mean(layer.input_scales == 0)


def test_packed_words_count_a_code_as_often_as_it_is_used() -> None:
    """One scale a tensor makes the same codes with and without packing."""
    g = _GEOMETRIES[0]
    packed, plain = (drawn_layer(g, "8/8/-/-", 5, fold=fold) for fold in ("auto", "never"))
    assert packed.spec.packed_im2col and not plain.spec.packed_im2col
    taps = g.tap_positions()
    used = plain.input_words[:, :3].astype(int)[taps[taps >= 0]]
    own = measure_bits(load_arch("magnet16"), packed)
    assert counted(own.codes["activation"]) == counted(np.bincount(np.abs(used).reshape(-1)))
    other = measure_bits(load_arch("magnet16"), plain)
    assert counted(own.codes["weight"]) == counted(other.codes["weight"])
    assert other.codes["activation"].sum() == g.C * g.H * g.W


# --- through the door ---------------------------------------------------------------------------------------


def test_a_workload_is_measured_as_it_is_run(trace: Path) -> None:
    result = accelsim.bits(trace, scheme="4/8/6/10", overrides=["pes=4"], widths=[30, 16, 16])
    run = accelsim.run(trace, scheme="4/8/6/10", overrides=["pes=4"], keep_tensors=True)
    layers = result.to_frame().set_index("layer")
    for activity in run.activities:
        row = layers.loc[activity.layer.name]
        assert row["c_split"] == activity.mapping.c_split
        assert row["psum_bits"] == width_of(activity.psums)
    for name in ("gated_fraction", "zero_operand_fraction"):
        assert list(layers[name]) == list(run.layers[name])
    assert np.allclose(layers["sqnr_float_db"], run.layers["sqnr_db"])
    assert list(result.widths["accumulator_bits"]) == [16, 30] * 4
    assert result.summary["overflows"] == run.summary["overflows"]
    by_width = result.by_width()
    assert list(by_width["accumulator_bits"]) == [16, 30]
    at_16 = result.widths[result.widths["accumulator_bits"] == 16]
    assert by_width["overflows"][0] == at_16["overflows"].sum() > 0
    assert by_width["least_sqnr_wide_db"][0] == at_16["sqnr_wide_db"].min()
    weights = result.layers["macs"].to_numpy()
    assert by_width["sqnr_float_db"][0] == pytest.approx(np.average(at_16["sqnr_float_db"], weights=weights))


def test_tables_add_up(trace: Path) -> None:
    result = accelsim.bits(trace)
    counts = result.histograms.groupby(["layer", "quantity"], sort=False)["count"].sum().unstack()
    layers = result.layers.set_index("layer")
    for name in ("psum", "output_bits"):
        assert list(counts[name][layers.index]) == list(layers["outputs"])
    inside = layers["steps"] * (1 - layers["padding_fraction"])
    assert np.allclose(counts["dot_product"][layers.index], inside)
    assert np.allclose(counts["scale_product"][layers.index], inside)
    zeros = result.codes[result.codes["magnitude"] == 0].set_index(["layer", "operand"])["count"]
    total = result.codes.groupby(["layer", "operand"])["count"].sum()
    share = (zeros / total).unstack()
    assert np.allclose(share["weight"][layers.index], layers["zero_weight_code_fraction"])
    assert np.allclose(share["activation"][layers.index], layers["zero_activation_code_fraction"])


def test_a_result_prints_a_line_a_layer(trace: Path) -> None:
    result = accelsim.bits(trace, scheme="8/8/-/-")
    lines = repr(result).splitlines()
    assert len(lines) == 3 + 4 + 1 and all(len(line) <= 110 for line in lines)
    assert lines[0].endswith("at 8/8/-/-: bits") and lines[-1].startswith("all layers")
    assert lines[-1].split()[2] == str(result.layers["partial_sum_bits"].max())
    assert result._repr_html_().count("<tr>") == 6


def test_drawn_tensors_have_no_float_error(tmp_path: Path) -> None:
    topology = tmp_path / "one.csv"
    topology.write_text(
        "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"
        "conv, 8, 8, 3, 3, 16, 32, 1,\n"
    )
    result = accelsim.bits(topology)
    assert result.widths["sqnr_float_db"].isna().all() and result.widths["overflows"].sum() > 0
    assert result.by_width()["sqnr_float_db"].isna().all()


def test_the_command_writes_tables_and_replaces_them(trace: Path, cli: Cli, tmp_path: Path) -> None:
    said = cli("bits", trace, "--scheme", "4/4/4/4", "--out", "b", "--width", "14", "--width", "18")
    assert (said.status, said.err.strip()) == (0, "")
    for text in ("small on magnet16", "lossless_bits", "Every partial sum fits", "results in b/"):
        assert text in said.out
    files = {"bits.json", "layers.csv", "widths.csv", "histograms.csv", "codes.csv"}
    assert {path.name for path in (tmp_path / "b").iterdir()} == files
    first = contents(tmp_path / "b")
    assert cli("bits", trace, "--out", "b", "--width", "14", "--width", "18").status == 0
    assert contents(tmp_path / "b") == first
    result = accelsim.bits(trace, widths=[14, 18])
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "b/widths.csv"), result.widths)
    assert json.loads((tmp_path / "b/bits.json").read_text()) == json.loads(json.dumps(result.summary))


def test_without_out_nothing_is_written(trace: Path, cli: Cli, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    assert cli("bits", trace, "--width", "20").status == 0
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--width", "63"), "accumulator width is 63, expected 2 to 62"),
        (("--width", "1"), "accumulator width is 1, expected 2 to 62"),
        (("--scheme", "mxfp4"), "bits are counted of integers with a scale a vector, not of mxfp4"),
        (("--scheme", "4/4"), "scheme '4/4'"),
        (("--arch", "none"), "none"),
    ],
)
def test_mistakes_are_one_line(trace: Path, cli: Cli, arguments: tuple[str, ...], text: str) -> None:
    said = cli("bits", trace, "--out", "b", *arguments)
    assert said.status == 2 and text in said.err and len(said.err.strip().splitlines()) == 1
    assert not Path("b").exists()


def test_other_mistakes(trace: Path, cli: Cli, tmp_path: Path) -> None:
    with pytest.raises(AccelsimError, match=r"accumulator width is 16\.5, expected a whole number"):
        accelsim.bits(trace, widths=[16.5])  # type: ignore[list-item]
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    said = cli("bits", trace, "--out", "full")
    assert said.status == 2 and "holds other files" in said.err
    assert cli("bits", trace, "--out", "b", "--width", "20").status == 0
    said = cli("plot", "b")
    assert said.status == 2 and "no summary.json" in said.err


# --- docs/bits.md -------------------------------------------------------------------------------------------


def test_the_page_says_what_is_so() -> None:
    root = Path(__file__).resolve().parents[1]
    page = (root / "docs/bits.md").read_text("utf-8")
    result = accelsim.bits("digits", scheme="4/4/4/4")
    shown = [line.replace(",", "").split() for line in page.splitlines() if line.startswith(" ")]
    by_width = {int(row["accumulator_bits"]): row for row in result.by_width().to_dict("records")}
    rows = [row for row in shown if row[0].isdigit()]
    assert [int(row[0]) for row in rows] == [16, 17, 18, 19, 20]
    for row in rows:
        for text, value in zip(row, by_width[int(row[0])].values(), strict=True):
            assert value != value if text == "-" else float(text) == pytest.approx(value, rel=1e-4)
    layers = {row[0]: row[1:] for row in shown if row[0] in ("conv1", "conv2")}
    columns = ["partial_sum_bits", "psum_bits", "lossless_bits", "overflows", "dot_product_bits"]
    for name, cells in layers.items():
        own = result.layers.set_index("layer").loc[name]
        assert [int(cell) for cell in cells[:5]] == [own[column] for column in columns]
        assert float(cells[7]) == pytest.approx(own["zero_activation_code_fraction"], rel=1e-4)
    told = page.partition("| column of")[2]
    assert not {name for name in result.layers if name not in told and name not in ("layer", "macs")}
    for frame in (result.widths, result.histograms, result.codes):
        assert not {name for name in frame if name not in page}
    assert not {own for own in result.histograms["quantity"] if own not in page}
