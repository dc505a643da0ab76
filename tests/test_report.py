"""The tables of a run agree with each other, with closed forms, and with the laws of energy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import GEOMETRIES

from accelsim.api import compare, run
from accelsim.costs import CostLibrary
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.mapping.residency import decide_residency
from accelsim.mapping.search.mapper import Mapper
from accelsim.quantize.layers import quantize_layer
from accelsim.report.inventory import build_inventory, technology_of
from accelsim.report.results import RunResult
from accelsim.sim.run import TimeRequest, time_layers
from accelsim.workload.geometry import Geometry
from accelsim.workload.layer import FloatLayer, Layer

pytestmark = pytest.mark.kept

SCOPES = ["datapath", "pe", "array", "system"]
STALL_REASONS = ["compute", "bubble", "output_wait", "weight_wait", "input_wait", "drain", "idle"]
# Wide lanes, and narrow ones whose per-vector outputs are staged; a machine that streams and waits.
MACHINES = {
    "magnet16": ("8/8/-/-", ()),
    "per-vector": ("4/4/4/4", ("pes=4",)),
    "staged": ("4/8/6/10", ("pes=5", "lanes=4", "out_fifo_words=64")),
    "tight": (
        "6/4/-/6",
        ("pes=2", "global_buffer_kb=8", "gb_weight_kb=3", "weight_buffer_words=8", "dram_bits_per_cycle=16"),
    ),
    "wide": ("4/4/4/-", ("pes=3", "vector_size=4", "lanes=8")),
}


class Tables:
    """A result folder read back: what any other program sees."""

    def __init__(self, folder: Path, result: RunResult) -> None:
        result.write(folder, plots=False)
        self.result = result
        self.summary = json.loads((folder / "summary.json").read_text())
        self.arch = self.summary["arch_parameters"]
        self.layers, self.components, self.area, self.stalls = (
            pd.read_csv(folder / f"{name}.csv") for name in ("layers", "components", "area", "stalls")
        )

    def count(self, layer: str, component: str, *actions: str) -> float:
        frame = self.components
        own = frame[(frame["layer"] == layer) & (frame["component"] == component)]
        assert set(actions) <= set(own["action"])
        return own.loc[own["action"].isin(actions), "count"].sum()


@pytest.fixture(scope="module", params=MACHINES)
def tables(request: pytest.FixtureRequest, trace: Path, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    scheme, overrides = MACHINES[request.param]
    folder = tmp_path_factory.mktemp("report") / "run"
    return Tables(folder, run(trace, scheme=scheme, overrides=overrides))


def test_energy_adds_up(tables: Tables) -> None:
    frame, summary = tables.components, tables.summary
    assert set(frame["scope"]) == set(SCOPES)
    assert (frame["count"] >= 0).all() and (frame["energy_per_action_pj"] >= 0).all()
    np.testing.assert_allclose(frame["energy_pj"], frame["count"] * frame["energy_per_action_pj"], rtol=1e-12)
    inside: list[str] = []
    for scope in SCOPES:
        inside.append(scope)
        own = frame[frame["scope"].isin(inside)]
        assert summary["energy_pj"][scope] == pytest.approx(own["energy_pj"].sum(), rel=1e-9)
        by_layer = own.groupby("layer")["energy_pj"].sum()
        for row in tables.layers.itertuples():
            assert getattr(row, f"energy_{scope}_pj") == pytest.approx(by_layer[row.layer], rel=1e-9)
    energies = [summary["energy_pj"][scope] for scope in SCOPES]
    assert energies == sorted(energies) and energies[0] > 0 and len(set(energies)) == 4
    layers = tables.layers
    np.testing.assert_allclose(layers["fj_per_op"], 1e3 * layers["energy_system_pj"] / layers["macs"] / 2)
    assert sum(summary["energy_evidence"].values()) == pytest.approx(1)


def test_area_adds_up(tables: Tables) -> None:
    frame, summary = tables.area, tables.summary
    np.testing.assert_allclose(frame["area_um2"], frame["instances"] * frame["area_each_um2"])
    placed = frame["area_um2"] / tables.arch["placement_utilization"]
    np.testing.assert_allclose(frame["placed_area_um2"], placed)
    for depth, scope in enumerate(SCOPES[:3]):
        own = placed[frame["scope"].isin(SCOPES[: depth + 1])].sum()
        each = own / tables.arch["pes"] if scope != "array" else own
        assert summary["area_um2"][scope] == pytest.approx(each)
    assert summary["area_um2"]["datapath"] < summary["area_um2"]["pe"] < summary["area_um2"]["array"]
    assert frame.loc[frame["scope"] == "system", "area_um2"].sum() == 0
    assert (frame["source"].str.len() > 0).all() and (frame["evidence"].str.len() > 0).all()
    assert set(frame["component"]) == set(tables.components["component"])


def test_cycles_add_up(tables: Tables) -> None:
    layers, stalls, pes = tables.layers, tables.stalls, tables.arch["pes"]
    assert layers["cycles"].sum() == tables.summary["cycles"]
    assert list(layers["layer"]) == list(GEOMETRIES)
    assert len(stalls) == len(layers) * pes * len(STALL_REASONS) and (stalls["cycles"] >= 0).all()
    assert list(stalls["stall_reason"].unique()) == STALL_REASONS
    by_pe = stalls.groupby(["layer", "pe"])["cycles"].sum()
    for row in layers.itertuples():
        assert len(by_pe[row.layer]) == pes and (by_pe[row.layer] == row.cycles).all()
        own = stalls[stalls["layer"] == row.layer].groupby("stall_reason")["cycles"].sum()
        for reason in STALL_REASONS:
            share = getattr(row, f"{reason}_share")
            assert share == pytest.approx(own[reason] / (row.cycles * pes))
        assert own["compute"] > 0
    peak = tables.arch["pes"] * tables.arch["lanes"] * tables.arch["vector_size"]
    np.testing.assert_allclose(layers["utilization"], layers["macs"] / layers["cycles"] / peak)
    assert (layers["utilization"] <= layers["compute_share"] + 1e-12).all()


def test_counts_have_their_closed_forms(tables: Tables) -> None:
    """What docs/counts.md says of a layer's work, whatever its mapping."""
    arch, scheme = tables.arch, Scheme.parse(tables.summary["scheme"])
    v, lanes = arch["vector_size"], arch["lanes"]
    for row in tables.layers.itertuples():
        g, layer = GEOMETRIES[row.layer], row.layer
        outputs = g.K // g.groups
        vectors = g.vectors(v)
        unit = max(v, lanes)
        sizes = [min(unit, outputs - k) for k in range(0, outputs, unit)]
        lane_groups = g.groups * sum(-(-size // lanes) for size in sizes)
        steps, entries = g.pixels * g.K * vectors, g.pixels * lane_groups * vectors
        assert row.macs == g.macs
        assert tables.count(layer, "dot_product", "op", "gated") == steps
        assert tables.count(layer, "accumulator", "add") == steps
        assert row.gated_fraction == pytest.approx(tables.count(layer, "dot_product", "gated") / steps)
        done = tables.count(layer, "dot_product", "op")
        assert 0 < done < steps + 1
        assert tables.count(layer, "pipeline_register", "write") == done
        parts = set(tables.components["component"])
        assert ("scale_multiply" in parts) == scheme.has_scales
        if scheme.has_scales:
            assert tables.count(layer, "scale_multiply", "op") == done
            both = bool(scheme.weight.scale.bits and scheme.activation.scale.bits)
            assert tables.count(layer, "scale_product", "op") == done * both
        # A chain reads what it sends, and reads and writes what it adds to.
        passed = g.pixels * lane_groups * (row.c_split - 1)
        assert tables.count(layer, "accumulation_collector", "write") == entries + passed
        # One read a step but the first of each pixel and part, and one a pixel by the drain.
        assert tables.count(layer, "accumulation_collector", "read") == entries + passed
        assert tables.count(layer, "psum_adder", "add") == g.pixels * g.K * (row.c_split - 1)
        assert tables.count(layer, "ppu", "op") == g.pixels * g.K
        if scheme.activation.scale.bits:
            per_pixel = g.groups * -(-outputs // v)
            assert tables.count(layer, "ppu_vector_scale", "op") == g.pixels * per_pixel
        reads = tables.count(layer, "weight_buffer", "read")
        assert tables.count(layer, "weight_register", "write") == reads
        assert tables.count(layer, "weight_zero_detect", "op") == reads
        reads = tables.count(layer, "input_buffer", "read")
        assert tables.count(layer, "input_register", "write") == reads <= entries
        padding = int((g.tap_positions() < 0).sum()) if not g.packed_im2col(v) else 0
        assert reads == entries - padding * lane_groups * -(-g.C // g.groups // v)
        assert tables.count(layer, "control", "cycle") == arch["pes"] * row.cycles
        assert tables.count(layer, "dram", "bit") == row.dram_read_bits + row.dram_write_bits
        elements = {"middle": 90, "matmul": 60}.get(layer, 0)
        assert tables.count(layer, "global_pe", "op") == elements
        assert tables.count(layer, "out_fifo", "write") == tables.count(layer, "out_fifo", "read")


def test_the_first_layer_reads_and_the_last_writes_dram(tables: Tables) -> None:
    layers = tables.layers.set_index("layer")
    bits = Scheme.parse(tables.summary["scheme"]).activation.bits
    g = GEOMETRIES["matmul"]
    assert layers.loc["matmul", "dram_write_bits"] >= g.pixels * g.K * bits
    assert layers.loc["first", "dram_read_bits"] > 0
    if tables.arch["global_buffer_kb"] == 512:
        assert (layers["dram_write_bits"].iloc[:-1] == 0).all()
        # Its input is there already; the weight operand of a chain comes from outside.
        operand = Scheme.parse(tables.summary["scheme"]).weight.in_blocks(tables.arch["vector_size"])
        words = g.K * g.vectors(tables.arch["vector_size"])
        assert layers.loc["matmul", "dram_read_bits"] == words * operand.word_bits


def test_every_count_has_a_price(tables: Tables) -> None:
    """A count that no part charges for would be energy for free."""
    result, arch = tables.result, tables.result.report.arch
    parts = build_inventory(arch, result.report.scheme, CostLibrary(technology_of(arch)))
    charged = {name for part in parts for names in part.actions.values() for name in names}
    for activity in result.activities:
        assert set(activity.counts) <= charged
        for part in parts:
            for action, names in part.actions.items():
                counted = sum(activity.counts[name] for name in names)
                assert tables.count(activity.layer.name, part.name, action) == counted


def test_staging_is_there_when_lanes_are_narrow(trace: Path) -> None:
    staged = run(trace, scheme="4/8/6/10", overrides=["lanes=4", "out_fifo_words=64"])
    wide = run(trace, scheme="4/8/6/10")
    assert "ppu_staging" in set(staged.area["component"])
    assert "ppu_staging" not in set(wide.area["component"])
    frame = staged.to_frame()
    used = frame[(frame["component"] == "ppu_staging") & frame["action"].isin(["read", "write"])]
    assert used["count"].sum() > 0


def energies(result: RunResult) -> pd.DataFrame:
    return result.to_frame().set_index(["layer", "scope", "component", "action"])


def test_a_faster_clock_leaks_less(trace: Path) -> None:
    """At clocks that the same netlists meet."""
    slow, fast = (run(trace, scheme="4/4/4/4", overrides=[f"clock_ghz={ghz}"]) for ghz in (0.2, 0.4))
    one, other = energies(slow), energies(fast)
    leakage = one.index.get_level_values("action") == "leakage"
    assert leakage.sum() > 10 and (one.loc[leakage, "energy_pj"] > 0).any()
    np.testing.assert_allclose(other.loc[leakage, "energy_pj"], one.loc[leakage, "energy_pj"] / 2)
    pd.testing.assert_frame_equal(other.loc[~leakage], one.loc[~leakage])
    assert fast.summary["cycles"] == slow.summary["cycles"]
    for key in ("tops_per_mm2", "peak_tops_per_mm2"):
        assert fast.summary[key] == pytest.approx(2 * slow.summary[key])


@pytest.mark.parametrize("change", ["node_nm=7", "voltage_v=0.6"])
def test_technology_prices_and_does_not_count(trace: Path, change: str) -> None:
    here, there = (
        run(trace, scheme="4/4/4/4", overrides=["clock_ghz=0.1", *more]) for more in ((), (change,))
    )
    pd.testing.assert_frame_equal(here.report.stalls, there.report.stalls)
    one, other = energies(here), energies(there)
    pd.testing.assert_series_equal(one["count"], other["count"])
    for old, new in zip(here.activities, there.activities, strict=True):
        assert old.cycles == new.cycles
        np.testing.assert_array_equal(old.psums, new.psums)
    for scope in SCOPES[:3]:
        assert there.summary["energy_pj"][scope] < here.summary["energy_pj"][scope]
        smaller = there.summary["area_um2"][scope] < here.summary["area_um2"][scope]
        assert smaller == change.startswith("node")
    dram = one.index.get_level_values("component") == "dram"
    pd.testing.assert_frame_equal(one[dram], other[dram])


def test_more_pes_are_more_area_and_no_more_work(trace: Path) -> None:
    four, eight = (run(trace, overrides=[f"pes={pes}"]) for pes in (4, 8))
    assert eight.summary["area_um2"]["pe"] == pytest.approx(four.summary["area_um2"]["pe"])
    assert eight.summary["area_um2"]["array"] > four.summary["area_um2"]["array"]
    work = [
        frame.loc[
            (frame["component"] == "dot_product") & frame["action"].isin(["op", "gated"]), "count"
        ].sum()
        for frame in (four.to_frame(), eight.to_frame())
    ]
    assert work[0] == work[1] == sum(g.pixels * g.K * g.vectors(16) for g in GEOMETRIES.values())


def test_load_arch_and_names_agree(trace: Path) -> None:
    """An arch by name with overrides, and the same as an object, are the same machine."""
    by_name = run(trace, overrides=["pes=4"])
    by_object = run(trace, load_arch("magnet16", ["pes=4"]))
    by_name.summary.pop("wall_s"), by_object.summary.pop("wall_s")
    assert by_name.summary == by_object.summary
    pd.testing.assert_frame_equal(by_name.to_frame(), by_object.to_frame())


def test_cached_inputs_are_read_from_dram_once() -> None:
    """Tiles of a 3x3 layer overlap; what one has brought, the next does not read again."""
    rng = np.random.default_rng(0)
    geometry = Geometry(1, 16, 24, 24, 16, 3, 3, padding=(1, 1))
    weight = rng.standard_normal((16, 16, 3, 3)).astype(np.float32)
    inputs = np.abs(rng.standard_normal((1, 16, 24, 24))).astype(np.float32)
    layer = FloatLayer(Layer("conv", "conv", geometry, input_signed=False), weight, inputs)
    arch = load_arch("magnet16", ["pes=1", "mapping.tile_pixels=16"])
    words = quantize_layer(layer, Scheme.parse("8/8/-/-"), 16)
    mapper, (residency,) = Mapper(arch), decide_residency(arch, [words.spec])
    program = mapper.program(mapper.choose(words.spec, residency), words.spec, residency)
    assert program.residency.input == "cached" and len(program.input_streams[0].fetches) > 30
    activity = time_layers(TimeRequest(arch, [program]))[0]
    assert activity.counts["dram.read_bit"] == (24 * 24 + 16 * 9) * 16 * 8


def test_runs_of_units_end_at_a_group() -> None:
    """Depthwise: every unit is a group of its own, so a larger tile would be one in name only."""
    layers = run("digits", scheme="4/4/4/4").layers.set_index("layer")
    assert layers.loc["depthwise3", "units_per_tile"] == 1


def test_the_24_bit_columns_follow_the_overflow_mode() -> None:
    wrap = ["overflow=wrap", "mapping.c_split=1"]
    row = compare("digits", schemes=["4/8/6/10"], overrides=wrap).to_frame().iloc[0]
    real = run("digits", scheme="4/8/6/10", overrides=[*wrap, "accumulator_bits=24"]).summary
    assert (row["overflows_24bit"], row["sqnr_db_24bit"]) == (real["overflows"], real["sqnr_db"])
    assert real["overflows"] > 0


def test_layers_say_where_their_operands_live() -> None:
    layers = run("digits", scheme="8/8/-/-").layers.set_index("layer")
    columns = ["weights_from", "input_from", "output_to"]
    assert list(layers.loc["conv1", columns]) == ["cached", "cached", "gb"]
    assert list(layers.loc["conv2", columns]) == ["cached", "gb", "gb"]
    assert layers.loc["fc", "output_to"] == "dram"
