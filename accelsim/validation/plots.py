"""Figures 3 to 6 of VS-Quant (MLSys 2021), published beside modelled, and what free parameters move."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from accelsim.errors import AccelsimError, listed
from accelsim.report.plots.style import BLUE, ORANGE, axes_for, save_figure
from accelsim.validation.published import published_accuracies

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BASELINE = "8/8/-/-"
_FIGURE_3, _FIGURES_4_TO_6 = "vsq_fig3_", "vsq_fig4_6_"
FIGURES = (3, 4, 5, 6)
# Figure -> the model whose accuracy it shows, the unit, and whose operations the energies are of.
_TRADE_OFFS = {
    4: ("ResNet-50", "top-1", "resnet50"),
    5: ("BERT-base", "F1", "bert-base"),
    6: ("BERT-large", "F1", "bert-base"),
}


def plot_validation(rows: pd.DataFrame, folder: Path) -> None:
    """figure3.* to figure6.*, as PNG and SVG. rows: as `ValidationResult.rows`."""
    for number in FIGURES:
        figure = _figure(*_inches(number))
        draw_figure(rows, number, figure.subplots())
        save_figure(figure, folder / f"figure{number}")


def draw_figure(rows: pd.DataFrame, number: int, ax: Axes | None = None) -> Axes:
    """One of FIGURES of VS-Quant, published beside modelled, by default on a new figure.

    rows: as `ValidationResult.rows` or `validation.points.beside_points`. Raises AccelsimError.
    """
    if number not in FIGURES:
        raise AccelsimError(f"plot: figure is {number}, expected one of {listed(FIGURES, number)}")
    axes = axes_for(ax, *_inches(number))
    if number == FIGURES[0]:
        _energies(rows, axes)
    else:
        _trade_off(rows, axes, *_TRADE_OFFS[number])
    return axes


def _inches(number: int) -> tuple[float, float]:
    return (7.0, 5.0) if number in _TRADE_OFFS else (7.5, 4.0)


def plot_tornado(rows: pd.DataFrame, folder: Path) -> None:
    """tornado.*, as PNG and SVG: of each figure a bar a parameter from end to end, the longest on top.

    rows: as `validation.tornado.tornado`.
    """
    groups = list(rows.groupby("figure", sort=False))
    figure = _figure(6.5 * len(groups) / 2, 0.6 + 0.6 * groups[0][1].shape[0])
    for axes, (name, own) in zip(figure.subplots(2, -(-len(groups) // 2)).flat, groups, strict=False):
        shown = own.iloc[::-1]
        for end, colour in (("low", BLUE), ("high", ORANGE)):
            axes.barh(shown["parameter"], shown[f"at_{end}"] - shown["as_set"], left=shown["as_set"],
                      color=colour, alpha=0.8, label=end)  # fmt: skip
            for place, (value, said) in enumerate(zip(shown[f"at_{end}"], shown[end], strict=True)):
                if said:
                    axes.annotate(said.partition("=")[2], (value, place), fontsize=6, va="center")
        axes.axvline(own["as_set"].iloc[0], color="black", linewidth=0.8)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.margins(x=0.15)
    figure.axes[0].legend(fontsize=7, frameon=False, title="end", title_fontsize=7)
    save_figure(figure, folder / "tornado")


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _energies(rows: pd.DataFrame, axes: Axes) -> None:
    """Energy by scheme, a published and a modelled bar each."""
    own = rows[rows["id"].str.startswith(_FIGURE_3)].reset_index(drop=True)
    for shift, column, colour in ((-0.2, "published", BLUE), (0.2, "modelled", ORANGE)):
        bars = axes.bar(own.index + shift, own[column], width=0.38, label=column, color=colour)
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    axes.axhline(1.0, color="grey", linewidth=0.8, linestyle="--")
    axes.set_xticks(own.index, list(own["scheme"]), rotation=30, ha="right")
    axes.set_ylabel(f"energy, {_BASELINE} = 1")
    title = f"VS-Quant, Figure 3; modelled: {own['workload'][0]} on {own['machine'][0]}, one PE"
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, frameon=False)


def _trade_off(rows: pd.DataFrame, axes: Axes, model: str, unit: str, workload: str) -> None:
    """Energy over performance per area, a line from each published point to the modelled one."""
    own = rows[rows["id"].str.startswith(_FIGURES_4_TO_6)]
    points = own.pivot(index="scheme", columns="quantity", values=["published", "modelled"])
    energy = own[own["quantity"] == "energy"].set_index("scheme")
    points = points.loc[[scheme for scheme in energy.index if energy["workload"][scheme] == workload]]
    accuracy = published_accuracies(model)
    x = {column: 1 / points[column, "area"] for column in ("published", "modelled")}
    y = {column: points[column, "energy"] for column in ("published", "modelled")}
    names: dict[tuple[float, float], list[str]] = {}
    for scheme in points.index:
        ends = [[axis["published"][scheme], axis["modelled"][scheme]] for axis in (x, y)]
        axes.plot(*ends, color="grey", linewidth=0.8, zorder=1)
        value = f", {accuracy[scheme]:.2f}" if scheme in accuracy else ""
        at = x["published"][scheme], y["published"][scheme]
        names.setdefault(at, []).append(f"{scheme}{value}")
    for at, own_names in names.items():
        text = "\n".join(own_names)
        axes.annotate(text, at, xytext=(5, 3), textcoords="offset points", fontsize=7)
    axes.scatter(x["published"], y["published"], label="published", color=BLUE, zorder=2)
    axes.scatter(x["modelled"], y["modelled"], marker="s", label="modelled", color=ORANGE, zorder=2)
    axes.scatter([1.0], [1.0], color="black", marker="x", label=f"{_BASELINE}, {accuracy[_BASELINE]:.2f}")
    axes.set_xlabel(f"performance per area, {_BASELINE} = 1 (more is better)")
    axes.set_ylabel(f"energy, {_BASELINE} = 1 (less is better)")
    machine = energy["machine"].iloc[0]
    title = f"{model}, published {unit} in %; energy of {workload} on {machine}, one PE"
    axes.set_title(title, fontsize=10)
    axes.margins(x=0.22)
    axes.legend(fontsize=8, frameon=False)
