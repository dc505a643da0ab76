"""Printing or evaluating a result shows a table that fits a screen, not its insides."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import accelsim
from accelsim.report.shown import Shown

pytestmark = pytest.mark.kept


def test_a_comparison_prints_a_line_a_scheme(trace: Path) -> None:
    comparison = accelsim.compare(trace, schemes=["8/8/-/-", "4/4/4/4"], overrides=["pes=4"])
    title, columns, rule, first, second = repr(comparison).splitlines()
    assert title.startswith("small on magnet16: ") and title.endswith("(saved against 8/8/-/-)")
    assert columns.split()[:2] == ["scheme", "utilization"] and set(rule) == {"-"}
    row = comparison.to_frame().iloc[1]
    assert first.startswith("8/8/-/-") and "%" not in first
    assert second.startswith("4/4/4/4") and f"{row['cycles']:,}" in second
    assert f"({row['energy_pe_saved_percent']:+.1f} %)" in second
    assert all(len(line) <= 110 for line in repr(comparison).splitlines())
    html = comparison._repr_html_()
    assert html.count("<tr>") == 3 and f'<td style="text-align:left">{row["scheme"]}</td>' in html


def test_a_run_prints_its_first_layers_and_the_whole() -> None:
    result = accelsim.run("resnet18", overrides=["mapping.order=KP"], gated_fraction=0.0)
    lines = repr(result).splitlines()
    assert len(lines) == 3 + 12 + 2 and all(len(line) <= 110 for line in lines)
    assert lines[-2].strip() == f"... {len(result.layers) - 12} more layers"
    assert f"{result.summary['cycles']:,}" in lines[-1] and lines[-1].rstrip().endswith("-")
    assert result._repr_html_().count("<tr>") == 15


def test_names_from_files_are_escaped() -> None:
    html = Shown("a<b", ["x", "y"], [["<script>", "1"]]).html()
    assert "<script>" not in html and "&lt;script&gt;" in html and "a&lt;b" in html
    assert re.search(r'text-align:left">x<.*text-align:right">y<', html)


def test_workloads_and_reports_show_a_line(trace: Path) -> None:
    opened = accelsim.open_workload(trace)
    assert repr(opened) == f"<Trace small: 4 layers of {opened.model}>"
    assert repr(accelsim.open_workload("resnet18")) == "<SyntheticWorkload resnet18: 21 layers of resnet18>"
