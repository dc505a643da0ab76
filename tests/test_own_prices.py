"""Every energy can be taken apart into counts and constants, and every constant replaced by one's own."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import accelsim
from accelsim.api import accelergy_tables, component_price, cost_list
from accelsim.costs import CostLibrary
from accelsim.costs.query import COMPONENTS
from accelsim.errors import AccelsimError
from accelsim.report.inventory import PART_NAMES, build_inventory
from accelsim.report.library import library_of

pytestmark = pytest.mark.kept

HEADER = "component,item,quantity,value,unit,node_nm,vdd_v,source,status\n"


def digits(scheme: str = "4/4/4/4", **how: Any) -> accelsim.RunResult:
    return accelsim.run("digits", scheme=scheme, keep_tensors=False, gated_fraction=0.25, **how)


@pytest.fixture(scope="module")
def plain() -> accelsim.RunResult:
    return digits()


def test_explained_rows_are_the_whole_energy(plain: accelsim.RunResult) -> None:
    rows = plain.explain()
    products = rows["count"] * rows["energy_per_action_pj"]
    assert products.tolist() == pytest.approx(rows["energy_pj"].tolist())
    scopes = ["datapath", "pe", "array", "system"]
    for index, scope in enumerate(scopes):
        own = rows.loc[rows["scope"].isin(scopes[: index + 1]), "energy_pj"].sum()
        assert own == pytest.approx(plain.summary["energy_pj"][scope])
    assert rows["share_percent"].sum() == pytest.approx(100)
    assert not rows.duplicated(["scope", "component", "action"]).any()
    assert rows["source"].str.len().min() > 10 and rows["evidence"].ne("").all()
    counted = sum(activity.counts["scale_multiply.op"] for activity in plain.activities)
    row = rows[(rows["component"] == "scale_multiply") & (rows["action"] == "op")].iloc[0]
    assert row["count"] == counted
    listed = cost_list(scheme="4/4/4/4")
    listed = listed[(listed["component"] == "scale_multiply") & (listed["quantity"] == "energy, op")].iloc[0]
    assert row["energy_per_action_pj"] == listed["value"] and listed["unit"] == "pJ"
    assert row["source"] in listed["source"]


@pytest.mark.parametrize(
    "machine", [(), ("residual=8/-",), ("dataflows=[ws-los]", "node_nm=7", "voltage_v=0.7", "clock_ghz=0.5")]
)
@pytest.mark.parametrize("scheme", ["8/8/-/-", "4/8/6/10"])
def test_a_machine_s_own_list_changes_nothing(tmp_path: Path, machine: tuple[str, ...], scheme: str) -> None:
    """As CSV, and as Accelergy's tables, which know no delays and no sources."""
    how = {"overrides": machine}
    before = digits(scheme, **how).report
    cost_list(scheme=scheme, **how).to_csv(tmp_path / "list.csv", index=False)
    for name, text in accelergy_tables(scheme=scheme, **how).items():
        (tmp_path / name).write_text(text)
    for costs in ("list.csv",), ("ERT.yaml", "ART.yaml"):
        after = digits(scheme, costs=[tmp_path / name for name in costs], **how).report
        for table, column in (("components", "energy_pj"), ("area", "area_um2"), ("area", "leakage_uw")):
            old, new = getattr(before, table)[column], getattr(after, table)[column]
            assert new.tolist() == pytest.approx(old.tolist(), rel=1e-9), (costs, table, column)
    pd.testing.assert_series_equal(after.area["delay_ps"], before.area["delay_ps"])


def test_one_price_replaces_one_figure(tmp_path: Path, plain: accelsim.RunResult) -> None:
    own = tmp_path / "mine.csv"
    own.write_text(
        "component,quantity,value,unit,source\n"
        'dot_product,"energy, op",100,fJ,our library\nweight_buffer,area,0.002,mm2,our compiler\n'
        "weight_buffer,leakage,3000,nW,our compiler\nppu,delay,0.4,ns,our synthesis\n"
    )
    found = digits(costs=own)
    old, new = plain.explain(), found.explain()
    changed = old["energy_pj"].sub(new["energy_pj"]).abs() > 1e-6
    assert set(old.loc[changed, "component"]) == {
        *("dot_product", "weight_buffer", "noc"),
        *("pe_clock_tree", "array_clock_tree"),
    }
    row = new[(new["component"] == "dot_product") & (new["action"] == "op")].iloc[0]
    assert row["energy_per_action_pj"] == pytest.approx(0.1) and row["evidence"] == "own"
    assert row["source"].startswith("our library; ") and "energy of op: as given in" in row["scaling"]
    area = found.area.set_index("component")
    assert area.loc["weight_buffer", "area_each_um2"] == 2000
    assert area.loc["weight_buffer", "leakage_uw"] == pytest.approx(
        3 * area.loc["weight_buffer", "instances"]
    )
    assert area.loc["ppu", "delay_ps"] == 400
    # A wider PE has longer wires: the crossbar is priced with what is given.
    assert area.loc["noc", "scaling"] != plain.area.set_index("component").loc["noc", "scaling"]
    assert found.summary["energy_evidence"]["own"] > 0.005


