"""A machine of several modes: one area for all of them, energy and time of the one that runs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from conftest import contents

import accelsim
from accelsim.cli.main import app
from accelsim.costs import CostLibrary
from accelsim.costs.clock import h_tree_mm
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import Arch
from accelsim.machine.arch_file import load_arch
from accelsim.report.inventory import CLOCK_TREES, Part, build_inventory, technology_of
from accelsim.report.price import area_um2_at
from accelsim.rtl.emit import parameters

pytestmark = pytest.mark.kept

# The widest of two of its dimensions each are another mode's.
LISTED = ("8/8/-/-", "4/4/4/6", "4/4/6/4:sp6", "4/4/8/8@32:sp8")
MADE_FOR = "accumulator_bits=34"
WIDE = "out_fifo_words=64"


def machine(*overrides: str, modes: tuple[str, ...] = LISTED) -> Arch:
    return load_arch("magnet16", [f"modes=[{', '.join(modes)}]", MADE_FOR, WIDE, *overrides])


def alone(mode: str, *overrides: str) -> tuple[Arch, Scheme]:
    """The machine made for a mode."""
    scheme = Scheme.parse(mode)
    return load_arch("magnet16", [f"vector_size={scheme.block or 16}", MADE_FOR, WIDE, *overrides]), scheme


@cache
def library() -> CostLibrary:
    return CostLibrary(technology_of(load_arch("magnet16")))


@cache
def parts_of(arch: Arch, scheme: Scheme) -> dict[str, Part]:
    return {part.name: part for part in build_inventory(arch.in_mode(scheme), scheme, library())}


def served(*overrides: str) -> dict[str, dict[str, Part]]:
    arch = machine(*overrides)
    return {mode: parts_of(arch, Scheme.parse(mode)) for mode in LISTED}


@pytest.mark.parametrize("overrides", [(), ("dataflows=[os, ws-los]",), ("gate_on_scale_product=multiply",)])
def test_what_is_there_is_the_same_in_every_mode(overrides: tuple[str, ...]) -> None:
    first, *others = served(*overrides).values()
    for parts in others:
        assert set(parts) == set(first)
        for name, part in parts.items():
            same, cost = first[name], part.cost
            assert part.instances == same.instances, name
            for figure in ("area_um2", "leakage_uw", "delay_ps"):
                assert getattr(cost, figure) == pytest.approx(getattr(same.cost, figure)), (name, figure)
            assert cost.energy_pj.get("idle") == pytest.approx(same.cost.energy_pj.get("idle")), name
            assert part.cycle_action == same.cycle_action, name


def test_shared_parts_are_as_wide_as_the_widest_and_multipliers_are_apart() -> None:
    parts = served()["4/4/4/6"]
    made = {mode: parts_of(*alone(mode)) for mode in LISTED}
    for name in ("weight_register", "input_register", "weight_buffer", "input_buffer", "out_fifo", "ppu"):
        widest = max(own[name].cost.area_um2 for own in made.values())
        assert parts[name].cost.area_um2 == pytest.approx(widest), name
    # 4/4/4/6 and 4/4/6/4 share one array, that of vectors of 32 is another.
    arrays = [made[mode]["dot_product"].cost for mode in ("8/8/-/-", "4/4/4/6", "4/4/8/8@32:sp8")]
    dots = parts["dot_product"].cost
    assert dots.area_um2 == pytest.approx(sum(cost.area_um2 for cost in arrays))
    assert dots.leakage_uw == pytest.approx(sum(cost.leakage_uw for cost in arrays))
    assert dots.delay_ps == max(cost.delay_ps or 0 for cost in arrays)
    assert dots.energy_pj["idle"] == pytest.approx(sum(cost.energy_pj["idle"] for cost in arrays))
    assert "also" in dots.scaling[-1] and "16 x 8 x 9" in dots.scaling[-1]


def test_a_shared_part_is_the_widest_in_every_size() -> None:
    """Scales of 4 and 6 bits and of 6 and 4 take a multiplier of 6 x 6; registers are each the widest."""
    arch = machine(modes=("4/4/4/6", "4/4/6/4"))
    clock = {"stages": arch.dot_stages, "period_ps": 1e3}
    parts = parts_of(arch, Scheme.parse("4/4/4/6"))
    whole = library().scale_product(6, 6, 10, held=True, **clock)
    own = library().scale_product(4, 6, 10, held=True, **clock)
    assert parts["scale_product"].cost.area_um2 == whole.area_um2 > own.area_um2
    assert parts["scale_product"].cost.energy_pj["op"] == own.energy_pj["op"]
    # 8/8/-/- has the widest dot product (21 bits), 4/4/8/8 in vectors of 32 the widest product and scale.
    arch = machine(modes=("8/8/-/-", "4/4/8/8@32:sp8"))
    bits = 21 + 34 + (14 + 8) + 8
    assert parts_of(arch, Scheme.parse("8/8/-/-"))["pipeline_register"].cost.area_um2 == pytest.approx(
        library().register(bits).area_um2
    )


def test_energy_of_what_happens_is_that_of_the_mode_which_runs() -> None:
    for mode, parts in served().items():
        made = parts_of(*alone(mode))
        for name, part in made.items():
            cost = parts[name].cost
            # A macro is read whole, clock trees and crossbar span the machine that is there.
            if name.endswith("_buffer") or name in (*CLOCK_TREES.values(), "noc", "ppu_staging"):
                continue
            for action, pj in part.cost.energy_pj.items():
                if action != "idle" and part.actions.get(action):
                    assert cost.energy_pj[action] == pytest.approx(pj), (mode, name, action)
            assert set(cost.activity) == set(part.cost.activity), name
    widest = max(parts_of(*alone(mode))["weight_buffer"].cost.energy_pj["read"] for mode in LISTED)
    for parts in served().values():
        assert parts["weight_buffer"].cost.energy_pj["read"] == widest


@pytest.mark.parametrize("mode", ["8/8/-/-", "4/4/8/8@32:sp8"])
def test_time_and_values_are_those_of_the_machine_made_for_it(mode: str) -> None:
    arch, scheme = alone(mode)
    listed = accelsim.run("digits", machine(), mode)
    made = accelsim.run("digits", arch, scheme)
    for key in ("cycles", "sqnr_db", "ppu_sqnr_db", "overflows", "utilization", "accumulator_bits"):
        assert listed.summary[key] == made.summary[key], key
    assert listed.summary["arch_parameters"]["vector_size"] == arch.vector_size
    for ours, theirs in zip(listed.activities, made.activities, strict=True):
        assert ours.counts == theirs.counts
    assert listed.report.area_um2("pe") > made.report.area_um2("pe")
    scope = "datapath"
    assert made.report.energy_pj(scope) < listed.report.energy_pj(scope) < 1.5 * made.report.energy_pj(scope)


def test_accumulators_are_those_of_the_mode_that_needs_most() -> None:
    arch = load_arch("magnet16", ["modes=[8/8/-/-, 4/4/-/-, 4/8/6/10]"])
    widest = load_arch("magnet16").accumulator_width(Scheme.parse("4/8/6/10"))
    assert {arch.accumulator_width(mode) for mode in arch.served} == {widest}
    assert widest > load_arch("magnet16").accumulator_width(Scheme.parse("8/8/-/-"))


def test_compared_modes_have_one_area(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--set", "modes=[8/8/-/-, 4/4/4/4@32]", "--set", WIDE, "--no-data", "--no-plots"]
    schemes = ["--scheme", "8/8/-/-", "--scheme", "4/4/4/4"]
    out = str(tmp_path / "out")
    app(["compare", "digits", *schemes, *arguments, "--out", out], standalone_mode=False)
    assert "A machine of modes 8/8/-/-@16, 4/4/4/4@32: energy is of" in capsys.readouterr().out
    rows = (tmp_path / "out/comparison.csv").read_text("utf-8").splitlines()
    saved = [dict(zip(rows[0].split(","), row.split(","), strict=True)) for row in rows[1:]]
    for scope in ("datapath", "pe", "array"):
        assert float(saved[1][f"area_{scope}_saved_percent"]) == pytest.approx(0, abs=1e-9)
    assert float(saved[1]["energy_datapath_saved_percent"]) > 10
    assert float(saved[0]["area_pe_24bit_um2"]) == pytest.approx(float(saved[1]["area_pe_24bit_um2"]))
    app(["run", "digits", "--scheme", "4/4/4/4", *arguments, "--explain", "--out", str(tmp_path / "run")],
        standalone_mode=False)  # fmt: skip
    assert "energy is of 4/4/4/4, area" in capsys.readouterr().out
    assert (
        b"32 x 4 x 5 runs; in area and leakage also 16 x 8 x 9, still"
        in contents(tmp_path / "run")["explained.csv"]
    )


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["modes=[8/8/-/-, 4/4]"], "modes: scheme '4/4': expected W/A/ws/as"),
        (["modes=[4/4/-/-, 4/4/-/-@32]"], "modes: 4/4/-/- is there twice, expected each once"),
        (["modes=[4/4/-/-@24]"], "vector_size 24 and lanes 16: expected one to divide the other"),
        (["modes=[4/4/-/-@256]"], "modes: 4/4/-/-@256 has vectors of 256, expected at most 128"),
        (["modes=[nvfp4, nvfp4]"], "modes: nvfp4 is there twice, expected each once"),
        (["modes=[4/4/4/4@128]"], "out_fifo_words is 32, expected at least 128"),
        (["modes=[4/4/4/4:sp6]", "gate_on_scale_product=dot"], "expected none or multiply on a machine of"),
        (["modes=[4/4/4/4]", "accumulator_bits=data"], "accumulator_bits is data, expected auto or a number"),
    ],
)  # fmt: skip
def test_lists_that_no_machine_has_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(AccelsimError, match="arch magnet16") as error:
        load_arch("magnet16", overrides)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_scheme_that_is_no_mode_is_refused() -> None:
    said = "arch magnet16, scheme {}: expected one of the machine's modes, 8/8/-/-@16, 4/4/4/4@32"
    arch = load_arch("magnet16", ["modes=[8/8/-/-, 4/4/4/4@32]", WIDE])
    for scheme in ("4/4/4/6", "4/4/4/4@16", "4/4/4/4:sp4"):
        with pytest.raises(AccelsimError) as error:
            accelsim.compare("digits", arch, ["8/8/-/-", scheme])
        assert str(error.value) == said.format(scheme)
    with pytest.raises(AccelsimError, match="has vectors of 32, expected 16 as those beside it"):
        arch.in_mode(Scheme.parse("8/8/-/-")).check_scheme(Scheme.parse("4/4/4/4"))
    with pytest.raises(AccelsimError, match=r"RTL is of a machine made for one scheme, not of 2 modes"):
        parameters(arch, Scheme.parse("8/8/-/-"))


# -- wires to the lanes ---------------------------------------------------------------------------------
def test_wires_to_the_lanes_are_a_tree_over_lanes_and_weight_buffers() -> None:
    scheme = Scheme.parse("4/4/4/4")
    without, arch = load_arch("magnet16"), load_arch("magnet16", ["operand_wires=true"])
    parts = parts_of(arch, scheme)
    assert set(parts) - set(parts_of(without, scheme)) == {"operand_wires"}
    buffers = parts["weight_buffer"]
    area = area_um2_at(arch, scheme, library(), "datapath") + (
        buffers.instances * buffers.cost.area_um2 / arch.pes / arch.placement_utilization
    )
    tree = parts["datapath_clock_tree"]
    area -= tree.instances * tree.cost.area_um2 / arch.pes / arch.placement_utilization
    # 68 bits, half of which change; 0.2 pF/mm.
    pj = 68 * 0.5 * 0.5 * 0.2 * 0.8**2 * h_tree_mm(16, area)
    assert parts["operand_wires"].cost.energy_pj["word"] == pytest.approx(pj)
    assert area_um2_at(arch, scheme, library(), "array") == area_um2_at(without, scheme, library(), "array")


def test_wires_to_the_lanes_take_what_changes_on_them() -> None:
    result = accelsim.run("digits", "magnet16", "4/4/4/4", overrides=["operand_wires=true"])
    rows = result.report.components.set_index(["layer", "component"]).sort_index()
    for activity in result.activities:
        wires, register = (
            rows.loc[[(activity.layer.name, name)]] for name in ("operand_wires", "input_register")
        )
        writes = register[register["action"] == "write"].iloc[0]
        assert wires["count"].sum() == writes["count"]
        assert activity.computed.toggles is not None
        changing = activity.computed.toggles.by_part["input_register"]
        assert wires["activity"].iloc[0] == pytest.approx(changing / 34)
