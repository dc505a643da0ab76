"""Rows left out of the laws: against predictions by hand, and with rows that are wrong."""

from __future__ import annotations

import csv
import io
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from accelsim.api import check_costs
from accelsim.costs.check import check_tables
from accelsim.costs.dot import DotProducts
from accelsim.costs.fast import FastDots
from accelsim.costs.logic import LogicBlocks
from accelsim.costs.tables import DATAPATH, TABLES_DIR, Datapath, read_table
from accelsim.errors import AccelsimError


@pytest.fixture(scope="module")
def datapath() -> Datapath:
    return Datapath(read_table(DATAPATH, TABLES_DIR))


@pytest.fixture(scope="module")
def package() -> pd.DataFrame:
    """The package's tables, checked: `accelsim costs check`."""
    return check_costs()


def predicted_by(
    terms: Callable[..., list[float]], known: dict[tuple[float, ...], float], point: tuple[float, ...]
) -> float:
    """Least squares on relative error over the other points, where coefficients come out positive."""
    others = [(terms(*other), value) for other, value in known.items() if other != point]
    matrix = np.array([np.array(own) / value for own, value in others])
    solution = np.linalg.lstsq(matrix, np.ones(len(others)), rcond=None)[0]
    assert (solution > 0).all()
    return float(np.dot(terms(*point), solution))


def test_a_row_is_predicted_by_the_others(datapath: Datapath) -> None:
    rows = datapath.find("acc_add", "dnn")
    known = {(row["width_bits"],): row["energy_fj"] for row in rows}
    checked = [one for one in LogicBlocks(datapath).left_out() if one.law == "adder"]
    found = {one.row: one.predicted for one in checked if one.quantity == "energy_fj"}
    assert list(found) == [row.text["block"] for row in rows]
    for row in rows:
        by_hand = predicted_by(lambda n: [n, n * math.log2(n)], known, (row["width_bits"],))
        assert found[row.text["block"]] == pytest.approx(by_hand)


def test_a_dot_product_is_interpolated_across_its_hole(datapath: Datapath) -> None:
    """4 x 5 bits from the ratios of 4 x 4 and 4 x 6 to a law that has not seen it."""
    rows = datapath.find("dot", "dnn", vector_size=16, activation_signed=1)
    known = {(row["weight_bits"], row["activation_bits"]): row["area_um2"] for row in rows}

    def law(weight: float, operand: float) -> float:
        # The terms that are left at the best fit of areas.
        def terms(w: float, a: float) -> list[float]:
            return [(w - 1) * (a - 1), w - 1, a - 1]

        others = {key: value for key, value in known.items() if key != (4, 5)}
        return predicted_by(terms, {**others, (weight, operand): math.nan}, (weight, operand))

    [found] = [
        one
        for one in DotProducts(datapath).left_out()
        if (one.row, one.quantity) == ("dot_v16_w4_a5_s", "area_um2")
    ]
    ratio = 0.5 * sum(known[4, operand] / law(4, operand) for operand in (4, 6))
    assert found.value == known[4, 5]
    assert found.predicted == pytest.approx(law(4, 5) * ratio, rel=1e-3)


@pytest.mark.parametrize(
    ("block", "column", "law"),
    [
        ("smul_d14_s8", "area_um2", "scale_multiply"),
        ("sprod_w6_a8_sp6", "energy_fj", "scale_product"),
        ("acc_p24_n32", "energy_fj", "accumulator"),
        ("dot_v16_w5_a5_s", "leakage_nw", "dot_product widths, V = 16"),
        ("dot_v64_w4_a4_s", "area_um2", "dot_product vector size above 16"),
        ("arr_latch_256x16", "area_um2", "array latch, depth 16"),
        ("arr_latch_256x8", "leakage_nw", "array latch, between depths"),
        ("2048 x 64", "read_energy_pj", "sram itrs-hp"),
        ("128 x 512", "area_mm2", "sram itrs-hp, beyond its law"),
    ],
)
def test_a_wrong_row_is_named(
    package: pd.DataFrame, tmp_path: Path, block: str, column: str, law: str
) -> None:
    for path in TABLES_DIR.glob("*.csv"):
        shutil.copy(path, tmp_path)
    table = tmp_path / ("sram_cacti22.csv" if law.startswith("sram") else "datapath.csv")
    rows = list(csv.DictReader(table.open(newline="")))
    for row in rows:
        own = row["block"] if "block" in row else f"{row['words']} x {row['width_bits']}"
        if own == block and (table.name == "datapath.csv" or row["device"] == "itrs-hp"):
            row[column] = str(2 * float(row[column]))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    whole, spoilt = (
        {(line["law"], line["quantity"]): line for line in lines}
        for lines in (package.to_dict("records"), check_tables(tmp_path))
    )
    quantity = {"scale_product": "energy_fj"}.get(law, column)
    assert spoilt[law, quantity]["worst_row"] == block
    assert spoilt[law, quantity]["worst_error_percent"] > 30
    assert spoilt[law, quantity]["worst_error_percent"] > whole[law, quantity]["worst_error_percent"]


def test_what_cannot_be_checked_is_said(package: pd.DataFrame) -> None:
    lines = package
    unchecked = lines[lines["checked"] == 0]
    assert set(unchecked.loc[unchecked["note"].str.startswith("no law"), "law"]) >= {"register", "ppu"}
    assert (unchecked["note"] != "").all() and unchecked["worst_error_percent"].isna().all()
    assert (lines.loc[lines["checked"] > 0, "note"] == "").all()


def test_errors_of_the_package_s_tables(package: pd.DataFrame) -> None:
    """What docs/costs.md says of them, at the median: of all rows together, and of what lanes are made of."""
    lines = package.set_index(["law", "quantity"])
    datapath = lines.loc["all of datapath.csv", "median_error_percent"]
    assert datapath["area"] < 1.7 and datapath["energy"] < 5
    for law, most in (
        ("dot_product widths, V = 16", 0.3), ("scale_multiply", 0.7), ("scale_product", 2.2),
        ("accumulator", 2.8), ("block_sum", 5.3), ("block_accumulator", 3.3),
    ):  # fmt: skip
        assert lines.loc[(law, "area_um2"), "median_error_percent"] < most, law
    for device in ("itrs-lstp", "itrs-lop", "itrs-hp"):
        assert lines.loc[(f"all of sram_cacti22.csv, {device}", "energy"), "median_error_percent"] < 15


def test_on_the_command_line(package: pd.DataFrame, tmp_path: Path, cli: Any) -> None:
    shown = cli("costs", "check", "--csv")
    rows = list(csv.DictReader(io.StringIO(shown.out)))
    assert len(rows) == len(package) and rows[0]["law"].startswith("dot_product")
    assert "acc_p8_n16" in cli("costs", "check").out
    refused = cli("costs", "check", "--costs", str(tmp_path / "absent"))
    assert refused.status == 2 and "no such folder" in refused.err


@pytest.mark.parametrize(
    ("block", "law"),
    [("fast_dot_v16_w4_a5_s_s1", lambda found: FastDots(found, 1)), ("dot_v16_w3_a3_s", DotProducts)],
)
def test_rows_of_other_sizes_need_one_at_the_anchor(block: str, law: Callable[[Datapath], object]) -> None:
    """Widths that only other vector sizes have, of a lane in stages too: the line is named."""
    rows = [row for row in read_table(DATAPATH, TABLES_DIR) if row.text["block"] != block]
    message = r"line \d+ .*: no row of the same widths at vector_size 16, expected one"
    with pytest.raises(AccelsimError, match=message):
        law(Datapath(rows))
