"""From Python: the same as the command line, with AccelsimError for whatever is wrong."""

from __future__ import annotations

import json
import pickle
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event, Timer

import numpy as np
import pandas as pd
import pytest
from conftest import GEOMETRIES, small_layers

from accelsim.api import DEFAULT_SCHEMES, compare, cost_table, run
from accelsim.compute import values
from accelsim.compute.computed import Computed
from accelsim.compute.values import ComputeRequest
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.mapping.residency import Residency
from accelsim.mapping.search.estimate import Lead
from accelsim.mapping.search.mapper import Choice, Mapper
from accelsim.quantize.arrays import QuantizeOptions
from accelsim.quantize.options import quantize_options
from accelsim.trace.file import Trace
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import FloatLayer, Layer, LayerSpec

pytestmark = pytest.mark.kept


def test_a_path_a_name_and_an_open_trace_are_the_same(trace: Path) -> None:
    ways = [run(trace), run(str(trace)), run(Trace.open(trace), scheme=Scheme.parse("4/4/4/4"))]
    for way in ways[1:]:
        pd.testing.assert_frame_equal(way.to_frame(), ways[0].to_frame())
        pd.testing.assert_frame_equal(way.layers, ways[0].layers)
    assert list(ways[0].layers["layer"]) == list(GEOMETRIES)


def test_compare_holds_the_runs_it_compares(trace: Path) -> None:
    comparison = compare(trace, schemes=["8/8/-/-", "4/4/4/4"], overrides=["pes=4"])
    table = comparison.to_frame()
    assert list(table["scheme"]) == ["8/8/-/-", "4/4/4/4"]
    for index, scheme in enumerate(table["scheme"]):
        alone = run(trace, scheme=scheme, overrides=["pes=4"])
        pd.testing.assert_frame_equal(comparison.runs[index].to_frame(), alone.to_frame())
        row = table.iloc[index]
        for scope in ("datapath", "pe", "array", "system"):
            assert row[f"energy_{scope}_pj"] == alone.summary["energy_pj"][scope]
            base = comparison.runs[0].summary["energy_pj"][scope]
            saved = 100 * (1 - alone.summary["energy_pj"][scope] / base)
            assert row[f"energy_{scope}_saved_percent"] == pytest.approx(saved)
        assert row["cycles"] == alone.summary["cycles"]
        assert row["area_pe_um2"] == alone.summary["area_um2"]["pe"]
        small = row["area_pe_datapath_and_sram_um2"]
        assert row["area_datapath_um2"] < small < row["area_pe_um2"]
    assert DEFAULT_SCHEMES == ("8/8/-/-", "4/4/4/4", "4/4/4/6", "4/8/6/10")


def test_24_bits_beside_every_comparison(trace: Path) -> None:
    """What a run on a 24-bit machine says, the comparison says without running it."""
    # Narrower psums also travel faster: the mapping may not differ for that.
    whole = "mapping.c_split=1"
    row = compare(trace, schemes=["4/8/6/10"], overrides=[whole]).to_frame().iloc[0]
    narrow = run(trace, scheme="4/8/6/10", overrides=["accumulator_bits=24", whole])
    assert row["overflows_24bit"] == narrow.summary["overflows"]
    assert row["area_pe_24bit_um2"] == pytest.approx(narrow.summary["area_um2"]["pe"])
    assert row["accumulator_bits"] == 40 and row["area_pe_24bit_um2"] < row["area_pe_um2"]


def test_24_bits_overflow_where_products_are_wide(trace: Path) -> None:
    machine = ["mapping.c_split=1", "clock_ghz=0.9"]
    row = compare(trace, schemes=["8/8/10/10"], overrides=machine).to_frame().iloc[0]
    narrow = run(trace, scheme="8/8/10/10", overrides=["accumulator_bits=24", *machine])
    assert row["overflows"] == 0
    assert row["overflows_24bit"] == narrow.summary["overflows"] > 0


