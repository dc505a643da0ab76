"""Figures of a result folder, PNG and SVG, drawn from the tables; the same tables give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

from accelsim.report.inventory import SCOPES
from accelsim.sim.layer_run import STALL_REASONS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from accelsim.report.price import Report

_PJ_PER_UJ = 1e6
_UM2_PER_MM2 = 1e6
# Components below this share of the largest total are drawn as one bar.
_SMALL_SHARE = 0.02


Summary = Mapping[str, Any]  # what summary.json holds


def plot_run(summary: Summary, report: Report, folder: Path) -> None:
    """energy.*, area.* and cycles.* of one run: breakdowns by component and where each layer's time goes."""
    title = f"{summary['trace']} at {summary['scheme']} on {summary['arch']}"
    note = " (synthetic tensors)" if summary["synthetic"] else ""
    if report.priced:
        energy = {str(report.scheme): energy_by_component(report)}
        save_figure(_breakdown(energy, "energy (uJ)", title + note), folder / "energy")
        area = {str(report.scheme): area_by_component(report)}
        save_figure(_breakdown(area, "placed area (mm2)", title), folder / "area")
    save_figure(_stall_chart(report, title + note), folder / "cycles")


def plot_comparison(first: Summary, reports: Sequence[Report], table: pd.DataFrame, folder: Path) -> None:
    """energy.* and area.* of all schemes side by side, and savings.* against the first.

    Nothing where nothing is priced. first: summary of the first scheme's run; table: one row a scheme, as
    `Comparison.to_frame` gives it.
    """
    if not reports[0].priced:
        return
    title = f"{first['trace']} on {first['arch']}"
    note = " (synthetic tensors)" if first["synthetic"] else ""
    energy = {str(report.scheme): energy_by_component(report) for report in reports}
    area = {str(report.scheme): area_by_component(report) for report in reports}
    save_figure(_breakdown(energy, "energy (uJ)", title + note), folder / "energy")
    save_figure(_breakdown(area, "placed area (mm2)", title), folder / "area")
    if len(reports) > 1:
        save_figure(_savings(table, title + note), folder / "savings")


def energy_by_component(report: Report) -> pd.Series:
    """Energy in uJ by component, innermost scope first; leakage and idle clocking are in their component."""
    frame = report.components
    order = {scope: index for index, scope in enumerate(SCOPES)}
    keys = frame.assign(order=frame["scope"].map(order), name=frame["component"])
    series = keys.groupby(["order", "name"], sort=True)["energy_pj"].sum().droplevel("order")
    return series / _PJ_PER_UJ


def area_by_component(report: Report) -> pd.Series:
    """Placed area in mm2 by component over the whole array, innermost scope first."""
    frame = report.area[report.area["scope"] != "system"]
    return frame.set_index("component")["placed_area_um2"] / _UM2_PER_MM2


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _breakdown(columns: dict[str, pd.Series], label: str, title: str) -> Figure:
    import pandas as pd

    frame = pd.concat(columns, axis=1, sort=False).fillna(0.0)
    small = frame.max(axis=1) < _SMALL_SHARE * frame.sum().max()
    shown = frame[~small].copy()
    if small.any():
        shown.loc[f"{int(small.sum())} smaller parts"] = frame[small].sum()
    figure, axes = _figure(3.6 + 1.1 * len(columns), 4.6)
    colors = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
    bottom = pd.Series(0.0, index=shown.columns)
    for index, (name, values) in enumerate(shown.iterrows()):
        axes.bar(
            shown.columns,
            values,
            bottom=bottom,
            label=str(name).replace("_", " "),
            color=colors[index % len(colors)],
            width=0.65,
        )
        bottom = bottom + values
    for position, total in enumerate(bottom):
        axes.annotate(
            f"{total:.3g}",
            (position, total),
            ha="center",
            va="bottom",
            xytext=(0, 2),
            textcoords="offset points",
        )
    axes.set_ylabel(label)
    axes.margins(y=0.08)
    axes.set_title(title, fontsize=10, parse_math=False)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1, 1), fontsize=8, frameon=False
    )
    return figure


def _stall_chart(report: Report, title: str) -> Figure:
    frame = report.stalls.pivot_table(
        index="layer", columns="stall_reason", values="cycles", aggfunc="sum", sort=False
    )
    frame = frame[list(STALL_REASONS)] / report.arch.pes
    figure, axes = _figure(7.5, 1.4 + 0.32 * len(frame))
    colors = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    left = frame[STALL_REASONS[0]] * 0.0
    for index, reason in enumerate(STALL_REASONS):
        axes.barh(
            frame.index.astype(str),
            frame[reason],
            left=left,
            label=reason.replace("_", " "),
            color=colors[index],
        )
        left = left + frame[reason]
    axes.invert_yaxis()
    axes.set_xlabel("cycles, mean over the PEs")
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8, frameon=False)
    return figure


def _savings(table: pd.DataFrame, title: str) -> Figure:
    kinds: Sequence[tuple[str, str]] = (
        ("area_datapath_saved_percent", "area, datapath"),
        ("area_pe_saved_percent", "area, PE"),
        ("area_array_saved_percent", "area, array"),
        ("energy_datapath_saved_percent", "energy, datapath"),
        ("energy_pe_saved_percent", "energy, PE"),
        ("energy_array_saved_percent", "energy, array"),
        ("energy_system_saved_percent", "energy, system"),
        ("cycles_saved_percent", "cycles"),
    )
    others = table.iloc[1:]
    figure, axes = _figure(7.5, 4.0)
    width = 0.8 / len(others)
    for number, (_, row) in enumerate(others.iterrows()):
        places = [index + number * width for index in range(len(kinds))]
        bars = axes.bar(places, [row[key] for key, _ in kinds], width=width, label=row["scheme"])
        axes.bar_label(bars, fmt="%.0f", fontsize=7, padding=1)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(
        [index + width * (len(others) - 1) / 2 for index in range(len(kinds))],
        [name for _, name in kinds],
        rotation=30,
        ha="right",
    )
    axes.set_ylabel(f"saved against {table['scheme'].iloc[0]} (%)")
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.legend(fontsize=8, frameon=False)
    return figure


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write stem.svg and stem.png; the same figure gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    svg, png = stem.with_suffix(".svg"), stem.with_suffix(".png")
    # print_svg and print_png draw a figure once; savefig would draw it a second time, to lay it out.
    # SVGs carry a date and random ids unless told otherwise; PNGs the library's version.
    with matplotlib.rc_context({"svg.hashsalt": "accelsim"}):
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None, "Creator": None})
    figure.dpi = 120
    FigureCanvasAgg(figure).print_png(png, metadata={"Software": None})
    return [svg, png]
