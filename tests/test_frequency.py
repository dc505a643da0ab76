"""The clock that parts reach: against their delays, the delay law, and what runs say of theirs."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest

import accelsim
from accelsim.api import clock_table, cost_list
from accelsim.costs import CostLibrary, Technology
from accelsim.errors import AccelsimError
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.report.frequency import check_clock, highest_clock_ghz, stage_delays
from accelsim.report.inventory import build_inventory, technology_of
from accelsim.report.stages import in_fewest_stages
from accelsim.validation.published import published

pytestmark = pytest.mark.kept


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


def test_a_clock_that_a_part_misses_is_refused() -> None:
    """With the part, its delay, a clock that the machine reaches, and what would help."""
    table = clock_table(scheme="4/4/4/4")
    slowest, next_one = table["highest_clock_ghz"].iloc[:2]
    for clock_ghz, refused in (((slowest + next_one) / 2, True), (slowest * 0.999, False)):
        arch = load_arch("magnet16", [f"clock_ghz={clock_ghz}"])
        if not refused:
            accelsim.run("digits", arch, "4/4/4/4", gated_fraction=0.0)
            continue
        first = table.iloc[0]
        said = (
            f"clock_ghz is {clock_ghz:g}, which leaves {1e3 / clock_ghz:.0f} ps, and {first.component} takes "
            f"{first.delay_ps:.0f} ps, at 4/4/4/4, 16 nm and 0.8 V; expected at most clock_ghz="
        )
        with pytest.raises(AccelsimError, match=re.escape(said)) as caught:
            accelsim.run("digits", arch, "4/4/4/4", gated_fraction=0.0)
        assert "\n" not in str(caught.value)


def test_a_refused_run_writes_nothing(cli: Any) -> None:
    said = cli("run", "digits", "--scheme", "4/4/4/4", "--set", "voltage_v=0.6", "--out", "run")
    assert said.status == 2 and "expected at most clock_ghz=0.7" in said.err and said.err.count("\n") == 1
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    ("overrides", "scheme", "part", "help_for_it"),
    [
        (("dot_stages=1",), "8/8/-/-", "dot_product", "more dot_stages"),
        (("scale_stages=1", "product_shift=4"), "4/8/6/10", "scale_multiply", "more scale_stages"),
        (("ppu_stages=coarse",), "4/4/4/4", "ppu", "ppu_stages=fine"),
        (("voltage_v=0.6",), "8/8/-/-", "", "a higher voltage_v"),
        (("node_nm=28",), "4/4/4/4", "", "a smaller node_nm"),
        (("clock_ghz=2.5",), "4/4/4/4", "", "a higher voltage_v"),
        (("gate_on_scale_product=dot",), "4/8/6/10:sp10", "scale gate", "another gate_on_scale_product"),
    ],
)
def test_what_a_refusal_says_is_true(
    overrides: tuple[str, ...], scheme: str, part: str, help_for_it: str
) -> None:
    """The clock that it offers is one that the machine has, and a little more is none."""

    def check(*more: str) -> None:
        arch = load_arch("magnet16", [*overrides, *more])
        own = Scheme.parse(scheme)
        library = CostLibrary(technology_of(arch))
        check_clock(arch, own, build_inventory(arch, own, library), library)

    with pytest.raises(AccelsimError, match=f"and {part}.* takes .*{help_for_it}") as caught:
        check()
    offered = float(re.findall(r"expected at most clock_ghz=([\d.]+)", str(caught.value))[0])
    check(f"clock_ghz={offered}")
    with pytest.raises(AccelsimError, match="clock_ghz is"):
        check(f"clock_ghz={offered * 1.01}")


def test_published_schemes_close_at_the_clock_of_their_machine() -> None:
    """As do the others of the README, with room for what a worst-case accumulator takes."""
    rows = [row for row in published().values() if row.model and row.machine]
    wanted = {(row.machine, row.scheme, row.overrides) for row in rows if row.scheme}
    assert {"8/8/-/-", "4/4/4/4", "4/8/6/10", "6/8/-/10"} <= {scheme for _, scheme, _ in wanted}
    assert {row.machine for row in rows} == {"magnet16", "keller5"}
    for machine, scheme, overrides in sorted(wanted):
        settings = [item for item in overrides if not item.startswith("voltage_v")]
        table = clock_table(machine, scheme, overrides=settings)
        assert table["meets"].all(), (scheme, table.iloc[0])
    for scheme in ("4/4/4/10", "8/8/8/8", "8/8/8/10", "6/6/6/10"):
        assert clock_table(scheme=scheme)["meets"].all(), scheme


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