def test_parts_of_the_array_and_dram_have_own_prices_too(tmp_path: Path, plain: accelsim.RunResult) -> None:
    own = tmp_path / "mine.csv"
    own.write_text(
        "component,quantity,value,unit\n"
        'dram,"energy, bit",3.9,pJ\nglobal_buffer,"energy, read",1,pJ\nnoc,"energy, bit_hop",0.5,pJ\n'
    )
    rows = digits(costs=own).explain().set_index(["component", "action"])
    for key, pj in {("dram", "bit"): 3.9, ("global_buffer", "read"): 1, ("noc", "bit_hop"): 0.5}.items():
        assert rows.loc[key, "energy_per_action_pj"] == pj
        assert rows.loc[key, "energy_pj"] == pytest.approx(pj * rows.loc[key, "count"])


def test_prices_of_parts_that_a_scheme_has_not_are_left(tmp_path: Path) -> None:
    own = tmp_path / "mine.csv"
    own.write_text(HEADER + 'scale_product,,"energy, op",1,pJ,,,us,\n')
    before, after = (digits("8/8/-/-", costs=costs).summary["energy_pj"] for costs in (None, own))
    assert before == after
    scaled = accelsim.compare("digits", schemes=["8/8/-/-", "4/4/4/4"], costs=own, gated_fraction=0.0)
    assert (scaled.frame("components")["evidence"] == "own").any()


def test_every_part_has_a_name_that_is_known() -> None:
    found = set()
    for scheme, overrides in (
        ("4/4/4/4", ["vector_size=32", "out_fifo_words=64", "psum_port_bits=128"]),
        ("8/8/-/-", ["dataflows=[ws-los, ws]", "operand_wires=true"]),
        ("4/4/4/4:sp6", ["gate_on_scale_product=dot"]),
        ("nvfp4", ["vector_size=64"]),
    ):
        arch = accelsim.load_arch("magnet16", overrides)
        parts = build_inventory(arch, accelsim.Scheme.parse(scheme), library_of(arch, None))
        found |= {part.name for part in parts}
    assert found <= PART_NAMES
    assert PART_NAMES - found == set()


BAD = {
    "component 'flux' is unknown, expected one of accumulation_buffer": 'flux,,"energy, op",1,pJ,,,,\n',
    "line 2: dot_product has no action 'dnn' on this machine, expected one of op, idle, gated": (
        'dot_product,,"energy, dnn",1,pJ,,,,\n'
    ),
    "quantity is 'energy', expected 'energy, ACTION', area,": "dot_product,,energy,1,pJ,,,,\n",
    "quantity is 'area, op', expected": 'dot_product,,"area, op",1,um2,,,,\n',
    "unit is 'um', expected um2 or mm2": "dot_product,,area,1,um,,,,\n",
    "value is '-1', expected a number of at least 0": "dot_product,,area,-1,um2,,,,\n",
    "value is 'nan', expected a number": "dot_product,,area,nan,um2,,,,\n",
    "value is '', expected a number": "dot_product,,area,,um2,,,,\n",
    "node_nm is 7, expected 16 as of the machine, or none": "dot_product,,area,1,um2,7,,,\n",
    "vdd_v is 1, expected 0.8": "dot_product,,area,1,um2,16,1.0,,\n",
    "line 3: dot_product area is given in": "dot_product,,area,1,um2,,,,\ndot_product,,area,2,um2,,,,\n",
    "has not as many fields as the header": "dot_product,,area,1\n",
    "no rows, expected at least one": "",
}


