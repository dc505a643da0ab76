"""Accumulators sized by a workload: no input, or none of its data, overflows them; a bit less does not do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from accelsim_kernels.reference import accumulate_reference
from hypothesis import given, settings
from hypothesis import strategies as st

import accelsim
from accelsim import sizing
from accelsim.api import cost_list, emit_rtl
from accelsim.cli.terminal import summary_table
from accelsim.compute.accumulator import bits_for_weights
from accelsim.compute.lanes import lane_spec
from accelsim.errors import AccelsimError
from accelsim.formats.catalogue import integer_operand
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import Layer, LayerSpec, OutputFormat, QuantizedLayer

pytestmark = pytest.mark.kept

V = 4


def drawn_layer(
    rng: np.random.Generator, scheme: Scheme, *, signed: bool, activation: bool
) -> QuantizedLayer:
    """A matmul with random weights and one pixel, its last vector filled up with zeros."""
    channels, outputs = int(rng.integers(1, 14)), int(rng.integers(1, 5))
    vectors = -(-channels // V)
    layer = Layer(
        "own",
        "matmul",
        Geometry(N=1, C=channels, H=1, W=1, K=outputs, R=1, S=1),
        input_signed=signed,
        weight_is_activation=activation,
    )
    weights = rng.integers(-scheme.weight.qmax, scheme.weight.qmax + 1, (outputs, vectors * V))
    weights[:, channels:] = 0
    scale_bits = scheme.weight.scale.bits, scheme.activation.scale.bits
    scales = rng.integers(0, 1 << scale_bits[0], (outputs, vectors)).astype(np.uint16)
    input_scales = np.ones(vectors, np.uint16)
    return QuantizedLayer(
        spec=LayerSpec(
            layer=layer,
            scheme=scheme,
            vector_size=V,
            fold="auto",
            output=OutputFormat(integer_operand(8, 0, signed=True)),
        ),
        weight_words=weights.reshape(outputs, vectors, V).astype(np.int8),
        weight_scales=scales if scale_bits[0] else None,
        weight_gamma=np.ones(outputs),
        input_words=np.zeros((vectors, V), np.int8 if signed else np.uint8),
        input_scales=input_scales if scale_bits[1] else None,
        input_gamma=1.0,
        bias=None,
        output_gamma=1.0,
    )


def overflows(arch: Arch, layer: QuantizedLayer, words: np.ndarray, bits: int) -> int:
    """Of inputs [n, G, V] with the largest scales, each accumulated vector by vector."""
    n, vectors, _ = words.shape
    spec = lane_spec(arch, layer.scheme, bits)
    scales = None
    if layer.input_scales is not None:
        scales = np.full(n * vectors, layer.scheme.activation.scale.max_code, np.uint16)
    gather = np.arange(n * vectors, dtype=np.int32).reshape(n, vectors)
    flat = words.reshape(-1, V).astype(layer.input_words.dtype)
    return int(
        accumulate_reference(layer.weight_words, layer.weight_scales, flat, scales, gather, spec)[1].sum()
    )


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(("8/8/-/-", "4/4/4/4", "4/4/4/4:sp5", "4/8/6/10", "6/3/-/5", "3/8/4/-")),
    st.booleans(),
    st.booleans(),
    st.sampled_from((0, 1, 5)),
    st.integers(0, 2**32 - 1),
)
def test_no_input_overflows_what_weights_need_and_one_does_with_a_bit_less(
    name, signed, activation, shift, seed
):
    rng = np.random.default_rng(seed)
    arch = load_arch("magnet16", [f"vector_size={V}", f"product_shift={shift}"])
    layer = drawn_layer(rng, Scheme.parse(name), signed=signed, activation=activation)
    bits = bits_for_weights(arch, layer)
    if activation:  # any weights may come
        weights = (
            np.full_like(layer.weight_words, layer.scheme.weight.qmax) * rng.choice([-1, 1], (4, 1, 1))[:1]
        )
        inside = (np.arange(weights[0].size) < layer.geometry.C).reshape(weights[0].shape)
        scales = layer.weight_scales
        if scales is not None:
            scales = np.full_like(scales, layer.scheme.weight.scale.max_code)
        layer = replace(layer, weight_words=(weights * inside).astype(np.int8), weight_scales=scales)
    most = layer.spec.input_operand.qmax
    least = -most if signed else 0
    # Of every channel the inputs that drive it up and down; and some others.
    up = np.where(layer.weight_words > 0, most, least)
    down = np.where(layer.weight_words > 0, least, most)
    others = rng.integers(least, most + 1, (20, *layer.weight_words.shape[1:]))
    words = np.concatenate([up, down, others])
    assert overflows(arch, layer, words, bits) == 0
    assert bits == 2 or overflows(arch, layer, words, bits - 1) > 0


@pytest.mark.parametrize("scheme", ["4/4/4/4", "8/8/-/-"])
def test_a_run_sized_by_its_data_overflows_nothing_and_with_a_bit_less_what_it_says(scheme: str) -> None:
    how = {"scheme": scheme, "keep_tensors": False}
    own = accelsim.run("digits", overrides=["accumulator_bits=data"], **how).summary
    bits = own["accumulator_bits"]
    assert (own["overflows"], own["accumulator_policy"]) == (0, "data")
    assert own["arch_parameters"]["accumulator_bits"] == bits
    less = accelsim.run("digits", overrides=[f"accumulator_bits={bits - 1}"], **how).summary
    assert less["overflows"] == own["overflows_one_bit_less"] > 0
    assert (less["accumulator_policy"], less["overflows_one_bit_less"]) == ("given", None)
    by_weights = accelsim.run("digits", overrides=["accumulator_bits=weights"], **how).summary
    worst = accelsim.run("digits", **how).summary
    assert bits < by_weights["accumulator_bits"] < worst["accumulator_bits"]
    assert (by_weights["accumulator_policy"], worst["accumulator_policy"]) == ("weights", "auto")
    assert own["area_um2"]["pe"] < by_weights["area_um2"]["pe"] < worst["area_um2"]["pe"]


def test_a_comparison_sizes_every_scheme_by_itself(tmp_path: Path, capsys) -> None:
    schemes = ["8/8/-/-", "4/4/4/6"]
    compared = accelsim.compare("digits", schemes=schemes, overrides=["accumulator_bits=data"])
    alone = [
        accelsim.run("digits", scheme=own, overrides=["accumulator_bits=data"]).summary for own in schemes
    ]
    table = compared.to_frame()
    for key in ("accumulator_bits", "accumulator_policy", "overflows_one_bit_less", "area_pe_24bit_um2"):
        if key in alone[0]:
            assert list(table[key]) == [own[key] for own in alone]
    # Published widths are compared on the same machine whatever sizes it.
    usual = accelsim.compare("digits", schemes=schemes).to_frame()
    assert list(table["area_pe_24bit_um2"]) == list(usual["area_pe_24bit_um2"])
    summary_table(compared.runs, table)
    line = next(line for line in capsys.readouterr().out.splitlines() if "accumulators (bits)" in line)
    for own in alone:
        assert "{accumulator_bits}, by data ({overflows_one_bit_less} overflows".format(**own) in line
    bits = int(table["accumulator_bits"].iloc[1])
    emit_rtl(tmp_path / "pe", "magnet16", "4/4/4/6", overrides=["accumulator_bits=data"])
    assert f"parameter int ACCUMULATOR_BITS = {bits}," in (tmp_path / "pe/pe_top.sv").read_text()


def test_where_values_are_not_known_a_policy_is_refused() -> None:
    machine = ["accumulator_bits=weights"]
    with pytest.raises(
        AccelsimError, match=r"^arch magnet16: accumulator_bits is weights, which needs values"
    ):
        accelsim.run("digits", overrides=machine, gated_fraction=0.0)
    with pytest.raises(
        AccelsimError, match=r"accumulator_bits is weights, which only a workload's values tell"
    ):
        cost_list(overrides=machine)
    with pytest.raises(
        AccelsimError, match="accumulator_bits is 'date', expected auto, weights, data or 2 to 62"
    ):
        load_arch("magnet16", ["accumulator_bits=date"])


class _Asking:
    """Layers whose chains depend on the width they are planned with."""

    def __init__(self, splits: dict[int, int], bits: dict[int, int]) -> None:
        self._splits, self._bits = splits, bits
        self.arch = SimpleNamespace(accumulator_width=lambda scheme: 30)
        self.request = SimpleNamespace(scheme=None)

    def splits(self, bits: int) -> list[int]:
        return [self._splits[bits]]

    def quantized(self, index: int) -> int:
        return index

    def bits(self, index: int, of) -> int:
        return self._bits[of.args[1]]


@pytest.mark.parametrize(
    ("splits", "bits", "expected"),
    [
        ({30: 1, 20: 1}, {1: 20}, 20),
        ({30: 1, 20: 2, 19: 2}, {1: 20, 2: 19}, 19),
        ({30: 1, 20: 2, 21: 2}, {1: 20, 2: 21}, 21),
        ({30: 1, 20: 2, 21: 1}, {1: 20, 2: 21}, 21),  # each asks for the other's
        ({30: 1, 35: 1}, {1: 35}, 35),  # a reduction longer than `auto` is sized for
    ],
)
def test_the_width_fits_the_mapping_that_it_leads_to(splits, bits, expected, monkeypatch) -> None:
    monkeypatch.setattr("accelsim.compute.accumulator.overflows_at", lambda *_: 7)
    found = sizing._by_data(_Asking(splits, bits))
    assert found.bits == expected
    # With one bit less only those overflow that need all of it.
    assert found.overflows_one_bit_less == (7 if bits[splits[expected]] == expected else 0)