def test_sqnr_by_hand(trace: Path) -> None:
    """A layer's is that of its psums against the float layer; the summary's is the MAC-weighted mean."""
    result = run(trace, scheme="8/8/-/-")
    floats = {layer.name: layer for layer in small_layers()}
    for activity, sqnr_db in zip(result.activities, result.layers["sqnr_db"], strict=True):
        g, layer = activity.layer.geometry, floats[activity.layer.name]
        padded = np.pad(layer.input.astype(float), ((0, 0), (0, 0), *[(p, p) for p in g.padding]))
        wanted = np.zeros((g.N, g.P, g.Q, g.K))
        depth, outputs = g.C // g.groups, g.K // g.groups
        for k in range(g.K):
            channels = slice(k // outputs * depth, (k // outputs + 1) * depth)
            for p in range(g.P):
                for q in range(g.Q):
                    h, w = p * g.stride[0], q * g.stride[1]
                    patch = padded[
                        :,
                        channels,
                        h : h + g.R * g.dilation[0] : g.dilation[0],
                        w : w + g.S * g.dilation[1] : g.dilation[1],
                    ]
                    wanted[:, p, q, k] = (patch * layer.weight[k]).sum(axis=(1, 2, 3))
        if layer.bias is not None:
            wanted += layer.bias
        wanted = wanted.reshape(g.pixels, g.K)
        scale = activity.computed.operands.weight_gamma * activity.computed.operands.input_gamma
        y = activity.psums * scale + (0 if layer.bias is None else layer.bias)
        expected = 10 * np.log10((wanted**2).sum() / ((y - wanted) ** 2).sum())
        assert sqnr_db == pytest.approx(expected, abs=1e-6) and sqnr_db > 25
    weights = result.layers["macs"]
    mean = (result.layers["sqnr_db"] * weights).sum() / weights.sum()
    assert result.summary["sqnr_db"] == pytest.approx(mean)


def test_progress_counts_layers(trace: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    compare(trace, schemes=["8/8/-/-", "4/4/4/4"], progress=lambda *step: heard.append(step))
    layers = len(GEOMETRIES)
    # Values are computed beside the rest, so the kinds of step may come in any order.
    for what in (f"{s} {kind}" for s in ("8/8/-/-", "4/4/4/4") for kind in ("mappings", "values", "cycles")):
        assert [step for step in heard if step[0] == what] == [(what, i + 1, layers) for i in range(layers)]
    assert len(heard) == 6 * layers


def test_quantize_options() -> None:
    assert quantize_options([]) == QuantizeOptions()
    options = quantize_options(["gamma_percentile=99.5", "elements=float_scale", "fold=never"])
    assert options == QuantizeOptions(gamma_percentile=99.5, elements="float_scale", fold="never")
    assert options == pickle.loads(pickle.dumps(options))


def test_fold_is_the_machines(trace: Path) -> None:
    packed_im2col, flat = run(trace), run(trace, overrides=["fold=never"])
    assert packed_im2col.activities[0].layer.G == 2 and flat.activities[0].layer.G == 9
    assert packed_im2col.layers["cycles"][0] < flat.layers["cycles"][0]


def test_fold_is_the_machines_with_quantize_options_too(trace: Path) -> None:
    flat = run(trace, overrides=["fold=never"], options=quantize_options(["gamma_calibration=max"]))
    assert flat.activities[0].layer.G == 9


def test_refusals(trace: Path, tmp_path: Path) -> None:
    arch = load_arch("magnet16")
    for call, words in [
        (lambda: run(tmp_path / "absent"), "no such file or bundled trace"),
        (lambda: run(tmp_path), "is a folder, expected a file"),
        (lambda: run(trace, "absent"), "no such file or preset"),
        (lambda: run(trace, arch, overrides=["pes=4"]), "not to an Arch object"),
        (lambda: run(trace, scheme="4/4"), "expected W/A/ws/as"),
        (lambda: run(trace, overrides=["pes=0"]), "pes = 0"),
        (lambda: compare(trace, schemes=[]), "no scheme given"),
        (lambda: compare(trace, schemes=["4/4/4/4", Scheme.integer(4, 4, 4, 4)]), "given twice"),
        (lambda: cost_table("flux_capacitor"), "'flux_capacitor' is unknown"),
        (lambda: quantize_options(["rounding=up"]), "rounding=up"),
        (lambda: Scheme.integer(9, 8), "weight bits is 9"),
    ]:
        with pytest.raises(AccelsimError, match=words) as error:
            call()
        assert "\n" not in str(error.value)


def test_an_error_message_is_one_line() -> None:
    assert str(AccelsimError("a\n  b\t\nc ")) == "a b c"
    assert isinstance(AccelsimError("x"), ValueError)


def test_cost_table_follows_the_machine() -> None:
    table = cost_table("sram")
    assert {"component", "quantity", "value", "unit", "node_nm", "source", "status"} <= set(table.columns)
    assert set(cost_table()["component"]) > {"sram", "dram", "dot_product", "ppu"}


@pytest.mark.parametrize("name", ["x" * 5000])
def test_an_arch_name_too_long(trace: Path, name: str) -> None:
    with pytest.raises(AccelsimError):
        run(trace, name)


def test_layers_of_the_wrong_type_are_refused() -> None:
    geometry = Geometry(1, 4, 4, 4, 4)
    weight, inputs = np.ones((4, 4, 1, 1), np.float32), np.ones((1, 4, 4, 4), np.float32)
    with pytest.raises(AccelsimError, match="layer a: bias is a list, expected a numpy array"):
        FloatLayer(Layer("a", "conv", geometry), weight, inputs, [0, 0, 0, 0])  # type: ignore[arg-type]
    with pytest.raises(AccelsimError, match="layer a: input is a NoneType"):
        FloatLayer(Layer("a", "conv", geometry), weight, None)  # type: ignore[arg-type]
    for name, value, least in (
        ("stride", 0, 1), ("stride", (2,), 1), ("padding", [1, 1, 1], 0), ("padding", -1, 0),
        ("dilation", True, 1), ("dilation", "11", 1), ("stride", (1, 2.0), 1),
    ):  # fmt: skip
        or_two = "two, or four" if name == "padding" else "or two"
        wanted = f"geometry: {name} is {value!r}, expected a whole number from {least}, {or_two}"
        with pytest.raises(AccelsimError, match=f"^{re.escape(wanted)}$"):
            Geometry(1, 4, 4, 4, 4, **{name: value})
    with pytest.raises(AccelsimError, match=r"H is 4\.0, expected a whole number from 1"):
        Geometry(1, 4, 4.0, 4, 4)  # type: ignore[arg-type]
    with pytest.raises(AccelsimError, match="expected a list of schemes such as"):
        compare("digits", schemes="4/4/4/4")
    with pytest.raises(AccelsimError, match="expected a list of KEY=VALUE"):
        run("digits", overrides="pes=4")


def test_a_geometry_keeps_plain_numbers_however_they_are_given() -> None:
    """NumPy integers, lists and one number for both axes: equal, of one hash, and the same JSON."""
    plain = Geometry(1, 4, 6, 6, 8, 3, 3, (2, 2), (1, 1), (1, 1), groups=2)
    one, two = np.int32(1), np.array([2, 2])
    given = Geometry(one, np.int64(4), *np.array([6, 6, 8]), 3, 3, list(two), 1, [one, 1], groups=two[0])
    assert given == plain and hash(given) == hash(plain) and repr(given) == repr(plain)
    assert json.dumps(asdict(given)) == json.dumps(asdict(plain))
    assert replace(given, padding=0) == replace(plain, padding=(0, 0))
    assert type(given.macs) is int and given.macs == plain.macs


def test_without_data_only_values_are_missing(trace: Path) -> None:
    """Cycles, area and every count that data do not decide are those of a run with data."""
    whole, timed = run(trace), run(trace, gated_fraction=0.25)
    assert list(whole.layers["cycles"]) == list(timed.layers["cycles"])
    pd.testing.assert_frame_equal(whole.area, timed.area)
    assert timed.summary["overflows"] is None and timed.summary["sqnr_db"] is None
    assert timed.summary["assumed_gated_fraction"] == 0.25
    for own, other in zip(timed.activities, whole.activities, strict=True):
        steps = own.counts["accumulator.add"]
        assert steps == other.counts["accumulator.add"]
        assert own.counts["dot_product.op"] + own.counts["dot_product.gated"] == steps
        padded = 0 if own.layer.packed_im2col else (own.layer.taps < 0).sum() * own.layer.words_per_position
        padded *= own.layer.geometry.K
        assert own.counts["dot_product.gated"] == padded + round(0.25 * (steps - padded))
        assert other.counts["dot_product.gated"] >= padded
    with pytest.raises(AccelsimError, match=r"gated fraction is 1\.5"):
        run(trace, gated_fraction=1.5)


@pytest.mark.kept(False)
def test_a_layer_that_cannot_be_mapped_ends_the_run_without_the_values_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four layers wait for their values when the fifth is refused; only one has been begun."""
    begun, seen, failed = [], [], Event()
    interval, choose, compute = sys.getswitchinterval(), Mapper.choose, values.compute

    def refuse(self: Mapper, layer: LayerSpec, residency: Residency, lead: Lead) -> Choice:
        seen.append(layer.name)
        if len(seen) == 5:
            Timer(0.2, failed.set).start()
            raise AccelsimError("no mapping")
        return choose(self, layer, residency, lead)

    def wait(request: ComputeRequest) -> Computed:
        begun.append(request.layer.name)
        assert failed.wait(60)
        return compute(request)

    monkeypatch.setattr(Mapper, "choose", refuse)
    monkeypatch.setattr(values, "compute", wait)
    with pytest.raises(AccelsimError, match="no mapping"):
        run("resnet18")
    assert begun == seen[:1]
    assert sys.getswitchinterval() == pytest.approx(interval)
