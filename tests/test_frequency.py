"""The clock that parts reach: against their delays, the delay law, and what runs say of theirs."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

import accelsim
from accelsim.api import clock_table, cost_list
from accelsim.costs import CostLibrary, Technology
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch import load_arch
from accelsim.report.frequency import highest_clock_ghz, stage_delays, too_fast
from accelsim.report.inventory import build_inventory, technology_of
from accelsim.report.stages import in_fewest_stages


def test_the_slowest_part_is_the_machine_s() -> None:
    table = clock_table(scheme="4/4/4/4")
    listed = cost_list(scheme="4/4/4/4").set_index(["component", "quantity"])["value"]
    assert table["delay_ps"].is_monotonic_decreasing and "dot_product" in set(table["component"])
    for row in table.itertuples():
        assert row.delay_ps == listed[row.component, "delay"]
        assert row.highest_clock_ghz == pytest.approx(1e3 / row.delay_ps)
        assert row.meets == (row.delay_ps <= 1e3)
    arch = load_arch("magnet16")
    inventory = build_inventory(arch, Scheme.parse("4/4/4/4"), CostLibrary(technology_of(arch)))
    assert highest_clock_ghz(inventory) == pytest.approx(table["highest_clock_ghz"].iloc[0])


def test_a_run_says_what_its_clock_is_too_fast_for() -> None:
    table = clock_table(scheme="4/4/4/4")
    slowest, next_one = table["highest_clock_ghz"].iloc[:2]
    between, below = (slowest + next_one) / 2, slowest * 0.999
    for clock_ghz, warned in ((between, True), (below, False)):
        arch = load_arch("magnet16", [f"clock_ghz={clock_ghz}"])
        inventory = build_inventory(arch, Scheme.parse("4/4/4/4"), CostLibrary(technology_of(arch)))
        said = too_fast(arch, inventory)
        result = accelsim.run("digits", arch, "4/4/4/4", gated_fraction=0.0)
        assert [line for line in result.report.warnings if line.startswith("slower at")] == [said][
            : int(warned)
        ]
        if warned:
            assert said is not None
            for row in table.itertuples():
                assert (f" {row.component} " in said) == (row.component == table["component"].iloc[0])
            assert f"the machine reaches {slowest:.3g} GHz" in said


def test_the_fewest_stages_that_meet_the_clock() -> None:
    fewest = ["lane_stages=fewest"]
    for scheme, stages in (("8/8/-/-", (3, 1)), ("4/4/4/4", (2, 2)), ("4/8/6/10", (2, 3))):
        given = [f"dot_stages={stages[0]}", f"scale_stages={stages[1]}"]
        found, same = (
            accelsim.run("digits", scheme=scheme, overrides=own, gated_fraction=0.0)
            for own in (fewest, given)
        )
        arch = found.report.arch
        assert (arch.dot_stages, arch.scale_stages) == stages
        assert found.report.layers["cycles"].equals(same.report.layers["cycles"])
        assert found.report.components.equals(same.report.components)
        listed = [cost_list(scheme=scheme, overrides=own) for own in (fewest, given)]
        assert listed[0].equals(listed[1])
        assert listed[0].equals(cost_list(scheme=scheme)) == (stages == (3, 1))
    slow = load_arch("magnet16", [*fewest, "clock_ghz=0.2"])
    assert accelsim.run("digits", slow, "4/8/6/10", gated_fraction=0.0).report.arch.scale_stages == 1
    fast = load_arch("magnet16", [*fewest, "clock_ghz=5"])
    assert in_fewest_stages(fast, Scheme.parse("4/8/6/10"), CostLibrary(technology_of(fast))) == fast


def test_clocks_follow_the_supply() -> None:
    """At a clock that the smallest netlists meet.

    Delay at 7 nm: -28.58 V^3 + 76.6 V^2 - 70.26 V + 24.69 (Stillmaker & Baas).
    """

    def law(v: float) -> float:
        return -28.58 * v**3 + 76.6 * v**2 - 70.26 * v + 24.69

    low, high = (
        clock_table(overrides=["node_nm=7", f"voltage_v={v}", "clock_ghz=0.1"]).set_index("component")
        for v in (0.6, 0.8)
    )
    low, high = low["highest_clock_ghz"], high["highest_clock_ghz"]
    for part in ("dot_product", "ppu", "weight_buffer"):
        assert high[part] / low[part] == pytest.approx(law(0.6) / law(0.8))


@pytest.mark.parametrize(
    ("node_nm", "voltage_v", "message"),
    [
        (16, 1.0, "voltage_v: 1.0 is above the range of the 16 nm delay law, expected at most 0.96"),
        (130, 0.4, "voltage_v: 0.4 is below the range of the 130 nm energy law, expected above 0.468"),
    ],
)
def test_supplies_beyond_the_laws(node_nm: float, voltage_v: float, message: str) -> None:
    with pytest.raises(AccelsimError, match=message):
        clock_table(overrides=[f"node_nm={node_nm}", f"voltage_v={voltage_v}"])
    CostLibrary(Technology(16, 0.95)).check_delay_law()


def test_on_the_command_line(cli: Any) -> None:
    shown = cli("costs", "--scheme", "8/8/-/-", "--frequency", "--csv")
    rows = list(csv.DictReader(io.StringIO(shown.out)))
    assert rows and {"component", "delay_ps", "highest_clock_ghz", "meets"} <= set(rows[0])
    only = cli("costs", "dot_product", "--scheme", "8/8/-/-", "--frequency", "--csv").out.splitlines()
    assert len(only) == 2
    said = cli("costs", "--frequency")
    assert said.status == 2 and "expected --scheme too" in said.err


def test_a_gate_before_the_dot_product_needs_its_time() -> None:
    """In one cycle: a word from its buffer, the product of the scales, and the detector of zero."""
    arch = load_arch("magnet16", ["gate_on_scale_product=dot"])
    inventory = build_inventory(arch, Scheme.parse("4/4/4/4:sp6"), CostLibrary(technology_of(arch)))
    by_name = {part.name: part.cost.delay_ps for part in inventory}
    buffers = max(by_name["weight_buffer"], by_name["input_buffer"])
    needed = buffers + by_name["scale_product"] + by_name["scale_zero_detect"]
    assert stage_delays(inventory)["scale gate"] == pytest.approx(needed) and buffers > 100


def test_an_early_scale_product_waits_in_registers() -> None:
    """A row of them for every cycle of the dot product."""
    scheme = Scheme.parse("4/4/4/4:sp6")
    areas = []
    for gating in ("none", "dot"):
        arch = load_arch("magnet16", [f"gate_on_scale_product={gating}", "dot_stages=4"])
        library = CostLibrary(technology_of(arch))
        parts = {part.name: part for part in build_inventory(arch, scheme, library)}
        areas.append(parts["pipeline_register"].cost.area_um2)
    assert areas[1] - areas[0] == pytest.approx(library.register(4 * 6).area_um2)
