"""Published figures beside modelled ones: each has a model or a reason, and the models are right."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import doc_pictures
import numpy as np
import pandas as pd
import pytest
from conftest import contents

import accelsim
from accelsim.api import clock_table, compare
from accelsim.cli.main import app
from accelsim.costs import tables
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch, presets
from accelsim.network import RunRequest, run_network
from accelsim.report.inventory import CLOCK_TREES, SCOPES, build_inventory, dot_bits, technology_of
from accelsim.validation import result as result_module
from accelsim.validation import tornado as tornado_module
from accelsim.validation.errors import error_table
from accelsim.validation.models import MODELS
from accelsim.validation.plots import plot_tornado, plot_validation
from accelsim.validation.published import published, published_accuracies
from accelsim.validation.result import ValidationResult, free_parameters
from accelsim.validation.runs import Runs, matmul
from accelsim.validation.split import energy_by_component
from accelsim.validation.tornado import ENERGY_ERROR, FIGURES, tornado, varied_parameters

pytestmark = pytest.mark.kept

# Need neither ResNet-50 nor BERT.
LIGHT = (
    *("vsq_effective_bits", "keller_mhz_0.60V", "keller_mhz_0.70V", "keller_vsq_density_0"),
    *("keller_vsq_density_30", "keller_split_int8_a_buffer", "plena_mxint_pe_4x4", "horowitz_int8_mult"),
    *("dally_lpddr_hbm", "intfp_nvint4"),
)


@pytest.fixture(scope="module")
def runs() -> Runs:
    return Runs()


def only_light(patch: pytest.MonkeyPatch) -> None:
    few = {key: published()[key] for key in LIGHT}
    patch.setattr(result_module, "published", lambda: few)


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """`validate` is of a few light rows only."""
    only_light(monkeypatch)


@pytest.fixture(scope="module")
def light_result() -> ValidationResult:
    """Of those rows, for all that reads it."""
    with pytest.MonkeyPatch.context() as patch:
        only_light(patch)
        return accelsim.validate()


def modelled(key: str, runs: Runs, **changes: str) -> dict[str, float]:
    row = replace(published()[key], **changes)
    return MODELS[row.model](row, runs)


# -- the rows -------------------------------------------------------------------------------------------
def test_every_row_is_modelled_or_has_a_reason() -> None:
    assert len(published()) == 107
    for row in published().values():
        assert bool(row.model) or row.reason, row.id
        assert row.model in MODELS or not row.model, row.id
        assert row.value > 0 and row.unit and row.source and row.claim and row.family and row.quantity, row.id
        assert not row.sets or row.model, row.id
        assert row.scope in ("", *SCOPES), row.id
        if row.scheme:
            Scheme.parse(row.scheme)
        if row.machine:
            assert row.machine in presets(), row.id


def test_every_model_is_used() -> None:
    assert {row.model for row in published().values() if row.model} == set(MODELS)


def test_the_abstract_is_of_4_4_4_6_and_of_4_8_6_10() -> None:
    rows = published()
    assert {rows[f"vsq_resnet50_{quantity}"].scheme for quantity in ("area", "energy")} == {"4/4/4/6"}
    assert rows["vsq_bert_area"].scheme == "4/8/6/10"
    # The abstract's savings are the points of Figures 4 to 6, rounded.
    for claim, point in (
        ("vsq_resnet50_area", "vsq_fig4_6_4_4_4_6_area"),
        ("vsq_resnet50_energy", "vsq_fig4_6_4_4_4_6_energy"),
        ("vsq_bert_area", "vsq_fig4_6_4_8_6_10_area"),
    ):
        assert round(100 * (1 - rows[point].value)) == rows[claim].value
        assert rows[point].scheme == rows[claim].scheme


def test_the_scheme_of_a_row_is_that_of_its_claim() -> None:
    for row in published().values():
        if row.family.startswith("VS-Quant Figure"):
            name = row.claim.split(" of ")[1].split(",")[0].split(" ")[0]
            assert name == row.scheme, row.id
            assert (":sp" in row.scheme) == row.family.endswith("rounded"), row.id


def test_one_set_of_parameters_for_all_rows_of_a_machine() -> None:
    for row in published().values():
        if row.family.startswith("VS-Quant Figure"):
            assert (row.machine, row.scope, row.overrides, row.sets) == ("magnet16", "pe", (), ""), row.id


def test_free_parameters_name_the_rows_that_set_them() -> None:
    rows = free_parameters()
    assert all(row["value"] and row["why"] for row in rows)
    setting = {row.id for row in published().values() if row.sets}
    assert {row["set_by"] for row in rows if row["set_by"]} == setting
    value = {(row["machine"], row["parameter"]): row["value"] for row in rows}
    assert value["keller5", "activation_sign"] == load_arch("keller5").activation_sign


def test_published_accuracies() -> None:
    assert published_accuracies("ResNet-50")["4/4/4/6"] == 75.04
    assert published_accuracies("BERT-base")["4/8/6/10"] == 86.35
    assert "fp" not in "".join(published_accuracies("BERT-large"))


# -- the machine of Keller et al. -----------------------------------------------------------------------
def test_keller5_has_the_published_widths_and_sizes() -> None:
    arch, scheme = load_arch("keller5"), Scheme.parse("4/4/8/8:sp8")
    word_bits = scheme.weight.in_blocks(arch.vector_size).word_bits
    assert word_bits == 64 * 4 + 8
    kib = 66 * 8192
    assert arch.weight_buffer_words * arch.lanes * word_bits == arch.input_buffer_words * word_bits == kib
    assert dot_bits(arch, scheme) + scheme.scale_bits == 22
    assert arch.accumulator_width(scheme) * arch.lanes == 384
    assert (arch.lanes, arch.vector_size, arch.accumulation_collector_depth) == (16, 64, 16)
    assert list(map(str, arch.served)) == ["8/8/-/-@32", "4/4/-/-@64", "4/4/8/8@64:sp8"]
    int8 = arch.in_mode(Scheme.parse("8/8/-/-"))
    assert int8.vector_size * int8.lanes == arch.vector_size * arch.lanes // 2


# -- the models, each against another way to its figure -------------------------------------------------
def test_ratios_are_those_of_runs_put_side_by_side(runs: Runs) -> None:
    schemes = ["8/8/-/-", "4/4/4/6"]
    table = accelsim.compare(matmul(), schemes=schemes, gated_fraction=0.0).to_frame().set_index("scheme")
    energy = modelled("vsq_fig4_6_4_4_4_6_energy", runs, workload="matmul")
    area = modelled("vsq_fig4_6_4_4_4_6_area", runs, workload="matmul")
    saved = modelled("vsq_resnet50_area", runs, workload="matmul")
    assert list(energy) == list(SCOPES) and list(area) == list(SCOPES[:-1])
    for scope in SCOPES:
        column = table[f"energy_{scope}_pj"]
        assert energy[scope] == pytest.approx(column["4/4/4/6"] / column["8/8/-/-"])
    for scope in SCOPES[:-1]:
        assert saved[scope] == pytest.approx(table[f"area_{scope}_saved_percent"]["4/4/4/6"])
        assert saved[scope] == pytest.approx(100 * (1 - area[scope]))


def test_energy_and_density_per_operation(runs: Runs) -> None:
    summary = accelsim.run(matmul(), scheme="8/8/-/-", gated_fraction=0.0).summary
    energy = modelled("magnet_resnet50_energy", runs, workload="matmul")
    density = modelled("magnet_resnet50_density", runs, workload="matmul")
    assert energy == pytest.approx(summary["fj_per_op"])
    assert density["array"] == pytest.approx(summary["tops_per_mm2"])
    assert density["pe"] == pytest.approx(
        density["array"] * summary["area_um2"]["array"] / (16 * summary["area_um2"]["pe"])
    )


def test_parts_add_up_and_carry_their_share_of_the_clock_tree(runs: Runs) -> None:
    report = runs.report("magnet16", "matmul", "8/8/-/-")
    for scope in SCOPES[:-1]:
        parts = energy_by_component(report, scope)
        assert sum(parts.values()) == pytest.approx(report.energy_pj(scope))
        assert not set(parts) & set(CLOCK_TREES.values())
    # A component has that part of its scope's tree that it has of the scope's other dynamic energy.
    rows = report.components[report.components["scope"] == "pe"]
    tree, own = rows["component"] == CLOCK_TREES["pe"], rows["component"] == "weight_buffer"
    dynamic = rows["action"] != "leakage"
    spread = rows.loc[tree, "energy_pj"].sum() / rows.loc[dynamic & ~tree, "energy_pj"].sum()
    expected = rows.loc[own, "energy_pj"].sum() + spread * rows.loc[own & dynamic, "energy_pj"].sum()
    assert energy_by_component(report, "pe")["weight_buffer"] == pytest.approx(expected)


def test_shares_of_a_breakdown(runs: Runs) -> None:
    shares = {part: modelled(f"magnet_breakdown_{part}", runs, workload="matmul") for part in
              ("math", "memory", "movement")}  # fmt: skip
    report = runs.report("magnet16", "matmul", "8/8/-/-")
    assert shares["math"]["pe"] == pytest.approx(100 * report.energy_pj("datapath") / report.energy_pj("pe"))
    assert shares["movement"]["pe"] == 0 < shares["movement"]["array"]
    assert sum(own["array"] for own in shares.values()) < 100


def test_table_2_adds_up_to_the_pe_and_to_the_overhead(runs: Runs) -> None:
    parts = ("datapath", "a_buffer", "b_buffer", "accumulation_collector", "other")
    total = {
        mode: sum(modelled(f"keller_split_{mode}_{part}", runs)["pe"] for part in parts)
        for mode in ("int8", "int4", "int4_vsq")
    }
    int4 = runs.report("keller5", "matmul@1/0.3", "4/4/-/-")
    int8 = runs.report("keller5", "matmul@1/0.3", "8/8/-/-")
    assert total["int4"] == pytest.approx(int4.energy_pj("pe") / int4.energy_pj("datapath"))
    assert total["int8"] == pytest.approx(int8.energy_pj("pe") / int4.energy_pj("datapath"))
    overhead = modelled("keller_vsq_overhead", runs)["pe"]
    assert overhead == pytest.approx(100 * (total["int4_vsq"] / total["int4"] - 1))


def test_the_clock_follows_the_delay_law(runs: Runs) -> None:
    (law,) = [row for row in csv_rows("logic_scaling.csv") if row["node_nm"] == "7"]

    def delay(volts: float) -> float:
        return sum(float(law[f"delay_d{power}"]) * volts**power for power in range(4))

    for key, row in published().items():
        if row.model == "clock_mhz":
            volts = float(key.removeprefix("keller_mhz_").removesuffix("V"))
            expected = 1070 * delay(0.70) / delay(volts)
            assert modelled(key, runs)[""] == pytest.approx(expected), key


def test_a_supply_is_priced_at_its_clock(runs: Runs) -> None:
    """Against a machine of that supply and clock that is run as such."""
    mhz = modelled("keller_mhz_0.80V", runs)[""]
    arch = load_arch("keller5", ["voltage_v=0.8", f"clock_ghz={mhz / 1e3}"])
    whole = accelsim.run(matmul(0.5, 0.5), arch, "4/4/8/8:sp8", keep_tensors=False).summary
    found = modelled("keller_vsq_tops_w_0.80V", runs)
    assert found["pe"] == pytest.approx(1e3 / whole["fj_per_op"]["pe"])
    idle = modelled("keller_vsq_density_0", runs)["pe"]
    assert idle > 1.2 * modelled("keller_vsq_density_50", runs)["pe"]
    per_joule = modelled("keller_resnet50_rate", runs, workload="matmul")["pe"]
    per_watt = modelled("keller_resnet50_tops_w", runs, workload="matmul")["pe"]
    assert per_joule * 2 * 1024**3 / 1e12 == pytest.approx(per_watt)


def test_the_pe_serves_all_three_modes_and_reads_its_operands_as_published(runs: Runs) -> None:
    arch = load_arch("keller5")
    library = runs.library(technology_of(arch))
    areas = [
        sum(
            part.instances * part.cost.area_um2
            for part in build_inventory(arch.in_mode(mode), mode, library)
            if part.scope in ("datapath", "pe")
        )
        for mode in arch.served
    ]
    assert areas == pytest.approx([modelled("keller_area", runs)["pe"] * 0.601 * 1e6] * 3)
    for mode in ("4/4/-/-", "4/4/8/8:sp8"):
        report = runs.report("keller5", "matmul@1/0.3", mode)
        counts = report.components.set_index(["component", "action"])["count"]
        steps = counts["dot_product", "op"] / 16
        # Of the 16 lanes one reads its operand A in a step, which stays for 16; all get a new B.
        assert counts["weight_buffer", "read"] == counts["input_buffer", "read"] == steps


def test_where_all_operands_are_zero_nothing_changes(runs: Runs) -> None:
    report = runs.report("keller5", "matmul@0/0", "4/4/8/8:sp8")
    rows = report.components.set_index(["component", "action"])
    for part in ("dot_product", "scale_product", "scale_multiply", "operand_wires"):
        assert rows.loc[part, "energy_pj"].iloc[0] == 0, part
    register = rows.loc[("input_register", "write")]
    assert 0 < register["activity"] < 0.9 and register["count"] > 0


def test_single_units(runs: Runs) -> None:
    assert modelled("vsq_effective_bits", runs)[""] == 4 + 4 / 16
    pj_per_bit = next(float(row["value"]) for row in csv_rows("system.csv") if row["key"] == "dram_lpddr4")
    assert modelled("dally_lpddr_hbm", runs)[""] == 32 * pj_per_bit
    areas = [modelled(f"plena_mxint_pe_{widths}", runs)[""] for widths in ("4x4", "4x8", "8x8")]
    assert areas == sorted(areas)
    multiply, add = (modelled(f"horowitz_int8_{op}", runs)[""] for op in ("mult", "add"))
    assert multiply > add > 0 and modelled("dally_local_sram", runs)[""] > add


def test_equal_work_is_simulated_once(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    import accelsim.validation.runs as module

    ran: list[Scheme] = []

    def counted(request: RunRequest) -> object:
        ran.append(request.scheme)
        return run_network(request)

    monkeypatch.setattr(module, "run_network", counted)
    fresh = Runs()
    for key in published():
        if key.startswith("keller_vsq_tops_w") or key.startswith("keller_split_int4_vsq"):
            modelled(key, fresh)
    # That of a stated density is another.
    assert sorted(map(str, ran)) == ["4/4/-/-", "4/4/8/8:sp8", "4/4/8/8:sp8"]


# -- errors ---------------------------------------------------------------------------------------------
def frame(published: list[float], modelled: list[float], status: list[str]) -> pd.DataFrame:
    own = pd.DataFrame({"published": published, "modelled": modelled, "status": status})
    own["id"] = [f"row{index}" for index in range(len(own))]
    return own.assign(family="all", quantity="energy", ratio=own["modelled"] / own["published"])


def test_errors_of_a_family() -> None:
    rows = frame([1.0, 2.0, 4.0, 5.0, 7.0], [1.1, 1.8, 5.0, 9.0, 7.0], ["predicted"] * 5)
    (line,) = error_table(rows).to_dict("records")
    assert (line["predicted"], line["not_modelled"]) == (5, 0)
    assert line["median_ratio"] == pytest.approx(1.1)
    assert line["median_error_percent"] == pytest.approx(10.0)
    assert line["worst_error_percent"] == pytest.approx(80.0) and line["worst"] == "row3"
    assert line["worst_from_median_percent"] == pytest.approx(100 * (1.8 / 1.1 - 1))
    # Ranks differ where 9 is ahead of 7: 1 - 6 * (1 + 1) / (5 * 24).
    assert line["rank_correlation"] == pytest.approx(0.9)


def test_rows_that_set_a_parameter_or_are_not_modelled_are_no_prediction() -> None:
    nan = float("nan")
    rows = frame([1.0, 2.0, 4.0], [2.0, 2.0, nan], ["sets clock", "predicted", "not modelled"])
    (line,) = error_table(rows).to_dict("records")
    assert (line["predicted"], line["not_modelled"]) == (1, 1)
    assert line["worst_error_percent"] == 0 and np.isnan(line["rank_correlation"])


# -- the command ----------------------------------------------------------------------------------------
def test_result_has_a_row_for_each_figure(light_result: ValidationResult) -> None:
    rows = light_result.to_frame().set_index("id")
    assert list(rows.index) == list(LIGHT)
    assert rows["status"].value_counts().to_dict() == {"predicted": 8, "not modelled": 1, "sets clock": 1}
    assert rows.loc["vsq_effective_bits", ["ratio", "reason"]].tolist() == [1.0, ""]
    known = rows[rows["status"] != "not modelled"]
    assert np.allclose(known["ratio"], known["modelled"] / known["published"])
    missed = (known["ratio"] - 1).abs() > 0.05
    assert (known["reason"] != "").tolist() == missed.tolist()
    own = rows.loc["keller_vsq_density_0"]
    assert own["best_scope"] == "pe" and own["best_ratio"] == own["ratio"]
    assert own["modelled"] == own["modelled_pe"] and own["modelled_datapath"] > own["modelled_pe"]
    assert "Keller clock" in repr(light_result)


@pytest.mark.usefixtures("light")
def test_csv_holds_every_figure_and_nothing_else(
    light_result: ValidationResult, capsys: pytest.CaptureFixture[str]
) -> None:
    app(["validate", "--csv"], standalone_mode=False)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["id"] for row in rows] == list(LIGHT)
    assert light_result.rows["modelled"].dropna().tolist() == [
        float(row["modelled"]) for row in rows if row["modelled"]
    ]


@pytest.mark.usefixtures("light")
def test_json_holds_every_table(light_result: ValidationResult, capsys: pytest.CaptureFixture[str]) -> None:
    app(["validate", "--json"], standalone_mode=False)
    found, result = json.loads(capsys.readouterr().out), light_result
    assert list(found) == ["figures", "parameters", "errors"]
    for name, frame in ("figures", result.rows), ("parameters", result.parameters), ("errors", result.errors):
        assert [list(row) for row in found[name]] == [list(frame)] * len(frame)
        for column in frame:
            assert [row[column] for row in found[name]] == [v if v == v else None for v in frame[column]]


@pytest.mark.usefixtures("light")
def test_terminal_says_what_is_not_modelled_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    app(["validate"], standalone_mode=False)
    text = capsys.readouterr().out
    for key in LIGHT:
        assert key in text
        if published()[key].status == "not modelled":
            assert published()[key].reason in text
    assert "sets clock" in text and "Free parameters" in text


def test_a_folder_is_written_once_and_again(light_result: ValidationResult, tmp_path: Path) -> None:
    for _ in range(2):
        light_result.write(tmp_path / "out", plots=False)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"validate.csv", "errors.csv", "free_parameters.csv"}


def test_refusals() -> None:
    with pytest.raises(accelsim.AccelsimError, match="costs nowhere: no such folder"):
        accelsim.validate(costs="nowhere")
    with pytest.raises(accelsim.AccelsimError, match="gated fraction is 2, expected 0 to 1"):
        accelsim.validate(gated_fraction=2)


def test_figures_are_drawn_and_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    own = [row for row in published().values() if row.family.startswith("VS-Quant Figure")]
    columns = ("id", "quantity", "workload", "machine", "scheme")
    rows = pd.DataFrame([{name: getattr(row, name) for name in columns} for row in own])
    rows["published"] = [row.value for row in own]
    rows["modelled"] = 1.1 * rows["published"]
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        plot_validation(rows, folder)
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(f"figure{n}.{kind}" for n in (3, 4, 5, 6) for kind in ("png", "svg"))
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    for figure, scheme, accuracy in (
        (4, "4/4/4/6", "75.04"),
        (5, "4/8/6/10", "86.35"),
        (6, "3/8/4/10", "88.86"),
    ):
        text = (first / f"figure{figure}.svg").read_text()
        assert f"{scheme}, {accuracy}" in text
    assert "4/8/6/10" not in (first / "figure4.svg").read_text()


@pytest.mark.slow
@pytest.mark.long
def test_all_figures(tmp_path: Path) -> None:
    result = accelsim.validate()
    known = result.rows[result.rows["status"] != "not modelled"]
    assert len(result.rows) == len(published()) and np.isfinite(known["modelled"]).all()
    table = compare("bert-base", schemes=["8/8/-/-", "4/8/6/10"], gated_fraction=0.0).to_frame()
    (own,) = known.loc[known["id"] == "vsq_fig4_6_4_8_6_10_energy", "modelled"]
    assert own == pytest.approx(table["energy_pe_pj"][1] / table["energy_pe_pj"][0])
    errors = result.errors.set_index(["family", "quantity"])
    assert errors.loc[("VS-Quant Figures 3 to 6", "energy"), "median_error_percent"] < 10
    doc_pictures.picture_script("savings").draw(result.rows, tmp_path / "savings.svg")
    doc_pictures.check_picture(tmp_path / "savings.svg")


def csv_rows(name: str) -> list[dict[str, str]]:
    with (tables.TABLES_DIR / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_energy_falls_with_density_and_zeros_count_where_they_stay(runs: Runs) -> None:
    """The shape of the published curve: within 30 % at every density once the level is divided out."""
    shares = (10, 30, 50, 70, 100)
    found = [modelled(f"keller_vsq_density_{share}", runs)["pe"] for share in shares]
    said = [published()[f"keller_vsq_density_{share}"].value for share in shares]
    assert sorted(found, reverse=True) == found
    np.testing.assert_allclose(np.array(found) / found[2], np.array(said) / said[2], rtol=0.3)
    assert modelled("keller_swap", runs)["pe"] < 0, "zeros save more in the operand that stays"


# -- what publications leave open -----------------------------------------------------------------------
def test_ends_of_free_parameters(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against runs at those settings, on a small workload; the largest mover comes first."""
    claims = ("vsq_fig4_6_4_4_4_6_energy", "vsq_fig4_6_4_8_6_10_energy", "vsq_fig4_6_4_4_4_6_area")
    rows = {key: replace(published()[key], workload="matmul") for key in claims}
    monkeypatch.setattr(tornado_module, "published", lambda: rows)
    ends = [
        ("scope", "scope=datapath", ""), ("activity", "", "gated_fraction=0.5"),
        ("lanes", "lanes=8", "lanes=32"), ("voltage_v", "voltage_v=0.7 clock_ghz=0.8", "voltage_v=0.9"),
        ("workload", "", "workload=resnet50@batch=2"),
    ]  # fmt: skip
    parameters = [{"parameter": name, "low": low, "high": high} for name, low, high in ends]
    monkeypatch.setattr(tornado_module, "varied_parameters", lambda: parameters)
    frame = tornado(Runs(), None)
    assert len(frame) == len(FIGURES) * len(ends)
    for _, own in frame.groupby("figure"):
        assert own["moves"].is_monotonic_decreasing and own["as_set"].nunique() == 1
    found = frame.set_index(["figure", "parameter"])
    energy, energies = FIGURES[2], found.loc[FIGURES[2]]

    def ratio(settings: Runs, scope: str, *overrides: str) -> float:
        one, base = (
            settings.report("magnet16", "matmul", scheme, overrides).energy_pj(scope)
            for scheme in ("4/4/4/6", "8/8/-/-")
        )
        return one / base

    assert energies["as_set"].iloc[0] == pytest.approx(ratio(runs, "pe"))
    assert energies.loc["scope", "at_low"] == pytest.approx(ratio(runs, "datapath"))
    for end in ("low", "high"):
        for name in ("lanes", "voltage_v"):
            setting = next(own[end] for own in parameters if own["parameter"] == name)
            assert energies.loc[name, f"at_{end}"] == pytest.approx(ratio(runs, "pe", *setting.split()))
    assert energies.loc["activity", "at_high"] == pytest.approx(ratio(Runs(None, 0.5), "pe"))
    assert energies.loc["workload", "moves"] == 0, "of another network"
    errors = [
        100 * abs(found.loc[(figure, "lanes"), "at_high"] / rows[key].value - 1)
        for figure, key in zip(FIGURES[2:], claims, strict=False)
    ]
    assert found.loc[(ENERGY_ERROR, "lanes"), "at_high"] == pytest.approx(np.median(errors))
    assert energy in set(frame["figure"])


