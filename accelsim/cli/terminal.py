"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from accelsim.errors import printable
from accelsim.report.shown import title_of

if TYPE_CHECKING:
    import pandas as pd

    from accelsim.report.results import RunResult

_SCOPES = ("datapath", "pe", "array", "system")
_PIPED_WIDTH = 240
_LEAST_WIDTH = 10  # of a column
# Rows of the summary, and the stall reasons whose cycles each adds up.
_WAITS = {
    "waiting for weights": ("weight_wait",),
    "waiting for inputs": ("input_wait",),
    "waiting for outputs": ("output_wait",),
    "draining, idle, bubbles": ("drain", "idle", "bubble"),
}
_MOST_NAMES = 6
_WORKLOAD_POLICIES = ("weights", "data")  # of accumulator_bits


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # `main` ends the program quietly


def _console() -> Console:
    # Nothing printed here is markup: names come from users' files.
    console = _Console(markup=False, highlight=False)
    # Piped into a file there is no terminal to measure; 80 columns would cut the numbers.
    return console if console.is_terminal else _Console(markup=False, highlight=False, width=_PIPED_WIDTH)


def _print(table: Table) -> None:
    """In a narrow terminal, which breaks lines, rather than in columns without a character."""
    console = _console()
    console.width = max(console.width, _LEAST_WIDTH * len(table.columns))
    console.print(table)


def print_frame(frame: pd.DataFrame) -> None:
    """One row a line, unit in the column name."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in frame.columns:
        numeric = frame[column].dtype.kind in "iuf"
        table.add_column(printable(column), justify="right" if numeric else "left", overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(*(_text(value) for value in row))
    _print(table)


def print_explained(rows: pd.DataFrame) -> None:
    """What the energy is made of, the largest first; sources are in the file."""
    shown = rows[rows["energy_pj"] > 0].sort_values("energy_pj", ascending=False, kind="stable")
    print_frame(
        shown.assign(
            energy_per_action_fj=shown["energy_per_action_pj"] * 1e3,
            energy_uj=shown["energy_pj"] / 1e6,
        )[
            [
                "scope",
                "component",
                "action",
                "count",
                "activity",
                "energy_per_action_fj",
                "energy_uj",
                "share_percent",
                "evidence",
            ]
        ]
    )


def print_sensitivity(rows: pd.DataFrame) -> None:
    """Savings of energy at the low and the high price; reasons are in the file."""
    print_frame(rows.drop(columns=["why"]).round(1))


def print_mapping(values: Mapping[str, Any]) -> None:
    """Name and value, one a line; nested mappings are flattened with dots."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", overflow="fold")
    table.add_column(overflow="fold")
    for name, value in _flat("", values):
        table.add_row(printable(name), _text(value))
    _print(table)