@pytest.mark.parametrize("message", BAD)
def test_bad_lists(tmp_path: Path, message: str) -> None:
    own = tmp_path / "mine.csv"
    own.write_text(HEADER + BAD[message])
    with pytest.raises(AccelsimError) as error:
        digits(costs=own)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "component,value\n", "column 'quantity' is missing"),
        ("a.csv", HEADER + "dot_product,," + "x" * (1 << 18) + ",1,um2,,,,\n", "is no CSV (field larger"),
        ("a.txt", "", "suffix is '.txt', expected .csv, .yaml or .yml"),
        ("a.yaml", "ERT: [", "not valid YAML"),
        ("a.yaml", "- 1", "has neither ERT nor ART at its top"),
        ("a.yaml", "ERT: {version: 0.4}", "no tables in"),
        ("a.yaml", "ERT: {tables: 3}", "is '3', expected a list of names"),
        ("a.yaml", "ERT: {tables: [{actions: []}]}", "no name in"),
        ("a.yaml", "ART: {tables: [{name: x.dot_product}]}", "no area in"),
        ("a.yaml", "ART: {tables: [{name: x.dot_product, area: big}]}", "area is 'big', expected a number"),
        ("a.yaml", "ART: {tables: [{name: x.spad, area: 1}]}", "component 'spad' is unknown"),
        (
            "a.yaml",
            "ERT: {tables: [{name: dram, actions: [{name: bit, energy: 1}, {name: bit, energy: 2}]}]}",
            "bit has 2 energies by its arguments, expected one",
        ),
    ],
)
def test_bad_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(AccelsimError) as error:
        digits(costs=tmp_path / name)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_files_add_up(tmp_path: Path, plain: accelsim.RunResult) -> None:
    """Each of them in place of what it gives."""
    (tmp_path / "ERT.yaml").write_text(
        "ERT: {tables: [{name: a.weight_buffer, "
        "actions: [{name: read, energy: 7}, {name: leak, energy: 3}]}]}"
    )
    (tmp_path / "ART.yaml").write_text("ART: {tables: [{name: 'a.weight_buffer[0..511]', area: 5}]}")
    (tmp_path / "own.csv").write_text('component,quantity,value,unit\ndram,"energy, bit",2,pJ\n')
    found = digits(costs=[tmp_path / name for name in ("own.csv", "ERT.yaml", "ART.yaml")])
    rows, area = found.explain().set_index(["component", "action"]), found.area.set_index("component")
    assert rows.loc[("dram", "bit"), "energy_per_action_pj"] == 2
    assert rows.loc[("weight_buffer", "read"), "energy_per_action_pj"] == 7
    instances = area.loc["weight_buffer", "instances"]
    assert rows.loc[("weight_buffer", "leakage"), "energy_per_action_pj"] == pytest.approx(3 * instances)
    assert area.loc["weight_buffer", "area_each_um2"] == 5


def test_older_tables_of_accelergy_are_read(tmp_path: Path) -> None:
    """0.2: mappings by name, several entries of an action by its arguments; here they agree."""
    entries = [{"arguments": {"data_delta": delta}, "energy": 2} for delta in (0, 1)]
    tables = {"chip[0..3].pe.weight_buffer": {"read": entries, "write": {"arguments": None, "energy": 3}}}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({"ERT": {"version": 0.2, "tables": tables}}))
    rows = digits(costs=tmp_path / "old.yaml").explain().set_index(["component", "action"])
    assert rows.loc[("weight_buffer", "read"), "energy_per_action_pj"].item() == 2
    assert rows.loc[("weight_buffer", "write"), "energy_per_action_pj"].item() == 3


@pytest.mark.parametrize(
    ("component", "sizes"),
    [
        ("dot_product", ["W=4", "A=5", "V=16"]), ("scale_multiply", ["dot_bits=13", "scale_bits=8"]),
        ("scale_product", ["ws=4", "as=4"]), ("accumulator", ["bits=24", "product_bits=21"]),
        ("block_accumulator", ["bits=24", "product_bits=21", "blocks=4"]),
        ("block_sum", ["blocks=4", "product_bits=21", "bits=24"]),
        ("register", ["bits=24"]), ("array", ["width_bits=64", "depth=4"]),
        ("sram", ["words=1024", "width_bits=68"]), ("ppu", ["L=16", "accumulator_bits=24", "output_bits=4"]),
        ("ppu_vector_scale", ["V=16", "L=4", "output_bits=4", "scale_bits=4"]),
        ("ppu_select", ["ways=4", "bits=96"]), ("zero_detect", ["bits=64"]), ("dram", []),
        ("element_decode", ["elements=16", "values=nvfp4"]), ("scale_sum", ["amount_bits=6", "values=mxfp4"]),
        ("align", ["bits=14", "accumulator_bits=28", "values=mxfp4", "stages=3", "period_ps=1000"]),
        ("aligned_accumulator", ["bits=28", "values=mxint8"]),
        ("ppu_block_scale", ["block_size=32", "L=4", "values=mxfp4"]),
        ("ppu_block_quantize", ["block_size=16", "L=4", "values=nvfp4", "stages=fine", "period_ps=1000"]),
    ],
)  # fmt: skip
def test_one_component_s_price(component: str, sizes: list[str]) -> None:
    arch = accelsim.load_arch("magnet16")
    library = library_of(arch, None)
    said = component_price(component, sizes)
    cost = getattr(library, component)(**said["sizes"])
    assert (said["area_um2"], said["energy_pj"]) == (cost.area_um2, dict(cost.energy_pj))
    assert said["source"] == cost.source and list(said["scaling"].values()) == list(cost.scaling)
    own = [law for law in library.laws() if str(law["law"]).startswith(component)]
    assert len(said["laws between rows"]) == len(own) and bool(own) == (
        component not in ("register", "ppu_vector_scale", "ppu_select", "dram", *OF_FORMATS)
    )


