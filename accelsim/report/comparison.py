"""The table of a comparison: what each scheme takes, and what it saves against the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from accelsim.compute.widths import PUBLISHED_ACCUMULATOR_BITS
from accelsim.costs import CostLibrary
from accelsim.report.inventory import SCOPES
from accelsim.report.price import area_um2_at
from accelsim.report.results import RunResult

if TYPE_CHECKING:
    import pandas as pd


def comparison_table(runs: Sequence[RunResult], library: CostLibrary | None) -> pd.DataFrame:
    """One row a scheme; `saved_percent` columns are against the first. Without prices of cycles alone."""
    import pandas as pd

    base = runs[0].summary
    rows: list[dict[str, Any]] = []
    for run in runs:
        summary, scheme = run.summary, run.report.scheme
        narrow = run.report.arch.model_copy(update={"accumulator_bits": PUBLISHED_ACCUMULATOR_BITS})
        row: dict[str, Any] = {
            key: summary[key] for key in ("scheme", "macs", "cycles", "utilization", "sqnr_db", "overflows")
        }
        if library is not None:
            row |= _prices(run, base)
        row["cycles_saved_percent"] = _saved(base, summary, "cycles")
        for key in (
            "zero_product_fraction",
            "accumulator_bits",
            "accumulator_policy",
            "overflows_one_bit_less",
        ):
            row[key] = summary[key]
        if library is not None:
            row["area_pe_24bit_um2"] = area_um2_at(narrow, scheme, library, "pe")
        row["overflows_24bit"], row["sqnr_db_24bit"] = run.narrow or (None, None)
        rows.append(row)
    return pd.DataFrame(rows)


def _prices(run: RunResult, base: dict[str, Any]) -> dict[str, Any]:
    summary, row = run.summary, {}
    for scope in SCOPES:
        row[f"energy_{scope}_pj"] = summary["energy_pj"][scope]
    for scope in SCOPES[:-1]:
        row[f"area_{scope}_um2"] = summary["area_um2"][scope]
    row["area_pe_datapath_and_sram_um2"] = _datapath_and_sram_um2(run)
    for scope in SCOPES:
        row[f"fj_per_op_{scope}"] = summary["fj_per_op"][scope]
    row["tops_per_mm2"] = summary["tops_per_mm2"]
    row["peak_tops_per_mm2"] = summary["peak_tops_per_mm2"]
    for scope in SCOPES:
        row[f"energy_{scope}_saved_percent"] = _saved(base["energy_pj"], summary["energy_pj"], scope)
    for scope in SCOPES[:-1]:
        row[f"area_{scope}_saved_percent"] = _saved(base["area_um2"], summary["area_um2"], scope)
    return row


def _datapath_and_sram_um2(run: RunResult) -> float:
    """Placed area of one PE's datapath with its SRAM buffers, leaving out collectors, PPU and control."""
    area, arch = run.report.area, run.report.arch
    wanted = (area["scope"] == "datapath") | area["component"].isin(["weight_buffer", "input_buffer"])
    return float(area.loc[wanted, "placed_area_um2"].sum()) / arch.pes


def _saved(base: dict[str, Any], own: dict[str, Any], key: str) -> float:
    return 100 * (1 - own[key] / base[key])
