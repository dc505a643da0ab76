"""Measured accuracy beside area and energy."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from accelsim import AccelsimError, Comparison, Scheme, compare

pytestmark = pytest.mark.kept

SCHEMES = ["8/8/-/-", "4/4/4/4"]
MEASURED = {"4/4/4/4": {"top-1 (%)": 89.84, "agreement (%)": np.float32(91.75)}, "8/8/-/-": {"top-1 (%)": 91}}


@pytest.fixture(scope="module")
def comparison(trace: Path) -> Comparison:
    return compare(trace, schemes=SCHEMES, gated_fraction=0.0)


def test_accuracy_is_in_everything_a_comparison_gives(comparison: Comparison, tmp_path: Path) -> None:
    before = comparison.to_frame().copy()
    own = comparison.with_accuracy(MEASURED)
    pd.testing.assert_frame_equal(comparison.to_frame(), before)
    frame = own.to_frame()
    assert list(frame["top-1 (%)"]) == [91.0, 89.84]
    assert math.isnan(frame["agreement (%)"][0]) and frame["agreement (%)"][1] == 91.75
    pd.testing.assert_frame_equal(frame[before.columns], before)
    _, columns, _, first, second = repr(own).splitlines()
    assert "top-1 (%)" in columns and "agreement (%)" in columns and "top-1" not in repr(comparison)
    assert "91.00" in first and "89.84" in second and "91.75" in second
    assert own._repr_html_().count("top-1 (%)") == 1
    own.write(tmp_path / "out", plots=False)
    rows = list(csv.DictReader((tmp_path / "out/comparison.csv").open()))
    assert [row["top-1 (%)"] for row in rows] == ["91.0", "89.84"] and rows[0]["agreement (%)"] == ""
    more = own.with_accuracy({Scheme.parse("4/4/4/4"): {"F1 (%)": 80.5}})
    assert more.accuracy == ("top-1 (%)", "agreement (%)", "F1 (%)") and more["4/4/4/4"] is own["4/4/4/4"]


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ({}, "expected values by scheme"),
        ([1], "expected values by scheme"),
        ({"4/8/6/10": {"a": 1}}, "accuracy of 4/8/6/10: it was not compared, expected 8/8/-/-, 4/4/4/4"),
        ({"4/4": {"a": 1}}, "scheme"),
        ({"4/4/4/4": {"a": 1}, Scheme.parse("4/4/4/4"): {"a": 2}}, "is given twice"),
        ({"4/4/4/4": 89.8}, "is 89.8, expected numbers by name"),
        ({"4/4/4/4": {}}, "expected numbers by name"),
        ({"4/4/4/4": {"a": float("nan")}}, "a is nan, expected a finite number"),
        ({"4/4/4/4": {"a": np.inf}}, "expected a finite number"),
        ({"4/4/4/4": {"a": 10**400}}, "expected a finite number"),
        ({"4/4/4/4": {"a": True}}, "expected a finite number"),
        ({"4/4/4/4": {"a": "89"}}, "expected a finite number"),
        ({"4/4/4/4": {"a\nb": 1}}, "printable characters"),
        ({"4/4/4/4": {"": 1}}, "1 to 40 printable"),
        ({"4/4/4/4": {3: 1}}, "a name is 3"),
        ({"4/4/4/4": {"cycles": 1}}, "'cycles' is a column already"),
    ],
)
def test_what_is_no_accuracy_is_said(comparison: Comparison, measured: Any, message: str) -> None:
    with pytest.raises(AccelsimError, match=message.replace("(", r"\(")) as said:
        comparison.with_accuracy(measured)
    assert "\n" not in str(said.value)


def test_accuracy_on_the_command_line(trace: Path, cli: Any, tmp_path: Path) -> None:
    file = tmp_path / "accuracy.json"
    file.write_text(json.dumps({"4/4/4/4": {"top-1 (%)": 89.84}}))
    arguments = ("compare", trace, *("--scheme", "8/8/-/-", "--scheme", "4/4/4/4"))
    said = cli(*arguments, "--no-data", "--no-plots", "--out", "out", "--accuracy", file)
    assert said.status == 0, said.err
    (line,) = (line for line in said.out.splitlines() if "top-1 (%)" in line)
    assert line.split()[-2:] == ["-", "89.84"]
    assert "top-1 (%)" in (tmp_path / "out/comparison.csv").read_text().splitlines()[0]
    for text, message in (
        ('{"4/8/6/10": {"a": 1}}', "was not compared"),
        ('{"4/4/4/4": {"a": NaN}}', "holds NaN"),
        ("{", "is not valid JSON"),
        ("", "is not valid JSON"),
    ):
        file.write_text(text)
        wrong = cli(*arguments, "--out", "wrong", "--accuracy", file)
        assert wrong.status == 2 and message in wrong.err and len(wrong.err.splitlines()) == 1
    absent = cli(*arguments, "--out", "wrong", "--accuracy", tmp_path / "none.json")
    assert absent.status == 2 and "cannot be read" in absent.err and not (tmp_path / "wrong").exists()