def summary_table(
    runs: Sequence[RunResult], comparison: pd.DataFrame | None = None, accuracy: Sequence[str] = ()
) -> None:
    """Metrics down, schemes across; with a comparison also what each saves against the first, and its columns
    of measured accuracy."""
    first = runs[0].summary
    table = Table(title=printable(title_of(first)), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("metric", overflow="fold")
    for run in runs:
        table.add_column(run.summary["scheme"], justify="right", overflow="fold")

    def line(name: str, values: Sequence[str]) -> None:
        table.add_row(name, *values)

    def saved(key: str, index: int) -> str:
        if comparison is None or index == 0:
            return ""
        return f"  ({comparison[key + '_saved_percent'].iloc[index]:+.1f} % saved)"

    summaries = [run.summary for run in runs]
    line("cycles", [f"{s['cycles']:,}{saved('cycles', i)}" for i, s in enumerate(summaries)])
    line("utilization", [f"{s['utilization']:.3f}" for s in summaries])
    line("utilization at the run's bound", [f"{s['bound_utilization']:.3f}" for s in summaries])
    for name, reasons in _WAITS.items():
        shares = [sum(s["pe_cycle_shares"][reason] for reason in reasons) for s in summaries]
        line(f"PE cycles: {name} (%)", [f"{100 * share:.1f}" for share in shares])
    line("SQNR, psums (dB)", [_text(s["sqnr_db"]) for s in summaries])
    line("SQNR, PPU outputs (dB)", [_text(s["ppu_sqnr_db"]) for s in summaries])
    line("overflows", [f"{_text(s['overflows'])} at {s['accumulator_bits']} bits" for s in summaries])
    if any(s["accumulator_policy"] in _WORKLOAD_POLICIES for s in summaries):
        line("accumulators (bits)", [_sized(s) for s in summaries])
    if any(":sp" in s["scheme"] and s["zero_product_fraction"] is not None for s in summaries):
        shares = [s["zero_product_fraction"] if ":sp" in s["scheme"] else None for s in summaries]
        line("scale products rounded to 0 (%)", [_text(None if v is None else 100 * v) for v in shares])
    if comparison is not None:
        for name in accuracy:
            line(name, [_text(float(value)) for value in comparison[name]])
    if first["energy_pj"] is not None:
        _price_lines(table, summaries, line, saved)
    if comparison is not None:
        table.add_section()
        if first["energy_pj"] is not None:
            area = comparison["area_pe_datapath_and_sram_um2"]
            line("area, datapath + SRAM (um2)", [_against(area, index) for index in range(len(runs))])
            narrow = comparison["area_pe_24bit_um2"]
            line("area, one pe, 24-bit acc. (um2)", [_against(narrow, index) for index in range(len(runs))])
        line("overflows at 24 bits", [_text(value) for value in comparison["overflows_24bit"]])
        line("SQNR at 24 bits (dB)", [_text(value) for value in comparison["sqnr_db_24bit"]])
    console = _console()
    console.print(table)
    for note in _notes(runs, comparison is not None):
        console.print(note, style="dim", soft_wrap=True)


def _price_lines(
    table: Table,
    summaries: Sequence[Mapping[str, Any]],
    line: Callable[[str, Sequence[str]], None],
    saved: Callable[[str, int], str],
) -> None:
    table.add_section()
    for scope in _SCOPES:
        line(
            f"energy, {scope} (uJ)",
            [
                f"{s['energy_pj'][scope] / 1e6:.4g}{saved(f'energy_{scope}', i)}"
                for i, s in enumerate(summaries)
            ],
        )
    for scope in _SCOPES:
        line(f"fJ/op, {scope}", [f"{s['fj_per_op'][scope]:.1f}" for s in summaries])
    table.add_section()
    for scope in _SCOPES[:-1]:
        line(
            f"area, {'one ' if scope != 'array' else ''}{scope} (um2)",
            [f"{s['area_um2'][scope]:,.0f}{saved(f'area_{scope}', i)}" for i, s in enumerate(summaries)],
        )
    line("TOPS/mm2 (peak)", [f"{s['tops_per_mm2']:.3f} ({s['peak_tops_per_mm2']:.3f})" for s in summaries])


def _sized(summary: Mapping[str, Any]) -> str:
    text, less = (
        f"{summary['accumulator_bits']}, by {summary['accumulator_policy']}",
        summary["overflows_one_bit_less"],
    )
    return text if less is None else f"{text} ({less:,} overflows with 1 less)"


def _against(series: pd.Series, index: int) -> str:
    value, base = series.iloc[index], series.iloc[0]
    return f"{value:,.0f}" + (f"  ({100 * (1 - value / base):+.1f} % saved)" if index else "")


def _notes(runs: Sequence[RunResult], compared: bool) -> list[str]:
    notes = []
    if compared:
        notes.append(
            "Port widths are the same for every scheme: cycles and energy saved contain a bandwidth effect."
        )
        notes.append("Cycles also contain the mapper's choices, made for each scheme; see layers.csv.")
        notes += _moved(runs)
    if modes := runs[0].summary["arch_parameters"]["modes"]:
        ran = " and ".join(run.summary["scheme"] for run in runs)
        notes.append(
            f"A machine of modes {', '.join(modes)}: energy is of {ran}, area and leakage serve all of them."
        )
    assumed = runs[0].summary["assumed_gated_fraction"]
    if assumed is not None:
        notes.append(
            f"No values computed: {assumed:g} of the lane steps are taken for gated, and all in padding."
        )
    computed, layers = runs[0].summary["layers_computed"], len(runs[0].activities)
    if computed is not None and computed < layers:
        notes.append(
            f"Values of {computed} layers are computed: the other {layers - computed} have the same."
        )
    if runs[0].summary["energy_pj"] is None:
        notes.append("Nothing is priced: no energy, no area.")
        return notes
    if any(run.report.scheme.is_aligned for run in runs):
        notes.append(
            "Block formats are priced on real tensors, integers on the tables' operands, which change less: "
            "see docs/costs.md, Block formats."
            if assumed is not None
            else "Of block formats dot products and operand registers follow the values, all else is priced "
            "on the tables' real tensors."
        )
    for run in runs:
        shares = sorted(run.summary["energy_evidence"].items(), key=lambda item: -item[1])
        rests = ", ".join(f"{share:.0%} {evidence}" for evidence, share in shares)
        notes.append(f"{run.summary['scheme']}: system energy rests on {rests}.")
    return notes


def _moved(runs: Sequence[RunResult]) -> list[str]:
    """Layers whose operands live elsewhere than in the first run: there DRAM traffic differs
    by whole tensors, not in proportion to the widths of the scheme.
    """
    columns = ["weights_from", "input_from", "output_to"]
    base = runs[0].layers
    notes = []
    for run in runs[1:]:
        differs = (run.layers[columns] != base[columns]).any(axis=1)
        if differs.any():
            moved = list(run.layers.loc[differs, "layer"])
            names = ", ".join(moved[:_MOST_NAMES])
            if len(moved) > _MOST_NAMES:
                names += f" and {len(moved) - _MOST_NAMES} more layers"
            first = runs[0].summary["scheme"]
            notes.append(f"{run.summary['scheme']}: operands live elsewhere than at {first} in {names}.")
    return notes


def _flat(prefix: str, values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(f"{prefix}{name}.", value)
        else:
            rows.append((f"{prefix}{name}", value))
    return rows


def _text(value: Any) -> str:
    if value is None or value != value:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    if not isinstance(value, str) and (isinstance(value, int) or type(value).__module__ == "numpy"):
        return f"{value:,}"
    return printable(", ".join(map(str, value)) if isinstance(value, list | tuple) else value)