# Of rows at a few sizes each, without a law; align has one.
OF_FORMATS = ("element_decode", "scale_sum", "aligned_accumulator", "ppu_block_scale", "ppu_block_quantize")


def test_every_component_with_sizes_can_be_asked_for() -> None:
    """All but those that take a machine's parts, not sizes."""
    methods = inspect.getmembers(CostLibrary, inspect.isfunction)
    costs = {name for name, own in methods if own.__annotations__.get("return") == "ComponentCost"}
    priced = {name for name in costs if not name.startswith("_")}
    assert priced - {"clock_tree", "control", "noc", "operand_wires"} == set(COMPONENTS)


def test_the_sizes_that_a_machine_has_give_its_price() -> None:
    listed = cost_list(scheme="4/4/4/4").set_index(["component", "quantity"])["value"]
    clock = ["stages=3", "period_ps=1000"]
    found = component_price("dot_product", ["W=4", "activation_operand_bits=5", "V=16", *clock])
    assert found["energy_pj"]["op"] == listed["dot_product", "energy, op"]
    found = component_price("dot_product", ["W=4", "A=5", "V=16", "held_operand=false", *clock])
    assert found["energy_pj"]["op"] > listed["dot_product", "energy, op"]


@pytest.mark.parametrize(
    ("component", "sizes", "message"),
    [
        ("noc", ["pes=1"], "costs: noc has no sizes to set, expected one of dot_product,"),
        ("sram", ["words=16"], "costs sram: sizes are missing, expected --set width_bits=..."),
        ("dot_product", ["W=4", "V=16"], "sizes are missing, expected --set A=..."),
        ("dot_product", ["X=4"], "costs dot_product: --set X=4: expected KEY=VALUE of vector_size (V), "),
        ("dot_product", ["W=four"], "costs dot_product: --set W=four: expected a whole number"),
        ("dot_product", ["W=99", "A=4", "V=16"], "weight_bits is 99, expected a whole number 2 to 8"),
        ("scale_multiply", ["held=maybe"], "--set held=maybe: expected true or false"),
        ("accumulator", ["period_ps=fast"], "costs accumulator: --set period_ps=fast: expected a number"),
        ("dram", ["kind=flux"], "kind 'flux' is unknown"),
        ("register", ["bits=8", "data=flux"], "data is 'flux', expected random or "),
    ],
)
def test_bad_sizes(component: str, sizes: list[str], message: str) -> None:
    with pytest.raises(AccelsimError) as error:
        component_price(component, sizes)
    assert message in str(error.value)


def test_on_the_command_line(tmp_path: Path, cli: Any) -> None:
    out = tmp_path / "run"
    said = cli("run", "digits", "--no-data", "--no-plots", "--explain", "--out", out)
    assert said.status == 0 and "energy_per_action_fj" in said.out and "share_percent" in said.out
    rows = pd.read_csv(out / "explained.csv")
    assert {"count", "energy_per_action_pj", "energy_pj", "source"} <= set(rows.columns)
    assert cli("run", "digits", "--no-data", "--no-plots", "--out", out).status == 0
    assert not (out / "explained.csv").exists()
    listed = cli("costs", "--scheme", "4/4/4/4", "dot_product", "--csv")
    assert listed.status == 0 and listed.out.startswith(HEADER) and "weight_buffer" not in listed.out
    assert cli("costs", "--scheme", "8/8/-/-", "scale_product").status == 2
    said = cli("costs", "dot_product", "--set", "W=4", "--set", "A=4", "--set", "V=16")
    assert said.status == 0 and "laws between rows.1" in said.out and "energy_pj.op" in said.out
    said = cli("costs", "--set", "W=4")
    assert said.status == 2 and "of one component's sizes, expected its name" in said.err
    said = cli("costs", "--accelergy", tmp_path)
    assert said.status == 2 and "expected --scheme too" in said.err
    assert cli("costs", "--scheme", "4/4/4/4", "--accelergy", tmp_path).status == 0
    assert yaml.safe_load((tmp_path / "ERT.yaml").read_text())["ERT"]["version"] == 0.4
    said = cli("costs", "--scheme", "4/4/4/4", "--accelergy", tmp_path / "none")
    assert said.status == 2 and "cannot be written" in said.err and "Traceback" not in said.err
    twice = ("--costs", tmp_path, "--costs", out)
    assert "are two folders of tables, expected one" in cli("run", "digits", *twice, "--out", out).err
    said = cli("validate", "--costs", out / "layers.csv")
    assert said.status == 2 and "layers.csv: a file, expected a folder of cost tables" in said.err
