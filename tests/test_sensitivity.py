"""Savings at uncertain prices are those of a run that is priced so."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

import accelsim
from accelsim.errors import AccelsimError
from accelsim.report.inventory import CLOCK_TREES, PART_NAMES
from accelsim.report.sensitivity import knobs

pytestmark = pytest.mark.kept

SCHEMES = ["8/8/-/-", "4/4/-/-"]
"""Without vector scales: the unit that makes them has a table in SRAM, which the knob of buffers leaves."""


def compared(**how: Any) -> accelsim.Comparison:
    return accelsim.compare("digits", schemes=SCHEMES, gated_fraction=0.1, keep_tensors=False, **how)


@pytest.fixture(scope="module")
def comparison() -> accelsim.Comparison:
    return compared()


def test_knobs_are_of_parts_and_say_why() -> None:
    for knob in knobs():
        assert set(knob["components"].split()) <= PART_NAMES
        assert knob["why"] and knob["changes"] in ("factor", "placement_utilization")
        assert float(knob["low"]) != float(knob["high"])


@pytest.mark.parametrize("end", ["low", "high"])
@pytest.mark.parametrize("name", [knob["knob"] for knob in knobs()])
def test_ends_are_runs_at_those_prices(
    comparison: accelsim.Comparison, name: str, end: str, tmp_path: Path
) -> None:
    [knob] = [knob for knob in knobs() if knob["knob"] == name]
    value = float(knob[end])
    if name == "clock tree":
        pytest.skip("a tree's price is another for each scheme: see the next test")
    elif name == "SRAM level":
        other = compared(overrides=[f"sram_energy_factor={value}"])
    elif name == "placement":
        other = compared(overrides=[f"placement_utilization={value}"])
    else:
        part, action = {"DRAM price": ("dram", "bit"), "wires": ("noc", "bit_hop")}[name]
        rows = comparison.frame("components")
        prices = rows.loc[(rows["component"] == part) & (rows["action"] == action), "energy_per_action_pj"]
        if part == "noc":
            # A PE of another scheme is another size, and so has wires of another length.
            pytest.skip("the crossbar's price is another for each scheme: see the next test")
        own = tmp_path / "own.csv"
        own.write_text(
            f'component,quantity,value,unit\n{part},"energy, {action}",{value * prices.iloc[0]},pJ\n'
        )
        other = compared(costs=own)
    found = comparison.sensitivity()
    found = found[found["knob"] == name].set_index("scope")
    for scope in found.index:
        expected = other.to_frame().loc[1, f"energy_{scope}_saved_percent"]
        # Of the crossbar a part is registers, of clock trees buffers: they do not grow as wires do.
        loose = 0.05 if name == "placement" else 1e-9
        assert found.loc[scope, f"saved_percent_{end}"] == pytest.approx(expected, abs=loose)
        as_priced = comparison.to_frame().loc[1, f"energy_{scope}_saved_percent"]
        assert found.loc[scope, "saved_percent_as_priced"] == pytest.approx(as_priced)


@pytest.mark.parametrize(
    ("knob", "parts"),
    [("wires", {"noc"}), ("clock tree", set(CLOCK_TREES.values()))],
    ids=["wires", "clock tree"],
)
def test_the_high_end_takes_these_parts_twice(
    comparison: accelsim.Comparison, knob: str, parts: set[str]
) -> None:
    found = comparison.sensitivity()
    row = found[(found["knob"] == knob) & (found["scope"] == "array")].iloc[0]
    energies = []
    for run in comparison.runs:
        rows = run.report.components
        own = rows.loc[rows["component"].isin(parts) & (rows["action"] != "leakage"), "energy_pj"].sum()
        energies.append(run.report.energy_pj("array") + own)
    assert row["saved_percent_high"] == pytest.approx(100 * (1 - energies[1] / energies[0]))
    assert row["moves"] == pytest.approx(abs(row["saved_percent_high"] - row["saved_percent_low"]))


def test_one_scheme_alone_saves_nothing(tmp_path: Path, cli: Any) -> None:
    alone = accelsim.compare("digits", schemes=["8/8/-/-"], gated_fraction=0.0, keep_tensors=False)
    with pytest.raises(AccelsimError, match=r"^sensitivity: of one scheme nothing is saved, expected two"):
        alone.sensitivity()
    said = cli("compare", "digits", "--scheme", "8/8/-/-", "--sensitivity", "--out", tmp_path / "c")
    assert said.status == 2 and "expected --scheme twice" in said.err and not (tmp_path / "c").exists()


def test_on_the_command_line(tmp_path: Path, cli: Any) -> None:
    command = ("compare", "digits", "--no-data", "--no-plots", "--out", tmp_path / "c")
    said = cli(*command, "--scheme", "8/8/-/-", "--scheme", "4/4/4/4", "--sensitivity")
    assert said.status == 0 and "DRAM price" in said.out and "moves" in said.out
    with (tmp_path / "c" / "sensitivity.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * len(knobs()) and all(row["why"] for row in rows)
