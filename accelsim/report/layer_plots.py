"""Where time goes, layer by layer, from a result folder: roofline, stalls, utilization."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np

from accelsim.arguments import path_of
from accelsim.report.plots import save_figure
from accelsim.report.read import LayerTable, read_results
from accelsim.sim.layer_run import STALL_REASONS
from accelsim.system.whole import whole_files, writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In a run of more layers than this the axis numbers layers instead of naming them, and points have no labels.
_MOST_NAMES = 64
_LABELLED = 4


def plot_folder(folder: str | Path, out: str | Path | None = None) -> list[Path]:
    """Draw roofline.*, stalls.* and utilization.* of a run, or of every scheme of a comparison.

    out: where to, by default into the result folder(s). Returns the files written. Raises AccelsimError for a
    folder that holds no results, and for a damaged file in it.
    """
    folder = path_of(folder, "plot")
    read = read_results(folder)
    target = folder if out is None else path_of(out, "plot: out")
    written: list[Path] = []
    with writing("plot", target), whole_files(target) as scratch:
        for name, run in read.items():
            own = name if out is None or len(read) > 1 else ""
            (scratch / own).mkdir(exist_ok=True)
            for stem, figure in (
                ("roofline", _roofline(run)),
                ("stalls", _stalls(run)),
                ("utilization", _utilization(run)),
            ):
                written += save_figure(figure, scratch / own / stem)
    return [target / path.relative_to(scratch) for path in written]


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _roofline(run: LayerTable) -> Figure:
    """Operations a cycle over operations a DRAM byte; layers without DRAM traffic stand at the right edge."""
    layers, arch = run.layers, run.arch
    peak = 2 * arch.pes * arch.lanes * arch.vector_size
    byte_rate = arch.dram_bits / 8
    moved = (layers["dram_read_bits"] + layers["dram_write_bits"]).to_numpy(float) / 8
    operations = 2 * layers["macs"].to_numpy(float)
    with np.errstate(divide="ignore"):
        intensity = operations / moved
    edge = 4 * max(peak / byte_rate, intensity[np.isfinite(intensity)].max(initial=1.0))
    intensity = np.where(np.isfinite(intensity), intensity, edge)
    achieved = operations / layers["cycles"].to_numpy(float)
    figure, axes = _figure(8.0, 5.0)
    roof = np.geomspace(min(intensity.min(), peak / byte_rate) / 2, 1.5 * edge, 200)
    axes.plot(roof, np.minimum(peak, roof * byte_rate), color="black", linewidth=1.2)
    colors = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    for number, bound in enumerate(sorted(layers["bound_by"].unique())):
        own = (layers["bound_by"] == bound).to_numpy()
        label = f"bound by {str(bound).replace('_', ' ')}"
        axes.scatter(intensity[own], achieved[own], s=22, color=colors[number % 10], label=label, alpha=0.8)
    for index in np.argsort(achieved / np.minimum(peak, intensity * byte_rate), kind="stable")[:_LABELLED]:
        axes.annotate(
            str(layers["layer"].iloc[index]),
            (intensity[index], achieved[index]),
            xytext=(4, -9),
            textcoords="offset points",
            fontsize=7,
            parse_math=False,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations per DRAM byte (no DRAM traffic: right edge)")
    axes.set_ylabel("operations per cycle")
    axes.annotate(f"peak {peak:,}", (roof[-1], peak), ha="right", va="bottom", fontsize=8)
    axes.set_title(run.title, fontsize=10, parse_math=False)
    axes.legend(fontsize=8, loc="lower right")
    return figure


def _places(axes: Axes, names: Sequence[str]) -> np.ndarray:
    places = np.arange(len(names))
    if len(names) <= _MOST_NAMES:
        axes.set_xticks(places, names, rotation=90, fontsize=7, parse_math=False)
    else:
        axes.set_xlabel("layer, by number")
    axes.set_xlim(-0.7, len(names) - 0.3)
    return places


def _width(layers: int) -> float:
    return min(16.0, max(6.0, 2.0 + 0.2 * layers))


def _stalls(run: LayerTable) -> Figure:
    """Cycles of each layer, mean over the PEs, by stall reason."""
    layers = run.layers
    figure, axes = _figure(_width(len(layers)), 4.6)
    places = _places(axes, list(layers["layer"]))
    colors = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    bottom = np.zeros(len(layers))
    for number, reason in enumerate(STALL_REASONS):
        cycles = (layers[f"{reason}_share"] * layers["cycles"]).to_numpy(float)
        axes.bar(places, cycles, 0.8, bottom=bottom, color=colors[number], label=reason.replace("_", " "))
        bottom += cycles
    axes.set_ylabel("cycles, mean over the PEs")
    axes.set_title(run.title, fontsize=10, parse_math=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8, frameon=False)
    return figure


def _utilization(run: LayerTable) -> Figure:
    """Share of peak that each layer reaches, in front of the share that its bound allows."""
    layers, arch = run.layers, run.arch
    peak = arch.pes * arch.lanes * arch.vector_size
    figure, axes = _figure(_width(len(layers)), 4.0)
    places = _places(axes, list(layers["layer"]))
    bound = np.minimum(1.0, (layers["macs"] / (layers["bound_cycles"] * peak)).to_numpy(float))
    axes.bar(places, bound, 0.8, color="0.85", label="at the layer's bound")
    axes.bar(places, layers["utilization"].to_numpy(float), 0.5, color="tab:blue", label="achieved")
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("utilization")
    axes.set_title(run.title, fontsize=10, parse_math=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8, frameon=False)
    return figure