def test_every_end_is_a_machine() -> None:
    """That reaches its clock, and moves what it says; what publications state has no ends."""
    for row in varied_parameters():
        assert row["machine"] == "magnet16" and not row["set_by"]
        for end in filter(None, (row["low"], row["high"])):
            settings = dict(item.split("=", 1) for item in end.split())
            # Another node or supply may need another clock.
            moved = row["parameter"] in ("node_nm", "voltage_v")
            own = settings.keys() - ({"clock_ghz"} if moved else set())
            assert own in ({row["parameter"]}, {"gated_fraction"}, {"scope"}, {"workload"})
            if own <= {"scope", "workload", "gated_fraction"}:
                continue
            assert load_arch("magnet16", end.split()) != load_arch("magnet16")
            for scheme in ("8/8/-/-", "4/8/6/10"):
                assert clock_table(scheme=scheme, overrides=end.split())["meets"].all(), (end, scheme)


@pytest.mark.usefixtures("light")
def test_a_tornado_is_drawn_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame(
        [
            {"figure": figure, "parameter": name, "low": "a=1", "high": "a=2", "as_set": 1.0,
             "at_low": 1 - moves, "at_high": 1.0, "moves": moves}
            for figure in FIGURES for name, moves in (("one", 0.5), ("other", 0.25))
        ]
    )  # fmt: skip
    monkeypatch.setattr(result_module, "tornado_table", lambda *_: frame)
    app(["validate", "--tornado", "--no-plots", "--out", str(tmp_path / "out")], standalone_mode=False)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out/tornado.csv"), frame)
    drawn = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        plot_tornado(frame, tmp_path / name)
        drawn.append(contents(tmp_path / name))
    assert drawn[0] == drawn[1] and set(drawn[0]) == {"tornado.png", "tornado.svg"}
