"""What a result shows when it is printed or evaluated in a notebook: a small table, as text or as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_MOST_LAYERS = 12
_PJ_PER_UJ = 1e6


@dataclass(frozen=True)
class Shown:
    """A title, column names, and rows of texts; the first column stands left, the others right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """Columns just as wide as they must be, for a terminal."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        shown = []
        for line in lines:
            cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
            shown.append("  ".join([line[0].ljust(widths[0]), *cells[1:]]))
        shown.insert(1, "-" * len(shown[0]))
        return "\n".join([self.title, *(line.rstrip() for line in shown)])

    def html(self) -> str:
        """A table for a notebook; texts are escaped, since names come from users' files."""

        def row(cells: Sequence[str], tag: str) -> str:
            sides = ["left", *["right"] * (len(cells) - 1)]
            inside = "".join(
                f'<{tag} style="text-align:{side}">{escape(cell)}</{tag}>'
                for cell, side in zip(cells, sides, strict=True)
            )
            return f"<tr>{inside}</tr>"

        body = "".join(row(cells, "td") for cells in self.rows)
        head = f"<caption>{escape(self.title)}</caption><thead>{row(self.columns, 'th')}</thead>"
        return f"<table>{head}<tbody>{body}</tbody></table>"


def title_of(summary: dict[str, Any]) -> str:
    synthetic = ", synthetic tensors" if summary["synthetic"] else ""
    return f"{summary['trace']} on {summary['arch']}: {summary['macs']:,} MACs{synthetic}"


def shown_run(summary: dict[str, Any], layers: pd.DataFrame) -> Shown:
    """A line a layer, the first of them where they are many, and one for the whole run."""
    keys = ("layer", "macs", "cycles", "utilization", "energy_system_pj", "sqnr_db")
    records: list[dict[str, Any]] = layers.head(_MOST_LAYERS).to_dict("records")  # type: ignore[assignment]
    rows = [_row(*[own.get(key) for key in keys]) for own in records]  # type: ignore[arg-type]
    left_out = len(layers) - len(rows)
    if left_out:
        rows.append([f"... {left_out} more layers", *[""] * 5])
    energy_pj = None if summary["energy_pj"] is None else summary["energy_pj"]["system"]
    whole = ("whole run", summary["macs"], summary["cycles"], summary["utilization"], energy_pj)
    rows.append(_row(*whole, summary["sqnr_db"]))
    columns = ("layer", "MACs", "cycles", "utilization", "system energy (uJ)", "SQNR (dB)")
    return Shown(f"{title_of(summary)}, at {summary['scheme']}", columns, rows)


def _row(
    name: str, macs: int, cycles: int, utilization: float, energy_pj: float | None, sqnr_db: float | None
) -> list[str]:
    energy = "-" if energy_pj is None else f"{energy_pj / _PJ_PER_UJ:.4g}"
    return [name, f"{macs:,}", f"{cycles:,}", f"{utilization:.3f}", energy, _number(sqnr_db)]


def shown_comparison(summary: dict[str, Any], table: pd.DataFrame, accuracy: Sequence[str] = ()) -> Shown:
    """A line a scheme, with what it saves against the first. summary: of any of the runs; accuracy: names of
    columns of measured accuracy."""
    rows, priced = [], "energy_pe_pj" in table
    for index, own in enumerate(table.to_dict("records")):
        cells = [own["scheme"], f"{own['utilization']:.3f}", _number(own["sqnr_db"])]
        cells += [_number(own[name]) for name in accuracy]
        shown = [("cycles", f"{own['cycles']:,}")]
        if priced:
            shown += [
                ("energy_pe", f"{own['energy_pe_pj'] / _PJ_PER_UJ:.4g}"),
                ("energy_system", f"{own['energy_system_pj'] / _PJ_PER_UJ:.4g}"),
                ("area_pe", f"{own['area_pe_um2']:,.0f}"),
            ]
        for key, value in shown:
            cells.append(value + (f" ({own[f'{key}_saved_percent']:+.1f} %)" if index else ""))
        rows.append(cells)
    prices = ("cycles", *(("PE (uJ)", "system (uJ)", "one PE (um2)") if priced else ()))
    columns = ("scheme", "utilization", "SQNR (dB)", *accuracy, *prices)
    against = f" (saved against {rows[0][0]})" if len(rows) > 1 else ""
    return Shown(title_of(summary) + against, columns, rows)


def shown_bits(summary: dict[str, Any], layers: pd.DataFrame) -> Shown:
    """A line a layer, the first of them where they are many, and one for what holds all of them."""
    keys = ("partial_sum_bits", "psum_bits", "lossless_bits", "overflows")
    rows = []
    for own in layers.head(_MOST_LAYERS).to_dict("records"):
        zeros = [_percent(own[f"zero_{name}_fraction"]) for name in ("weight_code", "activation_code")]
        rows.append(
            [own["layer"], *(f"{own[key]:,}" for key in keys), *zeros, _percent(own["gated_fraction"])]
        )
    left_out = len(layers) - len(rows)
    if left_out:
        rows.append([f"... {left_out} more layers", *[""] * 7])
    rows.append(["all layers", *(f"{summary[key]:,}" for key in keys), "", "", ""])
    columns = (
        "layer",
        "partial sums",
        "psums",
        "lossless",
        f"overflows at {summary['accumulator_bits']}",
        "zero weights",
        "activations",
        "gated",
    )
    return Shown(f"{title_of(summary)}, at {summary['scheme']}: bits", columns, rows)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.2f}"
