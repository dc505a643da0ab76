"""Whole PEs of the emitted RTL, as benchmarks/whole_pe.csv has them, beside the sum of parts today."""

import csv
import sys
from pathlib import Path

import pytest

from accelsim.costs import CostLibrary, Technology
from accelsim.formats.scheme import Scheme
from accelsim.machine.arch_file import load_arch
from accelsim.report.inventory import build_inventory

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ROWS = {row["scheme"]: row for row in csv.DictReader((BENCHMARKS / "whole_pe.csv").open())}


@pytest.fixture(scope="module")
def modelled() -> dict[str, float]:
    """um2 of the parts of a PE that are modules of the RTL, as the benchmark counts them."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from whole_pe import AT_TABLE, _logic, _um2
    finally:
        sys.path.remove(str(BENCHMARKS))
    arch, library = load_arch("magnet16", list(AT_TABLE)), CostLibrary(Technology(7, 0.7))
    return {
        text: sum(
            _um2(part, arch) for part in build_inventory(arch, Scheme.parse(text), library) if _logic(part)
        )
        for text in ROWS
    }


@pytest.mark.parametrize("scheme", ROWS)
def test_sum_of_parts_beside_the_whole_pe(scheme: str, modelled: dict[str, float]) -> None:
    """Of each scheme by itself, and of what users quote: the area over that of 8/8/-/-."""
    whole, base = float(ROWS[scheme]["left_um2"]), float(ROWS["8/8/-/-"]["left_um2"])
    assert modelled[scheme] == pytest.approx(float(ROWS[scheme]["parts_um2"]), rel=0.005)  # run it again
    assert modelled[scheme] == pytest.approx(whole, rel=0.07)
    assert modelled[scheme] / modelled["8/8/-/-"] == pytest.approx(whole / base, rel=0.05)
